/* PRODUCT.md, Edges, sentence by sentence: what concerns attempts, ids, slots and words. */
#include "state_help.h"

static mj_signal about(mj_signal_kind kind, uint32_t attempt, const char *id)
{
    mj_signal sig = signal_of(kind);

    sig.attempt = attempt;
    sig.task_id = str(id);
    return sig;
}

/* The first attempt's outcome is unknown, the second is at work under T2. */
static mj_task second_attempt(void)
{
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT, SIG_RESUBMIT, SIG_CLAIM);

    CHECK_INT(give(&t, about(SIG_ACCEPTED, 2, "T2"), T0), MJ_OK);
    CHECK_INT(t.state, MJ_PENDING);
    return t;
}

/* ---- older attempts ---- */

TEST("the success of an older attempt is a success of the task, wherever the newer one is")
{
    const mj_signal_kind ways[][2] = {
        {SIG_READY, SIG_READY}, {SIG_CLAIM, SIG_READY}, {SIG_CLAIM, SIG_MAYBE_SENT}, {SIG_CLAIM, SIG_REJECTED}};

    for (int i = 0; i < 4; i++) {
        mj_task t = TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT, SIG_RESUBMIT);
        say(&t, ways[i][0], T0);
        say(&t, ways[i][1], T0);
        CHECK_INT(give(&t, about(SIG_SUCCEEDED, 1, "T1"), T0 + SECOND), MJ_OK);
        CHECK_INT(t.state, MJ_SUCCEEDED);
        CHECK_INT(last_step.event, MJ_EVENT_SUCCEEDED);
        CHECK_INT(t.attempts[0].status, MJ_ATTEMPT_SUCCEEDED);
        CHECK_INT(t.due_at, 0);
        CHECK(!t.ready);
    }
}

TEST("the success of an older attempt of a cancelled task is recorded and makes no event")
{
    mj_task t = second_attempt();

    CHECK_INT(say(&t, SIG_CANCEL, T0), MJ_OK);
    CHECK_INT(give(&t, about(SIG_SUCCEEDED, 1, "T1"), T0), MJ_OK);
    CHECK_INT(t.state, MJ_CANCELLED);
    CHECK_INT(last_step.event, MJ_EVENT_NONE);
    CHECK(mj_str_eq(t.image, str("https://cdn/grid.png")));
    CHECK(t.due_at > T0); /* the second attempt still holds its slot */
    CHECK_INT(give(&t, about(SIG_FAILED, 2, "T2"), T0), MJ_OK);
    CHECK_INT(t.due_at, 0);
}

TEST("the failure or refusal of an older attempt changes its record and not the task")
{
    const mj_signal_kind kinds[] = {SIG_FAILED, SIG_REFUSED, SIG_REJECTED, SIG_NOT_SENT};

    for (int i = 0; i < 4; i++) {
        mj_task t = second_attempt();
        int64_t due = t.due_at;
        CHECK(t.attempts[0].slot);
        CHECK_INT(give(&t, about(kinds[i], 1, i ? "" : "T1"), T0 + SECOND), MJ_ESTALE);
        CHECK_INT(t.state, MJ_PENDING);
        CHECK_INT(t.due_at, due);
        CHECK_INT(last_step.event, MJ_EVENT_NONE);
        CHECK_INT(t.attempts[0].status, i ? MJ_ATTEMPT_REFUSED : MJ_ATTEMPT_FAILED);
        CHECK(!t.attempts[0].slot);
        CHECK(t.attempts[1].slot);
        CHECK_INT(last_entry(&t)->result, MJ_RESULT_OLD);
        CHECK_INT(last_entry(&t)->attempt, 1);
    }
}

TEST("an older attempt that turns out to run is recorded and never moves the task back")
{
    mj_task t = second_attempt();

    CHECK_INT(give(&t, about(SIG_SUCCEEDED, 2, "T2"), T0), MJ_OK);
    CHECK_INT(give(&t, about(SIG_RUNNING, 1, "T1"), T0), MJ_ESTALE);
    CHECK_INT(t.state, MJ_SUCCEEDED);
    CHECK_INT(t.attempts[0].status, MJ_ATTEMPT_ACCEPTED);
    CHECK_INT(t.attempts[0].nids, 1);
}

