/* What several writers of one store may count on: locks by name, notes, sums, slots; and that the engine asks a
 * database seldom.  For BACKEND, as backend_conformance.h says. */
#ifndef BACKEND_WRITERS_H
#define BACKEND_WRITERS_H

#include "backend_flows.h"

#include <pthread.h>
#include <sys/wait.h>

/* ---- loading ---- */

TEST("what is loaded, is there or not, is what get and scan give without it")
{
    mj_entry task = {.index = MJ_IX_TASK, .ref = {1}}, other = {.index = MJ_IX_TASK, .ref = {2}};
    mj_entry tid = {.index = MJ_IX_TID, .name = str("T1"), .ref = {1}, .n = 1};
    mj_entry event = {.index = MJ_IX_EVENT, .ref = {1}, .n = 1},
             due = {.index = MJ_IX_DUE, .n = 2, .at = 5, .ref = {1}};
    mj_change c[] = {
        {.key = task, .bytes = str("one")}, {.key = event, .bytes = str("event")}, put_of(tid), put_of(due)};
    mj_entry keys[] = {task,
                       other,
                       {.index = MJ_IX_TID, .name = str("T0")},
                       {.index = MJ_IX_TID, .name = str("T1")},
                       {.index = MJ_IX_KEY, .name = str("k")}};
    mj_scan scans[] = {{.index = MJ_IX_DUE,
                        .fixed = 1,
                        .rows = true,
                        .bounded = true,
                        .claim = true,
                        .limit = 3,
                        .until = 5,
                        .from = {.index = MJ_IX_DUE, .n = 2}},
                       {.index = MJ_IX_ACCOUNT, .from = {.index = MJ_IX_ACCOUNT}}};
    base b;

    open_base(&b, "store");
    batch(&b, c, 4);
    for (int write = 0; write < 2; write++)
        for (int load = 0; load < 2; load++) {
            mj_tx *tx = begin(&b, write);
            entries *got;
            mj_str bytes;
            if (load)
                CHECK_INT(backend()->load(tx, &(mj_need){.keys = keys, .nkeys = 5, .scans = scans, .nscans = 2}),
                          MJ_OK);
            CHECK_INT(get_in(tx, task, &bytes), MJ_OK);
            CHECK(mj_str_eq(bytes, str("one")));
            CHECK_INT(get_in(tx, other, &bytes), MJ_ENOTFOUND);
            CHECK_INT(get_in(tx, keys[2], &bytes), MJ_ENOTFOUND);
            CHECK_INT(get_in(tx, keys[4], &bytes), MJ_ENOTFOUND);
            CHECK_INT(backend()->get(tx, &keys[3], &bytes), MJ_OK);
            CHECK(keys[3].ref[0] == 1 && keys[3].n == 1);
            got = scan_in(tx, (mj_scan){.index = MJ_IX_EVENT, .fixed = 1, .from = event}, 0);
            CHECK(got->n == 1 && got->e[0].n == 1 && mj_str_eq(got->bytes[0], str("event")));
            free(got);
            got = scan_in(tx, scans[0], 0);
            CHECK(got->n == 1 && got->e[0].at == 5 && mj_str_eq(got->bytes[0], str("one")));
            free(got);
            got = scan_in(tx, scans[1], 0);
            CHECK_INT(got->n, 0);
            free(got);
            backend()->abort(tx);
        }
    close_base(&b);
}

/* ---- sums ---- */

