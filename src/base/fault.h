/* mj_fault: points at which a test can kill this process.
 *
 * MJ_FAULT("name") is nothing, except in a build with FAULTS=1.  There a process that passes the point
 *   - writes the name and a line break to the file $MJHOOK_FAULT_LOG, if that is set;
 *   - is killed with SIGKILL when $MJHOOK_FAULT is "name:n" and this is the n-th passage of that point,
 *     or "*:n" and this is the n-th passage of any point;
 *   - waits as long as the file PATH exists, when $MJHOOK_FAULT_HOLD is "name:PATH".
 * From any thread. */
#ifndef MJ_FAULT_H
#define MJ_FAULT_H

#ifdef MJ_FAULTS
void mj_fault_pass(const char *name);
#define MJ_FAULT(name) mj_fault_pass(name)
#else
#define MJ_FAULT(name) ((void)0)
#endif

#endif
