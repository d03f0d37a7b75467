#include "store/pieces.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 256 /* rows */ };

typedef struct row {
    mj_entry e;
    mj_str bytes;
    char *copy; /* of both strings: those of a scan end with its callback */
} row;

struct mj_wanted {
    mj_entry *keys;
    size_t n, room;
    bool failed;
};

typedef struct piece {
    row rows[PIECE];
    unsigned n;
    bool failed;
} piece;

void mj_want(mj_wanted *w, mj_entry key)
{
    mj_entry *more;

    if (w->n == w->room) {
        w->room = w->room ? 2 * w->room : 1024;
        more = realloc(w->keys, w->room * sizeof *more);
        w->failed = w->failed || !more;
        if (!more) {
            w->room = w->n;
            return;
        }
        w->keys = more;
    }
    w->keys[w->n++] = key;
}

static bool one_row(void *ctx, const mj_entry *e, mj_str bytes)
{
    piece *p = ctx;
    row *r = &p->rows[p->n];

    *r = (row){*e, bytes, malloc((size_t)e->name.n + bytes.n + 1)};
    p->failed = !r->copy;
    if (p->failed)
        return false;
    if (e->name.n)
        memcpy(r->copy, e->name.p, e->name.n);
    if (bytes.n)
        memcpy(r->copy + e->name.n, bytes.p, bytes.n);
    r->e.name.p = r->copy;
    r->bytes.p = r->copy + e->name.n;
    return ++p->n < PIECE;
}

static int by_key(const void *a, const void *b)
{
    return mj_entry_order(a, b);
}

/* Sorted, each once. */
static int load(mj_store *s, mj_tx *tx, mj_wanted *w)
{
    size_t n = 0;

    if (w->failed)
        return MJ_ENOMEM;
    if (w->n == 0)
        return MJ_OK;
    qsort(w->keys, w->n, sizeof *w->keys, by_key);
    for (size_t i = 0; i < w->n; i++)
        if (n == 0 || mj_entry_order(&w->keys[n - 1], &w->keys[i]) != 0)
            w->keys[n++] = w->keys[i];
    return s->backend->load(tx, &(mj_need){.keys = w->keys, .nkeys = n});
}

/* *more: there may be others behind the last row, which the walk goes on with. */
static int one_piece(mj_store *s, mj_tx *tx, const mj_scan *scan, piece *p, mj_want_fn wanted, mj_scan_fn visit,
                     void *ctx, bool *more)
{
    mj_wanted w = {0};
    int rc = s->backend->scan(tx, scan, one_row, p);

    if (rc == MJ_OK && p->failed)
        rc = MJ_ENOMEM;
    for (unsigned i = 0; i < p->n && rc == MJ_OK; i++)
        wanted(&p->rows[i].e, p->rows[i].bytes, &w);
    if (rc == MJ_OK)
        rc = load(s, tx, &w);
    *more = p->n == PIECE;
    for (unsigned i = 0; i < p->n && rc == MJ_OK; i++)
        if (!visit(ctx, &p->rows[i].e, p->rows[i].bytes)) {
            *more = false;
            break;
        }
    free(w.keys);
    return rc;
}

int mj_scan_pieces(mj_store *s, mj_tx *tx, mj_index index, mj_want_fn wanted, mj_scan_fn visit, void *ctx)
{
    mj_scan scan = {.index = index, .limit = PIECE, .from = {.index = index}};
    mj_entry last;
    char name[MJ_MAX_NAME];
    bool more = true;
    piece *p;
    int rc = MJ_OK;

    if (!s->backend->load)
        return s->backend->scan(tx, &(mj_scan){.index = index}, visit, ctx);
    p = calloc(1, sizeof *p);
    if (!p)
        return MJ_ENOMEM;
    while (rc == MJ_OK && more) {
        rc = one_piece(s, tx, &scan, p, wanted, visit, ctx, &more);
        if (p->n > 0) {
            last = p->rows[p->n - 1].e;
            if (last.name.n)
                memcpy(name, last.name.p, last.name.n);
            last.name.p = name;
            scan.from = last;
            scan.positioned = scan.after = true;
        }
        for (unsigned i = 0; i < p->n; i++)
            free(p->rows[i].copy);
        p->n = 0;
    }
    free(p);
    return rc;
}

/* ---- what a row asks for ---- */

static const mj_facets none;

static void want_ref(mj_wanted *w, mj_index index, const uint8_t *ref)
{
    mj_entry e = {.index = index};

    memcpy(e.ref, ref, sizeof e.ref);
    mj_want(w, e);
}

static int want_one(void *ctx, const mj_entry *e, bool put)
{
    (void)put;
    mj_want(ctx, *e);
    return 0;
}

void mj_wants_of_task(const mj_entry *e, mj_str bytes, mj_wanted *w)
{
    mj_facets f;
    mj_task t;

    (void)e;
    if (mj_task_decode(bytes.p, bytes.n, &t) != MJ_OK)
        return;
    mj_facets_of(&t, &f);
    (void)mj_facets_diff(t.ref, &none, &f, want_one, w);
}

void mj_wants_of_tomb(const mj_entry *e, mj_str bytes, mj_wanted *w)
{
    mj_entry grave = {.index = MJ_IX_GRAVE};
    mj_tomb t;

    (void)e;
    if (mj_tomb_decode(bytes, &t) != MJ_OK)
        return;
    want_ref(w, MJ_IX_TASK, t.ref);
    grave.at = t.pruned_at;
    memcpy(grave.ref, t.ref, sizeof grave.ref);
    mj_want(w, grave);
    for (unsigned i = 0; i < t.nids; i++)
        mj_want(w, (mj_entry){.index = MJ_IX_TID, .name = t.ids[i]});
    if (t.key.n > 0)
        mj_want(w, (mj_entry){.index = MJ_IX_KEY, .name = t.key});
}

void mj_wants_of_event(const mj_entry *e, mj_str bytes, mj_wanted *w)
{
    mj_event_record event;
    mj_entry out = *e;

    if (mj_event_decode(bytes, &event) != MJ_OK)
        return;
    want_ref(w, MJ_IX_TASK, event.ref);
    out.index = MJ_IX_OUTBOX;
    out.at = event.next_at;
    if (!event.buried)
        mj_want(w, out);
}
