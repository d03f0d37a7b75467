/* What the clients of libcurl ask of it: every option that is set goes through here, on its way to libcurl. */
#include "download/transfer.h"
#include "http_help.h"
#include "net/curl.h"
#include "net/stream.h"

#include <dlfcn.h>
#include <stdarg.h>

#undef curl_easy_setopt

enum { MAX_SET = 1000, MAX_HANDLES = 50, TYPES = 10000 /* as libcurl numbers options, by the type of their value */ };

static struct set {
    int handle; /* by the order in which they were made */
    CURLoption option;
    long number;
    char text[100]; /* of a string; "(null)" */
} sets[MAX_SET];
static int nsets, nhandles, alive;
static CURL *handles[MAX_HANDLES];

static void *next(const char *name)
{
    void *p = dlsym(RTLD_NEXT, name);

    CHECK(p != NULL);
    return p;
}

CURL *curl_easy_init(void)
{
    CURL *(*real)(void);
    CURL *e;

    *(void **)&real = next("curl_easy_init");
    e = real();
    CHECK(e != NULL && nhandles < MAX_HANDLES);
    handles[nhandles++] = e;
    alive++;
    return e;
}

void curl_easy_cleanup(CURL *e)
{
    void (*real)(CURL *);

    *(void **)&real = next("curl_easy_cleanup");
    alive -= e != NULL;
    real(e);
}

void curl_easy_reset(CURL *e)
{
    (void)e;
    MJ_TEST_FAIL("a handle is used again: see mj_curl.h");
}

static bool is_text(CURLoption o)
{
    return o == CURLOPT_PROXY || o == CURLOPT_NOPROXY || o == CURLOPT_CAINFO || o == CURLOPT_CAPATH ||
           o == CURLOPT_PROXY_CAINFO || o == CURLOPT_PROXY_CAPATH || o == CURLOPT_PROTOCOLS_STR;
}

CURLcode curl_easy_setopt(CURL *e, CURLoption option, ...)
{
    CURLcode (*real)(CURL *, CURLoption, ...);
    struct set *s = &sets[nsets++];
    CURLcode rc;
    va_list args;

    CHECK(nsets <= MAX_SET);
    *(void **)&real = next("curl_easy_setopt");
    for (s->handle = nhandles - 1; handles[s->handle] != e; s->handle--)
        CHECK(s->handle > 0);
    s->option = option;
    va_start(args, option);
    if (option < CURLOPTTYPE_OBJECTPOINT) {
        s->number = va_arg(args, long);
        rc = real(e, option, s->number);
    } else if (option >= CURLOPTTYPE_OFF_T && option < CURLOPTTYPE_OFF_T + TYPES) {
        rc = real(e, option, va_arg(args, curl_off_t));
    } else {
        void *p = va_arg(args, void *);
        snprintf(s->text, sizeof s->text, "%s", is_text(option) ? p ? (const char *)p : "(null)" : "");
        rc = real(e, option, p);
    }
    va_end(args);
    return rc;
}

/* What an option of a handle was set to last. */
static const struct set *last(int handle, CURLoption option)
{
    for (int i = nsets - 1; i >= 0; i--)
        if (sets[i].handle == handle && sets[i].option == option)
            return &sets[i];
    return NULL;
}

static void check_number(int handle, CURLoption option, long want)
{
    const struct set *s = last(handle, option);

    if (!s || s->number != want)
        MJ_TEST_FAIL("handle %d: option %d is %ld, not %ld", handle, (int)option, s ? s->number : -1, want);
}

static void check_text(int handle, CURLoption option, const char *want)
{
    const struct set *s = last(handle, option);

    if (!s || strcmp(s->text, want) != 0)
        MJ_TEST_FAIL("handle %d: option %d is %s, not %s", handle, (int)option, s ? s->text : "not set", want);
}

