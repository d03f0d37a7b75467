/* Parameters and results in PostgreSQL's binary form: integers are big-endian, an array has a head. */
#include "store/postgres/db.h"

#include <string.h>

enum { OID_BYTEA = 17, OID_INT8 = 20, OID_TID = 27, OID_UUID = 2950 };

void mj_pg_args_free(mj_pg_args *a)
{
    for (unsigned i = 0; i < MJ_PG_MOST_ARGS; i++)
        mj_buf_free(&a->bytes[i]);
}

void mj_pg_no_args(mj_pg_args *a)
{
    a->n = 0;
    a->failed = false;
}

/* The buffer of the parameter that is being made. */
static mj_buf *last(mj_pg_args *a)
{
    return &a->bytes[a->n - 1];
}

static mj_buf *next(mj_pg_args *a)
{
    mj_buf *b = &a->bytes[a->n++];

    b->n = 0;
    b->failed = false;
    return b;
}

static void put_int(mj_buf *b, int64_t v)
{
    uint8_t be[8];

    mj_be64(be, (uint64_t)v);
    mj_put_raw(b, be, sizeof be);
}

static void put_size(mj_buf *b, uint32_t v)
{
    uint8_t be[4];

    mj_be32(be, v);
    mj_put_raw(b, be, sizeof be);
}

void mj_pg_arg_int(mj_pg_args *a, int64_t v)
{
    put_int(next(a), v);
}

void mj_pg_arg_bytes(mj_pg_args *a, mj_str s)
{
    mj_buf *b = next(a);

    mj_buf_reserve(b, 1); /* an empty value is no NULL */
    mj_put_raw(b, s.p, s.n);
}

void mj_pg_arg_ref(mj_pg_args *a, const uint8_t *ref)
{
    mj_put_raw(next(a), ref, MJ_ULID_BYTES);
}

static int64_t number_of(char letter, const mj_entry *e)
{
    return letter == 'n' ? (int64_t)e->n : letter == 'a' ? e->at : -(int64_t)e->priority;
}

void mj_pg_arg_field(mj_pg_args *a, char letter, const mj_entry *e, mj_str bytes)
{
    switch (letter) {
    case 'r':
        mj_pg_arg_ref(a, e->ref);
        return;
    case 's':
        mj_pg_arg_bytes(a, e->name);
        return;
    case 'f':
        mj_pg_arg_bytes(a, (mj_str){(const char *)e->fingerprint, sizeof e->fingerprint});
        return;
    case 'b':
        mj_pg_arg_bytes(a, bytes);
        return;
    default:
        mj_pg_arg_int(a, number_of(letter, e));
    }
}

void mj_pg_arg_array(mj_pg_args *a, char letter, size_t n)
{
    mj_buf *b = next(a);

    put_size(b, n > 0); /* dimensions */
    put_size(b, 0);     /* no NULLs */
    put_size(b, letter == 'r'                                     ? OID_UUID
                : letter == 'c'                                   ? OID_TID
                : letter == 's' || letter == 'f' || letter == 'b' ? OID_BYTEA
                                                                  : OID_INT8);
    if (n > 0) {
        put_size(b, (uint32_t)n);
        put_size(b, 1); /* the first one's number */
    }
}

void mj_pg_item_int(mj_pg_args *a, int64_t v)
{
    put_size(last(a), 8);
    put_int(last(a), v);
}

void mj_pg_item_bytes(mj_pg_args *a, const void *p, size_t n)
{
    put_size(last(a), (uint32_t)n);
    mj_put_raw(last(a), p, n);
}

void mj_pg_item_field(mj_pg_args *a, char letter, const mj_entry *e, mj_str bytes)
{
    switch (letter) {
    case 'r':
        mj_pg_item_bytes(a, e->ref, MJ_ULID_BYTES);
        return;
    case 's':
        mj_pg_item_bytes(a, e->name.p, e->name.n);
        return;
    case 'f':
        mj_pg_item_bytes(a, e->fingerprint, sizeof e->fingerprint);
        return;
    case 'b':
        mj_pg_item_bytes(a, bytes.p, bytes.n);
        return;
    default:
        mj_pg_item_int(a, number_of(letter, e));
    }
}

int64_t mj_pg_int(const PGresult *r, int row, int column)
{
    const uint8_t *p = (const uint8_t *)PQgetvalue(r, row, column);

    switch (PQgetlength(r, row, column)) {
    case 8:
        return (int64_t)mj_be64_get(p);
    case 4:
        return (int32_t)mj_be32_get(p);
    default:
        return 0;
    }
}

mj_str mj_pg_bytes(const PGresult *r, int row, int column)
{
    return (mj_str){PQgetvalue(r, row, column), (uint32_t)PQgetlength(r, row, column)};
}

void mj_pg_entry(const PGresult *r, int row, mj_index index, mj_entry *e, mj_str *bytes)
{
    const mj_pg_table *t = &mj_pg_tables[index];

    *e = (mj_entry){.index = index};
    *bytes = (mj_str){0};
    for (int i = 0; i < (int)t->ncolumns; i++) {
        mj_str s = mj_pg_bytes(r, row, i);
        switch (t->columns[i].letter) {
        case 'r':
            if (s.n == MJ_ULID_BYTES)
                memcpy(e->ref, s.p, MJ_ULID_BYTES);
            break;
        case 's':
            e->name = s;
            break;
        case 'f':
            if (s.n == MJ_FINGERPRINT)
                memcpy(e->fingerprint, s.p, MJ_FINGERPRINT);
            break;
        case 'b':
            *bytes = s;
            break;
        case 'n':
            e->n = (uint32_t)mj_pg_int(r, row, i);
            break;
        case 'a':
            e->at = mj_pg_int(r, row, i);
            break;
        default:
            e->priority = (int32_t)-mj_pg_int(r, row, i);
        }
    }
}
