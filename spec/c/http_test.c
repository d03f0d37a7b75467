/* mj_http: requests as they arrive, answers as they come back, batches.  What was sent and what was not, when there is
 * no answer, is in http_once_test.c. */
#include "http_help.h"

#include <dirent.h>
#include <sys/resource.h>

static void answer_all(conn *c)
{
    while (read_request(c))
        reply(c, "200 OK", "", "{}");
}

/* ---- requests ---- */

TEST("a POST arrives as it was meant, whichever way it is sent")
{
    static const char body[] = "{\"a\":\0\xff\r\n\r\n}"; /* not text to anybody */
    server *s = start(answer_all);
    mj_http *h = client(1);

    for (int once = 0; once < 2; once++) {
        mj_http_request r = post(url_of(s), body, once);
        r.body_len = sizeof body - 1;
        CHECK_INT(outcome(h, r), MJ_HTTP_ANSWERED);
        CHECK_INT(s->body_len, sizeof body - 1);
        CHECK_MEM(s->body, body, sizeof body - 1);
        CHECK(strncmp(s->head, "POST /v1/jobs?token=" KEY " HTTP/1.1\r\n", 37) == 0);
        CHECK(strstr(s->head, "\r\nHost: 127.0.0.1:") != NULL);
        CHECK(strstr(s->head, "\r\nUser-Agent: mjhook\r\n") != NULL);
        CHECK(strstr(s->head, "\r\nContent-Type: application/json\r\n") != NULL);
        CHECK(strstr(s->head, "\r\nAPI-KEY: " KEY "\r\n") != NULL);
        CHECK(strstr(s->head, "\r\nContent-Length: 12\r\n") != NULL);
        CHECK(strcasestr(s->head, "Expect") == NULL);
        CHECK(strcasestr(s->head, "Encoding") == NULL);
        CHECK(strcasestr(s->head, "Upgrade") == NULL);
    }
    mj_http_free(h);
}

TEST("a request without a body is a GET, with an empty one a POST")
{
    server *s = start(answer_all);
    mj_http *h = client(1);

    for (int once = 0; once < 2; once++) {
        CHECK_INT(outcome(h, post(url_of(s), NULL, once)), MJ_HTTP_ANSWERED);
        CHECK(strncmp(s->head, "GET /v1/jobs", 12) == 0);
        CHECK(strstr(s->head, "Content-Length") == NULL);
        CHECK_INT(outcome(h, post(url_of(s), "", once)), MJ_HTTP_ANSWERED);
        CHECK(strncmp(s->head, "POST /v1/jobs", 13) == 0);
        CHECK(strstr(s->head, "\r\nContent-Length: 0\r\n") != NULL);
    }
    mj_http_free(h);
}

TEST("nothing of one request is left in the next")
{
    static const char *const headers[] = {"X-First: 1", NULL};
    server *s = start(answer_all);
    mj_http *h = client(1);
    mj_http_request r = post(url_of(s), "first", true);

    r.headers = headers;
    CHECK_INT(outcome(h, r), MJ_HTTP_ANSWERED);
    CHECK(strstr(s->head, "X-First") != NULL);
    r = post(url_of(s), NULL, false);
    r.headers = NULL;
    CHECK_INT(outcome(h, r), MJ_HTTP_ANSWERED);
    CHECK(strncmp(s->head, "GET ", 4) == 0);
    CHECK(strstr(s->head, "X-First") == NULL && strstr(s->head, "Content-") == NULL);
    CHECK_INT(counted(s, &s->accepted), 1);
    mj_http_free(h);
}

TEST("a body of megabytes arrives whole, without an Expect")
{
    size_t n = 3 << 20;
    char *body = malloc(n + 1);
    server *s = start(answer_all);
    mj_http *h = client(1);

    CHECK(body != NULL);
    for (size_t i = 0; i < n; i++)
        body[i] = (char)('a' + i % 23);
    body[n] = '\0';
    for (int once = 0; once < 2; once++) {
        CHECK_INT(outcome(h, post(url_of(s), body, once)), MJ_HTTP_ANSWERED);
        CHECK_INT(s->body_len, n);
        CHECK_MEM(s->body, body, n);
        CHECK(strcasestr(s->head, "Expect") == NULL);
    }
    mj_http_free(h);
    free(body);
}

