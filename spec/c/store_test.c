/* Creating, finding, listing; signals and whom they are about. */
#include "store_check.h"

/* ---- pages ---- */

typedef struct listing {
    ref refs[600];
    unsigned n, pages;
} listing;

static void read_page(mj_store *s, mj_query *q, listing *l)
{
    mj_buf b = {0};
    mj_reader r;

    CHECK_INT(mj_store_page(s, q, &b), MJ_OK);
    for (r = mj_reader_of(b.p ? b.p : (uint8_t *)"", b.n); r.p < r.end;) {
        mj_str record = mj_get_str(&r);
        mj_task t;
        CHECK(!r.bad);
        CHECK_INT(mj_task_decode(record.p, record.n, &t), MJ_OK);
        memcpy(l->refs[l->n++].id, t.ref, sizeof t.ref);
    }
    l->pages++;
    mj_buf_free(&b);
}

static listing list(mj_store *s, mj_query q)
{
    listing l = {0};

    do
        read_page(s, &q, &l);
    while (q.more);
    return l;
}

TEST("a new store is empty and every order lists nothing")
{
    mj_store *s = open_store();
    mj_buf b = {0};
    uint8_t none[MJ_ULID_BYTES] = {1};
    uint32_t attempt;

    CHECK_INT(list(s, (mj_query){.order = MJ_BY_AGE, .limit = 10}).n, 0);
    CHECK_INT(list(s, (mj_query){.order = MJ_BY_STATE, .state = MJ_PENDING, .limit = 10}).n, 0);
    CHECK_INT(list(s, (mj_query){.order = MJ_BY_USER, .user_id = str("u1"), .limit = 10}).n, 0);
    CHECK_INT(list(s, (mj_query){.order = MJ_BY_DUE, .due = MJ_DUE_POLL, .until = INT64_MAX, .limit = 10}).n, 0);
    CHECK_INT(list(s, (mj_query){.order = MJ_BY_EVENT, .limit = 10}).n, 0);
    CHECK_INT(mj_store_get(s, none, &b), MJ_ENOTFOUND);
    CHECK_INT(mj_store_find(s, str("T1"), &b, &attempt), MJ_ENOTFOUND);
    CHECK_INT(check_store(s), 0);
    mj_store_close(s);
}

TEST("a created task is found by its ref, and by its task id once it has one")
{
    mj_store *s = open_store();
    mj_buf b = {0};
    uint32_t attempt = 0;
    ref r = add(s, (job){.prompt = "a red fox", .user = "u1"}, T0);
    mj_task t = get_task(s, r, &b);

    CHECK(mj_str_eq(t.prompt, str("a red fox")));
    CHECK_INT(t.created_at, T0);
    CHECK_INT(mj_ulid_time(t.ref), T0);
    CHECK_INT(tell(s, r, SIG_RUNNING, "T1", T0), MJ_OK);
    b.n = 0;
    CHECK_INT(mj_store_find(s, str("T1"), &b, &attempt), MJ_OK);
    CHECK_INT(attempt, 1);
    CHECK_INT(mj_task_decode(b.p, b.n, &t), MJ_OK);
    CHECK_MEM(t.ref, r.id, sizeof r.id);
    CHECK_INT(mj_store_find(s, str(""), &b, &attempt), MJ_ENOTFOUND);
    mj_buf_free(&b);
    CHECK_INT(check_store(s), 1);
    mj_store_close(s);
}

TEST("age, state and user run from the newest to the oldest, whatever the page size")
{
    mj_store *s = open_store();
    ref refs[50];

    for (int i = 0; i < 50; i++)
        refs[i] = add(s, (job){.user = i % 2 ? "u1" : "u2"}, T0 + i / 5); /* five in each millisecond */
    for (uint32_t limit = 1; limit <= 60; limit++) {
        listing l = list(s, (mj_query){.order = MJ_BY_AGE, .limit = limit});
        CHECK_INT(l.n, 50);
        CHECK_INT(l.pages, limit >= 50 ? 1 : (50 + limit - 1) / limit); /* exactly full: no empty page after it */
        for (unsigned i = 0; i < 50; i++)
            CHECK(is(l.refs[i], refs[49 - i]));
        l = list(s, (mj_query){.order = MJ_BY_USER, .user_id = str("u1"), .limit = limit});
        CHECK_INT(l.n, 25);
        for (unsigned i = 0; i < 25; i++)
            CHECK(is(l.refs[i], refs[49 - 2 * i]));
        l = list(s, (mj_query){.order = MJ_BY_STATE, .state = MJ_QUEUED, .limit = limit});
        CHECK_INT(l.n, 50);
        CHECK(is(l.refs[0], refs[49]));
    }
    CHECK_INT(list(s, (mj_query){.order = MJ_BY_AGE, .since = T0 + 7, .limit = 4}).n, 15);
    CHECK_INT(list(s, (mj_query){.order = MJ_BY_AGE, .since = T0 + 11, .limit = 4}).n, 0);
    CHECK_INT(list(s, (mj_query){.order = MJ_BY_USER, .user_id = str("u"), .limit = 4}).n, 0); /* no prefix */
    mj_store_close(s);
}

