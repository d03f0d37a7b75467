/* mj_fetch_judge: how mj_fetch reads a host and a header from outside.  Pure. */
#ifndef MJ_FETCH_JUDGE_H
#define MJ_FETCH_JUDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether the host equals "name", or is below ".name".  In any case; a trailing dot makes no difference. */
bool mj_fetch_host_is(const char *host, const char *allowed);
/* Whether a Content-Range (may be NULL) "bytes FROM-TO/TOTAL" is the whole rest from `from` on. */
bool mj_fetch_is_rest(const char *range, int64_t from, int64_t *total);

#endif
