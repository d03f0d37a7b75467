/* domain/state.c: a task's timeline, gone along again, gives the task as it was at each entry. */
#include "rng.h"
#include "state_help.h"

enum { HISTORIES = 3000, LENGTH = 40 };

static const char *const ids[] = {"T1", "T2", "T3", "T4"};

/* What happened, by entry. */
typedef struct history {
    mj_task now;
    mj_task before[MJ_MAX_TIMELINE]; /* the task before each entry's first signal ... */
    mj_signal sigs[MJ_MAX_TIMELINE]; /* ... which was this one */
    bool bound[MJ_MAX_TIMELINE];
} history;

static mj_signal random_signal(rng *r, const mj_task *t)
{
    mj_signal sig = signal_of((mj_signal_kind)(1 + below(r, SIG_COUNT - 1)));

    if (t->state == MJ_QUEUED && chance(r, 60))
        sig = signal_of(t->ready ? SIG_CLAIM : SIG_READY);
    if (t->state == MJ_SUBMITTING && chance(r, 50))
        sig = signal_of((mj_signal_kind)(SIG_ACCEPTED + below(r, SIG_OWNER_DEAD - SIG_ACCEPTED + 1)));
    if (sig.task_id.n > 0)
        sig.task_id = str(ids[chance(r, 80) ? (t->nattempts - 1) % 4 : below(r, 4)]);
    sig.has_owner = false;
    if (mj_signal_is_status(sig.kind) && chance(r, 50))
        sig.source = MJ_FROM_POLL;
    if (sig.kind == SIG_FAILED && chance(r, 30))
        sig.error = str("");
    if (sig.kind == SIG_REFUSED && chance(r, 50))
        sig.wait_ms = 5 * SECOND;
    if (sig.kind != SIG_CLAIM && chance(r, 20))
        sig.attempt = 1 + below(r, t->nattempts);
    sig.foreign_id = sig.task_id.n > 0 && chance(r, 3);
    return sig;
}

static unsigned ids_of(const mj_task *t, uint32_t attempt)
{
    return t->attempts[attempt - 1].nids;
}

static void happen(history *h, mj_signal sig, int64_t at)
{
    mj_task before = h->now;
    unsigned n;

    give(&h->now, sig, at);
    n = before.ntimeline;
    if (h->now.ntimeline == n) {
        /* Equal entries become one: what each of them said is lost.  Here they say the same. */
        const mj_signal *first = &h->sigs[n - 1];
        if (sig.kind != first->kind || sig.foreign_id != first->foreign_id || !mj_str_eq(sig.task_id, first->task_id))
            h->now = before;
        return;
    }
    h->before[n] = before;
    h->sigs[n] = sig;
    h->bound[n] = ids_of(&h->now, last_step.attempt) > ids_of(&before, last_step.attempt);
}

/* The signal as its entry tells of it: in the end it may have been another kind, or not believed. */
static mj_signal told(const history *h, unsigned i)
{
    const mj_timeline_entry *m = &h->now.timeline[i];
    mj_signal sig = h->sigs[i];

    if (m->result == MJ_RESULT_CONFLICT && m->signal == SIG_MAYBE_SENT)
        sig.error_code = str("conflict");
    else if (m->signal == SIG_FAILED && sig.error.n == 0)
        sig.error_code = str("provider");
    else if (m->signal == SIG_READY)
        sig.error_code = str("expired");
    if (m->result == MJ_RESULT_CONFLICT && !h->bound[i])
        sig.task_id = str("");
    sig.kind = (mj_signal_kind)m->signal;
    sig.error = m->reason;
    return sig;
}

/* What a timeline does not tell is made equal. */
static mj_task comparable(const mj_task *t)
{
    mj_task c = *t;

    c.ntimeline = c.forgotten = c.absent = c.hints = 0;
    c.due_at = c.absent_since = c.silent_ms = c.asked_at = 0;
    return c;
}

static void random_history(history *h, rng *r)
{
    int64_t now = T0;

    memset(h, 0, sizeof *h);
    h->now = new_task();
    for (int i = 0; i < LENGTH && h->now.ntimeline < MJ_MAX_TIMELINE; i++) {
        now += below(r, chance(r, 50) ? 20 : 400) * SECOND;
        happen(h, random_signal(r, &h->now), now);
    }
}

static mj_task made(const history *h)
{
    mj_signal created = signal_of(SIG_CREATE);
    mj_task t = {.timeout = TIMEOUT_S, .prompt = str("a fox")};

    memcpy(t.ref, h->now.ref, sizeof t.ref);
    mj_state_retrace(&t, &created, &h->now.timeline[0], &mj_rules_default);
    return t;
}

static void retrace(mj_task *t, const history *h, unsigned i)
{
    mj_signal sig = told(h, i);

    mj_state_retrace(t, &sig, &h->now.timeline[i], &mj_rules_default);
}

TEST("a timeline, gone along again, gives the task as it was before each entry and after the last")
{
    static history h;
    rng r = rng_of(17);
    unsigned compared = 0, moved = 0;

    for (int k = 0; k < HISTORIES; k++) {
        mj_task t, is, was;
        random_history(&h, &r);
        t = made(&h);
        for (unsigned i = 1; i < h.now.ntimeline; i++) {
            is = comparable(&t);
            was = comparable(&h.before[i]);
            check_same_record(&is, &was);
            moved += h.now.timeline[i].from != h.now.timeline[i].to;
            retrace(&t, &h, i);
        }
        is = comparable(&t);
        was = comparable(&h.now);
        check_same_record(&is, &was);
        compared += h.now.ntimeline;
    }
    CHECK(compared > HISTORIES * 10);
    CHECK(moved > HISTORIES * 4);
}

TEST("a timeline that has lost entries gives the states and the attempts of those that are left")
{
    static history h;
    rng r = rng_of(18);
    unsigned jumped = 0;

    for (int k = 0; k < HISTORIES; k++) {
        uint32_t attempts = 1;
        mj_task t;
        random_history(&h, &r);
        t = made(&h);
        for (unsigned i = 4 + below(&r, 20); i < h.now.ntimeline; i++) {
            const mj_timeline_entry *m = &h.now.timeline[i];
            jumped += t.state != m->from;
            retrace(&t, &h, i);
            attempts = m->attempt > attempts ? m->attempt : attempts;
            attempts += m->signal == SIG_RESUBMIT && m->from != m->to;
            CHECK_INT(t.state, m->to);
            CHECK_INT(t.nattempts, attempts);
            CHECK_INT(t.updated_at, m->until);
        }
    }
    CHECK(jumped > HISTORIES / 10);
}

TEST("entries that no task can have are gone along without harm")
{
    mj_task t = new_task();
    mj_timeline_entry m = {.at = T0, .count = 0, .attempt = 64, .from = MJ_LOST, .to = MJ_QUEUED};
    mj_signal sig = signal_of(SIG_RESUBMIT);

    for (int i = 0; i < 3 * MJ_MAX_ATTEMPTS; i++)
        mj_state_retrace(&t, &sig, &m, &mj_rules_default);
    CHECK_INT(t.nattempts, MJ_MAX_ATTEMPTS);
    m.attempt = 0;
    sig.kind = SIG_COUNT;
    mj_state_retrace(&t, &sig, &m, &mj_rules_default);
    CHECK_INT(t.state, MJ_QUEUED);
    CHECK_INT(t.polls, 0);
}
