/* For tests of one backend, which BACKEND names: handles, one batch, what a scan gives, faults. */
#ifndef BACKEND_HELP_H
#define BACKEND_HELP_H

#include "store_help.h"

#include <stdatomic.h>

/* ---- strings that last as long as the test: those of a reader's scan end with its callback ---- */

typedef struct kept_string {
    struct kept_string *next;
    char bytes[];
} kept_string;

static kept_string *_Atomic all_kept;

static inline mj_str keep(mj_str s)
{
    kept_string *k = malloc(sizeof *k + s.n);

    CHECK(k != NULL);
    k->next = all_kept;
    while (!atomic_compare_exchange_weak(&all_kept, &k->next, k))
        ;
    if (s.n)
        memcpy(k->bytes, s.p, s.n);
    return (mj_str){s.n ? k->bytes : NULL, s.n};
}

/* ---- faults: a backend that fails when a test asks for it, and else is BACKEND ---- */

typedef enum { FAULT_NONE, FAULT_APPLY, FAULT_COMMIT } fault_at;

static struct {
    fault_at at;
    int code;       /* that it gives */
    unsigned times; /* that it does */
} fault;

static inline bool fails(fault_at at)
{
    if (fault.at != at || fault.times == 0)
        return false;
    fault.times--;
    return true;
}

/* Half of the batch is written when it fails: only abort() can undo that. */
static int faulty_apply(mj_tx *tx, const mj_change *changes, size_t n, const mj_tally *add)
{
    bool failing = fails(FAULT_APPLY);
    int rc = BACKEND.apply(tx, changes, failing ? (n + 1) / 2 : n, add);

    return failing ? fault.code : rc;
}

static int faulty_commit(mj_tx *tx)
{
    if (!fails(FAULT_COMMIT))
        return BACKEND.commit(tx);
    BACKEND.abort(tx); /* a commit ends the transaction in any case */
    return fault.code;
}

/* ---- round trips: what a backend over a network would have to ask for, and what it was told of before ---- */

enum { TOLD = 8192 };

static _Thread_local struct {
    unsigned trips;                        /* since a test set it to 0 */
    unsigned nkeys, nscans, nrefs, nholds; /* nholds: of the last load that holds any */
    bool waits;
    mj_entry keys[TOLD];
    mj_scan scans[64];
    uint8_t refs[TOLD][MJ_ULID_BYTES]; /* of the tasks that are loaded */
} told;

static inline void told_of_ref(const uint8_t *id)
{
    CHECK(told.nrefs < TOLD);
    memcpy(told.refs[told.nrefs++], id, MJ_ULID_BYTES);
}

static inline bool knows_ref(const uint8_t *id)
{
    for (unsigned i = 0; i < told.nrefs; i++)
        if (memcmp(told.refs[i], id, MJ_ULID_BYTES) == 0)
            return true;
    return false;
}

static inline bool knows_key(const mj_entry *e)
{
    if (e->index == MJ_IX_TASK || e->index == MJ_IX_TOMB)
        return knows_ref(e->ref);
    for (unsigned i = 0; i < told.nkeys; i++)
        if (mj_entry_order(&told.keys[i], e) == 0)
            return true;
    return false;
}

static inline bool knows_scan(const mj_scan *scan)
{
    if (scan->index == MJ_IX_EVENT && scan->fixed == 1 && knows_ref(scan->from.ref))
        return true;
    for (unsigned i = 0; i < told.nscans; i++)
        if (mj_scan_same(&told.scans[i], scan))
            return true;
    return false;
}

static int telling_begin(void *db, bool write, mj_tx **tx)
{
    told.nkeys = told.nscans = told.nrefs = 0;
    return BACKEND.begin(db, write, tx);
}

static bool told_of_entry(void *ctx, const mj_entry *e, mj_str bytes)
{
    (void)ctx, (void)bytes;
    told_of_ref(e->ref);
    return true;
}

