/* mj_http: what was sent, and that nothing is sent twice. */
#include "http_help.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/mount.h>

static const char BODY[] = "{\"prompt\":\"a fox\"}";

static void answer_all(conn *c)
{
    while (read_request(c))
        reply(c, "200 OK", "", "{}");
}

/* Stands before libc's own, for libcurl, too. */
static void (*before_head)(void);
static bool (*before_body)(void); /* false: the kernel has no room just now */

__attribute__((visibility("default"))) ssize_t send(int fd, const void *p, size_t n, int flags)
{
    if (before_head && n > 4 && memcmp(p, "POST", 4) == 0)
        before_head();
    if (before_body && n >= sizeof BODY - 1 && memcmp(p, BODY, sizeof BODY - 1) == 0 && !before_body()) {
        errno = EAGAIN;
        return -1;
    }
    return sendto(fd, p, n, flags, NULL, 0);
}

/* ---- never arrived ---- */

TEST("a refused connection is not sent")
{
    mj_http *h = client(1);
    char url[64];
    int port, fd = bind_port(0, &port); /* nobody listens, and nobody else gets the port */
    mj_http_answer a;

    snprintf(url, sizeof url, "http://127.0.0.1:%d/?" KEY, port);
    for (int once = 0; once < 2; once++) {
        a = ask(h, post(url, BODY, once));
        CHECK_INT(a.outcome, MJ_HTTP_NOT_SENT);
        CHECK(strstr(a.error, "127.0.0.1") != NULL);
        CHECK_INT(outcome(h, post(url, NULL, once)), MJ_HTTP_NOT_SENT);
    }
    close(fd);
    mj_http_free(h);
}

TEST("a name that does not resolve is not sent")
{
    /* A label that is too long: that needs no name server to fail. */
    static const char url[] = "http://aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggggg.invalid/";
    mj_http *h = client(1);

    CHECK_INT(outcome(h, post(url, BODY, true)), MJ_HTTP_NOT_SENT);
    CHECK_INT(outcome(h, post(url, BODY, false)), MJ_HTTP_NOT_SENT);
    mj_http_free(h);
}

TEST("a name server that hangs delays nothing beyond the timeout")
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr = {htonl(0x7f000036)}};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    FILE *f = fopen("resolv.conf", "w");
    mj_http_request r = post("http://nobody.example.org/", BODY, true);
    mj_http *h = client(1);
    mj_http_answer answer;

    CHECK(f != NULL);
    fprintf(f, "nameserver 127.0.0.54\noptions timeout:20 attempts:1\n");
    fclose(f);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("resolv.conf", "/etc/resolv.conf", "none", MS_BIND, NULL) != 0 ||
        bind(fd, (struct sockaddr *)&a, sizeof a) != 0)
        SKIP("no right to be the name server");
    r.timeout_ms = 300;
    answer = ask(h, r);
    CHECK_INT(answer.outcome, MJ_HTTP_NOT_SENT);
    CHECK(answer.elapsed_ms >= 290 && answer.elapsed_ms < 5000);
    mj_http_free(h);
    _exit(0); /* the look-up still hangs, in a thread that nobody waits for: to a leak checker that is a leak */
}

TEST("a connection that is never accepted is not sent")
{
    mj_http_options o = {.connect_timeout_ms = 200};
    mj_http *h = mj_http_new(&o);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int port, fd = bind_port(0, &port), filler[3];
    char url[64];
    mj_http_answer answer;

    /* Two wait in a queue of one, so that the handshake of a third is dropped. */
    CHECK_INT(listen(fd, 0), 0);
    a.sin_port = htons((uint16_t)port);
    for (int i = 0; i < 3; i++) {
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(filler[i], (struct sockaddr *)&a, sizeof a);
    }
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    answer = ask(h, post(url, BODY, true));
    CHECK_INT(answer.outcome, MJ_HTTP_NOT_SENT);
    CHECK(answer.elapsed_ms >= 190 && answer.elapsed_ms < 4000);
    mj_http_free(h);
}

