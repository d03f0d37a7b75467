/* check(): every record against every index, both ways.
 *
 * Since index entries are pure functions of the records, it is enough to find
 * each entry that a record asks for, and then to compare the number of entries
 * with the number that were asked for: if both hold, nothing is missing and
 * nothing is left over.  Where the numbers differ, the index is walked to name
 * what is left over. */
#include "store/lmdb/env_impl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOLD = 1000 };

typedef struct check {
    mj_store *s;
    void (*problem)(void *ctx, const char *text);
    void *ctx;
    mj_check_report *out;
    uint64_t expected[DB_COUNT]; /* entries that the records ask for */
    mj_counters counters;        /* recounted */
    unsigned nheld;
    struct {
        char name[MJ_MAX_NAME + 1];
        uint64_t held;
    } held[MJ_MAX_ACCOUNTS];
} check;

__attribute__((format(printf, 2, 3))) static void tell(check *c, const char *format, ...)
{
    char text[400];
    va_list args;

    if (c->out->found++ >= MOST_TOLD || !c->problem)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): clang-tidy 14 errs */
    va_end(args);
    c->problem(c->ctx, text);
}

static int look(check *c, int db, MDB_val key, MDB_val *v)
{
    return mj_env_get(c->s->env, c->s->reader.txn, db, key, v);
}

/* An entry that has to be there; value NULL: any. */
static void want(check *c, int db, const char *ref, MDB_val key, const void *value, size_t n)
{
    MDB_val v;

    c->expected[db]++;
    if (look(c, db, key, &v) != 0)
        tell(c, "task %s is missing in index %s", ref, mj_env_db_name(db));
    else if (value && (v.mv_size != n || memcmp(v.mv_data, value, n) != 0))
        tell(c, "index %s says something else of task %s than its record", mj_env_db_name(db), ref);
}

static void count_slot(check *c, mj_str account)
{
    unsigned i;

    for (i = 0; i < c->nheld; i++)
        if (strlen(c->held[i].name) == account.n && memcmp(c->held[i].name, account.p, account.n) == 0)
            break;
    if (i == MJ_MAX_ACCOUNTS || account.n > MJ_MAX_NAME)
        return;
    if (i == c->nheld)
        memcpy(c->held[c->nheld++].name, account.p, account.n);
    c->held[i].held++;
}

static void check_attempt(check *c, const mj_task *t, const char *ref, uint32_t n)
{
    const mj_attempt *a = &t->attempts[n - 1];
    uint8_t k[KEY_MAX], v[MJ_ULID_BYTES + 4];

    memcpy(v, t->ref, MJ_ULID_BYTES);
    mj_be32(v + MJ_ULID_BYTES, n);
    for (unsigned i = 0; i < a->nids; i++)
        want(c, DB_TID, ref, mj_val(a->ids[i].p, a->ids[i].n), v, sizeof v);
    if (a->slot) {
        want(c, DB_SLOT, ref, mj_val(k, mj_key_slot(k, a->slot_until, t->ref, n)), a->account.p, a->account.n);
        count_slot(c, a->account);
    }
}

static void check_task(check *c, MDB_val key, MDB_val bytes)
{
    uint8_t k[KEY_MAX], v[MJ_ULID_BYTES + 16];
    char ref[MJ_ULID_TEXT + 1] = "?";
    mj_due due;
    mj_task t;
    int rc;

    c->out->tasks++;
    c->expected[DB_TASK]++;
    if (key.mv_size == MJ_ULID_BYTES)
        mj_ulid_text(key.mv_data, ref);
    rc = mj_task_decode(bytes.mv_data, bytes.mv_size, &t);
    if (rc != MJ_OK) {
        tell(c, "task %s: %s", ref, mj_error_text(rc));
        return;
    }
    if (key.mv_size != MJ_ULID_BYTES || memcmp(key.mv_data, t.ref, MJ_ULID_BYTES) != 0)
        tell(c, "the record under %s is another task's", ref);
    c->counters.states[t.state]++;
    want(c, DB_STATE, ref, mj_val(k, mj_key_state(k, t.state, t.ref)), "", 0);
    due = mj_state_due(&t);
    if (due != MJ_DUE_NONE)
        want(c, DB_DUE, ref, mj_val(k, mj_key_due(k, due, t.due_at, t.ref)), "", 0);
    if (t.state == MJ_QUEUED && t.ready)
        want(c, DB_QUEUE, ref, mj_val(k, mj_key_queue(k, t.account, t.priority, t.ref)), "", 0);
    if (t.user_id.n)
        want(c, DB_USER, ref, mj_val(k, mj_key_user(k, t.user_id, t.ref)), "", 0);
    if (t.key.n) {
        memcpy(v, t.ref, MJ_ULID_BYTES);
        memcpy(v + MJ_ULID_BYTES, t.fingerprint, sizeof t.fingerprint);
        want(c, DB_KEY, ref, mj_val(t.key.p, t.key.n), v, sizeof v);
    }
    for (uint32_t n = 1; n <= t.nattempts; n++)
        check_attempt(c, &t, ref, n);
}

