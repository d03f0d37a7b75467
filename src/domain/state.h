/* mj_state: THE state machine.
 *
 * Pure: no IO, no clock, no allocation.  Submit answers, callbacks, polls,
 * decisions and the user's commands all become signals, and this is the only
 * code that changes a task by one.  The table in domain/state.c is PRODUCT.md's
 * table of states and edges. */
#ifndef MJ_STATE_H
#define MJ_STATE_H

#include "domain/task.h"

/* On disk (timeline): keep the order, add at the end. */
#define MJ_SIGNALS(X)                                                                                                  \
    X(SIG_CREATE, "create")         /* the task came to be */                                                          \
    X(SIG_READY, "ready")           /* a waiting task's time has come, or it has expired */                            \
    X(SIG_CLAIM, "claim")           /* a slot was given: the intent to send */                                         \
    X(SIG_ACCEPTED, "accepted")     /* submit answer with a task id */                                                 \
    X(SIG_NOT_SENT, "not_sent")     /* nothing can have arrived */                                                     \
    X(SIG_REFUSED, "refused")       /* definitely refused, to be tried again */                                        \
    X(SIG_REJECTED, "rejected")     /* definitely refused for good */                                                  \
    X(SIG_MAYBE_SENT, "maybe_sent") /* sent, and no usable answer */                                                   \
    X(SIG_OWNER_DEAD, "owner_dead") /* the sender died while it was submitting */                                      \
    X(SIG_RUNNING, "running")       /* provider: status 0, or a number nobody knows */                                 \
    X(SIG_SUCCEEDED, "succeeded")   /* provider: status 1 with an image */                                             \
    X(SIG_HINT, "hint")             /* provider: status 1 without a usable image */                                    \
    X(SIG_FAILED, "failed")         /* provider: status 2 */                                                           \
    X(SIG_ABSENT, "absent")         /* a status answer did not have it */                                              \
    X(SIG_UNANSWERED, "unanswered") /* the status request got no answer */                                             \
    X(SIG_LOOK, "look")             /* ask the provider soon: a callback nobody need believe */                        \
    X(SIG_GIVE_UP, "give_up")       /* decision on an ambiguous task: lost */                                          \
    X(SIG_RESUBMIT, "resubmit")     /* decision or command: a new attempt */                                           \
    X(SIG_WAIT, "wait")             /* decision on an ambiguous task: ask again later */                               \
    X(SIG_CANCEL, "cancel")         /* the user gave up */                                                             \
    X(SIG_SLOT_END, "slot_end")     /* the time an attempt may hold its slot is over */                                \
    X(SIG_KEPT, "kept")             /* a handler stored the task's files */

typedef enum {
#define X(sym, name) sym,
    MJ_SIGNALS(X)
#undef X
        SIG_COUNT
} mj_signal_kind;

/* How a signal was taken; the timeline tells it. On disk: keep the order. */
#define MJ_NOTES(X)                                                                                                    \
    X(MJ_NOTE_TAKEN, "taken")                                                                                          \
    X(MJ_NOTE_DUPLICATE, "duplicate")         /* said before */                                                        \
    X(MJ_NOTE_CONTRADICTION, "contradiction") /* the first terminal word wins */                                       \
    X(MJ_NOTE_CONFLICT, "conflict")           /* a second task id for one attempt */                                   \
    X(MJ_NOTE_STALE, "stale")                 /* too late to matter */                                                 \
    X(MJ_NOTE_OLD, "old_attempt")             /* about an attempt that is not the current one */

typedef enum {
#define X(sym, name) sym,
    MJ_NOTES(X)
#undef X
        MJ_NNOTES
} mj_note;

