/* What a transaction knows: rows and entries that it has read, those that are not there included, and the results in
 * which their bytes lie.  All of it lasts until the transaction ends. */
#include "store/postgres/db.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 16384, BUCKETS = 256 };

typedef struct mj_pg_block {
    struct mj_pg_block *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
} mj_pg_block;

void *mj_pg_alloc(mj_tx *tx, size_t n)
{
    mj_pg_block *b = tx->memory;
    size_t size = n > BLOCK ? n : BLOCK;
    void *p;

    n = (n + 15) & ~(size_t)15;
    size = n > size ? n : size;
    if (!b || b->size - b->used < n) {
        b = malloc(sizeof *b + size);
        if (!b)
            return NULL;
        b->next = tx->memory;
        b->used = 0;
        b->size = size;
        tx->memory = b;
    }
    p = b->bytes + b->used;
    b->used += n;
    return p;
}

const PGresult *mj_pg_keep(mj_tx *tx, PGresult *r)
{
    PGresult **more;

    if (!r)
        return NULL;
    if (tx->nresults == tx->room) {
        more = realloc(tx->results, (2 * tx->room + 16) * sizeof(PGresult *));
        if (!more) {
            PQclear(r);
            return NULL;
        }
        tx->results = more;
        tx->room = 2 * tx->room + 16;
    }
    tx->results[tx->nresults++] = r;
    return r;
}

void mj_pg_forget_rows(mj_tx *tx)
{
    mj_pg_block *next;

    for (size_t i = 0; i < tx->nresults; i++)
        PQclear(tx->results[i]);
    free(tx->results);
    free(tx->buckets);
    for (mj_pg_block *b = tx->memory; b; b = next) {
        next = b->next;
        free(b);
    }
    tx->results = NULL;
    tx->buckets = NULL;
    tx->memory = NULL;
    tx->fetched = NULL;
    tx->nresults = tx->room = tx->nbuckets = tx->nitems = 0;
    memset(tx->looked, 0, sizeof tx->looked);
}

void mj_pg_drop(mj_tx *tx)
{
    mj_pg_forget_rows(tx);
    *tx = (struct mj_tx){.db = tx->db};
}

/* ---- items ---- */

static bool has_name(mj_index i)
{
    return i == MJ_IX_META || i == MJ_IX_TID || i == MJ_IX_KEY || i == MJ_IX_USER || i == MJ_IX_QUEUE ||
           i == MJ_IX_ACCOUNT;
}

/* The fields of the key alone. */
bool mj_pg_same(const mj_entry *a, const mj_entry *b)
{
    const mj_pg_table *t = &mj_pg_tables[a->index];
    bool same = a->index == b->index;

    for (unsigned i = 0; i < t->nkey && same; i++)
        switch (t->columns[i].letter) {
        case 'r':
            same = memcmp(a->ref, b->ref, sizeof a->ref) == 0;
            break;
        case 's':
            same = mj_str_eq(a->name, b->name);
            break;
        case 'n':
            same = a->n == b->n;
            break;
        case 'a':
            same = a->at == b->at;
            break;
        default:
            same = a->priority == b->priority;
        }
    return same;
}

static uint64_t mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 32;
}

/* Eight bytes at a time: a batch looks for each of its rows a dozen times. */
static uint64_t mix_bytes(uint64_t h, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t word;

    for (; n >= sizeof word; n -= sizeof word, p += sizeof word) {
        memcpy(&word, p, sizeof word);
        h = mix(h, word);
    }
    word = 0;
    if (n > 0)
        memcpy(&word, p, n);
    return mix(h, word);
}

uint64_t mj_pg_hash(const mj_entry *e)
{
    const mj_pg_table *t = &mj_pg_tables[e->index];
    uint64_t h = mix(0, e->index);

    if (has_name(e->index))
        h = mix_bytes(h, e->name.p, e->name.n);
    for (unsigned i = 0; i < t->nkey; i++)
        if (t->columns[i].letter == 'r')
            h = mix_bytes(h, e->ref, sizeof e->ref);
        else if (t->columns[i].letter == 'n')
            h = mix(h, e->n);
        else if (t->columns[i].letter == 'a')
            h = mix(h, (uint64_t)e->at);
    return h;
}

