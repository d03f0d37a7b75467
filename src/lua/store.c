/* mjhook.core's store: one userdata, a handle of mj_store. */
#include "lua/core.h"

#include <stdlib.h>
#include <string.h>

#define STORE "mjhook.store"
#define BATCH "mjhook.batch"

typedef struct box {
    mj_store *store;
} box;

static mj_store *check(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, STORE);

    if (!b->store)
        luaL_error(L, "the store is closed");
    return b->store;
}

static int store_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, STORE);

    mj_store_close(b->store);
    b->store = NULL;
    return 0;
}

static int store_fail(lua_State *L, mj_store *s, int rc)
{
    const char *detail = mj_store_detail(s);

    if (detail[0] && rc != MJ_ENOTFOUND) {
        lua_pushfstring(L, "%s: %s", mj_error_text(rc), detail);
        return mjl_fail(L, rc, lua_tostring(L, -1));
    }
    return mjl_fail(L, rc, NULL);
}

/* A batch in a box of its own: whatever raises, its buffers are freed. */
typedef struct batch {
    size_t n;
    mj_op *ops;
    mj_task *tasks;
    bool *readable;    /* of the callbacks of a lot, those that ops have */
    mjl_hidden hidden; /* texts of ops, without the secrets that were in them */
    mj_buf buf;
} batch;

static void clear_batch(batch *b)
{
    for (size_t i = 0; b->ops && i < b->n; i++)
        mj_op_clear(&b->ops[i]);
    free(b->ops);
    free(b->tasks);
    free(b->readable);
    mjl_hidden_free(&b->hidden);
    mj_buf_free(&b->buf);
    memset(b, 0, sizeof *b);
}

static int batch_close(lua_State *L)
{
    clear_batch(luaL_checkudata(L, 1, BATCH));
    return 0;
}

static batch *new_batch(lua_State *L)
{
    batch *b = lua_newuserdata(L, sizeof *b);

    memset(b, 0, sizeof *b);
    luaL_getmetatable(L, BATCH);
    lua_setmetatable(L, -2);
    return b;
}

static size_t count_creates(lua_State *L, size_t n)
{
    size_t creates = 0;

    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        mjl_field(L, lua_gettop(L), "task");
        creates += lua_istable(L, -1);
        lua_pop(L, 2);
    }
    return creates;
}

/* The batch for n operations, which are read, and a lot of callbacks; MJ_ENOMEM. */
static int fill_batch(lua_State *L, batch *b, size_t n, size_t lot)
{
    size_t creates = count_creates(L, n);

    b->ops = calloc(n + lot + 1, sizeof *b->ops); /* one more, since none is no pointer */
    b->tasks = calloc(creates + 1, sizeof *b->tasks);
    b->readable = calloc(lot + 1, sizeof *b->readable);
    if (!b->ops || !b->tasks || !b->readable)
        return MJ_ENOMEM;
    creates = 0;
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        mjl_read_op(L, lua_gettop(L), &b->ops[i], &b->tasks[creates]);
        creates += b->ops[i].kind == MJ_OP_CREATE;
        lua_pop(L, 1);
    }
    b->n = n;
    return MJ_OK;
}

/* How the callbacks of a lot went: a byte each, which is an index into core.codes. */
static void push_outcomes(lua_State *L, const batch *b, const mj_op *op, size_t lot)
{
    luaL_Buffer bytes;

    luaL_buffinit(L, &bytes);
    for (size_t i = 0; i < lot; i++) {
        int code = b->readable[i] ? (op++)->code : MJ_EINVAL;
        luaL_addchar(&bytes, (char)(1 - code));
    }
    luaL_pushresult(&bytes);
}

/* A write on its way: what push_results() needs. */
typedef struct writing {
    lua_State *L;
    const batch *b;
    size_t n, lot; /* operations that were given; callbacks */
    int at;        /* results go above this index, where push_results() lies */
} writing;

