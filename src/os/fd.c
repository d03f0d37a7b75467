#include "os/fd.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

bool mj_fd_fill_standard(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDONLY);
        if (fd < 0)
            fd = open("/", O_RDONLY | O_DIRECTORY); /* there is no /dev here */
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* Reads the directory by system call: readdir() would allocate. */
struct entry {
    uint64_t ino;
    int64_t next;
    unsigned short size;
    unsigned char type;
    char name[];
};

/* Closes the descriptors from `low` on that are of this file; NULL: all of them. */
static void close_all(int low, const struct stat *file)
{
    _Alignas(struct entry) char some[2048];
    struct stat st;
    long n;
    int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    while (dir >= 0 && (n = syscall(SYS_getdents64, dir, some, sizeof some)) > 0)
        for (long at = 0; at < n;) {
            const struct entry *e = (const struct entry *)(some + at);
            int fd = atoi(e->name);
            if (fd >= low && fd != dir &&
                (!file || (fstat(fd, &st) == 0 && st.st_dev == file->st_dev && st.st_ino == file->st_ino)))
                close(fd);
            at += e->size;
        }
    if (dir >= 0)
        close(dir);
}

void mj_fd_close_from(int low)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, (unsigned)low, ~0U, 0U) == 0)
        return;
#endif
    close_all(low, NULL); /* close_range() is missing: a kernel before 5.9, or a filter of system calls */
}

void mj_fd_close_file(dev_t dev, ino_t ino)
{
    close_all(STDERR_FILENO + 1, &(struct stat){.st_dev = dev, .st_ino = ino});
}

static void on_limit(int sig)
{
    (void)sig;
}

void mj_fd_outlive_limit(void)
{
    struct sigaction sa = {.sa_handler = on_limit, .sa_flags = SA_RESTART}; /* exec() keeps no handler */

    sigaction(SIGXFSZ, &sa, NULL);
}
