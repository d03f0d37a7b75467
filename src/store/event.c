/* Events: facts for the policy, and the outbox that hands them out.
 *
 * An event's record lives under (ref, seq) until its handler returned.  The
 * outbox holds one entry per task, for its first event that is neither
 * delivered nor buried: so events of one task run in order and one at a time,
 * and those of different tasks do not wait for each other.  A lease is a due
 * time in the future plus the number of tries. */
#include "store/impl.h"

#include <string.h>

enum {
    EVENT_V1 = 1,
    FLAG_LATE = 1,
    FLAG_BURIED = 2,
    FLAG_LEASED = 4,
    EVENT_KEY = MJ_ULID_BYTES + 4,
    OUT_KEY = 8 + EVENT_KEY
};

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
    for (rc = mj_env_next(x->s->env, c, &key, &v, MDB_SET_RANGE); rc == 0;
         rc = mj_env_next(x->s->env, c, &key, &v, MDB_NEXT)) {
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
                                .next_at = x->now,
                                .since = x->now};
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

static bool is_ahead(const mj_txn *x, const mj_event_record *e)
{
    return e->since - x->now > MJ_CLOCK_STEP_MS;
}

/* What a clock set that was ahead is due, or leased for as long as it was, from now on. */
static void bound_wait(const mj_txn *x, mj_event_record *e)
{
    int64_t wait = e->leased && e->next_at > e->since ? e->next_at - e->since : 0;

    e->next_at = e->next_at > x->now + wait ? x->now + wait : e->next_at;
    e->since = x->now;
}

/* The event under this key, if its time was set by a clock that was ahead. */
static int rewind_event(mj_txn *x, const uint8_t *key)
{
    mj_event_record e;
    mj_buf bytes = {0};
    MDB_val v;
    int rc = mj_txn_get(x, DB_EVENT, mj_val(key, EVENT_KEY), &v);

    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;
    mj_put_raw(&bytes, v.mv_data, v.mv_size); /* e's strings must outlive the puts */
    if (bytes.failed)
        return MJ_ENOMEM;
    if (mj_event_decode((mj_str){(char *)bytes.p, (uint32_t)bytes.n}, &e) == MJ_OK && is_ahead(x, &e)) {
        rc = out_del(x, &e);
        bound_wait(x, &e);
        if (rc == 0)
            rc = put(x, &e);
        if (rc == 0)
            rc = out_put(x, &e);
    }
    mj_buf_free(&bytes);
    return rc;
}

int mj_event_rewind(mj_txn *x, const uint8_t *key)
{
    return rewind_event(x, key + 8);
}

