/* A store's rows, from one database to another.
 *
 * A copy works in pieces, compares before it writes, and so may be begun again
 * after any death: what is there already costs a look.  The destination can't be
 * used before the copy is finished, nor the source once it is being finished: a
 * note in each makes every write fail with MJ_EMOVED, whichever process has the
 * store open.  So no job is submitted from both. */
#ifndef MJ_COPY_H
#define MJ_COPY_H

#include "store/store.h"

typedef struct mj_copy {
    mj_store *from, *to;
    const char *from_name, *to_name; /* for people, without a password; last as long as the copy */
    /* Finish: the source takes no writes from now on; at the end each record was compared and found the same, and the
     * destination may be used.  Without it the source goes on, and the copy is brought up to date by the next one. */
    bool finish;
    uint64_t looked, written, removed; /* records of tasks and tombstones */
    uint64_t damaged;                  /* records of the source that can't be read, and are left out */
    bool verifying, done;
    uint64_t differing; /* found when all had been compared: to be 0 */
    /* how far it is */
    unsigned phase, rounds;
    bool positioned;
    uint8_t at[MJ_ULID_BYTES];
    uint64_t differs, altered; /* in this round over all */
} mj_copy;

/* Goes over up to `limit` records.  c->done: all is done.
 * MJ_EEXISTS: the destination has tasks and no copy of this source in it; MJ_EMOVED: the source was moved elsewhere
 * before; MJ_ECORRUPT: a record differs although it was just written; MJ_EBUSY: a process of an older version still
 * writes to the source; and what reading and writing give.  mj_copy_detail() says more. */
int mj_copy_step(mj_copy *c, uint32_t limit);
const char *mj_copy_detail(const mj_copy *c);
/* Lets the source be written to again, while its copy is not finished.  MJ_ESTATE: nothing to lift. */
int mj_copy_cancel(mj_store *from);

#endif
