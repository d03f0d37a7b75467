#include "base/error.h"
#include "base/fault.h"
#include "os/file_impl.h"
#include "os/libc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 8 };

int mj_errno_code(int number)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT:
        return MJ_ENOSPC;
    case EACCES:
    case EPERM:
    case EROFS:
        return MJ_EREADONLY;
    case ENOENT:
        return MJ_ENOTFOUND;
    case EEXIST:
        return MJ_EEXISTS;
    case ENOMEM:
        return MJ_ENOMEM;
    default:
        return MJ_EIO;
    }
}

bool mj_write_all(int fd, const void *bytes, size_t n)
{
    const char *p = bytes;

    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

int mj_sync_dir(int fd)
{
    return fsync(fd) == 0 || errno == EINVAL ? 0 : -1;
}

int mj_file_refuse(char why[MJ_FILE_WHY], int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, MJ_FILE_WHY, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): clang-tidy 14 errs */
    va_end(args);
    return code;
}

int mj_file_failed(char why[MJ_FILE_WHY], const char *path)
{
    int number = errno;

    return mj_file_refuse(why, mj_errno_code(number), "%s: %s", path, strerror(number));
}

const char *mj_file_kind_of(mode_t mode)
{
    return S_ISLNK(mode)    ? "a symbolic link"
           : S_ISDIR(mode)  ? "a directory"
           : S_ISFIFO(mode) ? "a FIFO"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

static const char *base(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* Opens the directory that holds the file.  One without read permission can't be synced alone: see sync_place(). */
static int open_place(const char *path)
{
    char dir[PATH_MAX];
    size_t n = (size_t)(base(path) - path);
    int fd;

    if (n >= sizeof dir) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(dir, path, n);
    dir[n] = '\0';
    fd = open(n ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 && errno == EACCES ? open(n ? dir : ".", O_PATH | O_DIRECTORY | O_CLOEXEC) : fd;
}

static int sync_place(const mj_file *f)
{
    return mj_sync_dir(f->dir) == 0 || (errno == EBADF && syncfs(f->fd) == 0) ? 0 : -1;
}

/* Whether a regular file is at the path, or nothing is. */
static int check_target(int dir, const char *path, char why[MJ_FILE_WHY])
{
    const char *name = base(path);
    struct stat st;

    if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return mj_file_refuse(why, MJ_EINVAL, "%s: a file's name expected, got a directory's", path);
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? MJ_OK : mj_file_failed(why, path);
    if (!S_ISREG(st.st_mode))
        return mj_file_refuse(why, MJ_EINVAL, "%s is %s, which is neither written to nor replaced: name a regular file",
                              path, mj_file_kind_of(st.st_mode));
    return MJ_OK;
}

static int create(mj_file *f)
{
    for (int i = 0; i < TRIES; i++) {
        unsigned long long random;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            return -1;
        snprintf(f->temporary, sizeof f->temporary, ".%.200s.%016llx.tmp", base(f->path), random);
        f->fd = openat(f->dir, f->temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (f->fd >= 0 || errno != EEXIST)
            return f->fd;
    }
    return -1;
}

int mj_file_begin(mj_file *f, const char *path, unsigned mode, char why[MJ_FILE_WHY])
{
    int rc;

    *f = (mj_file){.fd = -1, .path = path, .mode = mode};
    f->dir = open_place(path);
    if (f->dir < 0)
        return mj_file_failed(why, path);
    rc = check_target(f->dir, path, why);
    if (rc == MJ_OK && create(f) < 0)
        rc = mj_file_failed(why, path);
    if (rc != MJ_OK)
        mj_file_abandon(f);
    return rc;
}

static int take_name(mj_file *f, bool fresh)
{
    const char *name = base(f->path);

    if (!fresh)
        return renameat(f->dir, f->temporary, f->dir, name);
    if (mj_renameat2(f->dir, f->temporary, f->dir, name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL ||
        linkat(f->dir, f->temporary, f->dir, name, 0) != 0) /* a file system that can't do it; a link */
        return -1;                                          /* replaces nothing, either */
    unlinkat(f->dir, f->temporary, 0);
    return 0;
}

int mj_file_commit(mj_file *f, bool fresh, char why[MJ_FILE_WHY])
{
    int rc = MJ_OK;

    if (fchmod(f->fd, (mode_t)f->mode) != 0 || fsync(f->fd) != 0)
        rc = mj_file_failed(why, f->path);
    MJ_FAULT("file.synced");
    if (rc == MJ_OK)
        rc = check_target(f->dir, f->path, why);
    if (rc == MJ_OK && take_name(f, fresh) != 0)
        rc = mj_file_failed(why, f->path);
    MJ_FAULT("file.renamed");
    if (rc == MJ_OK) {
        f->temporary[0] = '\0'; /* it has its name: it stays there even if the sync fails */
        if (sync_place(f) != 0)
            rc = mj_file_failed(why, f->path);
    }
    mj_file_abandon(f);
    return rc;
}

void mj_file_abandon(mj_file *f)
{
    if (f->fd >= 0 && f->temporary[0])
        unlinkat(f->dir, f->temporary, 0);
    if (f->fd >= 0)
        close(f->fd);
    if (f->dir >= 0)
        close(f->dir);
    f->fd = f->dir = -1;
}

int mj_file_write(const char *path, const void *p, size_t n, unsigned mode, char why[MJ_FILE_WHY])
{
    mj_file f;
    int rc = mj_file_begin(&f, path, mode, why);

    if (rc != MJ_OK)
        return rc;
    if (!mj_write_all(f.fd, p, n)) {
        rc = mj_file_failed(why, path);
        mj_file_abandon(&f);
        return rc;
    }
    return mj_file_commit(&f, false, why);
}

/* Opens the file, or creates it with exactly that mode.  Two steps, since only the creator may set a mode. */
static int open_log(const char *path, unsigned mode)
{
    const int flags = O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC; /* NONBLOCK: for a FIFO */

    for (int i = 0; i < TRIES; i++) {
        int fd = open(path, flags);
        if (fd >= 0 || errno != ENOENT)
            return fd;
        fd = open(path, flags | O_CREAT | O_EXCL, 0600);
        if (fd >= 0 && fchmod(fd, (mode_t)mode) != 0) {
            close(fd);
            return -1;
        }
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

int mj_file_append(const char *path, const void *p, size_t n, unsigned mode, char why[MJ_FILE_WHY])
{
    struct stat st;
    int rc = MJ_OK, fd = open_log(path, mode), number = errno;

    if (fd < 0 && lstat(path, &st) != 0) {
        errno = number;
        return mj_file_failed(why, path);
    }
    if (fd >= 0 && fstat(fd, &st) != 0)
        rc = mj_file_failed(why, path);
    else if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
        rc = mj_file_refuse(why, MJ_EINVAL, "%s is %s, which is not written to: name a regular file", path,
                            mj_file_kind_of(st.st_mode));
    errno = number;
    if (rc == MJ_OK && (fd < 0 || !mj_write_all(fd, p, n)))
        rc = mj_file_failed(why, path);
    if (fd >= 0)
        close(fd);
    return rc;
}
