/* mj_inbox: what one thread puts in, another takes all at once. */
#include "mj_test.h"
#include "thread/inbox.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

enum { KEPT = 1 << 20 }; /* bytes of a buffer that is kept for the next batch */

static mj_inbox *inbox(const char *name)
{
    mj_inbox *b = mj_inbox_open(name, name ? strlen(name) : 0);

    CHECK(b != NULL);
    return b;
}

/* Puts it in, and under this name it has to be. */
static void put(mj_inbox *b, const char *head, const char *body, uint64_t batch, uint32_t index)
{
    uint32_t i = 77;

    CHECK_INT(mj_inbox_put(b, (mj_str){head, (uint32_t)strlen(head)}, (mj_str){body, (uint32_t)strlen(body)}, &i),
              batch);
    CHECK_INT(i, index);
}

static void check_item(mj_reader *r, const char *want)
{
    mj_str s = mj_get_str(r);

    CHECK(!r->bad);
    CHECK_INT(s.n, strlen(want));
    CHECK_MEM(s.p, want, s.n);
}

static bool is_empty(mj_inbox *b)
{
    mj_inbox_batch batch = {0};
    bool none = !mj_inbox_take(b, &batch);

    mj_buf_free(&batch.items);
    return none;
}

TEST("hands over everything that was put in, in its order, once")
{
    mj_inbox *b = inbox(NULL);
    mj_inbox_batch batch = {0};
    mj_reader r;

    put(b, "head ", "one", 1, 1);
    put(b, "", "two", 1, 2);
    put(b, "three", "", 1, 3);
    put(b, "", "", 1, 4);
    CHECK(mj_inbox_take(b, &batch));
    CHECK_INT(batch.number, 1);
    CHECK_INT(batch.count, 4);
    r = mj_reader_of(batch.items.p, batch.items.n);
    check_item(&r, "head one");
    check_item(&r, "two");
    check_item(&r, "three");
    check_item(&r, "");
    CHECK(r.p == r.end);
    CHECK(!mj_inbox_take(b, &batch));
    CHECK_INT(batch.count, 0);
    CHECK_INT(batch.items.n, 0);
    mj_buf_free(&batch.items);
    mj_inbox_close(b);
}

TEST("numbers batches from 1 and the items of each from 1, without gaps, also when nothing was there")
{
    mj_inbox *b = inbox(NULL);
    mj_inbox_batch batch = {0};

    CHECK(!mj_inbox_take(b, &batch));
    CHECK(!mj_inbox_take(b, &batch));
    for (uint64_t n = 1; n <= 100; n++) {
        for (uint32_t i = 1; i <= n % 7 + 1; i++)
            put(b, "h", "b", n, i);
        CHECK(mj_inbox_take(b, &batch));
        CHECK_INT(batch.number, n);
        CHECK_INT(batch.count, n % 7 + 1);
        CHECK(n % 3 || !mj_inbox_take(b, &batch));
    }
    mj_buf_free(&batch.items);
    mj_inbox_close(b);
}

TEST("an item is bytes: it may hold NULs, and its parts are put together as they are")
{
    mj_inbox *b = inbox(NULL);
    mj_inbox_batch batch = {0};
    uint32_t index;
    mj_reader r;
    mj_str s;

    CHECK_INT(mj_inbox_put(b, (mj_str){"\0a\0", 3}, (mj_str){"\0\xff", 2}, &index), 1);
    CHECK_INT(mj_inbox_put(b, (mj_str){0}, (mj_str){0}, &index), 1);
    CHECK(mj_inbox_take(b, &batch));
    r = mj_reader_of(batch.items.p, batch.items.n);
    s = mj_get_str(&r);
    CHECK_INT(s.n, 5);
    CHECK_MEM(s.p, "\0a\0\0\xff", 5);
    CHECK_INT(mj_get_str(&r).n, 0);
    CHECK(!r.bad && r.p == r.end);
    mj_buf_free(&batch.items);
    mj_inbox_close(b);
}

