/* Handing events out, and what becomes of them.  A lease is a due time in the future plus the number of tries. */
#include "store/rules.h"

#include <string.h>

/* What is due of the outbox as the store has it, read piece by piece. */
struct mj_walk {
    bool ended;
    unsigned n, at;
    mj_entry entries[]; /* as many as a scan gives */
};

static bool one_entry(void *ctx, const mj_entry *e, mj_str bytes)
{
    mj_walk *w = ctx;

    (void)bytes;
    w->entries[w->n++] = *e;
    return true;
}

static void read_on(mj_unit *u, mj_walk *w)
{
    mj_scan scan = mj_scan_outbox(u);
    int rc;

    if (w->n > 0) {
        scan.positioned = scan.after = true;
        scan.from = w->entries[w->n - 1];
    }
    w->n = w->at = 0;
    rc = u->s->backend->scan(u->tx, &scan, one_entry, w);
    if (rc != MJ_OK)
        u->rc = rc;
    w->ended = w->n < scan.limit;
}

/* The store's next entry of a task whose events this unit has not changed. */
static const mj_entry *stored_head(mj_unit *u)
{
    mj_walk *w = u->outbox;

    if (!w) {
        w = u->outbox = mj_unit_alloc(u, sizeof *w + mj_scan_outbox(u).limit * sizeof w->entries[0]);
        if (!w)
            return NULL;
        w->n = w->at = 0;
        w->ended = false;
    }
    while (u->rc == MJ_OK) {
        const mj_unit_row *r;
        if (w->at == w->n && w->ended)
            return NULL;
        if (w->at == w->n) {
            read_on(u, w);
            continue;
        }
        r = mj_unit_seen(u, w->entries[w->at].ref);
        if (!r || !r->out_changed)
            return &w->entries[w->at];
        w->at++;
    }
    return NULL;
}

static bool sooner(const mj_out *a, const uint8_t *a_ref, const mj_out *b, const uint8_t *b_ref)
{
    return a->at != b->at ? a->at < b->at : memcmp(a_ref, b_ref, MJ_ULID_BYTES) < 0;
}

/* The row whose first open event is due longest, and that entry of the outbox.  NULL: none is due. */
static mj_unit_row *next_due(mj_unit *u, mj_out *out)
{
    const mj_entry *e = stored_head(u);
    mj_unit_row *best = NULL, **at = &u->due;

    while (*at) {
        mj_unit_row *r = *at;
        if (r->out_is.seq == 0 || r->out_is.at > u->now) { /* it was taken since */
            *at = r->next_due;
            r->listed_out = false;
            continue;
        }
        if (!best || sooner(&r->out_is, r->ref, out, best->ref)) {
            best = r;
            *out = r->out_is;
        }
        at = &r->next_due;
    }
    if (!e || e->at > u->now || (best && sooner(out, best->ref, &(mj_out){e->at, e->n}, e->ref)))
        return best;
    *out = (mj_out){e->at, e->n};
    return mj_unit_row_of(u, e->ref, true);
}

/* The record of an event, its strings in op->event_bytes.  op->code: MJ_ENOTFOUND, MJ_ECORRUPT, MJ_ESCHEMA. */
static bool fetch(mj_unit *u, mj_op *op, mj_unit_row *row, uint32_t seq, mj_event_record *e)
{
    const mj_unit_event *known = row && mj_unit_events(u, row) ? mj_unit_event_of(row, seq) : NULL;

    if (u->rc != MJ_OK)
        return false;
    if (!known) {
        op->code = MJ_ENOTFOUND;
        return false;
    }
    op->event_bytes.n = 0;
    mj_put_raw(&op->event_bytes, known->bytes.p, known->bytes.n);
    if (op->event_bytes.failed) {
        u->rc = MJ_ENOMEM;
        return false;
    }
    op->code = mj_event_decode((mj_str){(char *)op->event_bytes.p, (uint32_t)op->event_bytes.n}, e);
    return op->code == MJ_OK;
}

