#include "domain/silence.h"

enum {
    BELIEVE_ABSENCES = 3,    /* a task is lost when so many answers did not have it ... */
    ABSENCE_SPAN_MS = 600000 /* ... over at least ten minutes */
};

bool mj_silence_lost(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t gap, int64_t now)
{
    const mj_attempt *a = mj_task_current(t);

    /* A gap of more than two waits was an outage, not the provider's silence; nor is a stepped clock silence. */
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

int64_t mj_silence_asked(mj_task *t, const mj_signal *sig, int64_t now)
{
    int64_t gap = t->asked_at ? now - t->asked_at : 0;

    if (sig->source != MJ_FROM_POLL || !(mj_signal_is_answer(sig->kind) || sig->kind == SIG_UNANSWERED))
        return 0;
    t->asked_at = now;
    t->polls += mj_signal_is_answer(sig->kind);
    return gap;
}
