/* What is remembered of how things go, and what follows from it. */
#include "base/error.h"
#include "domain/counters.h"
#include "state_help.h"

static mj_rules learning(void)
{
    mj_rules r = mj_rules_default;

    r.adapt = true;
    return r;
}

/* A task of this mode that was submitted at `sent` and ends at `at`. */
static void end_by(mj_counters *m, mj_source source, mj_mode mode, int64_t sent, int64_t at)
{
    mj_task t = pending_task();
    mj_before before;
    mj_effect effect;
    mj_signal sig = signal_of(SIG_SUCCEEDED);
    int rc;

    t.mode = mode;
    t.attempts[0].submitted_at = sent;
    before = (mj_before){t.state, t.called_at};
    sig.source = source;
    rc = mj_state_apply(&t, &sig, &mj_rules_default, at, &effect);
    CHECK_INT(rc, MJ_OK);
    mj_counters_signal(m, before, &t, &sig, rc, &effect, at);
}

static void ends(mj_counters *m, int n, mj_source source, int64_t at)
{
    for (int i = 0; i < n; i++)
        end_by(m, source, MJ_FAST, at - 20 * SECOND, at);
}

static uint64_t sum(const mj_histogram *h)
{
    uint64_t n = 0;

    for (int i = 0; i < MJ_NBUCKETS; i++)
        n += h->bucket[i];
    return n;
}

TEST("a callback is late after the 95th percentile of its mode, once there were enough of them")
{
    mj_judged j = {0};
    mj_counters m = {0};
    mj_rules given = learning(), r;

    for (int i = 0; i < 31; i++)
        end_by(&m, MJ_FROM_CALLBACK, MJ_FAST, T0, T0 + 22 * SECOND);
    r = mj_counters_rules(&m, &j, &given);
    CHECK_INT(r.first_ms[MJ_FAST], 0);
    end_by(&m, MJ_FROM_CALLBACK, MJ_FAST, T0, T0 + 22 * SECOND);
    r = mj_counters_rules(&m, &j, &given);
    CHECK_INT(r.first_ms[MJ_FAST], 25 * SECOND); /* the bound of its bucket */
    CHECK_INT(r.first_ms[MJ_RELAXED], 0);
    CHECK_INT(r.poll_first_ms, given.poll_first_ms);
    for (int i = 0; i < 3; i++) /* 3 of 35 are 8.6 % */
        end_by(&m, MJ_FROM_CALLBACK, MJ_FAST, T0, T0 + 200 * SECOND);
    r = mj_counters_rules(&m, &j, &given);
    CHECK_INT(r.first_ms[MJ_FAST], 240 * SECOND);
}

TEST("what is learned is within reason, and nothing is when that is not wanted")
{
    mj_judged j = {0};
    mj_counters m = {0};
    mj_rules given = learning();

    for (int i = 0; i < 40; i++) {
        end_by(&m, MJ_FROM_CALLBACK, MJ_FAST, T0, T0 + SECOND / 2);
        end_by(&m, MJ_FROM_CALLBACK, MJ_RELAXED, T0, T0 + 7200 * SECOND);
    }
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_FAST], 5 * SECOND);
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_RELAXED], given.poll_max_ms);
    given.adapt = false;
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_FAST], 0);
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_RELAXED], 0);
}

TEST("old latencies fade, those for people are kept")
{
    mj_judged j = {0};
    mj_counters m = {0};
    mj_rules given = learning();

    for (int i = 0; i < 5000; i++)
        end_by(&m, MJ_FROM_CALLBACK, MJ_FAST, T0, T0 + 200 * SECOND);
    CHECK_INT(mj_counters_reconciled(&m, &j, false, 0, T0), MJ_VERDICT_SAME);
    CHECK(sum(&m.calls[MJ_FAST]) - sum(&j.faded[MJ_FAST]) < 2048);
    CHECK_INT(sum(&m.ends[MJ_FAST]), 5000);
    CHECK_INT(m.ends[MJ_FAST].sum_ms, 5000 * 200 * SECOND);
    for (int i = 0; i < 12000; i++) {
        end_by(&m, MJ_FROM_CALLBACK, MJ_FAST, T0, T0 + 9 * SECOND);
        if (i % 1000 == 0)
            mj_counters_reconciled(&m, &j, false, 0, T0);
    }
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_FAST], 10 * SECOND);
}

