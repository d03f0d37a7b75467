#include "auth/auth.h"

#include "base/error.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

enum { MAX_SECRETS = 16, MIN_SECRET = 16, MAX_URI = 8192 };

/* ---- ULIDs ---- */

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

/* getrandom gives up to 256 bytes whole; only before the pool is ready, early in boot, a signal can interrupt it. */
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
        /* Same millisecond, or a clock that stepped back: the next number, carried up into the time if need be. */
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
    for (int i = 0; i < MJ_ULID_TEXT; i++) {
        unsigned v = 0;
        for (int bit = 5 * i - 2; bit < 5 * i + 3; bit++)
            v = v << 1 | (bit < 0 ? 0u : ((unsigned)id[bit / 8] >> (7 - bit % 8)) & 1u);
        out[i] = base32[v];
    }
    out[MJ_ULID_TEXT] = '\0';
}

static int digit(char c)
{
    const char *p;

    if (c >= 'a' && c <= 'z')
        c = (char)(c - 'a' + 'A');
    p = memchr(base32, c, sizeof base32 - 1); /* not strchr, which finds NUL */
    return p ? (int)(p - base32) : -1;
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

/* ---- hashes ---- */

int mj_sha256(const void *data, size_t n, uint8_t out[32])
{
    return EVP_Digest(data, n, out, NULL, EVP_sha256(), NULL) == 1 ? MJ_OK : MJ_ENOMEM;
}

/* A name of ours for the library's own object, which no header shows. */
mj_hash *mj_hash_new(void)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    if (ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        ctx = NULL;
    }
    return (mj_hash *)ctx;
}

int mj_hash_add(mj_hash *h, const void *data, size_t n)
{
    return EVP_DigestUpdate((EVP_MD_CTX *)h, data, n) == 1 ? MJ_OK : MJ_EIO;
}

int mj_hash_end(mj_hash *h, uint8_t out[32])
{
    int ok = EVP_DigestFinal_ex((EVP_MD_CTX *)h, out, NULL);

    EVP_MD_CTX_free((EVP_MD_CTX *)h);
    return ok == 1 ? MJ_OK : MJ_EIO;
}

static EVP_MAC_CTX *new_mac(const void *key, size_t n)
{
    char name[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
                           OSSL_PARAM_construct_end()};
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;

    EVP_MAC_free(mac);
    if (ctx && EVP_MAC_init(ctx, key ? key : (const void *)"", n, params) != 1) { /* NULL would mean: the old key */
        EVP_MAC_CTX_free(ctx);
        ctx = NULL;
    }
    return ctx;
}

/* The keyed context is copied for each use, not used: one ring serves many threads at once. */
static int mac_of(const EVP_MAC_CTX *keyed, const void *data, size_t n, uint8_t out[32])
{
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_dup(keyed);
    size_t len;
    int ok = ctx && EVP_MAC_update(ctx, data, n) == 1 && EVP_MAC_final(ctx, out, &len, 32) == 1;

    EVP_MAC_CTX_free(ctx);
    return ok ? MJ_OK : MJ_ENOMEM;
}

int mj_hmac_sha256(const void *key, size_t key_len, const void *data, size_t n, uint8_t out[32])
{
    EVP_MAC_CTX *ctx = new_mac(key, key_len);
    int rc = ctx ? mac_of(ctx, data, n, out) : MJ_ENOMEM;

    EVP_MAC_CTX_free(ctx);
    return rc;
}

static size_t encode64(const void *data, size_t n, char *out, const char *digits)
{
    const uint8_t *p = data;
    size_t w = 0;
    unsigned bits = 0, v = 0;

    for (size_t i = 0; i < n; i++) {
        v = v << 8 | p[i];
        for (bits += 8; bits >= 6; bits -= 6)
            out[w++] = digits[v >> (bits - 6) & 63];
    }
    if (bits)
        out[w++] = digits[v << (6 - bits) & 63];
    out[w] = '\0';
    return w;
}

#define DIGITS64 "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

size_t mj_base64url(const void *data, size_t n, char *out)
{
    return encode64(data, n, out, DIGITS64 "-_");
}

size_t mj_base64(const void *data, size_t n, char *out)
{
    size_t w = encode64(data, n, out, DIGITS64 "+/");

    while (w % 4 != 0)
        out[w++] = '=';
    out[w] = '\0';
    return w;
}

static int digit64(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

int mj_base64_decode(const char *text, size_t n, uint8_t *out, size_t *out_len)
{
    size_t w = 0, padding = n < 4 || text[n - 1] != '=' ? 0 : text[n - 2] != '=' ? 1 : 2;
    unsigned bits = 0, v = 0;

    if (n % 4 != 0)
        return MJ_EINVAL;
    for (size_t i = 0; i < n - padding; i++) {
        int d = digit64(text[i]);
        if (d < 0)
            return MJ_EINVAL;
        v = v << 6 | (unsigned)d;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[w++] = (uint8_t)(v >> bits);
        }
    }
    if ((v & ((1U << bits) - 1)) != 0)
        return MJ_EINVAL;
    *out_len = w;
    return MJ_OK;
}

