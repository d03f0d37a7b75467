/* For tests on PostgreSQL: the server that MJHOOK_POSTGRES names, and a schema of its own for each name that a test
 * opens a store by. */
#ifndef PG_HELP_H
#define PG_HELP_H

#include "mj_test.h"
#include "store/postgres/postgres.h"

#include <libpq-fe.h>
#include <stdarg.h>
#include <stdlib.h>

static inline const char *pg_url(void)
{
    const char *url = getenv("MJHOOK_POSTGRES");

    if (!url)
        SKIP("MJHOOK_POSTGRES names no server: run spec/support/postgres run PROGRAM");
    return url;
}

/* The schema that stands for `where`: the same in children of this process. */
static inline const char *pg_schema(const char *where)
{
    static char schema[64];
    static pid_t first;

    if (!first)
        first = getpid();
    snprintf(schema, sizeof schema, "t%ld_%s", (long)first, where);
    return schema;
}

static inline mj_store_options pg_options(const char *where, const mj_store_options *o)
{
    mj_store_options own = *o;

    own.schema = pg_schema(where);
    own.careful = getenv("MJHOOK_POSTGRES_CAREFUL") != NULL;
    return own;
}

static inline int pg_open_named(const char *where, const mj_store_options *o, void **db, char *why, size_t why_size)
{
    mj_store_options own = pg_options(where, o);

    return mj_backend_postgres.open(pg_url(), &own, db, why, why_size);
}

static inline int pg_exists_named(const char *where, const mj_store_options *o, char *why, size_t why_size)
{
    mj_store_options own = pg_options(where, o);

    return mj_backend_postgres.exists(pg_url(), &own, why, why_size);
}

/* ---- a person's connection, beside those of the stores ---- */

/* Runs statements, and gives the first value of the last one's result, or "". */
__attribute__((format(printf, 1, 2))) static inline const char *pg_ask(const char *format, ...)
{
    static char value[4096];
    static PGconn *c;
    static pid_t of;
    char sql[4096];
    va_list args;
    PGresult *r;

    if (!c || of != getpid() || PQstatus(c) != CONNECTION_OK) {
        c = PQconnectdb(pg_url());
        of = getpid();
        PQclear(PQexec(c, "SET default_transaction_isolation = 'read committed'"));
    }
    va_start(args, format);
    vsnprintf(sql, sizeof sql, format, args);
    va_end(args);
    r = PQexec(c, sql);
    if (PQresultStatus(r) != PGRES_TUPLES_OK && PQresultStatus(r) != PGRES_COMMAND_OK)
        MJ_TEST_FAIL("%s: %s", sql, PQerrorMessage(c));
    snprintf(value, sizeof value, "%s", PQntuples(r) ? PQgetvalue(r, 0, 0) : "");
    PQclear(r);
    return value;
}

/* What processes that died have left running on the server has ended; `own`: connections that stay. */
static inline void pg_quiet(int own)
{
    while (atoi(pg_ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mjhook'")) > own)
        usleep(1000);
}

static inline mj_backend pg_backend(void)
{
    mj_backend b = mj_backend_postgres;

    b.open = pg_open_named;
    b.exists = pg_exists_named;
    return b;
}

#endif
