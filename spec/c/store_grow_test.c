/* A store that grows, fills up, and whose disk fails, while threads and processes read and write. */
#include "store_check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static const uint64_t MIB = 1 << 20;
static char padding[60000];

/* ---- a disk that fails when told to ---- */

static atomic_int fail_data, fail_root, fail_sync; /* errno, or 0 */

static bool broken(atomic_int *how)
{
    errno = atomic_load(how);
    return errno != 0;
}

/* liblmdb finds these before the C library's. */
#pragma GCC visibility push(default)

/* The first two pages of data.mdb are the roots: LMDB writes one of them to commit. */
ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (at < 8192 ? broken(&fail_root) : broken(&fail_data))
        return -1;
    return syscall(SYS_pwrite64, fd, p, n, at);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    if (broken(&fail_data))
        return -1;
    return syscall(SYS_pwritev, fd, v, n, at, 0);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    if (broken(&fail_data))
        return -1;
    return syscall(SYS_writev, fd, v, n);
}

int fdatasync(int fd)
{
    if (broken(&fail_sync))
        return -1;
    return (int)syscall(SYS_fdatasync, fd);
}

static char *next_map; /* where the next map of a store goes, if it is set */

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t from)
{
    if (next_map && (flags & MAP_SHARED) && n >= 16u << 20) {
        at = next_map;
        next_map += n / 2;
    }
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, from);
}

#pragma GCC visibility pop

/* ---- */

static uint64_t look_size(const char *path)
{
    struct stat st;
    CHECK_INT(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static int add_big(mj_store *s, size_t n, int64_t now)
{
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .context = {padding, sizeof padding}};
    mj_op ops[64] = {{0}};
    int rc;

    CHECK(n <= 64);
    for (size_t i = 0; i < n; i++)
        ops[i] = (mj_op){.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};
    rc = mj_store_write(s, ops, n, now);
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(ops[i].code, rc);
        mj_op_clear(&ops[i]);
    }
    return rc;
}

TEST("a store starts at 16 MiB and grows to hundreds under one writer")
{
    mj_store *s = open_store();

    memset(padding, 'x', sizeof padding);
    CHECK_INT(stats(s).map_size, 16 * MIB);
    for (int i = 0; i < 60; i++)
        CHECK_INT(add_big(s, 64, T0), MJ_OK);
    CHECK(stats(s).map_used > 200 * MIB);
    CHECK_INT(check_store(s), 3840);
    mj_store_close(s);
    s = open_store(); /* and is as large when opened again: nothing has to grow first */
    CHECK(stats(s).map_size >= 256 * MIB);
    mj_store_close(s);
}

/* Whether the kernel was told that the store's map is read at random (VmFlags "rr" of its mapping). */
static bool reads_only_what_is_asked_for(void)
{
    FILE *f = fopen("/proc/self/smaps", "re");
    bool inside = false, told = false;
    char line[512];

    CHECK(f != NULL);
    while (fgets(line, sizeof line, f)) {
        unsigned long low, high;
        if (sscanf(line, "%lx-%lx", &low, &high) == 2)
            inside = strstr(line, "/data.mdb\n") != NULL;
        if (inside && strncmp(line, "VmFlags:", 8) == 0)
            told = strstr(line, " rr ") != NULL;
    }
    fclose(f);
    return told;
}

TEST("nothing is read ahead of a page that is looked at, also when the map has grown")
{
    mj_store *s = open_store(), *other;
    int status;

    memset(padding, 'x', sizeof padding);
    CHECK(reads_only_what_is_asked_for());
    for (int i = 0; i < 5; i++)
        CHECK_INT(add_big(s, 64, T0), MJ_OK);
    CHECK(stats(s).map_size > 16 * MIB);
    CHECK(reads_only_what_is_asked_for());
    mj_store_close(s);
    s = open_store();
    if (fork() == 0) {
        other = open_store();
        for (int i = 0; i < 5; i++)
            CHECK_INT(add_big(other, 64, T0), MJ_OK);
        _exit(0);
    }
    CHECK(wait(&status) > 0 && status == 0);
    CHECK_INT(add_big(s, 1, T0), MJ_OK); /* as large as another process made it */
    CHECK(reads_only_what_is_asked_for());
    mj_store_close(s);
}

typedef struct worker {
    pthread_t thread;
    mj_store *s;
    int rounds;
    bool writes;
} worker;

static atomic_uint written;

