/* Round trips in a transaction. */
#include "store/postgres/db.h"

#include <string.h>

/* What a lost connection or a conflict means to a batch: nothing of it is stored, and it may run again. */
int mj_pg_again(mj_pg *db, int rc)
{
    if (rc == MJ_EIO && !db->conn.c)
        rc = MJ_EAGAIN;
    if (rc == MJ_EAGAIN) {
        db->again++;
        db->collided = db->collided || strcmp(db->conn.state, "23505") == 0;
        if (db->conn.failed == MJ_PG_WRITER_BATCH && strcmp(db->conn.state, "22012") == 0)
            db->doubtful = true;
    }
    return rc;
}

int mj_pg_go(mj_tx *tx)
{
    mj_pg *db = tx->db;
    mj_pg_conn *c = &db->conn;
    int rc = mj_pg_trip(c, mj_pg_deadline(c));

    if (rc == MJ_EIO && !c->c && c->recording) /* nothing was read yet: another connection's snapshot will do */
        rc = mj_pg_replay(c, mj_pg_deadline(c));
    c->recording = false;
    return tx->write ? mj_pg_again(db, rc) : rc;
}

int mj_pg_begun(mj_tx *tx)
{
    mj_pg_conn *c = &tx->db->conn;
    int rc = MJ_OK;

    if (tx->begun)
        return c->c ? MJ_OK : tx->write ? mj_pg_again(tx->db, MJ_EIO) : MJ_EIO;
    mj_pg_no_args(&c->args);
    c->recording = !tx->write;
    c->recorded.n = 0;
    rc = mj_pg_send(c, tx->write ? MJ_PG_BEGIN_WRITE : MJ_PG_BEGIN_READ);
    if (rc == MJ_OK && c->pooled)
        rc = mj_pg_send(c, MJ_PG_SETTINGS);
    tx->begun = rc == MJ_OK;
    return rc == MJ_OK || c->c || !tx->write ? rc : mj_pg_again(tx->db, rc);
}
