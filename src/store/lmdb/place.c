/* The directory of a store and the files in it.
 *
 * Each file is looked at by descriptor, or by the name in an open directory with no link followed: what is no regular
 * file, has a second name, or belongs to another user is refused before anything is read or written. */
#include "os/file.h"
#include "store/lmdb/env_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* LMDB's lock file for 1,024 readers and a few more: a page for its head, and 64 bytes for each. */
enum { LOCK_BYTES = 4096 + 1024 * 64 };
enum { ENTER_MS = 3000, NAP_MS = 5 };

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

/* The store has one owner: other users are turned away before a file is touched. */
static int check_owner(const char *path, const struct stat *st, mode_t mode, bool dir, char *why, size_t size)
{
    struct passwd pw, *p = NULL;
    char buf[1024];

    if (st->st_uid == geteuid())
        return MJ_OK;
    if ((mode & 060) && in_group(st->st_gid) && (st->st_mode & S_IWGRP) && (!dir || (st->st_mode & S_ISGID)))
        return MJ_OK;
    getpwuid_r(st->st_uid, &pw, buf, sizeof buf, &p);
    snprintf(why, size, "%s belongs to user %s (uid %lu), not to uid %lu: run this as %s", path, p ? p->pw_name : "?",
             (unsigned long)st->st_uid, (unsigned long)geteuid(), p ? p->pw_name : "its owner");
    return MJ_EOWNER;
}

static const char *kind_of(mode_t mode)
{
    return S_ISLNK(mode)    ? "a symbolic link"
           : S_ISDIR(mode)  ? "a directory"
           : S_ISFIFO(mode) ? "a named pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

/* A file of the store is a regular one with one name. */
static int check_file(const char *path, const struct stat *st, mode_t mode, char *why, size_t size)
{
    if (!S_ISREG(st->st_mode)) {
        snprintf(why, size, "%s is %s, not a file of a store: remove it", path, kind_of(st->st_mode));
        return MJ_EOWNER;
    }
    if (st->st_nlink > 1) {
        snprintf(why, size, "%s has %lu names (hard links): remove the others, find -inum %lu shows them", path,
                 (unsigned long)st->st_nlink, (unsigned long)st->st_ino);
        return MJ_EOWNER;
    }
    return check_owner(path, st, mode, false, why, size);
}

int mj_store_file(int at, const char *dir, const char *name, mode_t mode, int *fd, char *why, size_t size)
{
    enum { FLAGS = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY };
    char path[4096 + 64];
    struct stat st = {0};
    bool made;
    int rc;

    snprintf(path, sizeof path, "%s%s%s", dir, *dir ? "/" : "", name);
    *fd = openat(at, name, FLAGS | O_CREAT | O_EXCL, 0600);
    made = *fd >= 0;
    if (!made && errno == EEXIST) {
        /* Not even opened, if it is a device: that alone may do something. */
        if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (rc = check_file(path, &st, mode, why, size)) != MJ_OK)
            return rc;
        *fd = openat(at, name, FLAGS);
    }
    if (*fd < 0 || fstat(*fd, &st) != 0) {
        rc = mj_errno_code(errno);
        snprintf(why, size, "%s can't be opened for writing: %s", path, strerror(errno));
    } else {
        rc = check_file(path, &st, mode, why, size);
    }
    /* What the umask took away, now or when an earlier version made it. */
    if (rc == MJ_OK && st.st_uid == geteuid() && (made || (mode & ~st.st_mode & 0777)) && fchmod(*fd, mode) != 0) {
        snprintf(why, size, "can't set the mode of %s: %s", path, strerror(errno));
        rc = MJ_EREADONLY;
    }
    if (rc != MJ_OK && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return rc;
}

static int open_dir(const char *dir, const mj_store_options *o, int *fd, char *why, size_t size)
{
    struct stat st;
    int rc;

    *fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0 && errno == ENOENT) {
        if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
            snprintf(why, size, "can't create the store directory %s: %s", dir, strerror(errno));
            return errno == ENOENT || errno == ENOTDIR ? MJ_EREADONLY : mj_errno_code(errno);
        }
        *fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (*fd >= 0 && (o->mode & 060) && fstat(*fd, &st) == 0 && st.st_uid == geteuid() && chmod(dir, 02770) != 0) {
            snprintf(why, size, "can't set the mode of %s: %s", dir, strerror(errno));
            return MJ_EREADONLY;
        }
    }
    if (*fd < 0) {
        snprintf(why, size, "%s: %s", dir, strerror(errno));
        if (errno == ENOTDIR) /* it, or one above it */
            return stat(dir, &st) == 0 ? MJ_EFORMAT : MJ_EREADONLY;
        return mj_errno_code(errno);
    }
    if (fstat(*fd, &st) != 0) {
        snprintf(why, size, "%s: %s", dir, strerror(errno));
        return MJ_EIO;
    }
    rc = check_owner(dir, &st, o->mode, true, why, size);
    /* In a sticky one no user replaces the files of another, and what others put there is refused for its owner. */
    if (rc == MJ_OK && (st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX)) {
        snprintf(why, size, "all users can write to the store directory %s: chmod o-w %s", dir, dir);
        rc = MJ_EOWNER;
    }
    return rc;
}

