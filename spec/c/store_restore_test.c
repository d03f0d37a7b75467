/* Backups and restores. */
#include "store_check.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#define options ((mj_store_options){.rules = mj_rules_default})
static char why[512];

static struct stat look(const char *path)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        MJ_TEST_FAIL("%s: %s", path, strerror(errno));
    return st;
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static void make_store(const char *dir, int tasks)
{
    mj_store *s = open_store_at(dir, &options);

    for (int i = 0; i < tasks; i++)
        add(s, (job){0}, T0 + i);
    mj_store_close(s);
}

static int back_up(const char *dir, const char *to)
{
    mj_store *s = open_durable_at(dir, &options);
    int rc = mj_store_backup(s, to);

    if (rc != MJ_OK)
        snprintf(why, sizeof why, "%s", mj_store_detail(s));
    mj_store_close(s);
    return rc;
}

static unsigned tasks_of(const char *dir)
{
    mj_store *s = open_durable_at(dir, &options);
    unsigned n = (unsigned)stats(s).states[MJ_QUEUED];

    check_store(s);
    mj_store_close(s);
    return n;
}

static mj_restored restored;

static int restore(const char *from, const char *dir)
{
    return mj_store_restore(from, dir, &options, false, &restored, why, sizeof why);
}

static void expect(int code, int want, const char *word)
{
    if (code != want || !strstr(why, word))
        MJ_TEST_FAIL("%s: %s", mj_error_name(code), why);
}

/* Only the files of a store, and the former data files. */
static void no_litter(const char *dir)
{
    char command[256];

    snprintf(command, sizeof command, "ls -A %s | grep -vE '^(data.mdb|lock.mdb|data.mdb.before-[0-9TZ.]+)$' >litter",
             dir);
    CHECK(system(command) != -1);
    CHECK_INT(look("litter").st_size, 0);
}

/* ---- backup ---- */

TEST("a backup has the mode of the store's files, also in a directory that is there, whatever the umask")
{
    mj_store_options shared = {.rules = mj_rules_default, .mode = 0660};
    mj_store *s;

    umask(0);
    make_store("store", 2);
    CHECK_INT(mkdir("there", 0777), 0);
    CHECK_INT(back_up("store", "there"), MJ_OK);
    CHECK_INT(look("there/data.mdb").st_mode & 07777, 0600);
    CHECK_INT(look("there/data.mdb").st_nlink, 1);
    CHECK_INT(back_up("store", "new"), MJ_OK);
    CHECK_INT(look("new").st_mode & 07777, 0700);
    umask(0777);
    CHECK(mkdir("shared", 0700) == 0 && chmod("shared", 02770) == 0);
    s = open_durable_at("shared", &shared);
    CHECK(mkdir("copy", 0700) == 0 && chmod("copy", 0700) == 0);
    CHECK_INT(mj_store_backup(s, "copy"), MJ_OK);
    CHECK_INT(look("copy/data.mdb").st_mode & 07777, 0660);
    mj_store_close(s);
}

TEST("a second backup into one directory is refused and leaves the first one alone, also when both are under way")
{
    enum { AT_ONCE = 6 };
    pid_t pid[AT_ONCE];
    int status, made = 0;

    make_store("store", 300);
    for (int i = 0; i < AT_ONCE; i++)
        if ((pid[i] = fork()) == 0) {
            int rc = back_up("store", "copy");
            _exit(rc == MJ_OK ? 0 : rc == MJ_EEXISTS ? 1 : 2);
        }
    for (int i = 0; i < AT_ONCE; i++) {
        CHECK_INT(waitpid(pid[i], &status, 0), pid[i]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        made += WEXITSTATUS(status) == 0;
    }
    CHECK_INT(made, 1);
    CHECK_INT(back_up("store", "copy"), MJ_EEXISTS);
    CHECK_INT(tasks_of("copy"), 300);
    no_litter("copy");
}

TEST("a backup that runs out of room leaves nothing")
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, "") != 0 ||
        mkdir("disk", 0700) != 0 || mount("tmpfs", "disk", "tmpfs", 0, "size=256k,mode=700") != 0)
        SKIP("a tmpfs can't be mounted here");
    make_store("store", 3000);
    CHECK_INT(back_up("store", "disk/copy"), MJ_ENOSPC);
    CHECK(strlen(why) > 0);
    CHECK_INT(system("test -z \"$(ls -A disk/copy)\""), 0);
    make_store("disk/full", 0);
    CHECK_INT(restore("store/data.mdb", "disk/full"), MJ_ENOSPC);
    no_litter("disk/full");
    CHECK_INT(tasks_of("disk/full"), 0);
}

