/* Stores of an earlier schema: opened, readable at once, rewritten in steps that a death does not undo. */
#include "store_help.h"

enum { TASKS = 60 };

static void in_txn(mj_store *s, void (*work)(mj_store *, MDB_txn *))
{
    MDB_txn *t;

    CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
    work(s, t);
    CHECK_INT(mdb_txn_commit(t), 0);
    mj_env_leave(lmdb_of(s)->env);
}

/* These tasks have no image and no mj_prompt yet.  So a record of version 1 is one of version 4 without what versions 2
 * and 3 added at its end: called_at and files, here a byte 0 each. */
static void age_records(mj_store *s, MDB_txn *t)
{
    uint8_t old[4096], schema[4] = {0, 0, 0, 1};
    MDB_val key, v, meta = mj_val("schema", 6), one = mj_val(schema, 4);
    uint8_t refs[TASKS][MJ_ULID_BYTES];
    MDB_cursor *c;
    int n = 0;

    CHECK_INT(mdb_cursor_open(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_TASK), &c), 0);
    while (mdb_cursor_get(c, &key, &v, MDB_NEXT) == 0)
        memcpy(refs[n++], key.mv_data, MJ_ULID_BYTES);
    mdb_cursor_close(c);
    CHECK_INT(n, TASKS);
    while (n-- > 0) {
        key = mj_val(refs[n], MJ_ULID_BYTES);
        CHECK_INT(mdb_get(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_TASK), &key, &v), 0);
        CHECK(v.mv_size < sizeof old);
        CHECK_INT(((uint8_t *)v.mv_data)[0], 4);
        CHECK_INT(((uint8_t *)v.mv_data)[v.mv_size - 1], 0);
        CHECK_INT(((uint8_t *)v.mv_data)[v.mv_size - 2], 0);
        memcpy(old, v.mv_data, v.mv_size);
        old[0] = 1;
        v = mj_val(old, v.mv_size - 2);
        CHECK_INT(mdb_put(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_TASK), &key, &v, 0), 0);
    }
    key = mj_weight_key();
    for (int db = 0; db < MJ_NINDEXES; db++)
        if (mj_has_weight((mj_index)db))
            CHECK_INT(mdb_del(t, mj_env_dbi(lmdb_of(s)->env, db), &key, NULL), 0);
    CHECK_INT(mdb_drop(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_TOMB), 1), 0);
    CHECK_INT(mdb_drop(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_GRAVE), 1), 0);
    CHECK_INT(mdb_put(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_META), &meta, &one, 0), 0);
}

static uint8_t versions[MJ_TASK_VERSION + 1];

static void count_versions(mj_store *s, MDB_txn *t)
{
    MDB_val key, v;
    MDB_cursor *c;

    memset(versions, 0, sizeof versions);
    CHECK_INT(mdb_cursor_open(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_TASK), &c), 0);
    while (mdb_cursor_get(c, &key, &v, MDB_NEXT) == 0)
        versions[((uint8_t *)v.mv_data)[0]]++;
    mdb_cursor_close(c);
}

static void make_old_store(void)
{
    mj_store *s = open_store();
    char id[8];

    for (int i = 0; i < TASKS; i++) {
        snprintf(id, sizeof id, "T%d", i);
        add(s, (job){.task_id = id, .user = "u1", .key = id}, T0 + i);
    }
    in_txn(s, age_records);
    mj_store_close(s);
}

static void must_have_weights(mj_store *s, MDB_txn *t)
{
    MDB_val key, v;

    for (int db = 0; db < MJ_NINDEXES; db++) {
        key = mj_weight_key();
        if (mj_has_weight((mj_index)db))
            CHECK_INT(mdb_get(t, mj_env_dbi(lmdb_of(s)->env, db), &key, &v), 0);
    }
}

static mj_op upgrade(mj_store *s, uint32_t limit)
{
    CHECK_INT(do_op(s, (mj_op){.kind = MJ_OP_UPGRADE, .limit = limit}, T0), MJ_OK);
    return last;
}

static mj_check_report checked(mj_store *s)
{
    mj_check_report r;

    CHECK_INT(mj_store_check(s, NULL, NULL, &r), MJ_OK);
    CHECK_INT(r.found, 0);
    return r;
}

