/* Opening an environment: what lies in the directory, whether LMDB and the file agree about it, and making a new store.
 *
 * A new store is built in a file beside its place and gets its name when it is whole and on the disk.  So a full disk
 * or a power cut leaves no store, or a whole one.  Nothing is ever made in a file that has content. */
#include "store/lmdb/env_impl.h"
#include "store/records.h"

#include "os/fd.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READERS = 1024, LOOKED_AT = 64 /* pages of each tree, when a store is opened */ };
static const uint64_t MAP_START = 16u << 20; /* small stores stay small in every listing */

#define NEW_FILE "data.mdb.new"

/* ---- the schema ---- */

static bool is_older(mj_env *e, MDB_txn *t)
{
    MDB_val key = mj_val("schema", 6), value;

    return mj_env_get(e, t, MJ_IX_META, key, &value) == 0 && value.mv_size == 4 &&
           mj_be32_get(value.mv_data) < MJ_STORE_SCHEMA;
}

int mj_env_schema(mj_env *e, MDB_txn *t)
{
    MDB_val key = mj_val("schema", 6), value;
    int rc = mj_env_get(e, t, MJ_IX_META, key, &value);

    if (rc != 0 || value.mv_size != 4)
        return rc != 0 && rc != MDB_NOTFOUND ? rc : MJ_EFORMAT;
    return mj_be32_get(value.mv_data) <= MJ_STORE_SCHEMA ? MJ_OK : MJ_ESCHEMA;
}

static int open_dbs(mj_env *e, MDB_txn *t, unsigned flags)
{
    int rc = 0;

    /* A newer mjhook may have other databases: so the schema is looked at first. */
    for (int i = 0; i < MJ_NINDEXES && rc == 0; i++) {
        rc = mdb_dbi_open(t, mj_index_name((mj_index)i), flags, &e->dbi[i]);
        if (rc == 0 && i == MJ_IX_META && !(flags & MDB_CREATE))
            rc = is_older(e, t) ? MJ_OLDER : mj_env_schema(e, t);
        else if (rc == MDB_NOTFOUND && i > MJ_IX_META)
            rc = MJ_EFORMAT;
    }
    return rc == MDB_INCOMPATIBLE ? MJ_EFORMAT : rc;
}

/* A callback looks at a few pages that lie anywhere in the file.  Where the file is larger than the memory, reading
 * their neighbours ahead (128 KiB by default, 8 MiB on some disks) pushes out pages that are still needed.  Long walks
 * (check, backup, prune) took no longer without it. */
enum { MAP_FLAGS = MDB_NOTLS | MDB_NORDAHEAD };

/* A transaction of an environment that no other thread uses yet. */
static int begin_alone(mj_env *e, unsigned flags, MDB_txn **t)
{
    int rc;

    do
        rc = mdb_txn_begin(e->lmdb, NULL, flags, t);
    while (rc == MDB_MAP_RESIZED && (rc = mdb_env_set_mapsize(e->lmdb, 0)) == 0);
    return rc;
}

/* Makes the databases that this schema has, and notes that it is this one: from then on older programs refuse the
 * store.  See store/upgrade.c for what follows. */
static int write_schema(mj_env *e, MDB_txn *t, bool upgrade)
{
    static const uint8_t start[MJ_ULID_BYTES];
    uint8_t schema[4];
    MDB_val key = mj_val("schema", 6), value = mj_val(schema, sizeof schema);
    int rc = open_dbs(e, t, MDB_CREATE);

    mj_be32(schema, MJ_STORE_SCHEMA);
    if (rc == 0)
        rc = mdb_put(t, e->dbi[MJ_IX_META], &key, &value, 0);
    if (rc == 0)
        rc = mj_env_put_weights(e, t);
    if (rc == 0 && upgrade) {
        key = mj_val(MJ_UPGRADE_KEY, sizeof MJ_UPGRADE_KEY - 1);
        value = mj_val(start, sizeof start);
        rc = mdb_put(t, e->dbi[MJ_IX_META], &key, &value, 0);
    }
    return rc;
}

