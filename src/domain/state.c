#include "domain/state.h"

#include "base/error.h"
#include "domain/schedule.h"
#include "domain/timeline.h"

#include <string.h>

enum {
    BELIEVE_HINTS = 3,        /* PRODUCT.md: status 1 without an image, polled so often, is believed */
    BELIEVE_ABSENCES = 3,     /* a task is lost when so many answers did not have it ... */
    ABSENCE_SPAN_MS = 600000, /* ... over at least ten minutes */
};

static const int64_t WAIT_CAP_MS = (int64_t)31 * 86400000; /* a month: nobody's Retry-After is worth more */

const mj_rules mj_rules_default = {
    .poll_first_ms = 60000, .poll_max_ms = 900000, .lost_after_ms = 86400000, .grace_ms = 300000};

/* What a signal about the current attempt does to the task, by state.  LATE (0)
 * is what nobody listed: it goes on the timeline and changes nothing else. */
enum { LATE, DUP, STAY, DENY, GO };
#define TO(state) (GO + (state))

static const uint8_t edges[MJ_NSTATES][SIG_COUNT] = {
    [MJ_QUEUED] = {[SIG_READY] = STAY,
                   [SIG_CLAIM] = TO(MJ_SUBMITTING),
                   [SIG_ACCEPTED] = TO(MJ_PENDING),
                   [SIG_RUNNING] = TO(MJ_PENDING),
                   [SIG_SUCCEEDED] = TO(MJ_SUCCEEDED),
                   [SIG_HINT] = TO(MJ_PENDING),
                   [SIG_FAILED] = TO(MJ_FAILED),
                   [SIG_LOOK] = TO(MJ_PENDING),
                   [SIG_GIVE_UP] = DENY,
                   [SIG_RESUBMIT] = DENY,
                   [SIG_WAIT] = DENY,
                   [SIG_CANCEL] = TO(MJ_CANCELLED),
                   [SIG_KEPT] = STAY},
    [MJ_SUBMITTING] = {[SIG_CLAIM] = DENY,
                       [SIG_ACCEPTED] = TO(MJ_PENDING),
                       [SIG_NOT_SENT] = TO(MJ_QUEUED),
                       [SIG_REFUSED] = TO(MJ_QUEUED),
                       [SIG_REJECTED] = TO(MJ_FAILED),
                       [SIG_MAYBE_SENT] = TO(MJ_AMBIGUOUS),
                       [SIG_OWNER_DEAD] = TO(MJ_AMBIGUOUS),
                       [SIG_RUNNING] = TO(MJ_PENDING),
                       [SIG_SUCCEEDED] = TO(MJ_SUCCEEDED),
                       [SIG_HINT] = TO(MJ_PENDING),
                       [SIG_FAILED] = TO(MJ_FAILED),
                       [SIG_LOOK] = TO(MJ_PENDING),
                       [SIG_GIVE_UP] = DENY,
                       [SIG_RESUBMIT] = DENY,
                       [SIG_WAIT] = DENY,
                       [SIG_CANCEL] = TO(MJ_CANCELLED),
                       [SIG_KEPT] = STAY},
    [MJ_AMBIGUOUS] = {[SIG_CLAIM] = DENY,
                      [SIG_ACCEPTED] = TO(MJ_PENDING),
                      [SIG_NOT_SENT] = TO(MJ_QUEUED),
                      [SIG_REFUSED] = TO(MJ_QUEUED),
                      [SIG_REJECTED] = TO(MJ_FAILED),
                      [SIG_MAYBE_SENT] = DUP,
                      [SIG_OWNER_DEAD] = DUP,
                      [SIG_RUNNING] = TO(MJ_PENDING),
                      [SIG_SUCCEEDED] = TO(MJ_SUCCEEDED),
                      [SIG_HINT] = TO(MJ_PENDING),
                      [SIG_FAILED] = TO(MJ_FAILED),
                      [SIG_LOOK] = TO(MJ_PENDING),
                      [SIG_GIVE_UP] = TO(MJ_LOST),
                      [SIG_RESUBMIT] = TO(MJ_QUEUED),
                      [SIG_WAIT] = STAY,
                      [SIG_CANCEL] = TO(MJ_CANCELLED),
                      [SIG_KEPT] = STAY},
    [MJ_PENDING] = {[SIG_CLAIM] = DENY,
                    [SIG_ACCEPTED] = DUP,
                    [SIG_RUNNING] = STAY,
                    [SIG_SUCCEEDED] = TO(MJ_SUCCEEDED),
                    [SIG_HINT] = STAY,
                    [SIG_FAILED] = TO(MJ_FAILED),
                    [SIG_ABSENT] = STAY,
                    [SIG_UNANSWERED] = STAY,
                    [SIG_LOOK] = STAY,
                    [SIG_GIVE_UP] = DENY,
                    [SIG_RESUBMIT] = DENY,
                    [SIG_WAIT] = DENY,
                    [SIG_CANCEL] = TO(MJ_CANCELLED),
                    [SIG_KEPT] = STAY},
    [MJ_SUCCEEDED] = {[SIG_CLAIM] = DENY,
                      [SIG_ACCEPTED] = DUP,
                      [SIG_SUCCEEDED] = DUP,
                      [SIG_HINT] = DUP,
                      [SIG_GIVE_UP] = DENY,
                      [SIG_RESUBMIT] = DENY,
                      [SIG_WAIT] = DENY,
                      [SIG_CANCEL] = DENY,
                      [SIG_KEPT] = STAY},
    [MJ_FAILED] = {[SIG_CLAIM] = DENY,
                   [SIG_ACCEPTED] = DUP,
                   [SIG_SUCCEEDED] = TO(MJ_SUCCEEDED), /* these three only over a failure that we decided */
                   [SIG_HINT] = STAY,
                   [SIG_FAILED] = STAY,
                   [SIG_ABSENT] = STAY,
                   [SIG_UNANSWERED] = STAY,
                   [SIG_LOOK] = STAY,
                   [SIG_GIVE_UP] = DENY,
                   [SIG_RESUBMIT] = TO(MJ_QUEUED),
                   [SIG_WAIT] = DENY,
                   [SIG_CANCEL] = DENY,
                   [SIG_KEPT] = STAY},
    [MJ_LOST] = {[SIG_CLAIM] = DENY,
                 [SIG_ACCEPTED] = TO(MJ_PENDING),
                 [SIG_RUNNING] = TO(MJ_PENDING),
                 [SIG_SUCCEEDED] = TO(MJ_SUCCEEDED),
                 [SIG_HINT] = TO(MJ_PENDING),
                 [SIG_FAILED] = TO(MJ_FAILED),
                 [SIG_ABSENT] = STAY,
                 [SIG_UNANSWERED] = STAY,
                 [SIG_LOOK] = STAY,
                 [SIG_GIVE_UP] = DENY,
                 [SIG_RESUBMIT] = TO(MJ_QUEUED),
                 [SIG_WAIT] = DENY,
                 [SIG_CANCEL] = DENY,
                 [SIG_KEPT] = STAY},
    [MJ_CANCELLED] = {[SIG_CLAIM] = DENY,
                      [SIG_ACCEPTED] = STAY,
                      [SIG_NOT_SENT] = STAY,
                      [SIG_REFUSED] = STAY,
                      [SIG_REJECTED] = STAY,
                      [SIG_MAYBE_SENT] = STAY,
                      [SIG_OWNER_DEAD] = STAY,
                      [SIG_RUNNING] = STAY,
                      [SIG_SUCCEEDED] = STAY,
                      [SIG_HINT] = STAY,
                      [SIG_FAILED] = STAY,
                      [SIG_ABSENT] = STAY,
                      [SIG_UNANSWERED] = STAY,
                      [SIG_LOOK] = STAY,
                      [SIG_GIVE_UP] = DENY,
                      [SIG_RESUBMIT] = DENY,
                      [SIG_WAIT] = DENY,
                      [SIG_CANCEL] = DENY,
                      [SIG_KEPT] = STAY},
};

