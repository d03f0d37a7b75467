#include "base/error.h"
#include "base/fault.h"
#include "net/http_impl.h"

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

void mj_http_free(mj_http *h)
{
    if (!h)
        return;
    /* After a fork the sockets belong to the parent, too: a TLS shutdown from here would harm it. */
    if (h->pid == getpid()) {
        mj_curl->multi_cleanup(h->multi);
        mj_curl->share_cleanup(h->session);
    }
    free(h->slots);
    free(h->user_agent);
    free(h->ca_file);
    free(h->proxy);
    free(h);
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
    CURLcode result;
    transfer *t;

    for (; (t = mj_curl_ended(h->multi, &result)) != NULL; --*running)
        mj_http_finish(h, t, result, NULL);
}

int mj_http_perform(mj_http *h, const mj_http_request *reqs, size_t n, int64_t deadline_ms, mj_http_answer *answers)
{
    const char *why = "out of time";
    size_t next = 0, running = 0;
    CURLMcode rc = CURLM_OK;
    transfer *t;
    int active;

    for (size_t i = 0; i < n; i++)
        answers[i] = (mj_http_answer){.outcome = MJ_HTTP_NOT_SENT, .retry_after = -1};
    if (h->pid != getpid()) { /* after a fork: the kept connections are the parent's */
        memset(h->slots, 0, (size_t)h->o.connections * sizeof *h->slots);
        if (!make_multi(h))
            return MJ_ENOMEM;
    }
    while (rc == CURLM_OK && (next < n || running > 0)) {
        int64_t left = deadline_ms ? deadline_ms - mj_http_clock() : POLL_MS;
        if (left <= 0)
            break;
        while (next < n && (t = free_slot(h)) != NULL) {
            running += mj_http_begin(h, t, &reqs[next], &answers[next]);
            next++;
        }
        rc = mj_curl->multi_perform(h->multi, &active);
        collect(h, &running);
        if (rc == CURLM_OK && running > 0 && (next == n || !free_slot(h))) {
            MJ_FAULT("http.wait"); /* first the connection is made, later the answer is awaited */
            rc = mj_curl->multi_poll(h->multi, NULL, 0, (int)(left < POLL_MS ? left : POLL_MS), NULL);
        }
    }
    if (rc != CURLM_OK)
        why = mj_curl->multi_strerror(rc);
    for (int i = 0; i < h->o.connections; i++)
        if (h->slots[i].req)
            mj_http_finish(h, &h->slots[i], CURLE_OK, why);
    for (; next < n; next++)
        mj_http_failed(&answers[next], MJ_HTTP_NOT_SENT, reqs[next].url,
                       rc == CURLM_OK ? "out of time before it was begun" : why);
    return MJ_OK;
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
