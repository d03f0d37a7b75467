/* mj_http against servers that mean harm: no answer kills the process, none has more than its share of memory and time.
 */
#include "http_help.h"

#include <sys/resource.h>
#define ZLIB_CONST
#include <zlib.h>

/* ---- answers that libcurl 7.88 does not survive on a handle that it was given before ---- */

static const char *const *texts; /* one for each request in turn, and over again */
static int ntexts;

static void say_in_turn(conn *c)
{
    while (read_request(c))
        say(c, texts[(counted(c->s, &c->s->bodies) - 1) % ntexts]);
}

#define OK_ANSWER "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-A: b\r\nContent-Length: 2\r\n\r\n{}"

/* Every answer after a good one on the same connection, and with one on the same client. */
static void survives(const char *const *given, int n)
{
    server *s = start(say_in_turn);
    mj_http *h = client(1);

    texts = given;
    ntexts = n;
    for (int i = 0; i < 8 * n; i++) {
        mj_http_request r = post(url_of(s), "{}", i & 1);
        mj_http_answer a;
        r.details = i & 2;
        a = ask(h, r);
        mj_http_answer_clear(&a, 1);
    }
    mj_http_free(h);
}

TEST("an answer whose first header line is folded kills nothing, whatever was answered before")
{
    static const char *const folded[] = {
        OK_ANSWER,
        "HTTP/1.1 200 OK\r\n folded\r\nContent-Length: 2\r\n\r\n{}",
        OK_ANSWER, /* a folded line is looked at more closely when it has no colon */
        "HTTP/1.1 200 OK\r\n X-Folded: yes\r\nContent-Length: 2\r\n\r\n{}",
        OK_ANSWER,
        "HTTP/1.1 200 OK\r\n\t:\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n\tfolded\r\n more\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\n{}",
        OK_ANSWER,
        "HTTP/1.1 100 Continue\r\n folded\r\n\r\nHTTP/1.1 200 OK\r\n folded\r\nContent-Length: 2\r\n\r\n{}",
        " HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\n folded\r\n",
    };

    survives(folded, sizeof folded / sizeof folded[0]);
}

/* ---- answers without an end ---- */

typedef struct endless {
    const char *what, *head, *unit;
} endless;

static const endless *flood;
static size_t flooded; /* bytes that were said, until the other side went */

static void say_without_end(conn *c)
{
    char block[8192];
    size_t n = strlen(flood->unit), len = sizeof block - sizeof block % n;

    for (size_t i = 0; i < len; i += n)
        memcpy(block + i, flood->unit, n);
    if (!read_request(c))
        return;
    say(c, flood->head);
    for (ssize_t w; (w = send(c->fd, block, len, MSG_NOSIGNAL)) > 0;)
        flooded += (size_t)w;
}