TEST("the learned wait is the first one of a task, and is doubled from there")
{
    mj_rules r = learning();
    mj_task t;
    mj_effect effect;
    mj_signal sig = signal_of(SIG_ACCEPTED);

    r.first_ms[MJ_FAST] = 25 * SECOND;
    t = TASK_AFTER(SIG_CLAIM);
    CHECK_INT(mj_state_apply(&t, &sig, &r, T0, &effect), MJ_OK);
    CHECK_INT(t.due_at, T0 + 25 * SECOND);
    sig = signal_of(SIG_RUNNING);
    sig.source = MJ_FROM_POLL;
    CHECK_INT(mj_state_apply(&t, &sig, &r, T0 + 25 * SECOND, &effect), MJ_OK);
    CHECK(t.due_at >= T0 + (25 + 40) * SECOND && t.due_at <= T0 + (25 + 60) * SECOND);
}

TEST("without callbacks the first poll comes when the first tenth of the jobs was done, by mode")
{
    mj_counters m = {0};
    mj_judged j = {0};
    mj_rules given = learning();

    given.polled = true;
    for (int i = 0; i < 31; i++)
        end_by(&m, MJ_FROM_POLL, MJ_FAST, T0, T0 + 45 * SECOND);
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_FAST], 0); /* too few to say */
    for (int i = 0; i < 3; i++)
        end_by(&m, MJ_FROM_POLL, MJ_FAST, T0, T0 + 45 * SECOND);
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_FAST], 40 * SECOND); /* a poll found them done after that */
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_RELAXED], 0);
    for (int i = 0; i < 4; i++)
        end_by(&m, MJ_FROM_POLL, MJ_FAST, T0, T0 + 22 * SECOND);
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_FAST], 20 * SECOND);
    for (int i = 0; i < 40; i++)
        end_by(&m, MJ_FROM_POLL, MJ_FAST, T0, T0 + SECOND / 2);
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_FAST], 5 * SECOND); /* no sooner */
    given.adapt = false;
    CHECK_INT(mj_counters_rules(&m, &j, &given).first_ms[MJ_FAST], 0);
}

TEST("without callbacks a job's end is learned of at most a third later than it came, with few polls")
{
    for (int64_t seconds = 10; seconds <= 600; seconds += 59) {
        mj_rules r = learning();
        mj_task t = TASK_AFTER(SIG_CLAIM);
        mj_effect effect;
        mj_signal sig = signal_of(SIG_ACCEPTED);
        int polls = 0;
        int64_t now;

        r.polled = true;
        r.poll_first_ms = 15 * SECOND;
        t.attempts[0].submitted_at = T0;
        CHECK_INT(mj_state_apply(&t, &sig, &r, T0, &effect), MJ_OK);
        CHECK_INT(t.due_at, T0 + 15 * SECOND);
        sig = signal_of(SIG_RUNNING);
        sig.source = MJ_FROM_POLL;
        for (now = t.due_at; now < T0 + seconds * SECOND; now = t.due_at, polls++)
            CHECK_INT(mj_state_apply(&t, &sig, &r, now, &effect), MJ_OK);
        CHECK(now <= T0 + (seconds * 4 / 3 + 8) * SECOND);
        CHECK(polls <= 24);
    }
}

