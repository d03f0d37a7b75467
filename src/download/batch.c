#include "base/error.h"
#include "download/impl.h"
#include "net/http.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* After a fork the sockets belong to the parent, too: a TLS shutdown from here would harm it. */
static bool forked(const mj_fetch *f)
{
    return f->pid != getpid();
}

enum {
    DEFAULT_CONNECTIONS = 4,
    MAX_CONNECTIONS = 64,
    DEFAULT_CONNECT_MS = 10000,
    POLL_MS = 1000 /* a bound only */
};

static bool copy_list(struct curl_slist **to, const char *const *from)
{
    for (; from && *from; from++) {
        struct curl_slist *more = mj_curl->slist_append(*to, *from);
        if (!more)
            return false;
        *to = more;
    }
    return true;
}

mj_fetch *mj_fetch_new(const mj_fetch_options *o)
{
    mj_fetch *f;

    f = mj_curl_ready() ? calloc(1, sizeof *f) : NULL;
    if (!f)
        return NULL;
    f->o = *o;
    if (f->o.connections <= 0)
        f->o.connections = DEFAULT_CONNECTIONS;
    if (f->o.connections > MAX_CONNECTIONS)
        f->o.connections = MAX_CONNECTIONS;
    if (f->o.connect_timeout_ms <= 0)
        f->o.connect_timeout_ms = DEFAULT_CONNECT_MS;
    f->pid = getpid();
    f->listed = o->hosts != NULL;
    f->ca_file = o->ca_file ? strdup(o->ca_file) : NULL;
    f->multi = mj_curl_multi(f->o.connections);
    if (!f->multi || (o->ca_file && !f->ca_file) || !copy_list(&f->hosts, o->hosts)) {
        mj_fetch_free(f);
        return NULL;
    }
    return f;
}

void mj_fetch_free(mj_fetch *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n; i++) {
        mj_fetch_release(f, f->items[i]);
        mj_curl->url_cleanup(f->items[i]->url);
        free(f->items[i]->etag);
        free(f->items[i]);
    }
    free(f->items);
    if (f->multi && !forked(f))
        mj_curl->multi_cleanup(f->multi);
    mj_curl->slist_free_all(f->hosts);
    free(f->ca_file);
    free(f);
}

int mj_fetch_add(mj_fetch *f, const mj_fetch_request *r, size_t *index)
{
    item **more = realloc(f->items, (f->n + 1) * sizeof(item *)), *t;

    if (!more)
        return MJ_ENOMEM;
    f->items = more;
    t = calloc(1, sizeof *t);
    if (!t)
        return MJ_ENOMEM;
    t->f = f;
    t->req = *r;
    t->req.url = t->req.etag = NULL; /* the caller's: may be gone later */
    t->url = mj_curl->url();
    t->result.retry_after = -1;
    t->at = r->have;
    /* Ask for the last byte again: a range after a complete file is empty, which is an error. */
    t->req.have = r->have - 1;
    if (t->req.have >= MJ_IMAGE_HEAD && r->etag)
        t->etag = strdup(r->etag);
    if (!t->url) {
        free(t->etag);
        free(t);
        return MJ_ENOMEM;
    }
    if (!mj_fetch_url(t, r->url))
        t->step = ENDED;
    *index = f->n;
    f->items[f->n++] = t;
    return MJ_OK;
}

static void end_all(mj_fetch *f, mj_fetch_outcome outcome, const char *why)
{
    for (size_t i = 0; i < f->n; i++) {
        item *t = f->items[i];
        if (t->step == RUNNING)
            f->running--;
        if (t->step == RUNNING || t->step == WAITING)
            mj_fetch_end(f, t, outcome, why);
    }
}

static bool give(mj_fetch *f, size_t *index, mj_fetch_result *out)
{
    for (size_t i = 0; i < f->n; i++) {
        item *t = f->items[i];
        if (t->step == ENDED) {
            t->step = GIVEN;
            t->result.bytes = t->at;
            *out = t->result;
            *index = i;
            return true;
        }
    }
    return false;
}

static void start_waiting(mj_fetch *f)
{
    for (size_t i = 0; i < f->n && f->running < (size_t)f->o.connections; i++)
        if (f->items[i]->step == WAITING)
            mj_fetch_begin(f, f->items[i]);
}

/* True when something ended. */
static bool collect(mj_fetch *f)
{
    CURLcode result;
    bool any = false;
    item *t;

    for (; (t = mj_curl_ended(f->multi, &result)) != NULL; any = true)
        mj_fetch_finish(f, t, result);
    return any;
}

int mj_fetch_next(mj_fetch *f, int64_t deadline_ms, size_t *index, mj_fetch_result *out)
{
    CURLMcode rc;
    int64_t now, left;
    int n;

    while (!give(f, index, out)) {
        if (forked(f))
            end_all(f, MJ_FETCH_NET, "the connection belongs to the process that this one was forked from");
        start_waiting(f);
        if (f->running == 0)
            return give(f, index, out) ? MJ_OK : MJ_ENOTFOUND;
        now = mj_http_clock();
        if (now >= deadline_ms) {
            end_all(f, MJ_FETCH_TIME, "not finished in time");
            continue;
        }
        left = deadline_ms - now;
        rc = mj_curl->multi_perform(f->multi, &n);
        if (!collect(f) && rc == CURLM_OK)
            rc = mj_curl->multi_poll(f->multi, NULL, 0, (int)(left < POLL_MS ? left : POLL_MS), NULL);
        if (rc != CURLM_OK)
            end_all(f, MJ_FETCH_NET, mj_curl->multi_strerror(rc));
    }
    return MJ_OK;
}
