/* mj_fault: places where a test can have this process die.
 *
 * MJ_FAULT("name") is nothing, unless this is a build with FAULTS=1: then a process that passes there
 *   - writes the name, and a line break, to the file that $MJHOOK_FAULT_LOG names, if any;
 *   - is ended with SIGKILL when $MJHOOK_FAULT is "name:n" and this is the n-th passage of that point,
 *     or "*:n" and this is the n-th passage of any.
 *   - waits there as long as the file exists that $MJHOOK_FAULT_HOLD names as "name:path".
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
