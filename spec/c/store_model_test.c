/* Thousands of random operations on a store and on a plain model in memory: records, outcomes, claims and
 * events have to be the same, and every index has to agree with a full recount.  The model keeps a list of
 * tasks and searches it; it shares only the state machine with the store. */
#include "rng.h"
#include "store_check.h"

enum { TASKS = 300, EVENTS = 2000, NACCOUNTS = 3 };
static const char *const names[NACCOUNTS] = {"a", "b", "drained"};
static const uint32_t caps[NACCOUNTS] = {2, 5, 0};

typedef struct model_event {
    int task;
    uint32_t seq, tries;
    int64_t next_at;
    bool buried, gone;
} model_event;

static struct {
    int n;
    mj_buf records[TASKS];
    mj_task tasks[TASKS]; /* the same, decoded */
    uint8_t prints[TASKS];
    int nevents;
    model_event events[EVENTS];
    int64_t paused[NACCOUNTS];
} m;

static void keep(int i, mj_task *t)
{
    mj_buf b = {0};

    CHECK_INT(mj_task_encode(t, &b), MJ_OK);
    mj_buf_free(&m.records[i]);
    m.records[i] = b;
    CHECK_INT(mj_task_decode(b.p, b.n, &m.tasks[i]), MJ_OK);
}

static int model_apply(int i, mj_signal sig, int64_t now, mj_event *made)
{
    mj_task t = m.tasks[i];
    mj_effect effect;
    int rc = mj_state_apply(&t, &sig, &mj_rules_default, now, &effect);

    *made = effect.event;
    if (effect.event != MJ_EVENT_NONE) {
        CHECK(m.nevents < EVENTS);
        m.events[m.nevents++] = (model_event){.task = i, .seq = ++t.event_seq, .next_at = now};
    }
    if (effect.changed)
        keep(i, &t);
    return rc;
}

static int by_ref(const uint8_t *r)
{
    for (int i = 0; i < m.n; i++)
        if (memcmp(m.records[i].p + 1, r, 16) == 0) /* version, ref */
            return i;
    return -1;
}

static int by_id(mj_str id, uint32_t *attempt)
{
    for (int i = 0; i < m.n; i++) {
        const mj_task *t = &m.tasks[i];
        for (unsigned a = 0; a < t->nattempts; a++)
            for (unsigned k = 0; k < t->attempts[a].nids; k++)
                if (mj_str_eq(t->attempts[a].ids[k], id)) {
                    *attempt = a + 1;
                    return i;
                }
    }
    return -1;
}

static int by_key(mj_str name)
{
    for (int i = 0; i < m.n; i++)
        if (mj_str_eq(m.tasks[i].key, name))
            return i;
    return -1;
}

static void check_record(int i)
{
    CHECK_INT(last.record.n, m.records[i].n);
    CHECK_MEM(last.record.p, m.records[i].p, m.records[i].n);
}

/* ---- ticks and claims ---- */

/* The slot that ended first, by time, ref and attempt. */
static int ended_slot(int64_t now, uint32_t *attempt)
{
    int64_t best_at = INT64_MAX;
    int best = -1;

    for (int i = 0; i < m.n; i++) { /* in the order of refs */
        const mj_task *t = &m.tasks[i];
        for (unsigned a = 0; a < t->nattempts; a++)
            if (t->attempts[a].slot && t->attempts[a].slot_until <= now && t->attempts[a].slot_until < best_at) {
                best_at = t->attempts[a].slot_until;
                best = i;
                *attempt = a + 1;
            }
    }
    return best;
}

static int ready_next(int64_t now)
{
    int64_t best_at = INT64_MAX;
    int best = -1;

    for (int i = 0; i < m.n; i++) {
        const mj_task *t = &m.tasks[i];
        if (t->state == MJ_QUEUED && t->due_at != 0 && t->due_at <= now && t->due_at < best_at) {
            best_at = t->due_at;
            best = i;
        }
    }
    return best;
}

static uint32_t model_tick(uint32_t limit, int64_t now)
{
    uint32_t slots = 0, queued = 0, attempt;
    mj_event made;
    int i;

    for (; slots < limit && (i = ended_slot(now, &attempt)) >= 0; slots++) {
        mj_signal sig = signal_of(SIG_SLOT_END);
        sig.attempt = attempt;
        CHECK_INT(model_apply(i, sig, now, &made), MJ_OK);
    }
    for (; queued < limit && (i = ready_next(now)) >= 0; queued++)
        CHECK_INT(model_apply(i, signal_of(SIG_READY), now, &made), MJ_OK);
    return slots + queued;
}

static uint32_t model_held(mj_str account)
{
    uint32_t n = 0;

    for (int i = 0; i < m.n; i++) {
        const mj_task *t = &m.tasks[i];
        for (unsigned a = 0; a < t->nattempts; a++)
            n += t->attempts[a].slot && mj_str_eq(t->attempts[a].account, account);
    }
    return n;
}

static bool may_send(int account, int64_t now)
{
    return model_held(str(names[account])) < caps[account] && m.paused[account] <= now;
}

