/* A row for each connection that writes: its sums, and the number of its last batch.
 *
 * No row is written by all.  A batch's number is stored with it: after a
 * connection was lost under a COMMIT, the next one takes the row over, and the
 * number says whether that batch is in.  Taking it over raises the row's epoch,
 * which each batch checks: so the lost connection can commit nothing any more.
 * Rows of connections that ended are taken by new ones. */
#include "store/postgres/db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void random_bytes(uint8_t *to, size_t n)
{
    size_t done = 0;
    ssize_t got;

    while (done < n && (got = getrandom(to + done, n - done, 0)) > 0)
        done += (size_t)got;
}

static int tally_of(mj_str bytes, int64_t latest, mj_tally *out)
{
    int rc = MJ_OK;

    memset(out, 0, sizeof *out);
    if (bytes.n > 0)
        rc = mj_tally_decode(bytes, out, NULL);
    out->latest = latest;
    return rc;
}

int mj_pg_add_up(const PGresult *r, mj_tally *out)
{
    int rc = MJ_OK;

    memset(out, 0, sizeof *out);
    for (int row = 0; row < PQntuples(r) && rc == MJ_OK; row++) {
        mj_tally one;
        rc = tally_of(mj_pg_bytes(r, row, 0), mj_pg_int(r, row, 1), &one);
        if (rc == MJ_OK)
            mj_tally_add(out, &one);
    }
    return rc;
}

/* Keeps what a row tells. */
static int have(mj_pg *db, const PGresult *r)
{
    mj_pg_writer *w = &db->writer;
    int rc = tally_of(mj_pg_bytes(r, 0, 3), mj_pg_int(r, 0, 4), &w->own);

    w->id = mj_pg_int(r, 0, 0);
    w->epoch = mj_pg_int(r, 0, 1);
    w->batch = mj_pg_int(r, 0, 2);
    w->have = rc == MJ_OK;
    w->others_at = 0;
    return rc;
}

/* Before the first batch of a connection: a row that is free, or a new one. */
int mj_pg_writer_have(mj_pg *db)
{
    mj_pg_conn *c = &db->conn;
    int rc = MJ_OK;

    if (db->writer.have)
        return MJ_OK;
    random_bytes(db->writer.holder, sizeof db->writer.holder);
    for (unsigned i = 0; i < 2 && rc == MJ_OK && !db->writer.have; i++) {
        mj_pg_no_args(&c->args);
        mj_pg_arg_ref(&c->args, db->writer.holder);
        rc = mj_pg_run(c, i ? MJ_PG_WRITER_MAKE : MJ_PG_WRITER_TAKE, mj_pg_deadline(c));
        if (rc == MJ_OK && c->nresults == 1 && PQntuples(c->results[0]) == 1)
            rc = have(db, c->results[0]);
        else if (rc == MJ_EAGAIN && c->c && i == 0) /* another connection has just taken that row */
            rc = MJ_OK;
        mj_pg_clear(c);
    }
    if (rc == MJ_OK)
        c->why[0] = '\0';
    return rc;
}

int mj_pg_writer_send(mj_pg *db, const mj_tally *add)
{
    mj_pg_writer *w = &db->writer;
    mj_pg_args *a = &db->conn.args;
    mj_buf b = {0};
    int rc = MJ_OK;

    if (add->set_back) {
        mj_pg_no_args(a);
        mj_pg_arg_int(a, add->latest);
        rc = mj_pg_send(&db->conn, MJ_PG_SET_BACK);
    }
    w->next = w->own;
    mj_tally_add(&w->next, add);
    if (rc == MJ_OK)
        rc = mj_tally_encode(&w->next, &b);
    if (rc == MJ_OK) {
        mj_pg_no_args(a);
        mj_pg_arg_int(a, w->id);
        mj_pg_arg_int(a, w->epoch);
        mj_pg_arg_int(a, w->batch + 1);
        mj_pg_arg_bytes(a, (mj_str){(const char *)b.p, (uint32_t)b.n});
        mj_pg_arg_int(a, w->next.latest);
        rc = mj_pg_send(&db->conn, MJ_PG_WRITER_BATCH);
    }
    if (rc == MJ_OK && add->set_back && w->others.latest > add->latest)
        w->others_at = 0;
    mj_buf_free(&b);
    return rc;
}

void mj_pg_writer_done(mj_pg *db)
{
    db->writer.batch++;
    db->writer.own = db->writer.next;
}

void mj_pg_writer_free(mj_pg *db)
{
    enum { PATIENCE_MS = 1000 };
    mj_pg_conn *c = &db->conn;

    if (!db->writer.have || !c->c)
        return;
    mj_pg_no_args(&c->args);
    mj_pg_arg_int(&c->args, db->writer.id);
    mj_pg_arg_int(&c->args, db->writer.epoch);
    (void)mj_pg_run(c, MJ_PG_WRITER_FREE, mj_pg_ms() + PATIENCE_MS);
    db->writer.have = false;
}

/* The server may not know yet that the connection is lost: what it still holds is in the way. */
static void end_former(mj_pg_conn *c, int backend, int64_t start)
{
    if (backend == 0 || c->pooled || c->url->careful)
        return;
    mj_pg_no_args(&c->args);
    mj_pg_arg_int(&c->args, backend);
    mj_pg_arg_int(&c->args, start);
    (void)mj_pg_run(c, MJ_PG_END_BACKEND, mj_pg_deadline(c));
    mj_pg_clear(c);
    c->why[0] = '\0';
}

/* Takes the row over.  MJ_OK: *batch is the last one that is stored; -1: the row is another's by now. */
static int seize(mj_pg *db, int64_t *batch, int64_t until)
{
    mj_pg_conn *c = &db->conn;
    int rc;

    mj_pg_no_args(&c->args);
    mj_pg_arg_int(&c->args, db->writer.id);
    mj_pg_arg_ref(&c->args, db->writer.holder);
    rc = mj_pg_run(c, MJ_PG_WRITER_SEIZE, until);
    if (rc == MJ_OK && c->warned) /* this, too, was cancelled while it waited for its replica */
        rc = MJ_EAGAIN;
    *batch = -1;
    if (rc == MJ_OK && c->nresults == 1 && PQntuples(c->results[0]) == 1) {
        db->writer.epoch = mj_pg_int(c->results[0], 0, 0);
        *batch = mj_pg_int(c->results[0], 0, 1);
    }
    mj_pg_clear(c);
    return rc;
}

int mj_pg_settle(mj_pg *db)
{
    int64_t until = mj_pg_ms() + db->url.answer_ms, start = db->conn.backend_start, batch;
    int backend = db->conn.backend, rc;

    do {
        db->conn.why[0] = '\0';
        rc = mj_pg_connect(&db->conn);
        if (rc == MJ_OK) {
            end_former(&db->conn, backend, start);
            rc = db->conn.c ? seize(db, &batch, until) : MJ_EIO;
        }
        if (rc == MJ_OK && batch == db->writer.batch + 1) {
            mj_pg_writer_done(db);
            return MJ_OK;
        }
        if (rc == MJ_OK) {
            db->writer.have = batch >= 0;
            return MJ_EAGAIN;
        }
        mj_pg_sleep(20);
    } while (mj_pg_ms() < until && rc != MJ_ESCHEMA);
    db->writer.have = false;
    snprintf(
        db->conn.why, db->conn.why_size,
        "the connection to %s was lost while a batch was committed, and it could not be asked again within %g s: the "
        "batch is stored as a whole, or nothing of it",
        db->url.shown, db->url.answer_ms / 1000.0);
    return MJ_EUNSURE;
}
