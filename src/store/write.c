/* The write half of the store: a batch of operations as one unit of work, in one durable transaction. */
#include "store/rules.h"

#include <stdlib.h>
#include <string.h>

const char *mj_op_name(unsigned kind)
{
    static const char *const names[] = {
#define X(sym, name) name,
        MJ_OPS(X)
#undef X
    };
    return kind < MJ_NOPS ? names[kind] : "?";
}

static void swept(mj_unit *u, mj_op *op)
{
    mj_entry key = {.index = MJ_IX_META, .name = MJ_LIT(MJ_JUDGED_KEY)};
    mj_counters all = u->totals.counters;
    mj_buf *b = &u->s->scratch;

    mj_counters_count(&u->tally.counters, MJ_RECONCILED, 1);
    mj_counters_count(&u->tally.counters, MJ_POLL_REQUESTS, op->requests);
    mj_counters_add(&all, &u->tally.counters, false, u->now);
    op->verdict = mj_counters_reconciled(&all, &u->judged, op->judge, op->elapsed_ms, u->now);
    b->n = 0;
    if (mj_judged_encode(&u->judged, b) != MJ_OK)
        u->rc = MJ_ENOMEM;
    mj_unit_change_of(u, key, false, mj_unit_copy(u, b->p, b->n));
}

static void run(mj_unit *u, mj_op *op)
{
    mj_op_reset(op, MJ_OK);
    switch (op->kind) {
    case MJ_OP_CREATE:
        mj_op_create(u, op);
        return;
    case MJ_OP_REFUSE_INTAKE:
        mj_op_refuse_intake(u, op);
        return;
    case MJ_OP_SIGNAL:
        mj_op_signal(u, op);
        return;
    case MJ_OP_CLAIM:
        mj_op_claim(u, op);
        return;
    case MJ_OP_PAUSE:
        mj_op_pause(u, op);
        return;
    case MJ_OP_TICK:
        mj_op_tick(u, op);
        return;
    case MJ_OP_EVENT_TAKE:
    case MJ_OP_EVENT_DONE:
    case MJ_OP_EVENT_RETRY:
    case MJ_OP_EVENT_KICK:
    case MJ_OP_EVENT_BURY:
        mj_op_event(u, op);
        return;
    case MJ_OP_SWEPT:
        swept(u, op);
        return;
    case MJ_OP_REFUSE:
        mj_op_refuse(u, op);
        return;
    case MJ_OP_PRUNE:
        mj_op_prune(u, op);
        return;
    case MJ_OP_PRUNE_FROM:
        mj_op_prune_from(u, op);
        return;
    case MJ_OP_FORGET:
        mj_op_forget(u, op);
        return;
    case MJ_OP_UPGRADE:
        mj_op_upgrade(u, op);
        return;
    case MJ_NOPS:
        break;
    }
    op->code = MJ_EINVAL;
}

enum {
    AHEAD = 4
}; /* operations whose strings are fetched early: another thread wrote them, so they are in no near cache */

/* `always`: what is owed is written, whatever else is. */
static int run_all(mj_store *s, mj_op *ops, size_t n, int64_t now, const mj_ready *ready, bool always)
{
    mj_unit u;
    int rc = mj_unit_begin(&u, s, ops, n, now);

    if (rc != MJ_OK)
        return rc;
    u.dirty = always;
    if (!always)
        mj_clock_look(&u);
    for (size_t i = 0; i < n && u.rc == MJ_OK; i++) {
        if (i + AHEAD < n)
            __builtin_prefetch(ops[i + AHEAD].sig.task_id.p);
        run(&u, &ops[i]);
    }
    if (u.rc == MJ_OK && u.dirty)
        mj_clock_remember(&u);
    return mj_unit_end(&u, ready);
}

int mj_store_write(mj_store *s, mj_op *ops, size_t n, int64_t now)
{
    return mj_store_write_ready(s, ops, n, now, NULL);
}

int mj_store_write_ready(mj_store *s, mj_op *ops, size_t n, int64_t now, const mj_ready *ready)
{
    int rc, again = 0;

    s->detail[0] = '\0';
    rc = now < 0 || now > MJ_MAX_TIME ? MJ_EINVAL : mj_store_ready(s);
    for (size_t i = 0; i < n && rc == MJ_OK; i++)
        if (ops[i].kind == MJ_OP_TICK && s->backend->tidy)
            s->backend->tidy(s->db);
    s->hold_all = false;
    if (rc == MJ_OK)
        do
            rc = run_all(s, ops, n, now, ready, false);
        while (rc == MJ_EAGAIN && again++ < MJ_MAX_RERUNS);
    if (rc == MJ_EAGAIN)
        rc = MJ_EBUSY;
    for (size_t i = 0; i < n && rc != MJ_OK; i++)
        mj_op_reset(&ops[i], rc);
    return rc;
}

void mj_store_settle(mj_store *s)
{
    if (s->owes) /* without operations no time is needed; counters that can't be stored are no task's fact */
        (void)run_all(s, NULL, 0, 0, NULL, true);
}

void mj_op_clear(mj_op *op)
{
    mj_buf_free(&op->record);
    mj_buf_free(&op->event_bytes);
    mj_buf_free(&op->tomb);
}
