/* mj_owner: who is sending, and whether that very process still runs. */
#include "base/error.h"
#include "mj_test.h"
#include "os/owner.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>

static mj_owner self(void)
{
    mj_owner o;

    CHECK_INT(mj_owner_self(&o), MJ_OK);
    return o;
}

/* A child that says who it is, calls `then` (if any), and goes on until it is killed. */
static pid_t child(mj_owner *o, void (*then)(void))
{
    int fds[2];
    pid_t pid;

    CHECK_INT(pipe(fds), 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (mj_owner_self(o) != MJ_OK || write(fds[1], o, sizeof *o) != (ssize_t)sizeof *o)
            _exit(1);
        if (then)
            then();
        for (;;)
            pause();
    }
    close(fds[1]);
    CHECK_INT(read(fds[0], o, sizeof *o), sizeof *o);
    close(fds[0]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

TEST("this process is itself, alive, and says so twice alike")
{
    static const uint8_t none[16];
    mj_owner a = self(), b = self();

    CHECK_INT(a.pid, getpid());
    CHECK(a.started > 0);
    CHECK(a.pidns > 0);
    CHECK(memcmp(a.boot, none, 16) != 0);
    CHECK(memcmp(a.boot, b.boot, 16) == 0 && a.started == b.started && a.pidns == b.pidns);
    CHECK_INT(mj_owner_look(&a), MJ_OWNER_ALIVE);
}

TEST("the boot id is the kernel's")
{
    mj_owner o = self();
    char text[64] = "", mine[64] = "", *p = mine;
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");

    CHECK(f != NULL);
    CHECK(fgets(text, sizeof text, f) != NULL);
    fclose(f);
    for (int i = 0; i < 16; i++)
        p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", o.boot[i]);
    text[strcspn(text, "\n")] = '\0';
    CHECK_STR(mine, text);
}

TEST("a child is another owner, alive until it is killed, dead as a zombie and when it is gone")
{
    mj_owner me = self(), o;
    siginfo_t info;
    pid_t pid = child(&o, NULL);

    CHECK_INT(o.pid, pid);
    CHECK(o.pid != me.pid);
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_ALIVE);
    kill(pid, SIGKILL);
    CHECK_INT(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_DEAD);
    waitpid(pid, NULL, 0);
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_DEAD);
}

TEST("a stopped process is alive")
{
    mj_owner o;
    pid_t pid = child(&o, NULL);

    kill(pid, SIGSTOP);
    CHECK_INT(waitpid(pid, NULL, WUNTRACED), pid);
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_ALIVE);
    end(pid);
}

TEST("a pid that another process has now is not the one that was meant")
{
    mj_owner o = self();

    o.started++;
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_DEAD);
    o.started -= 2;
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_DEAD);
}

TEST("what was there before the last boot is dead, also from another namespace")
{
    mj_owner o = self();

    o.boot[15] ^= 1;
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_DEAD);
    o.pidns++;
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_DEAD);
}

TEST("of another namespace nothing can be said")
{
    mj_owner o = self();

    o.pidns++;
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_FOREIGN);
    o.pid = 4194304; /* no such pid anywhere */
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_FOREIGN);
}

TEST("nothing can be said of an owner without an identity")
{
    mj_owner o = {.pid = (uint32_t)getpid()}, good = self();

    CHECK_INT(mj_owner_look(&o), MJ_OWNER_FOREIGN);
    o = good;
    o.pid = 0; /* kill(0) would mean all of our group */
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_FOREIGN);
    o.pid = UINT32_MAX; /* and -1 everybody */
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_FOREIGN);
    o = good;
    memset(o.boot, 0, sizeof o.boot);
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_FOREIGN);
    o = good;
    o.pid = 4194304;
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_DEAD);
}

TEST("a process may call itself what it likes")
{
    static const char *const names[] = {") R 1 2 3", "a) Z (b", "((((", "a\nb c", ") Z 0 0 0 0 0", "))))))))"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        mj_owner o = self();
        prctl(PR_SET_NAME, names[i]);
        CHECK_INT(mj_owner_look(&o), MJ_OWNER_ALIVE);
        o.started++;
        CHECK_INT(mj_owner_look(&o), MJ_OWNER_DEAD);
    }
}

static void *wait_for_ever(void *arg)
{
    (void)arg;
    for (;;)
        pause();
    return NULL;
}

static void leave_a_thread(void)
{
    pthread_t t;

    if (pthread_create(&t, NULL, wait_for_ever, NULL) == 0)
        pthread_exit(NULL);
}

