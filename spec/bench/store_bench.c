/* make bench, section store: what a big store costs, beside raw LMDB in the same run.
 *
 *   store_bench [TASKS] [DIR]     default 1,000,000 tasks in a temporary directory
 *   store_bench load TASKS STORE  only makes a store of so many finished tasks, and leaves it there
 *   store_bench find TASKS STORE  only looks tasks of such a store up, at random
 *
 * Prints one line per figure.  Medians of what was measured in this run; the
 * ratios are what counts, since the machines are shared and noisy. */
#include "base/error.h"
#include "store/store.h"

#include <inttypes.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LOAD_BATCH = 1024, SAMPLES = 20000, ROUNDS = 3 };

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        int must_rc = (call);                                                                                          \
        if (must_rc != 0) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: %d\n", __FILE__, __LINE__, #call, must_rc);                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double quantile(double *v, size_t n, double q)
{
    qsort(v, n, sizeof *v, by_value);
    return v[(size_t)((double)(n - 1) * q)];
}

static uint64_t random_state = 88172645463325252u;
static uint64_t rnd(void) /* xorshift64 */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* ---- realistic tasks ---- */

typedef struct job { /* storage behind the slices of one operation */
    mj_task task;
    char prompt[400], user[32], id[24], image[128], more[4][128], key[40];
} job;

static void make_job(job *j, uint64_t n)
{
    static const char *const parts[] = {
        "a red fox in the snow",   "golden hour",         "cinematic lighting",   "85mm lens",
        "highly detailed fur",     "soft bokeh",          "art nouveau ornament", "muted earth tones",
        "isometric city at night", "watercolour on paper"};
    size_t len = 0, count = 3 + rnd() % 6;
    uint64_t id;

    memset(&j->task, 0, sizeof j->task);
    for (size_t i = 0; i < count; i++)
        len += (size_t)snprintf(j->prompt + len, sizeof j->prompt - len, "%s, ", parts[rnd() % 10]);
    snprintf(j->prompt + len, sizeof j->prompt - len, "take %" PRIu64 " --ar 4:5 --niji 7 --s 250", n);
    snprintf(j->user, sizeof j->user, "user-%" PRIu64, rnd() % 50000);
    snprintf(j->key, sizeof j->key, "order-%" PRIu64, n);
    snprintf(j->id, sizeof j->id, "Mt%019" PRIx64, n * 0x9e3779b97f4a7c15u);
    id = rnd(); /* of the provider's job: the URLs of its images have it in common */
    snprintf(j->image, sizeof j->image, "https://cdn.midjourney.com/%016" PRIx64 "-af0f-8f02df6c579e/grid_0.png", id);
    for (int i = 0; i < 4; i++)
        snprintf(j->more[i], sizeof j->more[i], "https://cdn.midjourney.com/%016" PRIx64 "-af0f-8f02df6c579e/0_%d.png",
                 id, i);
    j->task.prompt = (mj_str){j->prompt, (uint32_t)strlen(j->prompt)};
    j->task.user_id = (mj_str){j->user, (uint32_t)strlen(j->user)};
    j->task.key = (mj_str){j->key, (uint32_t)strlen(j->key)};
    j->task.context = MJ_LIT("{\"order\":1234567,\"shop\":\"north\"}");
    j->task.timeout = 600;
}

static void op_adopt(mj_op *op, job *j)
{
    memset(op, 0, sizeof *op);
    op->kind = MJ_OP_CREATE;
    op->task = &j->task;
    op->sig = (mj_signal){.source = MJ_FROM_USER,
                          .expect_state = -1,
                          .wait_ms = -1,
                          .account = MJ_LIT("default"),
                          .task_id = {j->id, (uint32_t)strlen(j->id)}};
}

static void op_succeed(mj_op *op, job *j)
{
    memset(op, 0, sizeof *op);
    op->kind = MJ_OP_SIGNAL;
    op->sig = (mj_signal){.kind = SIG_SUCCEEDED,
                          .source = MJ_FROM_CALLBACK,
                          .expect_state = -1,
                          .wait_ms = -1,
                          .task_id = {j->id, (uint32_t)strlen(j->id)},
                          .image = {j->image, (uint32_t)strlen(j->image)},
                          .nimages = 4,
                          .mj_prompt = j->task.prompt,
                          .meta = MJ_LIT("{\"width\":1024,\"height\":1024}")};
    for (int i = 0; i < 4; i++)
        op->sig.images[i] = (mj_str){j->more[i], (uint32_t)strlen(j->more[i])};
}