bool mj_equal(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

/* ---- tokens ---- */

struct mj_keyring {
    size_t n;
    struct {
        EVP_MAC_CTX *mac; /* holds the key; OpenSSL wipes it when it frees it */
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
        EVP_MAC_CTX_free(k->keys[i].mac);
    OPENSSL_cleanse(k, sizeof *k);
    free(k);
}

int mj_keyring_add(mj_keyring *k, const void *secret, size_t len)
{
    static const char label[] = "mjhook1 kid";
    uint8_t mac[32];
    EVP_MAC_CTX *ctx;

    if (len < MIN_SECRET)
        return MJ_EINVAL;
    if (k->n == MAX_SECRETS)
        return MJ_ELIMIT;
    ctx = new_mac(secret, len);
    if (!ctx || mac_of(ctx, label, sizeof label - 1, mac) != MJ_OK) {
        EVP_MAC_CTX_free(ctx);
        return MJ_ENOMEM;
    }
    mj_base64url(mac, 6, k->keys[k->n].kid);
    k->keys[k->n++].mac = ctx;
    return MJ_OK;
}

size_t mj_keyring_count(const mj_keyring *k)
{
    return k->n;
}

/* The text is put together by hand: printf takes longer than the hash, and a ref that a stranger sent may hold a NUL.
 */
static int sign(const EVP_MAC_CTX *key, const char *ref, uint32_t attempt, char sig[MJ_SIG_TEXT + 1])
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
    rc = mac_of(key, text, (size_t)(p - text), mac);
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

/* Whether some secret with this kid made sig for (ref, attempt): MJ_OK; MJ_EINVAL: none did; or why that could not be
 * computed.  All lengths are right. */
static int verify(const mj_keyring *k, const char *ref, uint32_t attempt, const char *kid, const char *sig)
{
    char made[MJ_SIG_TEXT + 1];
    int rc = MJ_EINVAL;

    /* A kid is public, so finding it may take any time; two secrets may share one. */
    for (size_t i = 0; i < k->n && rc == MJ_EINVAL; i++) {
        if (memcmp(k->keys[i].kid, kid, MJ_KID_TEXT) != 0)
            continue;
        rc = sign(k->keys[i].mac, ref, attempt, made);
        if (rc == MJ_OK && !mj_equal(made, sig, MJ_SIG_TEXT))
            rc = MJ_EINVAL;
    }
    OPENSSL_cleanse(made, sizeof made); /* for a ref that an attacker sent this would be the right answer */
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
 * What comes back is not always the URL that the provider was given: software on the way escapes it for HTML or once
 * more for URLs, puts it into quotes, adds a query of its own behind it or repeats parameters.  None of that can forge
 * a signature, so all of it is undone, and the signature alone decides. */

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static size_t unescape(char *text, size_t n)
{
    size_t w = 0;

    for (size_t i = 0; i < n; i++) {
        bool escaped = text[i] == '%' && n - i > 2 && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0;
        if (escaped) {
            uint8_t byte = (uint8_t)(hex(text[i + 1]) << 4 | hex(text[i + 2]));
            memcpy(text + w++, &byte, 1);
            i += 2;
        } else {
            text[w++] = text[i];
        }
    }
    return w;
}

/* The ways in which HTML and JSON write an ampersand. */
static size_t ampersands(char *text, size_t n)
{
    static const char *const forms[] = {"&amp;", "&#38;", "&#038;", "&#x26;", "\\u0026"};
    size_t w = 0;

    for (size_t i = 0; i < n; i++) {
        text[w++] = text[i];
        if (text[i] != '&' && text[i] != '\\')
            continue;
        for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
            size_t len = strlen(forms[f]);
            if (n - i >= len && strncasecmp(text + i, forms[f], len) == 0) {
                text[w - 1] = '&';
                i += len - 1;
                break;
            }
        }
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

/* A value that is exactly as long as it has to be; otherwise nothing. */
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

void mj_token_read(const char *uri, size_t n, mj_token *out)
{
    static const char apart[] = "&?;#+\"'`<>()[]{},|\\ \t\r\n";
    char text[MAX_URI];
    const char *p, *end, *next, *equals;

    memset(out, 0, sizeof *out);
    if (n > sizeof text)
        return; /* longer than any URL of ours */
    memcpy(text, uri, n);
    for (int twice = 0; twice < 2; twice++)
        n = memchr(text, '%', n) ? unescape(text, n) : n;
    n = ampersands(text, n);
    end = memchr(text, '#', n);
    end = end ? end : text + n;
    p = memchr(text, '?', (size_t)(end - text));
    for (p = p ? p + 1 : end; p < end; p = next + 1) {
        for (next = p; next < end && (*next == '\0' || !strchr(apart, *next)); next++)
            ;
        equals = memchr(p, '=', (size_t)(next - p));
        if (equals)
            take_parameter(out, p, (size_t)(equals - p), equals + 1, (size_t)(next - equals - 1));
    }
    OPENSSL_cleanse(text, n);
}
