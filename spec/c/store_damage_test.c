/* Stores whose file was broken off, overwritten, or replaced while a process has it open. */
#include "store_check.h"

#include <sys/wait.h>

static const off_t PAGE = 4096;

static int try_open(const char *dir, mj_store **s, char why[512])
{
    mj_store_options o = {.rules = mj_rules_default};
    int rc = mj_store_open(dir, &o, s, why, 512);

    CHECK((rc == MJ_OK) == (*s != NULL));
    return rc;
}

/* A process that has the store open until it is told to end: see let_go(). */
typedef struct holder {
    pid_t pid;
    int tell;
} holder;

static holder hold_store(const char *dir)
{
    int ready[2], tell[2];
    char c;
    holder h;

    CHECK(pipe(ready) == 0 && pipe(tell) == 0);
    h.pid = fork();
    CHECK(h.pid >= 0);
    if (h.pid == 0) {
        char why[512];
        mj_store *s;
        close(tell[1]);
        if (try_open(dir, &s, why) != MJ_OK || write(ready[1], "r", 1) != 1)
            _exit(1);
        while (read(tell[0], &c, 1) < 0)
            ;
        mj_store_close(s);
        _exit(0);
    }
    close(tell[0]);
    close(ready[1]);
    h.tell = tell[1];
    CHECK_INT(read(ready[0], &c, 1), 1);
    close(ready[0]);
    return h;
}

static void let_go(holder h)
{
    int status;

    close(h.tell);
    CHECK_INT(waitpid(h.pid, &status, 0), h.pid);
    CHECK_INT(status, 0);
}

static void make_store(int tasks)
{
    mj_store *s = open_store();

    for (int i = 0; i < tasks; i++)
        add(s, (job){0}, T0 + i);
    mj_store_close(s);
}

static unsigned tasks_of(const char *dir)
{
    char why[512];
    unsigned n;
    mj_store *s;

    if (try_open(dir, &s, why) != MJ_OK)
        MJ_TEST_FAIL("%s", why);
    check_store(s);
    n = (unsigned)stats(s).states[MJ_QUEUED];
    mj_store_close(s);
    return n;
}

static off_t size_of(const char *path)
{
    struct stat st;

    CHECK_INT(stat(path, &st), 0);
    return st.st_size;
}

/* ---- a file that took the place of another ---- */

static void renamed_over(int tasks)
{
    char why[512], word[64];
    mj_store *s;
    holder h;

    make_store(tasks);
    s = open_durable();
    CHECK_INT(mj_store_backup(s, "copy"), MJ_OK);
    mj_store_close(s);
    h = hold_store("store");
    CHECK_INT(rename("copy/data.mdb", "store/data.mdb"), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(try_open("store", &s, why), MJ_EBUSY);
        snprintf(word, sizeof word, "stop them all");
        CHECK(strstr(why, word) != NULL);
    }
    let_go(h);
    CHECK_INT(tasks_of("store"), tasks);
    CHECK_INT(mj_test_remove("store/data.mdb", NULL, 0, NULL), 0);
    CHECK(remove("store/lock.mdb") == 0 && remove("store") == 0 && remove("copy") == 0);
}

TEST("a backup renamed into a store that a process has open is refused, and no task of it is lost")
{
    for (int tasks = 1; tasks <= 6; tasks++)
        renamed_over(tasks);
}

TEST("a file that is overwritten in place while a process has it open is written by none")
{
    mj_store *s;
    char why[512];

    make_store(4);
    s = open_durable();
    CHECK_INT(mj_store_backup(s, "copy"), MJ_OK);
    CHECK_INT(system("cat copy/data.mdb >store/data.mdb"), 0);
    CHECK(mj_store_write(s, &(mj_op){.kind = MJ_OP_TICK, .limit = 1}, 1, T0) != MJ_OK);
    CHECK(strlen(mj_store_detail(s)) > 0);
    mj_store_close(s);
    CHECK_INT(try_open("store", &s, why), MJ_OK);
    CHECK_INT(stats(s).states[MJ_QUEUED], 4);
    mj_store_close(s);
}

TEST("a process that has the former file open opens no second one under the same lock")
{
    mj_store *s, *other;
    char why[512];

    make_store(2);
    s = open_durable();
    CHECK_INT(mj_store_backup(s, "copy"), MJ_OK);
    CHECK_INT(rename("copy/data.mdb", "store/data.mdb"), 0);
    CHECK_INT(try_open("store", &other, why), MJ_EBUSY);
    mj_store_close(s);
    CHECK_INT(tasks_of("store"), 2);
}

