/* A copy of a store: in any pieces, begun again at any time, while the source goes on; and at the end the very same. */
#include "../support/memory_backend.h"
#include "store/copy.h"
#include "store_random.h"

#ifndef COPY_TO
#define COPY_TO mj_backend_memory
#endif

static mj_store *open_other(const char *where)
{
    static mj_backend backend;
    mj_account list[NACCOUNTS];
    char why[512];
    mj_store *s;

    backend = COPY_TO;
    CHECK_INT(mj_store_open_on(&backend, where, &(mj_store_options){.rules = mj_rules_default}, &s, why, sizeof why),
              MJ_OK);
    for (int i = 0; i < NACCOUNTS; i++)
        list[i] = (mj_account){str(senders[i]), (uint32_t)i + 1};
    CHECK_INT(mj_store_accounts(s, list, NACCOUNTS), MJ_OK);
    return s;
}

/* Random operations, until there are so many tasks. */
static int64_t fill(mj_store *s, rng *r, int tasks, int64_t now)
{
    static batch b;

    while (known.n < tasks) {
        run_each(s, r, &b, 1 + (int)below(r, BATCH), now);
        for (int i = 0; i < b.n; i++)
            mj_op_clear(&b.ops[i]);
        now = later(r, now);
    }
    return now;
}

static int step(mj_copy *c, uint32_t limit)
{
    int rc = mj_copy_step(c, limit);

    if (rc != MJ_OK)
        fprintf(stderr, "copy: %s: %s\n", mj_error_name(rc), mj_copy_detail(c));
    return rc;
}

static mj_copy copy_of(mj_store *from, mj_store *to, bool finish)
{
    return (mj_copy){.from = from, .to = to, .from_name = "A", .to_name = "B", .finish = finish};
}

static mj_copy copy_all(mj_store *from, mj_store *to, bool finish, uint32_t limit)
{
    mj_copy c = copy_of(from, to, finish);

    while (!c.done)
        CHECK_INT(step(&c, limit), MJ_OK);
    return c;
}

static void sound(mj_store *s)
{
    mj_check_report report;

    CHECK_INT(mj_store_check(s, tell_problem, NULL, &report), MJ_OK);
    CHECK_INT(report.found, 0);
}

static int any_write(mj_store *s, int64_t now)
{
    mj_op op = {.kind = MJ_OP_PAUSE, .sig = signal_of(SIG_CLAIM), .until = now + 1};
    int rc;

    op.sig.account = str("a");
    rc = mj_store_write(s, &op, 1, now);
    mj_op_clear(&op);
    return rc;
}

/* Everything that a scan of each index gives, as text. */
static bool put_entry(void *ctx, const mj_entry *e, mj_str bytes)
{
    mj_buf *b = ctx;

    mj_put_uint(b, (uint64_t)e->index);
    mj_put_raw(b, e->ref, sizeof e->ref);
    mj_put_uint(b, e->n);
    mj_put_uint(b, (uint64_t)e->at);
    mj_put_uint(b, (uint64_t)(uint32_t)e->priority);
    mj_put_str(b, e->name);
    mj_put_raw(b, e->fingerprint, sizeof e->fingerprint);
    mj_put_str(b, bytes);
    return true;
}

static void contents(mj_store *s, mj_buf *out)
{
    mj_tally totals;
    mj_tx *tx;

    CHECK_INT(mj_read_begin(s, &tx), MJ_OK);
    for (int i = 0; i < MJ_NINDEXES; i++)
        if (i != MJ_IX_META && i != MJ_IX_ACCOUNT)
            CHECK_INT(
                s->backend->scan(tx, &(mj_scan){.index = (mj_index)i, .from = {.index = (mj_index)i}}, put_entry, out),
                MJ_OK);
    CHECK_INT(s->backend->totals(tx, &totals), MJ_OK);
    totals.latest = 0;
    CHECK_INT(mj_tally_encode(&totals, out), MJ_OK);
    s->backend->abort(tx);
}

static void same_contents(mj_store *a, mj_store *b)
{
    mj_buf x = {0}, y = {0};

    contents(a, &x);
    contents(b, &y);
    CHECK_INT(x.n, y.n);
    CHECK_MEM(x.p, y.p, x.n);
    mj_buf_free(&x);
    mj_buf_free(&y);
}

