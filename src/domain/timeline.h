/* mj_timeline: what a task keeps of its history, and whether a signal is worth a write.  Pure. */
#ifndef MJ_TIMELINE_H
#define MJ_TIMELINE_H

#include "domain/state.h"

/* Adds an entry, or counts it into the newest one when it tells the same.  A full timeline keeps its first few entries
 * and its newest. */
void mj_timeline_add(mj_task *t, const mj_signal *sig, mj_note note, uint32_t attempt, mj_state from, int64_t now);
/* The newest entry told of nothing but itself, less than a second ago: another such entry is not worth a write. */
bool mj_timeline_fresh(const mj_task *t, int64_t now);
/* Two records of one task that differ at most in their timelines and in updated_at. */
bool mj_timeline_only(const mj_task *a, const mj_task *b);

#endif
