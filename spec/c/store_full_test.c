/* A file system that really runs full: a small tmpfs in a mount namespace of the test's own (root only). */
#include "store_check.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

static void small_disk(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, "") != 0 ||
        mkdir("disk", 0700) != 0 || mount("tmpfs", "disk", "tmpfs", 0, "size=3m,mode=700") != 0)
        SKIP("a tmpfs can't be mounted here");
}

/* Takes room that can be given back. */
static void ballast(const char *path, size_t bytes)
{
    static const char block[65536];
    int fd = open(path, O_CREAT | O_WRONLY, 0600);

    CHECK(fd >= 0);
    for (size_t n = 0; n < bytes; n += sizeof block)
        CHECK_INT(write(fd, block, sizeof block), (long)sizeof block);
    close(fd);
}

static int try_add(mj_store *s, char *prompt, int64_t now)
{
    mj_task t = {.prompt = {prompt, 9000}, .timeout = TIMEOUT_S};
    mj_op op = {.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};
    int rc = mj_store_write(s, &op, 1, now);

    if (rc == MJ_OK)
        CHECK_INT(op.code, MJ_OK);
    mj_op_clear(&op);
    return rc;
}

TEST("a tmpfs run full refuses, keeps what was acknowledged, and goes on by itself when there is room again")
{
    static char prompt[9000];
    mj_store_options o = {.rules = mj_rules_default};
    mj_store *s;
    int stored = 0, rc;

    small_disk();
    memset(prompt, 'x', sizeof prompt);
    ballast("disk/ballast", 1 << 20);
    s = open_store_at("disk/store", &o);
    while ((rc = try_add(s, prompt, T0 + stored)) == MJ_OK)
        stored++;
    CHECK_INT(rc, MJ_ENOSPC);
    CHECK(strlen(mj_store_detail(s)) > 0);
    CHECK(stored > 10);
    for (int i = 0; i < 20; i++)
        CHECK_INT(try_add(s, prompt, T0 + stored), MJ_ENOSPC);
    CHECK_INT(stats(s).states[MJ_QUEUED], stored); /* reads go on */
    check_store(s);
    CHECK_INT(unlink("disk/ballast"), 0);
    for (int i = 0; i < 20; i++, stored++)
        CHECK_INT(try_add(s, prompt, T0 + stored), MJ_OK);
    CHECK_INT(stats(s).states[MJ_QUEUED], stored);
    check_store(s);
    mj_store_close(s);
    s = open_store_at("disk/store", &o); /* and the next start needs no repair */
    CHECK_INT(stats(s).states[MJ_QUEUED], stored);
    mj_store_close(s);
}

TEST("a read-only file system is refused by name, and is well again when it can be written")
{
    static char prompt[9000];
    mj_store_options o = {.rules = mj_rules_default};
    mj_store *s;
    int rc;

    small_disk();
    memset(prompt, 'x', sizeof prompt);
    s = open_store_at("disk/store", &o);
    CHECK_INT(try_add(s, prompt, T0), MJ_OK);
    /* Files open for writing keep a real file system from it; a bind mount of it does not care. */
    CHECK_INT(mount("disk", "disk", "none", MS_BIND, ""), 0);
    CHECK_INT(mount("none", "disk", "none", MS_BIND | MS_REMOUNT | MS_RDONLY, ""), 0);
    mj_store_close(s);
    char why[512];
    rc = mj_store_open("disk/store", &o, &s, why, sizeof why);
    CHECK_INT(rc, MJ_EREADONLY);
    CHECK(strstr(why, "disk/store") != NULL);
    CHECK_INT(mount("none", "disk", "none", MS_BIND | MS_REMOUNT, ""), 0);
    s = open_store_at("disk/store", &o);
    CHECK_INT(try_add(s, prompt, T0 + 1), MJ_OK);
    CHECK_INT(stats(s).states[MJ_QUEUED], 2);
    mj_store_close(s);
}
