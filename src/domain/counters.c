#include "domain/counters.h"

#include "base/error.h"

#include <string.h>

enum {
    HOUR_MS = 3600000,
    SAMPLES = 32,     /* callbacks of a mode, at least, before the schedule adapts */
    REMEMBER = 2048,  /* callbacks of a mode that count; then half of each bucket fades */
    PERCENT = 95,     /* of callbacks come before the first poll */
    FIRST_MIN = 5000, /* ms: a callback is never late sooner */
    JUDGE = 10,       /* ended tasks, at least, before there is a verdict */
    BROKEN = 50,      /* percent without a callback: the webhook is broken */
    MEND = 5,         /* callbacks since then, at least, before it may work again ... */
    MENDED = 25,      /* ... if at most this percentage of the tasks since then had none */
    HURRY_MAX = 120000,
};

static const uint32_t bounds[MJ_NBUCKETS - 1] = {MJ_LATENCY_BOUNDS};

const char *mj_count_name(unsigned count)
{
    static const char *const names[] = {MJ_COUNTS(MJ_NAME)};
    return count < MJ_NCOUNTS ? names[count] : "?";
}

uint32_t mj_latency_bound(unsigned bucket)
{
    return bucket < MJ_NBUCKETS - 1 ? bounds[bucket] : 0;
}

/* ---- sums ---- */

static void add_histogram(mj_histogram *to, const mj_histogram *add)
{
    for (unsigned i = 0; i < MJ_NBUCKETS; i++)
        to->bucket[i] += add->bucket[i];
    to->sum_ms += add->sum_ms;
}

void mj_counters_add(mj_counters *to, const mj_counters *add, bool set_back, int64_t now)
{
    for (unsigned i = 0; i < MJ_NCOUNTS; i++)
        to->counts[i] += add->counts[i];
    for (unsigned i = 0; i < MJ_NMODES; i++) {
        add_histogram(&to->ends[i], &add->ends[i]);
        add_histogram(&to->calls[i], &add->calls[i]);
    }
    to->ended += add->ended;
    to->called += add->called;
    for (unsigned i = 0; i < MJ_NHOURS; i++) {
        mj_hour *h = &to->hours[i];
        const mj_hour *more = &add->hours[i];
        if (set_back && h->hour > now / HOUR_MS)
            *h = (mj_hour){0};
        if (more->hour > h->hour)
            *h = *more;
        else if (more->hour == h->hour) {
            h->ended += more->ended;
            h->called += more->called;
        }
    }
    if (add->answered_at > to->answered_at)
        to->answered_at = add->answered_at;
    if (set_back && to->answered_at > now)
        to->answered_at = now;
}

/* ---- counting ---- */

void mj_counters_count(mj_counters *m, mj_count count, uint64_t n)
{
    m->counts[count] += n;
}

static void observe(mj_histogram *h, int64_t ms)
{
    unsigned i = 0;

    if (ms < 0)
        ms = 0; /* the clock stepped back */
    while (i < MJ_NBUCKETS - 1 && ms > (int64_t)bounds[i] * 1000)
        i++;
    h->bucket[i]++;
    h->sum_ms += (uint64_t)ms;
}

static mj_hour *hour_of(mj_counters *m, int64_t now)
{
    int64_t hour = now / HOUR_MS;
    mj_hour *h = &m->hours[hour % MJ_NHOURS];

    if (h->hour != hour)
        *h = (mj_hour){.hour = hour};
    return h;
}

static mj_count callback_count(const mj_signal *sig, int code)
{
    if (code == MJ_EUNKNOWN)
        return MJ_CALLBACK_UNKNOWN;
    if (code == MJ_OK)
        return sig->kind == SIG_LOOK ? MJ_CALLBACK_HINT : MJ_CALLBACK_STORED;
    return code == MJ_EDUPLICATE ? MJ_CALLBACK_DUPLICATE : MJ_CALLBACK_STALE;
}

