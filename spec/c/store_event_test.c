/* The outbox: one event per change, in order per task, one at a time, until it is done or buried. */
#include "store_check.h"

enum { LEASE = 30 * SECOND, HOUR = 60 * MINUTE };

/* A task with so many events: failed again and again. */
static ref with_events(mj_store *s, int n, int64_t now)
{
    ref r = add(s, (job){0}, now);

    for (int i = 0; i < n; i++) {
        char id[64];
        if (i > 0)
            CHECK_INT(tell(s, r, SIG_RESUBMIT, "", now), MJ_OK);
        snprintf(id, sizeof id, "T-%02x%02x%02x-%d", r.id[13], r.id[14], r.id[15], i);
        CHECK_INT(tell(s, r, SIG_FAILED, id, now), MJ_OK);
        CHECK_INT(last.made, MJ_EVENT_FAILED);
    }
    return r;
}

static mj_event_record takes(mj_store *s, ref r, uint32_t seq, int64_t now)
{
    CHECK_INT(take(s, now + LEASE, now), MJ_OK);
    CHECK(is(last_ref(), r));
    CHECK_INT(last.event.seq, seq);
    return last_event();
}

TEST("an event comes with its task, once, and is gone when it is done")
{
    mj_store *s = open_store();
    ref r = with_events(s, 1, T0);
    mj_event_record e;

    CHECK_INT(stats(s).events, 1);
    e = takes(s, r, 1, T0);
    CHECK_INT(e.type, MJ_EVENT_FAILED);
    CHECK_INT(e.attempt, 1);
    CHECK_INT(e.tries, 1);
    CHECK_INT(e.created_at, T0);
    CHECK_INT(last_task().state, MJ_FAILED);
    CHECK_INT(take(s, T0 + LEASE, T0), MJ_ENOTFOUND);
    check_store(s);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, e, 0, T0), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, e, 0, T0), MJ_ENOTFOUND);
    CHECK_INT(take(s, T0 + LEASE, T0 + 100 * LEASE), MJ_ENOTFOUND);
    CHECK_INT(stats(s).events, 0);
    check_store(s);
    mj_store_close(s);
}

TEST("what a handler stored is the task's when its event is done, unless it is more than a task holds")
{
    static char large[MJ_MAX_JSON + 1];
    mj_store *s = open_store();
    mj_buf b = {0};

    memset(large, 'x', sizeof large);
    for (uint32_t n = MJ_MAX_JSON; n <= sizeof large; n++) {
        ref r = with_events(s, 1, T0 + n);
        mj_event_record e = takes(s, r, 1, T0 + n);
        mj_op op = {.kind = MJ_OP_EVENT_DONE, .sig.files = {large, n}};
        op.event.tries = e.tries;
        op.event.seq = e.seq;
        memcpy(op.event.ref, e.ref, sizeof e.ref);
        CHECK_INT(do_op(s, op, T0 + n), MJ_OK);
        CHECK_INT(get_task(s, r, &b).files.n, n <= MJ_MAX_JSON ? n : 0);
        CHECK_INT(get_task(s, r, &b).state, MJ_FAILED);
        CHECK_INT(stats(s).events, 0);
    }
    check_store(s);
    mj_buf_free(&b);
    mj_store_close(s);
}

TEST("events of one task come in order, each only when the one before is done")
{
    mj_store *s = open_store();
    ref r = with_events(s, 4, T0);

    for (uint32_t seq = 1; seq <= 4; seq++) {
        mj_event_record e = takes(s, r, seq, T0);
        CHECK_INT(e.attempt, seq);
        CHECK_INT(take(s, T0 + LEASE, T0), MJ_ENOTFOUND);
        CHECK_INT(stats(s).events, 5 - seq);
        check_store(s);
        CHECK_INT(settle(s, MJ_OP_EVENT_DONE, e, 0, T0), MJ_OK);
    }
    mj_store_close(s);
}

TEST("tasks do not wait for each other's events")
{
    mj_store *s = open_store();
    ref a = with_events(s, 2, T0), b = with_events(s, 2, T0 + 1);

    takes(s, a, 1, T0 + 1);
    takes(s, b, 1, T0 + 1);
    CHECK_INT(take(s, T0 + LEASE, T0 + 1), MJ_ENOTFOUND);
    check_store(s);
    mj_store_close(s);
}

