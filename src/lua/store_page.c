/* mjhook.core's store: pages of what an index leads to. */
#include "lua/store.h"

#include <string.h>

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
    for (r = mjl_strings(b); r.p < r.end;) {
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

void mjl_open_store_page(lua_State *L)
{
    static const luaL_Reg methods[] = {{"page", store_page}, {"prunable", store_prunable}, {NULL, NULL}};

    mjl_store_methods(L, methods);
}
