/* A test program in C: include this, write tests, that is all (main is here).
 *
 *     TEST("keeps succeeded when a late failure arrives")
 *     {
 *         CHECK(mj_state_apply(&t, &sig, &rules, now, &effect) == MJ_ESTALE);
 *         CHECK_INT(t.state, MJ_SUCCEEDED);
 *     }
 *
 * Each test runs in a child process, in an empty directory of its own that is
 * its working directory, under a time limit; it may crash, leak descriptors or
 * leave processes and files behind.  Its output is shown only when it fails.
 * The first CHECK that fails ends the test.  SKIP("why") ends it uncounted.
 *
 *     x_test          runs all          x_test late        those with "late" in the name
 *     x_test -l       lists them        MJ_TEST_TIMEOUT=s  (30 seconds a test)
 *
 * The last line is "N passed, N failed"; status 1 when a test failed or none ran. */
#ifndef MJ_TEST_H
#define MJ_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MJ_TEST_SECONDS = 30 }; /* for a test that hangs: a busy machine takes its time for the longest */
enum { MJ_TEST_SKIPPED = 77 };

/* A time that is enough here: the more, the longer a test may take (MJ_TEST_TIMEOUT is four times as long for
 * valgrind). */
static inline int64_t mj_test_ms(int64_t ms)
{
    const char *limit = getenv("MJ_TEST_TIMEOUT");
    int seconds = limit ? atoi(limit) : 0;

    return seconds > MJ_TEST_SECONDS ? ms * seconds / MJ_TEST_SECONDS : ms;
}

typedef struct mj_test {
    const char *name;
    void (*run)(void);
    struct mj_test *next;
} mj_test;

static mj_test *mj_test_first, **mj_test_last = &mj_test_first;

#define MJ_TEST_PASTE_(a, b) a##b
#define MJ_TEST_PASTE(a, b) MJ_TEST_PASTE_(a, b)
#define MJ_TEST_(name_, run_, add_)                                                                                    \
    static void run_(void);                                                                                            \
    __attribute__((constructor)) static void add_(void)                                                                \
    {                                                                                                                  \
        static mj_test t = {.name = name_, .run = run_};                                                               \
        *mj_test_last = &t;                                                                                            \
        mj_test_last = &t.next;                                                                                        \
    }                                                                                                                  \
    static void run_(void)
/* Numbered through, not by lines: tests may come from several headers. */
#define MJ_TEST_N_(name_, n_) MJ_TEST_(name_, MJ_TEST_PASTE(mj_test_run_, n_), MJ_TEST_PASTE(mj_test_add_, n_))
#define TEST(name_) MJ_TEST_N_(name_, __COUNTER__)

/* _exit: a failed test need not also answer for what it could not free. */
#define MJ_TEST_FAIL(...)                                                                                              \
    do {                                                                                                               \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                                                \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        fputc('\n', stderr);                                                                                           \
        fflush(NULL);                                                                                                  \
        _exit(1);                                                                                                      \
    } while (0)

