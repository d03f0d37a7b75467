/* Inside of mj_store: shared by store/lmdb/env.c and this folder's files only. */
#ifndef MJ_STORE_IMPL_H
#define MJ_STORE_IMPL_H

#include "base/error.h"
#include "store/store.h"

#include <lmdb.h>

/* The databases of one environment.  Index entries are pure functions of the task
 * record (store/index.c), so that they can be checked and rebuilt from it. */
#define MJ_DBS(X)                                                                                                      \
    X(DB_META, "meta")       /* "schema", "counters", "measures" */                                                    \
    X(DB_TASK, "task")       /* ref -> record */                                                                       \
    X(DB_TID, "tid")         /* task id -> ref, attempt */                                                             \
    X(DB_KEY, "key")         /* user's key -> ref, fingerprint */                                                      \
    X(DB_USER, "user")       /* length, user id, ref */                                                                \
    X(DB_STATE, "state")     /* state, ref */                                                                          \
    X(DB_DUE, "due")         /* job, due at, ref */                                                                    \
    X(DB_QUEUE, "queue")     /* length, account, priority, ref */                                                      \
    X(DB_SLOT, "slot")       /* until, ref, attempt -> account */                                                      \
    X(DB_EVENT, "event")     /* ref, seq -> event record */                                                            \
    X(DB_OUTBOX, "outbox")   /* next at, ref, seq: the first open event of each task */                                \
    X(DB_ACCOUNT, "account") /* name -> slots held, pause */                                                           \
    X(DB_TOMB, "tomb")       /* ref -> tombstone of a pruned task */                                                   \
    X(DB_GRAVE, "grave")     /* pruned at, ref */                                                                      \
    X(DB_REFUSED, "refused") /* number -> callback that was refused (since schema 3) */

enum {
#define X(sym, name) sym,
    MJ_DBS(X)
#undef X
        DB_COUNT
};

/* ---- store/lmdb/env.c: one LMDB environment per process and directory ---- */

typedef struct mj_env mj_env;
int mj_env_acquire(const char *dir, const mj_store_options *o, mj_env **out, char *why, size_t why_size);
void mj_env_release(mj_env *e);
MDB_env *mj_env_lmdb(const mj_env *e);
MDB_dbi mj_env_dbi(const mj_env *e, int db);
/* Not usable in this process: it was opened before a fork. */
bool mj_env_foreign(const mj_env *e);
/* Begin and end of every transaction: end it (commit, abort or reset) and then call mj_env_leave().  A thread has one
 * at a time.  The map is never resized between the two.  A LMDB code, or one that mj_env_code() knows. */
int mj_env_begin(mj_env *e, unsigned flags, MDB_txn **txn);
void mj_env_leave(mj_env *e);
/* The same for a reader that is kept, reset, between its uses; all zero: not yet used. */
typedef struct mj_env_reader {
    MDB_txn *txn;
    bool known; /* is in the environment's list */
    struct mj_env_reader *next;
} mj_env_reader;
int mj_env_read(mj_env *e, mj_env_reader *r, bool wait);
void mj_env_forget(mj_env *e, mj_env_reader *r);
/* What LMDB gave back lies inside of the file, or MJ_ECORRUPT: sizes in a damaged file may be any. */
int mj_env_inside(mj_env *e, const MDB_val *v);
/* mdb_get() and mdb_cursor_get(), with key and value looked at. */
int mj_env_get(mj_env *e, MDB_txn *t, int db, MDB_val key, MDB_val *v);
int mj_env_next(mj_env *e, MDB_cursor *c, MDB_val *key, MDB_val *v, MDB_cursor_op op);
/* A sentence for a code, unless why has one. */
void mj_env_explain(const char *dir, int rc, char *why, size_t size);
/* The schema as this transaction sees it: 0, MJ_ESCHEMA (newer), MJ_EFORMAT or a LMDB code. */
int mj_env_schema(mj_env *e, MDB_txn *t);
/* The map's size, inside a transaction. */
uint64_t mj_env_size(const mj_env *e);
/* After MDB_MAP_FULL of a map of `full` bytes, with no transaction of this thread: makes it larger.
 * MJ_ENOSPC at the ceiling. */
