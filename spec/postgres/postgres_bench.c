/* make bench, section postgres: PostgreSQL beside LMDB, in the same run.
 *
 *   postgres_bench lmdb DIR | postgres URL  WORK CONNECTIONS BATCH TASKS
 *
 * WORK: apply   callbacks that make pending tasks succeed
 *       events  their events are taken and done
 *       claims  queued tasks are claimed, sent and answered, on 4 accounts with 10 slots each
 *       reads   get by ref; with a BATCH of 2 a due scan that finds nothing
 *       updates each task is told 25 times that it still runs
 * Prints one line: operations a second, p50 and p99 of a batch in ms.  LOADED=1: the store has these tasks already. */
#include "base/error.h"
#include "store/backend.h"
#include "store/postgres/postgres.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOAD = 1024, MOST = 64 };

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        int must_rc = (call);                                                                                          \
        if (must_rc != 0) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: %d\n", __FILE__, __LINE__, #call, must_rc);                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static const int64_t EPOCH = 1776211200000;

static const mj_backend *backend;
static const char *where;
static unsigned connections, batch;
static size_t tasks;
static bool shuffled;

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static mj_store *open_store(void)
{
    mj_store_options o = {.rules = mj_rules_default, .schema = getenv("MJHOOK_SCHEMA")};
    char names[4][8], why[512];
    mj_account a[4];
    mj_store *s;

    if (mj_store_open_on(backend, where, &o, &s, why, sizeof why) != MJ_OK) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    for (int i = 0; i < 4; i++) {
        snprintf(names[i], sizeof names[i], "a%d", i);
        a[i] = (mj_account){{names[i], (uint32_t)strlen(names[i])}, 10};
    }
    MUST(mj_store_accounts(s, a, 4));
    return s;
}

static void write_all(mj_store *s, mj_op *ops, size_t n, int64_t now)
{
    int rc = mj_store_write(s, ops, n, now);

    if (rc != MJ_OK) {
        fprintf(stderr, "write: %s: %s\n", mj_error_name(rc), mj_store_detail(s));
        exit(1);
    }
}

/* ---- jobs, as in store_bench.c ---- */

typedef struct job {
    mj_task task;
    uint8_t ref[MJ_ULID_BYTES];
    char prompt[160], user[32], id[32], image[96], more[4][96], key[40];
} job;

static mj_str text(const char *s)
{
    return (mj_str){s, (uint32_t)strlen(s)};
}

static void make_job(job *j, size_t n)
{
    uint64_t r = n * 0x9e3779b97f4a7c15u;

    memset(j, 0, sizeof *j);
    snprintf(j->prompt, sizeof j->prompt, "a red fox in the snow, golden hour, 85mm lens, take %zu --ar 4:5 --s 250",
             n);
    snprintf(j->user, sizeof j->user, "user-%" PRIu64, r % 50000);
    snprintf(j->key, sizeof j->key, "order-%zu-%ld", n, (long)getpid());
    snprintf(j->id, sizeof j->id, "Mt%016" PRIx64 "%lx", r, (long)getpid());
    snprintf(j->image, sizeof j->image, "https://cdn.midjourney.com/%016" PRIx64 "/grid_0.png", r);
    for (int i = 0; i < 4; i++)
        snprintf(j->more[i], sizeof j->more[i], "https://cdn.midjourney.com/%016" PRIx64 "/0_%d.png", r, i);
    j->task.prompt = text(j->prompt);
    j->task.user_id = text(j->user);
    j->task.key = text(j->key);
    j->task.context = MJ_LIT("{\"order\":1234567,\"shop\":\"north\"}");
    j->task.timeout = 600;
}

static mj_op op_create(job *j, bool adopted)
{
    mj_op op = {
        .kind = MJ_OP_CREATE, .task = &j->task, .sig = {.source = MJ_FROM_USER, .expect_state = -1, .wait_ms = -1}};

    if (adopted) {
        op.sig.account = MJ_LIT("a0");
        op.sig.task_id = text(j->id);
    }
    return op;
}

static mj_op op_succeed(job *j)
{
    mj_op op = {.kind = MJ_OP_SIGNAL,
                .has_ref = true,
                .sig = {.kind = SIG_SUCCEEDED,
                        .source = MJ_FROM_CALLBACK,
                        .attempt = 1,
                        .expect_state = -1,
                        .wait_ms = -1,
                        .task_id = text(j->id),
                        .image = text(j->image),
                        .nimages = 4,
                        .mj_prompt = j->task.prompt,
                        .meta = MJ_LIT("{\"width\":1024,\"height\":1024}")}};

    memcpy(op.ref, j->ref, sizeof op.ref);
    for (int i = 0; i < 4; i++)
        op.sig.images[i] = text(j->more[i]);
    return op;
}

