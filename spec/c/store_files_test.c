/* The files of a store: what others may have planted in their place, blocks on a full disk, processes of one id. */
#include "store_check.h"

#include <sched.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>

static int try_open(const char *dir, mode_t mode, char why[512])
{
    mj_store_options o = {.rules = mj_rules_default, .mode = mode};
    mj_store *s;
    int rc = mj_store_open(dir, &o, &s, why, 512);

    if (rc == MJ_OK) {
        CHECK_INT(create(s, (job){0}, T0), MJ_OK);
        check_store(s);
        mj_store_close(s);
    }
    return rc;
}

static struct stat look(const char *path)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        MJ_TEST_FAIL("%s: %s", path, strerror(errno));
    return st;
}

static void spit(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    CHECK(f != NULL);
    CHECK(fputs(text, f) >= 0);
    CHECK_INT(fclose(f), 0);
}

/* ---- what was planted ---- */

static const char *const names[] = {"store/data.mdb", "store/lock.mdb"};

static void refused(const char *name, const char *word)
{
    struct stat victim = look("victim"), after;
    char why[512], text[64] = "";
    FILE *f;

    CHECK_INT(try_open("store", 0600, why), MJ_EOWNER);
    if (!strstr(why, word) || !strstr(why, name))
        MJ_TEST_FAIL("%s", why);
    after = look("victim");
    CHECK_INT(after.st_mode, victim.st_mode);
    CHECK_INT(after.st_size, victim.st_size);
    f = fopen("victim", "r");
    CHECK(f && fgets(text, sizeof text, f));
    fclose(f);
    CHECK_STR(text, "precious");
    CHECK_INT(remove(name), 0);
}

TEST("links, pipes, sockets, devices and directories in the place of a file are refused and left as they are")
{
    umask(022);
    spit("victim", "precious");
    CHECK_INT(mkdir("store", 0700), 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct sockaddr_un at = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        CHECK_INT(symlink("../victim", names[i]), 0);
        refused(names[i], "symbolic link");
        CHECK_INT(symlink("../nowhere", names[i]), 0);
        refused(names[i], "symbolic link");
        CHECK(access("nowhere", F_OK) != 0);
        CHECK_INT(link("victim", names[i]), 0);
        refused(names[i], "hard links");
        CHECK_INT(mkfifo(names[i], 0600), 0);
        refused(names[i], "named pipe");
        CHECK_INT(mkdir(names[i], 0700), 0);
        refused(names[i], "directory");
        snprintf(at.sun_path, sizeof at.sun_path, "%s", names[i]);
        CHECK_INT(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
        refused(names[i], "socket");
        close(fd);
        if (geteuid() == 0 && mknod(names[i], S_IFCHR | 0600, makedev(1, 7)) == 0)
            refused(names[i], "device");
    }
    char why[512];
    CHECK_INT(try_open("store", 0600, why), MJ_OK);
}

TEST("a file of another user in one's own directory is refused by name")
{
    char why[512];

    if (geteuid() != 0)
        SKIP("needs root, to be two users");
    CHECK_INT(try_open("store", 0600, why), MJ_OK);
    CHECK_INT(chown("store/lock.mdb", 65534, 65534), 0);
    CHECK_INT(try_open("store", 0600, why), MJ_EOWNER);
    CHECK(strstr(why, "lock.mdb") != NULL && strstr(why, "65534") != NULL);
}

TEST("a directory that all users can write to is refused with a sentence, unless it is sticky")
{
    static const mode_t modes[] = {0777, 02777, 0702};
    char why[512];

    CHECK_INT(mkdir("store", 0700), 0);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        CHECK_INT(chmod("store", modes[i]), 0);
        CHECK_INT(try_open("store", 0600, why), MJ_EOWNER);
        CHECK(strstr(why, "chmod o-w store") != NULL);
        CHECK(access("store/lock.mdb", F_OK) != 0);
    }
    CHECK_INT(chmod("store", 01777), 0);
    CHECK_INT(try_open("store", 0600, why), MJ_OK);
    CHECK_INT(chmod("store", 0755), 0);
    CHECK_INT(try_open("store", 0600, why), MJ_OK);
}

