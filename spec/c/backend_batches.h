/* Batches: what they change, all or nothing of it, and what readers beside them see.  For BACKEND, as
 * backend_conformance.h says. */
#ifndef BACKEND_BATCHES_H
#define BACKEND_BATCHES_H

#include "backend_scans.h"

#include <pthread.h>
#include <sched.h>

/* ---- apply ---- */

TEST("a row becomes what was put last, however long, and one that goes is gone; what is not there may go")
{
    static char large[300000];
    mj_entry a = {.index = MJ_IX_TASK, .ref = {1}}, z = {.index = MJ_IX_TASK, .ref = {0xff}};
    mj_entry due = {.index = MJ_IX_DUE, .n = 2, .at = 5, .ref = {1}};
    mj_change c[3] = {{.key = a, .bytes = str("first")}, put_of(due), del_of(z)};
    mj_str bytes;
    mj_tx *tx;
    base b;

    memset(large, 0xa5, sizeof large);
    open_base(&b, "store");
    batch(&b, c, 3);
    c[0].bytes = (mj_str){large, sizeof large};
    batch(&b, c, 3); /* an entry that is there may be put */
    CHECK_INT(count_of(&b, MJ_IX_TASK), 1);
    CHECK_INT(count_of(&b, MJ_IX_DUE), 1);
    tx = begin(&b, false);
    CHECK_INT(get_in(tx, a, &bytes), MJ_OK);
    CHECK_INT(bytes.n, sizeof large);
    CHECK_MEM(bytes.p, large, sizeof large);
    backend()->abort(tx);
    c[0] = (mj_change){.key = a, .bytes = str("x")};
    batch(&b, c, 1);
    tx = begin(&b, false);
    CHECK_INT(get_in(tx, a, &bytes), MJ_OK);
    CHECK(mj_str_eq(bytes, str("x")));
    backend()->abort(tx);
    c[0] = del_of(a);
    c[1] = del_of(due);
    batch(&b, c, 2);
    batch(&b, c, 2);
    CHECK(!is_there(&b, a) && !is_there(&b, due));
    CHECK_INT(count_of(&b, MJ_IX_TASK) + count_of(&b, MJ_IX_DUE), 0);
    close_base(&b);
}

TEST("changes apply in their order: what goes first and comes afterwards is there")
{
    mj_entry due = {.index = MJ_IX_DUE, .n = 2, .at = 5, .ref = {1}};
    mj_change c[2] = {put_of(due), del_of(due)};
    base b;

    open_base(&b, "store");
    batch(&b, c, 2);
    CHECK(!is_there(&b, due));
    c[0] = del_of(due);
    c[1] = put_of(due);
    batch(&b, c, 2);
    CHECK(is_there(&b, due));
    close_base(&b);
}

TEST("a name that one task gives up and another takes in one batch is the other's, in either order")
{
    static const mj_facets none;
    static mj_facets old, new;
    base b;

    open_base(&b, "store");
    for (uint8_t first = 1; first <= 2; first++) {
        mj_entry holder = {.index = MJ_IX_TOMB, .ref = {first}}, taker = {.index = MJ_IX_TASK, .ref = {3 - first}};
        mj_entry key = {.index = MJ_IX_KEY, .name = str("k")}, tid = {.index = MJ_IX_TID, .name = str("T")};
        mj_change c[2] = {{.key = holder, .bytes = str("t"), .was = &none, .is = &old}};
        mj_change gone = {.key = holder, .gone = true, .was = &old, .is = &none};
        mj_change made = {.key = taker, .bytes = str("r"), .was = &none, .is = &new};
        mj_str bytes;
        mj_tx *tx;
        old = (mj_facets){.grave = true, .pruned_at = 5, .key = str("k"), .nattempts = 1};
        old.attempts[0].nids = 1;
        old.attempts[0].ids[0] = str("T");
        new = (mj_facets){.exists = true, .key = str("k"), .fingerprint = {9}, .nattempts = 1};
        new.attempts[0].nids = 1;
        new.attempts[0].ids[0] = str("T");
        batch(&b, c, 1);
        c[0] = first == 1 ? gone : made;
        c[1] = first == 1 ? made : gone;
        batch(&b, c, 2);
        tx = begin(&b, false);
        CHECK_INT(backend()->get(tx, &key, &bytes), MJ_OK);
        CHECK_INT(key.ref[0], 3 - first);
        CHECK_INT(key.fingerprint[0], 9);
        CHECK_INT(backend()->get(tx, &tid, &bytes), MJ_OK);
        CHECK_INT(tid.ref[0], 3 - first);
        backend()->abort(tx);
        c[0] = (mj_change){.key = taker, .gone = true, .was = &new, .is = &none};
        batch(&b, c, 1);
        CHECK_INT(count_of(&b, MJ_IX_KEY) + count_of(&b, MJ_IX_TID) + count_of(&b, MJ_IX_STATE), 0);
    }
    close_base(&b);
}

