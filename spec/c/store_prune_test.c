/* Forgetting, checking, copying: what becomes of tasks that are over, and what check() sees. */
#include "store_help.h"

enum { HOUR = 3600000 };

static mj_op prune(mj_store *s, mj_state state, int64_t until, uint32_t limit, int64_t now)
{
    mj_op op = {.kind = MJ_OP_PRUNE, .until = until, .limit = limit, .sig = signal_of(SIG_LOOK)};

    op.sig.expect_state = (int)state;
    CHECK_INT(do_op(s, op, now), MJ_OK);
    return last;
}

static uint32_t forget(mj_store *s, int64_t until, int64_t now)
{
    CHECK_INT(do_op(s, (mj_op){.kind = MJ_OP_FORGET, .until = until, .limit = 100}, now), MJ_OK);
    return last.done;
}

/* A task that succeeded at `at`, its event delivered. */
static ref succeeded(mj_store *s, const char *key, const char *id, int64_t at)
{
    ref r = add(s, (job){.task_id = id, .key = key, .user = "u1", .print = 'p'}, at - 1000);

    CHECK_INT(tell(s, r, SIG_SUCCEEDED, id, at), MJ_OK);
    CHECK_INT(take(s, at + 1000, at), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, last_event(), 0, at), MJ_OK);
    return r;
}

static void tell_problem(void *ctx, const char *text)
{
    char *out = ctx;
    if (!out[0])
        snprintf(out, 400, "%s", text);
}

static uint64_t problems(mj_store *s, char first[400])
{
    mj_check_report r;

    first[0] = '\0';
    CHECK_INT(mj_store_check(s, tell_problem, first, &r), MJ_OK);
    return r.found;
}

static void check_clean(mj_store *s)
{
    char first[400];

    if (problems(s, first) != 0)
        MJ_TEST_FAIL("check(): %s", first);
}

TEST("an old final task becomes a tombstone and leaves the listings")
{
    mj_store *s = open_store();
    ref r = succeeded(s, "k1", "T1", T0);
    mj_buf buf = {0};
    mj_tomb tomb;
    mj_stats st;

    CHECK_INT(prune(s, MJ_SUCCEEDED, T0, 10, T0 + HOUR).done, 1);
    CHECK_INT(mj_store_get(s, r.id, &buf), MJ_ENOTFOUND);
    CHECK_INT(mj_store_tomb(s, r.id, &buf), MJ_OK);
    CHECK_INT(mj_tomb_decode((mj_str){(char *)buf.p, (uint32_t)buf.n}, &tomb), MJ_OK);
    CHECK_INT(tomb.state, MJ_SUCCEEDED);
    CHECK_INT(tomb.nids, 1);
    CHECK(mj_str_eq(tomb.key, str("k1")));
    CHECK_INT(mj_store_stats(s, &st), MJ_OK);
    CHECK_INT(st.states[MJ_SUCCEEDED], 0);
    check_clean(s);
    mj_buf_free(&buf);
}

TEST("what waits with an event or holds a slot is not pruned, and is when it does no more")
{
    mj_store *s = open_store();
    ref event = add(s, (job){.task_id = "T2"}, T0), slot;
    mj_event_record e;

    CHECK_INT(tell(s, event, SIG_SUCCEEDED, "T2", T0 + 5), MJ_OK);
    CHECK_INT(take(s, T0 + 10 * HOUR, T0 + 5), MJ_OK); /* in some handler's hands */
    e = last_event();
    slot = add(s, (job){.task_id = "T3"}, T0 + 6);
    CHECK_INT(tell(s, slot, SIG_CANCEL, "", T0 + 7), MJ_OK); /* final at once, its slot is held on */
    CHECK_INT(prune(s, MJ_SUCCEEDED, T0 + HOUR, 10, T0 + 60000).done, 0);
    CHECK_INT(prune(s, MJ_CANCELLED, T0 + HOUR, 10, T0 + 60000).done, 0);
    check_clean(s);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, e, 0, T0 + 60000), MJ_OK);
    CHECK_INT(tick(s, 10, T0 + 2 * HOUR), MJ_OK);
    CHECK_INT(prune(s, MJ_SUCCEEDED, T0 + HOUR, 10, T0 + 2 * HOUR).done, 1);
    CHECK_INT(prune(s, MJ_CANCELLED, T0 + HOUR, 10, T0 + 2 * HOUR).done, 1);
    check_clean(s);
}

