/* Longer than other files: what assigns a state, and all that belongs to being in it, stays together. */
#include "domain/state.h"

#include "base/error.h"
#include "domain/attempt.h"
#include "domain/edges.h"
#include "domain/outcome.h"
#include "domain/schedule.h"
#include "domain/silence.h"
#include "domain/timeline.h"

enum {
    BELIEVE_HINTS = 3 /* PRODUCT.md: after so many polls, status 1 without an image is believed */
};

static const int64_t WAIT_CAP_MS = (int64_t)31 * 86400000; /* a month: a longer Retry-After is not believed */

const mj_rules mj_rules_default = {
    .poll_first_ms = 60000, .poll_max_ms = 900000, .lost_after_ms = 86400000, .grace_ms = 300000};

const char *mj_event_name(mj_event e)
{
    static const char *const names[] = {"none", "succeeded", "failed", "lost", "ambiguous"};
    return (unsigned)e < sizeof names / sizeof names[0] ? names[e] : "?";
}

static void queue(mj_task *t, const mj_signal *sig, int64_t now)
{
    int64_t wait = sig->wait_ms;

    if (sig->kind == SIG_RESUBMIT) {
        t->attempts[t->nattempts++] = (mj_attempt){.status = MJ_ATTEMPT_NONE};
        t->polls = t->absent = t->hints = t->tries = 0;
        t->finished_at = t->expires_at = t->silent_ms = t->asked_at = 0;
        t->late = t->decided = false;
        mj_outcome_forget(t);
        mj_outcome_error(t, (mj_str){0}, (mj_str){0});
        t->ready = true;
        t->due_at = 0;
        return;
    }
    /* A refusal that names its wait (the account rests, or the policy says when) costs no try: only failures without
     * one make the backoff longer. */
    if (wait < 0) {
        t->tries++;
        wait = mj_schedule_retry(t);
    }
    t->ready = false;
    t->due_at = mj_earlier(t->expires_at, now + wait);
    mj_outcome_error(t, sig->error_code, sig->error);
}

static bool slot_with_id(const mj_task *t)
{
    for (unsigned i = 0; i < t->nattempts; i++)
        if (t->attempts[i].slot && t->attempts[i].nids > 0)
            return true;
    return false;
}

/* Enters a state: the only place that assigns it, with all that belongs to being in it. */
static void enter(mj_task *t, mj_state to, const mj_signal *sig, const mj_rules *rules, int64_t now, mj_effect *effect)
{
    mj_state from = t->state;
    bool yielded = from == MJ_LOST || from == MJ_FAILED; /* the provider's status replaces our decision */

    t->state = to;
    t->has_owner = false;
    if (mj_state_final(to)) {
        t->ready = false;
        t->due_at = 0;
        t->finished_at = now;
        t->source = sig->source;
    }
    switch (to) {
    case MJ_QUEUED:
        queue(t, sig, now);
        return;
    case MJ_SUBMITTING:
        t->ready = false;
        t->has_owner = sig->has_owner;
        t->owner = sig->owner;
        t->due_at = now;
        mj_outcome_error(t, (mj_str){0}, (mj_str){0});
        return;
    case MJ_AMBIGUOUS:
        t->due_at = mj_task_current(t)->slot_until;
        mj_outcome_error(t, sig->error_code, sig->error);
        effect->event = MJ_EVENT_AMBIGUOUS;
        return;
    case MJ_PENDING:
        t->ready = t->decided = false;
        t->late = yielded; /* stays set: the end will come after we declared the task lost */
        t->finished_at = 0;
        t->absent = 0;
        t->silent_ms = 0;
        t->asked_at = 0;
        mj_outcome_error(t, (mj_str){0}, (mj_str){0});
        t->due_at = sig->kind == SIG_LOOK || sig->kind == SIG_HINT ? now : mj_schedule_poll(t, sig, rules, now);
        return;
    case MJ_SUCCEEDED:
        t->late = t->late || yielded;
        t->decided = false;
        mj_outcome_forget(t); /* of a failure, perhaps of another attempt */
        mj_outcome_fill(t, sig);
        mj_outcome_error(t, (mj_str){0}, (mj_str){0});
        effect->event = MJ_EVENT_SUCCEEDED;
        return;
    case MJ_FAILED:
        t->late = t->late || yielded;
        t->decided = !mj_signal_is_status(sig->kind);
        mj_outcome_fill(t, sig);
        mj_outcome_error(t, sig->error_code, sig->error);
        effect->event = MJ_EVENT_FAILED;
        return;
    case MJ_LOST:
        t->late = false;
        mj_outcome_error(t, MJ_LIT("lost"), sig->error.n ? sig->error : MJ_LIT("the provider does not know this task"));
        effect->event = MJ_EVENT_LOST;
        return;
    case MJ_CANCELLED:
        t->late = false;
        /* A sent job is polled while it holds a slot, so that the slot is freed early. */
        if (slot_with_id(t))
            t->due_at = now + rules->poll_first_ms;
        return;
    default:
        return;
    }
}

