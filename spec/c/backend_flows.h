/* The engine on a backend: what a task goes through, from its creation until it is forgotten.  For BACKEND, as
 * backend_conformance.h says. */
#ifndef BACKEND_FLOWS_H
#define BACKEND_FLOWS_H

#include "backend_help.h"

enum { LEASE = 30 * SECOND, HOUR = 60 * MINUTE };

static mj_store *open_engine(const char *where)
{
    char why[256];
    mj_store *s;

    if (mj_store_open_on(backend(), where, &(mj_store_options){.rules = mj_rules_default}, &s, why, sizeof why) !=
        MJ_OK)
        MJ_TEST_FAIL("%s: %s", where, why);
    return s;
}

static void tell_problem(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "check: %s\n", text);
}

static uint64_t check_clean(mj_store *s)
{
    mj_check_report report;

    CHECK_INT(mj_store_check(s, tell_problem, NULL, &report), MJ_OK);
    CHECK_INT(report.found, 0);
    return report.tasks;
}

static unsigned page_of(mj_store *s, mj_query q, ref *refs, unsigned most)
{
    unsigned n = 0;

    do {
        mj_buf b = {0};
        CHECK_INT(mj_store_page(s, &q, &b), MJ_OK);
        for (mj_reader r = mj_reader_of(b.p ? b.p : (uint8_t *)"", b.n); r.p < r.end;) {
            mj_str record = mj_get_str(&r);
            mj_task t;
            CHECK(!r.bad && n < most);
            CHECK_INT(mj_task_decode(record.p, record.n, &t), MJ_OK);
            memcpy(refs[n++].id, t.ref, sizeof t.ref);
        }
        mj_buf_free(&b);
    } while (q.more);
    return n;
}

TEST("engine: a task is created once for its key, and found by ref, key and task id")
{
    mj_store *s = open_engine("store");
    ref r = add(s, (job){.key = "k1", .print = 'a', .user = "u1"}, T0);
    mj_buf b = {0};
    uint32_t attempt = 0;
    bool pruned = true;

    CHECK_INT(create(s, (job){.key = "k1", .print = 'a'}, T0 + 1), MJ_EDUPLICATE);
    CHECK(is(last_ref(), r));
    CHECK_INT(create(s, (job){.key = "k1", .print = 'b'}, T0 + 1), MJ_EKEY);
    CHECK_INT(mj_store_key(s, str("k1"), &b, &pruned), MJ_OK);
    CHECK(!pruned);
    CHECK_INT(mj_store_find(s, str("T1"), &b, &attempt), MJ_ENOTFOUND);
    CHECK_INT(tell(s, r, SIG_RUNNING, "T1", T0), MJ_OK);
    CHECK_INT(mj_store_find(s, str("T1"), &b, &attempt), MJ_OK);
    CHECK_INT(attempt, 1);
    CHECK_INT(send_signal(s, NULL, (mj_signal){.kind = SIG_SUCCEEDED, .expect_state = -1, .task_id = str("T1")}, T0),
              MJ_OK);
    CHECK_INT(state_of(s, r), MJ_SUCCEEDED);
    CHECK_INT(stats(s).states[MJ_SUCCEEDED], 1);
    mj_buf_free(&b);
    CHECK_INT(check_clean(s), 1);
    mj_store_close(s);
    s = open_engine("store");
    CHECK_INT(state_of(s, r), MJ_SUCCEEDED);
    mj_store_close(s);
}

