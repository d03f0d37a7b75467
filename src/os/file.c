#include "os/file.h"

#include "base/error.h"
#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINKS = 40, CHUNK = 65536, TRIES = 8 }; /* LINKS: as many as Linux follows */

static const int LOOK = O_PATH | O_CLOEXEC | O_NOFOLLOW; /* a directory is entered, never read */

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

__attribute__((format(printf, 3, 4))) static int refuse(char why[MJ_FILE_WHY], int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, MJ_FILE_WHY, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): clang-tidy 14 errs */
    va_end(args);
    return code;
}

/* For a failed system call. */
static int failed(char why[MJ_FILE_WHY], const char *path)
{
    int number = errno;

    return refuse(why, mj_errno_code(number), "%s: %s", path, strerror(number));
}

static const char *kind_of(mode_t mode)
{
    return S_ISLNK(mode)    ? "a symbolic link"
           : S_ISDIR(mode)  ? "a directory"
           : S_ISFIFO(mode) ? "a FIFO"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

/* ---- reading ---- */

typedef struct walk {
    const char *path;    /* as it was given */
    char at[PATH_MAX];   /* the directory that `dir` is; no link and no ".." in it; "" for / */
    char rest[PATH_MAX]; /* what is still to be walked */
    int dir;
    bool shared; /* others may write to `dir`; it is sticky, so that what lies there tells by its owner whose it is */
    size_t closed_at; /* length of `at` at the topmost directory that not everybody may enter; 0: there is none */
    int links;
} walk;

static bool trusted(uid_t owner)
{
    return owner == 0 || owner == geteuid();
}

/* What was last walked to, for people. */
static const char *place(const walk *w)
{
    return w->at[0] ? w->at : "/";
}

static int check_dir(walk *w, char why[MJ_FILE_WHY])
{
    struct stat st;
    size_t n = strlen(w->at);

    if (fstat(w->dir, &st) != 0)
        return failed(why, place(w));
    if (!trusted(st.st_uid))
        return refuse(
            why, MJ_EINVAL,
            "%s: the directory %s belongs to uid %u, neither root nor you (uid %u), and its owner can replace the "
            "file: chown it, or keep the file elsewhere",
            w->path, place(w), (unsigned)st.st_uid, (unsigned)geteuid());
    w->shared = (st.st_mode & 0022) != 0;
    if (w->shared && !((st.st_mode & S_ISVTX) && st.st_uid == 0))
        return refuse(
            why, MJ_EINVAL,
            "%s: the directory %s can be written by others than its owner, who can replace the file: chmod go-w it",
            w->path, place(w));
    if (n <= w->closed_at)
        w->closed_at = 0;
    if (w->closed_at == 0 && !(st.st_mode & 0001))
        w->closed_at = n ? n : 1;
    return MJ_OK;
}

static int enter(walk *w, const char *name, char why[MJ_FILE_WHY])
{
    int fd = openat(w->dir, name, LOOK | O_DIRECTORY);

    if (fd < 0)
        return failed(why, w->path);
    close(w->dir);
    w->dir = fd;
    return check_dir(w, why);
}

static int start_at_root(walk *w, char why[MJ_FILE_WHY])
{
    if (w->dir >= 0)
        close(w->dir);
    w->at[0] = '\0';
    w->closed_at = 0;
    w->dir = open("/", LOOK | O_DIRECTORY);
    return w->dir < 0 ? failed(why, "/") : check_dir(w, why);
}

/* Takes the next component off `rest`.  False: there is none. */
static bool next_name(walk *w, char name[PATH_MAX])
{
    size_t skip = strspn(w->rest, "/"), n = strcspn(w->rest + skip, "/");

    memcpy(name, w->rest + skip, n);
    name[n] = '\0';
    memmove(w->rest, w->rest + skip + n, strlen(w->rest + skip + n) + 1);
    return n > 0;
}

/* The link's target is walked instead of the link. */
static int follow(walk *w, const char *name, const struct stat *st, char why[MJ_FILE_WHY])
{
    char target[PATH_MAX], rest[PATH_MAX];
    ssize_t n;

    if (++w->links > LINKS)
        return refuse(why, MJ_EIO, "%s: %s", w->path, strerror(ELOOP));
    if (w->shared && !trusted(st->st_uid))
        return refuse(why, MJ_EINVAL,
                      "%s: the symbolic link %s/%s belongs to uid %u, neither root nor you (uid %u): remove it",
                      w->path, w->at, name, (unsigned)st->st_uid, (unsigned)geteuid());
    n = readlinkat(w->dir, name, target, sizeof target - 1);
    if (n < 0)
        return failed(why, w->path);
    target[n] = '\0';
    if (snprintf(rest, sizeof rest, "%s%s", target, w->rest) >= (int)sizeof rest)
        return refuse(why, MJ_EIO, "%s: %s", w->path, strerror(ENAMETOOLONG));
    memcpy(w->rest, rest, sizeof rest);
    return target[0] == '/' ? start_at_root(w, why) : MJ_OK;
}

/* Up one directory, whose name `at` loses. */
static int leave(walk *w, char why[MJ_FILE_WHY])
{
    char *slash = strrchr(w->at, '/');

    if (!slash)
        return MJ_OK; /* /.. is / */
    *slash = '\0';
    return enter(w, "..", why);
}

static int descend(walk *w, const char *name, char why[MJ_FILE_WHY])
{
    size_t n = strlen(w->at);

    if (n + strlen(name) + 2 > sizeof w->at)
        return refuse(why, MJ_EIO, "%s: %s", w->path, strerror(ENAMETOOLONG));
    snprintf(w->at + n, sizeof w->at - n, "/%s", name);
    return enter(w, name, why);
}

/* Walks to the directory that holds the file; `name` is the file's in it. */
static int walk_to(walk *w, char name[PATH_MAX], char why[MJ_FILE_WHY])
{
    struct stat st;
    int rc = start_at_root(w, why);

    while (rc == MJ_OK) {
        if (!next_name(w, name))
            return refuse(why, MJ_EINVAL, "%s: a file expected, got a directory", w->path);
        if (strcmp(name, ".") == 0)
            continue;
        if (strcmp(name, "..") == 0)
            rc = leave(w, why);
        else if (fstatat(w->dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            rc = failed(why, w->path);
        else if (S_ISLNK(st.st_mode))
            rc = follow(w, name, &st, why);
        else if (w->rest[0] || S_ISDIR(st.st_mode))
            rc = descend(w, name, why);
        else if (!S_ISREG(st.st_mode)) /* opening a device may do something */
            rc = refuse(why, MJ_EINVAL, "%s: a regular file expected, got %s", w->path, kind_of(st.st_mode));
        else
            return MJ_OK;
    }
    return rc;
}

/* What was opened: the file that will be read. */
static int check_file(const walk *w, int fd, mj_file_kind kind, char why[MJ_FILE_WHY])
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return failed(why, w->path);
    if (!S_ISREG(st.st_mode))
        return refuse(why, MJ_EINVAL, "%s: a regular file expected, got %s", w->path, kind_of(st.st_mode));
    if (!trusted(st.st_uid) && (kind == MJ_FILE_CODE || w->shared))
        return refuse(why, MJ_EINVAL, "%s belongs to uid %u, neither root nor you (uid %u): not read; chown it",
                      w->path, (unsigned)st.st_uid, (unsigned)geteuid());
    if (kind == MJ_FILE_SECRET && (st.st_mode & 0007) && ((st.st_mode & 0222) || w->closed_at == 0))
        return refuse(why, MJ_EINVAL, "%s can be read or written by everybody: chmod 600 it%s", w->path,
                      st.st_mode & 0222 ? "" : ", or chmod 700 the directory that holds it");
    if (st.st_mode & 0022)
        return refuse(why, MJ_EINVAL, "%s can be written by others than its owner: chmod go-w it", w->path);
    return MJ_OK;
}

static int read_all(const char *path, int fd, size_t max, mj_buf *out, char why[MJ_FILE_WHY])
{
    size_t got = 0;

    for (;;) {
        ssize_t n;
        if (!mj_buf_reserve(out, CHUNK))
            return refuse(why, MJ_ENOMEM, "%s: out of memory", path);
        n = read(fd, out->p + out->n, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(why, path);
        if (n == 0)
            return MJ_OK;
        out->n += (size_t)n;
        got += (size_t)n;
        if (got > max)
            return refuse(why, MJ_ELIMIT, "%s: at most %zu bytes expected", path, max);
    }
}

/* An absolute path in `rest`. */
static int begin_walk(walk *w, const char *path, char why[MJ_FILE_WHY])
{
    char here[PATH_MAX] = "";

    *w = (walk){.path = path, .dir = -1};
    if (path[0] != '/' && !getcwd(here, sizeof here))
        return failed(why, path);
    if (!path[0] || snprintf(w->rest, sizeof w->rest, "%s/%s", here, path) >= (int)sizeof w->rest)
        return refuse(why, MJ_EIO, "%s: %s", path, strerror(path[0] ? ENAMETOOLONG : ENOENT));
    return MJ_OK;
}

int mj_file_read(const char *path, mj_file_kind kind, size_t max, mj_buf *out, char why[MJ_FILE_WHY])
{
    char name[PATH_MAX];
    walk w;
    int fd = -1, rc = begin_walk(&w, path, why);

    if (rc == MJ_OK)
        rc = walk_to(&w, name, why);
    if (rc == MJ_OK) {
        fd = openat(w.dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        rc = fd < 0 ? failed(why, path) : check_file(&w, fd, kind, why);
    }
    if (rc == MJ_OK)
        rc = read_all(path, fd, max, out, why);
    if (fd >= 0)
        close(fd);
    if (w.dir >= 0)
        close(w.dir);
    return rc;
}

/* ---- writing ---- */

static const char *base(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* The directory that holds the file.  One that may not be read can't be synced alone: see sync_place(). */
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

/* Whether the path is one for a regular file: what is there is one, or nothing is. */
static int check_target(int dir, const char *path, char why[MJ_FILE_WHY])
{
    const char *name = base(path);
    struct stat st;

    if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return refuse(why, MJ_EINVAL, "%s: a file's name expected, got a directory's", path);
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? MJ_OK : failed(why, path);
    if (!S_ISREG(st.st_mode))
        return refuse(why, MJ_EINVAL, "%s is %s, which is neither written to nor replaced: name a regular file", path,
                      kind_of(st.st_mode));
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
        return failed(why, path);
    rc = check_target(f->dir, path, why);
    if (rc == MJ_OK && create(f) < 0)
        rc = failed(why, path);
    if (rc != MJ_OK)
        mj_file_abandon(f);
    return rc;
}

static int take_name(mj_file *f, bool fresh)
{
    const char *name = base(f->path);

    if (!fresh)
        return renameat(f->dir, f->temporary, f->dir, name);
    if (renameat2(f->dir, f->temporary, f->dir, name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL || linkat(f->dir, f->temporary, f->dir, name, 0) != 0) /* a file system that can't; nor does */
        return -1;                                                             /* a link replace anything */
    unlinkat(f->dir, f->temporary, 0);
    return 0;
}

int mj_file_commit(mj_file *f, bool fresh, char why[MJ_FILE_WHY])
{
    int rc = MJ_OK;

    if (fchmod(f->fd, (mode_t)f->mode) != 0 || fsync(f->fd) != 0)
        rc = failed(why, f->path);
    MJ_FAULT("file.synced");
    if (rc == MJ_OK)
        rc = check_target(f->dir, f->path, why);
    if (rc == MJ_OK && take_name(f, fresh) != 0)
        rc = failed(why, f->path);
    MJ_FAULT("file.renamed");
    if (rc == MJ_OK) {
        f->temporary[0] = '\0'; /* it has its name: a sync that fails leaves it there */
        if (sync_place(f) != 0)
            rc = failed(why, f->path);
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
        rc = failed(why, path);
        mj_file_abandon(&f);
        return rc;
    }
    return mj_file_commit(&f, false, why);
}

/* Opens the file, or creates it with exactly that mode: two steps, since only the creator may set a mode. */
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
        return failed(why, path);
    }
    if (fd >= 0 && fstat(fd, &st) != 0)
        rc = failed(why, path);
    else if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
        rc =
            refuse(why, MJ_EINVAL, "%s is %s, which is not written to: name a regular file", path, kind_of(st.st_mode));
    errno = number;
    if (rc == MJ_OK && (fd < 0 || !mj_write_all(fd, p, n)))
        rc = failed(why, path);
    if (fd >= 0)
        close(fd);
    return rc;
}
