/* A unit of work: what one batch of operations has loaded, and what it makes of it.
 *
 * Operations run one after the other on rows that the unit holds.  Nothing is
 * written before all of them have run: then each changed row is handed to the
 * backend once, whatever number of operations changed it.  So a failure before
 * that leaves the store as it was.  Reads of an index see the store as it was;
 * the code that reads merges in the rows that this unit changed (see the lists
 * below). */
#ifndef MJ_UNIT_H
#define MJ_UNIT_H

#include "base/error.h"
#include "store/backend.h"
#include "store/records.h"
#include "store/refs.h"

typedef struct mj_cap {
    char name[MJ_MAX_NAME + 1];
    uint32_t max_in_flight;
} mj_cap;

typedef struct mj_block mj_block; /* memory of a unit */

struct mj_store {
    const mj_backend *backend;
    void *db;
    mj_store_options options;
    mj_buf scratch;
    mj_block *memory, *spare; /* of a unit; kept for the next one */
    size_t ncaps;
    mj_cap *caps;
    mj_refs *refs;
    mj_counters owed; /* by units that changed nothing: stored by the next one that does */
    bool owes;        /* some of it is stored at close, if no write comes before */
    bool hold_all;    /* a claim that was denied a slot runs again, and waits for all accounts */
    int64_t ready;    /* queued jobs that may be sent, as the last unit left them: see mj_store_last_ready() */
    char detail[512];
};

/* Where the first open event of a task stands in the outbox; seq 0: nowhere. */
typedef struct mj_out {
    int64_t at;
    uint32_t seq;
} mj_out;

typedef struct mj_unit_event {
    uint32_t seq;
    bool gone, dirty;
    bool open; /* to be delivered: readable, and not buried */
    int64_t next_at;
    mj_str bytes;
} mj_unit_event;

typedef enum { MJ_ROW_NONE, MJ_ROW_TASK, MJ_ROW_TOMB } mj_row_kind;

typedef struct mj_unit_row {
    uint8_t ref[MJ_ULID_BYTES];
    bool looked;  /* kind and bytes are known */
    bool damaged; /* the store has it, and its bytes can't be had */
    mj_row_kind was_kind, kind;
    mj_str bytes;         /* as the operations so far have left it */
    bool changed;         /* bytes or facets are others than those stored */
    const mj_facets *was; /* set once it changed: as stored */
    mj_facets *is;        /* ... and as it is now; has room for that many attempts */
    unsigned is_room;
    bool events_known, out_changed;
    bool out_doubtful; /* out_was may not be what is stored: it is written anew */
    unsigned nevents, room;
    mj_unit_event *events; /* in the order of seq */
    mj_out out_was, out_is;
    bool listed_queue, listed_out;
    struct mj_unit_row *chain, *next, *next_queued, *next_due;
} mj_unit_row;

/* A user's key or a task id that this unit made. */
typedef struct mj_unit_name {
    mj_entry entry;
    struct mj_unit_name *chain;
} mj_unit_name;

typedef struct mj_unit_change {
    mj_change change;
    struct mj_unit_change *next;
} mj_unit_change;

typedef struct mj_queue mj_queue; /* of claim.c */
typedef struct mj_walk mj_walk;   /* of delivery.c */
typedef struct mj_ring mj_ring;   /* of refused.c */

typedef struct mj_unit {
    mj_store *s;
    mj_tx *tx;
    const mj_op *ops; /* all of this unit */
    size_t nops;
    bool ids_expected; /* see mj_unit_expect_ids() */
    int64_t now;
    int64_t sure; /* by when slots of known jobs end: earlier than now where this process' clock runs ahead */
    int rc;       /* the first failure that ends the whole unit; operations look at it and leave */
    uint32_t nclaims, ntakes; /* operations of these kinds: how much of the queue and of the outbox is wanted */
    uint32_t npauses;
    mj_rules rules;
    mj_tally totals; /* as stored */
    mj_judged judged;
    mj_tally tally; /* what this unit adds, with what the handle owes */
    bool dirty;     /* something is to be written */
    bool owes;      /* a signal was withheld, and its counts are not stored */
    bool remember;  /* the time of this commit, beside that since boot */
    bool accounts_known;
    unsigned nheld;
    mj_held *held;
    mj_hold *holds; /* for each of the store's caps, when there are claims: whether its slots may be given out */
    size_t nrows, nbuckets;
    mj_unit_row **buckets, *rows;
    mj_unit_row *queued, *due; /* rows that were put in the queue since the last claim; that have an event to deliver */
    mj_unit_name **names;      /* as many buckets as for rows */
    mj_unit_change *changes;   /* of rows without a ref, and of stale entries */
    size_t nchanges, ntouched, nevents;
    bool ticked; /* a claim would find nothing whose time has come */
    mj_queue *queues;
    mj_walk *outbox;
    mj_ring *ring;
} mj_unit;

/* handle.c: makes the handle usable in this process (after a fork it opens afresh). */
int mj_store_ready(mj_store *s);
/* A snapshot; it ends with the backend's abort(). */
int mj_read_begin(mj_store *s, mj_tx **tx);
/* What the reconciler made of the counters; all 0 when it made nothing yet. */
int mj_read_judged(mj_store *s, mj_tx *tx, mj_judged *out);
/* write.c: stores what the handle still owes to the counters, for its end. */
void mj_store_settle(mj_store *s);

/* ---- memory.c ---- */