TEST("a batch may have 1,024 changes, and each is there")
{
    enum { N = 1024 };
    static mj_change c[N];
    static char bytes[4096];
    base b;

    memset(bytes, 'b', sizeof bytes);
    open_base(&b, "store");
    for (unsigned i = 0; i < N; i++) {
        c[i] = (mj_change){.key = {.index = MJ_IX_TASK}, .bytes = {bytes, 1 + i * 4}};
        mj_be32(c[i].key.ref, i);
    }
    batch(&b, c, N);
    CHECK_INT(count_of(&b, MJ_IX_TASK), N);
    for (unsigned i = 0; i < N; i++)
        c[i].gone = i % 2;
    batch(&b, c, N);
    CHECK_INT(count_of(&b, MJ_IX_TASK), N / 2);
    for (unsigned i = 0; i < N; i++)
        CHECK(is_there(&b, c[i].key) == (i % 2 == 0));
    close_base(&b);
}

static mj_tally totals_of(base *b)
{
    mj_tally t;
    mj_tx *tx = begin(b, false);

    memset(&t, 0xa5, sizeof t);
    CHECK_INT(backend()->totals(tx, &t), MJ_OK);
    backend()->abort(tx);
    return t;
}

TEST("a batch that is larger than all that was stored before is stored, at the latest when it runs again")
{
    enum { N = 40, EACH = 512 * 1024 };
    static mj_change c[N];
    char *bytes = malloc(EACH);
    mj_str got;
    mj_tx *tx;
    base b;

    CHECK(bytes != NULL);
    memset(bytes, 'b', EACH);
    open_base(&b, "store");
    for (unsigned i = 0; i < N; i++) {
        c[i] = (mj_change){.key = {.index = MJ_IX_TASK}, .bytes = {bytes, EACH}};
        mj_be32(c[i].key.ref, i);
    }
    CHECK_INT(try_batch(&b, c, N, (mj_tally){.events = 1}), MJ_OK); /* LMDB makes its map larger, and says MJ_EAGAIN */
    tx = begin(&b, false);
    for (unsigned i = 0; i < N; i++) {
        CHECK_INT(get_in(tx, c[i].key, &got), MJ_OK);
        CHECK_INT(got.n, EACH);
        CHECK_MEM(got.p, bytes, EACH);
    }
    backend()->abort(tx);
    CHECK_INT(totals_of(&b).events, 1);
    close_base(&b);
    free(bytes);
}

/* ---- totals ---- */

TEST("totals are the sums of what was committed, and the newest time")
{
    mj_change c = put_of((mj_entry){.index = MJ_IX_TASK, .ref = {1}});
    mj_tally add = {.events = 5, .buried = 2, .latest = T0}, t;
    base b;

    open_base(&b, "store");
    t = totals_of(&b);
    for (int i = 0; i < MJ_NSTATES; i++)
        CHECK_INT(t.states[i], 0);
    CHECK_INT(t.events + t.buried + t.latest, 0);
    add.states[MJ_QUEUED] = 3;
    CHECK_INT(try_batch(&b, &c, 1, add), MJ_OK);
    add = (mj_tally){.events = -4, .latest = 0};
    add.states[MJ_QUEUED] = -1;
    add.states[MJ_PENDING] = 1;
    CHECK_INT(try_batch(&b, NULL, 0, add), MJ_OK); /* no change but in the totals */
    t = totals_of(&b);
    CHECK_INT(t.states[MJ_QUEUED], 2);
    CHECK_INT(t.states[MJ_PENDING], 1);
    CHECK_INT(t.events, 1);
    CHECK_INT(t.buried, 2);
    CHECK_INT(t.latest, T0);
    CHECK_INT(try_batch(&b, NULL, 0, (mj_tally){.latest = T0 - 1}), MJ_OK);
    CHECK_INT(totals_of(&b).latest, T0); /* of two that commit at once the largest */
    CHECK_INT(try_batch(&b, NULL, 0, (mj_tally){.latest = T0 - 1, .set_back = true}), MJ_OK);
    CHECK_INT(totals_of(&b).latest, T0 - 1);
    close_base(&b);
}

