#include "download/files.h"

#include "auth/digest.h"
#include "base/error.h"
#include "base/fault.h"
#include "os/file.h"
#include "os/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_ROOM = MJ_DOWNLOAD_NAME + 8, NOTE_ROOM = 160 + MJ_MAX_ETAG, TRIES = 4, CHUNK = 65536 };

static int code(void)
{
    return mj_errno_code(errno);
}

/* Closes fd; keeps errno, and returns its code. */
static int closing(int fd)
{
    int why = errno;

    if (fd >= 0)
        close(fd);
    errno = why;
    return code();
}

static void hidden(char out[NAME_ROOM], const char *name, const char *end)
{
    snprintf(out, NAME_ROOM, ".%.*s.%s", MJ_DOWNLOAD_NAME, name, end);
}

/* ---- the directory ---- */

static int sync_dir(int fd)
{
    return mj_sync_dir(fd) == 0 ? MJ_OK : code();
}

/* Syncs the directory above, which holds this one's name. */
static int sync_name(int fd)
{
    int up = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

    if (up < 0 && errno == EACCES) /* no read permission */
        return syncfs(fd) == 0 ? MJ_OK : code();
    rc = up < 0 ? code() : sync_dir(up);
    closing(up);
    return rc;
}

/* Opens at/name, and makes it if it is missing; then its name is synced, too. */
static int open_dir(int at, const char *name, int flags, unsigned mode, int *out)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags), rc;

    if (fd < 0 && errno == ENOENT) {
        if (mkdirat(at, name, 0700) != 0 && errno != EEXIST)
            return code();
        fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
        /* The owner must be able to write to it, even when the files are read-only. */
        if (fd < 0 || fchmod(fd, (0700 | mode | (mode & 0444) >> 2) & 0777) != 0)
            return closing(fd);
        rc = sync_name(fd);
        if (rc != MJ_OK) {
            closing(fd);
            return rc;
        }
    }
    if (fd < 0)
        return code();
    *out = fd;
    return MJ_OK;
}

int mj_download_dir_open(mj_download_dir *s, const char *dir, const char *sub, unsigned mode)
{
    int top = -1, fd = -1, rc;

    *s = (mj_download_dir){.fd = -1, .mode = mode};
    rc = open_dir(AT_FDCWD, dir, 0, mode, &top);
    if (rc != MJ_OK)
        return rc;
    rc = open_dir(top, sub, O_NOFOLLOW, mode, &fd);
    closing(top);
    if (rc == MJ_OK)
        s->fd = fd;
    return rc;
}

void mj_download_dir_close(mj_download_dir *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

/* Also the directory's own name: the process that made it may have died before it was synced. */
int mj_download_dir_sync(const mj_download_dir *s)
{
    int rc = sync_dir(s->fd);

    return rc == MJ_OK ? sync_name(s->fd) : rc;
}

/* ---- whole files ---- */

/* Opens a regular file for reading; -1: see errno.  O_NONBLOCK: it may be a pipe. */
static int open_file(const mj_download_dir *s, const char *name)
{
    struct stat st;
    int fd = openat(s->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
        close(fd);
        errno = EINVAL;
        return -1;
    }
    return fd;
}

static int hash_fd(int fd, uint8_t sha[32], int64_t *bytes)
{
    mj_hash *h = mj_hash_new();
    unsigned char chunk[CHUNK];
    ssize_t n;

    errno = ENOMEM;
    if (!h)
        return MJ_ENOMEM;
    *bytes = 0;
    while ((n = pread(fd, chunk, sizeof chunk, *bytes)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || mj_hash_add(h, chunk, (size_t)n) != MJ_OK) {
            int rc = n < 0 ? code() : MJ_EIO;
            mj_hash_end(h, sha);
            return rc;
        }
        *bytes += n;
    }
    return mj_hash_end(h, sha);
}

int mj_download_dir_hash(const mj_download_dir *s, const char *name, uint8_t sha[32], int64_t *bytes)
{
    int fd = open_file(s, name), rc;

    if (fd < 0)
        return code();
    rc = hash_fd(fd, sha, bytes);
    closing(fd);
    return rc;
}

/* ---- parts ---- */

/* A part that was about to get its final name already has its final mode, perhaps read-only.  Makes it writable again,
 * unless another process is at it. */
static bool make_writable(const mj_download_dir *s, const char *name)
{
    int fd = open_file(s, name);
    bool ok = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && fchmod(fd, 0600) == 0;

    closing(fd);
    return ok;
}

/* Opens a regular file with this one name for writing; removes anything else in its place, except a directory.  -1:
 * see errno. */
static int open_own(const mj_download_dir *s, const char *name)
{
    struct stat st;

    for (int i = 0; i < TRIES; i++) {
        int fd = openat(s->fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EACCES) {
            if (make_writable(s, name))
                continue;
            if (errno != EWOULDBLOCK)
                errno = EACCES;
            return -1;
        }
        if (fd < 0 && errno != ELOOP && errno != ENXIO) /* a link, a socket */
            return -1;
        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink <= 1)
            return fd;
        if (fd >= 0)
            close(fd);
        if (unlinkat(s->fd, name, 0) != 0 && errno != ENOENT)
            return -1;
    }
    errno = EBUSY;
    return -1;
}

/* MJ_EBUSY: the name is another file's by now. */
static int still_named(const mj_download_dir *s, const char *name, int fd)
{
    struct stat ours, there;

    if (fstat(fd, &ours) != 0 || fstatat(s->fd, name, &there, AT_SYMLINK_NOFOLLOW) != 0)
        return code();
    if (ours.st_ino == there.st_ino && ours.st_dev == there.st_dev)
        return MJ_OK;
    errno = EBUSY;
    return MJ_EBUSY;
}

