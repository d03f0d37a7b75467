/* mj_framing: what an answer consists of besides its body, however it is cut into pieces. */
#include "mj_test.h"
#include "net/framing.h"

/* The body in a chunked text that arrives in pieces of n bytes; ends with '!' when it is complete. */
static const char *body_of(const char *text, size_t n, mj_framing *f)
{
    static char body[200000];
    size_t at = 0, all = strlen(text);

    *f = (mj_framing){0};
    CHECK(mj_framing_line(f, "Transfer-Encoding: chunked\r\n", 28));
    for (size_t i = 0; i < all; i += n) {
        mj_str in = {text + i, (uint32_t)(n < all - i ? n : all - i)}, piece;
        while (mj_framing_body(f, &in, &piece)) {
            CHECK(piece.n > 0 && piece.p >= text && piece.p + piece.n <= text + all);
            memcpy(body + at, piece.p, piece.n);
            at += piece.n;
        }
        CHECK(in.n == 0 || f->fault);
    }
    body[at] = '\0';
    return strcat(body, mj_framing_done(f) ? "!" : "");
}

TEST("chunks become the body, in whatever pieces they arrive")
{
    static const struct {
        const char *text, *body;
    } cases[] = {
        {"2\r\n{}\r\n0\r\n\r\n", "{}!"},
        {"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", "{}!"},
        {"1\n{\n1\n}\n0\n\n", "{}!"},
        {"0000000000000002\r\n{}\r\n000\r\n\r\n", "{}!"},
        {"a;x=\"y\"\r\n0123456789\r\nA ;z\r\n0123456789\r\n0;end\r\nX: y\r\n z\r\n\r\n", "01234567890123456789!"},
        {"2\r\n\r\n\r\n0\r\n\r\n", "\r\n!"},
        {"0\r\n\r\n", "!"},
        {"0\r\n\r\n2\r\nno\r\n", "!"},
        {"0\r\n\r\nHTTP/1.1 200 OK\r\n", "!"},
        {"", ""},
        {"2\r\n{}\r\n0\r\n", "{}"},
        {"2\r\n{}\r\n0\r\nX: y\r\n", "{}"},
        {"2\r\n{}\r\n", "{}"},
        {"5\r\n{}", "{}"},
    };
    mj_framing f;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t n = 1; n < 40; n++) {
            CHECK_STR(body_of(cases[i].text, n, &f), cases[i].body);
            CHECK(f.fault == NULL);
        }
}

TEST("what is no chunk is a fault, and gives nothing more")
{
    static const struct {
        const char *text, *body;
    } cases[] = {
        {"zz\r\n{}\r\n0\r\n\r\n", ""},
        {"\r\n0\r\n\r\n", ""},
        {" 2\r\n{}\r\n0\r\n\r\n", ""},
        {"-1\r\n{}\r\n0\r\n\r\n", ""},
        {"00000000000000002\r\n{}\r\n0\r\n\r\n", ""},
        {"2\r\n{}0\r\n\r\n", "{}"},
        {"2\r\n{}\r\r\n0\r\n\r\n", "{}"},
        {"2\r\n{}\r\n;\r\n\r\n", "{}"},
    };
    mj_framing f;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t n = 1; n < 30; n++) {
            CHECK_STR(body_of(cases[i].text, n, &f), cases[i].body);
            CHECK(f.fault != NULL);
        }
}

TEST("without chunks all is body")
{
    mj_framing f = {0};
    mj_str in = {"2\r\n", 3}, piece;

    CHECK(mj_framing_line(&f, "Content-Length: 3\r\n", 19));
    CHECK(mj_framing_body(&f, &in, &piece));
    CHECK(piece.n == 3 && in.n == 0);
    CHECK(!mj_framing_body(&f, &in, &piece));
    CHECK(!mj_framing_done(&f));
}

