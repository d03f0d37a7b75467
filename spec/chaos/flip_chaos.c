/* make chaos, section flips: stores with flipped bits are opened by everything that opens a store.
 *
 *   flip_chaos [STORES] [SEED] [EVERY] [ROOT]     default 4000 stores; tools on each EVERY-th of them, 20
 *
 * Each store is a copy of one with tasks in all states, events, refused callbacks and tombstones, of which some bits
 * are flipped: anywhere, in the first bytes of a page, or where entries lie.  A child process uses all of store/store.h
 * on it; the operator's tools and mjhook-reconcile of ROOT run on each EVERY-th, if ROOT is given.  No crash may begin
 * in our code.  LMDB trusts its file, and what is damaged below the pages that are looked at when a store is opened can
 * end the process inside of it: such crashes are counted and listed. */
#include "base/error.h"
#include "crash_stack.c"
#include "store/store.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

enum { TASKS = 2500, MOST_LISTED = 20, REFUSED = 7, PAGE = 4096, PATIENCE_S = 10 };
static char dir[3000];
static uint8_t refs[TASKS][MJ_ULID_BYTES];
static const int64_t NOW = 1776211200000;

static uint64_t mix(uint64_t *s) /* splitmix64 */
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void die(const char *what)
{
    fprintf(stderr, "flip_chaos: %s: %s\n", what, strerror(errno));
    exit(1);
}

static mj_store *try_open(const char *path, int *rc)
{
    mj_store_options o = {.rules = mj_rules_default};
    mj_account a = {MJ_LIT("default"), 10};
    char why[512] = "";
    mj_store *s;

    *rc = mj_store_open(path, &o, &s, why, sizeof why);
    if (s)
        mj_store_accounts(s, &a, 1);
    return s;
}

static int one(mj_store *s, mj_op *op, int64_t now)
{
    int rc = mj_store_write(s, op, 1, now);

    return rc == MJ_OK ? op->code : rc;
}

static mj_signal signal_of(mj_signal_kind kind)
{
    return (mj_signal){.kind = kind, .source = MJ_FROM_CALLBACK, .expect_state = -1, .wait_ms = -1, .attempt = 1};
}

static int say(mj_store *s, const uint8_t *ref, mj_signal_kind kind, const char *id, int64_t now)
{
    mj_op op = {.kind = MJ_OP_SIGNAL, .has_ref = true, .sig = signal_of(kind)};
    int rc;

    memcpy(op.ref, ref, MJ_ULID_BYTES);
    op.sig.task_id = (mj_str){id, (uint32_t)strlen(id)};
    op.sig.image = kind == SIG_SUCCEEDED ? MJ_LIT("https://cdn.example/grid.png") : (mj_str){0};
    op.sig.error = kind == SIG_FAILED ? MJ_LIT("banned words") : (mj_str){0};
    rc = one(s, &op, now);
    mj_op_clear(&op);
    return rc;
}

