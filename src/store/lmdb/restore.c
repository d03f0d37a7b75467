/* A restore copies a data file into a directory beside the store, checks the copy, and exchanges it with the store's
 * data file in one step.  From its first look to its last step it holds lock.mdb as LMDB does that is about to set it
 * up: no process can have the store open, of whatever version. */
#include "base/fault.h"
#include "os/file.h"
#include "os/libc.h"
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

#define ASIDE "restore.tmp" /* the directory of the copy; no other process restores at the same time */

typedef struct restore {
    mj_place to;
    int lock, from, aside, copy; /* descriptors; -1: not open */
    struct stat source;
    char *why;
    size_t why_size;
} restore;

__attribute__((format(printf, 3, 4))) static int refuse(restore *r, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(r->why, r->why_size, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): clang-tidy 14 errs */
    va_end(args);
    return code;
}

static int failed(restore *r, const char *what)
{
    int number = errno;

    return refuse(r, mj_errno_code(number), "%s: %s", what, strerror(number));
}

/* Whether a process has the store open that a data file belongs to. */
static bool is_in_use(const char *data, const struct stat *st)
{
    char path[4096 + 16];
    const char *slash = strrchr(data, '/');
    mj_place p = {.has_data = true, .data = *st};
    bool used;
    int fd;

    snprintf(path, sizeof path, "%.*slock.mdb", slash ? (int)(slash - data) + 1 : 0, data);
    p.has_lock = lstat(path, &p.lock) == 0;
    if (mj_env_registered(&p))
        return true;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    used = fd >= 0 && mj_place_user(fd) >= 0;
    if (fd >= 0)
        close(fd);
    return used;
}

static int open_source(restore *r, const char *from)
{
    char path[4096];
    struct stat *st = &r->source;

    if (stat(from, st) != 0)
        return failed(r, from);
    if ((size_t)snprintf(path, sizeof path, "%s%s", from, S_ISDIR(st->st_mode) ? "/data.mdb" : "") >= sizeof path)
        return refuse(r, MJ_EINVAL, "the path of the backup is too long");
    if (stat(path, st) != 0)
        return failed(r, path);
    if (!S_ISREG(st->st_mode)) /* opening a device may do something */
        return refuse(r, MJ_EFORMAT, "%s is no regular file", path);
    r->from = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (r->from < 0 || fstat(r->from, st) != 0)
        return failed(r, path);
    if (!S_ISREG(st->st_mode))
        return refuse(r, MJ_EFORMAT, "%s is no regular file", path);
    if (is_in_use(path, st))
        return refuse(r, MJ_EBUSY, "a process has %s open: copy it with mjhook backup, and restore the copy", path);
    return MJ_OK;
}

/* Removes the directory of the copy, also one that a process left that died.  What else has its name goes as well, and
 * is not followed. */
