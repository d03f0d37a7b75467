#include "base/error.h"
#include "base/fault.h"
#include "base/gunzip.h"
#include "net/http_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* Servers close idle connections after some seconds (node: 5), and a body sent at that moment is "maybe sent".  A new
 * handshake costs less than such a doubt. */
enum { ONCE_IDLE_S = 3 };

/* A server that closes a kept connection under a submission, as one does that closes after each answer without a word
 * of it, does so again: for so long each submission has a connection of its own. */
enum { DISTRUST_MS = 600000 };

/* libcurl takes 64 KiB for each upload by default, which malloc gives back to the system each time. */
enum { SMALL_BODY = 16 << 10 };

/* ---- what libcurl calls ---- */

int64_t mj_http_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A sender that was stopped, or whose machine slept, is too late. */
static bool stalled(transfer *t)
{
    t->stalled = t->handed == 0 && t->req->start_by_ms && mj_http_clock() > t->req->start_by_ms;
    return t->stalled;
}

/* Called on each connection, when it is made and before the header is sent.  libcurl sends a request again that a kept
 * connection swallowed; without this check it would even continue in the middle, when none of our body was written. */
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

/* libcurl 7.88 reads a proxy's answer byte by byte, including a body that it discards, and checks no time until it has
 * all of it.  It calls this for each byte. */
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
    t->again = left == 0; /* a body of known length is read once, unless it is to be sent again */
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
    static const char after[] = "Retry-After:", mitigated[] = "cf-mitigated:"; /* Cloudflare's, on a challenge */
    transfer *t = arg;
    size_t bytes = size * n;
    long status = 0;

    if (!mj_framing_line(&t->framing, line, bytes))
        return CURL_WRITEFUNC_ERROR;
    if (!t->begun || t->head_done) /* bytes after the body belong to nothing */
        return bytes;
    if (bytes > 0 && (line[0] == '\r' || line[0] == '\n')) {
        mj_curl->easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        t->head_done = status >= 200 && status <= 999; /* libcurl accepts "HTTP/2 2407" */
        MJ_FAULT("http.head");
        if (status == 204 || status == 304) /* these have no body, whatever the header says (RFC 9112, 6.3) */
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

/* "host:port: why".  libcurl's reasons may name the host, but no more of the URL. */
void mj_http_failed(mj_http_answer *a, mj_http_outcome outcome, const char *url, const char *why)
{
    CURLU *u = mj_curl->url();
    char *host = NULL, *port = NULL;

    free(a->body);
    *a = (mj_http_answer){.outcome = outcome, .retry_after = -1, .elapsed_ms = a->elapsed_ms};
    if (u && mj_curl->url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
        mj_curl->url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        mj_curl->url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK && !strstr(why, host))
        snprintf(a->error, sizeof a->error, "%.60s:%s: %.90s", host, port, why);
    else
        snprintf(a->error, sizeof a->error, "%.*s", (int)sizeof a->error - 1, why);
    mj_curl_printable(a->error);
    mj_curl->free(host);
    mj_curl->free(port);
    mj_curl->url_cleanup(u);
}

static bool set_body(const mj_http *h, transfer *t)
{
    const mj_http_request *r = t->req;
    CURL *e = t->easy;
    bool ok = true;

    /* Without a body nothing counts what was sent; on a new connection libcurl does not send it again. */
    if (r->once && (!t->counts || mj_http_clock() < h->distrust_until))
        MJ_CURL_SET(FRESH_CONNECT, 1L);
    if (!r->body) {
        MJ_CURL_SET(HTTPGET, 1L);
        return ok;
    }
    MJ_CURL_SET(POST, 1L);
    MJ_CURL_SET(POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len);
    if (!t->counts) {
        MJ_CURL_SET(POSTFIELDS, r->body);
        return ok;
    }
    /* libcurl itself may send a POSTFIELDS body again when a kept connection turns out to be dead.  It can't do so
     * with a read callback that can't seek. */
    MJ_CURL_SET(READFUNCTION, give_body);
    if (r->body_len <= SMALL_BODY)
        MJ_CURL_SET(UPLOAD_BUFFERSIZE, (long)SMALL_BODY);
    MJ_CURL_SET(READDATA, t);
    MJ_CURL_SET(MAXAGE_CONN, (long)ONCE_IDLE_S);
    return ok;
}

/* Headers for the server, among them the API key, do not go to the proxy, nor the proxy's password to the server. */
static bool set_proxy(const mj_http *h, transfer *t)
{
    CURL *e = t->easy;
    bool ok = true;

    MJ_CURL_SET(PROXY, h->proxy);
    MJ_CURL_SET(XFERINFOFUNCTION, may_go_on);
    MJ_CURL_SET(XFERINFODATA, t);
    MJ_CURL_SET(NOPROGRESS, 0L);
    MJ_CURL_SET(HEADEROPT, (long)CURLHEADER_SEPARATE);
    MJ_CURL_SET(PROXY_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (h->ca_file) {
        MJ_CURL_SET(PROXY_CAINFO, h->ca_file);
        MJ_CURL_SET(PROXY_CAPATH, NULL);
    }
    return ok;
}

static bool set_up(const mj_http *h, transfer *t)
{
    const mj_http_request *r = t->req;
    bool ok = mj_curl_header(&t->headers, "Expect:");
    CURL *e;

    for (size_t i = 0; ok && r->headers && r->headers[i]; i++)
        ok = mj_curl_header(&t->headers, r->headers[i]);
    e = t->easy = !ok ? NULL
                      : mj_curl_new(&(mj_curl_setup){
                            .url = r->url,
                            .ca_file = r->ca_file ? r->ca_file : h->ca_file,
                            .insecure = h->o.insecure,
                            .user_agent = h->user_agent,
                            .headers = t->headers,
                            .header = take_header,
                            .body = take_body,
                            .arg = t,
                            .error = t->error,
                            .connect_ms = h->o.connect_timeout_ms,
                            .timeout_ms = r->timeout_ms > 0 ? r->timeout_ms : h->o.timeout_ms,
                        });
    if (!e || !set_body(h, t))
        return false;
    MJ_CURL_SET(SHARE, h->session);
    MJ_CURL_SET(PREREQFUNCTION, may_begin);
    MJ_CURL_SET(PREREQDATA, t);
    if (r->details)
        MJ_CURL_SET(CERTINFO, 1L);
    return ok && (!h->proxy || set_proxy(h, t));
}

static void release(transfer *t)
{
    mj_curl->easy_cleanup(t->easy);
    mj_curl->slist_free_all(t->headers);
    t->call = NULL;
}

bool mj_http_begin(mj_http *h, transfer *t, mj_http_call *c)
{
    const mj_http_request *r = &c->req;

    MJ_FAULT("http.begin");
    *t = (transfer){.call = c,
                    .req = r,
                    .answer = &c->answer,
                    .max = h->o.max_answer,
                    .started = mj_http_clock(),
                    .counts = r->once && r->body && r->body_len > 0};
    if (set_up(h, t) && mj_curl->multi_add_handle(h->multi, t->easy) == CURLM_OK)
        return true;
    mj_http_failed(&c->answer, MJ_HTTP_NOT_SENT, r->url, "the request could not be made (bad header or out of memory)");
    release(t);
    return false;
}

/* Whether the server can have the request, when there is no complete answer. */
static mj_http_outcome maybe(const transfer *t)
{
    long request = 0;

    if (t->counts)
        return t->handed > 0 ? MJ_HTTP_MAYBE_SENT : MJ_HTTP_NOT_SENT;
    mj_curl->easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &request);
    return request > 0 ? MJ_HTTP_MAYBE_SENT : MJ_HTTP_NOT_SENT;
}

/* Whether the answer is complete, also when the request was not: a server may answer before it has read everything. */
static bool whole(const transfer *t)
{
    curl_off_t length = -1;

    if (!t->head_done || t->framing.fault)
        return false;
    if (t->framing.chunked)
        return mj_framing_done(&t->framing);
    mj_curl->easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
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
    if (result == CURLE_OUT_OF_MEMORY) /* libcurl's code for a line longer than 100 KB, too */
        return "a line of the header has no end, or there is no memory";
    return t->error[0] ? t->error : mj_curl->easy_strerror(result);
}

/* Removes an unrequested compression.  A damaged body stays as it came; its reader reports it.  False: it becomes too
 * long, or there is no memory. */
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

/* Whether the server closed a kept connection under the request.  libcurl sends again only what such a one swallowed.
 */
static bool closed_under(const transfer *t, CURLcode result)
{
    long made = 1;

    mj_curl->easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &made);
    return t->again || result == CURLE_SEND_FAIL_REWIND ||
           (made == 0 && (result == CURLE_SEND_ERROR || result == CURLE_RECV_ERROR || result == CURLE_GOT_NOTHING));
}

void mj_http_finish(mj_http *h, transfer *t, CURLcode result, const char *cut)
{
    mj_http_answer *a = t->answer;
    long status = 0;

    MJ_FAULT("http.ended");
    a->elapsed_ms = mj_http_clock() - t->started;
    /* libcurl reports no error for a header that breaks off, and not in each version for chunks that do. */
    if (((!cut && result == CURLE_OK && t->head_done && !t->framing.chunked) || whole(t)) && unpack(t)) {
        mj_curl->easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        a->outcome = MJ_HTTP_ANSWERED;
        a->status = (int)status;
    } else {
        if (!cut && !t->head_done && closed_under(t, result))
            h->distrust_until = mj_http_clock() + DISTRUST_MS;
        mj_http_failed(a, maybe(t), t->req->url, cut ? cut : reason(t, result));
        a->too_long = t->too_long;
        a->cut = !cut && t->head_done && !t->too_long &&
                 (result == CURLE_PARTIAL_FILE || result == CURLE_RECV_ERROR || t->framing.fault);
    }
    mj_http_add_details(t, result, cut);
    mj_curl->multi_remove_handle(h->multi, t->easy);
    release(t);
}