const char *mj_signal_name(unsigned kind)
{
    static const char *const names[] = {
#define X(sym, name) name,
        MJ_SIGNALS(X)
#undef X
    };
    return kind < SIG_COUNT ? names[kind] : "?";
}

int mj_signal_parse(mj_str name)
{
    for (unsigned k = 0; k < SIG_COUNT; k++) {
        const char *known = mj_signal_name(k);
        if (strlen(known) == name.n && memcmp(known, name.p, name.n) == 0)
            return (int)k;
    }
    return -1;
}

const char *mj_note_name(unsigned note)
{
    static const char *const names[] = {
#define X(sym, name) name,
        MJ_NOTES(X)
#undef X
    };
    return note < MJ_NNOTES ? names[note] : "?";
}

const char *mj_event_name(mj_event e)
{
    static const char *const names[] = {"none", "succeeded", "failed", "lost", "ambiguous"};
    return (unsigned)e < sizeof names / sizeof names[0] ? names[e] : "?";
}

mj_due mj_state_due(const mj_task *t)
{
    if (t->due_at == 0)
        return MJ_DUE_NONE;
    switch (t->state) {
    case MJ_QUEUED:
        return MJ_DUE_QUEUE;
    case MJ_SUBMITTING:
        return MJ_DUE_OWNER;
    case MJ_AMBIGUOUS:
        return MJ_DUE_RESOLVE;
    default:
        return MJ_DUE_POLL;
    }
}