TEST("webhooks are called broken when most tasks of the last hours ended without a callback")
{
    mj_judged j = {0};
    mj_counters m = {0};

    ends(&m, 9, MJ_FROM_POLL, T0);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 5, T0), MJ_VERDICT_SAME); /* too few to tell */
    ends(&m, 1, MJ_FROM_POLL, T0);
    CHECK_INT(mj_counters_reconciled(&m, &j, false, 5, T0), MJ_VERDICT_SAME); /* there is no webhook */
    CHECK_INT(j.broken_since, 0);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 5, T0), MJ_VERDICT_BROKEN);
    CHECK_INT(j.broken_since, T0);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 5, T0), MJ_VERDICT_SAME); /* said once */
    CHECK_INT(j.reconciled_at, T0);
    CHECK_INT(j.reconcile_ms, 5);
}

TEST("half of them with a callback, or a bad hour long ago, is no broken webhook")
{
    mj_judged j = {0};
    mj_counters m = {0};

    ends(&m, 10, MJ_FROM_POLL, T0);
    ends(&m, 10, MJ_FROM_CALLBACK, T0);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 0, T0), MJ_VERDICT_SAME);
    ends(&m, 1, MJ_FROM_POLL, T0);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 0, T0 + 3 * 60 * MINUTE), MJ_VERDICT_SAME);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 0, T0), MJ_VERDICT_BROKEN);
}

TEST("a callback that comes after polling was faster counts as one that came")
{
    mj_counters m = {0};
    mj_task t = pending_task();
    mj_signal sig = signal_of(SIG_SUCCEEDED);
    mj_before before = {t.state, 0};
    mj_effect effect;
    uint32_t ended, called;
    int rc;

    sig.source = MJ_FROM_POLL;
    rc = mj_state_apply(&t, &sig, &mj_rules_default, T0 + MINUTE, &effect);
    mj_counters_signal(&m, before, &t, &sig, rc, &effect, T0 + MINUTE);
    mj_counters_recent(&m, T0 + MINUTE, &ended, &called);
    CHECK_INT(ended, 1);
    CHECK_INT(called, 0);
    for (int i = 0; i < 3; i++) { /* the second and third are duplicates */
        before = (mj_before){t.state, t.called_at};
        sig.source = MJ_FROM_CALLBACK;
        rc = mj_state_apply(&t, &sig, &mj_rules_default, T0 + 2 * MINUTE, &effect);
        CHECK_INT(rc, MJ_EDUPLICATE);
        mj_counters_signal(&m, before, &t, &sig, rc, &effect, T0 + 2 * MINUTE);
    }
    mj_counters_recent(&m, T0 + 2 * MINUTE, &ended, &called);
    CHECK_INT(ended, 1);
    CHECK_INT(called, 1);
    CHECK_INT(m.counts[MJ_CALLBACK_DUPLICATE], 3);
    CHECK_INT(m.counts[MJ_ENDED_POLL], 1);
}

TEST("while webhooks are broken polls come sooner, and a few callbacks mend them")
{
    mj_judged j = {0};
    mj_counters m = {0};
    mj_rules given = learning(), r;

    ends(&m, 40, MJ_FROM_POLL, T0);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 0, T0), MJ_VERDICT_BROKEN);
    r = mj_counters_rules(&m, &j, &given);
    CHECK_INT(r.poll_first_ms, given.poll_first_ms / 2);
    CHECK_INT(r.poll_max_ms, 2 * MINUTE);
    ends(&m, 40, MJ_FROM_POLL, T0); /* still broken; judged, and forgotten */
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 0, T0), MJ_VERDICT_SAME);
    ends(&m, 4, MJ_FROM_CALLBACK, T0);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 0, T0), MJ_VERDICT_SAME);
    ends(&m, 1, MJ_FROM_CALLBACK, T0);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 0, T0), MJ_VERDICT_MENDED);
    CHECK_INT(j.broken_since, 0);
    r = mj_counters_rules(&m, &j, &given);
    CHECK_INT(r.poll_max_ms, given.poll_max_ms);
    /* The bad tasks of this hour are not held against it a second time; new ones are. */
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 0, T0 + 1), MJ_VERDICT_SAME);
    ends(&m, 30, MJ_FROM_POLL, T0 + 1);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 0, T0 + 1), MJ_VERDICT_BROKEN);
}

