/* What a database must do to be a store.  spec/c/backend_conformance.h holds each of these promises as a test.
 *
 * A backend moves rows and decides nothing: no rule about a task, a slot or an
 * event is written here or below.  The engine reads what a batch needs, runs the
 * rules on it, and hands all changes down at once.
 *
 * Rows are the entries of META, TASK, TOMB, EVENT, REFUSED and ACCOUNT, which
 * have bytes, at least one; the other indexes have entries alone, which follow
 * from facets.  META may also hold rows of the backend itself: the engine never
 * scans it, nor uses the names "counters" and "schema".
 *
 * Names have up to MJ_MAX_NAME bytes of any value, 0 included; only QUEUE has
 * empty ones.  Times and numbers (`at`) are never negative.  `n` of STATE and DUE
 * fits a byte.
 *
 * All strings that a backend gives live until commit or abort, also after
 * apply(). */
#ifndef MJ_BACKEND_H
#define MJ_BACKEND_H

#include "domain/facets.h"
#include "store/store.h"

enum { MJ_BACKEND_ABI = 1 };

/* Sums over all that was ever committed: a backend adds a batch's differences to them. */
typedef struct mj_tally {
    int64_t states[MJ_NSTATES], events, buried;
    int64_t latest; /* no sum: the time of the newest commit, by its clock; 0: not known */
} mj_tally;

/* A walk over one index, in the order of its fields.  Entries with the same name lie together; which of two names
 * comes first is the backend's choice, and always the same. */
typedef struct mj_scan {
    mj_index index;
    unsigned fixed;    /* 1: the first field has to be that of `from` (USER, QUEUE, STATE, DUE, EVENT); 0: any may be */
    bool positioned;   /* begin at `from` (whole), or where it would be; not at the first entry with its fixed field */
    bool after;        /* with positioned: begin behind it */
    bool newest_first; /* descending */
    bool rows;         /* give the task's record with each entry of an index of tasks */
    mj_entry from;
} mj_scan;

/* bytes: the row's, or the task's record if the scan asked for it ({0} when there is none).  false ends the scan, which
 * then gives MJ_OK.  The callback may read in the same transaction. */
typedef bool (*mj_scan_fn)(void *ctx, const mj_entry *e, mj_str bytes);

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
 * MJ_EAGAIN of apply() or commit(): nothing was stored, and the same batch may be run again.  The engine does so at
 * once and as often as it is told to: a backend that needs a pause or a limit takes care of it, and gives MJ_EBUSY in
 * the end. */
typedef struct mj_backend {
    unsigned abi; /* MJ_BACKEND_ABI */
    const char *name;
    int (*open)(const char *where, const mj_store_options *o, void **db, char *why, size_t why_size);
    void (*close)(void *db);
    /* Makes a handle usable in this process: after a fork it opens afresh, and *forked is set. */
    int (*ready)(void *db, bool *forked);
    bool (*foreign)(const void *db); /* it was opened before a fork, and is not usable yet */
    /* A handle has one transaction at a time, and so has a thread: a writer may wait until the readers of its process
     * have ended (LMDB does, to make its map larger).  Readers wait for no writer.  Until commit a transaction reads
     * the store as it was when it began: a reader sees no later commit, a writer not what it has applied.  A writer
     * keeps other writers away from what it reads. */
    int (*begin)(void *db, bool write, mj_tx **tx);
    /* The row or entry with this key; MJ_ENOTFOUND; MJ_ECORRUPT: this one can't be read.  What follows from the key
     * (see MJ_INDEXES) is filled in; fields that the index does not have may have any value afterwards. */
    int (*get)(mj_tx *tx, mj_entry *key, mj_str *bytes);
    int (*scan)(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx);
    /* The number of entries; exact (but for META), in constant time or nearly. */
    int (*count)(mj_tx *tx, mj_index index, uint64_t *n);
    int (*totals)(mj_tx *tx, mj_tally *out);
    /* Once per write transaction, after all reading; commit() or abort() follows, abort() also when it failed.  Changes
     * apply in their order: first what no task's facets say, then the tasks' changes, in ascending order of refs and
     * those of one ref together.  n may be 0. */
    int (*apply)(mj_tx *tx, const mj_change *changes, size_t n, const mj_tally *add);
    int (*commit)(mj_tx *tx); /* ends the transaction in any case; then all of it is stored, durably, or nothing */
    void (*abort)(mj_tx *tx);
    /* MJ_ECORRUPT: the files are damaged, so that reading all of them could end the process.  Comes first in a read
     * transaction, which may see a later state of the store afterwards. */
    int (*sound)(mj_tx *tx);
    /* What readers of dead processes hold on to is freed; what this process keeps in memory only to be quick, too. */
    void (*tidy)(void *db);
    void (*trim)(void *db);
    int (*size)(mj_tx *tx, uint64_t *used, uint64_t *reserved); /* bytes */
    /* A copy in directory `to`; only abort() follows.  MJ_EEXISTS, before anything is read; MJ_ECORRUPT: the store is
     * not sound. */
    int (*backup)(mj_tx *tx, const char *to);
    const char *(*library)(void);
} mj_backend;

extern const mj_backend mj_backend_lmdb;

#endif