/* The refs that a look finds from p->from on. */
static uint32_t look(mj_store *s, mj_prunable *p, ref found[10])
{
    mj_buf b = {0};
    uint32_t n;

    CHECK_INT(mj_store_prunable(s, p, &b), MJ_OK);
    n = (uint32_t)(b.n / MJ_ULID_BYTES);
    CHECK(n <= 10 && b.n % MJ_ULID_BYTES == 0);
    if (n > 0)
        memcpy(found, b.p, b.n);
    mj_buf_free(&b);
    return n;
}

TEST("a look without the writer's lock finds what a prune would take, a bounded number at a time")
{
    mj_store *s = open_store();
    mj_prunable p = {.state = MJ_SUCCEEDED, .until = T0 + HOUR, .limit = 2};
    ref r[5], found[10];
    uint32_t n = 0, looks = 0;
    char id[8];

    for (int i = 0; i < 5; i++) {
        snprintf(id, sizeof id, "T%d", i);
        r[i] = i % 2 ? add(s, (job){.task_id = id}, T0) : succeeded(s, NULL, id, T0);
        if (i % 2) {
            CHECK_INT(tell(s, r[i], SIG_SUCCEEDED, id, T0), MJ_OK);
            CHECK_INT(take(s, T0 + 10 * HOUR, T0), MJ_OK); /* in some handler's hands */
        }
    }
    do {
        n += look(s, &p, found + n);
        p.has_from = true;
        looks++;
    } while (p.more);
    CHECK_INT(looks, 3);
    CHECK_INT(n, 3);
    for (int i = 0; i < 3; i++)
        CHECK_MEM(found[i].id, r[2 * i].id, MJ_ULID_BYTES);
    p = (mj_prunable){.state = MJ_SUCCEEDED, .until = T0 - 1, .limit = 10};
    CHECK_INT(look(s, &p, found), 0); /* finished later */
    p.state = MJ_FAILED;
    CHECK_INT(look(s, &p, found), 0);
    CHECK(!p.more && !p.resume);
}

TEST("where reconcile's walk goes on is remembered for each state, and forgotten when it is said")
{
    mj_store *s = open_store();
    ref r[3], found[10];
    mj_op mark = {.kind = MJ_OP_PRUNE_FROM, .has_ref = true, .sig = signal_of(SIG_LOOK)};
    mj_prunable p = {.state = MJ_SUCCEEDED, .until = T0 + HOUR, .limit = 10, .resume = true};

    for (int i = 0; i < 3; i++)
        r[i] = succeeded(s, NULL, i == 0 ? "T0" : i == 1 ? "T1" : "T2", T0);
    CHECK_INT(look(s, &p, found), 3);
    CHECK(!p.resume);
    memcpy(mark.ref, r[1].id, MJ_ULID_BYTES);
    mark.sig.expect_state = MJ_SUCCEEDED;
    CHECK_INT(do_op(s, mark, T0), MJ_OK);
    mark.sig.expect_state = MJ_FAILED; /* another state's place is its own */
    mark.has_ref = false;
    CHECK_INT(do_op(s, mark, T0), MJ_OK);
    p.resume = true;
    CHECK_INT(look(s, &p, found), 2);
    CHECK(p.resume);
    CHECK_MEM(found[0].id, r[1].id, MJ_ULID_BYTES);
    mark.sig.expect_state = MJ_SUCCEEDED;
    CHECK_INT(do_op(s, mark, T0), MJ_OK);
    p = (mj_prunable){.state = MJ_SUCCEEDED, .until = T0 + HOUR, .limit = 10, .resume = true};
    CHECK_INT(look(s, &p, found), 3);
    mark.sig.expect_state = -1;
    CHECK_INT(do_op(s, mark, T0), MJ_EINVAL);
    check_clean(s);
}

TEST("a task that is not final is never pruned, whatever is asked for")
{
    mj_store *s = open_store();

    add(s, (job){0}, T0); /* queued: no slot, no event, never finished */
    CHECK_INT(prune(s, MJ_QUEUED, T0 + HOUR, 10, T0 + HOUR).done, 0);
    CHECK_INT(prune(s, MJ_PENDING, T0 + HOUR, 10, T0 + HOUR).done, 0);
    check_clean(s);
}

