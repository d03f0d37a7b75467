/* Which task is sent next, and when: slots, the queue's order, accounts that rest, observed limits. */
#include "store/rules.h"

#include <string.h>

enum { CHUNK = 1024 }; /* entries of the queue that are read at once, at most */

/* ---- accounts ---- */

/* How many more slots may be given out under the account, as far as this unit may say. */
static uint32_t free_slots(mj_unit *u, size_t cap)
{
    int at = u->holds[cap].held ? mj_unit_account(u, u->holds[cap].account) : -1;
    const mj_held *h = at < 0 ? NULL : &u->held[at];
    uint32_t most = h ? mj_account_cap(h->observed, h->observed_at, u->s->caps[cap].max_in_flight, u->now) : 0;

    return !h || h->held >= most || mj_account_rests(h->paused_until, h->paused_at, u->now) ? 0 : most - h->held;
}

void mj_op_pause(mj_unit *u, mj_op *op)
{
    int at = mj_unit_account(u, op->sig.account);
    mj_str reason = mj_str_head(op->sig.error_code, sizeof u->held[0].reason - 1);
    mj_held *h;

    if (at < 0) {
        op->code = MJ_ELIMIT;
        return;
    }
    h = &u->held[at];
    /* A rest that a person ordered outlasts what a refusal asks for, and the end of a refusal's rest. */
    if (strcmp(h->reason, MJ_BY_HAND) == 0 && mj_account_rests(h->paused_until, h->paused_at, u->now) &&
        !mj_str_eq(reason, MJ_LIT(MJ_BY_HAND)))
        return;
    h->paused_until = op->until;
    h->paused_at = op->until ? u->now : 0;
    memset(h->reason, 0, sizeof h->reason);
    if (op->until && reason.n)
        memcpy(h->reason, reason.p, reason.n);
    if (op->until && mj_str_eq(reason, MJ_LIT("concurrency"))) {
        h->observed = h->held;
        h->observed_at = u->now;
    }
    h->dirty = u->dirty = true;
}

/* ---- the queue ---- */

typedef struct place { /* in the queue: higher priority first, then the older ref */
    int32_t priority;
    uint8_t ref[MJ_ULID_BYTES];
} place;

/* One account's part of the queue, as the store has it, read piece by piece; and what this unit has put there. */
struct mj_queue {
    mj_str account;
    mj_unit_row *rows;
    bool ended;
    uint32_t n, at, room; /* room: of `places`, also how many are read at once; 0: none is read yet */
    place *places;
    bool looked, some;           /* whether a task waits in the store, as far as one was looked for ... */
    uint8_t seen[MJ_ULID_BYTES]; /* ... and which */
};

static bool before(const place *a, const place *b)
{
    return a->priority != b->priority ? a->priority > b->priority : memcmp(a->ref, b->ref, sizeof a->ref) < 0;
}

static bool one_place(void *ctx, const mj_entry *e, mj_str bytes)
{
    mj_queue *q = ctx;

    (void)bytes;
    q->places[q->n].priority = e->priority;
    memcpy(q->places[q->n++].ref, e->ref, sizeof e->ref);
    return true;
}

/* The next entries of a queue. */
static mj_scan scan_queue(const mj_queue *q)
{
    mj_scan scan = {.index = MJ_IX_QUEUE,
                    .fixed = 1,
                    .rows = true,
                    .claim = true,
                    .limit = q->room,
                    .from = {.index = MJ_IX_QUEUE, .name = q->account}};

    if (q->n > 0) {
        scan.positioned = scan.after = true;
        scan.from.priority = q->places[q->n - 1].priority;
        memcpy(scan.from.ref, q->places[q->n - 1].ref, sizeof scan.from.ref);
    }
    return scan;
}

static void read_on(mj_unit *u, mj_queue *q)
{
    mj_scan scan = scan_queue(q);
    int rc;

    q->n = q->at = 0;
    rc = u->s->backend->scan(u->tx, &scan, one_place, q);
    if (rc != MJ_OK)
        u->rc = rc;
    q->ended = q->n < q->room;
}

/* Tasks that a scan gives are this unit's until it ends: so no more are read than it may claim. */
static bool make_room(mj_unit *u, mj_queue *q, uint32_t slots)
{
    uint32_t most = u->nclaims < slots ? u->nclaims : slots;

    if (q->room > 0)
        return true;
    q->room = most < 1 ? 1 : most < CHUNK ? most : CHUNK;
    q->places = mj_unit_alloc(u, q->room * sizeof *q->places);
    return q->places != NULL;
}

