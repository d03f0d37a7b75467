#include "base/error.h"
#include "os/file_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINKS = 40, CHUNK = 65536 }; /* LINKS: as many as Linux follows */

static const int LOOK = O_PATH | O_CLOEXEC | O_NOFOLLOW; /* a directory is entered, never read */

typedef struct walk {
    const char *path;    /* as it was given */
    char at[PATH_MAX];   /* the directory that `dir` is; no link and no ".." in it; "" for / */
    char rest[PATH_MAX]; /* what is still to walk */
    int dir;
    bool shared;      /* others may write to `dir`, which is sticky: then the owner of each entry counts */
    size_t closed_at; /* length of `at` at the topmost directory that not every user may enter; 0: there is none */
    int links;
} walk;

static bool trusted(uid_t owner)
{
    return owner == 0 || owner == geteuid();
}

/* The directory that was walked to last, for people. */
static const char *place(const walk *w)
{
    return w->at[0] ? w->at : "/";
}

static int check_dir(walk *w, char why[MJ_FILE_WHY])
{
    struct stat st;
    size_t n = strlen(w->at);

    if (fstat(w->dir, &st) != 0)
        return mj_file_failed(why, place(w));
    if (!trusted(st.st_uid))
        return mj_file_refuse(
            why, MJ_EINVAL,
            "%s: the directory %s belongs to uid %u, neither root nor you (uid %u), and its owner can replace the "
            "file: chown it, or keep the file elsewhere",
            w->path, place(w), (unsigned)st.st_uid, (unsigned)geteuid());
    w->shared = (st.st_mode & 0022) != 0;
    if (w->shared && !((st.st_mode & S_ISVTX) && st.st_uid == 0))
        return mj_file_refuse(why, MJ_EINVAL,
                              "%s: the directory %s can be written by others than its owner, and they can replace "
                              "the file: chmod go-w it",
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
        return mj_file_failed(why, w->path);
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
    return w->dir < 0 ? mj_file_failed(why, "/") : check_dir(w, why);
}

/* Takes the next name off `rest`.  False: there is none. */
static bool next_name(walk *w, char name[PATH_MAX])
{
    size_t skip = strspn(w->rest, "/"), n = strcspn(w->rest + skip, "/");

    memcpy(name, w->rest + skip, n);
    name[n] = '\0';
    memmove(w->rest, w->rest + skip + n, strlen(w->rest + skip + n) + 1);
    return n > 0;
}

/* Walks the link's target instead of the link. */
static int follow(walk *w, const char *name, const struct stat *st, char why[MJ_FILE_WHY])
{
    char target[PATH_MAX], rest[PATH_MAX];
    ssize_t n;

    if (++w->links > LINKS)
        return mj_file_refuse(why, MJ_EIO, "%s: %s", w->path, strerror(ELOOP));
    if (w->shared && !trusted(st->st_uid))
        return mj_file_refuse(why, MJ_EINVAL,
                              "%s: the symbolic link %s/%s belongs to uid %u, neither root nor you (uid %u): remove it",
                              w->path, w->at, name, (unsigned)st->st_uid, (unsigned)geteuid());
    n = readlinkat(w->dir, name, target, sizeof target - 1);
    if (n < 0)
        return mj_file_failed(why, w->path);
    target[n] = '\0';
    if (snprintf(rest, sizeof rest, "%s%s", target, w->rest) >= (int)sizeof rest)
        return mj_file_refuse(why, MJ_EIO, "%s: %s", w->path, strerror(ENAMETOOLONG));
    memcpy(w->rest, rest, sizeof rest);
    return target[0] == '/' ? start_at_root(w, why) : MJ_OK;
}

/* Goes up one directory, which `at` drops. */
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
    size_t n = strlen(w->at), more = strlen(name);

    if (n + more + 2 > sizeof w->at)
        return mj_file_refuse(why, MJ_EIO, "%s: %s", w->path, strerror(ENAMETOOLONG));
    w->at[n] = '/';
    memcpy(w->at + n + 1, name, more + 1);
    return enter(w, name, why);
}

