/* The outbox: which event is handed out next.
 *
 * An event's record lives under (ref, seq) until its handler returned.  The
 * outbox holds one entry per task, for its first event that is neither
 * delivered nor buried: so events of one task run in order and one at a time,
 * and those of different tasks do not wait for each other.  The entry follows
 * from the task's events (mj_unit_set_event), nothing else moves it. */
#include "store/rules.h"

#include <string.h>

void mj_event_put(mj_unit *u, mj_unit_row *row, const mj_event_record *e)
{
    mj_buf *b = &u->s->scratch;
    mj_str bytes;

    b->n = 0;
    if (mj_event_encode(e, b) != MJ_OK)
        u->rc = MJ_ENOMEM;
    bytes = mj_unit_copy(u, b->p, b->n);
    if (u->rc == MJ_OK)
        mj_unit_set_event(u, row, e->seq, bytes, !e->buried, e->next_at);
}

void mj_event_add(mj_unit *u, mj_unit_row *row, const mj_task *t, mj_event type)
{
    mj_event_record e = {.seq = t->event_seq,
                         .type = type,
                         .attempt = t->nattempts,
                         .late = t->late,
                         .created_at = u->now,
                         .next_at = u->now,
                         .since = u->now};

    if (e.seq == 1)
        row->events_known = true; /* a task's first event needs no look for others */
    if (!mj_unit_events(u, row))
        return;
    memcpy(e.ref, t->ref, MJ_ULID_BYTES);
    u->tally.events++;
    mj_event_put(u, row, &e);
}

static bool is_ahead(const mj_unit *u, const mj_event_record *e)
{
    return e->since - u->now > MJ_CLOCK_STEP_MS;
}

/* What a clock set that was ahead is due, or leased for as long as it was, from now on. */
static void bound_wait(const mj_unit *u, mj_event_record *e)
{
    int64_t wait = e->leased && e->next_at > e->since ? e->next_at - e->since : 0;

    e->next_at = e->next_at > u->now + wait ? u->now + wait : e->next_at;
    e->since = u->now;
}

void mj_event_rewind(mj_unit *u, const uint8_t *ref, uint32_t seq)
{
    mj_unit_row *row = mj_unit_row_of(u, ref, false);
    const mj_unit_event *known = row && mj_unit_events(u, row) ? mj_unit_event_of(row, seq) : NULL;
    mj_event_record e;

    if (!known || mj_event_decode(known->bytes, &e) != MJ_OK || !is_ahead(u, &e))
        return;
    bound_wait(u, &e);
    mj_event_put(u, row, &e);
}

/* The event that comes to the front of its task may have been set by a clock that was ahead. */
void mj_event_promoted(mj_unit *u, mj_unit_row *row)
{
    if (row->out_is.seq && row->out_is.at > u->now)
        mj_event_rewind(u, row->ref, row->out_is.seq);
}
