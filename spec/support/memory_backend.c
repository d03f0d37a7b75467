/* All rows and entries of a store are one sorted array: a version.  A version never changes once it is committed.  A
 * reader holds the one that was the newest when it began.  A writer applies its changes to a copy, and its commit makes
 * the copy the newest version.  So it is slow, but hardly anything can be wrong. */
#include "memory_backend.h"
#include "base/error.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct item {
    mj_entry e;
    mj_str bytes;
    char strings[]; /* of both */
} item;

typedef struct place place;

typedef struct version {
    unsigned refs; /* the store, and transactions */
    size_t n, room;
    item **items;
    mj_tally totals;
} version;

struct mj_lock { /* a named lock */
    struct mj_lock *next;
    place *at;
    pid_t holder;
    char name[];
};

struct place { /* a store */
    place *next;
    pthread_mutex_t writer; /* held by a write transaction */
    version *newest;
    struct mj_lock *locks; /* held by a process: after a fork the child has a store of its own */
    char where[];
};

struct mj_tx {
    place *at;
    bool write;
    version *base, *next; /* what it reads; what it commits */
};

typedef struct handle {
    place *at;
    struct mj_tx tx;
} handle;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of places, newest and refs */
static place *places;

/* ---- order ---- */

/* The fields of an entry, as MJ_INDEXES has them: s name, r ref, n, a at, p priority from high to low. */
static const char *const fields[MJ_NINDEXES] = {
    [MJ_IX_META] = "s",     [MJ_IX_TASK] = "r",    [MJ_IX_TID] = "s",     [MJ_IX_KEY] = "s",    [MJ_IX_USER] = "sr",
    [MJ_IX_STATE] = "nr",   [MJ_IX_DUE] = "nar",   [MJ_IX_QUEUE] = "spr", [MJ_IX_SLOT] = "arn", [MJ_IX_EVENT] = "rn",
    [MJ_IX_OUTBOX] = "arn", [MJ_IX_ACCOUNT] = "s", [MJ_IX_TOMB] = "r",    [MJ_IX_GRAVE] = "ar", [MJ_IX_REFUSED] = "a"};

