/* mj_attempt: what a signal says about its attempt, current or old: task id, status and slot.  Pure. */
#ifndef MJ_ATTEMPT_H
#define MJ_ATTEMPT_H

#include "domain/state.h"

/* Binds a task id to an attempt.  The first one stays the first; others are kept beside it and polled, too. */
mj_result mj_attempt_bind(mj_attempt *a, mj_str id);
/* The provider has the job: the attempt holds a slot, whatever was assumed before. */
void mj_attempt_hold(const mj_task *t, mj_attempt *a, const mj_rules *rules, int64_t now);
/* Whether the signal would make the task `pending`, or final, without a task id: nothing could be polled then. */
bool mj_attempt_nameless(const mj_attempt *a, const mj_signal *sig);
/* Whether a hint about the task is worth a poll. */
bool mj_attempt_can_look(const mj_task *t, const mj_attempt *a);
/* Whether the signal's task id belongs to another task, or to another attempt (number `known`) than number n, which
 * the signal is about.  The answer to a submission then becomes "maybe sent". */
bool mj_attempt_conflicts(mj_signal *sig, const mj_attempt *a, uint32_t n, uint32_t known);
/* Applies what the signal says about its attempt; returns how it was taken. */
mj_result mj_attempt_hear(const mj_task *t, mj_attempt *a, const mj_signal *sig, const mj_rules *rules, int64_t now);

#endif