TEST("a bad URL, another protocol or a header of two lines is not sent, and stops no other request")
{
    static const char *const two_lines[] = {"X: 1\r\nAPI-KEY: mine", NULL};
    server *s = start(answer_all);
    mj_http *h = client(1);
    mj_http_request r[6];
    mj_http_answer a[6];

    r[0] = post("http://exa mple/?" KEY, BODY, true);
    r[1] = post("", BODY, true);
    r[2] = post("ftp://127.0.0.1/" KEY, BODY, true);
    r[3] = post("file:///etc/passwd", NULL, false);
    r[4] = post(url_of(s), BODY, true);
    r[4].headers = two_lines;
    r[5] = post(url_of(s), BODY, true);
    CHECK_INT(mj_http_perform(h, r, 6, 0, a), MJ_OK);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(a[i].outcome, MJ_HTTP_NOT_SENT);
        CHECK(a[i].error[0] != '\0' && !strstr(a[i].error, KEY));
    }
    CHECK(strstr(a[2].error, "not supported") && strstr(a[3].error, "not supported"));
    CHECK_INT(a[5].outcome, MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->heads), 1);
    mj_http_answer_clear(a, 6);
    mj_http_free(h);
}

TEST("a sender that comes too late sends nothing, not even a header")
{
    server *s = start(answer_all);
    mj_http *h = client(1);
    mj_http_request r = post(url_of(s), BODY, true);

    r.start_by_ms = mj_http_clock() - 1;
    CHECK_INT(outcome(h, r), MJ_HTTP_NOT_SENT);
    r.once = false;
    CHECK_INT(outcome(h, r), MJ_HTTP_NOT_SENT);
    r.body = NULL;
    CHECK_INT(outcome(h, r), MJ_HTTP_NOT_SENT);
    r = post(url_of(s), BODY, true);
    r.start_by_ms = mj_http_clock() + 60000;
    CHECK_INT(outcome(h, r), MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->heads), 1);
    mj_http_free(h);
}

static void stall(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 150000000}, NULL);
}

TEST("a sender that is stopped between header and body does not send the body")
{
    server *s = start(answer_all);
    mj_http *h = client(1);
    mj_http_request r = post(url_of(s), BODY, true);
    mj_http_answer a;

    before_head = stall;
    r.start_by_ms = mj_http_clock() + 100;
    a = ask(h, r);
    CHECK_INT(a.outcome, MJ_HTTP_NOT_SENT);
    CHECK(a.elapsed_ms >= 100);
    CHECK_INT(counted(s, &s->bodies), 0);
    mj_http_free(h);
}

static void never_answer(conn *c)
{
    read_request(c);
    hold(c);
}

TEST("a request that had to wait for others until it was too late is not sent")
{
    server *s = start(never_answer);
    mj_http *h = client(1);
    mj_http_request r[2] = {post(url_of(s), BODY, true), post(url_of(s), BODY, true)};
    mj_http_answer a[2];

    r[0].timeout_ms = 200;
    r[1].start_by_ms = mj_http_clock() + 100;
    CHECK_INT(mj_http_perform(h, r, 2, 0, a), MJ_OK);
    CHECK_INT(a[0].outcome, MJ_HTTP_MAYBE_SENT);
    CHECK_INT(a[1].outcome, MJ_HTTP_NOT_SENT);
    CHECK_INT(counted(s, &s->heads), 1);
    mj_http_free(h);
}

