/* What is stored beside tasks, and how: events, tombstones, accounts, refused callbacks.
 *
 * Like a task's record, each is versioned by its first byte or by its length, and
 * an older one is always read. */
#ifndef MJ_RECORDS_H
#define MJ_RECORDS_H

#include "base/error.h"
#include "store/backend.h"

#define MJ_JUDGED_KEY "judged"     /* in META: mj_judged, which reconcile writes */
#define MJ_MEASURES_KEY "measures" /* in META: sums and judgement, as the first versions had it; read only */
#define MJ_UPGRADE_KEY "upgrade"   /* in META: the ref up to which records are rewritten; absent: all are */
#define MJ_PRUNE_KEY "prune_from"  /* in META: for each state whether a walk goes on, and from which ref */
#define MJ_REWIND_KEY "rewind" /* in META: how far the walk after a clock that was set back has come; absent: done */
#define MJ_MOVING_KEY "moving" /* in META: that the store is being copied, or was, and from or to where; see copy.h */
#define MJ_CLOCK_KEY "clock"   /* in META: the time of a commit, and the time since boot then */

typedef struct mj_held { /* an account as the store knows it */
    char name[MJ_MAX_NAME + 1];
    uint32_t held;                   /* slots; no part of its row */
    int64_t paused_until, paused_at; /* paused_at: when it was; 0: not known */
    char reason[64];
    uint32_t observed;   /* slots that were held when the provider said that there are no more ... */
    int64_t observed_at; /* ... which was then; 0: it never did */
    bool stored;         /* it has a row */
    bool dirty;
} mj_held;

/* MJ_ENOMEM */
int mj_event_encode(const mj_event_record *e, mj_buf *out);
int mj_tomb_encode(const mj_task *t, int64_t pruned_at, mj_buf *out);
void mj_account_write(const mj_held *h, mj_buf *out);
void mj_account_read(const mj_entry *e, mj_str bytes, mj_held *h);
/* A refused callback without its number, which is its key. */
void mj_refused_write(const mj_op *op, int64_t now, mj_buf *out);

#endif
