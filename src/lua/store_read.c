/* mjhook.core's store: reads. */
#include "lua/store.h"

#include <string.h>

/* What was appended with mj_put_str(). */
static mj_reader strings_of(const mj_buf *b)
{
    return mj_reader_of(b->p ? b->p : (const uint8_t *)"", b->n);
}

static int give_task(lua_State *L, mj_store *s, mj_buf *b, int rc)
{
    if (rc == MJ_OK)
        rc = mjl_push_task(L, (mj_str){(const char *)b->p, (uint32_t)b->n});
    mj_buf_free(b);
    return rc == MJ_OK ? 1 : mjl_store_fail(L, s, rc);
}

/* store:get(ref) -> task | nil, err */
static int store_get(lua_State *L)
{
    mj_store *s = mjl_store(L);
    uint8_t ref[MJ_ULID_BYTES];
    mj_buf *b;

    if (!mjl_ref(L, 2, ref))
        return mjl_fail(L, MJ_ENOTFOUND, NULL);
    b = mjl_buf(L);
    return give_task(L, s, b, mj_store_get(s, ref, b));
}

/* store:find(task_id) -> task, attempt | nil, err */
static int store_find(lua_State *L)
{
    mj_store *s = mjl_store(L);
    size_t n;
    const char *id = luaL_checklstring(L, 2, &n);
    uint32_t attempt = 0;
    mj_buf *b = mjl_buf(L);
    int rc;

    rc = n > MJ_MAX_TASK_ID ? MJ_ENOTFOUND : mj_store_find(s, (mj_str){id, (uint32_t)n}, b, &attempt);
    if (give_task(L, s, b, rc) != 1)
        return 2;
    mjl_push_int(L, attempt);
    return 2;
}

/* store:by_key(key) -> task, or what is left of a pruned one | nil, err */
static int store_by_key(lua_State *L)
{
    mj_store *s = mjl_store(L);
    size_t n;
    const char *key = luaL_checklstring(L, 2, &n);
    mj_buf *b = mjl_buf(L);
    bool pruned = false;
    int rc = n > MJ_MAX_NAME ? MJ_ENOTFOUND : mj_store_key(s, (mj_str){key, (uint32_t)n}, b, &pruned);

    if (rc != MJ_OK || !pruned)
        return give_task(L, s, b, rc);
    rc = mjl_push_tomb(L, (mj_str){(const char *)b->p, (uint32_t)b->n});
    mj_buf_free(b);
    return rc == MJ_OK ? 1 : mjl_store_fail(L, s, rc);
}

/* store:intake(limit) -> {{name=, job= (text, a JSON object)}, ...} | nil, err.  See mj_store_intake(). */
static int store_intake(lua_State *L)
{
    mj_store *s = mjl_store(L);
    lua_Integer limit = luaL_checkinteger(L, 2);
    mj_buf *b = mjl_buf(L);
    mj_reader r;
    int rc, n = 0;

    luaL_argcheck(L, limit >= 0 && limit <= 65536, 2, "0 to 65536 expected");
    rc = mj_store_intake(s, (uint32_t)limit, b);
    if (rc != MJ_OK) {
        mj_buf_free(b);
        return mjl_store_fail(L, s, rc);
    }
    lua_newtable(L);
    r = strings_of(b);
    while (r.p < r.end) {
        mj_str name = mj_get_str(&r), job = mj_get_str(&r);
        if (r.bad)
            break;
        lua_createtable(L, 0, 2);
        lua_pushlstring(L, name.p, name.n);
        lua_setfield(L, -2, "name");
        lua_pushlstring(L, job.p, job.n);
        lua_setfield(L, -2, "job");
        lua_rawseti(L, -2, ++n);
    }
    mj_buf_free(b);
    return 1;
}

/* No Lua here: its errors must not unwind through the walk. */
static void add_finding(void *ctx, const char *text)
{
    mj_put_str(ctx, (mj_str){text, (uint32_t)strlen(text)});
}