static void clean(restore *r)
{
    static const char *const files[] = {"data.mdb", "data.mdb.new", "lock.mdb"};
    int fd = openat(r->to.fd, ASIDE, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    for (size_t i = 0; i < sizeof files / sizeof files[0] && fd >= 0; i++)
        unlinkat(fd, files[i], 0);
    if (fd >= 0)
        close(fd);
    if (unlinkat(r->to.fd, ASIDE, AT_REMOVEDIR) != 0)
        unlinkat(r->to.fd, ASIDE, 0);
}

/* Copies bytes `at` to `end`. */
static int copy_range(restore *r, const char *from, off_t at, off_t end)
{
    enum { CHUNK = 1 << 20 };
    uint8_t *bytes = malloc(CHUNK);
    int rc = bytes ? MJ_OK : refuse(r, MJ_ENOMEM, "%s", mj_error_text(MJ_ENOMEM));

    if (rc == MJ_OK && lseek(r->copy, at, SEEK_SET) < 0)
        rc = failed(r, ASIDE "/data.mdb");
    while (rc == MJ_OK && at < end) {
        ssize_t n = pread(r->from, bytes, end - at < CHUNK ? (size_t)(end - at) : CHUNK, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = failed(r, from);
        else if (n == 0)
            rc = refuse(r, MJ_ECORRUPT, "%s became shorter while it was copied", from);
        else if (!mj_write_all(r->copy, bytes, (size_t)n))
            rc = failed(r, ASIDE "/data.mdb");
        else
            at += n;
    }
    free(bytes);
    return rc;
}

/* Holes stay holes: a damaged file may have large ones. */
static int copy(restore *r, const char *from)
{
    off_t size = lseek(r->from, 0, SEEK_END), at = 0, end;
    int rc = MJ_OK;

    clean(r);
    if (mkdirat(r->to.fd, ASIDE, 0700) != 0)
        return failed(r, ASIDE);
    r->aside = openat(r->to.fd, ASIDE, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (r->aside < 0)
        return failed(r, ASIDE);
    r->copy = openat(r->aside, "data.mdb", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (r->copy < 0 || ftruncate(r->copy, size) != 0)
        return failed(r, ASIDE "/data.mdb");
    while (rc == MJ_OK && (at = lseek(r->from, at, SEEK_DATA)) >= 0 && (end = lseek(r->from, at, SEEK_HOLE)) >= 0) {
        rc = copy_range(r, from, at, end);
        at = end;
    }
    return rc == MJ_OK && errno != ENXIO ? failed(r, from) : rc; /* ENXIO: nothing but a hole is left */
}

static int check_pages(restore *r, const char *from)
{
    char what[128] = "";
    mj_roots roots;
    int rc = mj_pages_roots(r->copy, &roots, what, sizeof what);

    if (rc == 0 && roots.nothing)
        return refuse(r, MJ_EFORMAT, "%s holds nothing", from);
    if (rc == 0)
        rc = mj_pages_check(r->copy, roots.txn[roots.txn[1] > roots.txn[0]], 0, what, sizeof what);
    if (rc == 0)
        return MJ_OK;
    return refuse(r, mj_env_code(rc), "%s can't be restored: %s", from, what[0] ? what : strerror(rc));
}

typedef struct first { /* of the things that are wrong */
    char text[200];
} first;

static void note_first(void *ctx, const char *text)
{
    first *f = ctx;

    if (!f->text[0])
        snprintf(f->text, sizeof f->text, "%s", text);
}

/* Jobs that were queued when the backup was made may have been sent since.  The store that knows of it is the one that
 * is replaced: so nothing is sent until a person has looked. */
static int hold_accounts(mj_store *s, const mj_store_options *o)
{
    mj_op *ops;
    int rc;

    if (o->naccounts == 0)
        return MJ_OK;
    ops = calloc(o->naccounts, sizeof *ops);
    if (!ops)
        return MJ_ENOMEM;
    for (size_t i = 0; i < o->naccounts; i++)
        ops[i] = (mj_op){.kind = MJ_OP_PAUSE,
                         .until = MJ_FOR_EVER,
                         .sig = {.account = o->accounts[i].name, .error_code = MJ_LIT(MJ_BY_HAND)}};
    rc = mj_store_write(s, ops, o->naccounts, mj_store_now(s));
    for (size_t i = 0; i < o->naccounts && rc == MJ_OK; i++)
        rc = ops[i].code;
    free(ops);
    return rc;
}

/* Opens the copy as a store, which brings an older one to this schema, and compares records and indexes. */
static int check_records(restore *r, const char *from, const mj_store_options *given, bool anyway, mj_restored *out)
{
    mj_store_options o = {.rules = mj_rules_default};
    char path[4096 + 64], what[512] = "";
    first wrong = {""};
    mj_store *s;
    int rc;

    snprintf(path, sizeof path, "%s/" ASIDE, r->to.path);
    rc = mj_store_open(path, &o, &s, what, sizeof what);
    if (rc == MJ_OK) {
        rc = mj_store_check(s, note_first, &wrong, &out->checked);
        if (rc == MJ_OK && out->checked.queued > 0 && (out->checked.found == 0 || anyway))
            rc = hold_accounts(s, given);
        if (rc != MJ_OK)
            snprintf(what, sizeof what, "%s", mj_store_detail(s)[0] ? mj_store_detail(s) : mj_error_text(rc));
        mj_store_close(s);
    }
    if (rc != MJ_OK)
        return refuse(r, rc, "%s can't be restored: %s", from, what);
    if (out->checked.found > 0 && !anyway)
        return refuse(r, MJ_ECORRUPT, "%s can't be restored: %" PRIu64 " things are wrong in it, the first: %s", from,
                      out->checked.found, wrong.text);
    return MJ_OK;
}

/* Owner and mode are those of the file that is replaced. */
static int dress(restore *r, const mj_store_options *o)
{
    const struct stat *was = &r->to.data;
    mode_t mode = r->to.has_data ? was->st_mode & 0777 : o->mode ? o->mode : 0600;
    struct stat st;

    if (fstat(r->copy, &st) != 0)
        return failed(r, ASIDE "/data.mdb");
    /* Another member of the group may own it: that can't be given, the group can. */
    if (r->to.has_data && (st.st_uid != was->st_uid || st.st_gid != was->st_gid) &&
        fchown(r->copy, was->st_uid, was->st_gid) != 0 && fchown(r->copy, (uid_t)-1, was->st_gid) != 0)
        return failed(r, ASIDE "/data.mdb");
    if (fchmod(r->copy, mode) != 0 || fsync(r->copy) != 0)
        return failed(r, ASIDE "/data.mdb");
    return MJ_OK;
}

/* A name for the former file that no file has. */
static int give_name(restore *r, char *kept, size_t size)
{
    enum { MOST = 100 };
    time_t now = time(NULL);
    struct tm tm;
    char stamp[32];

    gmtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
    for (int i = 1; i <= MOST; i++) {
        snprintf(kept, size, i == 1 ? "data.mdb.before-%s" : "data.mdb.before-%s.%d", stamp, i);
        if (mj_renameat2(r->aside, "data.mdb", r->to.fd, kept, RENAME_NOREPLACE) == 0)
            return MJ_OK;
        if (errno == EINVAL && faccessat(r->to.fd, kept, F_OK, AT_SYMLINK_NOFOLLOW) != 0 &&
            renameat(r->aside, "data.mdb", r->to.fd, kept) == 0)
            return MJ_OK;
        if (errno != EEXIST && errno != EINVAL)
            break;
    }
    return failed(r, kept);
}

/* The copy takes the name that the former file will keep; then the two change their names in one step. */
static int put_in_place(restore *r, char *kept, size_t size)
{
    char old[80];
    int dir, rc = give_name(r, kept, size);

    if (rc != MJ_OK)
        return rc;
    if (!r->to.has_data) {
        rc = renameat(r->to.fd, kept, r->to.fd, "data.mdb") == 0 ? MJ_OK : failed(r, kept);
        kept[0] = '\0';
    } else if (mj_renameat2(r->to.fd, kept, r->to.fd, "data.mdb", RENAME_EXCHANGE) != 0) {
        /* The file system can't: the former file gets a second name before it loses its first. */
        snprintf(old, sizeof old, "%s.old", kept);
        rc = linkat(r->to.fd, "data.mdb", r->to.fd, old, 0) == 0 && renameat(r->to.fd, kept, r->to.fd, "data.mdb") == 0
                 ? MJ_OK
                 : failed(r, kept);
        snprintf(kept, size, "%.60s", old);
    }
    MJ_FAULT("restore.exchanged");
    if (rc != MJ_OK)
        return rc;
    dir = open(r->to.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = dir >= 0 && mj_sync_dir(dir) == 0 ? MJ_OK : failed(r, r->to.path);
    if (dir >= 0)
        close(dir);
    return rc;
}

static int run(restore *r, const char *from, const mj_store_options *o, bool anyway, mj_restored *out)
{
    int rc;

    if (mj_env_registered(&r->to))
        return refuse(r, MJ_EBUSY, "this process has the store %s open", r->to.path);
    if (r->to.has_data && r->to.data.st_dev == r->source.st_dev && r->to.data.st_ino == r->source.st_ino)
        return refuse(r, MJ_EINVAL, "%s is the store itself: name a backup of it", from);
    rc = mj_env_code(mj_place_lock(&r->to, o, &r->lock, r->why, r->why_size));
    if (rc == MJ_OK)
        rc = mj_place_enter(&r->to, r->lock, true, true, r->why, r->why_size);
    if (rc == MJ_OK)
        rc = mj_place_look(&r->to, o, r->why, r->why_size);
    if (rc == MJ_OK)
        rc = copy(r, from);
    MJ_FAULT("restore.copied");
    if (rc == MJ_OK)
        rc = check_pages(r, from);
    if (rc == MJ_OK)
        rc = check_records(r, from, o, anyway, out);
    if (rc == MJ_OK)
        rc = dress(r, o);
    MJ_FAULT("restore.checked");
    return rc == MJ_OK ? put_in_place(r, out->kept, sizeof out->kept) : rc;
}

int mj_store_restore(const char *from, const char *dir, const mj_store_options *o, bool anyway, mj_restored *out,
                     char *why, size_t why_size)
{
    restore r = {.to = {.fd = -1}, .lock = -1, .from = -1, .aside = -1, .copy = -1, .why = why, .why_size = why_size};
    int rc;

    memset(out, 0, sizeof *out);
    why[0] = '\0';
    rc = open_source(&r, from); /* first: a wrong name makes no directory */
    if (rc == MJ_OK)
        rc = mj_place_open(&r.to, dir, o, why, why_size);
    if (rc == MJ_OK)
        rc = run(&r, from, o, anyway, out);
    if (r.aside >= 0) {
        clean(&r);
        close(r.aside);
    }
    if (r.copy >= 0)
        close(r.copy);
    if (r.from >= 0)
        close(r.from);
    if (r.lock >= 0)
        close(r.lock); /* from now on others may open it */
    mj_place_close(&r.to);
    return rc;
}
