/* mj_schedule: when to poll again, and when to submit again.  Pure: random numbers are drawn from the task, so the
 * same input gives the same schedule. */
#ifndef MJ_SCHEDULE_H
#define MJ_SCHEDULE_H

#include "domain/state.h"

enum { MJ_LOOK_GAP_MS = 10000 }; /* PRODUCT.md: hints make at most one poll per task per 10 s */

/* The earlier of two times; 0 means never. */
int64_t mj_earlier(int64_t a, int64_t b);
/* The time of the next poll, after this signal. */
int64_t mj_schedule_poll(const mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now);
/* The time of the next poll, when there is a reason to poll soon. */
int64_t mj_schedule_look(const mj_task *t, int64_t now);
/* Whether a callback gave a reason to poll since the last poll. */
bool mj_schedule_hinted(const mj_task *t);
/* How long to wait after the task's t->tries-th failure in a row, ms. */
int64_t mj_schedule_retry(const mj_task *t);

#endif
