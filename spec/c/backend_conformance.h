/* What store/backend.h promises, as tests that every backend passes.  A test program defines BACKEND, the backend's
 * mj_backend, and includes this. */
#ifndef BACKEND_CONFORMANCE_H
#define BACKEND_CONFORMANCE_H

#include "backend_help.h"
#include "rng.h"

#include <pthread.h>

/* ---- entries of all kinds, with fields at their bounds ---- */

static char long_name[MJ_MAX_NAME], high_name[MJ_MAX_NAME];

static mj_str some_name(unsigned i)
{
    static const mj_str names[] = {{"a", 1},          {"b", 1},    {"a\0", 2},        {"\0", 1}, {"\0\0", 2},
                                   {"\xff", 1},       {"ab", 2},   {"a\xff", 2},      {"B", 1},  {"\xff\xff\xff", 3},
                                   {"\x01\xfe\0", 3}, {"\x7f", 1}, {"\xc3\xa9t\0", 4}};
    enum { NAMES = sizeof names / sizeof names[0] };

    memset(long_name, 'x', sizeof long_name);
    memset(high_name, 0xff, sizeof high_name);
    i %= NAMES + 5;
    if (i < NAMES)
        return names[i];
    return i < NAMES + 2 ? (mj_str){long_name, MJ_MAX_NAME - (i - NAMES)}
                         : (mj_str){high_name, i == NAMES + 2   ? MJ_MAX_NAME
                                               : i == NAMES + 3 ? 33
                                                                : 64};
}

static void some_ref(unsigned i, uint8_t *to)
{
    static const uint8_t ends[] = {0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff};

    memset(to, i % 7 < 2 ? 0xff : i % 7 < 4 ? 0x00 : 0x5a, MJ_ULID_BYTES);
    to[i / 7 % 2 ? 0 : MJ_ULID_BYTES - 1] = ends[i % 6];
}

static mj_entry some_entry(mj_index index, rng *r)
{
    static const int64_t times[] = {0,          1, 255, 256, 65536, UINT32_MAX, (int64_t)UINT32_MAX + 1, 1776211200000,
                                    MJ_MAX_TIME};
    static const uint32_t numbers[] = {0, 1, 2, 255, 256, 65535, 1u << 31, UINT32_MAX};
    static const int32_t priorities[] = {INT32_MIN, -256, -1, 0, 1, 255, 256, INT32_MAX};
    mj_entry e = {.index = index};
    bool small = index == MJ_IX_STATE || index == MJ_IX_DUE;

    some_ref(below(r, 84), e.ref);
    e.name = some_name(below(r, 100));
    e.at = times[below(r, sizeof times / sizeof times[0])];
    e.n = small ? below(r, 4) : numbers[below(r, sizeof numbers / sizeof numbers[0])];
    e.priority = priorities[below(r, sizeof priorities / sizeof priorities[0])];
    memset(e.fingerprint, (int)below(r, 256), sizeof e.fingerprint);
    if (index == MJ_IX_QUEUE && chance(r, 20))
        e.name = str("");
    return e;
}

/* Up to n different entries of an index. */
static unsigned some_entries(mj_index index, rng *r, mj_entry *out, unsigned n)
{
    unsigned found = 0;

    for (unsigned tries = 0; tries < 50 * n && found < n; tries++) {
        unsigned i = 0;
        out[found] = some_entry(index, r);
        while (i < found && !same_key(&out[i], &out[found]))
            i++;
        found += i == found;
    }
    return found;
}

static mj_change put_of(mj_entry e)
{
    return (mj_change){.key = e, .bytes = is_row(e.index) ? MJ_LIT("row \0 \xff") : (mj_str){0}};
}

static mj_change del_of(mj_entry e)
{
    return (mj_change){.key = e, .gone = true};
}

/* ---- order and bounds ---- */

static int find_in(const entries *all, const mj_entry *e)
{
    for (unsigned i = 0; i < all->n; i++)
        if (same_key(&all->e[i], e))
            return (int)i;
    return -1;
}

