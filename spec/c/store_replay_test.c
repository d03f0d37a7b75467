/* Events by hand: handed out again, given up, and the files that a handler stored. */
#include "store_check.h"

enum { LEASE = 30 * SECOND };

static ref ended(mj_store *s, const char *id)
{
    ref r = add(s, (job){.task_id = id}, T0);

    CHECK_INT(tell(s, r, SIG_SUCCEEDED, id, T0), MJ_OK);
    return r;
}

static int by_hand(mj_store *s, mj_op_kind kind, ref r, uint32_t seq, int64_t now)
{
    mj_op op = {.kind = kind, .has_ref = true, .event.seq = seq, .sig.error = str("by hand")};

    memcpy(op.event.ref, r.id, sizeof op.event.ref);
    return do_op(s, op, now);
}

static int kick(mj_store *s, ref r, uint32_t seq, int64_t now)
{
    return by_hand(s, MJ_OP_EVENT_KICK, r, seq, now);
}

static int bury(mj_store *s, ref r, uint32_t seq, int64_t now)
{
    return by_hand(s, MJ_OP_EVENT_BURY, r, seq, now);
}

static mj_event_record taken(mj_store *s, int64_t now)
{
    CHECK_INT(take(s, now + LEASE, now), MJ_OK);
    return last_event();
}

TEST("a delivered event is replayed under its own id, and only the last one")
{
    mj_store *s = open_store();
    ref r = ended(s, "T1");
    mj_event_record e = taken(s, T0);

    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, e, 0, T0), MJ_OK);
    CHECK_INT(kick(s, r, 1, T0), MJ_ENOTFOUND); /* by its number it is gone */
    CHECK_INT(kick(s, r, 0, T0), MJ_OK);
    CHECK_INT(last.seq, 1);
    check_store(s);
    e = taken(s, T0);
    CHECK_INT(e.seq, 1);
    CHECK_INT(e.type, MJ_EVENT_SUCCEEDED);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, e, 0, T0), MJ_OK);
    CHECK_INT(stats(s).events, 0);
    check_store(s);
    mj_store_close(s);
}

TEST("a task without an end has nothing to replay, a pruned or unknown one is not found")
{
    mj_store *s = open_store();
    ref open = add(s, (job){.task_id = "T1"}, T0), nobody = {{1}}, gone = ended(s, "T2");

    CHECK_INT(kick(s, open, 0, T0), MJ_ESTATE);
    CHECK_INT(kick(s, nobody, 0, T0), MJ_ENOTFOUND);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, taken(s, T0), 0, T0), MJ_OK);
    CHECK_INT(do_op(s, (mj_op){.kind = MJ_OP_PRUNE, .sig.expect_state = MJ_SUCCEEDED, .until = T0, .limit = 9}, T0),
              MJ_OK);
    CHECK_INT(last.done, 1);
    CHECK_INT(kick(s, gone, 0, T0), MJ_ENOTFOUND);
    mj_store_close(s);
}

TEST("a buried event that is kicked goes before the later ones of its task, with all its tries ahead")
{
    mj_store *s = open_store();
    ref r = add(s, (job){.task_id = "T1"}, T0);
    mj_event_record e;

    CHECK_INT(tell(s, r, SIG_FAILED, "T1", T0), MJ_OK);
    e = taken(s, T0);
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, e, 0, T0), MJ_OK); /* buried */
    CHECK_INT(tell(s, r, SIG_RESUBMIT, "", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_FAILED, "T2", T0), MJ_OK);
    CHECK_INT(kick(s, r, 1, T0 + SECOND), MJ_OK);
    check_store(s);
    CHECK_INT(stats(s).buried, 0);
    CHECK_INT(stats(s).events, 2);
    e = taken(s, T0 + SECOND);
    CHECK_INT(e.seq, 1);
    CHECK_INT(e.tries, 2);  /* goes on, since it names the lease ... */
    CHECK_INT(e.before, 1); /* ... of which one was before the kick */
    CHECK_INT(take(s, T0 + LEASE, T0 + SECOND), MJ_ENOTFOUND);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, e, 0, T0 + SECOND), MJ_OK);
    CHECK_INT(taken(s, T0 + SECOND).seq, 2);
    check_store(s);
    mj_store_close(s);
}

TEST("what is being handled can't be kicked or given up, nor overtaken by an earlier event of its task")
{
    mj_store *s = open_store();
    ref r = add(s, (job){.task_id = "T1"}, T0);
    mj_event_record first, second;

    CHECK_INT(tell(s, r, SIG_FAILED, "T1", T0), MJ_OK);
    first = taken(s, T0);
    CHECK_INT(kick(s, r, 1, T0), MJ_ESTATE);
    CHECK_INT(kick(s, r, 0, T0), MJ_ESTATE);
    CHECK_INT(bury(s, r, 1, T0), MJ_ESTATE);
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, first, 0, T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_RESUBMIT, "", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_FAILED, "T2", T0), MJ_OK);
    second = taken(s, T0);
    CHECK_INT(second.seq, 2);
    CHECK_INT(kick(s, r, 1, T0), MJ_ESTATE);
    check_store(s);
    CHECK_INT(kick(s, r, 1, T0 + LEASE + 1), MJ_OK); /* its holder is dead */
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, second, 0, T0 + LEASE + 1), MJ_OK);
    CHECK_INT(taken(s, T0 + LEASE + 1).seq, 1);
    check_store(s);
    mj_store_close(s);
}