TEST("what finished later than asked for is not pruned, although it was made before")
{
    mj_store *s = open_store();
    ref r = add(s, (job){.task_id = "T1"}, T0);

    CHECK_INT(tell(s, r, SIG_SUCCEEDED, "T1", T0 + HOUR), MJ_OK);
    CHECK_INT(take(s, T0 + 2 * HOUR, T0 + HOUR), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, last_event(), 0, T0 + HOUR), MJ_OK);
    CHECK_INT(prune(s, MJ_SUCCEEDED, T0 + HOUR - 1, 10, T0 + 3 * HOUR).done, 0);
    CHECK_INT(prune(s, MJ_SUCCEEDED, T0 + HOUR, 10, T0 + 3 * HOUR).done, 1);
    check_clean(s);
}

TEST("a repeated key of a pruned task gives its tombstone, with other arguments a conflict")
{
    mj_store *s = open_store();
    ref r = succeeded(s, "k1", "T1", T0);

    prune(s, MJ_SUCCEEDED, T0, 10, T0 + HOUR);
    CHECK_INT(create(s, (job){.key = "k1", .print = 'p'}, T0 + HOUR), MJ_EDUPLICATE);
    CHECK(last.pruned);
    CHECK(is(last_ref(), r));
    CHECK_INT(create(s, (job){.key = "k1", .print = 'q'}, T0 + HOUR), MJ_EKEY);
    check_clean(s);
}

TEST("a late callback of a pruned task changes nothing, by ref and by id")
{
    mj_store *s = open_store();
    ref r = succeeded(s, "k1", "T1", T0);
    mj_signal sig = signal_of(SIG_FAILED);

    prune(s, MJ_SUCCEEDED, T0, 10, T0 + HOUR);
    CHECK_INT(tell(s, r, SIG_FAILED, "T1", T0 + HOUR), MJ_EUNKNOWN);
    sig.task_id = str("T1");
    CHECK_INT(send_signal(s, NULL, sig, T0 + HOUR), MJ_EUNKNOWN);
    CHECK_INT(create(s, (job){.task_id = "T1"}, T0 + HOUR), MJ_EDUPLICATE); /* nor is it adopted anew */
    check_clean(s);
}

TEST("a key and an id are free again when the tombstone's time is over")
{
    mj_store *s = open_store();

    succeeded(s, "k1", "T1", T0);
    prune(s, MJ_SUCCEEDED, T0, 10, T0 + HOUR);
    CHECK_INT(forget(s, T0 + HOUR - 1, T0 + 2 * HOUR), 0);
    CHECK_INT(forget(s, T0 + HOUR, T0 + 2 * HOUR), 1);
    CHECK_INT(create(s, (job){.key = "k1", .print = 'q'}, T0 + 2 * HOUR), MJ_OK);
    CHECK_INT(create(s, (job){.task_id = "T1"}, T0 + 2 * HOUR), MJ_OK);
    check_clean(s);
}

TEST("pruning goes in bounded steps and reaches everything")
{
    mj_store *s = open_store();
    mj_op op = {.kind = MJ_OP_PRUNE, .until = T0 + HOUR, .limit = 7, .sig = signal_of(SIG_LOOK)};
    uint32_t pruned = 0, steps = 0;
    char id[8];

    for (int i = 0; i < 50; i++) {
        snprintf(id, sizeof id, "T%d", i);
        succeeded(s, i % 2 ? id : NULL, id, T0 + i);
    }
    op.sig.expect_state = MJ_SUCCEEDED;
    do {
        CHECK_INT(do_op(s, op, T0 + 2 * HOUR), MJ_OK);
        CHECK(last.done <= 7);
        pruned += last.done;
        steps++;
        op.has_ref = true;
        memcpy(op.ref, last.next, sizeof op.ref);
    } while (last.more);
    CHECK_INT(pruned, 50);
    CHECK(steps >= 50 / 7);
    check_clean(s);
}

/* ---- what check() sees ---- */

static void damage(mj_store *s, int db, const void *key, size_t kn, const void *value, size_t vn)
{
    MDB_val k = mj_val(key, kn), v = mj_val(value, vn);
    MDB_txn *t;

    CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
    if (value)
        CHECK_INT(mdb_put(t, mj_env_dbi(lmdb_of(s)->env, db), &k, &v, 0), 0);
    else
        CHECK_INT(mdb_del(t, mj_env_dbi(lmdb_of(s)->env, db), &k, NULL), 0);
    CHECK_INT(mdb_txn_commit(t), 0);
    mj_env_leave(lmdb_of(s)->env);
}

