/* What LMDB and the system say, as our codes and for people. */
#include "store/lmdb/env_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

int mj_env_code(int rc)
{
    if (rc > -100 && rc <= 0)
        return rc; /* one of ours */
    switch (rc) {
    case MDB_NOTFOUND:
        return MJ_ENOTFOUND;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return MJ_ENOSPC;
    case EROFS:
    case EACCES:
    case EPERM:
        return MJ_EREADONLY;
    case ENOMEM:
        return MJ_ENOMEM;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_CURSOR_FULL: /* a tree without an end */
    case MDB_BAD_TXN:     /* one of these came before it */
    case MJ_TORN:
        return MJ_ECORRUPT;
    case MJ_MISFIT:
    case EAGAIN:
        return MJ_EBUSY;
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return MJ_EFORMAT;
    case MDB_READERS_FULL:
        return MJ_ELIMIT;
    default:
        return MJ_EIO;
    }
}

void mj_env_explain(const char *dir, int rc, char *why, size_t size)
{
    if (why[0])
        return;
    switch (rc) {
    case MJ_EFORMAT:
        snprintf(why, size, "%s/data.mdb is an LMDB file but no mjhook store", dir);
        break;
    case MJ_ESCHEMA:
        snprintf(why, size,
                 "the store %s was written by a newer mjhook, this one knows schema %d: install that one again", dir,
                 MJ_STORE_SCHEMA);
        break;
    case MJ_TORN:
        snprintf(why, size,
                 "%s/data.mdb is damaged: it is shorter than it says itself: put a backup in its place with mjhook "
                 "restore",
                 dir);
        break;
    case MJ_MISFIT:
        snprintf(why, size,
                 "%s/data.mdb was replaced or overwritten while other processes had it open, and they still have: "
                 "stop them all, then it opens again",
                 dir);
        break;
    case EAGAIN:
        snprintf(why, size,
                 "another process with the process id %ld has the store %s open, in another container (PID namespace): "
                 "LMDB tells processes apart by that number alone: let these containers share one PID namespace "
                 "(docker run --pid=container:NAME, shareProcessNamespace: true in Kubernetes)",
                 (long)getpid(), dir);
        break;
    default:
        snprintf(why, size, "can't open the store %s: %s", dir,
                 rc > -100 && rc < 0 ? mj_error_text(rc) : mdb_strerror(rc));
    }
}

bool mj_env_disk_full(const mj_env *e)
{
    static const uint64_t LARGEST = (uint64_t)64 * 4096; /* LMDB writes at most 64 pages at once */
    struct statvfs st;

    return statvfs(e->dir, &st) == 0 && (uint64_t)st.f_bavail * st.f_frsize < LARGEST;
}

bool mj_env_in_place(const mj_env *e, char *why, size_t size)
{
    char path[4096];
    struct stat st;

    snprintf(path, sizeof path, "%s/data.mdb", e->dir);
    if (stat(path, &st) == 0 ? st.st_dev == e->dev && st.st_ino == e->ino : errno != ENOENT && errno != ENOTDIR)
        return true;
    snprintf(why, size, "%s was moved, removed or replaced after it was opened: restart what has it open", path);
    return false;
}
