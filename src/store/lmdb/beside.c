/* What lies beside the data in a store's directory: whether there is any, locks, notes. */
#include "os/file.h"
#include "store/lmdb/db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int mj_lmdb_exists(const char *dir, const mj_store_options *o, char *why, size_t why_size)
{
    char path[4096];
    struct stat st;

    (void)o;
    if ((size_t)snprintf(path, sizeof path, "%s/data.mdb", dir) >= sizeof path) {
        snprintf(why, why_size, "the store's path is too long");
        return MJ_EINVAL;
    }
    if (stat(path, &st) == 0)
        return MJ_OK;
    if (errno == ENOENT)
        return MJ_ENOTFOUND;
    snprintf(why, why_size, "%s: %s", path, strerror(errno));
    return mj_errno_code(errno);
}

/* The name of a file in the store's directory, but not of one that LMDB or a lock needs. */
static int path_of(mj_lmdb *db, const char *name, const char *end, char *path, size_t size)
{
    const char *dot = strrchr(name, '.');
    bool taken = dot && (strcmp(dot, ".mdb") == 0 || strcmp(dot, ".new") == 0 || strcmp(dot, ".lock") == 0);

    return taken || (size_t)snprintf(path, size, "%s/%s%s", db->dir, name, end) >= size ? MJ_EINVAL : MJ_OK;
}

/* ---- locks ---- */

struct mj_lock {
    int fd;
};

/* flock: it dies with its owner.  A child of fork() that closes its descriptor leaves the lock to the parent. */
int mj_lmdb_lock(void *handle, const char *name, mj_lock **held)
{
    mj_lmdb *db = handle;
    mj_lock *l = calloc(1, sizeof *l);
    char path[4096];
    int rc;

    if (!l)
        return MJ_ENOMEM;
    l->fd = -1;
    rc = path_of(db, name, ".lock", path, sizeof path);
    if (rc == MJ_OK)
        rc = mj_store_file(AT_FDCWD, "", path, db->options.mode ? db->options.mode : 0600, &l->fd, db->why,
                           db->why_size);
    if (rc == MJ_ENOTFOUND) { /* the file is made where it is missing: so is the directory */
        snprintf(db->why, db->why_size, "%s was removed while this process had it open: start the process again",
                 db->dir);
        rc = MJ_EREADONLY;
    }
    if (rc == MJ_OK && flock(l->fd, LOCK_EX | LOCK_NB) != 0)
        rc = errno == EWOULDBLOCK ? MJ_EBUSY : mj_lmdb_fail(db, errno);
    if (rc != MJ_OK)
        mj_lmdb_unlock(l);
    else
        *held = l;
    return rc;
}

void mj_lmdb_unlock(mj_lock *l)
{
    if (l->fd >= 0)
        close(l->fd);
    free(l);
}

/* ---- notes: a file each, which a person may read and remove ---- */

int mj_lmdb_mark(void *handle, const char *name, mj_str text)
{
    mj_lmdb *db = handle;
    char path[4096], why[MJ_FILE_WHY];
    int rc = path_of(db, name, "", path, sizeof path);

    if (rc != MJ_OK)
        return rc;
    if (text.n == 0)
        return unlink(path) == 0 || errno == ENOENT ? MJ_OK : mj_lmdb_fail(db, errno);
    rc = mj_file_write(path, text.p, text.n, db->options.mode ? db->options.mode : 0600, why);
    if (rc != MJ_OK)
        snprintf(db->why, db->why_size, "%.500s", why);
    return rc;
}

int mj_lmdb_marked(void *handle, const char *name, mj_buf *out)
{
    enum { MOST = 4096 };
    mj_lmdb *db = handle;
    char path[4096], text[MOST];
    struct stat st;
    ssize_t n = 0;
    int fd, rc = path_of(db, name, "", path, sizeof path);

    if (rc != MJ_OK)
        return rc;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? MJ_ENOTFOUND : mj_lmdb_fail(db, errno);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0) { /* that it is there is what counts; what it says is for people */
        n = read(fd, text, sizeof text);
        close(fd);
    }
    mj_put_raw(out, text, n > 0 ? (size_t)n : 0);
    return out->failed ? MJ_ENOMEM : MJ_OK;
}