TEST("a lease that ran out is given to the next, and its first holder can't end it")
{
    mj_store *s = open_store();
    ref r = with_events(s, 1, T0);
    mj_event_record first = takes(s, r, 1, T0), second;

    CHECK_INT(take(s, T0 + 2 * LEASE, T0 + LEASE - 1), MJ_ENOTFOUND);
    second = takes(s, r, 1, T0 + LEASE);
    CHECK_INT(second.tries, 2);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, first, 0, T0), MJ_ECHANGED);
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, first, T0, T0), MJ_ECHANGED);
    check_store(s);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, second, 0, T0), MJ_OK);
    mj_store_close(s);
}

TEST("an event that was not taken can't be ended or put off")
{
    mj_store *s = open_store();
    ref r = with_events(s, 2, T0);
    mj_event_record e = {.seq = 2};

    memcpy(e.ref, r.id, sizeof e.ref);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, e, 0, T0), MJ_ECHANGED);
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, e, T0, T0), MJ_ECHANGED);
    check_store(s);
    takes(s, r, 1, T0);
    mj_store_close(s);
}

TEST("a failed event is tried again at its time, keeps its errors, and holds the next one back")
{
    mj_store *s = open_store();
    ref r = with_events(s, 2, T0);
    int64_t now = T0;

    for (uint32_t n = 1; n <= 8; n++) {
        mj_event_record e = takes(s, r, 1, now);
        CHECK_INT(e.tries, n);
        CHECK_INT(e.nerrors, n - 1 < MJ_MAX_EVENT_ERRORS ? n - 1 : MJ_MAX_EVENT_ERRORS);
        if (n > 1)
            CHECK(mj_str_eq(e.errors[e.nerrors - 1].text, str("handler failed")) &&
                  e.errors[e.nerrors - 1].at == now - MINUTE);
        CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, e, now + MINUTE, now), MJ_OK);
        CHECK_INT(take(s, now + LEASE, now + MINUTE - 1), MJ_ENOTFOUND);
        check_store(s);
        now += MINUTE;
    }
    mj_store_close(s);
}

TEST("a buried event is kept, counted and listed, and lets the next one go")
{
    mj_store *s = open_store();
    ref r = with_events(s, 2, T0);
    mj_query q = {.order = MJ_BY_EVENT, .buried = true, .limit = 10};
    mj_event_record e = takes(s, r, 1, T0), found;
    mj_buf b = {0};
    mj_reader rd;

    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, e, 0, T0), MJ_OK);
    CHECK_INT(stats(s).buried, 1);
    CHECK_INT(stats(s).events, 1);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, e, 0, T0), MJ_ECHANGED);
    takes(s, r, 2, T0);
    CHECK_INT(mj_store_page(s, &q, &b), MJ_OK);
    rd = mj_reader_of(b.p, b.n);
    CHECK_INT(mj_event_decode(mj_get_str(&rd), &found), MJ_OK);
    CHECK(rd.p == rd.end && !q.more);
    CHECK(found.buried && found.seq == 1 && found.nerrors == 1);
    mj_buf_free(&b);
    check_store(s);
    mj_store_close(s);
}

TEST("an event that an older version wrote, without when its wait began, is read as it is")
{
    mj_store *s = open_store();
    ref r = with_events(s, 1, T0);
    mj_query q = {.order = MJ_BY_EVENT, .limit = 10};
    mj_buf b = {0}, since = {0};
    mj_event_record now, old;
    mj_reader rd;
    mj_str bytes;

    takes(s, r, 1, T0 + MINUTE);
    CHECK_INT(mj_store_page(s, &q, &b), MJ_OK);
    rd = mj_reader_of(b.p, b.n);
    bytes = mj_get_str(&rd);
    CHECK_INT(mj_event_decode(bytes, &now), MJ_OK);
    CHECK_INT(now.since, T0 + MINUTE);
    mj_put_int(&since, now.since); /* the last of its fields */
    bytes.n -= (uint32_t)since.n;
    CHECK_INT(mj_event_decode(bytes, &old), MJ_OK);
    CHECK_INT(old.since, 0);
    CHECK_INT(old.tries, now.tries);
    CHECK_INT(old.next_at, now.next_at);
    mj_buf_free(&b);
    mj_buf_free(&since);
    mj_store_close(s);
}

