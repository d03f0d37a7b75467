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
    const uint8_t *ref, *fingerprint;
} diff;

/* What tells one entry of an index from another of the same ref. */
typedef struct place {
    uint32_t n;
    int32_t priority;
    int64_t at;
    mj_str name;
} place;

static int tell(const diff *d, mj_index index, const place *p, bool put)
{
    mj_entry e = {.index = index, .n = p->n, .priority = p->priority, .at = p->at, .name = p->name};

    memcpy(e.ref, d->ref, MJ_ULID_BYTES);
    if (index == MJ_IX_KEY)
        memcpy(e.fingerprint, d->fingerprint, sizeof e.fingerprint);
    return d->visit(d->ctx, &e, put);
}

/* An entry that one set of facets asks for and the other does not, or asks for in another place; NULL: in none. */
static int change(const diff *d, mj_index index, const place *old, const place *new)
{
    int rc = 0;

    if (old && new && old->n == new->n && old->priority == new->priority &&
        old->at == new->at &&mj_str_eq(old->name, new->name))
        return 0;
    if (old)
        rc = tell(d, index, old, false);
    return rc == 0 && new ? tell(d, index, new, true) : rc;
}

static int diff_slot(const diff *d, uint32_t attempt, const struct mj_attempt_facets *was,
                     const struct mj_attempt_facets *is)
{
    place old = {.n = attempt}, new = {.n = attempt};
    bool had = was && was->slot, has = is && is->slot;

    if (had) {
        old.at = was->slot_until;
        old.name = was->account;
    }
    if (has) {
        new.at = is->slot_until;
        new.name = is->account;
    }
    return change(d, MJ_IX_SLOT, had ? &old : NULL, has ? &new : NULL);
}

/* An attempt's ids only grow in number. */
static int diff_ids(const diff *d, uint32_t attempt, const struct mj_attempt_facets *was,
                    const struct mj_attempt_facets *is)
{
    unsigned old = was ? was->nids : 0, new = is ? is->nids : 0;
    int rc = 0;

    for (unsigned i = old; i < new &&rc == 0; i++)
        rc = tell(d, MJ_IX_TID, &(place){.n = attempt, .name = is->ids[i]}, true);
    for (unsigned i = new; i < old &&rc == 0; i++)
        rc = tell(d, MJ_IX_TID, &(place){.n = attempt, .name = was->ids[i]}, false);
    return rc;
}

/* What never changes while the task is there. */
static int diff_once(const diff *d, const mj_facets *was, const mj_facets *is)
{
    place user = {.name = is->exists ? is->user_id : was->user_id};
    place key = {.name = is->key.n ? is->key : was->key};
    bool had_user = was->exists && was->user_id.n > 0, has_user = is->exists && is->user_id.n > 0;
    int rc = change(d, MJ_IX_USER, had_user ? &user : NULL, has_user ? &user : NULL);

    return rc != 0 ? rc : change(d, MJ_IX_KEY, was->key.n > 0 ? &key : NULL, is->key.n > 0 ? &key : NULL);
}

/* Of the indexes in which a task has one place. */
static int diff_places(const diff *d, const mj_facets *was, const mj_facets *is)
{
    place state = {.n = was->state}, due = {.n = was->due, .at = was->due_at},
          queue = {.priority = was->priority, .name = was->account}, grave = {.at = was->pruned_at};
    place new_state = {.n = is->state}, new_due = {.n = is->due, .at = is->due_at},
          new_queue = {.priority = is->priority, .name = is->account}, new_grave = {.at = is->pruned_at};
    bool was_due = was->exists && was->due != MJ_DUE_NONE, is_due = is->exists && is->due != MJ_DUE_NONE;
    int rc = 0;

    if (was->state != is->state || was->exists != is->exists)
        rc = change(d, MJ_IX_STATE, was->exists ? &state : NULL, is->exists ? &new_state : NULL);
    if (rc == 0)
        rc = change(d, MJ_IX_DUE, was_due ? &due : NULL, is_due ? &new_due : NULL);
    if (rc == 0 && (was->queued || is->queued)) /* most records are in neither */
        rc = change(d, MJ_IX_QUEUE, was->queued ? &queue : NULL, is->queued ? &new_queue : NULL);
    if (rc == 0 && (was->grave || is->grave))
        rc = change(d, MJ_IX_GRAVE, was->grave ? &grave : NULL, is->grave ? &new_grave : NULL);
    return rc;
}

int mj_facets_diff(const uint8_t *ref, const mj_facets *was, const mj_facets *is, mj_facets_fn visit, void *ctx)
{
    diff d = {visit, ctx, ref, is->fingerprint};
    unsigned n = was->nattempts > is->nattempts ? was->nattempts : is->nattempts;
    int rc = was->exists == is->exists && mj_str_eq(was->key, is->key) ? 0 : diff_once(&d, was, is);

    if (rc == 0)
        rc = diff_places(&d, was, is);
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
