/* From one record version to the next, while all processes go on working.
 *
 * How an upgrade works, and how to add a version:
 *  1. domain/task.c learns to write version N and keeps every older reader; add a
 *     golden record of version N to spec/c/task_golden_test.c.
 *  2. MJ_STORE_SCHEMA goes up.  Opening an older store writes the new number (so
 *     that older programs refuse it from then on: they could not read what is
 *     about to be written) and an upgrade cursor, in one transaction.
 *  3. Reconcile runs MJ_OP_UPGRADE until nothing is left: each step rewrites a
 *     bounded number of records and moves the cursor in the same transaction, so
 *     that it goes on where it was after any death.  Records that are changed
 *     meanwhile are written in the new version anyway.
 * Index formats never change in place: a new index gets a new database. */
#include "store/rules.h"

#include <string.h>

typedef struct part {
    const mj_unit *u;
    uint32_t n, limit;
    bool more;
    mj_entry *old; /* of records that are to be rewritten */
    uint32_t nold;
    uint8_t next[MJ_ULID_BYTES];
} part;

static bool one(void *ctx, const mj_entry *e, mj_str bytes)
{
    part *p = ctx;
    bool newest = bytes.n > 0 && (uint8_t)bytes.p[0] == MJ_TASK_VERSION;

    memcpy(p->next, e->ref, MJ_ULID_BYTES);
    p->more = p->n++ == p->limit;
    if (p->more)
        return false;
    if (!newest && !mj_unit_changed(p->u, e->ref))
        p->old[p->nold++] = *e;
    for (int i = MJ_ULID_BYTES - 1; i >= 0 && ++p->next[i] == 0; i--) /* the next ref there could be */
        ;
    return true;
}

static bool rewrite(mj_unit *u, const uint8_t *ref)
{
    mj_unit_row *row;
    mj_task t;

    if (mj_unit_task(u, ref, &row, &t) != MJ_OK || !mj_unit_before(u, row, &t))
        return false; /* unreadable: left as it is, for check() to tell of and for a person to look at */
    return mj_unit_put(u, row, &t) == MJ_OK;
}

void mj_op_upgrade(mj_unit *u, mj_op *op)
{
    mj_entry key = {.index = MJ_IX_META, .name = MJ_LIT(MJ_UPGRADE_KEY)};
    mj_scan scan = {.index = MJ_IX_TASK, .positioned = true, .head = 1, .from = {.index = MJ_IX_TASK}};
    part p = {.u = u, .limit = mj_step_of(op)};
    mj_str from;
    int rc = mj_unit_meta(u, key, &from);

    if (rc == MJ_ENOTFOUND)
        return;
    if (rc == MJ_OK && from.n != MJ_ULID_BYTES)
        rc = MJ_ECORRUPT;
    p.old = mj_unit_alloc(u, ((size_t)p.limit + 1) * sizeof *p.old);
    if (rc == MJ_OK && p.old) {
        memcpy(scan.from.ref, from.p, MJ_ULID_BYTES);
        scan.limit = p.limit + 1;
        rc = u->s->backend->scan(u->tx, &scan, one, &p);
    }
    if (rc != MJ_OK)
        u->rc = rc;
    mj_unit_expect_tasks(u, p.old, p.nold);
    for (uint32_t i = 0; i < p.nold && u->rc == MJ_OK; i++)
        op->done += rewrite(u, p.old[i].ref);
    op->more = p.more;
    if (u->rc == MJ_OK) /* when all are rewritten, nothing is left to remember */
        mj_unit_change_of(u, key, !p.more, p.more ? mj_unit_copy(u, p.next, sizeof p.next) : (mj_str){0});
}