TEST("what two handles add makes one sum, of which a reader sees all")
{
    mj_tally add = {.events = 2, .ready = 1, .latest = T0}, t;
    base b[2];
    mj_tx *tx;

    for (int i = 0; i < 2; i++)
        open_base(&b[i], "store");
    add.states[MJ_PENDING] = 3;
    add.counters.counts[MJ_RECONCILED] = 1;
    add.counters.ends[0].bucket[4] = 2;
    add.counters.ended = 2;
    add.counters.hours[0] = (mj_hour){24, 1, 1};
    for (int i = 0; i < 6; i++)
        CHECK_INT(try_batch(&b[i % 2], NULL, 0, add), MJ_OK);
    add = (mj_tally){.latest = T0 - 5, .events = -12, .set_back = true};
    add.states[MJ_PENDING] = -17;
    CHECK_INT(try_batch(&b[1], NULL, 0, add), MJ_OK);
    tx = begin(&b[0], false);
    CHECK_INT(backend()->totals(tx, &t), MJ_OK);
    CHECK_INT(t.events, 0);
    CHECK_INT(t.states[MJ_PENDING], 1);
    CHECK_INT(t.counters.counts[MJ_RECONCILED], 6);
    CHECK_INT(t.counters.ends[0].bucket[4], 12);
    CHECK_INT(t.counters.ended, 12);
    CHECK_INT(t.counters.hours[0].ended, 6);
    CHECK_INT(t.latest, T0 - 5);
    backend()->abort(tx);
    for (int i = 0; i < 2; i++)
        close_base(&b[i]);
}

TEST("a writer reads right sums after commits of its handle and of another, after aborts and beside reads")
{
    static const int order[] = {0, 0, 0, 1, 0, 0, 1, 1, 0};
    mj_tally add = {.events = 1, .latest = T0}, t;
    base b[2];
    mj_tx *tx;

    for (int i = 0; i < 2; i++)
        open_base(&b[i], "store");
    for (int i = 0; i < (int)(sizeof order / sizeof order[0]); i++) {
        base *one = &b[order[i]];
        if (i % 3 == 1)
            CHECK_INT(totals_of(one).events, i);
        if (i % 3 == 2) {
            tx = begin(one, true);
            CHECK_INT(backend()->apply(tx, NULL, 0, &add), MJ_OK);
            backend()->abort(tx);
        }
        CHECK_INT(try_batch(one, NULL, 0, add), MJ_OK);
        if (backend()->load) /* what others have added a writer may see late */
            continue;
        tx = begin(one, true);
        CHECK_INT(backend()->totals(tx, &t), MJ_OK);
        CHECK_INT(t.events, i + 1);
        backend()->abort(tx);
        CHECK_INT(try_batch(one, NULL, 0, (mj_tally){0}), MJ_OK);
    }
    CHECK_INT(totals_of(&b[0]).events, sizeof order / sizeof order[0]);
    for (int i = 0; i < 2; i++)
        close_base(&b[i]);
}

/* ---- slots ---- */

static uint32_t slots_of(base *b, const char *name, mj_str *row)
{
    mj_entry e = {.index = MJ_IX_ACCOUNT, .name = str(name)};
    mj_tx *tx = begin(b, false);
    int rc = backend()->get(tx, &e, row);

    *row = rc == MJ_OK ? keep(*row) : (mj_str){0};
    backend()->abort(tx);
    return rc == MJ_OK ? e.n : UINT32_MAX;
}

TEST("an account's number is that of its slots, whatever becomes of its row")
{
    mj_entry slot = {.index = MJ_IX_SLOT, .name = str("main"), .at = T0, .ref = {1}, .n = 1};
    mj_entry account = {.index = MJ_IX_ACCOUNT, .name = str("main")};
    mj_change c[2] = {put_of(slot), {.key = account, .bytes = str("rests")}};
    mj_str row;
    base b;

    open_base(&b, "store");
    CHECK(slots_of(&b, "main", &row) == UINT32_MAX);
    batch(&b, c, 1);
    batch(&b, c, 1); /* it is there already */
    CHECK_INT(slots_of(&b, "main", &row), 1);
    CHECK_INT(row.n, 0);
    batch(&b, c, 2);
    CHECK_INT(slots_of(&b, "main", &row), 1);
    CHECK(mj_str_eq(row, str("rests")));
    c[0].key.ref[0] = 2;
    batch(&b, c, 1);
    CHECK_INT(slots_of(&b, "main", &row), 2);
    CHECK(mj_str_eq(row, str("rests")));
    c[1] = (mj_change){.key = account, .gone = true};
    batch(&b, c + 1, 1);
    CHECK_INT(slots_of(&b, "main", &row), 2);
    CHECK_INT(row.n, 0);
    c[0].key.name = str("other"); /* the slot changes hands */
    batch(&b, c, 1);
    CHECK_INT(slots_of(&b, "main", &row), 1);
    CHECK_INT(slots_of(&b, "other", &row), 1);
    c[0].gone = true;
    batch(&b, c, 1);
    batch(&b, c, 1); /* it is gone already */
    CHECK(slots_of(&b, "other", &row) == UINT32_MAX);
    c[0].key = slot;
    batch(&b, c, 1);
    CHECK(slots_of(&b, "main", &row) == UINT32_MAX);
    close_base(&b);
}