static int try_create_dbs(mj_env *e)
{
    enum { FIRST = 1 }; /* number of an environment's first transaction */
    MDB_txn *t;
    int rc = begin_alone(e, 0, &t);

    if (rc != 0)
        return rc;
    rc = mj_env_sound(e, t, true);
    if (rc == 0)
        rc = open_dbs(e, t, 0);
    if (rc == MJ_OLDER)
        rc = write_schema(e, t, true);
    else if (rc == MDB_NOTFOUND)
        rc = mdb_txn_id(t) == FIRST ? write_schema(e, t, false) : MJ_EFORMAT;
    if (rc == 0)
        return mdb_txn_commit(t);
    mdb_txn_abort(t);
    return rc;
}

/* Brings an old store to this schema, or makes one in a file into which nothing was ever committed: in one transaction,
 * and only if the file is the one that LMDB takes it for.  The map of an old one may be full. */
static int create_dbs(mj_env *e)
{
    uint64_t full;
    int rc;

    do {
        full = mj_env_size(e);
        rc = try_create_dbs(e);
    } while (rc == MDB_MAP_FULL && (rc = mj_env_grow_held(e, full)) == 0);
    return rc;
}

/* ---- a new store ---- */

static int new_lmdb(mj_env *e)
{
    int rc = mdb_env_create(&e->lmdb);

    if (rc == 0)
        rc = mdb_env_set_maxdbs(e->lmdb, MJ_NINDEXES + 8);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(e->lmdb, READERS);
    return rc;
}

static void close_lmdb(mj_env *e)
{
    if (e->lmdb)
        mdb_env_close(e->lmdb);
    e->lmdb = NULL;
    e->fd = -1;
}

/* Whether LMDB opened this very file; notes which one. */
static int identify(mj_env *e, const struct stat *file)
{
    struct stat st;
    int rc = mdb_env_get_fd(e->lmdb, &e->fd);

    if (rc == 0 && (fstat(e->fd, &st) != 0 || fcntl(e->fd, F_SETFD, FD_CLOEXEC) != 0)) /* the others are so already */
        rc = errno;
    if (rc == 0 && (st.st_dev != file->st_dev || st.st_ino != file->st_ino))
        rc = MJ_ECHANGED;
    if (rc == 0) {
        e->dev = st.st_dev;
        e->ino = st.st_ino;
    }
    return rc;
}

static int build(mj_env *e, const char *path, int fd)
{
    uint64_t most = atomic_load(&e->map_max);
    mj_env aside = {.fd = -1};
    struct stat st;
    MDB_txn *t;
    int rc = new_lmdb(&aside);

    if (rc == 0)
        rc = mdb_env_set_mapsize(aside.lmdb, (size_t)(most < MAP_START ? most : MAP_START));
    if (rc == 0)
        rc = mdb_env_open(aside.lmdb, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600);
    if (rc == 0)
        rc = fstat(fd, &st) == 0 ? identify(&aside, &st) : errno;
    if (rc == 0 && (rc = mdb_txn_begin(aside.lmdb, NULL, 0, &t)) == 0) {
        rc = write_schema(&aside, t, false);
        if (rc == 0)
            rc = mdb_txn_commit(t);
        else
            mdb_txn_abort(t);
    }
    close_lmdb(&aside);
    return rc == 0 && fsync(fd) != 0 ? errno : rc;
}

static int sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

    if (fd < 0)
        return errno;
    rc = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return rc;
}

