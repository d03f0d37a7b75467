/* mj_task: the task record and its versioned encoding.
 *
 * An mj_task is a view: its strings point into the bytes that it was decoded
 * from, or into the signal that changed it, and live as long as those do. */
#ifndef MJ_TASK_H
#define MJ_TASK_H

#include "auth/ulid.h"
#include "base/buf.h"
#include "base/names.h"
#include "os/owner.h"

#include <stdbool.h>
#include <stdint.h>

/* Limits of one record. Their sum bounds what a hostile provider can make us store. */
#define MJ_TASK_VERSION 4              /* the one that is written; every older one is read */
#define MJ_MAX_ATTEMPTS 8              /* submissions of one ref */
#define MJ_MAX_IDS 4                   /* task ids the provider gave for one attempt: more than one is a conflict */
#define MJ_MAX_IMAGES 16               /* image URLs besides the grid; the provider gives 4 */
#define MJ_MAX_TIMELINE 32             /* entries kept: the first few and the newest */
#define MJ_MAX_PROMPT 10000            /* bytes; PROVIDER.md */
#define MJ_MAX_TASK_ID 256             /* bytes; PROVIDER.md */
#define MJ_MAX_NAME 256                /* bytes of user_id, key and account */
#define MJ_MAX_URL 4096                /* bytes of an image URL */
#define MJ_MAX_REASON 500              /* bytes of an error or failReason that are kept */
#define MJ_MAX_JSON 65536              /* bytes of context and of meta, as JSON */
#define MJ_MAX_TIME ((int64_t)1 << 53) /* ms: what a double holds; so no sum of two overflows */

/*      symbol         name */
#define MJ_STATES(X)                                                                                                   \
    X(MJ_QUEUED, "queued")                                                                                             \
    X(MJ_SUBMITTING, "submitting")                                                                                     \
    X(MJ_AMBIGUOUS, "ambiguous")                                                                                       \
    X(MJ_PENDING, "pending")                                                                                           \
    X(MJ_SUCCEEDED, "succeeded")                                                                                       \
    X(MJ_FAILED, "failed")                                                                                             \
    X(MJ_LOST, "lost")                                                                                                 \
    X(MJ_CANCELLED, "cancelled")

typedef enum { MJ_STATES(MJ_SYMBOL) MJ_NSTATES } mj_state;

/* The status of one attempt, as far as it is known. On disk: keep the order. */
#define MJ_ATTEMPT_STATUSES(X)                                                                                         \
    X(MJ_ATTEMPT_NONE, "unsent")                                                                                       \
    X(MJ_ATTEMPT_INTENT, "submitting")                                                                                 \
    X(MJ_ATTEMPT_MAYBE, "ambiguous")                                                                                   \
    X(MJ_ATTEMPT_ACCEPTED, "accepted")                                                                                 \
    X(MJ_ATTEMPT_REFUSED, "refused")                                                                                   \
    X(MJ_ATTEMPT_SUCCEEDED, "succeeded")                                                                               \
    X(MJ_ATTEMPT_FAILED, "failed")

typedef enum { MJ_ATTEMPT_STATUSES(MJ_SYMBOL) MJ_NATTEMPT_STATUSES } mj_attempt_status;

/* Where a signal came from. On disk: keep the order. */
#define MJ_SOURCES(X)                                                                                                  \
    X(MJ_FROM_USER, "user")                                                                                            \
    X(MJ_FROM_SUBMIT, "submit")                                                                                        \
    X(MJ_FROM_CALLBACK, "callback")                                                                                    \
    X(MJ_FROM_POLL, "poll")                                                                                            \
    X(MJ_FROM_SWEEP, "sweep")                                                                                          \
    X(MJ_FROM_POLICY, "policy")

typedef enum { MJ_SOURCES(MJ_SYMBOL) MJ_NSOURCES } mj_source;

/* On disk: keep the order. */
#define MJ_MODES(X)                                                                                                    \
    X(MJ_FAST, "fast")                                                                                                 \
    X(MJ_RELAXED, "relaxed")

typedef enum { MJ_MODES(MJ_SYMBOL) MJ_NMODES } mj_mode;