/* The whole index, in order: entries with one name lie together, and which name comes first is the backend's. */
static void check_sorted(const entries *all)
{
    for (unsigned i = 1; i < all->n; i++) {
        const mj_entry *a = &all->e[i - 1], *b = &all->e[i];
        if (!named_first(a->index) || mj_str_eq(a->name, b->name)) {
            if (by_fields(a, b) >= 0)
                MJ_TEST_FAIL("%s: entries %u and %u are out of order", mj_index_name(a->index), i - 1, i);
            continue;
        }
        for (unsigned k = 0; k < i; k++)
            CHECK(!mj_str_eq(all->e[k].name, b->name));
    }
}

/* Whether a scan that begins at `from` comes to entry i. */
static bool reached(const entries *all, unsigned i, const mj_scan *scan)
{
    int at = find_in(all, &scan->from), c = at >= 0 ? in_order(i, at) : by_fields(&all->e[i], &scan->from);

    if (scan->fixed && !same_group(&all->e[i], &scan->from))
        return false;
    return !scan->positioned || (scan->newest_first ? c < 0 : c > 0) || (c == 0 && !scan->after);
}

static void check_scan(mj_tx *tx, const entries *all, mj_scan scan, unsigned stop)
{
    entries *got = scan_in(tx, scan, stop);
    unsigned n = 0;

    for (unsigned k = 0; k < all->n && (stop == 0 || n < stop); k++) {
        unsigned i = scan.newest_first ? all->n - 1 - k : k;
        if (!reached(all, i, &scan))
            continue;
        if (n == got->n || !same_key(&all->e[i], &got->e[n]))
            MJ_TEST_FAIL("%s%s%s%s%s: entry %u is another one, or missing", mj_index_name(scan.index),
                         scan.fixed ? ", fixed" : "", scan.positioned ? ", positioned" : "",
                         scan.after ? ", after" : "", scan.newest_first ? ", newest first" : "", n);
        n++;
    }
    CHECK_INT(got->n, n);
    free(got);
}

/* All scans from one place.  An entry that is not stored has a place only among those of its name. */
static void check_scans_from(mj_tx *tx, const entries *all, mj_entry from)
{
    bool has_place = !named_first(from.index) || find_in(all, &from) >= 0;

    for (unsigned bits = 0; bits < 16; bits++) {
        mj_scan scan = {.index = from.index,
                        .from = from,
                        .fixed = bits & 1,
                        .newest_first = bits & 2,
                        .positioned = bits & 4,
                        .after = (bits & 12) == 12};
        if ((scan.fixed && !has_groups(from.index)) || (scan.positioned && !scan.fixed && !has_place) ||
            (bits & 12) == 8)
            continue;
        check_scan(tx, all, scan, 0);
        check_scan(tx, all, scan, 1);
        check_scan(tx, all, scan, 3);
    }
}

TEST("scans of every index give its entries in order, from any place, in both directions, within any bounds")
{
    enum { POOL = 80 };
    rng r = rng_of(1);
    mj_entry pool[POOL];
    mj_change put[POOL];
    base b;

    open_base(&b, "store");
    for (mj_index index = MJ_IX_TASK; index < MJ_NINDEXES; index++) {
        unsigned n = some_entries(index, &r, pool, POOL), half = n / 2;
        entries *all;
        mj_tx *tx;
        for (unsigned i = 0; i < half; i++)
            put[i] = put_of(pool[i]);
        batch(&b, put, half);
        CHECK_INT(count_of(&b, index), half);
        tx = begin(&b, false);
        all = scan_in(tx, (mj_scan){.index = index}, 0);
        CHECK_INT(all->n, half);
        for (unsigned i = 0; i < half; i++)
            CHECK(find_in(all, &pool[i]) >= 0);
        check_sorted(all);
        for (unsigned i = 0; i < n; i++)
            check_scans_from(tx, all, pool[i]);
        free(all);
        backend()->abort(tx);
    }
    close_base(&b);
}

