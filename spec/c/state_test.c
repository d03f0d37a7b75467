/* Every state and every signal, against PRODUCT.md's table and edges: the
 * expectations are written down here, none is computed. */
#include "state_help.h"

/* Where the pairs start.  All but `queued` have been sent under an account. */
enum {
    QUEUED,
    SUBMITTING,
    AMBIGUOUS,
    PENDING,
    SUCCEEDED,
    FAILED,
    REJECTED,
    GIVEN_UP,
    ABSENT,
    CANCELLED,
    IN_AIR,
    STARTS
};

static mj_task start(int from)
{
    mj_task t;

    switch (from) {
    case QUEUED:
        return new_task();
    case SUBMITTING:
        return TASK_AFTER(SIG_CLAIM);
    case AMBIGUOUS:
        return TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT);
    case PENDING:
        return pending_task();
    case SUCCEEDED:
        return TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED, SIG_SUCCEEDED);
    case FAILED: /* the provider said so */
        return TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED, SIG_FAILED);
    case REJECTED: /* we decided so */
        return TASK_AFTER(SIG_CLAIM, SIG_REJECTED);
    case GIVEN_UP: /* lost out of ambiguous, its slot still held */
        return TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT, SIG_GIVE_UP);
    case ABSENT: /* lost because the provider does not know it, its slot over */
        t = pending_task();
        for (int i = 0; i < 3; i++)
            CHECK_INT(say(&t, SIG_ABSENT, T0 + SLOT_MS + i * 5 * MINUTE), MJ_OK);
        CHECK_INT(t.state, MJ_LOST);
        CHECK_INT(say(&t, SIG_SLOT_END, T0 + SLOT_MS), MJ_OK);
        return t;
    case CANCELLED: /* while it was pending */
        return TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED, SIG_CANCEL);
    default: /* cancelled while its submission was in the air */
        return TASK_AFTER(SIG_CLAIM, SIG_CANCEL);
    }
}

/* A cell: the state afterwards (Queued Submitting Ambiguous Pending succeeded(+) Failed Lost Cancelled),
 * how it was taken (o: ok, d: duplicate, s: stale, x: refused with `state`),
 * * when an event came of it, and @ when the first attempt holds its slot afterwards. */
static const struct {
    mj_signal_kind kind;
    const char *cells[STARTS];
} table[] = {
    // clang-format off
/*                  queued  submit. ambig.  pending succ.   failed  reject. given   absent  cancel. in air */
{SIG_READY,      { "Qs..", "Ss.@", "As.@", "Ps.@", "+s..", "Fs..", "Fs..", "Ls.@", "Ls..", "Cs.@", "Cs.@"}},
{SIG_CLAIM,      { "So.@", "Sx.@", "Ax.@", "Px.@", "+x..", "Fx..", "Fx..", "Lx.@", "Lx..", "Cx.@", "Cx.@"}},
{SIG_ACCEPTED,   { "Po..", "Po.@", "Po.@", "Pd.@", "+d..", "Fd..", "Fd.@", "Po.@", "Ld..", "Cd.@", "Co.@"}},
{SIG_NOT_SENT,   { "Qs..", "Qo..", "Qo..", "Ps.@", "+s..", "Fs..", "Fs..", "Ls..", "Ls..", "Cs.@", "Co.."}},
{SIG_REFUSED,    { "Qs..", "Qo..", "Qo..", "Ps.@", "+s..", "Fs..", "Fs..", "Ls..", "Ls..", "Cs.@", "Co.."}},
{SIG_REJECTED,   { "Qs..", "Fo*.", "Fo*.", "Ps.@", "+s..", "Fs..", "Fs..", "Ls..", "Ls..", "Cs.@", "Co.."}},
{SIG_MAYBE_SENT, { "Qs..", "Ao*@", "Ad.@", "Ps.@", "+s..", "Fs..", "Fs..", "Ls.@", "Ls..", "Cs.@", "Co.@"}},
{SIG_OWNER_DEAD, { "Qs..", "Ao*@", "Ad.@", "Ps.@", "+s..", "Fs..", "Fs..", "Ls.@", "Ls..", "Cs.@", "Co.@"}},
{SIG_RUNNING,    { "Po..", "Po.@", "Po.@", "Po.@", "+s..", "Fs..", "Fs.@", "Po.@", "Po..", "Co.@", "Co.@"}},
{SIG_SUCCEEDED,  { "+o*.", "+o*.", "+o*.", "+o*.", "+d..", "Fs..", "+o*.", "+o*.", "+o*.", "Co..", "Co.."}},
{SIG_HINT,       { "Po..", "Po.@", "Po.@", "Po.@", "+d..", "Fs..", "Fo.@", "Po.@", "Po..", "Co.@", "Co.@"}},
{SIG_FAILED,     { "Fo*.", "Fo*.", "Fo*.", "Fo*.", "+s..", "Fd..", "Fo..", "Fo*.", "Fo*.", "Co..", "Co.."}},
{SIG_ABSENT,     { "Qs..", "Ss.@", "As.@", "Po.@", "+s..", "Fs..", "Fo..", "Lo.@", "Lo..", "Co.@", "Co.@"}},
{SIG_UNANSWERED, { "Qs..", "Ss.@", "As.@", "Po.@", "+s..", "Fs..", "Fo..", "Lo.@", "Lo..", "Co.@", "Co.@"}},
{SIG_LOOK,       { "Po..", "Po.@", "Po.@", "Po.@", "+s..", "Fs..", "Fo..", "Lo.@", "Lo..", "Co.@", "Co.@"}},
{SIG_GIVE_UP,    { "Qx..", "Sx.@", "Lo*@", "Px.@", "+x..", "Fx..", "Fx..", "Lx.@", "Lx..", "Cx.@", "Cx.@"}},
{SIG_RESUBMIT,   { "Qx..", "Sx.@", "Qo.@", "Px.@", "+x..", "Qo..", "Qo..", "Qo.@", "Qo..", "Cx.@", "Cx.@"}},
{SIG_WAIT,       { "Qx..", "Sx.@", "Ao.@", "Px.@", "+x..", "Fx..", "Fx..", "Lx.@", "Lx..", "Cx.@", "Cx.@"}},
{SIG_CANCEL,     { "Co..", "Co.@", "Co.@", "Co.@", "+x..", "Fx..", "Fx..", "Lx.@", "Lx..", "Cx.@", "Cx.@"}},
{SIG_SLOT_END,   { "Qs..", "So..", "Ao..", "Po..", "+s..", "Fs..", "Fs..", "Lo..", "Ls..", "Co..", "Co.."}},
{SIG_KEPT,       { "Qo..", "So.@", "Ao.@", "Po.@", "+o..", "Fo..", "Fo..", "Lo.@", "Lo..", "Co.@", "Co.@"}},
    // clang-format on
};

