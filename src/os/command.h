/* mj_command: runs a program, feeds it and hears it, for a limited time.
 *
 * The program gets descriptors 0, 1 and 2 and no others, the named arguments and environment and no others, and a
 * process group of its own, which is killed with it.  No shell is involved.  No Lua in here. */
#ifndef MJ_COMMAND_H
#define MJ_COMMAND_H

#include "base/buf.h"

typedef struct mj_command {
    char *const *argv; /* argv[0]: a path */
    char *const *envp;
    mj_str input; /* for its standard input; its standard output goes nowhere */
    int64_t timeout_ms;
    bool background; /* processes that it leaves behind when it ends by itself go on */
} mj_command;

typedef struct mj_ended {
    int status;     /* as from waitpid() */
    bool timed_out; /* it was killed */
    char said[512]; /* the end of what it wrote to its standard error */
} mj_ended;

/* 0: it ran.  Else an errno value: it did not.  Blocks until the program has ended.  From any thread. */
int mj_command_run(const mj_command *c, mj_ended *out);

#endif
