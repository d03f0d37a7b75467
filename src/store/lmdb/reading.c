/* What LMDB gives: rows, entries, and walks over them. */
#include "store/lmdb/db.h"
#include "store/lmdb/keys.h"

#include <string.h>

/* Cursors of a write transaction are kept: neighbours in time are neighbours in most trees, and a cursor that already
 * stands on the right page does not go down from the root again.  The transaction's end closes them. */
int mj_lmdb_cursor(mj_tx *tx, MDB_cursor **at, mj_index index, MDB_cursor **c)
{
    int rc = 0;

    if (!at[index])
        rc = mdb_cursor_open(tx->t, mj_env_dbi(tx->db->env, (int)index), &at[index]);
    *c = at[index];
    return rc;
}

int mj_lmdb_look_up(mj_tx *tx, mj_index index, MDB_val key, MDB_val *v)
{
    MDB_cursor *c;
    int rc;

    if (!tx->write)
        return mj_env_get(tx->db->env, tx->t, (int)index, key, v);
    rc = mj_lmdb_cursor(tx, tx->cursors, index, &c);
    return rc != 0 ? rc : mj_env_next(tx->db->env, c, &key, v, MDB_SET);
}

static mj_str text(MDB_val v)
{
    return (mj_str){v.mv_data, (uint32_t)v.mv_size};
}

/* A row's own bytes. */
static mj_str bytes_of(mj_index index, MDB_val v)
{
    mj_str row = text(v);
    uint32_t held;

    if (index == MJ_IX_ACCOUNT)
        (void)mj_account_of(v, &held, &row);
    return row;
}

int mj_lmdb_get(mj_tx *tx, mj_entry *e, mj_str *bytes)
{
    mj_entry found;
    mj_key key;
    MDB_val v;
    int rc;

    mj_key_of(e, &key);
    rc = mj_lmdb_look_up(tx, e->index, key.val, &v);
    if (rc == MJ_ECORRUPT)
        return rc; /* of this row alone, so that nothing is said: what fails later may have more to say */
    if (rc != 0)
        return mj_lmdb_fail(tx->db, rc);
    *bytes = bytes_of(e->index, v);
    if (e->index != MJ_IX_ACCOUNT && e->index != MJ_IX_TID && e->index != MJ_IX_KEY && e->index != MJ_IX_SLOT)
        return MJ_OK; /* nothing follows from its key */
    if (!mj_entry_of(e->index, key.val, v, &found))
        return MJ_ECORRUPT;
    if (e->index != MJ_IX_SLOT)
        found.name = e->name;
    *e = found;
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
    int rc = mj_lmdb_look_up(tx, MJ_IX_TASK, mj_val(e->ref, sizeof e->ref), &v);

    return rc == 0 ? text(v) : (mj_str){0};
}

bool mj_lmdb_has_bytes(mj_index index)
{
    return index == MJ_IX_TASK || index == MJ_IX_EVENT || index == MJ_IX_TOMB || index == MJ_IX_REFUSED ||
           index == MJ_IX_ACCOUNT || index == MJ_IX_META;
}

/* A writer scans the events of one task after another: its cursor is kept.  A scan inside of a scan has its own. */
static int begin_walk(mj_tx *tx, mj_index index, MDB_cursor **c)
{
    *c = tx->walks[index];
    tx->walks[index] = NULL;
    return *c ? 0 : mdb_cursor_open(tx->t, mj_env_dbi(tx->db->env, (int)index), c);
}

static void end_walk(mj_tx *tx, mj_index index, MDB_cursor *c)
{
    if (tx->write && !tx->walks[index])
        tx->walks[index] = c; /* the transaction's end closes it */
    else
        mdb_cursor_close(c);
}

int mj_lmdb_scan(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx)
{
    mj_env *env = tx->db->env;
    uint32_t left = scan->limit;
    bool go_on = true;
    MDB_cursor *c;
    mj_key prefix;
    MDB_val key, v;
    int rc = begin_walk(tx, scan->index, &c);

    if (rc != 0)
        return mj_lmdb_fail(tx->db, rc);
    mj_prefix_of(&scan->from, scan->fixed, &prefix);
    for (rc = position(tx, c, scan, &prefix, &key, &v); rc == 0 && go_on;) {
        mj_str bytes = mj_lmdb_has_bytes(scan->index) ? bytes_of(scan->index, v) : (mj_str){0};
        mj_entry e;
        if (key.mv_size < prefix.val.mv_size || memcmp(key.mv_data, prefix.bytes, prefix.val.mv_size) != 0)
            break;
        if (mj_entry_of(scan->index, key, v, &e)) { /* what is malformed is check()'s to tell */
            if (scan->bounded && e.at > scan->until)
                break;
            if (scan->rows && !mj_lmdb_has_bytes(scan->index))
                bytes = record_of(tx, &e);
            go_on = each(ctx, &e, bytes) && (scan->limit == 0 || --left > 0);
        }
        if (go_on)
            rc = mj_env_next(env, c, &key, &v, scan->newest_first ? MDB_PREV : MDB_NEXT);
    }
    end_walk(tx, scan->index, c);
    return rc == MDB_NOTFOUND ? MJ_OK : mj_lmdb_fail(tx->db, rc);
}

int mj_lmdb_count(mj_tx *tx, mj_index index, uint64_t *n)
{
    MDB_stat st;
    bool weight = false;
    int rc = mdb_stat(tx->t, mj_env_dbi(tx->db->env, (int)index), &st);

    if (rc == 0)
        rc = mj_env_has_weight(tx->db->env, tx->t, index, &weight);
    *n = rc == 0 ? st.ms_entries - weight : 0;
    return mj_lmdb_fail(tx->db, rc);
}
