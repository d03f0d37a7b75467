#include "mj_owner.h"

#include "mj_error.h"

#include <ctype.h>
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

/* Reads a small file of /proc. Its length, -1 on error. */
static ssize_t slurp(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -1;
    n = read(fd, buf, size - 1);
    close(fd);
    if (n >= 0)
        buf[n] = '\0';
    return n;
}

static bool read_boot(uint8_t out[16])
{
    char text[64];
    size_t n = 0;
    int high = -1;

    if (slurp("/proc/sys/kernel/random/boot_id", text, sizeof text) < 0)
        return false;
    for (const char *p = text; *p && n < 16; p++) {
        int v = isdigit((unsigned char)*p) ? *p - '0' : isxdigit((unsigned char)*p) ? (tolower(*p) - 'a') + 10 : -1;
        if (v < 0)
            continue;
        if (high < 0) {
            high = v;
        } else {
            out[n++] = (uint8_t)(high << 4 | v);
            high = -1;
        }
    }
    return n == 16;
}

/* State letter and start time of a process. The command's name may hold anything, even ") R 1":
 * the fields begin behind the last parenthesis. */
static bool read_stat(uint32_t pid, char *state, uint64_t *started)
{
    char path[64], text[1024], *p;

    snprintf(path, sizeof path, "/proc/%lu/stat", (unsigned long)pid);
    if (slurp(path, text, sizeof text) <= 0 || (p = strrchr(text, ')')) == NULL || p[1] != ' ')
        return false;
    p += 2;
    *state = *p;
    for (int field = 3; field < 22; field++) { /* proc(5): state is field 3, starttime 22 */
        p = strchr(p, ' ');
        if (!p)
            return false;
        p++;
    }
    *started = strtoull(p, NULL, 10);
    return true;
}

int mj_owner_self(mj_owner *o)
{
    uint32_t pid = (uint32_t)getpid();
    struct stat ns;
    char state;
    int rc = MJ_OK;

    pthread_mutex_lock(&lock);
    if (cached.pid != pid) {
        mj_owner self = {.pid = pid};
        if (read_boot(self.boot) && stat("/proc/self/ns/pid", &ns) == 0 && read_stat(pid, &state, &self.started)) {
            self.pidns = ns.st_ino;
            cached = self;
        } else {
            rc = MJ_EIO;
        }
    }
    *o = rc == MJ_OK ? cached : (mj_owner){.pid = pid};
    pthread_mutex_unlock(&lock);
    return rc;
}

mj_owner_state mj_owner_look(const mj_owner *o)
{
    static const uint8_t none[16];
    mj_owner self;
    uint64_t started;
    char state;

    if (o->pidns == 0 || memcmp(o->boot, none, 16) == 0 || mj_owner_self(&self) != MJ_OK)
        return MJ_OWNER_FOREIGN;
    if (memcmp(o->boot, self.boot, 16) != 0)
        return MJ_OWNER_DEAD; /* nothing outlives a boot */
    if (o->pidns != self.pidns)
        return MJ_OWNER_FOREIGN;
    if (read_stat(o->pid, &state, &started))
        return started != o->started || state == 'Z' || state == 'X' ? MJ_OWNER_DEAD : MJ_OWNER_ALIVE;
    /* Not to be seen: gone, or hidden by hidepid; a signal can tell. */
    return kill((pid_t)o->pid, 0) != 0 && errno == ESRCH ? MJ_OWNER_DEAD : MJ_OWNER_ALIVE;
}
