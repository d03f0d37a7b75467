#include "domain/measure.h"

#include "base/error.h"

#include <string.h>

enum {
    MEASURES_V1 = 1,
    HOUR_MS = 3600000,
    SAMPLES = 32,     /* callbacks of a mode before they say when one is late */
    REMEMBER = 2048,  /* callbacks of a mode; then all buckets are halved, so that old ones fade */
    PERCENT = 95,     /* of callbacks come before the first poll; issue 6 */
    FIRST_MIN = 5000, /* ms: no sooner is a callback late */
    JUDGE = 10,       /* tasks that have to have ended before anything is said */
    BROKEN = 50,      /* percent of them without a callback: the webhook is broken */
    MEND = 5,         /* callbacks since then that may say that it works again ... */
    MENDED = 25,      /* ... when at most this percentage of the tasks since then had none */
    HURRY_MAX = 120000,
};

static const uint32_t bounds[MJ_NBUCKETS - 1] = {MJ_LATENCY_BOUNDS};

const char *mj_count_name(unsigned count)
{
    static const char *const names[] = {
#define X(sym, name) name,
        MJ_COUNTS(X)
#undef X
    };
    return count < MJ_NCOUNTS ? names[count] : "?";
}

uint32_t mj_latency_bound(unsigned bucket)
{
    return bucket < MJ_NBUCKETS - 1 ? bounds[bucket] : 0;
}

/* ---- the record: each list tells its length, so that it may grow ---- */

static void put_list(mj_buf *b, const uint64_t *v, unsigned n)
{
    mj_put_u8(b, (uint8_t)n);
    for (unsigned i = 0; i < n; i++)
        mj_put_uint(b, v[i]);
}

static void get_list(mj_reader *r, uint64_t *v, unsigned n)
{
    unsigned given = mj_get_u8(r);

    for (unsigned i = 0; i < given && !r->bad; i++) {
        uint64_t one = mj_get_uint(r);
        if (i < n)
            v[i] = one;
    }
}

int mj_measures_encode(const mj_measures *m, mj_buf *b)
{
    mj_put_u8(b, MEASURES_V1);
    put_list(b, m->counts, MJ_NCOUNTS);
    for (unsigned i = 0; i < MJ_NMODES; i++) {
        put_list(b, m->ends[i].bucket, MJ_NBUCKETS);
        mj_put_uint(b, m->ends[i].sum_ms);
        put_list(b, m->calls[i].bucket, MJ_NBUCKETS);
        mj_put_uint(b, m->calls[i].sum_ms);
    }
    for (unsigned i = 0; i < MJ_NHOURS; i++) {
        mj_put_int(b, m->hours[i].hour);
        mj_put_uint(b, m->hours[i].ended);
        mj_put_uint(b, m->hours[i].called);
    }
    mj_put_int(b, m->judged_from);
    mj_put_uint(b, m->ended);
    mj_put_uint(b, m->called);
    mj_put_int(b, m->broken_since);
    mj_put_int(b, m->swept_at);
    mj_put_int(b, m->sweep_ms);
    mj_put_int(b, m->answered_at);
    return b->failed ? MJ_ENOMEM : MJ_OK;
}

int mj_measures_decode(mj_str bytes, mj_measures *out)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    mj_measures m = {0};

    if (mj_get_u8(&r) != MEASURES_V1)
        return r.bad ? MJ_ECORRUPT : MJ_ESCHEMA;
    get_list(&r, m.counts, MJ_NCOUNTS);
    for (unsigned i = 0; i < MJ_NMODES; i++) {
        get_list(&r, m.ends[i].bucket, MJ_NBUCKETS);
        m.ends[i].sum_ms = mj_get_uint(&r);
        get_list(&r, m.calls[i].bucket, MJ_NBUCKETS);
        m.calls[i].sum_ms = mj_get_uint(&r);
    }
    for (unsigned i = 0; i < MJ_NHOURS; i++) {
        m.hours[i].hour = mj_get_int(&r);
        m.hours[i].ended = mj_get_u32(&r);
        m.hours[i].called = mj_get_u32(&r);
    }
    m.judged_from = mj_get_int(&r);
    m.ended = mj_get_u32(&r);
    m.called = mj_get_u32(&r);
    m.broken_since = mj_get_int(&r);
    m.swept_at = mj_get_int(&r);
    m.sweep_ms = mj_get_int(&r);
    m.answered_at = mj_get_int(&r);
    if (r.bad)
        return MJ_ECORRUPT;
    *out = m;
    return MJ_OK;
}

/* ---- counting ---- */

void mj_measure_count(mj_measures *m, mj_count count, uint64_t n)
{
    m->counts[count] += n;
    m->changed = true;
}

static uint64_t samples(const mj_histogram *h)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < MJ_NBUCKETS; i++)
        n += h->bucket[i];
    return n;
}

static void observe(mj_histogram *h, int64_t ms)
{
    unsigned i = 0;

    if (ms < 0)
        ms = 0; /* a clock that was stepped back */
    while (i < MJ_NBUCKETS - 1 && ms > (int64_t)bounds[i] * 1000)
        i++;
    h->bucket[i]++;
    h->sum_ms += (uint64_t)ms;
}

static void remember(mj_histogram *h, int64_t ms)
{
    observe(h, ms);
    if (samples(h) < REMEMBER)
        return;
    for (unsigned i = 0; i < MJ_NBUCKETS; i++)
        h->bucket[i] /= 2;
    h->sum_ms /= 2;
}

static mj_hour *hour_of(mj_measures *m, int64_t now)
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