TEST("requests one after another share a connection")
{
    server *s = start(answer_all);
    mj_http *h = client(4);

    for (int i = 0; i < 20; i++)
        CHECK_INT(outcome(h, post(url_of(s), "{}", i % 2)), MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->accepted), 1);
    CHECK_INT(counted(s, &s->bodies), 20);
    mj_http_free(h);
}

TEST("proxies of the environment are not asked")
{
    static const char *const names[] = {"http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"};
    server *s = start(answer_all);
    mj_http *h;

    unsetenv("no_proxy");
    unsetenv("NO_PROXY");
    for (int i = 0; i < 5; i++)
        setenv(names[i], "http://127.0.0.1:1/", 1);
    h = client(1);
    CHECK_INT(outcome(h, post(url_of(s), "{}", true)), MJ_HTTP_ANSWERED);
    mj_http_free(h);
}

TEST("programs that this process starts inherit no connection")
{
    server *s = start(answer_all);
    mj_http *h = client(1);
    DIR *dir;
    int ours = 0;

    CHECK_INT(outcome(h, post(url_of(s), "{}", true)), MJ_HTTP_ANSWERED);
    dir = opendir("/proc/self/fd");
    CHECK(dir != NULL);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        struct sockaddr_in a = {0};
        socklen_t n = sizeof a;
        int fd = atoi(e->d_name);
        if (getpeername(fd, (struct sockaddr *)&a, &n) == 0 && ntohs(a.sin_port) == s->port) {
            CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
            ours++;
        }
    }
    closedir(dir);
    CHECK_INT(ours, 1);
    mj_http_free(h);
}

TEST("a forked child has connections of its own, and the parent's go on")
{
    server *s = start(answer_all);
    mj_http *h = client(1);
    int status;
    pid_t pid;

    CHECK_INT(outcome(h, post(url_of(s), "{}", true)), MJ_HTTP_ANSWERED);
    pid = fork();
    if (pid == 0) {
        bool ok = true;
        for (int i = 0; i < 3; i++)
            ok = ok && outcome(h, post(url_of(s), "{}", true)) == MJ_HTTP_ANSWERED;
        mj_http_free(h);
        if (ok) /* what was the parent's is lost here, and no leak checker shall ask */
            execlp("true", "true", (char *)NULL);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    CHECK_INT(counted(s, &s->accepted), 2);
    CHECK_INT(outcome(h, post(url_of(s), "{}", true)), MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->accepted), 2);
    pid = fork();
    if (pid == 0) { /* that never used it */
        mj_http_free(h);
        execlp("true", "true", (char *)NULL);
    }
    waitpid(pid, &status, 0);
    CHECK_INT(outcome(h, post(url_of(s), "{}", true)), MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->accepted), 2);
    mj_http_free(h);
}

/* ---- answers ---- */

static const char *text; /* said by the server, or a status line for `status_of_path` */

static void say_text(conn *c)
{
    while (read_request(c))
        say(c, text);
}

static void say_text_and_close(conn *c)
{
    if (read_request(c))
        say(c, text);
}

