/* One connection: made when it is needed, and made anew when it was lost. */
#include "store/postgres/db.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A commit that was cancelled while it waited for its replica is a WARNING and a success. */
static void noticed(void *ctx, const PGresult *r)
{
    mj_pg_conn *c = ctx;
    const char *severity = PQresultErrorField(r, PG_DIAG_SEVERITY_NONLOCALIZED);

    if (severity && strcmp(severity, "WARNING") == 0)
        c->warned = true;
}

/* Closing the descriptor tells the server nothing as long as the parent has it. */
void mj_pg_forget(mj_pg_conn *c)
{
    if (c->c && PQsocket(c->c) >= 0)
        close(PQsocket(c->c));
    memset(c->results, 0, sizeof c->results);
    c->nresults = c->nsent = c->given_up = c->syncs = 0;
    c->c = NULL; /* its memory is the parent's, and stays */
    c->clock_read = 0;
    memset(c->prepared, 0, sizeof c->prepared);
}

static int64_t wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The database's clock said `at` between `began` and now.  If this machine's clock passed `at` in that time, too, the
 * two can't be told apart, and this machine's is taken. */
static void set_clock(mj_pg_conn *c, int64_t at, int64_t began)
{
    int64_t now = mj_pg_ms(), wall = wall_ms();

    if (at >= wall - (now - began) - 1 && at <= wall + 1)
        c->clock_offset = wall - now;
    else
        c->clock_offset = at - (began + now) / 2;
    c->clock_read = now;
}

/* Settings that a server does not have are left out. */
static int set_up(mj_pg_conn *c, int64_t until)
{
    int64_t began;
    PGresult *r = NULL;
    char sql[1400];
    int rc;

    snprintf(
        sql, sizeof sql,
        "SELECT set_config(v.n, v.v, false) FROM (VALUES ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan'), "
        "('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), "
        "('search_path', 'pg_catalog'), ('statement_timeout', '%d'), ('lock_timeout', '%d'), "
        "('idle_in_transaction_session_timeout', '%d')) AS v(n, v) "
        "WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_settings AS s WHERE s.name = v.n)",
        c->url->answer_ms, c->url->answer_ms * 2 / 3, c->url->answer_ms * 2);
    began = mj_pg_ms();
    rc = mj_pg_text(c,
                    "SELECT pg_backend_pid()::text, (SELECT (extract(epoch FROM backend_start) * 1000000)::int8::text "
                    "FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid()), "
                    "(extract(epoch FROM clock_timestamp()) * 1000)::int8::text",
                    &r, until);
    if (rc == MJ_OK && r && PQntuples(r) == 1) {
        set_clock(c, strtoll(PQgetvalue(r, 0, 2), NULL, 10), began);
        c->backend = (int)strtol(PQgetvalue(r, 0, 0), NULL, 10);
        c->backend_start = strtoll(PQgetvalue(r, 0, 1), NULL, 10);
        c->pooled = c->pooled || c->backend != PQbackendPID(c->c); /* a pooler shows clients a number of its own */
    }
    PQclear(r);
    if (rc == MJ_OK && !c->pooled) /* else they would be other clients' settings, too: each transaction has its own */
        rc = mj_pg_text(c, sql, NULL, until);
    return rc;
}

static int judge_server(mj_pg_conn *c)
{
    const char *encoding = PQparameterStatus(c->c, "server_encoding");
    int oldest = c->url->careful ? MJ_PG_OLDEST_CAREFUL : MJ_PG_OLDEST;

    if (PQserverVersion(c->c) < oldest) {
        snprintf(c->why, c->why_size, "%s: PostgreSQL %d is too old: %d or newer is needed", c->url->shown,
                 PQserverVersion(c->c) / 10000, oldest / 10000);
        return MJ_ESCHEMA;
    }
    if (encoding && strcmp(encoding, "UTF8") != 0) {
        snprintf(c->why, c->why_size,
                 "%s has the encoding %s: it has to be UTF8: make another one with createdb -E UTF8 -T template0 NAME",
                 c->url->shown, encoding);
        return MJ_EFORMAT;
    }
    return MJ_OK;
}