/* A signal that leaves the state and still has an effect. */
static int stay(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now)
{
    /* Polled regularly; tasks in other states only after a hint, until the provider has answered once. */
    bool asked = t->state == MJ_PENDING || t->state == MJ_CANCELLED;
    int64_t before = t->due_at;

    switch (sig->kind) {
    case SIG_READY:
        t->ready = true;
        t->due_at = t->expires_at;
        return MJ_OK;
    case SIG_KEPT:
        t->files = sig->files;
        return MJ_OK;
    case SIG_WAIT:
        t->due_at = now + (sig->wait_ms >= 0 ? sig->wait_ms : rules->grace_ms);
        return MJ_OK;
    case SIG_LOOK:
        t->due_at = mj_schedule_look(t, now);
        return t->due_at == before ? MJ_EDUPLICATE : MJ_OK;
    case SIG_HINT:
        t->due_at = sig->source == MJ_FROM_POLL ? now + MJ_LOOK_GAP_MS : mj_schedule_look(t, now);
        return MJ_OK;
    case SIG_RUNNING:
        if (sig->source == MJ_FROM_CALLBACK && before != 0)
            return MJ_OK;
        t->due_at = asked ? mj_schedule_poll(t, sig, rules, now) : 0;
        return MJ_OK;
    case SIG_ABSENT:
    case SIG_ACCEPTED:
        t->due_at = asked ? mj_schedule_poll(t, sig, rules, now) : 0;
        return MJ_OK;
    case SIG_UNANSWERED:
        t->due_at = asked || before != 0 ? mj_schedule_poll(t, sig, rules, now) : 0;
        return MJ_OK;
    case SIG_SUCCEEDED: /* of a cancelled task: recorded */
    case SIG_FAILED:    /* ... or our failure becomes the provider's: its reason counts, without a second event */
        mj_outcome_fill(t, sig);
        if (sig->kind == SIG_FAILED)
            mj_outcome_error(t, sig->error_code, sig->error);
        t->decided = false;
        t->due_at = asked ? mj_schedule_poll(t, sig, rules, now) : 0;
        return MJ_OK;
    default:
        return MJ_OK;
    }
}