static bool is_word(mj_signal_kind k)
{
    return k == SIG_RUNNING || k == SIG_SUCCEEDED || k == SIG_HINT || k == SIG_FAILED;
}

static bool is_answer(mj_signal_kind k) /* the provider answered a poll with it */
{
    return is_word(k) || k == SIG_ABSENT;
}

static bool is_decision(mj_signal_kind k)
{
    return k == SIG_GIVE_UP || k == SIG_RESUBMIT || k == SIG_WAIT || k == SIG_CANCEL;
}

/* Ties a task id to an attempt.  The first stays the first; others are kept beside it and polled too. */
static mj_note bind_id(mj_attempt *a, mj_str id)
{
    for (unsigned i = 0; i < a->nids; i++)
        if (mj_str_eq(a->ids[i], id))
            return MJ_NOTE_TAKEN;
    if (id.n == 0)
        return MJ_NOTE_TAKEN;
    if (a->nids < MJ_MAX_IDS)
        a->ids[a->nids++] = id;
    return a->nids > 1 ? MJ_NOTE_CONFLICT : MJ_NOTE_TAKEN;
}

/* The provider has the job: so it holds a slot, whatever we thought before. */
static void hold(const mj_task *t, mj_attempt *a, const mj_rules *rules, int64_t now)
{
    if (a->submitted_at == 0)
        a->submitted_at = now;
    a->slot_until = a->submitted_at + (int64_t)t->timeout * 1000 + rules->grace_ms;
    a->slot = a->account.n > 0 && a->slot_until > now;
}

/* Nothing can be `pending`, or done, under no name: there would be nothing to ask about. */
static bool nameless(const mj_attempt *a, const mj_signal *sig)
{
    return (is_word(sig->kind) || sig->kind == SIG_ACCEPTED) && sig->task_id.n == 0 && a->nids == 0;
}

