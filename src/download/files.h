/* mj_download_dir: a directory of downloaded files: whole ones under their names, and
 * parts that grow beside them until they are whole.
 *
 * Names are the caller's and hold no '/'.  No symbolic link below the directory
 * is followed: one in the place of a file is replaced, one in the place of a
 * directory is refused.  A part is two hidden files, ".NAME.part" and
 * ".NAME.from": the bytes, and of what entity they are.  A part is gone on with
 * only if its bytes are known to be what was received: in the same boot (what a
 * power cut leaves of unsynced bytes is anybody's guess), from the same source,
 * with a strong ETag to ask for.
 *
 * Where a function fails it gives MJ_EIO, MJ_ENOSPC, MJ_EREADONLY, MJ_EBUSY,
 * MJ_ENOTFOUND or MJ_ENOMEM, and errno says why. */
#ifndef MJ_FILES_H
#define MJ_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MJ_DOWNLOAD_NAME 100 /* longest name */
#define MJ_MAX_ETAG 256      /* a longer one is as good as none */

typedef struct mj_download_dir {
    int fd;        /* -1: not open */
    unsigned mode; /* of files; directories are searchable by who may read, and their owner's to write to */
} mj_download_dir;

typedef struct mj_part {
    int fd;                     /* the bytes; locked.  -1: not open */
    int from;                   /* the note about them */
    int64_t have;               /* bytes to go on from; 0: none */
    char etag[MJ_MAX_ETAG + 1]; /* of the entity that they are of */
    uint8_t source[32];
    char name[MJ_DOWNLOAD_NAME + 1];
} mj_part;

/* DIR/SUB, both made when missing; DIR's parent is not.  Links in the path of DIR itself are followed. */
int mj_download_dir_open(mj_download_dir *s, const char *dir, const char *sub, unsigned mode);
void mj_download_dir_close(mj_download_dir *s);
/* A file's SHA-256 and length. */
int mj_download_dir_hash(const mj_download_dir *s, const char *name, uint8_t sha[32], int64_t *bytes);
/* Makes names last that were given since, and the directory's. */
int mj_download_dir_sync(const mj_download_dir *s);

/* Opens or makes the part of that name; `source` tells from where it is.  MJ_EBUSY: another process has it. */
int mj_part_open(const mj_download_dir *s, const char *name, const uint8_t source[32], mj_part *p);
/* Its bytes were cut away, and those of an entity with this ETag come (NULL: none). */
int mj_part_fresh(mj_part *p, const char *etag);
/* It is whole: synced, hashed, and under its final name at once.  Closed if that worked, as before if not.
 * MJ_ENOTFOUND, MJ_EBUSY: somebody removed it meanwhile, and maybe another process has begun anew. */
int mj_part_keep(const mj_download_dir *s, mj_part *p, const char *final, uint8_t sha[32], int64_t *bytes);
/* Left to be gone on with; and: thrown away. */
void mj_part_close(mj_part *p);
void mj_part_drop(const mj_download_dir *s, mj_part *p);

#endif
