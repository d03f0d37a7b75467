#include "store/unit.h"

#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

enum {
    BLOCK = 65536,
    FORGET_MS = 86400000 /* an observed limit says nothing any more after a day: it has long risen to the full one */
};

struct mj_block {
    struct mj_block *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

/* What is larger than a block gets one of its own, behind the one in use. */
static mj_block *new_block(mj_unit *u, size_t n)
{
    size_t size = n > BLOCK ? n : BLOCK;
    mj_block *b = malloc(sizeof *b + size), **at = &u->s->memory;

    if (!b) {
        u->rc = MJ_ENOMEM;
        return NULL;
    }
    if (*at && n > BLOCK)
        at = &(*at)->next;
    *b = (mj_block){.next = *at, .size = size};
    *at = b;
    return b;
}

void *mj_unit_alloc(mj_unit *u, size_t n)
{
    mj_block *b = u->s->memory;
    void *p;

    n = (n + 15) & ~(size_t)15;
    if (!b || b->size - b->used < n) {
        b = new_block(u, n);
        if (!b)
            return NULL;
    }
    p = b->bytes + b->used;
    b->used += n;
    return p;
}

mj_str mj_unit_copy(mj_unit *u, const void *p, size_t n)
{
    char *to = mj_unit_alloc(u, n ? n : 1);

    if (!to)
        return (mj_str){0};
    if (n)
        memcpy(to, p, n);
    return (mj_str){to, (uint32_t)n};
}

/* Keeps one block, the most there is need of for a small batch. */
static void reset_memory(mj_store *s)
{
    mj_block *keep = NULL, *next;

    for (mj_block *b = s->memory; b; b = next) {
        next = b->next;
        if (!keep && b->size == BLOCK)
            keep = b;
        else
            free(b);
    }
    s->memory = keep;
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
}

void mj_unit_free(mj_store *s)
{
    mj_block *next;

    for (mj_block *b = s->memory; b; b = next) {
        next = b->next;
        free(b);
    }
    s->memory = NULL;
}

/* ---- rows ---- */

static size_t bucket_of(const mj_unit *u, const uint8_t *ref)
{
    uint64_t h;

    memcpy(&h, ref + 8, sizeof h); /* the random half of a ULID; refs of one millisecond differ in its last bytes */
    h ^= h >> 32 ^ ((uint64_t)ref[5] << 8 | ref[7]);
    return (size_t)((h * 0x9E3779B97F4A7C15u) >> 32) & (u->nbuckets - 1);
}

mj_unit_row *mj_unit_seen(const mj_unit *u, const uint8_t *ref)
{
    mj_unit_row *r = u->buckets[bucket_of(u, ref)];

    while (r && memcmp(r->ref, ref, MJ_ULID_BYTES) != 0)
        r = r->chain;
    return r;
}

static void look(mj_unit *u, mj_unit_row *r)
{
    mj_entry key = {.index = MJ_IX_TASK};
    int rc;

    memcpy(key.ref, r->ref, MJ_ULID_BYTES);
    rc = u->s->backend->get(u->tx, &key, &r->bytes);
    r->kind = MJ_ROW_TASK;
    if (rc == MJ_ENOTFOUND) {
        key.index = MJ_IX_TOMB;
        rc = u->s->backend->get(u->tx, &key, &r->bytes);
        r->kind = MJ_ROW_TOMB;
    }
    r->damaged = rc == MJ_ECORRUPT; /* fails the operations on it, and no others */
    if (rc == MJ_ENOTFOUND || r->damaged) {
        r->kind = MJ_ROW_NONE;
        r->bytes = (mj_str){0};
        rc = MJ_OK;
    }
    r->was_kind = r->kind;
    r->looked = rc == MJ_OK;
    if (rc != MJ_OK)
        u->rc = rc;
}

mj_unit_row *mj_unit_row_of(mj_unit *u, const uint8_t *ref, bool wanted)
{
    mj_unit_row *r = mj_unit_seen(u, ref);
    size_t at;

    if (!r) {
        r = mj_unit_alloc(u, sizeof *r);
        if (!r)
            return NULL;
        *r = (mj_unit_row){.next = u->rows};
        memcpy(r->ref, ref, MJ_ULID_BYTES);
        at = bucket_of(u, ref);
        r->chain = u->buckets[at];
        u->buckets[at] = r;
        u->rows = r;
        u->nrows++;
    }
    if (wanted && !r->looked)
        look(u, r);
    return u->rc == MJ_OK ? r : NULL;
}

int mj_unit_task(mj_unit *u, const uint8_t *ref, mj_unit_row **row, mj_task *t)
{
    mj_unit_row *r = mj_unit_row_of(u, ref, true);
    int rc;

    *row = r;
    if (!r)
        return u->rc;
    if (r->kind != MJ_ROW_TASK)
        return r->damaged ? MJ_ECORRUPT : MJ_ENOTFOUND;
    rc = mj_task_decode(r->bytes.p, r->bytes.n, t);
    return rc == MJ_OK && memcmp(t->ref, ref, MJ_ULID_BYTES) != 0 ? MJ_ECORRUPT : rc;
}

static void touched(mj_unit *u, mj_unit_row *row)
{
    u->ntouched += !row->changed;
    row->changed = u->dirty = true;
}

bool mj_unit_before(mj_unit *u, mj_unit_row *row, const mj_task *t)
{
    if (row->was)
        return true;
    row->was = mj_unit_alloc(u, sizeof *row->was);
    row->is = row->was ? mj_unit_alloc(u, sizeof *row->is) : NULL;
    if (!row->is)
        return row->was = NULL, false;
    if (t)
        mj_facets_of(t, row->was);
    else
        memset(row->was, 0, sizeof *row->was);
    row->is->nattempts = 0; /* nothing yet */
    return true;
}

/* Whether all accounts whose slots the task holds have a place. */
static bool accounts_known(mj_unit *u, const mj_task *t)
{
    for (unsigned i = 0; i < t->nattempts; i++)
        if (t->attempts[i].slot && mj_unit_account(u, t->attempts[i].account) < 0)
            return false;
    return true;
}

static void follow_slots(mj_unit *u, const mj_facets *old, const mj_facets *new)
{
    for (unsigned i = 0; i < new->nattempts || i < old->nattempts; i++) {
        const struct mj_attempt_facets *a = i < old->nattempts ? &old->attempts[i] : NULL;
        const struct mj_attempt_facets *b = i < new->nattempts ? &new->attempts[i] : NULL;
        if (a && a->slot && b && b->slot && mj_str_eq(a->account, b->account))
            continue;
        if (a && a->slot)
            mj_unit_hold(u, a->account, -1);
        if (b && b->slot)
            mj_unit_hold(u, b->account, 1);
    }
}

static void follow_names(mj_unit *u, const mj_unit_row *row, const mj_facets *old, const mj_facets *new)
{
    mj_entry e = {.index = MJ_IX_KEY, .name = new->key};

    memcpy(e.ref, row->ref, sizeof e.ref);
    memcpy(e.fingerprint, new->fingerprint, sizeof e.fingerprint);
    if (!old->exists && new->key.n > 0)
        mj_unit_add_name(u, e);
    for (unsigned i = 0; i < new->nattempts; i++)
        for (unsigned k = i < old->nattempts ? old->attempts[i].nids : 0; k < new->attempts[i].nids; k++) {
            e.index = MJ_IX_TID;
            e.name = new->attempts[i].ids[k];
            e.n = i + 1;
            mj_unit_add_name(u, e);
        }
}

/* A tick would have something to do with it. */
static bool is_due(const mj_unit *u, const mj_facets *f)
{
    bool due = f->due == MJ_DUE_QUEUE && f->due_at <= u->now;

    for (unsigned i = 0; i < f->nattempts && !due; i++)
        due = f->attempts[i].slot && f->attempts[i].slot_until <= u->now;
    return due;
}

int mj_unit_put(mj_unit *u, mj_unit_row *row, const mj_task *t)
{
    mj_buf *b = &u->s->scratch;
    mj_facets *old = row->changed ? row->is : row->was, now;
    mj_str bytes;
    int rc;

    if (!accounts_known(u, t))
        return MJ_ELIMIT;
    b->n = 0;
    rc = mj_task_encode(t, b);
    bytes = rc == MJ_OK ? mj_unit_copy(u, b->p, b->n) : (mj_str){0};
    if (rc != MJ_OK || u->rc != MJ_OK)
        return u->rc = u->rc != MJ_OK ? u->rc : rc;
    mj_facets_of(t, &now);
    follow_slots(u, old, &now);
    follow_names(u, row, old, &now);
    if (old->exists)
        u->tally.states[old->state]--;
    u->tally.states[now.state]++;
    /* The facets' strings are the old record's or the operation's, which both last as long as the unit. */
    memcpy(row->is, &now, offsetof(mj_facets, attempts) + now.nattempts * sizeof now.attempts[0]);
    row->bytes = bytes;
    row->kind = MJ_ROW_TASK;
    row->looked = true;
    touched(u, row);
    if (is_due(u, &now))
        u->ticked = false;
    if (now.queued && !row->listed_queue) {
        row->next_queued = u->queued;
        u->queued = row;
        row->listed_queue = true;
    }
    return u->rc;
}

void mj_unit_entomb(mj_unit *u, mj_unit_row *row, mj_str tomb, int64_t pruned_at)
{
    const mj_facets *old = row->changed ? row->is : row->was;
    mj_facets *is = row->is;

    u->tally.states[old->state]--;
    memmove(is, old, sizeof *is); /* keys and ids stay, until the tombstone goes */
    is->exists = is->queued = false;
    is->due = MJ_DUE_NONE;
    is->grave = true;
    is->pruned_at = pruned_at;
    for (unsigned i = 0; i < is->nattempts; i++)
        is->attempts[i].slot = false;
    row->kind = MJ_ROW_TOMB;
    row->bytes = tomb;
    touched(u, row);
}

void mj_unit_forget(mj_unit *u, mj_unit_row *row, const mj_tomb *t)
{
    if (!mj_unit_before(u, row, NULL))
        return;
    if (!row->changed) {
        row->was->grave = true;
        row->was->pruned_at = t->pruned_at;
        row->was->key = t->key;
        row->was->nattempts = (t->nids + MJ_MAX_IDS - 1) / MJ_MAX_IDS;
        for (unsigned i = 0; i < t->nids; i++) {
            struct mj_attempt_facets *a = &row->was->attempts[i / MJ_MAX_IDS];
            a->ids[a->nids++] = t->ids[i];
        }
    }
    memset(row->is, 0, sizeof *row->is);
    row->kind = MJ_ROW_NONE;
    row->bytes = (mj_str){0};
    touched(u, row);
}

/* ---- names ---- */

/* Eight bytes at a time: each task of a batch asks for its names several times. */
static size_t hash_name(mj_str s)
{
    static const uint64_t K = 0x9E3779B97F4A7C15u;
    uint64_t h = s.n * K, part;
    uint32_t i = 0;

    for (; i + sizeof part <= s.n; i += sizeof part) {
        memcpy(&part, s.p + i, sizeof part);
        h = (h ^ part) * K;
        h ^= h >> 32;
    }
    part = 0;
    memcpy(&part, s.p + i, s.n - i);
    h = (h ^ part) * K;
    return (size_t)(h >> 32);
}

bool mj_unit_add_name(mj_unit *u, mj_entry e)
{
    size_t at = hash_name(e.name) & (u->nbuckets - 1);
    struct mj_unit_name *n = mj_unit_alloc(u, sizeof *n);

    if (!n)
        return false;
    n->entry = e;
    n->chain = u->names[at];
    u->names[at] = n;
    return true;
}

static bool is_forgotten(const mj_unit *u, const uint8_t *ref)
{
    const mj_unit_row *r = mj_unit_seen(u, ref);

    return r && r->changed && r->kind == MJ_ROW_NONE;
}

int mj_unit_find(mj_unit *u, mj_entry *e)
{
    mj_str bytes;
    int rc;

    for (struct mj_unit_name *n = u->names[hash_name(e->name) & (u->nbuckets - 1)]; n; n = n->chain)
        if (n->entry.index == e->index && mj_str_eq(n->entry.name, e->name) && !is_forgotten(u, n->entry.ref)) {
            *e = n->entry;
            return MJ_OK;
        }
    rc = u->s->backend->get(u->tx, e, &bytes);
    if (rc == MJ_OK && is_forgotten(u, e->ref))
        return MJ_ENOTFOUND;
    if (rc != MJ_OK && rc != MJ_ENOTFOUND && rc != MJ_ECORRUPT) /* one unreadable entry fails one operation */
        u->rc = rc;
    return rc;
}

static bool same_key(const mj_entry *a, const mj_entry *b)
{
    return a->index == b->index && a->n == b->n && a->at == b->at && a->priority == b->priority &&
           mj_str_eq(a->name, b->name) && memcmp(a->ref, b->ref, sizeof a->ref) == 0;
}

static mj_unit_change *change_of(const mj_unit *u, const mj_entry *key)
{
    mj_unit_change *c = u->changes;

    while (c && !same_key(&c->change.key, key))
        c = c->next;
    return c;
}

void mj_unit_change_of(mj_unit *u, mj_entry key, bool gone, mj_str bytes)
{
    mj_unit_change *c = change_of(u, &key);

    if (!c) {
        c = mj_unit_alloc(u, sizeof *c);
        if (!c)
            return;
        c->next = u->changes;
        u->changes = c;
        u->nchanges++;
    }
    c->change = (mj_change){.key = key, .gone = gone, .bytes = bytes};
    u->dirty = true;
}

int mj_unit_meta(mj_unit *u, mj_entry key, mj_str *bytes)
{
    const mj_unit_change *c = change_of(u, &key);
    int rc = c && c->change.gone ? MJ_ENOTFOUND : MJ_OK;

    if (c)
        *bytes = c->change.bytes;
    else
        rc = u->s->backend->get(u->tx, &key, bytes);
    if (rc != MJ_OK && rc != MJ_ENOTFOUND)
        u->rc = rc;
    return rc;
}

/* ---- events ---- */

static mj_unit_event *new_event(mj_unit *u, mj_unit_row *row)
{
    mj_unit_event *more;

    if (row->nevents == row->room) {
        row->room = row->room ? 2 * row->room : 4;
        more = mj_unit_alloc(u, row->room * sizeof *more);
        if (!more)
            return NULL;
        if (row->nevents)
            memcpy(more, row->events, row->nevents * sizeof *more);
        row->events = more;
    }
    return &row->events[row->nevents++];
}

typedef struct gather {
    mj_unit *u;
    mj_unit_row *row;
} gather;

static bool one_event(void *ctx, const mj_entry *e, mj_str bytes)
{
    gather *g = ctx;
    mj_unit_event *new = new_event(g->u, g->row);
    mj_event_record record;

    if (!new)
        return false;
    *new = (mj_unit_event){.seq = e->n, .bytes = bytes};
    if (mj_event_decode(bytes, &record) == MJ_OK) {
        new->open = !record.buried;
        new->next_at = record.next_at;
    }
    return true;
}

static mj_out first_open(const mj_unit_row *row)
{
    for (unsigned i = 0; i < row->nevents; i++)
        if (row->events[i].open && !row->events[i].gone)
            return (mj_out){row->events[i].next_at > 0 ? row->events[i].next_at : 0, row->events[i].seq};
    return (mj_out){0};
}

bool mj_unit_events(mj_unit *u, mj_unit_row *row)
{
    mj_scan scan = {.index = MJ_IX_EVENT, .fixed = 1, .from = {.index = MJ_IX_EVENT}};
    int rc;

    if (row->events_known)
        return true;
    memcpy(scan.from.ref, row->ref, MJ_ULID_BYTES);
    rc = u->s->backend->scan(u->tx, &scan, one_event, &(gather){u, row});
    if (rc != MJ_OK && u->rc == MJ_OK)
        u->rc = rc;
    row->events_known = u->rc == MJ_OK;
    row->out_was = row->out_is = first_open(row);
    return row->events_known;
}

mj_unit_event *mj_unit_event_of(mj_unit_row *row, uint32_t seq)
{
    for (unsigned i = 0; i < row->nevents; i++)
        if (row->events[i].seq == seq && !row->events[i].gone)
            return &row->events[i];
    return NULL;
}

bool mj_unit_set_event(mj_unit *u, mj_unit_row *row, uint32_t seq, mj_str bytes, bool open, int64_t next_at)
{
    mj_unit_event *e = NULL;

    for (unsigned i = 0; i < row->nevents && !e; i++)
        if (row->events[i].seq == seq)
            e = &row->events[i];
    if (!e) {
        e = new_event(u, row);
        if (!e)
            return false;
        *e = (mj_unit_event){.seq = seq};
        for (; e > row->events && e[-1].seq > seq; e--) { /* a replayed one may come before others */
            mj_unit_event swap = e[-1];
            e[-1] = *e;
            *e = swap;
        }
    }
    u->nevents += !e->dirty;
    e->bytes = bytes;
    e->gone = bytes.n == 0;
    e->open = open;
    e->next_at = next_at;
    e->dirty = u->dirty = true;
    row->out_is = first_open(row);
    mj_unit_out_changed(u, row);
    return true;
}

void mj_unit_out_changed(mj_unit *u, mj_unit_row *row)
{
    row->out_changed = true;
    if (row->out_is.seq && row->out_is.at <= u->now && !row->listed_out) {
        row->next_due = u->due;
        u->due = row;
        row->listed_out = true;
    }
}

/* ---- accounts ---- */

int mj_unit_account(mj_unit *u, mj_str name)
{
    unsigned i;

    for (i = 0; i < u->nheld; i++)
        if (strlen(u->held[i].name) == name.n && memcmp(u->held[i].name, name.p, name.n) == 0)
            return (int)i;
    if (i == MJ_MAX_ACCOUNTS || name.n == 0 || name.n > MJ_MAX_NAME || memchr(name.p, 0, name.n))
        return -1;
    memset(&u->held[i], 0, sizeof u->held[i]);
    memcpy(u->held[i].name, name.p, name.n);
    u->nheld++;
    return (int)i;
}

void mj_unit_hold(mj_unit *u, mj_str account, int by)
{
    int at = mj_unit_account(u, account);
    mj_held *h;

    if (at < 0)
        return;
    h = &u->held[at];
    if (by > 0)
        h->held++;
    else
        h->held -= h->held > 0;
    h->dirty = u->dirty = true;
}

static bool one_account(void *ctx, const mj_entry *e, mj_str bytes)
{
    mj_unit *u = ctx;
    mj_held *h;

    if (u->nheld == MJ_MAX_ACCOUNTS)
        return false;
    h = &u->held[u->nheld++];
    mj_account_read(e->name, bytes, h);
    h->stored = true;
    if (h->learned_at != 0 && u->now - h->learned_at > FORGET_MS) {
        h->learned_at = h->learned = 0;
        h->dirty = true; /* written when something else is */
    }
    if (h->learned_at - u->now > MJ_CLOCK_STEP_MS) { /* by a clock that was ahead */
        h->learned_at = u->now;
        h->dirty = true;
    }
    return true;
}

static void put_accounts(mj_unit *u)
{
    mj_buf *b = &u->s->scratch;

    for (unsigned i = 0; i < u->nheld; i++) {
        mj_held *h = &u->held[i];
        mj_entry key = {.index = MJ_IX_ACCOUNT, .name = {h->name, (uint32_t)strlen(h->name)}};
        /* Nothing to remember: names come and go. */
        bool gone = h->held == 0 && !mj_account_rests(h->paused_until, h->paused_at, u->now) && h->learned_at == 0;
        if (!h->dirty || (gone && !h->stored))
            continue;
        b->n = 0;
        mj_account_write(h, b);
        mj_unit_change_of(u, key, gone, mj_unit_copy(u, b->p, b->n));
        if (b->failed)
            u->rc = MJ_ENOMEM;
    }
}

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

static int load_meta(mj_unit *u, bool accounts)
{
    mj_scan scan = {.index = MJ_IX_ACCOUNT};
    mj_entry key = {.index = MJ_IX_META, .name = MJ_LIT(MJ_MEASURES_KEY)};
    mj_str bytes;
    int rc = u->s->backend->get(u->tx, &key, &bytes);

    if (rc == MJ_OK)
        mj_measures_decode(bytes, &u->measures); /* what can't be read begins anew: it is no task's fact */
    memcpy(u->counted, u->measures.counts, sizeof u->counted);
    u->rules = mj_measure_rules(&u->measures, &u->s->options.rules);
    if (rc == MJ_OK || rc == MJ_ENOTFOUND)
        rc = accounts ? u->s->backend->scan(u->tx, &scan, one_account, u) : MJ_OK;
    return rc;
}

int mj_unit_begin(mj_unit *u, mj_store *s, size_t nops, int64_t now)
{
    *u = (mj_unit){.s = s, .now = now, .sure = now, .nbuckets = 16};
    while (u->nbuckets < nops + nops / 2 && u->nbuckets < 65536)
        u->nbuckets *= 2;
    s->scratch.failed = false;
    reset_memory(s);
    u->buckets = mj_unit_alloc(u, u->nbuckets * sizeof(mj_unit_row *));
    u->names = u->buckets ? mj_unit_alloc(u, u->nbuckets * sizeof(mj_unit_name *)) : NULL;
    u->held = u->names ? mj_unit_alloc(u, MJ_MAX_ACCOUNTS * sizeof *u->held) : NULL;
    if (!u->held)
        return MJ_ENOMEM;
    memset(u->buckets, 0, u->nbuckets * sizeof(mj_unit_row *));
    memset(u->names, 0, u->nbuckets * sizeof(mj_unit_name *));
    u->rc = s->backend->begin(s->db, true, &u->tx);
    if (u->rc != MJ_OK)
        return u->rc;
    u->rc = load_meta(u, nops > 0); /* without operations there is no time, by which what is known of them ages */
    if (u->rc != MJ_OK)
        s->backend->abort(u->tx);
    return u->rc;
}

/* ---- end ---- */

static void put_measures(mj_unit *u)
{
    mj_entry key = {.index = MJ_IX_META, .name = MJ_LIT(MJ_MEASURES_KEY)};
    mj_buf *b = &u->s->scratch;

    for (unsigned i = 0; i < MJ_NCOUNTS; i++)
        if (u->s->owed[i] > 0)
            mj_measure_count(&u->measures, (mj_count)i, u->s->owed[i]);
    if (!u->measures.changed)
        return;
    b->n = 0;
    if (mj_measures_encode(&u->measures, b) != MJ_OK)
        u->rc = MJ_ENOMEM;
    else
        mj_unit_change_of(u, key, false, mj_unit_copy(u, b->p, b->n));
}

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

static int write_all(mj_unit *u)
{
    mj_unit_row **rows = mj_unit_alloc(u, (u->nrows + 1) * sizeof(mj_unit_row *));
    mj_change *changes;
    size_t n = 0, nrows = 0;

    put_accounts(u);
    put_measures(u);
    u->tally.latest = u->now;
    changes = rows ? mj_unit_alloc(u, (4 * u->nrows + u->nevents + u->nchanges + 1) * sizeof *changes) : NULL;
    if (!changes || u->rc != MJ_OK)
        return u->rc;
    for (mj_unit_row *r = u->rows; r; r = r->next)
        if (r->changed || r->out_changed)
            rows[nrows++] = r;
    qsort(rows, nrows, sizeof(mj_unit_row *), by_ref);   /* all writers lock, and write, in one order */
    for (mj_unit_change *c = u->changes; c; c = c->next) /* first: a row that changed since may ask for a stale entry */
        changes[n++] = c->change;
    for (size_t i = 0; i < nrows; i++)
        n += changes_of(rows[i], changes + n);
    return u->s->backend->apply(u->tx, changes, n, &u->tally);
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
    reset_memory(u->s);
    return u->rc;
}
