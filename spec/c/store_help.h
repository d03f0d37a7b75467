/* Stores and operations for tests: one call, one operation, one transaction. */
#ifndef STORE_HELP_H
#define STORE_HELP_H

#include "base/error.h"
#include "state_help.h"
#include "store/lmdb/db.h"
#include "store/lmdb/keys.h"
#include "store/rules.h"

#define COUNTERS "counters" /* the row of META that holds the sums */

/* A test that looks into LMDB's own file is of no other database. */
static inline mj_lmdb *lmdb_of(const mj_store *s)
{
    if (s->backend != &mj_backend_lmdb)
        SKIP("of LMDB alone");
    return s->db;
}

static inline mj_store *open_on(const mj_backend *b, const char *where, const mj_store_options *o)
{
    char why[512];
    mj_store *s;
    int rc = mj_store_open_on(b, where, o, &s, why, sizeof why);

    if (rc != MJ_OK)
        MJ_TEST_FAIL("%s: %s: %s", where, mj_error_name(rc), why);
    return s;
}

/* Without waiting for the disk: what dies in these tests are processes, and a busy disk must not make them late.
 * Those about disks and deaths wait. */
static inline mj_store *open_lmdb_at(const char *dir, const mj_store_options *o)
{
    mj_store *s = open_on(&mj_backend_lmdb, dir, o);

    CHECK_INT(mdb_env_set_flags(mj_env_lmdb(lmdb_of(s)->env), MDB_NOSYNC, 1), 0);
    return s;
}

#ifdef STORE_BACKEND /* the same tests on another database: an expression that gives its mj_backend */
static inline mj_store *open_durable_at(const char *where, const mj_store_options *o)
{
    static mj_backend b;

    b = STORE_BACKEND;
    return open_on(&b, where, o);
}

static inline mj_store *open_store_at(const char *where, const mj_store_options *o)
{
    return open_durable_at(where, o);
}
#else
static inline mj_store *open_durable_at(const char *dir, const mj_store_options *o)
{
    return open_on(&mj_backend_lmdb, dir, o);
}

static inline mj_store *open_store_at(const char *dir, const mj_store_options *o)
{
    return open_lmdb_at(dir, o);
}
#endif

static inline mj_store *open_store(void)
{
    return open_store_at("store", &(mj_store_options){.rules = mj_rules_default});
}

static inline mj_store *open_durable(void)
{
    return open_durable_at("store", &(mj_store_options){.rules = mj_rules_default});
}

static inline void accounts(mj_store *s, const char *a, uint32_t a_max, const char *b, uint32_t b_max)
{
    mj_account list[2] = {{str(a), a_max}, {str(b ? b : ""), b_max}};
    CHECK_INT(mj_store_accounts(s, list, b ? 2 : 1), MJ_OK);
}

/* The result of the last do_op(): valid until the next. */
static mj_op last;

static inline int do_op(mj_store *s, mj_op op, int64_t now)
{
    mj_op_clear(&last);
    op.want = true;
    last = op;
    CHECK_INT(mj_store_write(s, &last, 1, now), MJ_OK);
    return last.code;
}

static inline mj_task last_task(void)
{
    mj_task t;
    CHECK_INT(mj_task_decode(last.record.p, last.record.n, &t), MJ_OK);
    return t;
}

typedef struct job {
    const char *prompt, *user, *key, *account, *task_id;
    int32_t priority;
    int64_t expires_at;
    char print; /* of the arguments: equal ones are equal */
} job;

static inline int create(mj_store *s, job j, int64_t now)
{
    mj_task t = {.prompt = str(j.prompt ? j.prompt : "a fox"),
                 .timeout = TIMEOUT_S,
                 .user_id = str(j.user ? j.user : ""),
                 .key = str(j.key ? j.key : ""),
                 .account = str(j.account && !j.task_id ? j.account : ""),
                 .priority = j.priority,
                 .expires_at = j.expires_at};
    mj_op op = {.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};

    t.fingerprint[0] = (uint8_t)j.print;
    if (j.task_id) {
        op.sig.task_id = str(j.task_id);
        op.sig.account = str(j.account ? j.account : "main");
    }
    return do_op(s, op, now);
}

/* A new task's ref. */
typedef struct ref {
    uint8_t id[MJ_ULID_BYTES];
} ref;

static inline ref last_ref(void)
{
    ref r;
    memcpy(r.id, last.ref, sizeof r.id);
    return r;
}

static inline ref add(mj_store *s, job j, int64_t now)
{
    CHECK_INT(create(s, j, now), MJ_OK);
    return last_ref();
}

static inline bool is(ref a, ref b)
{
    return memcmp(a.id, b.id, sizeof a.id) == 0;
}

static inline int send_signal(mj_store *s, const ref *r, mj_signal sig, int64_t now)
{
    mj_op op = {.kind = MJ_OP_SIGNAL, .sig = sig, .has_ref = r != NULL};

    if (r)
        memcpy(op.ref, r->id, sizeof op.ref);
    return do_op(s, op, now);
}

static inline int tell(mj_store *s, ref r, mj_signal_kind kind, const char *task_id, int64_t now)
{
    mj_signal sig = signal_of(kind);

    sig.task_id = str(task_id);
    return send_signal(s, &r, sig, now);
}

static inline int claim(mj_store *s, int64_t now)
{
    mj_op op = {.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)};

    op.sig.account = str("");
    return do_op(s, op, now);
}

static inline int pause_account(mj_store *s, const char *account, int64_t until, int64_t now)
{
    mj_op op = {.kind = MJ_OP_PAUSE, .until = until, .sig = {.account = str(account), .error_code = str("quota")}};
    return do_op(s, op, now);
}

static inline int tick(mj_store *s, uint32_t limit, int64_t now)
{
    return do_op(s, (mj_op){.kind = MJ_OP_TICK, .limit = limit}, now);
}

static inline int take(mj_store *s, int64_t until, int64_t now)
{
    return do_op(s, (mj_op){.kind = MJ_OP_EVENT_TAKE, .until = until}, now);
}

static inline mj_event_record last_event(void)
{
    return last.event;
}

static inline int settle(mj_store *s, mj_op_kind kind, mj_event_record e, int64_t until, int64_t now)
{
    mj_op op = {.kind = kind, .until = until, .sig = {.error = str("handler failed")}};

    op.event.tries = e.tries;
    op.event.seq = e.seq;
    memcpy(op.event.ref, e.ref, sizeof e.ref);
    return do_op(s, op, now);
}

static inline mj_task get_task(mj_store *s, ref r, mj_buf *b)
{
    mj_task t;

    b->n = 0;
    if (mj_store_get(s, r.id, b) != MJ_OK)
        MJ_TEST_FAIL("%s", mj_store_detail(s));
    CHECK_INT(mj_task_decode(b->p, b->n, &t), MJ_OK);
    return t;
}

static inline mj_state state_of(mj_store *s, ref r)
{
    mj_buf b = {0};
    mj_state state = get_task(s, r, &b).state;

    mj_buf_free(&b);
    return state;
}

static inline mj_stats stats(mj_store *s)
{
    mj_stats st;
    CHECK_INT(mj_store_stats(s, &st), MJ_OK);
    return st;
}

static inline uint32_t held(mj_store *s, const char *account)
{
    mj_stats st = stats(s);

    for (unsigned i = 0; i < st.naccounts; i++)
        if (strcmp(st.accounts[i].name, account) == 0)
            return st.accounts[i].held;
    return 0;
}

#endif