TEST("a lock file has its mode whatever the umask, also when an earlier version made it")
{
    char why[512];
    int fd;

    umask(0777);
    CHECK_INT(mj_store_file(AT_FDCWD, "", "reconcile.lock", 0660, &fd, why, sizeof why), MJ_OK);
    close(fd);
    CHECK_INT(look("reconcile.lock").st_mode & 07777, 0660);
    CHECK_INT(chmod("reconcile.lock", 0600), 0);
    CHECK_INT(mj_store_file(AT_FDCWD, "", "reconcile.lock", 0660, &fd, why, sizeof why), MJ_OK);
    close(fd);
    CHECK_INT(look("reconcile.lock").st_mode & 07777, 0660);
    CHECK_INT(mkdir("store", 02770), 0);
    CHECK_INT(chmod("store", 02770), 0);
    CHECK_INT(try_open("store", 0660, why), MJ_OK);
    CHECK_INT(remove("store/lock.mdb"), 0); /* it is made anew, beside a data file that is there */
    CHECK_INT(try_open("store", 0660, why), MJ_OK);
    CHECK_INT(look("store/lock.mdb").st_mode & 07777, 0660);
    CHECK_INT(look("store/data.mdb").st_mode & 07777, 0660);
}

/* ---- blocks ---- */

TEST("every byte of the lock file has its block, also in one that an earlier version made")
{
    char why[512];
    struct stat st;

    CHECK_INT(try_open("store", 0600, why), MJ_OK);
    st = look("store/lock.mdb");
    CHECK(st.st_blocks * 512 >= st.st_size && st.st_size >= 1024 * 64);
    CHECK_INT(truncate("store/lock.mdb", 0), 0);
    CHECK_INT(truncate("store/lock.mdb", st.st_size), 0);
    CHECK_INT(look("store/lock.mdb").st_blocks, 0);
    CHECK_INT(try_open("store", 0600, why), MJ_OK);
    st = look("store/lock.mdb");
    CHECK(st.st_blocks * 512 >= st.st_size);
}

static void small_disk(const char *options)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, "") != 0 ||
        mkdir("disk", 0700) != 0 || mount("tmpfs", "disk", "tmpfs", 0, options) != 0)
        SKIP("a tmpfs can't be mounted here");
}

/* Takes all but so many bytes. */
static void fill(const char *path, long leave)
{
    static const char block[4096];
    int fd = open(path, O_CREAT | O_WRONLY | O_APPEND, 0600);

    CHECK(fd >= 0);
    while (write(fd, block, sizeof block) == (long)sizeof block)
        ;
    CHECK_INT(ftruncate(fd, lseek(fd, 0, SEEK_END) - leave), 0);
    close(fd);
}

TEST("a first start on a full disk, however full, says no_space and leaves nothing in the way of the next one")
{
    char why[512];
    int refused_some = 0, rc = MJ_ENOSPC;

    small_disk("size=1m,mode=700");
    for (long leave = 0; rc != MJ_OK; leave += 4096) {
        CHECK(leave < 400000);
        mj_store *s;
        fill("disk/ballast", leave);
        rc = mj_store_open("disk/store", &(mj_store_options){.rules = mj_rules_default}, &s, why, sizeof why);
        mj_store_close(s);
        if (rc != MJ_OK) {
            if (rc != MJ_ENOSPC)
                MJ_TEST_FAIL("%ld bytes: %s: %s", leave, mj_error_name(rc), why);
            refused_some++;
            CHECK_INT(truncate("disk/ballast", 4096), 0);
            CHECK_INT(try_open("disk/store", 0600, why), MJ_OK); /* there is room again: nothing has to be repaired */
        }
        CHECK_INT(system("rm -rf disk/store"), 0);
        CHECK_INT(truncate("disk/ballast", 0), 0);
    }
    CHECK(refused_some > 10);
}

