/* make chaos, section store: processes with threads hammer one store and are killed at random.
 *
 *   store_chaos [KILLS] [SEED] [DIR]     default 1000 kills in a temporary directory
 *
 * After each SIGKILL: check() has to find nothing wrong, and every task that a
 * worker was told is on disk has to be there, in the state it was told or in a
 * later one.  What workers were told lies in shared memory, which outlives them. */
#include "base/error.h"
#include "store/store.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 4, THREADS = 2, LOG = 4096, BATCH = 8 };

typedef struct entry { /* a fact that the store acknowledged */
    uint8_t ref[MJ_ULID_BYTES];
    _Atomic int state; /* the furthest state that was acknowledged; -1: not yet used */
} entry;

typedef struct shared {
    _Atomic uint64_t commits;
    struct {
        _Atomic uint32_t n;
        entry log[LOG];
    } told[WORKERS * THREADS];
} shared;

static shared *memory;
static char dir[4000];

static uint64_t mix(uint64_t *s) /* splitmix64 */
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static mj_store *open_store(void)
{
    mj_store_options o = {.rules = mj_rules_default};
    mj_account a = {MJ_LIT("default"), 10};
    char why[256] = "";
    mj_store *s;
    int rc = mj_store_open(dir, &o, &s, why, sizeof why);

    if (rc != MJ_OK) {
        fprintf(stderr, "open: %s: %s\n", mj_error_name(rc), why);
        exit(3);
    }
    mj_store_accounts(s, &a, 1);
    return s;
}

static void remember(int who, const uint8_t *ref, int state)
{
    uint32_t n = atomic_load(&memory->told[who].n);
    entry *e = &memory->told[who].log[n % LOG];

    atomic_store(&e->state, -1);
    memcpy(e->ref, ref, MJ_ULID_BYTES);
    atomic_store(&e->state, state);
    atomic_store(&memory->told[who].n, n + 1);
}

typedef struct worker {
    int who;
    uint64_t seed;
} worker;

static mj_signal signal_of(mj_signal_kind kind)
{
    return (mj_signal){.kind = kind, .source = MJ_FROM_CALLBACK, .expect_state = -1, .wait_ms = -1};
}

/* A batch of whatever comes: creations, claims, words of the provider, cancellations, deliveries, pruning. */
static void random_op(mj_op *op, mj_task *task, char *text, uint64_t *seed, int who)
{
    uint32_t n = atomic_load(&memory->told[who].n);
    const entry *known = n ? &memory->told[who].log[mix(seed) % (n < LOG ? n : LOG)] : NULL;
    uint64_t r = mix(seed);

    memset(op, 0, sizeof *op);
    op->sig = signal_of(SIG_LOOK);
    snprintf(text, 64, "id%016llx", (unsigned long long)mix(seed));
    switch (known ? r % 10 : 0) {
    case 0:
    case 1:
        memset(task, 0, sizeof *task);
        task->prompt = MJ_LIT("a fox in the snow, cinematic lighting --ar 4:5");
        task->user_id = MJ_LIT("u1");
        task->key = r & 256 ? (mj_str){text, (uint32_t)strlen(text)} : (mj_str){0};
        task->timeout = 600;
        op->kind = MJ_OP_CREATE;
        op->task = task;
        return;
    case 2:
    case 3:
        op->kind = MJ_OP_CLAIM;
        op->want = true;
        return;
    case 4:
        op->kind = MJ_OP_EVENT_TAKE;
        op->until = wall_ms() + 50;
        return;
    case 5:
        op->kind = MJ_OP_PRUNE;
        op->sig.expect_state = MJ_SUCCEEDED;
        op->until = wall_ms() - 2000;
        op->limit = 20;
        return;
    default: {
        static const mj_signal_kind kinds[] = {SIG_ACCEPTED,   SIG_SUCCEEDED, SIG_SUCCEEDED, SIG_FAILED,
                                               SIG_MAYBE_SENT, SIG_REFUSED,   SIG_CANCEL,    SIG_RUNNING};
        op->kind = MJ_OP_SIGNAL;
        op->has_ref = true;
        memcpy(op->ref, known->ref, MJ_ULID_BYTES);
        op->sig = signal_of(kinds[(r >> 8) % 8]);
        op->sig.attempt = 1;
        if (op->sig.kind == SIG_ACCEPTED || op->sig.kind == SIG_SUCCEEDED)
            op->sig.task_id = (mj_str){text, (uint32_t)strlen(text)};
        if (op->sig.kind == SIG_SUCCEEDED)
            op->sig.image = MJ_LIT("https://cdn.example/grid.png");
        return;
    }
    }
}

static void finish_events(mj_store *s, mj_op *ops, int n)
{
    mj_op done[BATCH];
    int k = 0;

    for (int i = 0; i < n; i++) {
        if (ops[i].kind != MJ_OP_EVENT_TAKE || ops[i].code != MJ_OK)
            continue;
        memset(&done[k], 0, sizeof done[k]);
        done[k].kind = MJ_OP_EVENT_DONE;
        done[k++].event = ops[i].event;
    }
    if (k)
        mj_store_write(s, done, (size_t)k, wall_ms());
    for (int i = 0; i < k; i++)
        mj_op_clear(&done[i]);
}

