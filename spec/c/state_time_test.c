/* PRODUCT.md, Edges and Configuration: what concerns time, counts and limits. */
#include "state_help.h"

enum { HOUR = 60 * MINUTE, LOOK_GAP = 10 * SECOND };

static void set_ref(mj_task *t, uint32_t n)
{
    for (int i = 0; i < 4; i++)
        t->ref[12 + i] = (uint8_t)(n >> (8 * i));
}

/* ---- hints ---- */

TEST("success without an image is polled, and believed as it is after three polled answers")
{
    mj_task t = pending_task();

    for (int i = 0; i < 5; i++) { /* callbacks alone prove nothing */
        CHECK_INT(say(&t, SIG_HINT, T0 + i), MJ_OK);
        CHECK_INT(t.state, MJ_PENDING);
        CHECK(t.due_at <= T0 + i + LOOK_GAP);
    }
    CHECK_INT(give(&t, polled(SIG_HINT), T0 + MINUTE), MJ_OK);
    CHECK_INT(t.due_at, T0 + MINUTE + LOOK_GAP);
    CHECK_INT(give(&t, polled(SIG_HINT), T0 + 2 * MINUTE), MJ_OK);
    CHECK_INT(t.state, MJ_PENDING);
    CHECK_INT(give(&t, polled(SIG_HINT), T0 + 3 * MINUTE), MJ_OK);
    CHECK_INT(t.state, MJ_SUCCEEDED);
    CHECK_INT(last_step.event, MJ_EVENT_SUCCEEDED);
    CHECK_INT(t.image.n, 0);
    CHECK(!t.attempts[0].slot);
    CHECK_INT(t.attempts[0].status, MJ_ATTEMPT_SUCCEEDED);
    CHECK_INT(say(&t, SIG_SUCCEEDED, T0 + 4 * MINUTE), MJ_EDUPLICATE); /* the image comes after all */
    CHECK(t.image.n > 0);
}

TEST("hints free the slot of a cancelled task and overrule a failure of ours, when they are believed")
{
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED, SIG_CANCEL);

    for (int i = 1; i <= 3; i++)
        give(&t, polled(SIG_HINT), T0 + i * MINUTE);
    CHECK_INT(t.state, MJ_CANCELLED);
    CHECK(!t.attempts[0].slot);
    CHECK_INT(t.due_at, 0);
    t = TASK_AFTER(SIG_CLAIM, SIG_REJECTED, SIG_HINT);
    for (int i = 1; i <= 3; i++) {
        CHECK(t.due_at != 0);
        give(&t, polled(SIG_HINT), T0 + i * MINUTE);
    }
    CHECK_INT(t.state, MJ_SUCCEEDED);
    CHECK(t.late);
}

/* ---- looking soon ---- */

TEST("hints to look make at most one poll in ten seconds, and none that changes nothing is written")
{
    mj_task t = pending_task();

    CHECK_INT(say(&t, SIG_LOOK, T0 + SECOND), MJ_OK);
    CHECK_INT(t.due_at, T0 + SECOND);
    for (int i = 2; i < 100; i++) {
        CHECK_INT(say(&t, SIG_LOOK, T0 + i * SECOND), MJ_EDUPLICATE);
        CHECK(!last_step.changed);
    }
    give(&t, polled(SIG_RUNNING), T0 + MINUTE);
    CHECK_INT(say(&t, SIG_LOOK, T0 + MINUTE + SECOND), MJ_OK);
    CHECK_INT(t.due_at, T0 + MINUTE + LOOK_GAP);
    CHECK_INT(say(&t, SIG_LOOK, T0 + MINUTE + 2 * SECOND), MJ_EDUPLICATE);
}