TEST("a full disk is no danger to the 63rd reader, nor to a start with a lock file that was copied without its holes")
{
    enum { MANY = 200 };
    static char why[512];
    mj_store_options o = {.rules = mj_rules_default};
    static mj_store *s[MANY];
    mj_stats st;
    int fd;

    small_disk("size=1m,mode=700");
    CHECK_INT(try_open("disk/store", 0600, why), MJ_OK);
    fill("disk/ballast", 0);
    for (int i = 0; i < MANY; i++) {
        CHECK_INT(mj_store_open("disk/store", &o, &s[i], why, sizeof why), MJ_OK);
        CHECK_INT(mj_store_stats(s[i], &st), MJ_OK);
    }
    for (int i = 0; i < MANY; i++)
        mj_store_close(s[i]);
    CHECK_INT(truncate("disk/store/lock.mdb", 0), 0);
    fill("disk/ballast", 0); /* the room that it had */
    fd = open("disk/store/lock.mdb", O_WRONLY);
    CHECK_INT(ftruncate(fd, 65664), 0);
    close(fd);
    CHECK_INT(mj_store_open("disk/store", &o, &s[0], why, sizeof why), MJ_ENOSPC);
    CHECK(strstr(why, "lock.mdb") != NULL);
    CHECK_INT(remove("disk/ballast"), 0);
    CHECK_INT(try_open("disk/store", 0600, why), MJ_OK);
}

TEST("a process without descriptors is told so, and opens the store when it has some")
{
    char why[512];
    enum { FEW = 64 };
    struct rlimit limit;
    int fds[FEW], n = 0, rc = MJ_EIO;

    CHECK_INT(try_open("store", 0600, why), MJ_OK);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = FEW; /* valgrind lets the other one stay as it is only */
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (n < FEW && (fds[n] = open("/dev/null", O_RDONLY)) >= 0)
        n++;
    for (; n > 0 && rc != MJ_OK; n--) { /* whichever of those that it needs is the one too many */
        rc = try_open("store", 0600, why);
        if (rc != MJ_OK && (rc != MJ_EIO || !strstr(why, "oo many open files")))
            MJ_TEST_FAIL("%d free: %s: %s", n, mj_error_name(rc), why);
        close(fds[n - 1]);
    }
    CHECK_INT(rc, MJ_OK);
}

/* ---- a new store ---- */

static int refuse_alone; /* times that a lock for one process alone is refused, as if another had one at that moment */

/* liblmdb finds it before the C library's. */
#pragma GCC visibility push(default)

int fcntl(int fd, int cmd, ...)
{
    va_list args;
    void *arg;

    va_start(args, cmd);
    arg = va_arg(args, void *);
    va_end(args);
    if (cmd == F_SETLK && ((struct flock *)arg)->l_type == F_WRLCK && refuse_alone > 0) {
        refuse_alone--;
        errno = EAGAIN;
        return -1;
    }
    return (int)syscall(SYS_fcntl, fd, cmd, arg);
}

#pragma GCC visibility pop

TEST("a store whose lock file another process makes at this moment is opened")
{
    static const char blank[64];
    char why[512];
    int fd;

    CHECK_INT(try_open("store", 0600, why), MJ_OK);
    fd = open("store/lock.mdb", O_WRONLY);
    CHECK_INT(write(fd, blank, sizeof blank), (long)sizeof blank);
    close(fd);
    /* LMDB then waits until it may share the file, and takes for granted that the other one has written into it. */
    refuse_alone = 2;
    if (try_open("store", 0600, why) != MJ_OK)
        MJ_TEST_FAIL("%s", why);
    CHECK_INT(refuse_alone, 0);
}