/* The ids are a function of the number: nothing has to be remembered of ten million tasks. */
static job jobs[LOAD_BATCH];
static mj_op ops[2 * LOAD_BATCH];

static const int64_t EPOCH = 1776211200000;

static void deliver_all(mj_store *s, int64_t now)
{
    /* Delivered events leave the store; without this the outbox would be as large as the store. */
    static mj_op take[LOAD_BATCH], done[LOAD_BATCH];
    size_t n;

    do {
        for (n = 0; n < LOAD_BATCH; n++) {
            memset(&take[n], 0, sizeof take[n]);
            take[n].kind = MJ_OP_EVENT_TAKE;
            take[n].until = now + 100000;
        }
        MUST(mj_store_write(s, take, LOAD_BATCH, now));
        for (n = 0; n < LOAD_BATCH && take[n].code == MJ_OK; n++) {
            memset(&done[n], 0, sizeof done[n]);
            done[n].kind = MJ_OP_EVENT_DONE;
            done[n].event = take[n].event;
        }
        if (n)
            MUST(mj_store_write(s, done, n, now));
        for (size_t i = 0; i < LOAD_BATCH; i++)
            mj_op_clear(&take[i]), mj_op_clear(&done[i]);
    } while (n == LOAD_BATCH);
}

static void load(mj_store *s, uint64_t tasks)
{
    double t0 = now_us();

    for (uint64_t n = 0; n < tasks; n += LOAD_BATCH) {
        uint64_t k = tasks - n < LOAD_BATCH ? tasks - n : LOAD_BATCH;
        int64_t now = EPOCH + (int64_t)n;
        for (uint64_t i = 0; i < k; i++) {
            make_job(&jobs[i], n + i);
            op_adopt(&ops[2 * i], &jobs[i]);
            op_succeed(&ops[2 * i + 1], &jobs[i]);
        }
        MUST(mj_store_write(s, ops, 2 * k, now));
        deliver_all(s, now);
    }
    printf("load: %" PRIu64 " finished tasks in %.1f s, %.0f tasks/s (3 transactions per %d)\n", tasks,
           (now_us() - t0) / 1e6, (double)tasks / ((now_us() - t0) / 1e6), LOAD_BATCH);
}

static void report_size(const char *dir, uint64_t tasks)
{
    char path[4096];
    struct stat st;

    snprintf(path, sizeof path, "%s/data.mdb", dir);
    MUST(stat(path, &st));
    printf("size: %.0f bytes per task on disk (%.2f GiB)\n", (double)st.st_blocks * 512 / (double)tasks,
           (double)st.st_blocks * 512 / (1u << 30));
}

static void reads(mj_store *s, uint64_t tasks)
{
    static double get_us[SAMPLES], find_us[SAMPLES];
    mj_buf buf = {0};
    uint32_t attempt;
    mj_task t;
    double t0;

    for (int i = 0; i < SAMPLES; i++) {
        make_job(&jobs[0], rnd() % tasks);
        buf.n = 0;
        t0 = now_us();
        MUST(mj_store_find(s, (mj_str){jobs[0].id, (uint32_t)strlen(jobs[0].id)}, &buf, &attempt));
        find_us[i] = now_us() - t0;
        MUST(mj_task_decode(buf.p, buf.n, &t));
        memcpy(ops[0].ref, t.ref, sizeof t.ref);
        buf.n = 0;
        t0 = now_us();
        MUST(mj_store_get(s, ops[0].ref, &buf));
        get_us[i] = now_us() - t0;
    }
    mj_buf_free(&buf);
    printf("get (just found): p50 %.2f us, p99 %.2f us\n", quantile(get_us, SAMPLES, 0.5),
           quantile(get_us, SAMPLES, 0.99));
    printf("find by task id, at random: p50 %.2f us, p99 %.2f us, %.0f/s\n", quantile(find_us, SAMPLES, 0.5),
           quantile(find_us, SAMPLES, 0.99), 1e6 / quantile(find_us, SAMPLES, 0.5));
}

