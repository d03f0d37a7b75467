/* Which version the tables have, and what that means to this program. */
#include "store/postgres/db.h"

#include <stdio.h>
#include <stdlib.h>

int mj_pg_version(mj_pg_conn *c, int *version)
{
    PGresult *r = NULL;
    char sql[256];
    int rc;

    *version = 0;
    snprintf(sql, sizeof sql, "SELECT coalesce(max(version), 0)::text FROM \"%s\".migration", c->url->schema);
    rc = mj_pg_text(c, sql, &r, mj_pg_deadline(c));
    if (rc == MJ_OK && r && PQntuples(r) == 1)
        *version = (int)strtol(PQgetvalue(r, 0, 0), NULL, 10);
    PQclear(r);
    if (rc == MJ_ESCHEMA) { /* there is no such table */
        c->why[0] = '\0';
        rc = MJ_OK;
    }
    return rc;
}

int mj_pg_judge(mj_pg_conn *c, int version)
{
    if (version == MJ_PG_SCHEMA)
        return MJ_OK;
    if (version == 0)
        snprintf(c->why, c->why_size, "%s has no schema %s with a store in it: run mjhook migrate", c->url->shown,
                 c->url->schema);
    else if (version < MJ_PG_SCHEMA)
        snprintf(c->why, c->why_size,
                 "the store in schema %s of %s has version %d, and this mjhook needs version %d: update mjhook on all "
                 "hosts, stop the former programs, and run mjhook migrate",
                 c->url->schema, c->url->shown, version, MJ_PG_SCHEMA);
    else
        snprintf(c->why, c->why_size,
                 "the store in schema %s of %s has version %d, made by a newer mjhook, and this one knows version %d: "
                 "install that one here, too",
                 c->url->schema, c->url->shown, version, MJ_PG_SCHEMA);
    return MJ_ESCHEMA;
}
