/* Forgetting: final tasks become tombstones, tombstones end after their time.
 *
 * A tombstone keeps what must outlive a task: its ref, key and fingerprint (so
 * that a repeated key is still recognised), its task ids (so that a late
 * callback is still known to be about something that is over) and its final
 * state.  Each operation looks at a bounded number of records, so that other
 * writers get their turn between two. */
#include "store/rules.h"

#include <stdlib.h>
#include <string.h>

typedef struct found {
    const mj_unit *u;
    uint32_t n, room;
    int64_t until; /* GRAVE: made at or before; STATE: created at or before */
    bool more;
    mj_entry *entries;
} found;

static bool in_time(const found *f, const mj_entry *e)
{
    return (e->index == MJ_IX_GRAVE ? e->at : mj_ulid_time(e->ref)) <= f->until;
}

static bool one(void *ctx, const mj_entry *e, mj_str bytes)
{
    found *f = ctx;

    (void)bytes;
    if (!in_time(f, e))
        return false;
    if (mj_unit_changed(f->u, e->ref))
        return true; /* merge() sees to it */
    if (f->n == f->room) {
        f->more = true;
        return false;
    }
    f->entries[f->n++] = *e;
    return true;
}

/* The entry that a row has in the index since this unit changed it. */
static bool entry_of(const mj_unit_row *r, const mj_scan *scan, mj_entry *e)
{
    *e = (mj_entry){.index = scan->index, .n = scan->from.n};
    memcpy(e->ref, r->ref, sizeof e->ref);
    if (!r->changed)
        return false;
    if (scan->index == MJ_IX_STATE)
        return r->kind == MJ_ROW_TASK && r->is->state == scan->from.n &&
               memcmp(r->ref, scan->from.ref, sizeof r->ref) >= 0;
    e->at = r->is->pruned_at;
    return r->kind == MJ_ROW_TOMB;
}

/* Puts the rows that this unit has brought into the state, or has pruned, in their places. */
static void merge(const mj_scan *scan, found *f)
{
    mj_entry e;

    for (const mj_unit_row *r = f->u->rows; r; r = r->next)
        if (entry_of(r, scan, &e) && in_time(f, &e) && !mj_unit_insert(f->entries, &f->n, f->room, &e))
            f->more = true;
}

/* Up to `limit` entries of an index; one more is looked at, to tell whether there are more. */
static found find(mj_unit *u, mj_scan *scan, uint32_t limit, int64_t until)
{
    found f = {.u = u, .room = limit, .until = until};
    int rc;

    f.entries = mj_unit_alloc(u, ((size_t)f.room + 1) * sizeof *f.entries);
    if (!f.entries)
        return f;
    scan->claim = scan->rows = true;
    scan->limit = limit + 1 + (uint32_t)u->ntouched; /* rows that this unit has changed are among them */
    rc = u->s->backend->scan(u->tx, scan, one, &f);
    if (rc != MJ_OK)
        u->rc = rc;
    merge(scan, &f);
    return f;
}

/* Whether an event keeps its task: without a policy one that only waits does not, since nothing will ever handle it.  A
 * buried one was given up, for a person to look at; a leased one is at work in a process that has a policy; one that
 * can't be read is check()'s to tell. */
static bool keeps(mj_str bytes, bool no_policy, int64_t now)
{
    mj_event_record e;

    return !no_policy || mj_event_decode(bytes, &e) != MJ_OK || e.buried || (e.leased && e.next_at > now);
}

/* No event keeps the task, and no attempt of it holds a slot. */
static bool may_go(mj_unit *u, mj_unit_row *row, const mj_task *t, const mj_op *op)
{
    if (!mj_state_final(t->state) || t->finished_at > op->until)
        return false;
    for (unsigned i = 0; i < t->nattempts; i++)
        if (t->attempts[i].slot)
            return false;
    if (!mj_unit_events(u, row))
        return false;
    for (unsigned i = 0; i < row->nevents; i++)
        if (!row->events[i].gone && keeps(row->events[i].bytes, op->no_policy, u->now))
            return false;
    return true;
}

static void drop_events(mj_unit *u, mj_unit_row *row)
{
    for (unsigned i = 0; i < row->nevents && u->rc == MJ_OK; i++)
        if (!row->events[i].gone) {
            u->tally.events--;
            mj_unit_set_event(u, row, row->events[i].seq, (mj_str){0}, false, 0);
        }
}

