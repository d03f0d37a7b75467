#include "domain/task.h"

#include "base/error.h"

#include <string.h>

enum {
    TASK_V2 = 2, /* adds called_at, at the end */
    TASK_V3 = 3, /* and files */
    TASK_V4 = 4  /* stores once: a prompt that was run as it was sent, and how the URLs of images begin */
};

enum {
    FLAG_READY = 1,
    FLAG_LATE = 2,
    FLAG_DECIDED = 4,
    FLAG_OWNER = 8,
    FLAG_ADOPTED = 16,
    FLAG_SAME_PROMPT = 32 /* mj_prompt is the prompt, and is stored as empty */
};

const char *mj_state_name(mj_state s)
{
    static const char *const names[] = {MJ_STATES(MJ_NAME)};
    return (unsigned)s < MJ_NSTATES ? names[s] : "?";
}

int mj_state_parse(mj_str name)
{
    for (int s = 0; s < MJ_NSTATES; s++) {
        const char *known = mj_state_name((mj_state)s);
        if (strlen(known) == name.n && memcmp(known, name.p, name.n) == 0)
            return s;
    }
    return -1;
}

const char *mj_mode_name(unsigned m)
{
    static const char *const names[] = {MJ_MODES(MJ_NAME)};
    return m < MJ_NMODES ? names[m] : "?";
}

const char *mj_attempt_status_name(mj_attempt_status w)
{
    static const char *const names[] = {MJ_ATTEMPT_STATUSES(MJ_NAME)};
    return (unsigned)w < MJ_NATTEMPT_STATUSES ? names[w] : "?";
}

const char *mj_source_name(unsigned s)
{
    static const char *const names[] = {MJ_SOURCES(MJ_NAME)};
    return s < MJ_NSOURCES ? names[s] : "?";
}

bool mj_state_final(mj_state s)
{
    return s == MJ_SUCCEEDED || s == MJ_FAILED || s == MJ_LOST || s == MJ_CANCELLED;
}

mj_attempt *mj_task_current(mj_task *t)
{
    return &t->attempts[t->nattempts - 1];
}

mj_attempt *mj_task_attempt(mj_task *t, uint32_t n)
{
    return n >= 1 && n <= t->nattempts ? &t->attempts[n - 1] : NULL;
}

uint32_t mj_task_attempt_of(const mj_task *t, mj_str id)
{
    for (uint32_t n = t->nattempts; n > 0; n--)
        for (unsigned i = 0; i < t->attempts[n - 1].nids; i++)
            if (mj_str_eq(t->attempts[n - 1].ids[i], id))
                return n;
    return 0;
}

bool mj_image_url_eq(const mj_image_url *a, const mj_image_url *b)
{
    const mj_image_url *s = a->head.n < b->head.n ? a : b, *l = s == a ? b : a; /* with the short and the long head */
    uint32_t more = l->head.n - s->head.n;

    return s->tail.n >= more && mj_str_eq(s->head, (mj_str){l->head.p, s->head.n}) &&
           mj_str_eq((mj_str){s->tail.p, more}, (mj_str){l->head.p + s->head.n, more}) &&
           mj_str_eq((mj_str){s->tail.p + more, s->tail.n - more}, l->tail);
}

/* Most tasks use a small part of their arrays, and a whole task is several kilobytes. */
void mj_task_copy(mj_task *to, const mj_task *from)
{
    memcpy(to, from, offsetof(mj_task, images) + from->nimages * sizeof from->images[0]);
    to->nattempts = from->nattempts;
    memcpy(to->attempts, from->attempts, from->nattempts * sizeof from->attempts[0]);
    to->owner = from->owner;
    to->forgotten = from->forgotten;
    to->ntimeline = from->ntimeline;
    memcpy(to->timeline, from->timeline, from->ntimeline * sizeof from->timeline[0]);
}

static void put_attempt(mj_buf *b, const mj_attempt *a)
{
    mj_put_u8(b, (uint8_t)((unsigned)a->status | (a->slot ? 0x80u : 0)));
    mj_put_int(b, a->submitted_at);
    mj_put_int(b, a->slot_until);
    mj_put_str(b, a->account);
    mj_put_u8(b, (uint8_t)a->nids);
    for (unsigned i = 0; i < a->nids; i++)
        mj_put_str(b, a->ids[i]);
}

