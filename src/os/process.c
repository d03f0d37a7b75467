#include "os/process.h"

#include "os/fd.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* The children of this process, so that a new child can close what belongs to the others. */
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static mj_child *list;

/* Set in `begun`: the parent has taken the rest back. */
#define TAKEN_BACK 0x80000000U

enum { FREE, HELD, FORBIDDEN };
enum { FEED_MS = 1000 };

struct mj_child_shared {
    atomic_uint begun; /* how many pieces of its work the child has begun */
    atomic_llong at;   /* when it began the newest one */
    atomic_uint sent;  /* how many messages it has sent, each whole */
    atomic_uint done;  /* how many pieces are done; their messages were sent before */
    atomic_uint hold;  /* FREE, HELD or FORBIDDEN */
};

static struct mj_child_shared *own; /* this child's; NULL in other processes */

/* Memory that both sides of a fork share; NULL: there is none. */
static struct mj_child_shared *share(void)
{
    void *p = mmap(NULL, sizeof(struct mj_child_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p; /* zeroed, as both numbers begin */
}

static void unshare_memory(mj_child *c)
{
    if (c->shared)
        munmap(c->shared, sizeof *c->shared);
    c->shared = NULL;
}

static void put_in_list(mj_child *c)
{
    c->next = list;
    list = c;
}

static void take_out_of_list(mj_child *c)
{
    for (mj_child **at = &list; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            return;
        }
}

static int failed(mj_child *c, int *ends, int why)
{
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            close(ends[i]);
    unshare_memory(c);
    *c = (mj_child){.fd = -1, .guard = {.fd = -1, .pidfd = -1}};
    errno = why;
    return -1;
}

/* In a forked process: the parent's children are not its own. */
static void let_go_of_list(void)
{
    for (mj_child *c = list; c; c = c->next) {
        if (c->guard.pidfd >= 0)
            close(c->guard.pidfd);
        close(c->guard.fd);
        close(c->fd);
        *c = (mj_child){.fd = -1, .guard = {.fd = -1, .pidfd = -1}, .next = c->next};
    }
    list = NULL;
}

/* In the guard: forks once more; returns only in the child. */
static void fork_guarded(mj_child *c, int end, int report)
{
    pid_t self = getpid(), pid = fork();

    if (pid < 0)
        mj_guard_failed(report, errno);
    if (pid > 0) {
        setpgid(pid, pid); /* parent and child both set it; the first call counts */
        if (dup2(report, 0) == 0) {
            mj_fd_close_from(1);
            report = 0;
        }
        mj_guard_started(report);
        mj_guard_watch(report, pid, false);
    }
    mj_guard_settle(self);
    close(report);
    let_go_of_list();
    c->fd = end;
    own = c->shared;
}

int mj_child_fork(mj_child *c)
{
    int ends[2] = {-1, -1}, report, rc, why;
    mj_ending how;

    *c = (mj_child){.fd = -1, .guard = {.fd = -1, .pidfd = -1}, .shared = share()};
    if (!c->shared || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return failed(c, ends, errno);
    pthread_mutex_lock(&list_lock); /* no descriptor is opened or closed meanwhile, and the child finds a whole list */
    rc = mj_guard_start(&c->guard, MJ_GUARD_FORK, &report);
    if (rc == 0) {
        close(ends[0]);
        fork_guarded(c, ends[1], report);
        pthread_mutex_unlock(&list_lock);
        return 0;
    }
    if (rc > 0 && (why = mj_guard_await(&c->guard)) != 0) {
        mj_guard_end(&c->guard, &how);
        errno = why;
        rc = -1;
    }
    if (rc > 0) {
        close(ends[1]);
        c->fd = ends[0];
        put_in_list(c);
    }
    pthread_mutex_unlock(&list_lock);
    return rc > 0 ? rc : failed(c, ends, errno);
}

bool mj_child_begin(mj_child *c, int64_t now)
{
    if (!c->shared)
        return false;
    atomic_store(&c->shared->at, now);
    return (atomic_fetch_add(&c->shared->begun, 1) & TAKEN_BACK) == 0;
}

int64_t mj_child_began(const mj_child *c)
{
    return c->shared ? atomic_load(&c->shared->at) : 0;
}

unsigned mj_child_take_back(mj_child *c)
{
    unsigned word = c->shared ? atomic_fetch_or(&c->shared->begun, TAKEN_BACK) : 0;

    return word & ~TAKEN_BACK;
}

/* Whether the hold becomes, or is already, what is wanted. */
static bool change(struct mj_child_shared *s, unsigned wanted)
{
    unsigned seen = FREE;

    return atomic_compare_exchange_strong(&s->hold, &seen, wanted) || seen == wanted;
}

void mj_child_hold(void)
{
    if (own && !change(own, HELD))
        for (;;)
            pause(); /* the parent is about to end this process */
}

void mj_child_release(void)
{
    if (own)
        atomic_store(&own->hold, FREE);
}

bool mj_child_forbid(mj_child *c)
{
    return !c->shared || change(c->shared, FORBIDDEN);
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

/* A message's head: its length, and which piece it is about. */
enum { HEAD = 8 };

bool mj_child_tell(mj_child *c, mj_str message)
{
    unsigned piece = c->told++;
    uint8_t head[HEAD];

    if (message.p) {
        if (message.n > MJ_MAX_FRAME)
            return false;
        mj_be32(head, message.n);
        mj_be32(head + 4, piece);
        if (!send_all(c->fd, head, sizeof head) || !send_all(c->fd, message.p, message.n))
            return false;
        atomic_fetch_add(&c->shared->sent, 1);
    }
    atomic_store(&c->shared->done, piece + 1);
    return true;
}

/* Lets go of the message that was given last. */
static void drop_given(mj_child *c)
{
    if (c->used > 0) {
        memmove(c->got.p, c->got.p + c->used, c->got.n - c->used);
        c->got.n -= c->used;
        c->used = 0;
    }
}

/* In the place of a piece's number. */
static const uint32_t HUNGRY = UINT32_MAX;

/* Whether the buffer begins with a whole message. */
static bool whole(const mj_buf *b)
{
    return b->n >= HEAD && b->n - HEAD >= mj_be32_get(b->p);
}

/* Receives until there is a whole message.  1: there is; 0: not yet; -1: there will be none, or it is nonsense. */
static int receive(mj_child *c)
{
    uint8_t some[16384];

    while (!whole(&c->got)) {
        ssize_t got;
        if (c->fd < 0 || (c->got.n >= HEAD && mj_be32_get(c->got.p) > MJ_MAX_FRAME))
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
    return 1;
}

/* The number of pieces that are known to be done. */
static unsigned done(const mj_child *c)
{
    return c->shared ? atomic_load(&c->shared->done) : 0;
}

/* The next piece is done, or the child has said that all are. */
static int next(mj_child *c, unsigned known, mj_str *message)
{
    uint32_t n, piece;

    *message = (mj_str){0};
    if (whole(&c->got)) {
        n = mj_be32_get(c->got.p);
        piece = mj_be32_get(c->got.p + 4);
        if (piece == HUNGRY && known <= c->heard) {
            c->used = HEAD;
            return 2;
        }
        if (piece <= c->heard) { /* less: a handler that has forked talks for two */
            c->used = HEAD + (size_t)n;
            c->messages++;
            *message = (mj_str){(char *)c->got.p + HEAD, n};
        }
        if (piece < c->heard)
            return 0;
    }
    c->heard++;
    return 1;
}

int mj_child_hear(mj_child *c, mj_str *message)
{
    for (;;) {
        unsigned known = done(c); /* first: the messages of pieces that are done were sent before */
        int rc = 1;

        drop_given(c);
        if (!whole(&c->got) && (known <= c->heard || atomic_load(&c->shared->sent) != c->messages))
            rc = receive(c);
        if (rc < 0)
            known = done(c); /* all that it did before it ended */
        if (!whole(&c->got) && known <= c->heard)
            return rc;
        if ((rc = next(c, known, message)) != 0)
            return rc;
    }
}

static bool receive_all(int fd, void *p, size_t n)
{
    char *at = p;

    while (n > 0) {
        ssize_t got = recv(fd, at, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        n -= (size_t)got;
    }
    return true;
}

int mj_child_more(mj_child *c, mj_buf *more)
{
    uint8_t head[HEAD];
    uint32_t n;

    mj_be32(head, 0);
    mj_be32(head + 4, HUNGRY);
    if (!send_all(c->fd, head, sizeof head) || !receive_all(c->fd, head, 4))
        return 0;
    n = mj_be32_get(head);
    more->n = 0;
    return mj_buf_reserve(more, n) && receive_all(c->fd, more->p, more->n = n);
}

/* Sends to a child that reads.  One that does not for a second is stopped, or not ours any more. */
static bool feed(int fd, const void *p, size_t n)
{
    const char *at = p;

    while (n > 0) {
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) && poll(&ready, 1, FEED_MS) == 1)
            continue;
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        n -= (size_t)sent;
    }
    return true;
}

bool mj_child_give(mj_child *c, mj_str more)
{
    uint8_t head[4];

    mj_be32(head, more.n);
    return c->fd >= 0 && feed(c->fd, head, sizeof head) && feed(c->fd, more.p, more.n);
}

void mj_child_end(mj_child *c, int *status)
{
    mj_ending how = {0};

    pthread_mutex_lock(&list_lock);
    take_out_of_list(c);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    pthread_mutex_unlock(&list_lock);
    if (c->guard.pid > 0)
        mj_guard_end(&c->guard, &how);
    *status = how.status;
    unshare_memory(c);
    mj_buf_free(&c->got);
}
