#include "store/records.h"

#include <string.h>

/* ---- events ---- */

enum { EVENT_V1 = 1, FLAG_LATE = 1, FLAG_BURIED = 2, FLAG_LEASED = 4 };

int mj_event_encode(const mj_event_record *e, mj_buf *b)
{
    mj_put_u8(b, EVENT_V1);
    mj_put_raw(b, e->ref, MJ_ULID_BYTES);
    mj_put_uint(b, e->seq);
    mj_put_u8(b, (uint8_t)e->type);
    mj_put_u8(b, (uint8_t)((e->late ? FLAG_LATE : 0) | (e->buried ? FLAG_BURIED : 0) | (e->leased ? FLAG_LEASED : 0)));
    mj_put_uint(b, e->attempt);
    mj_put_uint(b, e->tries);
    mj_put_int(b, e->created_at);
    mj_put_int(b, e->next_at);
    mj_put_u8(b, (uint8_t)e->nerrors);
    for (unsigned i = 0; i < e->nerrors; i++) {
        mj_put_int(b, e->errors[i].at);
        mj_put_str(b, e->errors[i].text);
    }
    mj_put_uint(b, e->before);
    mj_put_uint(b, e->failed);
    mj_put_int(b, e->since);
    return b->failed ? MJ_ENOMEM : MJ_OK;
}

int mj_event_decode(mj_str bytes, mj_event_record *out)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    mj_event_record e = {0};
    const uint8_t *ref;
    unsigned flags;

    if (mj_get_u8(&r) != EVENT_V1)
        return r.bad ? MJ_ECORRUPT : MJ_ESCHEMA;
    ref = mj_get_raw(&r, MJ_ULID_BYTES);
    if (ref)
        memcpy(e.ref, ref, MJ_ULID_BYTES);
    e.seq = mj_get_u32(&r);
    e.type = (mj_event)mj_get_u8(&r);
    flags = mj_get_u8(&r);
    e.late = (flags & FLAG_LATE) != 0;
    e.buried = (flags & FLAG_BURIED) != 0;
    e.leased = (flags & FLAG_LEASED) != 0;
    e.attempt = mj_get_u32(&r);
    e.tries = mj_get_u32(&r);
    e.created_at = mj_get_int(&r);
    e.next_at = mj_get_int(&r);
    e.nerrors = mj_get_u8(&r);
    if (e.nerrors > MJ_MAX_EVENT_ERRORS)
        return MJ_ECORRUPT;
    for (unsigned i = 0; i < e.nerrors; i++) {
        e.errors[i].at = mj_get_int(&r);
        e.errors[i].text = mj_get_str(&r);
    }
    if (r.p != r.end) { /* not in those written before schema 4 */
        e.before = mj_get_u32(&r);
        e.failed = mj_get_u32(&r);
    }
    if (r.p != r.end) /* older versions neither write it nor mind it */
        e.since = mj_get_int(&r);
    if (r.bad || e.before > e.tries)
        return MJ_ECORRUPT;
    *out = e;
    return MJ_OK;
}

/* ---- tombstones ---- */

enum { TOMB_V1 = 1 };

int mj_tomb_encode(const mj_task *t, int64_t pruned_at, mj_buf *b)
{
    unsigned nids = 0;

    b->n = 0;
    mj_put_u8(b, TOMB_V1);
    mj_put_raw(b, t->ref, MJ_ULID_BYTES);
    mj_put_u8(b, (uint8_t)t->state);
    mj_put_int(b, t->created_at);
    mj_put_int(b, t->finished_at);
    mj_put_int(b, pruned_at);
    mj_put_str(b, t->key);
    for (unsigned i = 0; i < t->nattempts; i++)
        nids += t->attempts[i].nids;
    mj_put_uint(b, nids);
    for (unsigned i = 0; i < t->nattempts; i++)
        for (unsigned k = 0; k < t->attempts[i].nids; k++)
            mj_put_str(b, t->attempts[i].ids[k]);
    return b->failed ? MJ_ENOMEM : MJ_OK;
}

int mj_tomb_decode(mj_str bytes, mj_tomb *out)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    mj_tomb t = {0};
    const uint8_t *ref;
    unsigned state;

    if (mj_get_u8(&r) != TOMB_V1)
        return r.bad ? MJ_ECORRUPT : MJ_ESCHEMA;
    ref = mj_get_raw(&r, MJ_ULID_BYTES);
    if (ref)
        memcpy(t.ref, ref, MJ_ULID_BYTES);
    state = mj_get_u8(&r);
    t.state = (mj_state)state; /* layer: decode */
    t.created_at = mj_get_int(&r);
    t.finished_at = mj_get_int(&r);
    t.pruned_at = mj_get_int(&r);
    t.key = mj_get_str(&r);
    t.nids = mj_get_u32(&r);
    if (r.bad || state >= MJ_NSTATES || t.nids > MJ_MAX_ATTEMPTS * MJ_MAX_IDS)
        return MJ_ECORRUPT;
    for (unsigned i = 0; i < t.nids; i++)
        t.ids[i] = mj_get_str(&r);
    if (r.bad || r.p != r.end)
        return MJ_ECORRUPT;
    *out = t;
    return MJ_OK;
}

/* ---- accounts ---- */

void mj_account_write(const mj_held *h, mj_buf *b)
{
    mj_put_int(b, h->paused_until);
    mj_put_str(b, (mj_str){h->reason, (uint32_t)strlen(h->reason)});
    mj_put_uint(b, h->observed);
    mj_put_int(b, h->observed_at);
    mj_put_int(b, h->paused_at);
}

void mj_account_read(const mj_entry *e, mj_str bytes, mj_held *h)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    mj_str reason;

    memset(h, 0, sizeof *h);
    memcpy(h->name, e->name.p, e->name.n < MJ_MAX_NAME ? e->name.n : MJ_MAX_NAME);
    h->held = e->n;
    h->stored = bytes.n > 0;
    if (!h->stored)
        return;
    h->paused_until = mj_get_int(&r);
    reason = mj_str_head(mj_get_str(&r), sizeof h->reason - 1);
    if (reason.n)
        memcpy(h->reason, reason.p, reason.n);
    if (r.p == r.end)
        return; /* written before limits were observed */
    h->observed = mj_get_u32(&r);
    h->observed_at = mj_get_int(&r);
    if (r.p != r.end) /* older versions neither write it nor mind it */
        h->paused_at = mj_get_int(&r);
}

/* ---- refused callbacks ---- */

void mj_refused_write(const mj_op *op, int64_t now, mj_buf *b)
{
    mj_put_int(b, now);
    mj_put_raw(b, op->ref, MJ_ULID_BYTES);
    mj_put_uint(b, op->sig.attempt);
    mj_put_uint(b, op->body.n);
    mj_put_str(b, mj_str_head(op->sig.error, MJ_MAX_REASON));
    mj_put_str(b, (mj_str){op->body.p, op->body.n < MJ_MAX_REFUSED_BODY ? op->body.n : MJ_MAX_REFUSED_BODY});
}

int mj_refused_decode(mj_str bytes, mj_refused *out)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    mj_refused f = {.number = mj_get_uint(&r), .at = mj_get_int(&r)};
    const uint8_t *ref = mj_get_raw(&r, MJ_ULID_BYTES);

    if (ref)
        memcpy(f.ref, ref, sizeof f.ref);
    f.attempt = mj_get_u32(&r);
    f.size = mj_get_uint(&r);
    f.why = mj_get_str(&r);
    f.body = mj_get_str(&r);
    if (r.bad)
        return MJ_ECORRUPT;
    *out = f;
    return MJ_OK;
}
