/* A batch's changes as few statements: for each table one of each kind that is needed.
 *
 * A row that was read, and so locked, is written where it lies.  What was not read is taken for new: an entry follows
 * from a row that is locked, so nothing else makes it.  If it is there all the same, which only a damaged index brings
 * about, the batch fails and runs again, and then writes over it. */
#include "store/postgres/db.h"

#include <stdlib.h>
#include <string.h>

/* How a row or an entry is written, in this order. */
typedef enum {
    DELETED,  /* found by its key */
    REMOVED,  /* found by its place */
    REPLACED, /* found by its place; its bytes change */
    PUT,      /* made, or written over */
    MADE,     /* has to be new */
    NKINDS
} kind;

static const mj_pg_kind statement_of[NKINDS] = {MJ_PG_DELETE, MJ_PG_REMOVE, MJ_PG_REPLACE, MJ_PG_PUT, MJ_PG_NEW};

/* What becomes of one row or entry. */
typedef struct mark {
    struct mark *chain, *next; /* next: of its table */
    mj_entry key;
    mj_str bytes;
    bool gone;
    kind kind;
    const char *place;
} mark;

typedef struct batch {
    mj_tx *tx;
    mark **buckets;
    size_t nbuckets, n;
    mark *of[MJ_NINDEXES];
    int rc;
} batch;

static bool is_name(mj_index i)
{
    return i == MJ_IX_TID || i == MJ_IX_KEY;
}

/* Of a name there may be one mark that puts it, and one that deletes it for each ref. */
static bool same(const mark *m, const mj_entry *key, bool gone)
{
    if (!mj_pg_same(&m->key, key))
        return false;
    return !is_name(key->index) || (m->gone == gone && (!gone || memcmp(m->key.ref, key->ref, sizeof key->ref) == 0));
}

static mark *make(batch *b, const mj_entry *key, bool gone)
{
    mark **at = &b->buckets[mj_pg_hash(key) & (b->nbuckets - 1)], *m = *at;

    while (m && !same(m, key, gone))
        m = m->chain;
    if (m)
        return m;
    m = mj_pg_alloc(b->tx, sizeof *m);
    if (!m) {
        b->rc = MJ_ENOMEM;
        return NULL;
    }
    *m = (mark){.chain = *at, .next = b->of[key->index], .key = *key, .gone = gone};
    *at = m;
    b->of[key->index] = m;
    b->n++;
    return m;
}

/* Takes a put back that the same ref deletes afterwards. */
static void unput(batch *b, const mj_entry *key)
{
    mark **at = &b->buckets[mj_pg_hash(key) & (b->nbuckets - 1)], **list = &b->of[key->index], *m;

    while (*at && !same(*at, key, false))
        at = &(*at)->chain;
    m = *at;
    if (!m || memcmp(m->key.ref, key->ref, sizeof key->ref) != 0)
        return;
    *at = m->chain;
    while (*list && *list != m)
        list = &(*list)->next;
    if (*list)
        *list = m->next;
}

/* What the transaction knows of a row of EVENT, which came with the others of its task. */
static bool find_event(const mj_tx *tx, const mj_entry *key, bool *there, const char **place)
{
    mj_entry of = *key;
    const mj_pg_item *group, *task;

    of.n = 0;
    group = mj_pg_known(tx, &of, true);
    of.index = MJ_IX_TASK;
    task = mj_pg_known(tx, &of, false);
    *there = false;
    for (int row = group ? group->from : 0; group && row < group->to && !*there; row++)
        if (mj_pg_int(group->events, row, 1) == (int64_t)key->n) {
            *there = true;
            *place = task && task->there ? mj_pg_place(group->events, row, (int)mj_pg_tables[MJ_IX_EVENT].ncolumns)
                                         : NULL; /* nothing is locked */
        }
    return group != NULL;
}

/* Whether it is known what is there under that key. */
static bool look(const mj_tx *tx, const mj_entry *key, bool *there, const char **place)
{
    const mj_pg_item *i = mj_pg_known(tx, key, false);

    *place = NULL;
    if (!i && key->index == MJ_IX_EVENT)
        return find_event(tx, key, there, place);
    *there = i && i->there && (key->index != MJ_IX_ACCOUNT || i->bytes.n > 0); /* or there for its slots alone */
    *place = i ? i->place : NULL;
    return i || tx->looked[key->index];
}

static kind kind_of(const mj_tx *tx, mark *m)
{
    bool there, known = look(tx, &m->key, &there, &m->place);

    if (m->gone)
        return m->place ? REMOVED : DELETED;
    if (m->place && mj_pg_has_bytes(m->key.index))
        return REPLACED;
    if (m->key.index == MJ_IX_META) /* read by many, and the last writer wins */
        return PUT;
    return known ? (there ? PUT : MADE) : tx->db->collided ? PUT : MADE;
}

static void note(batch *b, const mj_entry *key, bool gone, mj_str bytes)
{
    mark *m;

    if (gone && is_name(key->index))
        unput(b, key);
    m = make(b, key, gone);
    if (!m)
        return;
    m->key = *key;
    m->gone = gone;
    m->bytes = bytes;
}

static int entry(void *ctx, const mj_entry *e, bool put)
{
    batch *b = ctx;

    note(b, e, !put, (mj_str){0});
    return b->rc;
}

static int collect(batch *b, const mj_change *changes, size_t n)
{
    for (size_t i = 0; i < n && b->rc == MJ_OK; i++) {
        const mj_change *c = &changes[i];
        note(b, &c->key, c->gone, c->bytes);
        if (c->was && b->rc == MJ_OK)
            b->rc = mj_facets_diff(c->key.ref, c->was, c->is, entry, b);
    }
    return b->rc;
}

