#include "mj_http.h"

#include "mj_curl.h"
#include "mj_error.h"
#include "mj_fault.h"
#include "mj_framing.h"
#include "mj_gunzip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum {
    DEFAULT_CONNECTIONS = 8,
    MAX_CONNECTIONS = 256,
    DEFAULT_CONNECT_MS = 10000,
    DEFAULT_TIMEOUT_MS = 30000,
    DEFAULT_ANSWER = 4 << 20,
    MAX_ANSWER = 1 << 30,
    POLL_MS = 1000, /* curl_multi_poll wakes for its own timers, too; this is only a bound */
    /* Servers close idle connections after some seconds (node: 5), and a body that crosses the closing is "maybe
     * sent". A new handshake costs less than such a doubt. */
    ONCE_IDLE_S = 3
};

typedef struct transfer { /* one request under way */
    CURL *easy;
    const mj_http_request *req;
    mj_http_answer *answer;
    struct curl_slist *headers;
    bool counts;    /* it must not be sent twice, and has a body that tells what was sent */
    size_t handed;  /* bytes of the body that libcurl took from us: from the first on it may have been sent */
    bool again;     /* libcurl wanted to send it a second time */
    bool begun;     /* the connection stands, with the tunnel through a proxy */
    size_t steps;   /* on the way to that */
    bool head_done; /* the header of the answer, not of a "100 Continue", is complete */
    mj_framing framing;
    bool stalled, too_long, no_memory;
    size_t cap, max;
    int64_t started;
    char error[CURL_ERROR_SIZE];
} transfer;

struct mj_http {
    CURLM *multi;    /* has the connections */
    CURLSH *session; /* the TLS sessions, so that the next connection to a server needs no whole handshake */
    mj_http_options o;
    char *user_agent, *ca_file, *proxy;
    pid_t pid;
    transfer *slots; /* o.connections of them */
};

int64_t mj_http_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* False: no memory, and nothing changed. */
static bool make_multi(mj_http *h)
{
    CURLM *multi = curl_multi_init();
    CURLSH *session = curl_share_init();

    if (!multi || !session || curl_share_setopt(session, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_OK) {
        curl_multi_cleanup(multi);
        curl_share_cleanup(session);
        return false;
    }
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)h->o.connections);
    curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)h->o.connections);
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
    /* After a fork the handles' sockets are the parent's, too: a TLS goodbye from here would harm it. */
    if (h->pid == getpid()) {
        curl_multi_cleanup(h->multi);
        curl_share_cleanup(h->session);
    }
    free(h->slots);
    free(h->user_agent);
    free(h->ca_file);
    free(h->proxy);
    free(h);
}

/* ---- what libcurl calls ---- */

/* A sender that was stopped, or whose machine slept, finds its time gone. */
static bool stalled(transfer *t)
{
    t->stalled = t->handed == 0 && t->req->start_by_ms && mj_http_clock() > t->req->start_by_ms;
    return t->stalled;
}

/* On each connection, when it stands and before the header is sent. libcurl sends again what a kept connection
 * swallowed; without this it would, when nothing of a body we handed over was written, even go on in its middle. */
