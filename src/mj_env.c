/* One LMDB environment per process and directory.
 *
 * LMDB forbids opening one file twice in a process (its locks break when either
 * closes) and using an environment across fork.  So environments live in a
 * registry that is keyed by the directory's device and inode, counts references
 * and is guarded by a mutex; a fork makes every entry foreign to the child. */
#include "mj_store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { READERS = 1024 };
static const uint64_t MAP_START = 16u << 20;    /* small stores stay small in every listing */
static const uint64_t MAP_STEP = 1u << 30;      /* it doubles up to this, then grows by it */
static const uint64_t MAP_CEILING = 1ull << 40; /* address space, not memory */

struct mj_env {
    char *dir;
    mode_t mode;
    dev_t dev; /* of data.mdb, which stays open: so nobody else can get its numbers */
    ino_t ino;
    unsigned generation; /* forks that had happened when it was opened */
    unsigned refs;
    unsigned epoch; /* times that it was opened again */
    bool broken;    /* LMDB gave it up: to be opened again, as soon as no transaction runs */
    pthread_mutex_t readers_lock;
    mj_env_reader *readers;
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
    snprintf(why, size, "%s belongs to user %s (uid %lu), not to uid %lu: run this as %s", path, p ? p->pw_name : "?",
             (unsigned long)st->st_uid, (unsigned long)geteuid(), p ? p->pw_name : "its owner");
    return MJ_EOWNER;
}

/* file: data.mdb, when it is there. */
static int look_at_dir(const char *dir, const mj_store_options *o, struct stat *file, bool *fresh, char *why,
                       size_t size)
{
    char path[4096];
    struct stat dir_stat = {0}, *st = &dir_stat;
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
    *fresh = stat(path, file) != 0;
    if (*fresh && access(dir, W_OK) != 0) {
        snprintf(why, size, "the store directory %s can't be written: %s", dir, strerror(errno));
        return MJ_EREADONLY;
    }
    return *fresh ? MJ_OK : check_owner(path, file, o, false, why, size);
}

static bool is_older(const mj_env *e, MDB_txn *t)
{
    MDB_val key = mj_val("schema", 6), value;

    return mdb_get(t, e->dbi[DB_META], &key, &value) == 0 && value.mv_size == 4 &&
           mj_be32_get(value.mv_data) < MJ_STORE_SCHEMA;
}

enum { OLDER = -200 }; /* neither LMDB's, the system's nor one of ours: a store of an earlier schema */

static int open_dbs(mj_env *e, MDB_txn *t, unsigned flags)
{
    static const char *const names[] = {
#define X(sym, name) name,
        MJ_DBS(X)
#undef X
    };
    int rc = 0;

    /* A newer mjhook may have other databases: so the schema is looked at first. */
    for (int i = 0; i < DB_COUNT && rc == 0; i++) {
        rc = mdb_dbi_open(t, names[i], flags, &e->dbi[i]);
        if (rc == 0 && i == DB_META && !(flags & MDB_CREATE))
            rc = is_older(e, t) ? OLDER : mj_env_schema(e, t);
        else if (rc == MDB_NOTFOUND && i > DB_META)
            rc = MJ_EFORMAT;
    }
    return rc == MDB_INCOMPATIBLE ? MJ_EFORMAT : rc;
}

int mj_env_schema(const mj_env *e, MDB_txn *t)
{
    MDB_val key = mj_val("schema", 6), value;
    int rc = mdb_get(t, e->dbi[DB_META], &key, &value);

    if (rc != 0 || value.mv_size != 4)
        return rc != 0 && rc != MDB_NOTFOUND ? rc : MJ_EFORMAT;
    return mj_be32_get(value.mv_data) <= MJ_STORE_SCHEMA ? MJ_OK : MJ_ESCHEMA;
}

/* A transaction of an environment that nobody else uses yet. */
static int begin_alone(mj_env *e, unsigned flags, MDB_txn **t)
{
    int rc;

    do
        rc = mdb_txn_begin(e->lmdb, NULL, flags, t);
    while (rc == MDB_MAP_RESIZED && (rc = mdb_env_set_mapsize(e->lmdb, 0)) == 0);
    return rc;
}

/* Makes the databases that this schema has, and says that it is this one: from then on older programs refuse
 * the store.  See mj_store_upgrade.c for what follows. */
static int write_schema(mj_env *e, MDB_txn *t, bool upgrade)
{
    static const uint8_t start[MJ_ULID_BYTES];
    uint8_t schema[4];
    MDB_val key = mj_val("schema", 6), value = mj_val(schema, sizeof schema);
    int rc = open_dbs(e, t, MDB_CREATE);

    mj_be32(schema, MJ_STORE_SCHEMA);
    if (rc == 0)
        rc = mdb_put(t, e->dbi[DB_META], &key, &value, 0);
    if (rc == 0 && upgrade) {
        key = mj_val(MJ_UPGRADE_KEY, sizeof MJ_UPGRADE_KEY - 1);
        value = mj_val(start, sizeof start);
        rc = mdb_put(t, e->dbi[DB_META], &key, &value, 0);
    }
    return rc;
}

