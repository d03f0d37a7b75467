/* sick_disk: a disk that turns bad under a running program, for LD_PRELOAD.
 *
 * As long as the file $SICK_DISK exists, what it says goes wrong with files whose path ends in .mdb:
 *   EROFS, EIO   writes fail so
 *   sync         writes go well, and syncing them fails with EIO
 *   meta         LMDB's last write of a commit, of its meta page, fails with EIO
 *   stall        syncing ends when the file is gone or says something else */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static bool is_ours(int fd)
{
    char link[64], path[4096];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path);
    return n > 4 && memcmp(path + n - 4, ".mdb", 4) == 0;
}

static bool look(char word[16])
{
    const char *path = getenv("SICK_DISK");
    ssize_t n;
    int file;

    memset(word, 0, 16);
    if (!path || (file = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return false;
    n = read(file, word, 15);
    close(file);
    return n > 0;
}

/* The errno that a call of this kind fails with; 0: none. */
static int sickness(int fd, bool sync, bool meta)
{
    char word[16];

    if (!look(word) || !is_ours(fd))
        return 0;
    while (sync && strcmp(word, "stall") == 0) {
        usleep(5000);
        if (!look(word))
            return 0;
    }
    if (sync)
        return strcmp(word, "sync") == 0 ? EIO : 0;
    if (strcmp(word, "meta") == 0)
        return meta ? EIO : 0;
    return strcmp(word, "EROFS") == 0 ? EROFS : strcmp(word, "EIO") == 0 ? EIO : 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    /* Pages are whole; the two meta pages, of which only a part is written, are the first two. */
    int e = sickness(fd, false, at < 8192 && n < 4096);

    if (e)
        return errno = e, -1;
    return REAL(pwrite)(fd, p, n, at);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    int e = sickness(fd, false, false);

    if (e)
        return errno = e, -1;
    return REAL(pwritev)(fd, v, n, at);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    int e = sickness(fd, false, false);

    if (e)
        return errno = e, -1;
    return REAL(writev)(fd, v, n);
}

ssize_t write(int fd, const void *p, size_t n)
{
    int e = sickness(fd, false, false);

    if (e)
        return errno = e, -1;
    return REAL(write)(fd, p, n);
}

int fdatasync(int fd)
{
    int e = sickness(fd, true, false);

    if (e)
        return errno = e, -1;
    return REAL(fdatasync)(fd);
}