TEST("is found by its name, however often it is opened, and by no other")
{
    mj_inbox *a = inbox("a"), *again = inbox("a"), *longer = inbox("ab"), *other = inbox("b");
    mj_inbox *empty = inbox(""), *nul = mj_inbox_open("a\0", 2), *part = mj_inbox_open("abc", 2);

    CHECK(a == again);
    CHECK(part == longer);
    CHECK(a != longer && a != other && a != nul && a != empty && nul != longer);
    CHECK(empty == inbox(""));
    put(a, "", "x", 1, 1);
    CHECK(is_empty(longer) && is_empty(other) && is_empty(nul) && is_empty(empty));
    put(again, "", "y", 1, 2);
    CHECK(!is_empty(again));
    CHECK(is_empty(a));
    mj_inbox_close(empty);
    mj_inbox_close(empty);
    mj_inbox_close(part);
    mj_inbox_close(longer);
    mj_inbox_close(nul);
    mj_inbox_close(other);
    mj_inbox_close(again);
    mj_inbox_close(a);
}

TEST("without a name it is one's own, and closing it leaves the named ones alone")
{
    mj_inbox *a = inbox("a"), *none = inbox(""), *mine = inbox(NULL), *another = inbox(NULL);

    CHECK(mine != another && mine != a && mine != none && another != none);
    put(mine, "", "x", 1, 1);
    put(a, "", "y", 1, 1);
    CHECK(is_empty(another));
    CHECK(is_empty(none));
    mj_inbox_close(mine);
    mj_inbox_close(another);
    CHECK(inbox("a") == a);
    CHECK(!is_empty(a));
    mj_inbox_close(none);
    mj_inbox_close(a);
    mj_inbox_close(a);
}

TEST("is there until its last user has closed it, and then begins anew")
{
    static const char *const names[] = {"a", "b", "c"};

    for (int first = 0; first < 3; first++) { /* wherever it stands among the others */
        mj_inbox *all[3];
        for (int i = 0; i < 3; i++)
            all[i] = inbox(names[i]);
        CHECK(inbox(names[first]) == all[first]);
        put(all[first], "", "x", 1, 1);
        mj_inbox_close(all[first]);
        put(all[first], "", "y", 1, 2);
        mj_inbox_close(all[first]); /* with what is in it */
        for (int i = 0; i < 3; i++)
            if (i != first)
                CHECK(inbox(names[i]) == all[i]);
        all[first] = inbox(names[first]);
        CHECK(is_empty(all[first]));
        put(all[first], "", "z", 1, 1);
        for (int i = 0; i < 3; i++) {
            mj_inbox_close(all[i]);
            if (i != first)
                mj_inbox_close(all[i]);
        }
    }
    mj_inbox_close(NULL);
}

/* ---- one at a time ---- */

static int inside;

static void *work_in(void *ctx)
{
    mj_inbox *b = ctx;

    for (int i = 0; i < 2000; i++) {
        mj_inbox_enter(b);
        CHECK_INT(inside++, 0);
        sched_yield();
        CHECK_INT(--inside, 0);
        mj_inbox_leave(b);
    }
    return NULL;
}

TEST("one thread at a time is between enter and leave, and another inbox does not stop it")
{
    mj_inbox *a = inbox("a"), *again = inbox("a"), *other = inbox("other");
    pthread_t threads[4];

    mj_inbox_enter(other);
    for (int i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, work_in, i % 2 ? a : again), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    mj_inbox_leave(other);
    mj_inbox_close(other);
    mj_inbox_close(again);
    mj_inbox_close(a);
}

/* ---- buffers ---- */

static char large[3 << 20];

static void put_large(mj_inbox *b, size_t n)
{
    uint32_t index;

    CHECK(mj_inbox_put(b, MJ_LIT("head"), (mj_str){large, (uint32_t)n}, &index) != 0);
}

TEST("a batch stays as it was taken while the next one is gathered")
{
    mj_inbox *b = inbox(NULL);
    mj_inbox_batch batch = {0};
    mj_reader r;

    put(b, "", "first", 1, 1);
    CHECK(mj_inbox_take(b, &batch));
    for (uint32_t i = 1; i <= 1000; i++)
        put(b, "", "other", 2, i);
    r = mj_reader_of(batch.items.p, batch.items.n);
    check_item(&r, "first");
    CHECK(r.p == r.end);
    mj_buf_free(&batch.items);
    mj_inbox_close(b);
}

