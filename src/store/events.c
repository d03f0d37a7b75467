/* The events of a row, and its place in the outbox. */
#include "store/unit.h"

#include <string.h>

static mj_unit_event *new_event(mj_unit *u, mj_unit_row *row)
{
    mj_unit_event *more;

    if (row->nevents == row->room) {
        row->room = row->room ? 2 * row->room : 4;
        more = mj_unit_alloc(u, row->room * sizeof *more);
        if (!more)
            return NULL;
        if (row->nevents)
            memcpy(more, row->events, row->nevents * sizeof *more);
        row->events = more;
    }
    return &row->events[row->nevents++];
}

typedef struct gather {
    mj_unit *u;
    mj_unit_row *row;
} gather;

static bool one_event(void *ctx, const mj_entry *e, mj_str bytes)
{
    gather *g = ctx;
    mj_unit_event *new = new_event(g->u, g->row);
    mj_event_record record;

    if (!new)
        return false;
    *new = (mj_unit_event){.seq = e->n, .bytes = bytes};
    if (mj_event_decode(bytes, &record) == MJ_OK) {
        new->open = !record.buried;
        new->next_at = record.next_at;
    }
    return true;
}

static mj_out first_open(const mj_unit_row *row)
{
    for (unsigned i = 0; i < row->nevents; i++)
        if (row->events[i].open && !row->events[i].gone)
            return (mj_out){row->events[i].next_at > 0 ? row->events[i].next_at : 0, row->events[i].seq};
    return (mj_out){0};
}

bool mj_unit_events(mj_unit *u, mj_unit_row *row)
{
    mj_scan scan = {.index = MJ_IX_EVENT, .fixed = 1, .from = {.index = MJ_IX_EVENT}};
    int rc;

    if (row->events_known)
        return true;
    memcpy(scan.from.ref, row->ref, MJ_ULID_BYTES);
    rc = u->s->backend->scan(u->tx, &scan, one_event, &(gather){u, row});
    if (rc != MJ_OK && u->rc == MJ_OK)
        u->rc = rc;
    row->events_known = u->rc == MJ_OK;
    row->out_was = row->out_is = first_open(row);
    return row->events_known;
}

mj_unit_event *mj_unit_event_of(mj_unit_row *row, uint32_t seq)
{
    for (unsigned i = 0; i < row->nevents; i++)
        if (row->events[i].seq == seq && !row->events[i].gone)
            return &row->events[i];
    return NULL;
}

bool mj_unit_set_event(mj_unit *u, mj_unit_row *row, uint32_t seq, mj_str bytes, bool open, int64_t next_at)
{
    mj_unit_event *e = NULL;

    for (unsigned i = 0; i < row->nevents && !e; i++)
        if (row->events[i].seq == seq)
            e = &row->events[i];
    if (!e) {
        e = new_event(u, row);
        if (!e)
            return false;
        *e = (mj_unit_event){.seq = seq};
        for (; e > row->events && e[-1].seq > seq; e--) { /* a replayed one may come before others */
            mj_unit_event swap = e[-1];
            e[-1] = *e;
            *e = swap;
        }
    }
    u->nevents += !e->dirty;
    e->bytes = bytes;
    e->gone = bytes.n == 0;
    e->open = open;
    e->next_at = next_at;
    e->dirty = u->dirty = true;
    row->out_is = first_open(row);
    mj_unit_out_changed(u, row);
    return true;
}

void mj_unit_out_changed(mj_unit *u, mj_unit_row *row)
{
    row->out_changed = true;
    if (row->out_is.seq && row->out_is.at <= u->now && !row->listed_out) {
        row->next_due = u->due;
        u->due = row;
        row->listed_out = true;
    }
}