static void put_entry(mj_buf *b, const mj_timeline_entry *m, int64_t base)
{
    mj_put_int(b, m->at - base);
    mj_put_int(b, m->until - m->at);
    mj_put_uint(b, m->count);
    mj_put_uint(b, m->attempt);
    mj_put_u8(b, m->signal);
    mj_put_u8(b, m->result);
    mj_put_u8(b, (uint8_t)m->source);
    mj_put_u8(b, (uint8_t)((unsigned)m->from << 4 | (unsigned)m->to));
    mj_put_str(b, m->reason);
}

/* The URL whose beginning image i may share: the grid's, else the first image's. */
static mj_str base_of(const mj_task *t, unsigned i)
{
    if (t->image.n > 0)
        return t->image;
    return i > 0 && t->images[0].head.n == 0 ? t->images[0].tail : (mj_str){0};
}

static uint32_t common(mj_str a, mj_str b)
{
    uint32_t n = a.n < b.n ? a.n : b.n, k = 0;

    while (k + 8 <= n && memcmp(a.p + k, b.p + k, 8) == 0)
        k += 8;
    while (k < n && a.p[k] == b.p[k])
        k++;
    return k;
}

/* How many bytes the URL shares with the base, then the other bytes. */
static void put_image(mj_buf *b, const mj_image_url *u, mj_str base)
{
    uint32_t shared = 0, skip = 0;
    mj_str head = u->head;

    if (head.n == 0)
        shared = skip = common(u->tail, base);
    else if (head.p == base.p && head.n <= base.n)
        shared = head.n;
    if (shared > 0)
        head = (mj_str){0};
    mj_put_uint(b, shared);
    mj_put_uint(b, head.n + u->tail.n - skip);
    mj_put_raw(b, head.p, head.n);
    mj_put_raw(b, u->tail.p + skip, u->tail.n - skip);
}

int mj_task_encode(const mj_task *t, mj_buf *b)
{
    bool same_prompt = t->mj_prompt.n > 0 && mj_str_eq(t->mj_prompt, t->prompt);
    unsigned flags = (t->ready ? FLAG_READY : 0) | (t->late ? FLAG_LATE : 0) | (t->decided ? FLAG_DECIDED : 0) |
                     (t->has_owner ? FLAG_OWNER : 0) | (t->adopted ? FLAG_ADOPTED : 0) |
                     (same_prompt ? FLAG_SAME_PROMPT : 0);

    mj_put_u8(b, MJ_TASK_VERSION);
    mj_put_raw(b, t->ref, sizeof t->ref);
    mj_put_u8(b, (uint8_t)t->state);
    mj_put_u8(b, (uint8_t)t->mode);
    mj_put_u8(b, (uint8_t)t->source);
    mj_put_u8(b, (uint8_t)flags);
    mj_put_uint(b, t->timeout);
    mj_put_int(b, t->priority);
    mj_put_uint(b, t->polls);
    mj_put_uint(b, t->absent);
    mj_put_uint(b, t->hints);
    mj_put_uint(b, t->tries);
    mj_put_uint(b, t->event_seq);
    mj_put_int(b, t->created_at);
    mj_put_int(b, t->updated_at);
    mj_put_int(b, t->finished_at);
    mj_put_int(b, t->due_at);
    mj_put_int(b, t->expires_at);
    mj_put_int(b, t->absent_since);
    mj_put_int(b, t->asked_at);
    mj_put_int(b, t->silent_ms);
    mj_put_str(b, t->account);
    mj_put_str(b, t->prompt);
    mj_put_str(b, same_prompt ? (mj_str){NULL, 0} : t->mj_prompt);
    mj_put_str(b, t->user_id);
    mj_put_str(b, t->context);
    mj_put_str(b, t->key);
    mj_put_str(b, t->image);
    mj_put_str(b, t->meta);
    mj_put_str(b, t->error_code);
    mj_put_str(b, t->error);
    mj_put_raw(b, t->fingerprint, sizeof t->fingerprint);
    mj_put_u8(b, (uint8_t)t->nimages);
    for (unsigned i = 0; i < t->nimages; i++)
        put_image(b, &t->images[i], base_of(t, i));
    mj_put_u8(b, (uint8_t)t->nattempts);
    for (unsigned i = 0; i < t->nattempts; i++)
        put_attempt(b, &t->attempts[i]);
    if (t->has_owner) {
        mj_put_raw(b, t->owner.boot, sizeof t->owner.boot);
        mj_put_uint(b, t->owner.pidns);
        mj_put_uint(b, t->owner.pid);
        mj_put_uint(b, t->owner.started);
    }
    mj_put_uint(b, t->forgotten);
    mj_put_u8(b, (uint8_t)t->ntimeline);
    for (unsigned i = 0; i < t->ntimeline; i++)
        put_entry(b, &t->timeline[i], t->created_at);
    mj_put_int(b, t->called_at);
    mj_put_str(b, t->files);
    return b->failed ? MJ_ENOMEM : MJ_OK;
}

