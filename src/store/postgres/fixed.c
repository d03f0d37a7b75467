/* The text of the statements that are about no index alone. */
#include "store/postgres/db.h"

#include <stdio.h>

/* @ stands for the schema, in quotes: it may be a word of SQL. */
static const char *const others[MJ_PG_NOTHERS] = {
    [MJ_PG_BEGIN_WRITE] = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
    [MJ_PG_BEGIN_READ] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    [MJ_PG_COMMIT] = "COMMIT",
    [MJ_PG_ROLLBACK] = "ROLLBACK",
    [MJ_PG_TOTALS] = "SELECT tally, latest FROM @.writer WHERE id <> $1::int8",
    [MJ_PG_SET_BACK] = "UPDATE @.writer SET latest = $1::int8 WHERE latest > $1::int8",
    [MJ_PG_LOAD_META] = "SELECT name, bytes FROM @.meta WHERE name = ANY($1::bytea[])",
    [MJ_PG_LOOK_INTAKE] =
        "SELECT id, convert_to(prompt, 'UTF8') FROM @.intake WHERE id = ANY($1::int8[]) AND refused IS NULL",
    [MJ_PG_BARRIER_INTAKE] = "UPDATE @.gate SET shut_at = clock_timestamp()",
    [MJ_PG_BARRIER_WRITERS] = "UPDATE @.writer SET epoch = epoch + 1 WHERE id <> $1::int8",
    [MJ_PG_INTAKE_GONE] = "DELETE FROM @.intake WHERE id = ANY($1::int8[])",
    [MJ_PG_INTAKE_LIST] =
        "SELECT 'intake/' || id, (SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(jsonb_build_object('prompt', "
        "prompt, 'key', key, 'mode', mode, 'timeout', timeout, 'user_id', user_id, 'context', context::text, "
        "'priority', "
        "priority, 'account', account, 'expires', expires)) AS e WHERE e.value <> 'null'::jsonb)::text "
        "FROM @.intake WHERE refused IS NULL ORDER BY id LIMIT $1::int8",
    [MJ_PG_INTAKE_REFUSE] =
        "UPDATE @.intake AS i SET refused = (SELECT convert_from(g.why, 'UTF8') FROM "
        "unnest($1::int8[], $2::bytea[]) AS g(id, why) WHERE g.id = i.id) WHERE i.id = ANY($1::int8[])",
    [MJ_PG_LOAD_ACCOUNTS] = "SELECT name, record FROM @.account WHERE name = ANY($1::bytea[]) ORDER BY name FOR UPDATE",
    [MJ_PG_LOOK_ACCOUNTS] = "SELECT name, record FROM @.account WHERE name = ANY($1::bytea[])",
    [MJ_PG_ALL_ACCOUNTS] = "SELECT name, record FROM @.account ORDER BY name",
    [MJ_PG_SLOTS] = "SELECT account, count(*) FROM @.slot WHERE account = ANY($1::bytea[]) GROUP BY account",
    [MJ_PG_ALL_SLOTS] = "SELECT account, count(*) FROM @.slot GROUP BY account ORDER BY account",
    [MJ_PG_COUNT_ACCOUNTS] = "SELECT count(*) FROM (SELECT name FROM @.account UNION SELECT account FROM @.slot) AS a",
    [MJ_PG_HOLD_MAKE] = "INSERT INTO @.hold (name) SELECT unnest($1::bytea[]) ON CONFLICT (name) DO NOTHING",
    [MJ_PG_HOLD_FREE] = "SELECT name FROM @.hold WHERE name = ANY($1::bytea[]) ORDER BY name FOR UPDATE SKIP LOCKED",
    [MJ_PG_HOLD_ALL] = "SELECT name FROM @.hold WHERE name = ANY($1::bytea[]) ORDER BY name FOR UPDATE",
    [MJ_PG_LOAD_TIDS] = "SELECT task_id, ref, attempt FROM @.task_id WHERE task_id = ANY($1::bytea[])",
    [MJ_PG_LOAD_KEYS] = "SELECT key, ref, fingerprint FROM @.key WHERE key = ANY($1::bytea[])",
    [MJ_PG_WRITER_MAKE] = "INSERT INTO @.writer (holder) VALUES ($1::uuid) RETURNING id, epoch, batch, tally, latest",
    [MJ_PG_WRITER_BATCH] = "WITH u AS (UPDATE @.writer SET batch = $3::int8, tally = $4::bytea, latest = $5::int8, "
                           "at = clock_timestamp() WHERE id = $1::int8 AND epoch = $2::int8 RETURNING 1) "
                           "SELECT 1 / count(*) FROM u",
    [MJ_PG_WRITER_SEIZE] = "UPDATE @.writer SET epoch = epoch + 1, free = false, at = clock_timestamp() "
                           "WHERE id = $1::int8 AND holder = $2::uuid RETURNING epoch, batch",
    [MJ_PG_WRITER_FREE] = "UPDATE @.writer SET epoch = epoch + 1, free = true WHERE id = $1::int8 AND epoch = $2::int8",
    [MJ_PG_WRITERS_FREE] = "UPDATE @.writer SET epoch = epoch + 1, free = true "
                           "WHERE NOT free AND at < clock_timestamp() - $1::int8 * interval '1 second'",
    [MJ_PG_END_BACKEND] = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1::int8 AND "
                          "usename = current_user AND (extract(epoch FROM backend_start) * 1000000)::int8 = $2::int8",
    [MJ_PG_LEASE_TAKE] =
        "INSERT INTO @.lease (name, holder, owner, until) "
        "VALUES ($1::bytea, $2::uuid, $3::bytea, clock_timestamp() + $4::int8 * interval '1 second') "
        "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, owner = excluded.owner, until = excluded.until "
        "WHERE lease.until < clock_timestamp() OR lease.holder = $5::uuid RETURNING 1",
    [MJ_PG_LEASE_LOOK] = "SELECT holder, owner FROM @.lease WHERE name = $1::bytea",
    [MJ_PG_LEASE_KEEP] = "UPDATE @.lease SET until = clock_timestamp() + $3::int8 * interval '1 second' "
                         "WHERE name = $1::bytea AND holder = $2::uuid RETURNING 1",
    [MJ_PG_LEASE_END] = "DELETE FROM @.lease WHERE name = $1::bytea AND holder = $2::uuid",
    [MJ_PG_BEAT] = "INSERT INTO @.host (boot, name, seen_at) VALUES ($1::uuid, $2::bytea, clock_timestamp()) "
                   "ON CONFLICT (boot) DO UPDATE SET name = excluded.name, seen_at = excluded.seen_at",
    [MJ_PG_HOST] = "SELECT (extract(epoch FROM clock_timestamp() - seen_at) * 1000)::int8 FROM @.host "
                   "WHERE boot = $1::uuid",
    [MJ_PG_FACTS] =
        "SELECT coalesce(current_setting('synchronous_commit', true), ''), coalesce(current_setting('fsync', true), "
        "''), "
        "coalesce(current_setting('synchronous_standby_names', true), ''), "
        "current_setting('max_connections')::int8, (SELECT count(*) FROM pg_stat_activity WHERE backend_type = "
        "'client backend'), (SELECT count(*) FROM @.intake WHERE refused IS NULL), "
        "(SELECT count(*) FROM @.intake WHERE refused IS NOT NULL), "
        "(SELECT coalesce(sum(n_live_tup), 0)::int8 FROM pg_stat_user_tables WHERE schemaname = '@'), "
        "(SELECT coalesce(sum(n_dead_tup), 0)::int8 FROM pg_stat_user_tables WHERE schemaname = '@'), "
        "(extract(epoch FROM clock_timestamp()) * 1000)::int8",
    [MJ_PG_CLOCK] = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8",
};