static const char *const start_names[] = {"queued",        "submitting", "ambiguous",       "pending",
                                          "succeeded",     "failed",     "rejected",        "given up",
                                          "lost (absent)", "cancelled",  "cancelled in air"};

/* The same four characters for what happened. */
static void describe(const mj_task *t, int rc, char out[5])
{
    out[0] = "QSAP+FLC"[t->state];
    out[1] = rc == MJ_OK ? 'o' : rc == MJ_EDUPLICATE ? 'd' : rc == MJ_ESTALE ? 's' : rc == MJ_ESTATE ? 'x' : '?';
    out[2] = last_step.event == MJ_EVENT_NONE ? '.' : '*';
    out[3] = t->attempts[0].slot ? '@' : '.';
    out[4] = '\0';
}

static mj_event event_of(mj_state s)
{
    switch (s) {
    case MJ_SUCCEEDED:
        return MJ_EVENT_SUCCEEDED;
    case MJ_FAILED:
        return MJ_EVENT_FAILED;
    case MJ_LOST:
        return MJ_EVENT_LOST;
    case MJ_AMBIGUOUS:
        return MJ_EVENT_AMBIGUOUS;
    default:
        return MJ_EVENT_NONE;
    }
}

TEST("every signal in every state does what the table says")
{
    int wrong = 0;

    CHECK_INT(sizeof table / sizeof table[0], SIG_COUNT - 1); /* all but SIG_CREATE */
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        CHECK_INT(table[i].kind, i + 1);
        for (int from = 0; from < STARTS; from++) {
            mj_task t = start(from);
            char got[5];
            int64_t at = from == ABSENT || table[i].kind == SIG_SLOT_END ? T0 + SLOT_MS + 20 * MINUTE : T0 + 5 * SECOND;
            int rc = say(&t, table[i].kind, at);
            describe(&t, rc, got);
            if (strcmp(got, table[i].cells[from]) != 0) {
                fprintf(stderr, "%s in %s: %s, not %s\n", mj_signal_name(table[i].kind), start_names[from], got,
                        table[i].cells[from]);
                wrong++;
            }
            if (last_step.event != MJ_EVENT_NONE)
                CHECK_INT(last_step.event, event_of(t.state));
        }
    }
    CHECK_INT(wrong, 0);
}

