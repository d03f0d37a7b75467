/* Slots whose time is over, and queued tasks whose wait is over. */
#include "store/rules.h"

#include <string.h>

typedef struct due_list {
    mj_unit *u;
    uint32_t n, limit;
    mj_entry *entries;
} due_list;

static bool one_due(void *ctx, const mj_entry *e, mj_str bytes)
{
    due_list *l = ctx;

    (void)bytes;
    if (!mj_unit_changed(l->u, e->ref))
        l->entries[l->n++] = *e;
    return l->n < l->limit;
}

/* The same of a row that this unit has changed. */
static void add_wait(due_list *l, const mj_unit_row *r)
{
    mj_entry e = {.index = MJ_IX_DUE, .n = MJ_DUE_QUEUE, .at = r->is->due_at};

    memcpy(e.ref, r->ref, sizeof e.ref);
    if (r->is->due == MJ_DUE_QUEUE && e.at <= l->u->now)
        (void)mj_unit_insert(l->entries, &l->n, l->limit, &e);
}

static void add_slots(due_list *l, const mj_unit_row *r)
{
    mj_entry e = {.index = MJ_IX_SLOT};

    memcpy(e.ref, r->ref, sizeof e.ref);
    for (e.n = 1; e.n <= r->is->nattempts; e.n++) {
        e.at = r->is->attempts[e.n - 1].slot_until;
        if (r->is->attempts[e.n - 1].slot && e.at <= l->u->now)
            (void)mj_unit_insert(l->entries, &l->n, l->limit, &e);
    }
}

/* Entries of an index that are due, as the store has them and as this unit has left them. */
static due_list due_entries(mj_unit *u, mj_scan scan, uint32_t limit)
{
    due_list l = {u, 0, limit, limit ? mj_unit_alloc(u, ((size_t)limit + 1) * sizeof *l.entries) : NULL};
    int rc;

    if (!l.entries)
        return l;
    rc = u->s->backend->scan(u->tx, &scan, one_due, &l);
    if (rc != MJ_OK)
        u->rc = rc;
    for (const mj_unit_row *r = u->rows; r && u->rc == MJ_OK; r = r->next)
        if (r->changed && r->kind == MJ_ROW_TASK && scan.index == MJ_IX_DUE)
            add_wait(&l, r);
        else if (r->changed && r->kind == MJ_ROW_TASK)
            add_slots(&l, r);
    return l;
}

/* An entry of the slot index whose record is gone or can't be read: its slot is free again, or the account would be
 * short of it for ever.  check() tells of the record. */
static void drop_slot(mj_unit *u, const mj_entry *e)
{
    if (mj_unit_changed(u, e->ref))
        return;
    for (const mj_unit_change *c = u->changes; c; c = c->next) /* by an earlier operation of this unit */
        if (c->change.key.index == MJ_IX_SLOT && c->change.key.n == e->n &&
            memcmp(c->change.key.ref, e->ref, sizeof e->ref) == 0)
            return;
    mj_unit_hold(u, e->name, -1); /* the backend counts on when the entry goes */
    mj_unit_change_of(u, *e, true, (mj_str){0});
}

/* The provider is known to have the attempt's job. */
static bool has_job(mj_unit *u, const uint8_t *ref, uint32_t attempt)
{
    mj_unit_row *row;
    mj_attempt *a;
    mj_task t;

    if (mj_unit_task(u, ref, &row, &t) != MJ_OK)
        return false;
    a = mj_task_attempt(&t, attempt);
    return a && a->nids > 0;
}

uint32_t mj_tick_slots(mj_unit *u, uint32_t limit)
{
    mj_signal sig = {.kind = SIG_SLOT_END, .source = MJ_FROM_SWEEP, .expect_state = -1, .wait_ms = -1};
    due_list l = due_entries(u, mj_scan_slots(u, limit), limit);
    uint32_t ended = 0;
    mj_op op = {0};

    u->ticked = u->ticked && l.n < limit;
    for (uint32_t i = 0; i < l.n && u->rc == MJ_OK; i++) {
        memcpy(op.ref, l.entries[i].ref, sizeof op.ref);
        sig.attempt = l.entries[i].n;
        if (l.entries[i].at > u->sure && has_job(u, op.ref, sig.attempt))
            continue;
        ended++;
        op.code = MJ_OK;
        mj_apply(u, &op, &sig);
        if (u->rc == MJ_OK && op.code != MJ_OK)
            drop_slot(u, &l.entries[i]);
    }
    return ended;
}

uint32_t mj_tick_queue(mj_unit *u, uint32_t limit)
{
    mj_signal sig = {.kind = SIG_READY, .source = MJ_FROM_SWEEP, .expect_state = -1, .wait_ms = -1};
    due_list l = due_entries(u, mj_scan_waits(u, limit), limit);
    mj_op op = {0};

    u->ticked = u->ticked && l.n < limit;
    for (uint32_t i = 0; i < l.n && u->rc == MJ_OK; i++) {
        memcpy(op.ref, l.entries[i].ref, sizeof op.ref);
        op.code = MJ_OK;
        mj_apply(u, &op, &sig);
        if (u->rc == MJ_OK && op.code != MJ_OK && !mj_unit_changed(u, op.ref))
            mj_unit_change_of(u, l.entries[i], true, (mj_str){0});
    }
    return l.n;
}

void mj_op_tick(mj_unit *u, mj_op *op)
{
    uint32_t limit = mj_step_of(op);

    op->more = mj_clock_walk(u, limit);
    if (u->rc == MJ_OK)
        op->done = mj_tick_slots(u, limit);
    if (u->rc == MJ_OK)
        op->done += mj_tick_queue(u, limit);
}
