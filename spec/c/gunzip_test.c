/* mj_gunzip: what arrives compressed although nobody asked, and how much it may become. */
#include "base/error.h"
#include "base/gunzip.h"
#include "mj_test.h"

#define ZLIB_CONST /* what is read is not written to */
#include <zlib.h>

enum { GZIP = 31, ZLIB = 15 }; /* window bits, as deflateInit2 takes them */

/* Compresses n bytes behind what is in *to. */
static void pack(mj_buf *to, const char *text, size_t n, int format)
{
    z_stream z = {.next_in = (const Bytef *)text, .avail_in = (uInt)n};

    CHECK_INT(deflateInit2(&z, 9, Z_DEFLATED, format, 8, Z_DEFAULT_STRATEGY), Z_OK);
    CHECK(mj_buf_reserve(to, deflateBound(&z, n) + 64));
    z.next_out = to->p + to->n;
    z.avail_out = (uInt)(to->cap - to->n);
    CHECK_INT(deflate(&z, Z_FINISH), Z_STREAM_END);
    to->n += z.total_out;
    deflateEnd(&z);
}

static mj_str str(const mj_buf *b)
{
    return (mj_str){(const char *)b->p, (uint32_t)b->n};
}

/* The outcome alone. */
static int unpack(mj_str body, uint32_t max)
{
    mj_buf out = {0};
    mj_str plain;
    int rc = mj_gunzip(body, max, &out, &plain);

    mj_buf_free(&out);
    return rc;
}

TEST("a body that is not compressed is given as it came, and nothing is allocated")
{
    static const char *const plain_ones[] = {"", "{", "{\"status\":0}", "\x1f", "\x1fx", "x", "xyz", "\xef\xbb\xbf{}"};

    for (size_t i = 0; i < sizeof plain_ones / sizeof plain_ones[0]; i++) {
        mj_str body = {plain_ones[i], (uint32_t)strlen(plain_ones[i])}, plain;
        mj_buf out = {0};
        CHECK_INT(mj_gunzip(body, 0, &out, &plain), MJ_OK);
        CHECK(plain.p == body.p && plain.n == body.n && out.p == NULL);
    }
    CHECK_INT(unpack((mj_str){0}, 10), MJ_OK);
}

TEST("gzip and zlib, of texts of any length, become what they were")
{
    static char text[300000];

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * i >> 7);
    for (int format = ZLIB; format <= GZIP; format += GZIP - ZLIB)
        for (size_t n = 0; n <= sizeof text; n = n * 3 + 1) {
            mj_buf packed = {0}, out = {0};
            mj_str plain;
            pack(&packed, text, n, format);
            CHECK_INT(mj_gunzip(str(&packed), (uint32_t)n, &out, &plain), MJ_OK);
            CHECK_INT(plain.n, n);
            CHECK_MEM(plain.p, text, n);
            mj_buf_free(&packed);
            mj_buf_free(&out);
        }
}

TEST("members one after another are one text, and what is behind the last is ignored")
{
    mj_buf packed = {0}, out = {0};
    mj_str plain;

    pack(&packed, "{\"a\":", 5, GZIP);
    pack(&packed, "", 0, GZIP);
    pack(&packed, "1}", 2, GZIP);
    mj_put_raw(&packed, "\0\0\0\r\n", 5);
    CHECK_INT(mj_gunzip(str(&packed), 7, &out, &plain), MJ_OK);
    CHECK_INT(plain.n, 7);
    CHECK_MEM(plain.p, "{\"a\":1}", 7);
    CHECK_INT(unpack(str(&packed), 6), MJ_ELIMIT); /* the bound is for all of them */
    mj_buf_free(&packed);
    mj_buf_free(&out);
}

TEST("what becomes more than allowed is refused, and takes no more memory than that")
{
    mj_buf packed = {0}, out = {0};
    char *zeros = calloc(1, 64 << 20);
    mj_str plain;

    pack(&packed, zeros, 64 << 20, GZIP);
    CHECK(packed.n < 100000);
    CHECK_INT(mj_gunzip(str(&packed), 1 << 20, &out, &plain), MJ_ELIMIT);
    CHECK(out.cap <= 4 << 20);
    CHECK_INT(unpack(str(&packed), (64 << 20) - 1), MJ_ELIMIT);
    CHECK_INT(unpack(str(&packed), 64 << 20), MJ_OK);
    mj_buf_free(&packed);
    mj_buf_free(&out);
    free(zeros);
}

TEST("a body that is cut short at any byte, or damaged, is told")
{
    static const char text[] = "{\"status\":0,\"message\":\"success\",\"data\":{\"taskId\":\"MtAd7mCuc4YqK_a1iAQSW\"}}";

    for (int format = ZLIB; format <= GZIP; format += GZIP - ZLIB) {
        mj_buf packed = {0};
        pack(&packed, text, sizeof text - 1, format);
        for (uint32_t n = 2; n < packed.n; n++)
            CHECK_INT(unpack((mj_str){(const char *)packed.p, n}, 1000), MJ_EINVAL);
        packed.p[packed.n - 1] ^= 1; /* of the length or the checksum */
        CHECK_INT(unpack(str(&packed), 1000), MJ_EINVAL);
        mj_buf_free(&packed);
    }
}
