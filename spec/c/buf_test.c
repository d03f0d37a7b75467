#include "base/buf.h"
#include "mj_test.h"
#include "rng.h"

static mj_str str(const char *s)
{
    return (mj_str){s, (uint32_t)strlen(s)};
}

static int sign(int v)
{
    return (v > 0) - (v < 0);
}

TEST("integers of every size come back as they went in")
{
    const uint64_t edges[] = {0,         1,         127, 128, 16383, 16384, UINT32_MAX, (uint64_t)UINT32_MAX + 1,
                              INT64_MAX, UINT64_MAX};
    rng r = rng_of(1);
    mj_buf b = {0};
    uint64_t in[500];
    mj_reader rd;

    for (size_t i = 0; i < 500; i++) {
        in[i] = i < 10 ? edges[i] : draw(&r) >> below(&r, 64);
        mj_put_uint(&b, in[i]);
        mj_put_int(&b, (int64_t)in[i]);
        mj_put_u8(&b, (uint8_t)in[i]);
    }
    CHECK(!b.failed);
    rd = mj_reader_of(b.p, b.n);
    for (size_t i = 0; i < 500; i++) {
        CHECK(mj_get_uint(&rd) == in[i]);
        CHECK(mj_get_int(&rd) == (int64_t)in[i]);
        CHECK_INT(mj_get_u8(&rd), (uint8_t)in[i]);
    }
    CHECK(!rd.bad && rd.p == rd.end);
    mj_buf_free(&b);
}

TEST("small numbers of either sign take one byte")
{
    mj_buf b = {0};

    mj_put_int(&b, -1);
    mj_put_int(&b, 63);
    mj_put_int(&b, -64);
    mj_put_uint(&b, 127);
    CHECK_INT(b.n, 4);
    CHECK_MEM(b.p, "\x01\x7e\x7f\x7f", 4);
    mj_put_int(&b, INT64_MIN);
    CHECK_INT(b.n, 14);
    mj_buf_free(&b);
}

TEST("an integer that does not fit is bad, whatever its length")
{
    const uint8_t eleven[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01};
    const uint8_t over[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    const uint8_t most[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    const uint8_t large[] = {0x80, 0x80, 0x80, 0x80, 0x10};
    mj_reader r = mj_reader_of(eleven, sizeof eleven);

    CHECK(mj_get_uint(&r) == 0 && r.bad);
    r = mj_reader_of(over, sizeof over);
    CHECK(mj_get_uint(&r) == 0 && r.bad);
    r = mj_reader_of(most, sizeof most);
    CHECK(mj_get_uint(&r) == UINT64_MAX && !r.bad);
    r = mj_reader_of(large, sizeof large);
    CHECK(mj_get_u32(&r) == 0 && r.bad);
}

TEST("a reader that ran over its end stays bad and gives nothing")
{
    const uint8_t bytes[] = {200, 'a', 'b', 5};
    mj_reader r = mj_reader_of(bytes, sizeof bytes);

    CHECK_INT(mj_get_str(&r).n, 0); /* 200 | 'a' << 7 bytes, it says */
    CHECK(r.bad);
    CHECK_INT(mj_get_u8(&r), 0);
    CHECK(mj_get_raw(&r, 1) == NULL);
    CHECK(mj_get_raw(&r, 0) == NULL);
    r = mj_reader_of(NULL, 0);
    CHECK(r.bad);
}

TEST("strings keep every byte, and equal ones are equal")
{
    mj_buf b = {0};
    mj_str s = {"a\0b\xff", 4}, empty = {0};
    mj_reader r;

    mj_put_str(&b, s);
    mj_put_str(&b, empty);
    r = mj_reader_of(b.p, b.n);
    CHECK(mj_str_eq(mj_get_str(&r), s));
    CHECK(mj_str_eq(mj_get_str(&r), empty));
    CHECK(!r.bad);
    CHECK(mj_str_eq(empty, (mj_str){"", 0}));
    CHECK(!mj_str_eq(s, (mj_str){"a\0bc", 4}));
    CHECK(!mj_str_eq(s, (mj_str){"a\0b", 3}));
    mj_buf_free(&b);
}

TEST("a buffer that got no memory stays failed and keeps what it had")
{
    mj_buf b = {0};

    mj_put_u8(&b, 7);
    mj_put_raw(&b, "x", SIZE_MAX - 1); /* nobody has that */
    CHECK(b.failed);
    mj_put_u8(&b, 8);
    CHECK_INT(b.n, 1);
    CHECK_INT(b.p[0], 7);
    mj_buf_free(&b);
    CHECK(!b.failed && b.p == NULL);
}

TEST("a buffer grows over many sizes")
{
    mj_buf b = {0};

    for (int i = 0; i < 100000; i++)
        mj_put_u8(&b, (uint8_t)i);
    CHECK_INT(b.n, 100000);
    for (int i = 0; i < 100000; i++)
        CHECK_INT(b.p[i], (uint8_t)i);
    mj_buf_free(&b);
}

TEST("the head of a string is never cut inside a character")
{
    mj_str s = str("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z"); /* 1 + 2 + 3 + 4 + 1 bytes */
    const uint32_t heads[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};

    for (uint32_t n = 0; n < 13; n++)
        CHECK_INT(mj_str_head(s, n).n, heads[n]);
}

TEST("big-endian keys sort as their numbers do")
{
    rng r = rng_of(2);
    uint8_t a[8], b[8];

    for (int i = 0; i < 2000; i++) {
        uint64_t x = draw(&r) >> below(&r, 64), y = draw(&r) >> below(&r, 64);
        mj_be64(a, x);
        mj_be64(b, y);
        CHECK_INT(sign(memcmp(a, b, 8)), (x > y) - (x < y));
        CHECK(mj_be64_get(a) == x);
        mj_be32(a, (uint32_t)x);
        CHECK(mj_be32_get(a) == (uint32_t)x);
    }
}