TEST("engine: listings run from the newest to the oldest, whatever the page size")
{
    enum { TASKS = 40 };
    mj_store *s = open_engine("store");
    ref refs[TASKS], got[TASKS];

    for (int i = 0; i < TASKS; i++)
        refs[i] = add(s, (job){.user = i % 2 ? "u1" : "u2"}, T0 + i / 5);
    for (uint32_t limit = 1; limit <= TASKS + 1; limit += 3) {
        CHECK_INT(page_of(s, (mj_query){.order = MJ_BY_AGE, .limit = limit}, got, TASKS), TASKS);
        for (unsigned i = 0; i < TASKS; i++)
            CHECK(is(got[i], refs[TASKS - 1 - i]));
        CHECK_INT(page_of(s, (mj_query){.order = MJ_BY_USER, .user_id = str("u1"), .limit = limit}, got, TASKS), 20);
        CHECK(is(got[0], refs[TASKS - 1]) && is(got[19], refs[1]));
        CHECK_INT(page_of(s, (mj_query){.order = MJ_BY_STATE, .state = MJ_QUEUED, .limit = limit}, got, TASKS), TASKS);
    }
    CHECK_INT(page_of(s, (mj_query){.order = MJ_BY_USER, .user_id = str("u"), .limit = 9}, got, TASKS), 0);
    check_clean(s);
    mj_store_close(s);
}

TEST("engine: listings are picked by what the tasks are, within two times, both ways, by every order")
{
    enum { TASKS = 40 };
    static const mj_order orders[] = {MJ_BY_AGE, MJ_BY_STATE, MJ_BY_USER};
    mj_store *s = open_engine("store");
    ref refs[TASKS], got[TASKS];

    for (int i = 0; i < TASKS; i++)
        refs[i] = add(s, (job){.user = "u", .account = i % 4 ? "a" : "b"}, T0 + i);
    for (unsigned k = 0; k < 3; k++)
        for (uint32_t limit = 1; limit <= TASKS + 1; limit += 3) {
            mj_query q = {.order = orders[k], .state = MJ_QUEUED, .user_id = str("u"), .limit = limit};
            q.only.account = str("b");
            CHECK_INT(page_of(s, q, got, TASKS), 10);
            CHECK(is(got[0], refs[36]) && is(got[9], refs[0]));
            q.since = T0 + 4, q.until = T0 + 36;
            CHECK_INT(page_of(s, q, got, TASKS), 9);
            CHECK(is(got[0], refs[36]) && is(got[8], refs[4]));
            q.oldest_first = true;
            CHECK_INT(page_of(s, q, got, TASKS), 9);
            CHECK(is(got[0], refs[4]) && is(got[8], refs[36]));
            q.more = true; /* behind a ref, as if a page had ended there */
            memcpy(q.cursor, refs[8].id, sizeof refs[8].id);
            CHECK_INT(page_of(s, q, got, TASKS), 7);
            CHECK(is(got[0], refs[12]) && is(got[6], refs[36]));
            q.oldest_first = false;
            CHECK_INT(page_of(s, q, got, TASKS), 1);
            CHECK(is(got[0], refs[4]));
            memcpy(q.cursor, refs[39].id, sizeof refs[39].id); /* above the window */
            CHECK_INT(page_of(s, q, got, TASKS), 9);
            q.more = false;
            q.until = T0 + 3;
            CHECK_INT(page_of(s, q, got, TASKS), 0);
        }
    check_clean(s);
    mj_store_close(s);
}

TEST("engine: a listing by key is its task, if the rest of the filter holds")
{
    mj_store *s = open_engine("store");
    ref r = add(s, (job){.key = "k", .user = "u"}, T0), got[4];
    mj_query q = {.order = MJ_BY_KEY, .key = str("k"), .limit = 10};

    add(s, (job){.key = "other", .user = "u"}, T0);
    CHECK_INT(page_of(s, q, got, 4), 1);
    CHECK(is(got[0], r));
    q.only = (mj_filter){.states = 1u << MJ_QUEUED, .user_id = str("u"), .text = str("A F"), .has_mode = true};
    CHECK_INT(page_of(s, q, got, 4), 1);
    q.only.states = 1u << MJ_LOST;
    CHECK_INT(page_of(s, q, got, 4), 0);
    q.only = (mj_filter){0};
    q.until = T0 - 1;
    CHECK_INT(page_of(s, q, got, 4), 0);
    q.until = 0;
    q.since = T0 + 1;
    CHECK_INT(page_of(s, q, got, 4), 0);
    q.since = 0;
    q.more = true;
    memcpy(q.cursor, r.id, sizeof r.id);
    CHECK_INT(page_of(s, q, got, 4), 0);
    q.more = false;
    q.key = str("none");
    CHECK_INT(page_of(s, q, got, 4), 0);
    mj_store_close(s);
}