/* The first of an account's queue ("" : tasks that any account may send): as the store has it, without those that this
 * unit has changed, and with those that it has put there. */
static bool head(mj_unit *u, mj_queue *q, place *out)
{
    bool found = false;

    while (u->rc == MJ_OK && !found) {
        if (q->at == q->n && q->ended)
            break;
        if (q->at == q->n)
            read_on(u, q);
        else if (mj_unit_changed(u, q->places[q->at].ref))
            q->at++;
        else
            found = true;
    }
    if (found)
        *out = q->places[q->at];
    for (mj_unit_row **at = &q->rows; *at;) {
        mj_unit_row *r = *at;
        place p = {r->is->priority, {0}};
        if (!r->is->queued) { /* it was claimed since */
            *at = r->next_queued;
            r->listed_queue = false;
            continue;
        }
        at = &r->next_queued;
        memcpy(p.ref, r->ref, sizeof p.ref);
        if (!found || before(&p, out))
            *out = p;
        found = true;
    }
    return found;
}

/* Opens the queues, and reads those that slots are free for: of the tasks that any account may send with the others. */
static bool open_queues(mj_unit *u)
{
    const mj_store *s = u->s;
    uint32_t all = 0;
    mj_scan *scans;
    size_t n = 0;

    if (u->queues)
        return true;
    u->queues = mj_unit_zero(u, (s->ncaps + 1) * sizeof *u->queues);
    scans = u->queues ? mj_unit_alloc(u, (s->ncaps + 1) * sizeof *scans) : NULL;
    for (size_t i = 0; scans && i <= s->ncaps && u->rc == MJ_OK; i++) {
        mj_queue *q = &u->queues[i];
        uint32_t slots = i < s->ncaps ? free_slots(u, i) : all;
        q->account = i < s->ncaps ? u->holds[i].account : MJ_LIT("");
        all += slots < CHUNK ? slots : CHUNK;
        if (slots > 0 && make_room(u, q, slots))
            scans[n++] = scan_queue(q);
    }
    if (scans)
        mj_unit_expect(u, scans, n);
    return u->rc == MJ_OK;
}

/* Rows that were queued since the last claim go to their accounts; of those that none may send nothing is seen. */
static void sort_queued(mj_unit *u)
{
    mj_unit_row *next;

    for (mj_unit_row *r = u->queued; r; r = next) {
        next = r->next_queued;
        for (size_t i = 0; i <= u->s->ncaps; i++)
            if (mj_str_eq(r->is->account, u->queues[i].account)) {
                r->next_queued = u->queues[i].rows;
                u->queues[i].rows = r;
                break;
            }
    }
    u->queued = NULL;
}

typedef struct look {
    const mj_unit *u;
    mj_queue *q;
} look;

static bool one_waits(void *ctx, const mj_entry *e, mj_str bytes)
{
    look *l = ctx;

    (void)bytes;
    l->q->some = !mj_unit_changed(l->u, e->ref);
    memcpy(l->q->seen, e->ref, sizeof l->q->seen);
    return !l->q->some;
}

/* The first task of a queue that this unit has not changed, also one that another writer is at. */
static mj_scan scan_first(const mj_unit *u, const mj_queue *q)
{
    return (mj_scan){.index = MJ_IX_QUEUE,
                     .fixed = 1,
                     .limit = 1 + (uint32_t)u->ntouched,
                     .from = {.index = MJ_IX_QUEUE, .name = q->account}};
}

/* Whether a task waits in a queue. */
static bool waits(mj_unit *u, mj_queue *q)
{
    mj_scan scan = scan_first(u, q);
    int rc;

    for (const mj_unit_row *r = q->rows; r; r = r->next_queued)
        if (r->is->queued)
            return true;
    if (!q->looked || (q->some && mj_unit_changed(u, q->seen))) {
        q->looked = true;
        q->some = false;
        rc = u->s->backend->scan(u->tx, &scan, one_waits, &(look){u, q});
        if (rc != MJ_OK)
            u->rc = rc;
    }
    return q->some;
}

/* All queues are about to be looked at. */
static void expect_first(mj_unit *u)
{
    mj_scan *scans = mj_unit_alloc(u, (u->s->ncaps + 1) * sizeof *scans);

    for (size_t i = 0; scans && i <= u->s->ncaps; i++)
        scans[i] = scan_first(u, &u->queues[i]);
    if (scans)
        mj_unit_expect(u, scans, u->s->ncaps + 1);
}

