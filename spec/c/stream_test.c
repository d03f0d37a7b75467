/* mj_stream: bytes both ways, deadlines, ends.  TLS is in handlers_redis_spec.lua, against a real server. */
#include "http_help.h"
#include "net/stream.h"

#include <dirent.h>

enum { LATER = 5000, SOON = 100 };

static int64_t in(int ms)
{
    return mj_http_clock() + ms;
}

static mj_stream *open_to(const server *s)
{
    mj_stream_target t = {.host = "127.0.0.1", .port = s->port};
    mj_stream *out;
    char why[MJ_STREAM_WHY];

    CHECK_INT(mj_stream_open(&t, in(LATER), &out, why), MJ_OK);
    CHECK(out != NULL);
    return out;
}

/* Why it could not be opened. */
static const char *not_open(const char *host, int port, bool tls, int ms, int code)
{
    static char why[MJ_STREAM_WHY];
    mj_stream_target t = {.host = host, .port = port, .tls = tls};
    mj_stream *out = (mj_stream *)why;

    why[0] = '\0';
    CHECK_INT(mj_stream_open(&t, in(ms), &out, why), code);
    CHECK(out == NULL);
    CHECK(why[0] != '\0');
    return why;
}

/* Until there are n bytes, or what came instead of more. */
static int receive_all(mj_stream *s, char *to, size_t n)
{
    while (n > 0) {
        size_t got;
        int rc = mj_stream_recv(s, to, n, in(LATER), &got);
        if (rc != MJ_OK)
            return rc;
        CHECK(got > 0);
        to += got;
        n -= got;
    }
    return MJ_OK;
}

static void echo(conn *c)
{
    while (receive(c)) {
        CHECK_INT(send(c->fd, c->buf, c->n, MSG_NOSIGNAL), c->n);
        c->n = 0;
    }
}

TEST("bytes of any kind go out and come back, call after call")
{
    static const char bytes[] = "PING\r\n\0\xff\x01";
    server *srv = start(echo);
    mj_stream *s = open_to(srv);
    char got[sizeof bytes];

    for (int i = 0; i < 100; i++) {
        memset(got, 0, sizeof got);
        CHECK_INT(mj_stream_send(s, bytes, sizeof bytes, in(LATER)), MJ_OK);
        CHECK_INT(receive_all(s, got, sizeof got), MJ_OK);
        CHECK_MEM(got, bytes, sizeof bytes);
    }
    CHECK_INT(counted(srv, &srv->accepted), 1);
    mj_stream_close(s);
}

static void count_bytes(conn *c)
{
    size_t n = 0;
    while (receive(c)) {
        n += c->n;
        c->n = 0;
        usleep(500);
    }
    CHECK_INT(n, 8 << 20);
    count(c->s, &c->s->stage);
}

TEST("all of a large text is sent, also to a server that reads slowly")
{
    server *srv = start(count_bytes);
    mj_stream *s = open_to(srv);
    char *text = calloc(1, 8 << 20);

    CHECK_INT(mj_stream_send(s, text, 8 << 20, in(LATER)), MJ_OK);
    mj_stream_close(s);
    wait_for(srv, &srv->stage, 1);
    free(text);
}

static void silent(conn *c)
{
    char byte;

    while (recv(c->fd, &byte, 1, MSG_PEEK) > 0)
        usleep(10000);
}

TEST("a server that reads and sends nothing is waited for until the deadline, not longer")
{
    mj_stream *s = open_to(start(silent));
    char *text = calloc(1, 32 << 20), byte;
    int64_t begun = mj_http_clock();
    size_t got = 7;

    CHECK_INT(mj_stream_recv(s, &byte, 1, in(SOON), &got), MJ_OK);
    CHECK_INT(got, 0);
    CHECK(mj_http_clock() - begun >= SOON - 1 && mj_http_clock() - begun < 2000);
    begun = mj_http_clock();
    CHECK_INT(mj_stream_send(s, text, 32 << 20, in(SOON)), MJ_EIO);
    CHECK(strstr(mj_stream_why(s), "127.0.0.1:") != NULL);
    CHECK(strstr(mj_stream_why(s), "out of time") != NULL);
    CHECK(mj_http_clock() - begun >= SOON - 1 && mj_http_clock() - begun < 2000);
    mj_stream_close(s);
    free(text);
}