TEST("engine: claims keep to slots and caps, take the first of the queue, and time frees a slot")
{
    mj_store *s = open_engine("store");
    ref low, high, old;

    accounts(s, "a", 1, "b", 1);
    low = add(s, (job){.priority = -3}, T0);
    old = add(s, (job){.priority = 2}, T0);
    add(s, (job){.priority = 2}, T0);
    high = add(s, (job){.priority = 9, .account = "b"}, T0);
    CHECK_INT(claim(s, T0), MJ_OK);
    CHECK(is(last_ref(), high));
    CHECK_INT(claim(s, T0), MJ_OK);
    CHECK(is(last_ref(), old));
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(held(s, "a") + held(s, "b"), 2);
    CHECK_INT(stats(s).ready, 2);
    CHECK_INT(tell(s, high, SIG_ACCEPTED, "T1", T0), MJ_OK);
    CHECK_INT(tell(s, high, SIG_SUCCEEDED, "T1", T0), MJ_OK);
    CHECK_INT(pause_account(s, "b", T0 + MINUTE, T0), MJ_OK);
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(claim(s, T0 + MINUTE), MJ_OK);
    CHECK_INT(claim(s, T0 + MINUTE), MJ_ELIMIT);
    check_clean(s);
    CHECK_INT(claim(s, T0 + SLOT_MS), MJ_OK); /* the slot of `old` ended */
    CHECK(is(last_ref(), low));
    CHECK_INT(claim(s, T0 + SLOT_MS), MJ_ENOTFOUND);
    check_clean(s);
    mj_store_close(s);
}

TEST("engine: operations of one batch see each other's tasks, names, slots and events")
{
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str("k")};
    mj_op ops[] = {{.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)},
                   {.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)},
                   {.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)},
                   {.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)},
                   {.kind = MJ_OP_SIGNAL, .sig = signal_of(SIG_SUCCEEDED)},
                   {.kind = MJ_OP_SIGNAL, .sig = signal_of(SIG_SUCCEEDED)},
                   {.kind = MJ_OP_EVENT_TAKE, .until = T0 + LEASE},
                   {.kind = MJ_OP_EVENT_TAKE, .until = T0 + LEASE}};
    const int codes[] = {MJ_OK,       MJ_EDUPLICATE, MJ_OK,        MJ_ENOTFOUND,
                         MJ_EUNKNOWN, MJ_EUNKNOWN,   MJ_ENOTFOUND, MJ_ENOTFOUND};
    mj_store *s = open_engine("store");

    accounts(s, "main", 1, NULL, 0);
    ops[2].sig.account = ops[3].sig.account = str("");
    CHECK_INT(mj_store_write(s, ops, 8, T0), MJ_OK);
    for (int i = 0; i < 8; i++) {
        if (ops[i].code != codes[i])
            MJ_TEST_FAIL("operation %d: %s, not %s", i, mj_error_name(ops[i].code), mj_error_name(codes[i]));
        mj_op_clear(&ops[i]);
    }
    CHECK_INT(check_clean(s), 1);
    mj_store_close(s);
}

