/* Mutations of HTTP answers, byte for byte over a socket, to everything that talks to a server: requests (mj_http),
 * downloads (mj_fetch, by TLS) and streams (mj_stream, with TLS and without).  Clients live on from case to case, as
 * theirs do.  What holds whatever a server says: nothing crashes, reads or writes beyond its end or leaks (so run it
 * with the sanitizers), outcomes are possible ones, limits hold, and a request is over at its time.
 *
 *   http_fuzz [SECONDS [SEED [CASE]]]      that one case alone, when it is named */
#include "base/error.h"
#include "download/transfer.h"
#include "fuzz.h"
#include "net/http.h"
#include "net/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

enum { MAX_SEEDS = 64, MAX_ANSWER = 50000, TIMEOUT_MS = 40, KEPT = 1000, IMAGES = 5 /* the last seeds are of those */ };

/* ---- the server: says the case's bytes to every request ---- */

enum { CLOSES, RESETS, WAITS }; /* what it does behind an answer */

static SSL_CTX *tls;
static char ca_file[] = "/tmp/mjhook-fuzz-XXXXXX";
static int plain_port, tls_port;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for the case at hand, when it changes, and for `nopen` */
static pthread_cond_t closed = PTHREAD_COND_INITIALIZER;
static unsigned nopen; /* connections whose thread has something of its own */

typedef struct conn {
    int fd;
    SSL *ssl;
} conn;

static int get(conn *c, void *p, int n)
{
    return c->ssl ? SSL_read(c->ssl, p, n) : (int)recv(c->fd, p, (size_t)n, 0);
}

