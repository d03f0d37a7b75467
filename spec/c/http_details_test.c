/* mj_http: what an answer tells beside, when it is asked for.  What it tells of certificates is in doctor_web_spec.lua.
 */
#include "http_help.h"

static void answer_dated(conn *c)
{
    while (read_request(c))
        reply(c, "200 OK", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "{}");
}

static void send_away(conn *c)
{
    while (read_request(c))
        reply(c, "307 Temporary Redirect", "Location: /v2/jobs?token=" KEY "#" KEY "\r\n", "");
}

static void say_nothing(conn *c)
{
    hold(c);
}

static void break_off(conn *c)
{
    if (read_request(c))
        hang_up(c, true);
}

static void answer_plainly(conn *c)
{
    if (receive(c))
        reply(c, "400 Bad Request", "", "");
}

static mj_http_answer ask_details(mj_http *h, mj_http_request r)
{
    r.details = true;
    return ask(h, r);
}

TEST("details are there when asked for, and only then")
{
    server *s = start(answer_dated);
    mj_http *h = client(1);
    mj_http_answer a = ask(h, post(url_of(s), "{}", false));

    CHECK(a.details == NULL);
    mj_http_answer_clear(&a, 1);
    for (int once = 0; once < 2; once++) {
        a = ask_details(h, post(url_of(s), "{}", once));
        CHECK(a.details != NULL);
        CHECK(a.details->failure == NULL);
        CHECK_INT(a.details->date, 784111777);
        CHECK_STR(a.details->ip, "127.0.0.1");
        CHECK(a.details->total_us > 0 && a.details->total_us < 5000000);
        CHECK_STR(a.details->location, "");
        CHECK_INT(a.details->certs, 0);
        mj_http_answer_clear(&a, 1);
        CHECK(a.details == NULL);
    }
    mj_http_free(h);
}

TEST("a redirect's place is told without its query and fragment")
{
    server *s = start(send_away);
    mj_http *h = client(1);
    mj_http_answer a = ask_details(h, post(url_of(s), "{}", false));
    char place[64];

    snprintf(place, sizeof place, "http://127.0.0.1:%d/v2/jobs", s->port);
    CHECK_INT(a.status, 307);
    CHECK_STR(a.details->location, place);
    CHECK_INT(a.details->date, 0);
    mj_http_answer_clear(&a, 1);
    mj_http_free(h);
}

static void fails(mj_http *h, mj_http_request r, const char *failure)
{
    mj_http_answer a = ask_details(h, r);

    CHECK(a.outcome != MJ_HTTP_ANSWERED);
    CHECK(a.details != NULL);
    CHECK_STR(a.details->failure, failure);
    CHECK_STR(a.details->location, "");
    mj_http_answer_clear(&a, 1);
}

TEST("a failure has a kind")
{
    mj_http *h = client(1);
    char url[64];
    int port, fd = bind_port(0, &port);

    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    fails(h, post(url, "{}", false), "connect");
    fails(h, post("http://no-such-host.invalid/", "{}", false), "dns");
    close(fd);
    mj_http_free(h);
}

TEST("no answer in time is a timeout, whether libcurl or the deadline says so")
{
    server *s = start(say_nothing);
    mj_http *h = client(1);
    mj_http_request r = post(url_of(s), "{}", false);
    mj_http_answer a;

    r.timeout_ms = 50;
    fails(h, r, "timeout");
    r.timeout_ms = 0;
    r.details = true;
    CHECK_INT(mj_http_perform(h, &r, 1, mj_http_clock() + 50, &a), MJ_OK);
    CHECK(a.details != NULL);
    CHECK_STR(a.details->failure, "timeout");
    mj_http_answer_clear(&a, 1);
    mj_http_free(h);
}

TEST("a connection that breaks is of another kind, and so is a port without TLS")
{
    server *s = start(break_off);
    mj_http *h = client(1);
    char url[64];

    fails(h, post(url_of(s), "{}", true), "other");
    snprintf(url, sizeof url, "https://127.0.0.1:%d/", s->port);
    s->serve = answer_plainly;
    fails(h, post(url, "{}", true), "tls");
    mj_http_free(h);
}

TEST("authorities that can't be read are told apart")
{
    server *s = start(say_nothing);
    mj_http_options o = {.connections = 1, .timeout_ms = 5000, .ca_file = "/nowhere/ca.pem"};
    mj_http *h = mj_http_new(&o);
    char url[64];

    CHECK(h != NULL);
    snprintf(url, sizeof url, "https://127.0.0.1:%d/", s->port);
    fails(h, post(url, "{}", false), "authorities");
    mj_http_free(h);
}