static int may_begin(void *arg, char *to_ip, char *from_ip, int to_port, int from_port)
{
    transfer *t = arg;

    (void)to_ip, (void)from_ip, (void)to_port, (void)from_port;
    MJ_FAULT("http.connected");
    t->begun = true;
    mj_framing_again(&t->framing); /* a proxy's answer is not the server's */
    t->again = t->handed > 0;
    return t->again || stalled(t) ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

/* libcurl 7.88 reads a proxy's answer byte by byte, and looks at no clock before it has all of it: the body, too, which
 * it throws away.  It calls this with each byte. */
static int may_go_on(void *arg, curl_off_t download, curl_off_t downloaded, curl_off_t upload, curl_off_t uploaded)
{
    transfer *t = arg;

    (void)download, (void)downloaded, (void)upload, (void)uploaded;
    if (t->begun || ++t->steps <= MJ_FRAMING_MAX)
        return 0;
    t->framing.fault = "the proxy's answer has no end";
    return 1;
}

static size_t give_body(char *to, size_t size, size_t n, void *arg)
{
    transfer *t = arg;
    size_t left = t->req->body_len - t->handed, room = size * n;

    MJ_FAULT("http.body");
    t->again = left == 0; /* a known length is asked for once, unless it is to be sent again */
    if (t->again || stalled(t))
        return CURL_READFUNC_ABORT;
    if (room > left)
        room = left;
    memcpy(to, t->req->body + t->handed, room);
    t->handed += room;
    MJ_FAULT("http.handed");
    return room;
}

static size_t take_header(char *line, size_t size, size_t n, void *arg)
{
    static const char after[] = "Retry-After:", mitigated[] = "cf-mitigated:"; /* Cloudflare's, of a challenge */
    transfer *t = arg;
    size_t bytes = size * n;
    long status = 0;

    if (!mj_framing_line(&t->framing, line, bytes))
        return CURL_WRITEFUNC_ERROR;
    if (!t->begun || t->head_done) /* what is behind the body belongs to nothing */
        return bytes;
    if (bytes > 0 && (line[0] == '\r' || line[0] == '\n')) {
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        t->head_done = status >= 200 && status <= 999; /* libcurl takes "HTTP/2 2407" */
        MJ_FAULT("http.head");
        if (status == 204 || status == 304) /* have no body, whatever they say of it (RFC 9112, 6.3) */
            t->framing.chunked = false;
        if (!t->head_done) {
            t->answer->retry_after = -1;
            t->answer->blocked = false;
            mj_framing_again(&t->framing);
        }
    } else if (bytes >= sizeof mitigated && strncasecmp(line, mitigated, sizeof mitigated - 1) == 0) {
        t->answer->blocked = true;
    } else if (bytes >= sizeof after && strncasecmp(line, after, sizeof after - 1) == 0) {
        t->answer->retry_after = mj_curl_retry_after(line + sizeof after - 1, bytes - (sizeof after - 1));
    }
    return bytes;
}

static bool keep(transfer *t, mj_str piece)
{
    mj_http_answer *a = t->answer;

    t->too_long = piece.n > t->max - a->body_len;
    if (t->too_long)
        return false;
    if (a->body_len + piece.n + 1 > t->cap) {
        size_t cap = t->cap ? t->cap : 1024;
        char *p;
        while (cap < a->body_len + piece.n + 1)
            cap *= 2;
        p = realloc(a->body, cap);
        t->no_memory = !p;
        if (!p)
            return false;
        a->body = p;
        t->cap = cap;
    }
    memcpy(a->body + a->body_len, piece.p, piece.n);
    a->body_len += piece.n;
    a->body[a->body_len] = '\0';
    return true;
}

static size_t take_body(char *from, size_t size, size_t n, void *arg)
{
    transfer *t = arg;
    mj_str in = {from, (uint32_t)(size * n)}, piece; /* at most CURL_MAX_WRITE_SIZE */

    MJ_FAULT("http.answer");
    while (mj_framing_body(&t->framing, &in, &piece))
        if (!keep(t, piece))
            return CURL_WRITEFUNC_ERROR;
    return t->framing.fault ? CURL_WRITEFUNC_ERROR : size * n;
}

/* ---- one transfer ---- */

/* "host:port: why". libcurl's reasons may name the host, never more of the URL. */
static void failed(mj_http_answer *a, mj_http_outcome outcome, const char *url, const char *why)
{
    CURLU *u = curl_url();
    char *host = NULL, *port = NULL;

    free(a->body);
    *a = (mj_http_answer){.outcome = outcome, .retry_after = -1, .elapsed_ms = a->elapsed_ms};
    if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK && !strstr(why, host))
        snprintf(a->error, sizeof a->error, "%.60s:%s: %.90s", host, port, why);
    else
        snprintf(a->error, sizeof a->error, "%.*s", (int)sizeof a->error - 1, why);
    mj_curl_printable(a->error);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
}