/* What the signal says of its attempt, current or old: id, word and slot. */
static mj_note hear(const mj_task *t, mj_attempt *a, const mj_signal *sig, const mj_rules *rules, int64_t now)
{
    bool open = a->word == MJ_WORD_INTENT || a->word == MJ_WORD_MAYBE;
    bool final = a->word == MJ_WORD_SUCCEEDED || a->word == MJ_WORD_FAILED;
    mj_word word = sig->kind == SIG_SUCCEEDED ? MJ_WORD_SUCCEEDED : MJ_WORD_FAILED;
    mj_note note = MJ_NOTE_TAKEN;

    switch (sig->kind) {
    case SIG_CLAIM:
        a->word = MJ_WORD_INTENT;
        a->account = sig->account;
        a->submitted_at = now;
        hold(t, a, rules, now);
        return note;
    case SIG_ACCEPTED:
    case SIG_RUNNING:
    case SIG_HINT:
        note = bind_id(a, sig->task_id);
        if (final || a->word == MJ_WORD_ACCEPTED)
            return sig->kind == SIG_ACCEPTED && note == MJ_NOTE_TAKEN ? MJ_NOTE_DUPLICATE : note;
        if (!open)
            hold(t, a, rules, now);
        a->word = MJ_WORD_ACCEPTED;
        return note;
    case SIG_LOOK:
        return bind_id(a, sig->task_id);
    case SIG_NOT_SENT:
    case SIG_REFUSED:
    case SIG_REJECTED:
        if (!open)
            return MJ_NOTE_STALE;
        a->word = MJ_WORD_REFUSED;
        a->slot = false;
        return note;
    case SIG_MAYBE_SENT:
    case SIG_OWNER_DEAD:
        if (!open)
            return MJ_NOTE_STALE;
        a->word = MJ_WORD_MAYBE;
        return note;
    case SIG_SUCCEEDED:
    case SIG_FAILED:
        note = bind_id(a, sig->task_id);
        if (final)
            return a->word == word ? MJ_NOTE_DUPLICATE : MJ_NOTE_CONTRADICTION;
        a->word = word;
        a->slot = false;
        return note;
    case SIG_SLOT_END:
        if (!a->slot || now < a->slot_until)
            return MJ_NOTE_STALE;
        a->slot = false;
        return note;
    default:
        return note;
    }
}

/* Takes from a provider's word what the task does not have yet. */
static void fill(mj_task *t, const mj_signal *sig)
{
    if (t->image.n == 0)
        t->image = sig->image;
    if (t->nimages == 0 && sig->nimages > 0) {
        t->nimages = sig->nimages;
        memcpy(t->images, sig->images, sizeof sig->images[0] * sig->nimages);
    }
    if (t->mj_prompt.n == 0)
        t->mj_prompt = sig->mj_prompt;
    if (t->meta.n == 0)
        t->meta = sig->meta;
    if (t->prompt.n == 0) /* an adopted task learns its prompt from the provider */
        t->prompt = mj_str_head(sig->mj_prompt, MJ_MAX_PROMPT);
}

static void set_error(mj_task *t, mj_str code, mj_str text)
{
    t->error_code = code;
    t->error = mj_str_head(text, MJ_MAX_REASON);
}

/* What the provider said of the result so far, so that the next word is not mixed with it. */
static void forget_result(mj_task *t)
{
    t->image = t->mj_prompt = t->meta = t->files = (mj_str){0};
    t->nimages = 0;
}

static void queue(mj_task *t, const mj_signal *sig, int64_t now)
{
    int64_t wait = sig->wait_ms;

    if (sig->kind == SIG_RESUBMIT) {
        t->attempts[t->nattempts++] = (mj_attempt){.word = MJ_WORD_NONE};
        t->polls = t->absent = t->hints = t->tries = 0;
        t->finished_at = t->expires_at = t->silent_ms = t->asked_at = 0;
        t->late = t->decided = false;
        forget_result(t);
        set_error(t, (mj_str){0}, (mj_str){0});
        t->ready = true;
        t->due_at = 0;
        return;
    }
    /* A refusal that names its wait (the account rests, the policy says when) costs no try: only failures that are
     * answered by the backoff make it longer. */
    if (wait < 0) {
        t->tries++;
        wait = mj_schedule_retry(t);
    }
    t->ready = false;
    t->due_at = mj_earlier(t->expires_at, now + wait);
    set_error(t, sig->error_code, sig->error);
}

static bool slot_with_id(const mj_task *t)
{
    for (unsigned i = 0; i < t->nattempts; i++)
        if (t->attempts[i].slot && t->attempts[i].nids > 0)
            return true;
    return false;
}