static void bury(mj_unit *u, mj_unit_row *row, const mj_task *t)
{
    mj_buf *b = &u->s->scratch;
    mj_str tomb;

    b->n = 0;
    if (mj_tomb_encode(t, u->now, b) != MJ_OK)
        u->rc = MJ_ENOMEM;
    tomb = mj_unit_copy(u, b->p, b->n);
    if (u->rc == MJ_OK && mj_unit_before(u, row, t))
        mj_unit_entomb(u, row, tomb, u->now);
}

/* Where a walk over one state's tasks goes on: whether it does, and the ref. */
typedef struct mark {
    uint8_t on;
    uint8_t ref[MJ_ULID_BYTES];
} mark;

typedef struct marks {
    mark of[MJ_NSTATES];
} marks;

static const mj_entry marks_key = {.index = MJ_IX_META, .name = {MJ_PRUNE_KEY, sizeof MJ_PRUNE_KEY - 1}};

static marks read_marks(int rc, mj_str bytes)
{
    marks m = {0};

    if (rc == MJ_OK && bytes.n == sizeof m)
        memcpy(&m, bytes.p, sizeof m);
    return m;
}

void mj_op_prune_from(mj_unit *u, mj_op *op)
{
    mj_str bytes = {0};
    marks m;
    int rc;

    if (op->sig.expect_state < 0) {
        op->code = MJ_EINVAL;
        return;
    }
    rc = mj_unit_meta(u, marks_key, &bytes);
    m = read_marks(rc, bytes);
    m.of[op->sig.expect_state].on = op->has_ref;
    memcpy(m.of[op->sig.expect_state].ref, op->ref, MJ_ULID_BYTES);
    mj_unit_change_of(u, marks_key, false, mj_unit_copy(u, &m, sizeof m));
}

/* One step over the tasks of op->sig.expect_state, oldest first, from op->ref (has_ref) on. */
void mj_op_prune(mj_unit *u, mj_op *op)
{
    mj_scan scan = {.index = MJ_IX_STATE,
                    .fixed = 1,
                    .positioned = op->has_ref,
                    .from = {.index = MJ_IX_STATE, .n = (uint32_t)op->sig.expect_state}};
    uint32_t limit = mj_step_of(op);
    found f;

    if (op->sig.expect_state < 0) {
        op->code = MJ_EINVAL;
        return;
    }
    if (op->has_ref)
        memcpy(scan.from.ref, op->ref, MJ_ULID_BYTES);
    f = find(u, &scan, limit + 1, op->until); /* the first that this step leaves is where the next one begins */
    op->done = 0;
    op->more = f.n > limit;
    for (uint32_t i = 0; i < f.n && u->rc == MJ_OK; i++) {
        mj_unit_row *row;
        mj_task t;
        memcpy(op->next, f.entries[i].ref, MJ_ULID_BYTES);
        if (i == limit)
            break;
        if (mj_unit_task(u, f.entries[i].ref, &row, &t) !=
            MJ_OK) /* unreadable: check()'s to tell, not ours to delete */
            continue;
        if (may_go(u, row, &t, op)) {
            drop_events(u, row);
            bury(u, row, &t);
            op->done++;
        }
    }
}

void mj_op_forget(mj_unit *u, mj_op *op)
{
    mj_scan scan = {.index = MJ_IX_GRAVE, .bounded = true, .until = op->until};
    found f = find(u, &scan, mj_step_of(op), op->until);

    op->done = f.n;
    op->more = f.more;
    for (uint32_t i = 0; i < f.n && u->rc == MJ_OK; i++) {
        mj_unit_row *row = mj_unit_row_of(u, f.entries[i].ref, true);
        mj_tomb t = {0};
        if (!row)
            return;
        if (row->kind == MJ_ROW_TOMB) {
            (void)mj_tomb_decode(row->bytes, &t); /* one that can't be read goes as well */
            t.pruned_at = f.entries[i].at;
            mj_unit_forget(u, row, &t);
        } else if (!row->changed) {
            mj_unit_change_of(u, f.entries[i], true, (mj_str){0});
        }
    }
}

/* ---- looking, without the writer's lock ---- */

typedef struct look {
    mj_prunable *p;
    mj_buf *out;
    uint32_t seen;
} look;

