/* LMDB as a backend: rows and entries in one file, one writer at a time, readers that look into mapped memory. */
#include "store/backend.h"
#include "base/fault.h"
#include "store/lmdb/db.h"
#include "store/lmdb/keys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Notes what LMDB or the system said, and gives our code for it. */
static int fail(mj_lmdb *db, int rc)
{
    if (rc == EIO && mj_env_disk_full(db->env))
        rc = ENOSPC; /* LMDB calls a write that came out short EIO */
    if (rc != 0 && rc != MDB_NOTFOUND && !db->why[0]) {
        if (rc == EAGAIN || rc == MJ_TORN || rc == MJ_MISFIT)
            mj_env_explain(db->dir, rc, db->why, db->why_size);
        else
            snprintf(db->why, db->why_size, "%s", rc > -100 && rc <= 0 ? mj_error_text(rc) : mdb_strerror(rc));
    }
    return mj_env_code(rc);
}

/* ---- handles ---- */

static int lmdb_open(const char *dir, const mj_store_options *o, void **out, char *why, size_t why_size)
{
    mj_lmdb *db = calloc(1, sizeof *db);
    char *full;
    int rc = MJ_ENOMEM;

    if (db && (db->dir = strdup(dir)) != NULL) {
        db->options = *o;
        db->why = why;
        db->why_size = why_size;
        rc = mj_env_acquire(dir, o, &db->env, why, why_size);
    }
    if (rc != MJ_OK) {
        if (db)
            free(db->dir);
        free(db);
        return rc;
    }
    full = realpath(dir, NULL); /* for after a fork: the child may have changed its directory */
    if (full) {
        free(db->dir);
        db->dir = full;
    }
    db->tx.db = db;
    *out = db;
    return MJ_OK;
}

static bool lmdb_foreign(const void *handle)
{
    const mj_lmdb *db = handle;

    return mj_env_foreign(db->env);
}

static void lmdb_close(void *handle)
{
    mj_lmdb *db = handle;

    if (!mj_env_foreign(db->env)) {
        mj_env_forget(db->env, &db->reader);
        mj_env_release(db->env);
    }
    free(db->dir);
    free(db);
}

static int lmdb_ready(void *handle, bool *forked)
{
    mj_lmdb *db = handle;
    mj_env *e;
    int rc;

    *forked = mj_env_foreign(db->env);
    if (!*forked)
        return MJ_OK;
    db->reader = (mj_env_reader){0}; /* the parent's; touching it here would harm the parent */
    rc = mj_env_acquire(db->dir, &db->options, &e, db->why, db->why_size);
    if (rc == MJ_OK)
        db->env = e;
    return rc;
}

/* ---- transactions ---- */

static int begin_write(mj_lmdb *db, mj_tx *tx)
{
    int rc;

    MJ_FAULT("store.begin");
    rc = mj_env_begin(db->env, 0, &tx->t);
    if (rc != 0)
        return rc;
    tx->map_size = mj_env_size(db->env);
    rc = mj_env_schema(db->env, tx->t); /* a newer mjhook may have come since we opened the store */
    if (rc == 0 && !mj_env_in_place(db->env, db->why, db->why_size))
        rc = MJ_EIO;
    if (rc != 0) {
        mdb_txn_abort(tx->t);
        mj_env_leave(db->env);
    }
    return rc;
}

static int lmdb_begin(void *handle, bool write, mj_tx **out)
{
    mj_lmdb *db = handle;
    mj_tx *tx = &db->tx;
    int rc;

    tx->write = write;
    memset(tx->cursors, 0, sizeof tx->cursors);
    rc = write ? begin_write(db, tx) : mj_env_read(db->env, &db->reader, !db->options.no_wait);
    if (rc != 0)
        return fail(db, rc);
    if (!write)
        tx->t = db->reader.txn;
    *out = tx;
    return MJ_OK;
}

static void end(mj_tx *tx)
{
    tx->t = NULL;
    mj_env_leave(tx->db->env);
}

static void lmdb_abort(mj_tx *tx)
{
    if (!tx->t)
        return; /* it has ended */
    if (tx->write)
        mdb_txn_abort(tx->t);
    else
        mdb_txn_reset(tx->t);
    end(tx);
}

/* ---- reading ---- */

/* One cursor per database and write transaction: neighbours in time are neighbours in most trees, and a cursor that
 * already stands on the right page does not go down from the root again.  The transaction's end closes it. */
static int at_hand(mj_tx *tx, mj_index index, MDB_cursor **c)
{
    int rc = 0;

    if (!tx->cursors[index])
        rc = mdb_cursor_open(tx->t, mj_env_dbi(tx->db->env, (int)index), &tx->cursors[index]);
    *c = tx->cursors[index];
    return rc;
}