TEST("a signal that is refused or not taken leaves every fact of the task alone")
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        for (int from = 0; from < STARTS; from++) {
            mj_task t = start(from), before = t;
            int rc = say(&t, table[i].kind, T0 + 5 * SECOND);
            if (rc == MJ_ESTATE) {
                CHECK(!last_step.changed);
                check_same_record(&t, &before);
            }
            if (rc == MJ_ESTALE || rc == MJ_EDUPLICATE) {
                CHECK_INT(t.state, before.state);
                CHECK_INT(last_step.event, MJ_EVENT_NONE);
                CHECK_INT(t.finished_at, before.finished_at);
                CHECK_INT(t.late, before.late);
                CHECK_INT(t.source, before.source);
                CHECK(mj_str_eq(t.error, before.error));
                CHECK(mj_str_eq(t.image, before.image));
            }
        }
}

TEST("the same signal twice makes no second event in any state")
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        for (int from = 0; from < STARTS; from++) {
            mj_task t = start(from);
            bool first;
            say(&t, table[i].kind, T0 + 5 * SECOND);
            first = last_step.event != MJ_EVENT_NONE;
            say(&t, table[i].kind, T0 + 6 * SECOND);
            CHECK(!first || last_step.event == MJ_EVENT_NONE);
        }
}

TEST("a success that the provider told outlives any two signals")
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        for (size_t k = 0; k < sizeof table / sizeof table[0]; k++) {
            mj_task t = start(SUCCEEDED);
            say(&t, table[i].kind, T0 + 5 * SECOND);
            say(&t, table[k].kind, T0 + 5 * MINUTE);
            CHECK_INT(t.state, MJ_SUCCEEDED);
            CHECK(t.due_at == 0);
        }
}

TEST("a signal about an attempt that never was, or without a kind, is invalid")
{
    mj_task t = pending_task(), before = t;
    mj_signal sig = signal_of(SIG_SUCCEEDED);

    sig.attempt = 2;
    CHECK_INT(give(&t, sig, T0), MJ_EINVAL);
    CHECK_INT(say(&t, SIG_CREATE, T0), MJ_EINVAL);
    CHECK_INT(say(&t, SIG_COUNT, T0), MJ_EINVAL);
    check_same_record(&t, &before);
    CHECK(!last_step.changed);
}

TEST("an expected state that no longer holds is `changed` and touches nothing")
{
    mj_task t = pending_task(), before = t;
    mj_signal sig = signal_of(SIG_SUCCEEDED);

    sig.expect_state = MJ_AMBIGUOUS;
    CHECK_INT(give(&t, sig, T0), MJ_ECHANGED);
    check_same_record(&t, &before);
    sig.expect_state = MJ_PENDING;
    CHECK_INT(give(&t, sig, T0), MJ_OK);
    t = TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT, SIG_RESUBMIT, SIG_CLAIM, SIG_MAYBE_SENT);
    sig = signal_of(SIG_GIVE_UP);
    sig.expect_state = MJ_AMBIGUOUS;
    sig.attempt = 1; /* decided about the attempt before */
    CHECK_INT(give(&t, sig, T0), MJ_ECHANGED);
}

TEST("the name of a state is read as it is written; what is none has no name")
{
    for (int s = 0; s < MJ_NSTATES; s++)
        CHECK_INT(mj_state_parse(str(mj_state_name((mj_state)s))), s);
    CHECK_INT(mj_state_parse(str("pendin")), -1);
    CHECK_STR(mj_signal_name(SIG_COUNT), "?");
    CHECK_STR(mj_result_name(MJ_NRESULTS), "?");
}

/* ---- timeline ---- */

TEST("the timeline is bounded, keeps its beginning and its end, and counts what it forgot")
{
    mj_task t = pending_task();
    uint32_t n = t.ntimeline;

    for (int i = 0; i < 200; i++) {
        say(&t, SIG_NOT_SENT, T0 + 2 * i * SECOND);
        say(&t, SIG_REJECTED, T0 + (2 * i + 1) * SECOND);
    }
    CHECK_INT(t.ntimeline, MJ_MAX_TIMELINE);
    CHECK_INT(t.forgotten, n + 400 - MJ_MAX_TIMELINE);
    CHECK_INT(t.timeline[0].signal, SIG_CREATE);
    CHECK_INT(t.timeline[1].signal, SIG_CLAIM);
    CHECK_INT(t.timeline[2].signal, SIG_ACCEPTED);
    CHECK_INT(last_entry(&t)->signal, SIG_REJECTED);
    CHECK_INT(last_entry(&t)->at, T0 + 399 * SECOND);
}