static void load(job *jobs, bool adopted)
{
    static mj_op ops[LOAD];
    mj_store *s = open_store();

    for (size_t n = 0; n < tasks; n += LOAD) {
        size_t k = tasks - n < LOAD ? tasks - n : LOAD;
        for (size_t i = 0; i < k; i++) {
            make_job(&jobs[n + i], n + i);
            ops[i] = op_create(&jobs[n + i], adopted);
        }
        write_all(s, ops, k, EPOCH);
        for (size_t i = 0; i < k; i++) {
            memcpy(jobs[n + i].ref, ops[i].ref, sizeof ops[i].ref);
            mj_op_clear(&ops[i]);
        }
    }
    mj_store_close(s);
}

/* ---- work in threads ---- */

typedef struct worker {
    pthread_t thread;
    mj_store *s;
    job *jobs;
    size_t n, done, batches;
    double *took;
} worker;

static pthread_barrier_t start;

static void apply(worker *w)
{
    mj_op *ops = calloc(batch, sizeof *ops);

    for (size_t n = 0; n < w->n; n += batch) {
        size_t k = w->n - n < batch ? w->n - n : batch;
        double began;
        for (size_t i = 0; i < k; i++)
            ops[i] = op_succeed(&w->jobs[n + i]);
        began = now_ms();
        write_all(w->s, ops, k, EPOCH + 5000);
        w->took[w->batches++] = now_ms() - began;
        for (size_t i = 0; i < k; i++) {
            w->done += ops[i].code == MJ_OK;
            mj_op_clear(&ops[i]);
        }
    }
    free(ops);
}

static void events(worker *w)
{
    mj_op *take = calloc(batch, sizeof *take), *done = calloc(batch, sizeof *done);
    size_t k, empty = 0;

    do {
        double began = now_ms();
        for (unsigned i = 0; i < batch; i++)
            take[i] = (mj_op){.kind = MJ_OP_EVENT_TAKE, .until = EPOCH + 1000000};
        write_all(w->s, take, batch, EPOCH + 6000);
        for (k = 0; k < batch && take[k].code == MJ_OK; k++)
            done[k] = (mj_op){.kind = MJ_OP_EVENT_DONE, .event = take[k].event};
        if (k > 0)
            write_all(w->s, done, k, EPOCH + 6000);
        w->done += k;
        w->took[w->batches++] = now_ms() - began;
        for (unsigned i = 0; i < batch; i++) {
            mj_op_clear(&take[i]);
            if (i < k)
                mj_op_clear(&done[i]);
        }
        empty = k == 0 ? empty + 1 : 0;
    } while (empty < 2 && w->batches < w->n);
    free(take);
    free(done);
}

/* A claim, and the provider's word that ends the job. */
static void claims(worker *w)
{
    for (size_t n = 0; n < w->n; n++) {
        mj_op claim = {
            .kind = MJ_OP_CLAIM, .want = true, .sig = {.source = MJ_FROM_SUBMIT, .expect_state = -1, .wait_ms = -1}};
        double began = now_ms();
        write_all(w->s, &claim, 1, EPOCH + 1000);
        if (claim.code == MJ_OK) {
            job end;
            mj_op over;
            w->took[w->batches++] = now_ms() - began;
            make_job(&end, w->done++ * 64 + (size_t)(w - (worker *)0) % 64);
            snprintf(end.id, sizeof end.id, "C%zu-%p", w->done, (void *)w);
            memcpy(end.ref, claim.ref, sizeof end.ref);
            over = op_succeed(&end);
            write_all(w->s, &over, 1, EPOCH + 2000);
            mj_op_clear(&over);
        }
        mj_op_clear(&claim);
    }
}

static void reads(worker *w)
{
    mj_buf b = {0};

    for (size_t n = 0; n < w->n; n++) {
        double began = now_ms();
        mj_query q = {.order = MJ_BY_DUE, .due = MJ_DUE_POLL, .until = EPOCH - 1, .limit = 100};
        b.n = 0;
        if (batch > 1)
            MUST(mj_store_page(w->s, &q, &b));
        else
            MUST(mj_store_get(w->s, w->jobs[n].ref, &b));
        w->took[w->batches++] = now_ms() - began;
        w->done++;
    }
    mj_buf_free(&b);
}