/* Tasks in all states; a big record on pages of its own; events, some buried; refused callbacks; tombstones. */
static void make_base(void)
{
    static char text[20000], id[TASKS][32], key[TASKS][32];
    char path[4000];
    int rc;
    mj_store *s;

    memset(text, 'x', sizeof text);
    snprintf(path, sizeof path, "%s/base", dir);
    s = try_open(path, &rc);
    if (!s)
        die("base");
    for (int i = 0; i < TASKS; i++) {
        mj_task t = {.prompt = {text, i % 10 == 0 ? 9000 : 40}, .timeout = 600, .user_id = MJ_LIT("u1")};
        mj_op op = {.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};
        snprintf(key[i], sizeof key[i], "key-%d", i);
        snprintf(id[i], sizeof id[i], "id-%d", i);
        t.key = (mj_str){key[i], (uint32_t)strlen(key[i])};
        if (one(s, &op, NOW + i) != MJ_OK)
            die("create");
        memcpy(refs[i], op.ref, MJ_ULID_BYTES);
        mj_op_clear(&op);
        if (i % 4 == 0)
            continue;
        mj_op claim = {.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)};
        if (one(s, &claim, NOW + i) == MJ_OK) {
            say(s, claim.ref, i % 7 == 0 ? SIG_MAYBE_SENT : SIG_ACCEPTED, id[i], NOW + i);
            if (i % 3 > 0)
                say(s, claim.ref, i % 5 == 0 ? SIG_FAILED : SIG_SUCCEEDED, id[i], NOW + 1000 + i);
        }
        mj_op_clear(&claim);
    }
    for (int i = 0; i < 20; i++) {
        mj_op op = {.kind = MJ_OP_EVENT_TAKE, .until = NOW + 30000};
        if (one(s, &op, NOW + 2000 + i) == MJ_OK) {
            mj_op end = {
                .kind = i % 2 ? MJ_OP_EVENT_DONE : MJ_OP_EVENT_RETRY, .event = op.event, .sig = {.error = MJ_LIT("e")}};
            one(s, &end, NOW + 2000 + i);
            mj_op_clear(&end);
        }
        mj_op_clear(&op);
        mj_op refuse = {.kind = MJ_OP_REFUSE, .sig = {.attempt = 1, .error = MJ_LIT("not JSON")}, .body = {text, 300}};
        memcpy(refuse.ref, refs[i], MJ_ULID_BYTES);
        one(s, &refuse, NOW + 3000 + i);
        mj_op_clear(&refuse);
    }
    mj_op prune = {.kind = MJ_OP_PRUNE, .sig = {.expect_state = MJ_SUCCEEDED}, .until = NOW + 100000, .limit = 5};
    one(s, &prune, NOW + 200000);
    mj_op_clear(&prune);
    mj_store_close(s);
}

/* ---- one store ---- */

static void read_pages(mj_store *s)
{
    static const mj_order orders[] = {MJ_BY_AGE, MJ_BY_USER, MJ_BY_DUE, MJ_BY_EVENT, MJ_BY_STATE};

    for (size_t i = 0; i < sizeof orders / sizeof orders[0] + MJ_NSTATES - 1; i++) {
        mj_query q = {.order = orders[i < 5 ? i : 4], .user_id = MJ_LIT("u1"), .limit = 50, .until = NOW * 2};
        mj_buf b = {0};
        q.due = i == 2 ? MJ_DUE_POLL : MJ_DUE_NONE;
        q.state = i < 5 ? MJ_QUEUED : (mj_state)(i - 4); /* layer: query */
        for (int page = 0; page < 10 && mj_store_page(s, &q, &b) == MJ_OK && q.more; page++)
            ;
        for (mj_reader r = mj_reader_of(b.p ? b.p : (uint8_t *)"", b.n); r.p < r.end && !r.bad;) {
            mj_str bytes = mj_get_str(&r);
            mj_event_record e;
            mj_task t;
            if (orders[i < 5 ? i : 4] == MJ_BY_EVENT)
                mj_event_decode(bytes, &e);
            else
                mj_task_decode(bytes.p, bytes.n, &t);
        }
        mj_buf_free(&b);
    }
}