static int look(mj_place *p, const char *name, const mj_store_options *o, bool *there, struct stat *st, char *why,
                size_t size)
{
    char path[4096 + 64];

    *there = fstatat(p->fd, name, st, AT_SYMLINK_NOFOLLOW) == 0;
    if (!*there && errno == ENOENT)
        return MJ_OK;
    snprintf(path, sizeof path, "%s/%s", p->path, name);
    if (*there)
        return check_file(path, st, o->mode, why, size);
    snprintf(why, size, "%s: %s", path, strerror(errno));
    return mj_errno_code(errno);
}

int mj_place_look(mj_place *p, const mj_store_options *o, char *why, size_t size)
{
    int rc = look(p, "data.mdb", o, &p->has_data, &p->data, why, size);

    if (rc == MJ_OK)
        rc = look(p, "lock.mdb", o, &p->has_lock, &p->lock, why, size);
    if (rc == MJ_OK && !p->has_data && faccessat(p->fd, ".", W_OK, AT_EACCESS) != 0) {
        snprintf(why, size, "the store directory %s can't be written: %s", p->path, strerror(errno));
        rc = MJ_EREADONLY;
    }
    return rc;
}

int mj_place_open(mj_place *p, const char *dir, const mj_store_options *o, char *why, size_t size)
{
    enum { LONGEST = 4096 - 64 };
    int rc;

    *p = (mj_place){.path = dir, .fd = -1};
    if (strlen(dir) > LONGEST) {
        snprintf(why, size, "the store's path is too long");
        return MJ_EINVAL;
    }
    rc = open_dir(dir, o, &p->fd, why, size);
    if (rc == MJ_OK)
        rc = mj_place_look(p, o, why, size);
    if (rc != MJ_OK)
        mj_place_close(p);
    return rc;
}

void mj_place_close(mj_place *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}

/* ---- lock.mdb ---- */

/* A lock on LMDB's byte: every process that has the store open holds a shared one. */
static struct flock on_byte(short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
}

pid_t mj_place_user(int lock_fd)
{
    struct flock f = on_byte(F_WRLCK);

    return fcntl(lock_fd, F_GETLK, &f) != 0 || f.l_type == F_UNLCK ? -1 : f.l_pid > 0 ? f.l_pid : 0;
}

/* Writes to a page of a mapped file that has no block on a full disk end the process: so each gets its block before. */
static int allocate(int fd, const struct stat *st)
{
    off_t bytes = st->st_size;
    static const char zero[4096];

    if (bytes < LOCK_BYTES && mj_place_user(fd) < 0)
        bytes = LOCK_BYTES;
    if (fallocate(fd, 0, 0, bytes) == 0)
        return 0;
    if (errno != EOPNOTSUPP || st->st_size > 0)
        return errno == EOPNOTSUPP ? 0 : errno;
    for (off_t at = 0; at < bytes; at += (off_t)sizeof zero) /* no process has a new one open */
        if (pwrite(fd, zero, sizeof zero, at) != (ssize_t)sizeof zero)
            return errno ? errno : ENOSPC;
    return 0;
}

int mj_place_lock(mj_place *p, const mj_store_options *o, int *fd, char *why, size_t size)
{
    struct stat st;
    int rc = mj_store_file(p->fd, p->path, "lock.mdb", o->mode ? o->mode : 0600, fd, why, size);

    if (rc != MJ_OK)
        return rc;
    errno = 0;
    if (fstat(*fd, &st) != 0 || (rc = allocate(*fd, &st)) != 0) {
        rc = rc ? rc : errno;
        snprintf(why, size, "%s/lock.mdb: %s", p->path, strerror(rc));
        close(*fd);
        *fd = -1;
        return rc;
    }
    p->has_lock = true;
    p->lock = st;
    return MJ_OK;
}

int mj_place_enter(const mj_place *p, int lock_fd, bool alone, bool wait, char *why, size_t size)
{
    struct flock f;
    pid_t user;

    for (int waited = 0; waited <= (wait ? ENTER_MS : 0); waited += NAP_MS) {
        f = on_byte(alone ? F_WRLCK : F_RDLCK);
        if (alone && fcntl(lock_fd, F_SETLK, &f) == 0)
            return MJ_OK;
        if (!alone && (fcntl(lock_fd, F_GETLK, &f) != 0 || f.l_type == F_UNLCK))
            return MJ_OK;
        if (wait)
            nanosleep(&(struct timespec){.tv_nsec = NAP_MS * 1000000L}, NULL);
    }
    user = mj_place_user(lock_fd);
    if (user > 0)
        snprintf(why, size, "process %ld %s the store %s", (long)user,
                 alone ? "has open, makes or restores" : "is making or restoring", p->path);
    else
        snprintf(why, size, "a process in another container %s the store %s",
                 alone ? "has open, makes or restores" : "is making or restoring", p->path);
    return MJ_EBUSY;
}
