/* Rows of a unit: tasks and tombstones, as the operations so far have left them. */
#include "store/unit.h"

#include <string.h>

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