static void sip(conn *c)
{
    char byte[512];

    while (recv(c->fd, byte, sizeof byte, 0) > 0)
        usleep(1000);
}

TEST("a server that takes a little all the time is not sent to beyond the deadline")
{
    mj_stream *s = open_to(start(sip));
    char *text = calloc(1, 64 << 20);
    int64_t begun = mj_http_clock();

    CHECK_INT(mj_stream_send(s, text, 64 << 20, in(300)), MJ_EIO);
    CHECK(mj_http_clock() - begun < 3000);
    mj_stream_close(s);
    free(text);
}

static void greet(conn *c)
{
    say(c, "hello");
    count(c->s, &c->s->stage);
    hold(c);
}

TEST("what is there is given also when the time is up, and nothing is no error")
{
    server *srv = start(greet);
    mj_stream *s = open_to(srv);
    char got[8];
    size_t n = 0;

    wait_for(srv, &srv->stage, 1);
    for (int i = 0; n == 0 && i < 500; i++, usleep(1000)) /* it is said, and may still be on its way */
        CHECK_INT(mj_stream_recv(s, got, sizeof got, 0, &n), MJ_OK);
    CHECK_INT(n, 5);
    CHECK_MEM(got, "hello", 5);
    CHECK_INT(mj_stream_recv(s, got, sizeof got, 0, &n), MJ_OK);
    CHECK_INT(n, 0);
    mj_stream_close(s);
}

static void drip(conn *c)
{
    for (const char *p = "slowly"; *p; p++) {
        send(c->fd, p, 1, MSG_NOSIGNAL);
        usleep(20000);
    }
}

TEST("bytes that come one by one are given as they come; then the end is told, again and again")
{
    mj_stream *s = open_to(start(drip));
    char got[8];
    size_t n = 1;

    CHECK_INT(receive_all(s, got, 6), MJ_OK);
    CHECK_MEM(got, "slowly", 6);
    CHECK_INT(mj_stream_recv(s, got, sizeof got, in(LATER), &n), MJ_ECLOSED);
    CHECK_INT(n, 0);
    CHECK(strstr(mj_stream_why(s), "closed") != NULL);
    CHECK_INT(mj_stream_recv(s, got, sizeof got, in(LATER), &n), MJ_ECLOSED);
    mj_stream_close(s);
}

static void reset(conn *c)
{
    receive(c);
    hang_up(c, true);
}

TEST("a connection that is reset is an error, for the reader and the writer, and no signal")
{
    server *srv = start(reset);
    mj_stream *s = open_to(srv);
    char byte;
    size_t n;
    int rc = MJ_OK;

    signal(SIGPIPE, SIG_DFL);
    CHECK_INT(mj_stream_send(s, "x", 1, in(LATER)), MJ_OK);
    CHECK_INT(mj_stream_recv(s, &byte, 1, in(LATER), &n), MJ_EIO);
    CHECK(strstr(mj_stream_why(s), "127.0.0.1:") != NULL);
    for (int i = 0; rc == MJ_OK && i < 10; i++)
        rc = mj_stream_send(s, "x", 1, in(LATER));
    CHECK_INT(rc, MJ_EIO);
    mj_stream_close(s);
}

TEST("no listener, no such name, no host or port at all: not open, and why")
{
    int port, fd = bind_port(0, &port); /* nobody listens, and nobody else gets the port */
    char where[32];

    snprintf(where, sizeof where, "127.0.0.1:%d: ", port);
    CHECK(strncmp(not_open("127.0.0.1", port, false, LATER, MJ_EIO), where, strlen(where)) == 0);
    not_open("127.0.0.1", port, true, LATER, MJ_EIO);
    not_open("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggggg.invalid", 1, false, LATER, MJ_EIO);
    not_open("127.0.0.1", 0, false, LATER, MJ_EINVAL);
    not_open("127.0.0.1", 65536, false, LATER, MJ_EINVAL);
    not_open("127.0.0.1", -1, false, LATER, MJ_EINVAL);
    not_open("", 1, false, LATER, MJ_EINVAL);
    not_open("exa mple", 1, false, LATER, MJ_EINVAL);
    not_open("a\r\nb", 1, false, LATER, MJ_EINVAL);
    not_open("user@127.0.0.1", port, false, LATER, MJ_EINVAL);
    not_open("127.0.0.1/path", port, false, LATER, MJ_EINVAL);
    close(fd);
}