TEST("engine: a claim holds the accounts that are free, a pause all and its own")
{
    mj_store *s = open_engine("store");

    accounts(s, "a", 2, "b", 2);
    add(s, (job){0}, T0);
    CHECK_INT(claim(s, T0), MJ_OK);
    CHECK(told.nholds == 2 && !told.waits);
    CHECK_INT(pause_account(s, "c", T0 + MINUTE, T0), MJ_OK);
    CHECK(told.nholds == 3 && told.waits);
    CHECK_INT(pause_account(s, "a", T0 + MINUTE, T0), MJ_OK);
    CHECK(told.nholds == 2 && told.waits);
    CHECK_INT(stats(s).naccounts, 3);
    check_clean(s);
    mj_store_close(s);
}

enum { CAP = 5, CLAIMERS = 6, JOBS = 120 };

static _Atomic int sent, denied;

/* Claims, has its slot for a moment, and gives it back with the provider's word. */
static void *claim_some(void *arg)
{
    mj_store *s = open_engine("store");

    accounts(s, "a", CAP, "b", 1);
    (void)arg;
    for (;;) {
        mj_op op = {.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM), .want = true};
        mj_stats st;
        CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_OK);
        if (op.code != MJ_OK) {
            bool ended = op.code == MJ_ENOTFOUND;
            CHECK(ended || op.code == MJ_ELIMIT);
            denied += !ended;
            mj_op_clear(&op);
            if (ended)
                break;
            sched_yield();
            continue;
        }
        CHECK_INT(mj_store_stats(s, &st), MJ_OK);
        for (unsigned i = 0; i < st.naccounts; i++)
            if (st.accounts[i].held > (strcmp(st.accounts[i].name, "a") == 0 ? CAP : 1))
                MJ_TEST_FAIL("account %s holds %u slots", st.accounts[i].name, st.accounts[i].held);
        sent++;
        op.kind = MJ_OP_SIGNAL;
        op.has_ref = true;
        op.sig = signal_of(SIG_REJECTED);
        op.sig.source = MJ_FROM_SUBMIT;
        CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_OK);
        CHECK_INT(op.code, MJ_OK);
        mj_op_clear(&op);
    }
    mj_store_close(s);
    return NULL;
}

TEST("engine: claims of several writers send each job once, and never under more slots than there are")
{
    mj_store *s = open_engine("store");
    pthread_t threads[CLAIMERS];

    for (int i = 0; i < JOBS; i++)
        add(s, (job){.account = i % 4 == 0 ? "b" : i % 4 == 1 ? "a" : NULL}, T0);
    for (int i = 0; i < CLAIMERS; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, claim_some, NULL), 0);
    for (int i = 0; i < CLAIMERS; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(sent, JOBS);
    CHECK_INT(stats(s).states[MJ_FAILED], JOBS);
    CHECK_INT(check_clean(s), JOBS);
    mj_store_close(s);
}

/* ---- events ---- */

static _Atomic int handled;

