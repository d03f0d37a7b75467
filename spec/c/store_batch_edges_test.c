/* What operations of one batch do to each other, where random ones (store_batch_test.c) seldom come; and entries and
 * rows that can't be read. */
#include "store_check.h"

enum { HOUR_MS = 3600000 };

static void sound(mj_store *s)
{
    mj_check_report report;

    CHECK_INT(mj_store_check(s, tell_problem, NULL, &report), MJ_OK);
    CHECK_INT(report.found, 0);
}

static mj_op create_op(mj_task *t, const char *name)
{
    *t = (mj_task){.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str(name)};
    return (mj_op){.kind = MJ_OP_CREATE, .task = t, .sig = signal_of(SIG_CREATE)};
}

static mj_op signal_op(const ref *r, mj_signal_kind kind)
{
    mj_op op = {.kind = MJ_OP_SIGNAL, .sig = signal_of(kind), .has_ref = true};

    op.sig.task_id = str("");
    memcpy(op.ref, r->id, sizeof op.ref);
    return op;
}

static mj_op claim_op(void)
{
    return (mj_op){.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)};
}

static void write_all(mj_store *s, mj_op *ops, size_t n, int64_t now)
{
    CHECK_INT(mj_store_write(s, ops, n, now), MJ_OK);
    for (size_t i = 0; i < n; i++)
        mj_op_clear(&ops[i]);
}

static void put_raw(mj_store *s, int db, const void *name, size_t kn, const void *value, size_t vn)
{
    MDB_val k = mj_val(name, kn), v = mj_val(value, vn);
    MDB_txn *t;

    CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
    CHECK_INT(mdb_put(t, mj_env_dbi(lmdb_of(s)->env, db), &k, &v, 0), 0);
    CHECK_INT(mdb_txn_commit(t), 0);
    mj_env_leave(lmdb_of(s)->env);
}

static uint64_t rows_of(mj_store *s, int db)
{
    MDB_stat st;
    MDB_txn *t;

    CHECK_INT(mj_env_begin(lmdb_of(s)->env, MDB_RDONLY, &t), 0);
    CHECK_INT(mdb_stat(t, mj_env_dbi(lmdb_of(s)->env, db), &st), 0);
    mdb_txn_abort(t);
    mj_env_leave(lmdb_of(s)->env);
    return st.ms_entries;
}

static mj_op cancelled_prune(int64_t until)
{
    return (mj_op){.kind = MJ_OP_PRUNE, .sig = {.expect_state = MJ_CANCELLED}, .limit = 10, .until = until};
}

TEST("a task that comes, ends, is pruned and forgotten in one batch frees its key for the next one in it")
{
    mj_store *s = open_store();
    mj_task t[3];
    mj_op ops[] = {create_op(&t[0], "k"),
                   {.kind = MJ_OP_SIGNAL},
                   cancelled_prune(T0),
                   create_op(&t[1], "k"),
                   {.kind = MJ_OP_FORGET, .until = T0, .limit = 10},
                   create_op(&t[2], "k")};
    ref first;

    CHECK_INT(mj_store_write(s, ops, 1, T0), MJ_OK);
    memcpy(first.id, ops[0].ref, sizeof first.id);
    ops[1] = signal_op(&first, SIG_CANCEL);
    write_all(s, ops + 1, 5, T0);
    CHECK_INT(ops[2].done, 1);
    CHECK_INT(ops[3].code, MJ_EDUPLICATE);
    CHECK(ops[3].pruned);
    CHECK_INT(ops[4].done, 1);
    CHECK_INT(ops[5].code, MJ_OK);
    CHECK_INT(create(s, (job){.key = "k"}, T0), MJ_EDUPLICATE);
    CHECK_MEM(last.ref, ops[5].ref, MJ_ULID_BYTES);
    sound(s);
    mj_store_close(s);
}

