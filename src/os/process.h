/* mj_child: processes of our own code that may hang, crash or leak without harm to this one.
 *
 * Each leads a process group of its own, which is killed with it, and dies when its parent does: see mj_guard.  No Lua
 * in here. */
#ifndef MJ_CHILD_H
#define MJ_CHILD_H

#include "base/buf.h"
#include "os/guard.h"

#include <stdatomic.h>
#include <sys/types.h>

#define MJ_MAX_FRAME 1048576  /* bytes of one message from a child */
#define MJ_CHILD_PIECES 8192U /* that one child can begin */

/* A child, which begins the pieces of its work in order, may have several of them under way, and reports on each when
 * it is done.
 *
 * A piece without a message costs no system call: it is a byte in memory that both processes share.  So the parent is
 * woken by messages and by the child's end, and looks at the other pieces when it wants to. */
typedef struct mj_child {
    mj_guard guard;                 /* its parent */
    int fd;                         /* our end of its socket; -1: closed */
    mj_buf got;                     /* bytes of messages ... */
    size_t used;                    /* ... of which so many were given */
    unsigned silent;                /* pieces without a message that it has given */
    unsigned first;                 /* it has given all pieces before this one */
    bool hungry;                    /* in the child: it has asked for more work, and has not got any */
    struct mj_child_shared *shared; /* memory that both share; NULL: none */
    struct mj_child *next;
} mj_child;

/* Forks.  Parent: 1.  Child: 0.  Both get *c filled; in the child, fd is its own end.  Error: negative, errno is set,
 * *c is as mj_child_end() leaves it.  A child inherits no socket of other children. */
int mj_child_fork(mj_child *c);
/* In the child: begins the next piece of its work, which is at hand from now on, and gives its number, from 0.  -1: the
 * parent has taken the rest back.  `now` is any clock that both processes have. */
int mj_child_begin(mj_child *c, int64_t now);
/* In the child: its code works on this piece from now on; -1: on none, it waits.  `rested` milliseconds were spent
 * waiting. */
void mj_child_at_hand(mj_child *c, int piece, int64_t rested);
/* What the child has begun. */
typedef struct mj_child_view {
    unsigned begun; /* how many pieces */
    int at_hand;    /* the piece that its code works on; -1: none */
    int64_t at;     /* the time at which it began the newest; 0: none */
    int64_t rested; /* milliseconds that it has waited for what is under way */
} mj_child_view;
mj_child_view mj_child_look(const mj_child *c);
/* The time at which it began a piece; 0: it has not begun it. */
int64_t mj_child_since(const mj_child *c, unsigned piece);
/* In the child: until mj_child_release() the parent does not end it (or has ended it by now).  In other processes:
 * nothing. */
void mj_child_hold(void);
void mj_child_release(void);
/* Before the parent ends the child: false while the child holds; true: the child can't begin to hold any more. */
bool mj_child_forbid(mj_child *c);
/* Takes back the pieces that the child has not begun, and returns how many it has begun; it begins no more. */
unsigned mj_child_take_back(mj_child *c);
/* In the child: this piece is done, with this message (p is NULL: none).  false: the parent is gone, or the message is
 * too long. */
bool mj_child_tell(mj_child *c, unsigned piece, mj_str message);
/* Gives a piece that is done, without waiting.  1: *message is its message (p is NULL: none), valid until the next
 * call.  2: the child wants more work; *piece is how many pieces it had got by then.  0: none yet.  -1: the child has
 * ended, or sent nonsense. */
int mj_child_hear(mj_child *c, unsigned *piece, mj_str *message);
/* In the child: asks for more work, once until it gets some; `known` is how many pieces it has got so far.  With `wait`
 * it asks again, and waits.  1: `more` holds it; 0: there is none, and never will be; 2: not yet. */
int mj_child_more(mj_child *c, unsigned known, bool wait, mj_buf *more);
/* Gives a child that wants work more of it.  false: it does not take it. */
bool mj_child_give(mj_child *c, mj_str more);
/* Kills the child and its process group if they still run, and waits; *status as from waitpid(). */
void mj_child_end(mj_child *c, int *status);

#endif
