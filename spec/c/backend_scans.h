/* Scans and single entries, of every index.  For BACKEND, as backend_conformance.h says. */
#ifndef BACKEND_SCANS_H
#define BACKEND_SCANS_H

#include "backend_help.h"
#include "rng.h"

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

static bool has_bounds(mj_index i)
{
    return i == MJ_IX_DUE || i == MJ_IX_SLOT || i == MJ_IX_OUTBOX || i == MJ_IX_GRAVE;
}

/* stop: the callback ends the scan with that many entries; limit: the scan ends by itself. */
static void check_scan(mj_tx *tx, const entries *all, mj_scan scan, unsigned stop, unsigned limit)
{
    entries *got;
    unsigned n = 0;

    scan.limit = limit;
    scan.bounded = limit > 1 && !scan.newest_first && (scan.fixed || scan.index != MJ_IX_DUE) && has_bounds(scan.index);
    scan.until = scan.from.at;
    got = scan_in(tx, scan, stop);
    stop = stop ? stop : limit;

    for (unsigned k = 0; k < all->n && (stop == 0 || n < stop); k++) {
        unsigned i = scan.newest_first ? all->n - 1 - k : k;
        if (!reached(all, i, &scan))
            continue;
        if (scan.bounded && all->e[i].at > scan.until)
            break;
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
        check_scan(tx, all, scan, 0, 0);
        check_scan(tx, all, scan, 1, 0);
        check_scan(tx, all, scan, 3, 0);
        check_scan(tx, all, scan, 0, 1);
        check_scan(tx, all, scan, 0, 3);
        check_scan(tx, all, scan, 2, 3);
        check_scan(tx, all, scan, 0, MOST);
    }
}

/* An account is there as long as it holds slots: of those that these tests make, none does. */
static void delete_slots(base *b, mj_index index, const mj_entry *pool, unsigned n)
{
    for (unsigned i = 0; i < n && index == MJ_IX_SLOT; i++) {
        mj_change gone = del_of(pool[i]);
        batch(b, &gone, 1);
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
        delete_slots(&b, index, pool, half);
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
        c[n++] = (mj_change){.key = task, .bytes = {&"record"[i], 1}};
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
        delete_slots(&b, index, pool, half);
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

#endif
