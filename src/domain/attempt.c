#include "domain/attempt.h"

mj_note mj_attempt_bind(mj_attempt *a, mj_str id)
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

void mj_attempt_hold(const mj_task *t, mj_attempt *a, const mj_rules *rules, int64_t now)
{
    if (a->submitted_at == 0)
        a->submitted_at = now;
    a->slot_until = a->submitted_at + (int64_t)t->timeout * 1000 + rules->grace_ms;
    a->slot = a->account.n > 0 && a->slot_until > now;
}

bool mj_attempt_nameless(const mj_attempt *a, const mj_signal *sig)
{
    return (mj_signal_is_word(sig->kind) || sig->kind == SIG_ACCEPTED) && sig->task_id.n == 0 && a->nids == 0;
}

mj_note mj_attempt_hear(const mj_task *t, mj_attempt *a, const mj_signal *sig, const mj_rules *rules, int64_t now)
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
        mj_attempt_hold(t, a, rules, now);
        return note;
    case SIG_ACCEPTED:
    case SIG_RUNNING:
    case SIG_HINT:
        note = mj_attempt_bind(a, sig->task_id);
        if (final || a->word == MJ_WORD_ACCEPTED)
            return sig->kind == SIG_ACCEPTED && note == MJ_NOTE_TAKEN ? MJ_NOTE_DUPLICATE : note;
        if (!open)
            mj_attempt_hold(t, a, rules, now);
        a->word = MJ_WORD_ACCEPTED;
        return note;
    case SIG_LOOK:
        return mj_attempt_bind(a, sig->task_id);
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
        note = mj_attempt_bind(a, sig->task_id);
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

bool mj_attempt_can_look(const mj_task *t, const mj_attempt *a)
{
    if (a->nids == 0 || a->word == MJ_WORD_SUCCEEDED || a->word == MJ_WORD_FAILED)
        return false; /* no id to ask about, or nothing left to learn */
    return t->state != MJ_CANCELLED || a->slot;
}

/* A task id that belongs to another task, or to another attempt than the signal names, is a conflict: the URL of an
 * attempt is good for that attempt alone, and what comes with it is no word about another one.  Only the answer to a
 * submission tells something all the same: the request arrived, and under which id is not known. */
bool mj_attempt_conflicts(mj_signal *sig, const mj_attempt *a, uint32_t n, uint32_t known)
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
