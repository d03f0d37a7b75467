/* Says where a process crashed: in the program or library of the first frame that is not the C library's.
 *
 * Included by a program, or preloaded into one.  A line for each crash goes to $MJHOOK_CRASH_LOG:
 *     signal 11 in liblmdb.so.0: mdb_page_search_root < mdb_page_search < mdb_cursor_set < ... */
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CRASH_FRAMES = 24, CRASH_HANDLER = 2 }; /* this handler, and the trampoline to it */
static char crash_log[4096], crash_stack[1 << 16];

static const char *crash_base(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;

    return slash ? slash + 1 : path ? path : "?";
}

/* Frames that only pass on: the C library's, and the sanitizers'. */
static int crash_passes(const char *object)
{
    return strncmp(object, "libc.", 5) == 0 || strncmp(object, "libc-", 5) == 0 || strncmp(object, "libasan", 7) == 0 ||
           strncmp(object, "libubsan", 8) == 0 || strncmp(object, "libpthread", 10) == 0;
}

static void crash_tell(int number)
{
    void *frames[CRASH_FRAMES];
    char line[2048];
    int n = backtrace(frames, CRASH_FRAMES), at = 0, found = 0,
        fd = open(crash_log, O_WRONLY | O_APPEND | O_CREAT, 0600);

    for (int i = CRASH_HANDLER; i < n; i++) {
        Dl_info info = {0};
        const char *object;
        dladdr(frames[i], &info);
        object = crash_base(info.dli_fname);
        if (!found && crash_passes(object))
            continue;
        if (!found)
            at = snprintf(line, sizeof line, "signal %d in %s:", number, object);
        if (at < (int)sizeof line - 128)
            at += snprintf(line + at, sizeof line - (size_t)at, "%s %.60s+0x%lx", found ? " <" : "",
                           info.dli_sname ? info.dli_sname : object,
                           (unsigned long)((char *)frames[i] - (char *)info.dli_fbase));
        found = 1;
    }
    if (!found)
        at = snprintf(line, sizeof line, "signal %d in ?:", number);
    line[at++] = '\n';
    if (fd >= 0 && write(fd, line, (size_t)at) != at)
        _exit(99);
    signal(number, SIG_DFL);
    raise(number);
}

__attribute__((constructor)) static void crash_watch(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGPROF};
    struct sigaction act = {.sa_handler = crash_tell, .sa_flags = SA_ONSTACK | SA_NODEFER};
    stack_t stack = {.ss_sp = crash_stack, .ss_size = sizeof crash_stack};
    const char *log = getenv("MJHOOK_CRASH_LOG");
    void *first[1];

    if (!log)
        return;
    snprintf(crash_log, sizeof crash_log, "%s", log);
    backtrace(first, 1); /* loads what it needs now, not in the handler */
    sigaltstack(&stack, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &act, NULL);
}
