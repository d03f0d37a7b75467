/* What only a database behind a network can do to a store: connections that end at any moment, also under a COMMIT;
 * writers of many processes at once; a schema that is made twice. */
#include "pg_help.h"

#define STORE_BACKEND pg_backend()
#include "rng.h"
#include "store/copy.h"
#include "store_help.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

/* The monotonic clock of this program, which a test may put forward. */
static _Atomic int64_t later_s;

int clock_gettime(clockid_t id, struct timespec *t)
{
    long rc = syscall(SYS_clock_gettime, id, t);

    if (id == CLOCK_MONOTONIC)
        t->tv_sec += atomic_load(&later_s);
    return (int)rc;
}

static mj_store *open_with(const char *url, const char *name)
{
    mj_store_options o = pg_options(name, &(mj_store_options){.rules = mj_rules_default});
    char why[512];
    mj_store *s;
    int rc = mj_store_open_on(&mj_backend_postgres, url, &o, &s, why, sizeof why);

    if (rc != MJ_OK)
        MJ_TEST_FAIL("%s: %s", mj_error_name(rc), why);
    return s;
}

static uint64_t check_clean(mj_store *s)
{
    mj_check_report report;

    CHECK_INT(mj_store_check(s, NULL, NULL, &report), MJ_OK);
    CHECK_INT(report.found, 0);
    return report.tasks;
}

/* ---- terminated connections ---- */

enum { WRITERS = 4, SECONDS = 3 };

static atomic_bool over;

typedef struct ledger {
    int number;
    unsigned acknowledged, own_duplicates, failed, unsure;
    ref refs[100000];
} ledger;

/* Creates tasks with keys of its own.  A key is used again only when nothing was acknowledged of it; that it is a
 * duplicate then is no fault if the batch's outcome was unknown. */
static void *create_on(void *arg)
{
    ledger *l = arg;
    mj_store *s = open_with(pg_url(), "store");
    bool unsure = false;

    for (unsigned n = 0; !atomic_load(&over);) {
        char key[40];
        mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str(key)};
        mj_op op = {
            .kind = MJ_OP_CREATE, .task = &t, .sig = {.source = MJ_FROM_USER, .expect_state = -1, .wait_ms = -1}};
        int rc;
        snprintf(key, sizeof key, "key %d %u", l->number, n);
        t.key = str(key);
        rc = mj_store_write(s, &op, 1, T0 + n);
        if (rc == MJ_EUNSURE) {
            l->unsure++;
            unsure = true;
        } else if (rc != MJ_OK) {
            l->failed++;
        } else {
            l->own_duplicates += op.code != MJ_OK && !unsure;
            memcpy(l->refs[n++].id, op.ref, sizeof op.ref);
            l->acknowledged = n;
            unsure = false;
        }
        mj_op_clear(&op);
    }
    mj_store_close(s);
    return NULL;
}

static void *end_backends(void *arg)
{
    rng r = rng_of(11);
    unsigned *ended = arg;

    while (!atomic_load(&over)) {
        *ended +=
            (unsigned)atoi(pg_ask("SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity "
                                  "WHERE application_name = 'mjhook' ORDER BY random() LIMIT 1) AS a"));
        usleep(1000 * (2 + below(&r, 20)));
    }
    return NULL;
}

