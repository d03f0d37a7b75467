/* Several hosts on one store: each with a boot id, PID and mount namespace of its own, as far as this machine lets a
 * test make them. */
#include "pg_help.h"

#define STORE_BACKEND pg_backend()
#include "../c/store_check.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>

enum { HOSTS = 3, SUBMITTERS = 8, SLOTS = 10 };

/* The provider's side: how many unfinished jobs it has, as the senders know it. */
typedef struct provider {
    atomic_int running, most, sent, next;
    int total;
} provider;

static provider *shared_provider(void)
{
    provider *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    return p;
}

/* Runs `work` on another host, in a process that is the first one there, and exits with its status; in a child of
 * fork() alone.  MJ_TEST_SKIPPED: the machine does not let a test do that. */
static void on_host(int n, int (*work)(int n, void *arg), void *arg)
{
    char path[64];
    int status;
    FILE *f;
    pid_t pid;

    if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS) != 0)
        _exit(MJ_TEST_SKIPPED);
    pid = fork();
    if (pid > 0) {
        waitpid(pid, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    snprintf(path, sizeof path, "boot-%d", n);
    f = fopen(path, "w");
    if (!f || fprintf(f, "00000000-0000-4000-8000-%012d\n", n + 1) < 0 || fclose(f) != 0 ||
        mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 || mount("proc", "/proc", "proc", 0, NULL) != 0 ||
        mount(path, "/proc/sys/kernel/random/boot_id", NULL, MS_BIND, NULL) != 0 ||
        sethostname(path, strlen(path)) != 0)
        _exit(MJ_TEST_SKIPPED);
    _exit(work(n, arg));
}

static void submit_until(provider *p, int total, unsigned seed)
{
    mj_store *s = open_store();
    char id[32];

    accounts(s, "main", SLOTS, NULL, 0);
    while (atomic_load(&p->sent) < total) {
        int64_t now = mj_store_now(s);
        int rc;
        if (atomic_fetch_add(&p->next, 1) < total)
            CHECK_INT(create(s, (job){.account = "main"}, now), MJ_OK);
        rc = claim(s, now);
        if (rc != MJ_OK) {
            CHECK(rc == MJ_ELIMIT || rc == MJ_ENOTFOUND);
            usleep((useconds_t)(200 + rand_r(&seed) % 500));
            continue;
        }
        ref r = last_ref();
        int running = atomic_fetch_add(&p->running, 1) + 1, most = atomic_load(&p->most);
        while (running > most && !atomic_compare_exchange_weak(&p->most, &most, running))
            ;
        snprintf(id, sizeof id, "J%d", atomic_fetch_add(&p->sent, 1));
        if (rand_r(&seed) % 4 == 0)
            usleep((useconds_t)(rand_r(&seed) % 2000));
        if (rand_r(&seed) % 2)
            CHECK_INT(tell(s, r, SIG_ACCEPTED, id, now), MJ_OK);
        atomic_fetch_sub(&p->running, 1); /* the provider has ended it before the store hears of it */
        CHECK_INT(tell(s, r, SIG_SUCCEEDED, id, now), MJ_OK);
    }
    mj_store_close(s);
}

static int submitters(int n, void *arg)
{
    provider *p = arg;
    int status, bad = 0;

    for (int i = n; i < SUBMITTERS; i += HOSTS)
        if (fork() == 0) {
            submit_until(p, p->total, (unsigned)(1000 * n + i));
            _exit(0);
        }
    while (wait(&status) > 0)
        bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    return bad ? 1 : 0;
}

TEST("eight submitters on three hosts share ten slots: the provider never has more than ten unfinished jobs")
{
    const char *many = getenv("MJHOOK_SUBMISSIONS");
    int total = many ? atoi(many) : 1500, status;
    provider *p = shared_provider();
    mj_store *s = open_store(); /* makes the tables */
    mj_check_report report;
    pid_t hosts[HOSTS];
    bool skipped = false;

    accounts(s, "main", SLOTS, NULL, 0);
    p->total = total;
    for (int i = 0; i < HOSTS; i++)
        if ((hosts[i] = fork()) == 0)
            on_host(i, submitters, p);
    for (int i = 0; i < HOSTS; i++) {
        CHECK(waitpid(hosts[i], &status, 0) == hosts[i]);
        CHECK(WIFEXITED(status));
        skipped = skipped || WEXITSTATUS(status) == MJ_TEST_SKIPPED;
        if (!skipped)
            CHECK_INT(WEXITSTATUS(status), 0);
    }
    if (skipped)
        SKIP("no right to make namespaces");
    fprintf(stderr, "%d submissions, at most %d at a time\n", atomic_load(&p->sent), atomic_load(&p->most));
    CHECK(atomic_load(&p->sent) >= total);
    CHECK(atomic_load(&p->most) <= SLOTS);
    CHECK(atomic_load(&p->most) > 1); /* they did work side by side */
    CHECK_INT(mj_store_check(s, tell_problem, NULL, &report), MJ_OK);
    CHECK_INT(report.found, 0);
    CHECK_INT(report.tasks, total);
    CHECK_INT(stats(s).states[MJ_SUCCEEDED], total);
    mj_store_close(s);
}

static int claim_and_stay(int n, void *arg)
{
    mj_store *s = open_store();
    mj_op op = {.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)};

    (void)n;
    accounts(s, "main", SLOTS, NULL, 0);
    op.sig.account = str("");
    op.sig.has_owner = true;
    CHECK_INT(mj_owner_self(&op.sig.owner), 0);
    CHECK_INT(do_op(s, op, mj_store_now(s)), MJ_OK);
    CHECK_INT(write(*(int *)arg, "x", 1), 1);
    pause();
    return 0;
}

TEST("a submission on another host is not taken for a dead one's while that host's heartbeat is fresh")
{
    mj_store *s = open_store();
    int pipes[2];
    int64_t now = mj_store_now(s), ago = -1;
    char c;
    pid_t pid;
    mj_task t;
    mj_buf b = {0};
    ref r = add(s, (job){.account = "main"}, now);

    CHECK_INT(pipe(pipes), 0);
    if ((pid = fork()) == 0)
        on_host(7, claim_and_stay, &pipes[1]);
    close(pipes[1]);
    if (read(pipes[0], &c, 1) != 1)
        SKIP("no right to make namespaces");
    t = get_task(s, r, &b);
    CHECK_INT(t.state, MJ_SUBMITTING);
    CHECK(mj_owner_look(&t.owner) != MJ_OWNER_ALIVE); /* what /proc says here */
    CHECK_INT(mj_store_host(s, t.owner.boot, &ago), MJ_OK);
    CHECK(ago >= 0 && ago < 60000);
    CHECK_INT(mj_store_host(s, (const uint8_t[16]){1, 2, 3}, &ago), MJ_ENOTFOUND);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    mj_buf_free(&b);
    mj_store_close(s);
}
