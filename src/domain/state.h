/* mj_state: THE state machine.
 *
 * Pure: no IO, no clock, no allocation.  Submit answers, callbacks, polls,
 * decisions and the user's commands all become signals, and this is the only
 * code that changes a task by one.  Its parts: domain/edges.c is PRODUCT.md's
 * table of states and edges, domain/attempt.c reads what a signal says of its
 * attempt, domain/state.c changes the task and alone assigns its state,
 * domain/timeline.c decides whether the change is worth a write. */
#ifndef MJ_STATE_H
#define MJ_STATE_H

#include "domain/signal.h"

/* Durations, in milliseconds; defaults as in PRODUCT.md, Configuration. */
typedef struct mj_rules {
    int64_t poll_first_ms, poll_max_ms; /* the first wait for a callback; the longest between polls */
    int64_t lost_after_ms;              /* how long a provider that answers may say nothing new */
    int64_t grace_ms;                   /* grace period after `timeout`, before absence or ambiguity counts */
    bool polled;                        /* no callback can come, so polls must tell */
    bool adapt;                         /* adapt the schedule to how callbacks came so far (mj_counters) */
    int64_t first_ms[2]; /* by mode: when a callback is late, or a job may be done; 0: poll_first_ms says */
} mj_rules;
extern const mj_rules mj_rules_default;

/* The events for the policy. On disk: keep the order. */
typedef enum { MJ_EVENT_NONE, MJ_EVENT_SUCCEEDED, MJ_EVENT_FAILED, MJ_EVENT_LOST, MJ_EVENT_AMBIGUOUS } mj_event;

typedef struct mj_effect {
    bool changed;     /* the record changed and must be written */
    bool withheld;    /* only its timeline would change, which was written less than a second ago */
    uint32_t attempt; /* the attempt that the signal is about */
    mj_event event;   /* to be stored with the record */
} mj_effect;

const char *mj_event_name(mj_event e);

/* Makes *t (ref, prompt and the user's fields filled in by the caller) a new
 * task, `queued` and ready; with a task_id in sig, an adopted one, `pending`. */
void mj_state_create(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now);

/* Applies a signal to a task, in place.
 *
 *   MJ_OK         taken; the task's facts changed
 *   MJ_EDUPLICATE known before; at most the timeline and empty fields changed
 *   MJ_ESTALE     too late, a contradiction or a conflict; at most the timeline changed
 * A callback that changes only the timeline is written at most once a second; one that reports progress and changes no
 * fact is never written.  The returned code is the same.
 *   MJ_ESTATE     a command that this state does not allow; nothing changed
 *   MJ_ECHANGED   expect_state or attempt did not match; nothing changed
 *   MJ_EINVAL     there is no such attempt; nothing changed
 *   MJ_ELIMIT     resubmitted MJ_MAX_ATTEMPTS times; nothing changed */
int mj_state_apply(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now, mj_effect *effect);

/* Takes a task along the next entry of its timeline again: sig is the signal that the entry tells of.  Nothing is
 * decided: the entry holds the state before and after, and how the signal was taken.  SIG_CREATE makes the task, with a
 * task id an adopted one.  Entries before this one may have been dropped.  A conflict without a task id was not
 * believed.  Not rebuilt: the timeline, due_at, and how long the provider was silent. */
void mj_state_retrace(mj_task *t, const mj_signal *sig, const mj_timeline_entry *m, const mj_rules *rules);

/* The clock that stored the task was ahead and was set right.  What waits is due at `now`; where waiting is the
 * careful choice, it waits at most its original wait from now on.  False: nothing changed. */
bool mj_state_rewind(mj_task *t, const mj_rules *rules, int64_t now);

/* A wall clock that is off by no more than this was not stepped: the wait does no harm, and a writer may have waited
 * as long for its turn since it read the clock. */
enum { MJ_CLOCK_STEP_MS = 60000 };

/* What reconcile does with a task when its due_at has come. Part of the due index' key, so that each job reads only
 * its own entries. On disk: keep the order. */
typedef enum { MJ_DUE_NONE, MJ_DUE_POLL, MJ_DUE_QUEUE, MJ_DUE_RESOLVE, MJ_DUE_OWNER } mj_due;
mj_due mj_state_due(const mj_task *t);

#endif