static void first_key(mj_store *s, int db, uint8_t *k, size_t *n)
{
    MDB_val key, v;
    MDB_cursor *c;
    MDB_txn *t;

    CHECK_INT(mj_env_begin(lmdb_of(s)->env, MDB_RDONLY, &t), 0);
    CHECK_INT(mdb_cursor_open(t, mj_env_dbi(lmdb_of(s)->env, db), &c), 0);
    CHECK_INT(mdb_cursor_get(c, &key, &v, MDB_FIRST), 0);
    if (mj_has_weight((mj_index)db))
        CHECK_INT(mdb_cursor_get(c, &key, &v, MDB_NEXT), 0);
    *n = key.mv_size;
    memcpy(k, key.mv_data, key.mv_size);
    mdb_cursor_close(c);
    mdb_txn_abort(t);
    mj_env_leave(lmdb_of(s)->env);
}

static void populate(mj_store *s)
{
    accounts(s, "main", 10, NULL, 0);
    succeeded(s, "k1", "T1", T0);
    prune(s, MJ_SUCCEEDED, T0, 10, T0 + HOUR);
    add(s, (job){.user = "u1", .key = "k2"}, T0 + HOUR);
    add(s, (job){.task_id = "T9", .user = "u2"}, T0 + HOUR);
    CHECK_INT(tell(s, add(s, (job){.task_id = "T8"}, T0 + HOUR), SIG_SUCCEEDED, "T8", T0 + HOUR), MJ_OK);
    check_clean(s);
}

TEST("check finds an entry that is missing from any index")
{
    static const int dbs[] = {MJ_IX_TID,   MJ_IX_KEY,  MJ_IX_USER,   MJ_IX_STATE, MJ_IX_DUE,
                              MJ_IX_QUEUE, MJ_IX_SLOT, MJ_IX_OUTBOX, MJ_IX_GRAVE};
    char first[400], dir[32];
    uint8_t k[600];
    size_t n;

    for (size_t i = 0; i < sizeof dbs / sizeof dbs[0]; i++) {
        mj_store_options o = {.rules = mj_rules_default};
        mj_store *s;
        snprintf(dir, sizeof dir, "s%zu", i);
        s = open_store_at(dir, &o);
        populate(s);
        first_key(s, dbs[i], k, &n);
        damage(s, dbs[i], k, n, NULL, 0);
        if (problems(s, first) == 0)
            MJ_TEST_FAIL("nothing found with an entry of database %d gone", dbs[i]);
        mj_store_close(s);
    }
}

TEST("check finds an entry that no record asks for in any index, and names it")
{
    static const int dbs[] = {MJ_IX_TID,   MJ_IX_KEY,  MJ_IX_USER,   MJ_IX_STATE, MJ_IX_DUE,
                              MJ_IX_QUEUE, MJ_IX_SLOT, MJ_IX_OUTBOX, MJ_IX_GRAVE};
    char first[400], dir[32];
    uint8_t k[600], v[MJ_ULID_BYTES + 16] = {9};
    size_t n;

    for (size_t i = 0; i < sizeof dbs / sizeof dbs[0]; i++) {
        mj_store_options o = {.rules = mj_rules_default};
        mj_store *s;
        snprintf(dir, sizeof dir, "s%zu", i);
        s = open_store_at(dir, &o);
        populate(s);
        first_key(s, dbs[i], k, &n);
        k[n - 1] ^= 0x55;
        damage(s, dbs[i], k, n, v, sizeof v);
        if (problems(s, first) == 0)
            MJ_TEST_FAIL("nothing found with an entry of database %d too many", dbs[i]);
        CHECK(strstr(first, "index") != NULL);
        mj_store_close(s);
    }
}

TEST("check finds wrong counters and unreadable records")
{
    char first[400];
    uint8_t k[600];
    size_t n;
    mj_store *s = open_store();

    populate(s);
    damage(s, MJ_IX_META, COUNTERS, sizeof COUNTERS - 1, "\1\1\1\1\1\1\1\1\1\1AAAAAAAAAAAAAAAA", 26);
    CHECK(problems(s, first) > 0);
    CHECK(strstr(first, "counter") != NULL);
    first_key(s, MJ_IX_TASK, k, &n);
    damage(s, MJ_IX_TASK, k, n, "\2broken", 7);
    CHECK(problems(s, first) > 0);
    CHECK(strstr(first, "can't be read") != NULL);
}

TEST("check finds an account that is said to hold other slots than its attempts do")
{
    char first[400];
    mj_store *s = open_store();

    populate(s);
    damage(s, MJ_IX_ACCOUNT, "main", 4, "\7\0\0", 3); /* seven slots, no pause, no reason */
    CHECK_INT(problems(s, first), 1);
    CHECK(strstr(first, "account main") != NULL);
}

