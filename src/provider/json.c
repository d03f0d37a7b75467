#include "provider/json.h"

#include <string.h>

/* ---- the grammar ---- */

typedef struct scan {
    const char *p, *end;
    unsigned depth;
    bool picky;      /* `odd` is wanted */
    bool odd;        /* something was read that is not plain */
    const char *why; /* NULL: nothing is wrong */
} scan;

static bool wrong(scan *s, const char *why)
{
    s->why = s->p < s->end ? why : "it ends too early";
    return false;
}

static void blanks(scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

static bool at(const scan *s, char c)
{
    return s->p < s->end && *s->p == c;
}

static bool skip(scan *s, char c)
{
    bool there = at(s, c);

    s->p += there;
    return there;
}

static size_t digits(scan *s)
{
    const char *from = s->p;

    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return (size_t)(s->p - from);
}

/* Beyond this a double may be infinite. */
enum { PLAIN_DIGITS = 40, PLAIN_EXPONENT = 2 };

static bool number(scan *s)
{
    const char *from = s->p;
    size_t exponent = 0;

    skip(s, '-');
    if (!skip(s, '0') && digits(s) == 0)
        return wrong(s, "a bad number");
    if (skip(s, '.') && digits(s) == 0)
        return wrong(s, "a bad number");
    if (at(s, 'e') || at(s, 'E')) {
        s->p++;
        if (!skip(s, '-'))
            skip(s, '+');
        exponent = digits(s);
        if (exponent == 0)
            return wrong(s, "a bad number");
    }
    s->odd = s->odd || s->p - from > PLAIN_DIGITS || exponent > PLAIN_EXPONENT;
    return true;
}

enum { NO_HEX = -1, HALF_PAIR = -2 };

static int hex4(const char *p, const char *end)
{
    int v = 0;

    if (end - p < 4)
        return NO_HEX;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return NO_HEX;
        v = v * 16 + digit;
    }
    return v;
}

