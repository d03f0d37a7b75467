/* Jobs that SQL has enqueued, until a batch makes tasks of them. */
#include "store/postgres/db.h"

int mj_pg_intake(void *handle, uint32_t limit, mj_intake_fn each, void *ctx)
{
    mj_pg *db = handle;
    mj_pg_conn *c = &db->conn;
    PGresult *r;
    int rc;

    c->why[0] = '\0';
    rc = db->no_wait ? MJ_EBUSY : mj_pg_connect(c);
    if (rc != MJ_OK)
        return rc;
    mj_pg_no_args(&c->args);
    mj_pg_arg_int(&c->args, limit);
    rc = mj_pg_run(c, MJ_PG_INTAKE_LIST, mj_pg_deadline(c));
    r = rc == MJ_OK ? mj_pg_take(c, c->nresults - 1) : NULL;
    mj_pg_clear(c);
    for (int row = 0; r && row < PQntuples(r); row++)
        each(ctx, mj_pg_bytes(r, row, 0), mj_pg_bytes(r, row, 1));
    PQclear(r);
    return rc;
}

/* enqueue() locks the gate's row for share, and then looks at the note of a move.  So an update of that row waits for
 * all that have not looked or not committed; and a transaction whose snapshot is older than the note can't lock it any
 * more.  In the same way each batch ends with an update of its writer's row, which fails when the epoch is another. */
int mj_pg_barrier(void *handle)
{
    enum { TRIES = 8 };
    mj_pg *db = handle;
    mj_pg_conn *c = &db->conn;
    int rc, tries = 0;

    if (db->no_wait)
        return MJ_EBUSY;
    do {
        c->why[0] = '\0';
        rc = mj_pg_connect(c);
        mj_pg_no_args(&c->args);
        if (rc == MJ_OK)
            rc = mj_pg_run(c, MJ_PG_BARRIER_INTAKE, mj_pg_deadline(c));
        mj_pg_clear(c);
        if (rc != MJ_OK)
            continue;
        mj_pg_arg_int(&c->args, db->writer.have ? db->writer.id : -1);
        rc = mj_pg_run(c, MJ_PG_BARRIER_WRITERS, mj_pg_deadline(c));
        mj_pg_clear(c);
    } while (rc == MJ_EAGAIN && ++tries < TRIES);
    return rc;
}
