#include "base/address.h"
#include "base/fault.h"
#include "download/checks.h"
#include "download/impl.h"
#include "os/libc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void mj_fetch_release(mj_fetch *f, item *t)
{
    if (t->easy && f->pid == getpid()) {
        mj_curl->multi_remove_handle(f->multi, t->easy);
        mj_curl->easy_cleanup(t->easy);
    }
    mj_curl->slist_free_all(t->headers);
    t->easy = NULL;
    t->headers = NULL;
}

/* ---- verdicts ---- */

void mj_fetch_verdict(item *t, mj_fetch_outcome outcome, const char *why)
{
    mj_fetch_result *r = &t->result;

    t->over = true;
    r->outcome = outcome;
    if (t->host[0])
        snprintf(r->error, sizeof r->error, "%s: %.110s", t->host, why);
    else
        snprintf(r->error, sizeof r->error, "%.190s", why);
    mj_curl_printable(r->error);
}

static void disk_verdict(item *t)
{
    char why[100];

    mj_fetch_verdict(t, MJ_FETCH_DISK, mj_strerror(errno, why, sizeof why));
}

/* ---- what libcurl calls ---- */

/* Judges each address before it is connected to.  libcurl then tries the next one of the name. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    item *t = arg;
    mj_addr a;

    (void)purpose;
    if (!mj_addr_of(&to->addr, to->addrlen, &a) ||
        !((t->open && mj_addr_public(&a)) || (t->f->o.loopback && mj_addr_loopback(&a)))) {
        t->forbidden++;
        return CURL_SOCKET_BAD;
    }
    t->allowed++;
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* A header of the answer that appears once; NULL. */
static const char *header(const item *t, const char *name)
{
    struct curl_header *h;

    if (mj_curl->easy_header(t->easy, name, 0, CURLH_HEADER, -1, &h) != CURLHE_OK || h->amount != 1)
        return NULL;
    return h->value;
}

static bool begin_fresh(item *t)
{
    t->at = t->total = 0;
    t->nhead = 0;
    if (ftruncate(t->req.fd, 0) != 0 || lseek(t->req.fd, 0, SEEK_SET) != 0 ||
        (t->req.fresh && !t->req.fresh(t->req.arg, header(t, "ETag")))) {
        disk_verdict(t);
        return false;
    }
    return true;
}

static bool judge_rest(item *t)
{
    const char *etag = header(t, "ETag");
    ssize_t n;

    /* With If-Range, a 206 may omit the type. */
    if (!etag || strcmp(etag, t->etag) != 0 || !mj_fetch_is_rest(header(t, "Content-Range"), t->req.have, &t->total) ||
        (header(t, "Content-Type") && !mj_image_named(header(t, "Content-Type")))) {
        t->again = true;
        return false;
    }
    if (t->total > t->f->o.max_bytes) {
        mj_fetch_verdict(t, MJ_FETCH_SIZE, "larger than allowed");
        return false;
    }
    n = pread(t->req.fd, t->head, sizeof t->head, 0);
    if (n != (ssize_t)sizeof t->head || lseek(t->req.fd, t->req.have, SEEK_SET) != t->req.have) {
        disk_verdict(t);
        return false;
    }
    t->nhead = sizeof t->head;
    t->at = t->req.have;
    return true;
}

/* Judges the header, when the body begins or there is none.  False: stop. */
static bool judge(item *t)
{
    long status = 0;
    curl_off_t length = -1;
    char why[60];

    mj_curl->easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    mj_curl->easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    t->result.status = (int)status;
    if (status == 206 && t->etag)
        return judge_rest(t);
    if (status == 416 && t->etag) {
        t->again = true;
        return false;
    }
    if (status != 200) {
        const char *after = header(t, "Retry-After");
        int64_t seconds = after ? mj_curl_retry_after(after, strlen(after)) : -1;
        t->result.retry_after = seconds > 0 ? seconds : -1;
        snprintf(why, sizeof why,
                 status >= 300 && status <= 399 ? "answered %ld, and redirects are not followed" : "answered %ld",
                 status);
        mj_fetch_verdict(t, MJ_FETCH_STATUS, why);
        return false;
    }
    if (!mj_image_named(header(t, "Content-Type"))) {
        snprintf(why, sizeof why, "not an image by its type, \"%.30s\"",
                 header(t, "Content-Type") ? header(t, "Content-Type") : "");
        mj_fetch_verdict(t, MJ_FETCH_TYPE, why);
        return false;
    }
    if (length > t->f->o.max_bytes) {
        mj_fetch_verdict(t, MJ_FETCH_SIZE, "larger than allowed");
        return false;
    }
    /* For such an answer libcurl takes a cut connection for its end, also within TLS. */
    if (length < 0 && !t->framing.chunked) {
        mj_fetch_verdict(t, MJ_FETCH_NET, "an answer without a length can't be known to be complete");
        return false;
    }
    return begin_fresh(t);
}

static void framing_verdict(item *t)
{
    mj_fetch_verdict(t, t->framing.packed ? MJ_FETCH_TYPE : MJ_FETCH_NET, t->framing.fault);
}

static size_t take_header(char *line, size_t size, size_t n, void *arg)
{
    item *t = arg;
    size_t bytes = size * n;
    long status = 0;

    if (!mj_framing_line(&t->framing, line, bytes)) {
        framing_verdict(t);
        return CURL_WRITEFUNC_ERROR;
    }
    if (bytes > 0 && (line[0] == '\r' || line[0] == '\n')) {
        mj_curl->easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        if (status < 200)
            mj_framing_again(&t->framing);
    }
    return bytes;
}

static bool judge_once(item *t)
{
    if (t->over || t->again)
        return false;
    if (!t->judged)
        t->judged = judge(t);
    return t->judged;
}