static void *hammer(void *arg)
{
    worker *w = arg;
    mj_store *s = open_store();
    mj_op ops[BATCH];
    mj_task tasks[BATCH];
    char text[BATCH][64];

    for (;;) {
        int n = 1 + (int)(mix(&w->seed) % BATCH);
        for (int i = 0; i < n; i++)
            random_op(&ops[i], &tasks[i], text[i], &w->seed, w->who);
        int rc = mj_store_write(s, ops, (size_t)n, wall_ms());
        if (rc != MJ_OK) {
            fprintf(stderr, "write: %s: %s\n", mj_error_name(rc), mj_store_detail(s));
            _exit(4);
        }
        atomic_fetch_add(&memory->commits, 1);
        for (int i = 0; i < n; i++)
            if (ops[i].kind == MJ_OP_CREATE && ops[i].code == MJ_OK)
                remember(w->who, ops[i].ref, MJ_QUEUED);
        finish_events(s, ops, n);
        for (int i = 0; i < n; i++)
            mj_op_clear(&ops[i]);
    }
    return NULL;
}

static pid_t start(int slot, uint64_t seed)
{
    pid_t pid = fork();

    if (pid == 0) {
        worker w[THREADS];
        pthread_t t;
        for (int i = 0; i < THREADS; i++) {
            w[i] = (worker){slot * THREADS + i, seed * 31 + (uint64_t)i};
            if (i > 0)
                pthread_create(&t, NULL, hammer, &w[i]);
        }
        hammer(&w[0]);
        _exit(5);
    }
    return pid;
}

static void wrong(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "check: %s\n", text);
}

/* Everything acknowledged is there: as a task, or as the tombstone of a pruned one. */
static int verify_told(mj_store *s, uint64_t *seen)
{
    int bad = 0;
    mj_buf buf = {0};

    for (int w = 0; w < WORKERS * THREADS; w++) {
        uint32_t n = atomic_load(&memory->told[w].n);
        for (uint32_t i = n > 64 ? n - 64 : 0; i < n; i++) {
            entry *e = &memory->told[w].log[i % LOG];
            if (atomic_load(&e->state) < 0)
                continue;
            buf.n = 0;
            ++*seen;
            if (mj_store_get(s, e->ref, &buf) != MJ_OK && mj_store_tomb(s, e->ref, &buf) != MJ_OK) {
                char ref[MJ_ULID_TEXT + 1];
                mj_ulid_text(e->ref, ref);
                fprintf(stderr, "acknowledged task %s is gone\n", ref);
                bad++;
            }
        }
    }
    mj_buf_free(&buf);
    return bad;
}

int main(int argc, char **argv)
{
    int kills = argc > 1 ? atoi(argv[1]) : 1000, bad = 0;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)wall_ms(), seen = 0;
    const char *base = argc > 3 ? argv[3] : getenv("TMPDIR");
    pid_t pids[WORKERS];
    mj_check_report report;
    mj_stats st;
    mj_store *s;

    snprintf(dir, sizeof dir, "%s/mjhook-chaos.XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(dir))
        return 64;
    memory = mmap(NULL, sizeof *memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    for (int i = 0; i < WORKERS; i++)
        pids[i] = start(i, mix(&seed));
    s = open_store();
    for (int k = 0; k < kills && bad == 0; k++) {
        int victim = (int)(mix(&seed) % WORKERS), status;
        struct timespec nap = {0, (long)(mix(&seed) % 20000000)};
        nanosleep(&nap, NULL);
        kill(pids[victim], SIGKILL);
        waitpid(pids[victim], &status, 0);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
            fprintf(stderr, "a worker ended by itself: status %d\n", status);
            bad++;
        }
        pids[victim] = start(victim, mix(&seed));
        int rc = mj_store_check(s, wrong, NULL, &report);
        if (rc != MJ_OK || report.found > 0) {
            fprintf(stderr, "after kill %d: %s, %llu things wrong\n", k + 1, mj_error_name(rc),
                    (unsigned long long)report.found);
            bad++;
        }
        bad += verify_told(s, &seen);
    }
    for (int i = 0; i < WORKERS; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    mj_store_stats(s, &st);
    printf("%d kills, %llu commits, %llu tasks, %llu tombs, %llu acknowledged facts looked up, %.1f MiB used\n", kills,
           (unsigned long long)atomic_load(&memory->commits), (unsigned long long)report.tasks,
           (unsigned long long)report.tombs, (unsigned long long)seen, (double)st.map_used / (1 << 20));
    mj_store_close(s);
    char cmd[4200];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    if (bad == 0 && system(cmd) != 0)
        return 1;
    printf(bad ? "0 passed, 1 failed\n" : "1 passed, 0 failed\n");
    return bad != 0;
}
