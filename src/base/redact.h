/* mj_redact: replaces secrets in text that comes from outside, before the text is kept or repeated.
 *
 * A provider, a proxy or a handler may quote what it received: API keys, a callback URL with its token, headers. Hidden
 * are
 *   - the strings given to mj_redact_add() (keys, secrets, passwords), also when they are cut after their first half;
 *   - the value of `sig`, the callback's token, as a query parameter or as a field of JSON or of a dump;
 *   - the values of API-KEY, Authorization and Cookie headers, and `user:password@` in a URL.
 * They are found in plain form and behind up to four layers of percent-encoding, JSON and C escapes and HTML character
 * references.  Each becomes MJ_REDACTED; nothing else changes, and quotes around a value stay. */
#ifndef MJ_REDACT_H
#define MJ_REDACT_H

#include "base/buf.h"

#define MJ_REDACTED "[redacted]"

/* What kind of text it is: some hold a `sig` that is not ours. */
typedef enum {
    MJ_REDACT_TEXT, /* for people: all of the above is hidden */
    MJ_REDACT_BODY, /* a document whose URLs may be signed: only a `sig` that is not longer than ours */
    MJ_REDACT_URL,  /* an image's address: `sig` only if the URL also has our `kid`; and the added strings */
} mj_redact_kind;

/* Hides this string in this process from now on.  Strings of less than 6 bytes are not added: they would be found
 * everywhere.  MJ_ENOMEM; MJ_ELIMIT: there are 4096 already. */
int mj_redact_add(const char *p, size_t n);

/* Appends the text without secrets to `out` and sets *found; if there are none, `out` stays as it was.  MJ_ENOMEM. */
int mj_redact(mj_redact_kind kind, const char *p, size_t n, mj_buf *out, bool *found);
/* False: there is nothing to hide.  Quick. */
bool mj_redact_maybe(const char *p, size_t n);

#endif
