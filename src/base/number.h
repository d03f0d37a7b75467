/* mj_number: numbers as text, the same in every locale of the host program.
 *
 * strtod() and printf() write and read a decimal comma where the locale has one; JSON, metrics and fingerprints have a
 * point. */
#ifndef MJ_NUMBER_H
#define MJ_NUMBER_H

#include <stddef.h>

enum { MJ_NUMBER_TEXT = 32 };

/* The number that begins at p, as JSON writes it; what follows it must not be a part of one (a NUL, say).  Infinite
 * when it is too large. */
double mj_number_read(const char *p);

/* The shortest text that reads back as v, whole numbers below 2^53 without an exponent; or with `digits` significant
 * digits (1 to 17; 0: the shortest), as %.*g writes it.  The length.  v is finite. */
size_t mj_number_write(double v, int digits, char out[MJ_NUMBER_TEXT]);

#endif
