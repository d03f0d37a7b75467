#include "auth/token.h"

#include "auth/digest.h"
#include "base/error.h"
#include "base/escape.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SECRETS = 16, MIN_SECRET = 16, MAX_URI = 8192 };

struct mj_keyring {
    size_t n;
    struct {
        mj_mac *mac; /* holds the key, and wipes it when it is freed */
        char kid[MJ_KID_TEXT + 1];
    } keys[MAX_SECRETS];
};

mj_keyring *mj_keyring_new(void)
{
    return calloc(1, sizeof(mj_keyring));
}

void mj_keyring_free(mj_keyring *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->n; i++)
        mj_mac_free(k->keys[i].mac);
    OPENSSL_cleanse(k, sizeof *k);
    free(k);
}

int mj_keyring_add(mj_keyring *k, const void *secret, size_t len)
{
    static const char label[] = "mjhook1 kid";
    uint8_t mac[32];
    mj_mac *ctx;

    if (len < MIN_SECRET)
        return MJ_EINVAL;
    if (k->n == MAX_SECRETS)
        return MJ_ELIMIT;
    ctx = mj_mac_new(secret, len);
    if (!ctx || mj_mac_of(ctx, label, sizeof label - 1, mac) != MJ_OK) {
        mj_mac_free(ctx);
        return MJ_ENOMEM;
    }
    mj_base64url(mac, 6, k->keys[k->n].kid);
    k->keys[k->n++].mac = ctx;
    return MJ_OK;
}

/* The text is put together by hand: printf takes longer than the hash, and the ref of an unauthenticated request may
 * hold a NUL. */
static int sign(mj_mac *key, const char *ref, uint32_t attempt, char sig[MJ_SIG_TEXT + 1])
{
    static const char label[] = "mjhook1"; /* its NUL is part of the text */
    char text[sizeof label + MJ_ULID_TEXT + 1 + 10], digits[10], *p = text;
    uint8_t mac[32];
    size_t n = 0;
    int rc;

    memcpy(p, label, sizeof label);
    p += sizeof label;
    memcpy(p, ref, MJ_ULID_TEXT);
    p += MJ_ULID_TEXT;
    *p++ = '\0';
    do
        digits[n++] = (char)('0' + attempt % 10);
    while (attempt /= 10);
    while (n > 0)
        *p++ = digits[--n];
    rc = mj_mac_of(key, text, (size_t)(p - text), mac);
    if (rc == MJ_OK)
        mj_base64url(mac, 16, sig);
    OPENSSL_cleanse(mac, sizeof mac);
    return rc;
}

int mj_token_sign(const mj_keyring *k, const char ref[MJ_ULID_TEXT + 1], uint32_t attempt, char kid[MJ_KID_TEXT + 1],
                  char sig[MJ_SIG_TEXT + 1])
{
    if (k->n == 0)
        return MJ_EINVAL;
    memcpy(kid, k->keys[0].kid, MJ_KID_TEXT + 1);
    return sign(k->keys[0].mac, ref, attempt, sig);
}

/* MJ_OK: a secret with this kid made sig for (ref, attempt).  MJ_EINVAL: none did.  Others: it could not be computed.
 * All lengths are right. */
static int verify(const mj_keyring *k, const char *ref, uint32_t attempt, const char *kid, const char *sig)
{
    char made[MJ_SIG_TEXT + 1];
    int rc = MJ_EINVAL;

    /* A kid is public, so the search may take any time; two secrets may share one. */
    for (size_t i = 0; i < k->n && rc == MJ_EINVAL; i++) {
        if (memcmp(k->keys[i].kid, kid, MJ_KID_TEXT) != 0)
            continue;
        rc = sign(k->keys[i].mac, ref, attempt, made);
        if (rc == MJ_OK && !mj_equal(made, sig, MJ_SIG_TEXT))
            rc = MJ_EINVAL;
    }
    OPENSSL_cleanse(made, sizeof made); /* for an attacker's ref this would be the right signature */
    return rc;
}

int mj_token_verify(const mj_keyring *k, const char *ref, size_t ref_len, uint32_t attempt, const char *kid,
                    size_t kid_len, const char *sig, size_t sig_len)
{
    if (ref_len != MJ_ULID_TEXT || kid_len != MJ_KID_TEXT || sig_len != MJ_SIG_TEXT)
        return MJ_EINVAL;
    return verify(k, ref, attempt, kid, sig);
}