static void small_things(mj_store *s, const char *dir)
{
    static double us[2001];
    mj_store_options o = {.rules = mj_rules_default};
    mj_stats st;
    mj_query q;
    mj_buf buf = {0};
    double t0;

    for (int i = 0; i < 2001; i++) {
        t0 = now_us();
        MUST(mj_store_stats(s, &st));
        us[i] = now_us() - t0;
    }
    printf("stats(): p50 %.2f us\n", quantile(us, 2001, 0.5));
    for (int i = 0; i < 2001; i++) {
        t0 = now_us();
        for (int due = MJ_DUE_POLL; due <= MJ_DUE_OWNER; due++) {
            q = (mj_query){.order = MJ_BY_DUE, .due = (mj_due)due, .until = EPOCH, .limit = 100};
            MUST(mj_store_page(s, &q, &buf));
        }
        us[i] = now_us() - t0;
    }
    printf("due scan of all jobs that finds nothing: p50 %.2f us (aim: under 50)\n", quantile(us, 2001, 0.5));
    mj_buf_free(&buf);
    mj_store_close(s);
    for (int i = 0; i < 21; i++) {
        char why[256];
        t0 = now_us();
        MUST(mj_store_open(dir, &o, &s, why, sizeof why));
        us[i] = now_us() - t0;
        mj_store_close(s);
    }
    printf("open: p50 %.3f ms (aim: under 2)\n", quantile(us, 21, 0.5) / 1e3);
}

/* ---- apply, beside raw LMDB ----
 *
 * Raw LMDB works on a copy of the store's own file and goes through the same life: a young file has its free pages
 * in one piece and would write them in fewer calls, which has nothing to do with what an apply costs. */

typedef struct raw {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi task, tid, key, user, state, due, slot, event, outbox;
} raw;

typedef struct rawjob { /* what the store holds of one task before and after its callback */
    uint8_t ref[16];
    mj_buf pending, record;
} rawjob;

static void raw_open(raw *r, const char *dir, const char *raw_dir)
{
    static const char *const names[] = {"task", "tid", "key", "user", "state", "due", "slot", "event", "outbox"};
    MDB_dbi *const dbis[] = {&r->task, &r->tid, &r->key, &r->user, &r->state, &r->due, &r->slot, &r->event, &r->outbox};
    char cmd[9000];
    MDB_txn *t;

    MUST(mkdir(raw_dir, 0700));
    snprintf(cmd, sizeof cmd, "cp --sparse=always '%s/data.mdb' '%s/data.mdb'", dir, raw_dir);
    MUST(system(cmd));
    MUST(mdb_env_create(&r->env));
    MUST(mdb_env_set_maxdbs(r->env, 16));
    MUST(mdb_env_set_mapsize(r->env, (size_t)256 << 30));
    MUST(mdb_env_open(r->env, raw_dir, MDB_NOTLS, 0600));
    MUST(mdb_txn_begin(r->env, NULL, 0, &t));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        MUST(mdb_dbi_open(t, names[i], 0, dbis[i]));
    MUST(mdb_txn_commit(t));
}

static void put(const raw *r, MDB_dbi dbi, const void *k, size_t kn, const void *v, size_t vn)
{
    MDB_val key = {kn, (void *)(uintptr_t)k}, value = {vn, (void *)(uintptr_t)v};
    MUST(mdb_put(r->txn, dbi, &key, &value, 0));
}

static void del(const raw *r, MDB_dbi dbi, const void *k, size_t kn)
{
    MDB_val key = {kn, (void *)(uintptr_t)k};
    MUST(mdb_del(r->txn, dbi, &key, NULL));
}

/* A key of the sizes that the store uses: `head` bytes, the ref, `tail` zero bytes. */
static size_t raw_key(uint8_t *k, uint8_t first, size_t head, const uint8_t *ref, size_t tail)
{
    memset(k, 0, head + 16 + tail);
    k[0] = first;
    memcpy(k + head, ref, 16);
    return head + 16 + tail;
}

