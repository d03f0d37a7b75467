/* The tables, and how they come from one version to the next.
 *
 * To add a version: raise MJ_PG_SCHEMA, add a text to `versions`.  Each runs in a transaction of its own, forward only.
 * It ends with a new epoch for all writers: so programs of the former version fail at their next batch, connect anew,
 * see the new version and say so. */
#include "store/postgres/db.h"
#include "store/records.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* @ stands for the schema.  Tables of records that are written again and again keep room in their pages, so that the
 * new record goes into the same page and no index changes.  Tables of entries come and go all the time: they are
 * vacuumed when a little of them is dead. */
#define CHURN " WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)"
#define HOT(factor) " WITH (fillfactor = " factor ", autovacuum_vacuum_scale_factor = 0.05)"

static const char *const versions[MJ_PG_SCHEMA] = {
    /* 1 */
    "CREATE TABLE @.meta (name bytea PRIMARY KEY, bytes bytea NOT NULL)" HOT(
        "50") ";\n"
              "CREATE TABLE @.task (ref uuid PRIMARY KEY, record bytea NOT NULL)" HOT(
                  "40") ";\n"
                        "CREATE TABLE @.task_id (task_id bytea PRIMARY KEY, ref uuid NOT NULL, attempt int8 NOT "
                        "NULL);\n"
                        "CREATE TABLE @.key (key bytea PRIMARY KEY, ref uuid NOT NULL, fingerprint bytea NOT NULL);\n"
                        "CREATE TABLE @.task_of_user (user_id bytea, ref uuid, PRIMARY KEY (user_id, ref));\n"
                        "CREATE TABLE @.task_in_state (state int8, ref uuid, PRIMARY KEY (state, ref))" CHURN ";\n"
                        "CREATE TABLE @.due (job int8, at int8, ref uuid, PRIMARY KEY (job, at, ref))" CHURN ";\n"
                        "CREATE TABLE @.queue (account bytea, place int8, ref uuid, PRIMARY KEY (account, place, "
                        "ref))" CHURN ";\n"
                        "CREATE TABLE @.slot (until int8, ref uuid, attempt int8, account bytea NOT NULL, "
                        "PRIMARY KEY (until, ref, attempt))" CHURN ";\n"
                        "CREATE INDEX ON @.slot (account);\n"
                        "CREATE TABLE @.event (ref uuid, seq int8, record bytea NOT NULL, PRIMARY KEY (ref, seq))" HOT(
                            "50") ";\n"
                                  "CREATE TABLE @.outbox (at int8, ref uuid, seq int8, PRIMARY KEY (at, ref, "
                                  "seq))" CHURN ";\n"
                                  "CREATE TABLE @.account (name bytea PRIMARY KEY, record bytea NOT NULL)" HOT(
                                      "50") ";\n"
                                            "CREATE TABLE @.hold (name bytea PRIMARY KEY)" HOT(
                                                "50") ";\n"
                                                      "CREATE TABLE @.tomb (ref uuid PRIMARY KEY, record bytea NOT "
                                                      "NULL);\n"
                                                      "CREATE TABLE @.grave (pruned_at int8, ref uuid, PRIMARY KEY "
                                                      "(pruned_at, ref));\n"
                                                      "CREATE TABLE @.refused (number int8 PRIMARY KEY, record bytea "
                                                      "NOT NULL)" CHURN ";\n"
                                                      "CREATE TABLE @.writer (id int8 GENERATED ALWAYS AS IDENTITY "
                                                      "PRIMARY KEY, holder uuid NOT NULL, "
                                                      "epoch int8 NOT NULL DEFAULT 1, batch int8 NOT NULL DEFAULT 0, "
                                                      "tally bytea NOT NULL DEFAULT '', "
                                                      "latest int8 NOT NULL DEFAULT 0, "
                                                      "at timestamptz NOT NULL DEFAULT clock_timestamp(), free bool "
                                                      "NOT NULL DEFAULT false)" HOT(
                                                          "20") ";\n"
                                                                "CREATE TABLE @.lease (name bytea PRIMARY KEY, holder "
                                                                "uuid NOT NULL, owner bytea NOT NULL, "
                                                                "until timestamptz NOT NULL)" HOT(
                                                                    "50") ";\n"
                                                                          "CREATE TABLE @.host (boot uuid PRIMARY KEY, "
                                                                          "name bytea NOT NULL, seen_at timestamptz "
                                                                          "NOT NULL)" HOT("50") ";\n",
    /* 2: records of version 4, which a function of views.c reads; the reconciler rewrites those that are there */
    "INSERT INTO @.meta (name, bytes) SELECT '" MJ_UPGRADE_KEY "'::bytea, decode(repeat('00', 16), 'hex') "
    "WHERE EXISTS (SELECT FROM @.task) ON CONFLICT (name) DO UPDATE SET bytes = excluded.bytes;\n",
};

enum { MIGRATE_MS = 120000 }; /* the deadline of a step: it may wait for another process that migrates */

/* All statements of the step from version `from` on, which end with its row. */
static void add_step(mj_buf *out, const mj_pg_url *u, int from)
{
    char line[160];

    mj_pg_put_sql(out, u, versions[from]);
    for (unsigned i = 0; from == 0 && mj_pg_views[i]; i++)
        mj_pg_put_sql(out, u, mj_pg_views[i]);
    if (from == 1)
        mj_pg_put_sql(out, u, mj_pg_task_fields);
    snprintf(line, sizeof line,
             "INSERT INTO @.migration (version) VALUES (%d);\nUPDATE @.writer SET epoch = epoch + 1;\n", from + 1);
    mj_pg_put_sql(out, u, line);
}

