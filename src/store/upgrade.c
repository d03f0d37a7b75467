/* From one record version to the next, while everybody goes on working.
 *
 * How an upgrade works, and how to add a version:
 *  1. domain/task.c learns to write version N and keeps every older reader; add a
 *     golden record of version N to spec/c/task_test.c.
 *  2. MJ_STORE_SCHEMA goes up.  Opening an older store writes the new number (so
 *     that older programs refuse it from then on: they could not read what is
 *     about to be written) and an upgrade cursor, in one transaction.
 *  3. The sweep runs MJ_OP_UPGRADE until nothing is left: each step rewrites a
 *     bounded number of records and moves the cursor in the same transaction, so
 *     that it goes on where it was after any death.  Records that are changed
 *     meanwhile are written in the new version anyway.
 * Index formats never change in place: a new index gets a new database. */
#include "store/rules.h"

#include <string.h>

typedef struct walk {
    mj_unit *u;
    mj_op *op;
    uint32_t seen;
    bool done;
    uint8_t next[MJ_ULID_BYTES];
} walk;

static void rewrite(mj_unit *u, const mj_entry *e, mj_str bytes, uint32_t *done)
{
    mj_unit_row *row;
    mj_task t;

    if ((bytes.n > 0 && (uint8_t)bytes.p[0] == MJ_TASK_VERSION) || mj_unit_changed(u, e->ref))
        return;
    if (mj_unit_task(u, e->ref, &row, &t) != MJ_OK || !mj_unit_before(u, row, &t))
        return; /* unreadable: left as it is, for check() to tell of and for a person to look at */
    *done += mj_unit_put(u, row, &t) == MJ_OK;
}

static bool one(void *ctx, const mj_entry *e, mj_str bytes)
{
    walk *w = ctx;

    memcpy(w->next, e->ref, MJ_ULID_BYTES);
    w->op->more = w->seen++ == w->op->limit;
    if (w->op->more)
        return false;
    rewrite(w->u, e, bytes, &w->op->done);
    for (int i = MJ_ULID_BYTES - 1; i >= 0 && ++w->next[i] == 0; i--) /* the next ref there could be */
        ;
    return w->u->rc == MJ_OK;
}

void mj_op_upgrade(mj_unit *u, mj_op *op)
{
    mj_entry key = {.index = MJ_IX_META, .name = MJ_LIT(MJ_UPGRADE_KEY)};
    mj_scan scan = {.index = MJ_IX_TASK, .positioned = true, .from = {.index = MJ_IX_TASK}};
    walk w = {.u = u, .op = op};
    mj_str from;
    int rc = mj_unit_meta(u, key, &from);

    if (rc == MJ_ENOTFOUND)
        return;
    if (rc == MJ_OK && from.n != MJ_ULID_BYTES)
        rc = MJ_ECORRUPT;
    if (rc == MJ_OK) {
        memcpy(scan.from.ref, from.p, MJ_ULID_BYTES);
        rc = u->s->backend->scan(u->tx, &scan, one, &w);
    }
    if (rc != MJ_OK)
        u->rc = rc;
    if (u->rc == MJ_OK) /* when all are rewritten, nothing is left to remember */
        mj_unit_change_of(u, key, !op->more, op->more ? mj_unit_copy(u, w.next, sizeof w.next) : (mj_str){0});
}
