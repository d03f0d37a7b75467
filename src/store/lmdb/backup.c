/* A backup is LMDB's compacted copy of one snapshot. */
#include "base/fault.h"
#include "os/file.h"
#include "store/lmdb/db.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int mj_lmdb_backup_place(mj_lmdb *db, const char *to)
{
    char path[4096];
    struct stat st;

    if ((size_t)snprintf(path, sizeof path, "%s/data.mdb", to) >= sizeof path)
        return MJ_EINVAL;
    if (mkdir(to, 0700) != 0 && (errno != EEXIST || (stat(to, &st) != 0 && errno == ENOENT))) {
        snprintf(db->why, db->why_size, "%s: %s", to, strerror(errno)); /* the link leads nowhere, too */
        return errno == ENOSPC || errno == EDQUOT ? MJ_ENOSPC : MJ_EREADONLY;
    }
    if (stat(to, &st) == 0 && !S_ISDIR(st.st_mode)) {
        snprintf(db->why, db->why_size, "%s is no directory", to);
        return MJ_EEXISTS;
    }
    if (lstat(path, &st) != 0)
        return MJ_OK;
    snprintf(db->why, db->why_size, "%s is in the way: name a directory that is new or holds no store", path);
    return MJ_EEXISTS;
}

int mj_lmdb_backup(mj_tx *tx, const char *to)
{
    char path[4096], why[MJ_FILE_WHY];
    mj_lmdb *db = tx->db;
    mj_file f;
    int rc;

    mdb_txn_reset(tx->t); /* the copy has a snapshot of its own */
    snprintf(path, sizeof path, "%s/data.mdb", to);
    rc = mj_file_begin(&f, path, db->env->mode, why);
    if (rc == MJ_OK) {
        rc = mdb_env_copyfd2(mj_env_lmdb(db->env), f.fd, MDB_CP_COMPACT);
        if (rc != 0) {
            snprintf(why, sizeof why, "%s: %s", path, rc > -100 && rc < 0 ? mj_error_text(rc) : mdb_strerror(rc));
            rc = mj_env_code(rc);
            mj_file_abandon(&f);
        }
    }
    tx->t = NULL;
    mj_env_leave(db->env); /* no thread that needs a larger map waits for the disk here */
    MJ_FAULT("backup.copied");
    if (rc == MJ_OK)
        rc = mj_file_commit(&f, true, why);
    if (rc != MJ_OK && rc != MJ_EEXISTS)
        snprintf(db->why, db->why_size, "%.500s", why);
    return rc;
}