TEST("tasks that were submitted elsewhere say nothing of our webhook")
{
    mj_counters m = {0};
    mj_task t = {.timeout = TIMEOUT_S};
    mj_signal sig = signal_of(SIG_CREATE);
    mj_effect effect;
    uint32_t ended, called;

    sig.task_id = str("T1");
    mj_state_create(&t, &sig, &mj_rules_default, T0);
    sig = signal_of(SIG_SUCCEEDED);
    sig.source = MJ_FROM_POLL;
    CHECK_INT(mj_state_apply(&t, &sig, &mj_rules_default, T0, &effect), MJ_OK);
    mj_counters_signal(&m, (mj_before){MJ_PENDING, 0}, &t, &sig, MJ_OK, &effect, T0);
    mj_counters_recent(&m, T0, &ended, &called);
    CHECK_INT(ended, 0);
    CHECK_INT(m.counts[MJ_ENDED_POLL], 1);
}

TEST("a signal about an attempt that never was is counted and nothing else")
{
    mj_counters m = {0};
    mj_task t = pending_task();
    mj_signal sig = signal_of(SIG_SUCCEEDED);
    mj_effect effect;
    int rc;

    sig.source = MJ_FROM_CALLBACK;
    sig.attempt = 4000000000u;
    rc = mj_state_apply(&t, &sig, &mj_rules_default, T0, &effect);
    CHECK_INT(rc, MJ_EINVAL);
    mj_counters_signal(&m, (mj_before){t.state, 0}, &t, &sig, rc, &effect, T0);
    CHECK_INT(m.counts[MJ_CALLBACK_STALE], 1);
    CHECK_INT(sum(&m.ends[MJ_FAST]), 0);
}

static int read_measures(const mj_buf *b, size_t n, mj_counters *got)
{
    mj_reader r = mj_reader_of(b->p, n);

    mj_counters_read(&r, got);
    return r.bad || r.p != r.end ? MJ_ECORRUPT : MJ_OK;
}

TEST("counters and the conclusions survive being written; half a record and rubbish are refused")
{
    mj_judged j = {0}, judged;
    mj_counters m = {0}, got;
    mj_buf b = {0};
    uint8_t rubbish[400];

    ends(&m, 7, MJ_FROM_CALLBACK, T0);
    ends(&m, 5000, MJ_FROM_POLL, T0);
    CHECK_INT(mj_counters_reconciled(&m, &j, true, 77, T0), MJ_VERDICT_BROKEN);
    CHECK_INT(mj_counters_encode(&m, &b), MJ_OK);
    CHECK_INT(read_measures(&b, b.n, &got), MJ_OK);
    CHECK_MEM(&m, &got, sizeof m);
    for (size_t n = 0; n < b.n; n++)
        CHECK(read_measures(&b, n, &got) != MJ_OK);
    b.n = 0;
    CHECK_INT(mj_judged_encode(&j, &b), MJ_OK);
    CHECK_INT(mj_judged_decode((mj_str){(char *)b.p, (uint32_t)b.n}, &judged), MJ_OK);
    CHECK_MEM(&j, &judged, sizeof j);
    for (size_t n = 0; n < b.n; n++)
        CHECK(mj_judged_decode((mj_str){(char *)b.p, (uint32_t)n}, &judged) != MJ_OK);
    memset(rubbish, 0xff, sizeof rubbish);
    CHECK(mj_judged_decode((mj_str){(char *)rubbish, sizeof rubbish}, &judged) != MJ_OK);
    CHECK(mj_counters_decode_v1((mj_str){(char *)rubbish, sizeof rubbish}, &got, &judged) != MJ_OK);
    b.n = 0;
    mj_put_raw(&b, rubbish, sizeof rubbish);
    CHECK(read_measures(&b, b.n, &got) != MJ_OK);
    mj_buf_free(&b);
}