TEST("a claim gets what came due since the claim before it in the same batch")
{
    mj_store *s = open_store();
    ref waiting;
    mj_op ops[3];

    accounts(s, "main", 5, NULL, 0);
    waiting = add(s, (job){0}, T0);
    CHECK_INT(claim(s, T0), MJ_OK);
    ops[0] = ops[2] = claim_op();
    ops[1] = signal_op(&waiting, SIG_REFUSED);
    ops[1].sig.wait_ms = 0;
    write_all(s, ops, 3, T0 + SECOND);
    CHECK_INT(ops[0].code, MJ_ENOTFOUND);
    CHECK_INT(ops[2].code, MJ_OK);
    mj_store_close(s);
}

TEST("claims of one batch go on when more has come due than one of them clears away")
{
    enum { N = 150 };
    static mj_op ops[N];
    mj_store *s = open_store();
    mj_signal later = signal_of(SIG_REFUSED);
    int claimed = 0;

    accounts(s, "main", N, NULL, 0);
    later.wait_ms = SECOND;
    for (int i = 0; i < N; i++) {
        ref r = add(s, (job){0}, T0);
        CHECK_INT(claim(s, T0), MJ_OK);
        CHECK_INT(send_signal(s, &r, later, T0), MJ_OK);
    }
    for (int i = 0; i < N; i++)
        ops[i] = claim_op();
    write_all(s, ops, N, T0 + HOUR_MS);
    for (int i = 0; i < N; i++)
        claimed += ops[i].code == MJ_OK;
    CHECK_INT(claimed, N);
    mj_store_close(s);
}

TEST("an entry of a task id that can't be read fails its own operation, and check tells of it")
{
    mj_store *s = open_store();
    mj_task t;
    mj_op ops[] = {create_op(&t, "k"), {.kind = MJ_OP_SIGNAL, .sig = signal_of(SIG_SUCCEEDED)}};
    mj_check_report report;

    add(s, (job){.task_id = "T1"}, T0);
    put_raw(s, MJ_IX_TID, "T1", 2, "junk", 4);
    write_all(s, ops, 2, T0);
    CHECK_INT(ops[0].code, MJ_OK);
    CHECK_INT(ops[1].code, MJ_ECORRUPT);
    CHECK_INT(create(s, (job){.task_id = "T1"}, T0), MJ_ECORRUPT);
    CHECK_INT(mj_store_check(s, NULL, NULL, &report), MJ_OK);
    CHECK(report.found > 0);
    mj_store_close(s);
}

TEST("check tells of a row whose key can't be read")
{
    static const int rows[] = {MJ_IX_TASK, MJ_IX_TOMB, MJ_IX_EVENT, MJ_IX_REFUSED};

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char dir[16];
        mj_store *s;
        mj_check_report report;
        snprintf(dir, sizeof dir, "store%u", i);
        s = open_store_at(dir, &(mj_store_options){.rules = mj_rules_default});
        add(s, (job){0}, T0);
        put_raw(s, rows[i], "odd", 3, "junk", 4);
        CHECK_INT(mj_store_check(s, NULL, NULL, &report), MJ_OK);
        CHECK_INT(report.found, 1);
        mj_store_close(s);
    }
}

TEST("a tombstone that can't be read is forgotten with the others")
{
    mj_store *s = open_store();
    ref r = add(s, (job){0}, T0);

    CHECK_INT(tell(s, r, SIG_CANCEL, "", T0), MJ_OK);
    CHECK_INT(do_op(s, cancelled_prune(T0), T0), MJ_OK);
    put_raw(s, MJ_IX_TOMB, r.id, sizeof r.id, "\x01junk", 5);
    CHECK_INT(do_op(s, (mj_op){.kind = MJ_OP_FORGET, .until = T0, .limit = 10}, T0), MJ_OK);
    CHECK_INT(rows_of(s, MJ_IX_TOMB), 0);
    CHECK_INT(rows_of(s, MJ_IX_GRAVE), 0);
    sound(s);
    mj_store_close(s);
}