static void *handle_some(void *arg)
{
    mj_store *s = open_engine("store");

    (void)arg;
    for (;;) {
        mj_op op = {.kind = MJ_OP_EVENT_TAKE, .until = T0 + LEASE};
        mj_event_record e;
        CHECK_INT(mj_store_write(s, &op, 1, T0 + 2), MJ_OK);
        e = op.event;
        if (op.code == MJ_ENOTFOUND && stats(s).events == 0)
            break;
        if (op.code == MJ_ENOTFOUND) {
            mj_op_clear(&op);
            sched_yield();
            continue;
        }
        CHECK_INT(op.code, MJ_OK);
        op.kind = MJ_OP_EVENT_DONE;
        op.event = e;
        CHECK_INT(mj_store_write(s, &op, 1, T0 + 2), MJ_OK);
        CHECK_INT(op.code, MJ_OK);
        handled++;
        mj_op_clear(&op);
    }
    mj_store_close(s);
    return NULL;
}

TEST("engine: several writers hand each event out once, and the second of a task after its first is done")
{
    enum { TASKS = 40 };
    mj_store *s = open_engine("store");
    pthread_t threads[3];

    for (int i = 0; i < TASKS; i++) {
        ref r = add(s, (job){0}, T0);
        char id[12];
        snprintf(id, sizeof id, "T%d", i);
        CHECK_INT(tell(s, r, SIG_FAILED, id, T0), MJ_OK);
        CHECK_INT(tell(s, r, SIG_RESUBMIT, "", T0), MJ_OK);
        snprintf(id, sizeof id, "U%d", i);
        CHECK_INT(tell(s, r, SIG_FAILED, id, T0 + 1), MJ_OK);
    }
    CHECK_INT(stats(s).events, 2 * TASKS);
    for (int i = 0; i < 3; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, handle_some, NULL), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(handled, 2 * TASKS);
    CHECK_INT(check_clean(s), TASKS);
    mj_store_close(s);
}

/* ---- round trips ---- */

enum { MANY = 200 };

static unsigned trips_of(mj_store *s, mj_op *ops, size_t n, int64_t now)
{
    unsigned trips;

    told.trips = 0;
    CHECK_INT(mj_store_write(s, ops, n, now), MJ_OK);
    trips = told.trips;
    for (size_t i = 0; i < n; i++)
        mj_op_clear(&ops[i]);
    return trips;
}

TEST("engine: new tasks, signals, claims and events are one trip or a few before the commit, however many there are")
{
    static mj_op ops[MANY];
    static mj_task tasks[MANY];
    static char keys[MANY][12], ids[MANY][12];
    static mj_event_record events[MANY];
    mj_store *s = open_engine("store");

    accounts(s, "a", MANY, "b", MANY);
    for (int i = 0; i < MANY; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        snprintf(ids[i], sizeof ids[i], "T%d", i);
        tasks[i] = (mj_task){.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str(keys[i])};
        ops[i] = (mj_op){.kind = MJ_OP_CREATE, .task = &tasks[i], .sig = signal_of(SIG_CREATE)};
    }
    CHECK_INT(trips_of(s, ops, MANY, T0), 1);
    for (int i = 0; i < MANY; i++)
        ops[i] = (mj_op){.kind = MJ_OP_CREATE, .task = &tasks[i], .sig = signal_of(SIG_CREATE)};
    CHECK_INT(trips_of(s, ops, MANY, T0), 1); /* all known */
    CHECK_INT(stats(s).ready, MANY);
    for (int i = 0; i < MANY; i++)
        ops[i] = (mj_op){.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)};
    CHECK_INT(trips_of(s, ops, MANY, T0), 2);
    CHECK_INT(stats(s).states[MJ_SUBMITTING], MANY);
    for (int i = 0; i < MANY; i++) { /* each names its task and an id that is new to it */
        ops[i].kind = MJ_OP_SIGNAL;
        ops[i].sig = signal_of(SIG_SUCCEEDED);
        ops[i].has_ref = true;
        ops[i].sig.task_id = str(ids[i]);
        ops[i].code = MJ_OK;
    }
    CHECK_INT(trips_of(s, ops, MANY, T0), 2);
    CHECK_INT(trips_of(s, ops, MANY, T0), 1); /* the ids are the tasks' own: the index of ids is not asked */
    for (int i = 0; i < MANY; i++)            /* by the id alone, and an unknown one */
        ops[i] = (mj_op){.kind = MJ_OP_SIGNAL, .sig = signal_of(SIG_SUCCEEDED)},
        ops[i].sig.task_id = str(i ? ids[i] : "no");
    CHECK_INT(trips_of(s, ops, MANY, T0), 1);
    CHECK_INT(stats(s).events, MANY);
    for (int i = 0; i < MANY; i++)
        ops[i] = (mj_op){.kind = MJ_OP_EVENT_TAKE, .until = T0 + LEASE};
    told.trips = 0;
    CHECK_INT(mj_store_write(s, ops, MANY, T0), MJ_OK);
    CHECK(told.trips <= 2);
    for (int i = 0; i < MANY; i++) {
        CHECK_INT(ops[i].code, MJ_OK);
        memcpy(events[i].ref, ops[i].event.ref, sizeof events[i].ref);
        events[i].seq = ops[i].event.seq;
        events[i].tries = ops[i].event.tries;
        mj_op_clear(&ops[i]);
    }
    for (int i = 0; i < MANY; i++)
        ops[i] = (mj_op){.kind = MJ_OP_EVENT_DONE, .event = events[i], .sig.files = str("{}")};
    CHECK_INT(trips_of(s, ops, MANY, T0), 1);
    CHECK_INT(stats(s).events, 0);
    check_clean(s);
    mj_store_close(s);
}

