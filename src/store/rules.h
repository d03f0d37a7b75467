/* The operations on a unit of work, one group to a file.  Each sets op->code; what ends the whole unit is in u->rc. */
#ifndef MJ_RULES_H
#define MJ_RULES_H

#include "store/unit.h"

/* task.c */
void mj_op_reset(mj_op *op, int code);
void mj_op_create(mj_unit *u, mj_op *op);
void mj_op_refuse_intake(mj_unit *u, mj_op *op);
void mj_op_signal(mj_unit *u, mj_op *op);
/* Applies a signal to the task op->ref. */
void mj_apply(mj_unit *u, mj_op *op, const mj_signal *sig);

/* tick.c */
/* Entries that are due, at most `limit`; how many. */
uint32_t mj_tick_slots(mj_unit *u, uint32_t limit);
uint32_t mj_tick_queue(mj_unit *u, uint32_t limit);
void mj_op_tick(mj_unit *u, mj_op *op);

/* claim.c: CLAIM, PAUSE */
void mj_op_claim(mj_unit *u, mj_op *op);
void mj_op_pause(mj_unit *u, mj_op *op);

/* delivery.c */
void mj_op_event(mj_unit *u, mj_op *op);

/* outbox.c: events of a row, and the order in which tasks' events are handed out */
void mj_event_add(mj_unit *u, mj_unit_row *row, const mj_task *t, mj_event type);
/* Stores e's record.  Its strings may be anywhere but in the scratch buffer. */
void mj_event_put(mj_unit *u, mj_unit_row *row, const mj_event_record *e);

/* The clock was set back: the event (ref, seq) is due, or its lease begins now. */
void mj_event_rewind(mj_unit *u, const uint8_t *ref, uint32_t seq);
void mj_event_promoted(mj_unit *u, mj_unit_row *row);
/* ... and in task.c: what it put off of this task. */
void mj_rewind(mj_unit *u, const uint8_t *ref);

/* clock.c */
/* At the beginning of a unit: notices that the clock was set back, and goes on with the walk; and that this process'
 * clock runs ahead. */
void mj_clock_look(mj_unit *u);
/* Before a commit: leaves its time behind. */
void mj_clock_remember(mj_unit *u);
/* Goes over up to `limit` entries.  True: there are others. */
bool mj_clock_walk(mj_unit *u, uint32_t limit);

/* prune.c: PRUNE, PRUNE_FROM, FORGET;  refused.c: REFUSE;  upgrade.c: UPGRADE */
void mj_op_prune(mj_unit *u, mj_op *op);
void mj_op_prune_from(mj_unit *u, mj_op *op);
void mj_op_forget(mj_unit *u, mj_op *op);
void mj_op_refuse(mj_unit *u, mj_op *op);
void mj_op_upgrade(mj_unit *u, mj_op *op);

#endif
