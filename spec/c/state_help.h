/* Tasks and signals for tests of the state machine. */
#ifndef STATE_HELP_H
#define STATE_HELP_H

#include "base/error.h"
#include "domain/state.h"
#include "mj_test.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, TIMEOUT_S = 600 };
static const int64_t T0 = 1776211200000;
static const int64_t GRACE = 300 * SECOND;
static const int64_t SLOT_MS = TIMEOUT_S * SECOND + 300 * SECOND;

static inline mj_str str(const char *s)
{
    return (mj_str){s, (uint32_t)strlen(s)};
}

/* As the flows make them: where it comes from follows from what it is. */
static inline mj_signal signal_of(mj_signal_kind kind)
{
    mj_signal sig = {.kind = kind, .expect_state = -1, .wait_ms = -1, .source = MJ_FROM_CALLBACK};

    switch (kind) {
    case SIG_CLAIM:
        sig.account = str("main");
        sig.has_owner = true;
        sig.source = MJ_FROM_SUBMIT;
        break;
    case SIG_ACCEPTED:
        sig.task_id = str("T1");
        sig.source = MJ_FROM_SUBMIT;
        break;
    case SIG_NOT_SENT:
    case SIG_REFUSED:
    case SIG_REJECTED:
    case SIG_MAYBE_SENT:
        sig.source = MJ_FROM_SUBMIT;
        break;
    case SIG_SUCCEEDED:
        sig.image = str("https://cdn/grid.png");
        sig.task_id = str("T1");
        break;
    case SIG_FAILED:
        sig.error = str("banned words");
        sig.task_id = str("T1");
        break;
    case SIG_RUNNING:
    case SIG_HINT:
    case SIG_LOOK:
        sig.task_id = str("T1");
        break;
    case SIG_ABSENT:
        sig.counts = true;
        sig.source = MJ_FROM_POLL;
        break;
    case SIG_UNANSWERED:
        sig.source = MJ_FROM_POLL;
        break;
    case SIG_CREATE:
    case SIG_CANCEL:
        sig.source = MJ_FROM_USER;
        break;
    default:
        sig.source = MJ_FROM_SWEEP;
    }
    return sig;
}

static inline mj_signal polled(mj_signal_kind kind)
{
    mj_signal sig = signal_of(kind);
    sig.source = MJ_FROM_POLL;
    return sig;
}

static inline mj_task new_task(void)
{
    mj_task t = {.timeout = TIMEOUT_S, .prompt = str("a fox")};
    mj_signal sig = signal_of(SIG_CREATE);

    memcpy(t.ref, "0123456789abcdef", MJ_ULID_BYTES);
    mj_state_create(&t, &sig, &mj_rules_default, T0);
    return t;
}

static mj_effect last_step;

static inline int give(mj_task *t, mj_signal sig, int64_t at)
{
    return mj_state_apply(t, &sig, &mj_rules_default, at, &last_step);
}

static inline int say(mj_task *t, mj_signal_kind kind, int64_t at)
{
    return give(t, signal_of(kind), at);
}

/* A task that went through these signals, all taken, at T0. */
static inline mj_task task_after(size_t n, const mj_signal_kind *kinds)
{
    mj_task t = new_task();

    for (size_t i = 0; i < n; i++)
        CHECK_INT(say(&t, kinds[i], T0), MJ_OK);
    return t;
}
#define TASK_AFTER(...)                                                                                                \
    task_after(sizeof((mj_signal_kind[]){__VA_ARGS__}) / sizeof(mj_signal_kind), (mj_signal_kind[]){__VA_ARGS__})

static inline mj_task pending_task(void)
{
    return TASK_AFTER(SIG_CLAIM, SIG_ACCEPTED);
}

static inline const mj_timeline_entry *last_entry(const mj_task *t)
{
    return &t->timeline[t->ntimeline - 1];
}

/* Equal in everything that is stored; the bytes between the members have no meaning. */
static inline void check_same_record(const mj_task *a, const mj_task *b)
{
    mj_buf x = {0}, y = {0};

    CHECK_INT(mj_task_encode(a, &x), MJ_OK);
    CHECK_INT(mj_task_encode(b, &y), MJ_OK);
    CHECK_INT(x.n, y.n);
    CHECK_MEM(x.p, y.p, x.n);
    mj_buf_free(&x);
    mj_buf_free(&y);
}

#endif