TEST("engine: claims that find nothing, ticks and prunes take a few trips, however many there are")
{
    static mj_op ops[MANY];
    static char ids[MANY][12];
    mj_store *s = open_engine("store");

    accounts(s, "a", 3, "b", 2);
    for (int i = 0; i < MANY; i++)
        ops[i] = (mj_op){.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)};
    CHECK(trips_of(s, ops, MANY, T0) <= 3);
    for (int i = 0; i < 20; i++)
        add(s, (job){0}, T0);
    for (int i = 0; i < MANY; i++)
        ops[i] = (mj_op){.kind = MJ_OP_CLAIM, .sig = signal_of(SIG_CLAIM)};
    CHECK(trips_of(s, ops, MANY, T0) <= 4); /* five are sent, and no slot is left */
    CHECK_INT(held(s, "a") + held(s, "b"), 5);
    CHECK(trips_of(s, &(mj_op){.kind = MJ_OP_TICK, .limit = 100}, 1, T0 + SLOT_MS) <= 4);
    CHECK_INT(held(s, "a") + held(s, "b"), 0);
    for (int i = 0; i < MANY; i++) {
        snprintf(ids[i], sizeof ids[i], "T%d", i);
        CHECK_INT(tell(s, add(s, (job){.task_id = ids[i]}, T0), SIG_SUCCEEDED, ids[i], T0), MJ_OK);
        CHECK_INT(take(s, T0 + LEASE, T0), MJ_OK);
        CHECK_INT(settle(s, MJ_OP_EVENT_DONE, last_event(), 0, T0), MJ_OK);
    }
    ops[0] = (mj_op){.kind = MJ_OP_PRUNE, .until = T0, .limit = MANY, .sig = signal_of(SIG_LOOK)};
    ops[0].sig.expect_state = MJ_SUCCEEDED;
    CHECK(trips_of(s, ops, 1, T0 + HOUR) <= 3);
    CHECK_INT(ops[0].done, MANY);
    ops[0] = (mj_op){.kind = MJ_OP_FORGET, .until = T0 + HOUR, .limit = MANY};
    CHECK(trips_of(s, ops, 1, T0 + HOUR) <= 3);
    CHECK_INT(ops[0].done, MANY);
    check_clean(s);
    mj_store_close(s);
}

