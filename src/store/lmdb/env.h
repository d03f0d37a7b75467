/* One LMDB environment per process and directory: what this folder's files see of it. */
#ifndef MJ_ENV_H
#define MJ_ENV_H

#include "base/error.h"
#include "domain/facets.h"
#include "store/store.h"

#include <lmdb.h>

/* A database for each index of MJ_INDEXES, under the same name.  Keys and values: see keys.c. */

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
/* Inside a transaction: whether the file has its name still.  What is committed to one that has not is lost to all that
 * open the store from now on. */
bool mj_env_in_place(const mj_env *e, char *why, size_t size);

static inline MDB_val mj_val(const void *p, size_t n)
{
    return (MDB_val){.mv_size = n, .mv_data = (void *)(uintptr_t)p};
}

/* The trees that have an entry in front of all others: see weights.c. */
static inline bool mj_has_weight(mj_index index)
{
    return index == MJ_IX_STATE || index == MJ_IX_DUE || index == MJ_IX_SLOT || index == MJ_IX_OUTBOX;
}

static inline MDB_val mj_weight_key(void)
{
    return mj_val("", 1);
}

#endif