static void use(const char *path)
{
    char to[4000];
    mj_check_report report;
    mj_restored restored;
    mj_buf b = {0};
    mj_stats st;
    uint32_t attempt;
    bool pruned;
    int rc;
    mj_store *s = try_open(path, &rc);

    snprintf(to, sizeof to, "%s/copy", dir);
    if (!s)
        _exit(REFUSED);
    mj_store_check(s, NULL, NULL, &report);
    mj_store_stats(s, &st);
    read_pages(s);
    mj_store_refused(s, 0, 300, &b);
    for (int i = 0; i < TASKS; i++) {
        char text[32];
        b.n = 0;
        mj_store_get(s, refs[i], &b);
        mj_store_tomb(s, refs[i], &b);
        snprintf(text, sizeof text, "key-%d", i);
        mj_store_key(s, (mj_str){text, (uint32_t)strlen(text)}, &b, &pruned);
        snprintf(text, sizeof text, "id-%d", i);
        mj_store_find(s, (mj_str){text, (uint32_t)strlen(text)}, &b, &attempt);
    }
    mj_store_trim(s);
    mj_store_backup(s, to);
    for (int i = 0; i < TASKS; i += 60)
        say(s, refs[i], i % 4 ? SIG_SUCCEEDED : SIG_CANCEL, i % 4 ? "id-new" : "", NOW + 300000 + i);
    for (int i = 0; i < 12; i++) {
        static const mj_op_kind kinds[] = {MJ_OP_TICK,  MJ_OP_CLAIM,  MJ_OP_EVENT_TAKE, MJ_OP_EVENT_KICK, MJ_OP_SWEPT,
                                           MJ_OP_PRUNE, MJ_OP_FORGET, MJ_OP_UPGRADE,    MJ_OP_REFUSE};
        mj_op op = {
            .kind = kinds[i % 9], .want = true, .limit = 50, .until = NOW + 900000, .sig = signal_of(SIG_CLAIM)};
        op.sig.expect_state = MJ_FAILED;
        memcpy(op.ref, refs[i], MJ_ULID_BYTES);
        memcpy(op.event.ref, refs[i + 1], MJ_ULID_BYTES);
        one(s, &op, NOW + 1000000 + i);
        mj_op_clear(&op);
    }
    mj_buf_free(&b);
    mj_store_close(s);
    mj_store_restore(path, to, &(mj_store_options){.rules = mj_rules_default}, true, &restored, (char[512]){0}, 512);
}

static int flip(const char *path, uint64_t *seed)
{
    FILE *f = fopen(path, "r+");
    struct stat st;
    int flips = 1 + (int)(mix(seed) % 8);

    if (!f || fstat(fileno(f), &st) != 0)
        die(path);
    for (int i = 0; i < flips; i++) {
        off_t page = (off_t)(mix(seed) % (uint64_t)(st.st_size / PAGE)) * PAGE;
        off_t at = page + (off_t)(mix(seed) % (mix(seed) % 2 ? 64 : PAGE));
        int c;
        fseek(f, at, SEEK_SET);
        c = fgetc(f);
        fseek(f, at, SEEK_SET);
        fputc(c ^ 1 << mix(seed) % 8, f);
    }
    return fclose(f);
}

__attribute__((format(printf, 1, 2))) static int shell(const char *format, ...)
{
    char command[9000];
    va_list args;

    va_start(args, format);
    vsnprintf(command, sizeof command, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized) */
    va_end(args);
    return system(command);
}

/* Runs one tool, which may end as it likes, but not by a signal that the crash log knows nothing of. */
static void run_tool(const char *root, const char *words)
{
    static const char SET[] = "env LD_PRELOAD='%s/crash_stack.so' MIDJOURNEY_API_KEY=k MJHOOK_STORE='%s/store' "
                              "MIDJOURNEY_API_BASE_URL=http://127.0.0.1:1 ";
    char command[9000];
    int n = snprintf(command, sizeof command, SET, dir, dir);

    snprintf(command + n, sizeof command - (size_t)n, "timeout %d %s%s >/dev/null 2>&1 </dev/null", PATIENCE_S, root,
             words);
    if (system(command) == -1)
        die("system");
}

static void run_tools(const char *root, const char *programs)
{
    enum { NOTHING, REF, COPY, FLIPPED };
    static const struct {
        const char *words;
        int about;
    } tools[] = {
        {"list --limit 3000", NOTHING},
        {"list --state succeeded", NOTHING},
        {"stats", NOTHING},
        {"check", NOTHING},
        {"events", NOTHING},
        {"refused", NOTHING},
        {"metrics", NOTHING},
        {"get", REF},
        {"cancel", REF},
        {"replay", REF},
        {"kick --limit 5", NOTHING},
        {"prune --older-than 1", NOTHING},
        {"submit 'a fox'", NOTHING},
        {"doctor", NOTHING},
        {"backup", COPY},
        {"restore", FLIPPED},
    };
    char about[4][4000] = {""}, words[5000];

    mj_ulid_text(refs[7], about[REF]);
    snprintf(about[COPY], sizeof about[COPY], "'%s/copy2'", dir);
    snprintf(about[FLIPPED], sizeof about[FLIPPED], "'%s/flipped'", dir);
    for (size_t i = 0; i < sizeof tools / sizeof tools[0]; i++) {
        snprintf(words, sizeof words, "/scripts/mjhook %s %s", tools[i].words, about[tools[i].about]);
        shell("rm -rf '%s/copy2'", dir);
        shell("cp '%s/flipped' '%s/store/data.mdb'", dir, dir);
        run_tool(root, words);
    }
    snprintf(words, sizeof words, "%s/mjhook-reconcile --budget 2", programs);
    shell("cp '%s/flipped' '%s/store/data.mdb'", dir, dir);
    run_tool("", words);
}