TEST("connections that are terminated at any moment: what was acknowledged is there once, and nothing is its own "
     "duplicate")
{
    static ledger l[WRITERS];
    pthread_t threads[WRITERS], killer;
    mj_store *s = open_with(pg_url(), "store");
    unsigned ended = 0, total = 0, failed = 0;
    uint64_t tasks;

    for (int i = 0; i < WRITERS; i++) {
        l[i].number = i;
        CHECK_INT(pthread_create(&threads[i], NULL, create_on, &l[i]), 0);
    }
    CHECK_INT(pthread_create(&killer, NULL, end_backends, &ended), 0);
    sleep(SECONDS);
    atomic_store(&over, true);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    pthread_join(killer, NULL);
    mj_store_close(s);
    s = open_with(pg_url(), "store");
    for (int i = 0; i < WRITERS; i++) {
        mj_buf b = {0};
        for (unsigned n = 0; n < l[i].acknowledged; n++) {
            b.n = 0;
            CHECK_INT(mj_store_get(s, l[i].refs[n].id, &b), MJ_OK);
        }
        mj_buf_free(&b);
        CHECK_INT(l[i].own_duplicates, 0);
        total += l[i].acknowledged;
        failed += l[i].failed + l[i].unsure;
    }
    tasks = check_clean(s);
    fprintf(stderr, "%u acknowledged, %u ended, %u failed\n", total, ended, failed);
    CHECK(total > 0 && ended > 10);
    CHECK(tasks >= total && tasks <= total + failed + WRITERS);
    CHECK_INT(stats(s).states[MJ_QUEUED], tasks); /* the sums, too, count each batch once */
    mj_store_close(s);
}

/* ---- a proxy that cuts a connection at one byte ---- */

typedef struct proxy {
    char dir[64], server[108];
    int listening;
    pthread_t thread;
    _Atomic int64_t cut_up, cut_down; /* after that many bytes to the server, from it; -1: never */
    atomic_int cuts;
} proxy;

static bool copy_some(int from, int to, _Atomic int64_t *cut)
{
    char bytes[65536];
    int64_t most = atomic_load(cut);
    ssize_t n = read(from, bytes, most >= 0 && most < (int64_t)sizeof bytes ? (size_t)most + 1 : sizeof bytes);
    ssize_t give = n;

    if (n <= 0)
        return false;
    if (most >= 0 && n > most)
        give = (ssize_t)most;
    for (ssize_t done = 0, k; done < give; done += k) {
        k = write(to, bytes + done, (size_t)(give - done));
        if (k <= 0)
            return false;
    }
    if (most >= 0)
        atomic_store(cut, most - give);
    return give == n;
}

static void *pass_on(void *arg)
{
    proxy *p = arg;

    for (;;) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        int client = accept(p->listening, NULL, NULL), server = socket(AF_UNIX, SOCK_STREAM, 0);
        bool up = true;
        snprintf(to.sun_path, sizeof to.sun_path, "%s", p->server);
        if (client < 0 || connect(server, (struct sockaddr *)&to, sizeof to) != 0)
            return NULL;
        while (up) {
            struct pollfd f[2] = {{.fd = client, .events = POLLIN}, {.fd = server, .events = POLLIN}};
            poll(f, 2, -1);
            if (f[0].revents)
                up = copy_some(client, server, &p->cut_up);
            if (up && f[1].revents)
                up = copy_some(server, client, &p->cut_down);
        }
        if (atomic_load(&p->cut_up) == 0 || atomic_load(&p->cut_down) == 0) {
            atomic_fetch_add(&p->cuts, 1);
            atomic_store(&p->cut_up, -1);
            atomic_store(&p->cut_down, -1);
        }
        close(client);
        close(server);
    }
}

/* The URL by which the server is reached through it. */
static const char *start_proxy(proxy *p)
{
    static char url[300];
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    const char *dir = strstr(pg_url(), "host=");
    char plain[100] = "";

    CHECK(dir != NULL);
    for (const char *c = dir + 5; *c && *c != '&'; c++) {
        bool slash = strncmp(c, "%2F", 3) == 0;
        snprintf(plain + strlen(plain), sizeof plain - strlen(plain), "%c", slash ? '/' : *c);
        c += slash ? 2 : 0;
    }
    snprintf(p->server, sizeof p->server, "%s/.s.PGSQL.5432", plain);
    snprintf(p->dir, sizeof p->dir, "/tmp/mjproxy.%ld", (long)getpid());
    CHECK_INT(mkdir(p->dir, 0700), 0);
    snprintf(at.sun_path, sizeof at.sun_path, "%s/.s.PGSQL.5432", p->dir);
    p->listening = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_INT(bind(p->listening, (struct sockaddr *)&at, sizeof at), 0);
    CHECK_INT(listen(p->listening, 16), 0);
    atomic_store(&p->cut_up, -1);
    atomic_store(&p->cut_down, -1);
    CHECK_INT(pthread_create(&p->thread, NULL, pass_on, p), 0);
    snprintf(url, sizeof url, "postgresql://mjhook@/postgres?host=%%2Ftmp%%2Fmjproxy.%ld", (long)getpid());
    return url;
}

