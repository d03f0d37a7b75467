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
    if (row->was)
        return true;
    row->was = mj_unit_alloc(u, sizeof *row->was);
    row->is = row->was ? mj_unit_alloc(u, sizeof *row->is) : NULL;
    if (!row->is)
        return row->was = NULL, false;
    if (t)
        mj_facets_of(t, row->was);
    else
        memset(row->was, 0, sizeof *row->was);
    row->is->nattempts = 0; /* nothing yet */
    return true;
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
    mj_facets *old = row->changed ? row->is : row->was, now;
    mj_str bytes;
    int rc;

    if (!have_place(u, old, t))
        return u->rc != MJ_OK ? u->rc : MJ_ELIMIT;
    b->n = 0;
    rc = mj_task_encode(t, b);
    bytes = rc == MJ_OK ? mj_unit_copy(u, b->p, b->n) : (mj_str){0};
    if (rc != MJ_OK || u->rc != MJ_OK)
        return u->rc = u->rc != MJ_OK ? u->rc : rc;
    mj_facets_of(t, &now);
    mj_unit_follow_slots(u, old, &now);
    follow_names(u, row, old, &now);
    if (old->exists)
        u->tally.states[old->state]--;
    u->tally.states[now.state]++;
    u->tally.ready += now.queued - old->queued;
    /* The facets' strings are the old record's or the operation's, which both last as long as the unit. */
    memcpy(row->is, &now, offsetof(mj_facets, attempts) + now.nattempts * sizeof now.attempts[0]);
    row->bytes = bytes;
    row->kind = MJ_ROW_TASK;
    row->looked = true;
    touched(u, row);
    if (is_due(u, &now))
        u->ticked = false;
    if (now.queued && !row->listed_queue) {
        row->next_queued = u->queued;
        u->queued = row;
        row->listed_queue = true;
    }
    return u->rc;
}

void mj_unit_entomb(mj_unit *u, mj_unit_row *row, mj_str tomb, int64_t pruned_at)
{
    const mj_facets *old = row->changed ? row->is : row->was;
    mj_facets *is = row->is;

    u->tally.states[old->state]--;
    u->tally.ready -= old->queued;
    memmove(is, old, sizeof *is); /* keys and ids stay, until the tombstone goes */
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

void mj_unit_forget(mj_unit *u, mj_unit_row *row, const mj_tomb *t)
{
    if (!mj_unit_before(u, row, NULL))
        return;
    if (!row->changed) {
        row->was->grave = true;
        row->was->pruned_at = t->pruned_at;
        row->was->key = t->key;
        row->was->nattempts = (t->nids + MJ_MAX_IDS - 1) / MJ_MAX_IDS;
        for (unsigned i = 0; i < t->nids; i++) {
            struct mj_attempt_facets *a = &row->was->attempts[i / MJ_MAX_IDS];
            a->ids[a->nids++] = t->ids[i];
        }
    }
    memset(row->is, 0, sizeof *row->is);
    row->kind = MJ_ROW_NONE;
    row->bytes = (mj_str){0};
    touched(u, row);
}