TEST("engine: check asks for what some hundred rows need at once")
{
    enum { TASKS = 600 };
    static mj_op ops[TASKS];
    static mj_task tasks[TASKS];
    static char keys[TASKS][12], ids[TASKS][12];
    mj_store *s = open_engine("store");

    for (int i = 0; i < TASKS; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        snprintf(ids[i], sizeof ids[i], "T%d", i);
        tasks[i] = (mj_task){.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str(keys[i])};
        ops[i] = (mj_op){.kind = MJ_OP_CREATE, .task = &tasks[i], .sig = signal_of(SIG_CREATE)};
        ops[i].sig.task_id = str(ids[i]);
    }
    CHECK_INT(trips_of(s, ops, TASKS, T0), 1);
    for (int i = 0; i < TASKS; i++)
        ops[i] = (mj_op){.kind = MJ_OP_SIGNAL, .sig = signal_of(SIG_SUCCEEDED)}, ops[i].sig.task_id = str(ids[i]);
    CHECK_INT(trips_of(s, ops, TASKS, T0), 1);
    told.trips = 0;
    CHECK_INT(check_clean(s), TASKS);
    CHECK(told.trips < 30);
    mj_store_close(s);
}

/* ---- intake ---- */

TEST("engine: a row that asks for a task goes with it, and makes no second one")
{
    mj_entry row = {.index = MJ_IX_META, .name = str("intake/1")};
    mj_change c = {.key = row, .bytes = str("{}")};
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str("k")};
    mj_op op = {.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE), .intake = row.name};
    mj_store *s = open_engine("store");
    base b;

    CHECK_INT(do_op(s, op, T0), MJ_ENOTFOUND);
    open_base(&b, "store");
    for (int i = 0; i < 2; i++) { /* the second asks for what is known */
        batch(&b, &c, 1);
        CHECK_INT(do_op(s, op, T0), i ? MJ_EDUPLICATE : MJ_OK);
        CHECK(!is_there(&b, row));
        CHECK_INT(do_op(s, op, T0), MJ_ENOTFOUND);
    }
    CHECK_INT(check_clean(s), 1);
    close_base(&b);
    mj_store_close(s);
}

/* ---- running again ---- */

TEST("engine: a batch that the backend always wants again is given up as busy, and stores nothing")
{
    mj_store *s = open_engine("store");

    fail_at(FAULT_COMMIT, MJ_EAGAIN, MJ_MAX_RERUNS);
    CHECK_INT(create(s, (job){.key = "k1"}, T0), MJ_OK);
    CHECK_INT(fault.times, 0);
    for (int at = FAULT_APPLY; at <= FAULT_COMMIT; at++) {
        mj_op op = {.kind = MJ_OP_TICK, .limit = 1};
        mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str("k2")};
        fail_at((fault_at)at, MJ_EAGAIN, 1000);
        op = (mj_op){.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};
        CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_EBUSY);
        CHECK_INT(op.code, MJ_EBUSY);
        CHECK_INT(fault.times, 1000 - MJ_MAX_RERUNS - 1);
        mj_op_clear(&op);
    }
    fail_at(FAULT_NONE, MJ_OK, 0);
    CHECK_INT(check_clean(s), 1);
    mj_store_close(s);
}

TEST("engine: a commit that nothing is known of is told as such, with the refs that may be there")
{
    mj_store *s = open_engine("store");
    mj_task t = {.prompt = str("a fox"), .timeout = TIMEOUT_S, .key = str("k")};
    mj_op op = {.kind = MJ_OP_CREATE, .task = &t, .sig = signal_of(SIG_CREATE)};
    static const uint8_t none[MJ_ULID_BYTES];

    fail_at(FAULT_COMMIT, MJ_EUNSURE, 1);
    CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_EUNSURE);
    CHECK_INT(op.code, MJ_EUNSURE);
    CHECK(memcmp(op.ref, none, sizeof none) != 0);
    CHECK(mj_error_retryable(MJ_EUNSURE));
    mj_op_clear(&op);
    mj_store_close(s);
}

