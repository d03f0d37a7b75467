/* Batches as units of work: what one operation finds damaged is its own failure, and what one operation frees or makes
 * anew is right for those after it. */
#include "store_check.h"

#include <sys/wait.h>

enum { HOUR = 60 * MINUTE };

static int write_ops(mj_store *s, mj_op *ops, size_t n, int64_t now)
{
    int rc = mj_store_write(s, ops, n, now);

    for (size_t i = 0; i < n; i++)
        mj_op_clear(&ops[i]);
    return rc;
}

static void put_entry(mj_store *s, mj_index index, const void *k, size_t kn, const void *v, size_t vn)
{
    MDB_val key_val = {kn, (void *)(uintptr_t)k}, value = {vn, (void *)(uintptr_t)v};
    MDB_txn *t;

    CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
    CHECK_INT(mdb_put(t, mj_env_dbi(lmdb_of(s)->env, (int)index), &key_val, &value, 0), 0);
    CHECK_INT(mdb_txn_commit(t), 0);
    mj_env_leave(lmdb_of(s)->env);
}

static mj_op signal_op(const ref *r, mj_signal_kind kind, const char *task_id)
{
    mj_op op = {.kind = MJ_OP_SIGNAL, .sig = signal_of(kind), .has_ref = r != NULL, .want = true};

    op.sig.task_id = str(task_id);
    if (r)
        memcpy(op.ref, r->id, sizeof op.ref);
    return op;
}

/* A task whose one event is done. */
static ref finished(mj_store *s, const char *users_key, const char *id, int64_t at)
{
    ref r = add(s, (job){.task_id = id, .key = users_key}, at);

    CHECK_INT(tell(s, r, SIG_SUCCEEDED, id, at), MJ_OK);
    CHECK_INT(take(s, at + 1000, at), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, last_event(), 0, at), MJ_OK);
    return r;
}

TEST("among the rows of one millisecond each is found in a few steps")
{
    enum { ROWS = 1024, STEPS = 12 };
    mj_store *s = open_store();
    static const mj_op ops[ROWS];
    unsigned longest = 0;
    uint8_t r[MJ_ULID_BYTES];
    mj_unit u;

    CHECK_INT(mj_unit_begin(&u, s, ops, ROWS, T0), MJ_OK);
    for (int i = 0; i < ROWS; i++) {
        CHECK_INT(mj_refs_next(s->refs, T0, r), MJ_OK);
        CHECK(mj_unit_row_of(&u, r, false) != NULL);
    }
    for (size_t i = 0; i < u.nbuckets; i++) {
        unsigned n = 0;
        for (const mj_unit_row *row = u.buckets[i]; row; row = row->chain)
            n++;
        longest = n > longest ? n : longest;
    }
    CHECK_INT(mj_unit_end(&u, NULL), MJ_OK);
    if (longest > STEPS)
        MJ_TEST_FAIL("%u rows in one bucket", longest);
    mj_store_close(s);
}

TEST("an entry of an id that can't be read fails the operations that ask for it, and no others")
{
    mj_store *s = open_store();
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S};
    mj_op ops[3];

    put_entry(s, MJ_IX_TID, "bad", 3, "short", 5);
    ops[0] = signal_op(NULL, SIG_SUCCEEDED, "bad");
    ops[1] = (mj_op){.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};
    ops[1].sig.task_id = str("bad");
    ops[1].sig.account = str("main");
    ops[2] = (mj_op){.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};
    CHECK_INT(write_ops(s, ops, 3, T0), MJ_OK);
    CHECK_INT(ops[0].code, MJ_ECORRUPT);
    CHECK_INT(ops[1].code, MJ_ECORRUPT);
    CHECK_INT(ops[2].code, MJ_OK);
    CHECK_INT(stats(s).states[MJ_QUEUED], 1);
    CHECK_INT(stats(s).states[MJ_PENDING], 0);
    mj_store_close(s);
}

