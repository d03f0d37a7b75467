/* check(): every record against every index, both ways.
 *
 * Index entries are pure functions of the records.  So each entry that a record asks for is looked up, and the number
 * of entries is compared with the number that was asked for.  If both hold, nothing is missing and nothing is left
 * over. Where the numbers differ, a walk over the index names what is left over. */
#include "store/pieces.h"
#include "store/rules.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOLD = 1000 };

typedef struct check {
    mj_store *s;
    mj_tx *tx;
    void (*problem)(void *ctx, const char *text);
    void *ctx;
    mj_check_report *out;
    int rc;                         /* of the backend: ends it all */
    uint64_t expected[MJ_NINDEXES]; /* entries that the records ask for */
    mj_tally counted;
    uint8_t open_of[MJ_ULID_BYTES]; /* the task whose first open event was seen last */
    const char *ref;                /* of the task in hand */
    unsigned nheld, known;
    struct {
        char name[MJ_MAX_NAME + 1];
        uint64_t held;
    } held[MJ_MAX_ACCOUNTS];
} check;

__attribute__((format(printf, 2, 3))) static void tell(check *c, const char *format, ...)
{
    char text[400];
    va_list args;

    if (c->out->found++ >= MOST_TOLD || !c->problem)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): clang-tidy 14 errs */
    va_end(args);
    c->problem(c->ctx, text);
}

/* Whether there is a row or entry that can be read; what follows from its key is filled in. */
static bool there(check *c, mj_entry *e, mj_str *bytes)
{
    int rc = c->s->backend->get(c->tx, e, bytes);

    if (rc != MJ_OK && rc != MJ_ENOTFOUND && rc != MJ_ECORRUPT)
        c->rc = rc;
    return rc == MJ_OK;
}

static bool there_ref(check *c, mj_index index, const uint8_t *ref, mj_str *bytes)
{
    mj_entry e = {.index = index};

    memcpy(e.ref, ref, sizeof e.ref);
    return there(c, &e, bytes);
}

/* Whether the parts that follow from an entry's key are those that the record asks for. */
static bool same(const mj_entry *a, const mj_entry *b)
{
    switch (a->index) {
    case MJ_IX_TID:
        return memcmp(a->ref, b->ref, sizeof a->ref) == 0 && a->n == b->n;
    case MJ_IX_KEY:
        return memcmp(a->ref, b->ref, sizeof a->ref) == 0 &&
               memcmp(a->fingerprint, b->fingerprint, sizeof a->fingerprint) == 0;
    case MJ_IX_SLOT:
        return mj_str_eq(a->name, b->name);
    default:
        return true;
    }
}

static void count_slot(check *c, mj_str account)
{
    unsigned i;

    for (i = 0; i < c->nheld; i++)
        if (strlen(c->held[i].name) == account.n && memcmp(c->held[i].name, account.p, account.n) == 0)
            break;
    if (i == MJ_MAX_ACCOUNTS || account.n > MJ_MAX_NAME)
        return;
    if (i == c->nheld)
        memcpy(c->held[c->nheld++].name, account.p, account.n);
    c->held[i].held++;
}

/* An entry that has to be there. */
static int want(void *ctx, const mj_entry *e, bool put)
{
    check *c = ctx;
    mj_entry found = *e;
    mj_str bytes;

    (void)put;
    c->expected[e->index]++;
    if (e->index == MJ_IX_SLOT)
        count_slot(c, e->name);
    if (!there(c, &found, &bytes) && c->rc == MJ_OK)
        tell(c, "task %s is missing in index %s", c->ref, mj_index_name(e->index));
    else if (c->rc == MJ_OK && !same(e, &found))
        tell(c, "index %s says something else of task %s than its record", mj_index_name(e->index), c->ref);
    return c->rc;
}

static const mj_facets nothing;

