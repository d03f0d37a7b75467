#include "base/error.h"
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
    MAX_ANSWER = 1 << 30
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
    if (h->user_agent && (!o->ca_file || h->ca_file) && (!o->proxy || h->proxy) && h->slots && mj_http_make_locks(h) &&
        make_multi(h))
        return h;
    mj_http_free(h);
    return NULL;
}

/* ---- calls ---- */

static const char FORKED[] = "the process that sent it forked, and this one is the child";

static void end_forked(mj_http_call *c, mj_http_outcome outcome)
{
    c->answer.body = NULL; /* the parent's thread may have been about to move it */
    mj_http_failed(&c->answer, outcome, c->req.url, FORKED);
    c->ended = true;
}

/* In a child after fork() the connections are the parent's, and so are its calls and its thread: calls end here, and go
 * on there. */
static int be_at_home(mj_http *h)
{
    if (h->pid == getpid())
        return MJ_OK;
    if (!mj_http_make_locks(h) || !make_multi(h))
        return MJ_ENOMEM;
    h->has_thread = h->driven = h->quit = false;
    for (int i = 0; i < h->o.connections; i++) {
        if (h->slots[i].call)
            end_forked(h->slots[i].call, MJ_HTTP_MAYBE_SENT);
        h->slots[i].call = NULL;
    }
    for (mj_http_call *c = h->first; c; c = c->next)
        if (!c->ended)
            end_forked(c, MJ_HTTP_NOT_SENT);
    h->first = NULL;
    h->last = &h->first;
    h->waiting = h->under_way = 0;
    h->flying = 0;
    return MJ_OK;
}

int mj_http_start(mj_http *h, mj_http_call *c)
{
    int rc = be_at_home(h);

    c->answer = (mj_http_answer){.outcome = MJ_HTTP_NOT_SENT, .retry_after = -1};
    c->ended = false;
    c->next = NULL;
    if (rc == MJ_OK)
        mj_http_append(h, c);
    return rc;
}

void mj_http_cut(mj_http *h, mj_http_call *c, const char *why)
{
    char text[128];

    if (c->ended || be_at_home(h) != MJ_OK)
        return;
    mj_http_come_home(h);
    snprintf(text, sizeof text, "%s before it was begun", why);
    if (c->ended || mj_http_end_waiting(h, c, text))
        return;
    for (int i = 0; i < h->o.connections; i++)
        if (h->slots[i].call == c)
            mj_http_end(h, &h->slots[i], CURLE_OK, why);
}

void mj_http_free(mj_http *h)
{
    if (!h)
        return;
    /* After a fork the sockets belong to the parent, too: a TLS shutdown from here would harm it. */
    if (h->pid == getpid()) {
        mj_http_come_home(h);
        mj_http_cut_all(h, "the client was closed");
        mj_curl->multi_cleanup(h->multi);
        mj_curl->share_cleanup(h->session);
    }
    free(h->slots);
    free(h->user_agent);
    free(h->ca_file);
    free(h->proxy);
    free(h);
}

void mj_http_withdraw(mj_http *h)
{
    if (be_at_home(h) == MJ_OK)
        mj_http_withdraw_all(h);
}

void mj_http_wait_for(mj_http *h, const mj_http_pause *p)
{
    if (be_at_home(h) != MJ_OK)
        return;
    mj_http_go_on(h, p);
    mj_http_drive(h);
}

void mj_http_wait(mj_http *h, int64_t until_ms)
{
    if (be_at_home(h) == MJ_OK)
        mj_http_go_on(h, &(mj_http_pause){.until_ms = until_ms, .low = SIZE_MAX});
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
            mj_http_go_on(h, &(mj_http_pause){.until_ms = deadline_ms ? deadline_ms : INT64_MAX, .low = SIZE_MAX});
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
