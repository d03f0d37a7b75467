#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

void mj_buf_free(mj_buf *b)
{
    free(b->p);
    *b = (mj_buf){0};
}

bool mj_buf_reserve(mj_buf *b, size_t n)
{
    size_t cap = b->cap ? b->cap : 512;
    uint8_t *p;

    if (b->failed)
        return false;
    if (n <= b->cap - b->n)
        return true;
    while (cap - b->n < n && cap <= SIZE_MAX / 2)
        cap *= 2;
    p = cap - b->n < n ? NULL : realloc(b->p, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void mj_put_raw(mj_buf *b, const void *p, size_t n)
{
    if (n == 0 || ((b->failed || b->cap - b->n < n) && !mj_buf_reserve(b, n)))
        return;
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

enum { LONGEST = 10 /* bytes of a number */ };

void mj_put_u8(mj_buf *b, uint8_t v)
{
    if (b->n < b->cap && !b->failed)
        b->p[b->n++] = v;
    else
        mj_put_raw(b, &v, 1);
}

static size_t write_uint(uint8_t *to, uint64_t v)
{
    size_t n = 0;

    while (v >= 0x80) {
        to[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    to[n++] = (uint8_t)v;
    return n;
}

__attribute__((noinline)) static void put_long(mj_buf *b, uint64_t v)
{
    uint8_t tmp[LONGEST];
    size_t n;

    if (b->cap - b->n >= sizeof tmp && !b->failed) {
        b->n += write_uint(b->p + b->n, v);
    } else {
        n = write_uint(tmp, v);
        mj_put_raw(b, tmp, n);
    }
}

/* Most numbers of a record are small: one that is a byte takes the short way.  The long way is a function of its own,
 * so that the short one needs no stack.  These functions stay out of line: the code that goes over a batch of tasks has
 * to fit the processor's cache for code. */
void mj_put_uint(mj_buf *b, uint64_t v)
{
    if (v < 0x80 && b->n < b->cap && !b->failed)
        b->p[b->n++] = (uint8_t)v;
    else
        put_long(b, v);
}

void mj_put_int(mj_buf *b, int64_t v)
{
    mj_put_uint(b, ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0));
}

void mj_put_str(mj_buf *b, mj_str s)
{
    mj_put_uint(b, s.n);
    mj_put_raw(b, s.p, s.n);
}

mj_reader mj_reader_of(const void *p, size_t n)
{
    return (mj_reader){.p = p, .end = (const uint8_t *)p + n, .bad = p == NULL};
}

const uint8_t *mj_get_raw(mj_reader *r, size_t n)
{
    const uint8_t *p = r->p;

    if (r->bad || (size_t)(r->end - p) < n) {
        r->bad = true;
        return NULL;
    }
    r->p = p + n;
    return p;
}

uint8_t mj_get_u8(mj_reader *r)
{
    if (!r->bad && r->p < r->end)
        return *r->p++;
    r->bad = true;
    return 0;
}

/* A number that can't end behind the record's end. */
static uint64_t get_long_inside(mj_reader *r)
{
    const uint8_t *p = r->p;
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 63; shift += 7) {
        uint8_t c = *p++;
        v |= (uint64_t)(c & 0x7f) << shift;
        if (!(c & 0x80)) {
            r->p = p;
            return v;
        }
    }
    r->bad = *p > 1;
    r->p = p + 1;
    return r->bad ? 0 : v | (uint64_t)*p << 63;
}

__attribute__((noinline)) static uint64_t get_long(mj_reader *r)
{
    uint64_t v = 0;

    if (!r->bad && r->end - r->p >= LONGEST)
        return get_long_inside(r);
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t c = mj_get_u8(r);
        if (r->bad || (shift == 63 && c > 1))
            break;
        v |= (uint64_t)(c & 0x7f) << shift;
        if (!(c & 0x80))
            return v;
    }
    r->bad = true;
    return 0;
}

uint64_t mj_get_uint(mj_reader *r)
{
    if (!r->bad && r->p < r->end && *r->p < 0x80)
        return *r->p++;
    return get_long(r);
}

uint32_t mj_get_u32(mj_reader *r)
{
    uint64_t v = mj_get_uint(r);

    if (v <= UINT32_MAX)
        return (uint32_t)v;
    r->bad = true;
    return 0;
}

int64_t mj_get_int(mj_reader *r)
{
    uint64_t v = mj_get_uint(r);
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

mj_str mj_get_str(mj_reader *r)
{
    uint32_t n = mj_get_u32(r);
    const uint8_t *p = mj_get_raw(r, n);
    return p && n ? (mj_str){(const char *)p, n} : (mj_str){0};
}

bool mj_str_eq(mj_str a, mj_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

mj_str mj_str_head(mj_str s, uint32_t n)
{
    if (s.n <= n)
        return s;
    while (n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
        n--;
    return (mj_str){s.p, n};
}