/* ---- all or nothing ---- */

TEST("what is aborted, or fails in apply or in commit, leaves nothing, and the next batch is stored")
{
    mj_entry kept = {.index = MJ_IX_TASK, .ref = {1}}, e = {.index = MJ_IX_TASK, .ref = {2}};
    mj_change c[3] = {del_of(kept), put_of(e), put_of((mj_entry){.index = MJ_IX_DUE, .at = 9, .ref = {2}})};
    mj_change first = put_of(kept);
    mj_tally add = {.events = 1, .latest = T0};
    mj_tx *tx;
    base b;

    open_base(&b, "store");
    batch(&b, &first, 1);
    tx = begin(&b, true);
    CHECK_INT(backend()->apply(tx, c, 3, &add), MJ_OK);
    backend()->abort(tx);
    for (int at = FAULT_APPLY; at <= FAULT_COMMIT; at++)
        for (int i = 0; i < 2; i++) {
            fail_at((fault_at)at, i ? MJ_EIO : MJ_ENOSPC, 1);
            CHECK_INT(try_batch(&b, c, 3, add), i ? MJ_EIO : MJ_ENOSPC);
        }
    CHECK(is_there(&b, kept) && !is_there(&b, e));
    CHECK_INT(count_of(&b, MJ_IX_DUE), 0);
    CHECK_INT(totals_of(&b).events, 0);
    CHECK_INT(totals_of(&b).latest, 0);
    fail_at(FAULT_COMMIT, MJ_EAGAIN, 2);
    CHECK_INT(try_batch(&b, c, 3, add), MJ_OK);
    CHECK(!is_there(&b, kept) && is_there(&b, e));
    CHECK_INT(totals_of(&b).events, 1); /* once, although it ran three times */
    close_base(&b);
}

TEST("what was committed is there for a handle that is opened afterwards")
{
    mj_change c = put_of((mj_entry){.index = MJ_IX_TASK, .ref = {1}});
    base b;

    open_base(&b, "store");
    batch(&b, &c, 1);
    close_base(&b);
    open_base(&b, "store");
    CHECK(is_there(&b, c.key));
    close_base(&b);
}

/* ---- readers and writers ---- */

/* One thread has both here, which the engine never does: these batches are too small for a writer to wait. */

TEST("a reader sees the store as it was when it began, while another handle writes")
{
    mj_entry a = {.index = MJ_IX_TASK, .ref = {1}}, z = {.index = MJ_IX_TASK, .ref = {2}};
    mj_change c[2] = {{.key = a, .bytes = str("old")}, put_of((mj_entry){.index = MJ_IX_DUE, .at = 1, .ref = {1}})};
    mj_change later[3] = {{.key = a, .bytes = str("new")}, {.key = z, .bytes = str("other")}, del_of(c[1].key)};
    mj_str bytes, before;
    base reading, writing;
    mj_tally totals;
    entries *got;
    mj_tx *tx;

    open_base(&reading, "store");
    open_base(&writing, "store");
    CHECK_INT(try_batch(&writing, c, 2, (mj_tally){.events = 1}), MJ_OK);
    tx = begin(&reading, false);
    CHECK_INT(get_in(tx, a, &before), MJ_OK);
    for (unsigned i = 0; i < 20; i++)
        CHECK_INT(try_batch(&writing, later, 3, (mj_tally){.events = 1}), MJ_OK);
    CHECK(mj_str_eq(before, str("old"))); /* strings last as long as the transaction */
    CHECK_INT(get_in(tx, a, &bytes), MJ_OK);
    CHECK(mj_str_eq(bytes, str("old")));
    CHECK_INT(get_in(tx, z, &bytes), MJ_ENOTFOUND);
    got = scan_in(tx, (mj_scan){.index = MJ_IX_DUE}, 0);
    CHECK_INT(got->n, 1);
    CHECK_INT(count_in(tx, MJ_IX_TASK), 1);
    CHECK_INT(backend()->totals(tx, &totals), MJ_OK);
    CHECK_INT(totals.events, 1);
    backend()->abort(tx);
    free(got);
    tx = begin(&reading, false);
    CHECK_INT(get_in(tx, a, &bytes), MJ_OK);
    CHECK(mj_str_eq(bytes, str("new")));
    CHECK_INT(count_in(tx, MJ_IX_TASK), 2);
    CHECK_INT(count_in(tx, MJ_IX_DUE), 0);
    CHECK_INT(backend()->totals(tx, &totals), MJ_OK);
    CHECK_INT(totals.events, 21);
    backend()->abort(tx);
    close_base(&reading);
    close_base(&writing);
}