static int order(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

static int order_names(mj_str a, mj_str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;

    return c ? c : order(a.n, b.n);
}

/* Compares the first `most` fields. */
static int compare(const mj_entry *a, const mj_entry *b, unsigned most)
{
    const char *f = fields[a->index];
    int c = order(a->index, b->index);

    for (unsigned i = 0; c == 0 && i < most && f[i]; i++)
        c = f[i] == 's'   ? order_names(a->name, b->name)
            : f[i] == 'r' ? memcmp(a->ref, b->ref, sizeof a->ref)
            : f[i] == 'n' ? order(a->n, b->n)
            : f[i] == 'a' ? order(a->at, b->at)
                          : order(b->priority, a->priority);
    return c;
}

enum { ALL = 9 }; /* fields */

/* How many items come before e; with `through`, also those that are equal in these fields. */
static size_t bound(const version *v, const mj_entry *e, unsigned most, bool through)
{
    size_t low = 0, high = v->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (compare(&v->items[mid]->e, e, most) < through)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static item *find(const version *v, const mj_entry *e)
{
    size_t at = bound(v, e, ALL, false);

    return at < v->n && compare(&v->items[at]->e, e, ALL) == 0 ? v->items[at] : NULL;
}

/* ---- versions ---- */

static void drop(version *v)
{
    bool last;

    if (!v)
        return;
    pthread_mutex_lock(&lock);
    last = --v->refs == 0;
    pthread_mutex_unlock(&lock);
    if (!last)
        return;
    for (size_t i = 0; i < v->n; i++)
        free(v->items[i]);
    free(v->items);
    free(v);
}

static version *hold(place *p)
{
    version *v;

    pthread_mutex_lock(&lock);
    v = p->newest;
    v->refs++;
    pthread_mutex_unlock(&lock);
    return v;
}

static void set_newest(place *p, version *v)
{
    version *old;

    pthread_mutex_lock(&lock);
    old = p->newest;
    p->newest = v;
    pthread_mutex_unlock(&lock);
    drop(old);
}

static item *new_item(const mj_entry *e, mj_str bytes)
{
    item *it = calloc(1, sizeof *it + e->name.n + bytes.n);

    if (!it)
        return NULL;
    *it = (item){.e = *e, .bytes = {it->strings + e->name.n, bytes.n}};
    it->e.name.p = it->strings;
    if (e->name.n)
        memcpy(it->strings, e->name.p, e->name.n);
    if (bytes.n)
        memcpy(it->strings + e->name.n, bytes.p, bytes.n);
    return it;
}

static int put(version *v, const mj_entry *e, mj_str bytes)
{
    size_t at = bound(v, e, ALL, false), room = 2 * v->room + 16;
    item *it = new_item(e, bytes), **more;

    if (it && at < v->n && compare(&v->items[at]->e, e, ALL) == 0) {
        free(v->items[at]);
        v->items[at] = it;
        return MJ_OK;
    }
    if (it && v->n == v->room && (more = realloc(v->items, room * sizeof(item *))) != NULL) {
        v->items = more;
        v->room = room;
    }
    if (!it || v->n == v->room) {
        free(it);
        return MJ_ENOMEM;
    }
    memmove(v->items + at + 1, v->items + at, (v->n++ - at) * sizeof(item *));
    v->items[at] = it;
    return MJ_OK;
}

static void del(version *v, const mj_entry *e)
{
    size_t at = bound(v, e, ALL, false);
    item *it = find(v, e);

    if (!it || ((e->index == MJ_IX_TID || e->index == MJ_IX_KEY) && memcmp(it->e.ref, e->ref, sizeof e->ref) != 0))
        return; /* gone, or another task's */
    free(it);
    memmove(v->items + at, v->items + at + 1, (--v->n - at) * sizeof(item *));
}

static version *copy_of(const version *base)
{
    version *v = calloc(1, sizeof *v);

    if (!v)
        return NULL;
    v->refs = 1;
    v->totals = base->totals;
    for (size_t i = 0; i < base->n; i++)
        if (put(v, &base->items[i]->e, base->items[i]->bytes) != MJ_OK) {
            drop(v);
            return NULL;
        }
    return v;
}

/* ---- handles ---- */

/* The store of that name, which is made when it is not there. */
static place *place_of(const char *where)
{
    size_t n = strlen(where) + 1;
    place *p;

    pthread_mutex_lock(&lock);
    for (p = places; p && strcmp(p->where, where) != 0; p = p->next)
        ;
    if (!p && (p = calloc(1, sizeof *p + n)) != NULL) {
        p->newest = calloc(1, sizeof *p->newest);
        if (p->newest) {
            p->newest->refs = 1;
            pthread_mutex_init(&p->writer, NULL);
            memcpy(p->where, where, n);
            p->next = places;
            places = p;
        } else {
            free(p);
            p = NULL;
        }
    }
    pthread_mutex_unlock(&lock);
    return p;
}

static int memory_open(const char *where, const mj_store_options *o, void **db, char *why, size_t why_size)
{
    handle *h = calloc(1, sizeof *h);

    (void)o, (void)why, (void)why_size;
    if (h && !(h->at = place_of(where))) {
        free(h);
        h = NULL;
    }
    *db = h;
    return h ? MJ_OK : MJ_ENOMEM;
}

static void memory_close(void *db)
{
    free(db);
}

static int memory_exists(const char *where, const mj_store_options *o, char *why, size_t why_size)
{
    const place *p;

    (void)o, (void)why, (void)why_size;
    pthread_mutex_lock(&lock);
    for (p = places; p && strcmp(p->where, where) != 0; p = p->next)
        ;
    pthread_mutex_unlock(&lock);
    return p ? MJ_OK : MJ_ENOTFOUND;
}

static const char *memory_library(void *db)
{
    (void)db;
    return "memory";
}

/* ---- named locks ---- */

static int memory_lock(void *db, const char *name, mj_lock **held)
{
    handle *h = db;
    mj_lock *l, *new = calloc(1, sizeof *new + strlen(name) + 1);

    if (!new)
        return MJ_ENOMEM;
    strcpy(new->name, name);
    new->at = h->at;
    new->holder = getpid();
    pthread_mutex_lock(&lock);
    for (l = h->at->locks; l && strcmp(l->name, name) != 0; l = l->next)
        ;
    if (!l) {
        new->next = h->at->locks;
        h->at->locks = new;
    }
    pthread_mutex_unlock(&lock);
    if (l)
        free(new);
    else
        *held = new;
    return l ? MJ_EBUSY : MJ_OK;
}

static void memory_unlock(mj_lock *held)
{
    mj_lock **l = &held->at->locks;

    pthread_mutex_lock(&lock);
    while (*l != held)
        l = &(*l)->next;
    *l = held->next;
    pthread_mutex_unlock(&lock);
    free(held);
}

/* ---- transactions ---- */

static int memory_begin(void *db, bool write, mj_tx **tx)
{
    handle *h = db;

    if (write)
        pthread_mutex_lock(&h->at->writer);
    h->tx = (mj_tx){.at = h->at, .write = write, .base = hold(h->at)};
    *tx = &h->tx;
    return MJ_OK;
}

static void memory_abort(mj_tx *tx)
{
    drop(tx->next);
    drop(tx->base);
    if (tx->write)
        pthread_mutex_unlock(&tx->at->writer);
}

static int memory_commit(mj_tx *tx)
{
    if (tx->next)
        set_newest(tx->at, tx->next);
    tx->next = NULL;
    memory_abort(tx);
    return MJ_OK;
}

static int memory_get(mj_tx *tx, mj_entry *key, mj_str *bytes)
{
    const item *it = find(tx->base, key);

    if (!it)
        return MJ_ENOTFOUND;
    *key = it->e;
    *bytes = it->bytes;
    return MJ_OK;
}

static bool is_row(mj_index i)
{
    return i == MJ_IX_META || i == MJ_IX_TASK || i == MJ_IX_TOMB || i == MJ_IX_EVENT || i == MJ_IX_REFUSED ||
           i == MJ_IX_ACCOUNT;
}

static int memory_scan(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx)
{
    const version *v = tx->base;
    mj_entry from = scan->from;
    size_t low, high;
    uint32_t given = 0;

    from.index = scan->index;
    low = bound(v, &from, scan->fixed, false);
    high = bound(v, &from, scan->fixed, true);
    if (scan->positioned && scan->newest_first)
        high = bound(v, &from, ALL, !scan->after);
    else if (scan->positioned)
        low = bound(v, &from, ALL, scan->after);
    while (low < high) {
        const item *it = v->items[scan->newest_first ? --high : low++], *task = NULL;
        mj_entry key = {.index = MJ_IX_TASK};
        memcpy(key.ref, it->e.ref, sizeof key.ref);
        if ((scan->limit && given++ == scan->limit) || (scan->bounded && it->e.at > scan->until))
            break;
        if (scan->rows && !is_row(scan->index))
            task = find(v, &key);
        if (!each(ctx, &it->e, is_row(scan->index) ? it->bytes : task ? task->bytes : (mj_str){0}))
            break;
    }
    return MJ_OK;
}

static int memory_count(mj_tx *tx, mj_index index, uint64_t *n)
{
    mj_entry e = {.index = index};

    *n = bound(tx->base, &e, 0, true) - bound(tx->base, &e, 0, false);
    return MJ_OK;
}

static int memory_totals(mj_tx *tx, mj_tally *out)
{
    *out = tx->base->totals;
    return MJ_OK;
}

static int write_entry(void *ctx, const mj_entry *e, bool there)
{
    if (there)
        return put(ctx, e, (mj_str){0});
    del(ctx, e);
    return MJ_OK;
}

/* An account is there when it has a row, or holds slots. */
static int count_slots(version *v)
{
    mj_entry slot = {.index = MJ_IX_SLOT}, account = {.index = MJ_IX_ACCOUNT};
    size_t n = bound(v, &account, 0, true);

    for (size_t i = bound(v, &account, 0, false); i < n; i++)
        v->items[i]->e.n = 0;
    for (size_t i = bound(v, &slot, 0, false); i < bound(v, &slot, 0, true); i++) {
        account.name = v->items[i]->e.name;
        if (!find(v, &account) && put(v, &account, (mj_str){0}) != MJ_OK)
            return MJ_ENOMEM;
        find(v, &account)->e.n++;
    }
    for (size_t i = bound(v, &account, 0, true); i-- > bound(v, &account, 0, false);)
        if (v->items[i]->e.n == 0 && v->items[i]->bytes.n == 0)
            del(v, &v->items[i]->e);
    return MJ_OK;
}

static int memory_apply(mj_tx *tx, const mj_change *changes, size_t n, const mj_tally *add)
{
    version *v = tx->next = copy_of(tx->base);
    int rc = v ? MJ_OK : MJ_ENOMEM;

    for (size_t i = 0; i < n && rc == MJ_OK; i++) {
        const mj_change *c = &changes[i];
        if (c->gone)
            del(v, &c->key);
        else
            rc = put(v, &c->key, c->bytes);
        if (rc == MJ_OK && c->was)
            rc = mj_facets_diff(c->key.ref, c->was, c->is, write_entry, v);
    }
    if (rc == MJ_OK)
        rc = count_slots(v);
    if (rc == MJ_OK)
        mj_tally_add(&v->totals, add);
    return rc;
}

static int memory_size(mj_tx *tx, uint64_t *used, uint64_t *reserved)
{
    *used = 0;
    for (size_t i = 0; i < tx->base->n; i++)
        *used += sizeof(item) + tx->base->items[i]->e.name.n + tx->base->items[i]->bytes.n;
    *reserved = *used;
    return MJ_OK;
}

static int memory_backup(mj_tx *tx, const char *to)
{
    place *p = place_of(to);
    version *copy;

    if (!p || p->newest->n > 0)
        return p ? MJ_EEXISTS : MJ_ENOMEM;
    copy = copy_of(tx->base);
    if (!copy)
        return MJ_ENOMEM;
    set_newest(p, copy);
    return MJ_OK;
}

const mj_backend mj_backend_memory = {
    .abi = MJ_BACKEND_ABI,
    .bytes = sizeof(mj_backend),
    .name = "memory",
    .exists = memory_exists,
    .open = memory_open,
    .close = memory_close,
    .begin = memory_begin,
    .get = memory_get,
    .scan = memory_scan,
    .count = memory_count,
    .totals = memory_totals,
    .apply = memory_apply,
    .commit = memory_commit,
    .abort = memory_abort,
    .lock = memory_lock,
    .unlock = memory_unlock,
    .size = memory_size,
    .backup = memory_backup,
    .library = memory_library,
};
