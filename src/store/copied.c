/* Reading, comparing and writing what a ref has: see copied.h. */
#include "store/copied.h"

#include <stdlib.h>
#include <string.h>

int mj_side_begin(mj_side *x, mj_store *s, bool write)
{
    int rc = mj_store_ready(s);

    x->u = (mj_unit){.s = s};
    x->b = s->backend;
    s->detail[0] = '\0';
    mj_unit_reset(s);
    return rc != MJ_OK ? rc : x->b->begin(s->db, write, &x->u.tx);
}

mj_entry mj_copied_key(mj_index index, const uint8_t *ref)
{
    mj_entry e = {.index = index};

    memcpy(e.ref, ref, sizeof e.ref);
    return e;
}

static int by_key(const void *a, const void *b)
{
    return mj_entry_order(a, b);
}

/* Fetches rows, where that costs a trip.  Keys are sorted here. */
static int load(mj_side *x, mj_entry *keys, size_t n)
{
    size_t once = 0;

    if (!x->b->load || n == 0)
        return MJ_OK;
    qsort(keys, n, sizeof *keys, by_key);
    for (size_t i = 0; i < n; i++)
        if (once == 0 || mj_entry_order(&keys[once - 1], &keys[i]) != 0)
            keys[once++] = keys[i];
    return x->b->load(x->u.tx, &(mj_need){.keys = keys, .nkeys = once});
}

typedef struct gathered {
    mj_side *x;
    mj_copied *c;
    unsigned room;
} gathered;

static bool one_event(void *ctx, const mj_entry *e, mj_str bytes)
{
    gathered *g = ctx;
    mj_copied *c = g->c;
    mj_copied_event *more;
    mj_event_record r;

    if (c->nevents == g->room) {
        g->room = g->room ? 2 * g->room : 4;
        more = mj_unit_alloc(&g->x->u, g->room * sizeof *more);
        if (!more)
            return false;
        if (c->nevents)
            memcpy(more, c->events, c->nevents * sizeof *more);
        c->events = more;
    }
    c->events[c->nevents++] = (mj_copied_event){e->n, mj_unit_copy(&g->x->u, bytes.p, bytes.n)};
    if (mj_event_decode(bytes, &r) != MJ_OK)
        return true; /* carried over as it is, for check() to tell of */
    c->buried += r.buried;
    c->open += !r.buried;
    if (!r.buried && c->out.seq == 0)
        c->out = (mj_out){r.next_at > 0 ? r.next_at : 0, e->n};
    return true;
}

static int events_of(mj_side *x, mj_copied *c)
{
    mj_scan scan = {.index = MJ_IX_EVENT, .fixed = 1, .from = mj_copied_key(MJ_IX_EVENT, c->ref)};
    int rc = x->b->scan(x->u.tx, &scan, one_event, &(gathered){x, c, 0});

    return rc == MJ_OK ? x->u.rc : rc;
}

/* A tombstone's names: the attempt of an id and the fingerprint of a key are in the indexes alone. */
static int facets_of_tomb(mj_side *x, const mj_tomb *t, mj_facets *f)
{
    mj_entry e = {.index = MJ_IX_KEY, .name = t->key};
    mj_str unused;
    int rc = t->key.n ? x->b->get(x->u.tx, &e, &unused) : MJ_ENOTFOUND;

    f->grave = true;
    f->pruned_at = t->pruned_at;
    if (rc == MJ_OK && memcmp(e.ref, t->ref, sizeof e.ref) == 0) {
        f->key = t->key;
        memcpy(f->fingerprint, e.fingerprint, sizeof f->fingerprint);
    }
    for (unsigned i = 0; i < t->nids && (rc == MJ_OK || rc == MJ_ENOTFOUND); i++) {
        struct mj_attempt_facets *a;
        e = (mj_entry){.index = MJ_IX_TID, .name = t->ids[i]};
        rc = x->b->get(x->u.tx, &e, &unused);
        if (rc != MJ_OK || memcmp(e.ref, t->ref, sizeof e.ref) != 0 || e.n == 0 || e.n > MJ_MAX_ATTEMPTS)
            continue;
        for (; f->nattempts < e.n; f->nattempts++)
            f->attempts[f->nattempts] = (struct mj_attempt_facets){0};
        a = &f->attempts[e.n - 1];
        if (a->nids < MJ_MAX_IDS)
            a->ids[a->nids++] = t->ids[i];
    }
    return rc == MJ_ENOTFOUND ? MJ_OK : rc;
}