static void *work(void *arg)
{
    worker *w = arg;
    mj_store *s = w->s;
    mj_buf b = {0};

    for (int i = 0; i < w->rounds; i++) {
        if (w->writes) {
            CHECK_INT(add_big(s, 16, T0), MJ_OK);
            atomic_fetch_add(&written, 16);
        } else {
            mj_query q = {.order = MJ_BY_AGE, .limit = 20};
            mj_reader r;
            unsigned before = atomic_load(&written), n = 0;
            b.n = 0;
            CHECK_INT(mj_store_page(s, &q, &b), MJ_OK);
            for (r = mj_reader_of(b.p ? b.p : (uint8_t *)"", b.n); r.p < r.end; n++) {
                mj_str record = mj_get_str(&r);
                mj_task t;
                CHECK_INT(mj_task_decode(record.p, record.n, &t), MJ_OK);
                CHECK(t.context.n == sizeof padding && memcmp(t.context.p, padding, sizeof padding) == 0);
            }
            CHECK(n >= (before < 20 ? before : 20));
        }
    }
    mj_buf_free(&b);
    return NULL;
}

/* Two threads write and two read, each with its own handle, all of one environment. */
static void crowd(int rounds)
{
    worker w[4];

    for (int i = 0; i < 4; i++) {
        w[i] = (worker){.s = open_store(), .rounds = i < 2 ? rounds : rounds * 4, .writes = i < 2};
        CHECK_INT(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK_INT(pthread_join(w[i].thread, NULL), 0);
    for (int i = 0; i < 4; i++)
        mj_store_close(w[i].s);
}

TEST("threads and processes read and write while the map grows under all of them")
{
    pid_t pids[3];
    int status;
    mj_store *s;

    memset(padding, 'y', sizeof padding);
    mj_store_close(open_store());
    for (int i = 0; i < 3; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0) {
            crowd(40);
            _exit(0);
        }
    }
    for (int i = 0; i < 3; i++) {
        CHECK_INT(waitpid(pids[i], &status, 0), pids[i]);
        CHECK_INT(status, 0);
    }
    s = open_store();
    CHECK_INT(check_store(s), 3 * 2 * 40 * 16);
    CHECK(stats(s).map_used > 200 * MIB);
    mj_store_close(s);
}

TEST("readers without a pause do not keep the map from growing")
{
    worker readers[2];
    mj_store *s = open_store();

    for (int i = 0; i < 2; i++) {
        readers[i] = (worker){.s = open_store(), .rounds = 3000};
        CHECK_INT(pthread_create(&readers[i].thread, NULL, work, &readers[i]), 0);
    }
    for (int i = 0; i < 16; i++)
        CHECK_INT(add_big(s, 64, T0), MJ_OK);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pthread_join(readers[i].thread, NULL), 0);
        mj_store_close(readers[i].s);
    }
    mj_store_close(s);
}

static void *open_and_close(void *arg)
{
    for (int i = 0; i < 100; i++) {
        mj_store *s = open_store();
        CHECK(stats(s).states[MJ_QUEUED] > 0);
        mj_store_close(s);
    }
    return arg;
}

TEST("handles are opened and closed while others of the same process read")
{
    mj_store *s = open_store();
    pthread_t threads[3];
    worker reader;

    CHECK_INT(add_big(s, 30, T0), MJ_OK);
    reader = (worker){.s = s, .rounds = 1000};
    CHECK_INT(pthread_create(&reader.thread, NULL, work, &reader), 0);
    for (int i = 0; i < 3; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, open_and_close, NULL), 0);
    for (int i = 0; i < 3; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(pthread_join(reader.thread, NULL), 0);
    mj_store_close(s);
}

/* ---- full ---- */

TEST("at map_max a write is `no_space` with a reason, nothing is lost, and reads go on")
{
    mj_store *s = open_store_at("store", &(mj_store_options){.rules = mj_rules_default, .map_max = 8 * MIB});
    unsigned n = 0;
    mj_store *more;
    ref r = add(s, (job){0}, T0);

    while (add_big(s, 1, T0) == MJ_OK)
        n++;
    CHECK(n > 50);
    CHECK_INT(add_big(s, 64, T0), MJ_ENOSPC);
    CHECK(strstr(mj_store_detail(s), "map_max") != NULL);
    CHECK(look_size("store/data.mdb") <= 8 * MIB);
    CHECK_INT(check_store(s), n + 1);
    CHECK_INT(state_of(s, r), MJ_QUEUED);
    more = open_store_at("store", &(mj_store_options){.rules = mj_rules_default, .map_max = 64 * MIB});
    CHECK_INT(add_big(s, 64, T0), MJ_OK); /* raised */
    CHECK_INT(check_store(s), n + 65);
    mj_store_close(more);
    mj_store_close(s);
}

