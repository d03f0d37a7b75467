/* Who may send, and when: slots, the queue's order, accounts that rest, caps that were learned. */
#include "store/impl.h"

#include <string.h>

enum {
    TICK_IN_CLAIM = 64, /* what a claim clears away of each kind before it sends: bounded work */
    RECOVER_MS = 60000, /* a learned cap rises by one slot in that time */
};

/* An entry of the slot index whose record is gone or can't be read: its slot is free again,
 * or the account would be short of it for ever.  check() tells of the record. */
static int drop_slot(mj_txn *x, const uint8_t *entry)
{
    MDB_val v;
    int at, rc = mj_txn_get(x, DB_SLOT, mj_val(entry, SLOT_KEY), &v);

    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;
    at = mj_txn_account(x, (mj_str){v.mv_data, (uint32_t)v.mv_size});
    if (at >= 0) {
        x->held[at].held -= x->held[at].held > 0;
        x->held[at].dirty = true;
    }
    return mj_txn_del(x, DB_SLOT, mj_val(entry, SLOT_KEY));
}

/* The provider is known to have the attempt's job. */
static bool has_job(mj_txn *x, const uint8_t *ref, uint32_t attempt)
{
    MDB_val bytes;
    mj_attempt *a;
    mj_task t;

    if (mj_txn_task(x, ref, &t, &bytes) != 0)
        return false;
    a = mj_task_attempt(&t, attempt);
    return a && a->nids > 0;
}

