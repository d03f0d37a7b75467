/* mj_token: the capability in a callback URL: key id and signature for one attempt of one ref.
 *
 * Nothing here keeps a secret longer than the mj_keyring that holds it, and that is wiped when it is freed. */
#ifndef MJ_TOKEN_H
#define MJ_TOKEN_H

#include "auth/ulid.h"

#include <stdbool.h>

#define MJ_KID_TEXT 8  /* base64url characters of a key id: 48 bits */
#define MJ_SIG_TEXT 22 /* base64url characters of a signature: 128 bits, no padding */

/* The secrets that sign and verify callback URLs.  The first one signs, all verify.  Several threads may use a ring
 * once all secrets are in it. */
typedef struct mj_keyring mj_keyring;
mj_keyring *mj_keyring_new(void); /* NULL: out of memory */
void mj_keyring_free(mj_keyring *k);
/* MJ_EINVAL: shorter than 16 bytes; MJ_ELIMIT: more than 16 secrets; MJ_ENOMEM.  Copies the secret. */
int mj_keyring_add(mj_keyring *k, const void *secret, size_t len);

/* Signs (ref, attempt) with the first secret; kid and sig get their text and a NUL.
 * The signature is the first 128 bits of HMAC-SHA256 over the bytes
 * "mjhook1" NUL ref-text NUL attempt-in-decimal, in base64url; the kid is derived
 * from the secret alone: the first 48 bits of HMAC-SHA256 over "mjhook1 kid".
 * MJ_EINVAL: the keyring is empty; MJ_ENOMEM. */
int mj_token_sign(const mj_keyring *k, const char ref[MJ_ULID_TEXT + 1], uint32_t attempt, char kid[MJ_KID_TEXT + 1],
                  char sig[MJ_SIG_TEXT + 1]);
/* MJ_OK: a secret of the ring with this kid made sig for (ref, attempt).  MJ_EINVAL: none did, or a length is wrong.
 * MJ_ENOMEM: it could not be computed, which says nothing about the token.  Takes constant time in sig. */
int mj_token_verify(const mj_keyring *k, const char *ref, size_t ref_len, uint32_t attempt, const char *kid,
                    size_t kid_len, const char *sig, size_t sig_len);

/* The token in a callback's URI, however it was escaped on the way.  The last kid and sig count, since the token
 * stands after any query of hook_url.  There may be several refs and attempts: software on the way may add or repeat
 * parameters, and the signature tells which are ours.  A part that can't be right is empty or missing. */
#define MJ_TOKEN_TRIES 4
typedef struct mj_token {
    bool present;              /* there is a kid or a sig */
    unsigned nrefs, nattempts; /* the first ones; when all places are taken, later ones replace the first */
    uint32_t attempts[MJ_TOKEN_TRIES];
    char refs[MJ_TOKEN_TRIES][MJ_ULID_TEXT + 1], kid[MJ_KID_TEXT + 1], sig[MJ_SIG_TEXT + 1];
} mj_token;
void mj_token_read(const char *uri, size_t n, mj_token *out);
/* Finds the ref (a text in t) and the attempt that t's signature was made for.  MJ_EINVAL: no secret of the ring made
 * it; other errors: it could not be computed, which says nothing about the caller. */
int mj_token_check(const mj_keyring *k, const mj_token *t, const char **ref, uint32_t *attempt);

#endif