TEST("two buffers are used in turn, and no third")
{
    mj_inbox *b = inbox(NULL);
    mj_inbox_batch batch = {0};
    const uint8_t *seen[2] = {NULL, NULL};

    for (uint64_t n = 1; n <= 20; n++) {
        put(b, "", "x", n, 1);
        CHECK(mj_inbox_take(b, &batch));
        if (n <= 2)
            seen[n % 2] = batch.items.p;
        CHECK(batch.items.p == seen[n % 2]);
        CHECK_INT(batch.items.n, 2);
        CHECK(n % 2 || !mj_inbox_take(b, &batch)); /* which changes nothing about that */
    }
    CHECK(seen[0] != seen[1]);
    mj_buf_free(&batch.items);
    mj_inbox_close(b);
}

TEST("a buffer that a rush made huge is not kept, one below is")
{
    mj_inbox *b = inbox(NULL);
    mj_inbox_batch batch = {0};

    put_large(b, KEPT - 100); /* which takes a buffer of just that size */
    CHECK(mj_inbox_take(b, &batch));
    CHECK_INT(batch.items.cap, KEPT);
    CHECK(!mj_inbox_take(b, &batch));
    CHECK_INT(batch.items.cap, KEPT);
    put(b, "", "x", 2, 1);
    CHECK(mj_inbox_take(b, &batch)); /* gives it back */
    put(b, "", "x", 3, 1);
    CHECK(mj_inbox_take(b, &batch));
    CHECK_INT(batch.items.cap, KEPT);

    put_large(b, KEPT + 1);
    CHECK(mj_inbox_take(b, &batch));
    CHECK(batch.items.cap > KEPT);
    CHECK(!mj_inbox_take(b, &batch));
    CHECK(batch.items.p == NULL);
    CHECK_INT(batch.items.cap, 0);
    put_large(b, KEPT + 1);
    CHECK(mj_inbox_take(b, &batch));
    for (uint64_t n = 6; n < 10; n++) { /* and is not found again by those that follow */
        put(b, "", "x", n, 1);
        CHECK(mj_inbox_take(b, &batch));
        CHECK(batch.items.cap <= KEPT);
    }
    mj_buf_free(&batch.items);
    mj_inbox_close(b);
}

TEST("large bodies are whole, beside small ones")
{
    mj_inbox *b = inbox(NULL);
    mj_inbox_batch batch = {0};
    mj_reader r;
    mj_str s;

    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i * 31 + i / 251);
    put(b, "", "before", 1, 1);
    put_large(b, sizeof large);
    put(b, "", "after", 1, 3);
    CHECK(mj_inbox_take(b, &batch));
    r = mj_reader_of(batch.items.p, batch.items.n);
    check_item(&r, "before");
    s = mj_get_str(&r);
    CHECK_INT(s.n, 4 + sizeof large);
    CHECK_MEM(s.p, "head", 4);
    CHECK_MEM(s.p + 4, large, sizeof large);
    check_item(&r, "after");
    mj_buf_free(&batch.items);
    mj_inbox_close(b);
}

TEST("when there is no memory for one, it is not put in, and those before and after it are")
{
#ifdef __SANITIZE_ADDRESS__
    SKIP("a sanitizer needs its address space");
#else
    size_t n = (size_t)256 << 20, pages = 0;
    struct rlimit limit;
    mj_inbox *b = inbox(NULL);
    mj_inbox_batch batch = {0};
    uint32_t index = 77;
    char *huge = malloc(n);
    FILE *f = fopen("/proc/self/statm", "r");
    mj_reader r;

    if (getenv("VALGRIND"))
        SKIP("valgrind needs its address space");
    CHECK(huge && f && fscanf(f, "%zu", &pages) == 1);
    fclose(f);
    memset(huge, 'x', 1 << 20);
    put(b, "", "before", 1, 1);
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = pages * (size_t)sysconf(_SC_PAGESIZE) + (8 << 20);
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    CHECK_INT(mj_inbox_put(b, MJ_LIT("head"), (mj_str){huge, (uint32_t)n}, &index), 0);
    CHECK_INT(index, 77);
    put(b, "", "after", 1, 2);
    CHECK(mj_inbox_take(b, &batch));
    CHECK_INT(batch.count, 2);
    r = mj_reader_of(batch.items.p, batch.items.n);
    check_item(&r, "before");
    check_item(&r, "after");
    CHECK(r.p == r.end);
    mj_buf_free(&batch.items);
    free(huge);
    mj_inbox_close(b);
#endif
}

