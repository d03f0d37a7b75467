/* One LMDB environment per process and directory.
 *
 * LMDB forbids opening one file twice in a process (its locks break when either
 * closes) and using an environment across fork.  So environments live in a
 * registry that is keyed by the file's device and inode, counts references
 * and is guarded by a mutex; a fork makes every entry foreign to the child.
 *
 * The registry's mutex is held for look-ups only.  One thread at a time opens an environment, without the mutex: only
 * threads that need one that is not open yet wait for it. */
#include "store/lmdb/env_impl.h"

#include "os/fd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

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
#ifdef __GLIBC__ /* musl has one kind only */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
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
        mj_env_note_map(e);
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