int mj_token_check(const mj_keyring *k, const mj_token *t, const char **ref, uint32_t *attempt)
{
    int rc = MJ_EINVAL;

    if (strlen(t->kid) != MJ_KID_TEXT || strlen(t->sig) != MJ_SIG_TEXT)
        return MJ_EINVAL;
    for (unsigned r = 0; r < t->nrefs && rc == MJ_EINVAL; r++)
        for (unsigned a = 0; a < t->nattempts && rc == MJ_EINVAL; a++) {
            *ref = t->refs[r];
            *attempt = t->attempts[a];
            rc = verify(k, *ref, *attempt, t->kid, t->sig);
        }
    return rc;
}
/* ---- the token in a URI ----
 *
 * The callback's URL is not always the one that the provider was given: software on the way escapes it for HTML, or
 * once more for URLs, puts it into quotes, adds a query of its own or repeats parameters.  None of that can forge a
 * signature, so all of it is undone, and the signature alone decides. */

enum { ESCAPED = 3 }; /* times, at most */

/* Each escape has a percent sign, a backslash or, in HTML, a semicolon.  A URL that arrives as it was made has none. */
static bool may_have_escapes(const char *text, size_t n)
{
    return memchr(text, '%', n) || memchr(text, '\\', n) || memchr(text, ';', n);
}

static size_t unescape(char *text, size_t n)
{
    size_t w = 0, len;
    char c = 0;

    for (size_t i = 0; i < n; i += len ? len : 1) {
        bool special = text[i] == '%' || text[i] == '&' || text[i] == '\\';
        len = special ? mj_escape_at(text + i, n - i, &c) : 0;
        if (!len)
            c = text[i];
        text[w++] = c;
    }
    return w;
}

static uint32_t attempt_of(const char *p, size_t n)
{
    uint32_t v = 0;

    if (n < 1 || n > 3)
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return 0;
        v = v * 10 + (uint32_t)(p[i] - '0');
    }
    return v;
}

static bool is_named(const char *name, size_t n, const char *wanted)
{
    return n == strlen(wanted) && memcmp(name, wanted, n) == 0;
}

/* The value if it has exactly the right length, else "". */
static void take(const char *value, size_t n, size_t want, char *out)
{
    bool fits = n == want && !memchr(value, 0, n);

    memcpy(out, value, fits ? n : 0);
    out[fits ? n : 0] = '\0';
}

static void take_parameter(mj_token *t, const char *name, size_t name_len, const char *value, size_t n)
{
    if (n == 0)
        return;
    if (is_named(name, name_len, "kid")) {
        t->present = true;
        take(value, n, MJ_KID_TEXT, t->kid);
    } else if (is_named(name, name_len, "sig")) {
        t->present = true;
        take(value, n, MJ_SIG_TEXT, t->sig);
    } else if (is_named(name, name_len, "ref") && n == MJ_ULID_TEXT && !memchr(value, 0, n)) {
        take(value, n, MJ_ULID_TEXT, t->refs[t->nrefs % MJ_TOKEN_TRIES]);
        t->nrefs += t->nrefs < MJ_TOKEN_TRIES;
    } else if (is_named(name, name_len, "a") && attempt_of(value, n) > 0) {
        t->attempts[t->nattempts % MJ_TOKEN_TRIES] = attempt_of(value, n);
        t->nattempts += t->nattempts < MJ_TOKEN_TRIES;
    }
}

/* What ends a parameter: what ends one in a URL, and what text around a URL may put right behind it. */
static bool is_apart(char c)
{
    switch (c) {
    case '&':
    case '?':
    case ';':
    case '#':
    case '+':
    case '"':
    case '\'':
    case '`':
    case '<':
    case '>':
    case '(':
    case ')':
    case '[':
    case ']':
    case '{':
    case '}':
    case ',':
    case '|':
    case '\\':
    case ' ':
    case '\t':
    case '\r':
    case '\n':
        return true;
    default:
        return false;
    }
}

void mj_token_read(const char *uri, size_t n, mj_token *out)
{
    char text[MAX_URI];
    const char *p, *end, *next, *equals;

    memset(out, 0, sizeof *out);
    if (n > sizeof text)
        return; /* longer than any URL of ours */
    memcpy(text, uri, n);
    for (size_t i = 0, before = n + 1; i < ESCAPED && n < before && may_have_escapes(text, n); i++) {
        before = n;
        n = unescape(text, n);
    }
    end = memchr(text, '#', n);
    end = end ? end : text + n;
    p = memchr(text, '?', (size_t)(end - text));
    for (p = p ? p + 1 : end; p < end; p = next + 1) {
        for (next = p; next < end && !is_apart(*next); next++)
            ;
        equals = memchr(p, '=', (size_t)(next - p));
        if (equals)
            take_parameter(out, p, (size_t)(equals - p), equals + 1, (size_t)(next - equals - 1));
    }
    OPENSSL_cleanse(text, n);
}