/* Polls that find the job at work: the record changes, and when it is due. */
static void updates(worker *w)
{
    enum { ROUNDS = 25 };
    mj_op *ops = calloc(batch, sizeof *ops);
    double slowest = 0, all = 0;

    for (int64_t round = 1; round <= ROUNDS; round++) {
        double began = now_ms(), took;
        for (size_t n = 0; n < w->n; n += batch) {
            size_t k = w->n - n < batch ? w->n - n : batch;
            double at = now_ms();
            for (size_t i = 0; i < k; i++) {
                ops[i] = op_succeed(&w->jobs[n + i]);
                ops[i].sig.kind = SIG_RUNNING;
                ops[i].sig.source = MJ_FROM_POLL;
                ops[i].sig.nimages = 0;
                ops[i].sig.image = (mj_str){0};
            }
            write_all(w->s, ops, k, EPOCH + 1000 + round * 60000);
            if (w->batches < w->n)
                w->took[w->batches++] = now_ms() - at;
            for (size_t i = 0; i < k; i++) {
                w->done += ops[i].code == MJ_OK;
                mj_op_clear(&ops[i]);
            }
        }
        took = now_ms() - began;
        slowest = took > slowest ? took : slowest;
        all += took;
    }
    printf("the slowest of %d rounds has %.2f of the rate of all\n", ROUNDS, all / ROUNDS / slowest);
    free(ops);
}

static void (*work)(worker *w);

/* The refs of tasks that are there. */
static void find(job *jobs)
{
    mj_query q = {.refs = true, .limit = LOAD};
    mj_store *s = open_store();
    mj_buf b = {0};
    size_t n = 0;

    do {
        mj_reader r;
        b.n = 0;
        MUST(mj_store_page(s, &q, &b));
        r = mj_reader_of(b.p, b.n);
        while (r.p < r.end && n < tasks)
            memcpy(jobs[n++].ref, mj_get_str(&r).p, MJ_ULID_BYTES);
    } while (q.more && n < tasks);
    tasks = n;
    mj_buf_free(&b);
    mj_store_close(s);
}

static void *run(void *arg)
{
    worker *w = arg;

    w->s = open_store();
    pthread_barrier_wait(&start);
    work(w);
    mj_store_close(w->s);
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*work)(worker *w);
    } all[] = {{"apply", apply}, {"events", events}, {"claims", claims}, {"reads", reads}, {"updates", updates}};
    static worker workers[MOST];
    size_t n = 0, done = 0, at = 0;
    double began, took, *each;
    job *jobs;

    if (argc != 7) {
        fprintf(stderr, "postgres_bench lmdb DIR | postgres URL  WORK CONNECTIONS BATCH TASKS\n");
        return 64;
    }
    backend = strcmp(argv[1], "lmdb") == 0 ? &mj_backend_lmdb : &mj_backend_postgres;
    where = argv[2];
    connections = (unsigned)atoi(argv[4]);
    batch = (unsigned)atoi(argv[5]);
    tasks = (size_t)atol(argv[6]);
    shuffled = getenv("SHUFFLED") != NULL;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (strcmp(all[i].name, argv[3]) == 0)
            work = all[i].work;
    jobs = calloc(tasks, sizeof *jobs);
    if (!work || !jobs || connections == 0 || connections > MOST || batch == 0)
        return 64;
    if (getenv("LOADED"))
        find(jobs);
    else
        load(jobs, work != claims);
    if (shuffled)
        for (size_t i = tasks - 1; i > 0; i--) {
            size_t k = (size_t)(i * 2654435761u % (i + 1));
            job swap = jobs[i];
            jobs[i] = jobs[k];
            jobs[k] = swap;
            jobs[i].task.prompt.p = jobs[i].prompt, jobs[k].task.prompt.p = jobs[k].prompt;
        }
    if (work == events) { /* first there have to be some */
        worker w = {.s = open_store(), .jobs = jobs, .n = tasks, .took = calloc(tasks, sizeof(double))};
        unsigned given = batch;
        batch = LOAD;
        apply(&w);
        batch = given;
        mj_store_close(w.s);
        free(w.took);
    }
    each = calloc(tasks + 2 * connections, sizeof *each);
    pthread_barrier_init(&start, NULL, connections + 1);
    for (unsigned i = 0; i < connections; i++) {
        size_t share = tasks / connections + (i < tasks % connections);
        workers[i] = (worker){.jobs = jobs + n, .n = share, .took = each + n + i};
        n += share;
        pthread_create(&workers[i].thread, NULL, run, &workers[i]);
    }
    pthread_barrier_wait(&start);
    began = now_ms();
    for (unsigned i = 0; i < connections; i++)
        pthread_join(workers[i].thread, NULL);
    took = now_ms() - began;
    for (unsigned i = 0; i < connections; i++) {
        done += workers[i].done;
        memmove(each + at, workers[i].took, workers[i].batches * sizeof *each);
        at += workers[i].batches;
    }
    qsort(each, at, sizeof *each, by_value);
    printf("%s %s, %u connections, %u to a batch: %.0f/s, p50 %.2f ms, p99 %.2f ms, %zu of %zu\n", argv[1], argv[3],
           connections, batch, (double)done / took * 1e3, at ? each[at / 2] : 0, at ? each[at * 99 / 100] : 0, done,
           tasks);
    free(jobs);
    free(each);
    return 0;
}