/* The edge, after the rules that a table can't hold. */
static unsigned edge(mj_task *t, const mj_attempt *a, const mj_signal *sig, const mj_rules *rules, int64_t gap,
                     int64_t now)
{
    unsigned e = mj_edge_of(t->state, sig->kind);
    bool current = a == mj_task_current(t);

    if (sig->kind == SIG_KEPT)
        return e;
    if ((sig->kind == SIG_LOOK || sig->kind == SIG_HINT) && !mj_attempt_can_look(t, a))
        return e == MJ_EDGE_DUP ? MJ_EDGE_DUP : MJ_EDGE_LATE;
    if (!current) {
        /* Of an older attempt only its success counts for the task, and what may lead to it. */
        if (sig->kind == SIG_LOOK)
            return e == MJ_EDGE_STAY ? MJ_EDGE_STAY : MJ_EDGE_LATE;
        if (sig->kind != SIG_SUCCEEDED)
            return MJ_EDGE_LATE;
        return t->state == MJ_SUCCEEDED   ? MJ_EDGE_DUP
               : t->state == MJ_CANCELLED ? MJ_EDGE_STAY
                                          : MJ_EDGE_TO(MJ_SUCCEEDED);
    }
    if (t->state == MJ_QUEUED && sig->kind == SIG_READY) {
        if (now < t->due_at || (t->ready && t->due_at == 0))
            return MJ_EDGE_LATE;
        return t->expires_at && now >= t->expires_at ? MJ_EDGE_TO(MJ_FAILED) : MJ_EDGE_STAY;
    }
    if (t->state == MJ_FAILED && !t->decided && e == MJ_EDGE_STAY) /* the provider said so: nothing to learn */
        return sig->kind == SIG_FAILED ? MJ_EDGE_DUP : MJ_EDGE_LATE;
    if (t->state == MJ_PENDING && sig->source == MJ_FROM_POLL && mj_signal_is_answer(sig->kind)) {
        bool lost = mj_silence_lost(t, sig, rules, gap, now);
        return e == MJ_EDGE_STAY && sig->kind != SIG_HINT && lost ? MJ_EDGE_TO(MJ_LOST) : e;
    }
    return e;
}

/* The reason that is stored when the provider gave none. */
static void reason(mj_signal *sig, unsigned e)
{
    if (sig->error.n > 0)
        return;
    if (sig->kind == SIG_FAILED) {
        sig->error = MJ_LIT("the provider gave no reason");
    } else if (sig->kind == SIG_READY && e == MJ_EDGE_TO(MJ_FAILED)) {
        sig->error_code = MJ_LIT("expired");
        sig->error = MJ_LIT("it waited as queued for longer than `expires` allows");
    } else if (sig->kind == SIG_RUNNING && e == MJ_EDGE_TO(MJ_LOST)) {
        sig->error = MJ_LIT("the provider answered only \"running\" for longer than lost_after");
    } else if (sig->kind == SIG_GIVE_UP) {
        sig->error = MJ_LIT("its submission may have arrived, and nothing was heard of it");
    }
    if (sig->kind == SIG_FAILED && sig->error_code.n == 0)
        sig->error_code = MJ_LIT("provider");
}

/* When nothing is left to poll, nothing is due; and a poll never leaves the task due at once. */
static void plan_poll(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now)
{
    bool polled = sig->source == MJ_FROM_POLL && (mj_signal_is_answer(sig->kind) || sig->kind == SIG_UNANSWERED);
    bool open = t->state == MJ_PENDING || (t->state == MJ_CANCELLED && slot_with_id(t));

    if (mj_state_due(t) != MJ_DUE_POLL)
        return;
    if (open && polled && t->due_at <= now)
        t->due_at = mj_schedule_poll(t, sig, rules, now);
    else if (!open && (t->state == MJ_CANCELLED || (polled && t->due_at <= now && sig->kind != SIG_UNANSWERED)))
        t->due_at = 0;
}

/* A signal on its way through mj_state_apply(). */
typedef struct taking {
    mj_task *t;
    mj_attempt *a; /* the attempt that it is about ... */
    bool current;  /* ... which is the current one */
    mj_signal sig; /* as a rule understands it, perhaps as another kind */
    const mj_rules *rules;
    int64_t now;
    mj_result result; /* how it is taken, in the end */
} taking;