static void count_submit(mj_counters *m, mj_signal_kind kind)
{
    switch (kind) {
    case SIG_ACCEPTED:
        mj_counters_count(m, MJ_SUBMIT_ACCEPTED, 1);
        break;
    case SIG_REFUSED:
        mj_counters_count(m, MJ_SUBMIT_REFUSED, 1);
        break;
    case SIG_REJECTED:
        mj_counters_count(m, MJ_SUBMIT_REJECTED, 1);
        break;
    case SIG_NOT_SENT:
        mj_counters_count(m, MJ_SUBMIT_NOT_SENT, 1);
        break;
    case SIG_MAYBE_SENT:
        mj_counters_count(m, MJ_SUBMIT_MAYBE, 1);
        break;
    default:
        break;
    }
}

static bool is_ended(mj_state s)
{
    return s == MJ_SUCCEEDED || s == MJ_FAILED;
}

/* The provider's final status came: from which source, how soon, and after a callback? */
static void count_end(mj_counters *m, const mj_task *t, const mj_attempt *a, mj_source source, int64_t now)
{
    mj_hour *h = hour_of(m, now);

    mj_counters_count(m, source == MJ_FROM_CALLBACK ? MJ_ENDED_CALLBACK : MJ_ENDED_POLL, 1);
    if (a->submitted_at > 0)
        observe(&m->ends[t->mode], now - a->submitted_at);
    if (t->adopted) /* submitted elsewhere, with another hook_url */
        return;
    h->ended++;
    m->ended++;
    if (t->called_at != 0) {
        h->called++;
        m->called++;
    }
}

void mj_counters_signal(mj_counters *m, mj_before before, const mj_task *t, const mj_signal *sig, int code,
                        const mj_effect *effect, int64_t now)
{
    uint32_t n = effect->attempt ? effect->attempt : t->nattempts;
    const mj_attempt *a = &t->attempts[n <= t->nattempts ? n - 1 : 0];
    bool first_call = before.called_at == 0 && t->called_at != 0;

    if (sig->source == MJ_FROM_CALLBACK)
        mj_counters_count(m, callback_count(sig, code), 1);
    else if (sig->source == MJ_FROM_SUBMIT)
        count_submit(m, sig->kind);
    else if (sig->source == MJ_FROM_POLL)
        mj_counters_count(m, sig->kind == SIG_UNANSWERED ? MJ_POLL_UNANSWERED : MJ_POLL_ANSWERED, 1);
    if (sig->source == MJ_FROM_POLL && sig->kind != SIG_UNANSWERED)
        m->answered_at = now;
    if (!effect->changed || n > t->nattempts)
        return;
    if (is_ended(t->state) && !t->decided && effect->event != MJ_EVENT_NONE)
        count_end(m, t, a, sig->source, now);
    else if (first_call && is_ended(before.state) && !t->adopted) { /* polling was faster, but the callback did come */
        hour_of(m, now)->called++;
        m->called++;
    }
    if (first_call && a->submitted_at > 0 && (sig->kind == SIG_SUCCEEDED || sig->kind == SIG_FAILED))
        observe(&m->calls[t->mode], now - a->submitted_at);
}

/* ---- judging ---- */

void mj_counters_recent(const mj_counters *m, int64_t now, uint32_t *ended, uint32_t *called)
{
    int64_t hour = now / HOUR_MS;

    *ended = *called = 0;
    for (unsigned i = 0; i < MJ_NHOURS; i++) {
        const mj_hour *h = &m->hours[i];
        if (h->hour < hour - 1 || h->hour > hour || h->hour == 0)
            continue;
        *ended += h->ended;
        *called += h->called;
    }
    if (*called > *ended)
        *called = *ended; /* a callback for a task that ended before */
}

/* Percent. */
static unsigned missed(uint32_t ended, uint32_t called)
{
    return called >= ended ? 0 : (unsigned)((uint64_t)(ended - called) * 100 / ended);
}

static uint64_t samples(const mj_histogram *h)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < MJ_NBUCKETS; i++)
        n += h->bucket[i];
    return n;
}

/* The callbacks' latencies that count. */
static mj_histogram recent(const mj_counters *m, const mj_judged *j, unsigned mode)
{
    mj_histogram h = m->calls[mode];

    for (unsigned i = 0; i < MJ_NBUCKETS; i++)
        h.bucket[i] -= h.bucket[i] < j->faded[mode].bucket[i] ? h.bucket[i] : j->faded[mode].bucket[i];
    h.sum_ms -= h.sum_ms < j->faded[mode].sum_ms ? h.sum_ms : j->faded[mode].sum_ms;
    return h;
}

