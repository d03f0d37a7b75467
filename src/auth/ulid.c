#include "auth/ulid.h"

#include "base/error.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

static bool is_zero(const uint8_t *p, size_t n)
{
    uint8_t any = 0;

    for (size_t i = 0; i < n; i++)
        any |= p[i];
    return any == 0;
}

int64_t mj_ulid_time(const uint8_t id[MJ_ULID_BYTES])
{
    int64_t t = 0;

    for (int i = 0; i < 6; i++)
        t = t << 8 | id[i];
    return t;
}

/* getrandom gives up to 256 bytes at once; a signal can interrupt it only early in boot, before the pool is ready. */
static bool random_bytes(uint8_t *p, size_t n)
{
    ssize_t got;

    do
        got = getrandom(p, n, 0);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)n;
}

int mj_ulid_next(uint8_t last[MJ_ULID_BYTES], int64_t now_ms)
{
    uint8_t next[MJ_ULID_BYTES];
    int i;

    if (now_ms < 0 || now_ms >> 48)
        return MJ_EINVAL;
    memcpy(next, last, sizeof next);
    if (!is_zero(last, MJ_ULID_BYTES) && now_ms <= mj_ulid_time(last)) {
        /* The same millisecond, or a clock that stepped back: the next number, with a carry into the time if needed. */
        for (i = MJ_ULID_BYTES - 1; i >= 0 && ++next[i] == 0; i--)
            ;
        if (i < 0)
            return MJ_ELIMIT;
    } else {
        for (i = 0; i < 6; i++)
            next[i] = (uint8_t)(now_ms >> (40 - 8 * i));
        if (!random_bytes(next + 6, sizeof next - 6))
            return MJ_EIO;
    }
    memcpy(last, next, sizeof next);
    return MJ_OK;
}

static const char base32[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"; /* Crockford's */

void mj_ulid_text(const uint8_t id[MJ_ULID_BYTES], char out[MJ_ULID_TEXT + 1])
{
    /* 26 characters are 130 bits: two leading zero bits before the 128. */
    unsigned bits = 0, nbits = 2;
    int w = 0;

    for (int i = 0; i < MJ_ULID_BYTES; i++) {
        bits = bits << 8 | id[i];
        for (nbits += 8; nbits >= 5; nbits -= 5)
            out[w++] = base32[bits >> (nbits - 5) & 31];
    }
    out[w] = '\0';
}

/* The value of a digit of either case; -1: it is none. */
static int digit(char c)
{
    static const int8_t values['Z' - '0' + 1] = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  -1, -1, -1, -1, -1, -1, -1, 10, 11, 12, 13, 14,
        15, 16, 17, -1, 18, 19, -1, 20, 21, -1, 22, 23, 24, 25, 26, -1, 27, 28, 29, 30, 31,
    };

    if (c >= 'a' && c <= 'z')
        c = (char)(c - 'a' + 'A');
    return c >= '0' && c <= 'Z' ? values[c - '0'] : -1;
}

int mj_ulid_parse(const char *text, size_t len, uint8_t id[MJ_ULID_BYTES])
{
    uint8_t tmp[MJ_ULID_BYTES];
    unsigned bits = 0, nbits = 0;
    size_t w = 0;

    /* 26 characters are 130 bits, of which the first two have to be zero. */
    if (len != MJ_ULID_TEXT || digit(text[0]) > 7)
        return MJ_EINVAL;
    for (size_t i = 0; i < MJ_ULID_TEXT; i++) {
        int v = digit(text[i]);
        if (v < 0)
            return MJ_EINVAL;
        bits = bits << 5 | (unsigned)v;
        nbits += i == 0 ? 3 : 5;
        if (nbits >= 8) {
            nbits -= 8;
            tmp[w++] = (uint8_t)(bits >> nbits);
        }
    }
    memcpy(id, tmp, sizeof tmp);
    return MJ_OK;
}
