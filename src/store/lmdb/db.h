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
    uint64_t map_size;                /* when it began */
    MDB_cursor *cursors[MJ_NINDEXES]; /* those opened so far */
};

struct mj_lmdb {
    char *dir;
    mj_store_options options;
    mj_env *env;
    mj_env_reader reader;
    char *why; /* what failed, for people: the store's buffer */
    size_t why_size;
    struct mj_tx tx;
};

/* backup.c: the directory, without a store in it; and the copy, which ends the read transaction. */
int mj_lmdb_backup_place(mj_lmdb *db, const char *to);
int mj_lmdb_backup(mj_tx *tx, const char *to);

#endif
