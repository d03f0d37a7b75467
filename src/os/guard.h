/* mj_guard: a process between this one and a program that it starts.
 *
 * A process that waits for any child, as an nginx worker does, takes the status of every child it finds.  An exit
 * signal of 0 hides a child from such a wait, but execve() sets the signal back to SIGCHLD.  So a program is the child
 * of a guard, which never runs a program itself: only the guard can wait for the program, and no wait finds the guard
 * by accident.  Until the guard has waited, pid and process group of the program belong to no other process.  This
 * process never signals the program: it asks the guard through a socket, and the guard takes the end of that socket
 * for the same request, so that nothing outlives a killed parent.  A guard that a program has stopped is continued.
 *
 * No Lua in here.  A guard makes only calls that are safe after fork() in a process with threads. */
#ifndef MJ_GUARD_H
#define MJ_GUARD_H

#include <stdbool.h>
#include <sys/types.h>

/* How a process ended, as the guard reports it. */
typedef struct mj_ending {
    int error;  /* an errno value: the program could not be run; 0: it ran */
    int status; /* as from waitpid() */
} mj_ending;

typedef struct mj_guard {
    pid_t pid;   /* 0: it was waited for */
    int pidfd;   /* of the guard, if a wait for any child can find it; -1: not needed, or the kernel has none */
    int fd;      /* becomes readable when the guarded process has ended; -1: closed */
    bool hidden; /* only a wait for this child finds it */
} mj_guard;

typedef enum mj_guard_kind {
    MJ_GUARD_PROGRAM, /* hidden from other waits; in it, no function that takes a lock may be called */
    MJ_GUARD_FORK,    /* made by fork(), with its handlers: in it, fork() may be called again */
} mj_guard_kind;

/* Starts a guard.  Parent: 1 and *g.  Guard: 0 and *fd, its end of the socket; all signals are blocked, and SIGCHLD
 * wakes it.  Error: negative, errno is set. */
int mj_guard_start(mj_guard *g, mj_guard_kind kind, int *fd);
/* In the guard: tells a waiting parent that its child runs.  In the parent: waits for that, or for why the child does
 * not run; 0 or an errno value. */
void mj_guard_started(int fd);
int mj_guard_await(mj_guard *g);
/* In the guard: waits for its child `pid`, or for the parent's request to end it.  Then kills the rest of the child's
 * process group and a program's descendants that left it (unless `leave` is set and the child ended by itself),
 * reports, and exits. */
_Noreturn void mj_guard_watch(int fd, pid_t pid, bool leave);
/* In the guard, when nothing could be started: reports that and exits. */
_Noreturn void mj_guard_failed(int fd, int error);
/* In the guarded process, first: a process group of its own, no signal blocked or handled, killed with its guard. */
void mj_guard_settle(pid_t guard);
/* Kills the guarded process and its group if they still run, and waits.  A guard that was killed counts as a process
 * that SIGKILL ended: no other signal reaches the guard. */
void mj_guard_end(mj_guard *g, mj_ending *how);

#endif