/* store:check() -> {ok=, tasks=, events=, tombs=, found=, upgrading=, problems={sentences}} | nil, err */
static int store_check(lua_State *L)
{
    mj_store *s = mjl_store(L);
    mj_buf *b = mjl_buf(L);
    int n = 0;
    mj_check_report r;
    mj_reader reader;
    int rc = mj_store_check(s, add_finding, b, &r);

    if (rc != MJ_OK) {
        mj_buf_free(b);
        return mjl_store_fail(L, s, rc);
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
    for (reader = strings_of(b); reader.p < reader.end && !reader.bad;) {
        mj_str text = mj_get_str(&reader);
        lua_pushlstring(L, text.p ? text.p : "", text.n);
        lua_rawseti(L, -2, ++n);
    }
    lua_setfield(L, -2, "problems");
    mj_buf_free(b);
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
    mj_store *s = mjl_store(L);
    uint64_t below = (uint64_t)mjl_arg_int(L, 2, 0, MJ_MAX_TIME);
    uint32_t limit = (uint32_t)mjl_arg_int(L, 3, 0, UINT32_MAX);
    mj_buf *b = mjl_buf(L);
    int n = 0, rc;
    mj_reader r;

    rc = mj_store_refused(s, below, limit, b);
    if (rc != MJ_OK) {
        mj_buf_free(b);
        return mjl_store_fail(L, s, rc);
    }
    lua_newtable(L);
    for (r = strings_of(b); r.p < r.end && !r.bad;)
        if (push_refused(L, mj_get_str(&r)) == MJ_OK)
            lua_rawseti(L, -2, ++n);
    mj_buf_free(b);
    return 1;
}

/* store:trim(): see mj_store_trim() */
static int store_trim(lua_State *L)
{
    mj_store_trim(mjl_store(L));
    return 0;
}

/* store:backup(directory) -> true | nil, err */
static int store_backup(lua_State *L)
{
    mj_store *s = mjl_store(L);
    int rc = mj_store_backup(s, luaL_checkstring(L, 2));

    if (rc != MJ_OK)
        return mjl_store_fail(L, s, rc);
    lua_pushboolean(L, 1);
    return 1;
}

static void read_order(lua_State *L, mj_query *q)
{
    static const char *const orders[] = {"age", "state", "user", "key", "due", "event", NULL};
    static const char *const dues[] = {"none", "poll", "queue", "resolve", "owner", NULL};

    mjl_field(L, 2, "by");
    q->order = (mj_order)luaL_checkoption(L, -1, "age", orders);
    mjl_field(L, 2, "due");
    q->due = (mj_due)luaL_checkoption(L, -1, "none", dues);
    lua_pop(L, 2);
}

static mj_state read_state(lua_State *L, mj_str name)
{
    int s = mj_state_parse(name);

    return (mj_state)(s >= 0 ? s : luaL_error(L, "bad field 'state'"));
}

static bool read_ref(lua_State *L, const char *name, uint8_t ref[MJ_ULID_BYTES])
{
    bool given;

    mjl_field(L, 2, name);
    given = !lua_isnil(L, -1);
    if (given && !mjl_ref(L, -1, ref))
        luaL_error(L, "bad field '%s'", name);
    lua_pop(L, 1);
    return given;
}

static uint32_t read_states(lua_State *L)
{
    uint32_t states = 0;

    mjl_field(L, 2, "states");
    for (int i = 1; lua_istable(L, -1); i++) {
        size_t n;
        const char *name;
        lua_rawgeti(L, -1, i);
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            break;
        }
        name = luaL_checklstring(L, -1, &n);
        states |= 1u << read_state(L, (mj_str){name, (uint32_t)n});
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return states;
}

/* What names the index of the order is not asked for once more. */
static void read_filter(lua_State *L, mj_query *q)
{
    mj_str state = mjl_str(L, 2, "state"), mode = mjl_str(L, 2, "mode");
    mj_str user_id = mjl_str(L, 2, "user_id"), key = mjl_str(L, 2, "key");

    if (state.n && q->order == MJ_BY_STATE)
        q->state = read_state(L, state); /* layer: query */
    else
        q->only.states = state.n ? 1u << read_state(L, state) : read_states(L);
    *(q->order == MJ_BY_USER ? &q->user_id : &q->only.user_id) = user_id;
    *(q->order == MJ_BY_KEY ? &q->key : &q->only.key) = key;
    q->only.account = mjl_str(L, 2, "account");
    q->only.text = mjl_str(L, 2, "text");
    q->only.has_mode = mode.n > 0;
    q->only.mode = mj_str_eq(mode, MJ_LIT("relaxed")) ? MJ_RELAXED : MJ_FAST;
    if (mode.n && q->only.mode == MJ_FAST && !mj_str_eq(mode, MJ_LIT("fast")))
        luaL_error(L, "bad field 'mode'");
}

static void read_query(lua_State *L, mj_query *q)
{
    mj_str cursor = mjl_str(L, 2, "cursor");

    read_order(L, q);
    read_filter(L, q);
    q->until = mjl_ms(L, 2, "until", 0);
    q->since = mjl_ms(L, 2, "since", 0);
    q->oldest_first = mjl_bool(L, 2, "oldest_first");
    q->refs = mjl_bool(L, 2, "refs");
    q->buried = mjl_bool(L, 2, "buried");
    q->waiting = mjl_bool(L, 2, "waiting");
    q->failed = mjl_bool(L, 2, "failed");
    q->limit = (uint32_t)mjl_int(L, 2, "limit", 100, 0, UINT32_MAX);
    q->has_ref = read_ref(L, "ref", q->ref);
    q->more = read_ref(L, "from", q->cursor); /* as if a page had ended there */
    mj_be32(q->cursor + MJ_ULID_BYTES, (uint32_t)mjl_int(L, 2, "from_seq", 0, 0, UINT32_MAX));
    if (cursor.n == sizeof q->cursor) {
        q->more = true;
        memcpy(q->cursor, cursor.p, cursor.n);
    }
}

static int push_ref(lua_State *L, mj_str ref)
{
    mjl_push_ref(L, (const uint8_t *)ref.p);
    return MJ_OK;
}

/* store:page{by=, state=, states= (a list), user_id=, key=, account=, mode=, text=, due=, until=, since=, buried=,
 * waiting=, failed=, ref=, brief=, refs=, oldest_first=, limit=, from= (a ref: begin behind it), cursor=} -> {tasks,
 * refs or events}, cursor, looked.  The cursor is nil after the last page; `looked` tells how many entries were looked
 * at.  A record that can't be read is given as its error.  A task in brief is what a status request needs: {ref=,
 * updated_at=, unanswered= (why its last poll got no answer), attempt= (the current one), account=, task ids of that
 * attempt..., older= {ref=, attempt=, account=, task ids..., older=}: the newest of the others that hold a slot}. */
static int store_page(lua_State *L)
{
    mj_store *s = mjl_store(L);
    mj_query q = {0};
    mj_reader r;
    mj_buf *b;
    int (*push)(lua_State *, mj_str) = mjl_push_task;
    int rc, n = 0;

    luaL_checktype(L, 2, LUA_TTABLE);
    read_query(L, &q);
    if (q.order == MJ_BY_EVENT)
        push = mjl_push_event;
    else if (q.refs)
        push = push_ref;
    else if (mjl_bool(L, 2, "brief"))
        push = mjl_push_brief;
    b = mjl_buf(L);
    rc = mj_store_page(s, &q, b);
    if (rc != MJ_OK) {
        mj_buf_free(b);
        return mjl_store_fail(L, s, rc);
    }
    lua_newtable(L);
    for (r = strings_of(b); r.p < r.end;) {
        mj_str record = mj_get_str(&r);
        rc = push(L, record);
        if (rc != MJ_OK) {
            mjl_fail(L, rc, NULL);
            lua_remove(L, -2);
        }
        lua_rawseti(L, -2, ++n);
    }
    mj_buf_free(b);
    if (!q.more) {
        lua_pushnil(L);
        mjl_push_int(L, q.looked);
        return 3;
    }
    lua_pushlstring(L, (const char *)q.cursor, sizeof q.cursor);
    mjl_push_int(L, q.looked);
    if (q.order == MJ_BY_DUE || q.has_ref)
        return 3;
    mjl_push_ref(L, q.cursor);
    mjl_push_int(L, mj_be32_get(q.cursor + MJ_ULID_BYTES));
    return 5;
}

/* store:prunable{state=, until=, resume=, from=, limit=, no_policy=, now=} -> {refs}, from, resumed | nil, err.  See
 * mj_store_prunable(): `from` is nil when nothing is left. */
static int store_prunable(lua_State *L)
{
    mj_store *s = mjl_store(L);
    mj_prunable p = {0};
    mj_str state;
    mj_buf *b;
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
    p.no_policy = mjl_bool(L, 2, "no_policy");
    p.now = mjl_ms(L, 2, "now", 0);
    mjl_field(L, 2, "from");
    p.has_from = !lua_isnil(L, -1);
    if (p.has_from && !mjl_ref(L, -1, p.from))
        return luaL_error(L, "bad field 'from'");
    b = mjl_buf(L);
    rc = mj_store_prunable(s, &p, b);
    if (rc != MJ_OK) {
        mj_buf_free(b);
        return mjl_store_fail(L, s, rc);
    }
    lua_createtable(L, (int)(b->n / MJ_ULID_BYTES), 0);
    for (size_t i = 0; i < b->n / MJ_ULID_BYTES; i++) {
        mjl_push_ref(L, b->p + i * MJ_ULID_BYTES);
        lua_rawseti(L, -2, (int)i + 1);
    }
    mj_buf_free(b);
    if (p.more)
        mjl_push_ref(L, p.from);
    else
        lua_pushnil(L);
    lua_pushboolean(L, p.resume);
    return 3;
}

void mjl_open_store_read(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"get", store_get},         {"find", store_find},   {"by_key", store_by_key},
        {"intake", store_intake},   {"page", store_page},   {"prunable", store_prunable},
        {"refused", store_refused}, {"check", store_check}, {"backup", store_backup},
        {"trim", store_trim},       {NULL, NULL},
    };

    mjl_store_methods(L, methods);
}
