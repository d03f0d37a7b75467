/* mj_file: reads and writes whole files, and trusts nothing that was planted on the way.
 *
 * Reading is for files that decide something: configuration, policy, keys, secrets.  A file is opened once, and the
 * checks are made on the open file.  Each directory of its path, up to /, must belong to root or to the caller, and no
 * other user may write to it; of directories that others may write to, only root's sticky ones pass (/tmp).  Symbolic
 * links are followed step by step, so that the directories on their way are checked, too.
 *
 * Writing replaces a file as a whole: a new file beside it gets the bytes, is synced, and takes the name.  Only a
 * regular file is replaced.  A reader sees the old file or the new one, also after a power cut.
 *
 * A function that fails returns MJ_EINVAL (the file is refused), MJ_ENOTFOUND, MJ_EEXISTS, MJ_EREADONLY, MJ_ENOSPC,
 * MJ_ELIMIT, MJ_ENOMEM or MJ_EIO, and `why` holds a sentence that names the path and the cure. */
#ifndef MJ_FILE_H
#define MJ_FILE_H

#include "base/buf.h"

#include <limits.h>
#include <stdbool.h>

enum {
    MJ_FILE_WHY = 2 * PATH_MAX + 256, /* bytes of a sentence, with its end */
    MJ_FILE_TEMPORARY = 256,          /* bytes of a temporary name, with its end */
};

typedef enum {
    MJ_FILE_CODE, /* only root and the caller may write the file, or replace it */
    /* Only its owner, root and the caller may write it or replace it; the owner may be another user.  Not every user
     * of the machine may read it.  A read-only file, as containers get their secrets, may have any mode below a
     * directory that keeps others out. */
    MJ_FILE_SECRET,
} mj_file_kind;

/* Appends the file's content to `out`; at most `max` bytes. */
int mj_file_read(const char *path, mj_file_kind kind, size_t max, mj_buf *out, char why[MJ_FILE_WHY]);

typedef struct mj_file {
    int fd;                            /* for writing; -1: not open */
    int dir;                           /* the directory that holds the file */
    const char *path;                  /* the caller's; must live until commit or abandon */
    unsigned mode;                     /* of the finished file, whatever the umask */
    char temporary[MJ_FILE_TEMPORARY]; /* its name until then: random, hidden, ends in ".tmp" */
} mj_file;

/* Begins to write the file of that path: creates and opens a new one beside it, mode 0600.  A failure leaves nothing
 * behind. */
int mj_file_begin(mj_file *f, const char *path, unsigned mode, char why[MJ_FILE_WHY]);
/* Gives the new file its mode and name, durably: file and directory are synced.  With `fresh` an existing file is
 * MJ_EEXISTS, otherwise it is replaced.  Closes it in any case.  A failure leaves the old file and no temporary one. */
int mj_file_commit(mj_file *f, bool fresh, char why[MJ_FILE_WHY]);
/* Removes an unfinished file.  Does nothing after commit. */
void mj_file_abandon(mj_file *f);
/* All in one call: replaces the file of that path by n bytes. */
int mj_file_write(const char *path, const void *p, size_t n, unsigned mode, char why[MJ_FILE_WHY]);

/* Appends n bytes in one write, for logs.  A missing file is created with exactly `mode`.  Only a regular file or a
 * character device (a terminal) is written to. */
int mj_file_append(const char *path, const void *p, size_t n, unsigned mode, char why[MJ_FILE_WHY]);

/* For other code that works on files: the error code of errno; a write of all bytes (false: see errno); a directory's
 * sync (0, or -1 and errno), which succeeds on a file system that can't sync directories. */
int mj_errno_code(int number);
bool mj_write_all(int fd, const void *p, size_t n);
int mj_sync_dir(int fd);

#endif
