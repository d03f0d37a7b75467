#include "os/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static void woken(int sig)
{
    (void)sig; /* the signal only interrupts ppoll() */
}

/* fork() without an exit signal: only a wait with __WALL finds the child.  Locks of the C library stay as they were,
 * so the child must take none. */
static pid_t fork_hidden(void)
{
    return (pid_t)syscall(SYS_clone, 0UL, NULL, NULL, NULL, 0UL);
}

int mj_guard_start(mj_guard *g, mj_guard_kind kind, int *fd)
{
    struct sigaction wake = {.sa_handler = woken};
    sigset_t all, before;
    int ends[2], why;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return -1;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* the parent's signal handlers must not run in the guard */
    pid = kind == MJ_GUARD_PROGRAM ? fork_hidden() : fork();
    if (pid == 0) {
        sigaction(SIGCHLD, &wake, NULL); /* needed if the parent ignores SIGCHLD: its children would leave no status */
        if (kind == MJ_GUARD_PROGRAM)    /* what a handler's code starts in a session of its own is the user's */
            prctl(PR_SET_CHILD_SUBREAPER, 1);
        close(ends[0]);
        *fd = ends[1];
        return 0;
    }
    why = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        errno = why;
        return -1;
    }
    *g = (mj_guard){.pid = pid, .pidfd = -1, .fd = ends[0], .hidden = kind == MJ_GUARD_PROGRAM};
    if (kind == MJ_GUARD_FORK)
        g->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return 1;
}

static void tell(int fd, const mj_ending *how)
{
    while (send(fd, how, sizeof *how, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static _Noreturn void report(int fd, const mj_ending *how)
{
    tell(fd, how);
    _exit(0);
}

/* A pidfd means this guard even when another child has its pid by now.  Without one, no other wait takes the guard's
 * status, so the pid is still its own. */
static void signal_guard(const mj_guard *g, int sig)
{
    if (g->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, g->pidfd, sig, NULL, 0U);
    else if (g->hidden)
        kill(g->pid, sig);
}

enum { PATIENCE_MS = 100 };

/* false: the guard ended without a report.  The guarded program may have stopped it, so it is continued. */
static bool hear(const mj_guard *g, mj_ending *how)
{
    struct pollfd said = {g->fd, POLLIN, 0};
    ssize_t n;

    signal_guard(g, SIGCONT);
    while (poll(&said, 1, PATIENCE_MS) <= 0)
        signal_guard(g, SIGCONT);
    while ((n = recv(g->fd, how, sizeof *how, MSG_WAITALL)) < 0 && errno == EINTR)
        ;
    return n == (ssize_t)sizeof *how;
}

void mj_guard_started(int fd)
{
    tell(fd, &(mj_ending){0});
}

int mj_guard_await(mj_guard *g)
{
    mj_ending how;

    return hear(g, &how) ? how.error : ECHILD;
}

void mj_guard_failed(int fd, int error)
{
    report(fd, &(mj_ending){.error = error});
}

static bool ended(pid_t pid)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

/* A child of this process, which has one thread; 0: there is none, or the kernel does not tell. */
static pid_t some_child(void)
{
    char text[32];
    int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text);
    pid_t pid = 0;

    for (ssize_t i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++)
        pid = pid * 10 + (text[i] - '0');
    if (fd >= 0)
        close(fd);
    return pid;
}

/* A process that left the group, as setsid() does, became a child of the guard when its parent ended.  The loop has a
 * bound: a process may multiply faster than it is killed. */
static void end_strays(void)
{
    enum { MOST = 10000 };
    pid_t pid;

    for (int i = 0; i < MOST && (pid = some_child()) > 0; i++) {
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
            ;
    }
}

void mj_guard_watch(int fd, pid_t pid, bool leave)
{
    mj_ending how = {0};
    sigset_t all_but_sigchld;

    sigfillset(&all_but_sigchld);
    sigdelset(&all_but_sigchld, SIGCHLD);
    while (!ended(pid)) {
        struct pollfd parent = {fd, POLLIN, 0};
        if (ppoll(&parent, 1, NULL, &all_but_sigchld) >
            0) { /* the parent never sends: it asks for the end, or has ended */
            leave = false;
            break;
        }
    }
    if (!leave) {
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL); /* in case it has joined another group */
    }
    while (waitpid(pid, &how.status, 0) < 0 && errno == EINTR)
        ;
    if (!leave)
        end_strays();
    report(fd, &how);
}

void mj_guard_settle(pid_t guard)
{
    sigset_t none;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != guard) /* the guard ended before prctl() took effect */
        _exit(0);
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ECHILD: another part of this process took the status; there is nothing to wait for. */
static void wait_for(mj_guard *g)
{
    siginfo_t info;

    while ((g->pidfd >= 0 ? waitid((idtype_t)P_PIDFD, (id_t)g->pidfd, &info, WEXITED | __WALL)
                          : waitpid(g->pid, NULL, __WALL)) < 0 &&
           errno == EINTR)
        ;
    if (g->pidfd >= 0)
        close(g->pidfd);
    g->pidfd = -1;
    g->pid = 0;
}

void mj_guard_end(mj_guard *g, mj_ending *how)
{
    shutdown(g->fd, SHUT_WR); /* not close(): a child that was forked meanwhile may hold a copy */
    if (!hear(g, how))
        *how = (mj_ending){.status = SIGKILL};
    signal_guard(g, SIGKILL); /* the guard has nothing left to do, and a process that it could not kill might stop it */
    close(g->fd);
    g->fd = -1;
    wait_for(g);
}
