/* Plans: statements that were prepared while the tables were empty, on tables that are full by now and were never
 * analyzed, walk over no table and over no index.  And what a batch takes for granted: where rows lie, what is new. */
#include "pg_help.h"

#define STORE_BACKEND pg_backend()
#include "store_help.h"

enum { TASKS = 3000, BATCH = 100 };

static void write_ops(mj_store *s, mj_op *ops, size_t n, int64_t now)
{
    CHECK_INT(mj_store_write(s, ops, n, now), MJ_OK);
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(ops[i].code, MJ_OK);
        mj_op_clear(&ops[i]);
    }
}

static char keys[BATCH][32], ids[BATCH][32];

/* BATCH tasks that are pending. */
static void make(mj_store *s, int from)
{
    static mj_task tasks[BATCH];
    static mj_op ops[BATCH];

    for (int i = 0; i < BATCH; i++) {
        snprintf(keys[i], sizeof keys[i], "key %d", from + i);
        snprintf(ids[i], sizeof ids[i], "id %d", from + i);
        tasks[i] =
            (mj_task){.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str(keys[i]), .user_id = str("somebody")};
        ops[i] = (mj_op){.kind = MJ_OP_CREATE,
                         .task = &tasks[i],
                         .sig = {.source = MJ_FROM_USER,
                                 .expect_state = -1,
                                 .wait_ms = -1,
                                 .account = str("a"),
                                 .task_id = str(ids[i])}};
    }
    write_ops(s, ops, BATCH, T0 + from);
}

/* One life of BATCH tasks: made, succeeded, their events taken and done. */
static void live(mj_store *s, int from)
{
    static mj_op ops[BATCH], take[BATCH];
    int64_t now = T0 + from;

    make(s, from);
    for (int i = 0; i < BATCH; i++)
        ops[i] = (mj_op){.kind = MJ_OP_SIGNAL,
                         .sig = {.kind = SIG_SUCCEEDED,
                                 .source = MJ_FROM_CALLBACK,
                                 .expect_state = -1,
                                 .wait_ms = -1,
                                 .task_id = str(ids[i]),
                                 .image = str("https://a.example/x.png")}};
    write_ops(s, ops, BATCH, now);
    for (int i = 0; i < BATCH; i++)
        take[i] = (mj_op){.kind = MJ_OP_EVENT_TAKE, .until = now + MINUTE};
    CHECK_INT(mj_store_write(s, take, BATCH, now), MJ_OK);
    for (int i = 0; i < BATCH; i++) {
        CHECK_INT(take[i].code, MJ_OK);
        ops[i] = (mj_op){.kind = MJ_OP_EVENT_DONE, .event = take[i].event};
    }
    write_ops(s, ops, BATCH, now);
    for (int i = 0; i < BATCH; i++)
        mj_op_clear(&take[i]);
}

TEST("no statement of a batch reads a whole table or a whole index, also while nothing was ever analyzed")
{
    mj_store *s = open_store();
    char tables[400];

    for (int from = 0; from < TASKS; from += BATCH)
        live(s, from);
    mj_store_close(s); /* what the server has counted is told when a connection ends */
    pg_quiet(0);
    snprintf(tables, sizeof tables, "FROM pg_stat_user_tables WHERE schemaname = '%s' AND relname <> 'migration'",
             pg_schema("store"));
    CHECK_STR(pg_ask("SELECT coalesce(string_agg(relname, ' '), '') %s AND seq_tup_read > 10", tables), "");
    CHECK_STR(pg_ask("SELECT max(n_live_tup) >= %d %s AND relname = 'task'", TASKS, tables), "t");
    /* Rows that indexes gave, to a task: a walk would give all of them each time. */
    CHECK_STR(pg_ask("SELECT sum(idx_tup_fetch) < 60 * %d %s", TASKS, tables), "t");
    /* Searches in indexes, to a task: what was read is written where it lies, and what is new is not looked for. */
    CHECK_STR(pg_ask("SELECT sum(idx_scan) < 20 * %d %s", TASKS, tables), "t");
}

