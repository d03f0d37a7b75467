/* Transactions of an open environment, its map, and whether its file is still what LMDB takes it for.
 *
 * Who waits for whom.  A commit holds `writer`, and `resize` for reading; a reader holds `resize` for reading.  The map
 * changes under both, `writer` first: so a thread that wants to change the map waits for a commit before it asks for
 * `resize`, and no reader waits for a commit behind it. */
#include "store/lmdb/env_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const uint64_t MAP_STEP = 1u << 30; /* the map doubles up to this, then grows by it */

/* ---- the map, and whether the file is what LMDB takes it for ---- */

/* Where the file is mapped, LMDB does not tell: the mapping of a file that `inside` lies in.  Device and inode are not
 * compared: those of a file on overlayfs are others here.  NULL: `inside` lies in no file, but in memory. */
static const uint8_t *find_map(const uint8_t *inside)
{
    uintptr_t address = (uintptr_t)inside;
    const uint8_t *found = NULL;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");

    while (maps && !found && fgets(line, sizeof line, maps)) {
        unsigned long low, high, offset, inode;
        if (sscanf(line, "%lx-%lx %*s %lx %*s %lu", &low, &high, &offset, &inode) == 4 && address >= low &&
            address < high && inode != 0)
            found = inside - (address - low) - offset;
    }
    if (maps)
        fclose(maps);
    return found;
}

void mj_env_note_map(mj_env *e)
{
    e->map_size = e->broken ? 0 : mj_env_size(e);
    atomic_store(&e->map, NULL);
    atomic_store(&e->map_tries, 0);
}

/* Before LMDB looks into the map: what it had of the file is there still. */
static int shrunk(const mj_env *e)
{
    uint64_t known = atomic_load(&e->known); /* first: the file grows meanwhile, and this with it */
    struct stat st;

    return fstat(e->fd, &st) == 0 && (uint64_t)st.st_size >= known ? 0 : MJ_TORN;
}

static void note_size(mj_env *e, uint64_t bytes)
{
    uint64_t known = atomic_load(&e->known);

    while (known < bytes && !atomic_compare_exchange_weak(&e->known, &known, bytes))
        ;
}

/* The file may end before pages that are free.  They are added then, so that this is found out once. */
static int short_file(mj_env *e, size_t txn, uint64_t bytes, uint64_t need)
{
    char why[128];
    int rc = mj_pages_tail(e->fd, txn, (size_t)(bytes / e->page_size), why, sizeof why);

    if (rc == MJ_ECHANGED)
        return 0; /* other processes commit at this moment: they look, too */
    if (rc != 0)
        return rc == MJ_ECORRUPT ? MJ_TORN : rc;
    if (fallocate(e->fd, 0, (off_t)bytes, (off_t)(need - bytes)) == 0) /* never makes a file shorter */
        note_size(e, need);
    return 0;
}

int mj_env_sound(mj_env *e, MDB_txn *t, bool writes)
{
    size_t newest = mdb_txn_id(t) - writes;
    MDB_envinfo info;
    struct stat st;
    uint64_t need;
    int rc = mdb_env_info(e->lmdb, &info);

    if (rc != 0)
        return rc;
    if (writes ? info.me_last_txnid != newest : info.me_last_txnid < newest) /* readers are overtaken */
        return MJ_MISFIT;
    need = ((uint64_t)info.me_last_pgno + 1) * e->page_size;
    if (need <= atomic_load(&e->known))
        return 0;
    if (fstat(e->fd, &st) != 0)
        return errno;
    if ((uint64_t)st.st_size < need)
        return short_file(e, newest, (uint64_t)st.st_size, need);
    note_size(e, (uint64_t)st.st_size);
    return 0;
}

int mj_env_inside(mj_env *e, const MDB_val *v)
{
    enum { PAGE_HEAD = 16, FLAGS_AT = 10, PAGES_AT = 12, BIG = 4, MAP_TRIES = 100 };
    const uint8_t *p = v->mv_data, *map = atomic_load(&e->map);
    struct stat st;
    uint64_t end;
    uint32_t pages;

    if (v->mv_size == 0)
        return 0;
    if (!map) {
        if (atomic_fetch_add(&e->map_tries, 1) >= MAP_TRIES)
            return 0; /* there is no /proc here: LMDB is believed */
        map = find_map(p);
        atomic_store(&e->map, map);
        if (!map)
            return 0;
    }
    if (p >= map && p < map + e->map_size) {
        end = (uint64_t)(p - map) + v->mv_size;
        if (end <= atomic_load(&e->known) || (fstat(e->fd, &st) == 0 && end <= (uint64_t)st.st_size))
            return 0;
        return MJ_ECORRUPT;
    }
    if (v->mv_size <= e->page_size) /* on a page that this transaction changed */
        return 0;
    memcpy(&pages, p - PAGE_HEAD + PAGES_AT, sizeof pages);
    return (p[FLAGS_AT - PAGE_HEAD] & BIG) && v->mv_size + PAGE_HEAD <= (uint64_t)pages * e->page_size ? 0
                                                                                                       : MJ_ECORRUPT;
}

int mj_env_get(mj_env *e, MDB_txn *t, int db, MDB_val key, MDB_val *v)
{
    int rc = mdb_get(t, e->dbi[db], &key, v);

    return rc != 0 ? rc : mj_env_inside(e, v);
}

int mj_env_next(mj_env *e, MDB_cursor *c, MDB_val *key, MDB_val *v, MDB_cursor_op op)
{
    int rc = mdb_cursor_get(c, key, v, op);

    if (rc == 0)
        rc = mj_env_inside(e, key);
    return rc != 0 ? rc : mj_env_inside(e, v);
}

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

/* Sets the size of the map, held for writing; 0: the size that another process made it.
 * LMDB unmaps first: when it can't map again, only opening it anew helps. */
static int set_size(mj_env *e, uint64_t size)
{
    int rc = mdb_env_set_mapsize(e->lmdb, (size_t)size);

    e->broken = e->broken || rc != 0;
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
        rc = set_size(e, 0);
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
        rc = e->broken ? MDB_PANIC : shrunk(e);
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
        rc = e->broken ? MDB_PANIC : shrunk(e);
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

uint64_t mj_env_size(const mj_env *e)
{
    MDB_envinfo info;

    return mdb_env_info(e->lmdb, &info) == 0 ? info.me_mapsize : 0;
}

int mj_env_grow(mj_env *e, uint64_t full)
{
    uint64_t size, most = atomic_load(&e->map_max);
    int rc = 0;

    hold_all(e);
    size = e->broken ? UINT64_MAX : mj_env_size(e);
    if (size <= full) { /* else another thread was faster */
        size += size < MAP_STEP ? size : MAP_STEP;
        if (size > most)
            size = most;
        rc = size <= full ? MDB_MAP_FULL : set_size(e, size);
    }
    let_go(e);
    return mj_env_code(rc);
}
