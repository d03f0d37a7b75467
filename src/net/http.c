#include "base/error.h"
#include "base/fault.h"
#include "net/http_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DEFAULT_CONNECTIONS = 8,
    MAX_CONNECTIONS = 256,
    DEFAULT_CONNECT_MS = 10000,
    DEFAULT_TIMEOUT_MS = 30000,
    DEFAULT_ANSWER = 4 << 20,
    MAX_ANSWER = 1 << 30,
    POLL_MS = 1000 /* only a bound: curl_multi_poll also wakes for its own timers */
};

/* False: no memory; nothing changed. */
static bool make_multi(mj_http *h)
{
    CURLM *multi = mj_curl_multi(h->o.connections);
    CURLSH *session = mj_curl->share_init();

    if (!multi || !session ||
        mj_curl->share_setopt(session, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_OK) {
        mj_curl->multi_cleanup(multi);
        mj_curl->share_cleanup(session);
        return false;
    }
    h->multi = multi;
    h->session = session;
    h->pid = getpid();
    return true;
}

mj_http *mj_http_new(const mj_http_options *o)
{
    mj_http *h;

    h = mj_curl_ready() ? calloc(1, sizeof *h) : NULL;
    if (!h)
        return NULL;
    h->last = &h->first;
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
    if (h->o.max_answer > MAX_ANSWER)
        h->o.max_answer = MAX_ANSWER;
    h->user_agent = strdup(o->user_agent ? o->user_agent : "mjhook");
    h->ca_file = o->ca_file ? strdup(o->ca_file) : NULL;
    h->proxy = o->proxy ? strdup(o->proxy) : NULL;
    h->slots = calloc((size_t)h->o.connections, sizeof *h->slots);
    if (!h->user_agent || (o->ca_file && !h->ca_file) || (o->proxy && !h->proxy) || !h->slots || !make_multi(h)) {
        mj_http_free(h);
        return NULL;
    }
    return h;
}

/* ---- calls ---- */

static const char FORKED[] = "the process that sent it forked, and this one is the child";

/* In a child after fork() the connections are the parent's, and so are its calls: they end here, and go on there. */
static int be_at_home(mj_http *h)
{
    if (h->pid == getpid())
        return MJ_OK;
    if (!make_multi(h))
        return MJ_ENOMEM;
    for (int i = 0; i < h->o.connections; i++) {
        mj_http_call *c = h->slots[i].call;
        h->slots[i].call = NULL;
        if (c) {
            mj_http_failed(&c->answer, MJ_HTTP_MAYBE_SENT, c->req.url, FORKED);
            c->ended = true;
        }
    }
    while (h->first)
        mj_http_cut(h, h->first, FORKED);
    return MJ_OK;
}

int mj_http_start(mj_http *h, mj_http_call *c)
{
    int rc = be_at_home(h);

    c->answer = (mj_http_answer){.outcome = MJ_HTTP_NOT_SENT, .retry_after = -1};
    c->ended = false;
    c->next = NULL;
    if (rc == MJ_OK) {
        *h->last = c;
        h->last = &c->next;
    }
    return rc;
}

/* Takes a call out of those that wait.  False: it does not wait. */
static bool withdraw(mj_http *h, mj_http_call *c)
{
    mj_http_call **at = &h->first;

    while (*at && *at != c)
        at = &(*at)->next;
    if (!*at)
        return false;
    *at = c->next;
    if (!*at)
        h->last = at;
    return true;
}

static transfer *slot_of(mj_http *h, const mj_http_call *c) /* NULL: a free one */
{
    for (int i = 0; i < h->o.connections; i++)
        if (h->slots[i].call == c)
            return &h->slots[i];
    return NULL;
}

void mj_http_cut(mj_http *h, mj_http_call *c, const char *why)
{
    char text[128];

    if (c->ended)
        return;
    if (withdraw(h, c)) {
        snprintf(text, sizeof text, "%s before it was begun", why);
        mj_http_failed(&c->answer, MJ_HTTP_NOT_SENT, c->req.url, text);
        c->ended = true;
    } else {
        mj_http_finish(h, slot_of(h, c), CURLE_OK, why);
    }
}

/* Begins what waits, as far as there are free slots.  Gives how many calls have ended because they can't begin. */
static size_t begin(mj_http *h)
{
    size_t ended = 0;
    transfer *t;

    while (h->first && (t = slot_of(h, NULL)) != NULL) {
        mj_http_call *c = h->first;
        withdraw(h, c);
        ended += !mj_http_begin(h, t, c);
    }
    return ended;
}

static size_t collect(mj_http *h)
{
    size_t ended = 0;
    CURLcode result;
    transfer *t;

    for (; (t = mj_curl_ended(h->multi, &result)) != NULL; ended++)
        mj_http_finish(h, t, result, NULL);
    return ended;
}

/* A request that may not be begun any more does not wait for its connection. */
static size_t cut_late(mj_http *h)
{
    int64_t now = mj_http_clock();
    size_t ended = 0;

    for (int i = 0; i < h->o.connections; i++) {
        const transfer *t = &h->slots[i];
        if (t->call && !t->begun && t->req->start_by_ms && now > t->req->start_by_ms) {
            mj_http_cut(h, t->call, "no connection in time");
            ended++;
        }
    }
    return ended;
}

static void cut_all(mj_http *h, const char *why)
{
    for (int i = 0; i < h->o.connections; i++)
        if (h->slots[i].call)
            mj_http_cut(h, h->slots[i].call, why);
    while (h->first)
        mj_http_cut(h, h->first, why);
}

void mj_http_free(mj_http *h)
{
    if (!h)
        return;
    /* After a fork the sockets belong to the parent, too: a TLS shutdown from here would harm it. */
    if (h->pid == getpid()) {
        cut_all(h, "the client was closed");
        mj_curl->multi_cleanup(h->multi);
        mj_curl->share_cleanup(h->session);
    }
    free(h->slots);
    free(h->user_agent);
    free(h->ca_file);
    free(h->proxy);
    free(h);
}

void mj_http_wait(mj_http *h, int64_t until_ms)
{
    size_t ended = 0;
    int active;

    if (be_at_home(h) != MJ_OK)
        return;
    for (;;) {
        int64_t left = until_ms - mj_http_clock();
        CURLMcode rc;
        ended += begin(h);
        rc = mj_curl->multi_perform(h->multi, &active);
        ended += collect(h);
        ended += cut_late(h);
        if (rc == CURLM_OK && h->first && slot_of(h, NULL))
            continue; /* a connection became free */
        if (rc == CURLM_OK && ended == 0 && left > 0 && active > 0) {
            MJ_FAULT("http.wait"); /* first the connection is made, later the answer is awaited */
            rc = mj_curl->multi_poll(h->multi, NULL, 0, (int)(left < POLL_MS ? left : POLL_MS), NULL);
            if (rc == CURLM_OK && mj_http_clock() < until_ms)
                continue;
        }
        if (rc != CURLM_OK)
            cut_all(h, mj_curl->multi_strerror(rc));
        return;
    }
}

int mj_http_perform(mj_http *h, const mj_http_request *reqs, size_t n, int64_t deadline_ms, mj_http_answer *answers)
{
    mj_http_call *calls = calloc(n + 1, sizeof *calls);
    int rc = calls ? be_at_home(h) : MJ_ENOMEM;

    for (size_t i = 0; i < n; i++) {
        answers[i] = (mj_http_answer){.outcome = MJ_HTTP_NOT_SENT, .retry_after = -1};
        if (rc == MJ_OK) {
            calls[i].req = reqs[i];
            mj_http_start(h, &calls[i]);
        }
    }
    for (size_t i = 0; rc == MJ_OK && i < n; i++) {
        while (!calls[i].ended && !(deadline_ms && mj_http_clock() >= deadline_ms))
            mj_http_wait(h, deadline_ms ? deadline_ms : INT64_MAX);
        mj_http_cut(h, &calls[i], "out of time");
        answers[i] = calls[i].answer;
    }
    free(calls);
    return rc;
}

void mj_http_answer_clear(mj_http_answer *a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(a[i].body);
        free(a[i].details);
        a[i].body = NULL;
        a[i].body_len = 0;
        a[i].details = NULL;
    }
}