/* Walks over all pending tasks, a page after the other; how many there were. */
static unsigned walk(mj_store *s, mj_query q)
{
    mj_buf b = {0};
    unsigned n = 0;

    do {
        mj_reader r;
        b.n = 0;
        CHECK_INT(mj_store_page(s, &q, &b), MJ_OK);
        for (r = mj_reader_of(b.p, b.n); r.p < r.end; n++)
            (void)mj_get_str(&r);
    } while (q.more);
    mj_buf_free(&b);
    return n;
}

TEST("a page of a long walk begins where the last one ended: what came before is not read again")
{
    enum { PAGE = 20 };
    static const char *const indexes[] = {"due_pkey", "task_in_state_pkey"};
    const mj_query walks[] = {{.order = MJ_BY_DUE, .due = MJ_DUE_POLL, .until = T0 + 999 * MINUTE, .limit = PAGE},
                              {.order = MJ_BY_STATE, .state = MJ_PENDING, .limit = PAGE}};

    for (int k = 0; k < 2; k++) {
        mj_store *s = open_store();
        for (int from = 0; k == 0 && from < TASKS; from += BATCH)
            make(s, from);
        mj_store_close(s);
        pg_quiet(0);
        pg_ask("SELECT pg_stat_reset()");
        s = open_store();
        CHECK_INT(walk(s, walks[k]), TASKS);
        mj_store_close(s);
        pg_quiet(0);
        CHECK_STR(pg_ask("SELECT idx_blks_hit + idx_blks_read > 0 AND idx_blks_hit + idx_blks_read < 5 * %d "
                         "FROM pg_statio_user_indexes WHERE schemaname = '%s' AND indexrelname = '%s'",
                         TASKS / PAGE, pg_schema("store"), indexes[k]),
                  "t");
    }
}

/* A pending task, whose id is "id 0". */
static void one_pending(mj_store *s)
{
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S};
    mj_op op = {
        .kind = MJ_OP_CREATE,
        .task = &t,
        .sig = {
            .source = MJ_FROM_USER, .expect_state = -1, .wait_ms = -1, .account = str("a"), .task_id = str("id 0")}};

    write_ops(s, &op, 1, T0);
}

static mj_op told(mj_signal_kind kind)
{
    return (mj_op){.kind = MJ_OP_SIGNAL,
                   .sig = {.kind = kind,
                           .source = MJ_FROM_POLL,
                           .expect_state = -1,
                           .wait_ms = -1,
                           .task_id = str("id 0"),
                           .image = kind == SIG_SUCCEEDED ? str("https://a.example/x.png") : str("")}};
}

TEST("a task that is told again and again that it still runs changes no index of its table: all updates are HOT")
{
    enum { TIMES = 300 };
    mj_store *s = open_store();
    char table[200];

    one_pending(s);
    for (int i = 0; i < TIMES; i++) {
        mj_op op = told(SIG_RUNNING);
        write_ops(s, &op, 1, T0 + (i + 1) * MINUTE);
    }
    mj_store_close(s);
    pg_quiet(0);
    snprintf(table, sizeof table, "FROM pg_stat_user_tables WHERE schemaname = '%s' AND relname = 'task'",
             pg_schema("store"));
    CHECK_STR(pg_ask("SELECT n_tup_upd >= %d %s", TIMES, table), "t");
    CHECK_STR(pg_ask("SELECT n_tup_upd - n_tup_hot_upd %s", table), "0");
    CHECK_STR(pg_ask("SELECT pg_relation_size(relid) <= 8192 * 2 %s", table), "t");
}

TEST("an entry that should not be there, and one that should, hold up no batch that puts and deletes them")
{
    const char *in = pg_schema("store");
    mj_store *s = open_store();
    mj_op op = told(SIG_SUCCEEDED);

    one_pending(s);
    pg_ask("INSERT INTO %s.task_in_state SELECT %d, ref FROM %s.task", in, MJ_SUCCEEDED, in);
    pg_ask("DELETE FROM %s.due", in);
    write_ops(s, &op, 1, T0 + MINUTE);
    CHECK_STR(pg_ask("SELECT bool_and(state = %d) AND count(*) = 1 FROM %s.task_in_state", MJ_SUCCEEDED, in), "t");
    CHECK_STR(pg_ask("SELECT count(*) FROM %s.event", in), "1");
    mj_store_close(s);
}
