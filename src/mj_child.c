#include "mj_child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What every child does first: only calls that are safe between fork and exec in a process with threads. */
static void settle_in(pid_t parent)
{
    static const int ours[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGCHLD, SIGUSR1, SIGUSR2, SIGQUIT};
    sigset_t none;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before that was said */
        _exit(0);
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        signal(ours[i], SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Of the number of claims: there are no more to be had. */
#define TAKEN_BACK 0x80000000U

/* Memory that stays the same for both sides of a fork; NULL. */
static atomic_uint *shared_word(void)
{
    void *p = mmap(NULL, sizeof(atomic_uint), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p; /* zeroed, as a counter begins */
}

static void unshare_word(atomic_uint *word)
{
    if (word)
        munmap(word, sizeof *word);
}

int mj_child_fork(mj_child *c, int *fd, atomic_uint **claimed)
{
    int ends[2], why;
    pid_t parent = getpid(), pid;
    atomic_uint *word = shared_word();

    if (!word)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        why = errno;
        unshare_word(word);
        errno = why;
        return -1;
    }
    pid = fork();
    if (pid == 0) {
        settle_in(parent);
        close(ends[0]);
        *fd = ends[1];
        *claimed = word;
        return 0;
    }
    if (pid < 0) {
        why = errno;
        close(ends[0]), close(ends[1]);
        unshare_word(word);
        errno = why;
        return -1;
    }
    close(ends[1]);
    setpgid(pid, pid); /* whoever of the two is first */
    *c = (mj_child){.pid = pid, .fd = ends[0], .claimed = word};
    return 1;
}

bool mj_child_claim(atomic_uint *claimed)
{
    return (atomic_fetch_add(claimed, 1) & TAKEN_BACK) == 0;
}

unsigned mj_child_take_back(mj_child *c)
{
    unsigned word = c->claimed ? atomic_fetch_or(c->claimed, TAKEN_BACK) : 0;

    return word & ~TAKEN_BACK;
}

static bool send_all(int fd, const void *p, size_t n)
{
    const char *at = p;

    while (n > 0) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        n -= (size_t)sent;
    }
    return true;
}

bool mj_child_tell(int fd, mj_str message)
{
    uint8_t head[4];

    if (message.n > MJ_MAX_FRAME)
        return false;
    mj_be32(head, message.n);
    return send_all(fd, head, sizeof head) && send_all(fd, message.p, message.n);
}

/* The first whole message in the buffer: its length and 4, or 0. */
static size_t whole(const mj_buf *b, bool *bad)
{
    uint32_t n = b->n < 4 ? 0 : mj_be32_get(b->p);

    *bad = n > MJ_MAX_FRAME;
    return b->n < 4 || *bad || b->n - 4 < n ? 0 : (size_t)n + 4;
}

int mj_child_hear(mj_child *c, mj_str *message)
{
    uint8_t some[16384];
    bool bad;
    size_t n;

    if (c->used > 0) {
        memmove(c->got.p, c->got.p + c->used, c->got.n - c->used);
        c->got.n -= c->used;
        c->used = 0;
    }
    while ((n = whole(&c->got, &bad)) == 0) {
        ssize_t got;
        if (bad || c->fd < 0)
            return -1;
        got = recv(c->fd, some, sizeof some, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (got <= 0)
            return -1;
        mj_put_raw(&c->got, some, (size_t)got);
        if (c->got.failed)
            return -1;
    }
    *message = (mj_str){(char *)c->got.p + 4, (uint32_t)(n - 4)};
    c->used = n;
    return 1;
}

void mj_child_end(mj_child *c, int *status)
{
    *status = 0;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    if (c->pid > 0) {
        kill(-c->pid, SIGKILL);
        while (waitpid(c->pid, status, 0) < 0 && errno == EINTR)
            ;
    }
    c->pid = 0;
    unshare_word(c->claimed);
    c->claimed = NULL;
    mj_buf_free(&c->got);
}

/* ---- a program ---- */

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

/* The same file under a number that is not about to become something else's: where a parent was started without
 * standard input, a pipe may have got its number. */
static int out_of_the_way(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* In the child.  What fails before the program runs goes through `failed`, which the program's start closes. */
static void become(const mj_command *c, int in, int err, int failed)
{
    int null, why;

    failed = out_of_the_way(failed);
    in = out_of_the_way(in);
    err = out_of_the_way(err);
    null = out_of_the_way(open("/dev/null", O_WRONLY | O_CLOEXEC));
    if (null >= 0 && dup2(in, 0) == 0 && dup2(null, 1) == 1 && dup2(err, 2) == 2)
        execve(c->argv[0], c->argv, c->envp);
    why = errno;
    if (write(failed, &why, sizeof why) < 0)
        _exit(126);
    _exit(127);
}

/* Keeps the end of what the program says. */
static bool listen_to(int fd, mj_ended *out, size_t *n)
{
    char some[4096];
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

/* Feeds and hears the program until it has ended or its time is over. */
static void attend(const mj_command *c, pid_t pid, int in, int err, int pidfd, mj_ended *out)
{
    int64_t stop_at = clock_ms() + c->timeout_ms, left;
    size_t fed = 0, said = 0;

    for (;;) {
        struct pollfd p[3] = {{in, POLLOUT, 0}, {err, POLLIN, 0}, {pidfd, POLLIN, 0}};
        left = stop_at - clock_ms();
        if (left <= 0)
            break;
        /* Without pidfd_open (a kernel before 5.3) it is looked for every 10 ms. */
        left = pidfd < 0 && left > 10 ? 10 : left > 60000 ? 60000 : left;
        if (poll(p, 3, (int)left) < 0 && errno != EINTR)
            break;
        if (in >= 0 && p[0].revents) {
            ssize_t n = write(in, c->input.p + fed, c->input.n - fed);
            fed += n > 0 ? (size_t)n : 0;
            if (fed == c->input.n || (n < 0 && errno != EAGAIN && errno != EINTR)) {
                close(in); /* it has all of it, or does not want to hear more */
                in = -1;
            }
        }
        if (err >= 0 && p[1].revents && !listen_to(err, out, &said)) {
            close(err);
            err = -1;
        }
        if ((pidfd < 0 || p[2].revents) && waitpid(pid, &out->status, WNOHANG) == pid) {
            while (err >= 0 && poll(&(struct pollfd){err, POLLIN, 0}, 1, 0) > 0 && listen_to(err, out, &said))
                ;
            kill(-pid, SIGKILL); /* what it left behind */
            goto done;
        }
    }
    out->timed_out = true;
    kill(-pid, SIGKILL);
    while (waitpid(pid, &out->status, 0) < 0 && errno == EINTR)
        ;
done:
    if (in >= 0)
        close(in);
    if (err >= 0)
        close(err);
}

int mj_command_run(const mj_command *c, mj_ended *out)
{
    int in[2] = {-1, -1}, err[2] = {-1, -1}, failed[2] = {-1, -1}, why = 0, pidfd;
    pid_t parent = getpid(), pid;
    sigset_t pipe_only, before;

    memset(out, 0, sizeof *out);
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 || pipe2(failed, O_CLOEXEC) != 0 ||
        (pid = fork()) < 0) {
        why = errno;
        close_pair(in), close_pair(err), close_pair(failed);
        return why;
    }
    if (pid == 0) {
        settle_in(parent);
        become(c, in[0], err[1], failed[1]);
    }
    setpgid(pid, pid);
    close(in[0]), close(err[1]), close(failed[1]);
    while (read(failed[0], &why, sizeof why) < 0 && errno == EINTR)
        ;
    close(failed[0]);
    if (why != 0) {
        close(in[1]), close(err[0]);
        while (waitpid(pid, &out->status, 0) < 0 && errno == EINTR)
            ;
        return why;
    }
    fcntl(in[1], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    /* A program that closes its input early must not end us. */
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    attend(c, pid, in[1], err[0], pidfd, out);
    while (sigtimedwait(&pipe_only, NULL, &(struct timespec){0, 0}) > 0)
        ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pidfd >= 0)
        close(pidfd);
    return 0;
}