static bool check_task(void *ctx, const mj_entry *e, mj_str bytes)
{
    char ref[MJ_ULID_TEXT + 1];
    check *c = ctx;
    mj_facets f;
    mj_task t;
    int rc;

    c->out->tasks++;
    c->expected[MJ_IX_TASK]++;
    mj_ulid_text(e->ref, ref);
    c->ref = ref;
    rc = mj_task_decode(bytes.p, bytes.n, &t);
    if (rc != MJ_OK) {
        tell(c, "task %s: %s", ref, mj_error_text(rc));
        return true;
    }
    if (memcmp(e->ref, t.ref, MJ_ULID_BYTES) != 0)
        tell(c, "the record under %s is another task's", ref);
    c->counted.states[t.state]++;
    mj_facets_of(&t, &f);
    c->counted.ready += f.queued;
    return mj_facets_diff(t.ref, &nothing, &f, want, c) == 0;
}

static bool check_tomb(void *ctx, const mj_entry *e, mj_str bytes)
{
    char ref[MJ_ULID_TEXT + 1];
    mj_entry own = {0};
    check *c = ctx;
    mj_str other;
    mj_tomb t;

    c->out->tombs++;
    c->expected[MJ_IX_TOMB]++;
    mj_ulid_text(e->ref, ref);
    c->ref = ref;
    if (mj_tomb_decode(bytes, &t) != MJ_OK) {
        tell(c, "the tombstone of task %s can't be read", ref);
        return true;
    }
    if (there_ref(c, MJ_IX_TASK, t.ref, &other))
        tell(c, "task %s has a tombstone and is there", ref);
    own.index = MJ_IX_GRAVE;
    own.at = t.pruned_at;
    memcpy(own.ref, t.ref, sizeof own.ref);
    want(c, &own, true);
    /* Attempt and fingerprint are no part of a tombstone. */
    for (unsigned i = 0; i <= t.nids && c->rc == MJ_OK; i++) {
        own = (mj_entry){.index = i < t.nids ? MJ_IX_TID : MJ_IX_KEY, .name = i < t.nids ? t.ids[i] : t.key};
        if (own.name.n == 0)
            continue;
        c->expected[own.index]++;
        if (!there(c, &own, &other) && c->rc == MJ_OK)
            tell(c, "task %s is missing in index %s", ref, mj_index_name(own.index));
    }
    return c->rc == MJ_OK;
}

/* Events: readable, of a known task, and the first open one of each task in the outbox. */
static bool check_event(void *ctx, const mj_entry *e, mj_str bytes)
{
    char ref[MJ_ULID_TEXT + 1];
    mj_event_record event;
    check *c = ctx;
    mj_entry out = *e;
    mj_str task;

    c->out->events++;
    c->expected[MJ_IX_EVENT]++;
    mj_ulid_text(e->ref, ref);
    c->ref = ref;
    if (mj_event_decode(bytes, &event) != MJ_OK) {
        tell(c, "an event of task %s can't be read", ref);
        return true;
    }
    if (!there_ref(c, MJ_IX_TASK, event.ref, &task))
        tell(c, "event %s-%" PRIu32 " is about a task that is not there", ref, event.seq);
    if (event.buried) {
        c->counted.buried++;
        return c->rc == MJ_OK;
    }
    c->counted.events++;
    if (memcmp(c->open_of, event.ref, MJ_ULID_BYTES) == 0)
        return c->rc == MJ_OK; /* behind another open one of its task */
    memcpy(c->open_of, event.ref, MJ_ULID_BYTES);
    out.index = MJ_IX_OUTBOX;
    out.at = event.next_at;
    return want(c, &out, true) == MJ_OK;
}

static bool check_refused(void *ctx, const mj_entry *e, mj_str bytes)
{
    check *c = ctx;
    mj_buf *b = &c->s->scratch;
    mj_refused f;

    b->n = 0;
    mj_put_uint(b, (uint64_t)e->at); /* the number, which decoding expects before the record */
    mj_put_raw(b, bytes.p, bytes.n);
    if (mj_refused_decode((mj_str){(const char *)b->p, (uint32_t)b->n}, &f) != MJ_OK)
        tell(c, "a refused callback can't be read");
    c->expected[MJ_IX_REFUSED]++;
    return true;
}