TEST("a reader beside a writer that has applied its changes sees none of them")
{
    mj_change c = put_of((mj_entry){.index = MJ_IX_TASK, .ref = {1}});
    base reading, writing;
    mj_tally none = {0};
    mj_tx *tx;

    open_base(&reading, "store");
    open_base(&writing, "store");
    tx = begin(&writing, true);
    CHECK_INT(backend()->apply(tx, &c, 1, &none), MJ_OK);
    CHECK(!is_there(&reading, c.key));
    CHECK_INT(backend()->commit(tx), MJ_OK);
    CHECK(is_there(&reading, c.key));
    close_base(&reading);
    close_base(&writing);
}

enum { WRITERS = 4, ROUNDS = 50 };

static pthread_barrier_t start;

static const mj_entry number = {.index = MJ_IX_TASK, .ref = {7}};

/* Adds one to what it has read, or to nothing, and lets others run in between. */
static int add_one(base *b, bool load)
{
    mj_tx *tx = begin(b, true);
    mj_tally none = {0};
    uint8_t n[4];
    mj_str bytes;
    int rc = load ? backend()->load(tx, &(mj_need){.keys = &number, .nkeys = 1}) : MJ_OK;

    if (rc == MJ_OK)
        rc = get_in(tx, number, &bytes);
    if (rc == MJ_OK || rc == MJ_ENOTFOUND) {
        mj_be32(n, rc == MJ_OK ? mj_be32_get((const uint8_t *)bytes.p) + 1 : 1);
        sched_yield();
        rc = backend()->apply(tx, &(mj_change){.key = number, .bytes = {(char *)n, 4}}, 1, &none);
        if (rc == MJ_OK)
            return backend()->commit(tx);
    }
    backend()->abort(tx);
    return rc;
}

static void *count_up(void *arg)
{
    base b;

    open_base(&b, "store");
    pthread_barrier_wait(&start);
    for (unsigned i = 0; i < ROUNDS; i++) {
        int rc;
        do
            rc = add_one(&b, arg != NULL);
        while (rc == MJ_EAGAIN);
        CHECK_INT(rc, MJ_OK);
    }
    close_base(&b);
    return NULL;
}

static void check_counting(bool load)
{
    mj_entry e = number;
    pthread_t threads[WRITERS];
    mj_str bytes;
    mj_tx *tx;
    base b;

    open_base(&b, "store");
    CHECK_INT(pthread_barrier_init(&start, NULL, WRITERS), 0);
    for (unsigned i = 0; i < WRITERS; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, count_up, load ? &e : NULL), 0);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    tx = begin(&b, false);
    CHECK_INT(get_in(tx, e, &bytes), MJ_OK);
    CHECK_INT(mj_be32_get((const uint8_t *)bytes.p), WRITERS * ROUNDS);
    backend()->abort(tx);
    close_base(&b);
}

TEST("a writer keeps other writers away from what it gets")
{
    check_counting(false);
}

TEST("a writer keeps other writers away from what it loads")
{
    check_counting(true);
}

/* ---- the rest of the table ---- */

TEST("a backend is whole: sound, with a size, trimmed and tidied, and with names")
{
    mj_change c = put_of((mj_entry){.index = MJ_IX_TASK, .ref = {1}});
    uint64_t used = 0, reserved = 0;
    bool forked = false;
    mj_tx *tx;
    base b;

    open_base(&b, "store");
    batch(&b, &c, 1);
    CHECK_INT(backend()->abi, MJ_BACKEND_ABI);
    CHECK_INT(backend()->bytes, sizeof(mj_backend));
    CHECK(backend()->name[0] && backend()->library(b.db)[0] && backend()->library(NULL)[0]);
    if (backend()->foreign)
        CHECK(!backend()->foreign(b.db));
    if (backend()->ready)
        CHECK_INT(backend()->ready(b.db, &forked), MJ_OK);
    CHECK(!forked);
    if (backend()->tidy)
        backend()->tidy(b.db);
    if (backend()->trim)
        backend()->trim(b.db);
    tx = begin(&b, false);
    if (backend()->sound)
        CHECK_INT(backend()->sound(tx), MJ_OK);
    CHECK_INT(backend()->size(tx, &used, &reserved), MJ_OK);
    CHECK(used > 0 && (reserved == 0 || reserved >= used));
    backend()->abort(tx);
    CHECK(is_there(&b, c.key));
    close_base(&b);
}

#endif