/* False also for a line that is two: what is behind the break would be a header of somebody's choice. */
static bool add_header(transfer *t, const char *line)
{
    struct curl_slist *more = strpbrk(line, "\r\n") ? NULL : curl_slist_append(t->headers, line);

    if (more)
        t->headers = more;
    return more != NULL;
}

static bool set_body(transfer *t)
{
    const mj_http_request *r = t->req;
    CURL *e = t->easy;

    /* Without a body nothing counts what was sent: on a connection of its own libcurl does not send it again. */
    if (r->once && !t->counts && curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK)
        return false;
    if (!r->body)
        return curl_easy_setopt(e, CURLOPT_HTTPGET, 1L) == CURLE_OK;
    if (curl_easy_setopt(e, CURLOPT_POST, 1L) != CURLE_OK ||
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len) != CURLE_OK)
        return false;
    if (!t->counts)
        return curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->body) == CURLE_OK;
    /* Given as POSTFIELDS a body may be sent again by libcurl itself when a kept connection turns out to be dead.
     * A body from a read callback that can't seek can't. */
    return curl_easy_setopt(e, CURLOPT_READFUNCTION, give_body) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_READDATA, t) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)ONCE_IDLE_S) == CURLE_OK;
}

/* What is for the server, the API key among it, is not for the proxy, and the proxy's password not for the server. */
static bool set_proxy(const mj_http *h, transfer *t)
{
    CURL *e = t->easy;

    return curl_easy_setopt(e, CURLOPT_PROXY, h->proxy) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, may_go_on) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_XFERINFODATA, t) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PROXY_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
           (!h->ca_file || (curl_easy_setopt(e, CURLOPT_PROXY_CAINFO, h->ca_file) == CURLE_OK &&
                            curl_easy_setopt(e, CURLOPT_PROXY_CAPATH, NULL) == CURLE_OK));
}

static bool set_up(const mj_http *h, transfer *t)
{
    const mj_http_request *r = t->req;
    CURL *e = t->easy;
    bool ok = add_header(t, "Expect:");

    for (size_t i = 0; ok && r->headers && r->headers[i]; i++)
        ok = add_header(t, r->headers[i]);
    if (!ok || !set_body(t))
        return false;
    ok = curl_easy_setopt(e, CURLOPT_URL, r->url) == CURLE_OK;
#define SET(option, value) ok = curl_easy_setopt(e, CURLOPT_##option, value) == CURLE_OK && ok
    SET(HTTPHEADER, t->headers);
    SET(SHARE, h->session);
    SET(PRIVATE, t);
    SET(ERRORBUFFER, t->error);
    SET(PREREQFUNCTION, may_begin);
    SET(PREREQDATA, t);
    SET(HEADERFUNCTION, take_header);
    SET(HEADERDATA, t);
    SET(WRITEFUNCTION, take_body);
    SET(WRITEDATA, t);
    SET(USERAGENT, h->user_agent);
    SET(PROTOCOLS_STR, "http,https");
    SET(TCP_KEEPALIVE, 1L);
    SET(CONNECTTIMEOUT_MS, (long)h->o.connect_timeout_ms);
    SET(TIMEOUT_MS, (long)(r->timeout_ms > 0 ? r->timeout_ms : h->o.timeout_ms));
    if (r->details)
        SET(CERTINFO, 1L);
#undef SET
    return ok && (!h->proxy || set_proxy(h, t));
}

static void release(mj_http *h, transfer *t)
{
    curl_multi_remove_handle(h->multi, t->easy);
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    t->req = NULL;
}

/* False: it could not be begun, and its answer says so. */
static bool begin(mj_http *h, transfer *t, const mj_http_request *r, mj_http_answer *a)
{
    MJ_FAULT("http.begin");
    *t = (transfer){.easy = mj_curl_new(h->ca_file, h->o.insecure),
                    .req = r,
                    .answer = a,
                    .max = h->o.max_answer,
                    .started = mj_http_clock(),
                    .counts = r->once && r->body && r->body_len > 0};
    *a = (mj_http_answer){.retry_after = -1};
    if (t->easy && set_up(h, t) && curl_multi_add_handle(h->multi, t->easy) == CURLM_OK)
        return true;
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    t->req = NULL;
    failed(a, MJ_HTTP_NOT_SENT, r->url, "the request could not be made (bad header or out of memory)");
    return false;
}