TEST("nothing is made in a file whose tree of names is gone")
{
    static uint8_t before[1 << 20], after[1 << 20];
    char why[512];
    mj_store *s;
    FILE *f;
    size_t n;

    make_store(3);
    /* Both roots say that nothing is there, as they do of an environment into which nothing was put yet. */
    f = fopen("store/data.mdb", "r+");
    CHECK(f != NULL);
    for (int i = 0; i < 2; i++) {
        uint8_t none[16] = {0}; /* no entries, no page */
        memset(none + 8, 0xff, 8);
        CHECK_INT(fseek(f, i * PAGE + 16 + 24 + 48 + 32, SEEK_SET), 0);
        CHECK_INT(fwrite(none, sizeof none, 1, f), 1);
    }
    CHECK_INT(fclose(f), 0);
    f = fopen("store/data.mdb", "r");
    n = fread(before, 1, sizeof before, f);
    fclose(f);
    CHECK(try_open("store", &s, why) != MJ_OK);
    f = fopen("store/data.mdb", "r");
    CHECK_INT(fread(after, 1, sizeof after, f), n);
    fclose(f);
    CHECK_MEM(after, before, n);
}

TEST("nothing is made in a file that has pages, though its roots are those of a new one")
{
    char why[512];
    MDB_env *e;
    mj_store *s;

    make_store(3);
    CHECK_INT(mkdir("new", 0700), 0);
    CHECK_INT(mdb_env_create(&e), 0);
    CHECK_INT(mdb_env_open(e, "new", 0, 0600), 0);
    mdb_env_close(e);
    CHECK_INT(
        system("dd if=new/data.mdb of=store/data.mdb bs=4096 count=2 conv=notrunc 2>dd; cp store/data.mdb before"), 0);
    CHECK_INT(try_open("store", &s, why), MJ_ECORRUPT);
    CHECK(strstr(why, "mjhook restore") != NULL);
    CHECK_INT(system("cmp before store/data.mdb"), 0);
}

/* ---- a file that was broken off ---- */

TEST("a store that was broken off anywhere is called corrupt, and the way out is said")
{
    char why[512];
    mj_store *s;
    off_t whole;
    int refused = 0;

    make_store(200);
    whole = size_of("store/data.mdb");
    CHECK(whole > 20 * PAGE);
    for (off_t n = whole - 1; n > 0; n -= n > 4 * PAGE ? 3 * PAGE + 1 : 511) {
        int rc;
        CHECK_INT(system("cp store/data.mdb whole"), 0);
        CHECK_INT(truncate("store/data.mdb", n), 0);
        rc = try_open("store", &s, why);
        if (rc == MJ_OK) { /* free pages at the end may be missing */
            CHECK_INT(stats(s).states[MJ_QUEUED], 200);
            check_store(s);
            mj_store_close(s);
        } else {
            if (rc != MJ_ECORRUPT || !strstr(why, "mjhook restore"))
                MJ_TEST_FAIL("%ld bytes: %s: %s", (long)n, mj_error_name(rc), why);
            refused++;
        }
        CHECK_INT(rename("whole", "store/data.mdb"), 0);
    }
    CHECK(refused > 10);
    CHECK_INT(tasks_of("store"), 200);
}

TEST("a store that is broken off while it is open is neither read nor written, and no process dies")
{
    char why[512];
    mj_buf b = {0};
    mj_store *s, *other;
    ref r;

    make_store(200);
    s = open_durable();
    r = add(s, (job){0}, T0 + 500);
    CHECK_INT(mj_store_get(s, r.id, &b), MJ_OK);
    CHECK_INT(truncate("store/data.mdb", 5 * PAGE), 0);
    CHECK_INT(mj_store_get(s, r.id, &b), MJ_ECORRUPT);
    CHECK(strstr(mj_store_detail(s), "mjhook restore") != NULL);
    CHECK_INT(mj_store_stats(s, &(mj_stats){0}), MJ_ECORRUPT);
    CHECK_INT(mj_store_write(s, &(mj_op){.kind = MJ_OP_TICK, .limit = 1}, 1, T0 + 600), MJ_ECORRUPT);
    CHECK_INT(mj_store_backup(s, "copy"), MJ_ECORRUPT);
    CHECK(access("copy/data.mdb", F_OK) != 0);
    CHECK_INT(truncate("store/data.mdb", 0), 0);
    CHECK_INT(mj_store_get(s, r.id, &b), MJ_ECORRUPT);
    CHECK_INT(try_open("store", &other, why), MJ_OK); /* the same environment */
    CHECK_INT(mj_store_get(other, r.id, &b), MJ_ECORRUPT);
    mj_store_close(other);
    mj_store_close(s);
    mj_buf_free(&b);
}