/* An entry of the outbox without a readable event: takes it out of the way, and puts the right one in its place. */
static void drop_entry(mj_unit *u, mj_op *op, mj_unit_row *row, mj_out entry)
{
    mj_entry stale = {.index = MJ_IX_OUTBOX, .n = entry.seq, .at = entry.at};

    op->code = MJ_ECORRUPT;
    memcpy(stale.ref, row->ref, sizeof stale.ref);
    mj_unit_change_of(u, stale, true, (mj_str){0});
    row->out_doubtful = true;
    mj_unit_out_changed(u, row);
}

static void take(mj_unit *u, mj_op *op)
{
    mj_event_record e;
    mj_out entry = {0};
    mj_unit_row *row = next_due(u, &entry);

    if (u->rc != MJ_OK)
        return;
    if (!row) {
        op->code = MJ_ENOTFOUND;
        return;
    }
    if (!fetch(u, op, row, entry.seq, &e) || entry.seq != row->out_is.seq || entry.at != row->out_is.at) {
        if (u->rc == MJ_OK)
            drop_entry(u, op, row, entry);
        return;
    }
    e.tries++;
    e.leased = true;
    e.next_at = op->until > u->now ? op->until : u->now + 1;
    e.since = u->now;
    mj_event_put(u, row, &e);
    op->event = e;
    op->record.n = 0;
    memcpy(op->ref, row->ref, MJ_ULID_BYTES);
    if (u->rc == MJ_OK && mj_unit_row_of(u, row->ref, true) && row->kind == MJ_ROW_TASK) {
        mj_put_raw(&op->record, row->bytes.p, row->bytes.n);
        if (op->record.failed)
            u->rc = MJ_ENOMEM;
    }
}

static void add_error(mj_event_record *e, int64_t now, mj_str text)
{
    if (e->nerrors == MJ_MAX_EVENT_ERRORS) {
        memmove(e->errors, e->errors + 1, (MJ_MAX_EVENT_ERRORS - 1) * sizeof e->errors[0]);
        e->nerrors--;
    }
    e->errors[e->nerrors++] = (mj_event_error){now, mj_str_head(text, MJ_MAX_REASON)};
}

/* What a handler stored is the task's, in the transaction in which its event is done. */
static void keep_files(mj_unit *u, const mj_op *op)
{
    mj_signal sig = {
        .kind = SIG_KEPT, .source = MJ_FROM_POLICY, .expect_state = -1, .wait_ms = -1, .files = op->sig.files};
    mj_op own = {0};

    memcpy(own.ref, op->event.ref, MJ_ULID_BYTES);
    mj_apply(u, &own, &sig);
}

static void bury(mj_unit *u, mj_unit_row *row, mj_event_record *e)
{
    e->buried = true;
    e->leased = false;
    u->tally.events--;
    u->tally.buried++;
    mj_counters_count(&u->tally.counters, MJ_EVENT_BURIED, 1);
    mj_event_put(u, row, e);
}

static void done(mj_unit *u, mj_op *op, mj_unit_row *row, const mj_event_record *e)
{
    u->tally.events--;
    mj_counters_count(&u->tally.counters, MJ_EVENT_DELIVERED, 1);
    mj_unit_set_event(u, row, e->seq, (mj_str){0}, false, 0);
    if (op->sig.files.n > 0 && op->sig.files.n <= MJ_MAX_JSON)
        keep_files(u, op);
}

/* The lease's end. */
static void settle(mj_unit *u, mj_op *op, mj_unit_row *row, mj_event_record *e)
{
    e->leased = false;
    if (op->kind == MJ_OP_EVENT_DONE) {
        done(u, op, row, e);
        return;
    }
    if (op->sig.error.n == 0 && op->until != 0 && e->tries > 0) {
        e->tries--; /* handed back without having been run: it costs the event nothing */
    } else {
        add_error(e, u->now, op->sig.error);
        e->failed++;
        mj_counters_count(&u->tally.counters, MJ_EVENT_RETRIED, op->until != 0);
    }
    if (op->until == 0) {
        bury(u, row, e);
        return;
    }
    e->next_at = op->until;
    e->since = u->now;
    mj_event_put(u, row, e);
}