static void walk_pieces(check *c, mj_index index, mj_want_fn wanted, mj_scan_fn visit)
{
    int rc = c->rc == MJ_OK ? mj_scan_pieces(c->s, c->tx, index, wanted, visit, c) : MJ_OK;

    if (rc != MJ_OK)
        c->rc = rc;
}

static void walk(check *c, mj_index index, mj_scan_fn visit)
{
    int rc = c->rc == MJ_OK ? c->s->backend->scan(c->tx, &(mj_scan){.index = index}, visit, c) : MJ_OK;

    if (rc != MJ_OK)
        c->rc = rc;
}

/* ---- what is left over ---- */

typedef struct ask {
    const mj_entry *e;
    bool yes;
} ask;

static int is_this(void *ctx, const mj_entry *e, bool put)
{
    ask *a = ctx;

    (void)put;
    a->yes = e->index == a->e->index && e->n == a->e->n && e->at == a->e->at && e->priority == a->e->priority &&
             mj_str_eq(e->name, a->e->name);
    return a->yes;
}

/* Does the record that an index entry points to ask for this very entry? */
static bool asked_for(check *c, const mj_entry *e)
{
    mj_entry event = {.index = MJ_IX_EVENT, .n = e->n};
    mj_facets f;
    mj_str bytes;
    mj_task t;
    ask a = {e, false};

    if (e->index == MJ_IX_GRAVE)
        return there_ref(c, MJ_IX_TOMB, e->ref, &bytes);
    memcpy(event.ref, e->ref, sizeof event.ref);
    if (e->index == MJ_IX_OUTBOX)
        return there(c, &event, &bytes);
    if (!there_ref(c, MJ_IX_TASK, e->ref, &bytes))
        return (e->index == MJ_IX_KEY || e->index == MJ_IX_TID) && there_ref(c, MJ_IX_TOMB, e->ref, &bytes);
    if (mj_task_decode(bytes.p, bytes.n, &t) != MJ_OK)
        return true; /* told already */
    mj_facets_of(&t, &f);
    (void)mj_facets_diff(t.ref, &nothing, &f, is_this, &a);
    return a.yes;
}

static bool name_leftover(void *ctx, const mj_entry *e, mj_str bytes)
{
    char ref[MJ_ULID_TEXT + 1];
    check *c = ctx;

    (void)bytes;
    if (asked_for(c, e))
        return c->rc == MJ_OK;
    mj_ulid_text(e->ref, ref);
    tell(c, "index %s has an entry for task %s that its record does not ask for", mj_index_name(e->index), ref);
    return c->rc == MJ_OK;
}

static void compare_sizes(check *c)
{
    /* Of rows, those whose key can't be read are the ones too many. */
    static const mj_index indexes[] = {MJ_IX_TASK, MJ_IX_TOMB,   MJ_IX_EVENT, MJ_IX_REFUSED, MJ_IX_TID,
                                       MJ_IX_KEY,  MJ_IX_USER,   MJ_IX_STATE, MJ_IX_DUE,     MJ_IX_QUEUE,
                                       MJ_IX_SLOT, MJ_IX_OUTBOX, MJ_IX_GRAVE};

    for (size_t i = 0; i < sizeof indexes / sizeof indexes[0] && c->rc == MJ_OK; i++) {
        mj_index index = indexes[i];
        bool rows = index == MJ_IX_TASK || index == MJ_IX_TOMB || index == MJ_IX_EVENT || index == MJ_IX_REFUSED;
        uint64_t n = 0;
        c->rc = c->s->backend->count(c->tx, index, &n);
        if (c->rc != MJ_OK || n == c->expected[index])
            continue;
        tell(c,
             rows ? "%s has %" PRIu64 " rows, the keys of %" PRIu64 " can be read"
                  : "index %s has %" PRIu64 " entries, the records ask for %" PRIu64,
             mj_index_name(index), n, c->expected[index]);
        if (!rows)
            walk(c, index, name_leftover);
    }
}