/* Overwrites the record of the page that holds most tasks: LMDB would follow it. */
static void damage(const char *file)
{
    static const uint8_t bad[2] = {0xff, 0x7f};
    uint8_t page[4096];
    int fd = open(file, O_RDWR), done = 0;

    CHECK(fd >= 0);
    for (off_t at = 4096 * 2; pread(fd, page, sizeof page, at) == (long)sizeof page; at += 4096)
        if (page[10] == 2 && page[12] > 60) { /* a leaf of some entries: where its second one lies */
            CHECK_INT(pwrite(fd, bad, sizeof bad, at + 18), 2);
            done++;
        }
    CHECK(done > 0);
    close(fd);
}

TEST("check tells of a damaged page, and backup copies no damaged store")
{
    mj_check_report report;
    mj_store *s;
    int rc;

    make_store("store", 3000);
    s = open_durable_at("store", &options);
    (void)stats(s);
    damage("store/data.mdb");
    rc = mj_store_check(s, NULL, NULL, &report);
    CHECK(rc == MJ_OK && report.found > 0);
    CHECK_INT(mj_store_backup(s, "copy"), MJ_ECORRUPT);
    CHECK(strstr(mj_store_detail(s), "mjhook restore") != NULL);
    CHECK(!exists("copy/data.mdb"));
    mj_store_close(s);
}

/* ---- restore ---- */

TEST("a restore puts file or directory in the store's place and keeps the former file, with owner and mode")
{
    char kept[128];
    struct stat was;

    make_store("store", 3);
    CHECK_INT(back_up("store", "copy"), MJ_OK);
    make_store("store", 4);
    CHECK_INT(chmod("store/data.mdb", 0640), 0);
    if (geteuid() == 0)
        CHECK_INT(chown("store/data.mdb", 0, 54321), 0);
    was = look("store/data.mdb");
    CHECK_INT(chmod("copy/data.mdb", 0444), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(restore(i ? "copy/data.mdb" : "copy", "store"), MJ_OK);
        CHECK_INT(restored.checked.tasks, 3);
        snprintf(kept, sizeof kept, "store/%s", restored.kept);
        CHECK(i == 1 || look(kept).st_ino == was.st_ino);
        CHECK_INT(look("store/data.mdb").st_mode & 07777, 0640);
        CHECK_INT(look("store/data.mdb").st_gid, was.st_gid);
        CHECK_INT(tasks_of("store"), 3);
        no_litter("store");
    }
    CHECK_INT(rename(kept, "again"), 0);
    CHECK_INT(restore("again", "elsewhere"), MJ_OK); /* a place that is not there yet */
    CHECK_STR(restored.kept, "");
    CHECK_INT(look("elsewhere/data.mdb").st_mode & 07777, 0600);
    CHECK_INT(tasks_of("elsewhere"), 3);
}

