/* Random operations on a store, and stores that have accounts to send under. */
#ifndef STORE_RANDOM_H
#define STORE_RANDOM_H

#include "rng.h"
#include "store_check.h"

enum { BATCH = 40, NREFS = 400, NNAMES = 12, NIDS = 60, NACCOUNTS = 3 };

static const char *const senders[NACCOUNTS] = {"a", "b", "c"};
static char keys[NNAMES][16], ids[NIDS][16];

typedef struct batch {
    int n;
    mj_op ops[BATCH];
    mj_task tasks[BATCH];
} batch;

static struct {
    int n;
    uint8_t refs[NREFS][MJ_ULID_BYTES]; /* of all tasks so far */
    mj_event_record taken;              /* the event that was handed out last */
} known;

static void some_ref(rng *r, uint8_t *out)
{
    if (known.n > 0) /* mostly one of the newest */
        memcpy(out,
               known.refs[chance(r, 70) && known.n > 12 ? known.n - 1 - (int)below(r, 12)
                                                        : (int)below(r, (uint32_t)known.n)],
               MJ_ULID_BYTES);
}

static mj_op random_create(rng *r, mj_task *t, int64_t now)
{
    mj_op op = {.kind = MJ_OP_CREATE, .task = t, .sig = signal_of(SIG_CREATE), .want = true};

    *t = (mj_task){.prompt = str("a fox"), .timeout = TIMEOUT_S, .priority = (int32_t)below(r, 3)};
    t->fingerprint[0] = (uint8_t)below(r, 2);
    if (chance(r, 50))
        t->key = str(keys[below(r, NNAMES)]);
    if (chance(r, 30))
        t->user_id = str("u");
    if (chance(r, 30))
        t->account = str(senders[below(r, NACCOUNTS)]);
    if (chance(r, 15))
        t->expires_at = now + below(r, 100) * SECOND;
    if (chance(r, 25)) {
        op.sig.task_id = str(ids[below(r, NIDS)]);
        op.sig.account = str(senders[below(r, NACCOUNTS)]);
        t->account = str("");
    }
    return op;
}

static mj_op random_signal(rng *r)
{
    mj_op op = {.kind = MJ_OP_SIGNAL, .sig = signal_of((mj_signal_kind)(1 + below(r, SIG_COUNT - 1))), .want = true};

    if (op.sig.kind == SIG_CLAIM)
        op.sig = signal_of(SIG_SUCCEEDED);
    op.sig.task_id = str(chance(r, 60) ? ids[below(r, NIDS)] : "");
    op.has_ref = known.n > 0 && chance(r, 80);
    if (op.has_ref)
        some_ref(r, op.ref);
    if (chance(r, 30))
        op.sig.source = (mj_source)below(r, MJ_NSOURCES);
    if (chance(r, 30))
        op.sig.wait_ms = chance(r, 50) ? 0 : below(r, 60) * SECOND;
    op.sig.counts = chance(r, 50);
    return op;
}

static mj_op random_event(rng *r, int64_t now)
{
    static const mj_op_kind kinds[] = {MJ_OP_EVENT_TAKE,  MJ_OP_EVENT_TAKE, MJ_OP_EVENT_DONE, MJ_OP_EVENT_DONE,
                                       MJ_OP_EVENT_RETRY, MJ_OP_EVENT_KICK, MJ_OP_EVENT_BURY};
    mj_op op = {.kind = kinds[below(r, 7)], .until = now + below(r, 3) * SECOND, .event = known.taken};

    if (op.kind == MJ_OP_EVENT_TAKE)
        return op;
    if (op.kind == MJ_OP_EVENT_DONE && chance(r, 30))
        op.sig.files = str("[]");
    if (op.kind == MJ_OP_EVENT_RETRY && chance(r, 40))
        op.until = 0;
    if (op.kind == MJ_OP_EVENT_RETRY && chance(r, 50))
        op.sig.error = str("it failed");
    if (op.kind == MJ_OP_EVENT_KICK || op.kind == MJ_OP_EVENT_BURY || chance(r, 20)) {
        some_ref(r, op.event.ref);
        op.event.seq = below(r, 4) + (op.kind != MJ_OP_EVENT_KICK);
        op.event.tries = below(r, 3);
    }
    return op;
}