/* The code point of the \u before p, or NO_HEX or HALF_PAIR; *used: bytes from p on. */
static int32_t code_point(const char *p, const char *end, size_t *used)
{
    int32_t high = hex4(p, end), low;

    *used = 4;
    if (high < 0xd800 || high > 0xdfff)
        return high;
    low = high < 0xdc00 && end - p >= 10 && p[4] == '\\' && p[5] == 'u' ? hex4(p + 6, end) : -1;
    if (low < 0xdc00 || low > 0xdfff)
        return HALF_PAIR;
    *used = 10;
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

static bool escape(scan *s)
{
    static const char escapes[] = {'"', '\\', '/', 'b', 'f', 'n', 'r', 't', 'u'};
    size_t used;
    int32_t c;

    s->p++; /* the backslash */
    if (s->p == s->end || !memchr(escapes, *s->p, sizeof escapes))
        return wrong(s, "a bad escape");
    if (*s->p++ != 'u')
        return true;
    c = code_point(s->p, s->end, &used);
    if (c == NO_HEX)
        return wrong(s, "a bad escape");
    s->odd = s->odd || c == HALF_PAIR;
    s->p += used;
    return true;
}

/* The bytes of a string that need a look. */
/* clang-format off */
static const bool special[256] = {
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    ['"'] = 1, ['\\'] = 1, [0x7f] = 1,
};
/* clang-format on */

static bool string(scan *s)
{
    const char *quote;

    s->p++; /* the opening quote */
    quote = memchr(s->p, '"', (size_t)(s->end - s->p));
    if (quote && !s->picky && !memchr(s->p, '\\', (size_t)(quote - s->p))) { /* nearly every string */
        s->p = quote + 1;
        return true;
    }
    for (;;) {
        while (s->p < s->end && !special[(unsigned char)*s->p])
            s->p++;
        if (skip(s, '"'))
            return true;
        if (s->p == s->end)
            return wrong(s, "");
        if (*s->p == '\\') {
            if (!escape(s))
                return false;
        } else {
            s->odd = true; /* a control character */
            s->p++;
        }
    }
}

static bool word(scan *s, mj_str name)
{
    if ((size_t)(s->end - s->p) < name.n || memcmp(s->p, name.p, name.n) != 0)
        return wrong(s, "no JSON value");
    s->p += name.n;
    return true;
}

static bool value(scan *s, mj_json *out);

/* Reads what is before the next value of an array or object: for an object its key.  False: see `why`. */
static bool key(scan *s, bool object)
{
    if (!object)
        return true;
    if (!at(s, '"'))
        return wrong(s, "a member without a key");
    if (!string(s))
        return false;
    blanks(s);
    return skip(s, ':') || wrong(s, "a key without a colon");
}

/* s is at the opening bracket. */
static bool group(scan *s, bool object)
{
    char close = object ? '}' : ']';

    if (++s->depth > MJ_JSON_DEPTH)
        return wrong(s, "nested too deep");
    s->p++;
    blanks(s);
    if (!skip(s, close)) {
        do {
            blanks(s);
            if (!key(s, object) || !value(s, NULL))
                return false;
            blanks(s);
        } while (skip(s, ','));
        if (!skip(s, close))
            return wrong(s, object ? "an object that is not closed" : "an array that is not closed");
    }
    s->depth--;
    return true;
}

static bool value(scan *s, mj_json *out)
{
    mj_json_type type = MJ_JSON_NUMBER;
    const char *from;
    bool ok;

    blanks(s);
    from = s->p;
    switch (s->p < s->end ? *s->p : '\0') {
    case '{':
        type = MJ_JSON_OBJECT;
        ok = group(s, true);
        break;
    case '[':
        type = MJ_JSON_ARRAY;
        ok = group(s, false);
        break;
    case '"':
        type = MJ_JSON_STRING;
        ok = string(s);
        break;
    case 't':
        type = MJ_JSON_BOOL;
        ok = word(s, MJ_LIT("true"));
        break;
    case 'f':
        type = MJ_JSON_BOOL;
        ok = word(s, MJ_LIT("false"));
        break;
    case 'n':
        type = MJ_JSON_NULL;
        ok = word(s, MJ_LIT("null"));
        break;
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        ok = number(s);
        break;
    default:
        ok = wrong(s, "no JSON value");
    }
    if (ok && out) {
        size_t quote = type == MJ_JSON_STRING;
        *out = (mj_json){type, {from + quote, (uint32_t)((size_t)(s->p - from) - 2 * quote)}};
    }
    return ok;
}

const char *mj_json_read(mj_str text, mj_json *root, size_t *where)
{
    scan s = {.p = text.p, .end = text.p + text.n};

    *root = (mj_json){0};
    if (text.n == 0) {
        s.why = "it is empty";
    } else if (value(&s, root)) {
        blanks(&s);
        if (s.p < s.end)
            s.why = "something after the value";
    }
    if (s.why)
        *root = (mj_json){0};
    *where = text.n ? (size_t)(s.p - text.p) : 0;
    return s.why;
}

/* ---- walking through what was read: nothing can be wrong there, so most of it is passed over ---- */

/* s is at the opening quote.  A quote behind an odd number of backslashes belongs to the string. */
static void pass_string(scan *s)
{
    const char *quote, *back;

    do {
        quote = memchr(s->p + 1, '"', (size_t)(s->end - s->p - 1));
        if (!quote)
            quote = s->end - 1;
        for (back = quote; back > s->p + 1 && back[-1] == '\\'; back--)
            continue;
        s->p = quote;
    } while ((quote - back) % 2 != 0 && s->p + 1 < s->end);
    s->p++;
}

static void pass_group(scan *s)
{
    unsigned depth = 0;

    do {
        char c = *s->p;
        if (c == '"') {
            pass_string(s);
            continue;
        }
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        s->p++;
    } while (depth > 0 && s->p < s->end);
}

static bool is_delimiter(char c)
{
    return c == ',' || c == '}' || c == ']' || c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* s is at a value. */
static void pass(scan *s, mj_json *out)
{
    const char *from = s->p;
    size_t quote = 0;

    switch (*from) {
    case '{':
        out->type = MJ_JSON_OBJECT;
        pass_group(s);
        break;
    case '[':
        out->type = MJ_JSON_ARRAY;
        pass_group(s);
        break;
    case '"':
        out->type = MJ_JSON_STRING;
        pass_string(s);
        quote = 1;
        break;
    default:
        out->type = *from == 't' || *from == 'f' ? MJ_JSON_BOOL : *from == 'n' ? MJ_JSON_NULL : MJ_JSON_NUMBER;
        while (s->p < s->end && !is_delimiter(*s->p))
            s->p++;
    }
    out->text = (mj_str){from + quote, (uint32_t)((size_t)(s->p - from) - 2 * quote)};
}

bool mj_json_next(mj_json *rest, mj_json *name, mj_json *out)
{
    scan s = {.p = rest->text.p, .end = rest->text.p + rest->text.n};
    mj_json unwanted;

    if (rest->type != MJ_JSON_OBJECT && rest->type != MJ_JSON_ARRAY)
        return false;
    s.p++; /* the opening bracket, or the comma after the last value; after the closing one there is nothing */
    blanks(&s);
    if (s.p >= s.end || *s.p == '}' || *s.p == ']')
        return false;
    if (rest->type == MJ_JSON_OBJECT) {
        pass(&s, name ? name : &unwanted);
        blanks(&s);
        s.p++; /* the colon */
        blanks(&s);
    }
    pass(&s, out ? out : &unwanted);
    blanks(&s);
    rest->text = (mj_str){s.p, (uint32_t)(s.end - s.p)};
    return true;
}

static char escaped(char c)
{
    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return c; /* a quote, a slash or a backslash */
    }
}

size_t mj_json_unescape(const mj_json *v, char *out)
{
    const char *p = v->text.p, *end = p + v->text.n;
    char *to = out;

    while (p < end) {
        const char *next = memchr(p, '\\', (size_t)(end - p));
        size_t n = (size_t)((next ? next : end) - p), used;
        memcpy(to, p, n);
        to += n;
        if (!next)
            break;
        p = next + 2;
        if (next[1] == 'u') {
            int32_t c = code_point(p, end, &used);
            to += mj_utf8_put(to, c == HALF_PAIR ? '?' : c);
            p += used;
        } else {
            *to++ = escaped(next[1]);
        }
    }
    return (size_t)(to - out);
}

bool mj_json_is(const mj_json *v, mj_str name)
{
    char small[MJ_JSON_KEY];
    size_t n;

    if (v->type != MJ_JSON_STRING)
        return false;
    if (mj_str_eq(v->text, name))
        return true;
    if (v->text.n > sizeof small || v->text.n <= name.n || !memchr(v->text.p, '\\', v->text.n))
        return false;
    n = mj_json_unescape(v, small);
    return n == name.n && memcmp(small, name.p, n) == 0;
}

bool mj_json_whole(const mj_json *v, int64_t *out)
{
    scan s = {.p = v->text.p, .end = v->text.p + v->text.n};
    int64_t n = 0;
    bool minus;

    if (v->type != MJ_JSON_NUMBER && v->type != MJ_JSON_STRING)
        return false;
    minus = skip(&s, '-');
    for (const char *from = s.p; s.p < s.end && *s.p >= '0' && *s.p <= '9' && s.p - from < 16; s.p++)
        n = n * 10 + (*s.p - '0');
    if (s.p == v->text.p + minus || n > INT64_C(9007199254740992))
        return false;
    if (v->type == MJ_JSON_NUMBER && skip(&s, '.')) /* 1.0 is whole, too */
        while (skip(&s, '0'))
            continue;
    if (s.p < s.end)
        return false;
    *out = minus ? -n : n;
    return true;
}

bool mj_json_plain(const mj_json *v)
{
    scan s = {.p = v->text.p, .end = v->text.p + v->text.n, .picky = true};

    if (v->type == MJ_JSON_STRING)
        s.p--, s.end++; /* its quotes are in the document */
    return value(&s, NULL) && !s.odd && mj_utf8_valid(v->text.p, v->text.n);
}