/* Takes every page of the map that is free, to the last one. */
static void fill_map(mj_store *s)
{
    static uint8_t bytes[1 << 20];
    char name[32];
    unsigned i = 0;
    MDB_txn *t;

    for (size_t n = sizeof bytes; n > 512;) {
        MDB_val key = mj_val(name, (size_t)snprintf(name, sizeof name, "fill %u", i++)), v = mj_val(bytes, n);
        int rc = mj_env_begin(lmdb_of(s)->env, 0, &t);
        CHECK_INT(rc, 0);
        rc = mdb_put(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_META), &key, &v, 0);
        if (rc == 0)
            rc = mdb_txn_commit(t);
        else
            mdb_txn_abort(t);
        mj_env_leave(lmdb_of(s)->env);
        CHECK(rc == 0 || rc == MDB_MAP_FULL);
        if (rc != 0)
            n /= 2;
    }
}

TEST("a store whose map is full grows while it is brought to this schema")
{
    mj_store *s = open_store();

    for (int i = 0; i < TASKS; i++)
        add(s, (job){0}, T0 + i);
    in_txn(s, age_records);
    fill_map(s);
    CHECK_INT(stats(s).map_size, 16u << 20);
    mj_store_close(s);
    s = open_store();
    in_txn(s, must_have_weights);
    add(s, (job){0}, T0);
    CHECK_INT(checked(s).found, 0);
    mj_store_close(s);
}

TEST("a store of schema 1 opens, reads and changes at once")
{
    mj_buf buf = {0};
    uint32_t attempt;
    mj_store *s;

    make_old_store();
    s = open_store();
    CHECK_INT(mj_store_find(s, str("T7"), &buf, &attempt), MJ_OK);
    CHECK_INT(buf.p[0], 1);
    CHECK(checked(s).upgrading);
    in_txn(s, must_have_weights);
    mj_signal sig = signal_of(SIG_SUCCEEDED);
    sig.task_id = str("T7");
    CHECK_INT(send_signal(s, NULL, sig, T0 + 5000), MJ_OK);
    in_txn(s, count_versions);
    CHECK_INT(versions[MJ_TASK_VERSION], 1); /* what is changed is written in the new version */
    mj_buf_free(&buf);
}

TEST("an upgrade rewrites every record in bounded steps and goes on after a death")
{
    uint32_t rewritten = 0;
    mj_op op;

    make_old_store();
    for (int death = 0; death < 3; death++) { /* each process does two steps and is gone */
        pid_t pid = fork();
        int status;
        if (pid == 0) {
            mj_store *s = open_store();
            upgrade(s, 7);
            upgrade(s, 7);
            raise(SIGKILL);
        }
        CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    }
    mj_store *s = open_store();
    in_txn(s, count_versions);
    CHECK_INT(versions[MJ_TASK_VERSION], 3 * 2 * 7);
    do {
        op = upgrade(s, 7);
        rewritten += op.done;
    } while (op.more);
    CHECK_INT(rewritten, TASKS - 3 * 2 * 7);
    in_txn(s, count_versions);
    CHECK_INT(versions[1], 0);
    CHECK_INT(versions[MJ_TASK_VERSION], TASKS);
    CHECK(!checked(s).upgrading);
    CHECK_INT(upgrade(s, 7).done, 0);
}

TEST("an upgrade's second step in one batch goes on where the first one ended")
{
    mj_op ops[2] = {{.kind = MJ_OP_UPGRADE, .limit = 7}, {.kind = MJ_OP_UPGRADE, .limit = 7}};
    mj_store *s;

    make_old_store();
    s = open_store();
    CHECK_INT(mj_store_write(s, ops, 2, T0), MJ_OK);
    CHECK_INT(ops[0].done, 7);
    CHECK_INT(ops[1].done, 7);
    in_txn(s, count_versions);
    CHECK_INT(versions[MJ_TASK_VERSION], 14);
    mj_store_close(s);
}

TEST("a store that is upgraded is refused by a program that knows only the old schema, from the start")
{
    MDB_val key = mj_val("schema", 6), v;
    MDB_txn *t;
    mj_store *s;

    make_old_store();
    s = open_store();
    CHECK_INT(mj_env_begin(lmdb_of(s)->env, MDB_RDONLY, &t), 0);
    CHECK_INT(mdb_get(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_META), &key, &v), 0);
    CHECK_INT(mj_be32_get(v.mv_data), MJ_STORE_SCHEMA); /* and a higher one than one's own is MJ_ESCHEMA */
    mdb_txn_abort(t);
    mj_env_leave(lmdb_of(s)->env);
    mj_store_close(s);
}
