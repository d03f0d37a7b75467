/* mj_owner: which process is sending, provably: boot id, PID namespace, pid, start time.
 *
 * Linux only (/proc).  A submitter's death is shown by evidence, not by age: see PRODUCT.md, Edges. */
#ifndef MJ_OWNER_H
#define MJ_OWNER_H

#include <stdint.h>

typedef struct mj_owner {
    uint8_t boot[16]; /* /proc/sys/kernel/random/boot_id */
    uint64_t pidns;   /* inode of /proc/self/ns/pid */
    uint32_t pid;     /* as seen in that namespace */
    uint64_t started; /* field 22 of /proc/self/stat, clock ticks since boot */
} mj_owner;

typedef enum {
    MJ_OWNER_ALIVE,   /* that process runs */
    MJ_OWNER_DEAD,    /* proved dead: another boot, no such pid, a zombie, or the pid was reused */
    MJ_OWNER_FOREIGN, /* another namespace: only age tells */
} mj_owner_state;

/* This process; cached, and refreshed after a fork (the pid differs); from any thread.  0; MJ_EIO: /proc can't be
 * read, or is of another PID namespace (then *o is pid and zeros, and every process judges it as foreign). */
int mj_owner_self(mj_owner *o);
/* Where /proc hides other users' processes (hidepid), an existing pid counts as alive: its start time can't be
 * compared. */
mj_owner_state mj_owner_look(const mj_owner *o);

#endif
