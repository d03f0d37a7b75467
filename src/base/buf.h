/* mj_buf: a growing byte buffer and a bounded reader, the two halves of every
 * record codec.  Integers are LEB128 (little-endian base 128), signed ones
 * zigzagged; strings carry their length.  No host byte order anywhere.
 *
 * The writer is sticky: after a failed allocation every put is a no-op and
 * `failed` stays true, so one check at the end is enough.  The reader is sticky
 * too: after an overrun every get gives zero and `bad` stays true. */
#ifndef MJ_BUF_H
#define MJ_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A slice of bytes that another object owns. {NULL, 0} is the empty string. */
typedef struct mj_str {
    const char *p;
    uint32_t n;
} mj_str;

#define MJ_LIT(s) ((mj_str){("" s), (uint32_t)sizeof(s) - 1})

typedef struct mj_buf {
    uint8_t *p;
    size_t n, cap;
    bool failed;
} mj_buf;

void mj_buf_free(mj_buf *b);
/* Makes room for n more bytes: nothing moves until they are used up.  False (and failed): no memory. */
bool mj_buf_reserve(mj_buf *b, size_t n);
void mj_put_raw(mj_buf *b, const void *p, size_t n);
void mj_put_u8(mj_buf *b, uint8_t v);
void mj_put_uint(mj_buf *b, uint64_t v);
void mj_put_int(mj_buf *b, int64_t v);
void mj_put_str(mj_buf *b, mj_str s);

typedef struct mj_reader {
    const uint8_t *p, *end;
    bool bad;
} mj_reader;

mj_reader mj_reader_of(const void *p, size_t n);
const uint8_t *mj_get_raw(mj_reader *r, size_t n); /* NULL when bad */
uint8_t mj_get_u8(mj_reader *r);
uint64_t mj_get_uint(mj_reader *r);
uint32_t mj_get_u32(mj_reader *r); /* bad when larger */
int64_t mj_get_int(mj_reader *r);
mj_str mj_get_str(mj_reader *r);

bool mj_str_eq(mj_str a, mj_str b);
/* At most n bytes of s, not cut inside a UTF-8 sequence. */
mj_str mj_str_head(mj_str s, uint32_t n);

/* Big-endian integers for keys, so that memcmp order is number order. */
static inline void mj_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static inline void mj_be64(uint8_t *p, uint64_t v)
{
    mj_be32(p, (uint32_t)(v >> 32));
    mj_be32(p + 4, (uint32_t)v);
}

static inline uint32_t mj_be32_get(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t mj_be64_get(const uint8_t *p)
{
    return (uint64_t)mj_be32_get(p) << 32 | mj_be32_get(p + 4);
}

#endif
