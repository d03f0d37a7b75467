/* Listings, page by page: which index a page walks, where it begins, and what of it is given. */
#include "store/rules.h"

#include <string.h>

enum {
    PASSED_BY = 1000,   /* records that a page looks at in vain, in a millisecond or two */
    PASSED_BYTES = 4096 /* a longer record counts once more for each of these */
};

static bool lists_tasks(const mj_query *q)
{
    return q->order != MJ_BY_DUE && q->order != MJ_BY_EVENT;
}

/* Bytes that a cursor keeps of an entry, big-endian; the first `fixed` fields are the query's own. */
static void keep_cursor(const mj_query *q, const mj_entry *e, uint8_t *cursor)
{
    if (q->order == MJ_BY_DUE) {
        mj_be64(cursor, (uint64_t)e->at);
        memcpy(cursor + 8, e->ref, MJ_ULID_BYTES);
    } else if (q->order == MJ_BY_EVENT && q->has_ref) {
        mj_be32(cursor, e->n);
    } else {
        memcpy(cursor, e->ref, MJ_ULID_BYTES);
        mj_be32(cursor + MJ_ULID_BYTES, e->n);
    }
}

static void from_cursor(const mj_query *q, mj_entry *e)
{
    if (q->order == MJ_BY_DUE) {
        e->at = (int64_t)mj_be64_get(q->cursor);
        memcpy(e->ref, q->cursor + 8, MJ_ULID_BYTES);
    } else if (q->order == MJ_BY_EVENT && q->has_ref) {
        e->n = mj_be32_get(q->cursor);
    } else {
        memcpy(e->ref, q->cursor, MJ_ULID_BYTES);
        if (q->order == MJ_BY_EVENT)
            e->n = mj_be32_get(q->cursor + MJ_ULID_BYTES);
    }
}

/* The first or last ref of a millisecond. */
static void ref_at(int64_t ms, bool last, uint8_t ref[MJ_ULID_BYTES])
{
    static const int64_t LATEST = ((int64_t)1 << 48) - 1;
    uint64_t time = (uint64_t)(ms > LATEST ? LATEST : ms);

    memset(ref, last ? 0xff : 0, MJ_ULID_BYTES);
    for (int i = 5; i >= 0; i--, time >>= 8)
        ref[i] = (uint8_t)time;
}

/* Begins at the window of time, unless the cursor is in it. */
static void enter_window(const mj_query *q, mj_scan *scan)
{
    int64_t at = scan->newest_first ? q->until : q->since;
    uint8_t ref[MJ_ULID_BYTES];
    int order;

    if (at == 0)
        return;
    ref_at(at, scan->newest_first, ref);
    order = scan->positioned ? memcmp(scan->from.ref, ref, sizeof ref) : 0;
    if (scan->positioned && (scan->newest_first ? order <= 0 : order >= 0))
        return;
    memcpy(scan->from.ref, ref, sizeof ref);
    scan->positioned = true;
    scan->after = false;
}

static int plan(const mj_query *q, mj_scan *scan)
{
    *scan =
        (mj_scan){.newest_first = !q->oldest_first, .rows = true, .fixed = 1, .positioned = q->more, .after = q->more};
    switch (q->order) {
    case MJ_BY_AGE:
        scan->from.index = MJ_IX_TASK;
        scan->fixed = 0;
        break;
    case MJ_BY_STATE:
        scan->from.index = MJ_IX_STATE;
        scan->from.n = q->state;
        break;
    case MJ_BY_USER:
        if (q->user_id.n == 0 || q->user_id.n > MJ_MAX_NAME)
            return MJ_EINVAL;
        scan->from.index = MJ_IX_USER;
        scan->from.name = q->user_id;
        break;
    case MJ_BY_KEY:
        if (q->key.n == 0 || q->key.n > MJ_MAX_NAME)
            return MJ_EINVAL;
        break;
    case MJ_BY_DUE:
        scan->from.index = MJ_IX_DUE;
        scan->from.n = q->due;
        scan->newest_first = false;
        scan->bounded = true;
        scan->until = q->until;
        break;
    case MJ_BY_EVENT:
        scan->from.index = MJ_IX_EVENT;
        scan->newest_first = false;
        scan->fixed = q->has_ref ? 1 : 0;
        if (q->has_ref)
            memcpy(scan->from.ref, q->ref, MJ_ULID_BYTES);
        break;
    default:
        return MJ_EINVAL;
    }
    scan->index = scan->from.index;
    if (q->more)
        from_cursor(q, &scan->from);
    if (lists_tasks(q) || (q->order == MJ_BY_EVENT && !q->has_ref))
        enter_window(q, scan);
    return MJ_OK;
}