typedef struct mj_attempt {
    mj_attempt_status status;
    bool slot;            /* holds one of its account's slots */
    int64_t submitted_at; /* when the intent was stored, ms; 0: never sent */
    int64_t slot_until;   /* submitted_at + timeout + grace, ms */
    mj_str account;       /* whose slot it takes; empty: not chosen yet */
    unsigned nids;
    mj_str ids[MJ_MAX_IDS];
} mj_attempt;

typedef struct mj_timeline_entry {
    int64_t at;     /* ms, of the first of `count` equal ones */
    int64_t until;  /* ms, of the last */
    uint32_t count; /* how often the same happened in a row */
    uint32_t attempt;
    uint8_t signal; /* mj_signal_kind */
    uint8_t result; /* mj_result: how it was taken */
    mj_source source;
    mj_state from, to;
    mj_str reason;
} mj_timeline_entry;

/* The URL of an image: head, then tail.  A record stores what the URLs of a task have in common once, so that the head
 * of a decoded one is the beginning of another URL. */
typedef struct mj_image_url {
    mj_str head, tail;
} mj_image_url;

typedef struct mj_task {
    uint8_t ref[MJ_ULID_BYTES];
    mj_state state;
    mj_mode mode;
    mj_source source; /* where the status that made it final came from */
    bool ready;       /* queued and may be sent as soon as a slot is free */
    bool late;        /* final by a status that came after we had decided otherwise */
    bool decided;     /* failed by our decision, not by the provider's status */
    bool adopted;     /* submitted elsewhere: its callback carries no token of ours */
    bool has_owner;
    uint32_t timeout;   /* seconds */
    int32_t priority;   /* higher goes first */
    uint32_t polls;     /* job-status answers that were asked for it */
    uint32_t absent;    /* counting answers that did not have it */
    uint32_t hints;     /* polled answers that said succeeded without an image */
    uint32_t tries;     /* submissions of this attempt that failed without naming a wait; they make the backoff */
    uint32_t event_seq; /* sequence number of its newest event; 0: none yet */
    int64_t created_at, updated_at, finished_at;
    int64_t due_at;     /* when reconcile must look at it; 0: never */
    int64_t expires_at; /* queued no longer than that; 0: for ever */
    int64_t absent_since, silent_ms;
    int64_t called_at; /* when a callback first came for it; 0: none did (since version 2) */
    int64_t asked_at;  /* when the provider was last asked about it, with or without an answer; 0: not since pending */
    mj_str account;    /* the one the user asked for; empty: any */
    mj_str prompt, mj_prompt, user_id, context, key, image, meta, error_code, error;
    mj_str files;            /* what a handler stored of it, as JSON (since version 3) */
    uint8_t fingerprint[16]; /* of the arguments: tells a repeated key from a conflicting one */
    unsigned nimages;
    mj_image_url images[MJ_MAX_IMAGES];
    unsigned nattempts; /* >= 1; the last is the current one */
    mj_attempt attempts[MJ_MAX_ATTEMPTS];
    mj_owner owner;
    uint32_t forgotten; /* timeline entries that were dropped */
    unsigned ntimeline;
    mj_timeline_entry timeline[MJ_MAX_TIMELINE];
} mj_task;

const char *mj_mode_name(unsigned m);
const char *mj_state_name(mj_state s);
int mj_state_parse(mj_str name); /* -1: none */
const char *mj_attempt_status_name(mj_attempt_status w);
const char *mj_source_name(unsigned s);
bool mj_state_final(mj_state s);

/* The current attempt. */
mj_attempt *mj_task_current(mj_task *t);
/* Attempt n (from 1), NULL when there is none. */
mj_attempt *mj_task_attempt(mj_task *t, uint32_t n);
/* The number of the newest attempt that has this task id, 0: none has it. */
uint32_t mj_task_attempt_of(const mj_task *t, mj_str id);

bool mj_image_url_eq(const mj_image_url *a, const mj_image_url *b);

/* Copies what a task has: of each array the entries that its counter says. */
void mj_task_copy(mj_task *to, const mj_task *from);

/* Encodes in the newest version. MJ_ENOMEM. */
int mj_task_encode(const mj_task *t, mj_buf *out);
/* Decodes every version that was ever written; *t is untouched on error. MJ_ECORRUPT, MJ_ESCHEMA (a newer version). A
 * decoded record is safe to compute with: counts, enums, key lengths and times are within their limits. */
int mj_task_decode(const void *p, size_t n, mj_task *t);

#endif
