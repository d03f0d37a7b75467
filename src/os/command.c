#include "os/command.h"

#include "os/fd.h"
#include "os/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void close_pair(int *ends)
{
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            close(ends[i]);
}

/* ---- in the guard ---- */

enum { REPORT = 3 }; /* the guard's socket, which the program does not get */

/* Puts these files where the program expects them.  First they move out of the way: in a parent that was started
 * without standard input, a pipe may have that number.  0, or an errno value, and *report is where the socket is then.
 */
static int arrange(int in, int err, int *report)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int from[] = {in, null, err, *report};

    for (int i = 0; i < 4; i++)
        if ((from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, REPORT + 1)) < 0)
            return errno;
    *report = from[REPORT];
    if (dup3(from[REPORT], REPORT, O_CLOEXEC) < 0)
        return errno;
    *report = REPORT;
    for (int i = 0; i < REPORT; i++)
        if (dup2(from[i], i) < 0)
            return errno;
    mj_fd_close_from(REPORT + 1);
    return 0;
}

static _Noreturn void guard(const mj_command *c, int in, int err, int report)
{
    pid_t self = getpid(), pid;
    volatile int why = arrange(in, err, &report); /* volatile: under vfork() the program's process writes it, too */

    if (why != 0)
        mj_guard_failed(report, why);
    /* vfork(): the guard may be a copy of a large process, and no second copy is needed.  Only two system calls run
     * before execve(), and the guard has one thread. */
    pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
    if (pid == 0) {
        mj_guard_settle(self); /* NOLINT(clang-analyzer-unix.Vfork) */
        execve(c->argv[0], c->argv, c->envp);
        why = errno;
        _exit(127);
    }
    if (pid < 0 || why != 0)
        mj_guard_failed(REPORT, pid < 0 ? errno : why);
    close(0), close(1), close(2); /* so that the parent notices when the program closes them */
    mj_guard_watch(REPORT, pid, c->background);
}

/* ---- in the parent ---- */

enum { READ = 4096, PIPE_READS = 1048576 / READ }; /* bytes; a pipe holds at most a MiB */

/* Keeps the end of the program's standard error. */
static bool listen_to(int fd, mj_ended *out, size_t *n)
{
    char some[READ];
    ssize_t got = read(fd, some, sizeof some);
    size_t most = sizeof out->said - 1, len;

    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (got == 0)
        return false;
    len = (size_t)got < most ? (size_t)got : most;
    if (*n + len > most) {
        size_t drop = *n + len - most;
        memmove(out->said, out->said + drop, *n - drop);
        *n -= drop;
    }
    memcpy(out->said + *n, some + ((size_t)got - len), len);
    *n += len;
    return true;
}

/* Feeds and hears the program until it has ended or its time is up. */
static void attend(const mj_command *c, mj_guard *g, int in, int err, mj_ended *out)
{
    int64_t stop_at = clock_ms() + c->timeout_ms, left;
    size_t fed = 0, said = 0;

    for (;;) {
        struct pollfd p[3] = {{in, POLLOUT, 0}, {err, POLLIN, 0}, {g->fd, POLLIN, 0}};
        left = stop_at - clock_ms();
        if (left <= 0)
            break;
        if (poll(p, 3, left > 60000 ? 60000 : (int)left) < 0 && errno != EINTR)
            break;
        if (in >= 0 && p[0].revents) {
            ssize_t n = write(in, c->input.p + fed, c->input.n - fed);
            fed += n > 0 ? (size_t)n : 0;
            if (fed == c->input.n || (n < 0 && errno != EAGAIN && errno != EINTR)) {
                close(in); /* all input was written, or the program closed its end */
                in = -1;
            }
        }
        if (err >= 0 && p[1].revents && !listen_to(err, out, &said)) {
            close(err);
            err = -1;
        }
        if (p[2].revents)
            break;
    }
    out->timed_out = left <= 0;
    /* Reads what the pipe still holds, and no more: a process that the program left behind may write for ever. */
    for (int i = 0; i < PIPE_READS && err >= 0 && poll(&(struct pollfd){err, POLLIN, 0}, 1, 0) > 0; i++)
        if (!listen_to(err, out, &said))
            break;
    if (in >= 0)
        close(in);
    if (err >= 0)
        close(err);
}

int mj_command_run(const mj_command *c, mj_ended *out)
{
    int in[2] = {-1, -1}, err[2] = {-1, -1}, report, why;
    sigset_t pipe_only, before;
    mj_ending how;
    mj_guard g;

    memset(out, 0, sizeof *out);
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 ||
        (why = mj_guard_start(&g, MJ_GUARD_PROGRAM, &report)) < 0) {
        why = errno;
        close_pair(in), close_pair(err);
        return why;
    }
    if (why == 0)
        guard(c, in[0], err[1], report);
    close(in[0]), close(err[1]);
    fcntl(in[1], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    /* A program that closes its input early must not end this process. */
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    attend(c, &g, in[1], err[0], out);
    while (sigtimedwait(&pipe_only, NULL, &(struct timespec){0, 0}) > 0)
        ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    mj_guard_end(&g, &how);
    out->status = how.status;
    return how.error;
}
