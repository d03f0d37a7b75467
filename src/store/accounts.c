/* Accounts of a unit: read when one is asked for.
 *
 * How many slots an account holds is not kept here: it is the number of its slots
 * in the index, which the backend counts (an entry's n).  So a task that frees a
 * slot changes no row that other tasks change, too. */
#include "store/unit.h"

#include <string.h>

enum { FORGET_MS = 86400000 /* an observed limit means nothing after a day: it has long risen to the full one */ };

/* There is nothing to remember: names come and go. */
static bool is_nothing(const mj_unit *u, const mj_held *h)
{
    bool over = h->held == 0 && !mj_account_rests(h->paused_until, h->paused_at, u->now);

    return h->observed_at == 0 && (h->paused_until == 0 || over);
}

static bool one_account(void *ctx, const mj_entry *e, mj_str bytes)
{
    mj_unit *u = ctx;
    mj_held *h;

    if (u->nheld == MJ_MAX_ACCOUNTS)
        return false;
    h = &u->held[u->nheld++];
    mj_account_read(e, bytes, h);
    if (h->observed_at != 0 && u->now - h->observed_at > FORGET_MS) {
        h->observed_at = h->observed = 0;
        h->dirty = true; /* written when something else is */
    }
    if (h->observed_at - u->now > MJ_CLOCK_STEP_MS) { /* by a clock that was ahead */
        h->observed_at = u->now;
        h->dirty = true;
    }
    /* That a rest is over is known until a claim has found out whether it helped. */
    h->dirty = h->dirty || (h->stored && is_nothing(u, h) && u->now - h->paused_until > FORGET_MS);
    return true;
}

static bool load(mj_unit *u)
{
    int rc;

    if (u->accounts_known)
        return true;
    u->held = mj_unit_alloc(u, MJ_MAX_ACCOUNTS * sizeof *u->held);
    if (!u->held)
        return false;
    u->nheld = 0;
    rc = u->s->backend->scan(u->tx, &(mj_scan){.index = MJ_IX_ACCOUNT}, one_account, u);
    if (rc != MJ_OK) {
        u->rc = rc;
        return false;
    }
    u->accounts_known = true;
    /* What the operations so far have taken and freed. */
    for (const mj_unit_row *r = u->rows; r; r = r->next)
        if (r->changed)
            mj_unit_follow_slots(u, r->was, r->is);
    for (const mj_unit_change *c = u->changes; c; c = c->next)
        if (c->change.key.index == MJ_IX_SLOT)
            mj_unit_hold(u, c->change.key.name, -1);
    return u->rc == MJ_OK;
}

int mj_unit_account(mj_unit *u, mj_str name)
{
    unsigned i;

    if (!load(u))
        return -1;
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
    int at = u->accounts_known ? mj_unit_account(u, account) : -1;

    if (at < 0)
        return;
    if (by > 0)
        u->held[at].held++;
    else
        u->held[at].held -= u->held[at].held > 0;
}

void mj_unit_follow_slots(mj_unit *u, const mj_facets *was, const mj_facets *is)
{
    for (unsigned i = 0; u->accounts_known && (i < is->nattempts || i < was->nattempts); i++) {
        const struct mj_attempt_facets *a = i < was->nattempts ? &was->attempts[i] : NULL;
        const struct mj_attempt_facets *b = i < is->nattempts ? &is->attempts[i] : NULL;
        if (a && a->slot && b && b->slot && mj_str_eq(a->account, b->account))
            continue;
        if (a && a->slot)
            mj_unit_hold(u, a->account, -1);
        if (b && b->slot)
            mj_unit_hold(u, b->account, 1);
    }
}

/* Another writer gives out its slots at this moment, and may write its row. */
static bool is_busy(const mj_unit *u, mj_str account)
{
    for (size_t i = 0; i < u->s->ncaps; i++)
        if (!u->holds[i].held && mj_str_eq(u->holds[i].account, account))
            return true;
    return false;
}

void mj_unit_put_accounts(mj_unit *u)
{
    mj_buf *b = &u->s->scratch;

    for (unsigned i = 0; u->accounts_known && i < u->nheld; i++) {
        mj_held *h = &u->held[i];
        mj_entry key = {.index = MJ_IX_ACCOUNT, .name = {h->name, (uint32_t)strlen(h->name)}};
        bool gone = is_nothing(u, h);
        if (!h->dirty || (gone && !h->stored) || is_busy(u, key.name))
            continue;
        b->n = 0;
        mj_account_write(h, b);
        mj_unit_change_of(u, key, gone, mj_unit_copy(u, b->p, b->n));
        if (b->failed)
            u->rc = MJ_ENOMEM;
    }
}
