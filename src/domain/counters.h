/* mj_counters: how things went so far: counts, latencies, whether callbacks come.
 *
 * Pure, like mj_state.  Counters are sums, so that writers add to them side by side and read no common row.  What
 * follows from the sums (does the webhook work, which latencies are old) is judged by the reconciler alone, in a row
 * of its own.  Losing either row would lose no task's fact. */
#ifndef MJ_COUNTERS_H
#define MJ_COUNTERS_H

#include "base/names.h"
#include "domain/state.h"

/* Upper bounds of the latency buckets, in seconds; the last one has none. */
#define MJ_LATENCY_BOUNDS                                                                                              \
    1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 75, 90, 120, 150, 180, 240, 300, 450, 600, 900, 1800, 3600
#define MJ_NBUCKETS 26
#define MJ_NHOURS 24

/* How callbacks were answered, and how submissions and deliveries ended.  On disk: keep the order, add at the end. */
#define MJ_COUNTS(X)                                                                                                   \
    X(MJ_CALLBACK_STORED, "callback_stored")                                                                           \
    X(MJ_CALLBACK_DUPLICATE, "callback_duplicate")                                                                     \
    X(MJ_CALLBACK_STALE, "callback_stale")                                                                             \
    X(MJ_CALLBACK_UNKNOWN, "callback_unknown")                                                                         \
    X(MJ_CALLBACK_REFUSED, "callback_refused")                                                                         \
    X(MJ_CALLBACK_HINT, "callback_hint")                                                                               \
    X(MJ_SUBMIT_ACCEPTED, "submit_accepted")                                                                           \
    X(MJ_SUBMIT_REFUSED, "submit_refused")                                                                             \
    X(MJ_SUBMIT_REJECTED, "submit_rejected")                                                                           \
    X(MJ_SUBMIT_NOT_SENT, "submit_not_sent")                                                                           \
    X(MJ_SUBMIT_MAYBE, "submit_ambiguous")                                                                             \
    X(MJ_POLL_REQUESTS, "poll_requests")                                                                               \
    X(MJ_POLL_ANSWERED, "poll_answered")                                                                               \
    X(MJ_POLL_UNANSWERED, "poll_unanswered")                                                                           \
    X(MJ_ENDED_CALLBACK, "ended_callback")                                                                             \
    X(MJ_ENDED_POLL, "ended_poll")                                                                                     \
    X(MJ_EVENT_DELIVERED, "event_delivered")                                                                           \
    X(MJ_EVENT_RETRIED, "event_retried")                                                                               \
    X(MJ_EVENT_BURIED, "event_buried")                                                                                 \
    X(MJ_RECONCILED, "sweeps")

typedef enum { MJ_COUNTS(MJ_SYMBOL) MJ_NCOUNTS } mj_count;

typedef struct mj_histogram {
    uint64_t bucket[MJ_NBUCKETS]; /* not cumulative */
    uint64_t sum_ms;
} mj_histogram;

typedef struct mj_hour { /* tasks of ours that ended in this hour, and first callbacks that came in it */
    int64_t hour;        /* since the epoch */
    uint32_t ended, called;
} mj_hour;

/* Sums since the store was made; or what one batch adds. */
typedef struct mj_counters {
    uint64_t counts[MJ_NCOUNTS];
    mj_histogram ends[MJ_NMODES];  /* from submission to the provider's final status */
    mj_histogram calls[MJ_NMODES]; /* from submission to the callback */
    uint64_t ended, called;        /* as in mj_hour */
    mj_hour hours[MJ_NHOURS];      /* by hour % MJ_NHOURS; the later hour counts */
    int64_t answered_at;           /* no sum but the latest: when the provider answered a status request; 0: never */
} mj_counters;

/* The reconciler's conclusions. */
typedef struct mj_judged {
    int64_t judged_from;                 /* hours before this one do not count for the verdict */
    int64_t broken_since;                /* callbacks do not come; 0: they do, or nothing shows that they don't */
    int64_t reconciled_at, reconcile_ms; /* end and length of the last pass; 0: never */
    uint64_t ended, called;              /* of mj_counters when the verdict last changed */
    mj_histogram faded[MJ_NMODES];       /* the part of the callbacks' latencies that is too old to count */
} mj_judged;

const char *mj_count_name(unsigned count);
/* Seconds; 0 for the last bucket, which has no bound. */
uint32_t mj_latency_bound(unsigned bucket);

/* `set_back`: the clock was set back to `now`, so no later time of *to counts any more. */
void mj_counters_add(mj_counters *to, const mj_counters *add, bool set_back, int64_t now);
int mj_counters_encode(const mj_counters *m, mj_buf *out);
void mj_counters_read(mj_reader *r, mj_counters *m); /* r->bad: it can't be read */
int mj_judged_encode(const mj_judged *j, mj_buf *out);
int mj_judged_decode(mj_str bytes, mj_judged *j);
/* Reads the old record, in which sums and judgement were one. */
int mj_counters_decode_v1(mj_str bytes, mj_counters *m, mj_judged *j);

void mj_counters_count(mj_counters *m, mj_count count, uint64_t n);

/* The task before a signal, as far as counting needs it. */
typedef struct mj_before {
    mj_state state;
    int64_t called_at;
} mj_before;
/* Counts a signal: `code` and `effect` as mj_state_apply() gave them. */
void mj_counters_signal(mj_counters *m, mj_before before, const mj_task *t, const mj_signal *sig, int code,
                        const mj_effect *effect, int64_t now);

/* Whether callbacks come, judged by the tasks that ended in this hour and the one before. */
typedef enum { MJ_VERDICT_SAME, MJ_VERDICT_BROKEN, MJ_VERDICT_MENDED } mj_verdict;
/* Ends a pass, which *m does not count yet.  `judge`: there is a webhook to judge. */
mj_verdict mj_counters_reconciled(const mj_counters *m, mj_judged *j, bool judge, int64_t elapsed_ms, int64_t now);
/* How many tasks ended in this hour and the one before, and for how many a callback came. */
void mj_counters_recent(const mj_counters *m, int64_t now, uint32_t *ended, uint32_t *called);

/* The rules, adapted to how callbacks came so far. */
mj_rules mj_counters_rules(const mj_counters *m, const mj_judged *j, const mj_rules *given);

#endif