TEST("a restore is refused while any process has the store open, and the process is named")
{
    int ready[2], tell[2], status;
    char c, word[64];
    mj_store *s;
    pid_t pid;

    make_store("store", 2);
    CHECK_INT(back_up("store", "copy"), MJ_OK);
    make_store("store", 1);
    s = open_durable();
    expect(restore("copy", "store"), MJ_EBUSY, "this process");
    mj_store_close(s);
    CHECK(pipe(ready) == 0 && pipe(tell) == 0);
    pid = fork();
    if (pid == 0) { /* LMDB's own programs count, too */
        MDB_env *e;
        CHECK_INT(mdb_env_create(&e), 0);
        CHECK_INT(mdb_env_set_maxdbs(e, 30), 0);
        CHECK_INT(mdb_env_open(e, "store", MDB_RDONLY, 0600), 0);
        CHECK_INT(write(ready[1], "r", 1), 1);
        _exit(read(tell[0], &c, 1) != 1);
    }
    CHECK_INT(read(ready[0], &c, 1), 1);
    snprintf(word, sizeof word, "process %ld ", (long)pid);
    expect(restore("copy", "store"), MJ_EBUSY, word);
    no_litter("store");
    expect(restore("store", "other"), MJ_EBUSY, "mjhook backup"); /* nor is a store that is in use copied */
    CHECK_INT(write(tell[1], "e", 1), 1);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(tasks_of("store"), 3);
    CHECK_INT(restore("copy", "store"), MJ_OK);
    CHECK_INT(tasks_of("store"), 2);
}

TEST("what is damaged, empty, no store, or not there is not restored, and the store stays")
{
    uint8_t zero[8192] = {0};
    int fd;

    make_store("store", 5);
    make_store("big", 3000);
    CHECK_INT(back_up("big", "copy"), MJ_OK);
    CHECK_INT(system("cp copy/data.mdb whole; cp copy/data.mdb short; truncate -s -4096 short; cp whole torn"), 0);
    damage("torn");
    expect(restore("nowhere", "store"), MJ_ENOTFOUND, "nowhere");
    expect(restore("nowhere", "mistyped"), MJ_ENOTFOUND, "nowhere");
    CHECK(!exists("mistyped"));
    expect(restore("short", "store"), MJ_ECORRUPT, "broken off");
    expect(restore("torn", "store"), MJ_ECORRUPT, "torn can't be restored");
    CHECK_INT(truncate("short", 0), 0);
    expect(restore("short", "store"), MJ_EFORMAT, "holds nothing");
    fd = open("text", O_CREAT | O_WRONLY, 0600);
    CHECK_INT(write(fd, "no store", 8), 8);
    CHECK_INT(lseek(fd, 0, SEEK_SET), 0);
    expect(restore("text", "store"), MJ_EFORMAT, "no LMDB file");
    CHECK_INT(write(fd, zero, sizeof zero), (long)sizeof zero);
    close(fd);
    expect(restore("text", "store"), MJ_ECORRUPT, "damaged");
    expect(restore("/dev/null", "store"), MJ_EFORMAT, "regular");
    CHECK_INT(mkfifo("pipe", 0600), 0);
    expect(restore("pipe", "store"), MJ_EFORMAT, "regular");
    expect(restore("store", "store"), MJ_EINVAL, "itself");
    no_litter("store");
    CHECK_INT(tasks_of("store"), 5);
    /* And each kind of damage is mended by it. */
    for (int i = 0; i < 3; i++) {
        CHECK_INT(system(i == 0   ? "truncate -s 5000 store/data.mdb"
                         : i == 1 ? "printf garbage >store/data.mdb"
                                  : "rm store/data.mdb"),
                  0);
        CHECK_INT(restore("whole", "store"), MJ_OK);
        CHECK_INT(tasks_of("store"), 3000);
    }
}

static void set_schema(const char *dir, uint32_t schema)
{
    mj_store *s = open_durable_at(dir, &options);
    MDB_val name = mj_val("schema", 6), value;
    uint8_t bytes[4];
    MDB_txn *t;

    mj_be32(bytes, schema);
    value = mj_val(bytes, sizeof bytes);
    CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
    CHECK_INT(mdb_put(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_META), &name, &value, 0), 0);
    CHECK_INT(mdb_txn_commit(t), 0);
    mj_env_leave(lmdb_of(s)->env);
    mj_store_close(s);
}

TEST("a backup of an older schema is restored and brought to this one; one of a newer schema is refused")
{
    make_store("store", 5);
    make_store("old", 7);
    set_schema("old", MJ_STORE_SCHEMA - 1);
    CHECK_INT(restore("old", "store"), MJ_OK);
    CHECK_INT(tasks_of("store"), 7);
    make_store("new", 9);
    set_schema("new", MJ_STORE_SCHEMA + 1);
    expect(restore("new", "store"), MJ_ESCHEMA, "newer mjhook");
    CHECK_INT(tasks_of("store"), 7);
    no_litter("store");
}