TEST("processes that make one store at the same time make one")
{
    enum { AT_ONCE = 8 };
    pid_t pid[AT_ONCE];
    int status;

    for (int round = 0; round < 5; round++) {
        mj_store *s;
        for (int i = 0; i < AT_ONCE; i++)
            if ((pid[i] = fork()) == 0) {
                s = open_durable();
                CHECK_INT(create(s, (job){0}, T0), MJ_OK);
                mj_store_close(s);
                _exit(0);
            }
        for (int i = 0; i < AT_ONCE; i++) {
            CHECK_INT(waitpid(pid[i], &status, 0), pid[i]);
            CHECK_INT(status, 0);
        }
        s = open_durable();
        CHECK_INT(stats(s).states[MJ_QUEUED], AT_ONCE);
        mj_store_close(s);
        CHECK(access("store/data.mdb.new", F_OK) != 0);
        CHECK_INT(system("rm -rf store"), 0);
    }
}

TEST("a store that was half made when its maker died is made")
{
    char why[512];

    CHECK_INT(mkdir("store", 0700), 0);
    spit("store/data.mdb.new", "half");
    CHECK_INT(try_open("store", 0600, why), MJ_OK);
    CHECK(access("store/data.mdb.new", F_OK) != 0);
}

/* ---- containers ---- */

/* Runs f as process number 1 of a PID namespace of its own.  Its maker is a process that does nothing else: unshare()
 * is for a process' children, and a leak checker is none in a foreign namespace. */
static pid_t first_process(void (*f)(int, int), int in, int out)
{
    pid_t maker = fork(), pid;
    int status;

    CHECK(maker >= 0);
    if (maker > 0)
        return maker;
    if (unshare(CLONE_NEWPID) != 0)
        _exit(MJ_TEST_SKIPPED);
    pid = fork();
    if (pid == 0) {
        CHECK_INT(getpid(), 1);
        f(in, out);
        _exit(0);
    }
    _exit(waitpid(pid, &status, 0) != pid || status != 0);
}

static void hold(int in, int out)
{
    char c;
    mj_store *s = open_durable();

    (void)stats(s);
    CHECK_INT(write(out, "r", 1), 1);
    CHECK_INT(read(in, &c, 1), 1);
    mj_store_close(s);
}

static void ask(int in, int out)
{
    char why[512] = "";
    int rc = try_open("store", 0600, why);

    (void)in;
    CHECK_INT(write(out, &rc, sizeof rc), (long)sizeof rc);
    CHECK_INT(write(out, why, sizeof why), (long)sizeof why);
}

TEST("two containers whose processes have one id: the second is told so, and what to do")
{
    int in[2], out[2], said[2], status, rc;
    char c, why[512];
    pid_t first, second;

    CHECK(pipe(in) == 0 && pipe(out) == 0 && pipe(said) == 0);
    first = first_process(hold, in[0], out[1]);
    close(out[1]);
    if (read(out[0], &c, 1) != 1) {
        CHECK_INT(waitpid(first, &status, 0), first);
        if (WIFEXITED(status) && WEXITSTATUS(status) == MJ_TEST_SKIPPED)
            SKIP("no PID namespaces here");
        MJ_TEST_FAIL("the first container ended with %d", status);
    }
    second = first_process(ask, 0, said[1]);
    CHECK_INT(read(said[0], &rc, sizeof rc), (long)sizeof rc);
    CHECK_INT(read(said[0], why, sizeof why), (long)sizeof why);
    CHECK_INT(waitpid(second, &status, 0), second);
    CHECK_INT(status, 0);
    CHECK_INT(rc, MJ_EBUSY);
    if (!strstr(why, "process id 1 ") || !strstr(why, "PID namespace"))
        MJ_TEST_FAIL("%s", why);
    CHECK_INT(write(in[1], "e", 1), 1);
    CHECK_INT(waitpid(first, &status, 0), first);
    CHECK_INT(status, 0);
}