typedef struct mj_signal {
    mj_signal_kind kind;
    mj_source source;
    uint32_t attempt; /* which attempt it is about; 0: the one that has task_id, else the current one */
    int expect_state; /* apply only in this state (mj_state) and if `attempt` is current; -1: always */
    mj_str task_id;   /* when the provider named one */
    bool foreign_id;  /* ... and it is another task's: a conflict, never believed, never bound */
    mj_str account;   /* CLAIM */
    bool has_owner;
    mj_owner owner;  /* CLAIM */
    bool counts;     /* ABSENT: under the task's account, in an answer that knew another id */
    int64_t wait_ms; /* NOT_SENT, REFUSED, WAIT, and poll answers: how long to wait; < 0: default */
    mj_str error_code, error;
    mj_str remark; /* for the timeline alone, when there is no error */
    mj_str image, mj_prompt, meta;
    mj_str files; /* KEPT: JSON */
    unsigned nimages;
    mj_str images[MJ_MAX_IMAGES];
} mj_signal;

/* Durations that the machine goes by; defaults as in PRODUCT.md, Configuration. */
typedef struct mj_rules {
    int64_t poll_first_ms, poll_max_ms; /* the first wait for a callback; the longest between polls */
    int64_t lost_after_ms;              /* silence of a provider that answers */
    int64_t grace_ms;                   /* beyond `timeout` before an absence or ambiguity counts */
    bool learn;                         /* what follows is taken from how callbacks came so far (mj_measure) */
    int64_t first_ms[2];                /* by mode: when a callback is late; 0: poll_first_ms says */
} mj_rules;
extern const mj_rules mj_rules_default;

/* The facts that a policy hears of. On disk: keep the order. */
typedef enum { MJ_EVENT_NONE, MJ_EVENT_SUCCEEDED, MJ_EVENT_FAILED, MJ_EVENT_LOST, MJ_EVENT_AMBIGUOUS } mj_event;

typedef struct mj_step {
    bool changed;     /* the record differs and has to be written */
    bool withheld;    /* it would differ in its timeline alone, which was written less than a second ago */
    uint32_t attempt; /* which one the signal turned out to be about */
    mj_event event;   /* to be stored with the record */
} mj_step;

const char *mj_signal_name(unsigned kind);
int mj_signal_parse(mj_str name); /* -1: none */
const char *mj_note_name(unsigned note);
const char *mj_event_name(mj_event e);

/* Makes *t (ref, prompt and the user's fields filled in by the caller) a new
 * task, `queued` and ready; with a task_id in sig, an adopted one, `pending`. */
void mj_state_create(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now);

/* Applies a signal to a task, in place.
 *   MJ_OK         taken, the task's facts changed
 *   MJ_EDUPLICATE said before; at most the timeline and empty fields changed
 *   MJ_ESTALE     too late, contradicting or in conflict; at most the timeline changed
 * A callback's word that changes the timeline alone is written at most once a second; one that tells of progress and
 * changes no fact is never written.  Neither makes a difference to what is returned.
 *   MJ_ESTATE     a command that this state does not allow; nothing changed
 *   MJ_ECHANGED   expect_state or attempt did not hold; nothing changed
 *   MJ_EINVAL     it names an attempt that never was; nothing changed
 *   MJ_ELIMIT     resubmitted MJ_MAX_ATTEMPTS times; nothing changed */
int mj_state_apply(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now, mj_step *step);

/* The clock that stored the task was ahead, and was set right: what waits is due at `now`, or, where it is the careful
 * side to wait, bounded by the wait that it was given, from now on.  False: nothing changed. */
bool mj_state_rewind(mj_task *t, const mj_rules *rules, int64_t now);

/* A wall clock that is off by no more than this was not stepped: nobody minds to wait so long, and a writer may have
 * waited for its turn as long since it looked at the clock. */
enum { MJ_CLOCK_STEP_MS = 60000 };

/* What a sweep has to do with a task when its due_at has come. Part of the due
 * index' key, so that each job reads only its own. On disk: keep the order. */
typedef enum { MJ_DUE_NONE, MJ_DUE_POLL, MJ_DUE_QUEUE, MJ_DUE_RESOLVE, MJ_DUE_OWNER } mj_due;
mj_due mj_state_due(const mj_task *t);

#endif
