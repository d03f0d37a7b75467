/* A handle of the LMDB backend: one thread's way to an environment. */
#ifndef MJ_LMDB_DB_H
#define MJ_LMDB_DB_H

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

/* backup.c: a LMDB, errno or one of our codes. */
int mj_lmdb_backup(mj_lmdb *db, const char *to);

#endif