/* Enters a state: the one place that assigns it, and what belongs to being in it. */
static void enter(mj_task *t, mj_state to, const mj_signal *sig, const mj_rules *rules, int64_t now, mj_step *step)
{
    mj_state from = t->state;
    bool yielded = from == MJ_LOST || from == MJ_FAILED; /* our word, to the provider's */

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
        set_error(t, (mj_str){0}, (mj_str){0});
        return;
    case MJ_AMBIGUOUS:
        t->due_at = mj_task_current(t)->slot_until;
        set_error(t, sig->error_code, sig->error);
        step->event = MJ_EVENT_AMBIGUOUS;
        return;
    case MJ_PENDING:
        t->ready = t->decided = false;
        t->late = yielded; /* and stays so: its end will come after we had said that it was lost */
        t->finished_at = 0;
        t->absent = 0;
        t->silent_ms = 0;
        t->asked_at = 0;
        set_error(t, (mj_str){0}, (mj_str){0});
        t->due_at = sig->kind == SIG_LOOK || sig->kind == SIG_HINT ? now : mj_schedule_poll(t, sig, rules, now);
        return;
    case MJ_SUCCEEDED:
        t->late = t->late || yielded;
        t->decided = false;
        forget_result(t); /* of a failure, perhaps of another attempt */
        fill(t, sig);
        set_error(t, (mj_str){0}, (mj_str){0});
        step->event = MJ_EVENT_SUCCEEDED;
        return;
    case MJ_FAILED:
        t->late = t->late || yielded;
        t->decided = !is_word(sig->kind);
        fill(t, sig);
        set_error(t, sig->error_code, sig->error);
        step->event = MJ_EVENT_FAILED;
        return;
    case MJ_LOST:
        t->late = false;
        set_error(t, MJ_LIT("lost"), sig->error.n ? sig->error : MJ_LIT("the provider does not know this task"));
        step->event = MJ_EVENT_LOST;
        return;
    case MJ_CANCELLED:
        t->late = false;
        /* What was sent is asked about while it holds a slot, so that the slot is freed early. */
        if (slot_with_id(t))
            t->due_at = now + rules->poll_first_ms;
        return;
    default:
        return;
    }
}

/* Counts what an answered poll of a pending task says about silence and absence; true: lost. */
static bool is_lost(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t gap, int64_t now)
{
    const mj_attempt *a = mj_task_current(t);

    /* A gap longer than two waits was an outage, ours or theirs, and is no silence of the provider's;
     * neither is a clock that was stepped. */
    if (gap > 2 * rules->poll_max_ms)
        gap = 2 * rules->poll_max_ms;
    if (gap > 0)
        t->silent_ms += gap;
    if (sig->kind != SIG_ABSENT) {
        t->absent = 0;
    } else if (sig->counts && now >= a->slot_until) {
        if (t->absent++ == 0 || t->absent_since > now) /* or the clock was set back */
            t->absent_since = now;
        if (t->absent >= BELIEVE_ABSENCES && now - t->absent_since >= ABSENCE_SPAN_MS)
            return true;
    }
    return t->silent_ms >= rules->lost_after_ms;
}

/* A signal that leaves the state as it is but means something there. */
static int stay(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now)
{
    /* Asked about regularly; the others only after a hint, until the provider has answered once. */
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
        fill(t, sig);
        if (sig->kind == SIG_FAILED)
            set_error(t, sig->error_code, sig->error);
        t->decided = false;
        t->due_at = asked ? mj_schedule_poll(t, sig, rules, now) : 0;
        return MJ_OK;
    default:
        return MJ_OK;
    }
}

/* Whether a hint about the task is worth a question to the provider. */
static bool can_look(const mj_task *t, const mj_attempt *a)
{
    if (a->nids == 0 || a->word == MJ_WORD_SUCCEEDED || a->word == MJ_WORD_FAILED)
        return false; /* no id to ask about, or nothing left to learn */
    return t->state != MJ_CANCELLED || a->slot;
}