TEST("a writer's scans are those of a reader")
{
    rng r = rng_of(2);
    mj_entry pool[20];
    mj_change put[20];
    unsigned n = some_entries(MJ_IX_DUE, &r, pool, 20);
    entries *all;
    mj_tx *tx;
    base b;

    open_base(&b, "store");
    for (unsigned i = 0; i < n; i++)
        put[i] = put_of(pool[i]);
    batch(&b, put, n);
    tx = begin(&b, true);
    all = scan_in(tx, (mj_scan){.index = MJ_IX_DUE}, 0);
    CHECK_INT(all->n, n);
    check_sorted(all);
    for (unsigned i = 0; i < n; i++)
        check_scans_from(tx, all, pool[i]);
    free(all);
    backend()->abort(tx);
    close_base(&b);
}

TEST("a scan of an empty index gives nothing")
{
    mj_tx *tx;
    base b;

    open_base(&b, "store");
    tx = begin(&b, false);
    for (mj_index index = MJ_IX_TASK; index < MJ_NINDEXES; index++)
        for (int bits = 0; bits < 4; bits++) {
            mj_entry from = {.index = index, .name = str("a")};
            entries *got = scan_in(
                tx, (mj_scan){.index = index, .from = from, .newest_first = bits & 1, .positioned = bits & 2}, 0);
            CHECK_INT(got->n, 0);
            CHECK_INT(count_in(tx, index), 0);
            free(got);
        }
    backend()->abort(tx);
    close_base(&b);
}

typedef struct nested {
    mj_tx *tx;
    unsigned n;
} nested;

static bool look_up_inside(void *ctx, const mj_entry *e, mj_str bytes)
{
    nested *w = ctx;
    mj_entry task = {.index = MJ_IX_TASK};
    entries *events;
    mj_str again;

    memcpy(task.ref, e->ref, sizeof task.ref);
    CHECK_INT(get_in(w->tx, task, &again), MJ_OK);
    CHECK(mj_str_eq(again, bytes));
    task.index = MJ_IX_STATE;
    events = scan_in(w->tx, (mj_scan){.index = MJ_IX_STATE, .newest_first = true, .from = task}, 2);
    CHECK_INT(events->n, 2);
    free(events);
    w->n++;
    return true;
}

TEST("with rows, an entry brings its task's record; and the callback may read in the same transaction")
{
    enum { TASKS = 6 };
    mj_change c[2 * TASKS + 2];
    mj_entry gone = {.index = MJ_IX_USER, .name = str("u"), .ref = {99}};
    entries *got;
    nested w = {0};
    unsigned n = 0;
    mj_tx *tx;
    base b;

    open_base(&b, "store");
    for (uint8_t i = 0; i < TASKS; i++) {
        mj_entry task = {.index = MJ_IX_TASK, .ref = {i}}, state = {.index = MJ_IX_STATE, .n = 1, .ref = {i}};
        c[n++] = (mj_change){.key = task, .bytes = {"record" + i, 1}};
        c[n++] = put_of(state);
    }
    c[n++] = put_of(gone); /* points to no task */
    batch(&b, c, n);
    tx = begin(&b, false);
    got = scan_in(tx, (mj_scan){.index = MJ_IX_STATE, .rows = true, .fixed = 1, .from = {.n = 1}}, 0);
    CHECK_INT(got->n, TASKS);
    for (unsigned i = 0; i < TASKS; i++)
        CHECK(got->bytes[i].n == 1 && got->bytes[i].p[0] == "record"[i]);
    free(got);
    got = scan_in(tx, (mj_scan){.index = MJ_IX_USER, .rows = true}, 0);
    CHECK_INT(got->n, 1);
    CHECK(!got->bytes[0].p && got->bytes[0].n == 0);
    free(got);
    got = scan_in(tx, (mj_scan){.index = MJ_IX_STATE}, 0);
    CHECK(!got->bytes[0].p); /* not asked for */
    free(got);
    got = scan_in(tx, (mj_scan){.index = MJ_IX_TASK, .rows = true}, 0);
    CHECK_INT(got->bytes[2].p[0], 'c');
    free(got);
    w.tx = tx;
    CHECK_INT(backend()->scan(tx, &(mj_scan){.index = MJ_IX_STATE, .rows = true, .from = {.index = MJ_IX_STATE}},
                              look_up_inside, &w),
              MJ_OK);
    CHECK_INT(w.n, TASKS);
    backend()->abort(tx);
    close_base(&b);
}

