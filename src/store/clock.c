/* A wall clock that is set back, and what it put off; and one that runs ahead of the others'.
 *
 * Times on disk are wall-clock milliseconds.  What was stored by a clock that was ahead lies in the future when the
 * clock is set right, and would wait until that time comes.  Each commit leaves its time behind; one that finds a later
 * time there begins a walk over all that waits: entries that were stored by a clock ahead of ours are made due, or
 * bounded by what they can wait at most from now on.  A walk is done a part at a time, in whatever transactions come,
 * and goes on where it was after any death. */
#include "store/impl.h"

#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* What waits: the outbox, the due index job by job, the slots. */
enum { OUTBOX, FIRST_JOB, LAST_JOB = MJ_DUE_OWNER, SLOTS, NSTAGES };
enum { PART = 64 /* entries that a transaction goes over besides its own work */, PLACE = 64 };

typedef struct walk {
    unsigned stage;
    bool again; /* the clock was set back once more meanwhile */
    size_t n;   /* the key to go on from; 0: the first that lies in the future */
    uint8_t key[PLACE];
} walk;

static MDB_val walk_key(void)
{
    return mj_val(MJ_REWIND_KEY, sizeof MJ_REWIND_KEY - 1);
}

static int load(mj_txn *x, walk *w)
{
    MDB_val v;
    mj_reader r;
    mj_str key;
    int rc = mj_txn_get(x, DB_META, walk_key(), &v);

    if (rc != 0)
        return rc;
    r = mj_reader_of(v.mv_data, v.mv_size);
    *w = (walk){0};
    w->stage = mj_get_u8(&r);
    w->again = mj_get_u8(&r) != 0;
    key = mj_get_str(&r);
    if (r.bad || w->stage >= NSTAGES || key.n > PLACE)
        return MJ_ECORRUPT;
    w->n = key.n;
    if (key.n > 0)
        memcpy(w->key, key.p, key.n);
    return 0;
}

static int save(mj_txn *x, const walk *w)
{
    mj_buf *b = &x->s->scratch;

    b->n = 0;
    mj_put_u8(b, (uint8_t)w->stage);
    mj_put_u8(b, w->again);
    mj_put_str(b, (mj_str){(const char *)w->key, (uint32_t)w->n});
    return b->failed ? MJ_ENOMEM : mj_txn_put(x, DB_META, walk_key(), mj_val(b->p, b->n));
}

static int database(unsigned stage)
{
    return stage == OUTBOX ? DB_OUTBOX : stage == SLOTS ? DB_SLOT : DB_DUE;
}

/* Where time and ref stand in a key of the stage's database. */
static size_t time_at(unsigned stage)
{
    return database(stage) == DB_DUE ? 1 : 0;
}

static void first_key(const mj_txn *x, walk *w)
{
    w->key[0] = (uint8_t)w->stage; /* the job, in the due index */
    mj_be64(w->key + time_at(w->stage), (uint64_t)x->now);
    w->n = time_at(w->stage) + 8;
}

/* The next key there could be. */
static void step_over(walk *w)
{
    for (size_t i = w->n; i > 0 && ++w->key[i - 1] == 0; i--)
        ;
}

/* To the next entry of the stage: MDB_NOTFOUND at its end. */
static int next_entry(mj_txn *x, walk *w)
{
    MDB_val key, v;
    int rc;

    if (w->n == 0)
        first_key(x, w);
    rc = mj_txn_seek(x, database(w->stage), mj_val(w->key, w->n), &key, &v);
    if (rc != 0)
        return rc;
    if (key.mv_size > PLACE || key.mv_size < time_at(w->stage) + 8 + MJ_ULID_BYTES ||
        (time_at(w->stage) > 0 && ((uint8_t *)key.mv_data)[0] != w->stage))
        return MDB_NOTFOUND;
    memcpy(w->key, key.mv_data, key.mv_size);
    w->n = key.mv_size;
    return 0;
}

static int visit(mj_txn *x, const walk *w)
{
    return w->stage == OUTBOX ? mj_event_rewind(x, w->key) : mj_txn_rewind(x, w->key + time_at(w->stage) + 8);
}

int mj_clock_walk(mj_txn *x, uint32_t limit, bool *more)
{
    walk w;
    int rc = load(x, &w);

    *more = false;
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc == MJ_ECORRUPT)
        return mj_txn_del(x, DB_META, walk_key());
    for (uint32_t i = 0; i < limit && rc == 0; i++) {
        rc = next_entry(x, &w);
        if (rc == 0) {
            rc = visit(x, &w);
            step_over(&w);
        } else if (rc == MDB_NOTFOUND && w.stage < SLOTS) {
            w = (walk){.stage = w.stage + 1, .again = w.again};
            rc = 0;
        } else if (rc == MDB_NOTFOUND && w.again) {
            w = (walk){0};
            rc = 0;
        }
    }
    if (rc == MDB_NOTFOUND)
        return mj_txn_del(x, DB_META, walk_key());
    *more = rc == 0;
    return rc != 0 ? rc : save(x, &w);
}

