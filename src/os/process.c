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
enum {
    OPEN,
    SILENT,
    TOLD,
    HEARD
}; /* a piece: not done; done, without or with a message; and mj_child_hear() gave it */
enum { FEED_MS = 1000 };

struct mj_child_shared {
    atomic_uint begun;   /* how many pieces of its work the child has begun */
    atomic_int at_hand;  /* the piece that its code works on, and 1; 0: none */
    atomic_llong at;     /* when it began the newest one */
    atomic_llong rested; /* milliseconds that it has waited */
    atomic_uint silent;  /* how many pieces are done without a message */
    atomic_uint hold;    /* FREE, HELD or FORBIDDEN */
    atomic_uchar state[MJ_CHILD_PIECES];
    atomic_llong since[MJ_CHILD_PIECES]; /* when each was begun */
};

static struct mj_child_shared *own; /* this child's; NULL in other processes */

/* Memory that both sides of a fork share; NULL: there is none. */
static struct mj_child_shared *share(void)
{
    void *p = mmap(NULL, sizeof(struct mj_child_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p; /* zeroed, as all of it begins */
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

int mj_child_begin(mj_child *c, int64_t now)
{
    struct mj_child_shared *s = c->shared;
    unsigned piece = s ? atomic_load(&s->begun) : TAKEN_BACK;

    do {
        if (piece >= MJ_CHILD_PIECES) /* or taken back */
            return -1;
        atomic_store(&s->at, now);
        atomic_store(&s->since[piece], now); /* before the parent sees that it is begun */
    } while (!atomic_compare_exchange_weak(&s->begun, &piece, piece + 1));
    atomic_store(&s->at_hand, (int)piece + 1);
    return (int)piece;
}

void mj_child_at_hand(mj_child *c, int piece, int64_t rested)
{
    if (!c->shared)
        return;
    atomic_store(&c->shared->at_hand, piece + 1);
    if (rested > 0)
        atomic_fetch_add(&c->shared->rested, rested);
}

mj_child_view mj_child_look(const mj_child *c)
{
    const struct mj_child_shared *s = c->shared;

    if (!s)
        return (mj_child_view){.at_hand = -1};
    return (mj_child_view){.begun = atomic_load(&s->begun) & ~TAKEN_BACK,
                           .at_hand = atomic_load(&s->at_hand) - 1,
                           .at = atomic_load(&s->at),
                           .rested = atomic_load(&s->rested)};
}

int64_t mj_child_since(const mj_child *c, unsigned piece)
{
    return c->shared && piece < MJ_CHILD_PIECES ? atomic_load(&c->shared->since[piece]) : 0;
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
/* In the place of a piece's number: the message is how many pieces the child knows of. */
static const uint32_t HUNGRY = UINT32_MAX;

static bool send_message(int fd, uint32_t piece, mj_str message)
{
    uint8_t head[HEAD];

    mj_be32(head, message.n);
    mj_be32(head + 4, piece);
    return send_all(fd, head, sizeof head) && send_all(fd, message.p, message.n);
}

bool mj_child_tell(mj_child *c, unsigned piece, mj_str message)
{
    struct mj_child_shared *s = c->shared;
    unsigned char open = OPEN;

    if (piece >= MJ_CHILD_PIECES || message.n > MJ_MAX_FRAME)
        return false;
    if (message.p && !send_message(c->fd, piece, message))
        return false;
    /* A handler that has forked may tell of a piece twice: the first word counts. */
    if (atomic_compare_exchange_strong(&s->state[piece], &open, message.p ? TOLD : SILENT) && !message.p)
        atomic_fetch_add(&s->silent, 1);
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

/* A piece is given to the caller of mj_child_hear(). */
static void heard(mj_child *c, unsigned piece)
{
    struct mj_child_shared *s = c->shared;

    atomic_store(&s->state[piece], HEARD);
    while (c->first < MJ_CHILD_PIECES && atomic_load(&s->state[c->first]) == HEARD)
        c->first++;
}

/* Whether a piece is done without a message; which one. */
static bool hear_silent(mj_child *c, unsigned *piece)
{
    struct mj_child_shared *s = c->shared;

    if (!s || atomic_load(&s->silent) == c->silent)
        return false;
    for (unsigned i = c->first; i < MJ_CHILD_PIECES; i++)
        if (atomic_load(&s->state[i]) == SILENT) {
            c->silent++;
            heard(c, i);
            *piece = i;
            return true;
        }
    return false;
}

/* Reads the message that the buffer begins with: as mj_child_hear(); 0: of a piece that was given before. */
static int read_message(mj_child *c, unsigned *piece, mj_str *message)
{
    uint32_t n = mj_be32_get(c->got.p);

    *piece = mj_be32_get(c->got.p + 4);
    *message = (mj_str){(char *)c->got.p + HEAD, n};
    c->used = HEAD + (size_t)n;
    if (*piece == HUNGRY && n == 4) {
        *piece = mj_be32_get((const uint8_t *)message->p);
        return 2;
    }
    if (*piece >= MJ_CHILD_PIECES || !c->shared)
        return -1;
    if (atomic_load(&c->shared->state[*piece]) == HEARD)
        return 0;
    heard(c, *piece);
    return 1;
}

int mj_child_hear(mj_child *c, unsigned *piece, mj_str *message)
{
    for (;;) {
        int rc = 1;

        drop_given(c);
        *message = (mj_str){0};
        if (hear_silent(c, piece))
            return 1;
        if (!whole(&c->got))
            rc = receive(c);
        if (hear_silent(c, piece)) /* what was done before that message, or before its end */
            return 1;
        if (rc <= 0)
            return rc;
        if ((rc = read_message(c, piece, message)) != 0)
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

int mj_child_more(mj_child *c, unsigned known, bool wait, mj_buf *more)
{
    uint8_t head[4], count[4];
    uint32_t n;

    mj_be32(count, known);
    if ((wait || !c->hungry) && !send_message(c->fd, HUNGRY, (mj_str){(char *)count, sizeof count}))
        return 0;
    c->hungry = true;
    if (!wait && poll(&(struct pollfd){.fd = c->fd, .events = POLLIN}, 1, 0) != 1)
        return 2;
    if (!receive_all(c->fd, head, sizeof head))
        return 0;
    c->hungry = false;
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
    c->used = 0;
}