/* Like open_own, and locked.  Between opening and locking another process may have given the file its final name, and
 * it would be written under that one. */
static int open_locked(const mj_download_dir *s, const char *name, int *out)
{
    for (int i = 0; i < TRIES; i++) {
        int fd = open_own(s, name);
        if (fd < 0)
            return errno == EWOULDBLOCK ? MJ_EBUSY : code();
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int rc = errno == EWOULDBLOCK ? MJ_EBUSY : code();
            closing(fd);
            return rc;
        }
        if (still_named(s, name, fd) == MJ_OK) {
            *out = fd;
            return MJ_OK;
        }
        close(fd);
    }
    errno = EBUSY;
    return MJ_EBUSY;
}

/* The start of a note: boot and source.  False: the boot is not known, so nothing can be resumed. */
static bool note_head(const mj_part *p, char out[NOTE_ROOM], int *n)
{
    mj_owner o;

    if (mj_owner_self(&o) != MJ_OK)
        return false;
    *n = snprintf(out, NOTE_ROOM, "mjhook-part 1 ");
    for (int i = 0; i < 16; i++)
        *n += snprintf(out + *n, NOTE_ROOM - (size_t)*n, "%02x", o.boot[i]);
    out[(*n)++] = ' ';
    for (int i = 0; i < 32; i++)
        *n += snprintf(out + *n, NOTE_ROOM - (size_t)*n, "%02x", p->source[i]);
    out[(*n)++] = ' ';
    return true;
}

/* A weak ETag may belong to two entities. */
static bool strong(const char *etag)
{
    size_t n = etag ? strlen(etag) : 0;

    if (n < 2 || n > MJ_MAX_ETAG || etag[0] != '"' || etag[n - 1] != '"')
        return false;
    for (size_t i = 1; i < n - 1; i++)
        if ((unsigned char)etag[i] <= ' ' || (unsigned char)etag[i] >= 0x7f || etag[i] == '"')
            return false;
    return true;
}

/* Sets have and etag if the note says that the download can be resumed. */
static void read_note(mj_part *p)
{
    char head[NOTE_ROOM], note[NOTE_ROOM + 1];
    struct stat st;
    ssize_t got = pread(p->from, note, sizeof note - 1, 0);
    int n;

    if (got <= 0 || note[got - 1] != '\n' || !note_head(p, head, &n) || got <= n || memcmp(note, head, (size_t)n) != 0)
        return;
    note[got - 1] = '\0';
    /* The note ends with the ETag: strong() stops at a NUL. */
    if (!strong(note + n) || strlen(note + n) != (size_t)(got - n) - 1 || fstat(p->fd, &st) != 0)
        return;
    memcpy(p->etag, note + n, (size_t)(got - n));
    p->have = st.st_size;
}

int mj_part_open(const mj_download_dir *s, const char *name, const uint8_t source[32], mj_part *p)
{
    char file[NAME_ROOM];
    int rc;

    *p = (mj_part){.fd = -1, .from = -1};
    memcpy(p->source, source, sizeof p->source);
    snprintf(p->name, sizeof p->name, "%s", name);
    hidden(file, name, "part");
    rc = open_locked(s, file, &p->fd);
    if (rc != MJ_OK)
        return rc;
    hidden(file, name, "from");
    p->from = open_own(s, file);
    if (p->from < 0) {
        rc = closing(p->fd);
        p->fd = -1;
        return rc;
    }
    read_note(p);
    return MJ_OK;
}

int mj_part_fresh(mj_part *p, const char *etag)
{
    char note[NOTE_ROOM];
    int n;

    p->have = 0;
    p->etag[0] = '\0';
    if (ftruncate(p->from, 0) != 0 || lseek(p->from, 0, SEEK_SET) != 0)
        return code();
    if (!strong(etag) || !note_head(p, note, &n))
        return MJ_OK;
    n += snprintf(note + n, sizeof note - (size_t)n, "%s\n", etag);
    /* A note that broke off has no newline and does not count. */
    return mj_write_all(p->from, note, (size_t)n) ? MJ_OK : code();
}

int mj_part_keep(const mj_download_dir *s, mj_part *p, const char *final, uint8_t sha[32], int64_t *bytes)
{
    char file[NAME_ROOM];
    int rc = hash_fd(p->fd, sha, bytes);

    if (rc != MJ_OK)
        return rc;
    if (fchmod(p->fd, s->mode) != 0 || fsync(p->fd) != 0)
        return code();
    MJ_FAULT("download.synced");
    hidden(file, p->name, "part");
    rc = still_named(s, file, p->fd); /* a cleaner may have removed it, and another process begun a new one */
    if (rc != MJ_OK)
        return rc;
    if (renameat(s->fd, file, s->fd, final) != 0)
        return code();
    MJ_FAULT("download.renamed");
    hidden(file, p->name, "from");
    unlinkat(s->fd, file, 0);
    mj_part_close(p);
    return MJ_OK;
}

void mj_part_close(mj_part *p)
{
    if (p->fd >= 0)
        close(p->fd);
    if (p->from >= 0)
        close(p->from);
    p->fd = p->from = -1;
}

void mj_part_drop(const mj_download_dir *s, mj_part *p)
{
    char file[NAME_ROOM];

    hidden(file, p->name, "part");
    if (p->fd >= 0 && still_named(s, file, p->fd) == MJ_OK) { /* without the lock it may be another process' by now */
        hidden(file, p->name, "from");
        unlinkat(s->fd, file, 0);
        hidden(file, p->name, "part");
        unlinkat(s->fd, file, 0);
    }
    mj_part_close(p);
}