static const char *program(char *const argv[])
{
    static char line[256];
    int fds[2];
    FILE *f;

    CHECK_INT(pipe(fds), 0);
    if (fork() == 0) {
        dup2(fds[1], 1);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(fds[1]);
    f = fdopen(fds[0], "r");
    while (fgets(line, sizeof line, f) && strncmp(line, "ACCEPT", 6) != 0)
        ;
    return line; /* f stays open: the program may go on writing */
}

TEST("a server whose certificate no authority signed gets nothing, unless that is allowed")
{
    char *const make[] = {
        "openssl", "req",     "-x509", "-newkey", "rsa:2048", "-nodes",        "-keyout", "key.pem",
        "-out",    "crt.pem", "-days", "2",       "-subj",    "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
        "-batch",  NULL};
    char *const serve[] = {"openssl", "s_server", "-accept", "127.0.0.1:0", "-key",
                           "key.pem", "-cert",    "crt.pem", "-www",        NULL};
    const char *line, *port;
    mj_http_options o = {.timeout_ms = 5000};
    mj_http *h = mj_http_new(&o);
    mj_http_answer a;
    char url[64];

    program(make);
    if (access("crt.pem", R_OK) != 0)
        SKIP("no openssl program");
    line = program(serve);
    port = strrchr(line, ':');
    if (!port)
        SKIP("openssl does not say which port it took");
    snprintf(url, sizeof url, "https://127.0.0.1:%d/" KEY, atoi(port + 1));
    a = ask(h, post(url, BODY, true));
    fprintf(stderr, "%s\n", a.error);
    CHECK_INT(a.outcome, MJ_HTTP_NOT_SENT);
    CHECK(strstr(a.error, "certificate") != NULL);
    mj_http_free(h);
    o.insecure = true;
    h = mj_http_new(&o);
    CHECK_INT(outcome(h, post(url, NULL, false)), MJ_HTTP_ANSWERED);
    mj_http_free(h);
}

static void not_tls(conn *c)
{
    receive(c);
    say(c, "HTTP/1.1 400 This is no TLS\r\nContent-Length: 0\r\n\r\n");
}

TEST("where there is no TLS nothing is sent to an https URL")
{
    server *s = start(not_tls);
    mj_http *h = client(1);
    char url[64];

    snprintf(url, sizeof url, "https://127.0.0.1:%d/", s->port);
    CHECK_INT(outcome(h, post(url, BODY, true)), MJ_HTTP_NOT_SENT);
    mj_http_free(h);
}

TEST("right after an answer, on the same handle, a refused connection is still not sent")
{
    server *s = start(answer_all);
    mj_http *h = client(1);
    char url[64];
    int port, fd = bind_port(0, &port);

    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    CHECK_INT(outcome(h, post(url_of(s), BODY, false)), MJ_HTTP_ANSWERED);
    CHECK_INT(outcome(h, post(url, BODY, false)), MJ_HTTP_NOT_SENT);
    CHECK_INT(outcome(h, post(url, NULL, false)), MJ_HTTP_NOT_SENT);
    CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_ANSWERED);
    CHECK_INT(outcome(h, post(url, BODY, true)), MJ_HTTP_NOT_SENT);
    close(fd);
    mj_http_free(h);
}

/* ---- may have arrived ---- */

TEST("a server that never answers is maybe sent, when the timeout is over")
{
    server *s = start(never_answer);
    mj_http *h = client(1);
    mj_http_request r = post(url_of(s), BODY, true);
    mj_http_answer a;

    r.timeout_ms = 200;
    for (int i = 0; i < 3; i++) {
        r.once = i > 0;
        if (i == 2)
            r.body = NULL;
        a = ask(h, r);
        CHECK_INT(a.outcome, MJ_HTTP_MAYBE_SENT);
        CHECK(a.elapsed_ms >= 190 && a.elapsed_ms < 4000);
        CHECK(strstr(a.error, "timed out") != NULL);
        CHECK(strstr(a.error, "127.0.0.1") != NULL);
    }
    CHECK_INT(counted(s, &s->heads), 3);
    mj_http_free(h);
}

/* Not sooner than the body has begun: before that, the client may notice and be right that it sent nothing. */
static void cut_in_body(conn *c)
{
    read_head(c);
    while (c->n == 0 && receive(c))
        ;
    hang_up(c, true);
}

static void cut_after_body(conn *c)
{
    read_request(c);
    hang_up(c, c->nth % 2);
}

TEST("a connection that is cut when the body has begun, or behind it, is maybe sent and not sent again")
{
    server *s = start(cut_in_body);
    mj_http *h = client(1);

    CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_MAYBE_SENT);
    CHECK_INT(counted(s, &s->heads), 1);
    s->serve = cut_after_body; /* for the connections to come */
    for (int i = 1; i <= 4; i++) {
        CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_MAYBE_SENT);
        CHECK_INT(counted(s, &s->bodies), i);
    }
    CHECK_INT(counted(s, &s->accepted), 5);
    mj_http_free(h);
}

