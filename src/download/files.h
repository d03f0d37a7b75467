/* mj_download_dir: a directory of downloaded files: whole ones under their names, and parts beside them that grow.
 *
 * The caller gives the names, without '/'.  No symbolic link below the directory is followed: one in the place of a
 * file is replaced, one in the place of a directory is refused.  A part is two hidden files: ".NAME.part" has the
 * bytes, ".NAME.from" says which entity they belong to.  A part is resumed only if its bytes are known to be what was
 * received: in the same boot (after a power cut unsynced bytes are unknown), from the same source, with a strong ETag
 * to ask for.
 *
 * A function that fails returns MJ_EIO, MJ_ENOSPC, MJ_EREADONLY, MJ_EBUSY, MJ_ENOTFOUND or MJ_ENOMEM, and errno says
 * why. */
#ifndef MJ_FILES_H
#define MJ_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MJ_DOWNLOAD_NAME 100 /* longest name */
#define MJ_MAX_ETAG 256      /* a longer one is ignored */

typedef struct mj_download_dir {
    int fd;        /* -1: not open */
    unsigned mode; /* of files; users who may read them may search the directories, whose owner may write */
} mj_download_dir;

typedef struct mj_part {
    int fd;                     /* the bytes; locked.  -1: not open */
    int from;                   /* the note about them */
    int64_t have;               /* bytes to resume from; 0: none */
    char etag[MJ_MAX_ETAG + 1]; /* of the entity that they belong to */
    uint8_t source[32];
    char name[MJ_DOWNLOAD_NAME + 1];
} mj_part;

/* Opens DIR/SUB, and makes both if they are missing, but not DIR's parent.  Links in the path of DIR itself are
 * followed. */
int mj_download_dir_open(mj_download_dir *s, const char *dir, const char *sub, unsigned mode);
void mj_download_dir_close(mj_download_dir *s);
/* A file's SHA-256 and length. */
int mj_download_dir_hash(const mj_download_dir *s, const char *name, uint8_t sha[32], int64_t *bytes);
/* Syncs the names that were given so far, and the directory's own. */
int mj_download_dir_sync(const mj_download_dir *s);

/* Opens or makes the part of that name; `source` tells where it comes from.  MJ_EBUSY: another process has it. */
int mj_part_open(const mj_download_dir *s, const char *name, const uint8_t source[32], mj_part *p);
/* The part was emptied, and an entity with this ETag comes (NULL: none). */
int mj_part_fresh(mj_part *p, const char *etag);
/* Completes the part: syncs it, hashes it, and gives it its final name in one step.  Closed on success, unchanged on
 * failure.  MJ_ENOTFOUND, MJ_EBUSY: it was removed meanwhile, and perhaps another process has begun a new one. */
int mj_part_keep(const mj_download_dir *s, mj_part *p, const char *final, uint8_t sha[32], int64_t *bytes);
/* Closes the part, so that it can be resumed; and: removes it. */
void mj_part_close(mj_part *p);
void mj_part_drop(const mj_download_dir *s, mj_part *p);

#endif
