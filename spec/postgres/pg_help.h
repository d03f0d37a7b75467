/* For tests on PostgreSQL: the server that MJHOOK_POSTGRES names, and a schema of its own for each name that a test
 * opens a store by. */
#ifndef PG_HELP_H
#define PG_HELP_H

#include "mj_test.h"
#include "store/postgres/postgres.h"

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

static inline int pg_open_named(const char *where, const mj_store_options *o, void **db, char *why, size_t why_size)
{
    mj_store_options own = *o;

    own.schema = pg_schema(where);
    own.careful = getenv("MJHOOK_POSTGRES_CAREFUL") != NULL;
    return mj_backend_postgres.open(pg_url(), &own, db, why, why_size);
}

static inline mj_backend pg_backend(void)
{
    mj_backend b = mj_backend_postgres;

    b.open = pg_open_named;
    return b;
}

#endif