static int read_tombs(mj_side *x, mj_copied *rows, uint32_t n)
{
    enum { NAMES = 1 + MJ_MAX_ATTEMPTS * MJ_MAX_IDS }; /* of a tombstone: its key and its ids */
    mj_entry *keys;
    mj_tomb *tombs;
    size_t names = 0;
    uint32_t ntombs = 0, at = 0;
    int rc = MJ_OK;

    for (uint32_t i = 0; i < n; i++)
        ntombs += rows[i].kind == MJ_ROW_TOMB && !rows[i].damaged;
    if (ntombs == 0)
        return MJ_OK;
    tombs = mj_unit_alloc(&x->u, (size_t)ntombs * sizeof *tombs);
    keys = mj_unit_alloc(&x->u, (size_t)ntombs * NAMES * sizeof *keys);
    if (!tombs || !keys)
        return MJ_ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        mj_tomb *t = &tombs[at];
        if (rows[i].kind != MJ_ROW_TOMB || rows[i].damaged)
            continue;
        rows[i].damaged = mj_tomb_decode(rows[i].bytes, t) != MJ_OK || memcmp(t->ref, rows[i].ref, sizeof t->ref) != 0;
        if (rows[i].damaged)
            continue;
        at++;
        if (t->key.n)
            keys[names++] = (mj_entry){.index = MJ_IX_KEY, .name = t->key};
        for (unsigned k = 0; k < t->nids; k++)
            keys[names++] = (mj_entry){.index = MJ_IX_TID, .name = t->ids[k]};
    }
    rc = load(x, keys, names);
    at = 0;
    for (uint32_t i = 0; i < n && rc == MJ_OK; i++)
        if (rows[i].kind == MJ_ROW_TOMB && !rows[i].damaged)
            rc = facets_of_tomb(x, &tombs[at++], &rows[i].facets);
    return rc;
}

/* What a store has under a ref; its strings live in the side's memory. */
static int read_one(mj_side *x, const uint8_t *ref, mj_copied *c)
{
    mj_entry key = mj_copied_key(MJ_IX_TASK, ref);
    mj_task t;
    int rc;

    memset(c, 0, sizeof *c);
    memcpy(c->ref, ref, sizeof c->ref);
    rc = x->b->get(x->u.tx, &key, &c->bytes);
    c->kind = MJ_ROW_TASK;
    if (rc == MJ_ENOTFOUND) {
        key = mj_copied_key(MJ_IX_TOMB, ref);
        rc = x->b->get(x->u.tx, &key, &c->bytes);
        c->kind = MJ_ROW_TOMB;
    }
    if (rc == MJ_ENOTFOUND) {
        c->kind = MJ_ROW_NONE;
        return MJ_OK;
    }
    c->damaged = rc == MJ_ECORRUPT;
    if (rc != MJ_OK)
        return c->damaged ? MJ_OK : rc;
    c->bytes = mj_unit_copy(&x->u, c->bytes.p, c->bytes.n);
    if (x->u.rc != MJ_OK)
        return x->u.rc;
    if (c->kind == MJ_ROW_TOMB)
        return MJ_OK; /* its facets come later, of all tombstones at once */
    c->damaged = mj_task_decode(c->bytes.p, c->bytes.n, &t) != MJ_OK || memcmp(t.ref, ref, sizeof c->ref) != 0;
    if (c->damaged)
        return MJ_OK;
    mj_facets_of(&t, &c->facets);
    return events_of(x, c);
}