static void raw_create(const raw *r, const rawjob *j, const job *what)
{
    uint8_t k[300];
    size_t n = strlen(what->user);

    put(r, r->task, j->ref, 16, j->pending.p, j->pending.n);
    put(r, r->tid, what->id, strlen(what->id), k, 20);
    put(r, r->key, what->key, strlen(what->key), k, 32);
    k[0] = 0, k[1] = (uint8_t)n;
    memcpy(k + 2, what->user, n);
    memcpy(k + 2 + n, j->ref, 16);
    put(r, r->user, k, 2 + n + 16, "", 0);
    put(r, r->state, k, raw_key(k, MJ_PENDING, 1, j->ref, 0), "", 0);
    put(r, r->due, k, raw_key(k, 1, 9, j->ref, 0), "", 0);
    put(r, r->slot, k, raw_key(k, 0, 8, j->ref, 4), "default", 7);
}

/* The bytes that one callback writes: record, state entry, event, outbox entry; no reads, logic or deletes. */
static void raw_succeed(const raw *r, const rawjob *j, const job *what)
{
    static const uint8_t event[48] = {1};
    uint8_t k[64];

    (void)what;
    put(r, r->task, j->ref, 16, j->record.p, j->record.n);
    put(r, r->state, k, raw_key(k, MJ_SUCCEEDED, 1, j->ref, 0), "", 0);
    put(r, r->event, k, raw_key(k, j->ref[0], 0, j->ref, 4), event, 40);
    put(r, r->outbox, k, raw_key(k, 0, 8, j->ref, 4), "", 0);
}

static void raw_finish(const raw *r, const rawjob *j, const job *what)
{
    uint8_t k[64];

    (void)what;
    del(r, r->state, k, raw_key(k, MJ_PENDING, 1, j->ref, 0));
    del(r, r->due, k, raw_key(k, 1, 9, j->ref, 0));
    del(r, r->slot, k, raw_key(k, 0, 8, j->ref, 4));
    del(r, r->event, k, raw_key(k, j->ref[0], 0, j->ref, 4));
    del(r, r->outbox, k, raw_key(k, 0, 8, j->ref, 4));
}

/* Tasks per second. */
static double raw_all(raw *r, void (*step)(const raw *, const rawjob *, const job *), const rawjob *j, const job *what,
                      size_t total, size_t batch)
{
    double t0 = now_us();

    for (size_t n = 0; n < total; n += batch) {
        MUST(mdb_txn_begin(r->env, NULL, 0, &r->txn));
        for (size_t i = n; i < n + batch && i < total; i++)
            step(r, &j[i], &what[i]);
        MUST(mdb_txn_commit(r->txn));
    }
    return (double)total / ((now_us() - t0) / 1e6);
}

static double write_all(mj_store *s, mj_op *op, size_t total, size_t batch, int64_t now)
{
    double t0 = now_us();

    for (size_t n = 0; n < total; n += batch)
        MUST(mj_store_write(s, op + n, total - n < batch ? total - n : batch, now));
    return (double)total / ((now_us() - t0) / 1e6);
}

/* `total` pending tasks are made (not timed), then brought to succeeded in batches (timed). */
static double apply_rate(mj_store *s, job *j, mj_op *op, rawjob *raws, uint64_t *next, size_t total, size_t batch)
{
    int64_t now = EPOCH + 4000000000;
    double rate;

    for (size_t i = 0; i < total; i++) {
        make_job(&j[i], (*next)++);
        op_adopt(&op[i], &j[i]);
        op[i].want = true;
    }
    write_all(s, op, total, LOAD_BATCH, now);
    for (size_t i = 0; i < total; i++) {
        memcpy(raws[i].ref, op[i].ref, 16);
        mj_buf_free(&raws[i].pending);
        raws[i].pending = op[i].record;
        op[i].record = (mj_buf){0};
        mj_op_clear(&op[i]);
        op_succeed(&op[i], &j[i]);
    }
    rate = write_all(s, op, total, batch, now + 5000);
    for (size_t i = 0; i < total; i++) {
        if (op[i].code != MJ_OK)
            exit(2);
        mj_buf_free(&raws[i].record);
        MUST(mj_store_get(s, raws[i].ref, &raws[i].record));
        mj_op_clear(&op[i]);
    }
    deliver_all(s, now + 6000);
    return rate;
}