static void check_tomb(check *c, MDB_val key, MDB_val bytes)
{
    uint8_t k[8 + MJ_ULID_BYTES];
    char ref[MJ_ULID_TEXT + 1] = "?";
    MDB_val v;
    mj_tomb t;

    c->out->tombs++;
    if (key.mv_size == MJ_ULID_BYTES)
        mj_ulid_text(key.mv_data, ref);
    if (mj_tomb_decode((mj_str){bytes.mv_data, (uint32_t)bytes.mv_size}, &t) != MJ_OK) {
        tell(c, "the tombstone of task %s can't be read", ref);
        return;
    }
    if (look(c, DB_TASK, mj_val(t.ref, MJ_ULID_BYTES), &v) == 0)
        tell(c, "task %s has a tombstone and is there", ref);
    mj_be64(k, (uint64_t)t.pruned_at);
    memcpy(k + 8, t.ref, MJ_ULID_BYTES);
    want(c, DB_GRAVE, ref, mj_val(k, sizeof k), "", 0);
    if (t.key.n)
        want(c, DB_KEY, ref, mj_val(t.key.p, t.key.n), NULL, 0);
    for (unsigned i = 0; i < t.nids; i++)
        want(c, DB_TID, ref, mj_val(t.ids[i].p, t.ids[i].n), NULL, 0);
}

/* Events: readable, of a known task, and the first open one of each task in the outbox. */
static void check_event(check *c, MDB_val key, MDB_val bytes)
{
    static const size_t EVENT_KEY = MJ_ULID_BYTES + 4;
    uint8_t k[8 + MJ_ULID_BYTES + 4];
    char ref[MJ_ULID_TEXT + 1] = "?";
    mj_event_record e;
    MDB_val v;

    c->out->events++;
    if (key.mv_size == EVENT_KEY)
        mj_ulid_text(key.mv_data, ref);
    if (key.mv_size != EVENT_KEY || mj_event_decode((mj_str){bytes.mv_data, (uint32_t)bytes.mv_size}, &e) != MJ_OK) {
        tell(c, "an event of task %s can't be read", ref);
        return;
    }
    if (look(c, DB_TASK, mj_val(e.ref, MJ_ULID_BYTES), &v) != 0)
        tell(c, "event %s-%" PRIu32 " is about a task that is not there", ref, e.seq);
    if (e.buried) {
        c->counters.buried++;
        return;
    }
    c->counters.events++;
    if (memcmp(c->counters.last_ref, e.ref, MJ_ULID_BYTES) == 0)
        return; /* behind another open one of its task */
    memcpy(c->counters.last_ref, e.ref, MJ_ULID_BYTES);
    mj_be64(k, (uint64_t)e.next_at);
    memcpy(k + 8, key.mv_data, EVENT_KEY);
    want(c, DB_OUTBOX, ref, mj_val(k, sizeof k), "", 0);
}