/* ---- locks and notes ---- */

TEST("a lock by name has one holder, whatever handle asks, and another name another one")
{
    mj_lock *held, *other;
    base a, b;

    open_base(&a, "store");
    open_base(&b, "store");
    CHECK_INT(backend()->lock(a.db, "reconcile", &held), MJ_OK);
    CHECK_INT(backend()->lock(b.db, "reconcile", &other), MJ_EBUSY);
    CHECK_INT(backend()->lock(a.db, "reconcile", &other), MJ_EBUSY);
    CHECK_INT(backend()->lock(b.db, "other", &other), MJ_OK);
    backend()->unlock(other);
    backend()->unlock(held);
    CHECK_INT(backend()->lock(b.db, "reconcile", &held), MJ_OK);
    backend()->unlock(held);
    close_base(&a);
    close_base(&b);
}

TEST("a child that lets go of a lock leaves it to its parent")
{
    mj_lock *held, *other;
    int status = -1;
    pid_t child;
    base b;

    open_base(&b, "store");
    CHECK_INT(backend()->lock(b.db, "reconcile", &held), MJ_OK);
    child = fork();
    if (child == 0) {
        backend()->unlock(held);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    CHECK_INT(backend()->lock(b.db, "reconcile", &other), MJ_EBUSY);
    backend()->unlock(held);
    close_base(&b);
}

TEST("engine: a note outlives its handle, until it is taken away")
{
    mj_store *s = open_engine("store");
    mj_buf b = {0};

    CHECK_INT(mj_store_marked(s, "webhook-1.disabled", &b), MJ_ENOTFOUND);
    CHECK_INT(mj_store_mark(s, "webhook-1.disabled", str("gone")), MJ_OK);
    mj_store_close(s);
    s = open_engine("store");
    CHECK_INT(mj_store_marked(s, "webhook-1.disabled", &b), MJ_OK);
    CHECK(b.n == 4 && memcmp(b.p, "gone", 4) == 0);
    CHECK_INT(mj_store_marked(s, "webhook-2.disabled", &b), MJ_ENOTFOUND);
    CHECK_INT(mj_store_mark(s, "webhook-1.disabled", str("")), MJ_OK);
    CHECK_INT(mj_store_marked(s, "webhook-1.disabled", &b), MJ_ENOTFOUND);
    CHECK_INT(mj_store_mark(s, "../outside", str("x")), MJ_EINVAL);
    CHECK_INT(mj_store_mark(s, "", str("x")), MJ_EINVAL);
    CHECK_INT(mj_store_mark(s, ".hidden", str("x")), MJ_EINVAL);
    mj_buf_free(&b);
    mj_store_close(s);
}

TEST("whether there is a store is known before it is opened")
{
    mj_store_options o = {.rules = mj_rules_default};
    char why[256] = "";
    mj_store *s;

    CHECK_INT(mj_store_exists(backend(), "store", &o, why, sizeof why), MJ_ENOTFOUND);
    s = open_engine("store");
    CHECK_INT(mj_store_exists(backend(), "store", &o, why, sizeof why), MJ_OK);
    CHECK(mj_store_now(s) > 1700000000000);
    mj_store_close(s);
}

TEST("engine: a module of another version is refused with what to do")
{
    mj_backend old = *backend();
    char why[256];
    mj_store *s;

    old.abi = MJ_BACKEND_ABI - 1;
    CHECK_INT(mj_store_open_on(&old, "store", &(mj_store_options){.rules = mj_rules_default}, &s, why, sizeof why),
              MJ_ESCHEMA);
    CHECK(strstr(why, "install both of one version") != NULL);
    old = *backend();
    old.bytes -= sizeof(void *);
    CHECK_INT(mj_store_open_on(&old, "store", &(mj_store_options){.rules = mj_rules_default}, &s, why, sizeof why),
              MJ_ESCHEMA);
    CHECK(!s);
}

#endif
