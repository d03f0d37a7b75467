/* mj_edge: PRODUCT.md's table of states and edges.  Pure. */
#ifndef MJ_EDGES_H
#define MJ_EDGES_H

#include "domain/signal.h"

/* What a signal about the current attempt does to the task. */
enum {
    MJ_EDGE_LATE, /* only the timeline changes: everything that the table does not list */
    MJ_EDGE_DUP,  /* known already */
    MJ_EDGE_STAY, /* the state stays, but the signal has an effect */
    MJ_EDGE_DENY, /* not allowed in this state */
    MJ_EDGE_GO    /* from here on: enters the state MJ_EDGE_TO(state) */
};
#define MJ_EDGE_TO(state) (MJ_EDGE_GO + (unsigned)(state))

/* The edge of a signal in a state, before the rules that a table can't hold (domain/state.c). */
unsigned mj_edge_of(mj_state state, mj_signal_kind kind);

#endif