static void there_and_back(uint64_t seed)
{
    mj_store *a, *m, *b;
    rng r = rng_of(seed);
    int64_t now;
    mj_copy c;

    names();
    a = open_sending("a");
    m = open_other("m");
    b = open_sending("b");
    now = fill(a, &r, 120, T0);
    for (int round = 0; round < 6; round++) { /* the source goes on, and copies stop anywhere */
        c = copy_of(a, m, false);
        for (int i = (int)below(&r, 40); i > 0 && !c.done; i--)
            CHECK_INT(step(&c, 1 + below(&r, 20)), MJ_OK);
        CHECK_INT(any_write(m, now), MJ_EMOVED);
        now = fill(a, &r, known.n + 25, now);
    }
    copy_all(a, m, false, 7);
    CHECK_INT(any_write(a, now), MJ_OK);
    c = copy_all(a, m, true, 64);
    CHECK_INT(c.differing, 0);
    CHECK_INT(c.damaged, 0);
    sound(a);
    sound(m);
    CHECK_INT(any_write(a, now), MJ_EMOVED);
    CHECK_INT(mj_copy_cancel(a), MJ_ESTATE);
    copy_all(m, b, true, 1000);
    same_contents(a, b);
    sound(b);
    CHECK_INT(any_write(m, now), MJ_EMOVED);
    CHECK_INT(any_write(b, now), MJ_OK);
    fill(b, &r, known.n + 20, now);
    sound(b);
    mj_store_close(a);
    mj_store_close(m);
    mj_store_close(b);
}

TEST("a store that is copied to another database and back is the same in each entry, whatever happened to it meanwhile")
{
    there_and_back(1);
}

TEST("... and with another seed")
{
    there_and_back(20261128);
}

TEST("a second pass over what has not changed writes nothing")
{
    rng r = rng_of(5);
    mj_store *a, *m;
    mj_copy c;

    names();
    a = open_sending("a");
    m = open_other("m2");
    fill(a, &r, 60, T0);
    c = copy_all(a, m, false, 10);
    CHECK(c.written > 0);
    c = copy_all(a, m, false, 10);
    CHECK_INT(c.written, 0);
    CHECK_INT(c.removed, 0);
    CHECK(c.looked > 0);
    mj_store_close(a);
    mj_store_close(m);
}

TEST("a copy goes into an empty store only, or on with its own")
{
    rng r = rng_of(6);
    mj_store *a, *b, *m;
    mj_copy c;

    names();
    a = open_sending("a");
    b = open_sending("b");
    m = open_other("m3");
    fill(a, &r, 10, T0);
    fill(b, &r, 20, T0);
    c = copy_of(a, b, false);
    CHECK_INT(step(&c, 10), MJ_EEXISTS);
    CHECK_INT(any_write(b, T0 + 5000 * SECOND), MJ_OK);
    copy_all(a, m, false, 10);
    c = copy_of(b, m, false);
    c.from_name = "another";
    CHECK_INT(step(&c, 10), MJ_EMOVED);
    mj_store_close(a);
    mj_store_close(b);
    mj_store_close(m);
}

TEST("what is being finished takes no write, and does again when that is given up")
{
    rng r = rng_of(7);
    mj_store *a, *m;
    mj_copy c;

    names();
    a = open_sending("a");
    m = open_other("m4");
    fill(a, &r, 30, T0);
    c = copy_of(a, m, true);
    CHECK_INT(step(&c, 5), MJ_OK);
    CHECK_INT(any_write(a, T0 + 9000 * SECOND), MJ_EMOVED);
    CHECK(strstr(mj_store_detail(a), "to B") != NULL);
    CHECK_INT(mj_copy_cancel(a), MJ_OK);
    CHECK_INT(any_write(a, T0 + 9000 * SECOND), MJ_OK);
    CHECK_INT(any_write(m, T0 + 9000 * SECOND), MJ_EMOVED);
    copy_all(a, m, true, 5);
    CHECK_INT(any_write(m, T0 + 9000 * SECOND), MJ_OK);
    mj_store_close(a);
    mj_store_close(m);
}

TEST("a record that can't be read is left out and counted, and the rest is copied")
{
    rng r = rng_of(8);
    mj_store *a, *m;
    uint8_t broken[MJ_ULID_BYTES];
    mj_entry at = {.index = MJ_IX_TASK};
    mj_change ch = {.bytes = {"?", 1}};
    mj_tally none = {0};
    mj_tx *tx;
    mj_copy c;

    names();
    a = open_sending("a");
    m = open_other("m5");
    fill(a, &r, 30, T0);
    memset(broken, 7, sizeof broken);
    memcpy(at.ref, broken, sizeof broken);
    ch.key = at;
    CHECK_INT(a->backend->begin(a->db, true, &tx), MJ_OK);
    CHECK_INT(a->backend->apply(tx, &ch, 1, &none), MJ_OK);
    CHECK_INT(a->backend->commit(tx), MJ_OK);
    c = copy_all(a, m, true, 8);
    CHECK_INT(c.damaged, 1);
    CHECK(c.written > 0);
    sound(m);
    mj_store_close(a);
    mj_store_close(m);
}
