/* mj_http: requests that are started one by one; each ends by itself, while others go on. */
#include "http_help.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
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

static void answer_all(conn *c)
{
    while (read_request(c))
        reply(c, "200 OK", "", "{}");
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
    mj_http_wait_for(h, &(mj_http_pause){0}); /* a thread goes on with them */
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
    mj_http_wait_for(h, &(mj_http_pause){0}); /* a thread goes on with them */
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

TEST("requests go on while their caller does something else")
{
    server *s = start(answer_all);
    mj_http *h = client(1);
    mj_http_call calls[5];

    start_all(h, s, calls, 2);
    mj_http_wait_for(h, &(mj_http_pause){0});
    wait_for(s, &s->bodies, 2); /* the second one begins by itself */
    start_all(h, s, calls + 2, 3);
    mj_http_wait_for(h, &(mj_http_pause){0}); /* those before may have ended, and the thread with them */
    wait_for(s, &s->bodies, 5);
    while (ended(calls, 5) < 5)
        mj_http_wait(h, INT64_MAX);
    for (int i = 0; i < 5; i++)
        CHECK_INT(calls[i].answer.outcome, MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->accepted), 1);
    clear(calls, 5);
    mj_http_free(h);
}

/* The third request's answer waits until the test has counted up `stage`. */
static void hold_third(conn *c)
{
    while (read_request(c)) {
        if (counted(c->s, &c->s->bodies) == 3)
            wait_for(c->s, &c->s->stage, 1);
        reply(c, "200 OK", "", "{}");
    }
}

TEST("answers gather until few requests are left to begin, or for a while")
{
    server *s = start(hold_third);
    mj_http *h = client(1);
    mj_http_call calls[6];
    int64_t began = mj_http_clock();

    start_all(h, s, calls, 6);
    mj_http_wait_for(h, &(mj_http_pause){.until_ms = INT64_MAX, .rest_ms = 50, .low = 1});
    CHECK_INT(ended(calls, 6), 2);
    CHECK(mj_http_clock() - began >= 50);
    count(s, &s->stage);
    mj_http_wait_for(h, &(mj_http_pause){.until_ms = INT64_MAX, .rest_ms = 60000, .low = 1});
    CHECK(ended(calls, 6) >= 4);
    mj_http_wait_for(h, &(mj_http_pause){.until_ms = mj_http_clock() + 60000, .rest_ms = 60000});
    while (ended(calls, 6) < 6)
        mj_http_wait(h, INT64_MAX);
    CHECK(mj_http_clock() - began < 5000);
    clear(calls, 6);
    mj_http_free(h);
}

static void refuse_second(conn *c)
{
    while (read_request(c))
        reply(c, "200 OK", "", counted(c->s, &c->s->bodies) == 2 ? "no" : "{}");
}

static bool is_not_no(const mj_http_answer *a)
{
    return strcmp(a->body, "no") != 0;
}

TEST("an answer that is not fine lets no other request begin before it was seen")
{
    server *s = start(refuse_second);
    mj_http *h = client(1);
    mj_http_call calls[6];

    for (int i = 0; i < 6; i++) {
        calls[i] = (mj_http_call){.req = post(url_of(s), BODY, true)};
        calls[i].req.is_fine = i < 5 ? is_not_no : NULL;
    }
    for (int i = 0; i < 4; i++)
        CHECK_INT(mj_http_start(h, &calls[i]), MJ_OK);
    mj_http_wait_for(h, &(mj_http_pause){0});
    while (!calls[1].ended) /* no wait: its caller does something else */
        wait_for(s, &s->bodies, 2);
    CHECK_INT(mj_http_start(h, &calls[4]), MJ_OK);
    mj_http_wait_for(h, &(mj_http_pause){.until_ms = INT64_MAX, .rest_ms = 60000});
    CHECK_INT(ended(calls, 5), 5);
    for (int i = 0; i < 5; i++)
        CHECK_INT(calls[i].answer.withdrawn, i >= 2);
    CHECK_INT(calls[3].answer.outcome, MJ_HTTP_NOT_SENT);
    CHECK_INT(counted(s, &s->heads), 2);
    for (int i = 2; i < 6; i++)
        CHECK_INT(mj_http_start(h, &calls[i]), MJ_OK);
    mj_http_withdraw(h); /* the last one asks for nothing, so it is not withdrawn */
    while (ended(calls, 6) < 6)
        mj_http_wait(h, INT64_MAX);
    CHECK(calls[2].answer.withdrawn && calls[4].answer.withdrawn);
    CHECK_INT(calls[5].answer.outcome, MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->heads), 3);
    clear(calls, 6);
    mj_http_free(h);
}

static atomic_int handled;

static void on_signal(int number)
{
    (void)number;
    handled++;
}

TEST("a signal reaches no thread of the client")
{
    sigset_t user, pending;
    mj_http *h = client(1);
    mj_http_call call;
    server *s;

    sigemptyset(&user);
    sigaddset(&user, SIGUSR1);
    CHECK_INT(pthread_sigmask(SIG_BLOCK, &user, NULL), 0); /* the server's threads block it, too */
    CHECK(signal(SIGUSR1, on_signal) != SIG_ERR);
    s = start(hold_first);
    CHECK_INT(pthread_sigmask(SIG_UNBLOCK, &user, NULL), 0);
    start_all(h, s, &call, 1);
    mj_http_wait_for(h, &(mj_http_pause){0});
    CHECK_INT(pthread_sigmask(SIG_BLOCK, &user, NULL), 0);
    CHECK_INT(kill(getpid(), SIGUSR1), 0);
    wait_for(s, &s->bodies, 1); /* its thread is at work */
    CHECK_INT(sigpending(&pending), 0);
    CHECK(sigismember(&pending, SIGUSR1));
    CHECK_INT(handled, 0);
    mj_http_free(h);
    CHECK(call.ended);
    clear(&call, 1);
}

static bool no_thread;

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg)
{
    int (*make)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

    *(void **)&make = dlsym(RTLD_NEXT, "pthread_create");
    return no_thread ? EAGAIN : make(t, a, run, arg);
}

TEST("where no thread can be made requests go on within each wait")
{
    server *s = start(answer_all);
    mj_http *h = client(1);
    mj_http_call calls[12];

    start_all(h, s, calls, 2);
    while (ended(calls, 2) < 2) /* from here on the server makes no thread, either */
        mj_http_wait(h, INT64_MAX);
    no_thread = true;
    start_all(h, s, calls + 2, 10);
    while (ended(calls, 12) < 12)
        mj_http_wait_for(h, &(mj_http_pause){.until_ms = mj_http_clock() + 1, .rest_ms = 2, .low = 3});
    for (int i = 0; i < 12; i++)
        CHECK_INT(calls[i].answer.outcome, MJ_HTTP_ANSWERED);
    CHECK_INT(counted(s, &s->bodies), 12);
    clear(calls, 12);
    mj_http_free(h);
}

TEST("a request that can't be made has ended at once")
{
    server *s = start(answer_all);
    mj_http *h = client(2);
    const char *headers[] = {"X-Bad: a\r\nX-Worse: b", NULL};
    mj_http_request bad = post(url_of(s), BODY, true);
    mj_http_answer answer;
    int64_t begun = mj_http_clock();

    bad.headers = headers;
    CHECK_INT(mj_http_perform(h, &bad, 1, 0, &answer), MJ_OK);
    CHECK_INT(answer.outcome, MJ_HTTP_NOT_SENT);
    CHECK(mj_http_clock() - begun < mj_test_ms(500));
    mj_http_free(h);
}