/* Makes the size of a record larger than the file, wherever its leaf is. */
static void overstate(const char *path, ref r)
{
    static const uint8_t beyond[2] = {0xff, 0x7f};
    static uint8_t bytes[1 << 20];
    int fd = open(path, O_RDWR), changed = 0;
    ssize_t n = pread(fd, bytes, sizeof bytes, 0);

    for (ssize_t i = 8; i + MJ_ULID_BYTES <= n; i++)
        if (memcmp(bytes + i, r.id, MJ_ULID_BYTES) == 0 && bytes[i - 2] == MJ_ULID_BYTES && bytes[i - 1] == 0 &&
            bytes[i - 6] == 0 && bytes[i - 5] == 0) {
            CHECK_INT(pwrite(fd, beyond, sizeof beyond, i - 6), sizeof beyond); /* the upper half */
            changed++;
        }
    CHECK(changed > 0);
    CHECK_INT(close(fd), 0);
}

TEST("a record that can't be read fails the operations on it, and a listing passes it by")
{
    mj_query q = {.order = MJ_BY_STATE, .state = MJ_QUEUED, .limit = 10};
    mj_store *s = open_store();
    ref good, bad;
    mj_reader list;
    mj_buf buf = {0};
    mj_op ops[2];
    mj_task t;
    mj_str one;

    good = add(s, (job){0}, T0);
    bad = add(s, (job){0}, T0 + 1);
    overstate("store/data.mdb", bad);
    CHECK_INT(mj_store_get(s, bad.id, &buf), MJ_ECORRUPT);
    CHECK_INT(mj_store_page(s, &q, &buf), MJ_OK);
    list = mj_reader_of(buf.p, buf.n);
    one = mj_get_str(&list);
    CHECK_INT(mj_task_decode(one.p, one.n, &t), MJ_OK);
    CHECK_MEM(t.ref, good.id, MJ_ULID_BYTES);
    CHECK(list.p == list.end);
    ops[0] = signal_op(&bad, SIG_CANCEL, "");
    ops[1] = (mj_op){.kind = MJ_OP_PAUSE, .until = T0 + HOUR, .sig = {.account = str("main")}};
    CHECK_INT(write_ops(s, ops, 2, T0 + 2), MJ_OK);
    CHECK_INT(ops[0].code, MJ_ECORRUPT);
    CHECK_INT(ops[1].code, MJ_OK);
    mj_buf_free(&buf);
    mj_store_close(s);
}

/* Refs ascend in one process: another one, whose clock was set back, makes a lower one. */
static void reuse_in_one_batch(mj_store *s, int64_t now)
{
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str("k1")};
    mj_op ops[2] = {{.kind = MJ_OP_FORGET, .until = T0 + HOUR, .limit = 10},
                    {.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)}};
    mj_buf buf = {0};
    bool pruned;

    ops[1].sig.task_id = str("T1");
    ops[1].sig.account = str("main");
    CHECK_INT(write_ops(s, ops, 2, now), MJ_OK);
    CHECK_INT(ops[0].done, 1);
    CHECK_INT(ops[1].code, MJ_OK);
    CHECK_INT(mj_store_key(s, str("k1"), &buf, &pruned), MJ_OK);
    CHECK(!pruned);
    CHECK_INT(check_store(s), 1);
    mj_buf_free(&buf);
}

TEST("a key and an id that one operation frees and the next one takes stay the new task's, whichever ref is lower")
{
    mj_op prune = {.kind = MJ_OP_PRUNE, .until = T0 + MINUTE, .limit = 10, .sig = signal_of(SIG_LOOK)};
    mj_store *s = open_store();
    int status;
    pid_t pid;

    finished(s, "k1", "T1", T0);
    prune.sig.expect_state = MJ_SUCCEEDED;
    CHECK_INT(do_op(s, prune, T0 + MINUTE), MJ_OK);
    CHECK_INT(last.done, 1);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        reuse_in_one_batch(s, T0 - HOUR);
        mj_test_leave();
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    mj_store_close(s);
}