/* Of a task that its record does not keep from going. */
static bool one_prunable(void *ctx, const mj_entry *e, mj_str bytes)
{
    look *l = ctx;
    mj_prunable *p = l->p;
    bool slot = false;
    mj_task t;

    if (mj_ulid_time(e->ref) > p->until)
        return false;
    p->more = l->seen++ == p->limit;
    if (p->more) {
        memcpy(p->from, e->ref, MJ_ULID_BYTES);
        return false;
    }
    if (!bytes.p || mj_task_decode(bytes.p, bytes.n, &t) != MJ_OK) /* unreadable: check()'s to tell */
        return true;
    for (unsigned i = 0; i < t.nattempts; i++)
        slot = slot || t.attempts[i].slot;
    if (mj_state_final(t.state) && t.finished_at <= p->until && !slot)
        mj_put_raw(l->out, e->ref, MJ_ULID_BYTES);
    return true;
}

typedef struct held {
    const mj_prunable *p;
    bool is;
} held;

static bool one_held(void *ctx, const mj_entry *e, mj_str bytes)
{
    held *h = ctx;

    (void)e;
    h->is = keeps(bytes, h->p->no_policy, h->p->now);
    return !h->is;
}

/* The events of these tasks are about to be read. */
static int load_tasks(mj_store *s, mj_tx *tx, const uint8_t *refs, size_t n)
{
    mj_entry *keys;
    int rc;

    if (!s->backend->load || n == 0)
        return MJ_OK;
    keys = calloc(n, sizeof *keys);
    if (!keys)
        return MJ_ENOMEM;
    for (size_t i = 0; i < n; i++) { /* in ascending order, as the scan gave them */
        keys[i].index = MJ_IX_TASK;
        memcpy(keys[i].ref, refs + i * MJ_ULID_BYTES, MJ_ULID_BYTES);
    }
    rc = s->backend->load(tx, &(mj_need){.keys = keys, .nkeys = n});
    free(keys);
    return rc;
}

/* Takes out the refs, from place `begin` on, of those that an event keeps. */
static int drop_held(mj_store *s, mj_tx *tx, const mj_prunable *p, mj_buf *out, size_t begin)
{
    mj_scan events = {.index = MJ_IX_EVENT, .fixed = 1, .from = {.index = MJ_IX_EVENT}};
    size_t end = out->n;
    int rc = out->failed ? MJ_ENOMEM : load_tasks(s, tx, out->p + begin, (end - begin) / MJ_ULID_BYTES);

    out->n = begin;
    for (size_t at = begin; at < end && rc == MJ_OK; at += MJ_ULID_BYTES) {
        held h = {p, false};
        memcpy(events.from.ref, out->p + at, MJ_ULID_BYTES);
        rc = s->backend->scan(tx, &events, one_held, &h);
        if (rc == MJ_OK && !h.is) {
            memmove(out->p + out->n, out->p + at, MJ_ULID_BYTES);
            out->n += MJ_ULID_BYTES;
        }
    }
    return rc;
}

static int find_prunable(mj_store *s, mj_tx *tx, mj_prunable *p, mj_buf *out)
{
    mj_scan scan = {.index = MJ_IX_STATE,
                    .fixed = 1,
                    .rows = true,
                    .limit = p->limit < UINT32_MAX ? p->limit + 1 : 0,
                    .from = {.index = MJ_IX_STATE, .n = p->state}};
    look l = {p, out, 0};
    size_t begin = out->n;
    mj_entry key = marks_key;
    mj_str bytes = {0};
    int rc = MJ_OK;

    if (p->resume) {
        mark m;
        rc = s->backend->get(tx, &key, &bytes);
        m = read_marks(rc, bytes).of[p->state];
        rc = rc == MJ_ENOTFOUND ? MJ_OK : rc;
        p->has_from = p->resume = m.on != 0;
        memcpy(p->from, m.ref, MJ_ULID_BYTES);
    }
    p->more = false;
    scan.positioned = p->has_from;
    if (p->has_from)
        memcpy(scan.from.ref, p->from, MJ_ULID_BYTES);
    if (rc == MJ_OK)
        rc = s->backend->scan(tx, &scan, one_prunable, &l);
    return rc == MJ_OK ? drop_held(s, tx, p, out, begin) : rc;
}

int mj_store_prunable(mj_store *s, mj_prunable *p, mj_buf *out)
{
    mj_tx *tx;
    int rc = mj_read_begin(s, &tx);

    if (rc != MJ_OK)
        return rc;
    rc = find_prunable(s, tx, p, out);
    s->backend->abort(tx);
    return rc;
}
