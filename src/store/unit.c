/* A unit of work: its beginning and its end. */
#include "store/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- entries of the store and of this unit ---- */

static bool is_behind(const mj_entry *a, const mj_entry *b)
{
    int order = memcmp(a->ref, b->ref, sizeof a->ref);

    return a->at != b->at ? a->at > b->at : order != 0 ? order > 0 : a->n > b->n;
}

bool mj_unit_insert(mj_entry *sorted, uint32_t *n, uint32_t room, const mj_entry *e)
{
    uint32_t at = *n;
    bool fits = *n < room;

    while (at > 0 && is_behind(&sorted[at - 1], e))
        at--;
    if (at == room)
        return false;
    *n += fits;
    memmove(&sorted[at + 1], &sorted[at], (*n - 1 - at) * sizeof *sorted);
    sorted[at] = *e;
    return fits;
}

/* ---- begin ---- */

/* The accounts whose slots this unit may give out. */
static bool prepare_holds(mj_unit *u)
{
    const mj_store *s = u->s;

    u->holds = mj_unit_alloc(u, (s->ncaps + u->npauses + 1) * sizeof *u->holds);
    for (size_t i = 0; u->holds && i < s->ncaps; i++)
        u->holds[i] = (mj_hold){.account = {s->caps[i].name, (uint32_t)strlen(s->caps[i].name)}, .held = true};
    return u->holds != NULL;
}

/* A store whose copy is not finished takes no writes, nor one that was moved: a job would be sent from both. */
static int check_moving(mj_unit *u)
{
    mj_entry key = {.index = MJ_IX_META, .name = MJ_LIT(MJ_MOVING_KEY)};
    mj_str text;
    int rc = u->s->backend->get(u->tx, &key, &text);

    if (rc != MJ_OK)
        return rc == MJ_ENOTFOUND ? MJ_OK : rc;
    snprintf(u->s->detail, sizeof u->s->detail, "%.*s; see mjhook copy", (int)text.n, text.p);
    return MJ_EMOVED;
}

static int load_meta(mj_unit *u)
{
    int rc = check_moving(u);

    if (rc == MJ_OK)
        rc = u->s->backend->totals(u->tx, &u->totals);
    if (rc == MJ_OK)
        rc = mj_read_judged(u->s, u->tx, &u->judged);
    u->rules = mj_counters_rules(&u->totals.counters, &u->judged, &u->s->options.rules);
    return rc;
}

int mj_unit_begin(mj_unit *u, mj_store *s, const mj_op *ops, size_t n, int64_t now)
{
    *u = (mj_unit){.s = s, .ops = ops, .nops = n, .now = now, .sure = now, .nbuckets = 16, .tally.counters = s->owed};
    while (u->nbuckets < n + n / 2 && u->nbuckets < 65536)
        u->nbuckets *= 2;
    for (size_t i = 0; i < n; i++) {
        u->nclaims += ops[i].kind == MJ_OP_CLAIM;
        u->ntakes += ops[i].kind == MJ_OP_EVENT_TAKE;
        u->npauses += ops[i].kind == MJ_OP_PAUSE;
    }
    s->scratch.failed = false;
    mj_unit_reset(s);
    u->buckets = mj_unit_zero(u, u->nbuckets * sizeof(mj_unit_row *));
    u->names = u->buckets ? mj_unit_zero(u, u->nbuckets * sizeof(mj_unit_name *)) : NULL;
    if (!u->names || !prepare_holds(u))
        return MJ_ENOMEM;
    u->rc = s->backend->begin(s->db, true, &u->tx);
    if (u->rc != MJ_OK)
        return u->rc;
    mj_unit_expect_ops(u, ops, n);
    if (u->rc == MJ_OK)
        u->rc = load_meta(u);
    if (u->rc != MJ_OK)
        s->backend->abort(u->tx);
    return u->rc;
}

/* ---- end ---- */

static mj_entry key_of(mj_index index, const mj_unit_row *row)
{
    mj_entry e = {.index = index};

    memcpy(e.ref, row->ref, sizeof e.ref);
    return e;
}

static mj_index index_of(mj_row_kind kind)
{
    return kind == MJ_ROW_TASK ? MJ_IX_TASK : MJ_IX_TOMB;
}

