/* mj_attempt: what a signal says of the attempt that it is about, current or old: task id, word and slot.  Pure. */
#ifndef MJ_ATTEMPT_H
#define MJ_ATTEMPT_H

#include "domain/state.h"

/* Ties a task id to an attempt.  The first stays the first; others are kept beside it and polled too. */
mj_result mj_attempt_bind(mj_attempt *a, mj_str id);
/* The provider has the job: so it holds a slot, whatever was thought before. */
void mj_attempt_hold(const mj_task *t, mj_attempt *a, const mj_rules *rules, int64_t now);
/* Whether the signal would make the task `pending`, or final, without a task id: there would be nothing to ask about.
 */
bool mj_attempt_nameless(const mj_attempt *a, const mj_signal *sig);
/* Whether a hint about the task is worth a question to the provider. */
bool mj_attempt_can_look(const mj_task *t, const mj_attempt *a);
/* Whether the signal's task id belongs to another task, or to another attempt (number `known`) than number n, which the
 * signal is about.  The answer to a submission then becomes "maybe sent". */
bool mj_attempt_conflicts(mj_signal *sig, const mj_attempt *a, uint32_t n, uint32_t known);
/* Takes what the signal says of its attempt; how that was taken. */
mj_result mj_attempt_hear(const mj_task *t, mj_attempt *a, const mj_signal *sig, const mj_rules *rules, int64_t now);

#endif