/* What was settled has no entry: the task's first open event gets it, if there is one.  It may have it already. */
static int promote(mj_txn *x, const mj_event_record *done)
{
    uint8_t k[EVENT_KEY];
    mj_event_record next;
    int rc = next_open(x, done->ref, 0, &next);

    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;
    if (!is_ahead(x, &next))
        return out_put(x, &next);
    key_event(k, next.ref, next.seq);
    return rewind_event(x, k);
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
    e.leased = true;
    e.next_at = op->until > x->now ? op->until : x->now + 1;
    e.since = x->now;
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

/* The record of event (ref, seq), its strings in op->event_bytes; op->code: MJ_ENOTFOUND, MJ_ECORRUPT, ... */
static int fetch(mj_txn *x, mj_op *op, const uint8_t *ref, uint32_t seq, mj_event_record *e)
{
    uint8_t k[EVENT_KEY];
    MDB_val v;
    int rc = mj_txn_get(x, DB_EVENT, mj_val(k, key_event(k, ref, seq)), &v);

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
    op->code = mj_event_decode((mj_str){(char *)op->event_bytes.p, (uint32_t)op->event_bytes.n}, e);
    return 0;
}

/* What a handler stored is the task's, in the transaction in which its event is done. */
static int keep_files(mj_txn *x, const mj_op *op)
{
    mj_signal sig = {.kind = SIG_KEPT, .source = MJ_FROM_POLICY, .expect_state = -1, .wait_ms = -1, .files = op->body};
    mj_op own = {0};

    memcpy(own.ref, op->event.ref, MJ_ULID_BYTES);
    return mj_txn_apply(x, &own, &sig);
}

static int bury(mj_txn *x, mj_event_record *e)
{
    int rc;

    e->buried = true;
    e->leased = false;
    x->counters.events--;
    x->counters.buried++;
    mj_measure_count(&x->measures, MJ_EVENT_BURIED, 1);
    rc = put(x, e);
    return rc != 0 ? rc : promote(x, e);
}

/* The lease's end. */
static int settle(mj_txn *x, mj_op *op, mj_event_record *e)
{
    uint8_t k[EVENT_KEY];
    int rc = out_del(x, e);

    e->leased = false;
    if (rc == 0 && op->kind == MJ_OP_EVENT_DONE) {
        x->counters.events--;
        mj_measure_count(&x->measures, MJ_EVENT_DELIVERED, 1);
        rc = mj_txn_del(x, DB_EVENT, mj_val(k, key_event(k, e->ref, e->seq)));
        if (rc == 0 && op->body.n > 0 && op->body.n <= MJ_MAX_JSON)
            rc = keep_files(x, op);
        return rc != 0 ? rc : promote(x, e);
    }
    if (op->sig.error.n == 0 && op->until != 0 && e->tries > 0) {
        e->tries--; /* handed back without having been run: it costs the event nothing */
    } else {
        add_error(e, x->now, op->sig.error);
        e->failed++;
        mj_measure_count(&x->measures, MJ_EVENT_RETRIED, op->until != 0);
    }
    if (rc != 0)
        return rc;
    if (op->until == 0)
        return bury(x, e);
    e->next_at = op->until;
    e->since = x->now;
    rc = put(x, e);
    return rc != 0 ? rc : promote(x, e); /* not e, when an earlier one was kicked after its lease had run out */
}

static bool is_leased(const mj_txn *x, const mj_event_record *e)
{
    return e->leased && e->next_at > x->now;
}

/* Due now, with all its tries ahead, as the first open event of its task. */
static int release(mj_txn *x, mj_op *op, mj_event_record *e)
{
    mj_event_record first;
    int rc = next_open(x, e->ref, 0, &first);

    if (rc == 0 && is_leased(x, &first)) { /* one at a time, and this one would have to go before it */
        op->code = MJ_ESTATE;
        return 0;
    }
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    rc = rc == 0 ? out_del(x, &first) : 0;
    if (e->buried) {
        e->buried = false;
        x->counters.events++;
        x->counters.buried--;
    }
    e->leased = false;
    e->before = e->tries;
    e->failed = 0;
    e->next_at = e->since = x->now;
    if (rc == 0)
        rc = put(x, e);
    if (rc == 0)
        rc = next_open(x, e->ref, 0, &first);
    return rc != 0 ? rc : out_put(x, &first);
}

static mj_event last_event(const mj_task *t)
{
    if (t->event_seq == 0)
        return MJ_EVENT_NONE;
    switch (t->state) {
    case MJ_SUCCEEDED:
        return MJ_EVENT_SUCCEEDED;
    case MJ_FAILED:
        return MJ_EVENT_FAILED;
    case MJ_LOST:
        return MJ_EVENT_LOST;
    case MJ_AMBIGUOUS:
        return MJ_EVENT_AMBIGUOUS;
    default:
        return MJ_EVENT_NONE;
    }
}

/* The task's last event again, under its own id. */
static int replay(mj_txn *x, mj_op *op)
{
    mj_event_record e;
    mj_task t;
    MDB_val bytes;
    int rc = mj_txn_task(x, op->event.ref, &t, &bytes);

    if (rc == MDB_NOTFOUND || rc == MJ_ECORRUPT || rc == MJ_ESCHEMA) {
        op->code = rc == MDB_NOTFOUND ? MJ_ENOTFOUND : rc;
        return 0;
    }
    if (rc != 0)
        return rc;
    if (last_event(&t) == MJ_EVENT_NONE) {
        op->code = MJ_ESTATE;
        return 0;
    }
    op->done = t.event_seq;
    rc = fetch(x, op, t.ref, t.event_seq, &e);
    if (rc != 0 || (op->code != MJ_OK && op->code != MJ_ENOTFOUND))
        return rc;
    if (op->code == MJ_OK) {
        if (!is_leased(x, &e))
            return release(x, op, &e);
        op->code = MJ_ESTATE;
        return 0;
    }
    op->code = MJ_OK;
    return mj_event_add(x, &t, last_event(&t));
}

static int kick(mj_txn *x, mj_op *op)
{
    mj_event_record e;
    int rc;

    if (op->kind == MJ_OP_EVENT_KICK && op->event.seq == 0)
        return replay(x, op);
    op->done = op->event.seq;
    rc = fetch(x, op, op->event.ref, op->event.seq, &e);
    if (rc != 0 || op->code != MJ_OK)
        return rc;
    if (is_leased(x, &e))
        op->code = MJ_ESTATE;
    else if (op->kind == MJ_OP_EVENT_KICK)
        return release(x, op, &e);
    else if (e.buried)
        op->code = MJ_EDUPLICATE;
    if (op->code != MJ_OK)
        return 0;
    rc = out_del(x, &e); /* when it has an entry, being the first */
    add_error(&e, x->now, op->sig.error);
    return rc != 0 ? rc : bury(x, &e);
}

int mj_event_op(mj_txn *x, mj_op *op)
{
    mj_event_record e;
    int rc;

    if (op->kind == MJ_OP_EVENT_TAKE)
        return take(x, op);
    if (op->kind == MJ_OP_EVENT_KICK || op->kind == MJ_OP_EVENT_BURY)
        return kick(x, op);
    rc = fetch(x, op, op->event.ref, op->event.seq, &e);
    if (rc == 0 && op->code == MJ_OK && (!e.leased || e.tries != op->event.tries))
        op->code = MJ_ECHANGED;
    return rc != 0 || op->code != MJ_OK ? rc : settle(x, op, &e);
}
