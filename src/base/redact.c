/* One file, though a long one: the list of strings, the views of a text without escapes, and the search over them know
 * each other's data. */
#include "base/redact.h"

#include "base/error.h"
#include "base/escape.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    MOST = 4096,   /* strings to hide, at most */
    SHORTEST = 6,  /* bytes of such a string, at least */
    FREE = 16,     /* a string of this length is also found inside a word, and when it is cut short */
    LAYERS = 4,    /* of escapes that are undone */
    SIG_LEAST = 8, /* a shorter `sig=` value is no token; nor is a shorter `sig:` value, which may be prose */
    SIG_PROSE = 16,
    SIG_OURS = 22,   /* auth/token.h: MJ_SIG_TEXT */
    VALUE_LEAST = 6, /* bytes of a header's value, at least */
    VALUE_LONG = 20, /* a value of this length is no word of prose */
};

/* ---- what is hidden: a list that only grows, read without a lock ---- */

typedef struct needle {
    struct needle *next;
    size_t n;
    char p[];
} needle;

static _Atomic(needle *) needles;

/* What may begin with a byte: a string to hide, and what mj_redact_maybe() looks for beside them. */
enum { STRING = 1, MARK = 2 };
static _Atomic(unsigned char) starts[256] = {
    ['%'] = MARK, ['\\'] = MARK, ['&'] = MARK, [':'] = MARK, ['s'] = MARK,
    ['S'] = MARK, ['a'] = MARK,  ['A'] = MARK, ['c'] = MARK, ['C'] = MARK,
};
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;

int mj_redact_add(const char *p, size_t n)
{
    needle *first, *d;
    size_t count = 0;
    int rc = MJ_OK;

    if (n < SHORTEST)
        return MJ_OK;
    pthread_mutex_lock(&adding);
    first = atomic_load(&needles);
    for (d = first; d && (d->n != n || memcmp(d->p, p, n) != 0); d = d->next)
        count++;
    if (!d && count >= MOST) {
        rc = MJ_ELIMIT;
    } else if (!d) {
        d = malloc(sizeof *d + n);
        rc = d ? MJ_OK : MJ_ENOMEM;
        if (d) {
            d->next = first;
            d->n = n;
            memcpy(d->p, p, n);
            atomic_fetch_or(&starts[(unsigned char)p[0]], STRING);
            atomic_store(&needles, d); /* the string is complete before other threads see it */
        }
    }
    pthread_mutex_unlock(&adding);
    return rc;
}

/* ---- a text behind some layers of escapes ---- */

typedef struct view {
    char *p;
    size_t n;
    uint32_t *from, *to; /* where each byte is in the original text; NULL: this is the original */
} view;

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_token(char c)
{
    return is_word(c) || c == '-' || c == '_';
}

/* Undoes one layer of escapes, into `out`, which has as much room.  False: there is none. */
static bool undo(const view *in, view *out)
{
    bool changed = false;

    out->n = 0;
    for (size_t i = 0, len; i < in->n; i += len) {
        char c = in->p[i];
        len = c == '%' || c == '\\' || c == '&' ? mj_escape_at(in->p + i, in->n - i, &c) : 0;
        if (len == 0) {
            len = 1;
            c = in->p[i];
        } else {
            changed = true;
        }
        out->from[out->n] = in->from ? in->from[i] : (uint32_t)i;
        out->to[out->n] = in->to ? in->to[i + len - 1] : (uint32_t)(i + len);
        out->p[out->n++] = c;
    }
    return changed;
}

/* ---- finding ---- */

typedef struct search {
    mj_redact_kind kind;
    uint8_t *hide; /* for each byte of the original text: is it hidden? */
    bool found;
} search;

/* Returns where to go on: after the match. */
static size_t hide(search *s, const view *v, size_t from, size_t to)
{
    size_t a = v->from ? v->from[from] : from, b = v->to ? v->to[to - 1] : to;

    memset(s->hide + a, 1, b - a);
    s->found = true;
    return to;
}

/* How many bytes of a string to hide are at i. */
static size_t match(const view *v, size_t i, const needle *d)
{
    size_t n = 0, left = v->n - i;

    while (n < d->n && n < left && v->p[i + n] == d->p[n])
        n++;
    if (n == left && n >= SHORTEST) /* the text ends inside the string: it may have been cut */
        return n;
    if (d->n >= FREE)
        return n == d->n || n >= d->n / 2 ? n : 0;
    if (n < d->n || (i > 0 && is_token(v->p[i - 1])) || (n < left && is_token(v->p[i + n])))
        return 0;
    return n;
}

