/* Walks over an index.
 *
 * A reader's walk is read piece by piece, in its snapshot.  A writer's walk that claims locks the tasks first from
 * which its entries follow, passing over those that are locked, and then reads the entries again: what it gives is true
 * until the transaction ends. */
#include "store/postgres/load.h"

#include <string.h>

enum { LONGEST = 4096 };

/* The task is locked by this transaction; or there is none, and nothing to lock. */
static bool is_ours(const mj_tx *tx, const mj_scan *scan, const PGresult *r, int row, const mj_entry *e)
{
    mj_entry task = {.index = scan->index == MJ_IX_GRAVE ? MJ_IX_TOMB : MJ_IX_TASK};
    const mj_pg_item *i;

    if (!mj_pg_claims(tx, scan) || mj_pg_is_of_rows(scan->index))
        return true;
    memcpy(task.ref, e->ref, sizeof task.ref);
    i = mj_pg_known(tx, &task, false);
    return (i && i->there) || PQgetisnull(r, row, (int)mj_pg_tables[scan->index].ncolumns);
}

/* An entry of a task that is locked stays where it lies, until this transaction moves it. */
static void note_place(mj_tx *tx, const mj_scan *scan, const PGresult *r, int row, const mj_entry *e)
{
    const char *place = mj_pg_claims(tx, scan) && !mj_pg_is_of_rows(scan->index) && scan->index != MJ_IX_GRAVE
                            ? mj_pg_place(r, row, (int)mj_pg_tables[scan->index].ncolumns + 1)
                            : NULL;
    mj_entry task = {.index = MJ_IX_TASK};
    const mj_pg_item *locked;
    mj_pg_item *i;

    if (!place)
        return;
    memcpy(task.ref, e->ref, sizeof task.ref);
    locked = mj_pg_known(tx, &task, false);
    i = locked && locked->there ? mj_pg_note(tx, e, false) : NULL;
    if (i) {
        i->there = true;
        i->place = place;
    }
}

/* The record of an entry's task, where the walk asks for it. */
static mj_str record_of(const mj_scan *scan, const PGresult *r, int row, mj_str own)
{
    int column = (int)mj_pg_tables[scan->index].ncolumns;

    if (mj_pg_has_bytes(scan->index) || !scan->rows || column >= PQnfields(r) || PQgetisnull(r, row, column))
        return own;
    return mj_pg_bytes(r, row, column);
}

static bool give(mj_tx *tx, const mj_scan *scan, const PGresult *r, uint32_t *given, mj_scan_fn each, void *ctx)
{
    mj_entry e;
    mj_str bytes;

    for (int row = 0; row < PQntuples(r); row++) {
        if (scan->limit && *given == scan->limit)
            return false;
        mj_pg_entry(r, row, scan->index, &e, &bytes);
        if (!is_ours(tx, scan, r, row, &e))
            continue;
        note_place(tx, scan, r, row, &e);
        ++*given;
        if (!each(ctx, &e, record_of(scan, r, row, bytes)))
            return false;
    }
    return true;
}

/* The events of one task.  A writer has locked the task before. */
static int scan_events(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx)
{
    mj_entry group = {.index = MJ_IX_EVENT}, task = {.index = MJ_IX_TASK};
    const mj_pg_item *g, *task_row;
    int rc = MJ_OK;

    memcpy(group.ref, scan->from.ref, sizeof group.ref);
    g = mj_pg_known(tx, &group, true);
    if (!g) {
        memcpy(task.ref, group.ref, sizeof task.ref);
        task_row = mj_pg_known(tx, &task, false);
        rc = task_row && task_row->there ? mj_pg_load_events(tx)
                                         : mj_pg_load(tx, &(mj_need){.keys = &task, .nkeys = 1, .events = true});
        g = mj_pg_known(tx, &group, true);
    }
    if (rc != MJ_OK || !g)
        return rc != MJ_OK ? rc : MJ_ENOMEM;
    for (int row = g->from; row < g->to; row++) {
        mj_entry e;
        mj_str bytes;
        mj_pg_entry(g->events, row, MJ_IX_EVENT, &e, &bytes);
        if (scan->limit && (uint32_t)(row - g->from) == scan->limit)
            break;
        if (!each(ctx, &e, bytes))
            break;
    }
    return MJ_OK;
}

