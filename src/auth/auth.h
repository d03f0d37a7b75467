/* mj_auth: names and proofs: ULIDs, hookUrl tokens, constant-time comparison.
 *
 * Knows libc and the crypto library only.  Nothing here keeps a secret longer
 * than the mj_keyring that holds it, and that is wiped when it is freed. */
#ifndef MJ_AUTH_H
#define MJ_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MJ_ULID_BYTES 16
#define MJ_ULID_TEXT 26 /* Crockford base32, upper case, without the NUL */
#define MJ_KID_TEXT 8   /* base64url characters of a key id: 48 bits */
#define MJ_SIG_TEXT 22  /* base64url characters of a signature: 128 bits, no padding */

/* A ULID for wall-clock `now_ms` that is greater than *last, also when the clock
 * stepped back (then last + 1); *last becomes it.  All-zero *last: no predecessor.
 * MJ_EIO: the kernel gave no random bytes; MJ_EINVAL: now_ms is not a time of 48
 * bits; MJ_ELIMIT: *last is the last of all.  *last is then as it was. */
int mj_ulid_next(uint8_t last[MJ_ULID_BYTES], int64_t now_ms);
/* out gets MJ_ULID_TEXT characters and a NUL. */
void mj_ulid_text(const uint8_t id[MJ_ULID_BYTES], char out[MJ_ULID_TEXT + 1]);
/* Strict: upper or lower case Crockford, exactly 26 characters, no overflow.  MJ_EINVAL. */
int mj_ulid_parse(const char *text, size_t len, uint8_t id[MJ_ULID_BYTES]);
/* Milliseconds in the id. */
int64_t mj_ulid_time(const uint8_t id[MJ_ULID_BYTES]);

/* The secrets that sign and verify callback URLs.  The first added signs, all verify.
 * Once all are added, a ring may be used by several threads at once. */
typedef struct mj_keyring mj_keyring;
mj_keyring *mj_keyring_new(void); /* NULL: out of memory */
void mj_keyring_free(mj_keyring *k);
/* MJ_EINVAL: shorter than 16 bytes; MJ_ELIMIT: more than 16 secrets; MJ_ENOMEM.  Copies the secret. */
int mj_keyring_add(mj_keyring *k, const void *secret, size_t len);
size_t mj_keyring_count(const mj_keyring *k);

/* Signs (ref, attempt) with the first secret; kid and sig get their text and a NUL.
 * The signature is the first 128 bits of HMAC-SHA256 over the bytes
 * "mjhook1" NUL ref-text NUL attempt-in-decimal, in base64url; the kid is derived
 * from the secret alone: the first 48 bits of HMAC-SHA256 over "mjhook1 kid".
 * MJ_EINVAL: the keyring is empty; MJ_ENOMEM. */
int mj_token_sign(const mj_keyring *k, const char ref[MJ_ULID_TEXT + 1], uint32_t attempt, char kid[MJ_KID_TEXT + 1],
                  char sig[MJ_SIG_TEXT + 1]);
/* MJ_OK when some secret of the ring with this kid made sig for (ref, attempt), MJ_EINVAL when none did.
 * MJ_ENOMEM: it could not be computed, which says nothing of the token.
 * Constant time in sig. Lengths other than the exact ones are MJ_EINVAL. */
int mj_token_verify(const mj_keyring *k, const char *ref, size_t ref_len, uint32_t attempt, const char *kid,
                    size_t kid_len, const char *sig, size_t sig_len);

/* The token in a callback's URI, however it was escaped on the way.  Of kid and sig the last one counts, since the
 * token stands behind whatever query hook_url had.  Of ref and attempt there may be several: software on the way may
 * add or repeat parameters, and the signature tells which ones are ours.  A part that can't be right is empty or
 * missing. */
#define MJ_TOKEN_TRIES 4
typedef struct mj_token {
    bool present;              /* there is a kid or a sig */
    unsigned nrefs, nattempts; /* the first of them; once all places are taken, later ones replace the first */
    uint32_t attempts[MJ_TOKEN_TRIES];
    char refs[MJ_TOKEN_TRIES][MJ_ULID_TEXT + 1], kid[MJ_KID_TEXT + 1], sig[MJ_SIG_TEXT + 1];
} mj_token;
void mj_token_read(const char *uri, size_t n, mj_token *out);
/* Finds the ref (a text in t) and attempt that t's signature was made for.  MJ_EINVAL: no secret of the ring made it;
 * other errors: it could not be computed, and says nothing about the caller. */
int mj_token_check(const mj_keyring *k, const mj_token *t, const char **ref, uint32_t *attempt);

/* Equal in time that depends on n only. */
bool mj_equal(const void *a, const void *b, size_t n);
/* SHA-256 of the data (key fingerprints of arguments, archives); MJ_ENOMEM: the library could not compute it. */
int mj_sha256(const void *data, size_t n, uint8_t out[32]);
/* The same of data that comes in pieces: new (NULL: out of memory), add any number of times, end, which also frees. */
typedef struct mj_hash mj_hash;
mj_hash *mj_hash_new(void);
int mj_hash_add(mj_hash *h, const void *data, size_t n);
int mj_hash_end(mj_hash *h, uint8_t out[32]);
int mj_hmac_sha256(const void *key, size_t key_len, const void *data, size_t n, uint8_t out[32]);
/* base64url without padding; out has room for (n * 4 + 2) / 3 + 1 bytes; returns the length. */
size_t mj_base64url(const void *data, size_t n, char *out);
/* base64 with padding; out has room for (n + 2) / 3 * 4 + 1 bytes; returns the length. */
size_t mj_base64(const void *data, size_t n, char *out);
/* Strict: padded, nothing but base64, no bits left over.  out has room for n / 4 * 3 bytes.  MJ_EINVAL. */
int mj_base64_decode(const char *text, size_t n, uint8_t *out, size_t *out_len);

#endif