TEST("a hint to verify an older attempt is worth a poll, too")
{
    mj_task t = second_attempt();

    CHECK_INT(give(&t, about(SIG_LOOK, 1, "T1"), T0 + SECOND), MJ_OK);
    CHECK_INT(t.due_at, T0 + SECOND);
    CHECK_INT(t.attempts[0].nids, 1);
}

TEST("the older attempt's result does not mix with the failure of the newer one")
{
    mj_task t = second_attempt();
    mj_signal failed = about(SIG_FAILED, 2, "T2"), won = about(SIG_SUCCEEDED, 1, "T1");

    failed.mj_prompt = str("of the second");
    failed.meta = str("{\"w\":2}");
    failed.image = str("https://cdn/second.png");
    CHECK_INT(give(&t, failed, T0), MJ_OK);
    won.image = str("https://cdn/first.png");
    CHECK_INT(give(&t, won, T0), MJ_OK);
    CHECK_INT(t.state, MJ_SUCCEEDED);
    CHECK(mj_str_eq(t.image, str("https://cdn/first.png")));
    CHECK_INT(t.meta.n, 0);
    CHECK_INT(t.mj_prompt.n, 0);
    CHECK_INT(t.error.n, 0);
    CHECK(t.late);
}

TEST("a resubmitted task starts with nothing of the attempt before")
{
    mj_task t = pending_task();
    mj_signal failed = signal_of(SIG_FAILED);

    failed.image = str("https://cdn/partial.png");
    failed.nimages = 1;
    failed.images[0] = str("https://cdn/0.png");
    CHECK_INT(give(&t, failed, T0), MJ_OK);
    CHECK_INT(say(&t, SIG_RESUBMIT, T0), MJ_OK);
    CHECK_INT(t.nattempts, 2);
    CHECK(t.ready);
    CHECK_INT(t.image.n + t.nimages + t.error.n + t.error_code.n + t.polls + t.hints + t.absent + t.tries, 0);
    CHECK_INT(t.attempts[1].status, MJ_ATTEMPT_NONE);
    CHECK_INT(t.finished_at, 0);
}

/* ---- task ids ---- */

TEST("a callback that comes before the submit answer binds its id, and the answer is a duplicate")
{
    const mj_signal_kind first[] = {SIG_SUCCEEDED, SIG_FAILED, SIG_RUNNING};
    const mj_state then[] = {MJ_SUCCEEDED, MJ_FAILED, MJ_PENDING};

    for (int ambiguous = 0; ambiguous < 2; ambiguous++)
        for (int i = 0; i < 3; i++) {
            mj_task t = TASK_AFTER(SIG_CLAIM);
            if (ambiguous)
                say(&t, SIG_MAYBE_SENT, T0);
            CHECK_INT(say(&t, first[i], T0), MJ_OK);
            CHECK_INT(t.state, then[i]);
            CHECK(mj_str_eq(t.attempts[0].ids[0], str("T1")));
            CHECK_INT(say(&t, SIG_ACCEPTED, T0), MJ_EDUPLICATE);
            CHECK_INT(t.state, then[i]);
            CHECK_INT(t.attempts[0].nids, 1);
            CHECK_INT(last_entry(&t)->result, MJ_RESULT_DUPLICATE);
        }
}

TEST("a second task id never replaces the first: conflict, both are kept, the first final status wins")
{
    mj_task t = pending_task();

    CHECK_INT(give(&t, about(SIG_ACCEPTED, 1, "T2"), T0), MJ_ESTALE);
    CHECK_INT(last_entry(&t)->result, MJ_RESULT_CONFLICT);
    CHECK_INT(give(&t, about(SIG_RUNNING, 1, "T3"), T0), MJ_ESTALE);
    CHECK_INT(last_entry(&t)->result, MJ_RESULT_CONFLICT);
    CHECK_INT(t.state, MJ_PENDING);
    CHECK_INT(t.attempts[0].nids, 3);
    CHECK(mj_str_eq(t.attempts[0].ids[0], str("T1")));
    CHECK_INT(give(&t, about(SIG_SUCCEEDED, 1, "T2"), T0), MJ_OK);
    CHECK_INT(t.state, MJ_SUCCEEDED);
    CHECK_INT(give(&t, about(SIG_FAILED, 1, "T1"), T0), MJ_ESTALE);
    CHECK_INT(t.state, MJ_SUCCEEDED);
    CHECK_INT(last_entry(&t)->result, MJ_RESULT_CONTRADICTION);
}