static bool say(conn *c, const uint8_t *p, size_t n)
{
    while (n > 0) {
        int w = c->ssl ? SSL_write(c->ssl, p, (int)n) : (int)send(c->fd, p, n, MSG_NOSIGNAL);
        if (w <= 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

/* A header and the body that it announces. */
static bool read_request(conn *c)
{
    char text[4096];
    const char *end = NULL, *length;
    int n = 0, got;

    do {
        got = get(c, text + n, (int)sizeof text - 1 - n);
        if (got <= 0)
            return false;
        n += got;
        text[n] = '\0';
        end = strstr(text, "\r\n\r\n");
        length = strstr(text, "Content-Length: ");
    } while (!end || (length && end + 4 + atoi(length + 16) > text + n));
    return true;
}

static void serve(conn *c)
{
    static const struct linger none = {1, 0};
    uint8_t *answer = malloc(FUZZ_BYTES);
    int then = WAITS;

    MUST(answer != NULL);
    while (then == WAITS && read_request(c)) {
        size_t n, at = 0, piece;
        rng r;
        pthread_mutex_lock(&lock);
        r = (rng){now->number * 2 + 1};
        n = now->n;
        memcpy(answer, now->bytes, n);
        pthread_mutex_unlock(&lock);
        then = chance(&r, 8) ? WAITS : chance(&r, 20) ? RESETS : CLOSES;
        for (; at < n; at += piece) {
            piece = chance(&r, 70) ? n - at : 1 + below(&r, 1 + (uint32_t)(n - at) / 2);
            piece = piece < n - at ? piece : n - at;
            if (!say(c, answer + at, piece))
                break;
        }
        if (at < n)
            then = CLOSES;
    }
    free(answer);
    if (then == RESETS)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    else if (c->ssl)
        SSL_shutdown(c->ssl);
}

static void *conn_main(void *arg)
{
    conn *c = arg;

    if (!c->ssl || (SSL_set_fd(c->ssl, c->fd) == 1 && SSL_accept(c->ssl) == 1))
        serve(c);
    SSL_free(c->ssl);
    ERR_clear_error();
    OPENSSL_thread_stop();
    close(c->fd);
    free(c);
    pthread_mutex_lock(&lock);
    nopen--;
    pthread_cond_signal(&closed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Until every connection is over, since the clients are gone: what their threads hold at the end is no leak. */
static void wait_for_server(void)
{
    pthread_mutex_lock(&lock);
    while (nopen > 0)
        pthread_cond_wait(&closed, &lock);
    pthread_mutex_unlock(&lock);
}

static void *server_main(void *arg)
{
    const int *listener = arg;
    pthread_attr_t detached;

    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 256 << 10);
    for (;;) {
        conn *c = calloc(1, sizeof *c);
        pthread_t t;
        MUST(c && (c->fd = accept4(listener[0], NULL, NULL, SOCK_CLOEXEC)) >= 0);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        if (listener[1])
            MUST((c->ssl = SSL_new(tls)) != NULL);
        pthread_mutex_lock(&lock);
        nopen++;
        pthread_mutex_unlock(&lock);
        MUST(pthread_create(&t, &detached, conn_main, c) == 0);
    }
    return NULL;
}

static int start_server(bool with_tls)
{
    static int listeners[2][2];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int *l = listeners[with_tls];
    socklen_t n = sizeof a;
    pthread_t t;

    l[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    l[1] = with_tls;
    MUST(l[0] >= 0 && bind(l[0], (struct sockaddr *)&a, sizeof a) == 0 && listen(l[0], 256) == 0);
    MUST(getsockname(l[0], (struct sockaddr *)&a, &n) == 0);
    MUST(pthread_create(&t, NULL, server_main, l) == 0);
    pthread_detach(t);
    return ntohs(a.sin_port);
}

/* A certificate for "localhost" that vouches for itself. */
static void start_tls(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:localhost");
    X509_NAME *name;
    int fd = mkstemp(ca_file);
    FILE *file;

    MUST(key && cert && names && fd >= 0 && (file = fdopen(fd, "w")) != NULL);
    name = X509_get_subject_name(cert);
    MUST(X509_set_version(cert, X509_VERSION_3) && ASN1_INTEGER_set(X509_get_serialNumber(cert), 1));
    MUST(X509_gmtime_adj(X509_getm_notBefore(cert), -3600) && X509_gmtime_adj(X509_getm_notAfter(cert), 86400));
    MUST(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0));
    MUST(X509_set_issuer_name(cert, name) && X509_set_pubkey(cert, key) && X509_add_ext(cert, names, -1));
    MUST(X509_sign(cert, key, EVP_sha256()) && PEM_write_X509(file, cert) && fclose(file) == 0);
    tls = SSL_CTX_new(TLS_server_method());
    MUST(tls && SSL_CTX_use_certificate(tls, cert) == 1 && SSL_CTX_use_PrivateKey(tls, key) == 1);
    X509_EXTENSION_free(names);
    X509_free(cert);
    EVP_PKEY_free(key);
}

/* ---- clients, and what holds for what they make of an answer: whether they took it ---- */

static mj_http *client, *proxied;

static void must_be_line(const char *s)
{
    for (; *s; s++)
        MUST((unsigned char)*s >= ' ' && *s != 0x7f);
}

static bool request(bool once)
{
    static const char *const headers[] = {"Content-Type: application/json", "API-KEY: sekrit", NULL};
    char url[64];
    mj_http_request r = {.url = url, .headers = headers, .body = "{}", .body_len = 2, .once = once, .details = once};
    mj_http_answer a;
    int64_t begun = mj_http_clock();
    bool answered;

    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1?token=sekrit", plain_port);
    MUST(mj_http_perform(client, &r, 1, 0, &a) == MJ_OK);
    MUST(mj_http_clock() - begun < 5000);
    answered = a.outcome == MJ_HTTP_ANSWERED;
    MUST(answered || a.outcome == MJ_HTTP_MAYBE_SENT || a.outcome == MJ_HTTP_NOT_SENT);
    MUST(a.retry_after >= -1 && a.retry_after <= 86400);
    MUST(!strstr(a.error, "sekrit"));
    must_be_line(a.error);
    if (answered) {
        MUST(a.status >= 200 && a.status <= 999 && !a.error[0]);
        MUST(a.body ? a.body_len <= MAX_ANSWER && a.body[a.body_len] == '\0' : a.body_len == 0);
    } else {
        MUST(a.status == 0 && !a.body && a.body_len == 0 && a.retry_after == -1 && a.error[0]);
    }
    if (a.details) {
        MUST(memchr(a.details->location, 0, sizeof a.details->location) && !strpbrk(a.details->location, "?#"));
        MUST(answered == !a.details->failure);
    }
    mj_http_answer_clear(&a, 1);
    return answered;
}

static bool request_once(void)
{
    return request(true);
}

static bool request_again(void)
{
    return request(false);
}

/* The case's bytes are a proxy's answer to CONNECT: whatever they are, the server behind it gets nothing. */
static bool tunnel(void)
{
    mj_http_request r = {.url = "https://a.invalid/v1?token=sekrit", .body = "{}", .body_len = 2, .once = true};
    int64_t begun = mj_http_clock();
    mj_http_answer a;

    MUST(mj_http_perform(proxied, &r, 1, 0, &a) == MJ_OK);
    MUST(mj_http_clock() - begun < 5000);
    MUST(a.outcome == MJ_HTTP_NOT_SENT && a.error[0] && !strstr(a.error, "sekrit"));
    must_be_line(a.error);
    mj_http_answer_clear(&a, 1);
    return strstr(a.error, "tunnel") == NULL;
}

#define PNG "\x89PNG\r\n\x1a\n"
#define ETAG "\"e1\""

static bool fresh(void *arg, const char *etag)
{
    (void)etag;
    ++*(int *)arg;
    return true;
}

static bool download(bool rest)
{
    char url[64];
    mj_fetch_options o = {.connections = 1, .max_bytes = MAX_ANSWER, .ca_file = ca_file, .loopback = true};
    char content[KEPT] = PNG;
    FILE *file = tmpfile();
    int begun = 0, given = 0;
    mj_fetch_result result;
    size_t index;
    bool done = false;
    mj_fetch_request r = {.url = url, .fresh = fresh, .arg = &begun};
    mj_fetch *f;

    snprintf(url, sizeof url, "https://localhost:%d/a.png", tls_port);
    f = mj_fetch_new(&o);
    MUST(f && file);
    r.fd = fileno(file);
    if (rest) {
        MUST(write(r.fd, content, sizeof content) == (ssize_t)sizeof content);
        r.have = sizeof content;
        r.etag = ETAG;
    }
    MUST(mj_fetch_add(f, &r, &index) == MJ_OK);
    while (mj_fetch_next(f, mj_http_clock() + 4 * TIMEOUT_MS, &index, &result) == MJ_OK) {
        done = result.outcome == MJ_FETCH_DONE;
        MUST(index == 0 && ++given == 1);
        MUST(result.outcome <= MJ_FETCH_DISK && done == (result.kind != MJ_IMAGE_NONE) && done == !result.error[0]);
        MUST(result.bytes >= 0 && result.bytes <= MAX_ANSWER && result.received <= 2 * MAX_ANSWER);
        MUST(result.retry_after >= -1 && result.retry_after <= 86400);
        MUST(lseek(r.fd, 0, SEEK_END) == (done ? result.bytes : lseek(r.fd, 0, SEEK_END)));
        must_be_line(result.error);
    }
    MUST(given == 1 && begun <= 2);
    mj_fetch_free(f);
    fclose(file);
    return done;
}

static bool download_all(void)
{
    return download(false);
}

static bool download_rest(void)
{
    return download(true);
}

static bool stream(bool with_tls)
{
    mj_stream_target t = {
        .host = "localhost", .port = with_tls ? tls_port : plain_port, .tls = with_tls, .ca_file = ca_file};
    char why[MJ_STREAM_WHY];
    uint8_t got[4096];
    int64_t by = mj_http_clock() + 4 * TIMEOUT_MS;
    size_t n, all = 0;
    mj_stream *s;
    int rc;

    if (mj_stream_open(&t, by + 1000, &s, why) != MJ_OK)
        return false; /* no thread for it in time */
    rc = mj_stream_send(s, "GET\r\n\r\n", 7, by);
    while (rc == MJ_OK && (rc = mj_stream_recv(s, got, sizeof got, by, &n)) == MJ_OK && n > 0) {
        MUST(n <= sizeof got && all + n <= now->n && memcmp(now->bytes + all, got, n) == 0);
        all += n;
    }
    MUST(rc == MJ_OK || rc == MJ_ECLOSED || rc == MJ_EIO);
    must_be_line(mj_stream_why(s));
    mj_stream_close(s);
    return all == now->n;
}

static bool stream_plain(void)
{
    return stream(false);
}

static bool stream_tls(void)
{
    return stream(true);
}

static const struct target {
    const char *name;
    bool (*run)(void);
    uint32_t share; /* of cases, in percent */
    bool images;
} targets[] = {
    {"request once", request_once, 42, false},
    {"request", request_again, 33, false},
    {"download", download_all, 8, true},
    {"rest of a download", download_rest, 8, true},
    {"stream", stream_plain, 2, false},
    {"stream by TLS", stream_tls, 2, false},
    {"tunnel", tunnel, 5, false},
};

/* ---- good answers, and odd ones ---- */

static mj_buf seeds[MAX_SEEDS];
static size_t nseeds;

static void text_seeds(void)
{
    static const char *const all[] = {
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-A: b\r\nContent-Length: 12\r\n\r\n{\"status\":0}",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\td\r\nTransfer-Encoding: "
        "chunked\r\n\r\n4;x=\"y\"\r\n{\"a\"\r\n3\r\n:1}\r\n0"
        ";z\r\nX-Trailer: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X-Folded: yes\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n folded\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=x\r\n c\r\n\r\nHTTP/1.1 "
        "200 OK"
        "\r\n X: y\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 429 Slow\r\nRetry-After: 299.997\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 Later\r\nRetry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\nConnection: close\r\n\r\nbusy",
        "HTTP/1.1 307 Moved\r\nLocation: /v2?token=x#y\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\nSet-Cookie: a=b; path=/\r\nAlt-Svc: "
        "h2="
        "\":1\"\r\nStrict-Transport-Security: max-age=9\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/2 200\r\ncontent-length: 2\r\n\r\n{}",
        "{\"status\":0}",
        "HTTP/1.1 206 Part\r\nETag: " ETAG "\r\nContent-Range: bytes 999-1003/1004\r\nContent-Length: 5\r\n\r\nxxxxx",
        "HTTP/1.1 206 Part\r\nETag: " ETAG
        "\r\nContent-Range: bytes 999-1003/1004\r\nTransfer-Encoding: chunked\r\n\r\n5"
        "\r\nxxxxx\r\n0\r\n\r\n",
        "HTTP/1.1 416 Range\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nETag: " ETAG "\r\nContent-Length: 16\r\n\r\n" PNG "xxxxxxxx",
        "HTTP/1.1 200 OK\r\n X: y\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n10;a\r\n" PNG
        "xxxxxxxx"
        "\r\n0\r\nX: y\r\n\r\n",
    };

    for (; nseeds < N(all); nseeds++)
        mj_put_raw(&seeds[nseeds], all[nseeds], strlen(all[nseeds]));
}

static const char *const tokens[] = {
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\r\n ",
    "\r\n\t",
    " ",
    ":",
    ";",
    ",",
    "0",
    "1",
    "f",
    "ffffffffffffffff",
    "-1",
    "HTTP/1.1 ",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Hints\r\n",
    "HTTP/1.0 ",
    "HTTP/2 ",
    "HTTP/3 200\r\n",
    "ICY 200 OK\r\n",
    "101 ",
    "204 ",
    "304 ",
    "401 ",
    "407 ",
    "416 ",
    "206 ",
    "000 ",
    "999 ",
    "Content-Length: ",
    "Content-Length: 5\r\n",
    "Content-Length: 9223372036854775807\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: ",
    "Transfer-Encoding: deflate, chunked\r\n",
    "chunked",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: Upgrade\r\n",
    "Upgrade: h2c\r\n",
    "Retry-After: ",
    "Retry-After: 9\r\n",
    "Location: ",
    "Location: http://[::1]:1/?a#b\r\n",
    "Date: ",
    "Content-Range: bytes 999-1003/1004\r\n",
    "ETag: " ETAG "\r\n",
    "Content-Type: image/png\r\n",
    PNG,
    "Content-Encoding: gzip\r\n",
    "Content-Encoding: br, zstd\r\n",
    "Set-Cookie: a=b; domain=localhost\r\n",
    "WWW-Authenticate: Basic realm=x\r\n",
    "WWW-Authenticate: NTLM TlRMTVNTUAACAAAA\r\n",
    "WWW-Authenticate: Negotiate YII=\r\n",
    "Proxy-Authenticate: Digest nonce=\"x\"\r\n",
    "Trailer: X\r\n",
    " X-Folded: yes\r\n",
    "\t:\r\n",
    ":\r\n",
    "X:\r\n",
    "0\r\n\r\n",
    "5\r\n",
    "2;x=\"",
    "{}",
};

/* ---- cases ---- */

static size_t any_target(rng *r)
{
    uint32_t at = below(r, 100);
    size_t i = 0;

    for (; at >= targets[i].share; i++)
        at -= targets[i].share;
    return i;
}

static void run_case(uint64_t seed, uint64_t number)
{
    rng r = {seed * 0x100000001b3u + number};
    size_t target = any_target(&r);
    const mj_buf *s = &seeds[below(&r, (uint32_t)nseeds)];

    if (targets[target].images && chance(&r, 70))
        s = &seeds[nseeds - 1 - below(&r, IMAGES)];
    pthread_mutex_lock(&lock);
    now->number = number;
    now->target = target;
    now->n = s->n;
    memcpy(now->bytes, s->p, s->n);
    for (uint32_t times = number < nseeds ? 0 : below(&r, 2 + below(&r, 6)); times > 0; times--)
        mutate(&r, now->bytes, &now->n, FUZZ_BYTES, tokens, N(tokens), &seeds[below(&r, (uint32_t)nseeds)]);
    pthread_mutex_unlock(&lock);
    now->kinds[target]++;
    now->accepted[target] += targets[target].run();
}

static void prepare(void)
{
    mj_http_options o = {.connections = 1, .timeout_ms = TIMEOUT_MS, .max_answer = MAX_ANSWER};

    char proxy[64];

    signal(SIGPIPE, SIG_IGN); /* the server's TLS */
    text_seeds();
    start_tls();
    plain_port = start_server(false);
    tls_port = start_server(true);
    client = mj_http_new(&o);
    snprintf(proxy, sizeof proxy, "http://me:sekrit@127.0.0.1:%d", plain_port);
    o.proxy = proxy;
    proxied = mj_http_new(&o);
    MUST(client && proxied);
}

static void run(double limit, uint64_t seed, const char *only)
{
    double from = seconds(), took;
    uint64_t n = 0;

    if (only) /* with those before it, whose answers the client remembers */
        for (uint64_t i = strtoull(only, NULL, 0), k = i > 50 ? i - 50 : 0; k <= i; k++)
            run_case(seed, k);
    else
        do
            run_case(seed, n++);
        while ((took = seconds() - from) < limit);
    mj_http_free(client);
    mj_http_free(proxied);
    wait_for_server();
    unlink(ca_file);
    if (only)
        return;
    printf("%" PRIu64 " cases in %.1f s, %.0f/s; taken:", n, took, (double)n / took);
    for (size_t i = 0; i < N(targets); i++)
        printf(" %s %" PRIu64 " of %" PRIu64 "%s", targets[i].name, now->accepted[i], now->kinds[i],
               i + 1 < N(targets) ? "," : "\n");
}

static const char *name_of(size_t target)
{
    return targets[target].name;
}

int main(int argc, char **argv)
{
    return fuzz_main(argc, argv, "http", &(fuzz_program){prepare, run, name_of});
}