/* Walks to the directory that holds the file; `name` becomes the file's name in it. */
static int walk_to(walk *w, char name[PATH_MAX], char why[MJ_FILE_WHY])
{
    struct stat st;
    int rc = start_at_root(w, why);

    while (rc == MJ_OK) {
        if (!next_name(w, name))
            return mj_file_refuse(why, MJ_EINVAL, "%s: a file expected, got a directory", w->path);
        if (strcmp(name, ".") == 0)
            continue;
        if (strcmp(name, "..") == 0)
            rc = leave(w, why);
        else if (fstatat(w->dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            rc = mj_file_failed(why, w->path);
        else if (S_ISLNK(st.st_mode))
            rc = follow(w, name, &st, why);
        else if (w->rest[0] || S_ISDIR(st.st_mode))
            rc = descend(w, name, why);
        else if (!S_ISREG(st.st_mode)) /* opening a device may have an effect */
            rc = mj_file_refuse(why, MJ_EINVAL, "%s: a regular file expected, got %s", w->path,
                                mj_file_kind_of(st.st_mode));
        else
            return MJ_OK;
    }
    return rc;
}

/* Checks the open file, the one that will be read. */
static int check_file(const walk *w, int fd, mj_file_kind kind, char why[MJ_FILE_WHY])
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return mj_file_failed(why, w->path);
    if (!S_ISREG(st.st_mode))
        return mj_file_refuse(why, MJ_EINVAL, "%s: a regular file expected, got %s", w->path,
                              mj_file_kind_of(st.st_mode));
    if (!trusted(st.st_uid) && (kind == MJ_FILE_CODE || w->shared))
        return mj_file_refuse(why, MJ_EINVAL, "%s belongs to uid %u, neither root nor you (uid %u): not read; chown it",
                              w->path, (unsigned)st.st_uid, (unsigned)geteuid());
    if (kind == MJ_FILE_SECRET && (st.st_mode & 0007) && ((st.st_mode & 0222) || w->closed_at == 0))
        return mj_file_refuse(why, MJ_EINVAL, "%s can be read or written by every user: chmod 600 it%s", w->path,
                              st.st_mode & 0222 ? "" : ", or chmod 700 the directory that holds it");
    if (st.st_mode & 0022)
        return mj_file_refuse(why, MJ_EINVAL, "%s can be written by others than its owner: chmod go-w it", w->path);
    return MJ_OK;
}

static int read_all(const char *path, int fd, size_t max, mj_buf *out, char why[MJ_FILE_WHY])
{
    size_t got = 0;

    for (;;) {
        ssize_t n;
        if (!mj_buf_reserve(out, CHUNK))
            return mj_file_refuse(why, MJ_ENOMEM, "%s: out of memory", path);
        n = read(fd, out->p + out->n, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mj_file_failed(why, path);
        if (n == 0)
            return MJ_OK;
        out->n += (size_t)n;
        got += (size_t)n;
        if (got > max)
            return mj_file_refuse(why, MJ_ELIMIT, "%s: at most %zu bytes expected", path, max);
    }
}

/* Puts an absolute path into `rest`. */
static int begin_walk(walk *w, const char *path, char why[MJ_FILE_WHY])
{
    char here[PATH_MAX] = "";

    *w = (walk){.path = path, .dir = -1};
    if (path[0] != '/' && !getcwd(here, sizeof here))
        return mj_file_failed(why, path);
    if (!path[0] || snprintf(w->rest, sizeof w->rest, "%s/%s", here, path) >= (int)sizeof w->rest)
        return mj_file_refuse(why, MJ_EIO, "%s: %s", path, strerror(path[0] ? ENAMETOOLONG : ENOENT));
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
        rc = fd < 0 ? mj_file_failed(why, path) : check_file(&w, fd, kind, why);
    }
    if (rc == MJ_OK)
        rc = read_all(path, fd, max, out, why);
    if (fd >= 0)
        close(fd);
    if (w.dir >= 0)
        close(w.dir);
    return rc;
}