TEST("a connection that is never accepted, and one whose handshake is never answered, end at the deadline")
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int port, fd = bind_port(0, &port), filler[3];
    server *srv = start(hold);
    int64_t begun = mj_http_clock();

    CHECK_INT(listen(fd, 0), 0);
    a.sin_port = htons((uint16_t)port);
    for (int i = 0; i < 3; i++) {
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(filler[i], (struct sockaddr *)&a, sizeof a);
    }
    not_open("127.0.0.1", port, false, 200, MJ_EIO);
    CHECK(mj_http_clock() - begun >= 190 && mj_http_clock() - begun < 3000);
    begun = mj_http_clock();
    not_open("127.0.0.1", srv->port, true, 200, MJ_EIO);
    CHECK(mj_http_clock() - begun >= 190 && mj_http_clock() - begun < 3000);
    CHECK_INT(counted(srv, &srv->accepted), 1);
    CHECK(strstr(not_open("127.0.0.1", srv->port, false, -1, MJ_EIO), "out of time") != NULL);
    CHECK_INT(counted(srv, &srv->accepted), 1);
}

static void not_tls(conn *c)
{
    receive(c);
    say(c, "-ERR what is that?\r\n");
}

TEST("a server that answers a TLS handshake with something else is not connected to")
{
    not_open("127.0.0.1", start(not_tls)->port, true, LATER, MJ_EIO);
}

TEST("a proxy of the environment is not used")
{
    server *srv = start(echo);
    char got[3];
    mj_stream *s;

    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("all_proxy", "http://127.0.0.1:1", 1);
    s = open_to(srv);
    CHECK_INT(mj_stream_send(s, "abc", 3, in(LATER)), MJ_OK);
    CHECK_INT(receive_all(s, got, 3), MJ_OK);
    mj_stream_close(s);
}

TEST("after a fork the child's copy is closed, and the parent's goes on")
{
    server *srv = start(echo);
    mj_stream *s = open_to(srv);
    char got[3];
    size_t n;
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        CHECK_INT(mj_stream_send(s, "child", 5, in(LATER)), MJ_ECLOSED);
        CHECK_INT(mj_stream_recv(s, got, 1, in(LATER), &n), MJ_ECLOSED);
        mj_stream_close(s);
        mj_test_leave();
    }
    CHECK(pid > 0);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    CHECK_INT(mj_stream_send(s, "abc", 3, in(LATER)), MJ_OK);
    CHECK_INT(receive_all(s, got, 3), MJ_OK);
    CHECK_MEM(got, "abc", 3);
    mj_stream_close(s);
}

/* Connections that this process has open, or that a program started by it would have.  libcurl's own pair of sockets,
 * to nobody, is left out. */
static int connections(bool kept_by_exec)
{
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;
    int n = 0;

    while ((e = readdir(d)) != NULL) {
        struct sockaddr_storage a;
        socklen_t size = sizeof a;
        int fd = atoi(e->d_name);
        if (e->d_name[0] != '.' && getpeername(fd, (struct sockaddr *)&a, &size) == 0 && a.ss_family == AF_INET)
            n += !kept_by_exec || !(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    }
    closedir(d);
    return n;
}

TEST("its socket is closed with it, and is not left to programs that are started")
{
    server *srv = start(hold);
    mj_stream *s = open_to(srv);

    wait_for(srv, &srv->accepted, 1);
    CHECK_INT(connections(false), 2); /* the server's side is here, too */
    CHECK_INT(connections(true), 1);
    mj_stream_close(s);
    for (int i = 0; connections(false) > 0 && i < 500; i++)
        usleep(1000);
    CHECK_INT(connections(false), 0);
    mj_stream_close(NULL);
}
