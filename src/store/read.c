/* Handles, and the read half of the store. */
#include "store/lmdb/env_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int mj_store_open(const char *dir, const mj_store_options *o, mj_store **out, char *why, size_t why_size)
{
    mj_store *s = calloc(1, sizeof *s);
    int rc = MJ_ENOMEM;

    *out = NULL;
    if (why_size > 0)
        why[0] = '\0';
    if (s && (s->dir = strdup(dir)) != NULL) {
        s->options = *o;
        rc = mj_env_acquire(dir, o, &s->env, why, why_size);
    }
    if (rc == MJ_OK) { /* for after a fork: the child may have changed its directory */
        char *full = realpath(dir, NULL);
        if (full) {
            free(s->dir);
            s->dir = full;
        }
    }
    if (rc != MJ_OK) {
        if (s)
            free(s->dir);
        free(s);
        return rc;
    }
    *out = s;
    return MJ_OK;
}

void mj_store_close(mj_store *s)
{
    if (!s)
        return;
    if (!mj_env_foreign(s->env)) {
        mj_store_settle(s);
        mj_env_forget(s->env, &s->reader);
        mj_env_release(s->env);
    }
    mj_buf_free(&s->scratch);
    free(s->caps);
    free(s->dir);
    free(s);
}

const char *mj_store_detail(const mj_store *s)
{
    return s->detail;
}

void mj_store_blame(mj_store *s, int rc)
{
    if (s->detail[0])
        return;
    if (rc == EAGAIN || rc == MJ_TORN || rc == MJ_MISFIT)
        mj_env_explain(s->dir, rc, s->detail, sizeof s->detail);
    else
        snprintf(s->detail, sizeof s->detail, "%s", rc > -100 && rc <= 0 ? mj_error_text(rc) : mdb_strerror(rc));
}

int mj_store_ready(mj_store *s)
{
    mj_env *e;
    int rc;

    if (!mj_env_foreign(s->env))
        return MJ_OK;
    s->reader = (mj_env_reader){0};     /* the parent's; touching it here would harm the parent */
    memset(s->owed, 0, sizeof s->owed); /* the parent stores it */
    s->owes = false;
    rc = mj_env_acquire(s->dir, &s->options, &e, s->detail, sizeof s->detail);
    if (rc == MJ_OK)
        s->env = e;
    return rc;
}

/* ---- reading: begin, look, copy, end ---- */

int mj_store_begin(mj_store *s)
{
    int rc;

    s->detail[0] = '\0';
    rc = mj_store_ready(s);
    if (rc == MJ_OK)
        rc = mj_env_read(s->env, &s->reader, !s->options.no_wait);
    if (rc != 0)
        mj_store_blame(s, rc);
    return rc;
}

int mj_store_end(mj_store *s, int rc)
{
    mdb_txn_reset(s->reader.txn);
    mj_env_leave(s->env);
    if (rc != 0 && rc != MDB_NOTFOUND)
        mj_store_blame(s, rc);
    return mj_env_code(rc);
}

static int get(mj_store *s, int db, MDB_val key, MDB_val *v)
{
    return mj_env_get(s->env, s->reader.txn, db, key, v);
}

static int copy(mj_buf *out, MDB_val v)
{
    mj_put_raw(out, v.mv_data, v.mv_size);
    return out->failed ? MJ_ENOMEM : 0;
}

int mj_store_get(mj_store *s, const uint8_t ref[MJ_ULID_BYTES], mj_buf *out)
{
    MDB_val v;
    int rc = mj_store_begin(s);

    if (rc != 0)
        return mj_env_code(rc);
    rc = get(s, DB_TASK, mj_val(ref, MJ_ULID_BYTES), &v);
    return mj_store_end(s, rc != 0 ? rc : copy(out, v));
}