/* First: may the signal be applied at all?  Nothing has changed yet. */
static int admit(const taking *in)
{
    const mj_task *t = in->t;
    const mj_signal *sig = &in->sig;

    if (!in->a || sig->kind <= SIG_CREATE || sig->kind >= SIG_COUNT || mj_attempt_nameless(in->a, sig))
        return MJ_EINVAL;
    if (sig->expect_state >= 0 && (!in->current || (int)t->state != sig->expect_state))
        return MJ_ECHANGED;
    if (mj_edge_of(t->state, sig->kind) == MJ_EDGE_DENY)
        return mj_signal_is_decision(sig->kind) || sig->kind == SIG_CLAIM ? MJ_ESTATE : MJ_EINVAL;
    if (sig->kind == SIG_RESUBMIT && t->nattempts == MJ_MAX_ATTEMPTS)
        return MJ_ELIMIT;
    if (sig->kind == SIG_RESUBMIT && t->prompt.n == 0)
        return MJ_ESTATE; /* adopted with an unknown prompt: there is nothing to send */
    if (sig->kind == SIG_CLAIM && (!t->ready || (t->expires_at && in->now >= t->expires_at)))
        return MJ_ESTATE;
    return MJ_OK;
}

/* Second: what the signal says of its attempt, and which edge the task takes for it. */
static unsigned understand(taking *in)
{
    mj_task *t = in->t;
    mj_signal *sig = &in->sig;
    int64_t gap = mj_silence_asked(t, sig, in->now);
    unsigned e;

    if (sig->source == MJ_FROM_CALLBACK && t->called_at == 0 &&
        (mj_signal_is_status(sig->kind) || (sig->kind == SIG_LOOK && sig->task_id.n > 0)))
        t->called_at = in->now;
    /* After enough polls, "succeeded without an image" is the truth. */
    if (sig->kind == SIG_HINT && sig->source == MJ_FROM_POLL && in->current && ++t->hints >= BELIEVE_HINTS)
        sig->kind = SIG_SUCCEEDED;
    in->result = mj_attempt_hear(t, in->a, sig, in->rules, in->now);
    if (sig->kind == SIG_SLOT_END)
        return MJ_EDGE_STAY;
    e = edge(t, in->a, sig, in->rules, gap, in->now);
    reason(sig, e);
    if (in->result == MJ_RESULT_CONTRADICTION || (in->result == MJ_RESULT_STALE && e != MJ_EDGE_DUP))
        return MJ_EDGE_LATE;
    return in->result == MJ_RESULT_DUPLICATE && e != MJ_EDGE_LATE ? MJ_EDGE_DUP : e;
}

/* Third: the task goes along that edge. */
static int follow(taking *in, unsigned e, mj_effect *effect)
{
    mj_task *t = in->t;
    const mj_signal *sig = &in->sig;
    int rc;

    switch (e) {
    case MJ_EDGE_LATE:
        if (in->result == MJ_RESULT_TAKEN)
            in->result = in->current ? MJ_RESULT_STALE : MJ_RESULT_OLD;
        return MJ_ESTALE;
    case MJ_EDGE_DUP:
        rc = in->result == MJ_RESULT_CONFLICT ? MJ_ESTALE : MJ_EDUPLICATE;
        if (in->result == MJ_RESULT_TAKEN)
            in->result = MJ_RESULT_DUPLICATE;
        if (sig->kind == SIG_SUCCEEDED || sig->kind == SIG_FAILED)
            mj_outcome_fill(t, sig);
        return rc;
    case MJ_EDGE_STAY:
        rc = stay(t, sig, in->rules, in->now);
        return in->result == MJ_RESULT_CONFLICT && rc == MJ_OK ? MJ_ESTALE : rc;
    default:
        enter(t, (mj_state)(e - MJ_EDGE_GO), sig, in->rules, in->now, effect);
        return MJ_OK;
    }
}

