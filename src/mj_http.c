#include "mj_http.h"

#include "mj_error.h"

#include <curl/curl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    DEFAULT_CONNECTIONS = 8,
    MAX_CONNECTIONS = 256,
    DEFAULT_CONNECT_MS = 10000,
    DEFAULT_TIMEOUT_MS = 30000,
    DEFAULT_ANSWER = 4 << 20,
    RETRY_AFTER_MAX = 86400,
    POLL_MS = 1000 /* curl_multi_poll wakes for its own timers, too; this is only a bound */
};

typedef struct transfer { /* one request under way */
    CURL *easy;
    const mj_http_request *req;
    mj_http_answer *answer;
    struct curl_slist *headers;
    size_t handed; /* bytes of the body that libcurl took from us: from the first on it may have been sent */
    bool again;    /* libcurl asked for the body a second time */
    bool stalled, too_long;
    size_t cap, max;
    int64_t started;
    char error[CURL_ERROR_SIZE];
} transfer;

struct mj_http {
    CURLM *multi;
    mj_http_options o;
    char *user_agent;
    pid_t pid;
    transfer *slots; /* o.connections of them; easy handles are kept between calls */
};

static pthread_once_t init_once = PTHREAD_ONCE_INIT;
static bool initialised;

static void init(void)
{
    initialised = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

int64_t mj_http_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool make_multi(mj_http *h)
{
    h->pid = getpid();
    h->multi = curl_multi_init();
    if (!h->multi)
        return false;
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)h->o.connections);
    curl_multi_setopt(h->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)h->o.connections);
    return true;
}

mj_http *mj_http_new(const mj_http_options *o)
{
    mj_http *h;

    pthread_once(&init_once, init);
    h = initialised ? calloc(1, sizeof *h) : NULL;
    if (!h)
        return NULL;
    h->o = *o;
    if (h->o.connections <= 0)
        h->o.connections = DEFAULT_CONNECTIONS;
    if (h->o.connections > MAX_CONNECTIONS)
        h->o.connections = MAX_CONNECTIONS;
    if (h->o.connect_timeout_ms <= 0)
        h->o.connect_timeout_ms = DEFAULT_CONNECT_MS;
    if (h->o.timeout_ms <= 0)
        h->o.timeout_ms = DEFAULT_TIMEOUT_MS;
    if (h->o.max_answer == 0)
        h->o.max_answer = DEFAULT_ANSWER;
    h->user_agent = strdup(o->user_agent ? o->user_agent : "mjhook");
    h->slots = calloc((size_t)h->o.connections, sizeof *h->slots);
    if (!h->user_agent || !h->slots || !make_multi(h)) {
        mj_http_free(h);
        return NULL;
    }
    return h;
}

void mj_http_free(mj_http *h)
{
    if (!h)
        return;
    /* After a fork the handles' sockets are the parent's, too: a TLS goodbye from here would harm it. */
    if (h->pid == getpid()) {
        for (int i = 0; h->slots && i < h->o.connections; i++)
            if (h->slots[i].easy)
                curl_easy_cleanup(h->slots[i].easy);
        if (h->multi)
            curl_multi_cleanup(h->multi);
    }
    free(h->slots);
    free(h->user_agent);
    free(h);
}

/* ---- what libcurl calls ---- */

static size_t give_body(char *to, size_t size, size_t n, void *arg)
{
    transfer *t = arg;
    size_t left = t->req->body_len - t->handed, room = size * n;

    if (left == 0) {
        /* A known length is never asked for twice, unless libcurl means to send it on another connection. */
        t->again = true;
        return CURL_READFUNC_ABORT;
    }
    if (t->handed == 0 && t->req->start_by_ms && mj_http_clock() > t->req->start_by_ms) {
        t->stalled = true;
        return CURL_READFUNC_ABORT;
    }
    if (room > left)
        room = left;
    memcpy(to, t->req->body + t->handed, room);
    t->handed += room;
    return room;
}

