/* Reading rows by their keys: those that a batch needs, in one round trip; or one. */
#include "store/postgres/db.h"

#include <stdlib.h>
#include <string.h>

/* What a trip asks for, and what its results become. */
typedef struct asked {
    const mj_need *need;
    unsigned n; /* statements sent so far */
    unsigned holds, meta, intake, accounts, slots, tasks, tombs, events, tids, keys, totals, clock; /* which; NONE */
    unsigned scans[32], scans_sent[32], many[MJ_NINDEXES];
    bool one_by_one; /* wait for one account, instead of passing over those that are held */
} asked;

enum { NONE = 9999, MOST_SCANS = 32, FIRST_ENTRIES = 128, MOST_KNOWN = 200000 };

/* ---- sending ---- */

/* Kinds of keys that have statements of their own. */
static bool is_loaded(mj_index i)
{
    return i == MJ_IX_TASK || i == MJ_IX_TID || i == MJ_IX_KEY || i == MJ_IX_ACCOUNT || i == MJ_IX_META;
}

static int send(mj_tx *tx, asked *a, unsigned statement, unsigned *which)
{
    int rc = mj_pg_send(&tx->db->conn, statement);

    if (which)
        *which = a->n;
    a->n++;
    return rc;
}

static size_t count_of(const mj_need *need, mj_index index)
{
    size_t n = 0;

    for (size_t i = 0; i < need->nkeys; i++)
        n += need->keys[i].index == index;
    return n;
}

static void add_keys(mj_tx *tx, const mj_need *need, mj_index index)
{
    mj_pg_args *args = &tx->db->conn.args;
    char letter = mj_pg_tables[index].columns[0].letter;

    mj_pg_arg_array(args, letter, count_of(need, index));
    for (size_t i = 0; i < need->nkeys; i++)
        if (need->keys[i].index == index)
            mj_pg_item_field(args, letter, &need->keys[i], (mj_str){0});
}

/* Tasks by ref, by task id and by key: the record or the tombstone, and the events. */
static int send_tasks(mj_tx *tx, asked *a)
{
    const unsigned statements[] = {tx->write ? MJ_PG_LOAD_TASKS : MJ_PG_LOOK_TASKS,
                                   tx->write ? MJ_PG_LOAD_TOMBS : MJ_PG_LOOK_TOMBS, MJ_PG_LOAD_EVENTS};
    unsigned *const which[] = {&a->tasks, &a->tombs, &a->events};
    mj_pg_args *args = &tx->db->conn.args;
    int rc = MJ_OK;

    mj_pg_no_args(args);
    add_keys(tx, a->need, MJ_IX_TASK);
    add_keys(tx, a->need, MJ_IX_TID);
    add_keys(tx, a->need, MJ_IX_KEY);
    for (unsigned i = 0; i < 3 && rc == MJ_OK; i++)
        rc = send(tx, a, statements[i], which[i]);
    return rc;
}

static int send_names(mj_tx *tx, asked *a, mj_index index, unsigned statement, unsigned *which)
{
    if (count_of(a->need, index) == 0)
        return MJ_OK;
    mj_pg_no_args(&tx->db->conn.args);
    add_keys(tx, a->need, index);
    return send(tx, a, statement, which);
}

/* Jobs that were enqueued in SQL: see mj_pg_is_intake(). */
static int send_intake(mj_tx *tx, asked *a)
{
    mj_pg_args *args = &tx->db->conn.args;
    size_t n = 0;
    int64_t id;

    for (size_t i = 0; i < a->need->nkeys; i++)
        n += mj_pg_is_intake(&a->need->keys[i], &id);
    if (n == 0)
        return MJ_OK;
    mj_pg_no_args(args);
    mj_pg_arg_array(args, 'n', n);
    for (size_t i = 0; i < a->need->nkeys; i++)
        if (mj_pg_is_intake(&a->need->keys[i], &id))
            mj_pg_item_int(args, id);
    return send(tx, a, tx->write ? MJ_PG_LOAD_INTAKE : MJ_PG_LOOK_INTAKE, &a->intake);
}

/* The accounts whose slots are given out: those that are free; or all; or one, each time another. */
static int send_holds(mj_tx *tx, asked *a)
{
    const mj_need *need = a->need;
    mj_pg_args *args = &tx->db->conn.args;
    size_t one = tx->db->spread++ % need->nholds;

    mj_pg_no_args(args);
    mj_pg_arg_array(args, 's', a->one_by_one ? 1 : need->nholds);
    for (size_t i = 0; i < need->nholds; i++)
        if (!a->one_by_one || i == one)
            mj_pg_item_bytes(args, need->holds[i].account.p, need->holds[i].account.n);
    return send(tx, a, need->wait || a->one_by_one || tx->db->url.careful ? MJ_PG_HOLD_ALL : MJ_PG_HOLD_FREE,
                &a->holds);
}

