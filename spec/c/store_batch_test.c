/* A batch does what its operations do one after the other: random operations are run on two stores, on one each in a
 * write of its own, on the other all in one.  The same has to come out of each operation, and the same bytes have to be
 * stored. */
#include "store_random.h"

/* A store draws its first ref of a millisecond at random and the others from it: both have to draw the same. */
static void draw_from(const mj_store *s, const uint8_t *first)
{
    uint8_t *drawn = (uint8_t *)s->refs + sizeof(void *); /* see store/refs.c */

    memcpy(drawn, first, MJ_ULID_BYTES);
    for (int i = MJ_ULID_BYTES - 1; i >= 0 && drawn[i]-- == 0; i--)
        ;
}

static void same_bytes(const mj_buf *a, const mj_buf *b)
{
    CHECK_INT(a->n, b->n);
    if (a->n)
        CHECK_MEM(a->p, b->p, a->n);
}

static void same_outcome(const mj_op *a, const mj_op *b, int i)
{
    if (a->code != b->code || a->done != b->done || a->more != b->more)
        fprintf(stderr, "operation %d, kind %d, signal %d: %d %d %d, in a batch %d %d %d\n", i, a->kind, a->sig.kind,
                a->code, (int)a->done, a->more, b->code, (int)b->done, b->more);
    CHECK_INT(b->code, a->code);
    CHECK_INT(b->made, a->made);
    CHECK_INT(b->done, a->done);
    CHECK_INT(b->more, a->more);
    CHECK_INT(b->pruned, a->pruned);
    CHECK_MEM(b->ref, a->ref, MJ_ULID_BYTES);
    if (a->more && a->kind == MJ_OP_PRUNE)
        CHECK_MEM(b->next, a->next, MJ_ULID_BYTES);
    same_bytes(&a->record, &b->record);
    same_bytes(&a->tomb, &b->tomb);
    if (a->code == MJ_OK)
        same_bytes(&a->event_bytes, &b->event_bytes);
}

/* All that an index holds, in an order that does not depend on the database. */
typedef struct listing {
    mj_store *s;
    mj_tx *tx;
    size_t n, used;
    char strings[4 << 20];
    struct {
        mj_entry e;
        mj_str bytes;
    } all[4 * NREFS * MJ_MAX_ATTEMPTS];
} listing;

static mj_str keep(listing *l, mj_str s)
{
    char *to = l->strings + l->used;

    CHECK(l->used + s.n <= sizeof l->strings);
    if (s.n)
        memcpy(to, s.p, s.n);
    l->used += s.n;
    return (mj_str){to, s.n};
}

static bool list_one(void *ctx, const mj_entry *e, mj_str bytes)
{
    listing *l = ctx;

    CHECK(l->n < sizeof l->all / sizeof l->all[0]);
    l->all[l->n].e = *e;
    l->all[l->n].e.name = keep(l, e->name); /* a reader's strings live until this returns */
    l->all[l->n++].bytes = keep(l, bytes);
    return true;
}

static int by_entry(const void *a, const void *b)
{
    return mj_entry_order(a, b);
}

static void list_index(listing *l, mj_index index)
{
    l->n = l->used = 0;
    CHECK_INT(l->s->backend->scan(l->tx, &(mj_scan){.index = index, .from = {.index = index}}, list_one, l), MJ_OK);
    qsort(l->all, l->n, sizeof l->all[0], by_entry);
}

static void list_meta(listing *l, const char *name)
{
    mj_entry row = {.index = MJ_IX_META, .name = str(name)};
    mj_str bytes;
    int rc = l->s->backend->get(l->tx, &row, &bytes);

    CHECK(rc == MJ_OK || rc == MJ_ENOTFOUND);
    l->n = rc == MJ_OK;
    l->all[0].e = (mj_entry){.index = MJ_IX_META};
    l->all[0].bytes = bytes;
}