/* Of whom the store should claim next: its code, and who and under what. */
static int model_claim(int64_t now, int *who, const char **account)
{
    const char *least = NULL;
    double load = 2;
    bool waiting = false, has_best = false;
    int32_t best = 0;

    for (int i = 0; i < NACCOUNTS; i++)
        if (may_send(i, now) && (double)model_held(str(names[i])) / caps[i] < load) {
            load = (double)model_held(str(names[i])) / caps[i];
            least = names[i];
        }
    for (int i = 0; i < m.n; i++) {
        const mj_task *t = &m.tasks[i];
        const char *under = t->account.n ? NULL : least;
        if (t->state != MJ_QUEUED || !t->ready)
            continue;
        waiting = true;
        for (int k = 0; k < NACCOUNTS; k++)
            if (mj_str_eq(t->account, str(names[k])) && may_send(k, now))
                under = names[k];
        if (under && (!has_best || t->priority > best)) {
            has_best = true;
            best = t->priority;
            *who = i;
            *account = under;
        }
    }
    return has_best ? MJ_OK : waiting ? MJ_ELIMIT : MJ_ENOTFOUND;
}

/* ---- one random operation on both ---- */

static void random_create(mj_store *s, rng *r, int64_t now)
{
    char key_name[16] = "", user[16] = "", id[16];
    bool adopt = chance(r, 15);
    job j = {.priority = (int32_t)below(r, 4) - 2, .print = (char)below(r, 2), .key = key_name, .user = user};
    uint32_t attempt;
    int known = -1, want = MJ_OK, got;

    if (m.n == TASKS)
        return;
    if (chance(r, 30))
        snprintf(key_name, sizeof key_name, "k%u", below(r, 20));
    if (chance(r, 50))
        snprintf(user, sizeof user, "u%u", below(r, 5));
    if (chance(r, 30))
        j.account = names[below(r, NACCOUNTS)];
    if (chance(r, 20))
        j.expires_at = now + below(r, 3000) * SECOND;
    snprintf(id, sizeof id, "T%u", below(r, 400));
    j.task_id = adopt ? id : NULL;
    if (key_name[0] && (known = by_key(str(key_name))) >= 0)
        want = m.prints[known] == (uint8_t)j.print ? MJ_EDUPLICATE : MJ_EKEY;
    else if (adopt && (known = by_id(str(id), &attempt)) >= 0)
        want = MJ_EDUPLICATE;
    got = create(s, j, now);
    CHECK_INT(got, want);
    if (known >= 0) {
        check_record(known);
        return;
    }
    if (m.n > 0)
        CHECK(memcmp(m.records[m.n - 1].p + 1, last.ref, 16) < 0);
    m.prints[m.n] = (uint8_t)j.print;
    mj_task t = last_task();
    CHECK_INT(t.state, adopt ? MJ_PENDING : MJ_QUEUED);
    CHECK_INT(t.created_at, now);
    keep(m.n++, &t);
}

static mj_signal random_signal(rng *r, char id[16])
{
    mj_signal sig = signal_of((mj_signal_kind)(1 + below(r, SIG_COUNT - 1)));

    if (sig.kind == SIG_CLAIM) /* those are claim()'s to make */
        sig = signal_of(SIG_ACCEPTED);
    snprintf(id, 16, "T%u", below(r, 400));
    if (sig.task_id.n || sig.kind == SIG_ABSENT)
        sig.task_id = chance(r, 90) ? str(id) : str("");
    if (chance(r, 30))
        sig.source = (mj_source)below(r, MJ_NSOURCES);
    if (chance(r, 20))
        sig.attempt = below(r, 4);
    if (chance(r, 10))
        sig.expect_state = (int)below(r, MJ_NSTATES);
    if (chance(r, 30))
        sig.wait_ms = below(r, 600) * SECOND;
    sig.counts = chance(r, 50);
    return sig;
}

static void random_tell(mj_store *s, rng *r, int64_t now)
{
    char id[16];
    mj_signal sig = random_signal(r, id), given = sig;
    uint32_t attempt = 0;
    int who = chance(r, 80) && m.n > 0 ? (int)below(r, (uint32_t)m.n) : -1, owner, want;
    mj_event made = MJ_EVENT_NONE;
    ref to = {{0}};

    owner = sig.task_id.n ? by_id(sig.task_id, &attempt) : -1;
    if (who >= 0)
        memcpy(to.id, m.records[who].p + 1, sizeof to.id);
    if (owner >= 0 && (who < 0 || who == owner))
        sig.attempt = sig.attempt ? sig.attempt : attempt;
    else if (owner >= 0)
        sig.foreign_id = true;
    if (who < 0)
        who = owner;
    want = who < 0 ? MJ_EUNKNOWN : model_apply(who, sig, now, &made);
    CHECK_INT(send_signal(s, memcmp(to.id, (ref){{0}}.id, 16) ? &to : NULL, given, now), want);
    CHECK_INT(last.made, made);
    if (who >= 0)
        check_record(who);
}