int mj_store_find(mj_store *s, mj_str task_id, mj_buf *out, uint32_t *attempt)
{
    MDB_val v;
    int rc;

    if (task_id.n == 0 || task_id.n > MJ_MAX_TASK_ID)
        return MJ_ENOTFOUND;
    rc = mj_store_begin(s);
    if (rc != 0)
        return mj_env_code(rc);
    rc = get(s, DB_TID, mj_val(task_id.p, task_id.n), &v);
    if (rc == 0 && v.mv_size != MJ_ULID_BYTES + 4)
        rc = MJ_ECORRUPT;
    if (rc == 0) {
        *attempt = mj_be32_get((uint8_t *)v.mv_data + MJ_ULID_BYTES);
        rc = get(s, DB_TASK, mj_val(v.mv_data, MJ_ULID_BYTES), &v);
    }
    return mj_store_end(s, rc != 0 ? rc : copy(out, v));
}

int mj_store_tomb(mj_store *s, const uint8_t ref[MJ_ULID_BYTES], mj_buf *out)
{
    MDB_val v;
    int rc = mj_store_begin(s);

    if (rc != 0)
        return mj_env_code(rc);
    rc = get(s, DB_TOMB, mj_val(ref, MJ_ULID_BYTES), &v);
    return mj_store_end(s, rc != 0 ? rc : copy(out, v));
}

int mj_store_key(mj_store *s, mj_str key, mj_buf *out, bool *pruned)
{
    MDB_val v = {0}, record;
    int rc;

    *pruned = false;
    if (key.n == 0 || key.n > MJ_MAX_NAME)
        return MJ_ENOTFOUND;
    rc = mj_store_begin(s);
    if (rc != 0)
        return mj_env_code(rc);
    rc = get(s, DB_KEY, mj_val(key.p, key.n), &v);
    if (rc == 0 && v.mv_size < MJ_ULID_BYTES)
        rc = MJ_ECORRUPT;
    if (rc == 0)
        rc = get(s, DB_TASK, mj_val(v.mv_data, MJ_ULID_BYTES), &record);
    if (rc == MDB_NOTFOUND && v.mv_data && (rc = get(s, DB_TOMB, mj_val(v.mv_data, MJ_ULID_BYTES), &record)) == 0)
        *pruned = true;
    return mj_store_end(s, rc != 0 ? rc : copy(out, record));
}

/* ---- pages ---- */

enum { PASSED_BY = 1000 }; /* records that a page looks at in vain, in a millisecond or two */

/* A walk over one index: where it starts, which keys belong to it, where the ref stands in a key. */
typedef struct walk {
    int db;
    bool newest_first;
    uint8_t prefix[KEY_MAX];
    size_t prefix_len; /* keys outside it end the walk */
    size_t cursor_len; /* bytes of a key after the prefix: what a cursor keeps */
    size_t ref_at;     /* of the ref, after the prefix */
} walk;

static int plan(const mj_query *q, walk *w)
{
    *w = (walk){.newest_first = true, .cursor_len = MJ_ULID_BYTES};
    switch (q->order) {
    case MJ_BY_AGE:
        w->db = DB_TASK;
        return 0;
    case MJ_BY_STATE:
        w->db = DB_STATE;
        w->prefix[0] = (uint8_t)q->state;
        w->prefix_len = 1;
        return 0;
    case MJ_BY_USER:
        if (q->user_id.n == 0 || q->user_id.n > MJ_MAX_NAME)
            return MJ_EINVAL;
        w->db = DB_USER;
        w->prefix_len = mj_key_user(w->prefix, q->user_id, q->cursor) - MJ_ULID_BYTES;
        return 0;
    case MJ_BY_DUE:
        *w = (walk){
            .db = DB_DUE, .prefix = {(uint8_t)q->due}, .prefix_len = 1, .cursor_len = 8 + MJ_ULID_BYTES, .ref_at = 8};
        return 0;
    case MJ_BY_EVENT:
        *w = (walk){.db = DB_EVENT, .cursor_len = MJ_ULID_BYTES + 4};
        if (q->has_ref) {
            w->prefix_len = MJ_ULID_BYTES;
            w->cursor_len = 4;
            memcpy(w->prefix, q->ref, MJ_ULID_BYTES);
        }
        return 0;
    }
    return MJ_EINVAL;
}

