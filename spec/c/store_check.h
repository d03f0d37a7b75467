/* Walks every database of a store both ways: each record has exactly the index entries that it asks for, each
 * index has no other, counters and slots are a full recount, the outbox holds each task's first open event.
 * Keys are built here by hand, after the comments in store/impl.h, and not by the code under test. */
#ifndef STORE_CHECK_H
#define STORE_CHECK_H

#include "store_help.h"

typedef struct checker {
    mj_store *s;
    MDB_txn *t;
    uint64_t want[MJ_NINDEXES]; /* entries that the records ask for */
    mj_tally counters;
    unsigned naccounts;
    struct {
        char name[MJ_MAX_NAME + 1];
        uint32_t held;
    } accounts[MJ_MAX_ACCOUNTS];
} checker;

typedef struct key {
    uint8_t b[511];
    size_t n;
} key;

static inline key add_bytes(key k, const void *p, size_t n)
{
    CHECK(k.n + n <= sizeof k.b);
    if (n)
        memcpy(k.b + k.n, p, n);
    k.n += n;
    return k;
}

static inline key add_number(key k, uint64_t v, unsigned bytes)
{
    while (bytes-- > 0)
        k.b[k.n++] = (uint8_t)(v >> (8 * bytes));
    return k;
}

static inline void expect_entry(checker *c, int db, key k, const void *value, size_t n)
{
    MDB_val key_val = {k.n, k.b}, v;
    int rc = mdb_get(c->t, mj_env_dbi(lmdb_of(c->s)->env, db), &key_val, &v);

    if (rc != 0)
        MJ_TEST_FAIL("database %d lacks an entry (%zu bytes): %s", db, k.n, mdb_strerror(rc));
    CHECK_INT(v.mv_size, n);
    if (n)
        CHECK_MEM(v.mv_data, value, n);
    c->want[db]++;
}

static inline uint32_t *held_by(checker *c, mj_str name)
{
    unsigned i = 0;

    while (i < c->naccounts && !mj_str_eq(str(c->accounts[i].name), name))
        i++;
    if (i == c->naccounts) {
        CHECK(i < MJ_MAX_ACCOUNTS && name.n > 0);
        memcpy(c->accounts[c->naccounts++].name, name.p, name.n);
    }
    return &c->accounts[i].held;
}

static inline void expect_attempt(checker *c, const mj_task *t, unsigned i)
{
    const mj_attempt *a = &t->attempts[i];
    key id = add_number(add_bytes((key){0}, t->ref, 16), i + 1, 4);

    if (a->slot) {
        key k = add_bytes(add_number((key){0}, (uint64_t)a->slot_until, 8), id.b, id.n);
        expect_entry(c, MJ_IX_SLOT, k, a->account.p, a->account.n);
        ++*held_by(c, a->account);
    }
    for (unsigned n = 0; n < a->nids; n++)
        expect_entry(c, MJ_IX_TID, add_bytes((key){0}, a->ids[n].p, a->ids[n].n), id.b, id.n);
}

static inline void expect_task(checker *c, MDB_val k, MDB_val v)
{
    mj_task t;
    key name;

    CHECK_INT(mj_task_decode(v.mv_data, v.mv_size, &t), MJ_OK);
    CHECK_INT(k.mv_size, 16);
    CHECK_MEM(k.mv_data, t.ref, 16);
    c->want[MJ_IX_TASK]++;
    c->counters.states[t.state]++;
    expect_entry(c, MJ_IX_STATE, add_bytes(add_number((key){0}, t.state, 1), t.ref, 16), NULL, 0);
    if (t.user_id.n) {
        name = add_bytes(add_number((key){0}, t.user_id.n, 2), t.user_id.p, t.user_id.n);
        expect_entry(c, MJ_IX_USER, add_bytes(name, t.ref, 16), NULL, 0);
    }
    if (t.key.n) {
        key value = add_bytes(add_bytes((key){0}, t.ref, 16), t.fingerprint, sizeof t.fingerprint);
        expect_entry(c, MJ_IX_KEY, add_bytes((key){0}, t.key.p, t.key.n), value.b, value.n);
    }
    if (mj_state_due(&t) != MJ_DUE_NONE) {
        name = add_number(add_number((key){0}, mj_state_due(&t), 1), (uint64_t)t.due_at, 8);
        expect_entry(c, MJ_IX_DUE, add_bytes(name, t.ref, 16), NULL, 0);
    }
    if (t.state == MJ_QUEUED && t.ready) {
        name = add_bytes(add_number((key){0}, t.account.n, 2), t.account.p, t.account.n);
        name = add_number(name, (uint64_t)(INT32_MAX - (int64_t)t.priority), 4);
        expect_entry(c, MJ_IX_QUEUE, add_bytes(name, t.ref, 16), NULL, 0);
    }
    for (unsigned i = 0; i < t.nattempts; i++)
        expect_attempt(c, &t, i);
}