#define CHECK(cond_)                                                                                                   \
    do {                                                                                                               \
        if (!(cond_))                                                                                                  \
            MJ_TEST_FAIL("CHECK(%s)", #cond_);                                                                         \
    } while (0)

/* Any integers; shown as signed 64 bits. */
#define CHECK_INT(got_, want_)                                                                                         \
    do {                                                                                                               \
        int64_t g_ = (int64_t)(got_), w_ = (int64_t)(want_);                                                           \
        if (g_ != w_)                                                                                                  \
            MJ_TEST_FAIL("%s is %" PRId64 ", not %s (%" PRId64 ")", #got_, g_, #want_, w_);                            \
    } while (0)

#define CHECK_STR(got_, want_)                                                                                         \
    do {                                                                                                               \
        const char *g_ = (got_), *w_ = (want_);                                                                        \
        if (!g_ || !w_ ? g_ != w_ : strcmp(g_, w_) != 0)                                                               \
            MJ_TEST_FAIL("%s is \"%s\", not \"%s\"", #got_, g_ ? g_ : "(null)", w_ ? w_ : "(null)");                   \
    } while (0)

#define CHECK_MEM(got_, want_, n_)                                                                                     \
    do {                                                                                                               \
        const unsigned char *g_ = (const void *)(got_), *w_ = (const void *)(want_);                                   \
        size_t len_ = (n_), at_ = 0;                                                                                   \
        while (at_ < len_ && g_[at_] == w_[at_])                                                                       \
            at_++;                                                                                                     \
        if (at_ < len_)                                                                                                \
            MJ_TEST_FAIL("%s: byte %zu of %zu is 0x%02x, not 0x%02x", #got_, at_, len_, g_[at_], w_[at_]);             \
    } while (0)

#define SKIP(why_)                                                                                                     \
    do {                                                                                                               \
        fprintf(stderr, "%s\n", why_);                                                                                 \
        fflush(NULL);                                                                                                  \
        _exit(MJ_TEST_SKIPPED);                                                                                        \
    } while (0)

/* Ends a forked child well.  No leak checker looks at it, as valgrind would after _exit(): what its parent has open is
 * never touched in a child, so it can't be freed there. */
static inline void mj_test_leave(void)
{
    execl("/bin/true", "true", (char *)NULL);
    _exit(0);
}

static int mj_test_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void mj_test_show(const char *path)
{
    char line[4096];
    FILE *f = fopen(path, "r");

    if (!f)
        return;
    while (fgets(line, sizeof line, f))
        printf("#   %s%s", line, line[strcspn(line, "\n")] ? "" : "\n");
    fclose(f);
}

/* The child; it ends by exit, so that a leak checker has its say. */
static void mj_test_child(const mj_test *t, const char *dir, const char *log)
{
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    sigset_t none;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || chdir(dir) != 0) {
        perror(dir);
        _exit(1);
    }
    close(fd);
    setvbuf(stdout, NULL, _IOLBF, 0);
    t->run();
    exit(0);
}

/* The wait status of pid, which is killed at the limit. */
static int mj_test_wait(pid_t pid, int seconds, bool *late)
{
    struct timespec now, end, left;
    sigset_t set;
    int status;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += seconds;
    *late = false;
    while (waitpid(pid, &status, *late ? 0 : WNOHANG) != pid) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        left.tv_sec = end.tv_sec - now.tv_sec;
        left.tv_nsec = end.tv_nsec - now.tv_nsec;
        if (left.tv_nsec < 0) {
            left.tv_sec--;
            left.tv_nsec += 1000000000;
        }
        if (left.tv_sec < 0) {
            *late = true;
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
        } else {
            sigtimedwait(&set, NULL, &left);
        }
    }
    kill(-pid, SIGKILL); /* what it left running in its group */
    return status;
}

/* 0: passed, 1: failed, MJ_TEST_SKIPPED. */
static int mj_test_one(const mj_test *t, const char *base, int seconds)
{
    char top[512], dir[600], log[600], how[80] = "";
    bool late;
    int status, code = 1;
    pid_t pid;

    snprintf(top, sizeof top, "%s/mj-test-XXXXXX", base);
    if (!mkdtemp(top)) {
        printf("not ok - %s\n#   %s: %s\n", t->name, top, strerror(errno));
        return 1;
    }
    snprintf(dir, sizeof dir, "%s/dir", top);
    snprintf(log, sizeof log, "%s/log", top);
    mkdir(dir, 0700);
    fflush(NULL);
    pid = fork();
    if (pid == 0)
        mj_test_child(t, dir, log);
    if (pid > 0) {
        setpgid(pid, pid); /* either side may come first */
        status = mj_test_wait(pid, seconds, &late);
        if (late)
            snprintf(how, sizeof how, "not finished after %d s", seconds);
        else if (WIFSIGNALED(status))
            snprintf(how, sizeof how, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
        else if ((code = WEXITSTATUS(status)) > 1 && code != MJ_TEST_SKIPPED)
            snprintf(how, sizeof how, "ended with status %d", code);
    } else {
        snprintf(how, sizeof how, "fork: %s", strerror(errno));
    }
    if (code == 0) {
        printf("ok - %s\n", t->name);
    } else {
        printf(code == MJ_TEST_SKIPPED ? "skip - %s\n" : "not ok - %s\n", t->name);
        mj_test_show(log);
        if (how[0])
            printf("#   %s\n", how);
    }
    nftw(top, mj_test_remove, 16, FTW_DEPTH | FTW_PHYS);
    return code == 0 || code == MJ_TEST_SKIPPED ? code : 1;
}

int main(int argc, char **argv)
{
    const char *base = getenv("TMPDIR"), *limit = getenv("MJ_TEST_TIMEOUT"), *part = argc > 1 ? argv[1] : "";
    int passed = 0, failed = 0, skipped = 0, seconds = limit ? atoi(limit) : MJ_TEST_SECONDS;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL); /* mj_test_wait waits for it */
    for (mj_test *t = mj_test_first; t; t = t->next) {
        if (strcmp(part, "-l") == 0) {
            puts(t->name);
            continue;
        }
        if (!strstr(t->name, part))
            continue;
        switch (mj_test_one(t, base && base[0] ? base : "/tmp", seconds > 0 ? seconds : MJ_TEST_SECONDS)) {
        case 0:
            passed++;
            break;
        case MJ_TEST_SKIPPED:
            skipped++;
            break;
        default:
            failed++;
        }
    }
    if (strcmp(part, "-l") == 0)
        return 0;
    printf("%d passed, %d failed", passed, failed);
    if (skipped)
        printf(", %d skipped", skipped);
    putchar('\n');
    return failed || (passed + skipped == 0 && !part[0]);
}

#endif