/* ---- get ---- */

TEST("get finds each kind of entry by its key, and fills in what follows from it")
{
    enum { POOL = 40 };
    rng r = rng_of(3);
    mj_entry pool[POOL];
    mj_change put[POOL];
    mj_tx *tx;
    base b;

    open_base(&b, "store");
    for (mj_index index = 0; index < MJ_NINDEXES; index++) {
        unsigned n = some_entries(index, &r, pool, POOL), half = n / 2;
        for (unsigned i = 0; i < half; i++)
            put[i] = put_of(pool[i]);
        batch(&b, put, half);
        for (int write = 0; write < 2; write++) {
            tx = begin(&b, write);
            for (unsigned i = 0; i < n; i++) {
                mj_entry key = pool[i];
                mj_str bytes = {0};
                if (index == MJ_IX_TID || index == MJ_IX_KEY) {
                    memset(key.ref, 0xee, sizeof key.ref);
                    memset(key.fingerprint, 0xee, sizeof key.fingerprint);
                    key.n = 0xee;
                } else if (index == MJ_IX_SLOT) {
                    key.name = (mj_str){0};
                }
                CHECK_INT(backend()->get(tx, &key, &bytes), i < half ? MJ_OK : MJ_ENOTFOUND);
                if (i >= half)
                    continue;
                CHECK(same_key(&key, &pool[i]));
                if (is_row(index))
                    CHECK(mj_str_eq(bytes, put[i].bytes));
                if (index == MJ_IX_TID || index == MJ_IX_KEY)
                    CHECK_MEM(key.ref, pool[i].ref, sizeof key.ref);
                if (index == MJ_IX_TID)
                    CHECK_INT(key.n, pool[i].n);
                if (index == MJ_IX_KEY)
                    CHECK_MEM(key.fingerprint, pool[i].fingerprint, sizeof key.fingerprint);
                if (index == MJ_IX_SLOT)
                    CHECK(mj_str_eq(key.name, pool[i].name));
            }
            backend()->abort(tx);
        }
    }
    close_base(&b);
}

TEST("a scan fills in what follows from a key, too")
{
    mj_entry tid = {.index = MJ_IX_TID, .name = str("T1"), .ref = {1}, .n = 7};
    mj_entry key = {.index = MJ_IX_KEY, .name = str("k1"), .ref = {2}, .fingerprint = {3}};
    mj_entry slot = {.index = MJ_IX_SLOT, .name = str("main"), .ref = {4}, .at = T0, .n = 5};
    mj_change c[] = {put_of(tid), put_of(key), put_of(slot)};
    entries *got;
    mj_tx *tx;
    base b;

    open_base(&b, "store");
    batch(&b, c, 3);
    tx = begin(&b, false);
    got = scan_in(tx, (mj_scan){.index = MJ_IX_TID}, 0);
    CHECK(got->n == 1 && got->e[0].n == 7 && got->e[0].ref[0] == 1 && mj_str_eq(got->e[0].name, tid.name));
    free(got);
    got = scan_in(tx, (mj_scan){.index = MJ_IX_KEY}, 0);
    CHECK(got->n == 1 && got->e[0].fingerprint[0] == 3 && got->e[0].ref[0] == 2);
    free(got);
    got = scan_in(tx, (mj_scan){.index = MJ_IX_SLOT}, 0);
    CHECK(got->n == 1 && mj_str_eq(got->e[0].name, slot.name) && got->e[0].n == 5 && got->e[0].at == T0);
    free(got);
    backend()->abort(tx);
    close_base(&b);
}

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

/* Sets of facets between which tasks go: `life` of one task, whose names (of ref i) do not change. */
enum { LIVES = 14, GONE = 0, TOMBED = 13 };

typedef struct names {
    char key[16], ids[3][16];
} names;

