/* mj_fetch without a server of images: which URLs and addresses it goes to, and when it ends.  What it makes of answers
 * is in handlers_archive_spec.lua and handlers_archive_hostile_spec.lua, which have TLS. */
#include "download/transfer.h"
#include "http_help.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>

enum { LATER = 5000 };

static int64_t in(int64_t ms)
{
    return mj_http_clock() + ms;
}

static int a_file(void)
{
    int fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600);

    CHECK(fd >= 0);
    return fd;
}

static size_t add(mj_fetch *f, const char *url)
{
    mj_fetch_request r = {.url = url, .fd = a_file()};
    size_t index = 999;

    CHECK_INT(mj_fetch_add(f, &r, &index), MJ_OK);
    return index;
}

static mj_fetch_result result_of(const mj_fetch_options *o, const char *url, int ms)
{
    mj_fetch *f = mj_fetch_new(o);
    mj_fetch_result r;
    size_t index = 999;

    CHECK(f != NULL);
    CHECK_INT(add(f, url), 0);
    CHECK_INT(mj_fetch_next(f, in(ms), &index, &r), MJ_OK);
    CHECK_INT(index, 0);
    CHECK_INT(r.received, 0);
    CHECK_INT(r.status, 0);
    CHECK_INT(r.retry_after, -1);
    CHECK_INT(mj_fetch_next(f, in(ms), &index, &r), MJ_ENOTFOUND);
    mj_fetch_free(f);
    return r;
}

static void check_outcome(const mj_fetch_options *o, const char *url, mj_fetch_outcome want)
{
    mj_fetch_result r = result_of(o, url, LATER);

    if (r.outcome != want)
        MJ_TEST_FAIL("%s: outcome %d, not %d: %s", url, r.outcome, want, r.error);
    CHECK((r.error[0] == '\0') == (want == MJ_FETCH_DONE));
}

static const mj_fetch_options plain = {.max_bytes = 1000};

/* ---- URLs ---- */

TEST("URLs that are not https on port 443, or have a user, are not fetched")
{
    static const char *const urls[] = {
        "",
        "x",
        "/a",
        "//8.8.8.8/a",
        "8.8.8.8/a",
        "https:",
        "https://",
        "https:8.8.8.8/a",
        "http://8.8.8.8/a",
        "HTTP://8.8.8.8/",
        "ftp://8.8.8.8/a",
        "ftps://8.8.8.8/a",
        "file:///etc/passwd",
        "file://8.8.8.8/etc/passwd",
        "gopher://8.8.8.8/",
        "dict://8.8.8.8/",
        "ldap://8.8.8.8/",
        "smb://8.8.8.8/a",
        "scp://8.8.8.8/a",
        "ws://8.8.8.8/",
        "wss://8.8.8.8/",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "https://8.8.8.8:80/a",
        "https://8.8.8.8:8443/",
        "https://8.8.8.8:0/",
        "https://8.8.8.8:65979/",
        "https://8.8.8.8:4294967739/",
        "https://8.8.8.8:-443/",
        "https://8.8.8.8:443x/",
        "https://8.8.8.8: 443/",
        "https://user@8.8.8.8/",
        "https://user:password@8.8.8.8/",
        "https://:@8.8.8.8/",
        "https://@8.8.8.8/",
        "https://8.8.8.8@127.0.0.1/",
        "https://8.8.8.8:443@127.0.0.1/",
        "https://8.8.8.8\\@127.0.0.1/",
        "https://8.8.8.8 /a",
        " https://8.8.8.8/a",
        "https://8.8.8.8/a b",
        "https://8.8.8.8/a\r\nHost: x",
        "https://8.8.8.8/\t",
        "https://8.8.8.8/\x7f",
        "https://8.8.8.8\n.example/",
        "https://[8.8.8.8/",
        "https://8.8.8.8]/",
        "https://[::1",
        "https://[]/",
        "https://[g::1]/",
        "https://a%00b/",
        "https://a%2fb/",
        "https://a%0d%0ab/",
        "https://a,b/",
        "https://a<b/",
        "https://\"a\"/",
        "https://{a}/",

        "https://?a",
        "https://#a",

    };

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++)
        check_outcome(&plain, urls[i], MJ_FETCH_URL);
}