/* The results, as store:write gives them. */
static int push_results(lua_State *L)
{
    const writing *w = lua_touserdata(L, 1);

    lua_createtable(L, (int)w->n, 0);
    for (size_t i = 0; i < w->n; i++) {
        mjl_push_result(L, &w->b->ops[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    push_outcomes(L, w->b, w->b->ops + w->n, w->lot);
    return 2;
}

/* Before the commit: the results become Lua values, or nothing is stored.  After it there would be no way back when
 * memory runs out.  Values are made, and no Lua code runs inside the transaction: the collector rests, which could
 * call a finalizer that writes, too. */
static int take_over(void *ctx)
{
    writing *w = ctx;
    lua_State *L = w->L;
    bool collects = lua_gc(L, LUA_GCISRUNNING, 0);
    int rc;

    lua_settop(L, w->at); /* a batch that runs again */
    lua_pushvalue(L, w->at);
    lua_pushlightuserdata(L, w);
    if (collects)
        lua_gc(L, LUA_GCSTOP, 0);
    rc = lua_pcall(L, 1, 2, 0);
    if (collects)
        lua_gc(L, LUA_GCRESTART, 0);
    return rc == LUA_OK ? MJ_OK : MJ_ENOMEM; /* nothing else fails there */
}

/* Reads what store:write was given and stores it; leaves `unreadable`, push_results and the results on the stack. */
static int try_write(lua_State *L, mj_store *s, batch *b, writing *w, int64_t now)
{
    const mj_ready ready = {take_over, w};
    size_t read = 0;
    int rc = fill_batch(L, b, w->n, w->lot);

    if (rc == MJ_OK && w->lot > 0)
        rc = mjl_lot_read(L, 4, b->ops + w->n, b->readable, &read);
    else
        lua_pushnil(L);
    b->n += read;
    for (size_t i = 0; rc == MJ_OK && i < b->n; i++)
        rc = mjl_redact_op(&b->ops[i], &b->hidden);
    lua_pushcfunction(L, push_results); /* here: LuaJIT takes memory for it */
    w->at = lua_gettop(L);
    return rc == MJ_OK ? mj_store_write_ready(s, b->ops, b->n, now, &ready) : rc;
}

/* store:write(ops, now, inbox) -> {results}, outcomes, unreadable | nil, err.  With an inbox (optional), the callbacks
 * of the lot that was taken last out of it are in the same transaction: `outcomes` has a byte for each, an index into
 * core.codes; `unreadable` is nil, or tells by their numbers why some could not be read, whatever their byte says.
 * Whatever it raises, and whatever error it gives: nothing was stored. */
static int store_write(lua_State *L)
{
    mj_store *s = check(L);
    int64_t now = mjl_arg_ms(L, 3);
    writing w = {.L = L};
    batch *b;
    int top, rc;

    lua_settop(L, 4);
    luaL_checktype(L, 2, LUA_TTABLE);
    w.n = lua_rawlen(L, 2);
    w.lot = lua_isnil(L, 4) ? 0 : mjl_lot_size(L, 4);
    w.b = b = new_batch(L);
    top = lua_gettop(L);
    rc = try_write(L, s, b, &w, now);
    if (rc == MJ_ENOMEM) { /* LuaJIT collects nothing before it gives up, and C's memory may be back by now */
        clear_batch(b);
        lua_settop(L, top);
        lua_gc(L, LUA_GCCOLLECT, 0);
        rc = try_write(L, s, b, &w, now);
    }
    clear_batch(b);
    if (rc != MJ_OK)
        return store_fail(L, s, rc);
    lua_pushvalue(L, w.at - 1);
    return 3;
}

static int give_task(lua_State *L, mj_store *s, batch *b, int rc)
{
    if (rc == MJ_OK)
        rc = mjl_push_task(L, (mj_str){(const char *)b->buf.p, (uint32_t)b->buf.n});
    clear_batch(b);
    return rc == MJ_OK ? 1 : store_fail(L, s, rc);
}

/* store:get(ref) -> task | nil, err */
static int store_get(lua_State *L)
{
    mj_store *s = check(L);
    uint8_t ref[MJ_ULID_BYTES];
    batch *b;

    if (!mjl_ref(L, 2, ref))
        return mjl_fail(L, MJ_ENOTFOUND, NULL);
    b = new_batch(L);
    return give_task(L, s, b, mj_store_get(s, ref, &b->buf));
}

/* store:find(task_id) -> task, attempt | nil, err */
static int store_find(lua_State *L)
{
    mj_store *s = check(L);
    size_t n;
    const char *id = luaL_checklstring(L, 2, &n);
    uint32_t attempt = 0;
    batch *b = new_batch(L);
    int rc;

    rc = n > MJ_MAX_TASK_ID ? MJ_ENOTFOUND : mj_store_find(s, (mj_str){id, (uint32_t)n}, &b->buf, &attempt);
    if (give_task(L, s, b, rc) != 1)
        return 2;
    mjl_push_int(L, attempt);
    return 2;
}

/* store:by_key(key) -> task, or what is left of a pruned one | nil, err */
static int store_by_key(lua_State *L)
{
    mj_store *s = check(L);
    size_t n;
    const char *key = luaL_checklstring(L, 2, &n);
    batch *b = new_batch(L);
    bool pruned = false;
    int rc = n > MJ_MAX_NAME ? MJ_ENOTFOUND : mj_store_key(s, (mj_str){key, (uint32_t)n}, &b->buf, &pruned);

    if (rc != MJ_OK || !pruned)
        return give_task(L, s, b, rc);
    rc = mjl_push_tomb(L, (mj_str){(const char *)b->buf.p, (uint32_t)b->buf.n});
    clear_batch(b);
    return rc == MJ_OK ? 1 : store_fail(L, s, rc);
}

/* What check() found, gathered outside of Lua: no Lua error may unwind through the walk. */
typedef struct findings {
    mj_buf text;
} findings;

static void add_finding(void *ctx, const char *text)
{
    findings *f = ctx;

    mj_put_str(&f->text, (mj_str){text, (uint32_t)strlen(text)});
}

/* store:check() -> {ok=, tasks=, events=, tombs=, found=, upgrading=, problems={sentences}} | nil, err */
static int store_check(lua_State *L)
{
    mj_store *s = check(L);
    batch *b = new_batch(L);
    int n = 0;
    findings f = {{0}};
    mj_check_report r;
    mj_reader reader;
    int rc = mj_store_check(s, add_finding, &f, &r);

    b->buf = f.text; /* the batch frees it, whatever raises */
    if (rc != MJ_OK) {
        clear_batch(b);
        return store_fail(L, s, rc);
    }
    lua_createtable(L, 0, 7);
    lua_pushboolean(L, r.found == 0);
    lua_setfield(L, -2, "ok");
    mjl_set_int(L, "tasks", (int64_t)r.tasks);
    mjl_set_int(L, "events", (int64_t)r.events);
    mjl_set_int(L, "tombs", (int64_t)r.tombs);
    mjl_set_int(L, "found", (int64_t)r.found);
    lua_pushboolean(L, r.upgrading);
    lua_setfield(L, -2, "upgrading");
    lua_newtable(L);
    for (reader = mj_reader_of(b->buf.p ? b->buf.p : (uint8_t *)"", b->buf.n); reader.p < reader.end && !reader.bad;) {
        mj_str text = mj_get_str(&reader);
        lua_pushlstring(L, text.p ? text.p : "", text.n);
        lua_rawseti(L, -2, ++n);
    }
    lua_setfield(L, -2, "problems");
    clear_batch(b);
    return 1;
}

static int push_refused(lua_State *L, mj_str bytes)
{
    mj_refused f;
    int rc = mj_refused_decode(bytes, &f);

    if (rc != MJ_OK)
        return rc;
    lua_createtable(L, 0, 7);
    mjl_set_int(L, "id", (int64_t)f.number);
    mjl_set_time(L, "at", f.at);
    mjl_push_ref(L, f.ref);
    lua_setfield(L, -2, "ref");
    mjl_set_int(L, "attempt", f.attempt);
    mjl_set_str(L, "reason", f.why);
    mjl_set_int(L, "size", (int64_t)f.size);
    lua_pushlstring(L, f.body.p ? f.body.p : "", f.body.n);
    lua_setfield(L, -2, "body");
    return MJ_OK;
}

/* store:refused(below, limit) -> {refused callbacks} | nil, err.  Newest first, those with an id less than `below`
 * (0: all). */
static int store_refused(lua_State *L)
{
    mj_store *s = check(L);
    uint64_t below = (uint64_t)mjl_arg_int(L, 2, 0, MJ_MAX_TIME);
    uint32_t limit = (uint32_t)mjl_arg_int(L, 3, 0, UINT32_MAX);
    batch *b = new_batch(L);
    int n = 0, rc;
    mj_reader r;

    rc = mj_store_refused(s, below, limit, &b->buf);
    if (rc != MJ_OK) {
        clear_batch(b);
        return store_fail(L, s, rc);
    }
    lua_newtable(L);
    for (r = mj_reader_of(b->buf.p ? b->buf.p : (uint8_t *)"", b->buf.n); r.p < r.end && !r.bad;)
        if (push_refused(L, mj_get_str(&r)) == MJ_OK)
            lua_rawseti(L, -2, ++n);
    clear_batch(b);
    return 1;
}

/* store:trim(): see mj_store_trim() */
static int store_trim(lua_State *L)
{
    mj_store_trim(check(L));
    return 0;
}

/* store:backup(directory) -> true | nil, err */
static int store_backup(lua_State *L)
{
    mj_store *s = check(L);
    int rc = mj_store_backup(s, luaL_checkstring(L, 2));

    if (rc != MJ_OK)
        return store_fail(L, s, rc);
    lua_pushboolean(L, 1);
    return 1;
}

static void read_query(lua_State *L, mj_query *q)
{
    static const char *const orders[] = {"age", "state", "user", "due", "event", NULL};
    static const char *const dues[] = {"none", "poll", "queue", "resolve", "owner", NULL};
    mj_str state = mjl_str(L, 2, "state"), cursor = mjl_str(L, 2, "cursor");
    int s;

    mjl_field(L, 2, "by");
    q->order = (mj_order)luaL_checkoption(L, -1, "age", orders);
    mjl_field(L, 2, "due");
    q->due = (mj_due)luaL_checkoption(L, -1, "none", dues);
    lua_pop(L, 2);
    if (state.n) {
        s = mj_state_parse(state);
        if (s < 0)
            luaL_error(L, "bad field 'state'");
        q->state = (mj_state)s; /* layer: query */
    }
    q->user_id = mjl_str(L, 2, "user_id");
    q->until = mjl_ms(L, 2, "until", 0);
    q->since = mjl_ms(L, 2, "since", 0);
    q->buried = mjl_bool(L, 2, "buried");
    q->limit = (uint32_t)mjl_int(L, 2, "limit", 100, 0, UINT32_MAX);
    mjl_field(L, 2, "ref");
    q->has_ref = !lua_isnil(L, -1);
    if (q->has_ref && !mjl_ref(L, -1, q->ref))
        luaL_error(L, "bad field 'ref'");
    lua_pop(L, 1);
    q->more = cursor.n == sizeof q->cursor;
    if (q->more)
        memcpy(q->cursor, cursor.p, cursor.n);
}

/* store:page{by=, state=, user_id=, due=, until=, since=, buried=, ref=, brief=, limit=, cursor=} -> {tasks or events},
 * cursor The cursor is nil after the last page.  A record that can't be read is given as its error. */
static int store_page(lua_State *L)
{
    mj_store *s = check(L);
    mj_query q = {0};
    mj_reader r;
    batch *b;
    int (*push)(lua_State *, mj_str) = mjl_push_task;
    int rc, n = 0;

    luaL_checktype(L, 2, LUA_TTABLE);
    read_query(L, &q);
    if (q.order == MJ_BY_EVENT)
        push = mjl_push_event;
    else if (mjl_bool(L, 2, "brief"))
        push = mjl_push_brief;
    b = new_batch(L);
    rc = mj_store_page(s, &q, &b->buf);
    if (rc != MJ_OK) {
        clear_batch(b);
        return store_fail(L, s, rc);
    }
    lua_newtable(L);
    for (r = mj_reader_of(b->buf.p ? b->buf.p : (uint8_t *)"", b->buf.n); r.p < r.end;) {
        mj_str record = mj_get_str(&r);
        rc = push(L, record);
        if (rc != MJ_OK) {
            mjl_fail(L, rc, NULL);
            lua_remove(L, -2);
        }
        lua_rawseti(L, -2, ++n);
    }
    clear_batch(b);
    if (!q.more)
        return 1;
    lua_pushlstring(L, (const char *)q.cursor, sizeof q.cursor);
    return 2;
}

/* store:prunable{state=, until=, resume=, from=, limit=} -> {refs}, from, resumed | nil, err.  See mj_store_prunable():
 * `from` is nil when nothing is left. */
static int store_prunable(lua_State *L)
{
    mj_store *s = check(L);
    mj_prunable p = {0};
    mj_str state;
    batch *b;
    int rc, n;

    luaL_checktype(L, 2, LUA_TTABLE);
    state = mjl_str(L, 2, "state");
    n = mj_state_parse(state);
    if (n < 0)
        return luaL_error(L, "bad field 'state'");
    p.state = (mj_state)n; /* layer: query */
    p.until = mjl_ms(L, 2, "until", 0);
    p.limit = (uint32_t)mjl_int(L, 2, "limit", 100, 0, UINT32_MAX);
    p.resume = mjl_bool(L, 2, "resume");
    mjl_field(L, 2, "from");
    p.has_from = !lua_isnil(L, -1);
    if (p.has_from && !mjl_ref(L, -1, p.from))
        return luaL_error(L, "bad field 'from'");
    b = new_batch(L);
    rc = mj_store_prunable(s, &p, &b->buf);
    if (rc != MJ_OK) {
        clear_batch(b);
        return store_fail(L, s, rc);
    }
    lua_createtable(L, (int)(b->buf.n / MJ_ULID_BYTES), 0);
    for (size_t i = 0; i < b->buf.n / MJ_ULID_BYTES; i++) {
        mjl_push_ref(L, b->buf.p + i * MJ_ULID_BYTES);
        lua_rawseti(L, -2, (int)i + 1);
    }
    clear_batch(b);
    if (p.more)
        mjl_push_ref(L, p.from);
    else
        lua_pushnil(L);
    lua_pushboolean(L, p.resume);
    return 3;
}

static void push_accounts(lua_State *L, const mj_stats *st, int64_t now)
{
    lua_newtable(L);
    for (unsigned i = 0; i < st->naccounts; i++) {
        const mj_account_stats *a = &st->accounts[i];
        lua_createtable(L, 0, 5);
        mjl_set_lit(L, "name", a->name);
        mjl_set_int(L, "held", a->held);
        mjl_set_int(L, "max_in_flight", a->max_in_flight);
        /* One that does not rest any more may tell until when it would have. */
        mjl_set_time(L, "paused_until",
                     now == 0 || now >= a->paused_until || mj_account_rests(a->paused_until, a->paused_at, now)
                         ? a->paused_until
                         : now);
        if (mj_account_cap(a->learned, a->learned_at, a->max_in_flight, now) < a->max_in_flight)
            mjl_set_int(L, "learned", mj_account_cap(a->learned, a->learned_at, a->max_in_flight, now));
        if (a->reason[0])
            mjl_set_lit(L, "reason", a->reason);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "accounts");
}

static void push_histogram(lua_State *L, const mj_histogram *h)
{
    lua_createtable(L, MJ_NBUCKETS, 1);
    for (unsigned i = 0; i < MJ_NBUCKETS; i++) {
        mjl_push_int(L, (int64_t)h->bucket[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    mjl_set_int(L, "sum_ms", (int64_t)h->sum_ms);
}

/* What the store remembers of how things go. */
static void push_measures(lua_State *L, const mj_measures *m, const mj_rules *rules, int64_t now)
{
    static const char *const modes[MJ_NMODES] = {"fast", "relaxed"};
    mj_rules learned = mj_measure_rules(m, rules);
    uint32_t ended, called;

    lua_createtable(L, 0, MJ_NCOUNTS);
    for (unsigned i = 0; i < MJ_NCOUNTS; i++)
        mjl_set_int(L, mj_count_name(i), (int64_t)m->counts[i]);
    lua_setfield(L, -2, "counts");
    lua_createtable(L, 0, MJ_NMODES);
    for (unsigned i = 0; i < MJ_NMODES; i++) {
        push_histogram(L, &m->ends[i]);
        lua_setfield(L, -2, modes[i]);
    }
    lua_setfield(L, -2, "latency");
    lua_createtable(L, 0, MJ_NMODES);
    for (unsigned i = 0; i < MJ_NMODES; i++)
        mjl_set_int(L, modes[i], learned.first_ms[i] ? learned.first_ms[i] : learned.poll_first_ms);
    lua_setfield(L, -2, "first_poll_ms");
    mj_measure_recent(m, now, &ended, &called);
    lua_createtable(L, 0, 3);
    mjl_set_int(L, "ended", ended);
    mjl_set_int(L, "called", called);
    mjl_set_time(L, "broken_since", m->broken_since);
    lua_setfield(L, -2, "webhook");
    lua_createtable(L, 0, 3);
    mjl_set_time(L, "last_at", m->swept_at);
    mjl_set_int(L, "elapsed_ms", m->sweep_ms);
    mjl_set_time(L, "answered_at", m->answered_at);
    lua_setfield(L, -2, "sweep");
}

/* store:stats(now) -> {...} | nil, err.  An account's `learned` is there when it may hold fewer slots than configured;
 * `latest` is the time of the newest commit, by its clock. */
static int store_stats(lua_State *L)
{
    mj_store *s = check(L);
    int64_t now = lua_isnoneornil(L, 2) ? 0 : mjl_arg_ms(L, 2);
    mj_stats st;
    int rc = mj_store_stats(s, &st);

    if (rc != MJ_OK)
        return store_fail(L, s, rc);
    lua_newtable(L);
    lua_newtable(L);
    for (int i = 0; i < MJ_NSTATES; i++)
        mjl_set_int(L, mj_state_name((mj_state)i), (int64_t)st.states[i]);
    lua_setfield(L, -2, "tasks");
    mjl_set_int(L, "events", (int64_t)st.events);
    mjl_set_int(L, "buried", (int64_t)st.buried);
    mjl_set_int(L, "ready", (int64_t)st.ready);
    mjl_set_int(L, "bytes_used", (int64_t)st.map_used);
    mjl_set_int(L, "bytes_mapped", (int64_t)st.map_size);
    mjl_set_time(L, "oldest_open", st.oldest_open);
    /* After the clock was set back the first event may be due, whatever it says: who takes it finds out. */
    mjl_set_time(L, "event_due",
                 now > 0 && st.event_due > now && st.latest - now > MJ_CLOCK_STEP_MS ? now : st.event_due);
    mjl_set_time(L, "latest", st.latest);
    push_accounts(L, &st, now);
    push_measures(L, &st.measures, &st.rules, now);
    return 1;
}

/* MJ_ENOMEM; raises when they are wrong. */
static int set_accounts(lua_State *L, int t, mj_store *s)
{
    mj_account a[MJ_MAX_ACCOUNTS];
    size_t n = 0;
    int rc;

    mjl_field(L, t, "accounts");
    if (lua_istable(L, -1)) {
        for (n = 0; n < MJ_MAX_ACCOUNTS; n++) {
            lua_rawgeti(L, -1, (int)n + 1);
            if (!lua_istable(L, -1)) {
                lua_pop(L, 1);
                break;
            }
            a[n].name = mjl_str(L, lua_gettop(L), "name");
            a[n].max_in_flight = (uint32_t)mjl_int(L, lua_gettop(L), "max_in_flight", 10, 0, UINT32_MAX);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    rc = mj_store_accounts(s, a, n);
    if (rc != MJ_OK && rc != MJ_ENOMEM)
        luaL_error(L, "bad field 'accounts'");
    return rc;
}

/* A field in seconds, as milliseconds. */
static int64_t seconds(lua_State *L, int t, const char *name, int64_t absent_ms)
{
    static const double MOST = 1e10; /* three centuries */
    int64_t ms = absent_ms;

    mjl_field(L, t, name);
    if (!lua_isnil(L, -1)) {
        lua_Number n = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
        if (!(n >= 0 && n <= MOST))
            luaL_error(L, "bad field '%s' (seconds expected, up to 1e10)", name);
        ms = (int64_t)(n * 1000);
    }
    lua_pop(L, 1);
    return ms;
}

static void read_options(lua_State *L, int t, mj_store_options *o)
{
    *o = (mj_store_options){.rules = mj_rules_default};
    o->mode = (mode_t)mjl_int(L, t, "mode", 0600, 0, 0777);
    o->map_max = (uint64_t)mjl_int(L, t, "map_max", 0, 0, MJ_MAX_TIME);
    o->rules.poll_first_ms = seconds(L, t, "poll_first", o->rules.poll_first_ms);
    o->rules.poll_max_ms = seconds(L, t, "poll_max", o->rules.poll_max_ms);
    o->rules.lost_after_ms = seconds(L, t, "lost_after", o->rules.lost_after_ms);
    o->rules.grace_ms = seconds(L, t, "grace", o->rules.grace_ms);
    o->rules.learn = mjl_bool(L, t, "learn");
    o->no_wait = mjl_bool(L, t, "no_wait");
}

/* core.restore(from, dir, options of core.open, anyway) -> {tasks=, events=, tombs=, found=, kept=} | nil, err.
 * See mj_store_restore(). */
static int core_restore(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1), *dir = luaL_checkstring(L, 2);
    mj_store_options o;
    mj_restored done;
    char why[512] = "";
    int rc;

    luaL_checktype(L, 3, LUA_TTABLE);
    read_options(L, 3, &o);
    rc = mj_store_restore(from, dir, &o, lua_toboolean(L, 4), &done, why, sizeof why);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, why);
    lua_createtable(L, 0, 5);
    mjl_set_int(L, "tasks", (int64_t)done.checked.tasks);
    mjl_set_int(L, "events", (int64_t)done.checked.events);
    mjl_set_int(L, "tombs", (int64_t)done.checked.tombs);
    mjl_set_int(L, "found", (int64_t)done.checked.found);
    if (done.kept[0])
        mjl_set_lit(L, "kept", done.kept);
    return 1;
}

/* core.open(dir, {mode=, map_max=, poll_first=, poll_max=, lost_after=, grace= (seconds), learn=,
 * no_wait=, accounts=}) */
static int core_open(lua_State *L)
{
    const char *dir = luaL_checkstring(L, 1);
    mj_store_options o;
    char why[512] = "";
    box *b;
    int rc;

    luaL_checktype(L, 2, LUA_TTABLE);
    read_options(L, 2, &o);
    b = lua_newuserdata(L, sizeof *b);
    b->store = NULL;
    luaL_getmetatable(L, STORE);
    lua_setmetatable(L, -2);
    rc = mj_store_open(dir, &o, &b->store, why, sizeof why);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, why);
    rc = set_accounts(L, 2, b->store);
    return rc == MJ_OK ? 1 : mjl_fail(L, rc, NULL);
}

void mjl_open_store(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"write", store_write},
        {"get", store_get},
        {"find", store_find},
        {"page", store_page},
        {"stats", store_stats},
        {"close", store_close},
        {"by_key", store_by_key},
        {"check", store_check},
        {"backup", store_backup},
        {"refused", store_refused},
        {"trim", store_trim},
        {"prunable", store_prunable},
        {NULL, NULL},
    };
    static const luaL_Reg batch_methods[] = {{"close", batch_close}, {NULL, NULL}};

    mjl_class(L, STORE, methods);
    mjl_class(L, BATCH, batch_methods);
    lua_pushcfunction(L, core_open);
    lua_setfield(L, -2, "open");
    lua_pushcfunction(L, core_restore);
    lua_setfield(L, -2, "restore");
}
