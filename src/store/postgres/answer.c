/* What a load's results tell: rows, those that are not there included, walks, accounts that are held. */
#include "store/postgres/load.h"

#include <stdlib.h>
#include <string.h>

static const PGresult *take(mj_tx *tx, unsigned which)
{
    return which == MJ_PG_NONE ? NULL : mj_pg_keep(tx, mj_pg_take(&tx->db->conn, which));
}

void mj_pg_note_asked(mj_tx *tx, const mj_need *need, mj_index index, mj_index as, bool group)
{
    for (size_t i = 0; i < need->nkeys; i++) {
        mj_entry e = need->keys[i];
        char *name;
        if (e.index != index)
            continue;
        e.index = as;
        e.n = mj_pg_is_loaded(index) ? 0 : e.n;
        name = e.name.n ? mj_pg_alloc(tx, e.name.n) : NULL;
        if (e.name.n && !name)
            return;
        if (name)
            memcpy(name, e.name.p, e.name.n);
        e.name.p = name;
        (void)mj_pg_note(tx, &e, group);
    }
}

static void note_names(mj_tx *tx, const mj_need *need, const PGresult *r, mj_index index)
{
    if (!r)
        return;
    mj_pg_note_asked(tx, need, index, index, false);
    mj_pg_note_rows(tx, r, index);
}

/* Of a ref that was asked for there is the task; or, as far as that was asked, the tombstone; or nothing. */
static void note_tasks(mj_tx *tx, const mj_pg_asked *a)
{
    const PGresult *tasks = take(tx, a->tasks), *tombs = take(tx, a->tombs), *events = take(tx, a->events);

    mj_pg_note_rows(tx, tasks, MJ_IX_TASK);
    mj_pg_note_rows(tx, tombs, MJ_IX_TOMB);
    if (tasks)
        mj_pg_note_asked(tx, a->need, MJ_IX_TASK, MJ_IX_TASK, false);
    if (tombs)
        mj_pg_note_asked(tx, a->need, MJ_IX_TASK, MJ_IX_TOMB, false);
    if (events) {
        mj_pg_note_asked(tx, a->need, MJ_IX_TASK, MJ_IX_EVENT, true);
        mj_pg_note_events(tx, events);
    }
}

/* Whether it is known what a ref is: a task has no tombstone. */
static bool is_stray(mj_tx *tx, const uint8_t *ref)
{
    mj_entry e = {.index = MJ_IX_TASK};
    const mj_pg_item *task;

    memcpy(e.ref, ref, sizeof e.ref);
    task = mj_pg_known(tx, &e, false);
    e.index = MJ_IX_TOMB;
    return !(task && task->there) && !mj_pg_known(tx, &e, false);
}

static int by_key(const void *a, const void *b)
{
    return mj_entry_order(a, b);
}

mj_entry *mj_pg_strays(mj_tx *tx, const mj_pg_asked *a, size_t *n)
{
    mj_entry *strays = NULL;
    size_t unique = 0;

    *n = 0;
    for (size_t i = 0; i < a->need->nkeys; i++) {
        const mj_entry *key = &a->need->keys[i];
        const mj_pg_item *name =
            key->index == MJ_IX_TID || key->index == MJ_IX_KEY ? mj_pg_known(tx, key, false) : NULL;
        const uint8_t *ref = key->index == MJ_IX_TASK ? key->ref : name && name->there ? name->key.ref : NULL;
        if (!ref || !is_stray(tx, ref))
            continue;
        if (!strays)
            strays = mj_pg_alloc(tx, a->need->nkeys * sizeof *strays);
        if (!strays)
            break;
        strays[*n] = (mj_entry){.index = MJ_IX_TASK};
        memcpy(strays[(*n)++].ref, ref, MJ_ULID_BYTES);
    }
    if (*n == 0)
        return NULL;
    qsort(strays, *n, sizeof *strays, by_key);
    for (size_t i = 0; i < *n; i++)
        if (unique == 0 || mj_entry_order(&strays[unique - 1], &strays[i]) != 0)
            strays[unique++] = strays[i];
    *n = unique;
    return strays;
}

static void note_accounts(mj_tx *tx, const mj_pg_asked *a)
{
    const PGresult *rows = take(tx, a->accounts), *slots = take(tx, a->slots);

    if (!rows || !slots)
        return;
    if (mj_pg_wants_all_accounts(a->need))
        tx->looked[MJ_IX_ACCOUNT] = true;
    else
        mj_pg_note_asked(tx, a->need, MJ_IX_ACCOUNT, MJ_IX_ACCOUNT, false);
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

static void note_intake(mj_tx *tx, const mj_pg_asked *a)
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

static void note_totals(mj_tx *tx, const mj_pg_asked *a, int64_t began)
{
    PGresult *r = a->totals == MJ_PG_NONE ? NULL : mj_pg_take(&tx->db->conn, a->totals);
    PGresult *clock = a->clock == MJ_PG_NONE ? NULL : mj_pg_take(&tx->db->conn, a->clock);

    mj_pg_clock(&tx->db->conn, clock, began);
    if (r && mj_pg_add_up(r, &tx->db->writer.others) == MJ_OK)
        tx->db->writer.others_at = mj_pg_ms();
    PQclear(r);
    PQclear(clock);
}

static void note_scans(mj_tx *tx, const mj_pg_asked *a)
{
    for (size_t i = 0; i < a->need->nscans && i < MJ_PG_MOST_SCANS; i++) {
        const mj_scan *scan = &a->need->scans[i];
        mj_pg_fetched *f = mj_pg_alloc(tx, sizeof *f);
        char *name = scan->from.name.n ? mj_pg_alloc(tx, scan->from.name.n) : NULL;
        if (!f || (scan->from.name.n && !name) || scan->index == MJ_IX_ACCOUNT)
            continue;
        *f = (mj_pg_fetched){.next = tx->fetched, .scan = *scan};
        if (name)
            memcpy(name, scan->from.name.p, scan->from.name.n);
        f->scan.from.name.p = name;
        f->asked = mj_pg_first_entries(scan);
        f->entries = mj_pg_scan_take(tx, scan, a->scans[i], a->scans_sent[i]);
        if (f->entries)
            tx->fetched = f;
    }
}

static unsigned note_holds(mj_tx *tx, const mj_pg_asked *a)
{
    PGresult *r = a->holds == MJ_PG_NONE ? NULL : mj_pg_take(&tx->db->conn, a->holds);
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

bool mj_pg_answer(mj_tx *tx, const mj_pg_asked *a, int64_t began)
{
    if (a->need->nholds > 0 && note_holds(tx, a) == 0)
        return false;
    note_totals(tx, a, began);
    note_accounts(tx, a);
    if (a->meta != MJ_PG_NONE) {
        mj_pg_note_asked(tx, a->need, MJ_IX_META, MJ_IX_META, false);
        mj_pg_note_rows(tx, take(tx, a->meta), MJ_IX_META);
        note_intake(tx, a);
    }
    note_tasks(tx, a);
    note_names(tx, a->need, take(tx, a->tids), MJ_IX_TID);
    note_names(tx, a->need, take(tx, a->keys), MJ_IX_KEY);
    for (mj_index index = 0; index < MJ_NINDEXES; index++)
        if (a->many[index] != MJ_PG_NONE) {
            mj_pg_note_asked(tx, a->need, index, index, false);
            mj_pg_note_rows(tx, take(tx, a->many[index]), index);
        }
    note_scans(tx, a);
    mj_pg_clear(&tx->db->conn);
    return true;
}