TEST("a complete answer is an answer, whatever its status")
{
    static const struct {
        const char *text, *body;
        int status;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "{}", 200},
        {"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", "{}", 200},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", NULL, 200},
        {"HTTP/1.1 204 No Content\r\n\r\n", NULL, 204},
        {"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", NULL, 302},
        {"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 1\r\n\r\nx", "x", 401},
        {"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n", NULL, 408},
        {"HTTP/1.1 417 Unexpected\r\nContent-Length: 0\r\n\r\n", NULL, 417},
        {"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", NULL, 429},
        {"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\noops", "oops", 500},
        {"HTTP/1.1 503 Oh\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n",
         "abcde", 503},
        {"HTTP/1.1 599 Oh\r\nContent-Length: 0\r\n\r\n", NULL, 599},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 2\r\n\r\nok", "ok", 201},
        {"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200},
        {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nzz", "zz", 200},
    };
    server *s = start(say_text);
    mj_http *h = client(1);

    for (int i = 0; i < (int)(sizeof cases / sizeof cases[0]); i++) {
        text = cases[i].text;
        for (int once = 0; once < 2; once++) {
            mj_http_answer a = ask(h, post(url_of(s), "{}", once));
            fprintf(stderr, "%d %s: %s\n", i, text, a.error);
            CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
            CHECK_INT(a.status, cases[i].status);
            CHECK_STR(a.body, cases[i].body);
            CHECK_INT(a.body_len, cases[i].body ? strlen(cases[i].body) : 0);
            CHECK(a.elapsed_ms >= 0 && a.elapsed_ms < 5000);
            mj_http_answer_clear(&a, 1);
            CHECK(a.body == NULL && a.body_len == 0);
        }
        CHECK_INT(counted(s, &s->bodies), 2 * i + 2); /* none was sent again */
    }
    mj_http_free(h);
}

TEST("an answer that ends with its connection is an answer")
{
    static const char *const texts[] = {"HTTP/1.0 200 OK\r\n\r\nhello", "HTTP/1.1 200 OK\r\n\r\nhello",
                                        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"};
    server *s = start(say_text_and_close);
    mj_http *h = client(1);

    for (int i = 0; i < 3; i++) {
        mj_http_answer a;
        text = texts[i];
        a = ask(h, post(url_of(s), "{}", true));
        CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
        CHECK_STR(a.body, "hello");
        mj_http_answer_clear(&a, 1);
    }
    CHECK_INT(counted(s, &s->accepted), 3);
    mj_http_free(h);
}

TEST("what a server says behind an answer is not the next request's")
{
    server *s = start(say_text);
    mj_http *h = client(1);
    mj_http_answer a;

    text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n";
    for (int i = 0; i < 5; i++) {
        a = ask(h, post(url_of(s), "{}", true));
        CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
        CHECK_INT(a.status, 200);
        mj_http_answer_clear(&a, 1);
    }
    CHECK_INT(counted(s, &s->bodies), 5);
    mj_http_free(h);
}

TEST("Retry-After may be seconds or a date, and what is neither is none")
{
    static const struct {
        const char *value;
        int64_t want;
    } cases[] = {
        {"120", 120},
        {"0", 0},
        {"  7  ", 7},
        {"007", 7},
        {"299.997", 300},
        {"299.000", 299},
        {" 0.001 ", 1},
        {"86399.5", 86400},
        {"5.", 5},
        {".5", -1},
        {"299,997", -1},
        {"1.2.3", -1},
        {"1e3", -1},
        {"0x10", -1},
        {"120, 60", -1},
        {"nan", -1},
        {"86400", 86400},
        {"86401", 86400},
        {"99999999999999999999999", 86400},
        {"-5", -1},
        {"+5", -1},
        {"soon", -1},
        {"", -1},
        {"5 minutes", -1},
        {"Fri, 31 Dec 1999 23:59:59 GMT", 0},
        {"Sun Nov  6 08:49:37 1994", 0},
        {"Tue, 31 Dec 2199 23:59:59 GMT", 86400},
        {"99999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999", -1},
    };
    char line[512], date[64];
    server *s = start(say_text);
    mj_http *h = client(1);
    mj_http_answer a;
    time_t t = time(NULL) + 100;
    struct tm tm;

    text = line;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(line, sizeof line, "HTTP/1.1 429 Slow\r\nretry-AFTER:%s\r\nContent-Length: 0\r\n\r\n", cases[i].value);
        a = ask(h, post(url_of(s), "{}", true));
        fprintf(stderr, "%s\n", cases[i].value);
        CHECK_INT(a.status, 429);
        CHECK_INT(a.retry_after, cases[i].want);
    }
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
    snprintf(line, sizeof line, "HTTP/1.1 503 Slow\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n", date);
    a = ask(h, post(url_of(s), "{}", true));
    CHECK(a.retry_after >= 90 && a.retry_after <= 100);
    mj_http_free(h);
}

TEST("Retry-After counts in the header of the answer only")
{
    static const char *const texts[] = {
        "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 Hints\r\nRetry-After: 9\r\n\r\nHTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 429 Slow\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nRetry-After: 9\r\n\r\n",
        "HTTP/1.1 429 Slow\r\nX-Retry-After: 9\r\nRetry-After-All: 9\r\nContent-Length: 16\r\n\r\nRetry-After: 9\r\n",
    };
    server *s = start(say_text);
    mj_http *h = client(1);

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        mj_http_answer a;
        text = texts[i];
        a = ask(h, post(url_of(s), "{}", true));
        CHECK_INT(a.status, 429);
        CHECK_INT(a.retry_after, -1);
        mj_http_answer_clear(&a, 1);
    }
    mj_http_free(h);
}