/* Whether the other side can have the request, when there is no complete answer. */
static mj_http_outcome maybe(const transfer *t)
{
    long request = 0;

    if (t->counts)
        return t->handed > 0 ? MJ_HTTP_MAYBE_SENT : MJ_HTTP_NOT_SENT;
    curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &request);
    return request > 0 ? MJ_HTTP_MAYBE_SENT : MJ_HTTP_NOT_SENT;
}

/* Whether all of the answer is there, whatever became of the request: a server may answer before it has read all. */
static bool whole(const transfer *t)
{
    curl_off_t length = -1;

    if (!t->head_done || t->framing.fault)
        return false;
    if (t->framing.chunked)
        return mj_framing_done(&t->framing);
    curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    return length >= 0 && (uint64_t)length == t->answer->body_len;
}

static const char *reason(const transfer *t, CURLcode result)
{
    if (t->too_long)
        return "the answer is longer than it may be";
    if (t->no_memory)
        return "no memory for the answer";
    if (t->framing.fault)
        return t->framing.fault;
    if (t->stalled)
        return "not sent: too long after it was meant to be";
    if (t->again || result == CURLE_SEND_FAIL_REWIND)
        return "the connection broke while the request was sent";
    if (result == CURLE_OK)
        return "the answer broke off";
    if (result == CURLE_OUT_OF_MEMORY) /* libcurl calls it so when a line is longer than 100 KB */
        return "a line of the header has no end, or there is no memory";
    return t->error[0] ? t->error : curl_easy_strerror(result);
}

/* ---- details, for who asks for them ---- */

static const char *failure(CURLcode result, const char *cut)
{
    switch (cut ? CURLE_OPERATION_TIMEDOUT : result) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return "dns";
    case CURLE_COULDNT_CONNECT:
        return "connect";
    case CURLE_PEER_FAILED_VERIFICATION:
        return "certificate";
    case CURLE_SSL_CACERT_BADFILE:
        return "authorities";
    case CURLE_SSL_CONNECT_ERROR:
        return "tls";
    case CURLE_OPERATION_TIMEDOUT:
        return "timeout";
    default:
        return "other";
    }
}

/* libcurl's texts about a certificate are "Name:value". */
static void add_certificate(mj_http_details *d, CURL *e)
{
    struct curl_certinfo *chain = NULL;

    if (curl_easy_getinfo(e, CURLINFO_CERTINFO, &chain) != CURLE_OK || !chain || chain->num_of_certs < 1)
        return;
    d->certs = chain->num_of_certs;
    for (const struct curl_slist *l = chain->certinfo[0]; l; l = l->next) {
        if (strncmp(l->data, "Issuer:", 7) == 0) {
            snprintf(d->issuer, sizeof d->issuer, "%s", l->data + 7);
        } else if (strncmp(l->data, "Expire date:", 12) == 0) {
            time_t at = curl_getdate(l->data + 12, NULL);
            d->cert_expires = at > 0 ? (int64_t)at : 0;
        }
    }
}

static void add_details(const transfer *t, CURLcode result, const char *cut)
{
    mj_http_details *d = t->req->details ? calloc(1, sizeof *d) : NULL;
    struct curl_header *date;
    curl_off_t total = 0;
    char *text = NULL;

    t->answer->details = d;
    if (!d)
        return;
    if (t->answer->outcome != MJ_HTTP_ANSWERED)
        d->failure = failure(result, cut);
    if (curl_easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &total) == CURLE_OK)
        d->total_us = total;
    if (curl_easy_getinfo(t->easy, CURLINFO_PRIMARY_IP, &text) == CURLE_OK && text)
        snprintf(d->ip, sizeof d->ip, "%s", text);
    if (curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &text) == CURLE_OK && text)
        snprintf(d->location, sizeof d->location, "%.*s", (int)strcspn(text, "?#"), text);
    if (curl_easy_header(t->easy, "Date", 0, CURLH_HEADER, -1, &date) == CURLHE_OK) {
        time_t at = curl_getdate(date->value, NULL);
        d->date = at > 0 ? (int64_t)at : 0;
    }
    add_certificate(d, t->easy);
}

