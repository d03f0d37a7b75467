/* mj_ulid: ids that ascend with time: 48 bits of milliseconds, 80 random bits. */
#ifndef MJ_ULID_H
#define MJ_ULID_H

#include <stddef.h>
#include <stdint.h>

#define MJ_ULID_BYTES 16
#define MJ_ULID_TEXT 26 /* Crockford base32, upper case, without the NUL */

/* A ULID for wall-clock `now_ms` that is greater than *last, also when the clock
 * stepped back (then last + 1); *last becomes it.  All-zero *last: no predecessor.
 * MJ_EIO: the kernel gave no random bytes; MJ_EINVAL: now_ms is not a time of 48
 * bits; MJ_ELIMIT: *last is the last of all.  *last is then as it was. */
int mj_ulid_next(uint8_t last[MJ_ULID_BYTES], int64_t now_ms);
/* out gets MJ_ULID_TEXT characters and a NUL. */
void mj_ulid_text(const uint8_t id[MJ_ULID_BYTES], char out[MJ_ULID_TEXT + 1]);
/* Strict: upper or lower case Crockford, exactly 26 characters, no overflow.  MJ_EINVAL. */
int mj_ulid_parse(const char *text, size_t len, uint8_t id[MJ_ULID_BYTES]);
/* Milliseconds in the id. */
int64_t mj_ulid_time(const uint8_t id[MJ_ULID_BYTES]);

#endif
