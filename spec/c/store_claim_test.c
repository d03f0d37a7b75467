/* Claims: who goes next, under which account, and that slots hold.  Ticks and pauses. */
#include "store_check.h"

static const char *account_of(void) /* of the task claimed last */
{
    static char name[MJ_MAX_NAME + 1];
    mj_task t = last_task();
    mj_attempt *a = mj_task_current(&t);

    memset(name, 0, sizeof name);
    memcpy(name, a->account.p, a->account.n);
    return name;
}

static void claims(mj_store *s, ref want, const char *account, int64_t now)
{
    CHECK_INT(claim(s, now), MJ_OK);
    CHECK(is(last_ref(), want));
    CHECK_STR(account_of(), account);
}

TEST("the highest priority goes first and among equals the oldest")
{
    const int32_t priorities[] = {0, 5, -5, 5, INT32_MIN, INT32_MAX, 0, -1};
    const int order[] = {5, 1, 3, 0, 6, 7, 2, 4};
    mj_store *s = open_store();
    ref refs[8];

    accounts(s, "main", 10, NULL, 0);
    for (int i = 0; i < 8; i++)
        refs[i] = add(s, (job){.priority = priorities[i]}, T0 + i);
    for (int i = 0; i < 8; i++)
        claims(s, refs[order[i]], "main", T0 + 10);
    CHECK_INT(claim(s, T0 + 10), MJ_ENOTFOUND);
    check_store(s);
    mj_store_close(s);
}

TEST("a claim is the intent to send: durable, owned, with a slot")
{
    mj_store *s = open_store();
    mj_op op = {.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)};
    ref r = add(s, (job){0}, T0);
    mj_buf b = {0};
    mj_task t;

    accounts(s, "main", 10, NULL, 0);
    op.sig.owner = (mj_owner){.pid = 4711, .started = 99, .pidns = 7};
    CHECK_INT(do_op(s, op, T0 + 5), MJ_OK);
    t = get_task(s, r, &b);
    CHECK_INT(t.state, MJ_SUBMITTING);
    CHECK(t.has_owner && t.owner.pid == 4711 && t.owner.started == 99 && t.owner.pidns == 7);
    CHECK(t.attempts[0].slot && t.attempts[0].slot_until == T0 + 5 + SLOT_MS);
    mj_buf_free(&b);
    check_store(s);
    mj_store_close(s);
}

TEST("slots never exceed the cap, and each that ends lets one more go")
{
    mj_store *s = open_store();
    ref refs[12];

    accounts(s, "main", 3, NULL, 0);
    for (int i = 0; i < 12; i++)
        refs[i] = add(s, (job){0}, T0 + i);
    for (int i = 0; i < 3; i++)
        CHECK_INT(claim(s, T0), MJ_OK);
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(tell(s, refs[0], SIG_ACCEPTED, "T0", T0), MJ_OK); /* accepted is no end */
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(tell(s, refs[1], SIG_MAYBE_SENT, "", T0), MJ_OK); /* nor is not knowing */
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(tell(s, refs[1], SIG_CANCEL, "", T0), MJ_OK); /* nor is the user's giving up */
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(tell(s, refs[0], SIG_SUCCEEDED, "T0", T0), MJ_OK);
    CHECK_INT(claim(s, T0), MJ_OK);
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(tell(s, refs[2], SIG_REFUSED, "", T0), MJ_OK);
    CHECK_INT(claim(s, T0), MJ_OK);
    CHECK_INT(held(s, "main"), 3);
    CHECK_INT(claim(s, T0 + SLOT_MS - 1), MJ_ELIMIT);
    CHECK_INT(claim(s, T0 + SLOT_MS), MJ_OK); /* time frees the others, without a tick */
    check_store(s);
    mj_store_close(s);
}

TEST("a task that any account may send goes under the least loaded")
{
    mj_store *s = open_store();
    const char *const order[] = {"a", "b", "b", "a", "b", "b"}; /* shares of 2 and 4; a goes first when equal */

    accounts(s, "a", 2, "b", 4);
    for (int i = 0; i < 7; i++)
        add(s, (job){0}, T0 + i);
    for (int i = 0; i < 6; i++) {
        CHECK_INT(claim(s, T0), MJ_OK);
        CHECK_STR(account_of(), order[i]);
    }
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(held(s, "a"), 2);
    CHECK_INT(held(s, "b"), 4);
    check_store(s);
    mj_store_close(s);
}

