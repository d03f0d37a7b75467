/* One LMDB environment per process and directory.
 *
 * LMDB forbids opening one file twice in a process (its locks break when either
 * closes) and using an environment across fork.  So environments live in a
 * registry that is keyed by the file's device and inode, counts references
 * and is guarded by a mutex; a fork makes every entry foreign to the child.
 *
 * Who waits for what.  The registry's mutex is held for look-ups only; one thread at a time opens an environment, and
 * only threads that need one that is not open yet wait for it.  A commit holds `writer`, and `resize` for reading.  The
 * map changes under both, `writer` first: so a thread that wants to change the map waits for a commit before it asks
 * for `resize`, and no reader ever waits behind it for a commit. */
#include "mj_env_impl.h"

#include "mj_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const uint64_t MAP_STEP = 1u << 30;      /* it doubles up to this, then grows by it */
static const uint64_t MAP_CEILING = 1ull << 40; /* address space, not memory */

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static bool opening; /* a thread opens an environment, without the mutex */
static mj_env *registry;
static unsigned generation;

static void before_fork(void)
{
    pthread_mutex_lock(&registry_lock);
}

static void after_fork_parent(void)
{
    pthread_mutex_unlock(&registry_lock);
}

static void after_fork_child(void)
{
    generation++;
    for (mj_env *e = registry; e;
         e = e->next) { /* the parent's: never touched again, but their files need not stay open */
        mj_fd_close_file(e->dev, e->ino);
        mj_fd_close_file(e->lock_dev, e->lock_ino);
    }
    registry = NULL;
    opening = false; /* no thread but this one is left */
    pthread_cond_init(&opened, NULL);
    pthread_mutex_unlock(&registry_lock);
}

static void watch_fork(void)
{
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

int mj_env_code(int rc)
{
    if (rc > -100 && rc <= 0)
        return rc; /* one of ours */
    switch (rc) {
    case MDB_NOTFOUND:
        return MJ_ENOTFOUND;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return MJ_ENOSPC;
    case EROFS:
    case EACCES:
    case EPERM:
        return MJ_EREADONLY;
    case ENOMEM:
        return MJ_ENOMEM;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_CURSOR_FULL: /* a tree without an end */
    case MJ_TORN:
        return MJ_ECORRUPT;
    case MJ_MISFIT:
    case EAGAIN:
        return MJ_EBUSY;
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return MJ_EFORMAT;
    case MDB_READERS_FULL:
        return MJ_ELIMIT;
    default:
        return MJ_EIO;
    }
}

bool mj_env_disk_full(const mj_env *e)
{
    static const uint64_t LARGEST = (uint64_t)64 * 4096; /* LMDB writes at most 64 pages at once */
    struct statvfs st;

    return statvfs(e->dir, &st) == 0 && (uint64_t)st.f_bavail * st.f_frsize < LARGEST;
}

bool mj_env_in_place(const mj_env *e, char *why, size_t size)
{
    char path[4096];
    struct stat st;

    snprintf(path, sizeof path, "%s/data.mdb", e->dir);
    if (stat(path, &st) == 0 ? st.st_dev == e->dev && st.st_ino == e->ino : errno != ENOENT && errno != ENOTDIR)
        return true;
    snprintf(why, size, "%s was moved, removed or replaced after it was opened: restart what has it open", path);
    return false;
}

static void note_map(mj_env *e);

/* ---- the registry ---- */

static void destroy(mj_env *e)
{
    if (e->lmdb)
        mdb_env_close(e->lmdb);
    pthread_rwlock_destroy(&e->resize);
    pthread_mutex_destroy(&e->writer);
    pthread_mutex_destroy(&e->readers_lock);
    free(e->dir);
    free(e);
}

static mj_env *new_env(const char *dir, const mj_store_options *o)
{
    mj_env *e = calloc(1, sizeof *e);
    pthread_rwlockattr_t attr;

    if (!e)
        return NULL;
    e->dir = realpath(dir, NULL); /* the process may change its directory */
    if (!e->dir)
        e->dir = strdup(dir); /* below one that we may not search */
    e->mode = o->mode ? o->mode : 0600;
    e->generation = generation;
    atomic_store(&e->map_max, o->map_max ? o->map_max : MAP_CEILING);
    /* Else readers that come and go without a gap would keep the map from growing for ever. */
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&e->resize, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&e->writer, NULL);
    pthread_mutex_init(&e->readers_lock, NULL);
    if (!e->dir) {
        destroy(e);
        return NULL;
    }
    return e;
}

/* Handles of one store share the map; the largest map_max among them holds. */
static void raise_ceiling(mj_env *e, const mj_store_options *o)
{
    uint64_t wanted = o->map_max ? o->map_max : MAP_CEILING, now = atomic_load(&e->map_max);

    while (now < wanted && !atomic_compare_exchange_weak(&e->map_max, &now, wanted))
        ;
}

/* The environment of the file that lies there.  *replaced: this process has another file open under the same lock. */
static mj_env *registered(const mj_place *p, bool *replaced)
{
    mj_env *e;

    *replaced = false;
    for (e = registry; e; e = e->next) {
        if (p->has_data && e->dev == p->data.st_dev && e->ino == p->data.st_ino)
            return e;
        if (p->has_lock && e->lock_dev == p->lock.st_dev && e->lock_ino == p->lock.st_ino)
            *replaced = true;
    }
    return NULL;
}