/* The edge to take, after the rules that a table can't hold. */
static unsigned edge(mj_task *t, const mj_attempt *a, const mj_signal *sig, const mj_rules *rules, int64_t gap,
                     int64_t now)
{
    unsigned e = edges[t->state][sig->kind];
    bool current = a == mj_task_current(t);

    if (sig->kind == SIG_KEPT)
        return e;
    if ((sig->kind == SIG_LOOK || sig->kind == SIG_HINT) && !can_look(t, a))
        return e == DUP ? DUP : LATE;
    if (!current) {
        /* Of an older attempt only its success is the task's, and what may lead to it. */
        if (sig->kind == SIG_LOOK)
            return e == STAY ? STAY : LATE;
        if (sig->kind != SIG_SUCCEEDED)
            return LATE;
        return t->state == MJ_SUCCEEDED ? DUP : t->state == MJ_CANCELLED ? STAY : TO(MJ_SUCCEEDED);
    }
    if (t->state == MJ_QUEUED && sig->kind == SIG_READY) {
        if (now < t->due_at || (t->ready && t->due_at == 0))
            return LATE;
        return t->expires_at && now >= t->expires_at ? TO(MJ_FAILED) : STAY;
    }
    if (t->state == MJ_FAILED && !t->decided && e == STAY) /* the provider said so: nothing to learn */
        return sig->kind == SIG_FAILED ? DUP : LATE;
    if (t->state == MJ_PENDING && sig->source == MJ_FROM_POLL && is_answer(sig->kind)) {
        bool lost = is_lost(t, sig, rules, gap, now);
        return e == STAY && sig->kind != SIG_HINT && lost ? TO(MJ_LOST) : e;
    }
    return e;
}

/* What is written down when the provider gave no reason of its own. */
static void reason(mj_signal *sig, unsigned e)
{
    if (sig->error.n > 0)
        return;
    if (sig->kind == SIG_FAILED) {
        sig->error = MJ_LIT("the provider gave no reason");
    } else if (sig->kind == SIG_READY && e == TO(MJ_FAILED)) {
        sig->error_code = MJ_LIT("expired");
        sig->error = MJ_LIT("it waited as queued for longer than `expires` allows");
    } else if (sig->kind == SIG_RUNNING && e == TO(MJ_LOST)) {
        sig->error = MJ_LIT("the provider said nothing but \"running\" for longer than lost_after");
    } else if (sig->kind == SIG_GIVE_UP) {
        sig->error = MJ_LIT("its submission may have arrived, and nothing was heard of it");
    }
    if (sig->kind == SIG_FAILED && sig->error_code.n == 0)
        sig->error_code = MJ_LIT("provider");
}

/* An answered or unanswered poll: the time since the last one. */
static int64_t asked(mj_task *t, const mj_signal *sig, int64_t now)
{
    int64_t gap = t->asked_at ? now - t->asked_at : 0;

    if (sig->source != MJ_FROM_POLL || !(is_answer(sig->kind) || sig->kind == SIG_UNANSWERED))
        return 0;
    t->asked_at = now;
    t->polls += is_answer(sig->kind);
    return gap;
}

/* When there is nothing more to ask about, nothing is due; and no poll leaves the task due at once. */
static void plan_poll(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now)
{
    bool polled = sig->source == MJ_FROM_POLL && (is_answer(sig->kind) || sig->kind == SIG_UNANSWERED);
    bool open = t->state == MJ_PENDING || (t->state == MJ_CANCELLED && slot_with_id(t));

    if (mj_state_due(t) != MJ_DUE_POLL)
        return;
    if (open && polled && t->due_at <= now)
        t->due_at = mj_schedule_poll(t, sig, rules, now);
    else if (!open && (t->state == MJ_CANCELLED || (polled && t->due_at <= now && sig->kind != SIG_UNANSWERED)))
        t->due_at = 0;
}

/* A task id that belongs to another task, or to another attempt than the signal names, is a conflict: the URL of an
 * attempt is good for that attempt alone, and what comes with it is no word about another one.  Only the answer to a
 * submission tells something all the same: the request arrived, and under which id is not known. */