static bool is_leased(const mj_unit *u, const mj_event_record *e)
{
    return e->leased && e->next_at > u->now;
}

/* Due now, with all its tries ahead, as the first open event of its task. */
static void release(mj_unit *u, mj_op *op, mj_unit_row *row, mj_event_record *e)
{
    const mj_unit_event *first = row->out_is.seq ? mj_unit_event_of(row, row->out_is.seq) : NULL;
    mj_event_record open;

    if (first && mj_event_decode(first->bytes, &open) == MJ_OK && is_leased(u, &open)) {
        op->code = MJ_ESTATE; /* one at a time, and this one would have to go before it */
        return;
    }
    if (e->buried) {
        e->buried = false;
        u->tally.events++;
        u->tally.buried--;
    }
    e->leased = false;
    e->before = e->tries;
    e->failed = 0;
    e->next_at = e->since = u->now;
    mj_event_put(u, row, e);
}

static mj_event last_event(const mj_task *t)
{
    if (t->event_seq == 0)
        return MJ_EVENT_NONE;
    switch (t->state) {
    case MJ_SUCCEEDED:
        return MJ_EVENT_SUCCEEDED;
    case MJ_FAILED:
        return MJ_EVENT_FAILED;
    case MJ_LOST:
        return MJ_EVENT_LOST;
    case MJ_AMBIGUOUS:
        return MJ_EVENT_AMBIGUOUS;
    default:
        return MJ_EVENT_NONE;
    }
}

/* The task's last event again, under its own id. */
static void replay(mj_unit *u, mj_op *op)
{
    mj_event_record e;
    mj_unit_row *row;
    mj_task t;
    int rc = mj_unit_task(u, op->event.ref, &row, &t);

    if (u->rc != MJ_OK)
        return;
    if (rc == MJ_OK && last_event(&t) == MJ_EVENT_NONE)
        rc = MJ_ESTATE;
    if (rc != MJ_OK) {
        op->code = rc;
        return;
    }
    op->seq = t.event_seq;
    if (fetch(u, op, row, t.event_seq, &e)) {
        if (is_leased(u, &e))
            op->code = MJ_ESTATE;
        else
            release(u, op, row, &e);
    } else if (op->code == MJ_ENOTFOUND && u->rc == MJ_OK) {
        op->code = MJ_OK;
        mj_event_add(u, row, &t, last_event(&t));
    }
}

/* KICK and BURY of one event. */
static void by_hand(mj_unit *u, mj_op *op, mj_unit_row *row, mj_event_record *e)
{
    if (is_leased(u, e)) {
        op->code = MJ_ESTATE;
    } else if (op->kind == MJ_OP_EVENT_KICK) {
        release(u, op, row, e);
    } else if (e->buried) {
        op->code = MJ_EDUPLICATE;
    } else {
        add_error(e, u->now, op->sig.error);
        bury(u, row, e);
        mj_event_promoted(u, row);
    }
}

void mj_op_event(mj_unit *u, mj_op *op)
{
    mj_event_record e;
    mj_unit_row *row;

    if (op->kind == MJ_OP_EVENT_TAKE) {
        take(u, op);
        return;
    }
    if (op->kind == MJ_OP_EVENT_KICK && op->event.seq == 0) {
        replay(u, op);
        return;
    }
    row = mj_unit_row_of(u, op->event.ref, false);
    if (op->kind == MJ_OP_EVENT_KICK || op->kind == MJ_OP_EVENT_BURY) {
        op->seq = op->event.seq;
        if (fetch(u, op, row, op->event.seq, &e))
            by_hand(u, op, row, &e);
    } else if (fetch(u, op, row, op->event.seq, &e)) {
        if (e.leased && e.tries == op->event.tries) {
            settle(u, op, row, &e);
            mj_event_promoted(u, row);
        } else {
            op->code = MJ_ECHANGED;
        }
    }
}