/* True while it may still become an image. */
static bool sniff(item *t, const char *p, size_t n)
{
    if (t->nhead < sizeof t->head) {
        size_t room = sizeof t->head - t->nhead;
        memcpy(t->head + t->nhead, p, n < room ? n : room);
        t->nhead += n < room ? n : room;
    }
    if (t->nhead == sizeof t->head && mj_image_of(t->head, t->nhead) == MJ_IMAGE_NONE) {
        mj_fetch_verdict(t, MJ_FETCH_TYPE, "not an image by its first bytes");
        return false;
    }
    return true;
}

/* False, with a result: stop. */
static bool put(item *t, mj_str piece)
{
    if ((int64_t)piece.n > t->f->o.max_bytes - t->at) {
        mj_fetch_verdict(t, MJ_FETCH_SIZE, "larger than allowed");
        return false;
    }
    if (!sniff(t, piece.p, piece.n))
        return false;
    while (piece.n > 0) {
        ssize_t w = write(t->req.fd, piece.p, piece.n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0) {
            disk_verdict(t);
            return false;
        }
        piece.p += w;
        piece.n -= (uint32_t)w;
        t->at += w;
        t->result.received += w;
    }
    MJ_FAULT("fetch.written");
    return true;
}

static size_t take_body(char *from, size_t size, size_t n, void *arg)
{
    item *t = arg;
    mj_str in = {from, (uint32_t)(size * n)}, piece; /* at most the buffer's size */

    if (!judge_once(t))
        return CURL_WRITEFUNC_ERROR;
    while (mj_framing_body(&t->framing, &in, &piece))
        if (!put(t, piece))
            return CURL_WRITEFUNC_ERROR;
    if (!t->framing.fault)
        return size * n;
    framing_verdict(t);
    return CURL_WRITEFUNC_ERROR;
}

/* ---- one download ---- */

static bool add_header(item *t, const char *name, const char *value)
{
    char line[600];
    int n = snprintf(line, sizeof line, "%s: %s", name, value);

    return n > 0 && (size_t)n < sizeof line && mj_curl_header(&t->headers, line);
}

static bool set_range(item *t)
{
    char range[40];

    if (!t->etag)
        return true;
    snprintf(range, sizeof range, "bytes=%lld-", (long long)t->req.have);
    return add_header(t, "Range", range) && add_header(t, "If-Range", t->etag);
}

static bool set_up(mj_fetch *f, item *t)
{
    bool ok = add_header(t, "Accept", "image/png, image/jpeg, image/webp, image/gif") &&
              add_header(t, "Accept-Encoding", "identity") && set_range(t);
    CURL *e = t->easy = !ok ? NULL
                            : mj_curl_new(&(mj_curl_setup){
                                  .parsed = t->url,
                                  .ca_file = f->ca_file,
                                  .user_agent = "mjhook",
                                  .headers = t->headers,
                                  .header = take_header,
                                  .body = take_body,
                                  .arg = t,
                                  .error = t->error,
                                  .connect_ms = f->o.connect_timeout_ms,
                              });

    if (!e)
        return false;
    MJ_CURL_SET(OPENSOCKETFUNCTION, open_socket);
    MJ_CURL_SET(OPENSOCKETDATA, t);
    MJ_CURL_SET(BUFFERSIZE, 65536L);
    return ok;
}

void mj_fetch_begin(mj_fetch *f, item *t)
{
    t->judged = t->again = false;
    t->forbidden = t->allowed = 0;
    t->result.status = 0;
    t->framing = (mj_framing){0};
    t->error[0] = '\0';
    if (set_up(f, t) && mj_curl->multi_add_handle(f->multi, t->easy) == CURLM_OK) {
        t->step = RUNNING;
        f->running++;
        return;
    }
    mj_fetch_verdict(t, MJ_FETCH_NET, "out of memory");
    mj_fetch_release(f, t);
    t->step = ENDED;
}

static void net_verdict(item *t, CURLcode rc)
{
    if (t->forbidden && !t->allowed)
        mj_fetch_verdict(t, MJ_FETCH_ADDRESS, "no public address: not connected to");
    else
        mj_fetch_verdict(t, MJ_FETCH_NET, t->error[0] ? t->error : mj_curl->easy_strerror(rc));
}

/* The body is complete, as far as libcurl knows its length. */
static void complete(item *t)
{
    mj_image kind = mj_image_of(t->head, t->nhead);

    if ((t->total && t->at != t->total) || (t->framing.chunked && !mj_framing_done(&t->framing))) {
        mj_fetch_verdict(t, MJ_FETCH_NET, "the answer broke off");
    } else if (t->at == 0) {
        mj_fetch_verdict(t, MJ_FETCH_NET, "an empty answer");
    } else if (kind == MJ_IMAGE_NONE) {
        mj_fetch_verdict(t, MJ_FETCH_TYPE, "not an image by its first bytes");
    } else {
        t->over = true;
        t->result.outcome = MJ_FETCH_DONE;
        t->result.kind = kind;
    }
}

void mj_fetch_finish(mj_fetch *f, item *t, CURLcode rc)
{
    if (rc == CURLE_OK && judge_once(t))
        complete(t);
    else if (!t->over && !t->again)
        net_verdict(t, rc);
    mj_fetch_release(f, t);
    f->running--;
    if (t->again) { /* only once, since the ETag is gone then */
        free(t->etag);
        t->etag = NULL;
        t->step = WAITING;
        return;
    }
    t->step = ENDED;
}

void mj_fetch_end(mj_fetch *f, item *t, mj_fetch_outcome outcome, const char *why)
{
    if (!t->over)
        mj_fetch_verdict(t, outcome, why);
    mj_fetch_release(f, t);
    t->step = ENDED;
}
