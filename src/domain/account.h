/* mj_account: how many slots an account may hold, and whether it rests.  Pure. */
#ifndef MJ_ACCOUNT_H
#define MJ_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

/* How many slots an account may hold now, of `max` that are configured: fewer when the key turned out to be shared. */
uint32_t mj_account_cap(uint32_t observed, int64_t observed_at, uint32_t max, int64_t now);
/* Whether the account rests, since it was told to at paused_at (0: not known).  A rest from a clock that was ahead is
 * over when that clock is set right. */
bool mj_account_rests(int64_t paused_until, int64_t paused_at, int64_t now);

#endif