/* No other process has the directory's lock, so none builds. */
static int make_store(mj_env *e, const mj_place *p, char *why, size_t size)
{
    char path[4096 + 64];
    int fd, rc;

    unlinkat(p->fd, NEW_FILE, 0); /* of a process that died at it */
    rc = mj_store_file(p->fd, p->path, NEW_FILE, e->mode, &fd, why, size);
    if (rc != 0)
        return rc;
    snprintf(path, sizeof path, "%s/" NEW_FILE, p->path);
    rc = build(e, path, fd);
    if (rc == EIO && mj_env_disk_full(e))
        rc = ENOSPC; /* LMDB calls a write that came out short EIO */
    close(fd);
    if (rc == 0 && renameat(p->fd, NEW_FILE, p->fd, "data.mdb") != 0)
        rc = errno;
    if (rc == 0)
        rc = sync_dir(p->path);
    else
        unlinkat(p->fd, NEW_FILE, 0);
    return rc;
}

/* ---- what is there ---- */

static int open_data(const mj_place *p, int *fd)
{
    struct stat st;

    *fd = openat(p->fd, "data.mdb", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0)
        return errno;
    if (fstat(*fd, &st) == 0 && st.st_dev == p->data.st_dev && st.st_ino == p->data.st_ino)
        return 0;
    close(*fd);
    *fd = -1;
    return MJ_ECHANGED;
}

/* The roots of what is there; `nothing` as well when there is no file. */
static int look_at_roots(const mj_place *p, mj_roots *r, char *why, size_t size)
{
    char what[128] = "";
    int fd, rc;

    *r = (mj_roots){.nothing = true};
    if (!p->has_data)
        return 0;
    rc = open_data(p, &fd);
    if (rc != 0)
        return rc;
    rc = mj_pages_roots(fd, r, what, sizeof what);
    close(fd);
    if (rc == 0 && !r->nothing && r->txn[0] == 0 && r->txn[1] == 0 && r->file > 2 * r->page_size) {
        snprintf(what, sizeof what, "it has pages, but its first two say that nothing was ever stored");
        rc = MJ_ECORRUPT;
    }
    if (rc == MJ_EFORMAT)
        snprintf(why, size, "%s/data.mdb is no store: %s", p->path, what);
    else if (rc == MJ_ECORRUPT)
        snprintf(why, size, "%s/data.mdb is damaged: %s: put a backup in its place with mjhook restore", p->path, what);
    return rc;
}

/* Makes a store if there is none; *lock_fd is closed then, since LMDB opens the file itself. */
static int prepare(mj_env *e, mj_place *p, const mj_store_options *o, char *why, size_t size)
{
    mj_roots r;
    int lock_fd, rc = mj_place_lock(p, o, &lock_fd, why, size);

    if (rc != 0)
        return rc;
    e->lock_dev = p->lock.st_dev;
    e->lock_ino = p->lock.st_ino;
    rc = mj_place_enter(p, lock_fd, false, !o->no_wait, why, size);
    if (rc == 0)
        rc = mj_place_look(p, o, why, size);
    if (rc == 0)
        rc = look_at_roots(p, &r, why, size);
    if (rc == 0 && r.nothing) {
        rc = mj_place_enter(p, lock_fd, true, !o->no_wait, why, size);
        if (rc == 0)
            rc = mj_place_look(p, o, why, size);
        if (rc == 0)
            rc = look_at_roots(p, &r, why, size); /* another process may have been faster */
        if (rc == 0 && r.nothing)
            rc = make_store(e, p, why, size);
        if (rc == 0)
            rc = mj_place_look(p, o, why, size);
    }
    close(lock_fd);
    return rc;
}

/* ---- opening ---- */

/* Whether LMDB and the file agree which transaction is the newest.  Commits of other processes come in between. */
static int agree(const mj_env *e, MDB_txn *t)
{
    enum { TRIES = 20 };
    char why[128];
    mj_roots r;
    int rc;

    for (int i = 0; i < TRIES; i++) {
        rc = mj_pages_roots(e->fd, &r, why, sizeof why);
        if (rc != 0 || mj_pages_agree(&r, mdb_txn_id(t)))
            return rc;
        mdb_txn_reset(t);
        rc = mdb_txn_renew(t);
        if (rc != 0)
            return rc;
    }
    return MJ_MISFIT;
}