TEST("an answer from in front of the server is known by its header, one that broke off by its end")
{
    static const struct {
        const char *text;
        bool blocked, cut;
    } answers[] = {
        {"HTTP/1.1 403 No\r\ncf-mitigated: challenge\r\nContent-Length: 0\r\n\r\n", true, false},
        {"HTTP/1.1 403 No\r\nCF-Mitigated:challenge\r\nContent-Length: 2\r\n\r\nno", true, false},
        {"HTTP/1.1 403 No\r\nX-cf-mitigated: challenge\r\nContent-Length: 0\r\n\r\n", false, false},
        {"HTTP/1.1 403 No\r\nContent-Length: 15\r\n\r\ncf-mitigated: x", false, false},
        {"HTTP/1.1 103 Hints\r\ncf-mitigated: x\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", false, false},
        {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\"", false, true},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a", false, true},
        {"HTTP/1.1 200 OK\r\nContent-Le", false, false},
    };
    server *s = start(say_text_and_close);
    mj_http *h = client(1);

    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        mj_http_answer a;
        text = answers[i].text;
        a = ask(h, post(url_of(s), "{}", false));
        CHECK_INT(a.blocked, answers[i].blocked);
        CHECK_INT(a.cut, answers[i].cut);
        CHECK(!a.too_long);
        mj_http_answer_clear(&a, 1);
    }
    mj_http_free(h);
}