static void random_claim(mj_store *s, int64_t now)
{
    mj_signal sig = signal_of(SIG_CLAIM);
    const char *account = NULL;
    mj_event made;
    int who = -1, want;

    model_tick(64, now);
    want = model_claim(now, &who, &account);
    CHECK_INT(claim(s, now), want);
    if (want != MJ_OK)
        return;
    sig.account = str(account);
    CHECK_INT(by_ref(last.ref), who);
    CHECK_INT(model_apply(who, sig, now, &made), MJ_OK);
    check_record(who);
}

/* The first open event of each task is out; of those the one that has been due longest goes. */
static int model_take(int64_t now)
{
    int best = -1;

    for (int i = 0; i < m.nevents; i++) {
        const model_event *e = &m.events[i], *b = best < 0 ? NULL : &m.events[best];
        bool first = !e->gone && !e->buried;
        for (int k = 0; k < i && first; k++)
            first = m.events[k].task != e->task || m.events[k].gone || m.events[k].buried;
        if (first && e->next_at <= now &&
            (!b || e->next_at < b->next_at || (e->next_at == b->next_at && e->task < b->task)))
            best = i;
    }
    return best;
}

static void random_delivery(mj_store *s, rng *r, int64_t now)
{
    int64_t until = now + below(r, 100) * SECOND;
    int want = model_take(now);
    model_event *e = &m.events[want < 0 ? 0 : want];
    mj_event_record leased;

    CHECK_INT(take(s, until, now), want < 0 ? MJ_ENOTFOUND : MJ_OK);
    if (want < 0)
        return;
    leased = last_event();
    CHECK_INT(by_ref(leased.ref), e->task);
    CHECK_INT(leased.seq, e->seq);
    CHECK_INT(leased.tries, ++e->tries);
    check_record(e->task);
    e->next_at = until > now ? until : now + 1;
    if (chance(r, 20))
        return; /* the handler dies */
    if (chance(r, 60)) {
        CHECK_INT(settle(s, MJ_OP_EVENT_DONE, leased, 0, now), MJ_OK);
        e->gone = true;
    } else {
        until = chance(r, 20) ? 0 : now + 1 + below(r, 500) * SECOND;
        CHECK_INT(settle(s, MJ_OP_EVENT_RETRY, leased, until, now), MJ_OK);
        e->buried = until == 0;
        e->next_at = until;
    }
}

static void check_against_model(mj_store *s)
{
    mj_stats st = stats(s);
    uint64_t states[MJ_NSTATES] = {0}, events = 0, buried = 0;

    CHECK_INT(check_store(s), m.n);
    for (int i = 0; i < m.n; i++) {
        mj_buf b = {0};
        states[m.tasks[i].state]++;
        CHECK_INT(mj_store_get(s, m.records[i].p + 1, &b), MJ_OK);
        CHECK_INT(b.n, m.records[i].n);
        CHECK_MEM(b.p, m.records[i].p, b.n);
        mj_buf_free(&b);
    }
    for (int i = 0; i < m.nevents; i++) {
        buried += m.events[i].buried;
        events += !m.events[i].buried && !m.events[i].gone;
    }
    for (int i = 0; i < MJ_NSTATES; i++)
        CHECK_INT(st.states[i], states[i]);
    CHECK_INT(st.events, events);
    CHECK_INT(st.buried, buried);
    for (int i = 0; i < NACCOUNTS; i++)
        CHECK_INT(held(s, names[i]), model_held(str(names[i])));
}

static void run(uint64_t seed, int ops)
{
    rng r = rng_of(seed);
    mj_store *s = open_store();
    mj_account list[NACCOUNTS];
    int64_t now = T0;

    for (int i = 0; i < NACCOUNTS; i++)
        list[i] = (mj_account){str(names[i]), caps[i]};
    CHECK_INT(mj_store_accounts(s, list, NACCOUNTS), MJ_OK);
    for (int i = 0; i < ops; i++) {
        uint32_t what = below(&r, 100);
        now += chance(&r, 60) ? below(&r, 20) * SECOND : chance(&r, 5) ? below(&r, 1000) * SECOND : 0;
        if (what < 10) {
            random_create(s, &r, now);
        } else if (what < 65) {
            random_tell(s, &r, now);
        } else if (what < 80) {
            random_claim(s, now);
        } else if (what < 83) {
            int k = (int)below(&r, NACCOUNTS);
            m.paused[k] = chance(&r, 30) ? 0 : now + below(&r, 100) * SECOND;
            CHECK_INT(pause_account(s, names[k], m.paused[k], now), MJ_OK);
        } else if (what < 88) {
            uint32_t limit = below(&r, 4), want = model_tick(limit, now);
            CHECK_INT(tick(s, limit, now), MJ_OK);
            CHECK_INT(last.done, want);
        } else {
            random_delivery(s, &r, now);
        }
        if (i % 500 == 0)
            check_against_model(s);
    }
    check_against_model(s);
    fprintf(stderr, "%d tasks, %d events\n", m.n, m.nevents);
    CHECK(m.n > 100 && m.nevents > 100);
    mj_store_close(s);
}

TEST("a store does what a plain list of tasks would do, over thousands of random operations")
{
    run(20260415, 6000);
}

TEST("... and with another seed")
{
    run(7, 6000);
}
