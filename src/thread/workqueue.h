/* mj_workqueue: work that one thread does piece by piece, and that another thread can take back.
 *
 * For handlers that run in threads: another thread can steal items that a slow handler has not begun.  A piece is
 * bytes; each is either begun or taken back, never both.
 *
 * A process that was forked for the same purpose has a number instead (mj_child_begin, os/process.h): its pieces are
 * known on both sides of the fork, and a lock in shared memory would stay locked when the process is killed. */
#ifndef MJ_WORKQUEUE_H
#define MJ_WORKQUEUE_H

#include "base/buf.h"

#include <stdbool.h>

typedef struct mj_workqueue mj_workqueue;

/* The queue of that name in this process, as mj_inbox_open() and mj_inbox_close(). */
mj_workqueue *mj_workqueue_open(const char *name, size_t n);
void mj_workqueue_close(mj_workqueue *c);

/* Fills the queue with `count` pieces, in *pieces as mj_put_str() writes them, in place of the former ones.  The
 * buffers are swapped.  `now`: monotonic, in milliseconds. */
void mj_workqueue_fill(mj_workqueue *c, mj_buf *pieces, uint32_t count, int64_t now);
/* Begins the next piece.  False: there is none. */
bool mj_workqueue_begin(mj_workqueue *c, int64_t now);
/* Takes back the pieces that were not begun, if the current one was begun before `before`: appends them to *out and
 * returns their number.  0: there are none, or it is too early, or there is no memory (then they stay). */
uint32_t mj_workqueue_take_back(mj_workqueue *c, int64_t before, mj_buf *out);

#endif
