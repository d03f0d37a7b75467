/* Opening: whose store it is, what is no store, newer ones. */
#include "store_check.h"

#include <grp.h>

enum { OTHER = 65534, GROUP = 54321 };

static int try_open(const char *dir, mode_t mode, char why[512])
{
    mj_store_options o = {.rules = mj_rules_default, .mode = mode};
    mj_store *s;
    int rc = mj_store_open(dir, &o, &s, why, 512);

    CHECK((rc == MJ_OK) == (s != NULL));
    if (rc == MJ_OK) {
        CHECK_INT(create(s, (job){0}, T0), MJ_OK);
        check_store(s);
        mj_store_close(s);
    }
    return rc;
}

/* What try_open() says to another user; why[] comes back through a pipe. */
static int try_as(uid_t uid, gid_t gid, const char *dir, mode_t mode, char why[512])
{
    int fds[2], status;
    pid_t pid;

    CHECK_INT(pipe(fds), 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        int rc;
        memset(why, 0, 512);
        if (setgroups(gid == OTHER ? 0 : 1, &gid) != 0 || setgid(OTHER) != 0 || setuid(uid) != 0)
            _exit(99);
        umask(077);
        rc = try_open(dir, mode, why);
        if (write(fds[1], why, 512) != 512)
            _exit(98);
        _exit(-rc);
    }
    CHECK_INT(read(fds[0], why, 512), 512);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    close(fds[0]);
    close(fds[1]);
    return -WEXITSTATUS(status);
}

static void need_root(void)
{
    if (geteuid() != 0)
        SKIP("needs root, to be two users");
    CHECK_INT(chmod(".", 0755), 0);
}

static struct stat look(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0)
        MJ_TEST_FAIL("%s: %s", path, strerror(errno));
    return st;
}

static void spit(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "w");

    CHECK(f != NULL);
    CHECK_INT(fwrite(bytes, 1, n, f), n);
    CHECK_INT(fclose(f), 0);
}

static size_t slurp(const char *path, uint8_t *bytes, size_t max)
{
    FILE *f = fopen(path, "r");
    size_t n;

    CHECK(f != NULL);
    n = fread(bytes, 1, max, f);
    fclose(f);
    return n;
}

