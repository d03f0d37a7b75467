/* mj_escape: the ways in which other formats write an ASCII character: percent-encoding (%3D), escapes of JSON and C
 * (\u003d, \x3d, \/), character references of HTML (&#61;, &amp;). */
#ifndef MJ_ESCAPE_H
#define MJ_ESCAPE_H

#include <stddef.h>

/* The length of the escape at p, where n > 0 bytes are left, and the character that it means; 0: there is no escape. */
size_t mj_escape_at(const char *p, size_t n, char *c);

#endif
