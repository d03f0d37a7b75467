#include "base/fault.h"

#ifdef MJ_FAULTS

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char wanted[64]; /* a name, "*" for any, "" for none */
static long at;         /* the passage at which the process dies */
static long passages;   /* so far, of the wanted point */
static const char *log_path;
static pthread_mutex_t passing = PTHREAD_MUTEX_INITIALIZER; /* the log ends with the passage that kills */
static const char *hold;                                    /* "name:path" */

static void configure(void)
{
    const char *spec = getenv("MJHOOK_FAULT"), *colon = spec ? strrchr(spec, ':') : NULL;
    char *end = NULL;

    log_path = getenv("MJHOOK_FAULT_LOG");
    hold = getenv("MJHOOK_FAULT_HOLD");
    if (!spec || !*spec)
        return;
    at = colon ? strtol(colon + 1, &end, 10) : 0;
    /* Stop here: a test with a mistake in this variable would pass and test nothing. */
    if (at < 1 || *end || (size_t)(colon - spec) >= sizeof wanted || colon == spec) {
        fprintf(stderr, "MJHOOK_FAULT: NAME:N expected, got %s\n", spec);
        _exit(64);
    }
    memcpy(wanted, spec, (size_t)(colon - spec));
}

static void note(const char *name)
{
    char line[80];
    int n = snprintf(line, sizeof line, "%s\n", name);
    int fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || n >= (int)sizeof line || write(fd, line, (size_t)n) != n) {
        fprintf(stderr, "MJHOOK_FAULT_LOG: %s can't be written\n", log_path);
        _exit(64);
    }
    close(fd);
}

static void wait_at(const char *name)
{
    size_t n = strlen(name);

    while (strncmp(hold, name, n) == 0 && hold[n] == ':' && access(hold + n + 1, F_OK) == 0)
        usleep(1000);
}

void mj_fault_pass(const char *name)
{
    pthread_once(&once, configure);
    pthread_mutex_lock(&passing);
    if (log_path)
        note(name);
    if ((strcmp(wanted, "*") == 0 || strcmp(wanted, name) == 0) && ++passages == at)
        kill(getpid(), SIGKILL);
    pthread_mutex_unlock(&passing);
    if (hold)
        wait_at(name);
}

#endif