static void stop_proxy(proxy *p)
{
    char path[108];

    snprintf(path, sizeof path, "%s/.s.PGSQL.5432", p->dir);
    unlink(path);
    rmdir(p->dir);
}

/* One batch for each place at which its connection can be cut: it is stored, once, and says so. */
static void cut_everywhere(bool up)
{
    static proxy p;
    const char *url = start_proxy(&p);
    mj_store *s = open_with(url, "store");
    unsigned n = 0, stored = 0;
    rng r = rng_of(up ? 5 : 6);

    CHECK_INT(create(s, (job){.key = "first"}, T0), MJ_OK); /* all is prepared */
    for (int64_t at = 1; at < 6000; at += 1 + below(&r, up ? 90 : 9)) {
        char key[32];
        int before = atomic_load(&p.cuts), rc;
        snprintf(key, sizeof key, "k%u", n++);
        atomic_store(up ? &p.cut_up : &p.cut_down, at);
        rc = create(s, (job){.key = key}, T0 + n);
        if (rc != MJ_OK)
            MJ_TEST_FAIL("cut after %" PRId64 " bytes: %s", at, mj_error_name(rc));
        stored++;
        atomic_store(&p.cut_up, -1);
        atomic_store(&p.cut_down, -1);
        if (atomic_load(&p.cuts) == before && at > 500)
            break; /* the whole batch went through */
    }
    CHECK(atomic_load(&p.cuts) > 20);
    CHECK_INT(check_clean(s), stored + 1);
    CHECK_INT(stats(s).states[MJ_QUEUED], stored + 1);
    fprintf(stderr, "%u batches, %d cuts\n", n, atomic_load(&p.cuts));
    mj_store_close(s);
    stop_proxy(&p);
}

TEST("a connection that is cut at any byte on its way to the server: the batch is stored once, and says so")
{
    cut_everywhere(true);
}

TEST("a connection that is cut at any byte of the server's answer, also behind COMMIT: the batch is stored once, and "
     "says so")
{
    cut_everywhere(false);
}

/* ---- many writers ---- */

static atomic_int claimed;

typedef struct sender {
    pthread_t thread;
    unsigned sent;
} sender;

static void *send_jobs(void *arg)
{
    sender *me = arg;
    mj_store *s = open_with(pg_url(), "store");
    mj_account list[2] = {{str("a"), 3}, {str("b"), 2}};

    CHECK_INT(mj_store_accounts(s, list, 2), MJ_OK);
    while (atomic_load(&claimed) < 300) {
        mj_op op = {.kind = MJ_OP_CLAIM, .sig = {.source = MJ_FROM_SUBMIT, .expect_state = -1, .wait_ms = -1}};
        mj_op end = {.kind = MJ_OP_SIGNAL, .has_ref = true};
        char id[40];
        int rc = mj_store_write(s, &op, 1, T0 + 10);
        CHECK(rc == MJ_OK || rc == MJ_EBUSY);
        if (rc != MJ_OK || op.code != MJ_OK) {
            mj_op_clear(&op);
            sched_yield();
            continue;
        }
        snprintf(id, sizeof id, "T%d", atomic_fetch_add(&claimed, 1));
        end.sig = (mj_signal){.kind = SIG_SUCCEEDED,
                              .source = MJ_FROM_CALLBACK,
                              .attempt = 1,
                              .expect_state = -1,
                              .wait_ms = -1,
                              .task_id = str(id),
                              .image = str("https://a.example/x.png")};
        memcpy(end.ref, op.ref, sizeof end.ref);
        usleep(1000);
        do
            rc = mj_store_write(s, &end, 1, T0 + 20);
        while (rc == MJ_EBUSY);
        CHECK_INT(rc, MJ_OK);
        CHECK_INT(end.code, MJ_OK);
        me->sent++;
        mj_op_clear(&op);
        mj_op_clear(&end);
    }
    mj_store_close(s);
    return NULL;
}

