/* One LMDB environment per process and directory.
 *
 * LMDB forbids opening one file twice in a process (its locks break when either
 * closes) and using an environment across fork.  So environments live in a
 * registry that is keyed by the directory's device and inode, counts references
 * and is guarded by a mutex; a fork makes every entry foreign to the child. */
#include "mj_store_impl.h"

#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READERS = 1024 };
static const uint64_t MAP_START = 16u << 20;   /* small stores stay small in every listing */
static const uint64_t MAP_STEP = 1u << 30;     /* it doubles up to this, then grows by it */
static const uint64_t MAP_CEILING = 1ull << 40; /* address space, not memory */

struct mj_env {
    dev_t dev;
    ino_t ino;
    unsigned generation; /* forks that had happened when it was opened */
    unsigned refs;
    MDB_env *lmdb;
    MDB_dbi dbi[DB_COUNT];
    uint64_t map_max;
    pthread_rwlock_t resize; /* held for reading by every transaction, for writing while the map changes */
    struct mj_env *next;
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
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
    registry = NULL; /* the parent's: never touched again, not even to close them */
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
        return MJ_ECORRUPT;
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return MJ_EFORMAT;
    case MDB_READERS_FULL:
        return MJ_ELIMIT;
    default:
        return MJ_EIO;
    }
}

static bool in_group(gid_t gid)
{
    gid_t groups[256];
    int n = getgroups(256, groups);

    if (getegid() == gid)
        return true;
    for (int i = 0; i < n; i++)
        if (groups[i] == gid)
            return true;
    return false;
}

/* The store has one owner: everybody else is turned away before a file is touched. */
static int check_owner(const char *path, const struct stat *st, const mj_store_options *o, bool dir, char *why,
                       size_t size)
{
    struct passwd pw, *p = NULL;
    char buf[1024];

    if (st->st_uid == geteuid())
        return MJ_OK;
    if ((o->mode & 060) && in_group(st->st_gid) && (st->st_mode & S_IWGRP) && (!dir || (st->st_mode & S_ISGID)))
        return MJ_OK;
    getpwuid_r(st->st_uid, &pw, buf, sizeof buf, &p);
    snprintf(why, size, "%s belongs to user %s (uid %lu), not to uid %lu: run this as %s", path,
             p ? p->pw_name : "?", (unsigned long)st->st_uid, (unsigned long)geteuid(),
             p ? p->pw_name : "its owner");
    return MJ_EOWNER;
}

static int look_at_dir(const char *dir, const mj_store_options *o, struct stat *st, bool *fresh, char *why,
                       size_t size)
{
    char path[4096];
    struct stat file;
    int rc;

    if (stat(dir, st) != 0 && errno == ENOENT) {
        if (mkdir(dir, o->mode & 060 ? 02770 : 0700) != 0 && errno != EEXIST) {
            snprintf(why, size, "can't create the store directory %s: %s", dir, strerror(errno));
            return errno == ENOSPC ? MJ_ENOSPC : MJ_EREADONLY;
        }
        if ((o->mode & 060) && chmod(dir, 02770) != 0) { /* the umask took it away */
            snprintf(why, size, "can't set the mode of %s: %s", dir, strerror(errno));
            return MJ_EREADONLY;
        }
    }
    if (stat(dir, st) != 0 || !S_ISDIR(st->st_mode)) {
        snprintf(why, size, "%s: %s", dir, errno ? strerror(errno) : "not a directory");
        return errno == ENOENT || S_ISREG(st->st_mode) ? MJ_EFORMAT : MJ_EREADONLY;
    }
    rc = check_owner(dir, st, o, true, why, size);
    if (rc != MJ_OK)
        return rc;
    if ((size_t)snprintf(path, sizeof path, "%s/data.mdb", dir) >= sizeof path) {
        snprintf(why, size, "the store's path is too long");
        return MJ_EINVAL;
    }
    *fresh = stat(path, &file) != 0;
    if (*fresh && access(dir, W_OK) != 0) {
        snprintf(why, size, "the store directory %s can't be written: %s", dir, strerror(errno));
        return MJ_EREADONLY;
    }
    return *fresh ? MJ_OK : check_owner(path, &file, o, false, why, size);
}

