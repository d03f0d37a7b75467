/* Events: facts for the policy, and the outbox that hands them out.
 *
 * An event's record lives under (ref, seq) until its handler returned.  The
 * outbox holds one entry per task, for its first event that is neither
 * delivered nor buried: so events of one task run in order and one at a time,
 * and those of different tasks do not wait for each other.  A lease is a due
 * time in the future plus the number of tries. */
#include "mj_store_impl.h"

#include <string.h>

enum { EVENT_V1 = 1, FLAG_LATE = 1, FLAG_BURIED = 2, EVENT_KEY = MJ_ULID_BYTES + 4, OUT_KEY = 8 + EVENT_KEY };

static size_t key_event(uint8_t *k, const uint8_t *ref, uint32_t seq)
{
    memcpy(k, ref, MJ_ULID_BYTES);
    mj_be32(k + MJ_ULID_BYTES, seq);
    return EVENT_KEY;
}

static size_t key_out(uint8_t *k, int64_t at, const uint8_t *ref, uint32_t seq)
{
    mj_be64(k, (uint64_t)(at < 0 ? 0 : at));
    return 8 + key_event(k + 8, ref, seq);
}

static int encode(const mj_event_record *e, mj_buf *b)
{
    mj_put_u8(b, EVENT_V1);
    mj_put_raw(b, e->ref, MJ_ULID_BYTES);
    mj_put_uint(b, e->seq);
    mj_put_u8(b, (uint8_t)e->type);
    mj_put_u8(b, (uint8_t)((e->late ? FLAG_LATE : 0) | (e->buried ? FLAG_BURIED : 0)));
    mj_put_uint(b, e->attempt);
    mj_put_uint(b, e->tries);
    mj_put_int(b, e->created_at);
    mj_put_int(b, e->next_at);
    mj_put_u8(b, (uint8_t)e->nerrors);
    for (unsigned i = 0; i < e->nerrors; i++) {
        mj_put_int(b, e->errors[i].at);
        mj_put_str(b, e->errors[i].text);
    }
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
    if (r.bad)
        return MJ_ECORRUPT;
    *out = e;
    return MJ_OK;
}

static int put(mj_txn *x, const mj_event_record *e)
{
    uint8_t k[OUT_KEY];
    mj_buf *b = &x->s->scratch;
    int rc;

    b->n = 0;
    rc = encode(e, b);
    return rc != 0 ? rc : mj_txn_put(x, DB_EVENT, mj_val(k, key_event(k, e->ref, e->seq)), mj_val(b->p, b->n));
}

static int out_put(mj_txn *x, const mj_event_record *e)
{
    uint8_t k[OUT_KEY];
    return mj_txn_put(x, DB_OUTBOX, mj_val(k, key_out(k, e->next_at, e->ref, e->seq)), mj_val("", 0));
}

static int out_del(mj_txn *x, const mj_event_record *e)
{
    uint8_t k[OUT_KEY];
    return mj_txn_del(x, DB_OUTBOX, mj_val(k, key_out(k, e->next_at, e->ref, e->seq)));
}

/* The first event of the ref after `seq` that still has to be delivered. MDB_NOTFOUND. */
static int next_open(mj_txn *x, const uint8_t *ref, uint32_t seq, mj_event_record *e)
{
    uint8_t k[EVENT_KEY];
    MDB_cursor *c;
    MDB_val key = mj_val(k, key_event(k, ref, seq)), v;
    int rc = mdb_cursor_open(x->t, mj_env_dbi(x->s->env, DB_EVENT), &c);

    if (rc != 0)
        return rc;
    for (rc = mdb_cursor_get(c, &key, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(c, &key, &v, MDB_NEXT)) {
        if (key.mv_size != EVENT_KEY || memcmp(key.mv_data, ref, MJ_ULID_BYTES) != 0) {
            rc = MDB_NOTFOUND;
            break;
        }
        if (mj_event_decode((mj_str){v.mv_data, (uint32_t)v.mv_size}, e) == MJ_OK && !e->buried)
            break;
    }
    mdb_cursor_close(c);
    return rc;
}

int mj_event_add(mj_txn *x, const mj_task *t, mj_event type)
{
    mj_event_record first, e = {.seq = t->event_seq,
                                .type = type,
                                .attempt = t->nattempts,
                                .late = t->late,
                                .created_at = x->now,
                                .next_at = x->now};
    /* A task's first event needs no look for others. */
    int open = e.seq == 1 ? MDB_NOTFOUND : next_open(x, t->ref, 0, &first);
    int rc;

    if (open != 0 && open != MDB_NOTFOUND)
        return open;
    memcpy(e.ref, t->ref, MJ_ULID_BYTES);
    x->counters.events++;
    rc = put(x, &e);
    return rc == 0 && open == MDB_NOTFOUND ? out_put(x, &e) : rc;
}

/* Delivered or buried: the task's next event may go. */
static int promote(mj_txn *x, const mj_event_record *done)
{
    mj_event_record next;
    int rc = next_open(x, done->ref, done->seq + 1, &next);

    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc != 0)
        return rc;
    return out_put(x, &next);
}