TEST("ids beyond what an attempt can keep are noted and not bound")
{
    mj_task t = pending_task();
    const char *const ids[] = {"T2", "T3", "T4", "T5", "T6"};

    for (int i = 0; i < 5; i++)
        CHECK_INT(give(&t, about(SIG_ACCEPTED, 1, ids[i]), T0), MJ_ESTALE);
    CHECK_INT(t.attempts[0].nids, MJ_MAX_IDS);
    CHECK(mj_str_eq(t.attempts[0].ids[0], str("T1")));
}

TEST("an id of another task is never believed and never bound")
{
    for (int kind = SIG_ACCEPTED; kind <= SIG_LOOK; kind++) {
        mj_task t = TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT);
        mj_signal sig = signal_of((mj_signal_kind)kind);
        sig.foreign_id = true;
        sig.task_id = str("theirs");
        CHECK_INT(give(&t, sig, T0), MJ_ESTALE);
        CHECK_INT(t.state, MJ_AMBIGUOUS);
        CHECK_INT(t.attempts[0].nids, 0);
        CHECK_INT(last_entry(&t)->result, MJ_RESULT_CONFLICT);
    }
}

TEST("a task id of another attempt is a conflict, whichever of the two is named, and no status of either")
{
    for (int kind = SIG_RUNNING; kind <= SIG_LOOK; kind++)
        for (uint32_t named = 1; named <= 2; named++) {
            mj_task t = second_attempt(), before;
            if (kind == SIG_ABSENT || kind == SIG_UNANSWERED)
                continue; /* they name no id */
            CHECK_INT(give(&t, about(SIG_RUNNING, 1, "T1"), T0),
                      MJ_ESTALE); /* the first runs, too: both ids are known */
            before = t;
            CHECK_INT(give(&t, about((mj_signal_kind)kind, named, named == 1 ? "T2" : "T1"), T0 + MINUTE), MJ_ESTALE);
            CHECK_INT(last_step.event, MJ_EVENT_NONE);
            CHECK_INT(last_entry(&t)->result, MJ_RESULT_CONFLICT);
            CHECK_INT(last_entry(&t)->attempt, named);
            t.ntimeline = before.ntimeline;
            t.updated_at = before.updated_at;
            check_same_record(&t, &before);
        }
}

TEST("without a named attempt the task id tells it")
{
    mj_task t = second_attempt();

    CHECK_INT(give(&t, about(SIG_RUNNING, 1, "T1"), T0), MJ_ESTALE);
    CHECK_INT(give(&t, about(SIG_FAILED, 0, "T1"), T0), MJ_ESTALE);
    CHECK_INT(last_step.attempt, 1);
    CHECK_INT(t.attempts[0].status, MJ_ATTEMPT_FAILED);
    CHECK_INT(t.state, MJ_PENDING);
    CHECK_INT(give(&t, about(SIG_FAILED, 0, "T2"), T0), MJ_OK);
    CHECK_INT(t.state, MJ_FAILED);
}

TEST("a submission that is answered with the id of another one may have been accepted: ambiguous, and never sent again")
{
    for (int foreign = 0; foreign < 2; foreign++) {
        mj_task t = TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED, SIG_FAILED, SIG_RESUBMIT, SIG_CLAIM);
        mj_signal sig = about(SIG_ACCEPTED, 2, foreign ? "theirs" : "T1");
        sig.foreign_id = foreign;
        CHECK_INT(give(&t, sig, T0), MJ_OK);
        CHECK_INT(t.state, MJ_AMBIGUOUS);
        CHECK_INT(last_step.event, MJ_EVENT_AMBIGUOUS);
        CHECK_INT(t.attempts[1].nids, 0);
        CHECK(t.attempts[1].slot);
        CHECK_INT(last_entry(&t)->result, MJ_RESULT_CONFLICT);
        CHECK(mj_str_eq(t.error_code, str("conflict")));
    }
}