/* The common case writes nothing. */
static int open_store(mj_env *e, const mj_place *p, char *why, size_t size)
{
    char what[128] = "";
    MDB_txn *t;
    int rc = begin_alone(e, MDB_RDONLY, &t);

    if (rc != 0)
        return rc;
    rc = agree(e, t);
    if (rc == 0)
        rc = mj_env_sound(e, t, false);
    if (rc == 0)
        rc = mj_pages_check(e->fd, mdb_txn_id(t), LOOKED_AT, what, sizeof what);
    if (rc == MJ_ECORRUPT)
        snprintf(why, size, "%s/data.mdb is damaged: %s: put a backup in its place with mjhook restore", p->path, what);
    if (rc == MJ_ECHANGED)
        rc = 0; /* other processes commit at this moment: they found it sound */
    if (rc == 0)
        rc = open_dbs(e, t, 0);
    if (rc == 0)
        return mdb_txn_commit(t); /* keeps the database handles */
    mdb_txn_abort(t);
    return rc == MDB_NOTFOUND || rc == MJ_OLDER ? create_dbs(e) : rc;
}

static int open_once(mj_env *e, mj_place *p, const mj_store_options *o, char *why, size_t size)
{
    struct stat lock;
    MDB_stat st;
    int dead, rc = prepare(e, p, o, why, size);

    if (rc == 0)
        rc = mj_fd_fill_standard() ? new_lmdb(e) : errno;
    if (rc == 0)
        rc = mdb_env_open(e->lmdb, e->dir, MAP_FLAGS, e->mode);
    if (rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH) /* the roots were good */
        snprintf(why, size,
                 "%s/lock.mdb is damaged, or of another LMDB: stop all processes that have the store open, "
                 "and remove it",
                 p->path);
    if (rc == 0)
        rc = identify(e, &p->data);
    if (rc == 0 && (fstatat(p->fd, "lock.mdb", &lock, AT_SYMLINK_NOFOLLOW) != 0 || lock.st_dev != e->lock_dev ||
                    lock.st_ino != e->lock_ino))
        rc = MJ_ECHANGED; /* LMDB keeps its descriptor to itself: the name is looked at again */
    if (rc == 0)
        rc = mdb_env_stat(e->lmdb, &st);
    if (rc == 0) {
        e->page_size = st.ms_psize;
        e->map_size = mj_env_size(e);
        atomic_store(&e->map, NULL); /* opened again, it lies somewhere else */
        mdb_reader_check(e->lmdb, &dead);
        rc = open_store(e, p, why, size);
    }
    return rc;
}

/* Another process holds the lock file, so that it tells of what that process has open; and whether LMDB has yet to
 * write into it. */
static bool in_use(const mj_place *p, bool *blank)
{
    int fd = openat(p->fd, "lock.mdb", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool used = fd >= 0 && mj_place_user(fd) >= 0;
    uint32_t magic;

    *blank = fd >= 0 && pread(fd, &magic, sizeof magic, 0) == (ssize_t)sizeof magic && magic == 0;
    if (fd >= 0)
        close(fd);
    return used;
}

/* Whether opening it may succeed at once.  The last process that had the former file open has ended meanwhile; or the
 * file was replaced just now; or another process had a blank lock file for itself, to see whether the store has to be
 * made, and LMDB took it for one that writes into the file. */
static bool again(const mj_place *p, int rc)
{
    bool blank, used = in_use(p, &blank);

    return rc == MJ_ECHANGED || (rc == MJ_MISFIT && !used) || (rc == MDB_INVALID && blank);
}

int mj_env_open(mj_env *e, const mj_store_options *o, char *why, size_t size)
{
    enum { TRIES = 10 };
    mj_place p;
    int rc = mj_place_open(&p, e->dir, o, why, size);

    if (rc != 0)
        return rc;
    for (int i = 0; i < TRIES; i++) {
        why[0] = '\0';
        rc = open_once(e, &p, o, why, size);
        if (rc == 0)
            break;
        close_lmdb(e);
        if (!again(&p, rc))
            break;
    }
    mj_place_close(&p);
    return rc;
}