/* A byte below `limit`; any other makes the record bad. */
static unsigned get_below(mj_reader *r, unsigned limit)
{
    unsigned v = mj_get_u8(r);

    if (v >= limit) {
        r->bad = true;
        v = 0;
    }
    return v;
}

static int64_t checked_time(mj_reader *r, int64_t t)
{
    if (t >= 0 && t <= MJ_MAX_TIME)
        return t;
    r->bad = true;
    return 0;
}

static int64_t get_time(mj_reader *r)
{
    return checked_time(r, mj_get_int(r));
}

static int64_t get_time_from(mj_reader *r, int64_t base) /* the result is within the limit, too */
{
    int64_t d = mj_get_int(r);
    return checked_time(r, d > MJ_MAX_TIME ? d : d < -MJ_MAX_TIME ? d : base + d);
}

static int32_t get_i32(mj_reader *r)
{
    int64_t v = mj_get_int(r);

    if (v >= INT32_MIN && v <= INT32_MAX)
        return (int32_t)v;
    r->bad = true;
    return 0;
}

/* Strings that go into keys of the store must fit there. */
static mj_str get_name(mj_reader *r, uint32_t max)
{
    mj_str s = mj_get_str(r);

    if (s.n <= max)
        return s;
    r->bad = true;
    return (mj_str){0};
}

static void copy_raw(mj_reader *r, void *to, size_t n)
{
    const uint8_t *p = mj_get_raw(r, n);

    if (p)
        memcpy(to, p, n);
}

static void get_attempt(mj_reader *r, mj_attempt *a)
{
    unsigned head = mj_get_u8(r);

    r->bad = r->bad || (head & 0x7f) >= MJ_NATTEMPT_STATUSES;
    a->status = (mj_attempt_status)(head & 0x7f);
    a->slot = (head & 0x80) != 0;
    a->submitted_at = get_time(r);
    a->slot_until = get_time(r);
    a->account = get_name(r, MJ_MAX_NAME);
    r->bad = r->bad || (a->slot && a->account.n == 0);
    a->nids = get_below(r, MJ_MAX_IDS + 1);
    for (unsigned i = 0; i < a->nids; i++)
        a->ids[i] = get_name(r, MJ_MAX_TASK_ID);
}

static void get_entry(mj_reader *r, mj_timeline_entry *m, int64_t base)
{
    unsigned fromto;

    m->at = get_time_from(r, base);
    m->until = get_time_from(r, m->at);
    m->count = mj_get_u32(r);
    m->attempt = mj_get_u32(r);
    m->signal = mj_get_u8(r);
    m->result = mj_get_u8(r);
    m->source = (mj_source)get_below(r, MJ_NSOURCES);
    fromto = mj_get_u8(r);
    m->from = (mj_state)(fromto >> 4);
    m->to = (mj_state)(fromto & 15);
    r->bad = r->bad || (fromto >> 4) >= MJ_NSTATES || (fromto & 15) >= MJ_NSTATES;
    m->reason = mj_get_str(r);
}

