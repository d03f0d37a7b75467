/* Facets: the entries of a task in every index follow from them.  For BACKEND, as backend_conformance.h says. */
#ifndef BACKEND_FACETS_H
#define BACKEND_FACETS_H

#include "backend_help.h"

/* Sets of facets between which tasks go: `life` of one task, whose names (of ref i) do not change. */
enum { LIVES = 14, GONE = 0, TOMBED = 13 };

typedef struct names {
    char key[16], ids[3][16];
} names;

static void name_all(names *n, unsigned i)
{
    snprintf(n->key, sizeof n->key, "key%u", i);
    for (unsigned k = 0; k < 3; k++)
        snprintf(n->ids[k], sizeof n->ids[k], "id%u.%u", i, k);
}

static void set_slot(mj_facets *f, unsigned attempt, int64_t until, const char *account)
{
    f->attempts[attempt].slot = until > 0;
    f->attempts[attempt].slot_until = until;
    f->attempts[attempt].account = str(account);
}

static void life(unsigned which, const names *n, mj_facets *f)
{
    *f = (mj_facets){.exists = which != GONE, .state = MJ_QUEUED, .due = MJ_DUE_NONE};
    if (which == GONE)
        return;
    f->user_id = str("user");
    f->key = str(n->key);
    f->fingerprint[0] = 7;
    f->account = str(which == 3 ? "other" : "main");
    f->priority = which == 4 ? -5 : 5;
    f->queued = which <= 4;
    f->due = which == 5 || which == 6 ? MJ_DUE_QUEUE : which >= 7 && which <= 9 ? MJ_DUE_POLL : MJ_DUE_NONE;
    f->due_at = which == 6 ? 2000 : f->due == MJ_DUE_NONE ? 0 : 1000;
    f->state = which >= 10 ? MJ_SUCCEEDED : which >= 7 ? MJ_PENDING : MJ_QUEUED; /* layer: test */
    f->nattempts = which >= 11 ? 2 : which >= 7 ? 1 : 0;
    if (which >= 8) {
        f->attempts[0].nids = which == 9 ? 2 : 1;
        f->attempts[0].ids[0] = str(n->ids[0]);
        f->attempts[0].ids[1] = str(n->ids[1]);
    }
    if (which == 7 || which == 8)
        set_slot(f, 0, which == 7 ? 3000 : 4000, "main");
    if (which == 12) {
        set_slot(f, 0, 3000, "other");
        set_slot(f, 1, 3000, "main");
        f->attempts[1].nids = 1;
        f->attempts[1].ids[0] = str(n->ids[2]);
    }
    if (which != TOMBED)
        return;
    f->exists = f->queued = false;
    f->grave = true;
    f->pruned_at = 9000;
}

typedef struct wanted {
    mj_tx *tx;
    unsigned n[MJ_NINDEXES];
    unsigned naccounts;
    mj_entry accounts[MJ_MAX_ACCOUNTS]; /* n: slots that are held under them */
} wanted;

static void want_slot(wanted *w, mj_str name)
{
    unsigned i = 0;

    while (i < w->naccounts && !mj_str_eq(w->accounts[i].name, name))
        i++;
    CHECK(i < MJ_MAX_ACCOUNTS);
    if (i == w->naccounts)
        w->accounts[w->naccounts++] = (mj_entry){.index = MJ_IX_ACCOUNT, .name = name};
    w->accounts[i].n++;
}

static void check_accounts(wanted *w)
{
    w->n[MJ_IX_ACCOUNT] = w->naccounts;
    for (unsigned i = 0; i < w->naccounts; i++) {
        mj_entry e = {.index = MJ_IX_ACCOUNT, .name = w->accounts[i].name};
        mj_str bytes;
        CHECK_INT(backend()->get(w->tx, &e, &bytes), MJ_OK);
        CHECK_INT(e.n, w->accounts[i].n);
        CHECK_INT(bytes.n, 0);
    }
}

static int want_entry(void *ctx, const mj_entry *e, bool there)
{
    wanted *w = ctx;
    mj_entry key = *e;
    mj_str bytes;

    CHECK(there);
    w->n[e->index]++;
    if (backend()->get(w->tx, &key, &bytes) != MJ_OK)
        MJ_TEST_FAIL("an entry of %s is missing", mj_index_name(e->index));
    if (e->index == MJ_IX_TID || e->index == MJ_IX_KEY)
        CHECK_MEM(key.ref, e->ref, sizeof key.ref);
    if (e->index == MJ_IX_KEY)
        CHECK_MEM(key.fingerprint, e->fingerprint, sizeof key.fingerprint);
    if (e->index == MJ_IX_SLOT) {
        CHECK(mj_str_eq(key.name, e->name));
        want_slot(w, e->name);
    }
    return MJ_OK;
}

TEST("from any facets to any others, a backend has exactly the entries that follow from them")
{
    enum { PAIRS = LIVES * LIVES };
    static const mj_facets none;
    static mj_facets was[PAIRS], is[PAIRS];
    static names all[PAIRS];
    static mj_change c[PAIRS];
    base b;

    open_base(&b, "store");
    for (unsigned step = 0; step < 3; step++) { /* none to was, was to is, is to none */
        wanted w = {0};
        for (unsigned i = 0; i < PAIRS; i++) {
            const mj_facets *from = step == 0 ? &none : step == 1 ? &was[i] : &is[i];
            const mj_facets *to = step == 0 ? &was[i] : step == 1 ? &is[i] : &none;
            name_all(&all[i], i);
            life(i / LIVES, &all[i], &was[i]);
            life(i % LIVES, &all[i], &is[i]);
            c[i] = (mj_change){.key = {.index = MJ_IX_TASK}, .bytes = str("t"), .gone = !to->exists};
            c[i].key.ref[0] = (uint8_t)i;
            c[i].was = from;
            c[i].is = to;
        }
        batch(&b, c, PAIRS);
        w.tx = begin(&b, false);
        for (unsigned i = 0; i < PAIRS; i++) {
            w.n[MJ_IX_TASK] += c[i].is->exists;
            CHECK_INT(mj_facets_diff(c[i].key.ref, &none, c[i].is, want_entry, &w), MJ_OK);
        }
        check_accounts(&w);
        for (mj_index index = MJ_IX_TASK; index < MJ_NINDEXES; index++)
            if (count_in(w.tx, index) != w.n[index])
                MJ_TEST_FAIL("step %u: %s has %" PRIu64 " entries, not %u", step, mj_index_name(index),
                             count_in(w.tx, index), w.n[index]);
        backend()->abort(w.tx);
    }
    close_base(&b);
}

#endif
