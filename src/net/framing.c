#include "net/framing.h"

#include <string.h>
#include <strings.h>

enum { MAX_DIGITS = 16 }; /* digits of a chunk's size, at most: 64 bits */

static bool fail(mj_framing *f, const char *fault)
{
    f->fault = fault;
    return false;
}

static bool add(mj_framing *f, size_t n)
{
    f->bytes += n;
    return f->bytes <= MJ_FRAMING_MAX || fail(f, "the header has no end");
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The value of a header line if it has this name. */
static bool named(const char *line, size_t n, const char *name, mj_str *value)
{
    size_t at = strlen(name);

    if (n < at || strncasecmp(line, name, at) != 0)
        return false;
    while (at < n && is_blank(line[at]))
        at++;
    while (n > at && is_blank(line[n - 1]))
        n--;
    *value = (mj_str){line + at, (uint32_t)(n - at)};
    return true;
}

static bool is(mj_str value, const char *word)
{
    return value.n == strlen(word) && strncasecmp(value.p, word, value.n) == 0;
}

/* libcurl unpacks what a server has packed, asked for or not: a little data can unpack to gigabytes and keep libcurl
 * busy beyond any deadline. */
bool mj_framing_line(mj_framing *f, const char *line, size_t n)
{
    mj_str value;

    if (f->fault || !add(f, n))
        return false;
    if (!named(line, n, "Transfer-Encoding:", &value) || is(value, "identity"))
        return true;
    f->packed = !is(value, "chunked");
    f->chunked = true; /* once, however many proxies have added the line */
    return !f->packed || fail(f, "packed in a way that it was not asked for");
}

void mj_framing_again(mj_framing *f)
{
    *f = (mj_framing){.bytes = f->bytes, .fault = f->fault, .packed = f->packed};
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* One CR before each LF is normal; a second one is excess. */
static bool is_first_cr(mj_framing *f, char c)
{
    bool first = c == '\r' && !f->cr;

    f->cr = f->cr || first;
    return first;
}

static void enter(mj_framing *f, mj_chunk_state state)
{
    f->at = state;
    f->cr = false;
    f->digits = 0;
}

/* One byte outside the body. */
static bool step(mj_framing *f, char c)
{
    switch (f->at) {
    case MJ_CHUNK_SIZE:
        if (digit(c) >= 0 && f->digits < MAX_DIGITS) {
            f->left = f->left << 4 | (unsigned)digit(c);
            f->digits++;
            return true;
        }
        if (f->digits == 0 || digit(c) >= 0)
            return fail(f, "a chunk without a size");
        enter(f, MJ_CHUNK_LINE);
        return step(f, c);
    case MJ_CHUNK_LINE:
        if (c != '\n')
            return is_first_cr(f, c) || add(f, 1);
        enter(f, f->left ? MJ_CHUNK_DATA : MJ_CHUNK_TRAILER);
        return true;
    case MJ_CHUNK_DATA_END:
        if (c != '\n')
            return is_first_cr(f, c) || fail(f, "a chunk without an end");
        enter(f, MJ_CHUNK_SIZE);
        return true;
    case MJ_CHUNK_TRAILER:
        if (c == '\n')
            enter(f, MJ_CHUNK_DONE);
        else if (!is_first_cr(f, c))
            enter(f, MJ_CHUNK_FIELD);
        return add(f, 1);
    case MJ_CHUNK_FIELD:
        if (c == '\n')
            enter(f, MJ_CHUNK_TRAILER);
        return add(f, 1);
    default: /* MJ_CHUNK_DATA is not read byte by byte; bytes after the end are not part of the answer */
        return true;
    }
}

bool mj_framing_body(mj_framing *f, mj_str *in, mj_str *piece)
{
    if (f->fault)
        return false;
    if (!f->chunked) {
        *piece = *in;
        in->n = 0;
        return piece->n > 0;
    }
    for (; in->n > 0; in->p++, in->n--) {
        if (f->at == MJ_CHUNK_DATA) {
            *piece = (mj_str){in->p, f->left < in->n ? (uint32_t)f->left : in->n};
            in->p += piece->n;
            in->n -= piece->n;
            f->left -= piece->n;
            if (f->left == 0)
                enter(f, MJ_CHUNK_DATA_END);
            return true;
        }
        if (!step(f, *in->p))
            return false;
    }
    return false;
}

bool mj_framing_done(const mj_framing *f)
{
    return f->chunked && f->at == MJ_CHUNK_DONE && !f->fault;
}