static void count_submit(mj_measures *m, mj_signal_kind kind)
{
    switch (kind) {
    case SIG_ACCEPTED:
        mj_measure_count(m, MJ_SUBMIT_ACCEPTED, 1);
        break;
    case SIG_REFUSED:
        mj_measure_count(m, MJ_SUBMIT_REFUSED, 1);
        break;
    case SIG_REJECTED:
        mj_measure_count(m, MJ_SUBMIT_REJECTED, 1);
        break;
    case SIG_NOT_SENT:
        mj_measure_count(m, MJ_SUBMIT_NOT_SENT, 1);
        break;
    case SIG_MAYBE_SENT:
        mj_measure_count(m, MJ_SUBMIT_MAYBE, 1);
        break;
    default:
        break;
    }
}

static bool is_ended(mj_state s)
{
    return s == MJ_SUCCEEDED || s == MJ_FAILED;
}

/* The provider's last word came: by whom, how soon, and had there been a callback? */
static void count_end(mj_measures *m, const mj_task *t, const mj_attempt *a, mj_source source, int64_t now)
{
    mj_hour *h = hour_of(m, now);

    mj_measure_count(m, source == MJ_FROM_CALLBACK ? MJ_ENDED_CALLBACK : MJ_ENDED_POLL, 1);
    if (a->submitted_at > 0)
        observe(&m->ends[t->mode], now - a->submitted_at);
    if (t->adopted) /* submitted elsewhere, with somebody else's hook */
        return;
    h->ended++;
    m->ended++;
    if (t->called_at != 0) {
        h->called++;
        m->called++;
    }
}

void mj_measure_signal(mj_measures *m, mj_before before, const mj_task *t, const mj_signal *sig, int code,
                       const mj_effect *effect, int64_t now)
{
    uint32_t n = effect->attempt ? effect->attempt : t->nattempts;
    const mj_attempt *a = &t->attempts[n <= t->nattempts ? n - 1 : 0];
    bool first_call = before.called_at == 0 && t->called_at != 0;

    if (sig->source == MJ_FROM_CALLBACK)
        mj_measure_count(m, callback_count(sig, code), 1);
    else if (sig->source == MJ_FROM_SUBMIT)
        count_submit(m, sig->kind);
    else if (sig->source == MJ_FROM_POLL)
        mj_measure_count(m, sig->kind == SIG_UNANSWERED ? MJ_POLL_UNANSWERED : MJ_POLL_ANSWERED, 1);
    if (sig->source == MJ_FROM_POLL && sig->kind != SIG_UNANSWERED)
        m->answered_at = now;
    if (!effect->changed || n > t->nattempts)
        return;
    if (is_ended(t->state) && !t->decided && effect->event != MJ_EVENT_NONE)
        count_end(m, t, a, sig->source, now);
    else if (first_call && is_ended(before.state) && !t->adopted) { /* polling was faster, but it did come */
        hour_of(m, now)->called++;
        m->called++;
    }
    if (first_call && a->submitted_at > 0 && (sig->kind == SIG_SUCCEEDED || sig->kind == SIG_FAILED))
        remember(&m->calls[t->mode], now - a->submitted_at);
}

/* ---- judging ---- */

void mj_measure_recent(const mj_measures *m, int64_t now, uint32_t *ended, uint32_t *called)
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
        *called = *ended; /* of tasks that ended before */
}

/* Percent. */
static unsigned missed(uint32_t ended, uint32_t called)
{
    return called >= ended ? 0 : (unsigned)((uint64_t)(ended - called) * 100 / ended);
}

mj_verdict mj_measure_sweep(mj_measures *m, bool judge, int64_t elapsed_ms, int64_t now)
{
    uint32_t n, came;

    m->swept_at = now;
    m->sweep_ms = elapsed_ms < 0 ? 0 : elapsed_ms;
    mj_measure_count(m, MJ_SWEEPS, 1);
    if (!judge)
        return MJ_VERDICT_SAME;
    if (m->broken_since != 0) {
        bool mended = m->called >= MEND && missed(m->ended, m->called) <= MENDED;
        if (mended) {
            m->broken_since = 0;
            m->judged_from = now;
        }
        if (mended || m->ended >= JUDGE) /* judged; the next few are judged by themselves */
            m->ended = m->called = 0;
        return mended ? MJ_VERDICT_MENDED : MJ_VERDICT_SAME;
    }
    mj_measure_recent(m, now, &n, &came);
    if (m->judged_from > now - 2 * (int64_t)HOUR_MS) { /* what ended before it was mended says nothing of it now */
        n = m->ended;
        came = m->called;
    }
    if (n < JUDGE || missed(n, came) <= BROKEN)
        return MJ_VERDICT_SAME;
    m->broken_since = now;
    m->ended = m->called = 0;
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

mj_rules mj_measure_rules(const mj_measures *m, const mj_rules *given)
{
    mj_rules r = *given;

    if (!given->learn)
        return r;
    for (unsigned mode = 0; mode < MJ_NMODES; mode++) {
        int64_t ms = late_after(&m->calls[mode]);
        if (ms == 0)
            continue;
        ms = ms < FIRST_MIN ? FIRST_MIN : ms;
        r.first_ms[mode] = ms < given->poll_max_ms ? ms : given->poll_max_ms;
    }
    if (m->broken_since != 0) { /* nobody but the polls will tell */
        r.poll_max_ms = given->poll_max_ms < HURRY_MAX ? given->poll_max_ms : HURRY_MAX;
        r.poll_first_ms = given->poll_first_ms / 2;
        for (unsigned mode = 0; mode < MJ_NMODES; mode++)
            r.first_ms[mode] /= 2;
    }
    return r;
}
