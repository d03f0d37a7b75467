/* mj_redact: secrets in text that comes from outside are replaced before anybody keeps or repeats them.
 *
 * A provider, a proxy or a handler may quote what it was sent: API keys, a callback URL with its token, headers.  What
 * is hidden:
 *   - the strings that mj_redact_add() was given (keys, secrets, passwords), also cut short behind their first half;
 *   - the value of `sig`, the callback's token, as a query's parameter or as a field of JSON or of a dump;
 *   - the values of API-KEY, Authorization and Cookie headers, and `user:password@` in a URL.
 * They are found as they are, and behind up to four layers of percent-encoding, JSON's and C's escapes, and HTML's
 * character references.  Each becomes MJ_REDACTED; nothing else changes, and quotes around a value stay. */
#ifndef MJ_REDACT_H
#define MJ_REDACT_H

#include "base/buf.h"

#define MJ_REDACTED "[redacted]"

/* What kind of text it is: in some, `sig` may be somebody else's. */
typedef enum {
    MJ_REDACT_TEXT, /* for people: all of the above */
    MJ_REDACT_BODY, /* a document with URLs that may be signed: only a `sig` that is not longer than ours */
    MJ_REDACT_URL,  /* an image's address: `sig` only if the URL has our `kid`, too; and what was added */
} mj_redact_kind;

/* Adds a string to what is hidden in this process, from now on and for good.  Those of less than 6 bytes are not: they
 * would be found everywhere.  MJ_ENOMEM; MJ_ELIMIT: 4096 are there. */
int mj_redact_add(const char *p, size_t n);

/* Appends the text without secrets to `out` and sets *found; if there are none, `out` stays as it was.  MJ_ENOMEM. */
int mj_redact(mj_redact_kind kind, const char *p, size_t n, mj_buf *out, bool *found);
/* False: there is certainly nothing to hide.  Quick. */
bool mj_redact_maybe(const char *p, size_t n);

#endif