TEST("eight senders on five slots: no account holds more than its cap at any moment, and each job is sent once")
{
    static sender senders[8];
    mj_store *s = open_with(pg_url(), "store");
    unsigned sent = 0, looked = 0;

    for (int i = 0; i < 320; i++)
        add(s, (job){0}, T0 + i);
    for (int i = 0; i < 8; i++)
        CHECK_INT(pthread_create(&senders[i].thread, NULL, send_jobs, &senders[i]), 0);
    while (atomic_load(&claimed) < 300) {
        CHECK_INT(atoi(pg_ask("SELECT count(*) FROM (SELECT account, count(*) AS n FROM %s.slot GROUP BY account) AS a "
                              "WHERE n > CASE account WHEN 'a' THEN 3 ELSE 2 END",
                              pg_schema("store"))),
                  0);
        looked++;
        usleep(500);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(senders[i].thread, NULL);
        sent += senders[i].sent;
    }
    fprintf(stderr, "looked %u times\n", looked);
    CHECK_INT(sent, atomic_load(&claimed));
    CHECK_INT(stats(s).states[MJ_SUCCEEDED], sent);
    CHECK_INT(check_clean(s), 320);
    mj_store_close(s);
}

enum { CHAINS = 20, LINKS = 6 };

static ref chains[CHAINS];
static atomic_uint handled[CHAINS];
static atomic_int all_handled;

/* Takes events and ends them: those of a task come one after the other. */
static void *handle(void *arg)
{
    mj_store *s = open_with(pg_url(), "store");

    (void)arg;
    while (atomic_load(&all_handled) < CHAINS * LINKS) {
        mj_op take = {.kind = MJ_OP_EVENT_TAKE, .until = T0 + 3600 * SECOND}, done = {.kind = MJ_OP_EVENT_DONE};
        int rc = mj_store_write(s, &take, 1, T0 + 1000 * SECOND);
        CHECK(rc == MJ_OK || rc == MJ_EBUSY);
        if (rc == MJ_OK && take.code == MJ_OK) {
            int i = 0;
            while (memcmp(chains[i].id, take.ref, sizeof take.ref) != 0)
                i++;
            CHECK_INT(take.event.seq, atomic_load(&handled[i]) + 1);
            atomic_store(&handled[i], take.event.seq);
            done.event = take.event;
            do
                rc = mj_store_write(s, &done, 1, T0 + 1000 * SECOND);
            while (rc == MJ_EBUSY);
            CHECK_INT(rc, MJ_OK);
            CHECK_INT(done.code, MJ_OK);
            atomic_fetch_add(&all_handled, 1);
        }
        mj_op_clear(&take);
        mj_op_clear(&done);
    }
    mj_store_close(s);
    return NULL;
}

/* Each task fails and is sent again, time after time: each failure is an event. */
static void *fail_tasks(void *arg)
{
    mj_store *s = open_with(pg_url(), "store");

    (void)arg;
    for (int n = 1; n <= LINKS; n++)
        for (int i = 0; i < CHAINS; i++) {
            mj_op ops[2];
            char id[40];
            int rc;
            snprintf(id, sizeof id, "T%d.%d", i, n);
            for (int k = 0; k < 2; k++) {
                ops[k] = (mj_op){.kind = MJ_OP_SIGNAL, .has_ref = true};
                ops[k].sig = (mj_signal){.kind = k ? SIG_FAILED : SIG_RESUBMIT,
                                         .source = MJ_FROM_POLL,
                                         .expect_state = -1,
                                         .wait_ms = -1,
                                         .attempt = k ? (uint32_t)n : 0,
                                         .task_id = str(k ? id : ""),
                                         .error = str("no")};
                memcpy(ops[k].ref, chains[i].id, sizeof ops[k].ref);
            }
            do
                rc = mj_store_write(s, n == 1 ? ops + 1 : ops, n == 1 ? 1 : 2, T0 + n);
            while (rc == MJ_EBUSY);
            CHECK_INT(rc, MJ_OK);
            CHECK_INT(ops[1].code, MJ_OK);
            mj_op_clear(&ops[0]);
            mj_op_clear(&ops[1]);
        }
    mj_store_close(s);
    return NULL;
}