TEST("a lease that a kick has ended settles nothing any more")
{
    mj_store *s = open_store();
    ref r = ended(s, "T1");
    mj_event_record e = taken(s, T0);

    CHECK_INT(kick(s, r, 1, T0 + LEASE), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, e, 0, T0 + LEASE), MJ_ECHANGED);
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, e, T0 + LEASE, T0 + LEASE), MJ_ECHANGED);
    CHECK_INT(taken(s, T0 + LEASE).tries, 2);
    check_store(s);
    mj_store_close(s);
}

TEST("an event that is given up keeps its reason, and the next one of its task goes")
{
    mj_store *s = open_store();
    ref r = add(s, (job){.task_id = "T1"}, T0);
    mj_event_record e;

    CHECK_INT(tell(s, r, SIG_FAILED, "T1", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_RESUBMIT, "", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_FAILED, "T2", T0), MJ_OK);
    CHECK_INT(bury(s, r, 3, T0), MJ_ENOTFOUND);
    CHECK_INT(bury(s, r, 1, T0), MJ_OK);
    CHECK_INT(bury(s, r, 1, T0), MJ_EDUPLICATE);
    check_store(s);
    CHECK_INT(stats(s).buried, 1);
    CHECK_INT(taken(s, T0).seq, 2);
    CHECK_INT(kick(s, r, 1, T0 + LEASE + 1), MJ_OK);
    e = taken(s, T0 + LEASE + 1);
    CHECK_INT(e.seq, 1);
    CHECK_INT(e.nerrors, 1);
    check_store(s);
    mj_store_close(s);
}

TEST("one that is not its task's first is given up in its place")
{
    mj_store *s = open_store();
    ref r = add(s, (job){.task_id = "T1"}, T0);

    CHECK_INT(tell(s, r, SIG_FAILED, "T1", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_RESUBMIT, "", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_FAILED, "T2", T0), MJ_OK);
    CHECK_INT(bury(s, r, 2, T0), MJ_OK);
    check_store(s);
    CHECK_INT(settle(s, MJ_OP_EVENT_DONE, taken(s, T0), 0, T0), MJ_OK);
    CHECK_INT(take(s, T0 + LEASE, T0), MJ_ENOTFOUND);
    check_store(s);
    mj_store_close(s);
}

TEST("files that a handler stored are the task's when its event is done")
{
    mj_store *s = open_store();
    ref r = ended(s, "T1");
    mj_op op = {.kind = MJ_OP_EVENT_DONE, .event = taken(s, T0), .sig.files = str("[{\"path\":\"/a.png\"}]")};
    mj_buf b = {0};
    mj_task t;

    CHECK_INT(do_op(s, op, T0 + SECOND), MJ_OK);
    t = get_task(s, r, &b);
    CHECK_INT(t.state, MJ_SUCCEEDED);
    CHECK(mj_str_eq(t.files, str("[{\"path\":\"/a.png\"}]")));
    CHECK_INT(t.timeline[t.ntimeline - 1].signal, SIG_KEPT);
    mj_buf_free(&b);
    CHECK_INT(stats(s).events, 0);
    check_store(s);
    mj_store_close(s);
}

TEST("a lease that ran out and is put off does not overtake an earlier event that was kicked meanwhile")
{
    mj_store *s = open_store();
    ref r = add(s, (job){.task_id = "T1"}, T0);
    mj_event_record second;
    int64_t later = T0 + LEASE + 1;

    CHECK_INT(tell(s, r, SIG_FAILED, "T1", T0), MJ_OK);
    CHECK_INT(bury(s, r, 1, T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_RESUBMIT, "", T0), MJ_OK);
    CHECK_INT(tell(s, r, SIG_FAILED, "T2", T0), MJ_OK);
    second = taken(s, T0);
    CHECK_INT(second.seq, 2);
    CHECK_INT(kick(s, r, 1, later), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, second, later, later), MJ_OK);
    check_store(s);
    CHECK_INT(taken(s, later).seq, 1);
    CHECK_INT(take(s, later + LEASE, later), MJ_ENOTFOUND);
    mj_store_close(s);
}

TEST("only handlers that failed count, not leases that ran out or were handed back; a kick begins anew")
{
    mj_store *s = open_store();
    ref r = ended(s, "T1");
    int64_t now = T0;
    mj_op back = {.kind = MJ_OP_EVENT_RETRY};

    for (int i = 0; i < 3; i++) { /* three who died */
        CHECK_INT(taken(s, now).failed, 0);
        now += LEASE + 1;
    }
    back.event = taken(s, now);
    back.until = now;
    CHECK_INT(do_op(s, back, now), MJ_OK); /* one who did not get to it */
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, taken(s, now), now, now), MJ_OK);
    CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, taken(s, now), now, now), MJ_OK);
    CHECK_INT(taken(s, now).failed, 2);
    now += LEASE + 1;
    CHECK_INT(kick(s, r, 1, now), MJ_OK);
    CHECK_INT(taken(s, now).failed, 0);
    check_store(s);
    mj_store_close(s);
}
