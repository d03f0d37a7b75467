/* For tests of mj_download_dir: the steps that it takes on the file system, watched, refused or the last ones of a
 * process. What is defined here is called instead of libc's, by all that is linked into the test. */
#ifndef SHELF_HELP_H
#define SHELF_HELP_H

#include "auth/digest.h"
#include "base/error.h"
#include "download/files.h"
#include "mj_test.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/file.h>

enum { MAX_STEPS = 64, DIED = 9 };

typedef struct stepping {
    const char *taken[MAX_STEPS]; /* by name, in order */
    ino_t synced[MAX_STEPS];      /* of fsync: which file */
    int n;
    int last;            /* the process ends before this one; 0: it doesn't */
    const char *refused; /* fails, with this errno */
    int with;
    void (*before)(const char *name); /* is called before each */
} stepping;

static stepping steps;

static inline bool refuse(const char *name)
{
    void (*before)(const char *) = steps.before;

    if (steps.n < MAX_STEPS)
        steps.taken[steps.n] = name;
    steps.n++;
    if (steps.last && steps.n == steps.last)
        _exit(DIED);
    steps.before = NULL; /* it takes steps of its own */
    if (before)
        before(name);
    if (steps.before == NULL)
        steps.before = before;
    if (!steps.refused || strcmp(steps.refused, name) != 0)
        return false;
    errno = steps.with;
    return true;
}

#define LIBC(name_, ret_, ...) ((ret_(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name_))

ssize_t write(int fd, const void *p, size_t n)
{
    if (fd > 2 && refuse("write"))
        return -1;
    return LIBC(write, ssize_t, int, const void *, size_t)(fd, p, n);
}

int ftruncate(int fd, off_t n)
{
    return refuse("ftruncate") ? -1 : LIBC(ftruncate, int, int, off_t)(fd, n);
}

int fchmod(int fd, mode_t mode)
{
    return refuse("fchmod") ? -1 : LIBC(fchmod, int, int, mode_t)(fd, mode);
}

int fsync(int fd)
{
    struct stat st;

    if (refuse("fsync"))
        return -1;
    if (fstat(fd, &st) == 0 && steps.n <= MAX_STEPS)
        steps.synced[steps.n - 1] = st.st_ino;
    return LIBC(fsync, int, int)(fd);
}

int renameat(int from, const char *a, int to, const char *b)
{
    return refuse("renameat") ? -1 : LIBC(renameat, int, int, const char *, int, const char *)(from, a, to, b);
}

int unlinkat(int dir, const char *name, int flags)
{
    return refuse("unlinkat") ? -1 : LIBC(unlinkat, int, int, const char *, int)(dir, name, flags);
}

int mkdirat(int dir, const char *name, mode_t mode)
{
    return refuse("mkdirat") ? -1 : LIBC(mkdirat, int, int, const char *, mode_t)(dir, name, mode);
}

int flock(int fd, int how)
{
    return refuse("flock") ? -1 : LIBC(flock, int, int, int)(fd, how);
}

static inline void watch(void)
{
    steps = (stepping){0};
}

/* Whether that step was taken, from the n-th on (0: the first); which one, or -1. */
static inline int taken(const char *name, int from)
{
    for (int i = from; i < steps.n && i < MAX_STEPS; i++)
        if (strcmp(steps.taken[i], name) == 0)
            return i;
    return -1;
}

static inline bool synced(const char *path)
{
    struct stat st;

    CHECK_INT(stat(path, &st), 0);
    for (int i = 0; i < steps.n && i < MAX_STEPS; i++)
        if (steps.synced[i] == st.st_ino)
            return true;
    return false;
}

/* ---- files ---- */

static inline void put_file(const char *path, const void *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    CHECK(fd >= 0);
    CHECK_INT(write(fd, p, n), (ssize_t)n);
    close(fd);
}

static inline size_t get_file(const char *path, char *to, size_t room)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, to, room - 1);

    if (n < 0)
        MJ_TEST_FAIL("%s: %s", path, strerror(errno));
    close(fd);
    to[n] = '\0';
    return (size_t)n;
}

static inline void check_file(const char *path, const char *text)
{
    static char got[70000];

    CHECK_INT(get_file(path, got, sizeof got), strlen(text));
    CHECK_STR(got, text);
}

static inline unsigned mode_of(const char *path)
{
    struct stat st;

    CHECK_INT(lstat(path, &st), 0);
    return st.st_mode & 07777;
}

static inline bool there(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static inline int entries(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;

    CHECK(d != NULL);
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static inline int open_fds(void)
{
    return entries("/proc/self/fd");
}

/* ---- parts ---- */

static const uint8_t SOURCE[32] = "https://img.example/a", OTHER[32] = "https://img.example/b";

static inline mj_download_dir shelf_of(unsigned mode)
{
    mj_download_dir s;

    CHECK_INT(mj_download_dir_open(&s, "kept", "day", mode), MJ_OK);
    return s;
}

static inline mj_part part_of(const mj_download_dir *s, const char *name)
{
    mj_part p;

    CHECK_INT(mj_part_open(s, name, SOURCE, &p), MJ_OK);
    CHECK(p.fd >= 0 && p.from >= 0);
    return p;
}

/* As a download does it: what was there is cut away, the entity is noted, then its bytes come. */
static inline void fill(mj_part *p, const char *etag, const char *text)
{
    CHECK_INT(ftruncate(p->fd, 0), 0);
    CHECK(lseek(p->fd, 0, SEEK_SET) == 0);
    CHECK_INT(mj_part_fresh(p, etag), MJ_OK);
    CHECK_INT(write(p->fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* Leaves a part of SOURCE behind. */
static inline void leave(const mj_download_dir *s, const char *name, const char *etag, const char *text)
{
    mj_part p = part_of(s, name);

    fill(&p, etag, text);
    mj_part_close(&p);
}

/* How many bytes of that part would be gone on from. */
static inline int64_t resumes(const mj_download_dir *s, const char *name, const uint8_t source[32])
{
    mj_part p;
    int64_t have;

    CHECK_INT(mj_part_open(s, name, source, &p), MJ_OK);
    have = p.have;
    CHECK((have > 0) == (p.etag[0] != '\0'));
    mj_part_close(&p);
    return have;
}

#endif