/* Accounts that have a row, or a slot. */
static int scan_accounts(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx)
{
    enum { MOST = 4096 };
    const mj_pg_item *all[MOST];
    uint32_t given = 0;
    size_t n = 0;
    int rc = MJ_OK;

    if (!tx->looked[MJ_IX_ACCOUNT])
        rc = mj_pg_load(tx, &(mj_need){.scans = scan, .nscans = 1});
    for (size_t b = 0; b < tx->nbuckets && rc == MJ_OK; b++)
        for (const mj_pg_item *i = tx->buckets[b]; i; i = i->chain)
            if (i->key.index == MJ_IX_ACCOUNT && i->there && n < MOST)
                all[n++] = i;
    for (size_t i = 1; i < n; i++) /* few */
        for (size_t k = i; k > 0 && mj_entry_order(&all[k - 1]->key, &all[k]->key) > 0; k--) {
            const mj_pg_item *swap = all[k];
            all[k] = all[k - 1];
            all[k - 1] = swap;
        }
    for (size_t i = 0; i < n; i++) {
        const mj_pg_item *a = all[scan->newest_first ? n - 1 - i : i];
        int order = scan->positioned ? mj_entry_order(&a->key, &scan->from) : 1;
        order = scan->newest_first && scan->positioned ? -order : order;
        if (order < 0 || (order == 0 && scan->after))
            continue;
        if (!each(ctx, &a->key, a->bytes) || ++given == scan->limit)
            break;
    }
    return rc;
}

/* The name of a place outlives the result in which it lies. */
static bool copy_place(mj_entry *e, char name[MJ_MAX_NAME])
{
    if (e->name.n > MJ_MAX_NAME)
        return false;
    if (e->name.n)
        memcpy(name, e->name.p, e->name.n);
    e->name.p = name;
    return true;
}

int mj_pg_scan(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx)
{
    char name[MJ_MAX_NAME];
    mj_scan next = *scan;
    const PGresult *r = NULL;
    PGresult *own = NULL; /* a reader's: its strings live until the callback returns */
    uint32_t given = 0, limit = 0;
    int rc = MJ_OK;

    if (scan->index == MJ_IX_ACCOUNT)
        return scan_accounts(tx, scan, each, ctx);
    if (scan->index == MJ_IX_EVENT && scan->fixed && !scan->positioned && !scan->newest_first)
        return scan_events(tx, scan, each, ctx);
    next.from.index = scan->index;
    if (tx->write && scan->index == MJ_IX_REFUSED)
        tx->looked[scan->index] = true;
    for (mj_pg_fetched *f = tx->fetched; f && !r; f = f->next)
        if (mj_scan_same(&f->scan, scan)) {
            r = f->entries;
            limit = f->asked;
        }
    for (;;) {
        unsigned sent = 0;
        mj_str unused;
        if (!r) {
            limit = limit == 0 ? mj_pg_first_entries(scan) : limit < LONGEST / 2 ? 2 * limit : LONGEST;
            if (scan->limit && scan->limit - given < limit)
                limit = scan->limit - given;
            rc = mj_pg_begun(tx);
            if (rc == MJ_OK)
                rc = mj_pg_scan_send(tx, &next, limit, &sent);
            if (rc == MJ_OK)
                rc = mj_pg_go(tx);
            if (rc != MJ_OK)
                return rc;
            r = tx->write ? mj_pg_scan_take(tx, &next, 0, sent) : (own = mj_pg_take(&tx->db->conn, 0));
            if (!r)
                return MJ_ENOMEM;
        }
        if (!give(tx, scan, r, &given, each, ctx) || (uint32_t)PQntuples(r) < limit ||
            (scan->limit && given >= scan->limit))
            break;
        mj_pg_entry(r, PQntuples(r) - 1, scan->index, &next.from, &unused);
        next.positioned = next.after = true;
        if (own && !copy_place(&next.from, name)) {
            PQclear(own);
            return MJ_ECORRUPT;
        }
        PQclear(own);
        own = NULL;
        r = NULL;
    }
    PQclear(own);
    return MJ_OK;
}