static bool any_waits(mj_unit *u)
{
    bool yes = false;

    if (!u->queues[0].looked) /* the first time in this unit */
        expect_first(u);
    for (size_t i = 0; i <= u->s->ncaps && !yes && u->rc == MJ_OK; i++)
        yes = waits(u, &u->queues[i]);
    return yes;
}

/* Picks the task that goes next and its account: the first among the accounts that have a free slot; a task that any
 * account may send goes under the least loaded. */
static bool pick(mj_unit *u, place *best, mj_str *account, mj_queue **from)
{
    const mj_store *s = u->s;
    mj_str least = {0};
    uint32_t all = 0; /* slots */
    bool found = false;
    double load = 2;

    if (!open_queues(u))
        return false;
    sort_queued(u);
    for (size_t i = 0; i <= s->ncaps && u->rc == MJ_OK; i++) {
        mj_queue *q = &u->queues[i];
        mj_str name = i < s->ncaps ? q->account : least;
        uint32_t slots = i < s->ncaps ? free_slots(u, i) : all;
        place p = {0};
        if (slots == 0)
            continue;
        if (i < s->ncaps) {
            double taken = (double)u->held[mj_unit_account(u, name)].held / s->caps[i].max_in_flight;
            least = taken < load ? name : least;
            load = taken < load ? taken : load;
            all += slots < CHUNK ? slots : CHUNK;
        }
        if (!make_room(u, q, slots) || !head(u, q, &p) || (found && !before(&p, best)))
            continue;
        *best = p;
        *account = name;
        *from = q;
        found = true;
    }
    return found && u->rc == MJ_OK;
}

/* Nothing can be claimed.  Where another writer has an account, its slots may be free all the same: then the batch runs
 * again, and waits for all of them. */
static void deny(mj_unit *u, mj_op *op)
{
    bool waiting = any_waits(u);

    for (size_t i = 0; i < u->s->ncaps && waiting && u->rc == MJ_OK; i++)
        if (!u->holds[i].held) {
            u->s->hold_all = true;
            u->rc = MJ_EAGAIN;
        }
    op->code = waiting ? MJ_ELIMIT : MJ_ENOTFOUND;
}

/* Whether an account's rest is over, and nothing has shown since that the reason for it is gone. */
static bool rested(mj_unit *u, mj_str account)
{
    int at = mj_unit_account(u, account);
    const mj_held *h = at < 0 ? NULL : &u->held[at];

    return h && h->paused_until > 0 && !mj_account_rests(h->paused_until, h->paused_at, u->now);
}

/* The head of the queue could not be claimed: it has expired, or its record can't be read.  Either way it must not stay
 * where it keeps the others waiting. */
static void clear_head(mj_unit *u, const place *p, mj_queue *q)
{
    mj_signal sig = {.kind = SIG_READY, .source = MJ_FROM_SWEEP, .expect_state = MJ_QUEUED, .wait_ms = -1};
    mj_entry entry = {.index = MJ_IX_QUEUE, .priority = p->priority, .name = q->account};
    mj_op op = {0};

    memcpy(op.ref, p->ref, sizeof op.ref);
    memcpy(entry.ref, p->ref, sizeof entry.ref);
    mj_apply(u, &op, &sig);
    if (u->rc != MJ_OK || mj_unit_changed(u, p->ref))
        return;
    mj_unit_change_of(u, entry, true, (mj_str){0});
    q->at++;
}

void mj_op_claim(mj_unit *u, mj_op *op)
{
    if (!u->ticked) {
        u->ticked = true; /* unless there is more, or until a task is due again */
        mj_tick_slots(u, MJ_TICK_IN_CLAIM);
        if (u->rc == MJ_OK)
            mj_tick_queue(u, MJ_TICK_IN_CLAIM);
    }
    for (unsigned i = 0; u->rc == MJ_OK; i++) {
        mj_signal sig = op->sig;
        mj_queue *q = NULL;
        place p = {0};

        if (!pick(u, &p, &sig.account, &q)) {
            if (u->rc == MJ_OK)
                deny(u, op);
            return;
        }
        sig.kind = SIG_CLAIM;
        sig.attempt = 0;
        sig.expect_state = MJ_QUEUED;
        mj_op_reset(op, MJ_OK);
        memcpy(op->ref, p.ref, sizeof op->ref);
        op->rested = rested(u, sig.account);
        mj_apply(u, op, &sig);
        if (u->rc != MJ_OK || op->code == MJ_OK)
            return;
        clear_head(u, &p, q);
        if (i == MJ_TICK_IN_CLAIM) { /* the next claim goes on */
            mj_op_reset(op, MJ_ELIMIT);
            return;
        }
    }
}
