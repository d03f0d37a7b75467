/* Keys and task ids of a unit; rows without a ref, and stale entries. */
#include "store/unit.h"

#include <string.h>

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