static int open_dbs(mj_env *e, MDB_txn *t, unsigned flags)
{
    static const char *const names[] = {
#define X(sym, name) name,
        MJ_DBS(X)
#undef X
    };
    int rc = 0;

    for (int i = 0; i < DB_COUNT && rc == 0; i++)
        rc = mdb_dbi_open(t, names[i], flags, &e->dbi[i]);
    return rc;
}

static int check_schema(mj_env *e, MDB_txn *t, char *why, size_t size)
{
    MDB_val key = mj_val("schema", 6), value;
    int rc = mdb_get(t, e->dbi[DB_META], &key, &value);
    uint32_t found;

    if (rc != 0 || value.mv_size != 4) {
        snprintf(why, size, "the file is an LMDB file but no mjhook store");
        return MJ_EFORMAT;
    }
    found = mj_be32_get(value.mv_data);
    if (found <= MJ_STORE_SCHEMA)
        return MJ_OK;
    snprintf(why, size, "the store has schema %lu, this mjhook knows up to %d: install the newer one again",
             (unsigned long)found, MJ_STORE_SCHEMA);
    return MJ_ESCHEMA;
}

/* Makes the databases of a new store, all in one transaction; finds them all there in an old one. */
static int create_dbs(mj_env *e, char *why, size_t size)
{
    uint8_t schema[4];
    MDB_stat st;
    MDB_val key = mj_val("schema", 6), value = mj_val(schema, 4);
    MDB_txn *t;
    MDB_dbi main_db;
    int rc = mdb_txn_begin(e->lmdb, NULL, 0, &t);

    if (rc != 0)
        return rc;
    rc = mdb_dbi_open(t, NULL, 0, &main_db);
    if (rc == 0)
        rc = mdb_stat(t, main_db, &st);
    if (rc == 0 && st.ms_entries > 0) {
        /* Not empty: another process may just have made it; anything else is not ours to change. */
        rc = open_dbs(e, t, 0);
        if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE) {
            snprintf(why, size, "the file is an LMDB file but no mjhook store");
            rc = MJ_EFORMAT;
        }
        if (rc == 0)
            rc = check_schema(e, t, why, size);
    } else if (rc == 0) {
        rc = open_dbs(e, t, MDB_CREATE);
        mj_be32(schema, MJ_STORE_SCHEMA);
        if (rc == 0)
            rc = mdb_put(t, e->dbi[DB_META], &key, &value, 0);
    }
    if (rc != 0) {
        mdb_txn_abort(t);
        return rc;
    }
    return mdb_txn_commit(t);
}

static int open_env(mj_env *e, const char *dir, const mj_store_options *o, bool fresh, char *why, size_t size)
{
    mode_t mode = o->mode ? o->mode : 0600;
    char path[4096 + 16];
    MDB_txn *t;
    int dead, rc;

    if ((rc = mdb_env_create(&e->lmdb)) != 0)
        return rc;
    if ((rc = mdb_env_set_maxdbs(e->lmdb, DB_COUNT + 8)) != 0 ||
        (rc = mdb_env_set_maxreaders(e->lmdb, READERS)) != 0 ||
        (rc = mdb_env_set_mapsize(e->lmdb, MAP_START)) != 0)
        return rc;
    if ((rc = mdb_env_open(e->lmdb, dir, MDB_NOTLS, mode)) != 0)
        return rc;
    if (fresh && (mode & 060)) { /* what the umask took away; best effort, the owner can repair it */
        snprintf(path, sizeof path, "%s/data.mdb", dir);
        (void)!chmod(path, mode);
        snprintf(path, sizeof path, "%s/lock.mdb", dir);
        (void)!chmod(path, mode);
    }
    mdb_reader_check(e->lmdb, &dead);

    /* The common case writes nothing. */
    rc = mj_env_begin(e, MDB_RDONLY, &t);
    if (rc != 0)
        return rc;
    rc = open_dbs(e, t, 0);
    if (rc == 0) {
        rc = check_schema(e, t, why, size);
        mdb_txn_commit(t); /* keeps the database handles */
        mj_env_leave(e);
        return rc;
    }
    mdb_txn_abort(t);
    mj_env_leave(e);
    if (rc != MDB_NOTFOUND)
        return rc == MDB_INCOMPATIBLE ? MJ_EFORMAT : rc;
    return create_dbs(e, why, size);
}