static void name_all(names *n, unsigned i)
{
    snprintf(n->key, sizeof n->key, "key%u", i);
    for (unsigned k = 0; k < 3; k++)
        snprintf(n->ids[k], sizeof n->ids[k], "id%u.%u", i, k);
}

static void set_slot(mj_facets *f, unsigned attempt, int64_t until, const char *account)
{
    f->attempts[attempt].slot = until > 0;
    f->attempts[attempt].slot_until = until;
    f->attempts[attempt].account = str(account);
}

static void life(unsigned which, const names *n, mj_facets *f)
{
    *f = (mj_facets){.exists = which != GONE, .state = MJ_QUEUED, .due = MJ_DUE_NONE};
    if (which == GONE)
        return;
    f->user_id = str("user");
    f->key = str(n->key);
    f->fingerprint[0] = 7;
    f->account = str(which == 3 ? "other" : "main");
    f->priority = which == 4 ? -5 : 5;
    f->queued = which <= 4;
    f->due = which == 5 || which == 6 ? MJ_DUE_QUEUE : which >= 7 && which <= 9 ? MJ_DUE_POLL : MJ_DUE_NONE;
    f->due_at = which == 6 ? 2000 : f->due == MJ_DUE_NONE ? 0 : 1000;
    f->state = which >= 10 ? MJ_SUCCEEDED : which >= 7 ? MJ_PENDING : MJ_QUEUED; /* layer: test */
    f->nattempts = which >= 11 ? 2 : which >= 7 ? 1 : 0;
    if (which >= 8) {
        f->attempts[0].nids = which == 9 ? 2 : 1;
        f->attempts[0].ids[0] = str(n->ids[0]);
        f->attempts[0].ids[1] = str(n->ids[1]);
    }
    if (which == 7 || which == 8)
        set_slot(f, 0, which == 7 ? 3000 : 4000, "main");
    if (which == 12) {
        set_slot(f, 0, 3000, "other");
        set_slot(f, 1, 3000, "main");
        f->attempts[1].nids = 1;
        f->attempts[1].ids[0] = str(n->ids[2]);
    }
    if (which != TOMBED)
        return;
    f->exists = f->queued = false;
    f->grave = true;
    f->pruned_at = 9000;
}

typedef struct wanted {
    mj_tx *tx;
    unsigned n[MJ_NINDEXES];
} wanted;

static int want_entry(void *ctx, const mj_entry *e, bool there)
{
    wanted *w = ctx;
    mj_entry key = *e;
    mj_str bytes;

    CHECK(there);
    w->n[e->index]++;
    if (backend()->get(w->tx, &key, &bytes) != MJ_OK)
        MJ_TEST_FAIL("an entry of %s is missing", mj_index_name(e->index));
    if (e->index == MJ_IX_TID || e->index == MJ_IX_KEY)
        CHECK_MEM(key.ref, e->ref, sizeof key.ref);
    if (e->index == MJ_IX_KEY)
        CHECK_MEM(key.fingerprint, e->fingerprint, sizeof key.fingerprint);
    if (e->index == MJ_IX_SLOT)
        CHECK(mj_str_eq(key.name, e->name));
    return MJ_OK;
}

