#include "os/owner.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mj_owner cached; /* of process cached.pid; 0: none yet */

typedef struct stat_line { /* of /proc/PID/stat */
    uint32_t pid;          /* in the view of that /proc */
    char letter;           /* of the process state */
    uint64_t threads, started;
} stat_line;

/* Reads a small file of /proc. */
static bool slurp(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, buf, size - 1);
    close(fd);
    if (n <= 0)
        return false;
    buf[n] = '\0';
    return true;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_boot(uint8_t out[16])
{
    char text[64];
    int n = 0;

    if (!slurp("/proc/sys/kernel/random/boot_id", text, sizeof text))
        return false;
    for (const char *p = text; n < 32 && *p; p++) {
        int v = hex(*p);
        if (v >= 0) {
            out[n / 2] = (uint8_t)(n % 2 ? out[n / 2] | v : v << 4);
            n++;
        } else if (*p != '-') {
            return false;
        }
    }
    return n == 32;
}

/* The command's name may hold anything, even ") R 1": the fields begin after the last parenthesis. */
static bool read_stat(const char *path, stat_line *s)
{
    char text[1024], *p, *end;
    unsigned long long v[23] = {0};

    if (!slurp(path, text, sizeof text) || (p = strrchr(text, ')')) == NULL || p[1] != ' ' || p[2] == '\0')
        return false;
    s->pid = (uint32_t)strtoul(text, NULL, 10);
    s->letter = p[2];
    p += 3;
    for (int field = 4; field <= 22; field++) { /* numbered as in proc(5) */
        v[field] = strtoull(p, &end, 10);
        if (end == p)
            return false;
        p = end;
    }
    s->threads = v[20];
    s->started = v[22];
    return true;
}

static bool read_self(mj_owner *o)
{
    struct stat ns;
    stat_line s;

    /* A /proc of another namespace (unshare --pid without a mount of its own) shows other processes. */
    if (!read_boot(o->boot) || stat("/proc/self/ns/pid", &ns) != 0 || !read_stat("/proc/self/stat", &s) ||
        s.pid != o->pid)
        return false;
    o->pidns = ns.st_ino;
    o->started = s.started;
    return true;
}

int mj_owner_self(mj_owner *o)
{
    mj_owner self = {.pid = (uint32_t)getpid()};
    bool known = false;

    /* Try the lock, never wait: a fork at the wrong moment leaves the child with a lock that stays locked. */
    if (pthread_mutex_trylock(&lock) == 0) {
        known = cached.pid == self.pid;
        if (known)
            self = cached;
        pthread_mutex_unlock(&lock);
    }
    if (!known && !read_self(&self)) {
        *o = (mj_owner){.pid = self.pid};
        return MJ_EIO;
    }
    if (!known && pthread_mutex_trylock(&lock) == 0) {
        cached = self;
        pthread_mutex_unlock(&lock);
    }
    *o = self;
    return MJ_OK;
}

mj_owner_state mj_owner_look(const mj_owner *o)
{
    static const uint8_t none[16];
    char path[64];
    mj_owner self;
    stat_line s;

    /* For kill(), 0 and negative numbers mean groups. */
    if (o->pidns == 0 || o->pid == 0 || o->pid > INT32_MAX || memcmp(o->boot, none, 16) == 0 ||
        mj_owner_self(&self) != MJ_OK)
        return MJ_OWNER_FOREIGN;
    if (memcmp(o->boot, self.boot, 16) != 0)
        return MJ_OWNER_DEAD; /* no process outlives a boot */
    if (o->pidns != self.pidns)
        return MJ_OWNER_FOREIGN;
    if (o->pid == self.pid) /* this very process: alive, and the same since it began */
        return o->started == self.started ? MJ_OWNER_ALIVE : MJ_OWNER_DEAD;
    snprintf(path, sizeof path, "/proc/%lu/stat", (unsigned long)o->pid);
    if (read_stat(path, &s)) {
        /* A zombie can also be a main thread that ended before the others: then the process lives. */
        bool dead = s.started != o->started || ((s.letter == 'Z' || s.letter == 'X') && s.threads <= 1);
        return dead ? MJ_OWNER_DEAD : MJ_OWNER_ALIVE;
    }
    /* Not visible: gone, or hidden by hidepid; a signal can tell. */
    return kill((pid_t)o->pid, 0) != 0 && errno == ESRCH ? MJ_OWNER_DEAD : MJ_OWNER_ALIVE;
}