static void destroy(mj_env *e)
{
    if (e->lmdb)
        mdb_env_close(e->lmdb);
    pthread_rwlock_destroy(&e->resize);
    free(e);
}

int mj_env_acquire(const char *dir, const mj_store_options *o, mj_env **out, char *why, size_t size)
{
    struct stat st = {0};
    bool fresh = false;
    mj_env *e;
    int rc;

    *out = NULL;
    why[0] = '\0';
    errno = 0;
    pthread_once(&fork_once, watch_fork);
    pthread_mutex_lock(&registry_lock);
    rc = look_at_dir(dir, o, &st, &fresh, why, size);
    if (rc != MJ_OK)
        goto done;
    for (e = registry; e; e = e->next)
        if (e->dev == st.st_dev && e->ino == st.st_ino)
            break;
    if (!e) {
        e = calloc(1, sizeof *e);
        if (!e) {
            rc = MJ_ENOMEM;
            goto done;
        }
        e->dev = st.st_dev;
        e->ino = st.st_ino;
        e->generation = generation;
        e->map_max = o->map_max ? o->map_max : MAP_CEILING;
        pthread_rwlock_init(&e->resize, NULL);
        rc = open_env(e, dir, o, fresh, why, size);
        if (rc != 0) {
            if (!why[0])
                snprintf(why, size, "can't open the store %s: %s", dir,
                         rc == MDB_INVALID ? "data.mdb is no LMDB file" : mdb_strerror(rc));
            rc = mj_env_code(rc);
            destroy(e);
            goto done;
        }
        e->next = registry;
        registry = e;
    }
    e->refs++;
    *out = e;
done:
    pthread_mutex_unlock(&registry_lock);
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

/* Another process made the map larger: take its size over. */
static int adopt_size(mj_env *e)
{
    int rc;

    pthread_rwlock_wrlock(&e->resize);
    rc = mdb_env_set_mapsize(e->lmdb, 0);
    pthread_rwlock_unlock(&e->resize);
    return rc;
}

int mj_env_begin(mj_env *e, unsigned flags, MDB_txn **txn)
{
    int rc;

    do {
        pthread_rwlock_rdlock(&e->resize);
        rc = mdb_txn_begin(e->lmdb, NULL, flags, txn);
        if (rc != 0)
            pthread_rwlock_unlock(&e->resize);
    } while (rc == MDB_MAP_RESIZED && (rc = adopt_size(e)) == 0);
    return rc;
}

int mj_env_renew(mj_env *e, MDB_txn *txn)
{
    int rc;

    do {
        pthread_rwlock_rdlock(&e->resize);
        rc = mdb_txn_renew(txn);
        if (rc != 0)
            pthread_rwlock_unlock(&e->resize);
    } while (rc == MDB_MAP_RESIZED && (rc = adopt_size(e)) == 0);
    return rc;
}

void mj_env_leave(mj_env *e)
{
    pthread_rwlock_unlock(&e->resize);
}

int mj_env_grow(mj_env *e)
{
    MDB_envinfo info;
    uint64_t size;
    int rc;

    pthread_rwlock_wrlock(&e->resize);
    rc = mdb_env_info(e->lmdb, &info);
    if (rc == 0) {
        size = info.me_mapsize;
        size += size < MAP_STEP ? size : MAP_STEP;
        if (size > e->map_max)
            size = e->map_max;
        rc = size <= info.me_mapsize ? MDB_MAP_FULL : mdb_env_set_mapsize(e->lmdb, (size_t)size);
    }
    pthread_rwlock_unlock(&e->resize);
    return mj_env_code(rc);
}