TEST("records and indexes that disagree are restored only by force")
{
    mj_store *s;
    MDB_txn *t;

    make_store("store", 5);
    make_store("odd", 3);
    s = open_durable_at("odd", &options);
    CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
    CHECK_INT(mdb_drop(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_STATE), 0), 0);
    CHECK_INT(mdb_txn_commit(t), 0);
    mj_env_leave(lmdb_of(s)->env);
    mj_store_close(s);
    expect(restore("odd", "store"), MJ_ECORRUPT, "is missing in index state");
    CHECK_INT(tasks_of("store"), 5);
    CHECK_INT(mj_store_restore("odd", "store", &options, true, &restored, why, sizeof why), MJ_OK);
    CHECK(restored.checked.found > 0);
    s = open_durable();
    CHECK_INT(stats(s).states[MJ_QUEUED], 3);
    mj_store_close(s);
}

TEST("a restore by force counts the jobs that are queued, whatever the counters say")
{
    mj_account account = {.name = MJ_LIT("a"), .max_in_flight = 1};
    mj_store_options o = options;
    MDB_val counters = mj_val("counters", 8);
    mj_store *s;
    MDB_txn *t;

    make_store("odd", 3);
    s = open_durable_at("odd", &options);
    CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
    CHECK_INT(mdb_del(t, mj_env_dbi(lmdb_of(s)->env, MJ_IX_META), &counters, NULL), 0);
    CHECK_INT(mdb_txn_commit(t), 0);
    mj_env_leave(lmdb_of(s)->env);
    mj_store_close(s);
    o.accounts = &account;
    o.naccounts = 1;
    CHECK_INT(mj_store_restore("odd", "store", &o, true, &restored, why, sizeof why), MJ_OK);
    s = open_durable();
    CHECK_INT(stats(s).naccounts, 1);
    CHECK_STR(stats(s).accounts[0].reason, MJ_BY_HAND);
    mj_store_close(s);
}

TEST("processes that open the store while it is restored wait, and see the restored one")
{
    enum { AT_ONCE = 6 };
    pid_t pid[AT_ONCE];
    int status;

    make_store("store", 4);
    make_store("copy", 900);
    for (int round = 0; round < 5; round++) {
        int go[2];
        char c;
        CHECK_INT(pipe(go), 0);
        for (int i = 0; i < AT_ONCE; i++)
            if ((pid[i] = fork()) == 0) {
                mj_store *s;
                close(go[1]);
                CHECK_INT(read(go[0], &c, 1), 0);
                for (int n = 0; n < 10; n++) {
                    unsigned tasks;
                    s = open_durable();
                    tasks = (unsigned)stats(s).states[MJ_QUEUED];
                    CHECK(tasks == 4 || tasks == 900);
                    mj_store_close(s);
                }
                _exit(0);
            }
        close(go[0]);
        close(go[1]);
        int rc = restore("copy", "store");
        CHECK(rc == MJ_OK || rc == MJ_EBUSY);
        for (int i = 0; i < AT_ONCE; i++) {
            CHECK_INT(waitpid(pid[i], &status, 0), pid[i]);
            CHECK_INT(status, 0);
        }
    }
    CHECK_INT(restore("copy", "store"), MJ_OK);
    CHECK_INT(tasks_of("store"), 900);
}

TEST("what is planted in the way of a restore is removed and not followed")
{
    make_store("store", 4);
    make_store("copy", 2);
    CHECK_INT(symlink(".", "store/restore.tmp"), 0);
    CHECK_INT(restore("copy", "store"), MJ_OK);
    CHECK_INT(tasks_of("store"), 2);
    CHECK_INT(mkdir("store/restore.tmp", 0700), 0); /* as a process that died leaves it */
    CHECK_INT(system("cp copy/data.mdb store/restore.tmp; touch store/restore.tmp/lock.mdb"), 0);
    CHECK_INT(tasks_of("store"), 2);
    CHECK_INT(restore("copy", "store"), MJ_OK);
    no_litter("store");
}