/* What holds for every handle of every client. */
static void check_all(const char *proxy, const char *ca_file)
{
    CHECK(nhandles > 0);
    for (int h = 0; h < nhandles; h++) {
        check_number(h, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
        check_number(h, CURLOPT_HTTP_TRANSFER_DECODING, 0);
        check_number(h, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
        check_number(h, CURLOPT_HTTP09_ALLOWED, 0);
        check_number(h, CURLOPT_FOLLOWLOCATION, 0);
        check_number(h, CURLOPT_NETRC, CURL_NETRC_IGNORED);
        check_number(h, CURLOPT_NOSIGNAL, 1);
        check_number(h, CURLOPT_SSL_VERIFYPEER, 1);
        check_number(h, CURLOPT_SSL_VERIFYHOST, 2);
        check_text(h, CURLOPT_PROXY, proxy);
        check_text(h, CURLOPT_NOPROXY, "");
        CHECK(last(h, CURLOPT_OPENSOCKETFUNCTION) != NULL);
        CHECK(last(h, CURLOPT_PROTOCOLS_STR) != NULL);
        CHECK(last(h, CURLOPT_ACCEPT_ENCODING) == NULL);
        if (!ca_file)
            continue;
        check_text(h, CURLOPT_CAINFO, ca_file);
        check_text(h, CURLOPT_CAPATH, "(null)");
    }
}

static void answer_all(conn *c)
{
    while (read_request(c))
        reply(c, "200 OK", "", "{}");
}

static void ask_some(const mj_http_options *o, const char *url, int n)
{
    mj_http *h = mj_http_new(o);

    CHECK(h != NULL);
    for (int i = 0; i < n; i++) {
        mj_http_answer a = ask(h, post(url, "{}", i & 1));
        mj_http_answer_clear(&a, 1);
    }
    CHECK_INT(nhandles, n); /* one for each transfer */
    CHECK_INT(alive, 0);    /* and none is kept */
    mj_http_free(h);
}

TEST("requests: a handle for each, TLS 1.2 at least, verified, no proxy but a given one, one authority")
{
    server *s = start(answer_all);

    ask_some(&(mj_http_options){.connections = 2}, url_of(s), 5);
    CHECK_INT(counted(s, &s->accepted), 1); /* on one connection */
    check_all("", NULL);
}

TEST("requests with authorities and a proxy of their own")
{
    ask_some(&(mj_http_options){.connections = 1, .ca_file = "/nowhere/ca.pem", .proxy = "http://127.0.0.1:1"},
             "https://localhost/", 2);
    check_all("http://127.0.0.1:1", "/nowhere/ca.pem");
    for (int h = 0; h < nhandles; h++) {
        check_number(h, CURLOPT_PROXY_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
        check_number(h, CURLOPT_HEADEROPT, CURLHEADER_SEPARATE);
        check_text(h, CURLOPT_PROXY_CAINFO, "/nowhere/ca.pem");
        check_text(h, CURLOPT_PROXY_CAPATH, "(null)");
    }
}

TEST("streams: the same")
{
    server *s = start(answer_all);
    mj_stream_target t = {.host = "127.0.0.1", .port = s->port, .ca_file = "/nowhere/ca.pem"};
    char why[MJ_STREAM_WHY];
    mj_stream *out;

    CHECK_INT(mj_stream_open(&t, mj_http_clock() + 5000, &out, why), MJ_OK);
    check_all("", "/nowhere/ca.pem");
    CHECK_INT(nhandles, 1);
    mj_stream_close(out);
    CHECK_INT(alive, 0);
}

TEST("downloads: the same")
{
    mj_fetch_options o = {.max_bytes = 1000, .ca_file = "/nowhere/ca.pem", .loopback = true};
    int fd = open("file", O_RDWR | O_CREAT, 0600);
    mj_fetch *f = mj_fetch_new(&o);
    mj_fetch_result r;
    size_t index;

    CHECK(f != NULL && fd >= 0);
    for (int i = 0; i < 3; i++)
        CHECK_INT(mj_fetch_add(f, &(mj_fetch_request){.url = "https://127.0.0.1:1/", .fd = fd}, &index), MJ_OK);
    while (mj_fetch_next(f, mj_http_clock() + 5000, &index, &r) == MJ_OK)
        CHECK_INT(r.outcome, MJ_FETCH_NET);
    check_all("", "/nowhere/ca.pem");
    CHECK_INT(nhandles, 3);
    CHECK_INT(alive, 0);
    mj_fetch_free(f);
}
