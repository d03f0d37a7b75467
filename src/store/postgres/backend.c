/* PostgreSQL as a backend: handles, and the beginning and end of transactions. */
#include "base/fault.h"
#include "store/postgres/db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- handles ---- */

static void release(mj_pg *db)
{
    mj_pg_url_free(&db->url);
    mj_pg_args_free(&db->conn.args);
    mj_buf_free(&db->conn.recorded);
    mj_buf_free(&db->held);
    free(db);
}

static mj_pg *handle_of(const char *where, const mj_store_options *o, int *rc, char *why, size_t why_size)
{
    mj_pg *db = calloc(1, sizeof *db);

    *rc = db ? mj_pg_url_parse(where, o, &db->url, why, why_size) : MJ_ENOMEM;
    if (*rc != MJ_OK) {
        free(db);
        return NULL;
    }
    db->conn.url = &db->url;
    db->conn.why = why;
    db->conn.why_size = why_size;
    db->conn.pid = getpid();
    db->no_wait = o->no_wait;
    db->tx.db = db;
    db->spread = (unsigned)getpid();
    return db;
}

/* The schema's version; on a connection of its own, which ends. */
static int look_at_schema(mj_pg *db, int *version)
{
    int rc;

    db->conn.keep_schema = true;
    rc = mj_pg_connect(&db->conn);
    if (rc == MJ_OK)
        rc = mj_pg_version(&db->conn, version);
    mj_pg_disconnect(&db->conn);
    db->conn.keep_schema = false;
    return rc;
}

static int pg_exists(const char *where, const mj_store_options *o, char *why, size_t why_size)
{
    int rc, version = 0;
    mj_pg *db = handle_of(where, o, &rc, why, why_size);

    if (!db)
        return rc;
    rc = look_at_schema(db, &version);
    if (rc == MJ_ENOTFOUND) /* the database itself: no answer to what was asked */
        rc = MJ_EIO;
    if (rc == MJ_OK && version == 0)
        rc = MJ_ENOTFOUND;
    release(db);
    return rc;
}

/* A store that is not there is made, like a directory.  One of an older version is a person's to upgrade: other hosts
 * may run the former programs. */
static int make_sure(mj_pg *db)
{
    int rc = mj_pg_connect(&db->conn), version = 0, from;

    if (rc != MJ_ESCHEMA)
        return rc;
    db->conn.retry_at = 0;
    rc = look_at_schema(db, &version);
    db->conn.retry_at = 0;
    if (rc == MJ_OK && version == 0) {
        db->conn.why[0] = '\0';
        db->conn.keep_schema = true;
        rc = mj_pg_migrate(&db->conn, &from);
        mj_pg_disconnect(&db->conn);
        db->conn.keep_schema = false;
        db->conn.retry_at = 0;
    }
    return rc == MJ_OK ? mj_pg_connect(&db->conn) : rc;
}

static int pg_open(const char *where, const mj_store_options *o, void **out, char *why, size_t why_size)
{
    mj_pg *db;
    int rc;

    why[0] = '\0';
    db = handle_of(where, o, &rc, why, why_size);
    if (!db)
        return rc;
    if (!db->no_wait) /* a thread that must not wait hands its work to others */
        rc = make_sure(db);
    if (rc != MJ_OK) {
        mj_pg_disconnect(&db->conn);
        release(db);
        return rc;
    }
    *out = db;
    return MJ_OK;
}

static bool pg_foreign(const void *handle)
{
    const mj_pg *db = handle;

    return db->conn.pid != getpid();
}

static void pg_close(void *handle)
{
    mj_pg *db = handle;

    if (pg_foreign(db)) {
        mj_pg_forget(&db->conn);
    } else {
        mj_pg_writer_free(db);
        mj_pg_disconnect(&db->conn);
    }
    mj_pg_leave_locks(db);
    mj_pg_drop(&db->tx);
    release(db);
}

static int pg_ready(void *handle, bool *forked)
{
    mj_pg *db = handle;

    *forked = pg_foreign(db);
    if (!*forked)
        return MJ_OK;
    mj_pg_drop(&db->tx);
    mj_pg_forget(&db->conn);
    mj_pg_leave_locks(db);
    db->writer = (mj_pg_writer){0};
    db->beaten = 0;
    db->again = 0;
    db->conn.pid = getpid();
    db->conn.retry_at = 0;
    return MJ_OK;
}