TEST("events of a task are handed out in their order while others are stored, and none is left behind")
{
    pthread_t handlers[3], failing;
    mj_store *s = open_with(pg_url(), "store");

    for (int i = 0; i < CHAINS; i++)
        chains[i] = add(s, (job){0}, T0 + i);
    CHECK_INT(pthread_create(&failing, NULL, fail_tasks, NULL), 0);
    for (int i = 0; i < 3; i++)
        CHECK_INT(pthread_create(&handlers[i], NULL, handle, NULL), 0);
    pthread_join(failing, NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(handlers[i], NULL);
    CHECK_INT(stats(s).events, 0);
    CHECK_INT(check_clean(s), CHAINS);
    mj_store_close(s);
}

/* ---- a move ---- */

static void *create_late(void *code)
{
    mj_store *s = open_with(pg_url(), "store");
    mj_task t = {.prompt = str("late"), .timeout = TIMEOUT_S, .key = str("late"), .user_id = str("u")};
    mj_op op = {.kind = MJ_OP_CREATE, .task = &t, .sig = {.source = MJ_FROM_USER, .expect_state = -1, .wait_ms = -1}};

    *(int *)code = mj_store_write(s, &op, 1, T0 + 1);
    mj_op_clear(&op);
    mj_store_close(s);
    return NULL;
}

TEST("a batch that is under way when its store is moved is stored before the move looks, or not at all")
{
    mj_store *s = open_with(pg_url(), "store"), *to = open_with(pg_url(), "other");
    mj_copy c = {.from = s, .to = to, .from_name = "the store", .to_name = "the other", .finish = true};
    pthread_t writer;
    int code = -1;

    CHECK_INT(create(s, (job){.key = "first"}, T0), MJ_OK);
    pg_ask("BEGIN");
    pg_ask("LOCK TABLE %s.task_of_user IN ACCESS EXCLUSIVE MODE", pg_schema("store"));
    CHECK_INT(pthread_create(&writer, NULL, create_late, &code), 0);
    while (atoi(pg_ask("SELECT count(*) FROM pg_locks WHERE NOT granted")) == 0)
        usleep(1000);
    while (!c.done)
        CHECK_INT(mj_copy_step(&c, 100), MJ_OK);
    pg_ask("COMMIT");
    pthread_join(writer, NULL);
    CHECK_INT(code, MJ_EMOVED);
    CHECK_INT(check_clean(s), 1);
    CHECK_INT(check_clean(to), 1);
    CHECK_INT(create(to, (job){.key = "late"}, T0 + 2), MJ_OK);
    mj_store_close(to);
    mj_store_close(s);
}

/* ---- schema, forks, locks ---- */

TEST("processes that open a store at once that is not there make it once")
{
    pid_t pids[8];

    (void)pg_schema("store");
    for (int i = 0; i < 8; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            mj_store *s = open_with(pg_url(), "store");
            CHECK_INT(create(s, (job){0}, T0), MJ_OK);
            mj_store_close(s);
            _exit(0);
        }
    }
    for (int i = 0; i < 8; i++) {
        int status;
        CHECK_INT(waitpid(pids[i], &status, 0), pids[i]);
        CHECK_INT(status, 0);
    }
    CHECK_STR(pg_ask("SELECT count(*) FROM %s.task", pg_schema("store")), "8");
    CHECK_STR(pg_ask("SELECT string_agg(version::text, ',' ORDER BY version) FROM %s.migration", pg_schema("store")),
              "1,2");
}