static void same_listing(const listing *a, const listing *b, mj_index index)
{
    bool name = index == MJ_IX_TID || index == MJ_IX_KEY;

    if (a->n != b->n)
        MJ_TEST_FAIL("%s: %zu entries, in a batch %zu", mj_index_name(index), a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const mj_entry *x = &a->all[i].e, *y = &b->all[i].e;
        if (mj_entry_order(x, y) != 0 || (name && memcmp(x->ref, y->ref, sizeof x->ref) != 0) ||
            (index == MJ_IX_KEY && memcmp(x->fingerprint, y->fingerprint, sizeof x->fingerprint) != 0) ||
            !mj_str_eq(a->all[i].bytes, b->all[i].bytes))
            MJ_TEST_FAIL("%s: entry %zu is another one in a batch", mj_index_name(index), i);
    }
}

/* What a handle has counted: stored, and owed to the next write that changes something. */
static void same_counts(const listing *a, const listing *b)
{
    mj_tally x, y;

    CHECK_INT(a->s->backend->totals(a->tx, &x), MJ_OK);
    CHECK_INT(b->s->backend->totals(b->tx, &y), MJ_OK);
    mj_counters_add(&x.counters, &a->s->owed, false, 0);
    mj_counters_add(&y.counters, &b->s->owed, false, 0);
    CHECK_MEM(&x, &y, sizeof x);
}

/* What each index holds.  Accounts are check()'s to compare: a rest that is over goes with the next write. */
static void same_rows(mj_store *one, mj_store *many)
{
    static const char *const metas[] = {MJ_JUDGED_KEY, MJ_REWIND_KEY, MJ_UPGRADE_KEY, MJ_PRUNE_KEY};
    static listing a, b;

    a.s = one;
    b.s = many;
    CHECK_INT(one->backend->begin(one->db, false, &a.tx), MJ_OK);
    CHECK_INT(many->backend->begin(many->db, false, &b.tx), MJ_OK);
    for (mj_index index = MJ_IX_TASK; index < MJ_NINDEXES; index++) {
        if (index == MJ_IX_ACCOUNT)
            continue;
        list_index(&a, index);
        list_index(&b, index);
        same_listing(&a, &b, index);
    }
    for (unsigned i = 0; i < sizeof metas / sizeof metas[0]; i++) {
        list_meta(&a, metas[i]);
        list_meta(&b, metas[i]);
        same_listing(&a, &b, MJ_IX_META);
    }
    same_counts(&a, &b);
    one->backend->abort(a.tx);
    many->backend->abort(b.tx);
}

static void sound(mj_store *s)
{
    mj_check_report report;

    CHECK_INT(mj_store_check(s, tell_problem, NULL, &report), MJ_OK);
    CHECK_INT(report.found, 0);
}

static void compare(uint64_t seed)
{
    static batch each, all;
    mj_store *one = open_sending("one"), *many = open_sending("many");
    int counts[32] = {0};
    int64_t now = T0;
    rng r = rng_of(seed);

    names();
    for (int i = 0; i < 2; i++) /* both have the row of counts from now on */
        CHECK_INT(do_op(i ? many : one, (mj_op){.kind = MJ_OP_SWEPT, .requests = 1}, now), MJ_OK);
    while (known.n < NREFS - BATCH) {
        int before = known.n;
        run_each(one, &r, &each, 1 + (int)below(&r, BATCH), now);
        if (known.n > before)
            draw_from(many, known.refs[before]);
        all = each;
        for (int i = 0; i < all.n; i++)
            all.ops[i].record = all.ops[i].event_bytes = all.ops[i].tomb = (mj_buf){0};
        CHECK_INT(mj_store_write(many, all.ops, (size_t)all.n, now), MJ_OK);
        for (int i = 0; i < all.n; i++) {
            same_outcome(&each.ops[i], &all.ops[i], i);
            counts[each.ops[i].kind] += each.ops[i].code == MJ_OK;
            mj_op_clear(&each.ops[i]);
            mj_op_clear(&all.ops[i]);
        }
        same_rows(one, many);
        now = later(&r, now);
    }
    sound(one);
    sound(many);
    for (int kind = 0; kind <= MJ_OP_PRUNE_FROM; kind++)
        fprintf(stderr, "%d%s", counts[kind], kind < MJ_OP_PRUNE_FROM ? ", " : " of each kind\n");
    mj_store_close(one);
    mj_store_close(many);
}

TEST("a batch of random operations does what they do one after the other")
{
    compare(1);
}

TEST("... and with another seed")
{
    compare(20260415);
}

TEST("... and with a third one")
{
    compare(21);
}
