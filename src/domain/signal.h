/* mj_signal: what may happen to a task, and how it was taken.  Pure. */
#ifndef MJ_SIGNAL_H
#define MJ_SIGNAL_H

#include "base/names.h"
#include "domain/task.h"

/* On disk (timeline): keep the order, add at the end. */
#define MJ_SIGNALS(X)                                                                                                  \
    X(SIG_CREATE, "create")         /* the task was made */                                                            \
    X(SIG_READY, "ready")           /* a waiting task's time has come, or it has expired */                            \
    X(SIG_CLAIM, "claim")           /* a slot was given: the intent to send */                                         \
    X(SIG_ACCEPTED, "accepted")     /* submit answer with a task id */                                                 \
    X(SIG_NOT_SENT, "not_sent")     /* the request did not reach the provider */                                       \
    X(SIG_REFUSED, "refused")       /* definitely refused; try again later */                                          \
    X(SIG_REJECTED, "rejected")     /* definitely refused for good */                                                  \
    X(SIG_MAYBE_SENT, "maybe_sent") /* sent, and no usable answer */                                                   \
    X(SIG_OWNER_DEAD, "owner_dead") /* the sender died while it was submitting */                                      \
    X(SIG_RUNNING, "running")       /* provider: status 0, or an unknown number */                                     \
    X(SIG_SUCCEEDED, "succeeded")   /* provider: status 1 with an image */                                             \
    X(SIG_HINT, "hint")             /* provider: status 1 without a usable image */                                    \
    X(SIG_FAILED, "failed")         /* provider: status 2 */                                                           \
    X(SIG_ABSENT, "absent")         /* a status answer does not have the task */                                       \
    X(SIG_UNANSWERED, "unanswered") /* the status request got no answer */                                             \
    X(SIG_LOOK, "look")             /* poll soon: a callback that can't be believed */                                 \
    X(SIG_GIVE_UP, "give_up")       /* decision on an ambiguous task: lost */                                          \
    X(SIG_RESUBMIT, "resubmit")     /* decision or command: a new attempt */                                           \
    X(SIG_WAIT, "wait")             /* decision on an ambiguous task: ask again later */                               \
    X(SIG_CANCEL, "cancel")         /* the user gave up */                                                             \
    X(SIG_SLOT_END, "slot_end")     /* an attempt may hold its slot no longer */                                       \
    X(SIG_KEPT, "kept")             /* a handler stored the task's files */

typedef enum { MJ_SIGNALS(MJ_SYMBOL) SIG_COUNT } mj_signal_kind;

/* How a signal was taken; the timeline shows it. On disk: keep the order. */
#define MJ_RESULTS(X)                                                                                                  \
    X(MJ_RESULT_TAKEN, "taken")                                                                                        \
    X(MJ_RESULT_DUPLICATE, "duplicate")         /* known before */                                                     \
    X(MJ_RESULT_CONTRADICTION, "contradiction") /* the first final status counts */                                    \
    X(MJ_RESULT_CONFLICT, "conflict")           /* a second task id for one attempt */                                 \
    X(MJ_RESULT_STALE, "stale")                 /* too late to matter */                                               \
    X(MJ_RESULT_OLD, "old_attempt")             /* about an attempt that is not the current one */

typedef enum { MJ_RESULTS(MJ_SYMBOL) MJ_NRESULTS } mj_result;

typedef struct mj_signal {
    mj_signal_kind kind;
    mj_source source;
    uint32_t attempt; /* the attempt that it is about; 0: the one that has task_id, else the current one */
    int expect_state; /* apply only in this state (mj_state) and if `attempt` is current; -1: always */
    mj_str task_id;   /* if the provider named one */
    bool foreign_id;  /* ... and it belongs to another task: a conflict, never believed, never bound */
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

const char *mj_signal_name(unsigned kind);
const char *mj_result_name(unsigned result);

/* The provider's status of a task: running, succeeded (with an image or without), failed. */
bool mj_signal_is_status(mj_signal_kind k);
/* ... or a poll's answer that does not have the task. */
bool mj_signal_is_answer(mj_signal_kind k);
/* A command of the user's or a decision of the policy's. */
bool mj_signal_is_decision(mj_signal_kind k);

#endif
