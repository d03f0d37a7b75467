#include "domain/facets.h"

#include <string.h>

const char *mj_index_name(mj_index index)
{
    static const char *const names[] = {MJ_INDEXES(MJ_NAME)};
    return index < MJ_NINDEXES ? names[index] : "?";
}

void mj_facets_of(const mj_task *t, mj_facets *f)
{
    f->exists = true;
    f->grave = false;
    f->queued = t->state == MJ_QUEUED && t->ready;
    f->state = t->state; /* layer: copy */
    f->due = mj_state_due(t);
    f->priority = t->priority;
    f->due_at = f->due == MJ_DUE_NONE ? 0 : t->due_at;
    f->pruned_at = 0;
    f->account = t->account;
    f->user_id = t->user_id;
    f->key = t->key;
    memcpy(f->fingerprint, t->fingerprint, sizeof f->fingerprint);
    f->nattempts = t->nattempts;
    for (unsigned i = 0; i < t->nattempts; i++) {
        const mj_attempt *a = &t->attempts[i];
        struct mj_attempt_facets *to = &f->attempts[i];
        to->slot = a->slot;
        to->slot_until = a->slot_until;
        to->account = a->account;
        to->nids = a->nids;
        memcpy(to->ids, a->ids, a->nids * sizeof a->ids[0]);
    }
}

typedef struct diff {
    mj_facets_fn visit;
    void *ctx;
    const uint8_t *ref;
} diff;

static int tell(const diff *d, mj_entry e, bool put)
{
    memcpy(e.ref, d->ref, MJ_ULID_BYTES);
    return d->visit(d->ctx, &e, put);
}

/* An entry that one set of facets asks for and the other does not, or asks for otherwise. */
static int change(const diff *d, bool had, mj_entry old, bool has, mj_entry new, bool same)
{
    int rc = 0;

    if (had && has && same)
        return 0;
    if (had)
        rc = tell(d, old, false);
    return rc == 0 && has ? tell(d, new, true) : rc;
}

static int diff_slot(const diff *d, uint32_t attempt, const struct mj_attempt_facets *was,
                     const struct mj_attempt_facets *is)
{
    mj_entry old = {.index = MJ_IX_SLOT, .n = attempt, .at = was ? was->slot_until : 0};
    mj_entry new = {.index = MJ_IX_SLOT, .n = attempt, .at = is ? is->slot_until : 0};

    if (was)
        old.name = was->account;
    if (is)
        new.name = is->account;
    return change(d, was && was->slot, old, is && is->slot, new, old.at == new.at &&mj_str_eq(old.name, new.name));
}

/* An attempt's ids only grow in number. */
static int diff_ids(const diff *d, uint32_t attempt, const struct mj_attempt_facets *was,
                    const struct mj_attempt_facets *is)
{
    unsigned old = was ? was->nids : 0, new = is ? is->nids : 0;
    int rc = 0;

    for (unsigned i = old; i < new &&rc == 0; i++)
        rc = tell(d, (mj_entry){.index = MJ_IX_TID, .n = attempt, .name = is->ids[i]}, true);
    for (unsigned i = new; i < old &&rc == 0; i++)
        rc = tell(d, (mj_entry){.index = MJ_IX_TID, .n = attempt, .name = was->ids[i]}, false);
    return rc;
}

/* What never changes while the task is there. */
static int diff_once(const diff *d, const mj_facets *was, const mj_facets *is)
{
    mj_entry user = {.index = MJ_IX_USER, .name = is->exists ? is->user_id : was->user_id};
    mj_entry key = {.index = MJ_IX_KEY, .name = is->key.n ? is->key : was->key};
    bool had_user = was->exists && was->user_id.n > 0, has_user = is->exists && is->user_id.n > 0;
    int rc = change(d, had_user, user, has_user, user, true);

    memcpy(key.fingerprint, is->fingerprint, sizeof key.fingerprint);
    return rc != 0 ? rc : change(d, was->key.n > 0, key, is->key.n > 0, key, true);
}

int mj_facets_diff(const uint8_t *ref, const mj_facets *was, const mj_facets *is, mj_facets_fn visit, void *ctx)
{
    diff d = {visit, ctx, ref};
    unsigned n = was->nattempts > is->nattempts ? was->nattempts : is->nattempts;
    int rc = was->exists == is->exists && mj_str_eq(was->key, is->key) ? 0 : diff_once(&d, was, is);

    if (rc == 0)
        rc = change(&d, was->exists, (mj_entry){.index = MJ_IX_STATE, .n = was->state}, is->exists,
                    (mj_entry){.index = MJ_IX_STATE, .n = is->state}, was->state == is->state);
    if (rc == 0)
        rc =
            change(&d, was->exists && was->due != MJ_DUE_NONE,
                   (mj_entry){.index = MJ_IX_DUE, .n = was->due, .at = was->due_at},
                   is->exists && is->due != MJ_DUE_NONE, (mj_entry){.index = MJ_IX_DUE, .n = is->due, .at = is->due_at},
                   was->due == is->due && was->due_at == is->due_at);
    if (rc == 0 && (was->queued || is->queued)) /* most records are in neither */
        rc = change(&d, was->queued, (mj_entry){.index = MJ_IX_QUEUE, .priority = was->priority, .name = was->account},
                    is->queued, (mj_entry){.index = MJ_IX_QUEUE, .priority = is->priority, .name = is->account},
                    was->priority == is->priority && mj_str_eq(was->account, is->account));
    if (rc == 0 && (was->grave || is->grave))
        rc = change(&d, was->grave, (mj_entry){.index = MJ_IX_GRAVE, .at = was->pruned_at}, is->grave,
                    (mj_entry){.index = MJ_IX_GRAVE, .at = is->pruned_at}, was->pruned_at == is->pruned_at);
    for (unsigned i = 0; i < n && rc == 0; i++) {
        const struct mj_attempt_facets *a = i < was->nattempts ? &was->attempts[i] : NULL;
        const struct mj_attempt_facets *b = i < is->nattempts ? &is->attempts[i] : NULL;
        if ((a && a->slot) || (b && b->slot))
            rc = diff_slot(&d, i + 1, a, b);
        if (rc == 0)
            rc = diff_ids(&d, i + 1, a, b);
    }
    return rc;
}
