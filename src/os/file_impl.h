/* The inside of mj_file, for os/read.c (reading what is trusted) and os/file.c (writing). */
#ifndef MJ_FILE_IMPL_H
#define MJ_FILE_IMPL_H

#include "os/file.h"

#include <sys/types.h>

/* Writes the sentence and returns the code. */
__attribute__((format(printf, 3, 4))) int mj_file_refuse(char why[MJ_FILE_WHY], int code, const char *format, ...);
/* The same after a system call that failed, by errno. */
int mj_file_failed(char why[MJ_FILE_WHY], const char *path);
/* Names what is not a regular file: "a directory". */
const char *mj_file_kind_of(mode_t mode);

#endif