int mj_copied_read(mj_side *x, uint8_t (*all)[MJ_ULID_BYTES], uint32_t n, mj_copied **out)
{
    mj_entry *keys = mj_unit_alloc(&x->u, (n + 1) * sizeof *keys);
    int rc;

    *out = mj_unit_alloc(&x->u, (n + 1) * sizeof **out);
    if (!*out || !keys)
        return MJ_ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        keys[i] = mj_copied_key(MJ_IX_TASK, all[i]);
    rc = load(x, keys, n);
    for (uint32_t i = 0; i < n && rc == MJ_OK; i++)
        rc = read_one(x, all[i], &(*out)[i]);
    return rc == MJ_OK ? read_tombs(x, *out, n) : rc;
}

bool mj_copied_same_bytes(mj_str a, mj_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool mj_copied_same(const mj_copied *a, const mj_copied *b)
{
    bool is = a->kind == b->kind && mj_copied_same_bytes(a->bytes, b->bytes) && a->nevents == b->nevents;

    for (unsigned i = 0; i < a->nevents && is; i++)
        is = a->events[i].seq == b->events[i].seq && mj_copied_same_bytes(a->events[i].bytes, b->events[i].bytes);
    return is;
}

void mj_changes_add(mj_changes *w, mj_entry key, bool gone, mj_str bytes)
{
    w->all[w->n++] = (mj_change){.key = key, .gone = gone, .bytes = bytes};
}

static void count(mj_changes *w, const mj_copied *c, int by)
{
    if (c->kind == MJ_ROW_TASK && !c->damaged) {
        w->tally.states[c->facets.state] += by;
        w->tally.ready += c->facets.queued ? by : 0;
    }
    w->tally.events += by * c->open;
    w->tally.buried += by * c->buried;
}

static mj_index index_of(mj_row_kind kind)
{
    return kind == MJ_ROW_TASK ? MJ_IX_TASK : MJ_IX_TOMB;
}

static const mj_copied_event *event_of(const mj_copied *c, uint32_t seq)
{
    for (unsigned i = 0; i < c->nevents; i++)
        if (c->events[i].seq == seq)
            return &c->events[i];
    return NULL;
}

/* What makes `was` into `is`. */
void mj_changes_of(mj_changes *w, const mj_copied *was, const mj_copied *is)
{
    size_t first = w->n;
    mj_entry e;

    if (was->kind != MJ_ROW_NONE && was->kind != is->kind)
        mj_changes_add(w, mj_copied_key(index_of(was->kind), is->ref), true, (mj_str){0});
    if (is->kind != MJ_ROW_NONE)
        mj_changes_add(w, mj_copied_key(index_of(is->kind), is->ref), false, is->bytes);
    if (w->n > first) {
        w->all[first].was = &was->facets;
        w->all[first].is = &is->facets;
    }
    for (unsigned i = 0; i < was->nevents; i++)
        if (!event_of(is, was->events[i].seq)) {
            e = mj_copied_key(MJ_IX_EVENT, is->ref);
            e.n = was->events[i].seq;
            mj_changes_add(w, e, true, (mj_str){0});
        }
    for (unsigned i = 0; i < is->nevents; i++) {
        e = mj_copied_key(MJ_IX_EVENT, is->ref);
        e.n = is->events[i].seq;
        mj_changes_add(w, e, false, is->events[i].bytes);
    }
    if (was->out.seq != is->out.seq || was->out.at != is->out.at)
        for (int put = 0; put < 2; put++) {
            const mj_out *o = put ? &is->out : &was->out;
            if (o->seq == 0)
                continue;
            e = mj_copied_key(MJ_IX_OUTBOX, is->ref);
            e.n = o->seq;
            e.at = o->at;
            mj_changes_add(w, e, !put, (mj_str){0});
        }
    count(w, was, -1);
    count(w, is, 1);
}

/* Ends a write transaction: with what is to be written, or without. */
int mj_side_end(mj_side *x, int rc, const mj_changes *w)
{
    if (rc == MJ_OK && w->n > 0)
        rc = x->b->apply(x->u.tx, w->all, w->n, &w->tally);
    if (rc == MJ_OK && w->n > 0)
        return x->b->commit(x->u.tx);
    x->b->abort(x->u.tx);
    return rc;
}