/* When there are too many, half of each bucket fades, so that new ones weigh more. */
static void fade(const mj_counters *m, mj_judged *j, unsigned mode)
{
    mj_histogram h = recent(m, j, mode);

    for (; samples(&h) >= REMEMBER; h = recent(m, j, mode)) {
        for (unsigned i = 0; i < MJ_NBUCKETS; i++)
            j->faded[mode].bucket[i] += h.bucket[i] - h.bucket[i] / 2;
        j->faded[mode].sum_ms += h.sum_ms - h.sum_ms / 2;
    }
}

/* The sums of other writers may be some seconds old, and so too small. */
static uint32_t more_than(uint64_t now, uint64_t then)
{
    return now > then ? (uint32_t)(now - then) : 0;
}

static void verdict_changed(const mj_counters *m, mj_judged *j)
{
    j->ended = m->ended;
    j->called = m->called;
}

mj_verdict mj_counters_reconciled(const mj_counters *m, mj_judged *j, bool judge, int64_t elapsed_ms, int64_t now)
{
    uint32_t since = more_than(m->ended, j->ended), called_since = more_than(m->called, j->called), n, came;

    j->reconciled_at = now;
    j->reconcile_ms = elapsed_ms < 0 ? 0 : elapsed_ms;
    for (unsigned mode = 0; mode < MJ_NMODES; mode++)
        fade(m, j, mode);
    if (!judge)
        return MJ_VERDICT_SAME;
    if (j->broken_since != 0) {
        bool mended = called_since >= MEND && missed(since, called_since) <= MENDED;
        if (mended) {
            j->broken_since = 0;
            j->judged_from = now;
        }
        if (mended || since >= JUDGE) /* judged; count from here for the next verdict */
            verdict_changed(m, j);
        return mended ? MJ_VERDICT_MENDED : MJ_VERDICT_SAME;
    }
    mj_counters_recent(m, now, &n, &came);
    if (j->judged_from > now - 2 * (int64_t)HOUR_MS) { /* tasks that ended before it was mended do not count now */
        n = since;
        came = called_since;
    }
    if (n < JUDGE || missed(n, came) <= BROKEN)
        return MJ_VERDICT_SAME;
    j->broken_since = now;
    verdict_changed(m, j);
    return MJ_VERDICT_BROKEN;
}

static int64_t late_after(const mj_histogram *h)
{
    uint64_t n = samples(h), seen = 0;

    if (n < SAMPLES)
        return 0;
    for (unsigned i = 0; i < MJ_NBUCKETS - 1; i++) {
        seen += h->bucket[i];
        if (seen * 100 >= n * PERCENT)
            return (int64_t)bounds[i] * 1000;
    }
    return (int64_t)bounds[MJ_NBUCKETS - 2] * 1000;
}

/* How soon jobs may be done when only a poll can tell: the time of the fastest tenth.  The lower bound of the bucket,
 * since a job is done before the poll that finds it. */
static int64_t done_after(const mj_histogram *h)
{
    uint64_t n = samples(h), seen = 0;

    for (unsigned i = 0; n >= SAMPLES && i < MJ_NBUCKETS; i++) {
        seen += h->bucket[i];
        if (seen * 10 >= n)
            return i > 0 ? (int64_t)bounds[i - 1] * 1000 : 1;
    }
    return 0;
}

mj_rules mj_counters_rules(const mj_counters *m, const mj_judged *j, const mj_rules *given)
{
    mj_rules r = *given;

    if (!given->adapt)
        return r;
    for (unsigned mode = 0; mode < MJ_NMODES; mode++) {
        mj_histogram h = recent(m, j, mode);
        int64_t ms = given->polled ? done_after(&m->ends[mode]) : late_after(&h);
        if (ms == 0)
            continue;
        ms = ms < FIRST_MIN ? FIRST_MIN : ms;
        r.first_ms[mode] = ms < given->poll_max_ms ? ms : given->poll_max_ms;
    }
    if (j->broken_since != 0) { /* only polls tell */
        r.poll_max_ms = given->poll_max_ms < HURRY_MAX ? given->poll_max_ms : HURRY_MAX;
        r.poll_first_ms = given->poll_first_ms / 2;
        for (unsigned mode = 0; mode < MJ_NMODES; mode++)
            r.first_ms[mode] /= 2;
    }
    return r;
}