TEST("a schema of another version is refused, with what to do; also by a program that has it open")
{
    mj_store_options o = {.rules = mj_rules_default, .schema = pg_schema("store")};
    mj_store *s = open_with(pg_url(), "store"), *other;
    mj_op op = {.kind = MJ_OP_SWEPT, .limit = 1};
    char why[512];

    CHECK_INT(create(s, (job){0}, T0), MJ_OK);
    pg_ask("INSERT INTO %s.migration (version) VALUES (1000); UPDATE %s.writer SET epoch = epoch + 1", o.schema,
           o.schema);
    CHECK_INT(mj_store_open_on(&mj_backend_postgres, pg_url(), &o, &other, why, sizeof why), MJ_ESCHEMA);
    CHECK(strstr(why, "version 1000") && strstr(why, "install"));
    CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_ESCHEMA);
    CHECK(strstr(mj_store_detail(s), "version 1000") != NULL);
    pg_ask("DELETE FROM %s.migration; INSERT INTO %s.migration (version) VALUES (0)", o.schema, o.schema);
    CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_ESCHEMA);
    mj_store_close(s);
}

TEST("after a fork parent and child go on, each with a connection of its own")
{
    mj_store *s = open_with(pg_url(), "store");
    ref r = add(s, (job){0}, T0);
    pid_t pid;
    int status;

    for (int i = 0; i < 3; i++) {
        pid = fork();
        if (pid == 0) {
            CHECK_INT(state_of(s, r), MJ_QUEUED);
            CHECK_INT(create(s, (job){0}, T0 + 1), MJ_OK);
            if (i)
                mj_store_close(s);
            _exit(0);
        }
        CHECK_INT(waitpid(pid, &status, 0), pid);
        CHECK_INT(status, 0);
        CHECK_INT(create(s, (job){0}, T0 + 2), MJ_OK);
    }
    pid = fork();
    if (pid == 0) { /* one that never uses it */
        mj_store_close(s);
        _exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(create(s, (job){0}, T0 + 3), MJ_OK);
    CHECK_INT(check_clean(s), 8);
    mj_store_close(s);
}

TEST("a lock has one holder, and that of a process that was killed is free at once")
{
    mj_store *s = open_with(pg_url(), "store"), *other = open_with(pg_url(), "store");
    mj_lock *lock, *second;
    int ends[2], status;
    char c;
    pid_t pid;

    CHECK_INT(mj_store_lock(s, "sweep", &lock), MJ_OK);
    CHECK_INT(mj_store_lock(other, "sweep", &second), MJ_EBUSY);
    CHECK_INT(mj_store_lock(s, "sweep", &second), MJ_EBUSY);
    CHECK_INT(mj_store_lock(other, "another", &second), MJ_OK);
    mj_store_unlock(other, second);
    mj_store_unlock(s, lock);
    CHECK_INT(mj_store_lock(other, "sweep", &second), MJ_OK);
    mj_store_unlock(other, second);
    CHECK_INT(pipe(ends), 0);
    pid = fork();
    if (pid == 0) {
        CHECK_INT(mj_store_lock(s, "sweep", &lock), MJ_OK);
        CHECK_INT(write(ends[1], "x", 1), 1);
        pause();
    }
    CHECK_INT(read(ends[0], &c, 1), 1);
    CHECK_INT(mj_store_lock(other, "sweep", &second), MJ_EBUSY);
    kill(pid, SIGKILL);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(mj_store_lock(other, "sweep", &second), MJ_OK);
    mj_store_unlock(other, second);
    pg_ask("INSERT INTO %s.lease (name, holder, owner, until) VALUES ('sweep', gen_random_uuid(), '', now() + "
           "interval '1 hour')",
           pg_schema("store")); /* another host's */
    CHECK_INT(mj_store_lock(s, "sweep", &lock), MJ_EBUSY);
    pg_ask("UPDATE %s.lease SET until = now() - interval '1 second'", pg_schema("store"));
    CHECK_INT(mj_store_lock(s, "sweep", &lock), MJ_OK);
    mj_store_unlock(s, lock);
    mj_store_close(other);
    mj_store_close(s);
}

TEST("a lock that was lost while its handle was silent is noticed at the next write, until it is let go")
{
    mj_store *s = open_with(pg_url(), "store"), *other = open_with(pg_url(), "store");
    mj_op op = {.kind = MJ_OP_SWEPT, .limit = 1};
    mj_lock *lock, *second;

    CHECK_INT(mj_store_lock(s, "sweep", &lock), MJ_OK);
    CHECK_INT(create(s, (job){0}, T0), MJ_OK);
    /* its time has passed, but it is still this handle's */
    pg_ask("UPDATE %s.lease SET until = now() - interval '1 second'", pg_schema("store"));
    later_s += 60;
    CHECK_INT(create(s, (job){0}, T0 + 1), MJ_OK);
    CHECK_INT(mj_store_lock(other, "sweep", &second), MJ_EBUSY);
    pg_ask("UPDATE %s.lease SET until = now() - interval '1 second'", pg_schema("store"));
    CHECK_INT(mj_store_lock(other, "sweep", &second), MJ_OK);
    later_s += 60;
    CHECK_INT(mj_store_write(s, &op, 1, T0 + 2), MJ_EBUSY);
    CHECK(strstr(mj_store_detail(s), "\"sweep\"") != NULL);
    CHECK_INT(mj_store_write(s, &op, 1, T0 + 3), MJ_EBUSY);
    mj_store_unlock(s, lock);
    CHECK_INT(create(s, (job){0}, T0 + 4), MJ_OK);
    CHECK_INT(mj_store_lock(s, "sweep", &lock), MJ_EBUSY); /* letting go took it from nobody */
    CHECK_INT(create(other, (job){0}, T0 + 5), MJ_OK);
    mj_store_unlock(other, second);
    mj_store_close(other);
    mj_store_close(s);
}

TEST("rows of writers are used again, however many connections come and go")
{
    for (int i = 0; i < 20; i++) {
        mj_store *s = open_with(pg_url(), "store");
        CHECK_INT(create(s, (job){0}, T0 + i), MJ_OK);
        CHECK_INT(stats(s).states[MJ_QUEUED], i + 1);
        mj_store_close(s);
    }
    CHECK_STR(pg_ask("SELECT count(*) FROM %s.writer", pg_schema("store")), "1");
}

TEST("a server that was restarted, and one without room for a connection, are a code and a sentence, and then all goes "
     "on")
{
    mj_store *s = open_with(pg_url(), "store");

    CHECK_INT(create(s, (job){0}, T0), MJ_OK);
    pg_ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mjhook'");
    CHECK_INT(create(s, (job){0}, T0 + 1), MJ_OK);
    pg_ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mjhook'");
    CHECK_INT(stats(s).states[MJ_QUEUED], 2); /* a reader sees that its connection has ended */
    mj_store_close(s);
}

static void count_fact(void *ctx, const char *level, const char *name, const char *text, const char *advice)
{
    unsigned *n = ctx;

    fprintf(stderr, "%s %s: %s %s\n", level, name, text, advice ? advice : "");
    CHECK(text[0] && (strcmp(level, "ok") == 0) == !advice);
    n[strcmp(level, "ok") == 0]++;
}

TEST("doctor hears how far the database is, what its commits are worth and what waits")
{
    mj_store *s = open_with(pg_url(), "store");
    unsigned n[2] = {0};

    CHECK_INT(mj_store_facts(s, count_fact, n), MJ_OK);
    CHECK_INT(n[0] + n[1], 7);
    CHECK_INT(n[0], 1); /* specs run without fsync */
    pg_ask("SELECT %s.enqueue('a fox')", pg_schema("store"));
    pg_ask("UPDATE %s.intake SET refused = 'why'", pg_schema("store"));
    n[0] = n[1] = 0;
    CHECK_INT(mj_store_facts(s, count_fact, n), MJ_OK);
    CHECK_INT(n[0], 2);
    mj_store_close(s);
}