/* Runs f in a process of its own: LMDB files are opened once per process. */
static void elsewhere(void (*f)(void))
{
    int status;
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        f();
        _exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- owners and modes ---- */

TEST("a new store belongs to its maker alone")
{
    umask(0);
    mj_store_close(open_store());
    CHECK_INT(look("store").st_mode & 07777, 0700);
    CHECK_INT(look("store/data.mdb").st_mode & 07777, 0600);
    CHECK_INT(look("store/lock.mdb").st_mode & 07777, 0600);
}

TEST("another user is turned away with the owner's name, before a file is touched")
{
    char why[512];
    struct stat before[3], after[3];
    const char *const paths[] = {"store", "store/data.mdb", "store/lock.mdb"};

    need_root();
    mj_store_close(open_store());
    CHECK_INT(chmod("store", 0777), 0); /* he could, if he tried */
    for (int i = 0; i < 3; i++) {
        CHECK_INT(i == 0 ? 0 : chmod(paths[i], 0666), 0);
        before[i] = look(paths[i]);
    }
    CHECK_INT(try_as(OTHER, OTHER, "store", 0600, why), MJ_EOWNER);
    CHECK(strstr(why, "root") != NULL && strstr(why, "65534") != NULL);
    for (int i = 0; i < 3; i++) {
        after[i] = look(paths[i]);
        CHECK_MEM(&after[i], &before[i], sizeof after[i]);
    }
    CHECK_INT(mkdir("empty", 0777), 0);
    CHECK_INT(chmod("empty", 0777), 0);
    CHECK_INT(try_as(OTHER, OTHER, "empty", 0600, why), MJ_EOWNER);
    CHECK(access("empty/data.mdb", F_OK) != 0 && access("empty/lock.mdb", F_OK) != 0);
}

TEST("root is another user, too")
{
    char why[512];

    need_root();
    CHECK_INT(mkdir("theirs", 0755), 0);
    CHECK_INT(chown("theirs", OTHER, OTHER), 0);
    CHECK_INT(try_open("theirs", 0600, why), MJ_EOWNER);
    CHECK(strstr(why, "65534") != NULL);
    CHECK(access("theirs/lock.mdb", F_OK) != 0);
    CHECK_INT(try_as(OTHER, OTHER, "theirs", 0600, why), MJ_OK);
    CHECK_INT(try_open("theirs", 0600, why), MJ_EOWNER);
    CHECK_INT(chown("theirs", 0, 0), 0); /* his file in our directory */
    CHECK_INT(try_open("theirs", 0600, why), MJ_EOWNER);
    CHECK(strstr(why, "data.mdb") != NULL);
}

TEST("with 0660 a group shares the store, whatever the umask; other users don't")
{
    char why[512];

    need_root();
    umask(077);
    CHECK_INT(mkdir("shared", 0700), 0);
    CHECK_INT(chown("shared", 0, GROUP), 0);
    CHECK_INT(chmod("shared", 02770), 0);
    CHECK_INT(try_open("shared", 0660, why), MJ_OK);
    CHECK_INT(look("shared/data.mdb").st_mode & 07777, 0660);
    CHECK_INT(look("shared/lock.mdb").st_mode & 07777, 0660);
    CHECK_INT(look("shared/data.mdb").st_gid, GROUP);
    CHECK_INT(try_as(OTHER, GROUP, "shared", 0660, why), MJ_OK);
    CHECK_INT(try_as(OTHER, GROUP, "shared", 0600, why), MJ_EOWNER);
    CHECK_INT(chmod("shared", 0777), 0); /* for all, and not setgid */
    CHECK_INT(try_as(OTHER, OTHER, "shared", 0660, why), MJ_EOWNER);
    CHECK_INT(try_as(OTHER, GROUP, "shared", 0660, why), MJ_EOWNER);
    CHECK_INT(try_open("shared", 0660, why), MJ_EOWNER); /* nor its owner, since others may plant files there */
    CHECK(strstr(why, "chmod o-w") != NULL);
    CHECK_INT(chmod("shared", 02770), 0);
    CHECK_INT(try_open("shared", 0660, why), MJ_OK);
}

TEST("a directory that can't be made or written is said to be so")
{
    char why[512];

    CHECK_INT(try_open("no/such/parent", 0600, why), MJ_EREADONLY);
    CHECK(strstr(why, "no/such/parent") != NULL);
    spit("file", "x", 1);
    CHECK_INT(try_open("file", 0600, why), MJ_EFORMAT);
    need_root();
    CHECK_INT(mkdir("dir", 0500), 0);
    CHECK_INT(chown("dir", OTHER, OTHER), 0);
    CHECK_INT(try_as(OTHER, OTHER, "dir", 0600, why), MJ_EREADONLY);
    CHECK(strstr(why, "dir") != NULL);
}

/* ---- what is no store, or a newer one ---- */

TEST("a file that is not LMDB is refused and left as it is")
{
    static uint8_t bytes[20000], after[20001];
    char why[512];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    CHECK_INT(mkdir("store", 0700), 0);
    spit("store/data.mdb", bytes, sizeof bytes);
    CHECK_INT(try_open("store", 0600, why), MJ_EFORMAT);
    CHECK(strstr(why, "LMDB") != NULL);
    CHECK_INT(slurp("store/data.mdb", after, sizeof after), sizeof bytes);
    CHECK_MEM(after, bytes, sizeof bytes);
    spit("store/data.mdb", "short", 5);
    CHECK_INT(try_open("store", 0600, why), MJ_EFORMAT);
}

static void with_lmdb(const char *db, const char *name, const void *value, size_t n)
{
    MDB_env *e;
    MDB_txn *t;
    MDB_dbi d;
    MDB_val k = {strlen(name), (void *)(uintptr_t)name}, v = {n, (void *)(uintptr_t)value};

    CHECK(mkdir("store", 0700) == 0 || errno == EEXIST);
    CHECK_INT(mdb_env_create(&e), 0);
    CHECK_INT(mdb_env_set_maxdbs(e, 20), 0);
    CHECK_INT(mdb_env_open(e, "store", 0, 0600), 0);
    CHECK_INT(mdb_txn_begin(e, NULL, 0, &t), 0);
    CHECK_INT(mdb_dbi_open(t, db, MDB_CREATE, &d), 0);
    CHECK_INT(mdb_put(t, d, &k, &v, 0), 0);
    CHECK_INT(mdb_txn_commit(t), 0);
    mdb_env_close(e);
}

static void somebody_elses(void)
{
    with_lmdb("users", "alice", "1", 1);
}

static void almost_ours(void)
{
    with_lmdb("meta", "hello", "1", 1);
}

static void plain_key(void)
{
    with_lmdb(NULL, "meta", "1", 1); /* a key where we would look for a database */
}

static void newer(void)
{
    static const char schema[4] = {0, 0, 0, MJ_STORE_SCHEMA + 1};

    with_lmdb("meta", "schema", schema, sizeof schema);
}

static void refused_unchanged(void (*made)(void), int code, const char *word)
{
    static uint8_t before[1 << 20], after[1 << 20];
    char why[512];
    size_t n;

    elsewhere(made);
    n = slurp("store/data.mdb", before, sizeof before);
    CHECK_INT(try_open("store", 0600, why), code);
    if (!strstr(why, word))
        MJ_TEST_FAIL("%s", why);
    CHECK_INT(slurp("store/data.mdb", after, sizeof after), n);
    CHECK_MEM(after, before, n);
}

TEST("another program's LMDB file is refused and unchanged, byte for byte")
{
    refused_unchanged(somebody_elses, MJ_EFORMAT, "no mjhook store");
}

TEST("an LMDB file with a database like ours, or a key in its place, is refused and unchanged")
{
    refused_unchanged(almost_ours, MJ_EFORMAT, "no mjhook store");
    CHECK_INT(remove("store/data.mdb"), 0);
    refused_unchanged(plain_key, MJ_EFORMAT, "no mjhook store");
}

static void ours(void)
{
    mj_store *s = open_store();
    add(s, (job){0}, T0);
    mj_store_close(s);
}

TEST("a store of a newer schema is refused and unchanged, also when it has other databases")
{
    refused_unchanged(newer, MJ_ESCHEMA, "newer");
    CHECK_INT(remove("store/data.mdb"), 0);
    elsewhere(ours);
    refused_unchanged(newer, MJ_ESCHEMA, "newer");
}

TEST("a store that is upgraded while it is open is written no more")
{
    mj_store *s = open_store();
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S};
    mj_op op = {.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};

    CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_OK);
    elsewhere(newer);
    CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_ESCHEMA);
    CHECK_INT(op.code, MJ_ESCHEMA);
    CHECK_INT(stats(s).states[MJ_QUEUED], 1);
    mj_store_close(s);
}

TEST("an empty data file, as a crash while it was made leaves it, becomes a store")
{
    char why[512];

    CHECK_INT(mkdir("store", 0700), 0);
    spit("store/data.mdb", "", 0);
    CHECK_INT(try_open("store", 0600, why), MJ_OK);
}
