#include "domain/account.h"

#include "domain/state.h"

enum { RECOVER_MS = 60000 }; /* an observed limit rises by one slot in that time */

/* The provider says that the account is full, while the store knows of fewer jobs: other programs use the key, too.
 * Set the limit to the current slot count.  One more slot a minute finds out when those jobs are done. */
uint32_t mj_account_cap(uint32_t observed, int64_t observed_at, uint32_t max, int64_t now)
{
    int64_t since = now - observed_at, cap;

    if (observed_at == 0)
        return max;
    cap = (observed ? (int64_t)observed : 1) + (since > 0 ? since / RECOVER_MS : 0);
    return cap < max ? (uint32_t)cap : max;
}

bool mj_account_rests(int64_t paused_until, int64_t paused_at, int64_t now)
{
    return now < paused_until && paused_at - now <= MJ_CLOCK_STEP_MS;
}
