/* Reading rows by their keys: those that a batch needs, in one round trip; or one. */
#include "store/postgres/load.h"

enum { MOST_KNOWN = 200000 };

/* ---- rows to be locked for accounts ---- */

static bool is_made(const mj_pg *db, mj_str account)
{
    for (mj_reader r = mj_reader_of(db->held.p ? db->held.p : (const uint8_t *)"", db->held.n); r.p < r.end;)
        if (mj_str_eq(mj_get_str(&r), account))
            return true;
    return false;
}

/* Each account has a row to be locked, from its first claim on. */
static int make_holds(mj_tx *tx, const mj_need *need)
{
    mj_pg *db = tx->db;
    size_t missing = 0;
    int rc;

    for (size_t i = 0; i < need->nholds; i++)
        missing += !is_made(db, need->holds[i].account);
    if (missing == 0)
        return MJ_OK;
    mj_pg_no_args(&db->conn.args);
    mj_pg_arg_array(&db->conn.args, 's', need->nholds);
    for (size_t i = 0; i < need->nholds; i++)
        mj_pg_item_bytes(&db->conn.args, need->holds[i].account.p, need->holds[i].account.n);
    rc = mj_pg_send(&db->conn, MJ_PG_HOLD_MAKE);
    if (rc == MJ_OK)
        rc = mj_pg_go(tx);
    if (rc == MJ_OK && !tx->begun) /* in a transaction of its own: it stays */
        for (size_t i = 0; i < need->nholds; i++)
            if (!is_made(db, need->holds[i].account))
                mj_put_str(&db->held, need->holds[i].account);
    return rc;
}

/* ---- load ---- */

/* *any: an account is held, or none was asked for.  What a ref is that was no task, or that only a name leads to, takes
 * a second trip: few batches have one. */
static int fetch(mj_tx *tx, const mj_need *need, unsigned how, bool *any)
{
    int64_t began = mj_pg_ms();
    mj_pg_asked a, more;
    mj_need second = {0};
    int rc = mj_pg_ask(tx, &a, need, how);

    if (rc == MJ_OK)
        rc = mj_pg_go(tx);
    *any = rc == MJ_OK && mj_pg_answer(tx, &a, began);
    if (*any)
        second.keys = mj_pg_strays(tx, &a, &second.nkeys);
    if (second.keys)
        rc = mj_pg_ask(tx, &more, &second, MJ_PG_WITH_TOMBS);
    if (second.keys && rc == MJ_OK)
        rc = mj_pg_go(tx);
    if (second.keys && rc == MJ_OK)
        (void)mj_pg_answer(tx, &more, began);
    return rc;
}

int mj_pg_load(mj_tx *tx, const mj_need *need)
{
    bool first = !tx->begun, any;
    int rc;

    if (!tx->write && tx->nitems > MOST_KNOWN) /* a walk over the whole store: what it knows would be all of it */
        mj_pg_forget_rows(tx);
    rc = need->nholds > 0 ? make_holds(tx, need) : MJ_OK;
    if (rc == MJ_OK)
        rc = fetch(tx, need, 0, &any);
    if (rc != MJ_OK || any || need->wait)
        return rc;
    /* All accounts are held: one is waited for, with nothing locked before that it, or its holder, might wait for. */
    if (first) {
        mj_pg_rollback(&tx->db->conn);
        tx->begun = false;
    }
    return fetch(tx, need, MJ_PG_ONE_BY_ONE, &any);
}