static size_t changes_of(const mj_unit_row *row, mj_change *out)
{
    size_t n = 0;

    if (row->changed && row->was_kind != row->kind && row->was_kind != MJ_ROW_NONE)
        out[n++] = (mj_change){.key = key_of(index_of(row->was_kind), row), .gone = true};
    if (row->changed && row->kind != MJ_ROW_NONE)
        out[n++] = (mj_change){.key = key_of(index_of(row->kind), row), .bytes = row->bytes};
    if (n > 0) { /* one of them brings what follows for the indexes; a task that came and went brings nothing */
        out[0].was = row->was;
        out[0].is = row->is;
    }
    for (unsigned i = 0; i < row->nevents; i++)
        if (row->events[i].dirty) {
            out[n] = (mj_change){
                .key = key_of(MJ_IX_EVENT, row), .gone = row->events[i].gone, .bytes = row->events[i].bytes};
            out[n++].key.n = row->events[i].seq;
        }
    if (row->out_doubtful ||
        (row->out_changed && (row->out_was.seq != row->out_is.seq || row->out_was.at != row->out_is.at))) {
        for (int put = 0; put < 2; put++) {
            const mj_out *o = put ? &row->out_is : &row->out_was;
            if (o->seq == 0)
                continue;
            out[n] = (mj_change){.key = key_of(MJ_IX_OUTBOX, row), .gone = !put};
            out[n].key.n = o->seq;
            out[n++].key.at = o->at;
        }
    }
    return n;
}

static int by_ref(const void *a, const void *b)
{
    return memcmp((*(mj_unit_row *const *)a)->ref, (*(mj_unit_row *const *)b)->ref, MJ_ULID_BYTES);
}

/* The rows that changed, in the order of their refs; rows has place for all. */
static size_t sort_rows(const mj_unit *u, mj_unit_row **rows)
{
    size_t at = u->nrows, n;
    bool sorted = true;

    for (mj_unit_row *r = u->rows; r; r = r->next) /* from the newest to the oldest */
        if (r->changed || r->out_changed) {
            sorted = sorted && (at == u->nrows || by_ref(&r, &rows[at]) < 0);
            rows[--at] = r;
        }
    n = u->nrows - at;
    memmove(rows, rows + at, n * sizeof(mj_unit_row *));
    if (!sorted)
        qsort(rows, n, sizeof(mj_unit_row *), by_ref);
    return n;
}

/* How many changes there are at most. */
static size_t count_changes(const mj_unit *u, mj_unit_row *const *rows, size_t nrows)
{
    size_t n = u->nevents + u->nchanges;

    for (size_t i = 0; i < nrows; i++) {
        if (rows[i]->changed)
            n += rows[i]->was_kind == rows[i]->kind ? 1 : 2;
        n += rows[i]->out_changed ? 2 : 0;
    }
    return n;
}

static int write_all(mj_unit *u)
{
    mj_unit_row **rows = mj_unit_alloc(u, (u->nrows + 1) * sizeof(mj_unit_row *));
    mj_change *changes;
    size_t n = 0, nrows = 0;

    mj_unit_put_accounts(u);
    u->tally.latest = u->now;
    if (!rows || u->rc != MJ_OK)
        return u->rc;
    nrows = sort_rows(u, rows); /* all writers lock, and write, in one order */
    changes = mj_unit_alloc(u, (count_changes(u, rows, nrows) + 1) * sizeof *changes);
    if (!changes)
        return u->rc;
    for (mj_unit_change *c = u->changes; c; c = c->next) /* first: a row that changed since may ask for a stale entry */
        changes[n++] = c->change;
    for (size_t i = 0; i < nrows; i++)
        n += changes_of(rows[i], changes + n);
    return u->s->backend->apply(u->tx, changes, n, &u->tally);
}

/* What units that changed nothing have counted is stored with the next one that does. */
static void settle(mj_store *s, const mj_unit *u)
{
    if (u->dirty)
        s->owed = (mj_counters){0};
    else
        s->owed = u->tally.counters; /* with what was owed before */
    s->owes = !u->dirty && (s->owes || u->owes);
    s->ready = u->totals.ready + u->tally.ready;
}

int mj_unit_end(mj_unit *u, const mj_ready *ready)
{
    const mj_backend *b = u->s->backend;

    if (u->rc == MJ_OK && u->dirty)
        u->rc = write_all(u);
    if (u->rc == MJ_OK && ready)
        u->rc = ready->call(ready->ctx);
    if (u->rc != MJ_OK || !u->dirty)
        b->abort(u->tx);
    else
        u->rc = b->commit(u->tx);
    mj_unit_reset(u->s);
    if (u->rc == MJ_OK)
        settle(u->s, u);
    return u->rc;
}