static void second_is_cut(conn *c)
{
    if (c->nth > 1) {
        answer_all(c);
        return;
    }
    if (!read_request(c))
        return;
    reply(c, "200 OK", "", "{}");
    if (read_request(c))
        hang_up(c, c->s->stage);
}

/* The test of tests: here libcurl, left to itself, sends the request again. */
static void cut_reused(bool hard, bool once)
{
    server *s = start(second_is_cut);
    mj_http *h = client(1);

    s->stage = hard;
    CHECK_INT(outcome(h, post(url_of(s), "{\"n\":1}", true)), MJ_HTTP_ANSWERED);
    CHECK_INT(outcome(h, post(url_of(s), "{\"n\":2}", once)), once ? MJ_HTTP_MAYBE_SENT : MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->bodies), once ? 2 : 3);
    CHECK_INT(counted(s, &s->heads), once ? 2 : 3);
    CHECK_INT(outcome(h, post(url_of(s), "{\"n\":3}", true)), MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->bodies), once ? 3 : 4);
    mj_http_free(h);
}

TEST("a kept connection that is closed behind the body gets the body once: maybe sent")
{
    cut_reused(false, true);
}

TEST("a kept connection that is reset behind the body gets the body once: maybe sent")
{
    cut_reused(true, true);
}

TEST("what may be sent twice is sent again when a kept connection is closed under it")
{
    cut_reused(false, false);
}

static atomic_int cut_at; /* the next second request on a connection is cut after so many bytes; -1: none is */

static void cut_second(conn *c)
{
    for (int i = 1; read_head(c); i++) {
        int at = i == 2 ? atomic_exchange(&cut_at, -1) : -1;
        if (at >= 0) {
            while (c->n < (size_t)at && receive(c))
                ;
            hang_up(c, true);
            return;
        }
        if (!read_body(c))
            return;
        reply(c, "200 OK", "", "{}");
    }
}

TEST("a large body that broke off on a kept connection is not begun again, nor gone on with on another")
{
    static const int after[] = {0, 1, 60000, 400000};
    size_t n = 16 << 20; /* more than the kernel takes for a reader that does not read */
    char *body = malloc(n + 1);
    server *s = start(cut_second);

    CHECK(body != NULL);
    memset(body, 'x', n);
    body[n] = '\0';
    for (int i = 0; i < 4; i++) {
        mj_http *h = client(1);
        int heads = counted(s, &s->heads), bodies = counted(s, &s->bodies);
        mj_http_outcome o;
        CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_ANSWERED);
        atomic_store(&cut_at, after[i]);
        o = outcome(h, post(url_of(s), body, true));
        if (o == MJ_HTTP_ANSWERED && after[i] == 0) {
            /* Cut before a byte of the body was taken: all of it went over another connection. */
            CHECK_INT(counted(s, &s->heads), heads + 3);
            CHECK_INT(counted(s, &s->bodies), bodies + 2);
        } else {
            /* Another connection may have been made, but nothing came over it. */
            CHECK_INT(o, MJ_HTTP_MAYBE_SENT);
            CHECK_INT(counted(s, &s->heads), heads + 2);
            CHECK_INT(counted(s, &s->bodies), bodies + 1);
        }
        CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_ANSWERED);
        mj_http_free(h);
    }
    free(body);
}

static server *choked;

static bool cut_then_no_room(void)
{
    before_body = NULL;
    count(choked, &choked->stage);
    wait_for(choked, &choked->closed, 1);
    return false;
}

static void cut_when_choked(conn *c)
{
    if (c->nth == 1 && read_request(c)) {
        reply(c, "200 OK", "", "{}");
        read_head(c);
        wait_for(c->s, &c->s->stage, 1);
        hang_up(c, true);
        return;
    }
    answer_all(c);
}

