/* mj_command: programs that are run, fed and heard, for a limited time.
 *
 * A program gets descriptors 0, 1 and 2 and no other, the arguments and the environment that are named and no others,
 * and a process group of its own, which is killed with it.  No shell is involved, and no Lua in here. */
#ifndef MJ_COMMAND_H
#define MJ_COMMAND_H

#include "base/buf.h"

typedef struct mj_command {
    char *const *argv; /* argv[0]: a path */
    char *const *envp;
    mj_str input; /* for its standard input; its standard output is thrown away */
    int64_t timeout_ms;
    bool background; /* processes that it leaves when it ends by itself go on */
} mj_command;

typedef struct mj_ended {
    int status;     /* as from waitpid() */
    bool timed_out; /* it was killed */
    char said[512]; /* the end of what it wrote to its standard error */
} mj_ended;

/* 0: it ran; else an errno value: it did not.  Blocks until it has ended.  From any thread. */
int mj_command_run(const mj_command *c, mj_ended *out);

#endif
