/* mj_timeline: what a task keeps of its history, and whether a signal is worth a write.  Pure. */
#ifndef MJ_TIMELINE_H
#define MJ_TIMELINE_H

#include "domain/state.h"

/* Adds an entry, or counts it into the newest one if they are equal.  A full timeline keeps its first few entries and
 * its newest ones. */
void mj_timeline_add(mj_task *t, const mj_signal *sig, mj_result result, uint32_t attempt, mj_state from, int64_t now);
/* Whether the newest entry changed nothing else and is less than a second old: another such entry is not worth a
 * write. */
bool mj_timeline_fresh(const mj_task *t, int64_t now);
/* Whether two records of one task differ at most in their timelines and in updated_at. */
bool mj_timeline_only(const mj_task *a, const mj_task *b);
/* Ends a signal: *t is what the signal made of `before`, `result` says how it was taken, and `rc` is what
 * mj_state_apply() will return.  Decides whether the change is written, and writes the timeline.  Returns rc. */
int mj_timeline_tell(mj_task *t, const mj_task *before, const mj_signal *sig, mj_result result, int64_t now,
                     mj_effect *effect, int rc);

#endif
