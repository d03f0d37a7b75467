#include "base/gunzip.h"

#include "base/error.h"

#define ZLIB_CONST /* zlib then takes const input */
#include <zlib.h>

enum {
    ROOM = 16384,
    ANY_HEADER = 32
}; /* ANY_HEADER is added to the window bits: zlib then takes a gzip or a zlib header */

static bool is_gzip(const uint8_t *p, size_t n)
{
    return n >= 2 && p[0] == 0x1f && p[1] == 0x8b; /* RFC 1952, 2.3.1 */
}

static bool is_zlib(const uint8_t *p, size_t n)
{
    return n >= 2 && p[0] == 0x78 && (p[0] << 8 | p[1]) % 31 == 0; /* RFC 1950, 2.2 */
}

/* Ask for one byte more than allowed: a longer text then differs from one of exactly max bytes. */
static int inflate_all(z_stream *z, size_t max, mj_buf *out)
{
    for (;;) {
        size_t room;
        int rc;

        if (!mj_buf_reserve(out, ROOM))
            return MJ_ENOMEM;
        room = out->cap - out->n;
        room = room < max + 1 - out->n ? room : max + 1 - out->n;
        z->next_out = out->p + out->n;
        z->avail_out = (uInt)room;
        rc = inflate(z, Z_NO_FLUSH);
        out->n += room - z->avail_out;
        if (out->n > max)
            return MJ_ELIMIT;
        if (rc == Z_MEM_ERROR)
            return MJ_ENOMEM;
        if (rc == Z_STREAM_END) {
            if (!is_gzip(z->next_in, z->avail_in))
                return MJ_OK;
            rc = inflateReset(z);
        }
        if (rc != Z_OK) /* also Z_BUF_ERROR: the input is cut short */
            return MJ_EINVAL;
    }
}

bool mj_is_compressed(mj_str body)
{
    const uint8_t *p = (const uint8_t *)body.p;

    return is_gzip(p, body.n) || is_zlib(p, body.n);
}

int mj_gunzip(mj_str body, uint32_t max, mj_buf *out, mj_str *plain)
{
    z_stream z = {.next_in = (const Bytef *)body.p, .avail_in = body.n};
    int rc;

    *plain = body;
    if (!mj_is_compressed(body))
        return MJ_OK;
    out->n = 0;
    if (inflateInit2(&z, MAX_WBITS + ANY_HEADER) != Z_OK)
        return MJ_ENOMEM;
    rc = inflate_all(&z, max, out);
    inflateEnd(&z);
    *plain = (mj_str){(const char *)out->p, (uint32_t)out->n};
    return rc;
}
