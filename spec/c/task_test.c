#include "rng.h"
#include "task_help.h"

static char pool[70000]; /* where the strings of random tasks lie */

static mj_str random_str(rng *r, uint32_t max)
{
    uint32_t n = chance(r, 30) ? 0 : chance(r, 5) ? max : below(r, max < 40 ? max + 1 : 40);

    return n ? (mj_str){pool + below(r, (uint32_t)sizeof pool - n), n} : (mj_str){0};
}

static int64_t random_time(rng *r)
{
    return chance(r, 20) ? 0 : chance(r, 5) ? MJ_MAX_TIME : (int64_t)(draw(r) >> (11 + below(r, 40)));
}

static uint32_t random_u32(rng *r)
{
    return (uint32_t)(draw(r) >> (32 + below(r, 32)));
}

static void random_attempt(rng *r, mj_attempt *a)
{
    a->status = (mj_attempt_status)below(r, MJ_NATTEMPT_STATUSES);
    a->submitted_at = random_time(r);
    a->slot_until = random_time(r);
    a->account = random_str(r, MJ_MAX_NAME);
    a->slot = a->account.n > 0 && chance(r, 50);
    a->nids = below(r, MJ_MAX_IDS + 1);
    for (unsigned i = 0; i < a->nids; i++)
        a->ids[i] = random_str(r, MJ_MAX_TASK_ID);
}

static void random_moment(rng *r, mj_timeline_entry *m)
{
    m->at = random_time(r);
    m->until = random_time(r);
    m->count = random_u32(r);
    m->attempt = random_u32(r);
    m->signal = (uint8_t)below(r, SIG_COUNT);
    m->result = (uint8_t)below(r, MJ_NRESULTS);
    m->source = (mj_source)below(r, MJ_NSOURCES);
    m->from = (mj_state)below(r, MJ_NSTATES);
    m->to = (mj_state)below(r, MJ_NSTATES);
    m->reason = random_str(r, MJ_MAX_REASON);
}

static void random_texts(rng *r, mj_task *t)
{
    t->account = random_str(r, MJ_MAX_NAME);
    t->prompt = random_str(r, MJ_MAX_PROMPT);
    t->mj_prompt = random_str(r, MJ_MAX_PROMPT);
    t->user_id = random_str(r, MJ_MAX_NAME);
    t->context = random_str(r, MJ_MAX_JSON);
    t->key = random_str(r, MJ_MAX_NAME);
    t->image = random_str(r, MJ_MAX_URL);
    t->meta = random_str(r, MJ_MAX_JSON);
    t->error_code = random_str(r, 40);
    t->error = random_str(r, MJ_MAX_REASON);
    t->nimages = below(r, MJ_MAX_IMAGES + 1);
    for (unsigned i = 0; i < t->nimages; i++)
        t->images[i] = (mj_image_url){.tail = random_str(r, MJ_MAX_URL)};
    if (chance(r, 50))
        t->mj_prompt = t->prompt;
    for (unsigned i = 1; i < t->nimages; i++) { /* some are the beginning of another one */
        mj_str of = chance(r, 50) ? t->image : t->images[0].tail;
        if (chance(r, 50))
            t->images[i].tail = of.n ? (mj_str){of.p, below(r, of.n + 1)} : of;
    }
}

static void random_task(rng *r, mj_task *t)
{
    memset(t, 0, sizeof *t);
    for (size_t i = 0; i < sizeof pool; i += 8) {
        uint64_t v = draw(r);
        memcpy(pool + i, &v, sizeof pool - i < 8 ? sizeof pool - i : 8);
    }
    for (size_t i = 0; i < MJ_ULID_BYTES; i++) {
        t->ref[i] = (uint8_t)draw(r);
        t->fingerprint[i] = (uint8_t)draw(r);
        t->owner.boot[i] = (uint8_t)draw(r);
    }
    t->state = (mj_state)below(r, MJ_NSTATES);
    t->mode = (mj_mode)below(r, 2);
    t->source = (mj_source)below(r, MJ_NSOURCES);
    t->ready = chance(r, 50);
    t->late = chance(r, 50);
    t->decided = chance(r, 50);
    t->adopted = chance(r, 50);
    t->has_owner = chance(r, 50);
    t->timeout = random_u32(r);
    t->priority = (int32_t)random_u32(r);
    t->polls = random_u32(r);
    t->absent = random_u32(r);
    t->hints = random_u32(r);
    t->tries = random_u32(r);
    t->event_seq = random_u32(r);
    t->forgotten = random_u32(r);
    t->created_at = random_time(r);
    t->updated_at = random_time(r);
    t->finished_at = random_time(r);
    t->due_at = random_time(r);
    t->expires_at = random_time(r);
    t->absent_since = random_time(r);
    t->asked_at = random_time(r);
    t->silent_ms = random_time(r);
    random_texts(r, t);
    t->nattempts = 1 + below(r, MJ_MAX_ATTEMPTS);
    for (unsigned i = 0; i < t->nattempts; i++)
        random_attempt(r, &t->attempts[i]);
    t->owner.pidns = draw(r);
    t->owner.pid = random_u32(r);
    t->owner.started = draw(r);
    if (!t->has_owner)
        memset(&t->owner, 0, sizeof t->owner);
    t->ntimeline = below(r, MJ_MAX_TIMELINE + 1);
    for (unsigned i = 0; i < t->ntimeline; i++)
        random_moment(r, &t->timeline[i]);
}

