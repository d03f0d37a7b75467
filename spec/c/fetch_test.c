/* mj_fetch without a server of images: which URLs and addresses it goes to, and when it ends.  What it makes of answers
 * is in handlers_archive_spec.lua and handlers_archive_hostile_spec.lua, which have TLS. */
#include "download/transfer.h"
#include "http_help.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>

enum { LATER = 5000 };

static int64_t in(int ms)
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
        /* A spelling that libcurl does not read as an address is a name that nobody has; or no URL. */
        bool safe = r.outcome == MJ_FETCH_ADDRESS || r.outcome == MJ_FETCH_URL ||
                    (r.outcome == MJ_FETCH_NET && strstr(r.error, "resolve"));
        fprintf(stderr, "%d %s: %s\n", r.outcome, urls[i], r.error);
        if (!safe)
            MJ_TEST_FAIL("%s is connected to: %s", urls[i], r.error);
    }
}

TEST("a listener at a private address hears nothing, by whatever name, and of a public one on another port neither")
{
    int port, fd = bind_port(0, &port);
    char to[64], url[64];
    const char *connect_to[2] = {to, NULL};
    mj_fetch_options o = {.max_bytes = 1000, .connect_to = connect_to};

    CHECK_INT(listen(fd, 5), 0);
    snprintf(to, sizeof to, "img.example:443:127.0.0.1:%d", port);
    check_outcome(&o, "https://img.example/a", MJ_FETCH_ADDRESS);
    snprintf(to, sizeof to, "::localhost:%d", port);
    check_outcome(&o, "https://img.example/a", MJ_FETCH_ADDRESS);
    snprintf(to, sizeof to, "::[::1]:%d", port);
    check_outcome(&o, "https://img.example/a", MJ_FETCH_ADDRESS);
    snprintf(url, sizeof url, "https://127.0.0.1:%d/", port);
    check_outcome(&plain, url, MJ_FETCH_URL);
    snprintf(to, sizeof to, "img.example:443:8.8.8.8:22");
    check_outcome(&o, "https://img.example/a", MJ_FETCH_ADDRESS);
    CHECK_INT(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    CHECK_INT(accept(fd, NULL, NULL), -1);
    CHECK_INT(errno, EAGAIN);
}

/* ---- the hosts that are allowed ---- */

static void check_host(const char *allowed, const char *url, bool want)
{
    const char *hosts[] = {"cdn.example", allowed, NULL};
    const char *connect_to[] = {"::127.0.0.1:443", NULL}; /* so far and no further */
    mj_fetch_options o = {.max_bytes = 1000, .hosts = hosts, .connect_to = connect_to};

    check_outcome(&o, url, want ? MJ_FETCH_ADDRESS : MJ_FETCH_URL);
}

TEST("of hosts that are listed, only those are fetched from")
{
    check_host("img.example", "https://img.example/a", true);
    check_host("img.example", "https://IMG.Example/a", true);
    check_host("IMG.example", "https://img.example/a", true);
    check_host("img.example", "https://img.example./a", true);
    check_host("img.example", "https://img%2eexample/a", true);
    check_host("img.example", "https://cdn.example/a", true);
    check_host("img.example", "https://img.example../a", false);
    check_host("img.example", "https://a.img.example/a", false);
    check_host("img.example", "https://img.example.evil.example/a", false);
    check_host("img.example", "https://evilimg.example/a", false);
    check_host("img.example", "https://mg.example/a", false);
    check_host("img.example", "https://img.exampl/a", false);
    check_host("img.example", "https://evil.example/img.example", false);
    check_host("img.example", "https://evil.example/?@img.example", false);
    check_host("img.example", "https://evil.example#img.example", false);
    check_host("img.example", "https://img.example@evil.example/", false);
    check_host("img.example", "https://img_example/", false);
    check_host("img.example", "https://127.0.0.1/", false);
    check_host("img.example", "https://\xef\xbd\x89mg.example/", false); /* a wide i: libidn makes it one */
    check_host("img.example",
               "https://img\xe3\x80\x82"
               "example/",
               false);                               /* an ideographic full stop */
    check_host("127.0.0.1", "https://127.1/", true); /* by what it means */
}

TEST("a listed name that begins with a dot stands for all below it, not for itself")
{
    check_host(".example", "https://img.example/a", true);
    check_host(".example", "https://a.img.example./a", true);
    check_host(".img.example", "https://a.img.example/a", true);
    check_host(".img.example", "https://A.IMG.EXAMPLE/a", true);
    check_host(".img.example", "https://img.example/a", false);
    check_host(".img.example", "https://aimg.example/a", false);
    check_host(".img.example", "https://a.img.example.evil/a", false);
    check_host(".img.example", "https://.img.example/a", false);
    check_host(".img.example", "https://a.img.example../a", false);
    check_host(".", "https://img.example/a", false);
    check_host("", "https://img.example/a", false);
}

TEST("an empty list of hosts allows none")
{
    const char *hosts[] = {NULL};
    mj_fetch_options o = {.max_bytes = 1000, .hosts = hosts};

    check_outcome(&o, "https://127.0.0.1/", MJ_FETCH_URL);
}

/* ---- time ---- */

/* Connections are taken and never answered: it hangs in the handshake. */
static int deaf(char to[64])
{
    int port, fd = bind_port(0, &port);

    CHECK_INT(listen(fd, 100), 0);
    snprintf(to, 64, "::127.0.0.1:%d", port);
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
    char to[64];
    const char *connect_to[] = {to, NULL};
    mj_fetch_options o = {.max_bytes = 1000, .connect_to = connect_to, .allow_private = true, .connections = 3};
    mj_fetch_result r;
    bool given[10] = {false};
    mj_fetch *f;
    size_t index;
    int64_t begun, until;
    int before;

    deaf(to);
    f = mj_fetch_new(&o);
    for (int i = 0; i < 10; i++)
        CHECK_INT(add(f, i == 7 ? "http://img.example/" : "https://img.example/a"), i);
    before = open_fds();
    begun = mj_http_clock();
    until = begun + 300;
    CHECK_INT(mj_fetch_next(f, until, &index, &r), MJ_OK); /* at once: it needs no network */
    CHECK_INT(index, 7);
    CHECK_INT(r.outcome, MJ_FETCH_URL);
    CHECK(mj_http_clock() - begun < 250);
    for (int i = 0; i < 9; i++) {
        CHECK_INT(mj_fetch_next(f, until, &index, &r), MJ_OK);
        CHECK(index < 10 && index != 7 && !given[index]);
        given[index] = true;
        CHECK_INT(r.outcome, MJ_FETCH_TIME);
    }
    CHECK(mj_http_clock() >= until && mj_http_clock() < until + 2000);
    CHECK_INT(mj_fetch_next(f, until, &index, &r), MJ_ENOTFOUND);
    CHECK_INT(add(f, "https://img.example/a"), 10); /* and it can be used again */
    CHECK_INT(mj_fetch_next(f, in(100), &index, &r), MJ_OK);
    CHECK_INT(index, 10);
    CHECK_INT(r.outcome, MJ_FETCH_TIME);
    mj_fetch_free(f);
    CHECK(open_fds() <= before + 1); /* its file */
}

TEST("deadlines that are over, and those of the end of time, are deadlines")
{
    char to[64];
    const char *connect_to[] = {to, NULL};
    mj_fetch_options o = {
        .max_bytes = 1000, .connect_to = connect_to, .allow_private = true, .connect_timeout_ms = 300};
    static const int64_t over[] = {0, -1, INT64_MIN};
    mj_fetch_result r;
    size_t index;

    deaf(to);
    for (size_t i = 0; i < sizeof over / sizeof over[0]; i++) {
        mj_fetch *f = mj_fetch_new(&o);
        add(f, "https://img.example/a");
        CHECK_INT(mj_fetch_next(f, over[i], &index, &r), MJ_OK);
        CHECK_INT(r.outcome, MJ_FETCH_TIME);
        mj_fetch_free(f);
    }
    mj_fetch *f = mj_fetch_new(&o);
    add(f, "https://img.example/a");
    CHECK_INT(mj_fetch_next(f, INT64_MAX, &index, &r), MJ_OK);
    CHECK_INT(r.outcome, MJ_FETCH_NET); /* the handshake has a limit of its own */
    mj_fetch_free(f);
}

TEST("a name server that hangs holds nobody up beyond the deadline, nor does the end of a batch")
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
    _exit(0); /* the look-up still hangs, in a thread that nobody waits for: to a leak checker that is a leak */
}

