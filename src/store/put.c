/* What operations make of a row: its record, and all that follows from it. */
#include "store/unit.h"

#include <string.h>

static void touched(mj_unit *u, mj_unit_row *row)
{
    u->ntouched += !row->changed;
    row->changed = u->dirty = true;
}

bool mj_unit_before(mj_unit *u, mj_unit_row *row, const mj_task *t)
{
    static const mj_facets nothing;
    mj_facets *was = NULL;

    if (row->was)
        return true;
    if (t && !(was = mj_unit_alloc(u, mj_facets_size(t->nattempts))))
        return false;
    if (t)
        mj_facets_of(t, was);
    row->was = t ? was : &nothing;
    return true;
}

/* Room for the facets that a row is to have.  NULL: u->rc says why.  What the row has is still read when it moves. */
static mj_facets *room_for(mj_unit *u, mj_unit_row *row, unsigned nattempts)
{
    if (!row->is || row->is_room < nattempts) {
        row->is_room = nattempts;
        row->is = mj_unit_alloc(u, mj_facets_size(nattempts));
    }
    return row->is;
}

/* Whether all accounts of which the task takes a slot have a place. */
static bool have_place(mj_unit *u, const mj_facets *old, const mj_task *t)
{
    for (unsigned i = 0; i < t->nattempts; i++) {
        bool had =
            i < old->nattempts && old->attempts[i].slot && mj_str_eq(old->attempts[i].account, t->attempts[i].account);
        if (t->attempts[i].slot && !had && mj_unit_account(u, t->attempts[i].account) < 0)
            return false;
    }
    return true;
}

static void follow_names(mj_unit *u, const mj_unit_row *row, const mj_facets *old, const mj_facets *new)
{
    mj_entry e = {.index = MJ_IX_KEY, .name = new->key};

    memcpy(e.ref, row->ref, sizeof e.ref);
    memcpy(e.fingerprint, new->fingerprint, sizeof e.fingerprint);
    if (!old->exists && new->key.n > 0)
        mj_unit_add_name(u, e);
    for (unsigned i = 0; i < new->nattempts; i++)
        for (unsigned k = i < old->nattempts ? old->attempts[i].nids : 0; k < new->attempts[i].nids; k++) {
            e.index = MJ_IX_TID;
            e.name = new->attempts[i].ids[k];
            e.n = i + 1;
            mj_unit_add_name(u, e);
        }
}

/* A tick would have something to do with it. */
static bool is_due(const mj_unit *u, const mj_facets *f)
{
    bool due = f->due == MJ_DUE_QUEUE && f->due_at <= u->now;

    for (unsigned i = 0; i < f->nattempts && !due; i++)
        due = f->attempts[i].slot && f->attempts[i].slot_until <= u->now;
    return due;
}

int mj_unit_put(mj_unit *u, mj_unit_row *row, const mj_task *t)
{
    mj_buf *b = &u->s->scratch;
    const mj_facets *old = row->changed ? row->is : row->was;
    mj_facets other, *now;
    mj_str bytes;
    int rc;

    if (!have_place(u, old, t))
        return u->rc != MJ_OK ? u->rc : MJ_ELIMIT;
    b->n = 0;
    rc = mj_task_encode(t, b);
    bytes = rc == MJ_OK ? mj_unit_copy(u, b->p, b->n) : (mj_str){0};
    if (rc != MJ_OK || u->rc != MJ_OK)
        return u->rc = u->rc != MJ_OK ? u->rc : rc;
    now = row->changed ? &other : room_for(u, row, t->nattempts);
    if (!now)
        return u->rc;
    mj_facets_of(t, now);
    mj_unit_follow_slots(u, old, now);
    follow_names(u, row, old, now);
    if (old->exists)
        u->tally.states[old->state]--;
    u->tally.states[now->state]++;
    u->tally.ready += now->queued - old->queued;
    /* The facets' strings are the old record's or the operation's, which both last as long as the unit. */
    if (row->changed) {
        if (!room_for(u, row, now->nattempts))
            return u->rc;
        memcpy(row->is, now, mj_facets_size(now->nattempts));
    }
    row->bytes = bytes;
    row->kind = MJ_ROW_TASK;
    row->looked = true;
    touched(u, row);
    if (is_due(u, row->is))
        u->ticked = false;
    if (row->is->queued && !row->listed_queue) {
        row->next_queued = u->queued;
        u->queued = row;
        row->listed_queue = true;
    }
    return u->rc;
}

void mj_unit_entomb(mj_unit *u, mj_unit_row *row, mj_str tomb, int64_t pruned_at)
{
    const mj_facets *old = row->changed ? row->is : row->was;
    mj_facets *is = room_for(u, row, old->nattempts);

    if (!is)
        return;
    u->tally.states[old->state]--;
    u->tally.ready -= old->queued;
    memmove(is, old, mj_facets_size(old->nattempts)); /* keys and ids stay, until the tombstone goes */
    is->exists = is->queued = false;
    is->due = MJ_DUE_NONE;
    is->grave = true;
    is->pruned_at = pruned_at;
    for (unsigned i = 0; i < is->nattempts; i++)
        is->attempts[i].slot = false;
    row->kind = MJ_ROW_TOMB;
    row->bytes = tomb;
    touched(u, row);
}

/* What the indexes hold of a tombstone. */
static const mj_facets *facets_of_tomb(mj_unit *u, const mj_tomb *t)
{
    unsigned nattempts = (t->nids + MJ_MAX_IDS - 1) / MJ_MAX_IDS;
    mj_facets *f = mj_unit_zero(u, mj_facets_size(nattempts));

    if (!f)
        return NULL;
    f->grave = true;
    f->pruned_at = t->pruned_at;
    f->key = t->key;
    f->nattempts = nattempts;
    for (unsigned i = 0; i < t->nids; i++) {
        struct mj_attempt_facets *a = &f->attempts[i / MJ_MAX_IDS];
        a->ids[a->nids++] = t->ids[i];
    }
    return f;
}

void mj_unit_forget(mj_unit *u, mj_unit_row *row, const mj_tomb *t)
{
    if (!row->was)
        row->was = facets_of_tomb(u, t);
    if (!row->was || !room_for(u, row, 0))
        return;
    memset(row->is, 0, mj_facets_size(0));
    row->kind = MJ_ROW_NONE;
    row->bytes = (mj_str){0};
    touched(u, row);
}