int mj_pg_load_events(mj_tx *tx)
{
    mj_need need = {.events = true};
    mj_entry *keys = mj_pg_alloc(tx, (tx->nitems + 1) * sizeof *keys);
    mj_pg_args *args = &tx->db->conn.args;
    const PGresult *r;
    int rc;

    if (!keys)
        return MJ_ENOMEM;
    for (size_t b = 0; b < tx->nbuckets; b++)
        for (const mj_pg_item *i = tx->buckets[b]; i; i = i->chain) {
            mj_entry e = i->key;
            e.index = MJ_IX_EVENT;
            if (i->key.index == MJ_IX_TASK && i->there && !mj_pg_known(tx, &e, true))
                keys[need.nkeys++] = i->key;
        }
    if (need.nkeys == 0)
        return MJ_OK;
    rc = mj_pg_begun(tx);
    mj_pg_no_args(args);
    mj_pg_arg_array(args, 'r', need.nkeys);
    for (size_t i = 0; i < need.nkeys; i++)
        mj_pg_item_field(args, 'r', &keys[i], (mj_str){0});
    if (rc == MJ_OK)
        rc = mj_pg_send(&tx->db->conn, MJ_PG_LOAD_EVENTS);
    if (rc == MJ_OK)
        rc = mj_pg_go(tx);
    if (rc != MJ_OK)
        return rc;
    r = mj_pg_keep(tx, mj_pg_take(&tx->db->conn, tx->db->conn.nresults - 1));
    need.keys = keys;
    if (!r)
        return MJ_ENOMEM;
    mj_pg_note_asked(tx, &need, MJ_IX_TASK, MJ_IX_EVENT, true);
    mj_pg_note_events(tx, r);
    return MJ_OK;
}

/* ---- get ---- */

/* An index that no key of a load has: one entry. */
static int get_entry(mj_tx *tx, mj_entry *key, mj_str *bytes)
{
    const mj_pg_table *t = &mj_pg_tables[key->index];
    mj_pg_conn *c = &tx->db->conn;
    bool lock = tx->write && mj_pg_has_bytes(key->index) && key->index != MJ_IX_META;
    mj_str name = key->name;
    const PGresult *r;
    int rc = mj_pg_begun(tx);
    mj_pg_item *i;

    mj_pg_no_args(&c->args);
    for (unsigned k = 0; k < t->nkey; k++)
        mj_pg_arg_field(&c->args, t->columns[k].letter, key, (mj_str){0});
    if (rc == MJ_OK)
        rc = mj_pg_send(c, mj_pg_of(lock ? MJ_PG_LOCK : MJ_PG_GET, key->index, 0));
    if (rc == MJ_OK)
        rc = mj_pg_go(tx);
    if (rc != MJ_OK)
        return rc;
    r = mj_pg_keep(tx, mj_pg_take(c, c->nresults - 1));
    if (!r)
        return MJ_ENOMEM;
    if (PQntuples(r) == 0) {
        if (tx->write && mj_pg_has_bytes(key->index)) {
            mj_need need = {.keys = key, .nkeys = 1};
            mj_pg_note_asked(tx, &need, key->index, key->index, false);
        }
        return MJ_ENOTFOUND;
    }
    mj_pg_entry(r, 0, key->index, key, bytes);
    i = mj_pg_note(tx, key, false);
    if (i) {
        i->there = true;
        i->bytes = *bytes;
    }
    if (name.n)
        key->name = name;
    return MJ_OK;
}

static int known(const mj_pg_item *i, mj_entry *key, mj_str *bytes)
{
    mj_str name = key->name;

    if (!i->there)
        return MJ_ENOTFOUND;
    *bytes = i->bytes;
    *key = i->key;
    if (name.n) /* the caller's */
        key->name = name;
    return MJ_OK;
}

int mj_pg_get(mj_tx *tx, mj_entry *key, mj_str *bytes)
{
    const mj_pg_item *i = mj_pg_known(tx, key, false);
    mj_entry asked_for = *key;
    mj_need need = {.keys = &asked_for, .nkeys = 1, .named = true};
    int rc;

    *bytes = (mj_str){0};
    if (i)
        return known(i, key, bytes);
    if (key->index == MJ_IX_ACCOUNT && tx->looked[MJ_IX_ACCOUNT])
        return MJ_ENOTFOUND;
    if (!mj_pg_is_loaded(key->index))
        return get_entry(tx, key, bytes);
    rc = mj_pg_load(tx, &need);
    if (rc != MJ_OK)
        return rc;
    i = mj_pg_known(tx, key, false);
    return i ? known(i, key, bytes) : MJ_ENOMEM;
}
