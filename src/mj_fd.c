#include "mj_fd.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

bool mj_fd_fill_standard(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDONLY);
        if (fd < 0)
            fd = open("/", O_RDONLY | O_DIRECTORY); /* no /dev in here */
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* As the kernel gives it; readdir() would allocate. */
struct entry {
    uint64_t ino;
    int64_t next;
    unsigned short size;
    unsigned char type;
    char name[];
};

void mj_fd_close_from(int low)
{
    _Alignas(struct entry) char some[2048];
    long n;
    int dir;

#ifdef SYS_close_range
    if (syscall(SYS_close_range, (unsigned)low, ~0U, 0U) == 0)
        return;
#endif
    /* A kernel before 5.9, or a filter of system calls that does not know it. */
    dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (dir >= 0 && (n = syscall(SYS_getdents64, dir, some, sizeof some)) > 0)
        for (long at = 0; at < n;) {
            const struct entry *e = (const struct entry *)(some + at);
            int fd = atoi(e->name);
            if (fd >= low && fd != dir)
                close(fd);
            at += e->size;
        }
    if (dir >= 0)
        close(dir);
}
