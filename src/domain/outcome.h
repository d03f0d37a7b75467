/* mj_outcome: what a task keeps of the provider's result: images, prompt, meta, error.  Pure. */
#ifndef MJ_OUTCOME_H
#define MJ_OUTCOME_H

#include "domain/signal.h"

/* Takes from the provider's status what the task does not have yet. */
void mj_outcome_fill(mj_task *t, const mj_signal *sig);
/* Clears the result, so that it is not mixed with the next one. */
void mj_outcome_forget(mj_task *t);
/* Sets the error; empty: there is none. */
void mj_outcome_error(mj_task *t, mj_str code, mj_str text);

#endif