mj_pg_item *mj_pg_known(const mj_tx *tx, const mj_entry *key, bool group)
{
    mj_pg_item *i = tx->nbuckets ? tx->buckets[mj_pg_hash(key) & (tx->nbuckets - 1)] : NULL;

    while (i && !(i->group == group && mj_pg_same(&i->key, key)))
        i = i->chain;
    return i;
}

static bool widen(mj_tx *tx)
{
    size_t n = tx->nbuckets ? 4 * tx->nbuckets : BUCKETS;
    mj_pg_item **wider = calloc(n, sizeof(mj_pg_item *)), *next;

    if (!wider)
        return false;
    for (size_t b = 0; b < tx->nbuckets; b++)
        for (mj_pg_item *i = tx->buckets[b]; i; i = next) {
            size_t at = mj_pg_hash(&i->key) & (n - 1);
            next = i->chain;
            i->chain = wider[at];
            wider[at] = i;
        }
    free(tx->buckets);
    tx->buckets = wider;
    tx->nbuckets = n;
    return true;
}

/* The item of that key, made when it is new, and then not there.  The key's strings have to last as long as it. */
mj_pg_item *mj_pg_note(mj_tx *tx, const mj_entry *key, bool group)
{
    mj_pg_item *i = mj_pg_known(tx, key, group);
    size_t at;

    if (i)
        return i;
    if (tx->nitems >= tx->nbuckets && !widen(tx))
        return NULL;
    i = mj_pg_alloc(tx, sizeof *i);
    if (!i)
        return NULL;
    at = mj_pg_hash(key) & (tx->nbuckets - 1);
    *i = (mj_pg_item){.chain = tx->buckets[at], .key = *key, .group = group};
    tx->buckets[at] = i;
    tx->nitems++;
    return i;
}

const char *mj_pg_place(const PGresult *r, int row, int column)
{
    return column < PQnfields(r) && PQgetlength(r, row, column) == MJ_PG_PLACE ? PQgetvalue(r, row, column) : NULL;
}

void mj_pg_note_rows(mj_tx *tx, const PGresult *r, mj_index index)
{
    for (int row = 0; r && row < PQntuples(r); row++) {
        mj_pg_item *i;
        mj_entry e;
        mj_str bytes;
        mj_pg_entry(r, row, index, &e, &bytes);
        i = mj_pg_note(tx, &e, false);
        if (!i)
            return; /* asked for again, in a trip of its own */
        i->there = true;
        i->key = e;
        i->bytes = bytes;
        i->place = index == MJ_IX_TASK ? mj_pg_place(r, row, (int)mj_pg_tables[index].ncolumns) : NULL;
    }
}

/* Groups of rows that lie together. */
void mj_pg_note_events(mj_tx *tx, const PGresult *r)
{
    int n = r ? PQntuples(r) : 0;

    for (int row = 0, next; row < n; row = next) {
        mj_entry e = {.index = MJ_IX_EVENT};
        mj_pg_item *g;
        memcpy(e.ref, PQgetvalue(r, row, 0), MJ_ULID_BYTES);
        for (next = row + 1; next < n && memcmp(PQgetvalue(r, next, 0), e.ref, MJ_ULID_BYTES) == 0; next++)
            ;
        g = mj_pg_note(tx, &e, true);
        if (!g)
            return;
        g->there = true;
        g->events = r;
        g->from = row;
        g->to = next;
    }
}

bool mj_pg_is_intake(const mj_entry *key, int64_t *id)
{
    static const char prefix[] = "intake/";
    uint32_t n = sizeof prefix - 1;

    if (key->index != MJ_IX_META || key->name.n <= n || key->name.n > n + 18 || memcmp(key->name.p, prefix, n) != 0)
        return false;
    *id = 0;
    for (; n < key->name.n; n++) {
        if (key->name.p[n] < '0' || key->name.p[n] > '9')
            return false;
        *id = 10 * *id + (key->name.p[n] - '0');
    }
    return true;
}