TEST("due tasks come from the longest due on, each once, also when many are due at once")
{
    mj_store *s = open_store();
    ref refs[40];
    int64_t last_due = 0;
    listing l;
    mj_buf b = {0};

    for (int i = 0; i < 40; i++) {
        mj_signal sig = signal_of(SIG_RUNNING);
        char id[16];
        snprintf(id, sizeof id, "T%d", i);
        sig.task_id = str(id);
        sig.wait_ms = (39 - i) / 8 * SECOND; /* eight at a time */
        refs[i] = add(s, (job){0}, T0);
        CHECK_INT(send_signal(s, &refs[i], sig, T0), MJ_OK);
    }
    for (uint32_t limit = 1; limit <= 41; limit += 4) {
        l = list(s, (mj_query){.order = MJ_BY_DUE, .due = MJ_DUE_POLL, .until = T0 + 3 * SECOND, .limit = limit});
        CHECK_INT(l.n, 32);
        last_due = 0;
        for (unsigned i = 0; i < l.n; i++) {
            mj_task t = get_task(s, l.refs[i], &b);
            CHECK(t.due_at > last_due || (t.due_at == last_due && memcmp(l.refs[i - 1].id, t.ref, 16) < 0));
            last_due = t.due_at;
        }
    }
    CHECK_INT(list(s, (mj_query){.order = MJ_BY_DUE, .due = MJ_DUE_QUEUE, .until = INT64_MAX, .limit = 9}).n, 0);
    CHECK_INT(list(s, (mj_query){.order = MJ_BY_DUE, .due = MJ_DUE_POLL, .until = T0 - 1, .limit = 9}).n, 0);
    mj_buf_free(&b);
    mj_store_close(s);
}

TEST("a listing goes on where it was when what it stood on has left it")
{
    mj_store *s = open_store();
    ref refs[20];
    mj_query q = {.order = MJ_BY_STATE, .state = MJ_QUEUED, .limit = 5};
    listing l = {0};

    for (int i = 0; i < 20; i++)
        refs[i] = add(s, (job){0}, T0 + i);
    read_page(s, &q, &l);
    CHECK(q.more && l.n == 5 && is(l.refs[4], refs[15]));
    CHECK_INT(tell(s, refs[15], SIG_CANCEL, "", T0), MJ_OK); /* the cursor's own */
    CHECK_INT(tell(s, refs[14], SIG_CANCEL, "", T0), MJ_OK); /* and the next */
    add(s, (job){0}, T0 + 99);                               /* newer than the listing */
    read_page(s, &q, &l);
    CHECK(q.more && l.n == 10 && is(l.refs[5], refs[13]) && is(l.refs[9], refs[9]));
    for (int i = 0; i < 9; i++)
        CHECK_INT(tell(s, refs[i], SIG_CANCEL, "", T0), MJ_OK); /* all the rest */
    read_page(s, &q, &l);
    CHECK(!q.more && l.n == 10);
    mj_store_close(s);
}

TEST("refs of a handle ascend when the clock steps back, also from one batch to the next")
{
    mj_store *s = open_store();
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S};
    mj_op ops[16] = {{0}};
    ref before = {{0}};

    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 16; i++)
            ops[i] = (mj_op){.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};
        CHECK_INT(mj_store_write(s, ops, 16, T0 - round * 1000), MJ_OK);
        for (int i = 0; i < 16; i++) {
            CHECK(memcmp(before.id, ops[i].ref, 16) < 0);
            memcpy(before.id, ops[i].ref, 16);
        }
    }
    mj_store_close(s);
}

/* ---- keys, adoption ---- */

