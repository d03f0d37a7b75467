#include "domain/timeline.h"

static bool is_ahead(int64_t at, int64_t now)
{
    return at - now > MJ_CLOCK_STEP_MS;
}

bool mj_state_rewind(mj_task *t, const mj_rules *rules, int64_t now)
{
    mj_signal told = {.kind = SIG_READY, .source = MJ_FROM_SWEEP, .error = MJ_LIT("the clock was set back")};
    int64_t wait = t->due_at - t->updated_at, end = now + (int64_t)t->timeout * 1000 + rules->grace_ms;
    bool ahead = is_ahead(t->updated_at, now); /* true only once: the record is then stored with the right time */
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
    mj_timeline_add(t, &told, MJ_RESULT_TAKEN, t->nattempts, t->state, now);
    return true;
}