TEST("engine: events of a task are handed out in order, one at a time, until done, buried or kicked")
{
    mj_store *s = open_engine("store");
    ref r = add(s, (job){0}, T0), other;
    mj_event_record e, second;

    CHECK_INT(tell(s, r, SIG_FAILED, "T1", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_RESUBMIT, "", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_FAILED, "T2", T0 + 1), MJ_OK);
    other = add(s, (job){.task_id = "T3"}, T0 + 2);
    CHECK_INT(tell(s, other, SIG_SUCCEEDED, "T3", T0 + 2), MJ_OK);
    CHECK_INT(stats(s).events, 3);
    CHECK_INT(take(s, T0 + LEASE, T0 + 5), MJ_OK);
    e = last_event();
    CHECK(is(last_ref(), r) && e.seq == 1);
    CHECK_INT(take(s, T0 + LEASE, T0 + 5), MJ_OK);
    CHECK(is(last_ref(), other)); /* the second one of r waits */
    second = last_event();
    CHECK_INT(take(s, T0 + LEASE, T0 + 5), MJ_ENOTFOUND);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, second, 0, T0 + 5), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, e, T0 + HOUR, T0 + 5), MJ_OK);
    CHECK_INT(take(s, T0 + LEASE, T0 + 6), MJ_ENOTFOUND);
    check_clean(s);
    CHECK_INT(take(s, T0 + HOUR + LEASE, T0 + HOUR), MJ_OK);
    e = last_event();
    CHECK(e.seq == 1 && e.tries == 2);
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, e, 0, T0 + HOUR), MJ_OK); /* buried */
    CHECK_INT(stats(s).buried, 1);
    CHECK_INT(take(s, T0 + HOUR + LEASE, T0 + HOUR), MJ_OK);
    second = last_event();
    CHECK_INT(second.seq, 2);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, second, 0, T0 + HOUR), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_KICK, e, 0, T0 + HOUR), MJ_OK);
    CHECK_INT(take(s, T0 + HOUR + LEASE, T0 + HOUR), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, last_event(), 0, T0 + HOUR), MJ_OK);
    CHECK_INT(stats(s).events + stats(s).buried, 0);
    check_clean(s);
    mj_store_close(s);
}

static mj_op prune(mj_store *s, int64_t until, int64_t now)
{
    mj_op op = {.kind = MJ_OP_PRUNE, .until = until, .limit = 10, .sig = signal_of(SIG_LOOK)};

    op.sig.expect_state = MJ_SUCCEEDED;
    CHECK_INT(do_op(s, op, now), MJ_OK);
    return last;
}

TEST("engine: a task that is over becomes a tombstone, which keeps its key and ids until it is forgotten")
{
    mj_store *s = open_engine("store");
    ref r = add(s, (job){.task_id = "T1", .key = "k1", .user = "u1", .print = 'p'}, T0);
    mj_buf b = {0};
    bool pruned = false;

    CHECK_INT(tell(s, r, SIG_SUCCEEDED, "T1", T0), MJ_OK);
    CHECK_INT(prune(s, T0, T0 + HOUR).done, 0); /* its event waits */
    CHECK_INT(take(s, T0 + LEASE, T0), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, last_event(), 0, T0), MJ_OK);
    CHECK_INT(prune(s, T0, T0 + HOUR).done, 1);
    CHECK_INT(mj_store_get(s, r.id, &b), MJ_ENOTFOUND);
    CHECK_INT(mj_store_key(s, str("k1"), &b, &pruned), MJ_OK);
    CHECK(pruned);
    CHECK_INT(create(s, (job){.key = "k1", .print = 'p'}, T0 + HOUR), MJ_EDUPLICATE);
    CHECK(last.pruned);
    CHECK_INT(check_clean(s), 0);
    CHECK_INT(do_op(s, (mj_op){.kind = MJ_OP_FORGET, .until = T0 + HOUR, .limit = 10}, T0 + 2 * HOUR), MJ_OK);
    CHECK_INT(last.done, 1);
    CHECK_INT(mj_store_tomb(s, r.id, &b), MJ_ENOTFOUND);
    CHECK_INT(create(s, (job){.key = "k1", .task_id = "T1", .print = 'q'}, T0 + 2 * HOUR), MJ_OK);
    mj_buf_free(&b);
    CHECK_INT(check_clean(s), 1);
    mj_store_close(s);
}