TEST("after a callback that was not confirmed yet polls come after ten seconds, and then after as long again as has "
     "passed")
{
    mj_task t = pending_task();
    int64_t at = T0 + HOUR, wait = 0;

    for (int i = 0; i < 6; i++)
        give(&t, polled(SIG_RUNNING), T0 + HOUR / 2);
    t.due_at = at - SECOND; /* a poll was due anyway */
    CHECK_INT(say(&t, SIG_LOOK, at), MJ_EDUPLICATE);
    CHECK(last_step.changed);
    CHECK_INT(say(&t, SIG_LOOK, at + SECOND), MJ_EDUPLICATE);
    CHECK(!last_step.changed);
    at += 2 * SECOND;
    for (int i = 0; i < 12; i++) {
        give(&t, polled(i == 3 ? SIG_UNANSWERED : SIG_RUNNING), at);
        CHECK(t.due_at - at >= LOOK_GAP / 2 && t.due_at - at <= mj_rules_default.poll_max_ms * 12 / 10);
        CHECK(i > 0 || t.due_at - at <= LOOK_GAP * 12 / 10);
        CHECK(i > 8 || i == 3 || t.due_at - at > wait);
        wait = t.due_at - at;
        at = t.due_at;
    }
    CHECK(wait >= mj_rules_default.poll_max_ms * 8 / 10); /* as without it */
}

TEST("a flood of hints makes no flood of polls of a lost, failed or cancelled task, nor while the provider does not "
     "answer")
{
    mj_task starts[] = {TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT, SIG_GIVE_UP), TASK_AFTER(SIG_CLAIM, SIG_REJECTED),
                        TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED, SIG_CANCEL), pending_task()};

    for (int i = 0; i < 4; i++)
        for (int answered = 0; answered < 2; answered++) {
            mj_task t = starts[i];
            int polls = 0;
            for (int64_t at = T0 + SECOND; at < T0 + 101 * SECOND; at += 100) {
                say(&t, SIG_LOOK, at);
                if (t.due_at != 0 && t.due_at <= at) {
                    say(&t, answered ? SIG_ABSENT : SIG_UNANSWERED, at);
                    polls++;
                }
            }
            CHECK(polls >= 9 && polls <= 11);
        }
}

TEST("a hint about a lost task is not forgotten while the provider is down, and is done with once it answered")
{
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT, SIG_GIVE_UP, SIG_LOOK);
    mj_signal at_once = signal_of(SIG_UNANSWERED);

    CHECK_INT(t.due_at, T0);
    say(&t, SIG_UNANSWERED, T0 + MINUTE);
    CHECK(t.due_at > T0 + MINUTE);
    at_once.wait_ms = 0;
    give(&t, at_once, T0 + HOUR);
    CHECK_INT(t.due_at, T0 + HOUR);
    say(&t, SIG_ABSENT, T0 + HOUR);
    CHECK_INT(t.due_at, 0);
    CHECK_INT(t.state, MJ_LOST);
}

TEST("no answer to a poll leaves a final task due for ever")
{
    const mj_signal_kind answers[] = {SIG_RUNNING, SIG_SUCCEEDED, SIG_FAILED, SIG_ABSENT};

    for (int i = 0; i < 4; i++) {
        mj_task t = TASK_AFTER(SIG_CLAIM, SIG_REJECTED, SIG_LOOK);
        CHECK(t.due_at != 0);
        give(&t, polled(answers[i]), T0 + MINUTE);
        CHECK_INT(t.due_at, 0);
    }
}

TEST("a look without an id has nothing to ask about and is not written")
{
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT), before = t;
    mj_signal sig = signal_of(SIG_LOOK);

    sig.task_id = str("");
    CHECK_INT(give(&t, sig, T0), MJ_ESTALE);
    CHECK(!last_step.changed);
    check_same_record(&t, &before);
}

/* ---- absence ---- */

TEST("absence counts only after timeout and grace, three times over ten minutes")
{
    mj_task t = pending_task();
    int64_t end = T0 + SLOT_MS;

    for (int64_t at = T0; at < end; at += 10 * SECOND)
        CHECK_INT(say(&t, SIG_ABSENT, at), MJ_OK);
    CHECK_INT(t.absent, 0);
    say(&t, SIG_ABSENT, end);
    say(&t, SIG_ABSENT, end + SECOND);
    say(&t, SIG_ABSENT, end + 2 * SECOND);
    CHECK_INT(t.state, MJ_PENDING); /* three, but not over ten minutes */
    say(&t, SIG_ABSENT, end + 10 * MINUTE - 1);
    CHECK_INT(t.state, MJ_PENDING);
    say(&t, SIG_ABSENT, end + 10 * MINUTE);
    CHECK_INT(t.state, MJ_LOST);
    CHECK_INT(last_step.event, MJ_EVENT_LOST);
    CHECK(mj_str_eq(t.error_code, str("lost")));
    CHECK_INT(t.due_at, 0);
    CHECK_INT(t.finished_at, end + 10 * MINUTE);

    t = pending_task(); /* two over ten minutes are not enough */
    say(&t, SIG_ABSENT, end);
    say(&t, SIG_ABSENT, end + 11 * MINUTE);
    CHECK_INT(t.state, MJ_PENDING);
}

