/* A piece of a walk over an index: its statements, and what they give. */
#include "store/postgres/db.h"

#include <string.h>

static bool is_of_tasks(mj_index i)
{
    return i == MJ_IX_USER || i == MJ_IX_STATE || i == MJ_IX_DUE || i == MJ_IX_QUEUE || i == MJ_IX_SLOT ||
           i == MJ_IX_OUTBOX || i == MJ_IX_GRAVE;
}

bool mj_pg_is_of_rows(mj_index i)
{
    return i == MJ_IX_TASK || i == MJ_IX_TOMB || i == MJ_IX_REFUSED;
}

bool mj_pg_claims(const mj_tx *tx, const mj_scan *scan)
{
    return tx->write && scan->claim && (is_of_tasks(scan->index) || mj_pg_is_of_rows(scan->index));
}

static unsigned variant_of(const mj_scan *s)
{
    return (s->fixed ? MJ_PG_FIXED : 0) | (s->positioned ? MJ_PG_POSITIONED : 0) | (s->after ? MJ_PG_AFTER : 0) |
           (s->newest_first ? MJ_PG_NEWEST : 0) | (s->bounded ? MJ_PG_BOUNDED : 0);
}

static void add_range(mj_tx *tx, const mj_scan *scan, uint32_t limit)
{
    const mj_pg_table *t = &mj_pg_tables[scan->index];
    unsigned n = scan->positioned ? t->nkey : scan->fixed ? 1 : 0;
    mj_pg_args *args = &tx->db->conn.args;

    mj_pg_no_args(args);
    for (unsigned i = 0; i < n; i++)
        mj_pg_arg_field(args, t->columns[i].letter, &scan->from, (mj_str){0});
    if (scan->bounded)
        mj_pg_arg_int(args, scan->until);
    mj_pg_arg_int(args, limit);
}

int mj_pg_scan_send(mj_tx *tx, const mj_scan *scan, uint32_t limit, unsigned *sent)
{
    mj_pg_conn *c = &tx->db->conn;
    unsigned variant = variant_of(scan);
    bool head = scan->head && mj_pg_has_bytes(scan->index);
    int rc = MJ_OK;

    *sent = 0;
    if (scan->index == MJ_IX_EVENT && scan->fixed && tx->write) /* its task is locked first: see mj_pg_scan() */
        return MJ_OK;
    add_range(tx, scan, limit);
    if (mj_pg_claims(tx, scan)) {
        rc = mj_pg_send(c, mj_pg_of(MJ_PG_SCAN_LOCK, scan->index, variant));
        ++*sent;
        if (mj_pg_is_of_rows(scan->index))
            return rc;
        if (rc == MJ_OK && scan->index == MJ_IX_OUTBOX) {
            rc = mj_pg_send(c, mj_pg_of(MJ_PG_SCAN_EVENTS, scan->index, variant));
            ++*sent;
        }
    }
    if (rc == MJ_OK) {
        variant |= (scan->rows ? MJ_PG_ROWS : 0) | (head ? MJ_PG_HEAD : 0);
        variant |= mj_pg_claims(tx, scan) && !tx->db->url.careful ? MJ_PG_PLACES : 0;
        if (head)
            mj_pg_arg_int(&c->args, scan->head);
        rc = mj_pg_send(c, mj_pg_of(MJ_PG_SCAN, scan->index, variant));
        ++*sent;
    }
    return rc;
}

const PGresult *mj_pg_scan_take(mj_tx *tx, const mj_scan *scan, unsigned first, unsigned sent)
{
    mj_pg_conn *c = &tx->db->conn;
    const PGresult *rows, *events;

    if (sent > 1) {
        rows = mj_pg_keep(tx, mj_pg_take(c, first));
        events = sent > 2 ? mj_pg_keep(tx, mj_pg_take(c, first + 1)) : NULL;
        mj_pg_note_rows(tx, rows, scan->index == MJ_IX_GRAVE ? MJ_IX_TOMB : MJ_IX_TASK);
        for (int i = 0; rows && events && i < PQntuples(rows); i++) {
            mj_entry group = {.index = MJ_IX_EVENT};
            memcpy(group.ref, PQgetvalue(rows, i, 0), sizeof group.ref);
            (void)mj_pg_note(tx, &group, true);
        }
        mj_pg_note_events(tx, events);
    }
    rows = sent ? mj_pg_keep(tx, mj_pg_take(c, first + sent - 1)) : NULL;
    if (rows && sent == 1 && mj_pg_is_of_rows(scan->index) && mj_pg_claims(tx, scan))
        mj_pg_note_rows(tx, rows, scan->index);
    return rows;
}
