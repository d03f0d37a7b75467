#include "os/process.h"

#include "os/fd.h"

#include <errno.h>
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

struct mj_child_shared {
    atomic_uint begun; /* how many pieces of its work the child has begun */
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

bool mj_child_begin(mj_child *c)
{
    return c->shared && (atomic_fetch_add(&c->shared->begun, 1) & TAKEN_BACK) == 0;
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

bool mj_child_tell(int fd, mj_str message)
{
    uint8_t head[4];

    if (message.n > MJ_MAX_FRAME)
        return false;
    mj_be32(head, message.n);
    return send_all(fd, head, sizeof head) && send_all(fd, message.p, message.n);
}

/* The length of the first whole message in the buffer, with its head; 0: there is none. */
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
