/* mj_inbox: items that one thread puts in and another thread takes, all at once.
 *
 * The event loop puts callbacks in, one by one.  The committing thread takes what is there when it is free, not what
 * was there when it was called.  An item is bytes.  A batch is all items between two takes.  Batches are numbered from
 * 1 without gaps, and so are the items of each batch: so the thread that put an item in knows the number of its
 * result. */
#ifndef MJ_INBOX_H
#define MJ_INBOX_H

#include "base/buf.h"

typedef struct mj_inbox mj_inbox;

/* The inbox of that name in this process, made if it is new: so two threads find the same one.  Without a name (NULL),
 * one that no other call finds.  It is freed, with what is in it, when each of its users has closed it.  NULL: no
 * memory. */
mj_inbox *mj_inbox_open(const char *name, size_t n);
void mj_inbox_close(mj_inbox *b);

/* Puts in an item: the bytes of head and body.  0: no memory, and nothing was put in; otherwise the number of its
 * batch, and *index becomes its number in the batch. */
uint64_t mj_inbox_put(mj_inbox *b, mj_str head, mj_str body, uint32_t *index);

typedef struct mj_inbox_batch {
    uint64_t number;
    uint32_t count;
    mj_buf items; /* each as mj_put_str() writes it */
} mj_inbox_batch;

/* Takes the batch that is there.  *batch's buffer is handed over for the next one, emptied: begin with {0}, keep it,
 * and call mj_buf_free() for its items in the end.  False: there is none, and no batch begins. */
bool mj_inbox_take(mj_inbox *b, mj_inbox_batch *batch);

/* One thread at a time works on what it takes: enter() waits until the thread before it has called leave(). */
void mj_inbox_enter(mj_inbox *b);
void mj_inbox_leave(mj_inbox *b);

#endif