int mj_env_grow(mj_env *e, uint64_t full);
/* Frees what readers of processes that died hold on to. */
void mj_env_bury_readers(mj_env *e);
/* A LMDB or errno code as ours. */
int mj_env_code(int rc);
/* The file system has no room for one more of LMDB's writes. */
bool mj_env_disk_full(const mj_env *e);
/* Inside a transaction: whether the file has its name still.  What is committed to one that has not is lost to all who
 * open the store from now on. */
bool mj_env_in_place(const mj_env *e, char *why, size_t size);

/* ---- store/read.c ---- */

/* A read transaction of this handle; every begin() that returned 0 needs its end(). */
int mj_store_begin(mj_store *s);
int mj_store_end(mj_store *s, int rc);
/* Begins, after every page of the file was looked at (store/check.c).  MJ_ECORRUPT: one is damaged, detail says
 * which. */
int mj_store_begin_sound(mj_store *s);
/* Makes the handle usable in this process (after a fork it opens afresh). */
int mj_store_ready(mj_store *s);
/* Stores what the handle still owes to the counters: for its end. */
void mj_store_settle(mj_store *s);
/* Notes what LMDB or the system said, for people. */
void mj_store_blame(mj_store *s, int rc);

/* ---- one write transaction ---- */

typedef struct mj_held { /* an account as the store knows it */
    char name[MJ_MAX_NAME + 1];
    uint32_t held;
    int64_t paused_until, paused_at; /* paused_at: when it was; 0: not known */
    char reason[64];
    uint32_t learned;   /* slots that were held when the provider said that there are no more ... */
    int64_t learned_at; /* ... which was then; 0: it never did */
    bool dirty;
} mj_held;

typedef struct mj_counters {
    uint64_t states[MJ_NSTATES];
    uint64_t events, buried;
    uint8_t last_ref[MJ_ULID_BYTES];
    int64_t latest; /* the time of the newest commit, by its clock; 0: not known */
} mj_counters;

typedef struct mj_cap {
    char name[MJ_MAX_NAME + 1];
    uint32_t max_in_flight;
} mj_cap;

struct mj_store {
    char *dir;
    mj_store_options options;
    mj_env *env;
    mj_env_reader reader;
    mj_buf scratch;
    size_t ncaps;
    mj_cap *caps;
    uint64_t owed[MJ_NCOUNTS]; /* counted by transactions that wrote nothing: stored by the next one that writes */
    bool owes;                 /* some of it is stored at close, if no write comes before */
    char detail[512];
};

typedef struct mj_txn {
    mj_store *s;
    MDB_txn *t;
    MDB_cursor *cursors[DB_COUNT]; /* those opened so far */
    int64_t now;
    int64_t sure; /* by when slots of known jobs end: earlier than now where this process' clock runs ahead */
    mj_counters counters;
    mj_measures measures;
    uint64_t counted[MJ_NCOUNTS]; /* as stored */
    mj_rules rules;               /* those of the handle, as experience has made them */
    bool dirty;
    bool owes;     /* a word was withheld, and what counts it is not stored */
    bool remember; /* the time of this commit, beside that since boot */
    unsigned nheld;
    mj_held held[MJ_MAX_ACCOUNTS];
} mj_txn;

/* ---- store/write.c ---- */

#define MJ_COUNTERS_KEY "counters"
int mj_counters_read(MDB_val v, mj_counters *c);
#define MJ_MEASURES_KEY "measures"
void mj_account_read(MDB_val key, MDB_val v, mj_held *h);

/* LMDB calls that return LMDB codes; MDB_NOTFOUND is not an error of the transaction. */
int mj_txn_get(mj_txn *x, int db, MDB_val key, MDB_val *value);
int mj_txn_put(mj_txn *x, int db, MDB_val key, MDB_val value);
int mj_txn_del(mj_txn *x, int db, MDB_val key);
/* First key at or after `from` into *key (and *value). */
int mj_txn_seek(mj_txn *x, int db, MDB_val from, MDB_val *key, MDB_val *value);
MDB_val mj_val(const void *p, size_t n);

/* ---- store/index.c ---- */

typedef struct mj_slot_facet {
    bool held;
    int64_t until;
    int account; /* index into mj_txn.held */
} mj_slot_facet;