TEST("a URL that is too long is not fetched")
{
    char url[9000];

    memset(url, 'a', sizeof url);
    memcpy(url, "https://127.0.0.1/", 18);
    url[8193] = '\0';
    check_outcome(&plain, url, MJ_FETCH_URL);
    url[8192] = '\0';
    check_outcome(&plain, url, MJ_FETCH_ADDRESS);
}

TEST("every way to write an address that is not public ends at that address, not connected to")
{
    static const char *const urls[] = {
        "https://127.0.0.1/",
        "https://127.1/",
        "https://127.0.1/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://017700000001/",
        "https://0177.0.0.1/",
        "https://127.0.0.1./",
        "https://127.0.0.1:443/",
        "https://127.0.0.1:0443/",
        "HTTPS://127.0.0.1/",
        "https://%31%32%37.0.0.1/",
        "https://0/",
        "https://0.0.0.0/",
        "https://10.1.2.3/",
        "https://192.168.0.1/",
        "https://169.254.169.254/",
        "https://0xa9fea9fe/",
        "https://2852039166/",
        "https://100.100.100.200/",
        "https://255.255.255.255/",
        "https://224.0.0.1/",
        "https://[::1]/",
        "https://[::]/",
        "https://[0:0:0:0:0:0:0:1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[::ffff:8.8.8.8]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[64:ff9b:1::1]/",
        "https://[2002:7f00:1::]/",
        "https://[2001::1]/",
        "https://[fe80::1]/",
        "https://[fe80::1%25lo]/",
        "https://[fe80::1%25]/",
        "https://[::1%25lo]/",
        "https://[fd00:ec2::254]/",
        "https://[ff02::1]/",
        "https://[2001:db8::1]/",
        "https://localhost/",
        "https://LOCALHOST/",
        "https://localhost./",
        "https://a.localhost/",
        "https://127.0.0.1/#@8.8.8.8",
        "https://127.0.0.1?@8.8.8.8/",
        "https://127.0.0.1#8.8.8.8",
    };

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        mj_fetch_result r = result_of(&plain, urls[i], LATER);
        /* A spelling that libcurl does not read as an address is a name that does not exist; or no URL. */
        bool safe = r.outcome == MJ_FETCH_ADDRESS || r.outcome == MJ_FETCH_URL ||
                    (r.outcome == MJ_FETCH_NET && strstr(r.error, "resolve"));
        fprintf(stderr, "%d %s: %s\n", r.outcome, urls[i], r.error);
        if (!safe)
            MJ_TEST_FAIL("%s is connected to: %s", urls[i], r.error);
    }
}

TEST("a listener at a private address hears nothing, by whatever name")
{
    int port, fd = bind_port(0, &port);
    char url[64];

    CHECK_INT(listen(fd, 5), 0);
    check_outcome(&plain, "https://localhost/a", MJ_FETCH_ADDRESS);
    check_outcome(&plain, "https://img.localhost/a", MJ_FETCH_ADDRESS);
    check_outcome(&plain, "https://[::1]/a", MJ_FETCH_ADDRESS);
    snprintf(url, sizeof url, "https://127.0.0.1:%d/", port);
    check_outcome(&plain, url, MJ_FETCH_URL);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    check_outcome(&plain, url, MJ_FETCH_URL);
    CHECK_INT(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    CHECK_INT(accept(fd, NULL, NULL), -1);
    CHECK_INT(errno, EAGAIN);
}

TEST("with `loopback`, http and any port are for loopback addresses alone")
{
    static const char *const forbidden[] = {
        "http://8.8.8.8/a",    "http://8.8.8.8:443/a",   "https://8.8.8.8:22/a",
        "https://10.0.0.1/a",  "http://10.0.0.1:8080/a", "http://169.254.169.254/a",
        "http://0.0.0.0:80/a", "http://[::]:80/a",       "http://[::ffff:127.0.0.1]:80/a",
        "http://[fe80::1]/a"};
    static const char *const urls[] = {"ftp://127.0.0.1/a", "file:///etc/passwd", "http://user@127.0.0.1/a"};
    mj_fetch_options o = {.max_bytes = 1000, .loopback = true, .connect_timeout_ms = 300};
    char url[64];
    int port, fd = bind_port(0, &port);

    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++)
        check_outcome(&o, forbidden[i], MJ_FETCH_ADDRESS);
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++)
        check_outcome(&o, urls[i], MJ_FETCH_URL);
    CHECK_INT(listen(fd, 5), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/a", port);
    CHECK_INT(result_of(&o, url, 200).outcome, MJ_FETCH_TIME); /* connected to, and not answered */
    snprintf(url, sizeof url, "http://img.localhost:%d/a", port);
    CHECK_INT(result_of(&o, url, 200).outcome, MJ_FETCH_TIME);
    CHECK(accept(fd, NULL, NULL) >= 0 && accept(fd, NULL, NULL) >= 0);
}