TEST("a pinned task waits for its own account and keeps no other task waiting")
{
    mj_store *s = open_store();
    ref pinned, other, third, elsewhere;

    accounts(s, "a", 1, "b", 1);
    CHECK_INT(create(s, (job){.task_id = "X", .account = "a"}, T0), MJ_OK); /* a is full */
    pinned = add(s, (job){.account = "a", .priority = 9}, T0);
    other = add(s, (job){0}, T0);
    third = add(s, (job){0}, T0);
    claims(s, other, "b", T0);
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(send_signal(s, NULL, (mj_signal){.kind = SIG_SUCCEEDED, .expect_state = -1, .task_id = str("X")}, T0),
              MJ_OK);
    claims(s, pinned, "a", T0);
    CHECK_INT(tell(s, pinned, SIG_REJECTED, "", T0), MJ_OK);
    claims(s, third, "a", T0);
    elsewhere = add(s, (job){.account = "unheard of"}, T0);
    CHECK_INT(claim(s, T0), MJ_ENOTFOUND);
    CHECK_INT(state_of(s, elsewhere), MJ_QUEUED);
    check_store(s);
    mj_store_close(s);
}

TEST("a drained account and a paused one send nothing, until they may again")
{
    mj_store *s = open_store();

    accounts(s, "a", 0, "b", 5);
    for (int i = 0; i < 4; i++)
        add(s, (job){0}, T0);
    CHECK_INT(pause_account(s, "b", T0 + MINUTE, T0), MJ_OK);
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(stats(s).accounts[1].paused_until, T0 + MINUTE);
    CHECK_STR(stats(s).accounts[1].reason, "quota");
    check_store(s);
    CHECK_INT(claim(s, T0 + MINUTE - 1), MJ_ELIMIT);
    CHECK_INT(claim(s, T0 + MINUTE), MJ_OK);
    CHECK_STR(account_of(), "b");
    CHECK_INT(pause_account(s, "b", T0 + 60 * MINUTE, T0), MJ_OK);
    CHECK_INT(claim(s, T0 + 2 * MINUTE), MJ_ELIMIT);
    CHECK_INT(pause_account(s, "b", 0, T0), MJ_OK); /* lifted */
    CHECK_STR(stats(s).accounts[1].reason, "");
    CHECK_INT(claim(s, T0 + 2 * MINUTE), MJ_OK);
    check_store(s);
    mj_store_close(s);
}

static int refused_1002(mj_store *s, int64_t until, int64_t now)
{
    mj_op op = {.kind = MJ_OP_PAUSE, .until = until, .sig = {.account = str("a"), .error_code = str("concurrency")}};
    return do_op(s, op, now);
}

TEST("a 1002 while there is room lowers the cap to what runs, and a slot more each minute is tried")
{
    mj_store *s = open_store();

    accounts(s, "a", 5, NULL, 0);
    for (int i = 0; i < 12; i++)
        add(s, (job){0}, T0);
    for (int i = 0; i < 2; i++)
        CHECK_INT(claim(s, T0), MJ_OK);
    CHECK_INT(stats(s).accounts[0].observed_at, 0);
    CHECK_INT(refused_1002(s, T0 + 1000, T0), MJ_OK);
    CHECK_INT(stats(s).accounts[0].observed, 2);
    CHECK_INT(claim(s, T0 + 1000), MJ_ELIMIT); /* rested, but the two that run are all there is room for */
    CHECK_INT(claim(s, T0 + MINUTE - 1), MJ_ELIMIT);
    CHECK_INT(claim(s, T0 + MINUTE), MJ_OK);
    CHECK_INT(claim(s, T0 + MINUTE), MJ_ELIMIT);
    mj_store_close(s);
    s = open_store();
    accounts(s, "a", 5, NULL, 0);
    CHECK_INT(claim(s, T0 + 2 * MINUTE - 1), MJ_ELIMIT); /* another process knows it, too */
    CHECK_INT(claim(s, T0 + 2 * MINUTE), MJ_OK);
    CHECK_INT(claim(s, T0 + 3 * MINUTE), MJ_OK);
    CHECK_INT(claim(s, T0 + 4 * MINUTE), MJ_ELIMIT);  /* never above what is configured */
    CHECK_INT(claim(s, T0 - 60 * MINUTE), MJ_ELIMIT); /* nor by a clock that steps back */
    CHECK_INT(mj_account_cap(2, T0, 5, T0 + 90 * MINUTE), 5);
    CHECK_INT(mj_account_cap(2, T0, 5, T0 - 90 * MINUTE), 2);
    check_store(s);
    mj_store_close(s);
}

