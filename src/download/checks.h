/* mj_fetch_judge: what mj_fetch makes of words of strangers.  Pure. */
#ifndef MJ_FETCH_JUDGE_H
#define MJ_FETCH_JUDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether that host is meant by "name", or by ".name" as one below it.  In any case; a trailing dot is the same host.
 */
bool mj_fetch_host_is(const char *host, const char *allowed);
/* A Content-Range (may be NULL) of "bytes FROM-TO/TOTAL" that is all of the rest from there on. */
bool mj_fetch_is_rest(const char *range, int64_t from, int64_t *total);

#endif
