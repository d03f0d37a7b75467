/* mj_escape: the ways in which an ASCII character is written by another one's rules: percent-encoding (%3D), escapes of
 * JSON and C (\u003d, \x3d, \/), character references of HTML (&#61;, &amp;). */
#ifndef MJ_ESCAPE_H
#define MJ_ESCAPE_H

#include <stddef.h>

/* Length of the escape at p, of which n > 0 bytes are there, and the character that it stands for; 0: there is none. */
size_t mj_escape_at(const char *p, size_t n, char *c);

#endif