static int look_up(mj_tx *tx, mj_index index, MDB_val key, MDB_val *v)
{
    MDB_cursor *c;
    int rc;

    if (!tx->write)
        return mj_env_get(tx->db->env, tx->t, (int)index, key, v);
    rc = at_hand(tx, index, &c);
    return rc != 0 ? rc : mj_env_next(tx->db->env, c, &key, v, MDB_SET);
}

static mj_str text(MDB_val v)
{
    return (mj_str){v.mv_data, (uint32_t)v.mv_size};
}

static int lmdb_get(mj_tx *tx, mj_entry *e, mj_str *bytes)
{
    mj_entry found;
    mj_key key;
    MDB_val v;
    int rc;

    mj_key_of(e, &key);
    rc = look_up(tx, e->index, key.val, &v);
    if (rc == MJ_ECORRUPT)
        return rc; /* of this row alone, so that nothing is said: what fails later may have more to say */
    if (rc != 0)
        return fail(tx->db, rc);
    *bytes = text(v);
    if (!mj_entry_of(e->index, key.val, v, &found))
        return MJ_ECORRUPT;
    if (e->index == MJ_IX_TID || e->index == MJ_IX_KEY || e->index == MJ_IX_SLOT) {
        found.name = e->index == MJ_IX_SLOT ? found.name : e->name;
        *e = found;
    }
    return MJ_OK;
}

/* Puts the cursor on the first key of a walk. */
static int position(mj_tx *tx, MDB_cursor *c, const mj_scan *scan, const mj_key *prefix, MDB_val *key, MDB_val *v)
{
    mj_env *e = tx->db->env;
    mj_key from = *prefix;
    int rc;

    if (scan->positioned) {
        mj_key_of(&scan->from, &from);
    } else if (from.val.mv_size == 0) {
        return mj_env_next(e, c, key, v, scan->newest_first ? MDB_LAST : MDB_FIRST);
    } else {
        from.val.mv_data = from.bytes;
        if (scan->newest_first) { /* behind all that begin like this: what follows a prefix is shorter */
            memset(from.bytes + from.val.mv_size, 0xff, 32);
            from.val.mv_size += 32;
        }
    }
    *key = from.val;
    rc = mj_env_next(e, c, key, v, MDB_SET_RANGE);
    if (scan->newest_first) { /* the last key before it */
        bool stay = rc == 0 && scan->positioned && !scan->after && key->mv_size == from.val.mv_size &&
                    memcmp(key->mv_data, from.val.mv_data, key->mv_size) == 0;
        return stay ? 0 : rc == 0 || rc == MDB_NOTFOUND ? mj_env_next(e, c, key, v, rc == 0 ? MDB_PREV : MDB_LAST) : rc;
    }
    if (rc == 0 && scan->after && key->mv_size == from.val.mv_size &&
        memcmp(key->mv_data, from.val.mv_data, key->mv_size) == 0)
        rc = mj_env_next(e, c, key, v, MDB_NEXT);
    return rc;
}

/* The record of the task that an entry of an index points to; {0}: there is none, or none that can be read. */
static mj_str record_of(mj_tx *tx, const mj_entry *e)
{
    MDB_val v;
    int rc = look_up(tx, MJ_IX_TASK, mj_val(e->ref, sizeof e->ref), &v);

    return rc == 0 ? text(v) : (mj_str){0};
}

static bool has_bytes(mj_index index)
{
    return index == MJ_IX_TASK || index == MJ_IX_EVENT || index == MJ_IX_TOMB || index == MJ_IX_REFUSED ||
           index == MJ_IX_ACCOUNT || index == MJ_IX_META;
}