/* Makes a new store, or brings an old one to this schema, all in one transaction. */
static int create_dbs(mj_env *e)
{
    MDB_stat st;
    MDB_txn *t;
    MDB_dbi main_db;
    int rc = begin_alone(e, 0, &t);

    if (rc != 0)
        return rc;
    rc = mdb_dbi_open(t, NULL, 0, &main_db);
    if (rc == 0)
        rc = mdb_stat(t, main_db, &st);
    if (rc == 0 && st.ms_entries > 0) {
        /* Not empty: another process may just have made it; anything else is not ours to change. */
        rc = open_dbs(e, t, 0);
        if (rc == OLDER)
            rc = write_schema(e, t, true);
        else if (rc == MDB_NOTFOUND)
            rc = MJ_EFORMAT;
    } else if (rc == 0) {
        rc = write_schema(e, t, false);
    }
    if (rc == 0)
        return mdb_txn_commit(t);
    mdb_txn_abort(t);
    return rc;
}

/* A process that was started without standard output or error writes to whatever got that number, and that must not
 * be the store. */
static bool fill_standard_files(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
        if (fd < 0)
            fd = open("/", O_RDONLY | O_DIRECTORY); /* no /dev in here */
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int open_lmdb(mj_env *e, bool fresh)
{
    mode_t mode = e->mode ? e->mode : 0600;
    char path[4096 + 16];
    MDB_txn *t;
    int dead, fd, rc;

    if ((rc = mdb_env_create(&e->lmdb)) != 0 || (rc = mdb_env_set_maxdbs(e->lmdb, DB_COUNT + 8)) != 0 ||
        (rc = mdb_env_set_maxreaders(e->lmdb, READERS)) != 0)
        return rc;
    /* An old file knows how large its map was. */
    if (fresh && (rc = mdb_env_set_mapsize(e->lmdb, (size_t)(e->map_max < MAP_START ? e->map_max : MAP_START))) != 0)
        return rc;
    if (!fill_standard_files())
        return errno;
    if ((rc = mdb_env_open(e->lmdb, e->dir, MDB_NOTLS, mode)) != 0)
        return rc;
    if (mdb_env_get_fd(e->lmdb, &fd) == 0) /* the others are so already */
        (void)!fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (fresh && (mode & 060)) { /* what the umask took away; best effort, the owner can repair it */
        snprintf(path, sizeof path, "%s/data.mdb", e->dir);
        (void)!chmod(path, mode);
        snprintf(path, sizeof path, "%s/lock.mdb", e->dir);
        (void)!chmod(path, mode);
    }
    mdb_reader_check(e->lmdb, &dead);

    /* The common case writes nothing. */
    rc = begin_alone(e, MDB_RDONLY, &t);
    if (rc != 0)
        return rc;
    rc = open_dbs(e, t, 0);
    if (rc == 0)
        return mdb_txn_commit(t); /* keeps the database handles */
    mdb_txn_abort(t);
    return rc == MDB_NOTFOUND || rc == OLDER ? create_dbs(e) : rc;
}

static int open_env(mj_env *e, bool fresh)
{
    int rc = open_lmdb(e, fresh);

    if (rc != 0 && e->lmdb) {
        mdb_env_close(e->lmdb);
        e->lmdb = NULL;
    }
    return rc;
}

static void destroy(mj_env *e)
{
    if (e->lmdb)
        mdb_env_close(e->lmdb);
    pthread_rwlock_destroy(&e->resize);
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
    e->mode = o->mode;
    e->generation = generation;
    e->map_max = o->map_max ? o->map_max : MAP_CEILING;
    /* Else readers that come and go without a gap would keep the map from growing for ever. */
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&e->resize, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&e->readers_lock, NULL);
    if (!e->dir) {
        destroy(e);
        return NULL;
    }
    return e;
}

static void explain(int rc, const char *dir, char *why, size_t size)
{
    if (why[0])
        return;
    if (rc == MJ_EFORMAT)
        snprintf(why, size, "%s/data.mdb is an LMDB file but no mjhook store", dir);
    else if (rc == MJ_ESCHEMA)
        snprintf(why, size,
                 "the store %s was written by a newer mjhook, this one knows schema %d: install that one again", dir,
                 MJ_STORE_SCHEMA);
    else
        snprintf(why, size, "can't open the store %s: %s", dir,
                 rc == MDB_INVALID     ? "data.mdb is no LMDB file"
                 : rc > -100 && rc < 0 ? mj_error_text(rc)
                                       : mdb_strerror(rc));
}