TEST("engine: a key that is forgotten is free for a later operation of the same batch")
{
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str("k1")};
    mj_op ops[] = {{.kind = MJ_OP_FORGET, .until = T0 + HOUR, .limit = 10},
                   {.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)}};
    mj_store *s = open_engine("store");
    ref r = add(s, (job){.task_id = "T1", .key = "k1"}, T0);
    mj_buf b = {0};
    bool pruned = true;

    CHECK_INT(tell(s, r, SIG_SUCCEEDED, "T1", T0), MJ_OK);
    CHECK_INT(take(s, T0 + LEASE, T0), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, last_event(), 0, T0), MJ_OK);
    CHECK_INT(prune(s, T0, T0 + HOUR).done, 1);
    CHECK_INT(mj_store_write(s, ops, 2, T0 + 2 * HOUR), MJ_OK);
    CHECK_INT(ops[0].done, 1);
    CHECK_INT(ops[1].code, MJ_OK);
    CHECK_INT(mj_store_key(s, str("k1"), &b, &pruned), MJ_OK);
    CHECK(!pruned);
    mj_buf_free(&b);
    CHECK_INT(check_clean(s), 1);
    mj_op_clear(&ops[0]);
    mj_op_clear(&ops[1]);
    mj_store_close(s);
}

static unsigned refused_of(mj_store *s, uint64_t below, uint32_t limit, uint64_t *first)
{
    mj_buf b = {0};
    unsigned n = 0;

    CHECK_INT(mj_store_refused(s, below, limit, &b), MJ_OK);
    for (mj_reader r = mj_reader_of(b.p ? b.p : (uint8_t *)"", b.n); r.p < r.end; n++) {
        mj_refused f;
        CHECK_INT(mj_refused_decode(mj_get_str(&r), &f), MJ_OK);
        *first = n == 0 ? f.number : *first;
        CHECK(n == 0 || f.number == *first - n);
    }
    mj_buf_free(&b);
    return n;
}

TEST("engine: refused callbacks are kept up to the limits, the newest first")
{
    mj_store *s = open_engine("store");
    mj_op op = {.kind = MJ_OP_REFUSE, .sig = {.error = str("why")}, .body = str("{}")};
    uint64_t first = 0;

    for (uint32_t i = 0; i < MJ_MAX_REFUSED + 10; i++) {
        mj_be32(op.ref, i);
        CHECK_INT(do_op(s, op, T0 + i), MJ_OK);
    }
    CHECK_INT(refused_of(s, 0, 1000, &first), MJ_MAX_REFUSED);
    CHECK_INT(first, MJ_MAX_REFUSED + 10);
    CHECK_INT(refused_of(s, 100, 7, &first), 7);
    CHECK_INT(first, 99);
    CHECK_INT(refused_of(s, UINT64_MAX, 1000, &first), MJ_MAX_REFUSED);
    CHECK_INT(refused_of(s, 11, 7, &first), 0);
    check_clean(s);
    mj_store_close(s);
}

static int count_call(void *ctx)
{
    ++*(int *)ctx;
    return MJ_OK;
}

static int refuse_call(void *ctx)
{
    (void)ctx;
    return MJ_ENOMEM;
}

TEST("engine: a batch that the backend wants again runs again, and its operations happen once")
{
    for (int at = FAULT_APPLY; at <= FAULT_COMMIT; at++) {
        mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str(at == FAULT_APPLY ? "k1" : "k2")};
        mj_op ops[] = {{.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE), .want = true},
                       {.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM), .want = true}};
        mj_store *s = open_engine("store");
        int calls = 0;
        mj_ready ready = {count_call, &calls};
        mj_buf b = {0};
        accounts(s, "main", 8, NULL, 0);
        ops[1].sig.account = str("");
        fail_at((fault_at)at, MJ_EAGAIN, 3);
        CHECK_INT(mj_store_write_ready(s, ops, 2, T0, &ready), MJ_OK);
        CHECK_INT(fault.times, 0);
        CHECK_INT(calls, at == FAULT_APPLY ? 1 : 4);
        CHECK_INT(ops[0].code, MJ_OK);
        CHECK_INT(ops[1].code, MJ_OK);
        CHECK_MEM(ops[0].ref, ops[1].ref, sizeof ops[0].ref);
        CHECK_INT(mj_store_get(s, ops[0].ref, &b), MJ_OK);
        CHECK_INT(held(s, "main"), at);
        CHECK_INT(check_clean(s), at);
        mj_buf_free(&b);
        mj_op_clear(&ops[0]);
        mj_op_clear(&ops[1]);
        mj_store_close(s);
    }
}