static long peak_kib(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

TEST("no header, interim answer, folded line, trailer or extension of a chunk is endless")
{
    static const endless all[] = {
        {"header lines", "HTTP/1.1 200 OK\r\n", "X-Header: yes\r\n"},
        {"header lines without a name", "HTTP/1.1 200 OK\r\n", ":\r\n"},
        {"a header line", "HTTP/1.1 200 OK\r\nX: ", "yyyyyyyy"},
        {"a status line", "HTTP/1.1 200 ", "O"},
        {"folded lines", "HTTP/1.1 200 OK\r\nX: y\r\n", " folded\r\n"},
        {"folded lines at first", "HTTP/1.1 200 OK\r\n", "\tx\r\n"},
        {"folded lines with a colon", "HTTP/1.1 200 OK\r\n", " X: y\r\n"},
        {"interim answers", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Hints\r\nLink: <a>\r\n\r\n"},
        {"bare interim answers", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 C\r\n\r\n"},
        {"trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", "X: y\r\n"},
        {"a trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ", "yyyyyyy"},
        {"an extension", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;", "x=\"y\";"},
        {"extensions", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1;xxxxxxxxxxxx\r\n{\r\n"},
        {"an extension at last", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0;", "x"},
        {"line breaks of a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2", "\r"},
        {"digits of a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "0"},
        {"a body", "HTTP/1.1 200 OK\r\n\r\n", "{}{}{}{}"},
        {"a body in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n{\r\n"},
    };
    mj_http_options o = {.connections = 1, .timeout_ms = 8000, .max_answer = 1 << 20};
    mj_http *h = mj_http_new(&o);
    server *s = start(say_without_end);
    long before = peak_kib();

    CHECK(h != NULL);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (int once = 0; once < 2; once++) {
            int64_t begun = mj_http_clock();
            flood = &all[i];
            flooded = 0;
            CHECK_INT(outcome(h, post(url_of(s), "{}", once)), MJ_HTTP_MAYBE_SENT);
            wait_for(s, &s->closed, 2 * (int)i + once + 1);
            fprintf(stderr, "%s: %zu KiB, %d ms\n", all[i].what, flooded >> 10, (int)(mj_http_clock() - begun));
            CHECK(mj_http_clock() - begun < mj_test_ms(4000));
            CHECK(flooded < 32 << 20); /* most of it lies in the sockets' buffers */
        }
#ifndef __SANITIZE_ADDRESS__ /* which keeps what is freed for a while */
    CHECK(peak_kib() - before < 64 << 10);
#endif
    (void)before;
    mj_http_free(h);
}

static void proxy_without_end(conn *c)
{
    say_without_end(c); /* CONNECT has a header and no body, too */
}

TEST("a proxy's answer is not endless either, and what it refuses was not sent")
{
    static const endless all[] = {
        {"header lines", "HTTP/1.1 200 OK\r\n", "X-Header: yes\r\n"},
        {"folded lines at first", "HTTP/1.1 200 OK\r\n", " X: y\r\n"},
        {"interim answers", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Hints\r\nLink: <a>\r\n\r\n"},
        {"a body", "HTTP/1.1 407 No\r\nContent-Length: 9000000000\r\n\r\n", "body"},
        {"a body in chunks", "HTTP/1.1 407 No\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n{\r\n"},
        {"an extension", "HTTP/1.1 407 No\r\nTransfer-Encoding: chunked\r\n\r\n1;", "x"},
    };
    server *s = start(proxy_without_end);
    char proxy[64];
    mj_http_options o = {.connections = 1, .connect_timeout_ms = 1000, .timeout_ms = 2000, .proxy = proxy};
    mj_http *h;
    long before;

    snprintf(proxy, sizeof proxy, "http://me:" KEY "@127.0.0.1:%d", s->port);
    h = mj_http_new(&o);
    before = peak_kib();
    CHECK(h != NULL);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        int64_t begun = mj_http_clock();
        flood = &all[i];
        flooded = 0;
        CHECK_INT(outcome(h, post("https://a.invalid/v1", "{}", true)), MJ_HTTP_NOT_SENT);
        wait_for(s, &s->closed, (int)i + 1);
        fprintf(stderr, "%s: %zu KiB, %d ms\n", all[i].what, flooded >> 10, (int)(mj_http_clock() - begun));
        CHECK(mj_http_clock() - begun < mj_test_ms(3000));
    }
#ifndef __SANITIZE_ADDRESS__
    CHECK(peak_kib() - before < 64 << 10);
#endif
    (void)before;
    mj_http_free(h);
}

TEST("what an honest server says around a body is taken: many small chunks, extensions, trailers, hints, folded lines")
{
    static char text[20000];
    size_t n =
        (size_t)sprintf(text, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n </b>\r\n\r\n"
                              "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nTransfer-Encoding: chunked\r\n"
                              "transfer-encoding: Chunked\r\n\r\n");
    static const char *const given[] = {text};
    server *s = start(say_in_turn);
    mj_http *h = client(1);
    mj_http_answer a;

    for (int i = 0; i < 1000; i++)
        n += (size_t)sprintf(text + n, i % 2 ? "1;x=\"y\"\r\n%c\r\n" : "1\r\n%c\r\n", 'a' + i % 26);
    sprintf(text + n, "0\r\nDigest: x\r\nServer-Timing: a\r\n b\r\n\r\n");
    texts = given;
    ntexts = 1;
    for (int i = 0; i < 3; i++) {
        a = ask(h, post(url_of(s), "{}", i & 1));
        CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
        CHECK_INT(a.body_len, 1000);
        for (int k = 0; k < 1000; k++)
            CHECK(a.body[k] == 'a' + k % 26);
        mj_http_answer_clear(&a, 1);
    }
    CHECK_INT(counted(s, &s->accepted), 1);
    mj_http_free(h);
}

TEST("an answer that has no body is complete without one, whatever it says of it")
{
    static const char *const given[] = {
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    };
    server *s = start(say_in_turn);

    ntexts = 1;
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        mj_http *h = client(1);
        mj_http_answer a;
        texts = &given[i];
        a = ask(h, post(url_of(s), "{}", true));
        CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
        CHECK_INT(a.body_len, 0);
        mj_http_answer_clear(&a, 1);
        mj_http_free(h);
    }
}

TEST("an answer that is packed on the way is no answer, and nothing of it is unpacked")
{
    static const char *const given[] = {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: br\r\n\r\n{}",
    };
    server *s = start(say_in_turn);

    ntexts = 1;
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        mj_http *h = client(1);
        mj_http_answer a;
        texts = &given[i];
        a = ask(h, post(url_of(s), "{}", true));
        CHECK_INT(a.outcome, MJ_HTTP_MAYBE_SENT);
        CHECK(strstr(a.error, "packed in a way that it was not asked for"));
        mj_http_free(h);
    }
}

static void answer_all_but_the_last_bytes(conn *c)
{
    if (read_head(c))
        say(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
    wait_for(c->s, &c->s->stage, 1); /* the body stays unread */
}

TEST("an answer in chunks that comes before the body was read is an answer")
{
    size_t n = 8 << 20;
    char *body = malloc(n + 1);
    server *s = start(answer_all_but_the_last_bytes);
    mj_http *h = client(1);
    mj_http_request r;
    mj_http_answer a;

    CHECK(body != NULL);
    memset(body, 'x', n);
    body[n] = '\0';
    r = post(url_of(s), body, true);
    r.timeout_ms = 500;
    a = ask(h, r);
    CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
    CHECK_STR(a.body, "{}");
    count(s, &s->stage);
    mj_http_answer_clear(&a, 1);
    mj_http_free(h);
    free(body);
}

/* ---- compressed answers ---- */

static char packed[1 << 16];
static size_t packed_n;

static void say_packed(conn *c)
{
    static const char *const heads[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: ",
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ",
        "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 429 Slow\r\nContent-Encoding: gzip\r\nConnection: close\r\nX-Length: ",
    };

    while (read_request(c)) {
        int i = (counted(c->s, &c->s->bodies) - 1) % 4;
        char length[32];
        snprintf(length, sizeof length, i == 2 ? "%zx\r\n" : "%zu\r\n\r\n", packed_n);
        say(c, heads[i]);
        say(c, length);
        CHECK(send(c->fd, packed, packed_n, MSG_NOSIGNAL) == (ssize_t)packed_n);
        if (i == 2)
            say(c, "\r\n0\r\n\r\n");
        if (i == 3)
            return;
    }
}

static void pack(const char *text, size_t n)
{
    z_stream z = {.next_in = (const Bytef *)text, .avail_in = (uInt)n};

    CHECK_INT(deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_out = (Bytef *)packed;
    z.avail_out = sizeof packed;
    CHECK_INT(deflate(&z, Z_FINISH), Z_STREAM_END);
    packed_n = z.total_out;
    deflateEnd(&z);
}

TEST("an answer that is gzipped without being asked for is read, whatever its header says of it, and however it ends")
{
    static const char text[] = "{\"status\":0,\"data\":{\"taskId\":\"T1\"}}";
    server *s = start(say_packed);
    mj_http *h = client(1);

    pack(text, sizeof text - 1);
    for (int i = 0; i < 8; i++) {
        mj_http_answer a = ask(h, post(url_of(s), "{}", i & 1));
        CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
        CHECK_INT(a.status, i % 4 == 3 ? 429 : 200);
        CHECK_STR(a.body, text);
        CHECK_INT(a.body_len, sizeof text - 1);
        mj_http_answer_clear(&a, 1);
    }
    mj_http_free(h);
}

TEST("a gzipped answer that is damaged is given as it came, and one that becomes too long is too long")
{
    char *zeros = calloc(1, 16 << 20);
    mj_http_options o = {.connections = 1, .timeout_ms = 5000, .max_answer = 1 << 20};
    mj_http *h = mj_http_new(&o);
    server *s = start(say_packed);
    mj_http_answer a;

    CHECK(h != NULL && zeros != NULL);
    pack("{}", 2);
    packed[packed_n - 1] ^= 1;
    a = ask(h, post(url_of(s), "{}", true));
    CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
    CHECK_INT(a.body_len, packed_n);
    CHECK_MEM(a.body, packed, packed_n);
    mj_http_answer_clear(&a, 1);
    pack(zeros, 16 << 20);
    a = ask(h, post(url_of(s), "{}", true));
    CHECK_INT(a.outcome, MJ_HTTP_MAYBE_SENT);
    CHECK(strstr(a.error, "longer than it may be"));
    pack(zeros, 1 << 20);
    a = ask(h, post(url_of(s), "{}", true));
    CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
    CHECK_INT(a.body_len, 1 << 20);
    mj_http_answer_clear(&a, 1);
    mj_http_free(h);
    free(zeros);
}