static int tick_slots(mj_txn *x, uint32_t limit, uint32_t *done)
{
    mj_signal sig = {.kind = SIG_SLOT_END, .source = MJ_FROM_SWEEP, .expect_state = -1, .wait_ms = -1};
    uint8_t from[SLOT_KEY + 1];
    size_t from_n = 0;
    mj_op op = {0};
    MDB_val key, value;
    int rc = 0;

    for (uint32_t seen = 0; seen < limit; seen++) {
        const uint8_t *k;
        rc = mj_txn_seek(x, DB_SLOT, mj_val(from, from_n), &key, &value);
        if (rc != 0)
            break;
        k = key.mv_data;
        if (key.mv_size != SLOT_KEY || (int64_t)mj_be64_get(k) > x->now)
            break;
        memcpy(from, k, SLOT_KEY);
        from[SLOT_KEY] = 0; /* with it, the next key there could be */
        from_n = sizeof from;
        memcpy(op.ref, from + 8, MJ_ULID_BYTES);
        sig.attempt = mj_be32_get(from + 8 + MJ_ULID_BYTES);
        if ((int64_t)mj_be64_get(from) > x->sure && has_job(x, op.ref, sig.attempt))
            continue;
        op.code = MJ_OK;
        rc = mj_txn_apply(x, &op, &sig);
        if (rc == 0 && op.code != MJ_OK)
            rc = drop_slot(x, from);
        if (rc != 0)
            break;
        ++*done;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int tick_queue(mj_txn *x, uint32_t limit, uint32_t *done)
{
    static const uint8_t first[1] = {MJ_DUE_QUEUE};
    mj_signal sig = {.kind = SIG_READY, .source = MJ_FROM_SWEEP, .expect_state = -1, .wait_ms = -1};
    mj_op op = {0};
    MDB_val key, value;
    int rc = 0;

    for (; *done < limit; ++*done) {
        const uint8_t *k;
        uint8_t stale[DUE_KEY];
        rc = mj_txn_seek(x, DB_DUE, mj_val(first, 1), &key, &value);
        if (rc != 0)
            break;
        k = key.mv_data;
        if (key.mv_size != DUE_KEY || k[0] != MJ_DUE_QUEUE || (int64_t)mj_be64_get(k + 1) > x->now)
            break;
        memcpy(stale, k, DUE_KEY);
        memcpy(op.ref, k + 9, MJ_ULID_BYTES);
        op.code = MJ_OK;
        rc = mj_txn_apply(x, &op, &sig);
        if (rc == 0 && op.code != MJ_OK)
            rc = mj_txn_del(x, DB_DUE, mj_val(stale, DUE_KEY));
        if (rc != 0)
            break;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int op_tick(mj_txn *x, mj_op *op)
{
    uint32_t slots = 0, queued = 0;
    int rc = mj_clock_walk(x, op->limit, &op->more);

    if (rc == 0)
        rc = tick_slots(x, op->limit, &slots);
    if (rc == 0)
        rc = tick_queue(x, op->limit, &queued);
    op->done = slots + queued;
    return rc;
}

/* The provider says that the account is full while the ledger knows of fewer jobs: others use the key, too.  What runs
 * now is what there is room for; a slot more each minute finds out when they are done. */
uint32_t mj_account_cap(uint32_t learned, int64_t learned_at, uint32_t max, int64_t now)
{
    int64_t since = now - learned_at, cap;

    if (learned_at == 0)
        return max;
    cap = (learned ? (int64_t)learned : 1) + (since > 0 ? since / RECOVER_MS : 0);
    return cap < max ? (uint32_t)cap : max;
}

bool mj_account_rests(int64_t paused_until, int64_t paused_at, int64_t now)
{
    return now < paused_until && paused_at - now <= MJ_CLOCK_STEP_MS;
}

static void learn(const mj_txn *x, mj_held *h)
{
    h->learned = h->held;
    h->learned_at = x->now;
}

/* The queue's head for one account ("" : tasks that any account may send): its key, copied. */
static int head(mj_txn *x, mj_str account, uint8_t *out, size_t *n)
{
    uint8_t from[KEY_MAX];
    MDB_val key, value;
    size_t prefix = 2 + account.n;
    int rc;

    mj_key_queue(from, account, INT32_MAX, (const uint8_t[MJ_ULID_BYTES]){0});
    rc = mj_txn_seek(x, DB_QUEUE, mj_val(from, prefix), &key, &value);
    if (rc != 0)
        return rc;
    if (key.mv_size != prefix + 4 + MJ_ULID_BYTES || memcmp(key.mv_data, from, prefix) != 0)
        return MDB_NOTFOUND;
    memcpy(out, (uint8_t *)key.mv_data + prefix, 4 + MJ_ULID_BYTES);
    *n = 4 + MJ_ULID_BYTES;
    return 0;
}

/* Picks who goes next and under which account: the best head among the accounts
 * that have a free slot; a task that any may send goes under the least loaded. */
static int pick(mj_txn *x, uint8_t ref[MJ_ULID_BYTES], mj_str *account, uint8_t *entry, size_t *entry_n, bool *waiting)
{
    uint8_t best[4 + MJ_ULID_BYTES], other[4 + MJ_ULID_BYTES];
    mj_str least = {0};
    double load = 2;
    size_t n;
    int rc, found = MDB_NOTFOUND;

    *waiting = false;
    for (size_t i = 0; i <= x->s->ncaps; i++) {
        const mj_cap *cap = i < x->s->ncaps ? &x->s->caps[i] : NULL;
        mj_str name = cap ? (mj_str){cap->name, (uint32_t)strlen(cap->name)} : least;
        if (cap) {
            int at = mj_txn_account(x, name);
            const mj_held *h = at < 0 ? NULL : &x->held[at];
            bool free_slot = h && h->held < mj_account_cap(h->learned, h->learned_at, cap->max_in_flight, x->now) &&
                             !mj_account_rests(h->paused_until, h->paused_at, x->now);
            rc = head(x, name, other, &n);
            if (rc != 0 && rc != MDB_NOTFOUND)
                return rc;
            *waiting = *waiting || rc == 0;
            if (!free_slot)
                continue;
            if ((double)h->held / cap->max_in_flight < load) {
                load = (double)h->held / cap->max_in_flight;
                least = name;
            }
        } else {
            rc = head(x, (mj_str){0}, other, &n);
            if (rc != 0 && rc != MDB_NOTFOUND)
                return rc;
            *waiting = *waiting || rc == 0;
            if (least.n == 0)
                continue;
        }
        if (rc == 0 && (found != 0 || memcmp(other, best, sizeof best) < 0)) {
            mj_str queue = cap ? name : (mj_str){0};
            memcpy(best, other, sizeof best);
            *account = name;
            *entry_n = mj_key_queue(entry, queue, 0, best + 4);
            memcpy(entry + 2 + queue.n, best, sizeof best);
            found = 0;
        }
    }
    if (found == 0)
        memcpy(ref, best + 4, MJ_ULID_BYTES);
    return found;
}

/* The head of the queue could not be claimed: it has expired, or its record can't be read.
 * Either way it must not stay where it keeps the others waiting. */
static int clear_head(mj_txn *x, const uint8_t *ref, const uint8_t *entry, size_t n)
{
    mj_signal sig = {.kind = SIG_READY, .source = MJ_FROM_SWEEP, .expect_state = MJ_QUEUED, .wait_ms = -1};
    mj_op op = {0};
    int rc;

    memcpy(op.ref, ref, MJ_ULID_BYTES);
    rc = mj_txn_apply(x, &op, &sig);
    return rc == 0 ? mj_txn_del(x, DB_QUEUE, mj_val(entry, n)) : rc;
}

static int op_claim(mj_txn *x, mj_op *op)
{
    uint32_t slots = 0, queued = 0;
    int rc = tick_slots(x, TICK_IN_CLAIM, &slots);

    if (rc == 0)
        rc = tick_queue(x, TICK_IN_CLAIM, &queued);
    for (unsigned i = 0; rc == 0; i++) {
        mj_signal sig = op->sig;
        uint8_t entry[KEY_MAX];
        size_t n = 0;
        bool waiting = false;

        rc = pick(x, op->ref, &sig.account, entry, &n, &waiting);
        if (rc == MDB_NOTFOUND) {
            op->code = waiting ? MJ_ELIMIT : MJ_ENOTFOUND;
            return 0;
        }
        if (rc != 0)
            break;
        sig.kind = SIG_CLAIM;
        sig.attempt = 0;
        sig.expect_state = MJ_QUEUED;
        mj_op_reset(op, MJ_OK);
        rc = mj_txn_apply(x, op, &sig);
        if (rc != 0 || op->code == MJ_OK)
            break;
        rc = clear_head(x, op->ref, entry, n);
        if (i == TICK_IN_CLAIM) { /* the next claim goes on */
            mj_op_reset(op, MJ_ELIMIT);
            break;
        }
    }
    return rc;
}

static int op_pause(mj_txn *x, mj_op *op)
{
    int at = mj_txn_account(x, op->sig.account);
    mj_str reason = mj_str_head(op->sig.error_code, sizeof x->held[0].reason - 1);

    if (at < 0) {
        op->code = MJ_ELIMIT;
        return 0;
    }
    x->held[at].paused_until = op->until;
    x->held[at].paused_at = op->until ? x->now : 0;
    memset(x->held[at].reason, 0, sizeof x->held[at].reason);
    if (op->until && reason.n)
        memcpy(x->held[at].reason, reason.p, reason.n);
    if (op->until && mj_str_eq(reason, MJ_LIT("concurrency")))
        learn(x, &x->held[at]);
    x->held[at].dirty = x->dirty = true;
    return 0;
}

int mj_claim_op(mj_txn *x, mj_op *op)
{
    return op->kind == MJ_OP_CLAIM ? op_claim(x, op) : op->kind == MJ_OP_PAUSE ? op_pause(x, op) : op_tick(x, op);
}