TEST("the same in a row is one entry of the timeline with a count")
{
    mj_task t = pending_task();
    uint32_t n = t.ntimeline;
    mj_signal other = polled(SIG_RUNNING);

    for (int i = 0; i < 1000; i++)
        give(&t, polled(SIG_RUNNING), T0 + i);
    CHECK_INT(t.ntimeline, n + 1);
    CHECK_INT(last_entry(&t)->count, 1000);
    CHECK_INT(last_entry(&t)->at, T0);
    CHECK_INT(last_entry(&t)->until, T0 + 999);
    other.error = str("another reason");
    give(&t, other, T0 + 1000);
    CHECK_INT(t.ntimeline, n + 2);
    say(&t, SIG_HINT, T0 + 1001); /* another source and signal */
    CHECK_INT(t.ntimeline, n + 3);
    other = signal_of(SIG_RUNNING);
    other.task_id = str("T2"); /* taken in another way */
    give(&t, other, T0 + 1002);
    CHECK_INT(t.ntimeline, n + 4);
}

TEST("what changes the timeline alone is written at most once a second, and answered as before")
{
    mj_task t = pending_task(), before;
    const struct {
        mj_signal_kind kind;
        int rc;
    } words[] = {{SIG_SUCCEEDED, MJ_EDUPLICATE}, {SIG_FAILED, MJ_ESTALE}, {SIG_HINT, MJ_EDUPLICATE}};

    say(&t, SIG_SUCCEEDED, T0);
    say(&t, SIG_SUCCEEDED, T0 + 1); /* the first that tells of nothing but itself */
    CHECK(last_step.changed && !last_step.withheld);
    before = t;
    for (int i = 0; i < 999; i++) {
        CHECK_INT(say(&t, words[i % 3].kind, T0 + 1 + i), words[i % 3].rc);
        CHECK(!last_step.changed && last_step.withheld);
    }
    check_same_record(&t, &before);
    CHECK_INT(say(&t, SIG_FAILED, T0 + 1001), MJ_ESTALE);
    CHECK(last_step.changed && !last_step.withheld);
    CHECK_INT(last_entry(&t)->result, MJ_RESULT_CONTRADICTION);
}

TEST("a fact is written at once, however fresh the timeline is")
{
    mj_task t = pending_task();
    mj_signal more = signal_of(SIG_SUCCEEDED), bare = signal_of(SIG_SUCCEEDED);

    bare.meta = str("{}");
    give(&t, bare, T0);
    give(&t, bare, T0);
    more.mj_prompt = str("as run");
    CHECK_INT(give(&t, more, T0 + 1), MJ_EDUPLICATE); /* fills an empty field */
    CHECK(last_step.changed && mj_str_eq(t.mj_prompt, str("as run")));
    more.task_id = str("T2");
    CHECK_INT(give(&t, more, T0 + 2), MJ_EDUPLICATE); /* a second id is polled, too */
    CHECK(last_step.changed && t.attempts[0].nids == 2);
}

TEST("a clock that was set back withholds nothing for longer than a second")
{
    mj_task t = pending_task();

    say(&t, SIG_SUCCEEDED, T0);
    say(&t, SIG_SUCCEEDED, T0 + 60 * MINUTE);
    say(&t, SIG_SUCCEEDED, T0 + MINUTE);
    CHECK(last_step.changed);
}

TEST("a callback that tells of progress alone changes nothing, not even the timeline, whatever the state")
{
    const mj_signal_kind ends[] = {SIG_RUNNING, SIG_SUCCEEDED, SIG_FAILED, SIG_CANCEL};

    for (int i = 0; i < 4; i++) {
        mj_task t = TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED, ends[i]), before = t;
        for (int k = 1; k < 100; k++) {
            say(&t, SIG_RUNNING, T0 + k * MINUTE);
            CHECK(!last_step.changed);
        }
        check_same_record(&t, &before);
    }
    mj_task t = TASK_AFTER(SIG_CLAIM); /* here it is news: the job was accepted */
    CHECK_INT(say(&t, SIG_RUNNING, T0), MJ_OK);
    CHECK(last_step.changed && t.called_at == T0);
    CHECK_INT(t.state, MJ_PENDING);
}

TEST("a long reason is cut, and not inside a character")
{
    static char text[2000];
    mj_task t = pending_task();
    mj_signal sig = signal_of(SIG_FAILED);

    for (size_t i = 0; i < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    sig.error = (mj_str){text + 1, sizeof text - 1}; /* so that the cut falls inside one */
    give(&t, sig, T0);
    CHECK(t.error.n <= MJ_MAX_REASON && t.error.n >= MJ_MAX_REASON - 3);
    CHECK_INT((unsigned char)t.error.p[t.error.n - 1], 0xa9);
}