/* Decodes bytes that end where their memory ends, so that a sanitizer sees every byte read beyond. */
static int decode_exactly(const uint8_t *p, size_t n, mj_task *t)
{
    uint8_t *copy = malloc(n ? n : 1);
    int rc;

    CHECK(copy != NULL);
    memcpy(copy, p, n);
    rc = mj_task_decode(copy, n, t);
    if (rc == MJ_OK) { /* what it lets through can be written again */
        mj_buf again = encoded(t);
        mj_buf_free(&again);
    }
    free(copy);
    return rc;
}

TEST("any task comes back from its record as it was")
{
    rng r = rng_of(3);
    static mj_task t, back;

    for (int i = 0; i < 1500; i++) {
        mj_buf b;
        random_task(&r, &t);
        b = encoded(&t);
        memset(&back, 0xa5, sizeof back);
        CHECK_INT(mj_task_decode(b.p, b.n, &back), MJ_OK);
        check_same(&t, &back);
        mj_buf_free(&b);
    }
}

TEST("what a record's texts have in common is stored once, also after the record was read and changed")
{
    static const char grid[] = "https://cdn.example/3dbbd469-36af-4a0f-8f02-df6c579e7011/grid_0.png";
    static const char *const urls[] = {"https://cdn.example/3dbbd469-36af-4a0f-8f02-df6c579e7011/0_0.png",
                                       "https://cdn.example/3dbbd469-36af-4a0f-8f02-df6c579e7011/0_1.png", "",
                                       "https://elsewhere.example/1.png"};
    static mj_task t, back;
    mj_buf b, again;

    for (int with_grid = 0; with_grid < 2; with_grid++) {
        memset(&t, 0, sizeof t);
        t.nattempts = 1;
        t.prompt = MJ_LIT("a fox in the snow, golden hour, 85mm lens --ar 4:5");
        t.mj_prompt = t.prompt;
        t.image = with_grid ? (mj_str){grid, sizeof grid - 1} : (mj_str){0};
        for (t.nimages = 0; t.nimages < 4; t.nimages++)
            t.images[t.nimages].tail = (mj_str){urls[t.nimages], (uint32_t)strlen(urls[t.nimages])};
        b = encoded(&t);
        CHECK(b.n < 280);
        CHECK_INT(mj_task_decode(b.p, b.n, &back), MJ_OK);
        check_same(&t, &back);
        again = encoded(&back);
        CHECK_INT(again.n, b.n);
        CHECK_MEM(again.p, b.p, b.n);
        mj_buf_free(&again);
        back.image = MJ_LIT("https://other.example/grid.png"); /* what the images share is not its beginning any more */
        again = encoded(&back);
        memset(&t, 0, sizeof t);
        CHECK_INT(mj_task_decode(again.p, again.n, &t), MJ_OK);
        check_same(&back, &t);
        mj_buf_free(&again);
        mj_buf_free(&b);
    }
}

TEST("no part of a record is a record")
{
    rng r = rng_of(4);
    static mj_task t, out;
    size_t tried = 0;

    while (tried < 20000) {
        mj_buf b;
        random_task(&r, &t);
        t.context.n = t.meta.n = 0;
        b = encoded(&t);
        for (size_t n = 0; n < b.n && n < 3000; n++, tried++)
            CHECK_INT(decode_exactly(b.p, n, &out), MJ_ECORRUPT);
        mj_put_u8(&b, 0); /* nor is one with something behind it */
        CHECK_INT(decode_exactly(b.p, b.n, &out), MJ_ECORRUPT);
        mj_buf_free(&b);
    }
}