/* ---- what crashed ---- */

static int count_crashes(const char *log, int *inside, int list)
{
    char line[4096];
    FILE *f = fopen(log, "r");
    int ours = 0;

    *inside = 0;
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "signal 27 ", 10) == 0) { /* SIGPROF: endless, which is counted elsewhere */
            if (list)
                printf("endless: %s", line);
            continue;
        }
        if (strstr(line, " in liblmdb")) {
            if (list && (*inside)++ < MOST_LISTED)
                printf("inside LMDB: %s", line);
            else if (!list)
                ++*inside;
            continue;
        }
        ours++;
        if (list)
            printf("OURS: %s", line);
    }
    if (f)
        fclose(f);
    return ours;
}

int main(int argc, char **argv)
{
    int stores = argc > 1 ? atoi(argv[1]) : 4000, every = argc > 3 ? atoi(argv[3]) : 20, ours, inside, late = 0,
        refused = 0;
    uint64_t seed = argc > 2 && *argv[2] ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL), first = seed;
    const char *root = argc > 4 ? argv[4] : NULL, *base = getenv("TMPDIR"), *programs = argc > 5 ? argv[5] : "";
    struct itimerval patience = {.it_value = {.tv_sec = PATIENCE_S}};
    char path[4000], log[4000];

    snprintf(dir, sizeof dir, "%s/mjhook-flips.XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(dir))
        die(dir);
    printf("seed %llu\n", (unsigned long long)first);
    fflush(stdout);
    snprintf(log, sizeof log, "%s/crashes", dir);
    setenv("MJHOOK_CRASH_LOG", log, 1);
    if (root && shell("cc -O1 -D_GNU_SOURCE -shared -fPIC -o '%s/crash_stack.so' '%s/spec/chaos/crash_stack.c' -ldl",
                      dir, root) != 0)
        die("crash_stack.so");
    make_base();
    snprintf(path, sizeof path, "%s/store", dir);
    for (int i = 0; i < stores; i++) {
        char data[4100];
        int status = 0;
        pid_t pid;
        shell("rm -rf '%s/store' '%s/copy'", dir, dir);
        if (mkdir(path, 0700) != 0 || shell("cp '%s/base/data.mdb' '%s/flipped'", dir, dir) != 0)
            die(path);
        snprintf(data, sizeof data, "%s/flipped", dir);
        flip(data, &seed);
        shell("cp '%s/flipped' '%s/store/data.mdb'", dir, dir);
        pid = fork();
        if (pid == 0) {
            crash_watch();
            setitimer(ITIMER_PROF, &patience, NULL); /* of the processor, whatever else runs */
            use(path);
            _exit(0);
        }
        if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF) {
            printf("store %d was not done after %d s\n", i, PATIENCE_S);
            late++;
        }
        refused += WIFEXITED(status) && WEXITSTATUS(status) == REFUSED;
        if (root && i % every == 0)
            run_tools(root, programs);
    }
    ours = count_crashes(log, &inside, 1);
    printf(
        "%d stores, %d of them refused when opened, %d opened by every tool: %d crashes in our code, %d inside LMDB, "
        "%d endless\n",
        stores, refused, root ? (stores + every - 1) / every : 0, ours, inside, late);
    if (ours == 0 && late == 0)
        shell("rm -rf '%s'", dir);
    printf(ours || late ? "0 passed, 1 failed\n" : "1 passed, 0 failed\n");
    return ours || late;
}
