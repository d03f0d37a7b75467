/* mj_file: whole files, read and written so that nothing planted in their way is trusted.
 *
 * Reading is for files that decide something: configuration, policy, keys, secrets.  A file is opened once; what is
 * checked is what is read.  Each directory of its path, up to /, must belong to root or to the caller and must not be
 * writable by others; of those that are, only sticky ones of root's pass (/tmp).  Symbolic links are followed step by
 * step, so that the directories they lead through are checked like all others.
 *
 * Writing replaces a file as a whole: a new file beside it gets the bytes, is synced, and takes the name.  Only a
 * regular file is replaced.  A reader sees the old file or the new one, also after a power cut.
 *
 * Where a function fails it returns MJ_EINVAL (what is there is refused), MJ_ENOTFOUND, MJ_EEXISTS, MJ_EREADONLY,
 * MJ_ENOSPC, MJ_ELIMIT, MJ_ENOMEM or MJ_EIO, and `why` holds a sentence that names the path and the cure. */
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
    MJ_FILE_CODE, /* nobody but root and the caller may write the file, or put another in its place */
    /* Nobody but its owner may write it, or put another in its place, but root and the caller; the owner may be
     * another user.  Not every user of the machine may read it.  A file that nobody may write, as containers get their
     * secrets, may have any mode below a directory that keeps others out. */
    MJ_FILE_SECRET,
} mj_file_kind;

/* Appends the file's content to `out`; at most `max` bytes. */
int mj_file_read(const char *path, mj_file_kind kind, size_t max, mj_buf *out, char why[MJ_FILE_WHY]);

typedef struct mj_file {
    int fd;                            /* to write to; -1: not open */
    int dir;                           /* the directory that holds the file */
    const char *path;                  /* the caller's; must live until commit or abandon */
    unsigned mode;                     /* of the file in the end, whatever the umask */
    char temporary[MJ_FILE_TEMPORARY]; /* its name until then: random, hidden, ends in ".tmp" */
} mj_file;

/* Begins a file of that path: creates a new one beside it, mode 0600, and opens it.  Nothing is left behind by a
 * failure. */
int mj_file_begin(mj_file *f, const char *path, unsigned mode, char why[MJ_FILE_WHY]);
/* Gives it mode and name, durably: file and directory are synced.  With `fresh` a file that is there by now is
 * MJ_EEXISTS, otherwise it is replaced.  Closes it in any case; a failure leaves the old file, and no temporary one. */
int mj_file_commit(mj_file *f, bool fresh, char why[MJ_FILE_WHY]);
/* Removes what was begun.  Harmless after commit. */
void mj_file_abandon(mj_file *f);
/* All of it in one call: replaces the file of that path by n bytes. */
int mj_file_write(const char *path, const void *p, size_t n, unsigned mode, char why[MJ_FILE_WHY]);

/* Appends n bytes in one write, as logs are written; a file that is not there is created with exactly `mode`.  What is
 * neither a regular file nor a character device (a terminal) is refused. */
int mj_file_append(const char *path, const void *p, size_t n, unsigned mode, char why[MJ_FILE_WHY]);

/* For others that work on files: the code for errno; a write of all bytes (false: see errno); a directory's sync (0, or
 * -1 and errno), where a file system that syncs no directories counts as done. */
int mj_errno_code(int number);
bool mj_write_all(int fd, const void *p, size_t n);
int mj_sync_dir(int fd);

#endif
