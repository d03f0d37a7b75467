/* The write half of the store: one batch of operations, one durable transaction. */
#include "base/fault.h"
#include "store/impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORGET_MS = 86400000 }; /* a learned cap says nothing any more after a day: it has long risen to the full one */

/* ---- what every transaction carries ---- */

int mj_counters_read(MDB_val v, mj_counters *c)
{
    mj_reader r = mj_reader_of(v.mv_data, v.mv_size);
    const uint8_t *ref;

    for (unsigned i = 0; i < MJ_NSTATES; i++)
        c->states[i] = mj_get_uint(&r);
    c->events = mj_get_uint(&r);
    c->buried = mj_get_uint(&r);
    ref = mj_get_raw(&r, MJ_ULID_BYTES);
    if (!ref)
        return MJ_ECORRUPT;
    memcpy(c->last_ref, ref, MJ_ULID_BYTES);
    if (r.p != r.end) /* older versions neither write it nor mind it */
        c->latest = mj_get_int(&r);
    return 0;
}

static int load_counters(mj_txn *x)
{
    MDB_val v;
    int rc = mj_txn_get(x, DB_META, mj_val(MJ_COUNTERS_KEY, sizeof MJ_COUNTERS_KEY - 1), &v);

    return rc == 0 ? mj_counters_read(v, &x->counters) : rc == MDB_NOTFOUND ? 0 : rc;
}

static int save_counters(mj_txn *x)
{
    mj_buf *b = &x->s->scratch;

    b->n = 0;
    for (unsigned i = 0; i < MJ_NSTATES; i++)
        mj_put_uint(b, x->counters.states[i]);
    mj_put_uint(b, x->counters.events);
    mj_put_uint(b, x->counters.buried);
    mj_put_raw(b, x->counters.last_ref, MJ_ULID_BYTES);
    mj_put_int(b, x->counters.latest);
    if (b->failed)
        return MJ_ENOMEM;
    return mj_txn_put(x, DB_META, mj_val(MJ_COUNTERS_KEY, sizeof MJ_COUNTERS_KEY - 1), mj_val(b->p, b->n));
}