static int telling_load(mj_tx *tx, const mj_need *need)
{
    told.trips++;
    if (told.nkeys + need->nkeys > TOLD) /* a reader's walk: what it knows need not be all of the store */
        told.nkeys = told.nrefs = 0;
    for (size_t i = 0; i < need->nkeys; i++) {
        mj_entry e = need->keys[i];
        mj_str bytes;
        if (i > 0 && mj_entry_order(&need->keys[i - 1], &e) >= 0)
            MJ_TEST_FAIL("keys that are to be loaded are out of order");
        CHECK(told.nkeys < TOLD);
        told.keys[told.nkeys] = e;
        told.keys[told.nkeys++].name = keep(e.name);
        if (e.index == MJ_IX_TASK ||
            ((e.index == MJ_IX_TID || e.index == MJ_IX_KEY) && BACKEND.get(tx, &e, &bytes) == MJ_OK))
            told_of_ref(e.ref);
    }
    for (size_t i = 0; i < need->nscans; i++) {
        CHECK(told.nscans < sizeof told.scans / sizeof told.scans[0]);
        told.scans[told.nscans++] = need->scans[i];
        if (need->scans[i].claim) {
            int rc = BACKEND.scan(tx, &need->scans[i], told_of_entry, NULL);
            if (rc == MJ_EAGAIN) /* the batch runs again */
                return rc;
            CHECK_INT(rc, MJ_OK);
        }
    }
    if (need->nholds > 0) {
        told.nholds = (unsigned)need->nholds;
        told.waits = need->wait;
    }
    for (size_t i = 0; i < need->nholds && !BACKEND.load; i++)
        need->holds[i].held = true;
    return BACKEND.load ? BACKEND.load(tx, need) : MJ_OK;
}

static int telling_get(mj_tx *tx, mj_entry *e, mj_str *bytes)
{
    told.trips += !knows_key(e);
    return BACKEND.get(tx, e, bytes);
}

typedef struct telling {
    mj_scan_fn each;
    void *ctx;
} telling;

static bool told_of_claim(void *ctx, const mj_entry *e, mj_str bytes)
{
    telling *t = ctx;

    told_of_ref(e->ref);
    return t->each(t->ctx, e, bytes);
}

static int telling_scan(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx)
{
    told.trips += !knows_scan(scan);
    return scan->claim ? BACKEND.scan(tx, scan, told_of_claim, &(telling){each, ctx})
                       : BACKEND.scan(tx, scan, each, ctx);
}

static const mj_backend *backend(void)
{
    static mj_backend b;

    b = BACKEND;
    b.apply = faulty_apply;
    b.commit = faulty_commit;
    b.begin = telling_begin;
    b.load = telling_load;
    b.get = telling_get;
    b.scan = telling_scan;
    return &b;
}

static inline void fail_at(fault_at at, int code, unsigned times)
{
    fault.at = at;
    fault.code = code;
    fault.times = times;
}

/* ---- handles and batches ---- */

typedef struct base { /* a handle on a database */
    void *db;
    mj_store_options options;
    char why[256];
} base;

static inline void open_base(base *b, const char *where)
{
    *b = (base){.options = {.rules = mj_rules_default}};
    if (backend()->open(where, &b->options, &b->db, b->why, sizeof b->why) != MJ_OK)
        MJ_TEST_FAIL("%s: %s", where, b->why);
}

static inline void close_base(base *b)
{
    backend()->close(b->db);
}

static inline mj_tx *begin(base *b, bool write)
{
    mj_tx *tx = NULL;

    if (backend()->begin(b->db, write, &tx) != MJ_OK)
        MJ_TEST_FAIL("begin: %s", b->why);
    return tx;
}

/* A batch, as the engine runs it: what it changes of tasks it has loaded. */
static inline int load_tasks(mj_tx *tx, const mj_change *changes, size_t n)
{
    mj_entry *keys = calloc(n + 1, sizeof *keys);
    size_t nkeys = 0;
    int rc = MJ_OK;

    CHECK(keys != NULL);
    for (size_t i = 0; i < n; i++)
        if (changes[i].key.index == MJ_IX_TASK && BACKEND.load &&
            (nkeys == 0 || memcmp(keys[nkeys - 1].ref, changes[i].key.ref, MJ_ULID_BYTES) < 0))
            keys[nkeys++] = (mj_entry){.index = MJ_IX_TASK},
            memcpy(keys[nkeys - 1].ref, changes[i].key.ref, MJ_ULID_BYTES);
    if (nkeys > 0)
        rc = BACKEND.load(tx, &(mj_need){.keys = keys, .nkeys = nkeys});
    free(keys);
    return rc;
}

static inline int try_batch(base *b, const mj_change *changes, size_t n, mj_tally add)
{
    mj_tx *tx;
    int rc;

    do {
        tx = begin(b, true);
        rc = load_tasks(tx, changes, n);
        if (rc != MJ_OK) {
            backend()->abort(tx);
            continue;
        }
        rc = backend()->apply(tx, changes, n, &add);
        if (rc == MJ_OK)
            rc = backend()->commit(tx);
        else
            backend()->abort(tx);
    } while (rc == MJ_EAGAIN);
    return rc;
}

static inline void batch(base *b, const mj_change *changes, size_t n)
{
    int rc = try_batch(b, changes, n, (mj_tally){0});

    if (rc != MJ_OK)
        MJ_TEST_FAIL("a batch: %s: %s", mj_error_name(rc), b->why);
}

