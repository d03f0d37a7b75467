/* What glibc has and musl has not, by one name for both. */
#ifndef MJ_LIBC_H
#define MJ_LIBC_H

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1U << 0)
#endif
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1U << 1)
#endif

/* The text of an errno; unlike strerror(), from any thread. */
static inline const char *mj_strerror(int number, char *buf, size_t size)
{
#ifdef __GLIBC__
    return strerror_r(number, buf, size);
#else
    return strerror_r(number, buf, size) == 0 ? buf : "unknown error";
#endif
}

/* "TERM" of SIGTERM; "?" if the number has no name, or the C library has no names. */
static inline const char *mj_unix_signal(int number)
{
#ifdef __GLIBC__
    const char *name = sigabbrev_np(number);
    return name ? name : "?";
#else
    (void)number;
    return "?";
#endif
}

static inline int mj_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
#ifdef __GLIBC__
    return renameat2(from_dir, from, to_dir, to, flags);
#else
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
#endif
}

#endif
