#include "auth/digest.h"

#include "base/error.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdlib.h>

int mj_sha256(const void *data, size_t n, uint8_t out[32])
{
    return EVP_Digest(data, n, out, NULL, EVP_sha256(), NULL) == 1 ? MJ_OK : MJ_ENOMEM;
}

/* mj_hash is a name for the library's own object, which no header shows. */
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

/* A context is keyed anew for each MAC, which takes half of the time that copying it takes.  So one thread at a time
 * uses it. */
struct mj_mac {
    pthread_mutex_t lock;
    EVP_MAC_CTX *ctx;
};

mj_mac *mj_mac_new(const void *key, size_t n)
{
    char name[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
                           OSSL_PARAM_construct_end()};
    mj_mac *m = calloc(1, sizeof *m);
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);

    if (m) {
        pthread_mutex_init(&m->lock, NULL);
        m->ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    }
    EVP_MAC_free(mac);
    if (m && (!m->ctx || EVP_MAC_init(m->ctx, key ? key : (const void *)"", n, params) != 1)) {
        mj_mac_free(m);
        m = NULL;
    }
    return m;
}

int mj_mac_of(mj_mac *m, const void *data, size_t n, uint8_t out[32])
{
    size_t len;
    int ok;

    pthread_mutex_lock(&m->lock);
    ok = EVP_MAC_init(m->ctx, NULL, 0, NULL) == 1 /* the old key */ && EVP_MAC_update(m->ctx, data, n) == 1 &&
         EVP_MAC_final(m->ctx, out, &len, 32) == 1;
    pthread_mutex_unlock(&m->lock);
    return ok ? MJ_OK : MJ_ENOMEM;
}

void mj_mac_free(mj_mac *m)
{
    if (!m)
        return;
    EVP_MAC_CTX_free(m->ctx);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

int mj_hmac_sha256(const void *key, size_t key_len, const void *data, size_t n, uint8_t out[32])
{
    mj_mac *m = mj_mac_new(key, key_len);
    int rc = m ? mj_mac_of(m, data, n, out) : MJ_ENOMEM;

    mj_mac_free(m);
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
