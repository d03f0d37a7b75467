/* A wall clock that is set back, and what it put off; and one that runs ahead of the others'.
 *
 * Times on disk are wall-clock milliseconds.  What was stored by a clock that was ahead lies in the future when the
 * clock is set right, and would wait until that time comes.  Each commit leaves its time behind; one that finds a later
 * time there begins a walk over all that waits: entries that were stored by a clock ahead of ours are made due, or
 * bounded by what they can wait at most from now on.  A walk is done a part at a time, in whatever units come, and goes
 * on where it was after any death. */
#include "store/rules.h"

#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* What waits: the outbox, the due index job by job, the slots. */
enum { OUTBOX, FIRST_JOB, LAST_JOB = MJ_DUE_OWNER, SLOTS, NSTAGES };
enum { PART = 64 /* entries that a unit goes over besides its own work */ };

typedef struct walk {
    unsigned stage;
    bool again; /* the clock was set back once more meanwhile */
    bool begun; /* goes on behind (at, ref, n); otherwise at the first that lies in the future */
    int64_t at;
    uint32_t n;
    uint8_t ref[MJ_ULID_BYTES];
} walk;

static const mj_entry walk_key = {.index = MJ_IX_META, .name = {MJ_REWIND_KEY, sizeof MJ_REWIND_KEY - 1}};
static const mj_entry clock_key = {.index = MJ_IX_META, .name = {MJ_CLOCK_KEY, sizeof MJ_CLOCK_KEY - 1}};

static int load(mj_unit *u, walk *w)
{
    const uint8_t *ref;
    mj_str bytes;
    mj_reader r;
    int rc = mj_unit_meta(u, walk_key, &bytes);

    if (rc != MJ_OK)
        return rc;
    r = mj_reader_of(bytes.p, bytes.n);
    *w = (walk){0};
    w->stage = mj_get_u8(&r);
    w->again = mj_get_u8(&r) != 0;
    w->begun = mj_get_u8(&r) != 0;
    w->at = mj_get_int(&r);
    w->n = mj_get_u32(&r);
    ref = mj_get_raw(&r, MJ_ULID_BYTES);
    if (ref)
        memcpy(w->ref, ref, MJ_ULID_BYTES);
    if (r.bad || w->stage >= NSTAGES) /* what can't be read, or another version wrote: once more from the beginning */
        *w = (walk){0};
    return MJ_OK;
}

static void save(mj_unit *u, const walk *w)
{
    mj_buf *b = &u->s->scratch;

    b->n = 0;
    mj_put_u8(b, (uint8_t)w->stage);
    mj_put_u8(b, w->again);
    mj_put_u8(b, w->begun);
    mj_put_int(b, w->at);
    mj_put_uint(b, w->n);
    mj_put_raw(b, w->ref, MJ_ULID_BYTES);
    if (b->failed)
        u->rc = MJ_ENOMEM;
    mj_unit_change_of(u, walk_key, false, mj_unit_copy(u, b->p, b->n));
}

typedef struct part {
    uint32_t n;
    mj_entry *entries;
} part;

static bool one(void *ctx, const mj_entry *e, mj_str bytes)
{
    part *p = ctx;

    (void)bytes;
    p->entries[p->n++] = *e;
    return true;
}

/* The next entries of the walk's stage. */
static part next_entries(mj_unit *u, const walk *w, uint32_t limit)
{
    mj_index index = w->stage == OUTBOX ? MJ_IX_OUTBOX : w->stage == SLOTS ? MJ_IX_SLOT : MJ_IX_DUE;
    mj_scan scan = {.index = index, .fixed = index == MJ_IX_DUE, .positioned = true, .after = w->begun, .limit = limit};
    part p = {0, mj_unit_alloc(u, limit * sizeof *p.entries)};

    scan.from = (mj_entry){.index = index, .n = index == MJ_IX_DUE ? w->stage : w->n, .at = w->begun ? w->at : u->now};
    memcpy(scan.from.ref, w->ref, MJ_ULID_BYTES);
    if (p.entries) {
        int rc = u->s->backend->scan(u->tx, &scan, one, &p);
        if (rc != MJ_OK)
            u->rc = rc;
        mj_unit_expect_tasks(u, p.entries, p.n);
    }
    return p;
}

bool mj_clock_walk(mj_unit *u, uint32_t limit)
{
    walk w;
    int rc = load(u, &w);

    if (rc != MJ_OK)
        return false;
    while (limit > 0 && u->rc == MJ_OK) {
        part p = next_entries(u, &w, limit);
        bool ended = p.n < limit;
        for (uint32_t i = 0; i < p.n && u->rc == MJ_OK; i++) {
            const mj_entry *e = &p.entries[i];
            if (w.stage == OUTBOX)
                mj_event_rewind(u, e->ref, e->n);
            else
                mj_rewind(u, e->ref);
            w.begun = true;
            w.at = e->at;
            w.n = e->n;
            memcpy(w.ref, e->ref, MJ_ULID_BYTES);
        }
        limit -= p.n < limit ? p.n : limit;
        if (!ended)
            continue;
        if (w.stage == SLOTS && !w.again) {
            mj_unit_change_of(u, walk_key, true, (mj_str){0});
            return false;
        }
        if (w.stage == SLOTS)
            w = (walk){0};
        else
            w = (walk){.stage = w.stage + 1, .again = w.again};
    }
    save(u, &w);
    return true;
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

static bool load_reading(mj_unit *u, reading *s)
{
    const uint8_t *boot;
    mj_str bytes;
    mj_reader r;

    if (mj_unit_meta(u, clock_key, &bytes) != MJ_OK)
        return false;
    r = mj_reader_of(bytes.p, bytes.n);
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

static void compare_clocks(mj_unit *u)
{
    reading mine, theirs;
    bool known = load_reading(u, &theirs);
    int64_t elapsed, expected;

    u->remember = read_clocks(u->now, &mine);
    if (!u->remember || !known || memcmp(mine.boot, theirs.boot, sizeof mine.boot) != 0)
        return;
    elapsed = mine.since - theirs.since; /* negative in another time namespace */
    expected = theirs.now + elapsed;
    if (elapsed < 0 || elapsed > ADOPT_MS)
        return;
    if (apart(mine.offset, theirs.offset) > MJ_CLOCK_STEP_MS && u->now - expected > MJ_CLOCK_STEP_MS) {
        u->sure = expected;
        u->remember = false; /* the others' reading stays */
    } else if (elapsed < FRESH_MS && apart(u->now, expected) < 1000) {
        u->remember = false; /* would tell the same */
    }
}

void mj_clock_remember(mj_unit *u)
{
    mj_buf *b = &u->s->scratch;
    reading s;

    if (!u->remember || !read_clocks(u->now, &s))
        return;
    b->n = 0;
    mj_put_raw(b, s.boot, sizeof s.boot);
    mj_put_int(b, s.since);
    mj_put_int(b, s.offset);
    mj_put_int(b, s.now);
    if (b->failed)
        u->rc = MJ_ENOMEM;
    mj_unit_change_of(u, clock_key, false, mj_unit_copy(u, b->p, b->n));
}

void mj_clock_look(mj_unit *u)
{
    walk w = {0};

    if (u->totals.latest - u->now > MJ_CLOCK_STEP_MS) {
        u->tally.set_back = true;
        if (load(u, &w) == MJ_OK)
            w.again = true;
        else
            w = (walk){0};
        save(u, &w);
    }
    if (u->rc == MJ_OK && !u->s->backend->now) /* else all go by one clock */
        compare_clocks(u);
    if (u->rc == MJ_OK)
        mj_clock_walk(u, PART);
}