TEST("engine: a batch that can't be stored fails as a whole, each operation with its code, and the next one is stored")
{
    static const int codes[] = {MJ_EIO, MJ_ENOSPC};
    mj_store *s = open_engine("store");
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str("k")};
    mj_ready refusing = {refuse_call, NULL};
    mj_op ops[2];
    mj_buf b = {0};

    for (int at = FAULT_NONE; at <= FAULT_COMMIT; at++)
        for (int i = 0; i < 2; i++) {
            int code = at == FAULT_NONE ? MJ_ENOMEM : codes[i];
            ops[0] = (mj_op){.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};
            ops[1] = (mj_op){.kind = MJ_OP_TICK, .limit = 5};
            fail_at((fault_at)at, codes[i], 1);
            CHECK_INT(mj_store_write_ready(s, ops, 2, T0, at == FAULT_NONE ? &refusing : NULL), code);
            CHECK_INT(ops[0].code, code);
            CHECK_INT(ops[1].code, code);
            CHECK_INT(mj_store_get(s, ops[0].ref, &b), MJ_ENOTFOUND);
            mj_op_clear(&ops[0]);
            mj_op_clear(&ops[1]);
        }
    fail_at(FAULT_NONE, MJ_OK, 0);
    CHECK_INT(check_clean(s), 0);
    CHECK_INT(create(s, (job){.key = "k"}, T0), MJ_OK);
    CHECK_INT(check_clean(s), 1);
    mj_buf_free(&b);
    mj_store_close(s);
}

TEST("engine: 1,024 operations in one batch, and handles of one store see each other's commits")
{
    enum { N = 1024 };
    static mj_op ops[N];
    static mj_task tasks[N];
    static char keys[N][12];
    mj_store *s = open_engine("store"), *other = open_engine("store");

    for (unsigned i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "key %u", i % (N / 2)); /* each twice */
        tasks[i] = (mj_task){.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str(keys[i]), .user_id = str("u")};
        ops[i] = (mj_op){.kind = MJ_OP_CREATE, .task = &tasks[i], .sig = signal_of(SIG_CREATE)};
    }
    CHECK_INT(mj_store_write(s, ops, N, T0), MJ_OK);
    for (unsigned i = 0; i < N; i++) {
        CHECK_INT(ops[i].code, i < N / 2 ? MJ_OK : MJ_EDUPLICATE);
        mj_op_clear(&ops[i]);
    }
    CHECK_INT(stats(other).states[MJ_QUEUED], N / 2);
    CHECK_INT(check_clean(other), N / 2);
    CHECK_INT(create(other, (job){.key = "key 3"}, T0), MJ_EDUPLICATE);
    mj_store_close(other);
    mj_store_close(s);
}

#ifndef BACKEND_WITHOUT_BACKUP
TEST("engine: a backup is a store with the same tasks, and is never put over another")
{
    mj_store *s = open_engine("store"), *copy;
    ref r = add(s, (job){.key = "k1"}, T0);

    CHECK_INT(mj_store_backup(s, "copy"), MJ_OK);
    add(s, (job){0}, T0);
    CHECK_INT(mj_store_backup(s, "copy"), MJ_EEXISTS);
    copy = open_engine("copy");
    CHECK_INT(state_of(copy, r), MJ_QUEUED);
    CHECK_INT(check_clean(copy), 1);
    CHECK_INT(check_clean(s), 2);
    mj_store_close(copy);
    mj_store_close(s);
}
#endif

#endif
