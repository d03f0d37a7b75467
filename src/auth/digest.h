/* mj_digest: hashes and their text.  Knows libc and the crypto library only. */
#ifndef MJ_DIGEST_H
#define MJ_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether they are equal, in a time that depends on n only. */
bool mj_equal(const void *a, const void *b, size_t n);
/* SHA-256 of the data (key fingerprints of arguments, archives); MJ_ENOMEM: the library could not compute it. */
int mj_sha256(const void *data, size_t n, uint8_t out[32]);
/* The same for data in pieces: new (NULL: out of memory), add any number of times, end, which also frees. */
typedef struct mj_hash mj_hash;
mj_hash *mj_hash_new(void);
int mj_hash_add(mj_hash *h, const void *data, size_t n);
int mj_hash_end(mj_hash *h, uint8_t out[32]);
int mj_hmac_sha256(const void *key, size_t key_len, const void *data, size_t n, uint8_t out[32]);
/* The same with a key that is set up once: new (NULL: out of memory), any number of MACs from any thread (MJ_ENOMEM),
 * free, which wipes the key. */
typedef struct mj_mac mj_mac;
mj_mac *mj_mac_new(const void *key, size_t n);
int mj_mac_of(mj_mac *m, const void *data, size_t n, uint8_t out[32]);
void mj_mac_free(mj_mac *m);
/* base64url without padding; out has room for (n * 4 + 2) / 3 + 1 bytes; returns the length. */
size_t mj_base64url(const void *data, size_t n, char *out);
/* base64 with padding; out has room for (n + 2) / 3 * 4 + 1 bytes; returns the length. */
size_t mj_base64(const void *data, size_t n, char *out);
/* Strict: padded, nothing but base64, no bits left over.  out has room for n / 4 * 3 bytes.  MJ_EINVAL. */
int mj_base64_decode(const char *text, size_t n, uint8_t *out, size_t *out_len);

#endif