static int walk(check *c, int db, void (*visit)(check *, MDB_val, MDB_val))
{
    MDB_cursor *cursor;
    MDB_val key, v;
    int rc = mdb_cursor_open(c->s->reader.txn, mj_env_dbi(c->s->env, db), &cursor);

    if (rc != 0)
        return rc;
    while ((rc = mj_env_next(c->s->env, cursor, &key, &v, MDB_NEXT)) == 0)
        visit(c, key, v);
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Where the ref stands in an entry of an index; NULL when the entry is malformed. */
static const uint8_t *ref_in(int db, MDB_val key, MDB_val v)
{
    const uint8_t *k = key.mv_data;

    switch (db) {
    case DB_TID:
    case DB_KEY:
        return v.mv_size >= MJ_ULID_BYTES ? v.mv_data : NULL;
    case DB_SLOT:
    case DB_OUTBOX:
        return key.mv_size == 8 + MJ_ULID_BYTES + 4 ? k + 8 : NULL;
    default: /* the ref ends the key */
        return key.mv_size >= MJ_ULID_BYTES ? k + key.mv_size - MJ_ULID_BYTES : NULL;
    }
}

/* Does the record that an index entry points to ask for this very entry? */
static bool asked_for(check *c, int db, MDB_val key, const uint8_t *ref)
{
    uint8_t k[KEY_MAX] = {0};
    MDB_val v;
    mj_task t;
    size_t n = 0;

    if (db == DB_GRAVE)
        return look(c, DB_TOMB, mj_val(ref, MJ_ULID_BYTES), &v) == 0;
    if (db == DB_OUTBOX)
        return look(c, DB_EVENT, mj_val((uint8_t *)key.mv_data + 8, MJ_ULID_BYTES + 4), &v) == 0;
    if (look(c, DB_TASK, mj_val(ref, MJ_ULID_BYTES), &v) != 0)
        return (db == DB_KEY || db == DB_TID) && look(c, DB_TOMB, mj_val(ref, MJ_ULID_BYTES), &v) == 0;
    if (mj_task_decode(v.mv_data, v.mv_size, &t) != MJ_OK)
        return true; /* told already */
    if (db == DB_STATE)
        n = mj_key_state(k, t.state, t.ref);
    else if (db == DB_DUE && mj_state_due(&t) != MJ_DUE_NONE)
        n = mj_key_due(k, mj_state_due(&t), t.due_at, t.ref);
    else if (db == DB_QUEUE && t.state == MJ_QUEUED && t.ready)
        n = mj_key_queue(k, t.account, t.priority, t.ref);
    else if (db == DB_USER && t.user_id.n)
        n = mj_key_user(k, t.user_id, t.ref);
    else if (db == DB_KEY)
        return key.mv_size == t.key.n && memcmp(key.mv_data, t.key.p, t.key.n) == 0;
    else if (db == DB_SLOT || db == DB_TID)
        return true; /* counted, and each asked-for one was found: the number tells */
    return n == key.mv_size && memcmp(k, key.mv_data, n) == 0;
}

static int name_leftovers(check *c, int db)
{
    MDB_cursor *cursor;
    MDB_val key, v;
    int rc = mdb_cursor_open(c->s->reader.txn, mj_env_dbi(c->s->env, db), &cursor);

    if (rc != 0)
        return rc;
    while ((rc = mj_env_next(c->s->env, cursor, &key, &v, MDB_NEXT)) == 0) {
        const uint8_t *ref = ref_in(db, key, v);
        char text[MJ_ULID_TEXT + 1] = "?";
        if (ref && asked_for(c, db, key, ref))
            continue;
        if (ref)
            mj_ulid_text(ref, text);
        tell(c, "index %s has an entry for task %s that its record does not ask for", mj_env_db_name(db), text);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int compare_sizes(check *c)
{
    static const int indexes[] = {DB_TID, DB_KEY, DB_USER, DB_STATE, DB_DUE, DB_QUEUE, DB_SLOT, DB_OUTBOX, DB_GRAVE};
    MDB_stat st;
    int rc = 0;

    for (size_t i = 0; i < sizeof indexes / sizeof indexes[0] && rc == 0; i++) {
        int db = indexes[i];
        rc = mdb_stat(c->s->reader.txn, mj_env_dbi(c->s->env, db), &st);
        if (rc != 0 || st.ms_entries == c->expected[db])
            continue;
        tell(c, "index %s has %zu entries, the records ask for %" PRIu64, mj_env_db_name(db), st.ms_entries,
             c->expected[db]);
        rc = name_leftovers(c, db);
    }
    return rc;
}

static void check_refused(check *c, MDB_val key, MDB_val value)
{
    mj_buf *b = &c->s->scratch;
    mj_refused f;

    b->n = 0;
    mj_put_uint(b, 0); /* the number, which decoding expects before the record */
    mj_put_raw(b, value.mv_data, value.mv_size);
    if (key.mv_size != 8 || mj_refused_decode((mj_str){(const char *)b->p, (uint32_t)b->n}, &f) != MJ_OK)
        tell(c, "a refused callback can't be read");
    c->expected[DB_REFUSED]++;
}

static int compare_counters(check *c)
{
    MDB_val v;
    MDB_cursor *cursor;
    MDB_val key;
    mj_counters stored = {0};
    mj_held h;
    uint64_t seen = 0;
    int rc = look(c, DB_META, mj_val(MJ_COUNTERS_KEY, sizeof MJ_COUNTERS_KEY - 1), &v);

    if (rc == 0)
        rc = mj_counters_read(v, &stored);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    for (int s = 0; s < MJ_NSTATES; s++)
        if (stored.states[s] != c->counters.states[s])
            tell(c, "the counter of %s says %" PRIu64 ", there are %" PRIu64, mj_state_name((mj_state)s),
                 stored.states[s], c->counters.states[s]);
    if (stored.events != c->counters.events)
        tell(c, "the counter of events says %" PRIu64 ", there are %" PRIu64, stored.events, c->counters.events);
    if (stored.buried != c->counters.buried)
        tell(c, "the counter of buried events says %" PRIu64 ", there are %" PRIu64, stored.buried, c->counters.buried);
    rc = mdb_cursor_open(c->s->reader.txn, mj_env_dbi(c->s->env, DB_ACCOUNT), &cursor);
    if (rc != 0)
        return rc;
    while ((rc = mj_env_next(c->s->env, cursor, &key, &v, MDB_NEXT)) == 0) {
        uint64_t held = 0;
        mj_account_read(key, v, &h);
        for (unsigned i = 0; i < c->nheld; i++)
            if (strcmp(c->held[i].name, h.name) == 0)
                held = c->held[i].held, seen++;
        if (held != h.held)
            tell(c, "account %s is said to hold %" PRIu32 " slots, its attempts hold %" PRIu64, h.name, h.held, held);
    }
    mdb_cursor_close(cursor);
    if (seen < c->nheld)
        tell(c, "slots are held under an account that the store does not know");
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* A read transaction of a file whose every page is sound.  Writers go on meanwhile: a snapshot that is two commits old
 * has no root any more, and the next one is looked at instead. */
int mj_store_begin_sound(mj_store *s)
{
    enum { TRIES = 100 };
    char why[128];
    int rc = mj_store_begin(s);

    for (int i = 0; rc == 0; i++) {
        rc = mj_pages_check(s->env->fd, mdb_txn_id(s->reader.txn), 0, why, sizeof why);
        if (rc == 0 || (rc == MJ_ECHANGED && i == TRIES))
            return 0;
        if (rc == MJ_ECORRUPT)
            snprintf(s->detail, sizeof s->detail,
                     "%s/data.mdb is damaged: %s: put a backup in its place with mjhook "
                     "restore",
                     s->dir, why);
        mj_store_end(s, rc == MJ_ECHANGED ? 0 : rc);
        if (rc == MJ_ECHANGED)
            rc = mj_store_begin(s);
    }
    return rc;
}

int mj_store_check(mj_store *s, void (*problem)(void *ctx, const char *text), void *ctx, mj_check_report *out)
{
    check *c = calloc(1, sizeof *c);
    MDB_val v;
    int rc;

    memset(out, 0, sizeof *out);
    if (!c)
        return MJ_ENOMEM;
    c->s = s;
    c->problem = problem;
    c->ctx = ctx;
    c->out = out;
    rc = mj_store_begin_sound(s);
    if (rc == MJ_ECORRUPT && s->detail[0]) { /* LMDB would not survive the rest */
        tell(c, "%s", s->detail);
        free(c);
        return MJ_OK;
    }
    if (rc != 0) {
        free(c);
        return mj_env_code(rc);
    }
    rc = walk(c, DB_TASK, check_task);
    if (rc == 0)
        rc = walk(c, DB_TOMB, check_tomb);
    if (rc == 0)
        rc = walk(c, DB_EVENT, check_event);
    if (rc == 0)
        rc = walk(c, DB_REFUSED, check_refused);
    if (rc == 0 && c->expected[DB_REFUSED] > MJ_MAX_REFUSED)
        tell(c, "%" PRIu64 " refused callbacks are kept, %d may be", c->expected[DB_REFUSED], MJ_MAX_REFUSED);
    if (rc == 0)
        rc = compare_sizes(c);
    if (rc == 0)
        rc = compare_counters(c);
    out->upgrading = look(c, DB_META, mj_val(MJ_UPGRADE_KEY, sizeof MJ_UPGRADE_KEY - 1), &v) == 0;
    free(c);
    return mj_store_end(s, rc);
}