/* ---- the hosts that are allowed ---- */

static void check_host(const char *allowed, const char *url, bool want)
{
    const char *hosts[] = {"cdn.localhost", allowed, NULL};
    mj_fetch_options o = {.max_bytes = 1000, .hosts = hosts};
    mj_fetch_result r = result_of(&o, url, LATER);

    /* An allowed one is looked up, and refused then: names below localhost are this machine's. */
    if ((r.outcome != MJ_FETCH_URL) != want)
        MJ_TEST_FAIL("%s, allowed %s: outcome %d: %s", url, allowed, r.outcome, r.error);
}

TEST("of hosts that are listed, only those are fetched from")
{
    check_host("img.localhost", "https://img.localhost/a", true);
    check_host("img.localhost", "https://IMG.Localhost/a", true);
    check_host("IMG.localhost", "https://img.localhost/a", true);
    check_host("img.localhost", "https://img.localhost./a", true);
    check_host("img.localhost", "https://img%2elocalhost/a", true);
    check_host("img.localhost", "https://cdn.localhost/a", true);
    check_host("img.localhost", "https://img.localhost../a", false);
    check_host("img.localhost", "https://a.img.localhost/a", false);
    check_host("img.localhost", "https://img.localhost.evil.localhost/a", false);
    check_host("img.localhost", "https://evilimg.localhost/a", false);
    check_host("img.localhost", "https://mg.localhost/a", false);
    check_host("img.localhost", "https://img.localhos/a", false);
    check_host("img.localhost", "https://evil.localhost/img.localhost", false);
    check_host("img.localhost", "https://evil.localhost/?@img.localhost", false);
    check_host("img.localhost", "https://evil.localhost#img.localhost", false);
    check_host("img.localhost", "https://img.localhost@evil.localhost/", false);
    check_host("img.localhost", "https://img_localhost/", false);
    check_host("img.localhost", "https://127.0.0.1/", false);
    check_host("img.localhost", "https://\xef\xbd\x89mg.localhost/", false); /* a wide i: libidn makes it one */
    check_host("img.localhost",
               "https://img\xe3\x80\x82"
               "localhost/",
               false);                               /* an ideographic full stop */
    check_host("127.0.0.1", "https://127.1/", true); /* by what it means */
}

TEST("a listed name that begins with a dot stands for all below it, not for itself")
{
    check_host(".localhost", "https://img.localhost/a", true);
    check_host(".localhost", "https://a.img.localhost./a", true);
    check_host(".img.localhost", "https://a.img.localhost/a", true);
    check_host(".img.localhost", "https://A.IMG.LOCALHOST/a", true);
    check_host(".img.localhost", "https://img.localhost/a", false);
    check_host(".img.localhost", "https://aimg.localhost/a", false);
    check_host(".img.localhost", "https://a.img.localhost.evil/a", false);
    check_host(".img.localhost", "https://.img.localhost/a", false);
    check_host(".img.localhost", "https://a.img.localhost../a", false);
    check_host(".", "https://img.localhost/a", false);
    check_host("", "https://img.localhost/a", false);
}

