/* no_memory: a child that has no memory left from the moment it was forked, for LD_PRELOAD: in a process that fork()
 * has made, nothing can be allocated or grown any more; where $NO_FORK is set, no process can be made there, either. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/types.h>

static bool none_left;

pid_t fork(void)
{
    static pid_t (*real)(void);
    pid_t pid;

    if (!real)
        real = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");
    if (none_left && getenv("NO_FORK")) {
        errno = EAGAIN;
        return -1;
    }
    pid = real();
    none_left = none_left || pid == 0;
    return pid;
}

void *realloc(void *p, size_t n)
{
    static void *(*real)(void *, size_t);

    if (!real)
        real = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
    if (none_left && n > 0) {
        errno = ENOMEM;
        return NULL;
    }
    return real(p, n);
}