TEST("an absence that does not count, an outage or a sign of life does not lose a task")
{
    mj_task t = pending_task();
    mj_signal foreign = signal_of(SIG_ABSENT);
    int64_t at = T0 + SLOT_MS;

    foreign.counts = false;
    for (int i = 0; i < 20; i++)
        give(&t, foreign, at += 5 * MINUTE);
    for (int i = 0; i < 20; i++)
        say(&t, SIG_UNANSWERED, at += 5 * MINUTE);
    CHECK_INT(t.state, MJ_PENDING);
    for (int i = 0; i < 20; i++) {
        say(&t, SIG_ABSENT, at += 4 * MINUTE);
        say(&t, SIG_ABSENT, at += 4 * MINUTE);
        give(&t, polled(SIG_RUNNING), at += 4 * MINUTE);
    }
    CHECK_INT(t.state, MJ_PENDING);
    CHECK_INT(t.absent, 0);
}

TEST("absences that a clock noted which was ahead do not put the verdict off until its time")
{
    mj_task t = pending_task();
    int64_t end = T0 + SLOT_MS;

    say(&t, SIG_ABSENT, end + 100 * HOUR);
    for (int i = 0; i <= 2; i++) {
        CHECK_INT(t.state, MJ_PENDING);
        say(&t, SIG_ABSENT, end + i * 5 * MINUTE);
    }
    CHECK_INT(t.state, MJ_LOST);
}

/* ---- silence ---- */

TEST("a provider that answers and says nothing for lost_after loses the task, and not before")
{
    mj_task t = pending_task();
    int64_t at = T0;

    give(&t, polled(SIG_RUNNING), at);
    while (at + 15 * MINUTE < T0 + 24 * HOUR) {
        give(&t, polled(SIG_RUNNING), at += 15 * MINUTE);
        CHECK_INT(t.state, MJ_PENDING);
    }
    give(&t, polled(SIG_RUNNING), T0 + 24 * HOUR - 1);
    CHECK_INT(t.state, MJ_PENDING);
    give(&t, polled(SIG_RUNNING), T0 + 24 * HOUR);
    CHECK_INT(t.state, MJ_LOST);
    CHECK(t.error.n > 0);
    CHECK_INT(give(&t, polled(SIG_RUNNING), T0 + 25 * HOUR), MJ_OK); /* a sign of life starts it anew */
    CHECK_INT(t.state, MJ_PENDING);
    CHECK_INT(t.silent_ms, 0);
}

TEST("an outage counts as at most twice the longest poll, and unanswered polls as nothing")
{
    mj_task t = pending_task();
    int64_t at = T0;

    give(&t, polled(SIG_RUNNING), at += MINUTE);
    give(&t, polled(SIG_RUNNING), at += 30 * (int64_t)(24 * HOUR));
    CHECK_INT(t.state, MJ_PENDING);
    CHECK_INT(t.silent_ms, 30 * MINUTE);
    for (int i = 0; i < 3000; i++)
        say(&t, SIG_UNANSWERED, at += 15 * MINUTE);
    CHECK_INT(t.state, MJ_PENDING);
    give(&t, polled(SIG_RUNNING), at += 15 * MINUTE);
    CHECK_INT(t.state, MJ_PENDING);
    CHECK(t.silent_ms <= HOUR);
}

TEST("a clock that steps back adds no silence and makes no task lost")
{
    mj_task t = pending_task();

    give(&t, polled(SIG_RUNNING), T0 + HOUR);
    give(&t, polled(SIG_RUNNING), T0 - 24 * HOUR);
    CHECK_INT(t.silent_ms, 0);
    CHECK(t.due_at < T0);
    CHECK_INT(t.state, MJ_PENDING);
}

