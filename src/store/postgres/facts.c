/* What doctor says of the database: how far it is, what a commit is worth, whether there is room. */
#include "store/postgres/db.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    TRIPS = 5,           /* of which the quickest counts */
    SLOW_US = 10000,     /* a batch takes two */
    SKEW_MS = 2000,      /* of two hosts' clocks that are kept right */
    MANY_DEAD = 1000000, /* rows, which are more than those that live */
};

typedef struct teller {
    mj_fact_fn tell;
    void *ctx;
} teller;

__attribute__((format(printf, 5, 6))) static void tell(const teller *t, bool ok, const char *name, const char *advice,
                                                       const char *format, ...)
{
    char text[300];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): clang-tidy 14 errs */
    va_end(args);
    t->tell(t->ctx, ok ? "ok" : "warn", name, text, ok ? NULL : advice);
}

static int64_t us_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int measure(mj_pg_conn *c, const teller *t)
{
    int64_t best = INT64_MAX;
    int rc = MJ_OK;

    for (int i = 0; i < TRIPS && rc == MJ_OK; i++) {
        int64_t began = us_now();
        mj_pg_no_args(&c->args);
        rc = mj_pg_run(c, MJ_PG_CLOCK, mj_pg_deadline(c));
        mj_pg_clear(c);
        best = us_now() - began < best ? us_now() - began : best;
    }
    if (rc == MJ_OK)
        tell(t, best < SLOW_US, "round trip",
             "a batch takes two of them: run mjhook nearer to the database; more callbacks share a batch meanwhile",
             "%.2f ms%s", (double)best / 1000, c->pooled ? ", through a pooler: statements are planned each time" : "");
    return rc;
}

static const char *text_of(const PGresult *r, int column)
{
    return PQgetvalue(r, 0, column);
}

static void tell_durability(const teller *t, const PGresult *r)
{
    bool off = strcmp(text_of(r, 0), "off") == 0, unsafe = strcmp(text_of(r, 1), "off") == 0;
    bool replicas = text_of(r, 2)[0] != '\0';

    tell(t, !off && !unsafe, "durability",
         "after a crash of the server what was acknowledged last may be gone, and be sent again: set fsync and "
         "synchronous_commit to on",
         "synchronous_commit = %s, fsync = %s", text_of(r, 0), text_of(r, 1));
    /* One machine is what LMDB is on, too: that is no fault. */
    tell(t, true, "replicas", NULL, "%s%s",
         replicas ? "a commit waits for "
                  : "no commit waits for a replica: a fail-over may lose what was acknowledged last",
         replicas ? text_of(r, 2) : "");
}

static void tell_rest(const teller *t, const PGresult *r, int64_t skew)
{
    int64_t most = mj_pg_int(r, 0, 3), used = mj_pg_int(r, 0, 4), live = mj_pg_int(r, 0, 7), dead = mj_pg_int(r, 0, 8);

    tell(t, used * 10 < most * 9, "connections",
         "raise max_connections, use fewer processes and threads, or put PgBouncer in between",
         "%" PRId64 " of %" PRId64 " are used", used, most);
    tell(t, llabs(skew) < SKEW_MS, "clock", "set this host's clock, or the database's, by NTP",
         "the database's is %" PRId64 " ms ahead of this host's", skew);
    tell(t, dead < MANY_DEAD || dead < live, "vacuum",
         "autovacuum does not keep up, or an old transaction holds it back: look at pg_stat_activity",
         "%" PRId64 " rows live, %" PRId64 " dead ones wait for vacuum", live, dead);
    tell(t, mj_pg_int(r, 0, 6) == 0, "intake",
         "see the column refused of the table intake, mend and enqueue them again",
         "%" PRId64 " jobs wait, %" PRId64 " were refused", mj_pg_int(r, 0, 5), mj_pg_int(r, 0, 6));
}

int mj_pg_facts(void *handle, mj_fact_fn fn, void *ctx)
{
    mj_pg *db = handle;
    mj_pg_conn *c = &db->conn;
    teller t = {fn, ctx};
    struct timespec wall;
    PGresult *r = NULL;
    int rc;

    c->why[0] = '\0';
    rc = db->no_wait ? MJ_EBUSY : mj_pg_connect(c);
    if (rc == MJ_OK)
        rc = measure(c, &t);
    mj_pg_no_args(&c->args);
    if (rc == MJ_OK)
        rc = mj_pg_run(c, MJ_PG_FACTS, mj_pg_deadline(c));
    clock_gettime(CLOCK_REALTIME, &wall);
    if (rc == MJ_OK)
        r = mj_pg_take(c, c->nresults - 1);
    mj_pg_clear(c);
    if (rc != MJ_OK || !r)
        return rc != MJ_OK ? rc : MJ_ENOMEM;
    tell_durability(&t, r);
    tell_rest(&t, r, mj_pg_int(r, 0, 9) - ((int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000));
    PQclear(r);
    return MJ_OK;
}
