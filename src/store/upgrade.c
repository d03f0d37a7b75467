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
#include "store/impl.h"

#include <string.h>

static int rewrite(mj_txn *x, const uint8_t *ref, MDB_val bytes, uint32_t *done)
{
    mj_buf *b = &x->s->scratch;
    mj_task t;

    if (bytes.mv_size > 0 && ((const uint8_t *)bytes.mv_data)[0] == MJ_TASK_VERSION)
        return 0;
    if (mj_task_decode(bytes.mv_data, bytes.mv_size, &t) != MJ_OK)
        return 0; /* unreadable: left as it is, for check() to tell of and for a person to look at */
    b->n = 0;
    if (mj_task_encode(&t, b) != MJ_OK)
        return MJ_ENOMEM;
    ++*done;
    return mj_txn_put(x, DB_TASK, mj_val(ref, MJ_ULID_BYTES), mj_val(b->p, b->n));
}

int mj_upgrade_op(mj_txn *x, mj_op *op)
{
    MDB_val meta = mj_val(MJ_UPGRADE_KEY, sizeof MJ_UPGRADE_KEY - 1), v, key;
    uint8_t ref[MJ_ULID_BYTES];
    int rc = mj_txn_get(x, DB_META, meta, &v);

    op->done = 0;
    op->more = false;
    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;
    if (v.mv_size != MJ_ULID_BYTES)
        return MJ_ECORRUPT;
    memcpy(ref, v.mv_data, MJ_ULID_BYTES);
    for (uint32_t seen = 0; rc == 0; seen++) {
        rc = mj_txn_seek(x, DB_TASK, mj_val(ref, MJ_ULID_BYTES), &key, &v);
        if (rc != 0)
            break;
        memcpy(ref, key.mv_data, MJ_ULID_BYTES);
        op->more = seen == op->limit;
        if (op->more)
            break;
        rc = rewrite(x, ref, v, &op->done);
        for (int i = MJ_ULID_BYTES - 1; i >= 0 && ++ref[i] == 0; i--)
            ;
    }
    if (rc == MDB_NOTFOUND)
        return mj_txn_del(x, DB_META, meta); /* all are rewritten */
    return rc != 0 ? rc : mj_txn_put(x, DB_META, meta, mj_val(ref, MJ_ULID_BYTES));
}