TEST("an empty list of hosts allows none")
{
    const char *hosts[] = {NULL};
    mj_fetch_options o = {.max_bytes = 1000, .hosts = hosts};

    check_outcome(&o, "https://127.0.0.1/", MJ_FETCH_URL);
}

/* ---- time ---- */

/* Connections are taken and never answered: it hangs in the handshake. */
static int deaf(char url[64])
{
    int port, fd = bind_port(0, &port);

    CHECK_INT(listen(fd, 100), 0);
    snprintf(url, 64, "https://127.0.0.1:%d/a", port);
    return fd;
}

static int open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

TEST("at its deadline everything ends, what runs and what waits, each once, and nothing stays open")
{
    char url[64];
    mj_fetch_options o = {.max_bytes = 1000, .loopback = true, .connections = 3, .connect_timeout_ms = 60000};
    mj_fetch_result r;
    bool given[10] = {false};
    mj_fetch *f;
    size_t index;
    int64_t begun, until;
    int before;

    deaf(url);
    f = mj_fetch_new(&o);
    for (int i = 0; i < 10; i++)
        CHECK_INT(add(f, i == 7 ? "ftp://127.0.0.1/" : url), i);
    before = open_fds();
    begun = mj_http_clock();
    until = begun + 1000;
    CHECK_INT(mj_fetch_next(f, until, &index, &r), MJ_OK); /* at once: it needs no network */
    CHECK_INT(index, 7);
    CHECK_INT(r.outcome, MJ_FETCH_URL);
    CHECK(mj_http_clock() - begun < 900);
    for (int i = 0; i < 9; i++) {
        CHECK_INT(mj_fetch_next(f, until, &index, &r), MJ_OK);
        CHECK(index < 10 && index != 7 && !given[index]);
        given[index] = true;
        CHECK_INT(r.outcome, MJ_FETCH_TIME);
    }
    CHECK(mj_http_clock() >= until && mj_http_clock() < until + mj_test_ms(8000));
    CHECK_INT(mj_fetch_next(f, until, &index, &r), MJ_ENOTFOUND);
    CHECK_INT(add(f, url), 10); /* and it can be used again */
    CHECK_INT(mj_fetch_next(f, in(100), &index, &r), MJ_OK);
    CHECK_INT(index, 10);
    CHECK_INT(r.outcome, MJ_FETCH_TIME);
    mj_fetch_free(f);
    CHECK(open_fds() <= before + 1); /* its file */
}

TEST("deadlines that are over, and those of the end of time, are deadlines")
{
    char url[64];
    mj_fetch_options o = {.max_bytes = 1000, .loopback = true, .connect_timeout_ms = 300};
    static const int64_t over[] = {0, -1, INT64_MIN};
    mj_fetch_result r;
    size_t index;

    deaf(url);
    for (size_t i = 0; i < sizeof over / sizeof over[0]; i++) {
        mj_fetch *f = mj_fetch_new(&o);
        add(f, url);
        CHECK_INT(mj_fetch_next(f, over[i], &index, &r), MJ_OK);
        CHECK_INT(r.outcome, MJ_FETCH_TIME);
        mj_fetch_free(f);
    }
    mj_fetch *f = mj_fetch_new(&o);
    add(f, url);
    CHECK_INT(mj_fetch_next(f, INT64_MAX, &index, &r), MJ_OK);
    CHECK_INT(r.outcome, MJ_FETCH_NET); /* the handshake has a limit of its own */
    mj_fetch_free(f);
}