static int lmdb_scan(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx)
{
    mj_env *env = tx->db->env;
    bool go_on = true;
    MDB_cursor *c;
    mj_key prefix;
    MDB_val key, v;
    int rc = mdb_cursor_open(tx->t, mj_env_dbi(env, (int)scan->index), &c);

    if (rc != 0)
        return fail(tx->db, rc);
    mj_prefix_of(&scan->from, scan->fixed, &prefix);
    for (rc = position(tx, c, scan, &prefix, &key, &v); rc == 0 && go_on;) {
        mj_str bytes = has_bytes(scan->index) ? text(v) : (mj_str){0};
        mj_entry e;
        if (key.mv_size < prefix.val.mv_size || memcmp(key.mv_data, prefix.bytes, prefix.val.mv_size) != 0)
            break;
        if (mj_entry_of(scan->index, key, v, &e)) { /* what is malformed is check()'s to tell */
            if (scan->rows && !has_bytes(scan->index))
                bytes = record_of(tx, &e);
            go_on = each(ctx, &e, bytes);
        }
        if (go_on)
            rc = mj_env_next(env, c, &key, &v, scan->newest_first ? MDB_PREV : MDB_NEXT);
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? MJ_OK : fail(tx->db, rc);
}

static int lmdb_count(mj_tx *tx, mj_index index, uint64_t *n)
{
    MDB_stat st;
    int rc = mdb_stat(tx->t, mj_env_dbi(tx->db->env, (int)index), &st);

    *n = rc == 0 ? st.ms_entries : 0;
    return fail(tx->db, rc);
}

static int lmdb_size(mj_tx *tx, uint64_t *used, uint64_t *reserved)
{
    MDB_envinfo info;
    MDB_stat st;
    int rc = mdb_env_info(mj_env_lmdb(tx->db->env), &info);

    if (rc == 0)
        rc = mdb_env_stat(mj_env_lmdb(tx->db->env), &st);
    if (rc != 0)
        return fail(tx->db, rc);
    *reserved = info.me_mapsize;
    *used = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
    return MJ_OK;
}

/* ---- writing ---- */

static int put(mj_tx *tx, mj_index index, MDB_val key, MDB_val v)
{
    MDB_cursor *c;
    int rc = at_hand(tx, index, &c);

    return rc != 0 ? rc : mdb_cursor_put(c, &key, &v, 0);
}

static int del(mj_tx *tx, mj_index index, MDB_val key)
{
    MDB_cursor *c;
    int rc = at_hand(tx, index, &c);

    if (rc == 0)
        rc = mdb_cursor_get(c, &key, NULL, MDB_SET);
    if (rc == 0)
        rc = mdb_cursor_del(c, 0);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Another task has the key or the task id. */
static bool is_taken(mj_tx *tx, const mj_entry *e, MDB_val key)
{
    MDB_val v;

    return (e->index == MJ_IX_KEY || e->index == MJ_IX_TID) && look_up(tx, e->index, key, &v) == 0 &&
           v.mv_size >= MJ_ULID_BYTES && memcmp(v.mv_data, e->ref, MJ_ULID_BYTES) != 0;
}

static int write_entry(void *ctx, const mj_entry *e, bool there)
{
    mj_key key, value;

    mj_key_of(e, &key);
    if (!there)
        return is_taken(ctx, e, key.val) ? 0 : del(ctx, e->index, key.val);
    mj_value_of(e, &value);
    return put(ctx, e->index, key.val, value.val);
}

static int write_change(mj_tx *tx, const mj_change *c)
{
    mj_key key;
    int rc;

    if (!has_bytes(c->key.index))
        return write_entry(tx, &c->key, !c->gone);
    mj_key_of(&c->key, &key);
    rc = c->gone ? del(tx, c->key.index, key.val) : put(tx, c->key.index, key.val, mj_val(c->bytes.p, c->bytes.n));
    return rc == 0 && c->was ? mj_facets_diff(c->key.ref, c->was, c->is, write_entry, tx) : rc;
}

/* The counters' row: states, events, buried, and 16 bytes that once were the newest ref. */
#define COUNTERS MJ_LIT("counters")

typedef struct counters {
    uint64_t n[MJ_NSTATES + 2];
    uint8_t unused[MJ_ULID_BYTES];
    int64_t latest;
} counters;

static int read_counters(mj_tx *tx, counters *out)
{
    mj_entry key = {.index = MJ_IX_META, .name = COUNTERS};
    const uint8_t *unused;
    mj_str bytes = {0};
    mj_reader r;
    int rc = lmdb_get(tx, &key, &bytes);

    *out = (counters){0};
    if (rc != MJ_OK)
        return rc == MJ_ENOTFOUND ? MJ_OK : rc;
    r = mj_reader_of(bytes.p, bytes.n);
    for (unsigned i = 0; i < MJ_NSTATES + 2; i++)
        out->n[i] = mj_get_uint(&r);
    unused = mj_get_raw(&r, MJ_ULID_BYTES);
    if (!unused)
        return MJ_ECORRUPT;
    memcpy(out->unused, unused, MJ_ULID_BYTES);
    if (r.p != r.end) /* older versions neither write it nor mind it */
        out->latest = mj_get_int(&r);
    return MJ_OK;
}

static int add_up(mj_tx *tx, const mj_tally *add)
{
    mj_buf b = {0};
    counters c;
    int rc = read_counters(tx, &c);

    if (rc != MJ_OK)
        return rc;
    for (unsigned i = 0; i < MJ_NSTATES; i++)
        c.n[i] += (uint64_t)add->states[i];
    c.n[MJ_NSTATES] += (uint64_t)add->events;
    c.n[MJ_NSTATES + 1] += (uint64_t)add->buried;
    for (unsigned i = 0; i < MJ_NSTATES + 2; i++)
        mj_put_uint(&b, c.n[i]);
    mj_put_raw(&b, c.unused, sizeof c.unused);
    mj_put_int(&b, add->latest ? add->latest : c.latest);
    rc = b.failed ? ENOMEM : put(tx, MJ_IX_META, mj_val(COUNTERS.p, COUNTERS.n), mj_val(b.p, b.n));
    mj_buf_free(&b);
    return rc;
}

static int lmdb_totals(mj_tx *tx, mj_tally *out)
{
    counters c;
    int rc = read_counters(tx, &c);

    for (unsigned i = 0; i < MJ_NSTATES; i++)
        out->states[i] = (int64_t)c.n[i];
    out->events = (int64_t)c.n[MJ_NSTATES];
    out->buried = (int64_t)c.n[MJ_NSTATES + 1];
    out->latest = c.latest;
    return rc;
}

/* The map is full: ends the transaction, and makes the map larger if it may be. */
static int grow(mj_tx *tx)
{
    uint64_t full = tx->map_size;
    int rc;

    lmdb_abort(tx);
    rc = mj_env_grow(tx->db->env, full);
    if (rc == MJ_ENOSPC)
        snprintf(tx->db->why, tx->db->why_size, "the store has reached map_max: raise it");
    return rc == MJ_OK ? MJ_EAGAIN : fail(tx->db, rc);
}

static int lmdb_apply(mj_tx *tx, const mj_change *changes, size_t n, const mj_tally *add)
{
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++)
        rc = write_change(tx, &changes[i]);
    if (rc == 0)
        rc = add_up(tx, add);
    return rc == MDB_MAP_FULL ? grow(tx) : fail(tx->db, rc);
}

static int lmdb_commit(mj_tx *tx)
{
    int rc;

    MJ_FAULT("store.commit");
    rc = mdb_txn_commit(tx->t); /* frees it, also when it fails */
    MJ_FAULT("store.committed");
    end(tx);
    return rc == MDB_MAP_FULL ? grow(tx) : fail(tx->db, rc);
}

/* ---- housekeeping ---- */

/* Looks at every page of the file.  Writers go on meanwhile: a snapshot that is two commits old has no root any more,
 * and the next one is looked at instead. */
static int lmdb_sound(mj_tx *tx)
{
    enum { TRIES = 100 };
    mj_lmdb *db = tx->db;
    char why[128];
    int rc = MJ_ECHANGED;

    for (int i = 0; i <= TRIES && rc == MJ_ECHANGED; i++) {
        rc = mj_pages_check(db->env->fd, mdb_txn_id(tx->t), 0, why, sizeof why);
        if (rc == MJ_ECHANGED && i < TRIES) {
            int again;
            mdb_txn_reset(tx->t);
            again = mdb_txn_renew(tx->t);
            if (again != 0)
                return fail(db, again);
        }
    }
    if (rc == MJ_ECORRUPT)
        snprintf(db->why, db->why_size, "%s/data.mdb is damaged: %s: put a backup in its place with mjhook restore",
                 db->dir, why);
    return rc == MJ_ECHANGED ? MJ_OK : fail(db, rc);
}

static void lmdb_tidy(void *handle)
{
    mj_lmdb *db = handle;

    mj_env_bury_readers(db->env);
}

static void lmdb_trim(void *handle)
{
    mj_lmdb *db = handle;
    const uint8_t *map;

    /* Inside a transaction the map is not moved.  The pages stay in the system's cache: a thread that needs one again
     * gets it from there. */
    if (mj_env_read(db->env, &db->reader, !db->options.no_wait) != 0)
        return;
    map = atomic_load(&db->env->map);
    if (map)
        madvise((void *)(uintptr_t)map, db->env->map_size, MADV_DONTNEED);
    mdb_txn_reset(db->reader.txn);
    mj_env_leave(db->env);
}

static int lmdb_backup(mj_tx *tx, const char *to)
{
    int rc = mj_lmdb_backup_place(tx->db, to);

    if (rc == MJ_OK)
        rc = lmdb_sound(tx);
    return rc == MJ_OK ? mj_lmdb_backup(tx, to) : rc;
}

static const char *lmdb_library(void)
{
    return mdb_version(NULL, NULL, NULL);
}

const mj_backend mj_backend_lmdb = {
    .abi = MJ_BACKEND_ABI,
    .name = "LMDB",
    .open = lmdb_open,
    .close = lmdb_close,
    .ready = lmdb_ready,
    .foreign = lmdb_foreign,
    .begin = lmdb_begin,
    .get = lmdb_get,
    .scan = lmdb_scan,
    .count = lmdb_count,
    .totals = lmdb_totals,
    .apply = lmdb_apply,
    .commit = lmdb_commit,
    .abort = lmdb_abort,
    .sound = lmdb_sound,
    .tidy = lmdb_tidy,
    .trim = lmdb_trim,
    .size = lmdb_size,
    .backup = lmdb_backup,
    .library = lmdb_library,
};
