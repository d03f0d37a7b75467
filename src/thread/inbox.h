/* mj_inbox: what came in on one thread, for another one that takes all of it at once.
 *
 * The event loop puts callbacks in, one by one; the thread that commits takes what
 * is there at the moment when it is free, not what was there when it was called.
 * What is put in is bytes.  All that was put in between two takes is a lot: lots are
 * numbered from 1, without gaps, and so are the items of each, so that whoever put
 * something in knows under which name its outcome will be told. */
#ifndef MJ_INBOX_H
#define MJ_INBOX_H

#include "base/buf.h"

typedef struct mj_inbox mj_inbox;

/* The inbox of that name in this process, made when it is new: so two threads find the same one.  Without a name
 * (NULL) one that nobody else finds.  Goes when all who opened it have closed it, with what is in it.  NULL: no memory.
 */
mj_inbox *mj_inbox_open(const char *name, size_t n);
void mj_inbox_close(mj_inbox *b);

/* Puts in an item whose bytes are head and body.  0: no memory, and nothing was put in; otherwise the number of its
 * lot, and *index is its own in it. */
uint64_t mj_inbox_put(mj_inbox *b, mj_str head, mj_str body, uint32_t *index);

typedef struct mj_inbox_batch {
    uint64_t number;
    uint32_t count;
    mj_buf items; /* each as mj_put_str() writes it */
} mj_inbox_batch;

/* Takes what is there.  The lot's buffer is handed over for what comes next, emptied, so begin with {0} and keep it;
 * mj_buf_free() its items in the end.  False: nothing was there, and no lot begins anew. */
bool mj_inbox_take(mj_inbox *b, mj_inbox_batch *lot);

#endif