static void get_image(mj_reader *r, mj_image_url *u, mj_str base, bool shares)
{
    uint32_t shared = shares ? mj_get_u32(r) : 0;

    r->bad = r->bad || shared > base.n;
    u->head = shared > 0 && !r->bad ? (mj_str){base.p, shared} : (mj_str){0};
    u->tail = mj_get_str(r);
}

static void get_v1(mj_reader *r, mj_task *t, unsigned version)
{
    unsigned flags;

    copy_raw(r, t->ref, sizeof t->ref);
    t->state = (mj_state)get_below(r, MJ_NSTATES); /* layer: decode */
    t->mode = (mj_mode)get_below(r, 2);
    t->source = (mj_source)get_below(r, MJ_NSOURCES);
    flags = mj_get_u8(r);
    t->ready = (flags & FLAG_READY) != 0;
    t->late = (flags & FLAG_LATE) != 0;
    t->decided = (flags & FLAG_DECIDED) != 0;
    t->has_owner = (flags & FLAG_OWNER) != 0;
    t->adopted = (flags & FLAG_ADOPTED) != 0;
    t->timeout = mj_get_u32(r);
    t->priority = get_i32(r);
    t->polls = mj_get_u32(r);
    t->absent = mj_get_u32(r);
    t->hints = mj_get_u32(r);
    t->tries = mj_get_u32(r);
    t->event_seq = mj_get_u32(r);
    t->created_at = get_time(r);
    t->updated_at = get_time(r);
    t->finished_at = get_time(r);
    t->due_at = get_time(r);
    t->expires_at = get_time(r);
    t->absent_since = get_time(r);
    t->asked_at = get_time(r);
    t->silent_ms = get_time(r);
    t->account = get_name(r, MJ_MAX_NAME);
    t->prompt = mj_get_str(r);
    t->mj_prompt = mj_get_str(r);
    if (version >= TASK_V4 && (flags & FLAG_SAME_PROMPT)) {
        r->bad = r->bad || t->mj_prompt.n > 0;
        t->mj_prompt = t->prompt;
    }
    t->user_id = get_name(r, MJ_MAX_NAME);
    t->context = mj_get_str(r);
    t->key = get_name(r, MJ_MAX_NAME);
    t->image = mj_get_str(r);
    t->meta = mj_get_str(r);
    t->error_code = mj_get_str(r);
    t->error = mj_get_str(r);
    copy_raw(r, t->fingerprint, sizeof t->fingerprint);
    t->nimages = get_below(r, MJ_MAX_IMAGES + 1);
    for (unsigned i = 0; i < t->nimages; i++)
        get_image(r, &t->images[i], base_of(t, i), version >= TASK_V4);
    t->nattempts = get_below(r, MJ_MAX_ATTEMPTS + 1);
    for (unsigned i = 0; i < t->nattempts; i++)
        get_attempt(r, &t->attempts[i]);
    t->owner = (mj_owner){0};
    if (t->has_owner) {
        copy_raw(r, t->owner.boot, sizeof t->owner.boot);
        t->owner.pidns = mj_get_uint(r);
        t->owner.pid = mj_get_u32(r);
        t->owner.started = mj_get_uint(r);
    }
    t->forgotten = mj_get_u32(r);
    t->ntimeline = get_below(r, MJ_MAX_TIMELINE + 1);
    for (unsigned i = 0; i < t->ntimeline; i++)
        get_entry(r, &t->timeline[i], t->created_at);
    r->bad = r->bad || t->nattempts == 0;
}

int mj_task_decode(const void *p, size_t n, mj_task *t)
{
    mj_reader r = mj_reader_of(p, n);
    mj_task tmp; /* get_v1() fills in what a task has */
    uint8_t version = mj_get_u8(&r);

    if (r.bad || version == 0)
        return MJ_ECORRUPT;
    if (version > MJ_TASK_VERSION)
        return MJ_ESCHEMA;
    get_v1(&r, &tmp, version);
    tmp.called_at = version >= TASK_V2 ? get_time(&r) : 0;
    tmp.files = version >= TASK_V3 ? get_name(&r, MJ_MAX_JSON) : (mj_str){0};
    if (r.bad || r.p != r.end)
        return MJ_ECORRUPT;
    mj_task_copy(t, &tmp);
    return MJ_OK;
}