/* Positions the cursor on the first key of the page. */
static int position(mj_env *e, MDB_cursor *c, const mj_query *q, const walk *w, MDB_val *key, MDB_val *v)
{
    uint8_t k[KEY_MAX];
    size_t n = w->prefix_len + w->cursor_len;
    int rc;

    memcpy(k, w->prefix, w->prefix_len);
    if (q->more)
        memcpy(k + w->prefix_len, q->cursor, w->cursor_len);
    else
        memset(k + w->prefix_len, w->newest_first ? 0xff : 0, w->cursor_len);
    *key = mj_val(k, n);
    rc = mj_env_next(e, c, key, v, MDB_SET_RANGE);
    if (w->newest_first) /* the last key before where the range begins */
        return mj_env_next(e, c, key, v, rc == MDB_NOTFOUND ? MDB_LAST : rc == 0 ? MDB_PREV : MDB_GET_CURRENT);
    if (rc == 0 && q->more && key->mv_size == n && memcmp(key->mv_data, k, n) == 0)
        rc = mj_env_next(e, c, key, v, MDB_NEXT);
    return rc;
}

static bool belongs(const mj_query *q, const walk *w, MDB_val key)
{
    const uint8_t *k = key.mv_data;
    const uint8_t *ref = k + w->prefix_len + w->ref_at;

    if (key.mv_size != w->prefix_len + w->cursor_len || memcmp(k, w->prefix, w->prefix_len) != 0)
        return false;
    if (q->order == MJ_BY_DUE)
        return (int64_t)mj_be64_get(k + 1) <= q->until;
    return q->order == MJ_BY_EVENT || q->since == 0 || mj_ulid_time(ref) >= q->since;
}

int mj_store_page(mj_store *s, mj_query *q, mj_buf *out)
{
    walk w;
    MDB_cursor *c;
    MDB_val key, v, task;
    uint32_t n = 0, passed = 0;
    int rc = plan(q, &w);

    if (rc != 0 || (rc = mj_store_begin(s)) != 0)
        return mj_env_code(rc);
    rc = mdb_cursor_open(s->reader.txn, mj_env_dbi(s->env, w.db), &c);
    if (rc != 0)
        return mj_store_end(s, rc);
    rc = position(s->env, c, q, &w, &key, &v);
    q->more = false;
    for (; rc == 0 && belongs(q, &w, key);
         rc = mj_env_next(s->env, c, &key, &v, w.newest_first ? MDB_PREV : MDB_NEXT)) {
        mj_event_record e;
        if (n == q->limit || passed == PASSED_BY) {
            q->more = true;
            break;
        }
        memcpy(q->cursor, (uint8_t *)key.mv_data + w.prefix_len, w.cursor_len);
        task = v;
        if (w.db == DB_EVENT) {
            if (q->buried && (mj_event_decode((mj_str){v.mv_data, (uint32_t)v.mv_size}, &e) != 0 || !e.buried)) {
                passed++;
                continue;
            }
        } else if (w.db != DB_TASK && get(s, DB_TASK, mj_val(q->cursor + w.ref_at, MJ_ULID_BYTES), &task) != 0) {
            passed++; /* an index entry without a record is check()'s to tell */
            continue;
        }
        mj_put_str(out, (mj_str){task.mv_data, (uint32_t)task.mv_size});
        n++;
    }
    mdb_cursor_close(c);
    if (out->failed)
        rc = MJ_ENOMEM;
    return mj_store_end(s, rc == MDB_NOTFOUND ? 0 : rc);
}

/* ---- statistics ---- */

static mj_account_stats *account_stats(mj_stats *out, const char *name)
{
    mj_account_stats *a;

    for (unsigned i = 0; i < out->naccounts; i++)
        if (strcmp(out->accounts[i].name, name) == 0)
            return &out->accounts[i];
    if (out->naccounts == MJ_MAX_ACCOUNTS)
        return NULL;
    a = &out->accounts[out->naccounts++];
    snprintf(a->name, sizeof a->name, "%s", name);
    return a;
}

