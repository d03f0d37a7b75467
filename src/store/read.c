/* The read half of the store: begin, look, copy, end. */
#include "store/rules.h"

#include <stdio.h>
#include <string.h>

static int copy(mj_buf *out, mj_str bytes)
{
    mj_put_raw(out, bytes.p, bytes.n);
    return out->failed ? MJ_ENOMEM : MJ_OK;
}

static int copy_row(mj_store *s, mj_tx *tx, mj_index index, const uint8_t *ref, mj_buf *out)
{
    mj_entry key = {.index = index};
    mj_str bytes;
    int rc;

    memcpy(key.ref, ref, sizeof key.ref);
    rc = s->backend->get(tx, &key, &bytes);
    return rc != MJ_OK ? rc : copy(out, bytes);
}

static int read_row(mj_store *s, mj_index index, const uint8_t *ref, mj_buf *out)
{
    mj_tx *tx;
    int rc = mj_read_begin(s, &tx);

    if (rc != MJ_OK)
        return rc;
    rc = copy_row(s, tx, index, ref, out);
    s->backend->abort(tx);
    return rc;
}

int mj_store_get(mj_store *s, const uint8_t ref[MJ_ULID_BYTES], mj_buf *out)
{
    return read_row(s, MJ_IX_TASK, ref, out);
}

int mj_store_tomb(mj_store *s, const uint8_t ref[MJ_ULID_BYTES], mj_buf *out)
{
    return read_row(s, MJ_IX_TOMB, ref, out);
}

int mj_store_find(mj_store *s, mj_str task_id, mj_buf *out, uint32_t *attempt)
{
    mj_entry e = {.index = MJ_IX_TID, .name = task_id};
    mj_str bytes;
    mj_tx *tx;
    int rc;

    if (task_id.n == 0 || task_id.n > MJ_MAX_TASK_ID)
        return MJ_ENOTFOUND;
    rc = mj_read_begin(s, &tx);
    if (rc != MJ_OK)
        return rc;
    rc = s->backend->get(tx, &e, &bytes);
    *attempt = e.n;
    if (rc == MJ_OK)
        rc = copy_row(s, tx, MJ_IX_TASK, e.ref, out);
    s->backend->abort(tx);
    return rc;
}

int mj_store_key(mj_store *s, mj_str key, mj_buf *out, bool *pruned)
{
    mj_entry e = {.index = MJ_IX_KEY, .name = key};
    mj_str bytes;
    mj_tx *tx;
    int rc;

    *pruned = false;
    if (key.n == 0 || key.n > MJ_MAX_NAME)
        return MJ_ENOTFOUND;
    rc = mj_read_begin(s, &tx);
    if (rc != MJ_OK)
        return rc;
    rc = s->backend->get(tx, &e, &bytes);
    if (rc == MJ_OK)
        rc = copy_row(s, tx, MJ_IX_TASK, e.ref, out);
    else if (rc == MJ_ENOTFOUND)
        e.index = MJ_IX_META; /* there is no such key */
    if (rc == MJ_ENOTFOUND && e.index == MJ_IX_KEY) {
        rc = copy_row(s, tx, MJ_IX_TOMB, e.ref, out);
        *pruned = rc == MJ_OK;
    }
    s->backend->abort(tx);
    return rc;
}

/* ---- refused callbacks ---- */

typedef struct list {
    mj_buf *scratch, *out;
    uint32_t limit;
} list;

/* A record with its number before it. */
static bool one_refused(void *ctx, const mj_entry *e, mj_str bytes)
{
    list *l = ctx;
    mj_buf *b = l->scratch;

    if (l->limit == 0)
        return false;
    b->n = 0;
    mj_put_uint(b, (uint64_t)e->at);
    mj_put_raw(b, bytes.p, bytes.n);
    mj_put_str(l->out, (mj_str){(const char *)b->p, (uint32_t)b->n});
    return --l->limit > 0 && !b->failed;
}

int mj_store_refused(mj_store *s, uint64_t below, uint32_t limit, mj_buf *out)
{
    mj_scan scan = {.index = MJ_IX_REFUSED,
                    .newest_first = true,
                    .positioned = below != 0,
                    .after = below != 0,
                    .from = {.index = MJ_IX_REFUSED, .at = below > INT64_MAX ? INT64_MAX : (int64_t)below}};
    list l = {&s->scratch, out, limit};
    mj_tx *tx;
    int rc = mj_read_begin(s, &tx);

    if (rc != MJ_OK)
        return rc;
    s->scratch.failed = false;
    rc = s->backend->scan(tx, &scan, one_refused, &l);
    if (rc == MJ_OK && (out->failed || s->scratch.failed))
        rc = MJ_ENOMEM;
    s->backend->abort(tx);
    return rc;
}

/* ---- statistics ---- */