TEST("an acceptance or a status without any id is invalid: there would be nothing to ask about")
{
    const mj_signal_kind kinds[] = {SIG_ACCEPTED, SIG_RUNNING, SIG_HINT, SIG_SUCCEEDED, SIG_FAILED};

    for (int i = 0; i < 5; i++) {
        mj_task t = TASK_AFTER(SIG_CLAIM);
        CHECK_INT(give(&t, about(kinds[i], 1, ""), T0), MJ_EINVAL);
        CHECK_INT(t.state, MJ_SUBMITTING);
    }
}

/* ---- late words ---- */

TEST("a late definite refusal takes ambiguous back to queued and elsewhere is timeline only")
{
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT);
    mj_signal sig = signal_of(SIG_REFUSED);

    sig.error_code = str("concurrency");
    sig.wait_ms = 10 * SECOND;
    CHECK_INT(give(&t, sig, T0), MJ_OK);
    CHECK_INT(t.state, MJ_QUEUED);
    CHECK(!t.attempts[0].slot);
    CHECK(!t.ready);
    CHECK_INT(t.due_at, T0 + 10 * SECOND);
    CHECK(mj_str_eq(t.error_code, str("concurrency")));
    t = pending_task();
    CHECK_INT(give(&t, sig, T0), MJ_ESTALE);
    CHECK_INT(t.state, MJ_PENDING);
    CHECK_INT(t.attempts[0].status, MJ_ATTEMPT_ACCEPTED);
    CHECK(t.attempts[0].slot);
    CHECK_INT(last_entry(&t)->result, MJ_RESULT_STALE);
}

TEST("status 0 moves no task back, except lost to pending")
{
    const mj_signal_kind ends[] = {SIG_SUCCEEDED, SIG_FAILED, SIG_CANCEL};

    for (int i = 0; i < 3; i++) {
        mj_task t = TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED);
        mj_state before;
        say(&t, ends[i], T0);
        before = t.state;
        say(&t, SIG_RUNNING, T0);
        give(&t, polled(SIG_RUNNING), T0);
        CHECK_INT(t.state, before);
    }
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT, SIG_GIVE_UP);
    CHECK_INT(say(&t, SIG_RUNNING, T0), MJ_OK);
    CHECK_INT(t.state, MJ_PENDING);
    CHECK_INT(t.finished_at, 0);
    CHECK(t.due_at > T0);
    CHECK_INT(t.error.n, 0);
}

TEST("what comes after lost is late, also by way of pending; and so is what overrules our failure")
{
    const mj_signal_kind words[] = {SIG_SUCCEEDED, SIG_FAILED};

    for (int i = 0; i < 2; i++)
        for (int by_way = 0; by_way < 2; by_way++) {
            mj_task t = TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT, SIG_GIVE_UP);
            if (by_way)
                say(&t, SIG_RUNNING, T0);
            CHECK_INT(say(&t, words[i], T0), MJ_OK);
            CHECK(last_step.event != MJ_EVENT_NONE);
            CHECK(t.late);
        }
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_REJECTED);
    CHECK(t.decided);
    CHECK_INT(say(&t, SIG_SUCCEEDED, T0), MJ_OK);
    CHECK(t.late && !t.decided);
    t = TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED, SIG_SUCCEEDED);
    CHECK(!t.late);
}

TEST("our failure becomes the provider's with its reason, and without a second event")
{
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_REJECTED);

    CHECK_INT(say(&t, SIG_FAILED, T0), MJ_OK);
    CHECK_INT(last_step.event, MJ_EVENT_NONE);
    CHECK(mj_str_eq(t.error, str("banned words")));
    CHECK(!t.decided);
    CHECK_INT(say(&t, SIG_SUCCEEDED, T0), MJ_ESTALE); /* now it is the provider's word, and the first */
    CHECK_INT(t.state, MJ_FAILED);
}

TEST("a later message of the same status fills empty fields, overwrites none and makes no event")
{
    mj_task t = pending_task();
    mj_signal sig = signal_of(SIG_SUCCEEDED);

    CHECK_INT(give(&t, sig, T0), MJ_OK);
    sig.image = str("https://cdn/other.png");
    sig.nimages = 2;
    sig.images[0] = str("https://cdn/0.png");
    sig.images[1] = str("https://cdn/1.png");
    sig.mj_prompt = str("as run");
    sig.meta = str("{}");
    CHECK_INT(give(&t, sig, T0), MJ_EDUPLICATE);
    CHECK_INT(last_step.event, MJ_EVENT_NONE);
    CHECK(last_step.changed);
    CHECK(mj_str_eq(t.image, str("https://cdn/grid.png")));
    CHECK_INT(t.nimages, 2);
    CHECK(mj_str_eq(t.mj_prompt, str("as run")));
    CHECK(mj_str_eq(t.meta, str("{}")));
}