static mj_op random_op(rng *r, mj_task *t, int64_t now)
{
    uint32_t what = below(r, 100);
    mj_op op = {.sig = signal_of(SIG_CLAIM), .want = true, .limit = below(r, 5), .until = now};

    if (what < 18)
        return random_create(r, t, now);
    if (what < 50)
        return random_signal(r);
    if (what < 62)
        return (mj_op){.kind = MJ_OP_CLAIM, .sig = op.sig, .want = true};
    if (what < 82)
        return random_event(r, now);
    op.kind = what < 84   ? MJ_OP_PAUSE
              : what < 87 ? MJ_OP_TICK
              : what < 92 ? MJ_OP_PRUNE
              : what < 93 ? MJ_OP_PRUNE_FROM
              : what < 96 ? MJ_OP_FORGET
              : what < 97 ? MJ_OP_UPGRADE
                          : MJ_OP_REFUSE;
    if (op.kind == MJ_OP_PAUSE) {
        op.until = chance(r, 50) ? 0 : now + below(r, 60) * SECOND;
        op.sig.account = str(senders[below(r, NACCOUNTS)]);
        op.sig.error_code = str(chance(r, 30) ? "concurrency" : "quota");
    } else if (op.kind == MJ_OP_TICK) {
        op.limit = chance(r, 50) ? op.limit : 1000;
    } else if (op.kind == MJ_OP_PRUNE || op.kind == MJ_OP_PRUNE_FROM) {
        op.sig.expect_state = (int)below(r, MJ_NSTATES);
        op.has_ref = known.n > 0 && chance(r, 30);
    }
    if (op.has_ref || op.kind == MJ_OP_REFUSE)
        some_ref(r, op.ref);
    if (op.kind == MJ_OP_REFUSE)
        op.body = str("{}");
    return op;
}

/* Runs new random operations on `s`, each in a write of its own. */
static void run_each(mj_store *s, rng *r, batch *b, int n, int64_t now)
{
    for (b->n = 0; b->n < n; b->n++) {
        mj_op *op = &b->ops[b->n];
        *op = random_op(r, &b->tasks[b->n], now);
        CHECK_INT(mj_store_write(s, op, 1, now), MJ_OK);
        if (op->kind == MJ_OP_CREATE && op->code == MJ_OK) {
            CHECK(known.n < NREFS);
            memcpy(known.refs[known.n++], op->ref, MJ_ULID_BYTES);
        }
        if (op->kind == MJ_OP_EVENT_TAKE && op->code == MJ_OK)
            known.taken = op->event;
    }
}

static void names(void)
{
    memset(&known, 0, sizeof known);
    for (int i = 0; i < NNAMES; i++)
        snprintf(keys[i], sizeof keys[i], "k%d", i);
    for (int i = 0; i < NIDS; i++)
        snprintf(ids[i], sizeof ids[i], "T%d", i);
}

static mj_store *open_sending(const char *dir)
{
    mj_account list[NACCOUNTS];
    mj_store_options o = {.rules = mj_rules_default};
    /* One of the two is LMDB's, whatever the other one is on. */
    mj_store *s = strcmp(dir, "one") == 0 ? open_lmdb_at(dir, &o) : open_store_at(dir, &o);

    for (int i = 0; i < NACCOUNTS; i++)
        list[i] = (mj_account){str(senders[i]), (uint32_t)i + 1};
    CHECK_INT(mj_store_accounts(s, list, NACCOUNTS), MJ_OK);
    return s;
}

/* Mostly a little later; seldom the clock is set back. */
static int64_t later(rng *r, int64_t now)
{
    if (chance(r, 4))
        return now - below(r, 5000) * SECOND;
    return now + below(r, chance(r, 50) ? 3 : chance(r, 60) ? 900 : 3 * 86400) * SECOND;
}

#endif