TEST("a repeated key gives the first task back, and other arguments are a conflict")
{
    mj_store *s = open_store();
    ref first = add(s, (job){.key = "order-7", .print = 'a'}, T0), second;

    CHECK_INT(create(s, (job){.key = "order-7", .print = 'a'}, T0 + 1), MJ_EDUPLICATE);
    CHECK(is(last_ref(), first));
    CHECK_INT(last_task().created_at, T0);
    CHECK_INT(create(s, (job){.key = "order-7", .print = 'b'}, T0 + 2), MJ_EKEY);
    CHECK(is(last_ref(), first));
    second = add(s, (job){.key = "order-8", .print = 'a'}, T0);
    CHECK(!is(first, second));
    CHECK_INT(stats(s).states[MJ_QUEUED], 2);
    CHECK_INT(check_store(s), 2);
    mj_store_close(s);
}

TEST("an adopted task id is one task, whichever process has it")
{
    mj_store *s = open_store();
    ref mine = add(s, (job){.task_id = "T1", .account = "main"}, T0), other;

    CHECK_INT(last_task().state, MJ_PENDING);
    CHECK_INT(held(s, "main"), 1);
    CHECK_INT(create(s, (job){.task_id = "T1"}, T0), MJ_EDUPLICATE);
    CHECK(is(last_ref(), mine));
    other = add(s, (job){0}, T0);
    CHECK_INT(tell(s, other, SIG_RUNNING, "T1", T0), MJ_ESTALE); /* another task's id */
    CHECK_INT(state_of(s, other), MJ_QUEUED);
    CHECK_INT(check_store(s), 2);
    mj_store_close(s);
}

/* ---- signals ---- */

TEST("a signal finds its task by ref or by task id, and the id tells the attempt")
{
    mj_store *s = open_store();
    mj_signal sig = signal_of(SIG_SUCCEEDED);
    ref r = add(s, (job){0}, T0);

    accounts(s, "main", 10, NULL, 0);
    CHECK_INT(claim(s, T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_ACCEPTED, "T1", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_FAILED, "T1", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_RESUBMIT, "", T0), MJ_OK);
    CHECK_INT(claim(s, T0), MJ_OK);
    sig.attempt = 2; /* a URL may say so; T1 is of the first attempt and has failed */
    sig.task_id = str("T1");
    CHECK_INT(send_signal(s, NULL, sig, T0), MJ_ESTALE);
    CHECK_INT(send_signal(s, &r, sig, T0), MJ_ESTALE);
    CHECK_INT(state_of(s, r), MJ_SUBMITTING);
    sig.task_id = str("T2");
    CHECK_INT(send_signal(s, NULL, sig, T0), MJ_EUNKNOWN);
    CHECK_INT(send_signal(s, &r, sig, T0), MJ_OK);
    CHECK_INT(last.made, MJ_EVENT_SUCCEEDED);
    CHECK(is(last_ref(), r));
    CHECK_INT(check_store(s), 1);
    mj_store_close(s);
}

TEST("an unknown ref, an unknown id and no address at all are unknown, and nothing is created")
{
    mj_store *s = open_store();
    ref nobody = {{7}};
    mj_signal sig = signal_of(SIG_SUCCEEDED);

    CHECK_INT(send_signal(s, &nobody, sig, T0), MJ_EUNKNOWN);
    CHECK_INT(send_signal(s, NULL, sig, T0), MJ_EUNKNOWN);
    sig.task_id = str("");
    CHECK_INT(send_signal(s, NULL, sig, T0), MJ_EUNKNOWN);
    CHECK_INT(check_store(s), 0);
    mj_store_close(s);
}

TEST("another task's id is noted as a conflict and believed by neither")
{
    mj_store *s = open_store();
    ref a = add(s, (job){0}, T0), b = add(s, (job){0}, T0);
    mj_buf buf = {0};
    mj_task t;

    CHECK_INT(tell(s, a, SIG_RUNNING, "T1", T0), MJ_OK);
    CHECK_INT(tell(s, b, SIG_RUNNING, "T2", T0), MJ_OK);
    CHECK_INT(tell(s, b, SIG_SUCCEEDED, "T1", T0), MJ_ESTALE);
    t = get_task(s, b, &buf);
    CHECK_INT(t.state, MJ_PENDING);
    CHECK_INT(last_entry(&t)->result, MJ_RESULT_CONFLICT);
    CHECK_INT(state_of(s, a), MJ_PENDING);
    mj_buf_free(&buf);
    check_store(s);
    mj_store_close(s);
}