/* ---- slots ---- */

TEST("a slot is held from the intent until refusal, final status or its time is over")
{
    mj_task t = new_task();

    CHECK(!t.attempts[0].slot);
    say(&t, SIG_CLAIM, T0);
    CHECK(t.attempts[0].slot);
    CHECK_INT(t.attempts[0].submitted_at, T0);
    CHECK_INT(t.attempts[0].slot_until, T0 + SLOT_MS);
    say(&t, SIG_MAYBE_SENT, T0);
    say(&t, SIG_GIVE_UP, T0);
    CHECK(t.attempts[0].slot); /* whatever the task's state */
    CHECK_INT(say(&t, SIG_SLOT_END, T0 + SLOT_MS - 1), MJ_ESTALE);
    CHECK(!last_step.changed);
    CHECK_INT(say(&t, SIG_SLOT_END, T0 + SLOT_MS), MJ_OK);
    CHECK(!t.attempts[0].slot);
    CHECK_INT(t.state, MJ_LOST);
}

TEST("a resubmitted task holds the old attempt's slot beside the new one's until each ends")
{
    mj_task t = second_attempt();
    mj_signal end = signal_of(SIG_SLOT_END);

    CHECK(t.attempts[0].slot && t.attempts[1].slot);
    end.attempt = 1;
    CHECK_INT(give(&t, end, T0 + SLOT_MS), MJ_OK);
    CHECK(!t.attempts[0].slot && t.attempts[1].slot);
}

TEST("a cancelled task is polled until its slot ends, and no longer")
{
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED, SIG_CANCEL);

    CHECK_INT(mj_state_due(&t), MJ_DUE_POLL);
    CHECK(t.due_at > T0);
    give(&t, polled(SIG_RUNNING), T0 + MINUTE);
    CHECK(t.due_at > T0 + MINUTE);
    say(&t, SIG_UNANSWERED, T0 + 2 * MINUTE);
    CHECK(t.due_at > T0 + 2 * MINUTE);
    say(&t, SIG_SLOT_END, T0 + SLOT_MS);
    CHECK_INT(t.due_at, 0);
    CHECK_INT(mj_state_due(&t), MJ_DUE_NONE);
    say(&t, SIG_LOOK, T0 + SLOT_MS + SECOND);
    CHECK_INT(t.due_at, 0);

    t = TASK_AFTER(SIG_CLAIM, SIG_CANCEL); /* in the air: what is accepted is polled */
    CHECK_INT(t.due_at, 0);
    say(&t, SIG_ACCEPTED, T0);
    CHECK(t.due_at > T0);
    t = TASK_AFTER(SIG_CLAIM, SIG_CANCEL);
    say(&t, SIG_RUNNING, T0); /* by callback */
    CHECK(t.due_at > T0);
    give(&t, polled(SIG_SUCCEEDED), T0 + MINUTE);
    CHECK_INT(t.due_at, 0);
    CHECK_INT(t.state, MJ_CANCELLED);
    CHECK_INT(last_step.event, MJ_EVENT_NONE);
    CHECK(mj_str_eq(t.image, str("https://cdn/grid.png")));
}

TEST("cancelling what was never sent leaves nothing to do")
{
    mj_task t = TASK_AFTER(SIG_CANCEL);

    CHECK_INT(t.due_at, 0);
    CHECK(!t.ready);
    CHECK_INT(t.source, MJ_FROM_USER);
}

TEST("a job that the provider has holds a slot again, although we took it as refused")
{
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_REFUSED);

    CHECK_INT(say(&t, SIG_RUNNING, T0 + SECOND), MJ_OK);
    CHECK_INT(t.state, MJ_PENDING);
    CHECK(t.attempts[0].slot);
    CHECK_INT(t.attempts[0].slot_until, T0 + SLOT_MS);
}
