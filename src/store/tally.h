/* Sums over all that was ever committed: a batch adds to them, and reads no common row for it.
 *
 * A database that has one writer at a time keeps one tally; another keeps one for
 * each writer, and adds them up. */
#ifndef MJ_TALLY_H
#define MJ_TALLY_H

#include "domain/counters.h"

typedef struct mj_tally {
    int64_t states[MJ_NSTATES], events, buried;
    int64_t ready; /* entries of QUEUE */
    mj_counters counters;
    /* No sums, the largest counts: the time of the newest commit, by its clock; 0: not known. */
    int64_t latest;
    bool set_back; /* of what is added: the clock was set back to `latest`, and no later time counts any more */
} mj_tally;

void mj_tally_add(mj_tally *to, const mj_tally *add);
/* set_back is no part of the record.  *whole (may be NULL) is false for one of the first versions, which knew neither
 * `ready` nor counters.  MJ_ENOMEM; MJ_ECORRUPT. */
int mj_tally_encode(const mj_tally *t, mj_buf *out);
int mj_tally_decode(mj_str bytes, mj_tally *out, bool *whole);

#endif
