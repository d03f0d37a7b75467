/* The records of mj_counters and mj_judged.  Each list has a length, so that it may grow. */
#include "base/error.h"
#include "domain/counters.h"

#include <string.h>

enum {
    COUNTERS_V1 = 1, /* sums and judgement in one */
    COUNTERS_V2 = 2,
    JUDGED_V1 = 1
};

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

static void put_histogram(mj_buf *b, const mj_histogram *h)
{
    put_list(b, h->bucket, MJ_NBUCKETS);
    mj_put_uint(b, h->sum_ms);
}

static void get_histogram(mj_reader *r, mj_histogram *h)
{
    get_list(r, h->bucket, MJ_NBUCKETS);
    h->sum_ms = mj_get_uint(r);
}

int mj_counters_encode(const mj_counters *m, mj_buf *b)
{
    mj_put_u8(b, COUNTERS_V2);
    put_list(b, m->counts, MJ_NCOUNTS);
    for (unsigned i = 0; i < MJ_NMODES; i++) {
        put_histogram(b, &m->ends[i]);
        put_histogram(b, &m->calls[i]);
    }
    for (unsigned i = 0; i < MJ_NHOURS; i++) {
        mj_put_int(b, m->hours[i].hour);
        mj_put_uint(b, m->hours[i].ended);
        mj_put_uint(b, m->hours[i].called);
    }
    mj_put_uint(b, m->ended);
    mj_put_uint(b, m->called);
    mj_put_int(b, m->answered_at);
    return b->failed ? MJ_ENOMEM : MJ_OK;
}

/* The common start of both versions. */
static void get_sums(mj_reader *r, mj_counters *m)
{
    get_list(r, m->counts, MJ_NCOUNTS);
    for (unsigned i = 0; i < MJ_NMODES; i++) {
        get_histogram(r, &m->ends[i]);
        get_histogram(r, &m->calls[i]);
    }
    for (unsigned i = 0; i < MJ_NHOURS; i++) {
        m->hours[i].hour = mj_get_int(r);
        m->hours[i].ended = mj_get_u32(r);
        m->hours[i].called = mj_get_u32(r);
    }
}

void mj_counters_read(mj_reader *r, mj_counters *m)
{
    memset(m, 0, sizeof *m);
    r->bad = r->bad || mj_get_u8(r) != COUNTERS_V2;
    get_sums(r, m);
    m->ended = mj_get_uint(r);
    m->called = mj_get_uint(r);
    m->answered_at = mj_get_int(r);
}

int mj_counters_decode_v1(mj_str bytes, mj_counters *out, mj_judged *judged)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    mj_counters m = {0};
    mj_judged j = {0};

    if (mj_get_u8(&r) != COUNTERS_V1)
        return r.bad ? MJ_ECORRUPT : MJ_ESCHEMA;
    get_sums(&r, &m);
    j.judged_from = mj_get_int(&r);
    m.ended = mj_get_u32(&r); /* since the verdict last changed: at 0 of both */
    m.called = mj_get_u32(&r);
    j.broken_since = mj_get_int(&r);
    j.reconciled_at = mj_get_int(&r);
    j.reconcile_ms = mj_get_int(&r);
    m.answered_at = mj_get_int(&r);
    if (r.bad)
        return MJ_ECORRUPT;
    *out = m;
    *judged = j;
    return MJ_OK;
}

int mj_judged_encode(const mj_judged *j, mj_buf *b)
{
    mj_put_u8(b, JUDGED_V1);
    mj_put_int(b, j->judged_from);
    mj_put_int(b, j->broken_since);
    mj_put_int(b, j->reconciled_at);
    mj_put_int(b, j->reconcile_ms);
    mj_put_uint(b, j->ended);
    mj_put_uint(b, j->called);
    for (unsigned i = 0; i < MJ_NMODES; i++)
        put_histogram(b, &j->faded[i]);
    return b->failed ? MJ_ENOMEM : MJ_OK;
}

int mj_judged_decode(mj_str bytes, mj_judged *out)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    mj_judged j = {0};

    if (mj_get_u8(&r) != JUDGED_V1)
        return r.bad ? MJ_ECORRUPT : MJ_ESCHEMA;
    j.judged_from = mj_get_int(&r);
    j.broken_since = mj_get_int(&r);
    j.reconciled_at = mj_get_int(&r);
    j.reconcile_ms = mj_get_int(&r);
    j.ended = mj_get_uint(&r);
    j.called = mj_get_uint(&r);
    for (unsigned i = 0; i < MJ_NMODES; i++)
        get_histogram(&r, &j.faded[i]);
    if (r.bad)
        return MJ_ECORRUPT;
    *out = j;
    return MJ_OK;
}
