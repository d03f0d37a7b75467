/* mj_filter: what a task must be to be listed.  A pure function of its record. */
#ifndef MJ_FILTER_H
#define MJ_FILTER_H

#include "domain/task.h"

/* All that is set must hold; {0} takes every task. */
typedef struct mj_filter {
    uint32_t states; /* a bit for each state that will do, 1u << state; 0: any */
    bool has_mode;
    mj_mode mode;
    mj_str account; /* of the current attempt, else the one that the user asked for */
    mj_str user_id, key;
    mj_str text; /* part of the prompt; ASCII letters match in either case */
} mj_filter;

bool mj_filter_is_set(const mj_filter *f);
/* A record that can't be decoded matches no filter that is set. */
bool mj_filter_matches(const mj_filter *f, mj_str record);

#endif
