/* UTF-8: whether text that comes from outside is well-formed, and its code points. */
#ifndef MJ_UTF8_H
#define MJ_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether s is well-formed UTF-8 (no overlong forms, no surrogates, at most U+10FFFF). */
bool mj_utf8_valid(const char *s, size_t n);
/* Length of the well-formed sequence at s, of which n > 0 bytes are there; 0: there is none. */
size_t mj_utf8_length(const char *s, size_t n);
/* The code point of a sequence of that length. */
int32_t mj_utf8_read(const char *s, size_t length);
/* Writes a code point, at most 4 bytes; returns how many. */
size_t mj_utf8_put(char *out, int32_t c);

#endif
