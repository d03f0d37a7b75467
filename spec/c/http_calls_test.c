/* mj_http: requests that are started one by one; each ends by itself, while others go on. */
#include "http_help.h"

#include <sys/wait.h>

static const char BODY[] = "{\"prompt\":\"a fox\"}";

/* The first connection's answer waits until the test has counted up `stage`. */
static void hold_first(conn *c)
{
    while (read_request(c)) {
        if (c->nth == 1)
            wait_for(c->s, &c->s->stage, 1);
        reply(c, "200 OK", "", "{}");
    }
}

static void start_all(mj_http *h, server *s, mj_http_call *calls, int n)
{
    for (int i = 0; i < n; i++) {
        calls[i] = (mj_http_call){.req = post(url_of(s), BODY, true)};
        CHECK_INT(mj_http_start(h, &calls[i]), MJ_OK);
    }
}

static int ended(const mj_http_call *calls, int n)
{
    int count_of = 0;

    for (int i = 0; i < n; i++)
        count_of += calls[i].ended;
    return count_of;
}

static void clear(mj_http_call *calls, int n)
{
    for (int i = 0; i < n; i++)
        mj_http_answer_clear(&calls[i].answer, 1);
}

TEST("a slow answer holds back no other request")
{
    server *s = start(hold_first);
    mj_http *h = client(2);
    mj_http_call calls[6];

    start_all(h, s, calls, 6);
    CHECK_INT(ended(calls, 6), 0);
    while (ended(calls, 6) < 5)
        mj_http_wait(h, INT64_MAX);
    CHECK(!calls[0].ended || !calls[1].ended); /* the first two have the connections, and one of them has the first */
    CHECK_INT(counted(s, &s->accepted), 2);
    count(s, &s->stage);
    while (ended(calls, 6) < 6)
        mj_http_wait(h, INT64_MAX);
    for (int i = 0; i < 6; i++) {
        CHECK_INT(calls[i].answer.outcome, MJ_HTTP_ANSWERED);
        CHECK_STR(calls[i].answer.body, "{}");
    }
    CHECK_INT(counted(s, &s->heads), 6);
    clear(calls, 6);
    mj_http_free(h);
}

TEST("waiting ends at its time, when what could begin has begun")
{
    server *s = start(hold_first);
    mj_http *h = client(1);
    mj_http_call calls[2];
    int64_t began;

    start_all(h, s, calls, 2);
    began = mj_http_clock();
    while (counted(s, &s->heads) < 1)
        mj_http_wait(h, mj_http_clock() + 10);
    CHECK(mj_http_clock() - began < 4000);
    CHECK_INT(ended(calls, 2), 0);
    mj_http_wait(h, 0); /* a time that is over */
    CHECK_INT(ended(calls, 2), 0);
    count(s, &s->stage);
    while (ended(calls, 2) < 2)
        mj_http_wait(h, INT64_MAX);
    mj_http_wait(h, INT64_MAX); /* nothing is under way: it returns */
    clear(calls, 2);
    mj_http_free(h);
}

TEST("a call that is cut off tells whether it may have arrived")
{
    server *s = start(hold_first);
    mj_http *h = client(1);
    mj_http_call calls[3];

    start_all(h, s, calls, 3);
    while (counted(s, &s->bodies) < 1)
        mj_http_wait(h, mj_http_clock() + 10);
    mj_http_cut(h, &calls[1], "no time");
    mj_http_cut(h, &calls[0], "no time");
    CHECK(calls[0].ended && calls[1].ended && !calls[2].ended);
    CHECK_INT(calls[0].answer.outcome, MJ_HTTP_MAYBE_SENT);
    CHECK_INT(calls[1].answer.outcome, MJ_HTTP_NOT_SENT);
    CHECK(strstr(calls[0].answer.error, "no time") && strstr(calls[1].answer.error, "no time before it was begun"));
    mj_http_cut(h, &calls[0], "again");
    CHECK(strstr(calls[0].answer.error, "no time") != NULL);
    while (!calls[2].ended) /* on a connection of its own */
        mj_http_wait(h, INT64_MAX);
    CHECK_INT(calls[2].answer.outcome, MJ_HTTP_ANSWERED);
    clear(calls, 3);
    mj_http_free(h);
}

TEST("a batch goes through the same client while calls are under way, and leaves them alone")
{
    server *s = start(hold_first);
    mj_http *h = client(2);
    mj_http_request r[3];
    mj_http_answer a[3];
    mj_http_call call;

    start_all(h, s, &call, 1);
    while (counted(s, &s->bodies) < 1)
        mj_http_wait(h, mj_http_clock() + 10);
    for (int i = 0; i < 3; i++)
        r[i] = post(url_of(s), BODY, true);
    CHECK_INT(mj_http_perform(h, r, 3, 0, a), MJ_OK);
    for (int i = 0; i < 3; i++)
        CHECK_INT(a[i].outcome, MJ_HTTP_ANSWERED);
    CHECK(!call.ended);
    mj_http_answer_clear(a, 3);
    mj_http_free(h); /* which ends it */
    CHECK(call.ended);
    CHECK_INT(call.answer.outcome, MJ_HTTP_MAYBE_SENT);
    clear(&call, 1);
}

TEST("after a fork the child neither sends nor reads what its parent has under way")
{
    server *s = start(hold_first);
    mj_http *h = client(1);
    mj_http_call calls[2];
    int status;
    pid_t pid;

    start_all(h, s, calls, 2);
    while (counted(s, &s->bodies) < 1)
        mj_http_wait(h, mj_http_clock() + 10);
    pid = fork();
    if (pid == 0) {
        mj_http_wait(h, INT64_MAX);
        CHECK(calls[0].ended && calls[1].ended);
        CHECK_INT(calls[0].answer.outcome, MJ_HTTP_MAYBE_SENT);
        CHECK_INT(calls[1].answer.outcome, MJ_HTTP_NOT_SENT);
        mj_test_leave();
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    count(s, &s->stage);
    while (ended(calls, 2) < 2)
        mj_http_wait(h, INT64_MAX);
    CHECK_INT(calls[0].answer.outcome, MJ_HTTP_ANSWERED);
    CHECK_INT(calls[1].answer.outcome, MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->bodies), 2);
    clear(calls, 2);
    mj_http_free(h);
}
