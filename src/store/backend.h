/* What a database must do to be a store.  spec/c/backend_conformance.h holds each of these promises as a test.
 *
 * A backend moves rows and decides nothing: no rule about a task, a slot or an
 * event is written here or below.  The engine says what a batch needs, reads it,
 * runs the rules on it, and hands all changes down at once.
 *
 * Rows are the entries of META, TASK, TOMB, EVENT, REFUSED and ACCOUNT, which
 * have bytes, at least one; the other indexes have entries alone, which follow
 * from facets.  META may also hold rows of the backend itself: the engine never
 * scans it, nor uses the names "counters", "measures" and "schema".
 *
 * An account is there when it has a row, or when a slot is held under it: then
 * `n` of its entry is the number of SLOT entries with its name.  One without a
 * row has no bytes.
 *
 * Names have up to MJ_MAX_NAME bytes of any value, 0 included; only QUEUE has
 * empty ones.  Times and numbers (`at`) are never negative.  `n` of STATE and DUE
 * fits a byte.
 *
 * Strings that a backend gives live until commit or abort, also after apply();
 * those of a scan in a read transaction until its callback returns. */
#ifndef MJ_BACKEND_H
#define MJ_BACKEND_H

#include "domain/facets.h"
#include "store/store.h"
#include "store/tally.h"

enum { MJ_BACKEND_ABI = 5 };

/* A walk over one index, in the order of its fields.  Entries with the same name lie together; which of two names
 * comes first is the backend's choice, and always the same. */
typedef struct mj_scan {
    mj_index index;
    unsigned fixed;    /* 1: the first field has to be that of `from` (USER, QUEUE, STATE, DUE, EVENT); 0: any may be */
    bool positioned;   /* begin at `from` (whole), or where it would be; not at the first entry with its fixed field */
    bool after;        /* with positioned: begin behind it */
    bool newest_first; /* descending */
    bool rows;         /* give the task's record with each entry of an index of tasks */
    bool bounded;      /* DUE with a fixed job, SLOT, OUTBOX, GRAVE: end before the first entry whose `at` > until */
    bool claim;        /* for a writer: see load() */
    uint32_t limit;    /* give that many entries at most; 0: all */
    uint32_t head;     /* of a row's own bytes so many are enough; 0: all */
    int64_t until;
    mj_entry from;
} mj_scan;

/* bytes: the row's, or the task's record if the scan asked for it ({0} when there is none).  false ends the scan, which
 * then gives MJ_OK.  The callback may read in the same transaction. */
typedef bool (*mj_scan_fn)(void *ctx, const mj_entry *e, mj_str bytes);

/* An account whose slots a batch gives out.  While one writer holds it, no other writer does, and its number of slots
 * does not grow by claims of others. */
typedef struct mj_hold {
    mj_str account;
    bool held; /* out */
} mj_hold;

/* What a batch is about to read, so that a backend over a network fetches it in one round trip. */
typedef struct mj_need {
    const mj_entry *keys; /* sorted by mj_entry_order(), each once; a writer's: TASK, TID, KEY, ACCOUNT, META */
    size_t nkeys;
    const mj_scan *scans; /* as they will be asked for (mj_scan_same) */
    size_t nscans;
    mj_hold *holds;
    size_t nholds;
    bool wait;   /* hold all of them; otherwise those that are free, and at least one */
    bool named;  /* some tasks are named by their TID or KEY alone: lock those, too, in the same order */
    bool events; /* the rows of EVENT of the tasks will be read, too */
} mj_need;

/* One row that becomes `bytes` (gone: is deleted), with what follows for the indexes (mj_facets_diff); or, with was and
 * is NULL and an index without bytes, one entry.  What is put may be there already, and is replaced; what goes need not
 * be there.  A name (KEY, TID) that one ref gives up and another takes in the same batch belongs to the other,
 * whichever of the two changes comes first: so only the entry that still belongs to the ref is deleted. */
