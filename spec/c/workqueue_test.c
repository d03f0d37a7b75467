/* mj_workqueue: each piece of work is begun, or taken back by another thread, never both. */
#include "mj_test.h"
#include "thread/workqueue.h"

#include <pthread.h>
#include <stdatomic.h>

static mj_workqueue *queue(void)
{
    mj_workqueue *c = mj_workqueue_open("c", 1);

    CHECK(c != NULL);
    return c;
}

/* Fills it with pieces that say their number, from 0. */
static void fill(mj_workqueue *c, mj_buf *b, uint32_t count, int64_t now)
{
    b->n = 0;
    for (uint32_t i = 0; i < count; i++)
        mj_put_str(b, (mj_str){(const char *)&i, sizeof i});
    CHECK(!b->failed);
    mj_workqueue_fill(c, b, count, now);
}

static uint32_t number(mj_reader *r)
{
    mj_str s = mj_get_str(r);
    uint32_t i;

    CHECK(!r->bad);
    CHECK_INT(s.n, sizeof i);
    memcpy(&i, s.p, sizeof i);
    return i;
}

/* What is taken back has to be these. */
static void check_rest(mj_workqueue *c, int64_t before, uint32_t from, uint32_t to)
{
    mj_buf b = {0};
    mj_reader r;

    CHECK_INT(mj_workqueue_take_back(c, before, &b), to - from);
    r = mj_reader_of(b.p, b.n);
    for (uint32_t i = from; i < to; i++)
        CHECK_INT(number(&r), i);
    CHECK(r.p == r.end);
    mj_buf_free(&b);
}

TEST("gives back what was not begun, in its order, and it is begun no more")
{
    mj_workqueue *c = queue();
    mj_buf b = {0};

    fill(c, &b, 5, 100);
    CHECK(mj_workqueue_begin(c, 100));
    CHECK(mj_workqueue_begin(c, 100));
    check_rest(c, 101, 2, 5);
    CHECK(!mj_workqueue_begin(c, 102));
    check_rest(c, 200, 0, 0);
    mj_buf_free(&b);
    mj_workqueue_close(c);
}

TEST("gives back nothing while it goes on: the time counts from the last one that was begun")
{
    mj_workqueue *c = queue();
    mj_buf b = {0};

    fill(c, &b, 3, 100);
    check_rest(c, 100, 0, 0); /* laid out then, not before */
    CHECK(mj_workqueue_begin(c, 200));
    check_rest(c, 200, 0, 0);
    CHECK(mj_workqueue_begin(c, 300));
    check_rest(c, 300, 0, 0);
    check_rest(c, 301, 2, 3);
    mj_buf_free(&b);
    mj_workqueue_close(c);
}

TEST("gives back nothing of what was begun to the last, and nothing before anything was laid out")
{
    mj_workqueue *c = queue();
    mj_buf b = {0};

    check_rest(c, INT64_MAX, 0, 0);
    CHECK(!mj_workqueue_begin(c, 1));
    fill(c, &b, 1, 1);
    CHECK(mj_workqueue_begin(c, 1));
    CHECK(!mj_workqueue_begin(c, 1));
    check_rest(c, INT64_MAX, 0, 0);
    mj_buf_free(&b);
    mj_workqueue_close(c);
}

TEST("forgets what fill there when something new is laid out, and hands the buffer over")
{
    mj_workqueue *c = queue();
    mj_buf b = {0};
    uint8_t *first;

    fill(c, &b, 4, 1);
    CHECK(b.p == NULL);
    CHECK(mj_workqueue_begin(c, 1));
    fill(c, &b, 2, 1);
    first = b.p;
    CHECK(first != NULL);
    fill(c, &b, 3, 1);
    CHECK(b.p != first);
    check_rest(c, 2, 0, 3);
    mj_buf_free(&b);
    mj_workqueue_close(c);
}

TEST("is one for all in the process that say its name")
{
    mj_workqueue *a = queue(), *b = queue(), *other = mj_workqueue_open("d", 1);
    mj_buf buf = {0};

    fill(a, &buf, 3, 1);
    check_rest(other, 2, 0, 0);
    mj_workqueue_close(a);
    check_rest(b, 2, 0, 3);
    mj_workqueue_close(b);
    mj_workqueue_close(other);
    mj_workqueue_close(NULL);
    mj_buf_free(&buf);
}

TEST("appends what it gives back, and leaves it all where it is when there is no memory for that")
{
    mj_workqueue *c = queue();
    mj_buf b = {0}, out = {0};

    mj_put_u8(&out, 7);
    out.failed = true; /* as after an allocation that failed */
    fill(c, &b, 2, 1);
    CHECK_INT(mj_workqueue_take_back(c, 2, &out), 0);
    CHECK_INT(out.n, 1);
    CHECK(!out.failed);
    CHECK_INT(mj_workqueue_take_back(c, 2, &out), 2);
    CHECK_INT(out.p[0], 7);
    mj_buf_free(&b);
    mj_buf_free(&out);
    mj_workqueue_close(c);
}

enum { ROUNDS = 2000, PIECES = 50 };

static struct {
    mj_workqueue *c;
    atomic_uint begun, round, taken;
} race;

static void *taker(void *arg)
{
    mj_buf b = {0};

    (void)arg;
    while (atomic_load(&race.round) < ROUNDS) {
        b.n = 0;
        atomic_fetch_add(&race.taken, mj_workqueue_take_back(race.c, INT64_MAX, &b));
    }
    mj_buf_free(&b);
    return NULL;
}

TEST("lets each piece be begun or taken back, never both, while two threads are at it")
{
    pthread_t thread;
    mj_buf b = {0};
    uint64_t laid = 0;

    race.c = queue();
    CHECK(pthread_create(&thread, NULL, taker, NULL) == 0);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        unsigned before = atomic_load(&race.taken), begun = 0;
        fill(race.c, &b, PIECES, 1);
        laid += PIECES;
        while (mj_workqueue_begin(race.c, 1))
            begun++;
        atomic_fetch_add(&race.begun, begun);
        while (atomic_load(&race.taken) - before + begun < PIECES)
            ; /* its word comes a moment after the fact */
        CHECK_INT(atomic_load(&race.taken) + atomic_load(&race.begun), laid);
        atomic_store(&race.round, round);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_INT(race.taken + race.begun, (uint64_t)ROUNDS * PIECES);
    mj_buf_free(&b);
    mj_workqueue_close(race.c);
}
