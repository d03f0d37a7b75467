/* LMDB as a backend: rows and entries in one file, one writer at a time, readers that look into mapped memory. */
#include "store/backend.h"
#include "store/lmdb/db.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- handles ---- */

static int lmdb_open(const char *dir, const mj_store_options *o, void **out, char *why, size_t why_size)
{
    mj_lmdb *db = calloc(1, sizeof *db);
    char *full;
    int rc = MJ_ENOMEM;

    if (db && (db->dir = strdup(dir)) != NULL) {
        db->options = *o;
        db->why = why;
        db->why_size = why_size;
        rc = mj_env_acquire(dir, o, &db->env, why, why_size);
    }
    if (rc != MJ_OK) {
        if (db)
            free(db->dir);
        free(db);
        return rc;
    }
    full = realpath(dir, NULL); /* for after a fork: the child may have changed its directory */
    if (full) {
        free(db->dir);
        db->dir = full;
    }
    db->tx.db = db;
    *out = db;
    return MJ_OK;
}

static bool lmdb_foreign(const void *handle)
{
    const mj_lmdb *db = handle;

    return mj_env_foreign(db->env);
}

static void lmdb_close(void *handle)
{
    mj_lmdb *db = handle;

    if (!mj_env_foreign(db->env)) {
        mj_env_forget(db->env, &db->reader);
        mj_env_release(db->env);
    }
    free(db->dir);
    free(db);
}

static int lmdb_ready(void *handle, bool *forked)
{
    mj_lmdb *db = handle;
    mj_env *e;
    int rc;

    *forked = mj_env_foreign(db->env);
    if (!*forked)
        return MJ_OK;
    db->reader = (mj_env_reader){0}; /* the parent's; touching it here would harm the parent */
    db->tx.totals_of = 0;
    rc = mj_env_acquire(db->dir, &db->options, &e, db->why, db->why_size);
    if (rc == MJ_OK)
        db->env = e;
    return rc;
}

/* ---- housekeeping ---- */

static int lmdb_size(mj_tx *tx, uint64_t *used, uint64_t *reserved)
{
    MDB_envinfo info;
    MDB_stat st;
    int rc = mdb_env_info(mj_env_lmdb(tx->db->env), &info);

    if (rc == 0)
        rc = mdb_env_stat(mj_env_lmdb(tx->db->env), &st);
    if (rc != 0)
        return mj_lmdb_fail(tx->db, rc);
    *reserved = info.me_mapsize;
    *used = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
    return MJ_OK;
}

/* Looks at every page of the file.  Writers go on meanwhile: a snapshot that is two commits old has no root any more,
 * and the next one is looked at instead. */
static int lmdb_sound(mj_tx *tx)
{
    enum { TRIES = 100 };
    mj_lmdb *db = tx->db;
    char why[128];
    int rc = MJ_ECHANGED;

    for (int i = 0; i <= TRIES && rc == MJ_ECHANGED; i++) {
        rc = mj_pages_check(db->env->fd, mdb_txn_id(tx->t), 0, why, sizeof why);
        if (rc == MJ_ECHANGED && i < TRIES) {
            int again;
            mdb_txn_reset(tx->t);
            again = mdb_txn_renew(tx->t);
            if (again != 0)
                return mj_lmdb_fail(db, again);
        }
    }
    if (rc == MJ_ECORRUPT)
        snprintf(db->why, db->why_size, "%s/data.mdb is damaged: %s: put a backup in its place with mjhook restore",
                 db->dir, why);
    return rc == MJ_ECHANGED ? MJ_OK : mj_lmdb_fail(db, rc);
}

static void lmdb_tidy(void *handle)
{
    mj_lmdb *db = handle;

    mj_env_bury_readers(db->env);
}

static void lmdb_trim(void *handle)
{
    mj_lmdb *db = handle;
    const uint8_t *map;

    /* Inside a transaction the map is not moved.  The pages stay in the system's cache: a thread that needs one again
     * gets it from there. */
    if (mj_env_read(db->env, &db->reader, !db->options.no_wait) != 0)
        return;
    map = atomic_load(&db->env->map);
    if (map)
        madvise((void *)(uintptr_t)map, db->env->map_size, MADV_DONTNEED);
    mdb_txn_reset(db->reader.txn);
    mj_env_leave(db->env);
}

static int lmdb_backup(mj_tx *tx, const char *to)
{
    int rc = mj_lmdb_backup_place(tx->db, to);

    if (rc == MJ_OK)
        rc = lmdb_sound(tx);
    return rc == MJ_OK ? mj_lmdb_backup(tx, to) : rc;
}

static const char *lmdb_library(void *db)
{
    (void)db;
    return mdb_version(NULL, NULL, NULL);
}

const mj_backend mj_backend_lmdb = {
    .abi = MJ_BACKEND_ABI,
    .bytes = sizeof(mj_backend),
    .name = "LMDB",
    .exists = mj_lmdb_exists,
    .open = lmdb_open,
    .close = lmdb_close,
    .ready = lmdb_ready,
    .foreign = lmdb_foreign,
    .begin = mj_lmdb_begin,
    .get = mj_lmdb_get,
    .scan = mj_lmdb_scan,
    .count = mj_lmdb_count,
    .totals = mj_lmdb_totals,
    .apply = mj_lmdb_apply,
    .commit = mj_lmdb_commit,
    .abort = mj_lmdb_abort,
    .give_way = mj_lmdb_give_way,
    .lock = mj_lmdb_lock,
    .unlock = mj_lmdb_unlock,
    .mark = mj_lmdb_mark,
    .marked = mj_lmdb_marked,
    .sound = lmdb_sound,
    .tidy = lmdb_tidy,
    .trim = lmdb_trim,
    .size = lmdb_size,
    .backup = lmdb_backup,
    .library = lmdb_library,
};