static unsigned may_start(char c)
{
    return atomic_load_explicit(&starts[(unsigned char)c], memory_order_relaxed);
}

static bool named(const view *v, size_t i, const char *name, size_t n)
{
    return v->n - i >= n && strncasecmp(v->p + i, name, n) == 0;
}

static bool one_of(const view *v, size_t i, const char *set)
{
    return i < v->n && v->p[i] && strchr(set, v->p[i]);
}

static size_t past(const view *v, size_t i, const char *set)
{
    while (one_of(v, i, set))
        i++;
    return i;
}

/* Where the value of a name that ends at i begins: after a sign, with any quotes and blanks around it.  The next
 * string of a list is a value, too; so is a string that is labelled as one.  0: no value. */
static size_t value_at(const view *v, size_t i, char *sign)
{
    static const char around[] = "\"' \\";

    i = past(v, i, "\"' \\]");
    *sign = 0;
    if (one_of(v, i, ",") && one_of(v, i - 1, "\"'")) {
        i = past(v, i + 1, around);
        *sign = one_of(v, i - 1, "\"'") ? ',' : 0;
    }
    if (named(v, i, "value", 5) && one_of(v, past(v, i + 5, around), "=:")) {
        i = past(v, i + 5, around);
        *sign = 0;
    }
    if (*sign == 0) {
        if (!one_of(v, i, "=:>"))
            return 0;
        *sign = v->p[i++];
    }
    i = past(v, i, "\"' \\>[\r\n");
    return i < v->n && !named(v, i - 1, MJ_REDACTED, strlen(MJ_REDACTED)) ? i : 0;
}

/* These return where to go on when they hid something, else 0.  Hidden bytes are not searched again: otherwise a text
 * in which the value of each of many names is the whole rest would take quadratic time. */

static size_t find_sig(search *s, const view *v, size_t i)
{
    size_t at, n = 0;
    char sign = 0;

    if (!named(v, i, "sig", 3) || (i > 0 && is_word(v->p[i - 1])) || (at = value_at(v, i + 3, &sign)) == 0)
        return 0;
    if (s->kind == MJ_REDACT_URL && !memmem(v->p, v->n, "kid=", 4))
        return 0;
    while (at + n < v->n && is_token(v->p[at + n]))
        n++;
    if (n < (sign == '=' || v->p[at - 1] == '"' ? SIG_LEAST : SIG_PROSE) || (s->kind == MJ_REDACT_BODY && n > SIG_OURS))
        return 0;
    return hide(s, v, at, at + n);
}

/* Whether it looks like a key, not like a word. */
static bool is_key(const char *p, size_t n)
{
    if (n >= VALUE_LONG)
        return true;
    for (size_t i = 0; n >= VALUE_LEAST && i < n; i++)
        if ((p[i] >= '0' && p[i] <= '9') || p[i] == '-' || p[i] == '_')
            return true;
    return false;
}

static size_t value_length(const view *v, size_t at, const char *ends)
{
    size_t n = 0;

    while (at + n < v->n && (unsigned char)v->p[at + n] >= ' ' && !strchr(ends, v->p[at + n]))
        n++;
    return n;
}

static size_t find_header(search *s, const view *v, size_t i)
{
    static const struct {
        const char *name;
        bool whole_line; /* the value may contain blanks, */
        char sign;       /* and this character, which prose does not have */
    } headers[] = {{"api-key", false, 0},        {"api_key", false, 0}, {"apikey", false, 0},    {"api key", false, 0},
                   {"authorization", true, ' '}, {"cookie", true, '='}, {"auth-token", false, 0}};
    size_t at, n;
    char sign;

    for (size_t k = 0; k < sizeof headers / sizeof headers[0]; k++) {
        const char *name = headers[k].name;
        if (!named(v, i, name, strlen(name)) || (at = value_at(v, i + strlen(name), &sign)) == 0)
            continue;
        n = value_length(v, at, headers[k].whole_line ? "\"'\\<>{}" : " \"'\\<>{},;)]");
        if (is_key(v->p + at, n) ||
            (headers[k].whole_line && n >= VALUE_LEAST && memchr(v->p + at, headers[k].sign, n)))
            return hide(s, v, at, at + n);
        return 0;
    }
    return 0;
}

/* "://user:password@" */
static size_t find_userinfo(search *s, const view *v, size_t i)
{
    size_t n;

    if (v->n - i < 5 || memcmp(v->p + i, "://", 3) != 0)
        return 0;
    n = value_length(v, i + 3, " \"'\\<>/?#@");
    if (i + 3 + n < v->n && v->p[i + 3 + n] == '@' && memchr(v->p + i + 3, ':', n))
        return hide(s, v, i + 3, i + 3 + n);
    return 0;
}

