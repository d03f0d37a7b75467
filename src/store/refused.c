/* Callbacks that were refused although their token was good: the newest few, for a person to look at and to take in
 * after all.  A ring: what comes in pushes the oldest out.  Each task has a quota, so that one URL can't push out what
 * other tasks have, nor make the disk write at the pace of its requests. */
#include "store/rules.h"

#include <string.h>

enum { GAP_MS = 1000 }; /* between two of a task that has its quota */

typedef struct kept {
    uint64_t number;
    int64_t at; /* wall clock, milliseconds */
    uint8_t ref[MJ_ULID_BYTES];
} kept;

/* Writers that run at once may leave a few too many. */
enum { ROOM = MJ_MAX_REFUSED + 64, HEAD = 32 /* bytes: time and ref */ };

/* What is kept, oldest first. */
struct mj_ring {
    uint32_t n;
    uint64_t last; /* number */
    kept all[ROOM + 1];
};

/* Called from the newest to the oldest: they lie at the end of `all`. */
static bool one(void *ctx, const mj_entry *e, mj_str bytes)
{
    mj_ring *ring = ctx;
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    kept *k = &ring->all[ROOM - ++ring->n];
    const uint8_t *ref;

    k->number = (uint64_t)e->at;
    k->at = mj_get_int(&r);
    ref = mj_get_raw(&r, MJ_ULID_BYTES);
    memset(k->ref, 0, sizeof k->ref);
    if (ref)
        memcpy(k->ref, ref, sizeof k->ref);
    return true;
}

static mj_ring *load(mj_unit *u)
{
    mj_scan scan = {.index = MJ_IX_REFUSED, .newest_first = true, .limit = ROOM, .head = HEAD};
    int rc;

    if (u->ring)
        return u->ring;
    u->ring = mj_unit_alloc(u, sizeof *u->ring);
    if (!u->ring)
        return NULL;
    u->ring->n = 0;
    u->ring->last = 0;
    rc = u->s->backend->scan(u->tx, &scan, one, u->ring);
    if (rc != MJ_OK)
        u->rc = rc;
    memmove(u->ring->all, u->ring->all + ROOM - u->ring->n, u->ring->n * sizeof u->ring->all[0]);
    u->ring->last = u->ring->n ? u->ring->all[u->ring->n - 1].number : 0;
    return rc == MJ_OK ? u->ring : NULL;
}

static mj_entry key_of(uint64_t number)
{
    return (mj_entry){.index = MJ_IX_REFUSED, .at = (int64_t)number};
}

static void drop(mj_unit *u, mj_ring *ring, uint32_t i)
{
    mj_unit_change_of(u, key_of(ring->all[i].number), true, (mj_str){0});
    ring->n--;
    memmove(&ring->all[i], &ring->all[i + 1], (ring->n - i) * sizeof ring->all[0]);
}

void mj_op_refuse(mj_unit *u, mj_op *op)
{
    mj_buf *b = &u->s->scratch;
    mj_ring *ring = load(u);
    uint32_t mine = 0, oldest = 0;
    int64_t newest_at = 0;

    mj_counters_count(&u->tally.counters, MJ_CALLBACK_REFUSED, 1);
    if (!ring)
        return;
    for (uint32_t i = 0; i < ring->n; i++)
        if (memcmp(ring->all[i].ref, op->ref, MJ_ULID_BYTES) == 0) {
            oldest = mine++ == 0 ? i : oldest;
            newest_at = ring->all[i].at;
        }
    if (mine >= MJ_MAX_REFUSED_OF_ONE && u->now >= newest_at && u->now - newest_at < GAP_MS) {
        op->code = MJ_ELIMIT;
        return;
    }
    if (mine >= MJ_MAX_REFUSED_OF_ONE)
        drop(u, ring, oldest);
    while (ring->n >= MJ_MAX_REFUSED)
        drop(u, ring, 0);
    b->n = 0;
    mj_refused_write(op, u->now, b);
    if (b->failed)
        u->rc = MJ_ENOMEM;
    ring->all[ring->n] = (kept){.number = ++ring->last, .at = u->now};
    memcpy(ring->all[ring->n++].ref, op->ref, MJ_ULID_BYTES);
    mj_unit_change_of(u, key_of(ring->last), false, mj_unit_copy(u, b->p, b->n));
}