static bool takes(const char *line)
{
    size_t n = strlen(line);
    char *copy = malloc(n ? n : 1); /* where a sanitizer sees what is read beyond it */
    mj_framing f = {0};
    bool ok;

    CHECK(copy != NULL);
    memcpy(copy, line, n);
    ok = mj_framing_line(&f, copy, n);
    free(copy);
    CHECK(ok == (f.fault == NULL) && ok == !f.packed);
    return ok && mj_framing_line(&f, "\r\n", 2);
}

TEST("of codings only chunks are taken; other lines say nothing about it")
{
    static const char *const good[] = {
        "",
        "\r\n",
        "HTTP/1.1 200 OK\r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding:CHUNKED",
        "TRANSFER-ENCODING: \t chunked \t\r\n",
        "Transfer-Encoding: identity\r\n", /* no coding at all */
        "Content-Type: gzip\r\n",
        "Content-Encoding: gzip\r\n", /* see base/gunzip.h */
        "X-Transfer-Encoding: gzip\r\n",
        "Transfer-Encodings: gzip\r\n",
        "Transfer-Encoding",
        " Transfer-Encoding: gzip\r\n", /* a folded line, to libcurl, too */
    };
    static const char *const bad[] = {
        "Transfer-Encoding:",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding: gzip\r\n",
        "transfer-encoding:gzip",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunke\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: br\r\n",
    };
    mj_framing f = {0};

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!takes(good[i]))
            MJ_TEST_FAIL("\"%s\" is refused", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (takes(bad[i]))
            MJ_TEST_FAIL("\"%s\" is taken", bad[i]);
    CHECK(mj_framing_line(&f, "Transfer-Encoding: chunked\r\n", 28));
    CHECK(mj_framing_line(&f, "Transfer-Encoding: chunked\r\n", 28)); /* a proxy's beside the server's */
    CHECK(!mj_framing_line(&f, "Transfer-Encoding: gzip\r\n", 25));
}

TEST("an interim answer's chunks are not the answer's, and its bytes count")
{
    mj_framing f = {0};

    CHECK(mj_framing_line(&f, "Transfer-Encoding: chunked\r\n", 28));
    mj_framing_again(&f);
    CHECK(!f.chunked);
    CHECK_INT(f.bytes, 28);
}

/* How many bytes of `unit`, again and again behind `head`, are taken. */
static size_t taken(const char *head, const char *unit)
{
    mj_framing f = {.chunked = true};
    mj_str in = {head, (uint32_t)strlen(head)}, piece;
    size_t n = 0;

    while (mj_framing_body(&f, &in, &piece))
        continue;
    CHECK(f.fault == NULL);
    for (; !f.fault && n < 10000000; n += strlen(unit)) {
        in = (mj_str){unit, (uint32_t)strlen(unit)};
        while (mj_framing_body(&f, &in, &piece))
            continue;
    }
    return n;
}

TEST("extensions, trailers and header lines without an end are bounded, all of them together")
{
    mj_framing f = {0};
    size_t n = 0;

    CHECK(taken("2", ";x=y") <= MJ_FRAMING_MAX + 4);
    CHECK(taken("2", "\r") <= MJ_FRAMING_MAX + 4);
    CHECK(taken("2\r\n{}\r\n0\r\n", "X: y\r\n") <= MJ_FRAMING_MAX + 6);
    CHECK(taken("2\r\n{}\r\n0\r\n", "x") <= MJ_FRAMING_MAX + 1);
    CHECK(taken("", "1;xxxxxxxx\r\n{\r\n") <= 16 * MJ_FRAMING_MAX / 9 + 16);
    CHECK(taken("", "1\r\n{\r\n") >= 10000000); /* a body, byte by byte: its own bound counts */
    while (mj_framing_line(&f, " x\r\n", 4))
        n += 4;
    CHECK_INT(n, MJ_FRAMING_MAX);
    CHECK_STR(f.fault, "the header has no end");
    mj_framing_again(&f);
    CHECK(!mj_framing_line(&f, "\r\n", 2)); /* and stays so */
}
