/* mj_silence: how long the provider has said nothing about a task, or did not know it.  Pure. */
#ifndef MJ_SILENCE_H
#define MJ_SILENCE_H

#include "domain/state.h"

/* A poll was answered, or was not: notes the time and returns the time since the poll before; 0 for other signals. */
int64_t mj_silence_asked(mj_task *t, const mj_signal *sig, int64_t now);
/* Counts what a poll's answer says about silence and absence; `gap` is the time since the poll before.  True: the task
 * is lost. */
bool mj_silence_lost(mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t gap, int64_t now);

#endif