/* The other writers' sums and the clock, when what is known of them is old. */
static int send_totals(mj_tx *tx, asked *a)
{
    const mj_pg_writer *w = &tx->db->writer;
    int rc;

    if (!tx->write || (w->others_at && mj_pg_ms() - w->others_at < MJ_PG_TOTALS_MS))
        return MJ_OK;
    mj_pg_no_args(&tx->db->conn.args);
    rc = send(tx, a, MJ_PG_CLOCK, &a->clock);
    mj_pg_arg_int(&tx->db->conn.args, w->id);
    return rc == MJ_OK ? send(tx, a, MJ_PG_TOTALS, &a->totals) : rc;
}

static int send_scans(mj_tx *tx, asked *a)
{
    int rc = MJ_OK;

    for (size_t i = 0; i < a->need->nscans && i < MOST_SCANS && rc == MJ_OK; i++) {
        const mj_scan *scan = &a->need->scans[i];
        uint32_t limit = scan->limit && scan->limit < FIRST_ENTRIES ? scan->limit : FIRST_ENTRIES;
        a->scans[i] = a->n;
        a->scans_sent[i] = 0;
        if (scan->index != MJ_IX_ACCOUNT)
            rc = mj_pg_scan_send(tx, scan, limit, &a->scans_sent[i]);
        a->n += a->scans_sent[i];
    }
    return rc;
}

static bool wants_all_accounts(const mj_need *need)
{
    for (size_t i = 0; i < need->nscans; i++)
        if (need->scans[i].index == MJ_IX_ACCOUNT)
            return true;
    return false;
}

static int send_accounts(mj_tx *tx, asked *a)
{
    bool all = wants_all_accounts(a->need);
    int rc;

    if (!all && count_of(a->need, MJ_IX_ACCOUNT) == 0)
        return MJ_OK;
    mj_pg_no_args(&tx->db->conn.args);
    if (!all)
        add_keys(tx, a->need, MJ_IX_ACCOUNT);
    rc = send(tx, a, all ? MJ_PG_ALL_ACCOUNTS : tx->write ? MJ_PG_LOAD_ACCOUNTS : MJ_PG_LOOK_ACCOUNTS, &a->accounts);
    return rc == MJ_OK ? send(tx, a, all ? MJ_PG_ALL_SLOTS : MJ_PG_SLOTS, &a->slots) : rc;
}

/* Keys of the other indexes. */
static int send_many(mj_tx *tx, asked *a)
{
    mj_pg_args *args = &tx->db->conn.args;
    int rc = MJ_OK;

    for (mj_index index = 0; index < MJ_NINDEXES && rc == MJ_OK; index++) {
        const mj_pg_table *t = &mj_pg_tables[index];
        size_t n = is_loaded(index) ? 0 : count_of(a->need, index);
        a->many[index] = NONE;
        if (n == 0)
            continue;
        mj_pg_no_args(args);
        for (unsigned k = 0; k < t->nkey; k++) {
            mj_pg_arg_array(args, t->columns[k].letter, n);
            for (size_t i = 0; i < a->need->nkeys; i++)
                if (a->need->keys[i].index == index)
                    mj_pg_item_field(args, t->columns[k].letter, &a->need->keys[i], (mj_str){0});
        }
        rc = send(tx, a, mj_pg_of(MJ_PG_MANY, index, 0), &a->many[index]);
    }
    return rc;
}

static int send_all(mj_tx *tx, asked *a)
{
    int rc = mj_pg_begun(tx);

    if (rc == MJ_OK)
        rc = send_totals(tx, a);
    if (rc == MJ_OK && a->need->nholds > 0)
        rc = send_holds(tx, a);
    if (rc == MJ_OK)
        rc = send_accounts(tx, a);
    if (rc == MJ_OK)
        rc = send_names(tx, a, MJ_IX_META, MJ_PG_LOAD_META, &a->meta);
    if (rc == MJ_OK)
        rc = send_intake(tx, a);
    if (rc == MJ_OK && count_of(a->need, MJ_IX_TASK) + count_of(a->need, MJ_IX_TID) + count_of(a->need, MJ_IX_KEY) > 0)
        rc = send_tasks(tx, a);
    if (rc == MJ_OK)
        rc = send_names(tx, a, MJ_IX_TID, MJ_PG_LOAD_TIDS, &a->tids);
    if (rc == MJ_OK)
        rc = send_names(tx, a, MJ_IX_KEY, MJ_PG_LOAD_KEYS, &a->keys);
    if (rc == MJ_OK)
        rc = send_many(tx, a);
    return rc == MJ_OK ? send_scans(tx, a) : rc;
}

/* ---- taking ---- */