/* ---- backup ---- */

#ifndef BACKEND_WITHOUT_BACKUP
TEST("a backup made while others write is a store that check() finds clean")
{
    mj_store *s = open_store(), *copy;
    mj_store_options o = {.rules = mj_rules_default};
    mj_stats st;
    pid_t writer;
    char id[16];

    for (int i = 0; i < 200; i++) {
        snprintf(id, sizeof id, "A%d", i);
        succeeded(s, id, id, T0 + i);
    }
    writer = fork();
    if (writer == 0) {
        for (int i = 0;; i++) {
            snprintf(id, sizeof id, "B%d", i);
            succeeded(s, id, id, T0 + 1000 + i);
        }
    }
    for (int i = 0; i < 5; i++) {
        char dir[16];
        snprintf(dir, sizeof dir, "copy%d", i);
        CHECK_INT(mj_store_backup(s, dir), MJ_OK);
        copy = open_store_at(dir, &o);
        check_clean(copy);
        CHECK_INT(mj_store_stats(copy, &st), MJ_OK);
        CHECK(st.states[MJ_SUCCEEDED] + st.states[MJ_PENDING] >= 200);
        mj_store_close(copy);
    }
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    check_clean(s);
}

TEST("a backup never overwrites a store")
{
    mj_store *s = open_store();

    CHECK_INT(mj_store_backup(s, "copy"), MJ_OK);
    CHECK_INT(mj_store_backup(s, "copy"), MJ_EEXISTS);
    CHECK_INT(mj_store_backup(s, "store"), MJ_EEXISTS);
    CHECK_INT(mj_store_backup(s, "no/such/parent"), MJ_EREADONLY);
}
#endif

/* An account as LMDB has it. */
static void read_account(const mj_buf *b, mj_held *h)
{
    mj_entry e = {.index = MJ_IX_ACCOUNT, .name = str("main")};
    mj_str row;

    CHECK(mj_account_of(mj_val(b->p, b->n), &e.n, &row));
    mj_account_read(&e, row, h);
}

TEST("accounts that an older version wrote are read without what it did not know")
{
    mj_buf b = {0};
    mj_held h;

    b.n = 0;
    mj_put_uint(&b, 3);
    mj_put_int(&b, T0 + HOUR);
    mj_put_str(&b, str("quota"));
    read_account(&b, &h);
    CHECK_INT(h.held, 3);
    CHECK_INT(h.paused_at, 0);
    CHECK(mj_account_rests(h.paused_until, h.paused_at, T0)); /* since when is not known: it is believed */
    mj_put_uint(&b, 2);
    mj_put_int(&b, T0);
    mj_put_int(&b, T0 + 30 * 60000);
    read_account(&b, &h);
    CHECK_INT(h.observed, 2);
    CHECK(!mj_account_rests(h.paused_until, h.paused_at, T0)); /* by a clock that was ahead */
    CHECK(mj_account_rests(h.paused_until, h.paused_at, T0 + 30 * 60000));
    mj_buf_free(&b);
}

TEST("sums that an older version wrote, without the time of the newest commit, are read")
{
    mj_store *s = open_store();
    MDB_val key = mj_val(COUNTERS, sizeof COUNTERS - 1), v;
    uint8_t bytes[2048];
    mj_stats st;
    MDB_txn *t;

    add(s, (job){0}, T0);
    CHECK_INT(mj_store_stats(s, &st), MJ_OK);
    CHECK_INT(st.latest, T0);
    CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
    CHECK_INT(mdb_get(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_META), &key, &v), 0);
    CHECK(v.mv_size <= sizeof bytes);
    memcpy(bytes, v.mv_data, v.mv_size);
    v = mj_val(bytes, MJ_NSTATES + 2 + MJ_ULID_BYTES); /* small numbers take a byte */
    CHECK_INT(mdb_put(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_META), &key, &v, 0), 0);
    CHECK_INT(mdb_txn_commit(t), 0);
    mj_env_leave(lmdb_of(s)->env);
    CHECK_INT(mj_store_stats(s, &st), MJ_OK);
    CHECK_INT(st.latest, 0);
    CHECK_INT(st.states[MJ_QUEUED], 1);
    add(s, (job){0}, T0 + 1);
    check_clean(s);
    mj_store_close(s);
}
