/* mj_child: processes that may hang, crash or leak without harm to this one.
 *
 * Each is the leader of a process group of its own, which is killed with it, and
 * dies when its parent does.  No Lua in here. */
#ifndef MJ_CHILD_H
#define MJ_CHILD_H

#include "mj_buf.h"

#include <stdatomic.h>
#include <sys/types.h>

#define MJ_MAX_FRAME 1048576 /* bytes of one message from a child */

/* A child that runs our own code and tells how it goes in messages. */
typedef struct mj_child {
    pid_t pid;            /* 0: it was waited for */
    int fd;               /* our end; -1: closed */
    mj_buf got;           /* bytes of messages ... */
    size_t used;          /* ... of which so many were given */
    atomic_uint *claimed; /* how many pieces of its work it has begun; memory that both share.  NULL: none */
} mj_child;

/* Forks.  Parent: 1 and *c.  Child: 0, *fd, its end, and *claimed, for mj_child_claim().  An error: negative, errno
 * is set. */
int mj_child_fork(mj_child *c, int *fd, atomic_uint **claimed);
/* In the child, before each piece of work that it was forked for: false when the parent has taken the rest back. */
bool mj_child_claim(atomic_uint *claimed);
/* Takes back what it has not begun, and gives how many pieces it has; it begins no more. */
unsigned mj_child_take_back(mj_child *c);
/* In the child: sends one message, whole.  false: the parent is gone, or it is too long. */
bool mj_child_tell(int fd, mj_str message);
/* Reads what there is, without waiting.  1: *message is the next one, valid until the next call; 0: none yet;
 * -1: it has ended (or talks nonsense). */
int mj_child_hear(mj_child *c, mj_str *message);
/* Kills its process group, waits for it; *status as from waitpid(). */
void mj_child_end(mj_child *c, int *status);

/* A program that is run with `input` on its standard input; its standard output is thrown away. */
typedef struct mj_command {
    char *const *argv; /* argv[0]: a path */
    char *const *envp;
    mj_str input;
    int64_t timeout_ms;
} mj_command;
typedef struct mj_ended {
    int status;     /* as from waitpid() */
    bool timed_out; /* it was killed */
    char said[512]; /* the end of what it wrote to its standard error */
} mj_ended;
/* 0: it ran; else an errno value: it did not.  Blocks until it has ended. */
int mj_command_run(const mj_command *c, mj_ended *out);

#endif
