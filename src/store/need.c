/* What a unit is about to read: said before, so that a database behind a network is asked once. */
#include "store/unit.h"

#include <stdlib.h>
#include <string.h>

/* ---- scans that several operations share ---- */

/* Of all that is due: rows that this unit has changed are among them. */
static mj_scan due_scan(const mj_unit *u, mj_scan scan, uint32_t limit)
{
    scan.from.index = scan.index;
    scan.rows = scan.bounded = scan.claim = true;
    scan.until = u->now;
    scan.limit = limit + (uint32_t)u->ntouched;
    return scan;
}

mj_scan mj_scan_slots(const mj_unit *u, uint32_t limit)
{
    return due_scan(u, (mj_scan){.index = MJ_IX_SLOT}, limit);
}

mj_scan mj_scan_waits(const mj_unit *u, uint32_t limit)
{
    return due_scan(u, (mj_scan){.index = MJ_IX_DUE, .fixed = 1, .from = {.n = MJ_DUE_QUEUE}}, limit);
}

mj_scan mj_scan_outbox(const mj_unit *u)
{
    enum { MOST = 1024 };

    return (mj_scan){.index = MJ_IX_OUTBOX,
                     .bounded = true,
                     .until = u->now,
                     .claim = true,
                     .limit = u->ntakes < MOST ? u->ntakes : MOST,
                     .from = {.index = MJ_IX_OUTBOX}};
}

/* ---- what operations name ---- */

typedef struct wants {
    mj_entry *keys;
    size_t n;
    bool named, events; /* as in mj_need */
} wants;

static void want(wants *w, mj_entry key)
{
    w->keys[w->n++] = key;
}

static void want_ref(wants *w, const uint8_t *ref)
{
    mj_entry key = {.index = MJ_IX_TASK};

    memcpy(key.ref, ref, sizeof key.ref);
    want(w, key);
}

static void want_name(wants *w, mj_index index, mj_str name, size_t most)
{
    if (name.n > 0 && name.n <= most)
        want(w, (mj_entry){.index = index, .name = name});
}

enum { KEYS_OF_OP = 3, KEYS_OF_UNIT = 8 };

static void want_of(wants *w, const mj_op *op)
{
    switch (op->kind) {
    case MJ_OP_CREATE:
        want_name(w, MJ_IX_KEY, op->task->key, MJ_MAX_NAME);
        want_name(w, MJ_IX_TID, op->sig.task_id, MJ_MAX_TASK_ID);
        want_name(w, MJ_IX_META, op->intake, MJ_MAX_NAME);
        w->named = true;
        return;
    case MJ_OP_REFUSE_INTAKE:
        want_name(w, MJ_IX_META, op->intake, MJ_MAX_NAME);
        return;
    case MJ_OP_SIGNAL:
        if (op->has_ref)
            want_ref(w, op->ref);
        w->named = w->named || !op->has_ref;
        if (!op->has_ref || op->sig.kind == SIG_ACCEPTED) /* else the task most likely has it: mj_unit_expect_ids() */
            want_name(w, MJ_IX_TID, op->sig.task_id, MJ_MAX_TASK_ID);
        return;
    case MJ_OP_PAUSE:
        want_name(w, MJ_IX_ACCOUNT, op->sig.account, MJ_MAX_NAME);
        return;
    case MJ_OP_EVENT_DONE:
    case MJ_OP_EVENT_RETRY:
    case MJ_OP_EVENT_KICK:
    case MJ_OP_EVENT_BURY:
        want_ref(w, op->event.ref);
        w->events = true;
        return;
    default:
        return;
    }
}

static int by_key(const void *a, const void *b)
{
    return mj_entry_order(a, b);
}

/* Sorted, each once. */
static void sort_keys(wants *w)
{
    size_t n = 0;

    qsort(w->keys, w->n, sizeof *w->keys, by_key);
    for (size_t i = 0; i < w->n; i++)
        if (n == 0 || mj_entry_order(&w->keys[n - 1], &w->keys[i]) != 0)
            w->keys[n++] = w->keys[i];
    w->n = n;
}

static void load(mj_unit *u, const mj_need *need)
{
    int rc = u->rc == MJ_OK ? u->s->backend->load(u->tx, need) : MJ_OK;

    if (rc != MJ_OK)
        u->rc = rc;
}