/* Notes which file it is that LMDB opened. */
static int identify(mj_env *e)
{
    struct stat st;
    int fd, rc = mdb_env_get_fd(e->lmdb, &fd);

    if (rc == 0 && fstat(fd, &st) != 0)
        rc = errno;
    if (rc == 0) {
        e->dev = st.st_dev;
        e->ino = st.st_ino;
    }
    return rc;
}

/* Handles of one store share the map; the largest map_max among them holds. */
static void raise_ceiling(mj_env *e, const mj_store_options *o)
{
    uint64_t wanted = o->map_max ? o->map_max : MAP_CEILING;

    pthread_rwlock_wrlock(&e->resize);
    if (wanted > e->map_max)
        e->map_max = wanted;
    pthread_rwlock_unlock(&e->resize);
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
        if (!fresh && e->dev == st.st_dev && e->ino == st.st_ino)
            break;
    if (!e) {
        e = new_env(dir, o);
        rc = e ? open_env(e, fresh) : MJ_ENOMEM;
        if (rc == 0)
            rc = identify(e);
        if (rc != 0) {
            explain(rc, dir, why, size);
            rc = mj_env_code(rc);
            if (e)
                destroy(e);
            goto done;
        }
        e->next = registry;
        registry = e;
    }
    raise_ceiling(e, o);
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

/* Opens an environment again that LMDB gave up: after a failed write of its root (a sick disk) it refuses every
 * transaction until it is closed.  Held for writing, so none runs; those that wait for their next use end. */
static int reopen(mj_env *e)
{
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
    rc = open_env(e, false);
    if (rc == 0)
        rc = identify(e);
    e->broken = rc != 0;
    return rc;
}

/* Sets the size of the map, held for writing; 0: the size that another process made it.
 * LMDB unmaps first: when it can't map again, only opening it anew helps. */
static int set_size(mj_env *e, uint64_t size)
{
    int rc = mdb_env_set_mapsize(e->lmdb, (size_t)size);

    e->broken = e->broken || rc != 0;
    return rc;
}

/* A transaction of `epoch` could not begin, for rc. 0: the cause was removed, try again. */
static int recover(mj_env *e, unsigned epoch, int rc)
{
    int dead = 0;

    if (rc != MDB_MAP_RESIZED && rc != MDB_PANIC && rc != MDB_READERS_FULL)
        return rc;
    pthread_rwlock_wrlock(&e->resize);
    if (e->epoch != epoch) /* another thread was faster */
        rc = 0;
    else if (rc == MDB_PANIC || e->broken)
        rc = reopen(e);
    else if (rc == MDB_MAP_RESIZED)
        rc = set_size(e, 0);
    else
        rc = mdb_reader_check(e->lmdb, &dead) == 0 && dead > 0 ? 0 : rc;
    pthread_rwlock_unlock(&e->resize);
    return rc;
}

int mj_env_begin(mj_env *e, unsigned flags, MDB_txn **txn)
{
    unsigned epoch;
    int rc;

    do {
        pthread_rwlock_rdlock(&e->resize);
        epoch = e->epoch;
        rc = e->broken ? MDB_PANIC : mdb_txn_begin(e->lmdb, NULL, flags, txn);
        if (rc == 0)
            return 0;
        pthread_rwlock_unlock(&e->resize);
        rc = recover(e, epoch, rc);
    } while (rc == 0);
    return rc;
}

int mj_env_read(mj_env *e, mj_env_reader *r)
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
        rc = e->broken ? MDB_PANIC : r->txn ? mdb_txn_renew(r->txn) : mdb_txn_begin(e->lmdb, NULL, MDB_RDONLY, &r->txn);
        if (rc == 0)
            return 0;
        pthread_rwlock_unlock(&e->resize);
        rc = recover(e, epoch, rc);
    } while (rc == 0);
    return rc;
}

void mj_env_leave(mj_env *e)
{
    pthread_rwlock_unlock(&e->resize);
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
    uint64_t size;
    int rc = 0;

    pthread_rwlock_wrlock(&e->resize);
    size = e->broken ? UINT64_MAX : mj_env_size(e);
    if (size <= full) { /* else another thread was faster */
        size += size < MAP_STEP ? size : MAP_STEP;
        if (size > e->map_max)
            size = e->map_max;
        rc = size <= full ? MDB_MAP_FULL : set_size(e, size);
    }
    pthread_rwlock_unlock(&e->resize);
    return mj_env_code(rc);
}

const char *mj_store_library(void)
{
    return mdb_version(NULL, NULL, NULL);
}