/* ---- schedule ---- */

TEST("the first poll is on time, the others double to the longest wait, each give or take a fifth")
{
    const int64_t waits[] = {60, 120, 240, 480, 900, 900, 900};
    int64_t least[7], most[7];

    for (int i = 0; i < 7; i++)
        least[i] = INT64_MAX, most[i] = 0;
    for (uint32_t n = 0; n < 2000; n++) {
        mj_task t = new_task();
        int64_t at = T0;
        set_ref(&t, n);
        say(&t, SIG_CLAIM, at);
        say(&t, SIG_ACCEPTED, at);
        for (int i = 0; i < 7; i++) {
            int64_t wait = t.due_at - at;
            least[i] = wait < least[i] ? wait : least[i];
            most[i] = wait > most[i] ? wait : most[i];
            at = t.due_at;
            give(&t, polled(SIG_RUNNING), at);
        }
        CHECK_INT(t.polls, 7);
    }
    CHECK_INT(least[0], waits[0] * 1000);
    CHECK_INT(most[0], waits[0] * 1000);
    for (int i = 1; i < 7; i++) {
        /* whole seconds, but never beyond a fifth */
        CHECK(least[i] >= waits[i] * 800 && least[i] <= waits[i] * 810 + SECOND);
        CHECK(most[i] <= waits[i] * 1200 && most[i] >= waits[i] * 1190 - SECOND);
    }
}

TEST("the schedule follows from the task alone, and the policy's wait goes before it")
{
    mj_task a = pending_task(), b = pending_task();
    mj_signal sig = polled(SIG_RUNNING);

    CHECK_INT(a.due_at, b.due_at);
    sig.wait_ms = 7 * SECOND;
    give(&a, sig, T0 + MINUTE);
    CHECK_INT(a.due_at, T0 + MINUTE + 7 * SECOND);
    sig.wait_ms = INT64_MAX; /* a hostile Retry-After */
    give(&a, sig, T0 + MINUTE);
    CHECK(a.due_at > T0 && a.due_at < T0 + (int64_t)400 * 24 * HOUR);
}

TEST("what was refused waits n^4 seconds, at most 15 minutes, give or take a tenth")
{
    const int64_t waits[] = {1, 16, 81, 256, 625, 900, 900};

    for (uint32_t n = 0; n < 500; n++) {
        mj_task t = new_task();
        int64_t at = T0;
        set_ref(&t, n);
        for (int i = 0; i < 7; i++) {
            say(&t, SIG_CLAIM, at);
            CHECK_INT(say(&t, i % 2 ? SIG_NOT_SENT : SIG_REFUSED, at), MJ_OK);
            CHECK(!t.ready && t.nattempts == 1);
            CHECK(t.due_at - at >= waits[i] * 900 && t.due_at - at <= waits[i] * 1100);
            CHECK_INT(say(&t, SIG_CLAIM, at), MJ_ESTATE); /* not before its time */
            CHECK_INT(say(&t, SIG_READY, t.due_at - 1), MJ_ESTALE);
            at = t.due_at;
            CHECK_INT(say(&t, SIG_READY, at), MJ_OK);
            CHECK(t.ready);
            CHECK_INT(t.due_at, 0);
        }
    }
}

TEST("a refusal that names its own wait does not make the backoff of the next failure longer")
{
    const mj_signal_kind kinds[] = {SIG_REFUSED, SIG_NOT_SENT};
    mj_task t = new_task();

    for (int i = 0; i < 10; i++) { /* concurrency, quota, rate limit, a wrong key; held back behind a probe */
        mj_signal rests = signal_of(kinds[i % 2]);
        rests.wait_ms = i % 3 * SECOND;
        say(&t, SIG_CLAIM, T0);
        give(&t, rests, T0);
        CHECK_INT(t.due_at, T0 + rests.wait_ms);
        CHECK_INT(t.tries, 0);
        say(&t, SIG_READY, t.due_at);
    }
    for (int i = 1; i <= 2; i++) { /* the backoff counts from the first failure that has none */
        say(&t, SIG_CLAIM, T0);
        say(&t, SIG_NOT_SENT, T0);
        CHECK_INT(t.tries, i);
        CHECK(t.due_at >= T0 + (i == 1 ? 900 : 14400) && t.due_at <= T0 + (i == 1 ? 1100 : 17600));
        say(&t, SIG_READY, t.due_at);
    }
}

