#include "store/tally.h"

#include "base/error.h"

#include <string.h>

void mj_tally_add(mj_tally *to, const mj_tally *add)
{
    for (unsigned i = 0; i < MJ_NSTATES; i++)
        to->states[i] += add->states[i];
    to->events += add->events;
    to->buried += add->buried;
    to->ready += add->ready;
    mj_counters_add(&to->counters, &add->counters, add->set_back, add->latest);
    if (add->set_back || add->latest > to->latest)
        to->latest = add->latest;
}

/* The record begins as it always did, so that older programs find what they know. */
int mj_tally_encode(const mj_tally *t, mj_buf *b)
{
    static const uint8_t unused[MJ_ULID_BYTES]; /* once the newest ref */

    for (unsigned i = 0; i < MJ_NSTATES; i++)
        mj_put_uint(b, (uint64_t)t->states[i]);
    mj_put_uint(b, (uint64_t)t->events);
    mj_put_uint(b, (uint64_t)t->buried);
    mj_put_raw(b, unused, sizeof unused);
    mj_put_int(b, t->latest);
    mj_put_int(b, t->ready);
    return mj_counters_encode(&t->counters, b);
}

int mj_tally_decode(mj_str bytes, mj_tally *out, bool *whole)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    mj_tally t = {0};

    for (unsigned i = 0; i < MJ_NSTATES; i++)
        t.states[i] = (int64_t)mj_get_uint(&r);
    t.events = (int64_t)mj_get_uint(&r);
    t.buried = (int64_t)mj_get_uint(&r);
    (void)mj_get_raw(&r, MJ_ULID_BYTES);
    if (r.p != r.end) /* not in those written first */
        t.latest = mj_get_int(&r);
    if (whole)
        *whole = r.p != r.end;
    if (r.p != r.end) {
        t.ready = mj_get_int(&r);
        mj_counters_read(&r, &t.counters);
    }
    if (r.bad)
        return MJ_ECORRUPT;
    *out = t;
    return MJ_OK;
}