typedef struct page {
    mj_store *s;
    mj_tx *tx;
    mj_query *q;
    mj_buf *out;
    uint32_t n, passed, seen;
} page;

static bool is_behind(const mj_query *q, const mj_entry *e)
{
    if (q->order == MJ_BY_DUE)
        return e->at > q->until;
    if (q->oldest_first || q->order == MJ_BY_EVENT)
        return q->until != 0 && mj_ulid_time(e->ref) > q->until;
    return q->since != 0 && mj_ulid_time(e->ref) < q->since;
}

static bool matches_event(const page *p, const mj_entry *e, mj_str bytes)
{
    const mj_query *q = p->q;
    mj_entry task = {.index = MJ_IX_TASK};
    mj_event_record event;

    if (q->buried || q->waiting || q->failed) {
        if (mj_event_decode(bytes, &event) != MJ_OK || (q->buried && !event.buried) || (q->waiting && event.buried) ||
            (q->failed && event.nerrors == 0))
            return false;
    }
    if (!mj_filter_is_set(&q->only))
        return true;
    memcpy(task.ref, e->ref, MJ_ULID_BYTES);
    return p->s->backend->get(p->tx, &task, &bytes) == MJ_OK && mj_filter_matches(&q->only, bytes);
}

static bool matches(const page *p, const mj_entry *e, mj_str bytes)
{
    if (!bytes.p) /* An index entry without a record is check()'s to tell. */
        return false;
    switch (p->q->order) {
    case MJ_BY_DUE:
        return true;
    case MJ_BY_EVENT:
        return matches_event(p, e, bytes);
    default:
        return mj_filter_matches(&p->q->only, bytes);
    }
}

static bool one(void *ctx, const mj_entry *e, mj_str bytes)
{
    page *p = ctx;
    mj_query *q = p->q;

    p->seen++;
    if (is_behind(q, e))
        return false;
    if (p->n == q->limit || p->passed >= PASSED_BY) {
        q->more = true;
        return false;
    }
    keep_cursor(q, e, q->cursor);
    q->looked++;
    if (!matches(p, e, bytes)) {
        p->passed += 1 + bytes.n / PASSED_BYTES;
        return true;
    }
    mj_put_str(p->out, q->refs && q->order != MJ_BY_EVENT ? (mj_str){(const char *)e->ref, MJ_ULID_BYTES} : bytes);
    p->n++;
    return true;
}

/* The task with the key, if it lies in the window and behind the cursor. */
static int page_of_key(page *p, const mj_scan *scan)
{
    mj_entry key = {.index = MJ_IX_KEY, .name = p->q->key}, task = {.index = MJ_IX_TASK};
    mj_str bytes = {0};
    int order, rc = p->s->backend->get(p->tx, &key, &bytes);

    memcpy(task.ref, key.ref, MJ_ULID_BYTES);
    if (rc == MJ_OK)
        rc = p->s->backend->get(p->tx, &task, &bytes);
    if (rc != MJ_OK)
        return rc == MJ_ENOTFOUND ? MJ_OK : rc; /* there is none, or it was pruned */
    order = memcmp(task.ref, scan->from.ref, MJ_ULID_BYTES);
    if (scan->positioned && (order == 0 ? scan->after : (order > 0) == scan->newest_first))
        return MJ_OK;
    one(p, &task, bytes);
    return MJ_OK;
}

int mj_store_page(mj_store *s, mj_query *q, mj_buf *out)
{
    page p = {.s = s, .q = q, .out = out};
    mj_scan scan;
    int rc = plan(q, &scan);

    if (rc != MJ_OK || (rc = mj_read_begin(s, &p.tx)) != MJ_OK)
        return rc;
    q->more = false;
    q->looked = 0;
    if (q->limit < UINT32_MAX && (q->order == MJ_BY_DUE || (lists_tasks(q) && !mj_filter_is_set(&q->only))))
        scan.limit = q->limit + 1; /* none is passed over, but for those without a record */
    rc = q->order == MJ_BY_KEY ? page_of_key(&p, &scan) : s->backend->scan(p.tx, &scan, one, &p);
    if (rc == MJ_OK && out->failed)
        rc = MJ_ENOMEM;
    if (scan.limit > 0 && p.seen == scan.limit)
        q->more = true;
    s->backend->abort(p.tx);
    return rc;
}