TEST("queued longer than `expires` is failed, ready or waiting, and can't be claimed")
{
    for (int waiting = 0; waiting < 2; waiting++) {
        mj_task t = {.timeout = TIMEOUT_S, .prompt = str("a fox"), .expires_at = T0 + MINUTE};
        mj_signal sig = signal_of(SIG_CREATE), refused = signal_of(SIG_REFUSED);
        mj_state_create(&t, &sig, &mj_rules_default, T0);
        CHECK_INT(t.due_at, T0 + MINUTE);
        if (waiting) {
            say(&t, SIG_CLAIM, T0);
            refused.wait_ms = HOUR;
            give(&t, refused, T0);
            CHECK_INT(t.due_at, T0 + MINUTE);
        }
        CHECK_INT(say(&t, SIG_READY, T0 + MINUTE - 1), MJ_ESTALE);
        CHECK_INT(say(&t, SIG_CLAIM, T0 + MINUTE), MJ_ESTATE);
        CHECK_INT(t.state, MJ_QUEUED);
        CHECK_INT(say(&t, SIG_READY, T0 + MINUTE), MJ_OK);
        CHECK_INT(t.state, MJ_FAILED);
        CHECK(mj_str_eq(t.error_code, str("expired")));
        CHECK_INT(last_step.event, MJ_EVENT_FAILED);
        CHECK(t.decided);
    }
}

TEST("an ambiguous task is due for a decision after timeout and grace, and again when told to wait")
{
    mj_task t = TASK_AFTER(SIG_CLAIM, SIG_MAYBE_SENT);
    mj_signal wait = signal_of(SIG_WAIT);

    CHECK_INT(mj_state_due(&t), MJ_DUE_RESOLVE);
    CHECK_INT(t.due_at, T0 + SLOT_MS);
    CHECK_INT(give(&t, wait, T0 + SLOT_MS), MJ_OK);
    CHECK_INT(t.due_at, T0 + SLOT_MS + GRACE);
    wait.wait_ms = HOUR;
    CHECK_INT(give(&t, wait, T0 + SLOT_MS), MJ_OK);
    CHECK_INT(t.due_at, T0 + SLOT_MS + HOUR);
}

TEST("each state is due for its own job")
{
    mj_task t = new_task();

    CHECK_INT(mj_state_due(&t), MJ_DUE_NONE); /* ready: no wait ends */
    say(&t, SIG_CLAIM, T0);
    CHECK_INT(mj_state_due(&t), MJ_DUE_OWNER);
    CHECK(t.has_owner);
    say(&t, SIG_REFUSED, T0);
    CHECK_INT(mj_state_due(&t), MJ_DUE_QUEUE);
    CHECK(!t.has_owner);
    t = pending_task();
    CHECK_INT(mj_state_due(&t), MJ_DUE_POLL);
    say(&t, SIG_SUCCEEDED, T0);
    CHECK_INT(mj_state_due(&t), MJ_DUE_NONE);
}

/* ---- a clock that was ahead and is set right ---- */

enum { AHEAD = HOUR };

/* Rewound to T0; what was stored at T0 + AHEAD. */
static bool rewound(mj_task *t)
{
    return mj_state_rewind(t, &mj_rules_default, T0);
}

TEST("what a clock put off that was ahead is due when it is set right, and told in the timeline")
{
    mj_task pending = new_task(), queued = new_task(), submitting = new_task();

    say(&pending, SIG_CLAIM, T0 + AHEAD);
    submitting = pending;
    say(&pending, SIG_ACCEPTED, T0 + AHEAD);
    say(&queued, SIG_CLAIM, T0 + AHEAD);
    say(&queued, SIG_REFUSED, T0 + AHEAD);
    CHECK(rewound(&pending) && rewound(&queued) && rewound(&submitting));
    CHECK_INT(pending.due_at, T0);
    CHECK_INT(queued.due_at, T0);
    CHECK_INT(submitting.due_at, T0);
    CHECK_INT(pending.state, MJ_PENDING);
    CHECK_INT(pending.updated_at, T0);
    CHECK_INT(last_entry(&pending)->source, MJ_FROM_SWEEP);
    CHECK(last_entry(&pending)->reason.n > 0);
    CHECK(!rewound(&pending) && !rewound(&queued)); /* once is enough */
}