/* ---- a clock that runs ahead of the others' ---- */

/* A process whose wall clock is ahead would end slots that are held.  So the store keeps, beside the time of a commit,
 * the time since boot, which all processes of a machine share.  A process with another wall clock, and with a time that
 * can't have come yet, ends slots of jobs that the provider has by the kept time plus what has passed since. */
typedef struct reading {
    uint8_t boot[16]; /* of the machine */
    int64_t since;    /* ms since boot */
    int64_t offset;   /* of the system's wall clock to it, ms */
    int64_t now;      /* the time of the commit, ms */
} reading;

enum {
    ADOPT_MS = 1800000, /* a reading that is older proves nothing: no slot is held any more that was held then */
    FRESH_MS = 60000,   /* a reading that is younger need not be written again */
};

static MDB_val reading_key(void)
{
    return mj_val(MJ_CLOCK_KEY, sizeof MJ_CLOCK_KEY - 1);
}

static bool read_clocks(int64_t now, reading *s)
{
    struct timespec wall, boot;
    mj_owner self;

    /* The kernel itself is asked for the time since boot: a library that shows programs another time does not change
     * that one. */
    if (mj_owner_self(&self) != 0 || clock_gettime(CLOCK_REALTIME, &wall) != 0 ||
        syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &boot) != 0)
        return false;
    *s = (reading){.since = (int64_t)boot.tv_sec * 1000 + boot.tv_nsec / 1000000, .now = now};
    memcpy(s->boot, self.boot, sizeof s->boot);
    s->offset = (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000 - s->since;
    return true;
}

static bool load_reading(mj_txn *x, reading *s)
{
    const uint8_t *boot;
    mj_reader r;
    MDB_val v;

    if (mj_txn_get(x, DB_META, reading_key(), &v) != 0)
        return false;
    r = mj_reader_of(v.mv_data, v.mv_size);
    boot = mj_get_raw(&r, sizeof s->boot);
    if (boot)
        memcpy(s->boot, boot, sizeof s->boot);
    s->since = mj_get_int(&r);
    s->offset = mj_get_int(&r);
    s->now = mj_get_int(&r);
    return !r.bad;
}

static int64_t apart(int64_t a, int64_t b)
{
    return a > b ? a - b : b - a;
}

static void compare_clocks(mj_txn *x)
{
    reading mine, theirs;
    bool known = load_reading(x, &theirs);
    int64_t elapsed, expected;

    x->sure = x->now;
    x->remember = read_clocks(x->now, &mine);
    if (!x->remember || !known || memcmp(mine.boot, theirs.boot, sizeof mine.boot) != 0)
        return;
    elapsed = mine.since - theirs.since; /* negative in another time namespace */
    expected = theirs.now + elapsed;
    if (elapsed < 0 || elapsed > ADOPT_MS)
        return;
    if (apart(mine.offset, theirs.offset) > MJ_CLOCK_STEP_MS && x->now - expected > MJ_CLOCK_STEP_MS) {
        x->sure = expected;
        x->remember = false; /* the others' reading stays */
    } else if (elapsed < FRESH_MS && apart(x->now, expected) < 1000) {
        x->remember = false; /* would tell the same */
    }
}

int mj_clock_remember(mj_txn *x)
{
    mj_buf *b = &x->s->scratch;
    reading s;

    if (!x->remember || !read_clocks(x->now, &s))
        return 0;
    b->n = 0;
    mj_put_raw(b, s.boot, sizeof s.boot);
    mj_put_int(b, s.since);
    mj_put_int(b, s.offset);
    mj_put_int(b, s.now);
    return b->failed ? MJ_ENOMEM : mj_txn_put(x, DB_META, reading_key(), mj_val(b->p, b->n));
}

int mj_clock_look(mj_txn *x)
{
    walk w = {0};
    bool more;
    int rc = 0;

    if (x->counters.latest - x->now > MJ_CLOCK_STEP_MS) {
        if (load(x, &w) == 0)
            w.again = true;
        rc = save(x, &w);
    }
    x->counters.latest = x->now;
    compare_clocks(x);
    return rc != 0 ? rc : mj_clock_walk(x, PART, &more);
}