static int by_key(const void *a, const void *b)
{
    return mj_entry_order(&(*(mark *const *)a)->key, &(*(mark *const *)b)->key);
}

/* Jobs that SQL has enqueued: those that are tasks now go, those that can't become one keep the reason. */
static int send_intake(batch *b, bool gone)
{
    mj_pg_args *args = &b->tx->db->conn.args;
    size_t n = 0;
    int64_t id;

    for (mark *m = b->of[MJ_IX_META]; m; m = m->next)
        n += m->gone == gone && mj_pg_is_intake(&m->key, &id);
    if (n == 0)
        return MJ_OK;
    mj_pg_no_args(args);
    mj_pg_arg_array(args, 'n', n);
    for (mark *m = b->of[MJ_IX_META]; m; m = m->next)
        if (m->gone == gone && mj_pg_is_intake(&m->key, &id))
            mj_pg_item_int(args, id);
    if (gone)
        return mj_pg_send(&b->tx->db->conn, MJ_PG_INTAKE_GONE);
    mj_pg_arg_array(args, 'b', n);
    for (mark *m = b->of[MJ_IX_META]; m; m = m->next)
        if (!m->gone && mj_pg_is_intake(&m->key, &id))
            mj_pg_item_bytes(args, m->bytes.p, m->bytes.n);
    return mj_pg_send(&b->tx->db->conn, MJ_PG_INTAKE_REFUSE);
}

static void add_places(mj_pg_args *args, mark *const *sorted, size_t n, kind k, size_t of_kind)
{
    mj_pg_arg_array(args, 'c', of_kind);
    for (size_t i = 0; i < n; i++)
        if (sorted[i]->kind == k)
            mj_pg_item_bytes(args, sorted[i]->place, MJ_PG_PLACE);
}

static void add_column(mj_pg_args *args, char letter, mark *const *sorted, size_t n, kind k, size_t of_kind)
{
    mj_pg_arg_array(args, letter, of_kind);
    for (size_t i = 0; i < n; i++)
        if (sorted[i]->kind == k)
            mj_pg_item_field(args, letter, &sorted[i]->key, sorted[i]->bytes);
}

/* One statement: those marks of a table that are of this kind, which are sorted. */
static int send(batch *b, mj_index index, mark *const *sorted, size_t n, kind k)
{
    const mj_pg_table *t = &mj_pg_tables[index];
    mj_pg_conn *c = &b->tx->db->conn;
    unsigned first = k == REPLACED ? t->nkey : 0;
    unsigned end = k == REMOVED ? 0 : k != DELETED ? t->ncolumns : is_name(index) ? 2 : t->nkey;
    size_t of_kind = 0;

    for (size_t i = 0; i < n; i++)
        of_kind += sorted[i]->kind == k;
    if (of_kind == 0)
        return MJ_OK;
    mj_pg_no_args(&c->args);
    if (k == REMOVED || k == REPLACED)
        add_places(&c->args, sorted, n, k, of_kind);
    for (unsigned col = first; col < end; col++)
        add_column(&c->args, t->columns[col].letter, sorted, n, k, of_kind);
    return mj_pg_send(c, mj_pg_of(statement_of[k], index, 0));
}

static int send_table(batch *b, mj_index index, mark **sorted)
{
    size_t n = 0;
    int rc = MJ_OK;

    for (mark *m = b->of[index]; m; m = m->next) {
        int64_t id;
        const mj_pg_item *known = mj_pg_is_intake(&m->key, &id) && !m->gone ? mj_pg_known(b->tx, &m->key, false) : NULL;
        if (known && known->there) /* see send_intake() */
            continue;
        m->kind = kind_of(b->tx, m);
        sorted[n++] = m;
    }
    if (n == 0)
        return MJ_OK;
    qsort(sorted, n, sizeof(mark *), by_key);
    for (kind k = 0; k < NKINDS && rc == MJ_OK; k++)
        rc = send(b, index, sorted, n, k);
    return rc;
}

int mj_pg_apply(mj_tx *tx, const mj_change *changes, size_t n, const mj_tally *add)
{
    batch b = {.tx = tx, .nbuckets = 64};
    int rc = mj_pg_begun(tx);
    mark **sorted;

    while (b.nbuckets < 8 * n && b.nbuckets < 65536)
        b.nbuckets *= 2;
    b.buckets = mj_pg_alloc(tx, b.nbuckets * sizeof(mark *));
    if (rc != MJ_OK || !b.buckets)
        return rc != MJ_OK ? rc : MJ_ENOMEM;
    memset(b.buckets, 0, b.nbuckets * sizeof(mark *));
    rc = collect(&b, changes, n);
    sorted = rc == MJ_OK ? mj_pg_alloc(tx, (b.n + 1) * sizeof(mark *)) : NULL;
    if (rc == MJ_OK && !sorted)
        rc = MJ_ENOMEM;
    if (rc == MJ_OK)
        rc = send_intake(&b, true);
    if (rc == MJ_OK)
        rc = send_intake(&b, false);
    for (mj_index i = 0; i < MJ_NINDEXES && rc == MJ_OK; i++)
        rc = send_table(&b, i, sorted);
    if (rc == MJ_OK)
        rc = mj_pg_writer_send(tx->db, add);
    tx->applied = rc == MJ_OK;
    return tx->db->conn.c ? rc : mj_pg_again(tx->db, rc);
}