TEST("a slot and an ambiguous task wait as long as they were to, from when the clock is set right")
{
    mj_task t = new_task();
    mj_signal wait = signal_of(SIG_WAIT);

    say(&t, SIG_CLAIM, T0 + AHEAD);
    say(&t, SIG_MAYBE_SENT, T0 + AHEAD + MINUTE);
    CHECK(rewound(&t));
    CHECK_INT(t.attempts[0].submitted_at, T0);
    CHECK_INT(t.attempts[0].slot_until, T0 + SLOT_MS);
    CHECK(t.attempts[0].slot);
    CHECK_INT(t.due_at, T0 + SLOT_MS - MINUTE);
    wait.wait_ms = 10 * MINUTE;
    give(&t, wait, T0 + AHEAD);
    CHECK(rewound(&t));
    CHECK_INT(t.due_at, T0 + 10 * MINUTE);
}

TEST("a job that was to expire does so in its time, and not twice as late")
{
    mj_task t = {.timeout = TIMEOUT_S, .prompt = str("a fox"), .expires_at = T0 + AHEAD + 5 * MINUTE};
    mj_signal sig = signal_of(SIG_CREATE);

    mj_state_create(&t, &sig, &mj_rules_default, T0 + AHEAD);
    CHECK(rewound(&t));
    CHECK_INT(t.expires_at, T0 + 5 * MINUTE);
    CHECK_INT(t.due_at, T0 + 5 * MINUTE);
    CHECK(t.ready);
    CHECK(!mj_state_rewind(&t, &mj_rules_default, T0 + MINUTE));
    CHECK_INT(t.expires_at, T0 + 5 * MINUTE);
}

TEST("what a clock stored that was right, or ahead by no more than a minute, stays as it is")
{
    const int64_t ahead[] = {0, SECOND, MINUTE};

    for (int i = 0; i < 3; i++) {
        mj_task t = new_task(), before;
        say(&t, SIG_CLAIM, T0 + ahead[i]);
        say(&t, SIG_ACCEPTED, T0 + ahead[i]);
        before = t;
        CHECK(!rewound(&t));
        check_same_record(&t, &before);
    }
}

/* ---- limits of resubmission ---- */

TEST("only ambiguous, lost and failed are resubmitted, at most to the limit of attempts")
{
    mj_task t = new_task(), before;

    for (int i = 1; i < MJ_MAX_ATTEMPTS; i++) {
        say(&t, SIG_CLAIM, T0);
        say(&t, SIG_MAYBE_SENT, T0);
        CHECK_INT(say(&t, SIG_RESUBMIT, T0), MJ_OK);
        CHECK_INT(t.nattempts, i + 1);
    }
    say(&t, SIG_CLAIM, T0);
    say(&t, SIG_MAYBE_SENT, T0);
    before = t;
    CHECK_INT(say(&t, SIG_RESUBMIT, T0), MJ_ELIMIT);
    check_same_record(&t, &before);
}

TEST("an adopted task is pending at once, learns its prompt, and without one is not resubmitted")
{
    mj_task t = {.timeout = TIMEOUT_S};
    mj_signal sig = signal_of(SIG_CREATE);

    sig.task_id = str("T1");
    sig.account = str("main");
    mj_state_create(&t, &sig, &mj_rules_default, T0);
    CHECK_INT(t.state, MJ_PENDING);
    CHECK(t.adopted && t.attempts[0].slot && t.due_at > T0);
    CHECK_INT(say(&t, SIG_FAILED, T0), MJ_OK);
    CHECK_INT(say(&t, SIG_RESUBMIT, T0), MJ_ESTATE);
    sig = signal_of(SIG_FAILED);
    sig.mj_prompt = str("a fox");
    CHECK_INT(give(&t, sig, T0), MJ_EDUPLICATE);
    CHECK(mj_str_eq(t.prompt, str("a fox")));
    CHECK_INT(say(&t, SIG_RESUBMIT, T0), MJ_OK);
}
