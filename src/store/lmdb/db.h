/* A handle of the LMDB backend: one thread's way to an environment. */
#ifndef MJ_LMDB_DB_H
#define MJ_LMDB_DB_H

#include "store/backend.h"
#include "store/lmdb/env_impl.h"

typedef struct mj_lmdb mj_lmdb;

struct mj_tx {
    mj_lmdb *db;
    MDB_txn *t; /* NULL: it has ended */
    bool write;
    bool totals_known;
    mj_tally totals;   /* a write transaction's, with what it adds; afterwards those of commit totals_of */
    size_t totals_of;  /* LMDB's number of it; 0: of none */
    uint64_t map_size; /* when it began */
    size_t id;         /* a writer's: LMDB's number of it */
    int64_t began;     /* a writer's: the monotonic clock, in ns, when it had the lock */
    MDB_cursor *cursors[MJ_NINDEXES]; /* for look-ups and puts; those opened so far */
    MDB_cursor *dels[MJ_NINDEXES];    /* for deletes: what goes often lies far from what comes */
    MDB_cursor *walks[MJ_NINDEXES];   /* a writer's, for its next scan of the index */
};

struct mj_lmdb {
    char *dir;
    mj_store_options options;
    mj_env *env;
    mj_env_reader reader;
    char *why; /* what failed, for people: the store's buffer */
    size_t why_size;
    size_t newest; /* number of this handle's last commit; 0: none */
    bool shared;   /* others had committed between that and the one before */
    int64_t held;  /* ns that it took, and when it ended by the monotonic clock */
    int64_t ended;
    struct mj_tx tx;
};

/* tx.c */
/* Notes what LMDB or the system said, and gives our code for it. */
int mj_lmdb_fail(mj_lmdb *db, int rc);
int mj_lmdb_begin(void *handle, bool write, mj_tx **out);
void mj_lmdb_abort(mj_tx *tx);
int mj_lmdb_commit(mj_tx *tx);
/* The map is full: ends the transaction, and makes the map larger if it may be. */
int mj_lmdb_grow(mj_tx *tx);

int64_t mj_lmdb_give_way(void *handle);

/* reading.c */
bool mj_lmdb_has_bytes(mj_index index);
/* The transaction's cursor of an index, at `at`: tx->cursors or tx->dels. */
int mj_lmdb_cursor(mj_tx *tx, MDB_cursor **at, mj_index index, MDB_cursor **c);
int mj_lmdb_look_up(mj_tx *tx, mj_index index, MDB_val key, MDB_val *v);
int mj_lmdb_get(mj_tx *tx, mj_entry *e, mj_str *bytes);
int mj_lmdb_scan(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx);
int mj_lmdb_count(mj_tx *tx, mj_index index, uint64_t *n);

/* writing.c */
int mj_lmdb_totals(mj_tx *tx, mj_tally *out);
int mj_lmdb_apply(mj_tx *tx, const mj_change *changes, size_t n, const mj_tally *add);

/* beside.c: files beside the data */
int mj_lmdb_exists(const char *dir, const mj_store_options *o, char *why, size_t why_size);
int mj_lmdb_lock(void *handle, const char *name, mj_lock **held);
void mj_lmdb_unlock(mj_lock *held);
int mj_lmdb_mark(void *handle, const char *name, mj_str text);
int mj_lmdb_marked(void *handle, const char *name, mj_buf *out);

/* backup.c: the directory, without a store in it; and the copy, which ends the read transaction. */
int mj_lmdb_backup_place(mj_lmdb *db, const char *to);
int mj_lmdb_backup(mj_tx *tx, const char *to);

#endif
