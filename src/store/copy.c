/* Copying a store: its phases, the rows that are few, and the notes in both stores.  See copy.h. */
#include "store/copy.h"

#include "store/copied.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows of few kinds and few of each: refused callbacks, accounts, what the store keeps of itself. */
typedef struct few {
    mj_side *x;
    size_t n, room;
    struct few_row {
        mj_entry key;
        mj_str bytes;
    } * all;
} few;

static void keep(few *f, const mj_entry *key, mj_str bytes)
{
    struct few_row *more;

    if (f->n == f->room) {
        f->room = f->room ? 2 * f->room : 64;
        more = mj_unit_alloc(&f->x->u, f->room * sizeof *more);
        if (!more)
            return;
        if (f->n)
            memcpy(more, f->all, f->n * sizeof *more);
        f->all = more;
    }
    f->all[f->n].key = *key;
    f->all[f->n].key.name = mj_unit_copy(&f->x->u, key->name.p, key->name.n);
    f->all[f->n++].bytes = mj_unit_copy(&f->x->u, bytes.p, bytes.n);
}

static bool one_of_few(void *ctx, const mj_entry *e, mj_str bytes)
{
    few *f = ctx;

    if (bytes.n > 0) /* an account without a row has none */
        keep(f, e, bytes);
    return f->x->u.rc == MJ_OK;
}

static int read_few(mj_side *x, few *f)
{
    static const char *const meta[] = {MJ_JUDGED_KEY, MJ_UPGRADE_KEY, MJ_PRUNE_KEY, MJ_REWIND_KEY};
    static const mj_index whole[] = {MJ_IX_REFUSED, MJ_IX_ACCOUNT};
    int rc = MJ_OK;

    *f = (few){.x = x};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0] && rc == MJ_OK; i++)
        rc = x->b->scan(x->u.tx, &(mj_scan){.index = whole[i]}, one_of_few, f);
    for (size_t i = 0; i < sizeof meta / sizeof meta[0] && rc == MJ_OK; i++) {
        mj_entry key = {.index = MJ_IX_META, .name = {meta[i], (uint32_t)strlen(meta[i])}};
        mj_str bytes;
        rc = x->b->get(x->u.tx, &key, &bytes);
        if (rc == MJ_OK)
            keep(f, &key, bytes);
        rc = rc == MJ_ENOTFOUND ? MJ_OK : rc;
    }
    return rc == MJ_OK ? x->u.rc : rc;
}

static const struct few_row *find_few(const few *f, const mj_entry *key)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->all[i].key.index == key->index && f->all[i].key.at == key->at &&
            mj_copied_same_bytes(f->all[i].key.name, key->name))
            return &f->all[i];
    return NULL;
}

static int bring_few(mj_copy *c, const few *is)
{
    uint64_t changed = 0;
    mj_changes w = {0};
    few was = {0};
    mj_side x;
    int rc = mj_side_begin(&x, c->to, true);

    if (rc != MJ_OK)
        return rc;
    rc = read_few(&x, &was);
    w.all = rc == MJ_OK ? mj_unit_alloc(&x.u, (was.n + is->n + 1) * sizeof *w.all) : NULL;
    if (rc == MJ_OK && !w.all)
        rc = MJ_ENOMEM;
    for (size_t i = 0; i < was.n && rc == MJ_OK; i++)
        if (!find_few(is, &was.all[i].key)) {
            changed++;
            mj_changes_add(&w, was.all[i].key, true, (mj_str){0});
        }
    for (size_t i = 0; i < is->n && rc == MJ_OK; i++) {
        const struct few_row *old = find_few(&was, &is->all[i].key);
        if (old && mj_copied_same_bytes(old->bytes, is->all[i].bytes))
            continue;
        changed++;
        mj_changes_add(&w, is->all[i].key, false, is->all[i].bytes);
    }
    c->altered += changed;
    if (c->verifying) {
        w.n = 0;
        c->differs += changed;
    }
    rc = mj_side_end(&x, rc, &w);
    mj_unit_reset(c->to);
    return rc;
}

static int put_few(mj_copy *c)
{
    int rc, tries = 0;
    mj_side from;
    few f;

    rc = mj_side_begin(&from, c->from, false);
    if (rc != MJ_OK)
        return rc;
    rc = read_few(&from, &f);
    from.b->abort(from.u.tx);
    if (rc == MJ_OK)
        do
            rc = bring_few(c, &f);
        while (mj_copy_again(rc, &tries));
    mj_unit_reset(c->from);
    if (rc == MJ_OK)
        mj_copy_next(c);
    return rc == MJ_EAGAIN ? MJ_EBUSY : rc;
}

/* ---- the notes in both stores ---- */

#define MOVED "moved to "
static const mj_entry moving = {.index = MJ_IX_META, .name = {MJ_MOVING_KEY, sizeof MJ_MOVING_KEY - 1}};

