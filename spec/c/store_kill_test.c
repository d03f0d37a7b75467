/* kill -9 of writers at random moments: what was acknowledged is there, batches are whole or not at all, every
 * index agrees with every record, and the next writer needs no repair. */
#include "rng.h"
#include "store_check.h"

#include <poll.h>

enum { ROUNDS = 25, WRITERS = 2, CREATES = 4, SIGNALS = 4, BATCH = CREATES + SIGNALS };

/* From a writer, before and after each batch.  Smaller than PIPE_BUF: whole or not at all. */
typedef struct note {
    bool done;
    uint32_t n; /* refs below: those that get a signal; when done, the new ones, too */
    ref refs[BATCH];
    uint64_t sums[BATCH];
} note;

static uint64_t sum(const uint8_t *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static void say_note(int fd, const note *n)
{
    if (write(fd, n, sizeof *n) != (ssize_t)sizeof *n)
        _exit(1);
}

static mj_signal next_word(rng *r, char id[64], const ref *to)
{
    mj_signal sig = signal_of(chance(r, 50) ? SIG_RUNNING : chance(r, 50) ? SIG_SUCCEEDED : SIG_LOOK);

    snprintf(id, 64, "T");
    for (int i = 0; i < 16; i++)
        snprintf(id + 1 + 2 * i, 4, "%02x", to->id[i]);
    sig.task_id = str(id);
    return sig;
}

/* Creates tasks and finishes those of the batch before, until it is killed. */
static void writer(int fd, const char *user, uint64_t seed)
{
    mj_store *s = open_durable();
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .user_id = str(user)};
    mj_op ops[BATCH + 2];
    char ids[SIGNALS][64];
    rng r = {seed};
    note n = {0};

    accounts(s, "main", 100000, NULL, 0);
    memset(ops, 0, sizeof ops);
    for (int64_t now = T0;; now++) {
        uint32_t signals = n.done ? SIGNALS : 0;
        for (uint32_t i = 0; i < CREATES; i++)
            ops[i] = (mj_op){.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE), .want = true};
        for (uint32_t i = 0; i < signals; i++) { /* the tasks that the batch before created */
            ops[CREATES + i] = (mj_op){.kind = MJ_OP_SIGNAL, .has_ref = true, .want = true};
            memcpy(ops[CREATES + i].ref, n.refs[i].id, 16);
            ops[CREATES + i].sig = next_word(&r, ids[i], &n.refs[i]);
        }
        ops[CREATES + signals] = (mj_op){.kind = MJ_OP_EVENT_TAKE, .until = now + MINUTE};
        ops[CREATES + signals + 1] = (mj_op){.kind = MJ_OP_TICK, .limit = 10};
        n.done = false;
        n.n = signals;
        say_note(fd, &n);
        CHECK_INT(mj_store_write(s, ops, CREATES + signals + 2, now), MJ_OK);
        n.done = true;
        n.n = CREATES + signals;
        for (uint32_t i = 0; i < n.n; i++) {
            memcpy(n.refs[i].id, ops[i].ref, 16);
            n.sums[i] = sum(ops[i].record.p, ops[i].record.n);
        }
        say_note(fd, &n);
        for (uint32_t i = 0; i < CREATES + signals + 2; i++)
            mj_op_clear(&ops[i]);
    }
}

/* What one writer has said, and what it was about to do when it died. */
typedef struct ledger {
    ref *refs;
    uint64_t *sums;
    size_t n, created;
    note open;
    bool has_open;
} ledger;

static void remember(ledger *l, const note *n)
{
    if (!n->done) {
        l->open = *n;
        l->has_open = true;
        return;
    }
    l->has_open = false;
    l->refs = realloc(l->refs, (l->n + n->n) * sizeof *l->refs);
    l->sums = realloc(l->sums, (l->n + n->n) * sizeof *l->sums);
    for (uint32_t i = 0; i < n->n; i++) {
        size_t at = l->n;
        for (size_t k = l->n > 2 * BATCH ? l->n - 2 * BATCH : 0; i >= CREATES && k < l->n; k++)
            if (is(l->refs[k], n->refs[i]))
                at = k; /* known: it has a newer record */
        l->refs[at] = n->refs[i];
        l->sums[at] = n->sums[i];
        l->n += at == l->n;
        l->created += i < CREATES;
    }
}

