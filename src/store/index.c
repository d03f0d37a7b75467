/* The indexes, as pure functions of a task's record.
 *
 * Writing a task is: take the facets that the old record had, encode the new
 * record, and put or delete exactly the index entries in which they differ. */
#include "store/impl.h"

#include <string.h>

MDB_val mj_val(const void *p, size_t n)
{
    return (MDB_val){.mv_size = n, .mv_data = (void *)(uintptr_t)p};
}

/* One cursor per database and transaction: neighbours in time are neighbours in most trees, and a cursor that already
 * stands on the right page does not go down from the root again.  The transaction's end closes it. */
static int at_hand(mj_txn *x, int db, MDB_cursor **c)
{
    int rc = x->cursors[db] ? 0 : mdb_cursor_open(x->t, mj_env_dbi(x->s->env, db), &x->cursors[db]);

    *c = x->cursors[db];
    return rc;
}

int mj_txn_get(mj_txn *x, int db, MDB_val key, MDB_val *value)
{
    MDB_cursor *c;
    int rc = at_hand(x, db, &c);

    return rc != 0 ? rc : mj_env_next(x->s->env, c, &key, value, MDB_SET);
}

int mj_txn_put(mj_txn *x, int db, MDB_val key, MDB_val value)
{
    MDB_cursor *c;
    int rc = at_hand(x, db, &c);

    x->dirty = true;
    return rc != 0 ? rc : mdb_cursor_put(c, &key, &value, 0);
}