typedef struct mj_change {
    mj_entry key;
    bool gone;
    mj_str bytes;
    const mj_facets *was, *is; /* both or none; TASK and TOMB */
} mj_change;

typedef struct mj_tx mj_tx;

/* Every function gives MJ_OK or one of our codes, and says in the buffer that open() was given what exactly failed.
 * `NULL:` says what the engine does when a backend has no such function.
 *
 * MJ_EAGAIN of begin(), load(), get(), scan(), apply() or commit(): nothing was stored, and the same batch may be run
 * again.  The engine does so at once, MJ_MAX_RERUNS times at most, and then gives MJ_EBUSY.  A pause, with jitter where
 * writers may collide, is the backend's: in begin(), before the next try.
 * MJ_EUNSURE of commit(): all of it is stored or nothing, and the backend could not find out which within its deadline.
 * A backend whose connection dies under a commit looks that up itself, and gives MJ_OK or MJ_EAGAIN. */
enum { MJ_MAX_RERUNS = 16 };

typedef void (*mj_intake_fn)(void *ctx, mj_str name, mj_str job);

struct mj_backend {
    unsigned abi; /* MJ_BACKEND_ABI */
    size_t bytes; /* sizeof(mj_backend) */
    const char *name;
    bool waits; /* a call may wait for a network: not on an event loop */

    /* Whether there is a store: MJ_OK; MJ_ENOTFOUND: provably none; else `why` says why it can't be looked at. */
    int (*exists)(const char *where, const mj_store_options *o, char *why, size_t why_size);
    /* `where` and the strings of *o last until open() returns, `why` as long as the handle. */
    int (*open)(const char *where, const mj_store_options *o, void **db, char *why, size_t why_size);
    void (*close)(void *db);
    /* Makes a handle usable in this process: after a fork it opens afresh, and *forked is set.  NULL: it always is. */
    int (*ready)(void *db, bool *forked);
    bool (*foreign)(const void *db); /* it was opened before a fork, and is not usable yet.  NULL: it never is */
    /* Wall-clock milliseconds by the clock that all processes of the store go by.  Never waits.  NULL: the system's. */
    int64_t (*now)(void *db);

    /* A handle has one transaction at a time, and so has a thread: a writer may wait until the readers of its process
     * have ended (LMDB does, to make its map larger).  Readers wait for no writer, and see one snapshot.  A writer
     * reads nothing of what it has applied.  What a writer has read by load(), get() or a scan with `claim`, rows that
     * are not there included, no other writer changes until it ends; or one of the two gets MJ_EAGAIN.  Rows of META
     * are read without that: many batches read them, and the last writer wins; but for those named "intake/...". */
    int (*begin)(void *db, bool write, mj_tx **tx);
    /* Fetches what is needed, in one round trip or two: afterwards get() of these keys, and scan() of these scans, need
     * none.  With a task's key come its record or its tombstone, and its rows of EVENT if `events` asks for them (a
     * scan of them needs no trip then; otherwise the first one fetches those of all tasks that were loaded); with a key
     * of TID or KEY, or an entry of a scan with `claim`, comes the task that it leads to.  In a write transaction tasks
     * are locked, in ascending order of refs, and the holds come first; a scan with `claim` passes over tasks that
     * other writers have locked, and need not be repeated to be true when the lock was waited for. May come several
     * times in a transaction, and in a read transaction, too, which locks nothing.  A change of an EVENT or OUTBOX
     * entry is made by a writer that has loaded the task.  NULL: get() and scan() cost no trips, and one writer runs at
     * a time; all holds are held. */
    int (*load)(mj_tx *tx, const mj_need *need);
    /* The row or entry with this key; MJ_ENOTFOUND; MJ_ECORRUPT: this one can't be read.  What follows from the key
     * (see MJ_INDEXES) is filled in; fields that the index does not have may have any value afterwards. */
    int (*get)(mj_tx *tx, mj_entry *key, mj_str *bytes);
    int (*scan)(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx);
    /* The number of entries; exact (but for META).  For check(), which takes its time. */
    int (*count)(mj_tx *tx, mj_index index, uint64_t *n);
    /* The sum of all tallies.  For a writer those of other writers may be some seconds old. */
    int (*totals)(mj_tx *tx, mj_tally *out);
    /* Once per write transaction, after all reading; commit() or abort() follows, abort() also when it failed.  Changes
     * apply in their order: first what no task's facets say, then the tasks' changes, in ascending order of refs and
     * those of one ref together.  n may be 0.  All of it is stored, or nothing: also with what was read in between. */
    int (*apply)(mj_tx *tx, const mj_change *changes, size_t n, const mj_tally *add);
    int (*commit)(mj_tx *tx); /* ends the transaction in any case; then all of it is stored, durably, or nothing */
    void (*abort)(mj_tx *tx);