TEST("a body that libcurl took and could not write is not begun elsewhere without its beginning")
{
    mj_http *h = client(1);

    choked = start(cut_when_choked);
    CHECK_INT(outcome(h, post(url_of(choked), "{}", true)), MJ_HTTP_ANSWERED);
    before_body = cut_then_no_room;
    CHECK_INT(outcome(h, post(url_of(choked), BODY, true)), MJ_HTTP_MAYBE_SENT);
    CHECK(before_body == NULL);
    CHECK_INT(counted(choked, &choked->heads), 2);
    CHECK_INT(counted(choked, &choked->bodies), 1);
    mj_http_free(h);
}

static void answer_one(conn *c)
{
    if (read_request(c))
        reply(c, "200 OK", "", "{}");
    hang_up(c, c->s->stage);
}

TEST("a kept connection that the server closed meanwhile is replaced, and each request arrives once")
{
    server *s = start(answer_one);
    mj_http *h = client(1);

    for (int i = 1; i <= 6; i++) {
        CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_ANSWERED);
        wait_for(s, &s->closed, i);
        CHECK_INT(counted(s, &s->bodies), i);
        CHECK_INT(counted(s, &s->accepted), i);
    }
    mj_http_free(h);
}

static void answer_then_cut(conn *c)
{
    if (!read_request(c))
        return;
    reply(c, "200 OK", "", "{}");
    if (read_request(c))
        hang_up(c, c->s->stage);
}

static void is_not_trusted_again(bool hard)
{
    server *s = start(answer_then_cut);
    mj_http *h = client(1);

    s->stage = hard;
    CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_ANSWERED);
    CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_MAYBE_SENT);
    for (int i = 0; i < 6; i++)
        CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->bodies), 8);
    mj_http_free(h);
}

TEST("after a submission on a kept connection that was closed each later one has a connection of its own")
{
    is_not_trusted_again(false);
}

TEST("after a submission on a kept connection that was reset each later one has a connection of its own")
{
    is_not_trusted_again(true);
}

TEST("a connection that closes while it is used again never takes a request twice")
{
    server *s = start(cut_second);

    for (int i = 0; i < 200; i++) {
        mj_http *h = client(1);
        mj_http_outcome o;
        int bodies;
        CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_ANSWERED);
        bodies = counted(s, &s->bodies);
        atomic_store(&cut_at, 0); /* with the header: the crossing that no client can rule out */
        o = outcome(h, post(url_of(s), BODY, true));
        CHECK(o != MJ_HTTP_NOT_SENT);
        /* Answered: by another connection, since this one had taken no byte of the body. */
        CHECK_INT(counted(s, &s->bodies), bodies + (o == MJ_HTTP_ANSWERED));
        mj_http_free(h);
    }
}

TEST("a request without a body that must not be sent twice has a connection of its own")
{
    server *s = start(second_is_cut);
    mj_http *h = client(1);

    CHECK_INT(outcome(h, post(url_of(s), "", true)), MJ_HTTP_ANSWERED);
    CHECK_INT(outcome(h, post(url_of(s), "", true)), MJ_HTTP_ANSWERED);
    CHECK_INT(outcome(h, post(url_of(s), NULL, true)), MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->heads), 3);
    CHECK_INT(counted(s, &s->accepted), 3);
    mj_http_free(h);
}

TEST("a submission uses no connection that was idle for some seconds, a poll does")
{
    server *s = start(answer_all);
    mj_http *submits = client(1), *polls = client(1);

    for (int i = 0; i < 2; i++) {
        CHECK_INT(outcome(submits, post(url_of(s), BODY, true)), MJ_HTTP_ANSWERED);
        CHECK_INT(outcome(polls, post(url_of(s), BODY, false)), MJ_HTTP_ANSWERED);
    }
    CHECK_INT(counted(s, &s->accepted), 2);
    nanosleep(&(struct timespec){.tv_sec = 4, .tv_nsec = 100000000}, NULL); /* that they are idle is the point */
    CHECK_INT(outcome(polls, post(url_of(s), BODY, false)), MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->accepted), 2);
    CHECK_INT(outcome(submits, post(url_of(s), BODY, true)), MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->accepted), 3);
    mj_http_free(submits);
    mj_http_free(polls);
}

/* ---- answers that are none ---- */

static const char *broken;