/* What the indexes hold of a task, without pointing into its record. */
typedef struct mj_facets {
    bool exists;
    mj_state state;
    mj_due due;
    int64_t due_at;
    bool queued;
    unsigned nattempts, nids[MJ_MAX_ATTEMPTS];
    mj_slot_facet slots[MJ_MAX_ATTEMPTS];
} mj_facets;

int mj_facets_of(mj_txn *x, mj_task *t, mj_facets *f);
/* Writes t's record and brings every index from `old` to what t says.  Afterwards the record lies in the scratch
 * buffer, and t's strings may be gone.  A LMDB code. */
int mj_index_write(mj_txn *x, mj_task *t, const mj_facets *old);
/* The account's place in x->held, made when new; -1 when there are too many. */
int mj_txn_account(mj_txn *x, mj_str name);

enum { KEY_MAX = 320, DUE_KEY = 1 + 8 + MJ_ULID_BYTES, SLOT_KEY = 8 + MJ_ULID_BYTES + 4 };
size_t mj_key_state(uint8_t *k, mj_state s, const uint8_t *ref);
size_t mj_key_user(uint8_t *k, mj_str user, const uint8_t *ref);
size_t mj_key_due(uint8_t *k, mj_due due, int64_t at, const uint8_t *ref);
size_t mj_key_queue(uint8_t *k, mj_str account, int32_t priority, const uint8_t *ref);
size_t mj_key_slot(uint8_t *k, int64_t until, const uint8_t *ref, uint32_t attempt);

/* ---- store/event.c ---- */

/* Stores an event of t, numbered t->event_seq.  Uses the scratch buffer: t's strings may be gone afterwards. */
int mj_event_add(mj_txn *x, const mj_task *t, mj_event type);
/* The clock was set back: the event that this outbox key belongs to is due, or its lease begins now. */
int mj_event_rewind(mj_txn *x, const uint8_t *key);
/* The EVENT operations: LMDB code; the op's own outcome goes into op->code. */
int mj_event_op(mj_txn *x, mj_op *op);
/* ---- store/prune.c ---- */
#define MJ_PRUNE_KEY "prune_from" /* in meta: for each state whether a walk goes on, and from which ref */
int mj_prune_op(mj_txn *x, mj_op *op);
/* An operation before it runs: no outputs, this code. */
void mj_op_reset(mj_op *op, int code);
/* Applies a signal to the task op->ref: LMDB code; the op's own outcome goes into op->code. */
int mj_txn_apply(mj_txn *x, mj_op *op, const mj_signal *sig);
/* The clock was set back: what it put off of this task. */
int mj_txn_rewind(mj_txn *x, const uint8_t *ref);

/* ---- store/claim.c ---- */

/* CLAIM, PAUSE and TICK: LMDB code; the op's own outcome goes into op->code. */
int mj_claim_op(mj_txn *x, mj_op *op);

/* ---- store/clock.c ---- */

#define MJ_REWIND_KEY "rewind" /* in meta: how far the walk after a clock that was set back has come; absent: done */
/* At the beginning of a transaction: notices that the clock was set back, and goes on with the walk; and that this
 * process' clock runs ahead. */
int mj_clock_look(mj_txn *x);
#define MJ_CLOCK_KEY "clock" /* in meta: the time of a commit, and the time since boot then */
/* Before a commit: leaves its time behind. */
int mj_clock_remember(mj_txn *x);
/* Goes over up to `limit` entries.  *more: there are others. */
int mj_clock_walk(mj_txn *x, uint32_t limit, bool *more);

/* ---- store/refused.c ---- */
int mj_refused_op(mj_txn *x, mj_op *op);
/* ---- store/upgrade.c ---- */
int mj_upgrade_op(mj_txn *x, mj_op *op);
#define MJ_UPGRADE_KEY "upgrade" /* in meta: the ref up to which records are rewritten; absent: all are */

/* The record of one task, decoded in place: valid until the next write.  LMDB code or MJ_ECORRUPT/MJ_ESCHEMA. */
int mj_txn_task(mj_txn *x, const uint8_t *ref, mj_task *t, MDB_val *bytes);

#endif