/* ---- other damage ---- */

static void scribble(off_t at, const void *bytes, size_t n)
{
    int fd = open("store/data.mdb", O_WRONLY);

    CHECK(fd >= 0);
    CHECK_INT(pwrite(fd, bytes, n, at), (long)n);
    close(fd);
}

static void refused_as(int code, const char *word)
{
    char why[512];
    mj_store *s;
    int rc = try_open("store", &s, why);

    if (rc != code || !strstr(why, word))
        MJ_TEST_FAIL("%s: %s", mj_error_name(rc), why);
}

TEST("roots of garbage are called corrupt")
{
    static uint8_t garbage[4096];

    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (uint8_t)(i * 13 + 7);
    make_store(50);
    CHECK_INT(system("cp store/data.mdb whole"), 0);
    for (int which = 1; which <= 3; which++) {
        if (which & 1)
            scribble(0, garbage, sizeof garbage);
        if (which & 2)
            scribble(PAGE, garbage, sizeof garbage);
        refused_as(MJ_ECORRUPT, "mjhook restore");
        CHECK_INT(system("cp whole store/data.mdb"), 0);
    }
    CHECK_INT(tasks_of("store"), 50);
}

TEST("a root that points beyond the file is called corrupt")
{
    static const int fields[] = {16 + 8 + 8, /* size of the map */ 16 + 24 + 40, /* free pages */
                                 16 + 24 + 48 + 40, /* names */ 16 + 24 + 96 /* last page */};
    static const uint8_t far[8] = {0, 0, 0, 0, 0, 0, 1};

    make_store(50);
    CHECK_INT(system("cp store/data.mdb whole"), 0);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        scribble(fields[i], far, sizeof far);
        scribble(PAGE + fields[i], far, sizeof far);
        refused_as(MJ_ECORRUPT, "damaged");
        CHECK_INT(system("cp whole store/data.mdb"), 0);
    }
    CHECK_INT(tasks_of("store"), 50);
}

TEST("a file of zeros is a damaged store, and none is made in its place: keys of jobs may have been in it")
{
    off_t sizes[] = {1, 2, 10, 100, PAGE, 2 * PAGE, 3 * PAGE};

    make_store(3);
    CHECK_INT(system("cp store/data.mdb whole"), 0);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i] > 10) /* the first bytes of a store are zeros */
            CHECK_INT(truncate("store/data.mdb", 0), 0);
        CHECK_INT(truncate("store/data.mdb", sizes[i]), 0);
        refused_as(MJ_ECORRUPT, "mjhook restore");
        CHECK_INT(size_of("store/data.mdb"), sizes[i]);
        CHECK_INT(system("cp whole store/data.mdb"), 0);
    }
    CHECK_INT(tasks_of("store"), 3);
}

TEST("what is left of a store that was never made becomes a store")
{
    MDB_env *e;

    CHECK_INT(mkdir("store", 0700), 0);
    close(open("store/data.mdb", O_CREAT | O_WRONLY, 0600));
    CHECK_INT(tasks_of("store"), 0);
    /* One page: the root that LMDB writes first. */
    CHECK_INT(remove("store/data.mdb"), 0);
    CHECK_INT(mdb_env_create(&e), 0);
    CHECK_INT(mdb_env_open(e, "store", 0, 0600), 0);
    mdb_env_close(e);
    CHECK_INT(truncate("store/data.mdb", PAGE), 0);
    CHECK_INT(tasks_of("store"), 0);
    make_store(3);
    CHECK_INT(tasks_of("store"), 3);
}

TEST("a file that ends before free pages is whole")
{
    char why[512];
    mj_store *s;
    off_t whole;

    make_store(1);
    s = open_durable();
    for (int i = 0; i < 300; i++)
        add(s, (job){0}, T0 + i);
    /* Its tasks go, so that pages become free; those at the end among them, sooner or later. */
    for (int i = 0; i < 400; i++) {
        mj_op ops[2] = {{.kind = MJ_OP_PRUNE, .limit = 50, .until = T0 + 1000000, .sig = {.expect_state = MJ_QUEUED}},
                        {.kind = MJ_OP_TICK, .limit = 1}};
        CHECK_INT(mj_store_write(s, ops, 2, T0 + 2000000 + i), MJ_OK);
    }
    mj_store_close(s);
    whole = size_of("store/data.mdb");
    for (off_t n = whole; n >= whole / 2; n -= PAGE) {
        CHECK_INT(truncate("store/data.mdb", n), 0);
        if (try_open("store", &s, why) != MJ_OK)
            break;
        check_store(s);
        mj_store_close(s);
    }
}