bool mj_env_registered(const mj_place *p)
{
    bool found, replaced;

    pthread_mutex_lock(&registry_lock);
    found = registered(p, &replaced) || replaced;
    pthread_mutex_unlock(&registry_lock);
    return found;
}

/* Opens it for the registry, whose mutex is not held meanwhile: threads with an open store do not wait for this one. */
static int open_new(const char *dir, const mj_store_options *o, mj_env **out, char *why, size_t size)
{
    mj_env *e = new_env(dir, o);
    int rc = e ? MJ_OK : MJ_ENOMEM;

    if (e) {
        opening = true;
        pthread_mutex_unlock(&registry_lock);
        rc = mj_env_open(e, o, why, size);
        pthread_mutex_lock(&registry_lock);
        opening = false;
        pthread_cond_broadcast(&opened);
    }
    if (rc == 0)
        note_map(e);
    if (rc != 0) {
        mj_env_explain(dir, rc, why, size);
        if (e)
            destroy(e);
        return mj_env_code(rc);
    }
    e->next = registry;
    registry = e;
    *out = e;
    return MJ_OK;
}

int mj_env_acquire(const char *dir, const mj_store_options *o, mj_env **out, char *why, size_t size)
{
    bool replaced = false;
    mj_place p;
    mj_env *e = NULL;
    int rc;

    *out = NULL;
    why[0] = '\0';
    pthread_once(&fork_once, watch_fork);
    rc = mj_place_open(&p, dir, o, why, size);
    if (rc != MJ_OK)
        return rc;
    pthread_mutex_lock(&registry_lock);
    while (rc == MJ_OK && !(e = registered(&p, &replaced)) && !replaced && opening) {
        if (o->no_wait) {
            snprintf(why, size, "another thread is opening the store %s", dir);
            rc = MJ_EBUSY;
            break;
        }
        pthread_cond_wait(&opened, &registry_lock);
        rc = mj_place_look(&p, o, why, size); /* that thread may have made the file */
    }
    if (rc == MJ_OK && !e && replaced) {
        mj_env_explain(dir, MJ_MISFIT, why, size);
        rc = MJ_EBUSY;
    }
    if (rc == MJ_OK && !e)
        rc = open_new(dir, o, &e, why, size);
    if (rc == MJ_OK) {
        raise_ceiling(e, o);
        e->refs++;
        *out = e;
    }
    pthread_mutex_unlock(&registry_lock);
    mj_place_close(&p);
    return rc;
}

void mj_env_release(mj_env *e)
{
    mj_env **at;

    pthread_mutex_lock(&registry_lock);
    if (e->generation == generation && --e->refs == 0) {
        for (at = &registry; *at != e; at = &(*at)->next)
            ;
        *at = e->next;
        destroy(e);
    }
    pthread_mutex_unlock(&registry_lock);
}

MDB_env *mj_env_lmdb(const mj_env *e)
{
    return e->lmdb;
}

MDB_dbi mj_env_dbi(const mj_env *e, int db)
{
    return e->dbi[db];
}

bool mj_env_foreign(const mj_env *e)
{
    return e->generation != generation;
}

/* ---- the map, and whether the file is what LMDB takes it for ---- */

/* Where the file is mapped, LMDB does not tell: the mapping that `inside` lies in.  A child of fork() has its parent's
 * mappings, too.  NULL: it lies in none, but in memory. */
static const uint8_t *find_map(const mj_env *e, const uint8_t *inside)
{
    uintptr_t address = (uintptr_t)inside;
    const uint8_t *found = NULL;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");

    while (maps && !found && fgets(line, sizeof line, maps)) {
        unsigned long low, high, offset, inode;
        unsigned major_number, minor_number;
        if (sscanf(line, "%lx-%lx %*s %lx %x:%x %lu", &low, &high, &offset, &major_number, &minor_number, &inode) ==
                6 &&
            inode == e->ino && makedev(major_number, minor_number) == e->dev && address >= low && address < high)
            found = inside - (address - low) - offset;
    }
    if (maps)
        fclose(maps);
    return found;
}

/* LMDB mapped the file anew. */
static void note_map(mj_env *e)
{
    e->map_size = e->broken ? 0 : mj_env_size(e);
    atomic_store(&e->map, NULL);
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
    enum { PAGE_HEAD = 16, FLAGS_AT = 10, PAGES_AT = 12, BIG = 4 };
    const uint8_t *p = v->mv_data, *map = atomic_load(&e->map);
    struct stat st;
    uint64_t end;
    uint32_t pages;

    if (v->mv_size == 0)
        return 0;
    if (!map) {
        map = find_map(e, p);
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
    note_map(e);
    return rc;
}

/* Sets the size of the map, held for writing; 0: the size that another process made it.
 * LMDB unmaps first: when it can't map again, only opening it anew helps. */
static int set_size(mj_env *e, uint64_t size)
{
    int rc = mdb_env_set_mapsize(e->lmdb, (size_t)size);

    e->broken = e->broken || rc != 0;
    note_map(e);
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

const char *mj_store_library(void)
{
    return mdb_version(NULL, NULL, NULL);
}