static void say_broken(conn *c)
{
    if (read_request(c))
        say(c, broken);
    shutdown(c->fd, SHUT_WR); /* rather than a reset, which could overtake the text */
    hold(c);
}

TEST("an answer that is cut short, or is none, is maybe sent")
{
    static const char *const texts[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200",
        "HTTP/1.1 banana\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 000 Nothing\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2 2407 00\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "{\"status\":0,\"data\":{\"taskId\":\"x\"}}",
        "\r\n\r\n\r\n",
        "\x16\x03\x01\x02",
        "",
    };
    server *s = start(say_broken);

    for (int i = 0; i < (int)(sizeof texts / sizeof texts[0]); i++) {
        mj_http *h = client(1);
        broken = texts[i];
        fprintf(stderr, "%d %s\n", i, broken);
        CHECK_INT(outcome(h, post(url_of(s), BODY, true)), MJ_HTTP_MAYBE_SENT);
        CHECK_INT(outcome(h, post(url_of(s), BODY, false)), MJ_HTTP_MAYBE_SENT);
        CHECK_INT(counted(s, &s->bodies), 2 * i + 2);
        mj_http_free(h);
    }
}

/* ---- answers before the request was read ---- */

static void answer_head(conn *c)
{
    static const char *const status[] = {"401 Unauthorized", "200 OK", "503 Later"};

    if (!read_head(c))
        return;
    reply(c, status[c->s->stage], "", "{\"status\":1}");
    if (c->s->stage == 2) {
        hang_up(c, false); /* with what was not read unread: a reset */
        return;
    }
    wait_for(c->s, &c->s->closed, 1); /* reads nothing more */
}

TEST("an answer that comes before the body was read is an answer")
{
    size_t n = 8 << 20;
    char *body = malloc(n + 1);
    server *s = start(answer_head);
    mj_http *h = client(1);
    mj_http_request r;
    mj_http_answer a;

    CHECK(body != NULL);
    memset(body, 'x', n);
    body[n] = '\0';
    r = post(url_of(s), body, true);
    r.timeout_ms = 500; /* for the 200: libcurl goes on sending what nobody reads */
    for (s->stage = 0; s->stage < 2; s->stage++) {
        a = ask(h, r);
        CHECK_INT(a.outcome, MJ_HTTP_ANSWERED);
        CHECK_INT(a.status, s->stage ? 200 : 401);
        CHECK_STR(a.body, "{\"status\":1}");
        mj_http_answer_clear(&a, 1);
    }
    /* Here the reset may come before the answer was read. */
    CHECK(outcome(h, r) != MJ_HTTP_NOT_SENT);
    CHECK_INT(counted(s, &s->heads), 3);
    mj_http_free(h);
    free(body);
}

/* ---- deadlines ---- */

TEST("at the deadline those under way are cut off and those not begun are not sent")
{
    server *s = start(never_answer);
    mj_http *h = client(2);
    mj_http_request r[5];
    mj_http_answer a[5];
    int64_t began = mj_http_clock();

    for (int i = 0; i < 5; i++)
        r[i] = post(url_of(s), BODY, i % 2);
    CHECK_INT(mj_http_perform(h, r, 5, began + 300, a), MJ_OK);
    CHECK(mj_http_clock() - began >= 300 && mj_http_clock() - began < 4000);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(a[i].outcome, i < 2 ? MJ_HTTP_MAYBE_SENT : MJ_HTTP_NOT_SENT);
        CHECK(strstr(a[i].error, "out of time") != NULL && !strstr(a[i].error, KEY));
    }
    CHECK_INT(counted(s, &s->heads), 2);
    CHECK_INT(mj_http_perform(h, r, 5, mj_http_clock() - 1, a), MJ_OK); /* it was over before it began */
    for (int i = 0; i < 5; i++)
        CHECK_INT(a[i].outcome, MJ_HTTP_NOT_SENT);
    CHECK_INT(counted(s, &s->heads), 2);
    s->serve = answer_all;
    CHECK_INT(outcome(h, r[1]), MJ_HTTP_ANSWERED); /* and the client is as good as before */
    mj_http_free(h);
}