static const PGresult *take(mj_tx *tx, unsigned which)
{
    return which == NONE ? NULL : mj_pg_keep(tx, mj_pg_take(&tx->db->conn, which));
}

/* Keys that were asked for are known now, also those that are not there. */
static void note_asked(mj_tx *tx, const mj_need *need, mj_index index, mj_index as, bool group)
{
    for (size_t i = 0; i < need->nkeys; i++) {
        mj_entry e = need->keys[i];
        char *name;
        if (e.index != index)
            continue;
        e.index = as;
        e.n = is_loaded(index) ? 0 : e.n;
        name = e.name.n ? mj_pg_alloc(tx, e.name.n) : NULL;
        if (e.name.n && !name)
            return;
        if (name)
            memcpy(name, e.name.p, e.name.n);
        e.name.p = name;
        (void)mj_pg_note(tx, &e, group);
    }
}

/* The task or the tombstone that a name leads to came with it; unless the name was given to another ref in between. */
static void note_names(mj_tx *tx, const mj_need *need, const PGresult *r, mj_index index)
{
    if (!r)
        return;
    note_asked(tx, need, index, index, false);
    mj_pg_note_rows(tx, r, index);
    for (int row = 0; row < PQntuples(r); row++) {
        mj_entry e = {.index = MJ_IX_TASK};
        const mj_pg_item *task, *tomb;
        memcpy(e.ref, mj_pg_bytes(r, row, 1).p, sizeof e.ref);
        task = mj_pg_known(tx, &e, false);
        e.index = MJ_IX_TOMB;
        tomb = mj_pg_known(tx, &e, false);
        if (!task && !tomb)
            continue;
        e.index = MJ_IX_EVENT;
        (void)mj_pg_note(tx, &e, true);
        e.index = MJ_IX_TASK;
        (void)mj_pg_note(tx, &e, false);
    }
}

static void note_tasks(mj_tx *tx, const asked *a)
{
    const PGresult *tasks = take(tx, a->tasks), *tombs = take(tx, a->tombs), *events = take(tx, a->events);

    if (!tasks || !tombs || !events)
        return;
    mj_pg_note_rows(tx, tasks, MJ_IX_TASK);
    mj_pg_note_rows(tx, tombs, MJ_IX_TOMB);
    note_asked(tx, a->need, MJ_IX_TASK, MJ_IX_TASK, false);
    note_asked(tx, a->need, MJ_IX_TASK, MJ_IX_TOMB, false);
    note_asked(tx, a->need, MJ_IX_TASK, MJ_IX_EVENT, true);
    mj_pg_note_events(tx, events);
}

static void note_accounts(mj_tx *tx, const asked *a)
{
    const PGresult *rows = take(tx, a->accounts), *slots = take(tx, a->slots);

    if (!rows || !slots)
        return;
    if (wants_all_accounts(a->need))
        tx->looked[MJ_IX_ACCOUNT] = true;
    else
        note_asked(tx, a->need, MJ_IX_ACCOUNT, MJ_IX_ACCOUNT, false);
    mj_pg_note_rows(tx, rows, MJ_IX_ACCOUNT);
    for (int row = 0; row < PQntuples(slots); row++) {
        mj_entry e = {.index = MJ_IX_ACCOUNT, .name = mj_pg_bytes(slots, row, 0)};
        mj_pg_item *i = mj_pg_note(tx, &e, false);
        if (!i)
            return;
        i->there = true;
        i->key.n = (uint32_t)mj_pg_int(slots, row, 1);
    }
}

static void note_intake(mj_tx *tx, const asked *a)
{
    const PGresult *r = take(tx, a->intake);
    int64_t id;

    for (size_t i = 0; r && i < a->need->nkeys; i++)
        for (int row = 0; row < PQntuples(r); row++)
            if (mj_pg_is_intake(&a->need->keys[i], &id) && id == mj_pg_int(r, row, 0)) {
                mj_pg_item *item = mj_pg_note(tx, &a->need->keys[i], false);
                if (!item)
                    return;
                item->there = true;
                item->bytes = mj_pg_bytes(r, row, 1);
            }
}

static void note_totals(mj_tx *tx, const asked *a, int64_t began)
{
    PGresult *r = a->totals == NONE ? NULL : mj_pg_take(&tx->db->conn, a->totals);
    PGresult *clock = a->clock == NONE ? NULL : mj_pg_take(&tx->db->conn, a->clock);

    mj_pg_clock(&tx->db->conn, clock, began);
    if (r && mj_pg_add_up(r, &tx->db->writer.others) == MJ_OK)
        tx->db->writer.others_at = mj_pg_ms();
    PQclear(r);
    PQclear(clock);
}

