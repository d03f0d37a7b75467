/* Copying a store: tasks and tombstones.  Rows are read with the source's transaction ended before the destination's
 * begins. */
#include "store/copied.h"
#include "store/copy.h"

#include <string.h>

typedef struct refs {
    mj_side *x;
    uint32_t n, limit;
    uint8_t (*all)[MJ_ULID_BYTES];
} refs;

static bool one_ref(void *ctx, const mj_entry *e, mj_str bytes)
{
    refs *r = ctx;

    (void)bytes;
    memcpy(r->all[r->n++], e->ref, MJ_ULID_BYTES);
    return r->n < r->limit;
}

/* The next refs of TASK or TOMB behind c->at. */
static int read_refs(const mj_copy *c, mj_side *x, mj_index index, uint32_t limit, refs *out)
{
    mj_scan scan = {.index = index,
                    .positioned = c->positioned,
                    .after = c->positioned,
                    .head = 1,
                    .limit = limit,
                    .from = mj_copied_key(index, c->at)};

    *out = (refs){x, 0, limit, mj_unit_alloc(&x->u, (size_t)limit * MJ_ULID_BYTES)};
    return out->all ? x->b->scan(x->u.tx, &scan, one_ref, out) : MJ_ENOMEM;
}

/* Brings the destination's rows of these refs to what `is` says (NULL: they go). */
static int bring(mj_copy *c, uint8_t (*all)[MJ_ULID_BYTES], uint32_t n, const mj_copied *is)
{
    uint64_t changed = 0;
    mj_changes w = {0};
    mj_copied *was, *gone;
    mj_side x;
    size_t room = 1;
    int rc = mj_side_begin(&x, c->to, true);

    if (rc != MJ_OK)
        return rc;
    rc = mj_copied_read(&x, all, n, &was);
    for (uint32_t i = 0; i < n && rc == MJ_OK; i++)
        room += 4 + was[i].nevents + (is ? is[i].nevents : 0);
    w.all = rc == MJ_OK ? mj_unit_alloc(&x.u, room * sizeof *w.all) : NULL;
    gone = is || !w.all ? NULL : mj_unit_zero(&x.u, (n + 1) * sizeof *gone);
    if (rc == MJ_OK && (!w.all || (!is && !gone)))
        rc = MJ_ENOMEM;
    for (uint32_t i = 0; i < n && rc == MJ_OK; i++) {
        if (!is)
            memcpy(gone[i].ref, all[i], MJ_ULID_BYTES);
        if ((is && is[i].damaged) || mj_copied_same(&was[i], is ? &is[i] : &gone[i]))
            continue;
        changed++;
        if (!c->verifying)
            mj_changes_of(&w, &was[i], is ? &is[i] : &gone[i]);
    }
    rc = mj_side_end(&x, rc, &w);
    mj_unit_reset(c->to);
    if (rc != MJ_OK)
        return rc;
    *(c->verifying ? &c->differs : is ? &c->written : &c->removed) += changed;
    c->altered += changed;
    return MJ_OK;
}

int mj_copy_again(int rc, int *tries)
{
    if (rc != MJ_EAGAIN)
        return 0;
    return ++*tries <= MJ_MAX_RERUNS;
}

static int bring_again(mj_copy *c, uint8_t (*all)[MJ_ULID_BYTES], uint32_t n, const mj_copied *is)
{
    int rc, tries = 0;

    do
        rc = n > 0 ? bring(c, all, n, is) : MJ_OK;
    while (mj_copy_again(rc, &tries));
    return rc == MJ_EAGAIN ? MJ_EBUSY : rc;
}

void mj_copy_next(mj_copy *c)
{
    c->phase++;
    c->positioned = false;
    memset(c->at, 0, sizeof c->at);
}

static void advance(mj_copy *c, const refs *r, uint32_t limit)
{
    if (r->n < limit) {
        mj_copy_next(c);
        return;
    }
    c->positioned = true;
    memcpy(c->at, r->all[r->n - 1], sizeof c->at);
}

/* Rows of the destination that the source has no more, or not as such. */
int mj_copy_remove(mj_copy *c, mj_index index, uint32_t limit)
{
    mj_buf kept = {0};
    mj_copied *there;
    uint32_t n = 0;
    refs r = {0}, gone;
    mj_side to, from;
    int rc = mj_side_begin(&to, c->to, false);

    if (rc != MJ_OK)
        return rc;
    rc = read_refs(c, &to, index, limit, &r);
    if (rc == MJ_OK)
        mj_put_raw(&kept, r.all, (size_t)r.n * MJ_ULID_BYTES);
    to.b->abort(to.u.tx);
    if (rc == MJ_OK && kept.failed)
        rc = MJ_ENOMEM;
    r.all = (uint8_t(*)[MJ_ULID_BYTES])(void *)kept.p;
    gone = r;
    if (rc == MJ_OK)
        rc = mj_side_begin(&from, c->from, false);
    if (rc == MJ_OK) {
        uint8_t last[MJ_ULID_BYTES] = {0};
        if (r.n > 0)
            memcpy(last, r.all[r.n - 1], sizeof last);
        rc = mj_copied_read(&from, r.all, r.n, &there);
        for (uint32_t i = 0; i < r.n && rc == MJ_OK; i++)
            if (!there[i].damaged && there[i].kind != (index == MJ_IX_TASK ? MJ_ROW_TASK : MJ_ROW_TOMB))
                memmove(gone.all[n++], r.all[i], MJ_ULID_BYTES);
        from.b->abort(from.u.tx);
        mj_unit_reset(c->from);
        if (rc == MJ_OK)
            rc = bring_again(c, gone.all, n, NULL);
        if (rc == MJ_OK && r.n > 0)
            memcpy(r.all[r.n - 1], last, sizeof last);
    }
    if (rc == MJ_OK)
        advance(c, &r, limit);
    mj_buf_free(&kept);
    return rc;
}

int mj_copy_put(mj_copy *c, mj_index index, uint32_t limit)
{
    mj_copied *rows = NULL;
    refs r = {0};
    mj_side from;
    int rc = mj_side_begin(&from, c->from, false);

    if (rc != MJ_OK)
        return rc;
    rc = read_refs(c, &from, index, limit, &r);
    if (rc == MJ_OK)
        rc = mj_copied_read(&from, r.all, r.n, &rows);
    from.b->abort(from.u.tx); /* what was read lies in memory of our own */
    if (rc == MJ_OK)
        rc = bring_again(c, r.all, r.n, rows);
    for (uint32_t i = 0; i < r.n && rc == MJ_OK && !c->verifying; i++) {
        c->looked++;
        c->damaged += rows[i].damaged;
    }
    if (rc == MJ_OK)
        advance(c, &r, limit);
    mj_unit_reset(c->from);
    return rc;
}