/* The accounts that may be used, and those that still hold slots. */
static int read_accounts(mj_store *s, mj_stats *out)
{
    MDB_cursor *c;
    MDB_val key, v;
    int rc = mdb_cursor_open(s->reader.txn, mj_env_dbi(s->env, DB_ACCOUNT), &c);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < s->ncaps; i++) {
        mj_account_stats *a = account_stats(out, s->caps[i].name);
        if (a)
            a->max_in_flight = s->caps[i].max_in_flight;
    }
    while ((rc = mj_env_next(s->env, c, &key, &v, MDB_NEXT)) == 0) {
        mj_account_stats *a;
        mj_held h;
        mj_account_read(key, v, &h);
        a = account_stats(out, h.name);
        if (!a)
            continue;
        memcpy(a->reason, h.reason, sizeof a->reason);
        a->held = h.held;
        a->paused_until = h.paused_until;
        a->paused_at = h.paused_at;
        a->learned = h.learned;
        a->learned_at = h.learned_at;
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The first key of a database at or after one byte `from`; *v is empty when there is none that starts with it. */
static int first_key(mj_store *s, int db, int from, MDB_val *key)
{
    uint8_t prefix = (uint8_t)from;
    MDB_cursor *c;
    MDB_val v;
    int rc = mdb_cursor_open(s->reader.txn, mj_env_dbi(s->env, db), &c);

    if (rc != 0)
        return rc;
    *key = mj_val(&prefix, 1);
    rc = mj_env_next(s->env, c, key, &v, from < 0 ? MDB_FIRST : MDB_SET_RANGE);
    mdb_cursor_close(c);
    if (rc == MDB_NOTFOUND || (rc == 0 && from >= 0 && *(uint8_t *)key->mv_data != prefix)) {
        *key = mj_val(NULL, 0);
        rc = 0;
    }
    return rc;
}

/* What waits longest: refs begin with their time, the outbox is ordered by its. */
static int read_oldest(mj_store *s, mj_stats *out)
{
    static const mj_state open[] = {MJ_QUEUED, MJ_SUBMITTING, MJ_AMBIGUOUS, MJ_PENDING};
    MDB_val key;
    int rc = 0;

    for (unsigned i = 0; i < sizeof open / sizeof open[0] && rc == 0; i++) {
        rc = first_key(s, DB_STATE, (int)open[i], &key);
        if (rc == 0 && key.mv_size == 1 + MJ_ULID_BYTES) {
            int64_t at = mj_ulid_time((uint8_t *)key.mv_data + 1);
            out->oldest_open = out->oldest_open == 0 || at < out->oldest_open ? at : out->oldest_open;
        }
    }
    if (rc == 0)
        rc = first_key(s, DB_OUTBOX, -1, &key);
    if (rc == 0 && key.mv_size > 8)
        out->event_due = (int64_t)mj_be64_get(key.mv_data);
    return rc;
}

int mj_store_stats(mj_store *s, mj_stats *out)
{
    MDB_envinfo info;
    MDB_stat st;
    MDB_val v;
    mj_counters counters = {0};
    int rc = mj_store_begin(s);

    memset(out, 0, sizeof *out);
    if (rc != 0)
        return mj_env_code(rc);
    rc = get(s, DB_META, mj_val(MJ_COUNTERS_KEY, sizeof MJ_COUNTERS_KEY - 1), &v);
    rc = rc == 0 ? mj_counters_read(v, &counters) : rc == MDB_NOTFOUND ? 0 : rc;
    memcpy(out->states, counters.states, sizeof out->states);
    out->events = counters.events;
    out->buried = counters.buried;
    out->latest = counters.latest;
    out->rules = s->options.rules;
    if (rc == 0) {
        rc = get(s, DB_META, mj_val(MJ_MEASURES_KEY, sizeof MJ_MEASURES_KEY - 1), &v);
        if (rc == 0)
            mj_measures_decode((mj_str){v.mv_data, (uint32_t)v.mv_size}, &out->measures);
        rc = rc == MDB_NOTFOUND ? 0 : rc;
    }
    if (rc == 0)
        rc = read_accounts(s, out);
    if (rc == 0)
        rc = read_oldest(s, out);
    if (rc == 0)
        rc = mdb_stat(s->reader.txn, mj_env_dbi(s->env, DB_QUEUE), &st);
    if (rc == 0)
        out->ready = st.ms_entries;
    if (rc == 0)
        rc = mdb_env_info(mj_env_lmdb(s->env), &info);
    if (rc == 0)
        rc = mdb_env_stat(mj_env_lmdb(s->env), &st);
    if (rc == 0) {
        out->map_size = info.me_mapsize;
        out->map_used = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
    }
    return mj_store_end(s, rc);
}