TEST("a name server that hangs delays nothing beyond the deadline, nor does the end of a batch")
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr = {htonl(0x7f000036)}};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    FILE *conf = fopen("resolv.conf", "w");
    mj_fetch_result r;
    int64_t begun;

    CHECK(conf != NULL);
    fprintf(conf, "nameserver 127.0.0.54\noptions timeout:20 attempts:1\n");
    fclose(conf);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("resolv.conf", "/etc/resolv.conf", "none", MS_BIND, NULL) != 0 ||
        bind(fd, (struct sockaddr *)&a, sizeof a) != 0)
        SKIP("no right to be the name server");
    begun = mj_http_clock();
    r = result_of(&plain, "https://nobody.example.org/", 300);
    CHECK_INT(r.outcome, MJ_FETCH_TIME);
    CHECK(mj_http_clock() - begun >= 290 && mj_http_clock() - begun < 3000);
    _exit(0); /* the look-up still hangs, in a thread that is not waited for: to a leak checker that is a leak */
}

TEST("a batch that is given up in the middle takes its connections along")
{
    char url[64];
    mj_fetch_options o = {.max_bytes = 1000, .loopback = true};
    mj_fetch_result r;
    size_t index;
    int before;
    mj_fetch *f;

    deaf(url);
    result_of(&o, url, 50); /* what libcurl opens once */
    before = open_fds();
    f = mj_fetch_new(&o);
    mj_fetch_request q = {.url = url, .fd = 0};
    for (int i = 0; i < 4; i++)
        CHECK_INT(mj_fetch_add(f, &q, &index), MJ_OK);
    q.url = "https://127.0.0.1:1/";
    CHECK_INT(mj_fetch_add(f, &q, &index), MJ_OK);
    CHECK_INT(mj_fetch_next(f, in(LATER), &index, &r), MJ_OK);
    mj_fetch_free(f);
    mj_fetch_free(NULL);
    CHECK_INT(open_fds(), before);
}

static void talk(conn *c)
{
    while (receive(c))
        count(c->s, &c->s->bodies);
}

TEST("a process forked from one with downloads says nothing on its connections, whatever it does with the batch")
{
    server *srv = start(talk);
    char url[64];
    mj_fetch_options o = {.max_bytes = 1000, .loopback = true};
    mj_fetch *f;
    mj_fetch_result r;
    size_t index;
    int status;
    pid_t pid;

    snprintf(url, sizeof url, "https://127.0.0.1:%d/a", srv->port);
    f = mj_fetch_new(&o);
    add(f, url);
    add(f, "ftp://127.0.0.1/b");
    CHECK_INT(mj_fetch_next(f, in(LATER), &index, &r), MJ_OK);
    CHECK_INT(index, 1);
    pid = fork();
    if (pid == 0) {
        CHECK_INT(mj_fetch_next(f, in(LATER), &index, &r), MJ_OK); /* ended: not its own */
        CHECK_INT(r.outcome, MJ_FETCH_NET);
        CHECK_INT(mj_fetch_next(f, in(LATER), &index, &r), MJ_ENOTFOUND);
        mj_fetch_free(f);
        raise(SIGKILL); /* valgrind would call a leak what a fork leaves alone */
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, SIGKILL);
    CHECK_INT(mj_fetch_next(f, in(mj_test_ms(500)), &index, &r), MJ_OK); /* this one's goes on */
    CHECK_INT(r.outcome, MJ_FETCH_TIME);
    CHECK_INT(counted(srv, &srv->accepted), 1);
    mj_fetch_free(f);
}

TEST("the bytes that are in the file already are told when nothing comes to them")
{
    mj_fetch_request q = {.url = "https://127.0.0.1/", .fd = a_file(), .have = 500, .etag = "\"a\""};
    mj_fetch *f = mj_fetch_new(&plain);
    mj_fetch_result r;
    size_t index;

    CHECK_INT(ftruncate(q.fd, 500), 0);
    CHECK_INT(mj_fetch_add(f, &q, &index), MJ_OK);
    CHECK_INT(mj_fetch_next(f, in(LATER), &index, &r), MJ_OK);
    CHECK_INT(r.outcome, MJ_FETCH_ADDRESS);
    CHECK_INT(r.bytes, 500);
    CHECK_INT(lseek(q.fd, 0, SEEK_END), 500);
    mj_fetch_free(f);
}