static void note_scans(mj_tx *tx, const asked *a)
{
    for (size_t i = 0; i < a->need->nscans && i < MOST_SCANS; i++) {
        const mj_scan *scan = &a->need->scans[i];
        mj_pg_fetched *f = mj_pg_alloc(tx, sizeof *f);
        char *name = scan->from.name.n ? mj_pg_alloc(tx, scan->from.name.n) : NULL;
        if (!f || (scan->from.name.n && !name) || scan->index == MJ_IX_ACCOUNT)
            continue;
        *f = (mj_pg_fetched){.next = tx->fetched, .scan = *scan};
        if (name)
            memcpy(name, scan->from.name.p, scan->from.name.n);
        f->scan.from.name.p = name;
        f->asked = scan->limit && scan->limit < FIRST_ENTRIES ? scan->limit : FIRST_ENTRIES;
        f->entries = mj_pg_scan_take(tx, scan, a->scans[i], a->scans_sent[i]);
        if (f->entries)
            tx->fetched = f;
    }
}

static unsigned note_holds(mj_tx *tx, const asked *a)
{
    PGresult *r = a->holds == NONE ? NULL : mj_pg_take(&tx->db->conn, a->holds);
    unsigned n = 0;

    for (size_t i = 0; r && i < a->need->nholds; i++) {
        mj_hold *h = &a->need->holds[i];
        h->held = false;
        for (int row = 0; row < PQntuples(r); row++)
            h->held = h->held || mj_str_eq(mj_pg_bytes(r, row, 0), h->account);
        n += h->held;
    }
    PQclear(r);
    return n;
}

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

static int fetch(mj_tx *tx, asked *a)
{
    int64_t began = mj_pg_ms();
    int rc = send_all(tx, a);

    if (rc == MJ_OK)
        rc = mj_pg_go(tx);
    if (rc != MJ_OK || (a->need->nholds > 0 && note_holds(tx, a) == 0))
        return rc;
    note_totals(tx, a, began);
    note_accounts(tx, a);
    if (a->meta != NONE) {
        note_asked(tx, a->need, MJ_IX_META, MJ_IX_META, false);
        mj_pg_note_rows(tx, take(tx, a->meta), MJ_IX_META);
        note_intake(tx, a);
    }
    note_tasks(tx, a);
    note_names(tx, a->need, take(tx, a->tids), MJ_IX_TID);
    note_names(tx, a->need, take(tx, a->keys), MJ_IX_KEY);
    for (mj_index index = 0; index < MJ_NINDEXES; index++)
        if (a->many[index] != NONE) {
            note_asked(tx, a->need, index, index, false);
            mj_pg_note_rows(tx, take(tx, a->many[index]), index);
        }
    note_scans(tx, a);
    mj_pg_clear(&tx->db->conn);
    return MJ_OK;
}

static asked ask(const mj_need *need)
{
    return (asked){.need = need,
                   .holds = NONE,
                   .meta = NONE,
                   .intake = NONE,
                   .accounts = NONE,
                   .slots = NONE,
                   .tasks = NONE,
                   .tombs = NONE,
                   .events = NONE,
                   .tids = NONE,
                   .keys = NONE,
                   .totals = NONE,
                   .clock = NONE};
}

int mj_pg_load(mj_tx *tx, const mj_need *need)
{
    asked a = ask(need);
    bool first = !tx->begun;
    int rc;

    if (!tx->write && tx->nitems > MOST_KNOWN) /* a walk over the whole store: what it knows would be all of it */
        mj_pg_forget_rows(tx);
    rc = need->nholds > 0 ? make_holds(tx, need) : MJ_OK;

    if (rc != MJ_OK)
        return rc;
    rc = fetch(tx, &a);
    if (rc != MJ_OK || need->nholds == 0 || need->wait)
        return rc;
    for (size_t i = 0; i < need->nholds; i++)
        if (need->holds[i].held)
            return MJ_OK;
    /* All accounts are held: one is waited for, with nothing locked before that it, or its holder, might wait for. */
    if (first) {
        mj_pg_rollback(&tx->db->conn);
        tx->begun = false;
    }
    a = ask(need);
    a.one_by_one = true;
    return fetch(tx, &a);
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
            note_asked(tx, &need, key->index, key->index, false);
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
    mj_need need = {.keys = &asked_for, .nkeys = 1};
    int rc;

    *bytes = (mj_str){0};
    if (i)
        return known(i, key, bytes);
    if (key->index == MJ_IX_ACCOUNT && tx->looked[MJ_IX_ACCOUNT])
        return MJ_ENOTFOUND;
    if (!is_loaded(key->index))
        return get_entry(tx, key, bytes);
    rc = mj_pg_load(tx, &need);
    if (rc != MJ_OK)
        return rc;
    i = mj_pg_known(tx, key, false);
    return i ? known(i, key, bytes) : MJ_ENOMEM;
}
