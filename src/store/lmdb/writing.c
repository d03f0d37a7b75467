/* What LMDB is given: rows, the entries that follow from them, and counters. */
#include "store/lmdb/db.h"
#include "store/lmdb/keys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int put(mj_tx *tx, mj_index index, MDB_val key, MDB_val v)
{
    MDB_cursor *c;
    int rc = mj_lmdb_cursor(tx, tx->cursors, index, &c);

    return rc != 0 ? rc : mdb_cursor_put(c, &key, &v, 0);
}

/* Puts the cursor for deletes on a key.  After a delete it stands on the next entry, which often is the next one to go:
 * then nothing is searched. */
static int seek(mj_tx *tx, mj_index index, MDB_val key, MDB_cursor **c, MDB_val *v)
{
    MDB_val at;
    int rc = mj_lmdb_cursor(tx, tx->dels, index, c);

    if (rc != 0)
        return rc;
    if (mdb_cursor_get(*c, &at, v, MDB_GET_CURRENT) == 0 && at.mv_size == key.mv_size &&
        memcmp(at.mv_data, key.mv_data, key.mv_size) == 0)
        return 0;
    return mdb_cursor_get(*c, &key, v, MDB_SET);
}

static int del(mj_tx *tx, mj_index index, MDB_val key)
{
    MDB_cursor *c;
    MDB_val v;
    int rc = seek(tx, index, key, &c, &v);

    if (rc == 0)
        rc = mdb_cursor_del(c, 0);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Another task has the key or the task id. */
static bool is_taken(mj_tx *tx, const mj_entry *e, MDB_val key)
{
    MDB_val v;

    return (e->index == MJ_IX_KEY || e->index == MJ_IX_TID) && mj_lmdb_look_up(tx, e->index, key, &v) == 0 &&
           v.mv_size >= MJ_ULID_BYTES && memcmp(v.mv_data, e->ref, MJ_ULID_BYTES) != 0;
}

/* ---- slots ---- */

/* By how many slots an account holds more. */
typedef struct slots {
    uint32_t n;
    char name[MJ_MAX_NAME];
    int more;
} slots;

typedef struct writer {
    mj_tx *tx;
    unsigned naccounts;
    slots accounts[MJ_MAX_ACCOUNTS];
} writer;

/* What an account keeps is deleted when it holds no slot and has no row. */
static int write_account(mj_tx *tx, mj_str name, int more, const mj_str *new_row)
{
    MDB_val key = mj_val(name.p, name.n), v;
    int rc = mj_lmdb_look_up(tx, MJ_IX_ACCOUNT, key, &v);
    uint32_t held = 0;
    mj_str row = {0};
    mj_buf b = {0};

    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    if (rc == 0)
        (void)mj_account_of(v, &held, &row); /* one that can't be read is written anew */
    if (more > 0 || held >= (uint32_t)-more)
        held += (uint32_t)more;
    if (new_row)
        row = *new_row;
    if (held == 0 && row.n == 0)
        return del(tx, MJ_IX_ACCOUNT, key);
    mj_put_uint(&b, held);
    mj_put_raw(&b, row.p, row.n);
    rc = b.failed ? ENOMEM : put(tx, MJ_IX_ACCOUNT, key, mj_val(b.p, b.n));
    mj_buf_free(&b);
    return rc;
}

static int write_slots(writer *w)
{
    int rc = 0;

    for (unsigned i = 0; i < w->naccounts && rc == 0; i++)
        if (w->accounts[i].more != 0)
            rc = write_account(w->tx, (mj_str){w->accounts[i].name, w->accounts[i].n}, w->accounts[i].more, NULL);
    w->naccounts = 0;
    return rc;
}

static int count_slot(writer *w, mj_str name, int more)
{
    slots *a = w->accounts, *end = a + w->naccounts;
    int rc = 0;

    while (a < end && !mj_str_eq((mj_str){a->name, a->n}, name))
        a++;
    if (a == end && w->naccounts == MJ_MAX_ACCOUNTS) {
        rc = write_slots(w);
        a = w->accounts;
    }
    if (a == w->accounts + w->naccounts) {
        w->naccounts++;
        a->n = name.n;
        a->more = 0;
        memcpy(a->name, name.p, name.n);
    }
    a->more += more;
    return rc;
}

/* ---- entries and rows ---- */

/* The account that an entry of SLOT was counted for. */
static mj_str counted_for(MDB_val v)
{
    return (mj_str){v.mv_data, v.mv_size < MJ_MAX_NAME ? (uint32_t)v.mv_size : MJ_MAX_NAME};
}

/* Entries of SLOT, and what they change in their account's number. */
static int put_slot(writer *w, const mj_entry *e, MDB_val key)
{
    MDB_val found = mj_val(e->name.p, e->name.n);
    MDB_cursor *c;
    int rc = mj_lmdb_cursor(w->tx, w->tx->cursors, MJ_IX_SLOT, &c);

    if (rc == 0)
        rc = mdb_cursor_put(c, &key, &found, MDB_NOOVERWRITE);
    if (rc == MDB_KEYEXIST) { /* found: what is there */
        rc = count_slot(w, counted_for(found), -1);
        if (rc == 0)
            rc = put(w->tx, MJ_IX_SLOT, key, mj_val(e->name.p, e->name.n));
    }
    return rc == 0 ? count_slot(w, e->name, 1) : rc;
}

static int del_slot(writer *w, MDB_val key)
{
    MDB_cursor *c;
    MDB_val found;
    int rc = seek(w->tx, MJ_IX_SLOT, key, &c, &found);

    if (rc == 0)
        rc = count_slot(w, counted_for(found), -1);
    if (rc == 0)
        rc = mdb_cursor_del(c, 0);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int write_entry(void *ctx, const mj_entry *e, bool there)
{
    writer *w = ctx;
    mj_key key, value;

    mj_key_of(e, &key);
    if (e->index == MJ_IX_SLOT)
        return there ? put_slot(w, e, key.val) : del_slot(w, key.val);
    if (!there)
        return is_taken(w->tx, e, key.val) ? 0 : del(w->tx, e->index, key.val);
    mj_value_of(e, &value);
    return put(w->tx, e->index, key.val, value.val);
}

static int write_change(writer *w, const mj_change *c)
{
    mj_str row = {0};
    mj_key key;
    int rc;

    if (!c->gone)
        row = c->bytes;
    if (!mj_lmdb_has_bytes(c->key.index))
        return write_entry(w, &c->key, !c->gone);
    if (c->key.index == MJ_IX_ACCOUNT)
        return write_account(w->tx, c->key.name, 0, &row);
    mj_key_of(&c->key, &key);
    rc = c->gone ? del(w->tx, c->key.index, key.val) : put(w->tx, c->key.index, key.val, mj_val(row.p, row.n));
    return rc == 0 && c->was ? mj_facets_diff(c->key.ref, c->was, c->is, write_entry, w) : rc;
}

/* ---- counters ---- */

#define COUNTERS MJ_LIT("counters")
#define MEASURES MJ_LIT("measures") /* those of the first versions, in a row of their own */

static int read_totals(mj_tx *tx)
{
    mj_entry key = {.index = MJ_IX_META, .name = COUNTERS}, old = {.index = MJ_IX_META, .name = MEASURES};
    bool whole = true;
    mj_judged unused;
    mj_str bytes;
    int rc = tx->totals_known ? MJ_OK : mj_lmdb_get(tx, &key, &bytes);

    if (tx->totals_known)
        return MJ_OK;
    tx->totals = (mj_tally){0};
    tx->totals_of = 0;
    if (rc == MJ_OK)
        rc = mj_tally_decode(bytes, &tx->totals, &whole);
    else if (rc == MJ_ENOTFOUND)
        rc = MJ_OK;
    if (rc == MJ_OK && !whole && mj_lmdb_get(tx, &old, &bytes) == MJ_OK)
        (void)mj_counters_decode_v1(bytes, &tx->totals.counters, &unused);
    tx->totals_known = rc == MJ_OK;
    return rc;
}

int mj_lmdb_totals(mj_tx *tx, mj_tally *out)
{
    uint64_t ready = 0;
    int rc = read_totals(tx);

    if (rc == MJ_OK)
        rc = mj_lmdb_count(tx, MJ_IX_QUEUE, &ready);
    *out = tx->totals;
    out->ready = (int64_t)ready; /* LMDB counts anyway */
    return rc;
}

static int add_up(mj_tx *tx, const mj_tally *add)
{
    mj_buf b = {0};
    int rc = read_totals(tx);

    if (rc != MJ_OK)
        return rc;
    mj_tally_add(&tx->totals, add);
    rc = mj_tally_encode(&tx->totals, &b) == MJ_OK
             ? put(tx, MJ_IX_META, mj_val(COUNTERS.p, COUNTERS.n), mj_val(b.p, b.n))
             : ENOMEM;
    mj_buf_free(&b);
    return rc;
}

/* A batch is larger than the processor's near cache: what is written some changes later is fetched meanwhile. */
enum { AHEAD = 4, LINE = 64, MOST_FETCHED = 2048 /* bytes of a row */ };

static void fetch_early(const mj_change *c)
{
    for (uint32_t i = 0; i < c->bytes.n && i < MOST_FETCHED; i += LINE)
        __builtin_prefetch(c->bytes.p + i);
    __builtin_prefetch(c->was);
    __builtin_prefetch(c->is);
}

int mj_lmdb_apply(mj_tx *tx, const mj_change *changes, size_t n, const mj_tally *add)
{
    writer w; /* its accounts are filled in as they come */
    int rc = 0;

    w.tx = tx;
    w.naccounts = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (i + AHEAD < n)
            fetch_early(&changes[i + AHEAD]);
        rc = write_change(&w, &changes[i]);
    }
    if (rc == 0)
        rc = write_slots(&w);
    if (rc == 0)
        rc = add_up(tx, add);
    return rc == MDB_MAP_FULL ? mj_lmdb_grow(tx) : mj_lmdb_fail(tx->db, rc);
}