static int64_t pg_now(void *handle)
{
    const mj_pg *db = handle;
    struct timespec t;

    if (db->conn.clock_read)
        return mj_pg_ms() + db->conn.clock_offset;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- transactions ---- */

/* A batch that has to run again waits a little, each time longer, and never as long as another one. */
static void pause_before(mj_pg *db)
{
    enum { SHORTEST = 2, LONGEST = 100 };
    unsigned times = db->again < 6 ? db->again : 6;
    int64_t most = (int64_t)SHORTEST << times;
    struct timespec t;

    if (db->again == 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    most = most < LONGEST ? most : LONGEST;
    mj_pg_sleep(1 + (int64_t)((uint64_t)t.tv_nsec * 2654435761u >> 16) % most);
}

static int pg_begin(void *handle, bool write, mj_tx **out)
{
    mj_pg *db = handle;
    int rc;

    MJ_FAULT("store.begin");
    db->conn.why[0] = '\0';
    if (db->no_wait) {
        snprintf(db->conn.why, db->conn.why_size, "%s is asked over a network: not on an event loop", db->url.shown);
        return MJ_EBUSY;
    }
    if (write)
        pause_before(db);
    if (db->doubtful) {
        db->doubtful = db->writer.have = false;
        mj_pg_disconnect(&db->conn);
    }
    rc = mj_pg_connect(&db->conn);
    if (rc == MJ_OK && write) {
        mj_pg_beat(db);
        rc = mj_pg_keep_locks(db);
        if (rc == MJ_OK)
            rc = db->conn.c ? mj_pg_writer_have(db) : MJ_EIO;
        rc = mj_pg_again(db, rc);
    }
    if (rc != MJ_OK)
        return rc;
    mj_pg_drop(&db->tx);
    db->tx.open = true;
    db->tx.write = write;
    *out = &db->tx;
    return MJ_OK;
}

static void pg_abort(mj_tx *tx)
{
    if (!tx->open)
        return;
    if (tx->begun)
        mj_pg_rollback(&tx->db->conn);
    mj_pg_drop(tx);
}

/* Whether the server says that it is stored, although it may not be on the replica that it waited for. */
static bool is_committed(mj_pg_conn *c)
{
    PGresult *r = c->nresults ? c->results[c->nresults - 1] : NULL;

    return r && strcmp(PQcmdStatus(r), "COMMIT") == 0;
}

static int pg_commit(mj_tx *tx)
{
    mj_pg *db = tx->db;
    mj_pg_conn *c = &db->conn;
    int rc;

    MJ_FAULT("store.commit");
    mj_pg_no_args(&c->args);
    rc = mj_pg_begun(tx);
    if (rc == MJ_OK)
        rc = mj_pg_send(c, MJ_PG_COMMIT);
    if (rc == MJ_OK) {
        rc = mj_pg_trip(c, mj_pg_deadline(c));
        MJ_FAULT("store.committed");
        if ((rc == MJ_EIO && !c->c) || (rc == MJ_OK && c->warned))
            rc = mj_pg_settle(db);
        else if (rc == MJ_OK && !is_committed(c))
            rc = MJ_EAGAIN;
        else if (rc == MJ_OK)
            mj_pg_writer_done(db);
    }
    rc = mj_pg_again(db, rc);
    if (rc != MJ_OK && c->c && tx->begun)
        mj_pg_rollback(c);
    if (rc == MJ_OK) {
        db->again = 0;
        db->collided = false;
    }
    mj_pg_clear(c);
    mj_pg_drop(tx);
    return rc;
}

/* ---- sums ---- */

static int one_number(mj_tx *tx, unsigned statement, int64_t *n)
{
    mj_pg_conn *c = &tx->db->conn;
    int rc = mj_pg_begun(tx);

    mj_pg_no_args(&c->args);
    if (rc == MJ_OK)
        rc = mj_pg_send(c, statement);
    if (rc == MJ_OK)
        rc = mj_pg_go(tx);
    *n = rc == MJ_OK && c->nresults > 0 ? mj_pg_int(c->results[c->nresults - 1], 0, 0) : 0;
    mj_pg_clear(c);
    return rc;
}

static int pg_count(mj_tx *tx, mj_index index, uint64_t *n)
{
    int64_t found;
    int rc = one_number(tx, index == MJ_IX_ACCOUNT ? MJ_PG_COUNT_ACCOUNTS : mj_pg_of(MJ_PG_COUNT, index, 0), &found);

    *n = (uint64_t)found;
    return rc;
}

static int pg_size(mj_tx *tx, uint64_t *used, uint64_t *reserved)
{
    int64_t found;
    int rc = one_number(tx, MJ_PG_SIZE, &found);

    *used = (uint64_t)found;
    *reserved = 0;
    return rc;
}

/* A writer knows its own sums, and has the others' from time to time. */
static int pg_totals(mj_tx *tx, mj_tally *out)
{
    mj_pg *db = tx->db;
    mj_pg_writer *w = &db->writer;
    mj_pg_conn *c = &db->conn;
    int64_t now = mj_pg_ms();
    int rc;

    if (!tx->write || !w->others_at || now - w->others_at > MJ_PG_TOTALS_MS) {
        mj_tally sum;
        rc = mj_pg_begun(tx);
        mj_pg_no_args(&c->args);
        mj_pg_arg_int(&c->args, tx->write ? w->id : -1);
        if (rc == MJ_OK)
            rc = mj_pg_send(c, MJ_PG_TOTALS);
        if (rc == MJ_OK)
            rc = mj_pg_go(tx);
        if (rc == MJ_OK)
            rc = mj_pg_add_up(c->results[c->nresults - 1], tx->write ? &w->others : &sum);
        mj_pg_clear(c);
        if (rc != MJ_OK)
            return rc;
        if (!tx->write) {
            *out = sum;
            return MJ_OK;
        }
        w->others_at = now;
    }
    *out = w->others;
    mj_tally_add(out, &w->own);
    return MJ_OK;
}

/* ---- housekeeping ---- */

static void pg_tidy(void *handle)
{
    mj_pg *db = handle;
    mj_pg_conn *c = &db->conn;

    if (db->no_wait || mj_pg_connect(c) != MJ_OK)
        return;
    mj_pg_no_args(&c->args);
    mj_pg_arg_int(&c->args, MJ_PG_FREE_S);
    (void)mj_pg_run(c, MJ_PG_WRITERS_FREE, mj_pg_deadline(c));
    mj_pg_clear(c);
}

static int pg_backup(mj_tx *tx, const char *to)
{
    (void)to;
    snprintf(
        tx->db->conn.why, tx->db->conn.why_size,
        "PostgreSQL is backed up with its own tools: pg_dump --schema=%s for a copy, pg_basebackup and archived WAL "
        "to go back to any moment",
        tx->db->url.schema);
    return MJ_EINVAL;
}

static const char *pg_library(void *handle)
{
    static _Thread_local char text[80];
    const mj_pg *db = handle;
    int lib = PQlibVersion(), server = db && db->conn.c ? PQserverVersion(db->conn.c) : 0;

    if (server)
        snprintf(text, sizeof text, "PostgreSQL %d.%d (libpq %d.%d)", server / 10000, server % 10000, lib / 10000,
                 lib % 10000);
    else
        snprintf(text, sizeof text, "libpq %d.%d", lib / 10000, lib % 10000);
    return text;
}

const mj_backend mj_backend_postgres = {
    .abi = MJ_BACKEND_ABI,
    .bytes = sizeof(mj_backend),
    .name = "postgresql",
    .waits = true,
    .exists = pg_exists,
    .open = pg_open,
    .close = pg_close,
    .ready = pg_ready,
    .foreign = pg_foreign,
    .now = pg_now,
    .begin = pg_begin,
    .load = mj_pg_load,
    .get = mj_pg_get,
    .scan = mj_pg_scan,
    .count = pg_count,
    .totals = pg_totals,
    .apply = mj_pg_apply,
    .commit = pg_commit,
    .abort = pg_abort,
    .lock = mj_pg_lock,
    .unlock = mj_pg_unlock,
    .tidy = pg_tidy,
    .size = pg_size,
    .backup = pg_backup,
    .facts = mj_pg_facts,
    .host = mj_pg_host,
    .intake = mj_pg_intake,
    .barrier = mj_pg_barrier,
    .library = pg_library,
};
