/* failover_chaos URL SECONDS RATE: callbacks at so many a second, from four connections, while something happens to the
 * server.  A batch that fails is sent again, as a provider would; what was acknowledged has to be there at the end,
 * once. Prints what it saw; status 1 when something is missing, twice, or out of order. */
#include "base/error.h"
#include "store/postgres/postgres.h"
#include "store/store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 4, BATCH = 16, MAKE = 512, PATIENCE_MS = 60000 };

static const char *url;
static size_t total;
static double per_ms;
static struct task {
    uint8_t ref[MJ_ULID_BYTES];
    char id[24];
    bool made, acknowledged;
    uint32_t seen; /* events that were handed out */
} * tasks;
static atomic_size_t next;
static atomic_long failures, unsure, last_ok_ms, longest_ms;
static atomic_bool gave_up;

static long now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static mj_store *open_store(void)
{
    mj_store_options o = {.rules = mj_rules_default};
    mj_account a = {{"main", 4}, 1000000000};
    char why[512];
    mj_store *s;

    for (int i = 0; mj_store_open_on(&mj_backend_postgres, url, &o, &s, why, sizeof why) != MJ_OK; i++) {
        if (i == 200) {
            fprintf(stderr, "%s\n", why);
            exit(1);
        }
        usleep(50000);
    }
    mj_store_accounts(s, &a, 1);
    return s;
}

static mj_signal signal_of(mj_signal_kind kind)
{
    return (mj_signal){.kind = kind, .source = MJ_FROM_CALLBACK, .expect_state = -1, .wait_ms = -1};
}

/* Until it is stored; each failure is counted, and the batch comes again. */
static bool write_all(mj_store *s, mj_op *ops, size_t n)
{
    long until = now_ms() + PATIENCE_MS;
    int rc;

    while ((rc = mj_store_write(s, ops, n, mj_store_now(s))) != MJ_OK) {
        atomic_fetch_add(&failures, 1);
        if (rc == MJ_EUNSURE)
            atomic_fetch_add(&unsure, 1);
        if (now_ms() > until) {
            fprintf(stderr, "given up: %s: %s\n", mj_error_name(rc), mj_store_detail(s));
            atomic_store(&gave_up, true);
            return false;
        }
        usleep(10000);
    }
    return true;
}

static void make_tasks(void)
{
    static mj_op ops[MAKE];
    static mj_task t = {.prompt = {"a fox", 5}, .timeout = 600};
    mj_store *s = open_store();

    for (size_t at = 0; at < total; at += MAKE) {
        size_t n = total - at < MAKE ? total - at : MAKE;
        for (size_t i = 0; i < n; i++) {
            struct task *task = &tasks[at + i];
            snprintf(task->id, sizeof task->id, "J%zu", at + i);
            ops[i] = (mj_op){.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};
            ops[i].sig.source = MJ_FROM_USER;
            ops[i].sig.task_id = (mj_str){task->id, (uint32_t)strlen(task->id)};
            ops[i].sig.account = (mj_str){"main", 4};
        }
        if (!write_all(s, ops, n))
            exit(1);
        for (size_t i = 0; i < n; i++) {
            memcpy(tasks[at + i].ref, ops[i].ref, MJ_ULID_BYTES);
            tasks[at + i].made = ops[i].code == MJ_OK;
            mj_op_clear(&ops[i]);
        }
    }
    mj_store_close(s);
}

static void pace(size_t at, long began)
{
    long due = began + (long)((double)at / per_ms), now = now_ms();

    if (due > now)
        usleep((useconds_t)(due - now) * 1000);
}