TEST("when others hold every slot one job at a time finds out whether they still do")
{
    mj_store *s = open_store();

    accounts(s, "a", 5, NULL, 0);
    add(s, (job){0}, T0);
    add(s, (job){0}, T0);
    CHECK_INT(refused_1002(s, T0 + 1000, T0), MJ_OK); /* with nothing of ours running */
    CHECK_INT(claim(s, T0 + 999), MJ_ELIMIT);
    CHECK_INT(claim(s, T0 + 1000), MJ_OK);
    CHECK_INT(claim(s, T0 + 1000), MJ_ELIMIT);
    check_store(s);
    mj_store_close(s);
}

TEST("a learned cap is forgotten after a day, and other reasons to rest teach none")
{
    mj_store *s = open_store();

    accounts(s, "a", 5, NULL, 0);
    add(s, (job){0}, T0);
    CHECK_INT(pause_account(s, "a", T0 + 1000, T0), MJ_OK);
    CHECK_INT(stats(s).accounts[0].observed_at, 0);
    CHECK_INT(refused_1002(s, T0 + 1000, T0), MJ_OK);
    CHECK_INT(stats(s).accounts[0].observed_at, T0);
    CHECK_INT(claim(s, T0 + 25 * 60 * MINUTE), MJ_OK);
    CHECK_INT(stats(s).accounts[0].observed_at, 0);
    check_store(s);
    mj_store_close(s);
}

TEST("without any account nothing is claimed, and nothing is lost")
{
    mj_store *s = open_store();

    CHECK_INT(claim(s, T0), MJ_ENOTFOUND);
    add(s, (job){0}, T0);
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(stats(s).states[MJ_QUEUED], 1);
    mj_store_close(s);
}

TEST("a tick ends slots and readies what has waited, at most so many of each")
{
    mj_store *s = open_store();
    ref refs[10];

    accounts(s, "main", 10, NULL, 0);
    for (int i = 0; i < 10; i++)
        refs[i] = add(s, (job){0}, T0);
    for (int i = 0; i < 10; i++)
        CHECK_INT(claim(s, T0), MJ_OK);
    for (int i = 0; i < 4; i++) {
        mj_signal sig = signal_of(SIG_REFUSED);
        sig.wait_ms = MINUTE + i;
        CHECK_INT(send_signal(s, &refs[i], sig, T0), MJ_OK);
    }
    CHECK_INT(claim(s, T0), MJ_ENOTFOUND);
    CHECK_INT(tick(s, 100, T0 + MINUTE - 1), MJ_OK);
    CHECK_INT(last.done, 0);
    CHECK_INT(tick(s, 100, T0 + MINUTE + 1), MJ_OK);
    CHECK_INT(last.done, 2);
    CHECK_INT(tick(s, 4, T0 + SLOT_MS), MJ_OK); /* four of the six slots, the two that still wait */
    CHECK_INT(last.done, 6);
    CHECK_INT(held(s, "main"), 2);
    CHECK_INT(tick(s, 4, T0 + SLOT_MS), MJ_OK);
    CHECK_INT(last.done, 2);
    CHECK_INT(held(s, "main"), 0);
    CHECK_INT(stats(s).states[MJ_QUEUED], 4);
    CHECK_INT(stats(s).states[MJ_SUBMITTING], 6); /* a slot that ends is no word on the task */
    check_store(s);
    mj_store_close(s);
}

TEST("an expired task is failed with an event by a tick, and by a claim before it is sent")
{
    mj_store *s = open_store();
    ref a, b, c;

    accounts(s, "main", 10, NULL, 0);
    a = add(s, (job){.expires_at = T0 + MINUTE}, T0);
    CHECK_INT(tick(s, 10, T0 + MINUTE), MJ_OK);
    CHECK_INT(state_of(s, a), MJ_FAILED);
    for (int i = 0; i < 200; i++) /* more than a claim ticks by the way */
        b = add(s, (job){.expires_at = T0 + 2 * MINUTE}, T0);
    c = add(s, (job){.priority = -1}, T0);
    for (int i = 0; i < 5 && state_of(s, c) != MJ_SUBMITTING; i++)
        if (claim(s, T0 + 2 * MINUTE) != MJ_OK)
            CHECK_INT(last.code, MJ_ELIMIT);
    CHECK_INT(state_of(s, c), MJ_SUBMITTING);
    CHECK_INT(state_of(s, b), MJ_FAILED);
    CHECK_INT(stats(s).states[MJ_SUBMITTING], 1);
    CHECK_INT(stats(s).events, stats(s).states[MJ_FAILED]);
    check_store(s);
    mj_store_close(s);
}

