/* Round trips on a connection, each with a deadline. */
#include "store/postgres/db.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int64_t mj_pg_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t mj_pg_deadline(const mj_pg_conn *c)
{
    return mj_pg_ms() + (int64_t)c->url->answer_ms * 4 / 3;
}

void mj_pg_sleep(int64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};

    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

/* ---- waiting ---- */

/* The server's next bytes are here, or what is to be sent can go.  false: the deadline has come, or the connection is
 * broken. */
static bool wait_for(mj_pg_conn *c, bool out, int64_t until)
{
    struct pollfd p = {.fd = PQsocket(c->c), .events = (short)(POLLIN | (out ? POLLOUT : 0))};
    int64_t left;
    int rc;

    if (p.fd < 0)
        return false;
    do {
        left = until - mj_pg_ms();
        rc = left <= 0 ? 0 : poll(&p, 1, left > 3600000 ? 3600000 : (int)left);
    } while (rc < 0 && errno == EINTR);
    return rc > 0;
}

/* Sends and reads until a result is complete.  false: no connection any more. */
static bool advance(mj_pg_conn *c, int64_t until)
{
    for (;;) {
        int left = PQflush(c->c);
        if (left < 0)
            return false;
        if (!PQisBusy(c->c) && left == 0)
            return true;
        if (!wait_for(c, left > 0, until)) {
            if (!c->why[0] && PQstatus(c->c) == CONNECTION_OK)
                snprintf(c->why, c->why_size, "%s did not answer in time: the connection was given up", c->url->shown);
            return false;
        }
        if (!PQconsumeInput(c->c))
            return false;
        if (!PQisBusy(c->c) && PQflush(c->c) <= 0)
            return true;
    }
}

/* ---- the end of a connection ---- */

void mj_pg_disconnect(mj_pg_conn *c)
{
    mj_pg_clear(c);
    if (c->c)
        PQfinish(c->c);
    c->c = NULL;
    c->nsent = c->given_up = c->syncs = 0;
    memset(c->prepared, 0, sizeof c->prepared);
}

static int lose(mj_pg_conn *c)
{
    int rc = mj_pg_lost(c, c->c ? PQerrorMessage(c->c) : "");

    mj_pg_disconnect(c);
    return rc;
}

int mj_pg_text(mj_pg_conn *c, const char *sql, PGresult **out, int64_t until)
{
    PGresult *r, *last = NULL;
    int rc = MJ_OK;

    if (!PQsendQuery(c->c, sql))
        return lose(c);
    for (;;) {
        if (!advance(c, until)) {
            PQclear(last);
            return lose(c);
        }
        r = PQgetResult(c->c);
        if (!r)
            break;
        if (PQresultStatus(r) == PGRES_FATAL_ERROR && rc == MJ_OK)
            rc = mj_pg_fail(c, r);
        PQclear(last);
        last = r;
    }
    if (PQstatus(c->c) == CONNECTION_BAD) {
        PQclear(last);
        return lose(c);
    }
    if (out && rc == MJ_OK)
        *out = last;
    else
        PQclear(last);
    return rc;
}

/* ---- round trips ---- */

static bool is_prepared(const mj_pg_conn *c, unsigned s)
{
    return c->prepared[s / 8] >> (s % 8) & 1;
}

static bool is_preparing(const mj_pg_conn *c, unsigned s)
{
    for (unsigned i = 0; i < c->nsent; i++)
        if (c->sent[i].preparing && c->sent[i].statement == s)
            return true;
    return false;
}

static bool note_sent(mj_pg_conn *c, unsigned s, bool preparing)
{
    if (c->nsent == MJ_PG_MOST_SENT)
        return false;
    c->sent[c->nsent].statement = s;
    c->sent[c->nsent++].preparing = preparing;
    return true;
}

static void record(mj_pg_conn *c, unsigned s)
{
    mj_put_uint(&c->recorded, s);
    mj_put_uint(&c->recorded, c->args.n);
    for (unsigned i = 0; i < c->args.n; i++)
        mj_put_str(&c->recorded, (mj_str){(const char *)c->args.bytes[i].p, (uint32_t)c->args.bytes[i].n});
}

int mj_pg_send(mj_pg_conn *c, unsigned s)
{
    mj_pg_args *a = &c->args;
    mj_buf sql = {0};
    char name[16];
    int rc = c->c ? MJ_OK : MJ_EIO, sent = 1;

    for (unsigned i = 0; i < a->n; i++) {
        a->failed = a->failed || a->bytes[i].failed;
        a->values[i] = (const char *)a->bytes[i].p;
        a->lengths[i] = (int)a->bytes[i].n;
        a->formats[i] = 1;
    }
    if (rc != MJ_OK || a->failed)
        return rc != MJ_OK ? rc : MJ_ENOMEM;
    if (c->recording && s != MJ_PG_ROLLBACK)
        record(c, s);
    snprintf(name, sizeof name, "m%u", s);
    if (c->pooled || (!is_prepared(c, s) && !is_preparing(c, s)))
        mj_pg_sql(c->url, s, &sql);
    if (sql.failed) {
        mj_buf_free(&sql);
        return MJ_ENOMEM;
    }
    if (c->pooled) {
        sent = PQsendQueryParams(c->c, (const char *)sql.p, (int)a->n, NULL, a->values, a->lengths, a->formats, 1);
    } else {
        if (sql.n > 0) {
            sent = PQsendPrepare(c->c, name, (const char *)sql.p, 0, NULL);
            if (sent && !note_sent(c, s, true))
                sent = 0;
        }
        if (sent)
            sent = PQsendQueryPrepared(c->c, name, (int)a->n, a->values, a->lengths, a->formats, 1);
    }
    mj_buf_free(&sql);
    if (!sent || !note_sent(c, s, false))
        return lose(c);
    return MJ_OK;
}