static int begin(mj_pg_conn *c)
{
    int64_t until = mj_pg_deadline(c);
    int rc = judge_server(c), version;

    PQsetNoticeReceiver(c->c, noticed, c);
    if (rc == MJ_OK && PQsetnonblocking(c->c, 1) != 0)
        rc = MJ_EIO;
    if (rc == MJ_OK)
        rc = set_up(c, until);
    if (rc == MJ_OK && !c->keep_schema) {
        rc = mj_pg_version(c, &version);
        if (rc == MJ_OK)
            rc = mj_pg_judge(c, version);
    }
    return rc != MJ_OK || c->keep_schema || PQenterPipelineMode(c->c) ? rc : MJ_EIO;
}

/* Whether the server has said good-bye meanwhile, as far as the kernel knows. */
static bool is_alive(mj_pg_conn *c)
{
    struct pollfd p = {.fd = PQsocket(c->c), .events = POLLIN};

    while (PQstatus(c->c) == CONNECTION_OK && poll(&p, 1, 0) > 0)
        if (!PQconsumeInput(c->c))
            return false;
    return PQstatus(c->c) == CONNECTION_OK;
}

static int connect_once(mj_pg_conn *c)
{
    mj_pg_disconnect(c);
    c->pid = getpid();
    c->c = PQconnectdbParams((const char *const *)c->url->options, (const char *const *)c->url->values, 0);
    if (!c->c)
        return MJ_ENOMEM;
    c->why[0] = '\0';
    return PQstatus(c->c) == CONNECTION_OK ? begin(c) : mj_pg_unreachable(c, PQerrorMessage(c->c));
}

int mj_pg_connect(mj_pg_conn *c)
{
    enum { SHORTEST = 20, LONGEST = 1000, TRIES = 3 };
    int64_t pause;
    int rc = MJ_EIO;

    if (c->c && is_alive(c))
        return MJ_OK;
    if (c->retry_at > mj_pg_ms())
        mj_pg_sleep(c->retry_at - mj_pg_ms());
    for (int i = 0; i < TRIES;
         i++) { /* one that is lost at once may be another one's end: of a pooler, a former server */
        rc = connect_once(c);
        if (rc != MJ_EIO || c->c)
            break;
    }
    if (rc == MJ_OK) {
        c->failures = 0;
        c->retry_at = 0;
        return MJ_OK;
    }
    mj_pg_disconnect(c);
    pause = SHORTEST << (c->failures < 6 ? c->failures : 6);
    c->failures++;
    c->retry_at = mj_pg_ms() + (pause < LONGEST ? pause : LONGEST);
    return rc;
}

void mj_pg_clock(mj_pg_conn *c, const PGresult *r, int64_t began)
{
    enum { EXACT = 20, OLD = 60000 };
    int64_t now = mj_pg_ms();

    /* A round trip that waited for a lock says little. */
    if (r && PQntuples(r) == 1 && (now - began <= EXACT || now - c->clock_read >= OLD))
        set_clock(c, mj_pg_int(r, 0, 0), began);
}

int mj_pg_replay(mj_pg_conn *c, int64_t until)
{
    mj_reader r = mj_reader_of(c->recorded.p, c->recorded.n);
    int rc;

    c->recording = false;
    c->why[0] = '\0';
    rc = c->recorded.failed ? MJ_ENOMEM : mj_pg_connect(c);
    while (rc == MJ_OK && r.p < r.end) {
        unsigned statement = mj_get_u32(&r), n = mj_get_u32(&r);
        mj_pg_no_args(&c->args);
        while (n-- > 0)
            mj_pg_arg_bytes(&c->args, mj_get_str(&r));
        rc = mj_pg_send(c, statement);
    }
    return rc == MJ_OK ? mj_pg_trip(c, until) : rc;
}