static void listen(int fds[WRITERS], pid_t pids[WRITERS], ledger *l, rng *r)
{
    uint32_t notes[WRITERS]; /* that each may still make */
    int open = WRITERS;

    for (int i = 0; i < WRITERS; i++)
        notes[i] = 2 + below(r, 30);
    while (open > 0) {
        struct pollfd p[WRITERS];
        for (int i = 0; i < WRITERS; i++)
            p[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
        CHECK(poll(p, WRITERS, -1) >= 0);
        for (int i = 0; i < WRITERS; i++) {
            note n;
            if (fds[i] < 0 || !p[i].revents)
                continue;
            if (read(fds[i], &n, sizeof n) == (ssize_t)sizeof n) {
                remember(&l[i], &n);
                if (--notes[i] == 0) { /* and somewhere in what follows */
                    usleep(below(r, 1000));
                    CHECK_INT(kill(pids[i], SIGKILL), 0);
                }
            } else {
                close(fds[i]);
                fds[i] = -1;
                open--;
            }
        }
    }
}

static bool was_open(const ledger *l, const ref *r)
{
    for (uint32_t i = 0; l->has_open && i < l->open.n; i++)
        if (is(l->open.refs[i], *r))
            return true;
    return false;
}

static size_t count_of(mj_store *s, const char *user)
{
    mj_query q = {.order = MJ_BY_USER, .user_id = str(user), .limit = 1000};
    size_t n = 0;

    do {
        mj_buf b = {0};
        CHECK_INT(mj_store_page(s, &q, &b), MJ_OK);
        for (mj_reader r = mj_reader_of(b.p ? b.p : (uint8_t *)"", b.n); r.p < r.end; n++)
            mj_get_str(&r);
        mj_buf_free(&b);
    } while (q.more);
    return n;
}

#ifndef AFTER_DEATHS /* another database may have to find out first */
#define AFTER_DEATHS (void)0
#endif

static void verify(mj_store *s, const ledger *l, const char *user)
{
    size_t found = (AFTER_DEATHS, count_of(s, user));
    bool landed = found == l->created + CREATES; /* the batch in the air did */
    mj_buf b = {0};

    CHECK(found == l->created || (l->has_open && landed));
    for (size_t i = 0; i < l->n; i++) {
        b.n = 0;
        CHECK_INT(mj_store_get(s, l->refs[i].id, &b), MJ_OK);
        if (was_open(l, &l->refs[i]))
            CHECK((sum(b.p, b.n) != l->sums[i]) == landed); /* whole or not at all */
        else
            CHECK(sum(b.p, b.n) == l->sums[i]);
    }
    mj_buf_free(&b);
}

TEST("fifty writers killed at random lose nothing acknowledged and leave nothing to repair")
{
    rng r = rng_of(9);
    size_t total = 0, kills = 0;
    mj_store *s = open_durable(); /* this process has it open all the while */

    for (int round = 0; round < ROUNDS; round++) {
        ledger l[WRITERS] = {{0}};
        int fds[WRITERS];
        pid_t pids[WRITERS];
        char user[WRITERS][32];
        for (int i = 0; i < WRITERS; i++) {
            int ends[2];
            snprintf(user[i], sizeof user[i], "round-%d-%d", round, i);
            CHECK_INT(pipe(ends), 0);
            pids[i] = fork();
            CHECK(pids[i] >= 0);
            if (pids[i] == 0) {
                close(ends[0]);
                writer(ends[1], user[i], draw(&r));
            }
            close(ends[1]);
            fds[i] = ends[0];
        }
        listen(fds, pids, l, &r);
        for (int i = 0; i < WRITERS; i++) {
            int status;
            CHECK_INT(waitpid(pids[i], &status, 0), pids[i]);
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            verify(s, &l[i], user[i]);
            total += l[i].created;
            kills++;
            free(l[i].refs);
            free(l[i].sums);
        }
        if (round % 5 == 0)
            check_store(s);
        add(s, (job){0}, T0); /* the next writer needs no repair */
    }
    fprintf(stderr, "%zu tasks acknowledged\n", total);
    CHECK_INT(kills, 50);
    CHECK(total > 500);
    CHECK(check_store(s) >= total);
    mj_store_close(s);
}