TEST("a decision holds only in the state that it was made for")
{
    mj_store *s = open_store();
    ref r = add(s, (job){0}, T0);
    mj_signal sig = signal_of(SIG_CANCEL);

    sig.expect_state = MJ_PENDING;
    CHECK_INT(send_signal(s, &r, sig, T0), MJ_ECHANGED);
    CHECK_INT(last_task().state, MJ_QUEUED);
    sig.expect_state = MJ_QUEUED;
    CHECK_INT(send_signal(s, &r, sig, T0), MJ_OK);
    mj_store_close(s);
}

TEST("what is refused or duplicate gives the record as it stands")
{
    mj_store *s = open_store();
    ref r = add(s, (job){0}, T0);
    mj_buf b = {0};

    CHECK_INT(tell(s, r, SIG_RESUBMIT, "", T0 + MINUTE), MJ_ESTATE);
    CHECK_INT(mj_store_get(s, r.id, &b), MJ_OK);
    CHECK_INT(last.record.n, b.n);
    CHECK_MEM(last.record.p, b.p, b.n);
    mj_buf_free(&b);
    mj_store_close(s);
}

TEST("an operation that fails changes nothing and fails no other of its batch")
{
    static char long_text[MJ_MAX_PROMPT + 100];
    mj_store *s = open_store();
    mj_task good = {.prompt = str("a fox"), .timeout = TIMEOUT_S}, bad[5];
    mj_op ops[12] = {{0}};
    const int codes[] = {MJ_OK,     MJ_EINVAL,   MJ_EINVAL,   MJ_EINVAL,    MJ_EINVAL,    MJ_EINVAL,
                         MJ_EINVAL, MJ_EUNKNOWN, MJ_EUNKNOWN, MJ_ENOTFOUND, MJ_ENOTFOUND, MJ_OK};

    memset(long_text, 'x', sizeof long_text);
    for (int i = 0; i < 5; i++)
        bad[i] = good;
    bad[0].key = bad[1].user_id = bad[2].account = (mj_str){long_text, MJ_MAX_NAME + 1};
    bad[3].prompt = (mj_str){long_text, MJ_MAX_PROMPT + 1};
    bad[4].account = (mj_str){"a\0b", 3};
    for (int i = 0; i < 7; i++)
        ops[i] =
            (mj_op){.kind = MJ_OP_CREATE, .task = i < 1 || i > 5 ? &good : &bad[i - 1], .sig = signal_of(SIG_CREATE)};
    ops[6].sig.task_id = (mj_str){long_text, MJ_MAX_TASK_ID + 1};
    ops[7] = (mj_op){.kind = MJ_OP_SIGNAL, .sig = signal_of(SIG_SUCCEEDED)};
    ops[8] = (mj_op){.kind = MJ_OP_SIGNAL, .has_ref = true, .sig = signal_of(SIG_RUNNING)};
    ops[8].sig.task_id = (mj_str){long_text, 5000};
    ops[9] = (mj_op){.kind = MJ_OP_EVENT_TAKE};
    ops[10] = (mj_op){.kind = MJ_OP_EVENT_DONE};
    ops[11] = (mj_op){.kind = MJ_OP_CREATE, .task = &good, .sig = signal_of(SIG_CREATE)};
    CHECK_INT(mj_store_write(s, ops, 12, T0), MJ_OK);
    for (int i = 0; i < 12; i++)
        if (ops[i].code != codes[i])
            MJ_TEST_FAIL("operation %d: %s, not %s", i, mj_error_name(ops[i].code), mj_error_name(codes[i]));
    CHECK_INT(check_store(s), 2);
    mj_store_close(s);
}

TEST("a batch sees what its earlier operations did")
{
    mj_store *s = open_store();
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str("k")};
    mj_op ops[3] = {{.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)},
                    {.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)},
                    {.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)}};

    accounts(s, "main", 1, NULL, 0);
    CHECK_INT(mj_store_write(s, ops, 3, T0), MJ_OK);
    CHECK_INT(ops[0].code, MJ_OK);
    CHECK_INT(ops[1].code, MJ_EDUPLICATE);
    CHECK_INT(ops[2].code, MJ_OK);
    CHECK_MEM(ops[2].ref, ops[0].ref, 16);
    check_store(s);
    mj_store_close(s);
}

TEST("a time that no clock has is refused")
{
    mj_store *s = open_store();
    mj_op op = {.kind = MJ_OP_TICK, .limit = 1};

    CHECK_INT(mj_store_write(s, &op, 1, -1), MJ_EINVAL);
    CHECK_INT(mj_store_write(s, &op, 1, INT64_MAX), MJ_EINVAL);
    CHECK_INT(op.code, MJ_EINVAL);
    mj_store_close(s);
}