static bool there_is_one(void *ctx, const mj_entry *e, mj_str bytes)
{
    (void)e, (void)bytes;
    *(bool *)ctx = true;
    return false;
}

/* Whether the store remembers pruned tasks: without their keys jobs would be sent again. */
static int has_tombs(mj_store *s, bool *has)
{
    mj_side x;
    int rc = mj_side_begin(&x, s, false);

    *has = false;
    if (rc != MJ_OK)
        return rc;
    rc = x.b->scan(x.u.tx, &(mj_scan){.index = MJ_IX_TOMB, .head = 1, .limit = 1}, there_is_one, has);
    x.b->abort(x.u.tx);
    return rc;
}

static int look(mj_store *s, mj_buf *out, mj_tally *totals)
{
    mj_entry key = moving;
    mj_str text = {0};
    mj_side x;
    int rc = mj_side_begin(&x, s, false);

    if (rc != MJ_OK)
        return rc;
    rc = x.b->get(x.u.tx, &key, &text);
    out->n = 0;
    if (rc == MJ_OK)
        mj_put_raw(out, text.p, text.n);
    if (rc == MJ_ENOTFOUND)
        rc = MJ_OK;
    if (rc == MJ_OK)
        rc = x.b->totals(x.u.tx, totals);
    x.b->abort(x.u.tx);
    mj_put_u8(out, 0);
    return rc == MJ_OK && out->failed ? MJ_ENOMEM : rc;
}

/* Writes the note, or takes it away (text NULL), with what is added to the sums. */
static int note(mj_store *s, const char *text, const mj_tally *tally)
{
    mj_change ch = {.key = moving, .gone = !text};
    int rc, tries = 0;
    mj_side x;

    if (text)
        ch.bytes = (mj_str){text, (uint32_t)strlen(text)};
    do {
        rc = mj_side_begin(&x, s, true);
        if (rc == MJ_OK)
            rc = mj_side_end(&x, rc, &(mj_changes){1, &ch, *tally});
    } while (mj_copy_again(rc, &tries));
    return rc == MJ_EAGAIN ? MJ_EBUSY : rc;
}

__attribute__((format(printf, 3, 4))) static int refuse(mj_store *s, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(s->detail, sizeof s->detail, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized) */
    va_end(args);
    return code;
}

static bool is_empty(const mj_tally *t)
{
    int64_t n = 0;

    for (int s = 0; s < MJ_NSTATES; s++)
        n += t->states[s];
    return n == 0 && t->events == 0 && t->buried == 0;
}

/* Jobs that SQL enqueued would be left behind: they become tasks first.  The note is written, so that none comes any
 * more; it goes when the move can't be begun. */
static int none_waits(mj_copy *c)
{
    mj_buf jobs = {0};
    int rc = c->from->backend->barrier ? c->from->backend->barrier(c->from->db) : MJ_OK;

    if (rc == MJ_EBUSY)
        rc = refuse(c->from, MJ_EBUSY,
                    "a transaction that writes to %s, or enqueues a job there with SQL, is still open: end it, run "
                    "mjhook-reconcile, then move",
                    c->from_name);
    if (rc == MJ_OK)
        rc = mj_store_intake(c->from, 1, &jobs);
    if (rc == MJ_OK && jobs.n > 0)
        rc = refuse(c->from, MJ_EBUSY,
                    "jobs that SQL enqueued wait in the table intake of %s: run mjhook-reconcile, then move",
                    c->from_name);
    mj_buf_free(&jobs);
    return rc;
}

/* From now on the source takes no writes. */
static int close_source(mj_copy *c, const char *out)
{
    char why[sizeof c->from->detail];
    int rc = note(c->from, out, &(mj_tally){0});

    if (rc == MJ_OK)
        rc = none_waits(c);
    if (rc == MJ_EBUSY) {
        memcpy(why, c->from->detail, sizeof why);
        (void)note(c->from, NULL, &(mj_tally){0});
        memcpy(c->from->detail, why, sizeof why);
    }
    return rc;
}

/* The destination takes no writes until it is whole, and so it is empty now.  `text`: its note. */
static int close_destination(mj_copy *c, const char *text, const mj_tally *totals, const char *in)
{
    bool tombs;
    int rc;

    if (text[0] && strcmp(text, in) != 0)
        return refuse(c->to, MJ_EMOVED, "%s: its note says \"%s\"", c->to_name, text);
    if (text[0])
        return MJ_OK; /* an earlier copy has begun */
    if (!is_empty(totals))
        return refuse(c->to, MJ_EEXISTS, "%s holds tasks already", c->to_name);
    rc = has_tombs(c->to, &tombs);
    if (rc == MJ_OK && tombs)
        return refuse(c->to, MJ_EEXISTS,
                      "%s remembers the keys of pruned tasks, which would be forgotten: name a store "
                      "that was never used",
                      c->to_name);
    return rc == MJ_OK ? note(c->to, in, &(mj_tally){0}) : rc;
}