static int take(mj_txn *x, mj_op *op)
{
    MDB_val key, v, task;
    mj_event_record e;
    const uint8_t *k;
    uint8_t copy[OUT_KEY];
    int rc = mj_txn_seek(x, DB_OUTBOX, mj_val(NULL, 0), &key, &v);

    if (rc == 0) {
        k = key.mv_data;
        rc = key.mv_size != OUT_KEY || (int64_t)mj_be64_get(k) > x->now ? MDB_NOTFOUND : 0;
    }
    if (rc == 0) {
        memcpy(copy, key.mv_data, OUT_KEY);
        rc = mj_txn_get(x, DB_EVENT, mj_val(copy + 8, EVENT_KEY), &v);
        if (rc == MDB_NOTFOUND || (rc == 0 && mj_event_decode((mj_str){v.mv_data, (uint32_t)v.mv_size}, &e) != 0)) {
            op->code = MJ_ECORRUPT; /* an entry without a readable event: take it out of the way */
            return mj_txn_del(x, DB_OUTBOX, mj_val(copy, OUT_KEY));
        }
    }
    if (rc == MDB_NOTFOUND) {
        op->code = MJ_ENOTFOUND;
        return 0;
    }
    if (rc != 0)
        return rc;
    op->event_bytes.n = 0;
    mj_put_raw(&op->event_bytes, v.mv_data, v.mv_size); /* e's strings must outlive the puts */
    if (op->event_bytes.failed)
        return MJ_ENOMEM;
    mj_event_decode((mj_str){(char *)op->event_bytes.p, (uint32_t)op->event_bytes.n}, &e);
    rc = mj_txn_del(x, DB_OUTBOX, mj_val(copy, OUT_KEY));
    e.tries++;
    e.next_at = op->until > x->now ? op->until : x->now + 1;
    if (rc == 0)
        rc = put(x, &e);
    if (rc == 0)
        rc = out_put(x, &e);
    op->event = e;
    op->record.n = 0;
    memcpy(op->ref, e.ref, MJ_ULID_BYTES);
    if (rc == 0 && (rc = mj_txn_get(x, DB_TASK, mj_val(e.ref, MJ_ULID_BYTES), &task)) == 0) {
        mj_put_raw(&op->record, task.mv_data, task.mv_size);
        rc = op->record.failed ? MJ_ENOMEM : 0;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static void add_error(mj_event_record *e, int64_t now, mj_str text)
{
    if (e->nerrors == MJ_MAX_EVENT_ERRORS) {
        memmove(e->errors, e->errors + 1, (MJ_MAX_EVENT_ERRORS - 1) * sizeof e->errors[0]);
        e->nerrors--;
    }
    e->errors[e->nerrors++] = (mj_event_error){now, mj_str_head(text, MJ_MAX_REASON)};
}

int mj_event_op(mj_txn *x, mj_op *op)
{
    uint8_t k[EVENT_KEY];
    mj_event_record e;
    MDB_val v;
    int rc;

    if (op->kind == MJ_OP_EVENT_TAKE)
        return take(x, op);
    key_event(k, op->event.ref, op->event.seq);
    rc = mj_txn_get(x, DB_EVENT, mj_val(k, EVENT_KEY), &v);
    if (rc == MDB_NOTFOUND) {
        op->code = MJ_ENOTFOUND;
        return 0;
    }
    if (rc != 0)
        return rc;
    op->event_bytes.n = 0;
    mj_put_raw(&op->event_bytes, v.mv_data, v.mv_size);
    if (op->event_bytes.failed)
        return MJ_ENOMEM;
    op->code = mj_event_decode((mj_str){(char *)op->event_bytes.p, (uint32_t)op->event_bytes.n}, &e);
    if (op->code == MJ_OK && (e.tries != op->event.tries || e.tries == 0 || e.buried))
        op->code = MJ_ECHANGED;
    if (op->code != MJ_OK)
        return 0;
    rc = out_del(x, &e);
    if (rc == 0 && op->kind == MJ_OP_EVENT_DONE) {
        x->counters.events--;
        rc = mj_txn_del(x, DB_EVENT, mj_val(k, EVENT_KEY));
        return rc != 0 ? rc : promote(x, &e);
    }
    if (op->sig.error.n == 0 && op->until != 0 && e.tries > 0)
        e.tries--; /* handed back without having been run: it costs the event nothing */
    else
        add_error(&e, x->now, op->sig.error);
    if (op->until != 0) {
        e.next_at = op->until;
        if (rc == 0)
            rc = put(x, &e);
        return rc != 0 ? rc : out_put(x, &e);
    }
    e.buried = true;
    x->counters.events--;
    x->counters.buried++;
    if (rc == 0)
        rc = put(x, &e);
    return rc != 0 ? rc : promote(x, &e);
}