    /* Waits, if this handle's writes have kept other writers waiting lately: see mj_store_give_way().  NULL: writers
     * run side by side. */
    int64_t (*give_way)(void *db);

    /* One holder of a name among all processes of the store; MJ_EBUSY.  Its death lets go of it, at once or after a
     * time that the backend bounds.  While it is held, the handle is used from time to time; if not, and another
     * process has it by now, begin() of a writer gives MJ_EBUSY.  unlock() in a child of fork() frees memory, and the
     * parent goes on holding the lock. */
    int (*lock)(void *db, const char *name, mj_lock **held);
    void (*unlock)(mj_lock *held);
    /* A note that outlives this process: text under a name of letters, digits, '-' and '.'.  text {0} removes it.
     * NULL: a row of META. */
    int (*mark)(void *db, const char *name, mj_str text);
    int (*marked)(void *db, const char *name, mj_buf *out); /* MJ_ENOTFOUND */

    /* MJ_ECORRUPT: the files are damaged, so that reading all of them could end the process.  Comes first in a read
     * transaction, which may see a later state of the store afterwards.  NULL: the database sees to that. */
    int (*sound)(mj_tx *tx);
    void (*tidy)(void *db); /* lets go of what dead processes hold on to.  NULL: nothing */
    void (*trim)(void *db); /* ... of what this process keeps in memory only to be quick.  NULL: nothing */
    int (*size)(mj_tx *tx, uint64_t *used, uint64_t *reserved); /* bytes; reserved 0: it is bounded elsewhere */
    /* A copy in directory `to`; only abort() follows.  MJ_EEXISTS, before anything is read; MJ_ECORRUPT: the store is
     * not sound.  One that makes none says how to, and gives MJ_EINVAL. */
    int (*backup)(mj_tx *tx, const char *to);
    /* When a host's heartbeat was last seen, ms ago; its boot id names it.  MJ_ENOTFOUND: never.  NULL: there is one
     * host. */
    int (*host)(void *db, const uint8_t boot[16], int64_t *ago);
    int (*facts)(void *db, mj_fact_fn tell, void *ctx); /* see mj_store_facts().  NULL: none */
    /* Jobs that were put into the database by its own means: rows of META named "intake/ID", oldest first, without
     * those that have been refused.  To refuse one is to put the reason as its bytes.  NULL: there are none. */
    int (*intake)(void *db, uint32_t limit, mj_intake_fn each, void *ctx);
    /* For a store that is moved, after the note that says so: when it returns, no transaction commits any more that did
     * not see the note; those of the database's own means, too.  MJ_EBUSY: one is still open.  NULL: one writer runs at
     * a time. */
    int (*barrier)(void *db);
    const char *(*library)(void *db); /* the software below; db NULL: without a store */
};

extern const mj_backend mj_backend_lmdb;

/* entry.c */
/* Of two keys of one kind or two: the order in which load() gets them and all writers lock: by index, then by fields,
 * names by bytes. */
int mj_entry_order(const mj_entry *a, const mj_entry *b);
bool mj_scan_same(const mj_scan *a, const mj_scan *b);

#endif