void mj_pg_migration(const mj_pg_url *u, int from, bool has_schema, const char *user, mj_buf *out)
{
    static const char *const rights[] = {"USAGE ON SCHEMA @",
                                         "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA @",
                                         "USAGE ON ALL SEQUENCES IN SCHEMA @"};

    if (!has_schema)
        mj_pg_put_sql(out, u, "CREATE SCHEMA IF NOT EXISTS @;\n");
    if (from == 0)
        mj_pg_put_sql(out, u,
                      "CREATE TABLE IF NOT EXISTS @.migration (version int4 PRIMARY KEY, "
                      "at timestamptz NOT NULL DEFAULT clock_timestamp());\n");
    for (int v = from; v < MJ_PG_SCHEMA; v++) {
        mj_pg_put_sql(out, u, "BEGIN;\n");
        add_step(out, u, v);
        mj_pg_put_sql(out, u, "COMMIT;\n");
    }
    mj_pg_put_sql(out, u, "-- If another role than this user runs that, this user needs:\n");
    for (unsigned i = 0; i < sizeof rights / sizeof rights[0]; i++) {
        mj_pg_put_sql(out, u, "-- GRANT ");
        mj_pg_put_sql(out, u, rights[i]);
        mj_pg_put_sql(out, u, " TO ");
        mj_put_raw(out, user, strlen(user));
        mj_pg_put_sql(out, u, ";\n");
    }
    mj_put_u8(out, 0);
}

/* One step.  `migration` is locked meanwhile: another process that migrates waits, and then finds it done. */
static int step(mj_pg_conn *c, int *version)
{
    mj_buf sql = {0};
    char line[256];
    int rc, is;

    snprintf(line, sizeof line,
             "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; LOCK TABLE \"%s\".migration IN "
             "ACCESS EXCLUSIVE MODE",
             c->url->schema);
    rc = mj_pg_text(c, line, NULL, mj_pg_ms() + MIGRATE_MS);
    if (rc == MJ_OK)
        rc = mj_pg_version(c, &is);
    if (rc == MJ_OK && is < MJ_PG_SCHEMA) {
        add_step(&sql, c->url, is);
        mj_put_u8(&sql, 0);
        rc = sql.failed ? MJ_ENOMEM : mj_pg_text(c, (const char *)sql.p, NULL, INT64_MAX);
        mj_buf_free(&sql);
        is += rc == MJ_OK;
    }
    if (rc == MJ_OK)
        rc = mj_pg_text(c, "COMMIT", NULL, INT64_MAX);
    else if (c->c)
        (void)mj_pg_text(c, "ROLLBACK", NULL, mj_pg_deadline(c));
    if (rc == MJ_OK)
        *version = is;
    return rc;
}

/* CREATE SCHEMA IF NOT EXISTS asks for a right to the database, also when the schema is there and is the user's. */
int mj_pg_has_schema(mj_pg_conn *c, bool *has)
{
    PGresult *r = NULL;
    char sql[160];
    int rc;

    snprintf(sql, sizeof sql, "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = '%s'", c->url->schema);
    rc = mj_pg_text(c, sql, &r, mj_pg_ms() + MIGRATE_MS);
    *has = rc == MJ_OK && r && PQntuples(r) == 1;
    PQclear(r);
    return rc;
}

int mj_pg_migrate(mj_pg_conn *c, int *from)
{
    enum { TRIES = 8 };
    mj_buf sql = {0};
    int rc, version = 0, tries = 0;
    bool has = false;

    *from = 0;
    rc = mj_pg_connect(c);
    if (rc == MJ_OK)
        rc = mj_pg_version(c, &version);
    *from = version;
    if (rc == MJ_OK && version == 0)
        rc = mj_pg_has_schema(c, &has);
    if (rc == MJ_OK && version == 0) {
        mj_pg_put_sql(&sql, c->url, has ? "" : "CREATE SCHEMA IF NOT EXISTS @;");
        mj_pg_put_sql(&sql, c->url,
                      "CREATE TABLE IF NOT EXISTS @.migration (version int4 PRIMARY KEY, "
                      "at timestamptz NOT NULL DEFAULT clock_timestamp())");
        mj_put_u8(&sql, 0);
        do { /* two that make it at once: one of them fails, and finds it made */
            c->why[0] = '\0';
            rc = sql.failed ? MJ_ENOMEM : mj_pg_text(c, (const char *)sql.p, NULL, mj_pg_ms() + MIGRATE_MS);
        } while (rc != MJ_OK && c->c && ++tries < TRIES &&
                 (rc == MJ_EAGAIN || strcmp(c->state, "42P06") == 0 || strcmp(c->state, "42P07") == 0));
        mj_buf_free(&sql);
    }
    if (rc == MJ_OK && version > MJ_PG_SCHEMA)
        rc = mj_pg_judge(c, version);
    for (tries = 0; rc == MJ_OK && version < MJ_PG_SCHEMA;) {
        rc = step(c, &version);
        if (rc == MJ_EAGAIN && c->c && ++tries < TRIES) {
            c->why[0] = '\0';
            rc = MJ_OK;
        }
    }
    return rc;
}