/* Events come in the order of (ref, seq); `waiting` is the ref that already has its outbox entry. */
static inline void expect_event(checker *c, MDB_val k, MDB_val v, uint8_t waiting[16])
{
    mj_event_record e;
    key name;
    MDB_val task_key, task;

    CHECK_INT(mj_event_decode((mj_str){v.mv_data, (uint32_t)v.mv_size}, &e), MJ_OK);
    name = add_number(add_bytes((key){0}, e.ref, 16), e.seq, 4);
    CHECK_INT(k.mv_size, name.n);
    CHECK_MEM(k.mv_data, name.b, name.n);
    c->want[MJ_IX_EVENT]++;
    task_key = (MDB_val){16, e.ref};
    CHECK_INT(mdb_get(c->t, mj_env_dbi(lmdb_of(c->s)->env, MJ_IX_TASK), &task_key, &task), 0);
    if (e.buried) {
        c->counters.buried++;
        return;
    }
    c->counters.events++;
    if (memcmp(waiting, e.ref, 16) == 0)
        return;
    memcpy(waiting, e.ref, 16);
    expect_entry(c, MJ_IX_OUTBOX, add_bytes(add_number((key){0}, (uint64_t)e.next_at, 8), name.b, name.n), NULL, 0);
}

static inline void walk_db(checker *c, int db, uint8_t waiting[16])
{
    MDB_cursor *cur;
    MDB_val k, v;

    CHECK_INT(mdb_cursor_open(c->t, mj_env_dbi(lmdb_of(c->s)->env, db), &cur), 0);
    while (mdb_cursor_get(cur, &k, &v, MDB_NEXT) == 0) {
        if (db == MJ_IX_TASK) {
            expect_task(c, k, v);
        } else if (db == MJ_IX_EVENT) {
            expect_event(c, k, v, waiting);
        } else { /* MJ_IX_ACCOUNT */
            mj_held h;
            mj_entry e;
            mj_str row;
            CHECK(mj_entry_of(MJ_IX_ACCOUNT, k, v, &e) && mj_account_of(v, &e.n, &row));
            mj_account_read(&e, row, &h);
            CHECK_INT(h.held, *held_by(c, str(h.name)));
            CHECK(h.held > 0 || h.paused_until > 0);
            c->want[MJ_IX_ACCOUNT]++;
        }
    }
    mdb_cursor_close(cur);
}

static inline void check_counters(checker *c)
{
    MDB_val k = mj_val(COUNTERS, sizeof COUNTERS - 1), v;
    uint64_t found[MJ_NSTATES + 2] = {0};

    if (mdb_get(c->t, mj_env_dbi(lmdb_of(c->s)->env, MJ_IX_META), &k, &v) == 0) {
        mj_reader r = mj_reader_of(v.mv_data, v.mv_size);
        for (int i = 0; i < MJ_NSTATES + 2; i++)
            found[i] = mj_get_uint(&r);
        CHECK(!r.bad);
    }
    for (int i = 0; i < MJ_NSTATES; i++)
        CHECK_INT(found[i], c->counters.states[i]);
    CHECK_INT(found[MJ_NSTATES], c->counters.events);
    CHECK_INT(found[MJ_NSTATES + 1], c->counters.buried);
}

static inline void tell_problem(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "check: %s\n", text);
}

/* The entry that is in front of some trees from schema 5 on, and is none of a task's. */
static inline bool has_weight(MDB_txn *t, MDB_dbi dbi, int db)
{
    MDB_val k = mj_weight_key(), v;

    return mj_has_weight((mj_index)db) && mdb_get(t, dbi, &k, &v) == 0;
}

/* Returns the number of tasks. */
static inline uint64_t check_store(mj_store *s)
{
    checker c = {.s = s};
    uint8_t waiting[16] = {0};
    mj_check_report report;

    if (s->backend != &mj_backend_lmdb) { /* what check() sees through the seam is compared with LMDB elsewhere */
        CHECK_INT(mj_store_check(s, tell_problem, NULL, &report), MJ_OK);
        CHECK_INT(report.found, 0);
        return report.tasks;
    }
    CHECK_INT(mj_env_begin(lmdb_of(s)->env, MDB_RDONLY, &c.t), 0);
    walk_db(&c, MJ_IX_TASK, waiting);
    walk_db(&c, MJ_IX_EVENT, waiting);
    walk_db(&c, MJ_IX_ACCOUNT, waiting);
    for (unsigned i = 0; i < c.naccounts; i++)
        CHECK(c.accounts[i].held == 0 || c.want[MJ_IX_ACCOUNT] > 0);
    for (int db = 0; db < MJ_NINDEXES; db++) {
        MDB_stat st;
        CHECK_INT(mdb_stat(c.t, mj_env_dbi(lmdb_of(s)->env, db), &st), 0);
        st.ms_entries -= has_weight(c.t, mj_env_dbi(lmdb_of(s)->env, db), db);
        if (db != MJ_IX_META && st.ms_entries != c.want[db])
            MJ_TEST_FAIL("database %d has %zu entries, its records ask for %" PRIu64, db, st.ms_entries, c.want[db]);
    }
    check_counters(&c);
    mdb_txn_abort(c.t);
    mj_env_leave(lmdb_of(s)->env);
    CHECK_INT(mj_store_check(s, tell_problem, NULL, &report), MJ_OK); /* the store's own check is of the same mind */
    CHECK_INT(report.found, 0);
    CHECK_INT(report.tasks, c.want[MJ_IX_TASK]);
    return c.want[MJ_IX_TASK];
}

#endif
