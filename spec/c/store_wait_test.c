/* Who waits for a commit: writers alone.  Another process holds LMDB's writer lock here, as a slow disk makes it do. */
#include "store_help.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int ready[2], go[2];

/* A process in the middle of a commit, until it is told to end it. */
static pid_t start_commit(void)
{
    char c;
    pid_t pid;

    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        mj_store *s = open_store();
        MDB_txn *t;
        CHECK_INT(mj_env_begin(lmdb_of(s)->env, 0, &t), 0);
        CHECK_INT(write(ready[1], "r", 1), 1);
        CHECK_INT(read(go[0], &c, 1), 1);
        mdb_txn_abort(t);
        mj_env_leave(lmdb_of(s)->env);
        mj_store_close(s);
        _exit(0);
    }
    CHECK_INT(read(ready[0], &c, 1), 1);
    return pid;
}

static void end_commit(pid_t pid)
{
    int status;

    CHECK_INT(write(go[1], "e", 1), 1);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
}

typedef struct waiter {
    pthread_t thread;
    mj_store *s;
    atomic_int id; /* the kernel's, of the thread */
    bool grows;
    int rc;
} waiter;

static void *wait_for_commit(void *arg)
{
    waiter *w = arg;

    atomic_store(&w->id, (int)syscall(SYS_gettid));
    w->rc = w->grows ? mj_env_grow(lmdb_of(w->s)->env, 16 << 20) : create(w->s, (job){0}, T0);
    return NULL;
}

/* Starts it, and waits until it waits. */
static void start(waiter *w, mj_store *s, bool grows)
{
    char path[64], call[256] = "";
    FILE *f;

    *w = (waiter){.s = s, .grows = grows};
    CHECK_INT(pthread_create(&w->thread, NULL, wait_for_commit, w), 0);
    while (!atomic_load(&w->id))
        sched_yield();
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", atomic_load(&w->id));
    do {
        sched_yield();
        f = fopen(path, "r");
        if (!f || !fgets(call, sizeof call, f))
            SKIP("the kernel does not tell what a thread waits for");
        fclose(f);
    } while (atoi(call) != SYS_futex);
}

static void end(waiter *w)
{
    CHECK_INT(pthread_join(w->thread, NULL), 0);
    CHECK_INT(w->rc, MJ_OK);
}

TEST("while a commit runs, a handle is taken on the open store, read, and given back")
{
    mj_store *s = open_store(), *other;
    mj_store_options more = {.rules = mj_rules_default, .map_max = (uint64_t)2 << 40};
    ref r = add(s, (job){0}, T0);
    pid_t pid = start_commit();
    waiter writer;

    start(&writer, s, false);
    for (int i = 0; i < 100; i++) {
        more.map_max++; /* it may ask for more than the open handles did */
        other = open_store_at("store", &more);
        CHECK_INT(state_of(other, r), MJ_QUEUED);
        mj_store_close(other);
    }
    end_commit(pid);
    end(&writer);
    mj_store_close(s);
}

TEST("no reader waits behind a thread that wants a larger map and waits for a commit")
{
    mj_store *s = open_store(), *other = open_store(), *third = open_store();
    ref r = add(s, (job){0}, T0);
    pid_t pid = start_commit();
    waiter writer, grower;

    start(&writer, s, false);
    start(&grower, other, true);
    for (int i = 0; i < 100; i++) {
        mj_store *fresh = open_store();
        CHECK_INT(state_of(third, r), MJ_QUEUED);
        CHECK_INT(state_of(fresh, r), MJ_QUEUED);
        mj_store_close(fresh);
    }
    end_commit(pid);
    end(&writer);
    end(&grower);
    mj_store_close(s);
    mj_store_close(other);
    mj_store_close(third);
}

static void *open_other(void *arg)
{
    waiter *w = arg;
    mj_store_options o = {.rules = mj_rules_default};
    char why[512];

    w->rc = mj_store_open("other", &o, &w->s, why, sizeof why);
    CHECK(w->rc != MJ_OK && strstr(why, "restoring"));
    return NULL;
}

TEST("while a thread waits to open another store, which a process restores, a handle of the open one is taken")
{
    mj_store_options o = {.rules = mj_rules_default};
    waiter opener = {0};
    struct timespec from, to;
    char c;
    int status;
    pid_t pid;

    mj_store_close(open_store_at("other", &o));
    mj_store *s = open_store();
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    pid = fork();
    if (pid == 0) { /* what a restore holds */
        struct flock f = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
        int fd = open("other/lock.mdb", O_RDWR);
        CHECK_INT(fcntl(fd, F_SETLK, &f), 0);
        CHECK_INT(write(ready[1], "r", 1), 1);
        CHECK_INT(read(go[0], &c, 1), 1);
        _exit(0);
    }
    CHECK_INT(read(ready[0], &c, 1), 1);
    clock_gettime(CLOCK_MONOTONIC, &from);
    CHECK_INT(pthread_create(&opener.thread, NULL, open_other, &opener), 0);
    for (int i = 0; i < 100; i++)
        mj_store_close(open_store());
    clock_gettime(CLOCK_MONOTONIC, &to);
    CHECK_INT(pthread_join(opener.thread, NULL), 0);
    CHECK_INT(opener.rc, MJ_EBUSY);
    CHECK((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 < 2000); /* it waits for 3 s */
    CHECK_INT(write(go[1], "e", 1), 1);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    mj_store_close(open_store_at("other", &o));
    mj_store_close(s);
}

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

TEST("a writer of batch after batch rests between two while others write, and not without others")
{
    mj_store *many = open_store(), *other = open_store();
    int64_t begun, held;

    CHECK_INT(mj_store_give_way(many), 0); /* it has not written yet */
    CHECK_INT(create(many, (job){0}, T0), MJ_OK);
    CHECK_INT(create(many, (job){0}, T0), MJ_OK);
    CHECK_INT(mj_store_give_way(many), 0); /* no other writer has */
    CHECK_INT(create(other, (job){0}, T0), MJ_OK);
    begun = now_us();
    CHECK_INT(create(many, (job){0}, T0), MJ_OK);
    held = mj_store_give_way(many);
    CHECK(held > 0);
    CHECK(now_us() - begun >= 3 * (held - 1)); /* the commit, and the rest */
    CHECK_INT(create(many, (job){0}, T0), MJ_OK);
    CHECK_INT(mj_store_give_way(many), 0); /* the others have stopped */
    mj_store_close(other);
    mj_store_close(many);
}