TEST("counters of several writers add up to those of one, also over the hours")
{
    mj_counters whole = {0}, parts = {0};

    for (int hour = 0; hour < 30; hour++)
        for (int writer = 0; writer < 3; writer++) {
            mj_counters part = {0};
            int64_t at = T0 + hour * 60 * MINUTE;
            ends(&whole, 1 + writer, writer ? MJ_FROM_POLL : MJ_FROM_CALLBACK, at);
            ends(&part, 1 + writer, writer ? MJ_FROM_POLL : MJ_FROM_CALLBACK, at);
            mj_counters_add(&parts, &part, false, at);
        }
    CHECK_MEM(&whole, &parts, sizeof whole);
}

TEST("a clock that was set back takes along the hours and the answer that lie ahead of it")
{
    mj_counters all = {0}, add = {0};
    uint32_t ended, called;

    ends(&all, 5, MJ_FROM_POLL, T0 + 60 * MINUTE);
    ends(&add, 3, MJ_FROM_POLL, T0);
    mj_counters_add(&all, &add, true, T0);
    mj_counters_recent(&all, T0 + 60 * MINUTE, &ended, &called);
    CHECK_INT(ended, 3);
    CHECK_INT(all.answered_at, T0);
    CHECK_INT(all.counts[MJ_ENDED_POLL], 8);
}

TEST("the record of the first versions is read: sums, and what was made of them")
{
    mj_counters m = {0}, got;
    mj_judged judged;
    mj_buf b = {0};

    mj_put_u8(&b, 1);
    mj_put_u8(&b, 2); /* of the counts, as many as it knew */
    mj_put_uint(&b, 7);
    mj_put_uint(&b, 9);
    for (int i = 0; i < 2 * MJ_NMODES; i++) {
        mj_put_u8(&b, 1);
        mj_put_uint(&b, 40u + (unsigned)i);
        mj_put_uint(&b, 1000);
    }
    for (int i = 0; i < MJ_NHOURS; i++) {
        mj_put_int(&b, i);
        mj_put_uint(&b, 3);
        mj_put_uint(&b, 2);
    }
    mj_put_int(&b, T0 - 5);
    mj_put_uint(&b, 11);
    mj_put_uint(&b, 4);
    mj_put_int(&b, T0 - 4);
    mj_put_int(&b, T0 - 3);
    mj_put_int(&b, 77);
    mj_put_int(&b, T0 - 2);
    CHECK_INT(mj_counters_decode_v1((mj_str){(char *)b.p, (uint32_t)b.n}, &got, &judged), MJ_OK);
    m.counts[0] = 7;
    m.counts[1] = 9;
    CHECK_MEM(m.counts, got.counts, sizeof m.counts);
    CHECK_INT(got.ends[0].bucket[0], 40);
    CHECK_INT(got.calls[1].bucket[0], 43);
    CHECK_INT(got.hours[23].called, 2);
    CHECK_INT(got.ended, 11);
    CHECK_INT(got.called, 4);
    CHECK_INT(got.answered_at, T0 - 2);
    CHECK_INT(judged.judged_from, T0 - 5);
    CHECK_INT(judged.broken_since, T0 - 4);
    CHECK_INT(judged.reconciled_at, T0 - 3);
    CHECK_INT(judged.reconcile_ms, 77);
    CHECK_INT(judged.ended, 0);
    for (size_t n = 0; n < b.n; n++)
        CHECK(mj_counters_decode_v1((mj_str){(char *)b.p, (uint32_t)n}, &got, &judged) != MJ_OK);
    mj_buf_free(&b);
}
