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

#define MJ_MAX_FRAME 1048576 /* bytes of one message from a child */

/* A child, which does its work piece by piece and reports on each.
 *
 * A piece without a message costs no system call: it is a number in memory that both processes share.  So the parent is
 * woken by messages and by the child's end, and looks at the other pieces when it wants to. */
typedef struct mj_child {
    mj_guard guard;                 /* its parent */
    int fd;                         /* our end of its socket; -1: closed */
    mj_buf got;                     /* bytes of messages ... */
    size_t used;                    /* ... of which so many were given */
    unsigned heard, messages;       /* pieces, and messages among them, that mj_child_hear() has given */
    unsigned told;                  /* in the child: pieces that it has told of */
    struct mj_child_shared *shared; /* memory that both share; NULL: none */
    struct mj_child *next;
} mj_child;

/* Forks.  Parent: 1.  Child: 0.  Both get *c filled; in the child, fd is its own end.  Error: negative, errno is set,
 * *c is as mj_child_end() leaves it.  A child inherits no socket of other children. */
int mj_child_fork(mj_child *c);
/* In the child, before each piece of its work: false when the parent has taken the rest back.  `now` is any clock that
 * both processes have. */
bool mj_child_begin(mj_child *c, int64_t now);
/* The time that the child gave when it began its newest piece; 0: none. */
int64_t mj_child_began(const mj_child *c);
/* In the child: until mj_child_release() the parent does not end it (or has ended it by now).  In other processes:
 * nothing. */
void mj_child_hold(void);
void mj_child_release(void);
/* Before the parent ends the child: false while the child holds; true: the child can't begin to hold any more. */
bool mj_child_forbid(mj_child *c);
/* Takes back the pieces that the child has not begun, and returns how many it has begun; it begins no more. */
unsigned mj_child_take_back(mj_child *c);
/* In the child: the next piece is done, with this message (p is NULL: none).  false: the parent is gone, or the message
 * is too long. */
bool mj_child_tell(mj_child *c, mj_str message);
/* Gives the next piece that is done, without waiting.  1: *message is its message (p is NULL: none), valid until the
 * next call.  2: the child has done all its work, and waits for more.  0: none yet.  -1: the child has ended, or sent
 * nonsense. */
int mj_child_hear(mj_child *c, mj_str *message);
/* In the child, when all its work is done: says so, and waits for more.  1: `more` holds it; 0: there is none. */
int mj_child_more(mj_child *c, mj_buf *more);
/* Gives a child that waits for work more of it.  false: it does not take it. */
bool mj_child_give(mj_child *c, mj_str more);
/* Kills the child and its process group if they still run, and waits; *status as from waitpid(). */
void mj_child_end(mj_child *c, int *status);

#endif
