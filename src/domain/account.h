/* Accounts: how many slots one may hold, and whether it rests. */
#ifndef MJ_ACCOUNT_H
#define MJ_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

/* How many slots an account may hold now, of `max` that are configured: fewer when the key turned out to be shared. */
uint32_t mj_account_cap(uint32_t learned, int64_t learned_at, uint32_t max, int64_t now);
/* Whether it rests, having been told to at paused_at (0: not known).  A rest that a clock gave which was ahead is over
 * when that clock is set right. */
bool mj_account_rests(int64_t paused_until, int64_t paused_at, int64_t now);

#endif