TEST("a batch that is given up in the middle takes its connections along")
{
    char to[64];
    const char *connect_to[] = {to, NULL};
    mj_fetch_options o = {.max_bytes = 1000, .connect_to = connect_to, .allow_private = true};
    mj_fetch_result r;
    size_t index;
    int before;
    mj_fetch *f;

    deaf(to);
    result_of(&o, "https://img.example/a", 50); /* what libcurl opens once */
    before = open_fds();
    f = mj_fetch_new(&o);
    mj_fetch_request q = {.url = "https://img.example/a", .fd = 0};
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
    char to[64];
    const char *connect_to[] = {to, NULL};
    mj_fetch_options o = {.max_bytes = 1000, .connect_to = connect_to, .allow_private = true};
    mj_fetch *f;
    mj_fetch_result r;
    size_t index;
    int status;
    pid_t pid;

    snprintf(to, sizeof to, "::127.0.0.1:%d", srv->port);
    f = mj_fetch_new(&o);
    add(f, "https://img.example/a");
    add(f, "https://img.example:444/b");
    CHECK_INT(mj_fetch_next(f, in(LATER), &index, &r), MJ_OK);
    CHECK_INT(index, 1);
    pid = fork();
    if (pid == 0) {
        CHECK_INT(mj_fetch_next(f, in(LATER), &index, &r), MJ_OK); /* ended: not its own */
        CHECK_INT(r.outcome, MJ_FETCH_NET);
        CHECK_INT(mj_fetch_next(f, in(LATER), &index, &r), MJ_ENOTFOUND);
        mj_fetch_free(f);
        _exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    CHECK_INT(mj_fetch_next(f, in(300), &index, &r), MJ_OK); /* this one's goes on */
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