/* ---- counters ---- */

static bool compare_account(void *ctx, const mj_entry *e, mj_str bytes)
{
    check *c = ctx;
    uint64_t held = 0;
    mj_held h;

    mj_account_read(e, bytes, &h);
    for (unsigned i = 0; i < c->nheld; i++)
        if (strcmp(c->held[i].name, h.name) == 0)
            held = c->held[i].held, c->known++;
    if (held != h.held)
        tell(c, "account %s is said to hold %" PRIu32 " slots, its attempts hold %" PRIu64, h.name, h.held, held);
    return true;
}

static void compare_counters(check *c)
{
    mj_tally stored = {0};

    if (c->rc != MJ_OK || (c->rc = c->s->backend->totals(c->tx, &stored)) != MJ_OK)
        return;
    for (int s = 0; s < MJ_NSTATES; s++)
        if (stored.states[s] != c->counted.states[s])
            tell(c, "the counter of %s says %" PRId64 ", there are %" PRId64, mj_state_name((mj_state)s),
                 stored.states[s], c->counted.states[s]);
    if (stored.events != c->counted.events)
        tell(c, "the counter of events says %" PRId64 ", there are %" PRId64, stored.events, c->counted.events);
    if (stored.buried != c->counted.buried)
        tell(c, "the counter of buried events says %" PRId64 ", there are %" PRId64, stored.buried, c->counted.buried);
    if (stored.ready != c->counted.ready)
        tell(c, "the counter of tasks that may be sent says %" PRId64 ", there are %" PRId64, stored.ready,
             c->counted.ready);
    walk(c, MJ_IX_ACCOUNT, compare_account);
    if (c->rc == MJ_OK && c->known < c->nheld)
        tell(c, "slots are held under an account that the store does not know");
}

int mj_store_check(mj_store *s, void (*problem)(void *ctx, const char *text), void *ctx, mj_check_report *out)
{
    check *c = calloc(1, sizeof *c);
    mj_entry upgrade = {.index = MJ_IX_META, .name = MJ_LIT(MJ_UPGRADE_KEY)};
    mj_str bytes;
    int rc;

    memset(out, 0, sizeof *out);
    if (!c)
        return MJ_ENOMEM;
    c->s = s;
    c->problem = problem;
    c->ctx = ctx;
    c->out = out;
    s->detail[0] = '\0';
    s->scratch.failed = false;
    rc = mj_store_ready(s);
    if (rc == MJ_OK)
        rc = s->backend->begin(s->db, false, &c->tx);
    if (rc == MJ_OK) {
        rc = s->backend->sound ? s->backend->sound(c->tx) : MJ_OK;
        if (rc != MJ_OK)
            s->backend->abort(c->tx);
        if (rc == MJ_ECORRUPT && s->detail[0]) { /* the database would not survive the rest */
            tell(c, "%s", s->detail);
            rc = MJ_OK;
            c->s = NULL;
        }
    }
    if (rc != MJ_OK || !c->s) {
        free(c);
        return rc;
    }
    walk_pieces(c, MJ_IX_TASK, mj_wants_of_task, check_task);
    walk_pieces(c, MJ_IX_TOMB, mj_wants_of_tomb, check_tomb);
    walk_pieces(c, MJ_IX_EVENT, mj_wants_of_event, check_event);
    walk(c, MJ_IX_REFUSED, check_refused);
    if (c->rc == MJ_OK && c->expected[MJ_IX_REFUSED] > MJ_MAX_REFUSED)
        tell(c, "%" PRIu64 " refused callbacks are kept, %d may be", c->expected[MJ_IX_REFUSED], MJ_MAX_REFUSED);
    compare_sizes(c);
    compare_counters(c);
    out->queued = (uint64_t)c->counted.states[MJ_QUEUED];
    out->upgrading = there(c, &upgrade, &bytes);
    s->backend->abort(c->tx);
    rc = c->rc;
    free(c);
    return rc;
}