TEST("a process whose main thread ended before the others lives on")
{
    char path[64], line[512], *p = NULL;
    mj_owner o;
    pid_t pid = child(&o, leave_a_thread);

    /* Its main thread becomes a zombie soon. */
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    do {
        FILE *f = fopen(path, "r");
        CHECK(f != NULL && fgets(line, sizeof line, f) != NULL);
        fclose(f);
        p = strrchr(line, ')');
        CHECK_INT(mj_owner_look(&o), MJ_OWNER_ALIVE);
        sched_yield();
    } while (p[2] != 'Z');
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_ALIVE);
    end(pid);
    CHECK_INT(mj_owner_look(&o), MJ_OWNER_DEAD);
}

TEST("a child process of another pid namespace finds its parent foreign, and is found so")
{
    mj_owner me = self(), o, seen[2];
    int fds[2], status;
    pid_t pid;

    CHECK_INT(pipe(fds), 0);
    pid = fork(); /* the one that unshares; its child is the first of the new namespace */
    if (pid == 0) {
        pid_t inner;
        if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0)
            _exit(MJ_TEST_SKIPPED);
        if ((inner = fork()) == 0) {
            /* Still the outer /proc: whoever has our pid there is not us. */
            int rc = mj_owner_self(&seen[0]);
            if (rc != MJ_EIO || seen[0].pidns != 0 || mj_owner_look(&me) != MJ_OWNER_FOREIGN)
                _exit(1);
            if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
                mount("proc", "/proc", "proc", 0, NULL) != 0)
                _exit(MJ_TEST_SKIPPED);
            if (mj_owner_self(&seen[1]) != MJ_OK || mj_owner_look(&me) != MJ_OWNER_FOREIGN ||
                mj_owner_look(&seen[1]) != MJ_OWNER_ALIVE)
                _exit(2);
            _exit(write(fds[1], seen, sizeof seen) == (ssize_t)sizeof seen ? 0 : 3);
        }
        waitpid(inner, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 4);
    }
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status));
    if (WEXITSTATUS(status) == MJ_TEST_SKIPPED)
        SKIP("no right to make a pid namespace");
    CHECK_INT(WEXITSTATUS(status), 0);
    CHECK_INT(read(fds[0], seen, sizeof seen), sizeof seen);
    for (int i = 0; i < 2; i++) {
        o = seen[i];
        CHECK_INT(o.pid, 1);
        CHECK_INT(mj_owner_look(&o), MJ_OWNER_FOREIGN);
    }
}

TEST("a process that /proc hides is alive while it exists")
{
    mj_owner o, other;
    int status;
    pid_t target = child(&o, NULL), pid = fork();

    other = o;
    other.started++;
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("proc", "/proc", "proc", 0, "hidepid=2") != 0 || setgid(65534) != 0 || setuid(65534) != 0 ||
            access("/proc/1/stat", F_OK) == 0)
            _exit(MJ_TEST_SKIPPED);
        if (mj_owner_look(&o) != MJ_OWNER_ALIVE)
            _exit(1);
        if (mj_owner_look(&other) != MJ_OWNER_ALIVE) /* can't be compared */
            _exit(2);
        o.pid = 4194304;
        _exit(mj_owner_look(&o) == MJ_OWNER_DEAD ? 0 : 3);
    }
    waitpid(pid, &status, 0);
    end(target);
    CHECK(WIFEXITED(status));
    if (WEXITSTATUS(status) == MJ_TEST_SKIPPED)
        SKIP("no right to mount /proc anew");
    CHECK_INT(WEXITSTATUS(status), 0);
}

TEST("without /proc an owner has no identity, and judges no other")
{
    mj_owner good, o;
    int status;
    pid_t target = child(&good, NULL), pid = fork();

    if (pid == 0) {
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("none", "/proc", "tmpfs", 0, NULL) != 0)
            _exit(MJ_TEST_SKIPPED);
        if (mj_owner_self(&o) != MJ_EIO || o.pid != (uint32_t)getpid() || o.pidns != 0 || o.started != 0)
            _exit(1);
        _exit(mj_owner_look(&good) == MJ_OWNER_FOREIGN ? 0 : 2);
    }
    waitpid(pid, &status, 0);
    end(target);
    CHECK(WIFEXITED(status));
    if (WEXITSTATUS(status) == MJ_TEST_SKIPPED)
        SKIP("no right to hide /proc");
    CHECK_INT(WEXITSTATUS(status), 0);
}

static void *look_often(void *arg)
{
    int *bad = arg;
    mj_owner o;

    for (int i = 0; i < 300; i++)
        *bad += mj_owner_self(&o) != MJ_OK || o.pid != (uint32_t)getpid() || mj_owner_look(&o) != MJ_OWNER_ALIVE;
    return NULL;
}

TEST("threads may ask at the same time")
{
    pthread_t threads[4];
    int bad[4] = {0};

    for (int i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, look_often, &bad[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(bad[i], 0);
    }
}