/* ---- threads ---- */

enum { ITEMS = 100000 };

typedef struct named { /* under which name an item was put in */
    uint64_t batch;
    uint32_t index;
} named;

typedef struct side {
    mj_inbox *b;
    uint32_t who;
    named *names; /* of its items */
} side;

static void *put_all(void *arg)
{
    side *s = arg;
    char body[200];

    memset(body, 'x', sizeof body);
    for (uint32_t i = 0; i < ITEMS; i++) {
        uint32_t head[2] = {s->who, i};
        named *n = &s->names[i];
        uint64_t batch;
        batch =
            mj_inbox_put(s->b, (mj_str){(const char *)head, sizeof head}, (mj_str){body, i % sizeof body}, &n->index);
        CHECK(batch != 0);
        __atomic_store_n(&n->batch, batch, __ATOMIC_RELEASE);
    }
    return NULL;
}

/* Takes until it has all of both; what it hears is what they were told. */
static uint64_t take_all(mj_inbox *b, side *sides, uint32_t nsides)
{
    uint32_t next[2] = {0, 0}, total = 0;
    mj_inbox_batch batch = {0};
    uint64_t batches = 0;

    while (total < nsides * ITEMS) {
        mj_reader r;
        if (!mj_inbox_take(b, &batch)) {
            sched_yield();
            continue;
        }
        CHECK_INT(batch.number, ++batches);
        r = mj_reader_of(batch.items.p, batch.items.n);
        for (uint32_t k = 1; k <= batch.count; k++) {
            mj_str item = mj_get_str(&r);
            uint32_t head[2];
            const named *n;
            CHECK(item.n >= sizeof head);
            memcpy(head, item.p, sizeof head);
            CHECK(head[0] < nsides);
            CHECK_INT(head[1], next[head[0]]++); /* each once, in its order */
            CHECK_INT(item.n - sizeof head, head[1] % 200);
            n = &sides[head[0]].names[head[1]];
            while (__atomic_load_n(&n->batch, __ATOMIC_ACQUIRE) == 0) /* it may be written only now */
                sched_yield();
            CHECK_INT(n->batch, batch.number);
            CHECK_INT(n->index, k);
            total++;
        }
        CHECK(!r.bad && r.p == r.end);
    }
    CHECK(!mj_inbox_take(b, &batch));
    mj_buf_free(&batch.items);
    return batches;
}

static void put_and_take(uint32_t nsides)
{
    mj_inbox *b = inbox("shared");
    side sides[2];
    pthread_t threads[2];
    uint64_t batches;

    for (uint32_t i = 0; i < nsides; i++) {
        sides[i] = (side){inbox("shared"), i, calloc(ITEMS, sizeof(named))};
        CHECK(sides[i].b == b && sides[i].names != NULL);
        CHECK(pthread_create(&threads[i], NULL, put_all, &sides[i]) == 0);
    }
    batches = take_all(b, sides, nsides);
    for (uint32_t i = 0; i < nsides; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        mj_inbox_close(sides[i].b);
    }
    CHECK(batches > 1);
    for (uint32_t i = 0; i < nsides; i++)
        free(sides[i].names);
    mj_inbox_close(b);
}

TEST("loses and doubles nothing, and keeps the order, while another thread takes")
{
    put_and_take(1);
}

TEST("nor when two put in at once, and each is told the batch in which its item is taken")
{
    put_and_take(2);
}

static void *open_and_close(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        mj_inbox *b = inbox(i % 2 ? "x" : "y");
        uint32_t index;
        CHECK(mj_inbox_put(b, MJ_LIT("h"), MJ_LIT("b"), &index) != 0);
        mj_inbox_close(b);
    }
    return NULL;
}

TEST("may be opened and closed by several threads at once")
{
    pthread_t threads[3];

    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, open_and_close, NULL) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(is_empty(inbox("x")));
    CHECK(is_empty(inbox("y")));
}