static void applies(const char *dir, const char *raw_dir, uint64_t tasks)
{
    static const size_t batches[] = {1, 16, 256, 1024}, totals[] = {1000, 8000, 65536, 65536};
    enum { MOST = 65536 };
    job *j = calloc(MOST, sizeof *j);
    mj_op *op = calloc(MOST, sizeof *op);
    rawjob *raws = calloc(MOST, sizeof *raws);
    mj_store_options o = {.rules = mj_rules_default};
    uint64_t next = tasks + 1000000000;
    char why[256];
    mj_store *s;
    raw r;

    raw_open(&r, dir, raw_dir);
    MUST(mj_store_open(dir, &o, &s, why, sizeof why));
    for (size_t b = 0; b < 4; b++) {
        double ours[ROUNDS], theirs[ROUNDS], ratio[ROUNDS];
        for (int round = 0; round < ROUNDS; round++) {
            ours[round] = apply_rate(s, j, op, raws, &next, totals[b], batches[b]);
            raw_all(&r, raw_create, raws, j, totals[b], LOAD_BATCH);
            theirs[round] = raw_all(&r, raw_succeed, raws, j, totals[b], batches[b]);
            raw_all(&r, raw_finish, raws, j, totals[b], LOAD_BATCH);
            ratio[round] = ours[round] / theirs[round];
        }
        printf("apply, %4zu to a transaction: %8.0f/s; raw LMDB puts of the same bytes: %8.0f/s; ratio %.2f%s\n",
               batches[b], quantile(ours, ROUNDS, 0.5), quantile(theirs, ROUNDS, 0.5), quantile(ratio, ROUNDS, 0.5),
               batches[b] == 16 || batches[b] == 256 ? " (aim: 0.85)" : "");
    }
    for (size_t i = 0; i < MOST; i++) {
        mj_buf_free(&raws[i].record);
        mj_buf_free(&raws[i].pending);
    }
    free(raws);
    free(op);
    free(j);
    mj_store_close(s);
    mdb_env_close(r.env);
}

/* One part, on a store that stays. */
static int part(const char *name, uint64_t tasks, const char *dir)
{
    mj_store_options o = {.rules = mj_rules_default};
    bool loads = strcmp(name, "load") == 0;
    char why[256];
    mj_store *s;

    if (tasks == 0 || (!loads && strcmp(name, "find") != 0))
        return 64;
    MUST(mj_store_open(dir, &o, &s, why, sizeof why));
    if (loads) {
        load(s, tasks);
        report_size(dir, tasks);
    } else {
        reads(s, tasks);
    }
    mj_store_close(s);
    return 0;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 4)
        return part(argv[1], strtoull(argv[2], NULL, 10), argv[3]);

    uint64_t tasks = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    const char *base = argc > 2 ? argv[2] : getenv("TMPDIR");
    char dir[4000], raw_dir[4096], why[256], cmd[4200];
    mj_store_options o = {.rules = mj_rules_default};
    struct rusage ru;
    mj_store *s;

    snprintf(dir, sizeof dir, "%s/mjhook-bench.XXXXXX", base ? base : "/tmp");
    if (tasks == 0 || !mkdtemp(dir))
        return 64;
    snprintf(raw_dir, sizeof raw_dir, "%s/raw", dir);
    strncat(dir, "/store", sizeof dir - strlen(dir) - 1);
    MUST(mj_store_open(dir, &o, &s, why, sizeof why));
    load(s, tasks);
    report_size(dir, tasks);
    reads(s, tasks);
    small_things(s, dir);
    getrusage(RUSAGE_SELF, &ru);
    printf("RSS so far: %.0f MiB at most, of which the mapped file is a cache that the kernel takes back\n",
           (double)ru.ru_maxrss / 1024);
    applies(dir, raw_dir, tasks);
    *strrchr(dir, '/') = '\0';
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd) == 0 ? 0 : 1;
}