/* Measures that can't be read begin anew: they are no task's fact. */
static int load_measures(mj_txn *x)
{
    MDB_val v;
    int rc = mj_txn_get(x, DB_META, mj_val(MJ_MEASURES_KEY, sizeof MJ_MEASURES_KEY - 1), &v);

    if (rc == 0)
        mj_measures_decode((mj_str){v.mv_data, (uint32_t)v.mv_size}, &x->measures);
    memcpy(x->counted, x->measures.counts, sizeof x->counted);
    x->rules = mj_measure_rules(&x->measures, &x->s->options.rules);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int save_measures(mj_txn *x)
{
    mj_buf *b = &x->s->scratch;

    for (unsigned i = 0; i < MJ_NCOUNTS; i++)
        if (x->s->owed[i] > 0)
            mj_measure_count(&x->measures, (mj_count)i, x->s->owed[i]);
    if (!x->measures.changed)
        return 0;
    b->n = 0;
    if (mj_measures_encode(&x->measures, b) != MJ_OK)
        return MJ_ENOMEM;
    return mj_txn_put(x, DB_META, mj_val(MJ_MEASURES_KEY, sizeof MJ_MEASURES_KEY - 1), mj_val(b->p, b->n));
}

/* What a transaction counted that is not stored. */
static void owe(const mj_txn *x)
{
    for (unsigned i = 0; i < MJ_NCOUNTS; i++)
        x->s->owed[i] += x->measures.counts[i] - x->counted[i];
    x->s->owes = x->s->owes || x->owes;
}

static void owe_nothing(mj_store *s)
{
    memset(s->owed, 0, sizeof s->owed);
    s->owes = false;
}

void mj_account_read(MDB_val key, MDB_val v, mj_held *h)
{
    mj_reader r = mj_reader_of(v.mv_data, v.mv_size);
    mj_str reason;
    size_t n = key.mv_size < MJ_MAX_NAME ? key.mv_size : MJ_MAX_NAME;

    memset(h, 0, sizeof *h);
    memcpy(h->name, key.mv_data, n);
    h->held = mj_get_u32(&r);
    h->paused_until = mj_get_int(&r);
    reason = mj_str_head(mj_get_str(&r), sizeof h->reason - 1);
    if (reason.n)
        memcpy(h->reason, reason.p, reason.n);
    if (r.p == r.end)
        return; /* written before caps were learned */
    h->learned = mj_get_u32(&r);
    h->learned_at = mj_get_int(&r);
    if (r.p != r.end) /* as above */
        h->paused_at = mj_get_int(&r);
}

static int load_accounts(mj_txn *x)
{
    MDB_cursor *c;
    MDB_val key, value;
    int rc = mdb_cursor_open(x->t, mj_env_dbi(x->s->env, DB_ACCOUNT), &c);

    if (rc != 0)
        return rc;
    while (x->nheld < MJ_MAX_ACCOUNTS && (rc = mj_env_next(x->s->env, c, &key, &value, MDB_NEXT)) == 0) {
        mj_held *h = &x->held[x->nheld++];
        mj_account_read(key, value, h);
        if (h->learned_at != 0 && x->now - h->learned_at > FORGET_MS)
            h->learned_at = h->learned = 0, h->dirty = true;
        if (h->learned_at - x->now > MJ_CLOCK_STEP_MS) /* by a clock that was ahead */
            h->learned_at = x->now, h->dirty = true;
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int save_accounts(mj_txn *x)
{
    mj_buf *b = &x->s->scratch;
    int rc = 0;

    for (unsigned i = 0; i < x->nheld && rc == 0; i++) {
        mj_held *h = &x->held[i];
        if (!h->dirty)
            continue;
        /* Nothing to remember: names come and go. */
        if (h->held == 0 && !mj_account_rests(h->paused_until, h->paused_at, x->now) && h->learned_at == 0) {
            rc = mj_txn_del(x, DB_ACCOUNT, mj_val(h->name, strlen(h->name)));
            continue;
        }
        b->n = 0;
        mj_put_uint(b, h->held);
        mj_put_int(b, h->paused_until);
        mj_put_str(b, (mj_str){h->reason, (uint32_t)strlen(h->reason)});
        mj_put_uint(b, h->learned);
        mj_put_int(b, h->learned_at);
        mj_put_int(b, h->paused_at);
        rc = b->failed ? MJ_ENOMEM : mj_txn_put(x, DB_ACCOUNT, mj_val(h->name, strlen(h->name)), mj_val(b->p, b->n));
    }
    return rc;
}

int mj_txn_task(mj_txn *x, const uint8_t *ref, mj_task *t, MDB_val *bytes)
{
    int rc = mj_txn_get(x, DB_TASK, mj_val(ref, MJ_ULID_BYTES), bytes);

    if (rc == 0)
        rc = mj_task_decode(bytes->mv_data, bytes->mv_size, t);
    return rc == 0 && memcmp(t->ref, ref, MJ_ULID_BYTES) != 0 ? MJ_ECORRUPT : rc;
}

/* ---- operations ---- */

void mj_op_reset(mj_op *op, int code)
{
    op->code = code;
    op->made = MJ_EVENT_NONE;
    op->verdict = MJ_VERDICT_SAME;
    op->done = 0;
    op->more = op->pruned = false;
    op->record.n = op->event_bytes.n = op->tomb.n = 0;
    op->record.failed = op->event_bytes.failed = op->tomb.failed = false;
}

/* The task's record, as it stands in the store.  Without memory for it the transaction fails, not the operation: what
 * that wrote would be committed, and the caller would be told that it was not. */
static int give_back_bytes(mj_op *op, MDB_val bytes)
{
    if (!op->want)
        return 0;
    op->record.n = 0;
    mj_put_raw(&op->record, bytes.mv_data, bytes.mv_size);
    return op->record.failed ? MJ_ENOMEM : 0;
}

static int give_back_known(mj_txn *x, mj_op *op, const void *ref)
{
    MDB_val bytes;
    int rc;

    memcpy(op->ref, ref, MJ_ULID_BYTES);
    rc = mj_txn_get(x, DB_TASK, mj_val(op->ref, MJ_ULID_BYTES), &bytes);
    if (rc == 0)
        return give_back_bytes(op, bytes);
    if (rc == MDB_NOTFOUND && (rc = mj_txn_get(x, DB_TOMB, mj_val(op->ref, MJ_ULID_BYTES), &bytes)) == 0) {
        op->pruned = true;
        mj_put_raw(&op->tomb, bytes.mv_data, bytes.mv_size);
        rc = op->tomb.failed ? MJ_ENOMEM : 0;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Writes a changed (or new) task, gives it back, stores its event: in this order, since the record lies in the
 * scratch buffer until the next thing is encoded there.  t's strings may be gone afterwards. */
static int store_change(mj_txn *x, mj_op *op, mj_task *t, const mj_facets *old, mj_event event)
{
    int rc;

    t->event_seq += event != MJ_EVENT_NONE;
    rc = mj_index_write(x, t, old);
    if (rc == MJ_ELIMIT) { /* a slot of an account too many: nothing was written */
        op->code = rc;
        return 0;
    }
    op->made = event;
    if (rc == 0)
        rc = give_back_bytes(op, mj_val(x->s->scratch.p, x->s->scratch.n));
    return rc == 0 && event != MJ_EVENT_NONE ? mj_event_add(x, t, event) : rc;
}

/* What can't be stored fails its own operation, not the transaction. */
static bool storable(const mj_task *t, const mj_signal *sig)
{
    return t->key.n <= MJ_MAX_NAME && t->user_id.n <= MJ_MAX_NAME && t->account.n <= MJ_MAX_NAME &&
           sig->account.n <= MJ_MAX_NAME && sig->task_id.n <= MJ_MAX_TASK_ID && t->prompt.n <= MJ_MAX_PROMPT &&
           t->context.n <= MJ_MAX_JSON && t->expires_at >= 0 && t->expires_at <= MJ_MAX_TIME &&
           (t->account.n == 0 || !memchr(t->account.p, 0, t->account.n));
}

static int op_create(mj_txn *x, mj_op *op)
{
    mj_task t = *op->task;
    mj_facets none = {0};
    MDB_val v;
    int rc;

    if (!storable(&t, &op->sig)) {
        op->code = MJ_EINVAL;
        return 0;
    }
    if (op->sig.task_id.n && op->sig.account.n && mj_txn_account(x, op->sig.account) < 0) {
        op->code = MJ_ELIMIT;
        return 0;
    }
    if (t.key.n) {
        rc = mj_txn_get(x, DB_KEY, mj_val(t.key.p, t.key.n), &v);
        if (rc == 0 && v.mv_size == MJ_ULID_BYTES + sizeof t.fingerprint) {
            bool same = memcmp((uint8_t *)v.mv_data + MJ_ULID_BYTES, t.fingerprint, sizeof t.fingerprint) == 0;
            op->code = same ? MJ_EDUPLICATE : MJ_EKEY;
            return give_back_known(x, op, v.mv_data);
        }
        if (rc != MDB_NOTFOUND)
            return rc ? rc : MJ_ECORRUPT;
    }
    if (op->sig.task_id.n) {
        rc = mj_txn_get(x, DB_TID, mj_val(op->sig.task_id.p, op->sig.task_id.n), &v);
        if (rc == 0) {
            op->code = MJ_EDUPLICATE;
            return give_back_known(x, op, v.mv_data);
        }
        if (rc != MDB_NOTFOUND)
            return rc;
    }
    if (mj_ulid_next(x->counters.last_ref, x->now) != MJ_OK)
        return MJ_EIO;
    memcpy(t.ref, x->counters.last_ref, MJ_ULID_BYTES);
    memcpy(op->ref, t.ref, MJ_ULID_BYTES);
    mj_state_create(&t, &op->sig, &x->rules, x->now);
    return store_change(x, op, &t, &none, MJ_EVENT_NONE);
}

/* The outcome of a task that could not be read, or the transaction's end. */
static int unread(mj_op *op, int rc)
{
    if (rc != MDB_NOTFOUND && rc != MJ_ECORRUPT && rc != MJ_ESCHEMA && rc != MJ_ELIMIT)
        return rc;
    op->code = rc == MDB_NOTFOUND ? MJ_EUNKNOWN : rc; /* one unreadable record fails one operation */
    return 0;
}

/* Applies a signal to the task *t, which was read from `bytes`. */
static int apply(mj_txn *x, mj_op *op, const mj_signal *sig, mj_task *t, MDB_val bytes)
{
    mj_before before = {t->state, t->called_at}; /* layer: copy */
    mj_facets old;
    mj_step step;
    int rc = mj_facets_of(x, t, &old);

    if (rc != 0)
        return unread(op, rc);
    if (sig->kind == SIG_CLAIM && mj_txn_account(x, sig->account) < 0) {
        op->code = MJ_ELIMIT;
        return 0;
    }
    op->code = mj_state_apply(t, sig, &x->rules, x->now, &step);
    mj_measure_signal(&x->measures, before, t, sig, op->code, &step, x->now);
    x->owes = x->owes || step.withheld;
    if (step.changed)
        return store_change(x, op, t, &old, step.event);
    return give_back_bytes(op, bytes);
}

int mj_txn_apply(mj_txn *x, mj_op *op, const mj_signal *sig)
{
    mj_task t;
    MDB_val bytes;
    int rc = mj_txn_task(x, op->ref, &t, &bytes);

    return rc != 0 ? unread(op, rc) : apply(x, op, sig, &t, bytes);
}

int mj_txn_rewind(mj_txn *x, const uint8_t *ref)
{
    mj_op op = {0};
    mj_facets old;
    MDB_val bytes;
    mj_task t;
    int rc = mj_txn_task(x, ref, &t, &bytes);

    if (rc == 0)
        rc = mj_facets_of(x, &t, &old);
    if (rc != 0)
        return unread(&op, rc);
    return mj_state_rewind(&t, &x->rules, x->now) ? store_change(x, &op, &t, &old, MJ_EVENT_NONE) : 0;
}

/* Finds the task that a signal is about: by ref, or by the task id it carries.  Which attempt is the reducer's to
 * tell. */
static int address(mj_txn *x, mj_op *op)
{
    MDB_val v;
    int rc;

    if (op->sig.task_id.n == 0 || op->sig.task_id.n > MJ_MAX_TASK_ID)
        return op->has_ref && op->sig.task_id.n == 0 ? 0 : MDB_NOTFOUND;
    rc = mj_txn_get(x, DB_TID, mj_val(op->sig.task_id.p, op->sig.task_id.n), &v);
    if (rc == MDB_NOTFOUND)
        return op->has_ref ? 0 : rc;
    if (rc != 0)
        return rc;
    if (v.mv_size != MJ_ULID_BYTES + 4)
        return MJ_ECORRUPT;
    if (op->has_ref && memcmp(v.mv_data, op->ref, MJ_ULID_BYTES) != 0) {
        op->sig.foreign_id = true;
        return 0;
    }
    memcpy(op->ref, v.mv_data, MJ_ULID_BYTES);
    return 0;
}

/* Most signals name a task and an id that is its own: then the index of ids need not be asked, which in a store that is
 * larger than the memory is a page from the disk. */
static bool is_own(mj_txn *x, mj_op *op, mj_task *t, MDB_val *bytes)
{
    return op->has_ref && op->sig.task_id.n > 0 && mj_txn_task(x, op->ref, t, bytes) == 0 &&
           mj_task_attempt_of(t, op->sig.task_id) > 0;
}

static int op_signal(mj_txn *x, mj_op *op)
{
    mj_signal given = op->sig;
    MDB_val bytes;
    mj_task t;
    int rc = 0;

    if (is_own(x, op, &t, &bytes)) {
        rc = apply(x, op, &op->sig, &t, bytes);
    } else {
        rc = address(x, op);
        rc = rc != 0 ? unread(op, rc) : mj_txn_apply(x, op, &op->sig);
    }
    if (op->code == MJ_EUNKNOWN && given.source == MJ_FROM_CALLBACK)
        mj_measure_count(&x->measures, MJ_CALLBACK_UNKNOWN, 1);
    op->sig = given; /* a batch may be run again on a larger map */
    return rc;
}

static int run(mj_txn *x, mj_op *op)
{
    mj_op_reset(op, MJ_OK);
    switch (op->kind) {
    case MJ_OP_CREATE:
        return op_create(x, op);
    case MJ_OP_SIGNAL:
        return op_signal(x, op);
    case MJ_OP_CLAIM:
    case MJ_OP_PAUSE:
    case MJ_OP_TICK:
        return mj_claim_op(x, op);
    case MJ_OP_EVENT_TAKE:
    case MJ_OP_EVENT_DONE:
    case MJ_OP_EVENT_RETRY:
    case MJ_OP_EVENT_KICK:
    case MJ_OP_EVENT_BURY:
        return mj_event_op(x, op);
    case MJ_OP_SWEPT:
        op->verdict = mj_measure_sweep(&x->measures, op->want, op->until, x->now);
        mj_measure_count(&x->measures, MJ_POLL_REQUESTS, op->limit);
        x->dirty = true;
        return 0;
    case MJ_OP_REFUSE:
        mj_measure_count(&x->measures, MJ_CALLBACK_REFUSED, 1);
        return mj_refused_op(x, op);
    case MJ_OP_PRUNE:
    case MJ_OP_PRUNE_FROM:
    case MJ_OP_FORGET:
        return mj_prune_op(x, op);
    case MJ_OP_UPGRADE:
        return mj_upgrade_op(x, op);
    }
    op->code = MJ_EINVAL;
    return 0;
}

/* *full: the size of the map that was too small, when it was.  `settle`: what is owed is written, whatever else is. */
static int run_all(mj_store *s, mj_op *ops, size_t n, int64_t now, const mj_ready *ready, bool settle, uint64_t *full)
{
    mj_txn x = {.s = s, .now = now, .dirty = settle};
    MDB_txn *t;
    int rc = mj_env_begin(s->env, 0, &x.t);

    if (rc != 0)
        return rc;
    s->scratch.failed = false;
    *full = mj_env_size(s->env);
    rc = mj_env_schema(s->env, x.t); /* a newer mjhook may have come since we opened the store */
    if (rc == 0 && !mj_env_in_place(s->env, s->detail, sizeof s->detail))
        rc = MJ_EIO;
    if (rc == 0)
        rc = load_counters(&x);
    if (rc == 0)
        rc = load_measures(&x);
    if (rc == 0)
        rc = load_accounts(&x);
    if (rc == 0 && !settle)
        rc = mj_clock_look(&x);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = run(&x, &ops[i]);
    if (rc == 0 && x.dirty)
        rc = save_counters(&x);
    if (rc == 0 && x.dirty)
        rc = save_measures(&x);
    if (rc == 0 && x.dirty)
        rc = save_accounts(&x);
    if (rc == 0 && x.dirty)
        rc = mj_clock_remember(&x);
    if (rc == 0 && ready)
        rc = ready->call(ready->ctx);
    t = x.t;
    if (rc == 0 && x.dirty) {
        MJ_FAULT("store.commit");
        rc = mdb_txn_commit(t); /* frees it, also when it fails */
        MJ_FAULT("store.committed");
        if (rc == 0)
            owe_nothing(s);
    } else {
        mdb_txn_abort(t);
        if (rc == 0)
            owe(&x);
    }
    mj_env_leave(s->env);
    return rc;
}

int mj_store_write(mj_store *s, mj_op *ops, size_t n, int64_t now)
{
    return mj_store_write_ready(s, ops, n, now, NULL);
}

int mj_store_write_ready(mj_store *s, mj_op *ops, size_t n, int64_t now, const mj_ready *ready)
{
    uint64_t full = 0;
    int rc;

    s->detail[0] = '\0';
    rc = now < 0 || now > MJ_MAX_TIME ? MJ_EINVAL : mj_store_ready(s);
    for (size_t i = 0; i < n && rc == MJ_OK; i++)
        if (ops[i].kind == MJ_OP_TICK)
            mj_env_bury_readers(s->env);
    while (rc == MJ_OK) {
        MJ_FAULT("store.begin");
        rc = run_all(s, ops, n, now, ready, false, &full);
        if (rc != MDB_MAP_FULL)
            break;
        rc = mj_env_grow(s->env, full);
        if (rc == MJ_ENOSPC)
            snprintf(s->detail, sizeof s->detail, "the store has reached map_max: raise it");
    }
    if (rc == EIO && mj_env_disk_full(s->env))
        rc = ENOSPC; /* LMDB calls a write that came out short EIO */
    if (rc != MJ_OK) {
        mj_store_blame(s, rc);
        rc = mj_env_code(rc);
        for (size_t i = 0; i < n; i++)
            mj_op_reset(&ops[i], rc);
    }
    return rc;
}

void mj_store_settle(mj_store *s)
{
    uint64_t full;

    /* Without operations no time is needed.  Counters that can't be stored are no task's fact. */
    if (s->owes && run_all(s, NULL, 0, 0, NULL, true, &full) != 0)
        owe_nothing(s);
}

void mj_op_clear(mj_op *op)
{
    mj_buf_free(&op->record);
    mj_buf_free(&op->event_bytes);
    mj_buf_free(&op->tomb);
}

int mj_store_accounts(mj_store *s, const mj_account *a, size_t n)
{
    mj_cap *caps;

    if (n > MJ_MAX_ACCOUNTS)
        return MJ_ELIMIT;
    caps = calloc(n ? n : 1, sizeof *caps);
    if (!caps)
        return MJ_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (a[i].name.n == 0 || a[i].name.n > MJ_MAX_NAME || memchr(a[i].name.p, 0, a[i].name.n)) {
            free(caps);
            return MJ_EINVAL;
        }
        memcpy(caps[i].name, a[i].name.p, a[i].name.n);
        caps[i].max_in_flight = a[i].max_in_flight;
    }
    free(s->caps);
    s->caps = caps;
    s->ncaps = n;
    return MJ_OK;
}
