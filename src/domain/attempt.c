#include "domain/attempt.h"

mj_result mj_attempt_bind(mj_attempt *a, mj_str id)
{
    for (unsigned i = 0; i < a->nids; i++)
        if (mj_str_eq(a->ids[i], id))
            return MJ_RESULT_TAKEN;
    if (id.n == 0)
        return MJ_RESULT_TAKEN;
    if (a->nids < MJ_MAX_IDS)
        a->ids[a->nids++] = id;
    return a->nids > 1 ? MJ_RESULT_CONFLICT : MJ_RESULT_TAKEN;
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
    return (mj_signal_is_status(sig->kind) || sig->kind == SIG_ACCEPTED) && sig->task_id.n == 0 && a->nids == 0;
}

mj_result mj_attempt_hear(const mj_task *t, mj_attempt *a, const mj_signal *sig, const mj_rules *rules, int64_t now)
{
    bool open = a->status == MJ_ATTEMPT_INTENT || a->status == MJ_ATTEMPT_MAYBE;
    bool final = a->status == MJ_ATTEMPT_SUCCEEDED || a->status == MJ_ATTEMPT_FAILED;
    mj_attempt_status status = sig->kind == SIG_SUCCEEDED ? MJ_ATTEMPT_SUCCEEDED : MJ_ATTEMPT_FAILED;
    mj_result result = MJ_RESULT_TAKEN;

    switch (sig->kind) {
    case SIG_CLAIM:
        a->status = MJ_ATTEMPT_INTENT;
        a->account = sig->account;
        a->submitted_at = now;
        mj_attempt_hold(t, a, rules, now);
        return result;
    case SIG_ACCEPTED:
    case SIG_RUNNING:
    case SIG_HINT:
        result = mj_attempt_bind(a, sig->task_id);
        if (final || a->status == MJ_ATTEMPT_ACCEPTED)
            return sig->kind == SIG_ACCEPTED && result == MJ_RESULT_TAKEN ? MJ_RESULT_DUPLICATE : result;
        if (!open)
            mj_attempt_hold(t, a, rules, now);
        a->status = MJ_ATTEMPT_ACCEPTED;
        return result;
    case SIG_LOOK:
        return mj_attempt_bind(a, sig->task_id);
    case SIG_NOT_SENT:
    case SIG_REFUSED:
    case SIG_REJECTED:
        if (!open)
            return MJ_RESULT_STALE;
        a->status = MJ_ATTEMPT_REFUSED;
        a->slot = false;
        return result;
    case SIG_MAYBE_SENT:
    case SIG_OWNER_DEAD:
        if (!open)
            return MJ_RESULT_STALE;
        a->status = MJ_ATTEMPT_MAYBE;
        return result;
    case SIG_SUCCEEDED:
    case SIG_FAILED:
        result = mj_attempt_bind(a, sig->task_id);
        if (final)
            return a->status == status ? MJ_RESULT_DUPLICATE : MJ_RESULT_CONTRADICTION;
        a->status = status;
        a->slot = false;
        return result;
    case SIG_SLOT_END:
        if (!a->slot || now < a->slot_until)
            return MJ_RESULT_STALE;
        a->slot = false;
        return result;
    default:
        return result;
    }
}

bool mj_attempt_can_look(const mj_task *t, const mj_attempt *a)
{
    if (a->nids == 0 || a->status == MJ_ATTEMPT_SUCCEEDED || a->status == MJ_ATTEMPT_FAILED)
        return false; /* no id to ask about, or nothing left to learn */
    return t->state != MJ_CANCELLED || a->slot;
}

/* A task id of another task, or of another attempt than the signal names, is a conflict: the URL of an attempt is good
 * for that attempt alone, so the signal says nothing about the other one.  The answer to a submission still tells
 * something: the request arrived, under an id that is not known. */
bool mj_attempt_conflicts(mj_signal *sig, const mj_attempt *a, uint32_t n, uint32_t known)
{
    if (!sig->foreign_id && (known == 0 || known == n))
        return false;
    if (sig->kind == SIG_ACCEPTED && a->status == MJ_ATTEMPT_INTENT) {
        sig->kind = SIG_MAYBE_SENT;
        sig->task_id = (mj_str){0};
        sig->error_code = MJ_LIT("conflict");
        sig->error = MJ_LIT("the provider answered with the task id of another submission");
    }
    return true;
}
