/* Forgetting: final tasks become tombstones, tombstones end after their time.
 *
 * A tombstone keeps what must outlive a task: its ref, key and fingerprint (so
 * that a repeated key is still recognised), its task ids (so that a late
 * callback is still known to be about something that is over) and its final
 * state.  Each operation looks at a bounded number of records, so that other
 * writers get their turn between two. */
#include "store/impl.h"

#include <string.h>

enum { TOMB_V1 = 1, GRAVE_KEY = 8 + MJ_ULID_BYTES };

static size_t key_grave(uint8_t *k, int64_t pruned_at, const uint8_t *ref)
{
    mj_be64(k, (uint64_t)(pruned_at < 0 ? 0 : pruned_at));
    memcpy(k + 8, ref, MJ_ULID_BYTES);
    return GRAVE_KEY;
}

static int encode(const mj_task *t, int64_t pruned_at, mj_buf *b)
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

/* Some event of the ref is stored: waiting, leased or buried. */
static int has_event(mj_txn *x, const uint8_t *ref, bool *yes)
{
    MDB_val key, v;
    int rc = mj_txn_seek(x, DB_EVENT, mj_val(ref, MJ_ULID_BYTES), &key, &v);

    *yes = rc == 0 && key.mv_size >= MJ_ULID_BYTES && memcmp(key.mv_data, ref, MJ_ULID_BYTES) == 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int may_go(mj_txn *x, const mj_task *t, int64_t finished_by, bool *yes)
{
    bool event = false;
    int rc = 0;

    *yes = mj_state_final(t->state) && t->finished_at <= finished_by;
    for (unsigned i = 0; i < t->nattempts; i++)
        *yes = *yes && !t->attempts[i].slot;
    if (*yes)
        rc = has_event(x, t->ref, &event);
    *yes = *yes && !event;
    return rc;
}

static int bury(mj_txn *x, const mj_task *t)
{
    mj_buf *b = &x->s->scratch;
    uint8_t k[KEY_MAX];
    mj_due due = mj_state_due(t);
    int rc = encode(t, x->now, b); /* before the first write: t's strings end with it */

    /* Everything but keys and ids goes; they go with the tombstone. */
    if (rc == 0 && t->user_id.n)
        rc = mj_txn_del(x, DB_USER, mj_val(k, mj_key_user(k, t->user_id, t->ref)));
    if (rc == 0 && due != MJ_DUE_NONE)
        rc = mj_txn_del(x, DB_DUE, mj_val(k, mj_key_due(k, due, t->due_at, t->ref)));
    if (rc == 0)
        rc = mj_txn_del(x, DB_STATE, mj_val(k, mj_key_state(k, t->state, t->ref)));
    if (rc == 0)
        rc = mj_txn_del(x, DB_TASK, mj_val(t->ref, MJ_ULID_BYTES));
    if (rc == 0)
        rc = mj_txn_put(x, DB_TOMB, mj_val(t->ref, MJ_ULID_BYTES), mj_val(b->p, b->n));
    if (rc == 0)
        rc = mj_txn_put(x, DB_GRAVE, mj_val(k, key_grave(k, x->now, t->ref)), mj_val("", 0));
    x->counters.states[t->state] -= x->counters.states[t->state] > 0;
    return rc;
}

/* The next ref there could be. */
static void next_ref(uint8_t ref[MJ_ULID_BYTES])
{
    for (int i = MJ_ULID_BYTES - 1; i >= 0 && ++ref[i] == 0; i--)
        ;
}

/* One step over the tasks of op->sig.expect_state, oldest first, from op->ref (has_ref) on. */
static int prune(mj_txn *x, mj_op *op)
{
    uint8_t k[1 + MJ_ULID_BYTES] = {(uint8_t)op->sig.expect_state};
    MDB_val key, v;
    mj_task t;
    bool yes;
    int rc = 0;

    if (op->has_ref)
        memcpy(k + 1, op->ref, MJ_ULID_BYTES);
    op->done = 0;
    op->more = false;
    for (uint32_t seen = 0; rc == 0; seen++) {
        rc = mj_txn_seek(x, DB_STATE, mj_val(k, sizeof k), &key, &v);
        if (rc != 0 || key.mv_size != sizeof k || ((uint8_t *)key.mv_data)[0] != k[0])
            break;
        memcpy(k, key.mv_data, sizeof k);
        memcpy(op->next, k + 1, MJ_ULID_BYTES);
        if (mj_ulid_time(k + 1) > op->until)
            break; /* made later than that, so finished later, too */
        op->more = seen == op->limit;
        if (op->more)
            break;
        rc = mj_txn_task(x, k + 1, &t, &v);
        if (rc == MDB_NOTFOUND || (rc > -100 && rc < 0)) { /* unreadable: check()'s to tell, not ours to delete */
            rc = 0;
        } else if (rc == 0) {
            rc = may_go(x, &t, op->until, &yes);
            if (rc == 0 && yes) {
                rc = bury(x, &t);
                op->done++;
            }
        }
        next_ref(k + 1);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int drop_tomb(mj_txn *x, const uint8_t *ref)
{
    MDB_val v;
    mj_tomb t;
    mj_buf *b = &x->s->scratch;
    int rc = mj_txn_get(x, DB_TOMB, mj_val(ref, MJ_ULID_BYTES), &v);

    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;
    b->n = 0; /* the deletes below may move what v points to */
    mj_put_raw(b, v.mv_data, v.mv_size);
    if (b->failed)
        return MJ_ENOMEM;
    if (mj_tomb_decode((mj_str){(char *)b->p, (uint32_t)b->n}, &t) == MJ_OK) {
        if (t.key.n)
            rc = mj_txn_del(x, DB_KEY, mj_val(t.key.p, t.key.n));
        for (unsigned i = 0; i < t.nids && rc == 0; i++)
            rc = mj_txn_del(x, DB_TID, mj_val(t.ids[i].p, t.ids[i].n));
    }
    return rc != 0 ? rc : mj_txn_del(x, DB_TOMB, mj_val(ref, MJ_ULID_BYTES));
}

static int forget(mj_txn *x, mj_op *op)
{
    uint8_t k[GRAVE_KEY];
    MDB_val key, v;
    int rc = 0;

    op->done = 0;
    op->more = false;
    while (rc == 0) {
        rc = mj_txn_seek(x, DB_GRAVE, mj_val(NULL, 0), &key, &v);
        if (rc != 0 || key.mv_size != GRAVE_KEY || (int64_t)mj_be64_get(key.mv_data) > op->until)
            break;
        op->more = op->done == op->limit;
        if (op->more)
            break;
        memcpy(k, key.mv_data, GRAVE_KEY);
        rc = drop_tomb(x, k + 8);
        if (rc == 0)
            rc = mj_txn_del(x, DB_GRAVE, mj_val(k, GRAVE_KEY));
        op->done++;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- where the sweep's walk goes on ---- */

enum { MARK = 1 + MJ_ULID_BYTES };

static MDB_val marks_key(void)
{
    return mj_val(MJ_PRUNE_KEY, sizeof MJ_PRUNE_KEY - 1);
}

static int read_marks(mj_txn *x, uint8_t marks[MJ_NSTATES * MARK])
{
    MDB_val v;
    int rc = mj_txn_get(x, DB_META, marks_key(), &v);

    memset(marks, 0, MJ_NSTATES * MARK);
    if (rc == 0 && v.mv_size == MJ_NSTATES * MARK)
        memcpy(marks, v.mv_data, v.mv_size);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int prune_from(mj_txn *x, const mj_op *op)
{
    uint8_t marks[MJ_NSTATES * MARK], *mine = marks + op->sig.expect_state * MARK;
    int rc = read_marks(x, marks);

    if (rc != 0)
        return rc;
    mine[0] = op->has_ref;
    memcpy(mine + 1, op->ref, MJ_ULID_BYTES);
    return mj_txn_put(x, DB_META, marks_key(), mj_val(marks, sizeof marks));
}

int mj_prune_op(mj_txn *x, mj_op *op)
{
    if (op->kind == MJ_OP_FORGET)
        return forget(x, op);
    if (op->sig.expect_state < 0) {
        op->code = MJ_EINVAL;
        return 0;
    }
    return op->kind == MJ_OP_PRUNE ? prune(x, op) : prune_from(x, op);
}

/* ---- looking, without the writer's lock ---- */

static int find_prunable(mj_txn *x, mj_prunable *p, mj_buf *out)
{
    uint8_t k[1 + MJ_ULID_BYTES] = {(uint8_t)p->state}, marks[MJ_NSTATES * MARK];
    bool yes = false;
    MDB_val key, v;
    mj_task t;
    int rc = 0;

    if (p->resume) {
        rc = read_marks(x, marks);
        p->has_from = p->resume = marks[p->state * MARK] != 0;
        memcpy(p->from, marks + p->state * MARK + 1, MJ_ULID_BYTES);
    }
    if (p->has_from)
        memcpy(k + 1, p->from, MJ_ULID_BYTES);
    p->more = false;
    for (uint32_t seen = 0; rc == 0; seen++) {
        rc = mj_txn_seek(x, DB_STATE, mj_val(k, sizeof k), &key, &v);
        if (rc != 0 || key.mv_size != sizeof k || ((uint8_t *)key.mv_data)[0] != k[0])
            break;
        memcpy(k, key.mv_data, sizeof k);
        if (mj_ulid_time(k + 1) > p->until)
            break;
        p->more = seen == p->limit;
        if (p->more) {
            memcpy(p->from, k + 1, MJ_ULID_BYTES);
            break;
        }
        if (mj_txn_task(x, k + 1, &t, &v) == 0) /* unreadable: check()'s to tell, not ours to delete */
            rc = may_go(x, &t, p->until, &yes);
        else
            yes = false;
        if (rc == 0 && yes)
            mj_put_raw(out, k + 1, MJ_ULID_BYTES);
        next_ref(k + 1);
    }
    return rc != 0 && rc != MDB_NOTFOUND ? rc : out->failed ? MJ_ENOMEM : 0;
}

int mj_store_prunable(mj_store *s, mj_prunable *p, mj_buf *out)
{
    mj_txn x = {.s = s};
    int rc = mj_store_begin(s);

    if (rc != 0)
        return mj_env_code(rc);
    x.t = s->reader.txn;
    rc = find_prunable(&x, p, out);
    for (int db = 0; db < DB_COUNT; db++) /* a reader's end closes none */
        if (x.cursors[db])
            mdb_cursor_close(x.cursors[db]);
    return mj_store_end(s, rc);
}
