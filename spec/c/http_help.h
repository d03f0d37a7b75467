/* For tests of mj_http: a server on a loopback port whose every connection is served by a function of the test, in a
 * thread of its own, and which counts what arrives. */
#ifndef HTTP_HELP_H
#define HTTP_HELP_H

#include "base/error.h"
#include "mj_test.h"
#include "net/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>

struct conn;

typedef struct server {
    void (*serve)(struct conn *c);
    int listener, port;
    pthread_mutex_t lock; /* for all below */
    pthread_cond_t changed;
    int accepted, open, most_open, closed; /* connections */
    int heads, bodies;                     /* requests, of which the header and all of the body arrived */
    int stage;                             /* whatever a test makes of it */
    char head[16384];                      /* of the last request */
    char *body;
    size_t body_len;
} server;

typedef struct conn {
    server *s;
    int fd, nth; /* from 1 */
    size_t cap, n;
    char *buf; /* what was received and not yet read */
    bool closed;
} conn;

/* ---- counting and waiting ---- */

static inline int count(server *s, int *what)
{
    int n;

    pthread_mutex_lock(&s->lock);
    n = ++*what;
    if (what == &s->open && n > s->most_open)
        s->most_open = n;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return n;
}

static inline void wait_for(server *s, const int *what, int n)
{
    pthread_mutex_lock(&s->lock);
    while (*what < n)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static inline int counted(server *s, const int *what)
{
    int n;

    pthread_mutex_lock(&s->lock);
    n = *what;
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* ---- the server's side of a connection ---- */

static inline bool receive(conn *c)
{
    ssize_t got;

    if (c->cap - c->n < 2) {
        c->cap = c->cap ? 2 * c->cap : 4096;
        c->buf = realloc(c->buf, c->cap);
        c->buf[c->n] = '\0'; /* a client may go without a byte */
    }
    got = recv(c->fd, c->buf + c->n, c->cap - c->n - 1, 0);
    if (got <= 0)
        return false;
    c->n += (size_t)got;
    c->buf[c->n] = '\0';
    return true;
}

static inline void drop(conn *c, size_t n)
{
    memmove(c->buf, c->buf + n, c->n - n + 1);
    c->n -= n;
}

static inline bool read_head(conn *c)
{
    char *end;
    size_t n;

    while (!c->buf || (end = strstr(c->buf, "\r\n\r\n")) == NULL)
        if (!receive(c))
            return false;
    n = (size_t)(end - c->buf) + 4;
    pthread_mutex_lock(&c->s->lock);
    snprintf(c->s->head, sizeof c->s->head, "%.*s", (int)n, c->buf);
    pthread_mutex_unlock(&c->s->lock);
    drop(c, n);
    count(c->s, &c->s->heads);
    return true;
}

/* After read_head, on servers of which one connection at a time is used. */
static inline bool read_body(conn *c)
{
    const char *p = strstr(c->s->head, "Content-Length: ");
    size_t n = p ? strtoul(p + 16, NULL, 10) : 0;

    while (c->n < n)
        if (!receive(c))
            return false;
    pthread_mutex_lock(&c->s->lock);
    free(c->s->body);
    c->s->body = malloc(n + 1);
    memcpy(c->s->body, c->buf, n);
    c->s->body_len = n;
    pthread_mutex_unlock(&c->s->lock);
    drop(c, n);
    count(c->s, &c->s->bodies);
    return true;
}

static inline bool read_request(conn *c)
{
    return read_head(c) && read_body(c);
}

static inline void say(conn *c, const char *text)
{
    size_t n = strlen(text), at = 0;

    while (at < n) {
        ssize_t w = send(c->fd, text + at, n - at, MSG_NOSIGNAL);
        if (w <= 0)
            return;
        at += (size_t)w;
    }
}

static inline void reply(conn *c, const char *status, const char *headers, const char *body)
{
    char *text;

    if (asprintf(&text, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n%s", status, headers, strlen(body), body) < 0)
        abort();
    say(c, text);
    free(text);
}

/* hard: with a reset. Then the other side knows already. */
static inline void hang_up(conn *c, bool hard)
{
    struct linger none = {1, 0};

    if (hard)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(c->fd);
    c->closed = true;
    count(c->s, &c->s->closed);
}

/* Until the other side goes. */
static inline void hold(conn *c)
{
    do
        c->n = 0;
    while (receive(c));
}

static inline void *conn_main(void *arg)
{
    conn *c = arg;

    c->s->serve(c);
    if (!c->closed)
        hang_up(c, false);
    pthread_mutex_lock(&c->s->lock);
    c->s->open--;
    pthread_mutex_unlock(&c->s->lock);
    free(c->buf);
    free(c);
    return NULL;
}

static inline void *server_main(void *arg)
{
    server *s = arg;
    pthread_attr_t detached;

    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 128 << 10);
    for (;;) {
        pthread_t t;
        conn *c = calloc(1, sizeof *c);
        if (!c || (c->fd = accept(s->listener, NULL, NULL)) < 0)
            abort();
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        c->s = s;
        c->nth = count(s, &s->accepted);
        count(s, &s->open);
        if (pthread_create(&t, &detached, conn_main, c) != 0)
            abort();
    }
    return NULL;
}

/* A port on loopback that is bound; with `backlog` it listens. */
static inline int bind_port(int backlog, int *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK_INT(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    CHECK_INT(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    if (backlog)
        CHECK_INT(listen(fd, backlog), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

/* It lives as long as the test. */
static inline server *start(void (*serve)(conn *c))
{
    static server s; /* static, so that no leak checker misses it */
    pthread_t t;

    CHECK(s.serve == NULL);
    s.serve = serve;
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.changed, NULL);
    s.listener = bind_port(1024, &s.port);
    CHECK_INT(pthread_create(&t, NULL, server_main, &s), 0);
    pthread_detach(t);
    return &s;
}

/* ---- the client's side ---- */

#define KEY "sekrit" /* in every URL and header: no error text may have it */

static inline char *url_of(const server *s)
{
    static char url[128];

    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1/jobs?token=" KEY, s->port);
    return url;
}

static inline mj_http *client(int connections)
{
    mj_http_options o = {.connections = connections, .timeout_ms = 5000};
    mj_http *h = mj_http_new(&o);

    CHECK(h != NULL);
    return h;
}

static inline mj_http_request post(const char *url, const char *body, bool once)
{
    static const char *const headers[] = {"Content-Type: application/json", "API-KEY: " KEY, NULL};

    return (mj_http_request){
        .url = url, .headers = headers, .body = body, .body_len = body ? strlen(body) : 0, .once = once};
}

static inline mj_http_answer ask(mj_http *h, mj_http_request r)
{
    mj_http_answer a;

    CHECK_INT(mj_http_perform(h, &r, 1, 0, &a), MJ_OK);
    if (a.outcome == MJ_HTTP_ANSWERED) {
        CHECK_STR(a.error, "");
        CHECK(a.status >= 200);
    } else {
        CHECK_INT(a.status, 0);
        CHECK(a.body == NULL && a.body_len == 0);
        CHECK_INT(a.retry_after, -1);
        CHECK(a.error[0] != '\0');
        CHECK(strstr(a.error, KEY) == NULL);
    }
    return a;
}

/* The outcome alone. */
static inline mj_http_outcome outcome(mj_http *h, mj_http_request r)
{
    mj_http_answer a = ask(h, r);

    fprintf(stderr, "outcome %d: %s\n", (int)a.outcome, a.error);
    mj_http_answer_clear(&a, 1);
    return a.outcome;
}

#endif