TEST("an outbox entry that led nowhere is there when its event is made anew in the same batch")
{
    mj_store *s = open_store();
    ref r = finished(s, "", "T1", T0);
    uint8_t k[8 + MJ_ULID_BYTES + 4];
    mj_op ops[2] = {{.kind = MJ_OP_EVENT_TAKE, .until = T0 + 2 * HOUR}, {.kind = MJ_OP_EVENT_KICK}};

    mj_be64(k, (uint64_t)(T0 + HOUR));
    memcpy(k + 8, r.id, MJ_ULID_BYTES);
    mj_be32(k + 8 + MJ_ULID_BYTES, 1);
    put_entry(s, MJ_IX_OUTBOX, k, sizeof k, "", 0);
    memcpy(ops[1].event.ref, r.id, MJ_ULID_BYTES);
    CHECK_INT(write_ops(s, ops, 2, T0 + HOUR), MJ_OK);
    CHECK_INT(ops[0].code, MJ_ECORRUPT);
    CHECK_INT(ops[1].code, MJ_OK);
    check_store(s);
    CHECK_INT(take(s, T0 + 2 * HOUR, T0 + HOUR), MJ_OK);
    mj_store_close(s);
}

TEST("behind an outbox entry at a wrong time, the event is handed out in the same batch")
{
    mj_store *s = open_store();
    ref r = add(s, (job){.task_id = "T1"}, T0);
    uint8_t k[8 + MJ_ULID_BYTES + 4] = {0};
    mj_op ops[2] = {{.kind = MJ_OP_EVENT_TAKE, .until = T0 + HOUR}, {.kind = MJ_OP_EVENT_TAKE, .until = T0 + HOUR}};

    CHECK_INT(tell(s, r, SIG_SUCCEEDED, "T1", T0), MJ_OK);
    memcpy(k + 8, r.id, MJ_ULID_BYTES);
    mj_be32(k + 8 + MJ_ULID_BYTES, 1);
    put_entry(s, MJ_IX_OUTBOX, k, sizeof k, "", 0);
    CHECK_INT(write_ops(s, ops, 2, T0), MJ_OK);
    CHECK_INT(ops[0].code, MJ_ECORRUPT);
    CHECK_INT(ops[1].code, MJ_OK);
    check_store(s);
    mj_store_close(s);
}

TEST("an event that is put off to a time before all clocks is handed out")
{
    mj_store *s = open_store();
    ref r = add(s, (job){.task_id = "T1"}, T0);

    CHECK_INT(tell(s, r, SIG_SUCCEEDED, "T1", T0), MJ_OK);
    CHECK_INT(take(s, T0 + HOUR, T0), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, last_event(), -5, T0), MJ_OK);
    CHECK_INT(take(s, T0 + HOUR, T0), MJ_OK);
    CHECK_INT(last.event.seq, 1);
    mj_store_close(s);
}

TEST("closing a handle that owes counts leaves accounts as they are")
{
    mj_op op = {.kind = MJ_OP_PAUSE, .until = T0 + HOUR, .sig = {.account = str("main")}};
    mj_store *s = open_store();
    mj_stats st;

    op.sig.error_code = str("concurrency");
    CHECK_INT(do_op(s, op, T0), MJ_OK);
    s->owed.counts[MJ_CALLBACK_UNKNOWN] = 3;
    s->owes = true;
    mj_store_close(s);
    s = open_store();
    st = stats(s);
    CHECK_INT(st.counters.counts[MJ_CALLBACK_UNKNOWN], 3);
    CHECK_INT(st.naccounts, 1);
    CHECK_INT(st.accounts[0].observed_at, T0);
    CHECK_INT(st.accounts[0].paused_until, T0 + HOUR);
    mj_store_close(s);
}

TEST("what is said of a store that can't be opened is said to its end, however long its name is")
{
    mj_store_options o = {.rules = mj_rules_default};
    char dir[201], why[512];
    mj_store *s;

    memset(dir, 'd', sizeof dir - 1);
    dir[sizeof dir - 1] = '\0';
    mj_store_close(open_store_at(dir, &o));
    CHECK_INT(chdir(dir), 0);
    CHECK_INT(truncate("data.mdb", 2 * 4096 + 1), 0);
    CHECK_INT(chdir(".."), 0);
    CHECK(mj_store_open(dir, &o, &s, why, sizeof why) != MJ_OK);
    if (!strstr(why, "mjhook restore"))
        MJ_TEST_FAIL("%s", why);
}