int mj_txn_del(mj_txn *x, int db, MDB_val key)
{
    MDB_cursor *c;
    int rc = at_hand(x, db, &c);

    x->dirty = true;
    if (rc == 0)
        rc = mdb_cursor_get(c, &key, NULL, MDB_SET);
    if (rc == 0)
        rc = mdb_cursor_del(c, 0);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int mj_txn_seek(mj_txn *x, int db, MDB_val from, MDB_val *key, MDB_val *value)
{
    MDB_cursor *c;
    int rc = at_hand(x, db, &c);

    if (rc != 0)
        return rc;
    *key = from;
    return mj_env_next(x->s->env, c, key, value, from.mv_size ? MDB_SET_RANGE : MDB_FIRST);
}

size_t mj_key_state(uint8_t *k, mj_state s, const uint8_t *ref)
{
    k[0] = (uint8_t)s;
    memcpy(k + 1, ref, MJ_ULID_BYTES);
    return 1 + MJ_ULID_BYTES;
}

size_t mj_key_user(uint8_t *k, mj_str user, const uint8_t *ref)
{
    k[0] = (uint8_t)(user.n >> 8);
    k[1] = (uint8_t)user.n;
    memcpy(k + 2, user.p, user.n);
    memcpy(k + 2 + user.n, ref, MJ_ULID_BYTES);
    return 2 + user.n + MJ_ULID_BYTES;
}

size_t mj_key_due(uint8_t *k, mj_due due, int64_t at, const uint8_t *ref)
{
    k[0] = (uint8_t)due;
    mj_be64(k + 1, (uint64_t)(at < 0 ? 0 : at));
    memcpy(k + 9, ref, MJ_ULID_BYTES);
    return DUE_KEY;
}

/* Higher priority first, then the older ref. */
size_t mj_key_queue(uint8_t *k, mj_str account, int32_t priority, const uint8_t *ref)
{
    k[0] = (uint8_t)(account.n >> 8);
    k[1] = (uint8_t)account.n;
    if (account.n)
        memcpy(k + 2, account.p, account.n);
    mj_be32(k + 2 + account.n, ~((uint32_t)priority ^ 0x80000000u));
    memcpy(k + 6 + account.n, ref, MJ_ULID_BYTES);
    return 6 + account.n + MJ_ULID_BYTES;
}

size_t mj_key_slot(uint8_t *k, int64_t until, const uint8_t *ref, uint32_t attempt)
{
    mj_be64(k, (uint64_t)(until < 0 ? 0 : until));
    memcpy(k + 8, ref, MJ_ULID_BYTES);
    mj_be32(k + 8 + MJ_ULID_BYTES, attempt);
    return SLOT_KEY;
}

int mj_txn_account(mj_txn *x, mj_str name)
{
    unsigned i;

    for (i = 0; i < x->nheld; i++)
        if (strlen(x->held[i].name) == name.n && memcmp(x->held[i].name, name.p, name.n) == 0)
            return (int)i;
    if (i == MJ_MAX_ACCOUNTS || name.n == 0 || name.n > MJ_MAX_NAME || memchr(name.p, 0, name.n))
        return -1;
    memset(&x->held[i], 0, sizeof x->held[i]);
    memcpy(x->held[i].name, name.p, name.n);
    x->nheld++;
    return (int)i;
}

int mj_facets_of(mj_txn *x, mj_task *t, mj_facets *f)
{
    *f = (mj_facets){.exists = true,
                     .state = t->state, /* layer: copy */
                     .due = mj_state_due(t),
                     .due_at = t->due_at,
                     .queued = t->state == MJ_QUEUED && t->ready,
                     .nattempts = t->nattempts};
    for (unsigned i = 0; i < t->nattempts; i++) {
        const mj_attempt *a = &t->attempts[i];
        f->nids[i] = a->nids;
        f->slots[i].held = a->slot;
        f->slots[i].until = a->slot_until;
        f->slots[i].account = a->slot ? mj_txn_account(x, a->account) : -1;
        if (a->slot && f->slots[i].account < 0)
            return MJ_ELIMIT;
    }
    return MJ_OK;
}

static int index_state(mj_txn *x, const mj_task *t, const mj_facets *old, const mj_facets *new)
{
    uint8_t k[KEY_MAX];
    int rc = 0;

    if (old->exists && old->state == new->state)
        return 0;
    if (old->exists) {
        x->counters.states[old->state]--;
        rc = mj_txn_del(x, DB_STATE, mj_val(k, mj_key_state(k, old->state, t->ref)));
    }
    x->counters.states[new->state]++;
    if (rc == 0)
        rc = mj_txn_put(x, DB_STATE, mj_val(k, mj_key_state(k, new->state, t->ref)), mj_val("", 0));
    return rc;
}

static int index_due(mj_txn *x, const mj_task *t, const mj_facets *old, const mj_facets *new)
{
    uint8_t k[KEY_MAX];
    int rc = 0;

    if (old->due == new->due && (old->due_at == new->due_at || new->due == MJ_DUE_NONE))
        return 0;
    if (old->due != MJ_DUE_NONE)
        rc = mj_txn_del(x, DB_DUE, mj_val(k, mj_key_due(k, old->due, old->due_at, t->ref)));
    if (rc == 0 && new->due != MJ_DUE_NONE)
        rc = mj_txn_put(x, DB_DUE, mj_val(k, mj_key_due(k, new->due, new->due_at, t->ref)), mj_val("", 0));
    return rc;
}

static int index_queue(mj_txn *x, MDB_val key, const mj_facets *old, const mj_facets *new)
{
    if (old->queued == new->queued)
        return 0;
    return new->queued ? mj_txn_put(x, DB_QUEUE, key, mj_val("", 0)) : mj_txn_del(x, DB_QUEUE, key);
}

static int index_slot(mj_txn *x, const mj_task *t, unsigned i, const mj_slot_facet *old, const mj_slot_facet *new)
{
    uint8_t k[KEY_MAX];
    mj_held *h;
    int rc = 0;

    if (old->held == new->held && (!new->held || (old->until == new->until && old->account == new->account)))
        return 0;
    if (old->held) {
        h = &x->held[old->account];
        h->held -= h->held > 0;
        h->dirty = true;
        rc = mj_txn_del(x, DB_SLOT, mj_val(k, mj_key_slot(k, old->until, t->ref, i + 1)));
    }
    if (rc == 0 && new->held) {
        h = &x->held[new->account];
        h->held++;
        h->dirty = true;
        rc = mj_txn_put(x, DB_SLOT, mj_val(k, mj_key_slot(k, new->until, t->ref, i + 1)),
                        mj_val(h->name, strlen(h->name)));
    }
    return rc;
}

static int index_ids(mj_txn *x, const mj_task *t, unsigned i, unsigned known)
{
    const mj_attempt *a = &t->attempts[i];
    uint8_t v[MJ_ULID_BYTES + 4];
    int rc = 0;

    memcpy(v, t->ref, MJ_ULID_BYTES);
    mj_be32(v + MJ_ULID_BYTES, i + 1);
    for (; known < a->nids && rc == 0; known++)
        rc = mj_txn_put(x, DB_TID, mj_val(a->ids[known].p, a->ids[known].n), mj_val(v, sizeof v));
    return rc;
}

static int index_once(mj_txn *x, const mj_task *t) /* what never changes after creation */
{
    uint8_t k[KEY_MAX], v[MJ_ULID_BYTES + sizeof t->fingerprint];
    int rc = 0;

    if (t->user_id.n)
        rc = mj_txn_put(x, DB_USER, mj_val(k, mj_key_user(k, t->user_id, t->ref)), mj_val("", 0));
    if (rc == 0 && t->key.n) {
        memcpy(v, t->ref, MJ_ULID_BYTES);
        memcpy(v + MJ_ULID_BYTES, t->fingerprint, sizeof t->fingerprint);
        rc = mj_txn_put(x, DB_KEY, mj_val(t->key.p, t->key.n), mj_val(v, sizeof v));
    }
    return rc;
}

int mj_index_write(mj_txn *x, mj_task *t, const mj_facets *old)
{
    mj_buf *b = &x->s->scratch;
    uint8_t k[KEY_MAX];
    MDB_val queue = mj_val(k, 0);
    mj_facets new;
    int rc = mj_facets_of(x, t, &new);

    if (rc != MJ_OK)
        return rc;
    b->n = 0;
    rc = mj_task_encode(t, b);
    if (rc != MJ_OK)
        return rc;
    /* Strings that t has from its old record may be gone with the first write. What the indexes take after it is the
     * signal's or the caller's, but for the account in the queue's key. */
    queue.mv_size = mj_key_queue(k, t->account, t->priority, t->ref);
    if (rc == 0)
        rc = mj_txn_put(x, DB_TASK, mj_val(t->ref, sizeof t->ref), mj_val(b->p, b->n));
    if (rc == 0 && !old->exists)
        rc = index_once(x, t);
    if (rc == 0)
        rc = index_state(x, t, old, &new);
    if (rc == 0)
        rc = index_due(x, t, old, &new);
    if (rc == 0)
        rc = index_queue(x, queue, old, &new);
    for (unsigned i = 0; i < new.nattempts &&rc == 0; i++) {
        rc = index_slot(x, t, i, &old->slots[i], &new.slots[i]);
        if (rc == 0)
            rc = index_ids(x, t, i, old->nids[i]);
    }
    return rc;
}
