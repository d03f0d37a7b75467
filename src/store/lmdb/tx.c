/* Transactions of a handle, and what is said of one that failed. */
#include "base/fault.h"
#include "store/lmdb/db.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

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

static int begin_write(mj_lmdb *db, mj_tx *tx)
{
    int rc;

    MJ_FAULT("store.begin");
    rc = mj_env_begin(db->env, 0, &tx->t);
    if (rc != 0)
        return rc;
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
    if (!write)
        tx->t = db->reader.txn;
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
    MJ_FAULT("store.committed");
    end(tx);
    return rc == MDB_MAP_FULL ? mj_lmdb_grow(tx) : mj_lmdb_fail(tx->db, rc);
}