TEST("a clock that is set back leaves no event waiting for its time, and a lease as long as it was")
{
    mj_store *s = open_store();
    ref retried = with_events(s, 1, T0), leased;

    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, takes(s, retried, 1, T0 + HOUR), T0 + HOUR + 17000, T0 + HOUR), MJ_OK);
    leased = with_events(s, 1, T0 + HOUR);
    CHECK_INT(take(s, T0 + HOUR + 1, T0 + HOUR), MJ_OK); /* by hand: it lasts until then */
    CHECK_INT(take(s, T0 + MINUTE, T0), MJ_OK);
    CHECK_MEM(last.ref, retried.id, MJ_ULID_BYTES);
    check_store(s);
    CHECK_INT(take(s, T0 + LEASE, T0), MJ_ENOTFOUND);
    CHECK_INT(take(s, T0 + LEASE, T0 + 1), MJ_OK);
    CHECK_MEM(last.ref, leased.id, MJ_ULID_BYTES);
    check_store(s);
    mj_store_close(s);
}

TEST("an event that comes after all others were done or buried goes at once")
{
    mj_store *s = open_store();
    ref r = with_events(s, 1, T0);

    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, takes(s, r, 1, T0), 0, T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_RESUBMIT, "", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_SUCCEEDED, "T9", T0), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, takes(s, r, 2, T0), 0, T0), MJ_OK);
    CHECK_INT(stats(s).events, 0);
    CHECK_INT(stats(s).buried, 1);
    check_store(s);
    mj_store_close(s);
}

TEST("an event tells whether the status was late")
{
    mj_store *s = open_store();
    ref r = add(s, (job){0}, T0);

    accounts(s, "main", 1, NULL, 0);
    CHECK_INT(claim(s, T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_REJECTED, "", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_SUCCEEDED, "T1", T0), MJ_OK);
    CHECK(!takes(s, r, 1, T0).late);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, last_event(), 0, T0), MJ_OK);
    CHECK(takes(s, r, 2, T0).late);
    mj_store_close(s);
}

TEST("a signal that changes nothing makes no event")
{
    mj_store *s = open_store();
    ref r = with_events(s, 1, T0);

    for (int i = 0; i < 20; i++) {
        tell(s, r, SIG_FAILED, "", T0 + i);
        tell(s, r, SIG_SUCCEEDED, "", T0 + i);
        tell(s, r, SIG_ABSENT, "", T0 + i);
    }
    CHECK_INT(stats(s).events, 1);
    CHECK_INT(state_of(s, r), MJ_FAILED);
    check_store(s);
    mj_store_close(s);
}

TEST("an outbox entry that leads nowhere is taken out of the way")
{
    mj_store *s = open_store();
    ref r = with_events(s, 1, T0);
    uint8_t k[28] = {0};
    MDB_val key_val = {sizeof k, k}, none = {0, ""};
    MDB_txn *t;

    CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
    CHECK_INT(mdb_put(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_OUTBOX), &key_val, &none, 0), 0);
    CHECK_INT(mdb_txn_commit(t), 0);
    mj_env_leave(lmdb_of(s)->env);
    CHECK_INT(take(s, T0 + LEASE, T0), MJ_ECORRUPT);
    takes(s, r, 1, T0);
    check_store(s);
    mj_store_close(s);
}

TEST("an event that is handed back without having been run loses no try and gains no error")
{
    mj_store *s = open_store();
    ref r = with_events(s, 1, T0);
    mj_op back = {.kind = MJ_OP_EVENT_RETRY, .until = T0 + 1};

    for (int i = 0; i < 30; i++) {
        CHECK_INT(take(s, T0 + LEASE, T0 + i), MJ_OK);
        CHECK_INT(last_event().tries, 1);
        back.event = last_event();
        back.until = T0 + i + 1;
        CHECK_INT(do_op(s, back, T0 + i), MJ_OK);
    }
    takes(s, r, 1, T0 + 30);
    CHECK_INT(last_event().nerrors, 0);
    check_store(s);
    mj_store_close(s);
}