static void *callbacks(void *arg)
{
    mj_store *s = open_store();
    long began = *(long *)arg;
    mj_op ops[BATCH];
    size_t at;

    while ((at = atomic_fetch_add(&next, BATCH)) < total && !atomic_load(&gave_up)) {
        size_t n = total - at < BATCH ? total - at : BATCH;
        long now, gap, longest;
        pace(at, began);
        memset(ops, 0, sizeof ops);
        for (size_t i = 0; i < n; i++) {
            ops[i] = (mj_op){.kind = MJ_OP_SIGNAL, .sig = signal_of(SIG_SUCCEEDED), .has_ref = true};
            memcpy(ops[i].ref, tasks[at + i].ref, MJ_ULID_BYTES);
            ops[i].sig.task_id = (mj_str){tasks[at + i].id, (uint32_t)strlen(tasks[at + i].id)};
            ops[i].sig.image = (mj_str){"https://img.example/x.png", 25};
        }
        if (!write_all(s, ops, n))
            break;
        now = now_ms();
        gap = now - atomic_exchange(&last_ok_ms, now);
        longest = atomic_load(&longest_ms);
        while (gap > longest && !atomic_compare_exchange_weak(&longest_ms, &longest, gap))
            ;
        for (size_t i = 0; i < n; i++) {
            tasks[at + i].acknowledged = ops[i].code == MJ_OK || ops[i].code == MJ_EDUPLICATE;
            mj_op_clear(&ops[i]);
        }
    }
    mj_store_close(s);
    return NULL;
}

static int by_ref(const void *a, const void *b)
{
    return memcmp(((const struct task *)a)->ref, ((const struct task *)b)->ref, MJ_ULID_BYTES);
}

/* Hands out all events, and counts them by task. */
static size_t take_events(mj_store *s)
{
    static mj_op ops[MAKE];
    size_t wrong = 0, taken;

    do {
        taken = 0;
        for (size_t i = 0; i < MAKE; i++)
            ops[i] = (mj_op){.kind = MJ_OP_EVENT_TAKE, .until = mj_store_now(s) + 600000};
        if (!write_all(s, ops, MAKE))
            exit(1);
        for (size_t i = 0; i < MAKE; i++) {
            struct task key, *t;
            if (ops[i].code == MJ_OK) {
                memcpy(key.ref, ops[i].event.ref, MJ_ULID_BYTES);
                t = bsearch(&key, tasks, total, sizeof *tasks, by_ref);
                wrong += !t || ops[i].event.seq != t->seen + 1;
                if (t)
                    t->seen++;
                taken++;
            }
            mj_op_clear(&ops[i]);
        }
    } while (taken > 0);
    return wrong;
}

int main(int argc, char **argv)
{
    pthread_t threads[WORKERS];
    size_t acknowledged = 0, lost = 0, twice = 0, wrong;
    mj_check_report report;
    mj_buf b = {0};
    mj_store *s;
    long began;

    if (argc != 4) {
        fprintf(stderr, "failover_chaos URL SECONDS RATE\n");
        return 64;
    }
    url = argv[1];
    total = (size_t)(atof(argv[2]) * atof(argv[3]));
    per_ms = atof(argv[3]) / 1000;
    tasks = calloc(total, sizeof *tasks);
    if (!tasks)
        return 1;
    make_tasks();
    printf("ready\n");
    fflush(stdout);
    began = now_ms();
    atomic_store(&last_ok_ms, began);
    for (int i = 0; i < WORKERS; i++)
        pthread_create(&threads[i], NULL, callbacks, &began);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    s = open_store();
    qsort(tasks, total, sizeof *tasks, by_ref);
    wrong = take_events(s);
    for (size_t i = 0; i < total; i++) {
        mj_task t;
        b.n = 0;
        acknowledged += tasks[i].acknowledged;
        lost += tasks[i].acknowledged &&
                (mj_store_get(s, tasks[i].ref, &b) != MJ_OK || mj_task_decode(b.p, b.n, &t) != MJ_OK ||
                 t.state != MJ_SUCCEEDED || tasks[i].seen == 0);
        twice += tasks[i].seen > 1;
    }
    mj_store_check(s, NULL, NULL, &report);
    printf("%zu callbacks, %zu acknowledged, %zu lost, %zu with two events, %zu out of order; check finds %llu; "
           "longest gap %ld ms; %ld batches failed, %ld unsure\n",
           total, acknowledged, lost, twice, wrong, (unsigned long long)report.found, atomic_load(&longest_ms),
           atomic_load(&failures), atomic_load(&unsure));
    mj_store_close(s);
    return acknowledged != total || lost || twice || wrong || report.found ? 1 : 0;
}