void mj_pg_clear(mj_pg_conn *c)
{
    for (unsigned i = 0; i < c->nresults; i++) {
        PQclear(c->results[i]);
        c->results[i] = NULL;
    }
    c->nresults = 0;
}

PGresult *mj_pg_take(mj_pg_conn *c, unsigned i)
{
    PGresult *r = i < c->nresults ? c->results[i] : NULL;

    if (r)
        c->results[i] = NULL;
    return r;
}

/* Its result says nothing. */
static bool is_silent(unsigned statement)
{
    return statement == MJ_PG_BEGIN_WRITE || statement == MJ_PG_BEGIN_READ || statement == MJ_PG_SETTINGS ||
           statement == MJ_PG_ROLLBACK;
}

/* The result of statement `at` of the trip. */
static int judge(mj_pg_conn *c, unsigned at, PGresult *r, int rc)
{
    ExecStatusType status = PQresultStatus(r);
    bool preparing = at < c->nsent && c->sent[at].preparing, counts = at >= c->given_up;

    if (status == PGRES_FATAL_ERROR && rc == MJ_OK && counts) {
        c->failed = at < c->nsent ? c->sent[at].statement : 0;
        rc = mj_pg_fail(c, r);
    }
    if (preparing && status == PGRES_COMMAND_OK)
        c->prepared[c->sent[at].statement / 8] |= (uint8_t)(1 << c->sent[at].statement % 8);
    if (preparing || !counts || (at < c->nsent && is_silent(c->sent[at].statement)) || c->nresults == MJ_PG_MOST_SENT)
        PQclear(r);
    else
        c->results[c->nresults++] = r;
    return rc;
}

/* Statements that the server does not know: the connection behind a pooler is another one from time to time. */
static void look_for_pooler(mj_pg_conn *c)
{
    if (strcmp(c->state, "26000") == 0 || strcmp(c->state, "42P05") == 0)
        c->pooled = true;
    if (strcmp(c->state, "0A000") == 0)
        memset(c->prepared, 0, sizeof c->prepared);
}

int mj_pg_trip(mj_pg_conn *c, int64_t until)
{
    unsigned at = 0;
    int rc = MJ_OK;

    mj_pg_clear(c);
    c->state[0] = '\0';
    c->warned = false;
    if (!c->c)
        return MJ_EIO;
    if (!PQpipelineSync(c->c))
        return lose(c);
    for (c->syncs++; c->syncs > 0;) {
        PGresult *r;
        if (!advance(c, until))
            return lose(c);
        r = PQgetResult(c->c);
        if (PQstatus(c->c) == CONNECTION_BAD) {
            if (r)
                (void)mj_pg_fail(c, r);
            PQclear(r);
            return lose(c);
        }
        if (!r) {
            at++;
        } else if (PQresultStatus(r) == PGRES_PIPELINE_SYNC) {
            PQclear(r);
            c->syncs--;
        } else {
            rc = judge(c, at, r, rc);
        }
    }
    c->nsent = c->given_up = 0;
    c->used = mj_pg_ms();
    look_for_pooler(c);
    return rc;
}

/* Puts an end to the statements that were sent: what follows runs even if one of them fails. */
static bool end_group(mj_pg_conn *c)
{
    if (!PQpipelineSync(c->c))
        return false;
    c->syncs++;
    c->given_up = c->nsent;
    return true;
}

void mj_pg_rollback(mj_pg_conn *c)
{
    int64_t until = mj_pg_deadline(c);
    int left;

    mj_pg_no_args(&c->args);
    if (!c->c)
        return;
    if ((c->nsent > c->given_up && !end_group(c)) || mj_pg_send(c, MJ_PG_ROLLBACK) != MJ_OK || !end_group(c)) {
        mj_pg_disconnect(c);
        return;
    }
    while ((left = PQflush(c->c)) > 0)
        if (!wait_for(c, true, until) || !PQconsumeInput(c->c))
            break;
    if (left != 0)
        mj_pg_disconnect(c);
}

int mj_pg_run(mj_pg_conn *c, unsigned statement, int64_t until)
{
    int rc = mj_pg_send(c, statement);

    return rc == MJ_OK ? mj_pg_trip(c, until) : rc;
}