/* A store has many names. */
static int refuse_itself(mj_copy *c)
{
    int rc = note(c->to, NULL, &(mj_tally){0});

    return rc == MJ_OK ? refuse(c->to, MJ_EINVAL, "%s and %s are the same store", c->from_name, c->to_name) : rc;
}

static int prepare(mj_copy *c)
{
    char in[400], out[400], moved[400];
    mj_buf text = {0};
    mj_tally totals;
    int rc;

    snprintf(in, sizeof in, "from %s", c->from_name);
    snprintf(out, sizeof out, "to %s", c->to_name);
    snprintf(moved, sizeof moved, MOVED "%s", c->to_name);
    rc = look(c->to, &text, &totals);
    if (rc == MJ_OK)
        rc = close_destination(c, (const char *)text.p, &totals, in);
    if (rc == MJ_OK)
        rc = look(c->from, &text, &totals);
    if (rc == MJ_OK && strcmp((const char *)text.p, in) == 0)
        rc = refuse_itself(c);
    else if (rc == MJ_OK && text.n > 1 && strcmp((const char *)text.p, out) != 0 &&
             strcmp((const char *)text.p, moved) != 0)
        rc = refuse(c->from, MJ_EMOVED, "%s: its note says \"%s\"", c->from_name, (const char *)text.p);
    else if (rc == MJ_OK && c->finish && strcmp((const char *)text.p, moved) != 0)
        rc = close_source(c, out);
    mj_buf_free(&text);
    if (rc == MJ_OK)
        mj_copy_next(c);
    return rc;
}

static int totals_of(mj_store *s, mj_tally *out)
{
    mj_buf unused = {0};
    int rc = look(s, &unused, out);

    mj_buf_free(&unused);
    return rc;
}

/* Whether all that is counted by records is counted alike. */
static bool agree(const mj_tally *a, const mj_tally *b)
{
    return memcmp(a->states, b->states, sizeof a->states) == 0 && a->events == b->events && a->buried == b->buried &&
           a->ready == b->ready;
}

enum { MOST_ROUNDS = 5 };

/* After a comparison of all: from now on the destination is the store. */
static int finish(mj_copy *c)
{
    char moved[400];
    mj_tally from, to;
    int rc = totals_of(c->from, &from);

    if (rc == MJ_OK)
        rc = totals_of(c->to, &to);
    if (rc != MJ_OK)
        return rc;
    if (c->differs > 0 || (c->damaged == 0 && !agree(&from, &to))) { /* a batch that was under way when the note came */
        c->differing = c->differs;
        if (++c->rounds == MOST_ROUNDS)
            return refuse(c->from, MJ_EBUSY, "%s still changes while it is copied to %s", c->from_name, c->to_name);
        c->verifying = false;
        c->altered = 0;
        c->phase = 0;
        mj_copy_next(c);
        return MJ_OK;
    }
    c->differing = 0;
    snprintf(moved, sizeof moved, MOVED "%s", c->to_name);
    to = (mj_tally){.counters = from.counters, .latest = from.latest};
    rc = note(c->from, moved, &(mj_tally){0});
    if (rc == MJ_OK)
        rc = note(c->to, NULL, &to);
    c->done = rc == MJ_OK;
    return rc;
}

int mj_copy_step(mj_copy *c, uint32_t limit)
{
    limit = limit < 1 ? 1 : limit > 4096 ? 4096 : limit;
    switch (c->phase) {
    case 0:
        return prepare(c);
    case 1: /* first what is to go: a key or an id may belong to another task by now */
        return mj_copy_remove(c, MJ_IX_TASK, limit);
    case 2:
        return mj_copy_remove(c, MJ_IX_TOMB, limit);
    case 3:
        return mj_copy_put(c, MJ_IX_TASK, limit);
    case 4:
        return mj_copy_put(c, MJ_IX_TOMB, limit);
    case 5:
        return put_few(c);
    default:
        break;
    }
    if (!c->finish) {
        c->done = true;
        return MJ_OK;
    }
    if (c->verifying || c->altered == 0) /* what found nothing to write has compared all */
        return finish(c);
    c->verifying = true;
    c->differs = c->altered = 0;
    c->phase = 0;
    mj_copy_next(c);
    return MJ_OK;
}

const char *mj_copy_detail(const mj_copy *c)
{
    return c->to->detail[0] ? c->to->detail : c->from->detail;
}

int mj_copy_cancel(mj_store *from)
{
    mj_buf text = {0};
    mj_tally unused;
    int rc = look(from, &text, &unused);

    if (rc == MJ_OK && (text.n <= 1 || strncmp((const char *)text.p, "to ", 3) != 0))
        rc = refuse(from, MJ_ESTATE, "no copy of this store is being finished");
    if (rc == MJ_OK)
        rc = note(from, NULL, &(mj_tally){0});
    mj_buf_free(&text);
    return rc;
}