TEST("a stale entry of the queue that a claim clears away comes back when its task is queued again in the same batch")
{
    mj_store *s = open_store();
    ref r;
    mj_key k;
    mj_entry stale = {.index = MJ_IX_QUEUE};
    mj_op ops[3];

    accounts(s, "main", 5, NULL, 0);
    r = add(s, (job){0}, T0);
    CHECK_INT(claim(s, T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_MAYBE_SENT, "", T0), MJ_OK);
    memcpy(stale.ref, r.id, sizeof stale.ref);
    mj_key_of(&stale, &k);
    put_raw(s, MJ_IX_QUEUE, k.val.mv_data, k.val.mv_size, "", 0);
    ops[0] = claim_op();
    ops[1] = signal_op(&r, SIG_RESUBMIT);
    ops[2] = (mj_op){.kind = MJ_OP_TICK, .limit = 10};
    write_all(s, ops, 3, T0 + SECOND);
    CHECK_INT(ops[1].code, MJ_OK);
    sound(s);
    CHECK_INT(claim(s, T0 + SECOND), MJ_OK);
    mj_store_close(s);
}

TEST("what an account was seen to hold, and its rest, outlive a handle that closes with a count to store")
{
    mj_store *s = open_store();
    mj_op pause = {
        .kind = MJ_OP_PAUSE, .until = T0 + MINUTE, .sig = {.account = str("main"), .error_code = str("concurrency")}};

    accounts(s, "main", 5, NULL, 0);
    add(s, (job){0}, T0);
    CHECK_INT(do_op(s, pause, T0), MJ_OK);
    s->owes = true; /* as after a callback that was not believed */
    mj_store_close(s);
    s = open_store();
    accounts(s, "main", 5, NULL, 0);
    CHECK_INT(claim(s, T0 + SECOND), MJ_ELIMIT);
    mj_store_close(s);
}

TEST("a walk over what a clock put off that can't be read begins once more")
{
    enum { N = 80 }; /* more than one transaction goes over */
    mj_store *s = open_store();
    mj_signal later = signal_of(SIG_REFUSED);

    accounts(s, "main", N, NULL, 0);
    later.wait_ms = SECOND;
    for (int i = 0; i < N; i++) {
        ref r = add(s, (job){0}, T0 + HOUR_MS);
        CHECK_INT(claim(s, T0 + HOUR_MS), MJ_OK);
        CHECK_INT(send_signal(s, &r, later, T0 + HOUR_MS), MJ_OK);
    }
    CHECK_INT(tick(s, 0, T0), MJ_OK);
    CHECK(last.more);
    put_raw(s, MJ_IX_META, MJ_REWIND_KEY, sizeof MJ_REWIND_KEY - 1, "\3\0\0", 3); /* as an older version wrote it */
    CHECK_INT(tick(s, 2 * N, T0), MJ_OK);
    CHECK_INT(tick(s, 2 * N, T0 + MINUTE), MJ_OK);
    for (int i = 0; i < N; i++)
        CHECK_INT(claim(s, T0 + MINUTE), MJ_OK);
    mj_store_close(s);
}

TEST("a limit without an end needs no more memory than there is")
{
    mj_store *s = open_store();
    ref r = add(s, (job){0}, T0);
    mj_op op = cancelled_prune(T0);

    op.limit = UINT32_MAX;
    CHECK_INT(tell(s, r, SIG_CANCEL, "", T0), MJ_OK);
    CHECK_INT(tick(s, UINT32_MAX, T0), MJ_OK);
    CHECK_INT(do_op(s, op, T0), MJ_OK);
    CHECK_INT(last.done, 1);
    op.kind = MJ_OP_FORGET;
    CHECK_INT(do_op(s, op, T0), MJ_OK);
    CHECK_INT(last.done, 1);
    mj_store_close(s);
}
