#include "net/stream.h"

#include "base/error.h"
#include "net/curl.h"
#include "net/http.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POLL_MS = 1000 }; /* only a bound: TLS may have work that the socket does not show */

struct mj_stream {
    CURL *easy;
    curl_socket_t fd;
    pid_t pid;
    char where[80]; /* "host:port" */
    char why[MJ_STREAM_WHY];
    char error[CURL_ERROR_SIZE]; /* libcurl writes here as long as easy lives */
};

static void because(mj_stream *s, const char *what)
{
    snprintf(s->why, sizeof s->why, "%s: %.110s", s->where, what);
    mj_curl_printable(s->why);
}

static int broke(mj_stream *s, CURLcode rc)
{
    because(s, s->error[0] ? s->error : mj_curl->easy_strerror(rc));
    return MJ_EIO;
}

/* The scheme only says whether there is TLS: HTTP is never spoken.  NULL: no possible host, or no memory; otherwise
 * free it with curl_free. */
static char *url_of(const mj_stream_target *t)
{
    CURLU *u = mj_curl->url();
    char host[300], port[16], *url = NULL;

    snprintf(host, sizeof host, strchr(t->host, ':') ? "[%s]" : "%s", t->host);
    snprintf(port, sizeof port, "%d", t->port);
    if (!u || mj_curl->url_set(u, CURLUPART_SCHEME, t->tls ? "https" : "http", 0) != CURLUE_OK ||
        mj_curl->url_set(u, CURLUPART_HOST, host, 0) != CURLUE_OK ||
        mj_curl->url_set(u, CURLUPART_PORT, port, 0) != CURLUE_OK ||
        mj_curl->url_get(u, CURLUPART_URL, &url, 0) != CURLUE_OK)
        url = NULL;
    mj_curl->url_cleanup(u);
    return url;
}

static bool set_up(mj_stream *s, const mj_stream_target *t, const char *url, long left_ms)
{
    CURL *e = s->easy = mj_curl_new(&(mj_curl_setup){
        .url = url, .ca_file = t->ca_file, .error = s->error, .connect_ms = left_ms, .timeout_ms = left_ms});
    bool ok = e != NULL;

    if (!ok)
        return false;
    MJ_CURL_SET(CONNECT_ONLY, 1L);
    MJ_CURL_SET(SSL_ENABLE_ALPN, 0L); /* ALPN would offer HTTP */
    if (t->cert_file)
        MJ_CURL_SET(SSLCERT, t->cert_file);
    if (t->key_file)
        MJ_CURL_SET(SSLKEY, t->key_file);
    return ok;
}

static int connect_to(mj_stream *s, const mj_stream_target *t, const char *url, int64_t deadline_ms)
{
    int64_t left = deadline_ms - mj_http_clock();
    CURLcode rc;

    if (left <= 0) {
        because(s, "out of time before it was connected to");
        return MJ_EIO;
    }
    if (left > 1 << 30) /* long may have 32 bits */
        left = 1 << 30;
    if (!set_up(s, t, url, (long)left)) {
        because(s, "out of memory");
        return MJ_ENOMEM;
    }
    rc = mj_curl->easy_perform(s->easy);
    if (rc == CURLE_OK)
        rc = mj_curl->easy_getinfo(s->easy, CURLINFO_ACTIVESOCKET, &s->fd);
    if (rc == CURLE_OK && s->fd == CURL_SOCKET_BAD)
        rc = CURLE_COULDNT_CONNECT;
    return rc == CURLE_OK ? MJ_OK : broke(s, rc);
}

int mj_stream_open(const mj_stream_target *t, int64_t deadline_ms, mj_stream **out, char why[MJ_STREAM_WHY])
{
    char *url = NULL;
    mj_stream *s;
    int rc;

    *out = NULL;
    s = mj_curl_ready() ? calloc(1, sizeof *s) : NULL;
    if (!s) {
        snprintf(why, MJ_STREAM_WHY, "out of memory");
        return MJ_ENOMEM;
    }
    s->fd = CURL_SOCKET_BAD;
    s->pid = getpid();
    snprintf(s->where, sizeof s->where, "%.60s:%d", t->host, t->port);
    if (t->port > 0 && t->port <= 65535 && t->host[0] && strlen(t->host) < 256)
        url = url_of(t);
    if (url) {
        rc = connect_to(s, t, url, deadline_ms);
    } else {
        because(s, "not a host and a port to connect to");
        rc = MJ_EINVAL;
    }
    snprintf(why, MJ_STREAM_WHY, "%s", s->why);
    if (rc == MJ_OK)
        *out = s;
    else
        mj_stream_close(s);
    mj_curl->free(url);
    return rc;
}

/* False: the time is up. */
static bool wait_for(const mj_stream *s, short events, int64_t deadline_ms)
{
    struct pollfd p = {.fd = s->fd, .events = events};
    int64_t left = deadline_ms - mj_http_clock();

    if (left <= 0)
        return false;
    poll(&p, 1, (int)(left < POLL_MS ? left : POLL_MS)); /* its result does not matter: libcurl is asked again */
    return true;
}

static int not_ours(mj_stream *s)
{
    because(s, "the connection belongs to the process that this one was forked from");
    return MJ_ECLOSED;
}

int mj_stream_send(mj_stream *s, const void *data, size_t n, int64_t deadline_ms)
{
    const char *p = data;

    if (s->pid != getpid())
        return not_ours(s);
    while (n > 0) {
        size_t sent = 0;
        CURLcode rc = mj_curl->easy_send(s->easy, p, n, &sent);
        if (rc == CURLE_OK) {
            p += sent;
            n -= sent;
        } else if (rc != CURLE_AGAIN) {
            return broke(s, rc);
        }
        /* Check the time also after a success: a peer could take one byte at a time for ever. */
        if (n > 0 && (sent > 0 ? mj_http_clock() >= deadline_ms : !wait_for(s, POLLOUT, deadline_ms))) {
            because(s, "out of time while it was sent to");
            return MJ_EIO;
        }
    }
    return MJ_OK;
}

int mj_stream_recv(mj_stream *s, void *data, size_t cap, int64_t deadline_ms, size_t *got)
{
    CURLcode rc;

    *got = 0;
    if (s->pid != getpid())
        return not_ours(s);
    do {
        rc = mj_curl->easy_recv(s->easy, data, cap, got);
        if (rc == CURLE_OK && *got == 0) {
            because(s, "the other side closed the connection");
            return MJ_ECLOSED;
        }
        if (rc == CURLE_OK)
            return MJ_OK;
        *got = 0;
        if (rc != CURLE_AGAIN)
            return broke(s, rc);
    } while (wait_for(s, POLLIN, deadline_ms));
    return MJ_OK;
}

const char *mj_stream_why(const mj_stream *s)
{
    return s->why;
}

void mj_stream_close(mj_stream *s)
{
    if (!s)
        return;
    if (s->pid == getpid())
        mj_curl->easy_cleanup(s->easy);
    else if (s->fd != CURL_SOCKET_BAD)
        close(s->fd); /* without TLS shutdown: that would end the parent's conversation */
    free(s);
}
