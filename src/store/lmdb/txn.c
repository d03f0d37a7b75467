/* Transactions of an open environment.
 *
 * The order of locks.  A commit holds `writer`, and `resize` for reading; a reader holds `resize` for reading.  The map
 * changes under both, `writer` first: so a thread that wants to change the map waits for a commit before it asks for
 * `resize`, and no reader waits for a commit behind it. */
#include "store/lmdb/env_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Opens an environment again that LMDB gave up: after a failed write of its root (a sick disk) it refuses every
 * transaction until it is closed.  Held for writing, so none runs; those that wait for their next use end. */
static int reopen(mj_env *e)
{
    mj_store_options o = {.mode = e->mode, .map_max = atomic_load(&e->map_max)};
    char why[512];
    int rc;

    for (mj_env_reader *r = e->readers; r; r = r->next) {
        if (r->txn)
            mdb_txn_abort(r->txn);
        r->txn = NULL;
    }
    if (e->lmdb)
        mdb_env_close(e->lmdb);
    e->lmdb = NULL;
    e->epoch++;
    rc = mj_env_open(e, &o, why, sizeof why);
    e->broken = rc != 0;
    mj_env_note_map(e);
    return rc;
}

static void hold_all(mj_env *e)
{
    pthread_mutex_lock(&e->writer);
    pthread_rwlock_wrlock(&e->resize);
}

static bool try_hold_all(mj_env *e)
{
    if (pthread_mutex_trylock(&e->writer) != 0)
        return false;
    if (pthread_rwlock_trywrlock(&e->resize) == 0)
        return true;
    pthread_mutex_unlock(&e->writer);
    return false;
}

static void let_go(mj_env *e)
{
    pthread_rwlock_unlock(&e->resize);
    pthread_mutex_unlock(&e->writer);
}

/* A transaction of `epoch` could not begin, for rc. 0: the cause was removed, try again.  MJ_EBUSY: for that a running
 * commit would have to end first. */
static int recover(mj_env *e, unsigned epoch, int rc, bool wait)
{
    int dead = 0;

    if (rc != MDB_MAP_RESIZED && rc != MDB_PANIC && rc != MDB_READERS_FULL)
        return rc;
    if (wait)
        hold_all(e);
    else if (!try_hold_all(e))
        return MJ_EBUSY;
    if (e->epoch != epoch) /* another thread was faster */
        rc = 0;
    else if (rc == MDB_PANIC || e->broken)
        rc = reopen(e);
    else if (rc == MDB_MAP_RESIZED)
        rc = mj_env_set_size(e, 0);
    else
        rc = mdb_reader_check(e->lmdb, &dead) == 0 && dead > 0 ? 0 : rc;
    let_go(e);
    return rc;
}

/* ---- transactions ---- */

static _Thread_local mj_env *writing; /* the environment of this thread's write transaction */

int mj_env_begin(mj_env *e, unsigned flags, MDB_txn **txn)
{
    bool writes = !(flags & MDB_RDONLY);
    unsigned epoch;
    int rc;

    do {
        if (writes) {
            pthread_mutex_lock(&e->writer);
            writing = e;
        }
        pthread_rwlock_rdlock(&e->resize);
        epoch = e->epoch;
        rc = e->broken ? MDB_PANIC : mj_env_shrunk(e);
        if (rc == 0)
            rc = mdb_txn_begin(e->lmdb, NULL, flags, txn);
        if (rc == 0) {
            rc = mj_env_sound(e, *txn, writes);
            if (rc == 0)
                return 0;
            mdb_txn_abort(*txn);
        }
        mj_env_leave(e);
        rc = recover(e, epoch, rc, true);
    } while (rc == 0);
    return rc;
}

void mj_env_leave(mj_env *e)
{
    pthread_rwlock_unlock(&e->resize);
    if (writing == e) {
        writing = NULL;
        pthread_mutex_unlock(&e->writer);
    }
}

int mj_env_read(mj_env *e, mj_env_reader *r, bool wait)
{
    unsigned epoch;
    int rc;

    do {
        pthread_rwlock_rdlock(&e->resize);
        epoch = e->epoch;
        if (!r->known) {
            pthread_mutex_lock(&e->readers_lock);
            *r = (mj_env_reader){.known = true, .next = e->readers};
            e->readers = r;
            pthread_mutex_unlock(&e->readers_lock);
        }
        rc = e->broken ? MDB_PANIC : mj_env_shrunk(e);
        if (rc == 0)
            rc = r->txn ? mdb_txn_renew(r->txn) : mdb_txn_begin(e->lmdb, NULL, MDB_RDONLY, &r->txn);
        if (rc == 0) {
            rc = mj_env_sound(e, r->txn, false);
            if (rc == 0)
                return 0;
            mdb_txn_reset(r->txn);
        }
        pthread_rwlock_unlock(&e->resize);
        rc = recover(e, epoch, rc, wait);
    } while (rc == 0);
    return rc;
}

void mj_env_forget(mj_env *e, mj_env_reader *r)
{
    mj_env_reader **at;

    pthread_rwlock_rdlock(&e->resize);
    if (r->txn)
        mdb_txn_abort(r->txn);
    pthread_mutex_lock(&e->readers_lock);
    for (at = &e->readers; *at; at = &(*at)->next)
        if (*at == r) {
            *at = r->next;
            break;
        }
    pthread_mutex_unlock(&e->readers_lock);
    pthread_rwlock_unlock(&e->resize);
    *r = (mj_env_reader){0};
}

void mj_env_bury_readers(mj_env *e)
{
    int dead;

    pthread_rwlock_rdlock(&e->resize);
    if (!e->broken)
        mdb_reader_check(e->lmdb, &dead);
    pthread_rwlock_unlock(&e->resize);
}

int mj_env_grow(mj_env *e, uint64_t full)
{
    int rc;

    hold_all(e);
    rc = e->broken ? 0 : mj_env_grow_held(e, full);
    let_go(e);
    return mj_env_code(rc);
}