TEST("from any facets to any others, a backend has exactly the entries that follow from them")
{
    enum { PAIRS = LIVES * LIVES };
    static const mj_facets none;
    static mj_facets was[PAIRS], is[PAIRS];
    static names all[PAIRS];
    static mj_change c[PAIRS];
    base b;

    open_base(&b, "store");
    for (unsigned step = 0; step < 3; step++) { /* none to was, was to is, is to none */
        wanted w = {0};
        for (unsigned i = 0; i < PAIRS; i++) {
            const mj_facets *from = step == 0 ? &none : step == 1 ? &was[i] : &is[i];
            const mj_facets *to = step == 0 ? &was[i] : step == 1 ? &is[i] : &none;
            name_all(&all[i], i);
            life(i / LIVES, &all[i], &was[i]);
            life(i % LIVES, &all[i], &is[i]);
            c[i] = (mj_change){.key = {.index = MJ_IX_TASK}, .bytes = str("t"), .gone = !to->exists};
            c[i].key.ref[0] = (uint8_t)i;
            c[i].was = from;
            c[i].is = to;
        }
        batch(&b, c, PAIRS);
        w.tx = begin(&b, false);
        for (unsigned i = 0; i < PAIRS; i++) {
            w.n[MJ_IX_TASK] += c[i].is->exists;
            CHECK_INT(mj_facets_diff(c[i].key.ref, &none, c[i].is, want_entry, &w), MJ_OK);
        }
        for (mj_index index = MJ_IX_TASK; index < MJ_NINDEXES; index++)
            if (count_in(w.tx, index) != w.n[index])
                MJ_TEST_FAIL("step %u: %s has %" PRIu64 " entries, not %u", step, mj_index_name(index),
                             count_in(w.tx, index), w.n[index]);
        backend()->abort(w.tx);
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

/* ---- totals ---- */

static mj_tally totals_of(base *b)
{
    mj_tally t;
    mj_tx *tx = begin(b, false);

    memset(&t, 0xa5, sizeof t);
    CHECK_INT(backend()->totals(tx, &t), MJ_OK);
    backend()->abort(tx);
    return t;
}

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
    CHECK_INT(totals_of(&b).latest, T0 - 1); /* the newest commit's, not the largest */
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

/* Each round adds one to what it has read. */
static void *count_up(void *arg)
{
    mj_entry e = {.index = MJ_IX_META, .name = str("number")};
    base b;

    (void)arg;
    open_base(&b, "store");
    for (unsigned i = 0; i < ROUNDS; i++) {
        mj_tx *tx = begin(&b, true);
        mj_tally none = {0};
        uint8_t n[4];
        mj_str bytes;
        int rc = get_in(tx, e, &bytes);
        CHECK(rc == MJ_OK || rc == MJ_ENOTFOUND);
        mj_be32(n, rc == MJ_OK ? mj_be32_get((const uint8_t *)bytes.p) + 1 : 1);
        CHECK_INT(backend()->apply(tx, &(mj_change){.key = e, .bytes = {(char *)n, 4}}, 1, &none), MJ_OK);
        CHECK_INT(backend()->commit(tx), MJ_OK);
    }
    close_base(&b);
    return NULL;
}

TEST("a writer keeps other writers away from what it reads")
{
    mj_entry e = {.index = MJ_IX_META, .name = str("number")};
    pthread_t threads[WRITERS];
    mj_str bytes;
    mj_tx *tx;
    base b;

    open_base(&b, "store");
    for (unsigned i = 0; i < WRITERS; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, count_up, NULL), 0);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    tx = begin(&b, false);
    CHECK_INT(get_in(tx, e, &bytes), MJ_OK);
    CHECK_INT(mj_be32_get((const uint8_t *)bytes.p), WRITERS * ROUNDS);
    backend()->abort(tx);
    close_base(&b);
}

/* ---- the rest of the table ---- */

TEST("a backend is whole: sound, with a size, trimmed and tidied, and with names")
{
    mj_change c = put_of((mj_entry){.index = MJ_IX_TASK, .ref = {1}});
    uint64_t used = 0, reserved = 0;
    bool forked = true;
    mj_tx *tx;
    base b;

    open_base(&b, "store");
    batch(&b, &c, 1);
    CHECK_INT(backend()->abi, MJ_BACKEND_ABI);
    CHECK(backend()->name[0] && backend()->library()[0]);
    CHECK(!backend()->foreign(b.db));
    CHECK_INT(backend()->ready(b.db, &forked), MJ_OK);
    CHECK(!forked);
    backend()->tidy(b.db);
    backend()->trim(b.db);
    tx = begin(&b, false);
    CHECK_INT(backend()->sound(tx), MJ_OK);
    CHECK_INT(backend()->size(tx, &used, &reserved), MJ_OK);
    CHECK(used > 0 && reserved >= used);
    backend()->abort(tx);
    CHECK(is_there(&b, c.key));
    close_base(&b);
}

#endif
