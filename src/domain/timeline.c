#include "domain/timeline.h"

#include "base/error.h"
#include "domain/schedule.h"

#include <string.h>

enum {
    FIRST_ENTRIES = 4, /* a full timeline keeps its first entries: they tell how it began */
    GAP_MS = 1000,     /* a change of the timeline alone is written at most this often */
};

static bool same_entry(const mj_timeline_entry *a, const mj_timeline_entry *b)
{
    return a->signal == b->signal && a->result == b->result && a->source == b->source && a->from == b->from &&
           a->to == b->to && a->attempt == b->attempt && mj_str_eq(a->reason, b->reason);
}

void mj_timeline_add(mj_task *t, const mj_signal *sig, mj_result result, uint32_t attempt, mj_state from, int64_t now)
{
    mj_timeline_entry m = {.at = now,
                           .until = now,
                           .count = 1,
                           .attempt = attempt,
                           .signal = (uint8_t)sig->kind,
                           .result = (uint8_t)result,
                           .source = sig->source,
                           .from = from,
                           .to = t->state,
                           .reason = mj_str_head(sig->error.n ? sig->error : sig->remark, MJ_MAX_REASON)};

    if (t->ntimeline > 0 && same_entry(&t->timeline[t->ntimeline - 1], &m)) {
        t->timeline[t->ntimeline - 1].count++;
        t->timeline[t->ntimeline - 1].until = now;
        return;
    }
    if (t->ntimeline == MJ_MAX_TIMELINE) {
        memmove(&t->timeline[FIRST_ENTRIES], &t->timeline[FIRST_ENTRIES + 1],
                (MJ_MAX_TIMELINE - FIRST_ENTRIES - 1) * sizeof m);
        t->ntimeline--;
        t->forgotten++;
    }
    t->timeline[t->ntimeline++] = m;
}

bool mj_timeline_fresh(const mj_task *t, int64_t now)
{
    const mj_timeline_entry *m = t->ntimeline > 0 ? &t->timeline[t->ntimeline - 1] : NULL;

    /* A repeated hint is taken each time, but tells nothing new. */
    return m && (m->result != MJ_RESULT_TAKEN || m->signal == SIG_HINT) && now >= m->until && now - m->until < GAP_MS;
}

static bool same_attempt(const mj_attempt *a, const mj_attempt *b)
{
    return a->status == b->status && a->slot == b->slot && a->submitted_at == b->submitted_at &&
           a->slot_until == b->slot_until && a->nids == b->nids && mj_str_eq(a->account, b->account);
}

static bool same_numbers(const mj_task *a, const mj_task *b)
{
    return a->state == b->state && a->source == b->source && a->ready == b->ready && a->late == b->late &&
           a->decided == b->decided && a->has_owner == b->has_owner && a->polls == b->polls && a->absent == b->absent &&
           a->hints == b->hints && a->tries == b->tries && a->finished_at == b->finished_at && a->due_at == b->due_at &&
           a->expires_at == b->expires_at && a->absent_since == b->absent_since && a->silent_ms == b->silent_ms &&
           a->called_at == b->called_at && a->asked_at == b->asked_at && a->nimages == b->nimages &&
           a->nattempts == b->nattempts;
}

static bool same_texts(const mj_task *a, const mj_task *b)
{
    return mj_str_eq(a->prompt, b->prompt) && mj_str_eq(a->mj_prompt, b->mj_prompt) && mj_str_eq(a->image, b->image) &&
           mj_str_eq(a->meta, b->meta) && mj_str_eq(a->error_code, b->error_code) && mj_str_eq(a->error, b->error) &&
           mj_str_eq(a->files, b->files);
}

bool mj_timeline_only(const mj_task *a, const mj_task *b)
{
    if (!same_numbers(a, b) || !same_texts(a, b))
        return false;
    for (unsigned i = 0; i < a->nattempts; i++)
        if (!same_attempt(&a->attempts[i], &b->attempts[i]))
            return false;
    for (unsigned i = 0; i < a->nimages; i++)
        if (!mj_image_url_eq(&a->images[i], &b->images[i]))
            return false;
    return true;
}

/* A callback that reports progress: its only fact is that the job still runs. */
static bool is_progress(const mj_signal *sig, mj_result result)
{
    return sig->kind == SIG_RUNNING && sig->source == MJ_FROM_CALLBACK && result != MJ_RESULT_CONFLICT;
}

int mj_timeline_tell(mj_task *t, const mj_task *before, const mj_signal *sig, mj_result result, int64_t now,
                     mj_effect *effect, int rc)
{
    int64_t called_at = t->called_at;

    if (is_progress(sig, result)) {
        t->called_at = before->called_at; /* that a callback came is no fact by itself */
        if (mj_timeline_only(before, t))
            return rc;
        t->called_at = called_at;
    }
    if (mj_timeline_only(before, t)) {
        /* It asks for no earlier poll than the due one.  That it came is noted once before each poll, for the
         * schedule. */
        if (sig->kind == SIG_LOOK && result != MJ_RESULT_CONFLICT && (rc != MJ_EDUPLICATE || mj_schedule_hinted(t)))
            return rc;
        effect->withheld = sig->source == MJ_FROM_CALLBACK && mj_timeline_fresh(t, now);
        if (effect->withheld)
            return rc;
    }
    effect->changed = true;
    t->updated_at = now;
    mj_timeline_add(t, sig, result, effect->attempt, before->state, now);
    return rc;
}