TEST("stats show every account that may be used, and those that still hold slots")
{
    mj_store *s = open_store();
    mj_stats st;

    accounts(s, "new", 4, "old", 1);
    CHECK_INT(create(s, (job){.task_id = "X", .account = "old"}, T0), MJ_OK);
    accounts(s, "new", 4, NULL, 0);
    st = stats(s);
    CHECK_INT(st.naccounts, 2);
    CHECK_STR(st.accounts[0].name, "new");
    CHECK_INT(st.accounts[0].max_in_flight, 4);
    CHECK_STR(st.accounts[1].name, "old");
    CHECK_INT(st.accounts[1].held, 1);
    CHECK_INT(st.accounts[1].max_in_flight, 0);
    CHECK_INT(tick(s, 10, T0 + SLOT_MS), MJ_OK);
    CHECK_INT(stats(s).naccounts, 1);
    mj_store_close(s);
}

TEST("account names may come and go for ever; too many at once is a limit of one operation")
{
    mj_store *s = open_store();
    int64_t now = T0;
    char name[32], id[32];

    for (int i = 0; i < 3 * MJ_MAX_ACCOUNTS; i++, now += SLOT_MS) {
        snprintf(name, sizeof name, "account-%d", i);
        snprintf(id, sizeof id, "T%d", i);
        CHECK_INT(create(s, (job){.task_id = id, .account = name}, now), MJ_OK);
        CHECK_INT(tick(s, 10, now + SLOT_MS), MJ_OK);
    }
    for (int i = 0; i < MJ_MAX_ACCOUNTS; i++) {
        snprintf(name, sizeof name, "account-%d", i);
        snprintf(id, sizeof id, "U%d", i);
        CHECK_INT(create(s, (job){.task_id = id, .account = name}, now), MJ_OK);
    }
    CHECK_INT(create(s, (job){.task_id = "V", .account = "one more"}, now), MJ_ELIMIT);
    CHECK_INT(pause_account(s, "one more", now + 1, now), MJ_ELIMIT);
    CHECK_INT(create(s, (job){0}, now), MJ_OK);
    check_store(s);
    mj_store_close(s);
}

/* ---- sick records ---- */

static void spoil(mj_store *s, ref r)
{
    MDB_txn *t;
    MDB_val k = {16, r.id}, v = {5, "\x01junk"};

    CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
    CHECK_INT(mdb_put(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_TASK), &k, &v, 0), 0);
    CHECK_INT(mdb_txn_commit(t), 0);
    mj_env_leave(lmdb_of(s)->env);
}

TEST("a record that can't be read stops no other task, and keeps no slot for ever")
{
    mj_store *s = open_store();
    ref sick, running, due, well;
    mj_signal sig = signal_of(SIG_REFUSED);
    mj_buf b = {0};
    mj_task t;

    accounts(s, "main", 1, NULL, 0);
    running = add(s, (job){0}, T0);
    CHECK_INT(claim(s, T0), MJ_OK);
    spoil(s, running); /* holds the only slot */
    due = add(s, (job){.priority = 7}, T0);
    sick = add(s, (job){.priority = 5}, T0);
    spoil(s, sick); /* first in the queue */
    well = add(s, (job){0}, T0);
    CHECK_INT(tell(s, sick, SIG_CANCEL, "", T0), MJ_ECORRUPT);
    CHECK_INT(claim(s, T0), MJ_ELIMIT);
    CHECK_INT(claim(s, T0 + SLOT_MS), MJ_OK);
    CHECK(is(last_ref(), due));
    sig.wait_ms = SECOND;
    CHECK_INT(send_signal(s, &due, sig, T0 + SLOT_MS), MJ_OK);
    spoil(s, due); /* the next to be readied */
    CHECK_INT(tick(s, 10, T0 + SLOT_MS + MINUTE), MJ_OK);
    claims(s, well, "main", T0 + SLOT_MS + MINUTE);
    CHECK_INT(mj_store_get(s, sick.id, &b), MJ_OK); /* its bytes are still there, for people */
    CHECK_INT(mj_task_decode(b.p, b.n, &t), MJ_ECORRUPT);
    mj_buf_free(&b);
    mj_store_close(s);
}