/* Memory that lasts as long as the unit; NULL: there is none, and u->rc says so. */
void *mj_unit_alloc(mj_unit *u, size_t n);
void *mj_unit_zero(mj_unit *u, size_t n); /* all zero */
mj_str mj_unit_copy(mj_unit *u, const void *p, size_t n);
/* Between two units some of it is kept; at the end none is. */
void mj_unit_reset(mj_store *s);
void mj_unit_free(mj_store *s);

/* ---- unit.c ---- */

/* Begins a unit for these operations, and loads what they name. */
int mj_unit_begin(mj_unit *u, mj_store *s, const mj_op *ops, size_t n, int64_t now);
/* Writes what has changed, if anything has, and ends the unit; in between `ready` is called (may be NULL). */
int mj_unit_end(mj_unit *u, const mj_ready *ready);
/* ---- need.c ---- */

enum { MJ_TICK_IN_CLAIM = 64 }; /* what a unit with claims clears away of each kind before the first: bounded work */
/* Slots, waiting tasks and events whose time has come. */
mj_scan mj_scan_slots(const mj_unit *u, uint32_t limit);
mj_scan mj_scan_waits(const mj_unit *u, uint32_t limit);
mj_scan mj_scan_outbox(const mj_unit *u);
/* What these operations name is about to be read. */
void mj_unit_expect_ops(mj_unit *u, const mj_op *ops, size_t n);
/* ... and these scans, in one trip where that costs one. */
void mj_unit_expect(mj_unit *u, const mj_scan *scans, size_t n);
/* The tasks that entries lead to are about to be read and changed: waits for their other writers. */
void mj_unit_expect_tasks(mj_unit *u, const mj_entry *entries, size_t n);
/* A task does not have the id that a signal names, so the index of ids is asked: for those of all signals, once. */
void mj_unit_expect_ids(mj_unit *u);

/* ---- rows.c ---- */

/* The row of a ref, looked up in the store or not.  NULL: u->rc says why. */
mj_unit_row *mj_unit_row_of(mj_unit *u, const uint8_t *ref, bool look);
/* The row, if this unit has it already. */
mj_unit_row *mj_unit_seen(const mj_unit *u, const uint8_t *ref);
/* A task, decoded in place.  MJ_ENOTFOUND, MJ_ECORRUPT, MJ_ESCHEMA; or u->rc. */
int mj_unit_task(mj_unit *u, const uint8_t *ref, mj_unit_row **row, mj_task *t);
/* ---- put.c ---- */

/* Before a task that was read is changed: notes what the indexes hold of it. */
bool mj_unit_before(mj_unit *u, mj_unit_row *row, const mj_task *t);
/* Keeps a task's new record (row->bytes).  MJ_ELIMIT: an account too many, and nothing changed; or u->rc. */
int mj_unit_put(mj_unit *u, mj_unit_row *row, const mj_task *t);
/* Puts a tombstone in the task's place, or nothing in the tombstone's. */
void mj_unit_entomb(mj_unit *u, mj_unit_row *row, mj_str tomb, int64_t pruned_at);
void mj_unit_forget(mj_unit *u, mj_unit_row *row, const mj_tomb *t);

/* ---- names.c: keys and task ids, and what no row holds ---- */

/* Which task has this key or task id.  MJ_ENOTFOUND, MJ_ECORRUPT; or u->rc. */
int mj_unit_find(mj_unit *u, mj_entry *e);
bool mj_unit_add_name(mj_unit *u, mj_entry e);

/* A change of a row or entry that no ref's row holds. */
void mj_unit_change_of(mj_unit *u, mj_entry key, bool gone, mj_str bytes);
/* A row of META, as this unit has left it.  MJ_ENOTFOUND; or u->rc. */
int mj_unit_meta(mj_unit *u, mj_entry key, mj_str *bytes);

/* ---- accounts.c ---- */

/* The account's place in u->held, made when new; -1 when there are too many, or when u->rc says why. */
int mj_unit_account(mj_unit *u, mj_str name);
/* Where accounts are known: its slots, when an attempt takes (+1) or frees (-1) one. */
void mj_unit_hold(mj_unit *u, mj_str account, int by);
/* What two facets of one task differ in. */
void mj_unit_follow_slots(mj_unit *u, const mj_facets *was, const mj_facets *is);
/* Puts what changed of accounts among the changes. */
void mj_unit_put_accounts(mj_unit *u);

/* ---- events.c ---- */

/* The events of a row, loaded. */
bool mj_unit_events(mj_unit *u, mj_unit_row *row);
mj_unit_event *mj_unit_event_of(mj_unit_row *row, uint32_t seq);
/* Stores an event's record (bytes {0}: deletes it), and follows with the outbox. */
bool mj_unit_set_event(mj_unit *u, mj_unit_row *row, uint32_t seq, mj_str bytes, bool open, int64_t next_at);
/* The row's entry of the outbox is not the stored one: from now on the unit's counts. */
void mj_unit_out_changed(mj_unit *u, mj_unit_row *row);

/* ---- unit.c ---- */

/* Puts an entry among others of one index that are sorted by (at, ref, n).  False: there is no room for it, or another
 * one fell off the end. */
bool mj_unit_insert(mj_entry *sorted, uint32_t *n, uint32_t room, const mj_entry *e);

/* How many entries an operation goes over at most: what it finds is held in memory. */
static inline uint32_t mj_step_of(const mj_op *op)
{
    enum { MOST = 65536 };

    return op->limit < MOST ? op->limit : MOST;
}

/* Rows of the two lists, merged with what a scan of the store gives: those that the unit has changed since. */
static inline bool mj_unit_changed(const mj_unit *u, const uint8_t *ref)
{
    const mj_unit_row *r = mj_unit_seen(u, ref);
    return r && r->changed;
}

#endif