static mj_account_stats *account_stats(mj_stats *out, const char *name)
{
    mj_account_stats *a;

    for (unsigned i = 0; i < out->naccounts; i++)
        if (strcmp(out->accounts[i].name, name) == 0)
            return &out->accounts[i];
    if (out->naccounts == MJ_MAX_ACCOUNTS)
        return NULL;
    a = &out->accounts[out->naccounts++];
    snprintf(a->name, sizeof a->name, "%s", name);
    return a;
}

static bool one_account(void *ctx, const mj_entry *e, mj_str bytes)
{
    mj_account_stats *a;
    mj_held h;

    mj_account_read(e, bytes, &h);
    a = account_stats(ctx, h.name);
    if (!a)
        return true;
    memcpy(a->reason, h.reason, sizeof a->reason);
    a->held = h.held;
    a->paused_until = h.paused_until;
    a->paused_at = h.paused_at;
    a->observed = h.observed;
    a->observed_at = h.observed_at;
    return true;
}

static bool first(void *ctx, const mj_entry *e, mj_str bytes)
{
    (void)bytes;
    *(mj_entry *)ctx = *e;
    return false;
}

enum { OPEN_STATES = 4, ACCOUNTS = OPEN_STATES, EVENTS, NSCANS };

/* What is looked at: the oldest task of each state that is no end, all accounts, and the event that waits longest. */
static void plan(mj_scan scans[NSCANS])
{
    static const mj_state open[OPEN_STATES] = {MJ_QUEUED, MJ_SUBMITTING, MJ_AMBIGUOUS, MJ_PENDING};

    for (unsigned i = 0; i < OPEN_STATES; i++)
        scans[i] =
            (mj_scan){.index = MJ_IX_STATE, .fixed = 1, .limit = 1, .from = {.index = MJ_IX_STATE, .n = open[i]}};
    scans[ACCOUNTS] = (mj_scan){.index = MJ_IX_ACCOUNT};
    scans[EVENTS] = (mj_scan){.index = MJ_IX_OUTBOX, .limit = 1};
}

/* Refs begin with their time, the outbox is ordered by its. */
static int read_oldest(mj_store *s, mj_tx *tx, const mj_scan scans[NSCANS], mj_stats *out)
{
    mj_entry e;
    int rc = MJ_OK;

    for (unsigned i = 0; i < OPEN_STATES && rc == MJ_OK; i++) {
        e.index = MJ_IX_META;
        rc = s->backend->scan(tx, &scans[i], first, &e);
        if (rc == MJ_OK && e.index == MJ_IX_STATE) {
            int64_t at = mj_ulid_time(e.ref);
            out->oldest_open = out->oldest_open == 0 || at < out->oldest_open ? at : out->oldest_open;
        }
    }
    e = (mj_entry){0};
    if (rc == MJ_OK)
        rc = s->backend->scan(tx, &scans[EVENTS], first, &e);
    out->event_due = e.at;
    return rc;
}

static int read_stats(mj_store *s, mj_tx *tx, mj_stats *out)
{
    mj_tally totals = {0};
    mj_scan scans[NSCANS];
    int rc = MJ_OK;

    plan(scans);
    if (s->backend->load)
        rc = s->backend->load(tx, &(mj_need){.scans = scans, .nscans = NSCANS});
    if (rc == MJ_OK)
        rc = s->backend->totals(tx, &totals);
    for (unsigned i = 0; i < MJ_NSTATES; i++)
        out->states[i] = (uint64_t)totals.states[i];
    out->events = (uint64_t)totals.events;
    out->buried = (uint64_t)totals.buried;
    out->ready = (uint64_t)totals.ready;
    out->latest = totals.latest;
    out->counters = totals.counters;
    for (size_t i = 0; i < s->ncaps; i++) { /* the accounts that may be used, and those that still hold slots */
        mj_account_stats *a = account_stats(out, s->caps[i].name);
        if (a)
            a->max_in_flight = s->caps[i].max_in_flight;
    }
    if (rc == MJ_OK)
        rc = mj_read_judged(s, tx, &out->judged);
    if (rc == MJ_OK)
        rc = s->backend->scan(tx, &scans[ACCOUNTS], one_account, out);
    if (rc == MJ_OK)
        rc = read_oldest(s, tx, scans, out);
    if (rc == MJ_OK)
        rc = s->backend->size(tx, &out->map_used, &out->map_size);
    return rc;
}

int mj_store_stats(mj_store *s, mj_stats *out)
{
    mj_tx *tx;
    int rc = mj_read_begin(s, &tx);

    memset(out, 0, sizeof *out);
    if (rc != MJ_OK)
        return rc;
    out->rules = s->options.rules;
    rc = read_stats(s, tx, out);
    s->backend->abort(tx);
    return rc;
}

int mj_store_sums(mj_store *s, int64_t *ready, int64_t *latest)
{
    mj_tally totals = {0};
    mj_tx *tx;
    int rc = mj_read_begin(s, &tx);

    if (rc != MJ_OK)
        return rc;
    rc = s->backend->totals(tx, &totals);
    *ready = totals.ready;
    *latest = totals.latest;
    s->backend->abort(tx);
    return rc;
}