TEST("a batch that is run again on a larger map is run once")
{
    mj_store *s = open_store_at("store", &(mj_store_options){.rules = mj_rules_default});
    mj_task big = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .context = {padding, sizeof padding}}, keyed = big;
    mj_op ops[1000] = {{0}};

    keyed.key = str("k");
    accounts(s, "main", 1, NULL, 0);
    for (int i = 0; i < 1000; i++) {
        ops[i] = (mj_op){.kind = MJ_OP_CREATE, .task = i == 1 ? &keyed : &big, .sig = signal_of(SIG_CREATE)};
        ops[i].want = true;
    }
    ops[0] = (mj_op){.kind = MJ_OP_CREATE, .task = &big, .sig = signal_of(SIG_CREATE)};
    ops[0].sig.task_id = str("T1");
    ops[2] = (mj_op){.kind = MJ_OP_SIGNAL, .sig = signal_of(SIG_SUCCEEDED)}; /* by id: address and attempt are found */
    ops[3] = (mj_op){.kind = MJ_OP_EVENT_TAKE, .until = T0 + MINUTE};
    ops[4] = (mj_op){.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)};
    CHECK_INT(mj_store_write(s, ops, 1000, T0), MJ_OK);
    CHECK(stats(s).map_size > 16 * MIB);
    for (int i = 0; i < 1000; i++)
        CHECK_INT(ops[i].code, MJ_OK);
    CHECK_INT(ops[3].event.tries, 1);
    CHECK_INT(ops[2].made, MJ_EVENT_SUCCEEDED);
    CHECK_INT(ops[2].sig.attempt, 0); /* what went in is as it was */
    CHECK_INT(check_store(s), 997);
    for (int i = 0; i < 1000; i++)
        mj_op_clear(&ops[i]);
    mj_store_close(s);
}

TEST("the map grows once for two that found it full")
{
    mj_store *s = open_store();

    CHECK_INT(mj_env_grow(lmdb_of(s)->env, 16 * MIB), MJ_OK);
    CHECK_INT(stats(s).map_size, 32 * MIB);
    CHECK_INT(mj_env_grow(lmdb_of(s)->env, 16 * MIB), MJ_OK);
    CHECK_INT(stats(s).map_size, 32 * MIB);
    mj_store_close(s);
}

/* ---- a sick disk ---- */

static void fails_and_recovers(atomic_int *what, int with, int code)
{
    mj_store *s = open_durable(), *other = open_durable();
    ref r = add(s, (job){0}, T0);

    CHECK_INT(state_of(other, r), MJ_QUEUED);
    atomic_store(what, with);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(add_big(s, 3, T0), code);
        CHECK(mj_store_detail(s)[0] != '\0');
        CHECK_INT(state_of(s, r), MJ_QUEUED); /* reading goes on */
        CHECK_INT(state_of(other, r), MJ_QUEUED);
    }
    atomic_store(what, 0);
    CHECK_INT(add_big(s, 3, T0), MJ_OK);
    CHECK_INT(add_big(other, 3, T0), MJ_OK);
    CHECK_INT(state_of(other, r), MJ_QUEUED);
    CHECK_INT(check_store(s), 7);
    mj_store_close(s);
    CHECK_INT(check_store(other), 7);
    mj_store_close(other);
    s = open_durable();
    CHECK_INT(check_store(s), 7);
    mj_store_close(s);
}

TEST("a full disk loses nothing that was acknowledged and is over when there is room again")
{
    fails_and_recovers(&fail_data, ENOSPC, MJ_ENOSPC);
}

TEST("a disk that can't sync acknowledges nothing, and is well when it can")
{
    fails_and_recovers(&fail_sync, EIO, MJ_EIO);
}

TEST("a root that can't be written, after which LMDB refuses everything, needs no restart")
{
    fails_and_recovers(&fail_root, ENOSPC, MJ_ENOSPC);
}

TEST("... wherever its map lies afterwards, also across the place where it lay")
{
    size_t room = 256u << 20;

    next_map = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(next_map != MAP_FAILED && munmap(next_map, room) == 0);
    fails_and_recovers(&fail_root, ENOSPC, MJ_ENOSPC);
}

TEST("... wherever the process has gone meanwhile")
{
    mj_store *s = open_durable();

    CHECK_INT(mkdir("elsewhere", 0700) + chdir("elsewhere"), 0);
    atomic_store(&fail_root, EIO);
    CHECK_INT(add_big(s, 1, T0), MJ_EIO);
    atomic_store(&fail_root, 0);
    CHECK_INT(add_big(s, 1, T0), MJ_OK);
    mj_store_close(s);
}

TEST("threads of one process all outlive a root that can't be written")
{
    mj_store *s = open_durable();
    worker readers[3];

    CHECK_INT(add_big(s, 30, T0), MJ_OK);
    for (int i = 0; i < 3; i++) {
        readers[i] = (worker){.s = open_durable(), .rounds = 500};
        CHECK_INT(pthread_create(&readers[i].thread, NULL, work, &readers[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        atomic_store(&fail_root, EIO);
        CHECK_INT(add_big(s, 1, T0), MJ_EIO);
        atomic_store(&fail_root, 0);
        CHECK_INT(add_big(s, 1, T0), MJ_OK);
    }
    for (int i = 0; i < 3; i++) {
        CHECK_INT(pthread_join(readers[i].thread, NULL), 0);
        mj_store_close(readers[i].s);
    }
    CHECK_INT(check_store(s), 50);
    mj_store_close(s);
}
