/* Transactions of a handle, and what is said of one that failed. */
#include "base/fault.h"
#include "store/lmdb/db.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int mj_lmdb_fail(mj_lmdb *db, int rc)
{
    if (rc == EIO && mj_env_disk_full(db->env))
        rc = ENOSPC; /* LMDB calls a write that came out short EIO */
    if (rc != 0 && rc != MDB_NOTFOUND && !db->why[0]) {
        if (rc == EAGAIN || rc == MJ_TORN || rc == MJ_MISFIT)
            mj_env_explain(db->dir, rc, db->why, db->why_size);
        else
            snprintf(db->why, db->why_size, "%s", rc > -100 && rc <= 0 ? mj_error_text(rc) : mdb_strerror(rc));
    }
    return mj_env_code(rc);
}

/* ---- giving way ----
 *
 * LMDB's lock goes to the thread that asks first, also to the one that has just let go of it, since a thread that waits
 * has to wake up.  A reconcile run would hold up each callback for a batch or several.  So a writer of many batches
 * rests between two, while there are other writers: their commits show in LMDB's numbers. */

enum { REST = 2 };                        /* times as long as the lock was held */
static const int64_t REST_MAX = 50000000; /* ns */

static int64_t clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void has_lock(mj_tx *tx)
{
    tx->began = clock_ns();
    tx->id = mdb_txn_id(tx->t);
}

static void has_committed(mj_tx *tx)
{
    mj_lmdb *db = tx->db;

    db->ended = clock_ns();
    db->held = db->ended - tx->began;
    db->shared = db->newest != 0 && tx->id > db->newest + 1;
    db->newest = tx->id;
}

int64_t mj_lmdb_give_way(void *handle)
{
    mj_lmdb *db = handle;
    int64_t rest = REST * db->held < REST_MAX ? REST * db->held : REST_MAX;
    struct timespec t = {0};

    if (!db->shared)
        return 0;
    rest -= clock_ns() - db->ended;
    t.tv_nsec = (long)rest;
    if (rest > 0) /* a signal ends it early */
        nanosleep(&t, NULL);
    return db->held / 1000 + 1;
}

static int begin_write(mj_lmdb *db, mj_tx *tx)
{
    int rc;

    MJ_FAULT("store.begin");
    rc = mj_env_begin(db->env, 0, &tx->t);
    if (rc != 0)
        return rc;
    has_lock(tx);
    tx->map_size = mj_env_size(db->env);
    rc = mj_env_schema(db->env, tx->t); /* a newer mjhook may have come since we opened the store */
    if (rc == 0 && !mj_env_in_place(db->env, db->why, db->why_size))
        rc = MJ_EIO;
    if (rc != 0) {
        mdb_txn_abort(tx->t);
        mj_env_leave(db->env);
    }
    return rc;
}

int mj_lmdb_begin(void *handle, bool write, mj_tx **out)
{
    mj_lmdb *db = handle;
    mj_tx *tx = &db->tx;
    int rc;

    tx->write = write;
    tx->totals_known = false;
    memset(tx->cursors, 0, sizeof tx->cursors);
    memset(tx->dels, 0, sizeof tx->dels);
    memset(tx->walks, 0, sizeof tx->walks);
    rc = write ? begin_write(db, tx) : mj_env_read(db->env, &db->reader, !db->options.no_wait);
    if (rc != 0)
        return mj_lmdb_fail(db, rc);
    if (!write) {
        tx->t = db->reader.txn;
    } else { /* when the last commit was this handle's, it knows the sums */
        tx->totals_known = tx->totals_of != 0 && tx->id == tx->totals_of + 1;
        tx->totals_of = 0;
    }
    *out = tx;
    return MJ_OK;
}

static void end(mj_tx *tx)
{
    tx->t = NULL;
    mj_env_leave(tx->db->env);
}

void mj_lmdb_abort(mj_tx *tx)
{
    if (!tx->t)
        return; /* it has ended */
    if (tx->write)
        mdb_txn_abort(tx->t);
    else
        mdb_txn_reset(tx->t);
    end(tx);
}

/* The map is full: ends the transaction, and makes the map larger if it may be. */
int mj_lmdb_grow(mj_tx *tx)
{
    uint64_t full = tx->map_size;
    int rc;

    mj_lmdb_abort(tx);
    rc = mj_env_grow(tx->db->env, full);
    if (rc == MJ_ENOSPC)
        snprintf(tx->db->why, tx->db->why_size, "the store has reached map_max: raise it");
    return rc == MJ_OK ? MJ_EAGAIN : mj_lmdb_fail(tx->db, rc);
}

int mj_lmdb_commit(mj_tx *tx)
{
    int rc;

    MJ_FAULT("store.commit");
    rc = mdb_txn_commit(tx->t); /* frees it, also when it fails */
    if (rc == 0)
        has_committed(tx);
    MJ_FAULT("store.committed");
    if (rc == 0 && tx->totals_known)
        tx->totals_of = tx->id;
    end(tx);
    return rc == MDB_MAP_FULL ? mj_lmdb_grow(tx) : mj_lmdb_fail(tx->db, rc);
}