int mj_state_apply(mj_task *t, const mj_signal *given, const mj_rules *rules, int64_t now, mj_effect *effect)
{
    uint32_t known = mj_task_attempt_of(t, given->task_id);
    uint32_t n = given->attempt ? given->attempt : known ? known : t->nattempts;
    taking in = {t, mj_task_attempt(t, n), n == t->nattempts, *given, rules, now, MJ_RESULT_TAKEN};
    mj_task before;
    bool conflict;
    unsigned e;
    int rc = admit(&in);

    *effect = (mj_effect){.attempt = n};
    if (rc != MJ_OK)
        return rc;
    mj_task_copy(&before, t);
    if (in.sig.wait_ms > WAIT_CAP_MS)
        in.sig.wait_ms = WAIT_CAP_MS;
    conflict = mj_attempt_conflicts(&in.sig, in.a, n, known);
    if (conflict && in.sig.kind == given->kind)
        return mj_timeline_tell(t, &before, &in.sig, MJ_RESULT_CONFLICT, now, effect, MJ_ESTALE);
    e = understand(&in);
    if (in.sig.kind == SIG_SLOT_END && in.result == MJ_RESULT_STALE)
        return MJ_ESTALE; /* the slot is free already, or still within its time: not worth a timeline entry */
    rc = follow(&in, e, effect);
    plan_poll(t, &in.sig, rules, now);
    return mj_timeline_tell(t, &before, &in.sig, conflict ? MJ_RESULT_CONFLICT : in.result, now, effect, rc);
}

void mj_state_create(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now)
{
    mj_attempt *a = &t->attempts[0];

    t->nattempts = 1;
    *a = (mj_attempt){.status = MJ_ATTEMPT_NONE};
    t->created_at = t->updated_at = now;
    t->state = MJ_QUEUED;
    t->ready = true;
    t->due_at = t->expires_at;
    t->adopted = sig->task_id.n > 0;
    if (t->adopted) {
        t->state = MJ_PENDING;
        t->ready = false;
        a->status = MJ_ATTEMPT_ACCEPTED;
        a->account = sig->account;
        mj_attempt_bind(a, sig->task_id);
        mj_attempt_hold(t, a, rules, now);
        t->due_at = mj_schedule_poll(t, sig, rules, now);
    }
    mj_timeline_add(t, sig, MJ_RESULT_TAKEN, 1, t->state, now);
}

void mj_state_retrace(mj_task *t, const mj_signal *sig, const mj_timeline_entry *m, const mj_rules *rules)
{
    taking in = {t, NULL, false, *sig, rules, m->at, MJ_RESULT_TAKEN};
    bool conflict = m->result == MJ_RESULT_CONFLICT, full;
    /* An accepted answer with a foreign id has become "maybe sent", which counts. */
    bool believed = !conflict || sig->task_id.n > 0 || sig->kind == SIG_MAYBE_SENT;
    unsigned e = MJ_EDGE_LATE;
    uint32_t polls = t->polls;
    mj_effect effect;

    if (sig->kind == SIG_CREATE) {
        mj_state_create(t, sig, rules, m->at);
        return;
    }
    while (t->nattempts < m->attempt && t->nattempts < MJ_MAX_ATTEMPTS) /* dropped entries told of it */
        t->attempts[t->nattempts++] = (mj_attempt){.status = MJ_ATTEMPT_NONE, .account = sig->account};
    in.a = mj_task_attempt(t, m->attempt);
    in.current = m->attempt == t->nattempts;
    full = sig->kind == SIG_RESUBMIT && t->nattempts == MJ_MAX_ATTEMPTS;
    t->state = m->from;
    if (in.a && believed && sig->kind < SIG_COUNT)
        e = understand(&in);
    if (m->from != m->to && !full) /* as it did then, whatever the rules say now */
        e = MJ_EDGE_TO(m->to);
    else if (m->result == MJ_RESULT_TAKEN)
        e = MJ_EDGE_STAY;
    else if (e != MJ_EDGE_DUP && !(e == MJ_EDGE_STAY && conflict))
        e = MJ_EDGE_LATE;
    follow(&in, e, &effect);
    t->polls += (t->polls - polls) * (m->count > 1 ? m->count - 1 : 0);
    t->updated_at = m->until > m->at ? m->until : m->at;
}
