/* Callbacks that were refused although their token was good: the newest few, for a person to look at and to take in
 * after all.  A ring: what comes in pushes the oldest out.  Each task has a quota, so that one URL can't push out what
 * other tasks have, nor make the disk write at the pace of its requests. */
#include "store/impl.h"

#include <string.h>

static uint64_t number_of(MDB_val key)
{
    return key.mv_size == 8 ? mj_be64_get(key.mv_data) : 0;
}

/* The first (or last) number there is; 0 when there is none. */
static int end_of(mj_txn *x, MDB_cursor_op which, uint64_t *number)
{
    MDB_cursor *c;
    MDB_val key, value;
    int rc = mdb_cursor_open(x->t, mj_env_dbi(x->s->env, DB_REFUSED), &c);

    *number = 0;
    if (rc != 0)
        return rc;
    rc = mj_env_next(x->s->env, c, &key, &value, which);
    if (rc == 0)
        *number = number_of(key);
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

enum { GAP_MS = 1000 }; /* between two of a task that has its quota */

/* What is kept of one task, among all. */
typedef struct share {
    uint32_t n, all;
    uint64_t oldest;   /* its number */
    int64_t newest_at; /* wall clock, milliseconds */
} share;

static int share_of(mj_txn *x, const uint8_t *ref, share *out)
{
    MDB_cursor *c;
    MDB_val key, value;
    int rc = mdb_cursor_open(x->t, mj_env_dbi(x->s->env, DB_REFUSED), &c);

    *out = (share){0};
    if (rc != 0)
        return rc;
    while ((rc = mdb_cursor_get(c, &key, &value, MDB_NEXT)) == 0) {
        mj_reader r = mj_reader_of(value.mv_data, value.mv_size);
        int64_t at = mj_get_int(&r);
        const uint8_t *whose = mj_get_raw(&r, MJ_ULID_BYTES);
        out->all++;
        if (!whose || memcmp(whose, ref, MJ_ULID_BYTES) != 0)
            continue;
        if (out->n++ == 0)
            out->oldest = number_of(key);
        out->newest_at = at;
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int drop(mj_txn *x, uint64_t number)
{
    uint8_t key[8];

    mj_be64(key, number);
    return mj_txn_del(x, DB_REFUSED, mj_val(key, sizeof key));
}

int mj_refused_op(mj_txn *x, mj_op *op)
{
    mj_buf *b = &x->s->scratch;
    uint64_t first, last;
    uint8_t key[8];
    share mine;
    int rc = end_of(x, MDB_LAST, &last);

    if (rc == 0)
        rc = share_of(x, op->ref, &mine);
    if (rc == 0 && mine.n >= MJ_MAX_REFUSED_OF_ONE) {
        if (x->now >= mine.newest_at && x->now - mine.newest_at < GAP_MS) {
            op->code = MJ_ELIMIT;
            return 0;
        }
        rc = drop(x, mine.oldest);
        mine.all--;
    }
    if (rc != 0)
        return rc;
    b->n = 0;
    mj_put_int(b, x->now);
    mj_put_raw(b, op->ref, MJ_ULID_BYTES);
    mj_put_uint(b, op->sig.attempt);
    mj_put_uint(b, op->body.n);
    mj_put_str(b, mj_str_head(op->sig.error, MJ_MAX_REASON));
    mj_put_str(b, (mj_str){op->body.p, op->body.n < MJ_MAX_REFUSED_BODY ? op->body.n : MJ_MAX_REFUSED_BODY});
    if (b->failed)
        return MJ_ENOMEM;
    mj_be64(key, last + 1);
    rc = mj_txn_put(x, DB_REFUSED, mj_val(key, sizeof key), mj_val(b->p, b->n));
    if (rc == 0 && mine.all >= MJ_MAX_REFUSED && (rc = end_of(x, MDB_FIRST, &first)) == 0)
        rc = drop(x, first);
    return rc;
}

int mj_refused_decode(mj_str bytes, mj_refused *out)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    mj_refused f = {.number = mj_get_uint(&r), .at = mj_get_int(&r)};
    const uint8_t *ref = mj_get_raw(&r, MJ_ULID_BYTES);

    if (ref)
        memcpy(f.ref, ref, sizeof f.ref);
    f.attempt = mj_get_u32(&r);
    f.size = mj_get_uint(&r);
    f.why = mj_get_str(&r);
    f.body = mj_get_str(&r);
    if (r.bad)
        return MJ_ECORRUPT;
    *out = f;
    return MJ_OK;
}

/* A record with its number before it. */
static int give(mj_store *s, MDB_val key, MDB_val value, mj_buf *out)
{
    mj_buf *b = &s->scratch;

    b->n = 0;
    mj_put_uint(b, number_of(key));
    mj_put_raw(b, value.mv_data, value.mv_size);
    mj_put_str(out, (mj_str){(const char *)b->p, (uint32_t)b->n});
    return b->failed || out->failed ? MJ_ENOMEM : 0;
}

int mj_store_refused(mj_store *s, uint64_t below, uint32_t limit, mj_buf *out)
{
    uint8_t from[8] = {0};
    MDB_cursor *c;
    MDB_val key = mj_val(from, sizeof from), value;
    int rc = mj_store_begin(s);

    if (rc != 0)
        return mj_env_code(rc);
    s->scratch.failed = false;
    mj_be64(from, below);
    rc = mdb_cursor_open(s->reader.txn, mj_env_dbi(s->env, DB_REFUSED), &c);
    if (rc != 0)
        return mj_store_end(s, rc);
    /* To the first one at or above `below`, and back one; past the end, to the last. */
    rc = below ? mj_env_next(s->env, c, &key, &value, MDB_SET_RANGE) : MDB_NOTFOUND;
    rc = mj_env_next(s->env, c, &key, &value, rc == 0 ? MDB_PREV : MDB_LAST);
    for (; rc == 0 && limit > 0; limit--) {
        rc = give(s, key, value, out);
        if (rc == 0)
            rc = mj_env_next(s->env, c, &key, &value, MDB_PREV);
    }
    mdb_cursor_close(c);
    return mj_store_end(s, rc == MDB_NOTFOUND ? 0 : rc);
}