static void find(search *s, const view *v)
{
    const needle *first = atomic_load(&needles);

    for (size_t i = 0; i < v->n; i++) {
        size_t n = 0;
        for (const needle *d = may_start(v->p[i]) & STRING ? first : NULL; d; d = d->next) {
            size_t m = v->p[i] == d->p[0] ? match(v, i, d) : 0;
            n = m > n ? m : n;
        }
        if (n > 0) {
            i = hide(s, v, i, i + n) - 1;
            continue;
        }
        switch (v->p[i]) {
        case 's':
        case 'S':
            n = find_sig(s, v, i);
            break;
        case 'a':
        case 'A':
        case 'c':
        case 'C':
            n = s->kind != MJ_REDACT_URL ? find_header(s, v, i) : 0;
            break;
        case ':':
            n = s->kind != MJ_REDACT_URL ? find_userinfo(s, v, i) : 0;
            break;
        default:
            break;
        }
        if (n > 0)
            i = n - 1;
    }
}

bool mj_redact_maybe(const char *p, size_t n)
{
    const needle *first = atomic_load(&needles);
    const view v = {.p = (char *)p, .n = n};
    const char *last_at = n > 0 ? memrchr(p, '@', n) : NULL;
    char c;

    for (size_t i = 0; i < n; i++) {
        unsigned may = may_start(p[i]);
        if (may == 0) /* nearly every byte */
            continue;
        for (const needle *d = may & STRING ? first : NULL; d; d = d->next)
            if (n - i >= SHORTEST && memcmp(p + i, d->p, SHORTEST) == 0)
                return true;
        switch (p[i]) {
        case '%':
        case '\\':
        case '&':
            if (mj_escape_at(p + i, n - i, &c) > 0)
                return true;
            break;
        case ':':
            if (last_at && last_at > p + i && named(&v, i, "://", 3))
                return true;
            break;
        case 's':
        case 'S':
            if (named(&v, i, "sig", 3))
                return true;
            break;
        case 'a':
        case 'A':
            if (named(&v, i, "api", 3) || named(&v, i, "auth", 4))
                return true;
            break;
        case 'c':
        case 'C':
            if (named(&v, i, "cookie", 6))
                return true;
            break;
        default:
            break;
        }
    }
    return false;
}

/* ---- all of it ---- */

static void put(mj_buf *out, const char *p, size_t n, const uint8_t *hidden)
{
    for (size_t i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && hidden[i + run] == hidden[i]; run++)
            ;
        if (hidden[i])
            mj_put_raw(out, MJ_REDACTED, strlen(MJ_REDACTED));
        else
            mj_put_raw(out, p + i, run);
    }
}

/* Room for two views of n bytes: each layer is made from the other. */
static bool make_views(view v[2], size_t n)
{
    for (int i = 0; i < 2; i++) {
        v[i].p = malloc(n);
        v[i].from = malloc(n * sizeof *v[i].from);
        v[i].to = malloc(n * sizeof *v[i].to);
        if (!v[i].p || !v[i].from || !v[i].to)
            return false;
    }
    return true;
}

static void free_views(view v[2])
{
    for (int i = 0; i < 2; i++) {
        free(v[i].p);
        free(v[i].from);
        free(v[i].to);
    }
}

int mj_redact(mj_redact_kind kind, const char *p, size_t n, mj_buf *out, bool *found)
{
    search s = {.kind = kind};
    view original = {.p = (char *)p, .n = n}, v[2] = {{0}};
    const view *last = &original;
    int rc = MJ_ENOMEM;

    *found = false;
    if (n == 0 || !mj_redact_maybe(p, n))
        return MJ_OK;
    s.hide = calloc(1, n);
    if (!s.hide)
        return MJ_ENOMEM;
    find(&s, &original);
    if (memchr(p, '%', n) || memchr(p, '\\', n) || memchr(p, '&', n)) {
        if (!make_views(v, n))
            goto out;
        for (int layer = 0; layer < LAYERS && undo(last, &v[layer % 2]); layer++) {
            last = &v[layer % 2];
            find(&s, last);
        }
    }
    rc = MJ_OK;
    if (s.found) {
        size_t before = out->n;
        put(out, p, n, s.hide);
        if (out->failed) {
            out->n = before;
            rc = MJ_ENOMEM;
        }
    }
    *found = s.found && rc == MJ_OK;
out:
    free_views(v);
    free(s.hide);
    return rc;
}