TEST("a record with flipped bits is refused or read within every limit")
{
    rng r = rng_of(5);
    static mj_task t, out;
    int read = 0, refused = 0;

    for (int i = 0; i < 40000; i++) {
        static mj_buf b;
        if (i % 40 == 0) {
            mj_buf_free(&b);
            random_task(&r, &t);
            t.context.n = t.meta.n = t.prompt.n = t.mj_prompt.n = 0;
            b = encoded(&t);
        }
        size_t at = below(&r, (uint32_t)b.n);
        uint8_t old = b.p[at];
        b.p[at] = (uint8_t)(chance(&r, 50) ? old ^ (1u << below(&r, 8)) : draw(&r));
        int rc = decode_exactly(b.p, b.n, &out);
        CHECK(rc == MJ_OK || rc == MJ_ECORRUPT || (rc == MJ_ESCHEMA && at == 0));
        read += rc == MJ_OK;
        refused += rc != MJ_OK;
        if (rc == MJ_OK) {
            CHECK(out.nattempts >= 1 && out.nattempts <= MJ_MAX_ATTEMPTS && out.nimages <= MJ_MAX_IMAGES);
            CHECK((unsigned)out.state < MJ_NSTATES && out.ntimeline <= MJ_MAX_TIMELINE);
            CHECK(out.user_id.n <= MJ_MAX_NAME && out.key.n <= MJ_MAX_NAME && out.account.n <= MJ_MAX_NAME);
            CHECK(out.due_at >= 0 && out.due_at <= MJ_MAX_TIME);
        }
        b.p[at] = old;
    }
    CHECK(read > 1000 && refused > 1000);
}

TEST("noise is no record")
{
    rng r = rng_of(6);
    uint8_t bytes[200];
    mj_task out;

    for (int i = 0; i < 20000; i++) {
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)draw(&r);
        bytes[0] = 1;
        CHECK_INT(decode_exactly(bytes, below(&r, sizeof bytes), &out), MJ_ECORRUPT);
    }
}

TEST("a record that can't be read leaves the task as it was")
{
    static mj_task t, before;
    rng r = rng_of(7);
    mj_buf b;

    random_task(&r, &t);
    b = encoded(&t);
    before = t;
    CHECK_INT(mj_task_decode(b.p, b.n - 1, &t), MJ_ECORRUPT);
    CHECK_MEM(&t, &before, sizeof t);
    mj_buf_free(&b);
}

TEST("a record of a newer version is told apart from a corrupt one")
{
    static mj_task t;
    rng r = rng_of(8);
    mj_buf b;

    random_task(&r, &t);
    b = encoded(&t);
    b.p[0]++;
    CHECK_INT(mj_task_decode(b.p, b.n, &t), MJ_ESCHEMA);
    CHECK_INT(mj_task_decode(b.p, 1, &t), MJ_ESCHEMA);
    b.p[0] = 0;
    CHECK_INT(mj_task_decode(b.p, b.n, &t), MJ_ECORRUPT);
    CHECK_INT(mj_task_decode(b.p, 0, &t), MJ_ECORRUPT);
    CHECK_INT(mj_task_decode(NULL, 0, &t), MJ_ECORRUPT);
    mj_buf_free(&b);
}

TEST("names too long for a key, a slot without an account and times that no clock has are corrupt")
{
    static mj_task t, out;
    static const struct {
        size_t at;
        uint32_t most;
    } names[] = {{offsetof(mj_task, user_id), MJ_MAX_NAME},
                 {offsetof(mj_task, key), MJ_MAX_NAME},
                 {offsetof(mj_task, account), MJ_MAX_NAME},
                 {offsetof(mj_task, attempts[0].account), MJ_MAX_NAME},
                 {offsetof(mj_task, attempts[0].ids[0]), MJ_MAX_TASK_ID}};
    static const size_t times[] = {offsetof(mj_task, created_at), offsetof(mj_task, due_at),
                                   offsetof(mj_task, asked_at), offsetof(mj_task, attempts[0].slot_until),
                                   offsetof(mj_task, timeline[0].at)};
    mj_buf b;

    for (size_t i = 0; i < 12; i++) {
        t = (mj_task){.nattempts = 1, .ntimeline = 1, .attempts[0].nids = 1};
        mj_str *name = i < 5 ? (mj_str *)((char *)&t + names[i].at) : NULL;
        if (name)
            *name = (mj_str){pool, names[i].most};
        b = encoded(&t);
        CHECK_INT(mj_task_decode(b.p, b.n, &out), MJ_OK);
        mj_buf_free(&b);
        if (name)
            name->n++;
        else if (i < 10)
            *(int64_t *)((char *)&t + times[i - 5]) = i % 2 ? -1 : MJ_MAX_TIME + 1;
        else if (i == 10)
            t.attempts[0].slot = true;
        else
            t.timeline[0].until = -1;
        b = encoded(&t);
        CHECK_INT(mj_task_decode(b.p, b.n, &out), MJ_ECORRUPT);
        mj_buf_free(&b);
    }
}