static size_t take_body(char *from, size_t size, size_t n, void *arg)
{
    transfer *t = arg;
    mj_http_answer *a = t->answer;
    size_t bytes = size * n;

    if (bytes > t->max - a->body_len) {
        t->too_long = true;
        return 0;
    }
    if (a->body_len + bytes + 1 > t->cap) {
        size_t cap = t->cap ? t->cap : 1024;
        char *p;
        while (cap < a->body_len + bytes + 1)
            cap *= 2;
        p = realloc(a->body, cap);
        if (!p)
            return 0;
        a->body = p;
        t->cap = cap;
    }
    memcpy(a->body + a->body_len, from, bytes);
    a->body_len += bytes;
    a->body[a->body_len] = '\0';
    return bytes;
}

/* ---- one transfer ---- */

static void failed(mj_http_answer *a, mj_http_outcome outcome, const char *why)
{
    free(a->body);
    *a = (mj_http_answer){.outcome = outcome, .retry_after = -1, .elapsed_ms = a->elapsed_ms};
    snprintf(a->error, sizeof a->error, "%.*s", (int)sizeof a->error - 1, why);
}

static bool add_header(transfer *t, const char *line)
{
    struct curl_slist *more = curl_slist_append(t->headers, line);

    if (more)
        t->headers = more;
    return more != NULL;
}

static bool set_body(transfer *t)
{
    const mj_http_request *r = t->req;
    CURL *e = t->easy;

    if (!r->body)
        return curl_easy_setopt(e, CURLOPT_HTTPGET, 1L) == CURLE_OK;
    /* Given as POSTFIELDS a body may be sent again by libcurl itself when a kept connection turns out to be dead.
     * A body from a read callback that can't seek can't. */
    if (curl_easy_setopt(e, CURLOPT_POST, 1L) != CURLE_OK ||
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len) != CURLE_OK)
        return false;
    if (!r->once || r->body_len == 0)
        return curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->body) == CURLE_OK;
    return curl_easy_setopt(e, CURLOPT_READFUNCTION, give_body) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_READDATA, t) == CURLE_OK;
}

static bool set_up(const mj_http *h, transfer *t)
{
    const mj_http_request *r = t->req;
    CURL *e = t->easy;
    bool ok = add_header(t, "Expect:");

    for (size_t i = 0; ok && r->headers && r->headers[i]; i++)
        ok = add_header(t, r->headers[i]);
    return ok && set_body(t) && curl_easy_setopt(e, CURLOPT_URL, r->url) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->headers) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PRIVATE, t) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->error) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take_body) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEDATA, t) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK && /* nor one from the environment */
           curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_USERAGENT, h->user_agent) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)h->o.connect_timeout_ms) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_TIMEOUT_MS,
                            (long)(r->timeout_ms > 0 ? r->timeout_ms : h->o.timeout_ms)) == CURLE_OK &&
           (!h->o.insecure || (curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L) == CURLE_OK &&
                               curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L) == CURLE_OK));
}

static void release(mj_http *h, transfer *t)
{
    curl_multi_remove_handle(h->multi, t->easy);
    curl_slist_free_all(t->headers);
    t->headers = NULL;
    t->req = NULL;
}

/* False: it could not be begun, and its answer says so. */
static bool begin(mj_http *h, transfer *t, const mj_http_request *r, mj_http_answer *a)
{
    CURL *e = t->easy ? t->easy : curl_easy_init();

    *t = (transfer){.easy = e, .req = r, .answer = a, .max = h->o.max_answer, .started = mj_http_clock()};
    *a = (mj_http_answer){.retry_after = -1};
    if (e) {
        curl_easy_reset(e); /* keeps connections, drops every option of the last request */
        if (set_up(h, t) && curl_multi_add_handle(h->multi, e) == CURLM_OK)
            return true;
        curl_slist_free_all(t->headers);
        t->headers = NULL;
    }
    t->req = NULL;
    failed(a, MJ_HTTP_NOT_SENT, "the request could not be made (bad URL or out of memory)");
    return false;
}