static bool conflicts(mj_signal *sig, const mj_attempt *a, uint32_t n, uint32_t known)
{
    if (!sig->foreign_id && (known == 0 || known == n))
        return false;
    if (sig->kind == SIG_ACCEPTED && a->word == MJ_WORD_INTENT) {
        sig->kind = SIG_MAYBE_SENT;
        sig->task_id = (mj_str){0};
        sig->error_code = MJ_LIT("conflict");
        sig->error = MJ_LIT("the provider answered with the task id of another submission");
    }
    return true;
}

/* A callback that tells of progress: no fact in it but that the job still runs. */
static bool is_progress(const mj_signal *sig, mj_note note)
{
    return sig->kind == SIG_RUNNING && sig->source == MJ_FROM_CALLBACK && note != MJ_NOTE_CONFLICT;
}

/* The end of a signal: *t is what it made of `before`, and `note` says how it was taken. */
static int tell(mj_task *t, const mj_task *before, const mj_signal *sig, mj_note note, int64_t now, mj_step *step,
                int rc)
{
    int64_t called_at = t->called_at;

    if (is_progress(sig, note)) {
        t->called_at = before->called_at; /* that a callback came is no fact by itself */
        if (mj_timeline_only(before, t))
            return rc;
        t->called_at = called_at;
    }
    if (mj_timeline_only(before, t)) {
        /* It asks for no earlier poll than the one that is due.  That there was such a callback is noted all the same,
         * once before each poll, for the schedule. */
        if (sig->kind == SIG_LOOK && note != MJ_NOTE_CONFLICT && (rc != MJ_EDUPLICATE || mj_schedule_hinted(t)))
            return rc;
        step->withheld = sig->source == MJ_FROM_CALLBACK && mj_timeline_fresh(t, now);
        if (step->withheld)
            return rc;
    }
    step->changed = true;
    t->updated_at = now;
    mj_timeline_add(t, sig, note, step->attempt, before->state, now);
    return rc;
}

int mj_state_apply(mj_task *t, const mj_signal *given, const mj_rules *rules, int64_t now, mj_step *step)
{
    uint32_t known = mj_task_attempt_of(t, given->task_id);
    uint32_t n = given->attempt ? given->attempt : known ? known : t->nattempts;
    mj_attempt *a = mj_task_attempt(t, n);
    bool current = n == t->nattempts, conflict;
    mj_task before = *t;
    mj_signal sig = *given;
    mj_note note;
    unsigned e;
    int64_t gap;
    int rc = MJ_OK;

    *step = (mj_step){.attempt = n};
    if (!a || sig.kind <= SIG_CREATE || sig.kind >= SIG_COUNT || nameless(a, &sig))
        return MJ_EINVAL;
    if (sig.expect_state >= 0 && (!current || (int)t->state != sig.expect_state))
        return MJ_ECHANGED;
    if (edges[t->state][sig.kind] == DENY)
        return is_decision(sig.kind) || sig.kind == SIG_CLAIM ? MJ_ESTATE : MJ_EINVAL;
    if (sig.kind == SIG_RESUBMIT && t->nattempts == MJ_MAX_ATTEMPTS)
        return MJ_ELIMIT;
    if (sig.kind == SIG_RESUBMIT && t->prompt.n == 0)
        return MJ_ESTATE; /* adopted, and its prompt never learned: there is nothing to send */
    if (sig.kind == SIG_CLAIM && (!t->ready || (t->expires_at && now >= t->expires_at)))
        return MJ_ESTATE;
    if (sig.wait_ms > WAIT_CAP_MS)
        sig.wait_ms = WAIT_CAP_MS;

    conflict = conflicts(&sig, a, n, known);
    if (conflict && sig.kind == given->kind)
        return tell(t, &before, &sig, MJ_NOTE_CONFLICT, now, step, MJ_ESTALE);
    gap = asked(t, &sig, now);
    if (sig.source == MJ_FROM_CALLBACK && t->called_at == 0 &&
        (is_word(sig.kind) || (sig.kind == SIG_LOOK && sig.task_id.n > 0)))
        t->called_at = now;
    /* Heard often enough, "succeeded, without an image" is the truth. */
    if (sig.kind == SIG_HINT && sig.source == MJ_FROM_POLL && current && ++t->hints >= BELIEVE_HINTS)
        sig.kind = SIG_SUCCEEDED;
    note = hear(t, a, &sig, rules, now);
    if (sig.kind == SIG_SLOT_END) {
        if (note == MJ_NOTE_STALE)
            return MJ_ESTALE;
        e = STAY;
    } else {
        e = edge(t, a, &sig, rules, gap, now);
    }
    reason(&sig, e);

    if (note == MJ_NOTE_CONTRADICTION || (note == MJ_NOTE_STALE && e != DUP))
        e = LATE;
    else if (note == MJ_NOTE_DUPLICATE && e != LATE)
        e = DUP;

    if (e == LATE) {
        rc = MJ_ESTALE;
        if (note == MJ_NOTE_TAKEN)
            note = current ? MJ_NOTE_STALE : MJ_NOTE_OLD;
    } else if (e == DUP) {
        rc = note == MJ_NOTE_CONFLICT ? MJ_ESTALE : MJ_EDUPLICATE;
        if (note == MJ_NOTE_TAKEN)
            note = MJ_NOTE_DUPLICATE;
        if (sig.kind == SIG_SUCCEEDED || sig.kind == SIG_FAILED)
            fill(t, &sig);
    } else if (e == STAY) {
        rc = stay(t, &sig, rules, now);
        if (note == MJ_NOTE_CONFLICT && rc == MJ_OK)
            rc = MJ_ESTALE;
    } else {
        enter(t, (mj_state)(e - GO), &sig, rules, now, step);
    }
    plan_poll(t, &sig, rules, now);
    return tell(t, &before, &sig, conflict ? MJ_NOTE_CONFLICT : note, now, step, rc);
}

