/* mj_url: image URLs as providers write them, made into what RFC 3986 calls a URL.  Pure.
 *
 * Providers name files after prompts: their URLs have blanks and letters beyond ASCII in them, which browsers forgive
 * and programs do not.  Those are percent-encoded.  What could mean something else to somebody than to us is refused:
 * control bytes, quotes, angle brackets, backslashes, a user or a password, no host, no scheme. */
#ifndef MJ_URL_H
#define MJ_URL_H

#include "base/buf.h"

/* Bytes that mj_url_mend() may write for n bytes of text. */
#define MJ_URL_ROOM(n) (3 * (size_t)(n))

/* It is http or https and can be kept as it is. */
bool mj_url_plain(mj_str s);
/* Writes the URL that is meant, at most `max` bytes, to `out`, which has MJ_URL_ROOM(n).  The text may lie in the last
 * third of that room.  Gives its length; 0: it can't be used. */
size_t mj_url_mend(const char *text, size_t n, char *out, size_t max);

#endif