/* Whether the other side can have the request, when there is no complete answer. */
static mj_http_outcome maybe(const transfer *t)
{
    long request = 0;

    if (t->req->once && t->req->body_len > 0)
        return t->handed > 0 ? MJ_HTTP_MAYBE_SENT : MJ_HTTP_NOT_SENT;
    curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &request);
    return request > 0 ? MJ_HTTP_MAYBE_SENT : MJ_HTTP_NOT_SENT;
}

static void finish(mj_http *h, transfer *t, CURLcode result, const char *cut)
{
    mj_http_answer *a = t->answer;
    long status = 0;
    curl_off_t after = 0;

    a->elapsed_ms = mj_http_clock() - t->started;
    if (!cut && result == CURLE_OK) {
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &after);
        a->outcome = MJ_HTTP_ANSWERED;
        a->status = (int)status;
        if (after > 0)
            a->retry_after = after < RETRY_AFTER_MAX ? after : RETRY_AFTER_MAX;
    } else if (cut) {
        failed(a, maybe(t), cut);
    } else if (t->too_long) {
        failed(a, maybe(t), "the answer is longer than it may be");
    } else if (t->stalled) {
        failed(a, maybe(t), "the sender stalled for too long between intent and request, so it was not sent");
    } else if (t->again || result == CURLE_SEND_FAIL_REWIND) {
        failed(a, maybe(t), "the connection broke while the request was sent");
    } else {
        failed(a, maybe(t), t->error[0] ? t->error : curl_easy_strerror(result));
    }
    release(h, t);
}

/* ---- batches ---- */

static transfer *free_slot(mj_http *h)
{
    for (int i = 0; i < h->o.connections; i++)
        if (!h->slots[i].req)
            return &h->slots[i];
    return NULL;
}

static void collect(mj_http *h, size_t *running)
{
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(h->multi, &left)) != NULL) {
        transfer *t = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t);
        finish(h, t, m->data.result, NULL);
        --*running;
    }
}

static void cut_all(mj_http *h, const char *why)
{
    for (int i = 0; i < h->o.connections; i++)
        if (h->slots[i].req)
            finish(h, &h->slots[i], CURLE_OK, why);
}

int mj_http_perform(mj_http *h, const mj_http_request *reqs, size_t n, int64_t deadline_ms, mj_http_answer *answers)
{
    size_t next = 0, running = 0;
    transfer *t;
    int active;

    if (h->pid != getpid()) { /* a fork: the kept connections are the parent's */
        memset(h->slots, 0, (size_t)h->o.connections * sizeof *h->slots);
        if (!make_multi(h))
            return MJ_ENOMEM;
    }
    while (next < n || running > 0) {
        int64_t left = deadline_ms ? deadline_ms - mj_http_clock() : POLL_MS;
        if (left <= 0)
            break;
        while (next < n && (t = free_slot(h)) != NULL) {
            running += begin(h, t, &reqs[next], &answers[next]);
            next++;
        }
        if (curl_multi_perform(h->multi, &active) != CURLM_OK)
            break;
        collect(h, &running);
        if (running > 0 && (next == n || !free_slot(h)))
            curl_multi_poll(h->multi, NULL, 0, (int)(left < POLL_MS ? left : POLL_MS), NULL);
    }
    cut_all(h, "out of time");
    for (; next < n; next++) {
        answers[next] = (mj_http_answer){0};
        failed(&answers[next], MJ_HTTP_NOT_SENT, "out of time before it was begun");
    }
    return MJ_OK;
}

void mj_http_answer_clear(mj_http_answer *a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(a[i].body);
        a[i].body = NULL;
        a[i].body_len = 0;
    }
}