void mj_unit_expect(mj_unit *u, const mj_scan *scans, size_t n)
{
    if (u->s->backend->load && n > 0)
        load(u, &(mj_need){.scans = scans, .nscans = n});
}

void mj_unit_expect_tasks(mj_unit *u, const mj_entry *entries, size_t n)
{
    wants w = {0};

    if (!u->s->backend->load || n == 0)
        return;
    w.keys = mj_unit_alloc(u, n * sizeof *w.keys);
    if (!w.keys)
        return;
    for (size_t i = 0; i < n; i++)
        want_ref(&w, entries[i].ref);
    sort_keys(&w);
    load(u, &(mj_need){.keys = w.keys, .nkeys = w.n});
}

void mj_unit_expect_ids(mj_unit *u)
{
    wants w = {0};

    if (u->ids_expected || !u->s->backend->load)
        return;
    u->ids_expected = true;
    w.keys = mj_unit_alloc(u, (u->nops + 1) * sizeof *w.keys);
    for (size_t i = 0; w.keys && i < u->nops; i++)
        if (u->ops[i].kind == MJ_OP_SIGNAL && u->ops[i].has_ref && u->ops[i].sig.kind != SIG_ACCEPTED)
            want_name(&w, MJ_IX_TID, u->ops[i].sig.task_id, MJ_MAX_TASK_ID);
    if (w.n == 0)
        return;
    sort_keys(&w);
    load(u, &(mj_need){.keys = w.keys, .nkeys = w.n});
}

static bool is_held(const mj_need *need, mj_str account)
{
    for (size_t i = 0; i < need->nholds; i++)
        if (mj_str_eq(need->holds[i].account, account))
            return true;
    return false;
}

/* The row of an account is written by those alone that hold it: a pause holds the accounts that it is about, beside
 * those of the caps, whose places stay as they are. */
static void hold_paused(mj_unit *u, const mj_op *ops, size_t n, mj_need *need)
{
    need->nholds = u->s->ncaps;
    for (size_t i = 0; i < n; i++)
        if (ops[i].kind == MJ_OP_PAUSE && ops[i].sig.account.n > 0 && ops[i].sig.account.n <= MJ_MAX_NAME &&
            !is_held(need, ops[i].sig.account))
            u->holds[need->nholds++] = (mj_hold){.account = ops[i].sig.account};
}

void mj_unit_expect_ops(mj_unit *u, const mj_op *ops, size_t n)
{
    static const char *const meta[] = {MJ_JUDGED_KEY, MJ_MEASURES_KEY, MJ_REWIND_KEY, MJ_CLOCK_KEY, MJ_MOVING_KEY};
    mj_need need = {.wait = u->s->hold_all || u->npauses > 0};
    wants w = {mj_unit_alloc(u, (KEYS_OF_OP * n + KEYS_OF_UNIT) * sizeof *w.keys), .named = false};
    mj_scan scans[4];

    if (!u->s->backend->load || !w.keys)
        return;
    for (size_t i = 0; i < sizeof meta / sizeof meta[0]; i++)
        want_name(&w, MJ_IX_META, (mj_str){meta[i], (uint32_t)strlen(meta[i])}, MJ_MAX_NAME);
    for (size_t i = 0; i < n; i++)
        want_of(&w, &ops[i]);
    sort_keys(&w);
    if (u->nclaims + u->npauses > 0)
        scans[need.nscans++] = (mj_scan){.index = MJ_IX_ACCOUNT};
    if (u->nclaims > 0) {
        scans[need.nscans++] = mj_scan_slots(u, MJ_TICK_IN_CLAIM);
        scans[need.nscans++] = mj_scan_waits(u, MJ_TICK_IN_CLAIM);
    }
    need.holds = u->holds;
    need.nholds = u->nclaims > 0 ? u->s->ncaps : 0;
    if (u->npauses > 0)
        hold_paused(u, ops, n, &need);
    if (u->ntakes > 0)
        scans[need.nscans++] = mj_scan_outbox(u);
    need.keys = w.keys;
    need.nkeys = w.n;
    need.named = w.named;
    need.events = w.events;
    need.scans = scans;
    load(u, &need);
}