static void say_much(conn *c)
{
    char line[101];

    memset(line, 'x', 100);
    line[100] = '\0';
    while (read_request(c)) {
        if (c->s->stage == 0)
            say(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        else
            say(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        for (int i = 0; i < 1000; i++)
            say(c, line);
        if (c->s->stage)
            return;
    }
}

TEST("an answer may be as long as it may be and no longer: then it is maybe sent")
{
    mj_http_options o = {.max_answer = 100000};
    server *s = start(say_much);
    mj_http_answer a;

    for (; s->stage < 2; s->stage++) {
        mj_http *h;
        o.max_answer = 100000;
        h = mj_http_new(&o);
        a = ask(h, post(url_of(s), "{}", true));
        CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
        CHECK_INT(a.body_len, 100000);
        CHECK_INT(strlen(a.body), 100000);
        mj_http_answer_clear(&a, 1);
        mj_http_free(h);
        o.max_answer = 99999;
        h = mj_http_new(&o);
        for (int once = 0; once < 2; once++) {
            a = ask(h, post(url_of(s), "{}", once));
            CHECK_INT(a.outcome, MJ_HTTP_MAYBE_SENT);
            CHECK(strstr(a.error, "longer than it may be") != NULL);
            CHECK(a.too_long && !a.cut);
        }
        mj_http_free(h);
    }
}

/* ---- batches ---- */

TEST("an empty batch is done at once")
{
    mj_http *h = client(1);

    CHECK_INT(mj_http_perform(h, NULL, 0, 0, NULL), MJ_OK);
    mj_http_free(h);
    mj_http_free(NULL);
}

static void last_first(conn *c)
{
    static const int N = 8;
    char body[16];

    while (read_head(c)) {
        char *p;
        int mine;
        while (c->n < 1)
            if (!receive(c))
                return;
        p = c->buf;
        mine = p[0] - '0';
        drop(c, 1);
        count(c->s, &c->s->bodies);
        wait_for(c->s, &c->s->bodies, N);           /* all have come */
        wait_for(c->s, &c->s->stage, N - 1 - mine); /* and those behind me are answered */
        snprintf(body, sizeof body, "to %d", mine);
        reply(c, "200 OK", "", body);
        count(c->s, &c->s->stage);
    }
}

TEST("answers stand where their requests stood, whichever came first")
{
    server *s = start(last_first);
    mj_http *h = client(8);
    mj_http_request r[8];
    mj_http_answer a[8];
    char bodies[8][2], want[16];

    for (int i = 0; i < 8; i++) {
        bodies[i][0] = (char)('0' + i);
        bodies[i][1] = '\0';
        r[i] = post(url_of(s), bodies[i], i % 2);
    }
    CHECK_INT(mj_http_perform(h, r, 8, 0, a), MJ_OK);
    for (int i = 0; i < 8; i++) {
        snprintf(want, sizeof want, "to %d", i);
        CHECK_INT(a[i].outcome, MJ_HTTP_ANSWERED);
        CHECK_STR(a[i].body, want);
    }
    mj_http_answer_clear(a, 8);
    mj_http_free(h);
}

/* Answers a GET's number; one that ends with 7 is hung up on. */
static void answer_number(conn *c)
{
    char *end, *p;

    for (;;) {
        while (!c->buf || (end = strstr(c->buf, "\r\n\r\n")) == NULL)
            if (!receive(c))
                return;
        p = strchr(c->buf, '/') + 1;
        p[strcspn(p, " ")] = '\0';
        count(c->s, &c->s->heads);
        if (p[strlen(p) - 1] == '7')
            return;
        reply(c, "200 OK", "", p);
        drop(c, (size_t)(end + 4 - c->buf));
    }
}

static void batch(int connections, int n)
{
    struct rlimit few;
    server *s = start(answer_number);
    mj_http *h = client(connections);
    mj_http_request *r = calloc((size_t)n, sizeof *r);
    mj_http_answer *a = calloc((size_t)n, sizeof *a);
    char(*urls)[64] = calloc((size_t)n, sizeof *urls);

    CHECK(r && a && urls);
    /* The server's ends are in this process, too. (valgrind lets nobody set the limit.) */
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &few), 0);
    few.rlim_cur = 3 * 256 + 64;
    (void)!setrlimit(RLIMIT_NOFILE, &few);
    for (int i = 0; i < n; i++) {
        snprintf(urls[i], sizeof urls[i], "http://127.0.0.1:%d/%d", s->port, i);
        r[i] = post(urls[i], NULL, false);
    }
    CHECK_INT(mj_http_perform(h, r, (size_t)n, 0, a), MJ_OK);
    for (int i = 0; i < n; i++) {
        if (i % 10 == 7) {
            CHECK_INT(a[i].outcome, MJ_HTTP_MAYBE_SENT);
        } else {
            CHECK_INT(a[i].outcome, MJ_HTTP_ANSWERED);
            CHECK_STR(a[i].body, strrchr(urls[i], '/') + 1);
        }
    }
    CHECK(counted(s, &s->most_open) >= 1);
    fprintf(stderr, "%d connections, %d at most at a time\n", counted(s, &s->accepted), s->most_open);
    mj_http_answer_clear(a, (size_t)n);
    mj_http_free(h);
    free(r);
    free(a);
    free(urls);
}

TEST("256 requests go at once")
{
    batch(256, 256);
}

TEST("10,000 requests go over a few connections, and a tenth of them failing harms no other")
{
    batch(16, 10000);
}

static void *own_client(void *arg)
{
    server *s = arg;
    mj_http *h = client(2);
    intptr_t bad = 0;
    char url[64];

    snprintf(url, sizeof url, "http://127.0.0.1:%d/1", s->port);
    for (int i = 0; i < 50; i++) {
        mj_http_answer a;
        mj_http_request r = post(url, NULL, false);
        bad += mj_http_perform(h, &r, 1, 0, &a) != MJ_OK || a.outcome != MJ_HTTP_ANSWERED;
        mj_http_answer_clear(&a, 1);
    }
    mj_http_free(h);
    return (void *)bad;
}

TEST("threads have clients of their own")
{
    server *s = start(answer_number);
    pthread_t threads[6];
    void *bad;

    for (int i = 0; i < 6; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, own_client, s), 0);
    for (int i = 0; i < 6; i++) {
        pthread_join(threads[i], &bad);
        CHECK(bad == NULL);
    }
}

TEST("the clock goes on with the kernel's")
{
    struct timespec t;
    int64_t a = mj_http_clock(), b, c;

    clock_gettime(CLOCK_BOOTTIME, &t);
    b = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    c = mj_http_clock();
    CHECK(a > 0 && a <= b && b <= c);
}