/* Refs; and with names those that task ids and keys lead to.  `place`: where the row lies, for a row that is locked. */
static void add_load(mj_buf *out, const mj_pg_url *u, const char *columns, bool place, const char *from, bool names,
                     const char *order)
{
    mj_pg_put_sql(out, u, "SELECT ");
    mj_pg_put_sql(out, u, columns);
    mj_pg_put_sql(out, u, place && !u->careful ? ", ctid" : "");
    mj_pg_put_sql(out, u, from);
    mj_pg_put_sql(out, u, " WHERE ref = ANY($1::uuid[]");
    if (names)
        mj_pg_put_sql(out, u,
                      " || ARRAY(SELECT ref FROM @.task_id WHERE task_id = ANY($2::bytea[])) || "
                      "ARRAY(SELECT ref FROM @.key WHERE key = ANY($3::bytea[]))");
    mj_pg_put_sql(out, u, ") ORDER BY ");
    mj_pg_put_sql(out, u, order);
}

void mj_pg_fixed(mj_buf *out, const mj_pg_url *u, unsigned statement)
{
    char limits[240];

    switch (statement) {
    case MJ_PG_BEGIN_WRITE:
        mj_pg_put_sql(out, u, u->careful ? "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE" : others[statement]);
        return;
    case MJ_PG_LOAD_TASKS:
        add_load(out, u, "ref, record", true, " FROM @.task", true, "ref FOR UPDATE");
        return;
    case MJ_PG_LOOK_TASKS:
        add_load(out, u, "ref, record", false, " FROM @.task", true, "ref");
        return;
    case MJ_PG_LOAD_TOMBS:
        add_load(out, u, "ref, record", false, " FROM @.tomb", false, "ref FOR UPDATE");
        return;
    case MJ_PG_LOOK_TOMBS:
        add_load(out, u, "ref, record", false, " FROM @.tomb", false, "ref");
        return;
    case MJ_PG_LOAD_EVENTS:
        add_load(out, u, "ref, seq, record", true, " FROM @.event", false, "ref, seq");
        return;
    case MJ_PG_WRITER_TAKE:
        mj_pg_put_sql(out, u,
                      "UPDATE @.writer SET holder = $1::uuid, epoch = epoch + 1, free = false, at = clock_timestamp() "
                      "WHERE id = (SELECT id FROM @.writer WHERE free LIMIT 1 FOR UPDATE");
        mj_pg_put_sql(out, u, u->careful ? "" : " SKIP LOCKED");
        mj_pg_put_sql(out, u, ") AND free RETURNING id, epoch, batch, tally, latest");
        return;
    case MJ_PG_SETTINGS:
        snprintf(limits, sizeof limits,
                 "SELECT set_config('statement_timeout', '%d', true), set_config('lock_timeout', '%d', true), "
                 "set_config('idle_in_transaction_session_timeout', '%d', true), ",
                 u->answer_ms, u->answer_ms * 2 / 3, u->answer_ms * 2);
        mj_pg_put_sql(out, u, limits);
        mj_pg_put_sql(out, u,
                      "set_config('jit', 'off', true), "
                      "set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), "
                      "set_config('enable_mergejoin', 'off', true)");
        return;
    case MJ_PG_LOAD_INTAKE:
        /* A row that a user's open transaction has locked, by enqueueing its key once more, waits for that one's end:
         * nothing else does. */
        mj_pg_put_sql(out, u, others[MJ_PG_LOOK_INTAKE]);
        mj_pg_put_sql(out, u, " ORDER BY id FOR UPDATE");
        mj_pg_put_sql(out, u, u->careful ? "" : " SKIP LOCKED");
        return;
    case MJ_PG_SIZE:
        mj_pg_put_sql(out, u,
                      "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8 FROM pg_class c "
                      "WHERE c.relnamespace = '@'::regnamespace AND c.relkind = 'r'");
        return;
    default:
        mj_pg_put_sql(out, u, others[statement]);
    }
}
