/* mj_fd: descriptors by number. */
#ifndef MJ_FD_H
#define MJ_FD_H

#include <stdbool.h>
#include <sys/types.h>

/* Opens standard input, output and error if this process was started without them, so that no other file gets these
 * numbers: text for people must not go there.  Writing to them then fails.  false: errno is set. */
bool mj_fd_fill_standard(void);
/* From now on a write beyond the limit of a file's size (RLIMIT_FSIZE) fails with EFBIG, instead of ending the process
 * by SIGXFSZ.  It concerns the whole process: for programs.  What they start has the limit as it was. */
void mj_fd_outlive_limit(void);
/* Closes all descriptors from this one on; and: those of one file, except standard input, output and error.  Safe
 * after fork() in a process with threads. */
void mj_fd_close_from(int low);
void mj_fd_close_file(dev_t dev, ino_t ino);

#endif