const char *mj_http_library(void)
{
    return curl_version();
}

/* Takes off a compression that nobody asked for.  A damaged body stays as it came, for its reader to say so.  False: it
 * becomes too long, or there is no memory. */
static bool unpack(transfer *t)
{
    mj_http_answer *a = t->answer;
    mj_buf out = {0};
    mj_str plain;
    int rc = mj_gunzip((mj_str){a->body, (uint32_t)a->body_len}, (uint32_t)t->max, &out, &plain);

    if (rc == MJ_OK && out.p) {
        mj_put_u8(&out, 0);
        if (!out.failed) {
            free(a->body);
            a->body = (char *)out.p;
            a->body_len = out.n - 1;
            return true;
        }
        rc = MJ_ENOMEM;
    }
    mj_buf_free(&out);
    t->too_long = rc == MJ_ELIMIT;
    t->no_memory = rc == MJ_ENOMEM;
    return !t->too_long && !t->no_memory;
}

/* `cut`: why it ends before libcurl is done with it. */
static void finish(mj_http *h, transfer *t, CURLcode result, const char *cut)
{
    mj_http_answer *a = t->answer;
    long status = 0;

    MJ_FAULT("http.ended");
    a->elapsed_ms = mj_http_clock() - t->started;
    /* A header that broke off is no error to libcurl, nor is it for each version that chunks did. */
    if (((!cut && result == CURLE_OK && t->head_done && !t->framing.chunked) || whole(t)) && unpack(t)) {
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        a->outcome = MJ_HTTP_ANSWERED;
        a->status = (int)status;
    } else {
        failed(a, maybe(t), t->req->url, cut ? cut : reason(t, result));
        a->too_long = t->too_long;
        a->cut = !cut && t->head_done && !t->too_long &&
                 (result == CURLE_PARTIAL_FILE || result == CURLE_RECV_ERROR || t->framing.fault);
    }
    add_details(t, result, cut);
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

int mj_http_perform(mj_http *h, const mj_http_request *reqs, size_t n, int64_t deadline_ms, mj_http_answer *answers)
{
    const char *why = "out of time";
    size_t next = 0, running = 0;
    CURLMcode rc = CURLM_OK;
    transfer *t;
    int active;

    for (size_t i = 0; i < n; i++)
        answers[i] = (mj_http_answer){.outcome = MJ_HTTP_NOT_SENT, .retry_after = -1};
    if (h->pid != getpid()) { /* a fork: the kept connections are the parent's */
        memset(h->slots, 0, (size_t)h->o.connections * sizeof *h->slots);
        if (!make_multi(h))
            return MJ_ENOMEM;
    }
    while (rc == CURLM_OK && (next < n || running > 0)) {
        int64_t left = deadline_ms ? deadline_ms - mj_http_clock() : POLL_MS;
        if (left <= 0)
            break;
        while (next < n && (t = free_slot(h)) != NULL) {
            running += begin(h, t, &reqs[next], &answers[next]);
            next++;
        }
        rc = curl_multi_perform(h->multi, &active);
        collect(h, &running);
        if (rc == CURLM_OK && running > 0 && (next == n || !free_slot(h))) {
            MJ_FAULT("http.wait"); /* the first time the connection is made, later the answer is awaited */
            rc = curl_multi_poll(h->multi, NULL, 0, (int)(left < POLL_MS ? left : POLL_MS), NULL);
        }
    }
    if (rc != CURLM_OK)
        why = curl_multi_strerror(rc);
    for (int i = 0; i < h->o.connections; i++)
        if (h->slots[i].req)
            finish(h, &h->slots[i], CURLE_OK, why);
    for (; next < n; next++)
        failed(&answers[next], MJ_HTTP_NOT_SENT, reqs[next].url,
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
