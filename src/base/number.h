/* mj_number: numbers as text, the same in every locale of the host program.
 *
 * strtod() and printf() write and read a decimal comma where the locale has one; JSON, metrics and fingerprints have a
 * point. */
#ifndef MJ_NUMBER_H
#define MJ_NUMBER_H

#include <stddef.h>

enum { MJ_NUMBER_TEXT = 32 };

/* Reads the number at p, as JSON writes it; the byte after it must not belong to a number (NUL is fine).  A number
 * that is too large gives infinity. */
double mj_number_read(const char *p);

/* Writes the shortest text that reads back as v, whole numbers below 2^53 without an exponent; or with `digits`
 * significant digits (1 to 17; 0: the shortest), as %.*g does.  Returns the length.  v is finite. */
size_t mj_number_write(double v, int digits, char out[MJ_NUMBER_TEXT]);

#endif