static bool is_ahead(int64_t at, int64_t now)
{
    return at - now > MJ_CLOCK_STEP_MS;
}

bool mj_state_rewind(mj_task *t, const mj_rules *rules, int64_t now)
{
    mj_signal told = {.kind = SIG_READY, .source = MJ_FROM_SWEEP, .error = MJ_LIT("the clock was set back")};
    int64_t wait = t->due_at - t->updated_at, end = now + (int64_t)t->timeout * 1000 + rules->grace_ms;
    bool ahead = is_ahead(t->updated_at, now); /* is so once: what is bounded is stored under the time that is right */
    mj_task before = *t;

    for (unsigned i = 0; i < t->nattempts; i++) {
        mj_attempt *a = &t->attempts[i];
        if (!is_ahead(a->submitted_at, now))
            continue;
        a->submitted_at = now;
        a->slot_until = a->slot_until > end ? end : a->slot_until;
    }
    if (t->expires_at != 0 && ahead && is_ahead(t->created_at, now))
        t->expires_at -= t->created_at - now;
    if (is_ahead(t->asked_at, now))
        t->asked_at = now;
    if (t->state == MJ_QUEUED && t->ready)
        t->due_at = t->expires_at;
    else if (ahead && t->due_at > now)
        t->due_at = t->state != MJ_AMBIGUOUS ? now : now + (wait > 0 ? wait : 0);
    if (mj_timeline_only(&before, t))
        return false;
    t->updated_at = now;
    mj_timeline_add(t, &told, MJ_NOTE_TAKEN, t->nattempts, t->state, now);
    return true;
}

void mj_state_create(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now)
{
    mj_attempt *a = &t->attempts[0];

    t->nattempts = 1;
    *a = (mj_attempt){.word = MJ_WORD_NONE};
    t->created_at = t->updated_at = now;
    t->state = MJ_QUEUED;
    t->ready = true;
    t->due_at = t->expires_at;
    t->adopted = sig->task_id.n > 0;
    if (t->adopted) {
        t->state = MJ_PENDING;
        t->ready = false;
        a->word = MJ_WORD_ACCEPTED;
        a->account = sig->account;
        bind_id(a, sig->task_id);
        hold(t, a, rules, now);
        t->due_at = mj_schedule_poll(t, sig, rules, now);
    }
    mj_timeline_add(t, sig, MJ_NOTE_TAKEN, 1, t->state, now);
}