/* ---- the order of entries, as MJ_INDEXES has it ---- */

static inline int in_order(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

static inline bool named_first(mj_index i)
{
    return i == MJ_IX_META || i == MJ_IX_TID || i == MJ_IX_KEY || i == MJ_IX_USER || i == MJ_IX_QUEUE ||
           i == MJ_IX_ACCOUNT;
}

static inline bool is_row(mj_index i)
{
    return i == MJ_IX_META || i == MJ_IX_TASK || i == MJ_IX_TOMB || i == MJ_IX_EVENT || i == MJ_IX_REFUSED ||
           i == MJ_IX_ACCOUNT;
}

/* Of two entries of one index, which have the same name where the name comes first. */
static inline int by_fields(const mj_entry *a, const mj_entry *b)
{
    int by_ref = memcmp(a->ref, b->ref, sizeof a->ref), n = in_order(a->n, b->n), at = in_order(a->at, b->at);

    switch (a->index) {
    case MJ_IX_TASK:
    case MJ_IX_TOMB:
    case MJ_IX_USER:
        return by_ref;
    case MJ_IX_STATE:
        return n ? n : by_ref;
    case MJ_IX_DUE:
        return n ? n : at ? at : by_ref;
    case MJ_IX_QUEUE:
        return a->priority == b->priority ? by_ref : in_order(b->priority, a->priority);
    case MJ_IX_SLOT:
    case MJ_IX_OUTBOX:
        return at ? at : by_ref ? by_ref : n;
    case MJ_IX_EVENT:
        return by_ref ? by_ref : n;
    case MJ_IX_GRAVE:
        return at ? at : by_ref;
    case MJ_IX_REFUSED:
        return at;
    default:
        return 0;
    }
}

static inline bool same_key(const mj_entry *a, const mj_entry *b)
{
    return a->index == b->index && (!named_first(a->index) || mj_str_eq(a->name, b->name)) && by_fields(a, b) == 0;
}

/* Whether a scan with one fixed field that begins at b gives a. */
static inline bool same_group(const mj_entry *a, const mj_entry *b)
{
    return a->index == MJ_IX_USER || a->index == MJ_IX_QUEUE  ? mj_str_eq(a->name, b->name)
           : a->index == MJ_IX_STATE || a->index == MJ_IX_DUE ? a->n == b->n
                                                              : memcmp(a->ref, b->ref, sizeof a->ref) == 0;
}

static inline bool has_groups(mj_index i)
{
    return i == MJ_IX_USER || i == MJ_IX_QUEUE || i == MJ_IX_STATE || i == MJ_IX_DUE || i == MJ_IX_EVENT;
}

/* ---- what a scan gives ---- */

enum { MOST = 4096 };

typedef struct entries {
    unsigned n, stop; /* stop: the callback ends the scan with that many; 0: never */
    mj_entry e[MOST];
    mj_str bytes[MOST];
} entries;

static inline bool one_entry(void *ctx, const mj_entry *e, mj_str bytes)
{
    entries *to = ctx;

    CHECK(to->n < MOST);
    if (e->index == MJ_IX_META && bytes.n == 0)
        MJ_TEST_FAIL("a row of META without bytes");
    to->e[to->n] = *e;
    to->e[to->n].name = keep(e->name);
    to->bytes[to->n++] = keep(bytes);
    return to->n != to->stop;
}

/* To be freed. */
static inline entries *scan_in(mj_tx *tx, mj_scan scan, unsigned stop)
{
    entries *to = calloc(1, sizeof *to);

    CHECK(to != NULL);
    to->stop = stop;
    scan.from.index = scan.index;
    CHECK_INT(backend()->scan(tx, &scan, one_entry, to), MJ_OK);
    return to;
}

static inline uint64_t count_in(mj_tx *tx, mj_index index)
{
    uint64_t n = 0;

    CHECK_INT(backend()->count(tx, index, &n), MJ_OK);
    return n;
}

static inline unsigned count_of(base *b, mj_index index)
{
    mj_tx *tx = begin(b, false);
    entries *all = scan_in(tx, (mj_scan){.index = index}, 0);
    unsigned n = all->n;

    CHECK_INT(count_in(tx, index), n);
    backend()->abort(tx);
    free(all);
    return n;
}

static inline int get_in(mj_tx *tx, mj_entry e, mj_str *bytes)
{
    return backend()->get(tx, &e, bytes);
}

static inline bool is_there(base *b, mj_entry e)
{
    mj_tx *tx = begin(b, false);
    mj_str bytes;
    int rc = get_in(tx, e, &bytes);

    CHECK(rc == MJ_OK || rc == MJ_ENOTFOUND);
    backend()->abort(tx);
    return rc == MJ_OK;
}

#endif
