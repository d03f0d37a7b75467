/* mj_url: turns image URLs, as providers write them, into URLs by RFC 3986.  Pure.
 *
 * Providers name files after prompts: their URLs contain blanks and letters beyond ASCII, which browsers forgive and
 * programs do not.  Those are percent-encoded.  Refused is what another reader could understand differently: control
 * bytes, quotes, angle brackets, backslashes, a user or a password, no host, no scheme. */
#ifndef MJ_URL_H
#define MJ_URL_H

#include "base/buf.h"

/* The bytes that mj_url_mend() may write for n bytes of text. */
#define MJ_URL_ROOM(n) (3 * (size_t)(n))

/* Whether it is http or https and can be kept unchanged. */
bool mj_url_plain(mj_str s);
/* Writes the mended URL, at most `max` bytes, to `out`, which has MJ_URL_ROOM(n).  The text may be in the last third
 * of that room.  Returns the length; 0: it can't be used. */
size_t mj_url_mend(const char *text, size_t n, char *out, size_t max);

#endif
