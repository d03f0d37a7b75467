#include "lua_core.h"

#include <string.h>

static int error_tostring(lua_State *L)
{
    lua_getfield(L, 1, "message");
    return 1;
}

int mjl_fail(lua_State *L, int code, const char *why)
{
    lua_pushnil(L);
    lua_createtable(L, 0, 3);
    mjl_set_lit(L, "code", mj_error_name(code));
    if (why && why[0])
        mjl_set_lit(L, "message", why);
    else
        mjl_set_lit(L, "message", mj_error_text(code));
    lua_pushboolean(L, mj_error_retryable(code));
    lua_setfield(L, -2, "retryable");
    if (luaL_newmetatable(L, "mjhook.error")) {
        lua_pushcfunction(L, error_tostring);
        lua_setfield(L, -2, "__tostring");
    }
    lua_setmetatable(L, -2);
    return 2;
}

static void bad_field(lua_State *L, const char *name, const char *wanted)
{
    luaL_error(L, "bad field '%s' (%s expected, got %s)", name, wanted, luaL_typename(L, -1));
}

mj_str mjl_str(lua_State *L, int t, const char *name)
{
    mj_str s = {0};
    size_t n;

    lua_getfield(L, t, name);
    if (lua_type(L, -1) == LUA_TSTRING) {
        s.p = lua_tolstring(L, -1, &n); /* stays alive in its table */
        if (n > UINT32_MAX)
            luaL_error(L, "field '%s' is too long", name);
        s.n = (uint32_t)n;
    } else if (!lua_isnil(L, -1)) {
        bad_field(L, name, "string");
    }
    lua_pop(L, 1);
    return s;
}

int64_t mjl_int(lua_State *L, int t, const char *name, int64_t absent)
{
    int64_t v = absent;

    lua_getfield(L, t, name);
    if (lua_type(L, -1) == LUA_TNUMBER) {
        lua_Number n = lua_tonumber(L, -1);
        if (!(n >= -9007199254740992.0 && n <= 9007199254740992.0)) /* 2^53: exact in both Luas */
            luaL_error(L, "field '%s' is out of range", name);
        v = (int64_t)n;
    } else if (!lua_isnil(L, -1)) {
        bad_field(L, name, "number");
    }
    lua_pop(L, 1);
    return v;
}

bool mjl_bool(lua_State *L, int t, const char *name)
{
    bool v;

    lua_getfield(L, t, name);
    v = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return v;
}

void mjl_set_str(lua_State *L, const char *name, mj_str s)
{
    if (s.n == 0)
        return;
    lua_pushlstring(L, s.p, s.n);
    lua_setfield(L, -2, name);
}

void mjl_set_lit(lua_State *L, const char *name, const char *s)
{
    lua_pushstring(L, s);
    lua_setfield(L, -2, name);
}

void mjl_set_int(lua_State *L, const char *name, int64_t v)
{
    lua_pushinteger(L, (lua_Integer)v);
    lua_setfield(L, -2, name);
}

void mjl_set_time(lua_State *L, const char *name, int64_t ms)
{
    if (ms != 0)
        mjl_set_int(L, name, ms);
}

bool mjl_ref(lua_State *L, int i, uint8_t ref[MJ_ULID_BYTES])
{
    size_t n;
    const char *p = lua_type(L, i) == LUA_TSTRING ? lua_tolstring(L, i, &n) : NULL;
    return p && mj_ulid_parse(p, n, ref) == MJ_OK;
}

void mjl_push_ref(lua_State *L, const uint8_t ref[MJ_ULID_BYTES])
{
    char text[MJ_ULID_TEXT + 1];

    mj_ulid_text(ref, text);
    lua_pushlstring(L, text, MJ_ULID_TEXT);
}

void mjl_class(lua_State *L, const char *name, const luaL_Reg *methods)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_getfield(L, -1, "close");
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__gc");
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
}

/* An error table made by Lua code, in the same shape: core.error(code, message, retryable). */
static int core_error(lua_State *L)
{
    luaL_checkstring(L, 1);
    luaL_checkstring(L, 2);
    mjl_fail(L, MJ_EINVAL, lua_tostring(L, 2));
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "code");
    lua_pushboolean(L, lua_toboolean(L, 3));
    lua_setfield(L, -2, "retryable");
    return 1;
}

/* core.is_ref(value) -> boolean: whether it could be a task's ref. */
static int core_is_ref(lua_State *L)
{
    uint8_t ref[MJ_ULID_BYTES];

    lua_pushboolean(L, mjl_ref(L, 1, ref));
    return 1;
}

/* The codes of outcomes, as a list: with it an outcome is a number. */
static void push_codes(lua_State *L)
{
    lua_newtable(L);
    for (int i = 0; i <= MJ_NERRORS; i++) {
        lua_pushstring(L, mj_error_name(-i));
        lua_rawseti(L, -2, i + 1);
    }
}

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
int luaopen_mjhook_core(lua_State *L);

int luaopen_mjhook_core(lua_State *L)
{
    lua_createtable(L, 0, 32);
    lua_pushcfunction(L, core_error);
    lua_setfield(L, -2, "error");
    lua_pushcfunction(L, core_is_ref);
    lua_setfield(L, -2, "is_ref");
    mjl_set_lit(L, "version", MJ_VERSION);
    mjl_set_int(L, "schema", MJ_STORE_SCHEMA);
    mjl_set_int(L, "max_prompt", MJ_MAX_PROMPT);
    mjl_set_int(L, "max_name", MJ_MAX_NAME);
    mjl_set_int(L, "max_json", MJ_MAX_JSON);
    mjl_set_int(L, "max_refused", MJ_MAX_REFUSED);
    lua_createtable(L, MJ_NBUCKETS - 1, 0);
    for (unsigned i = 0; i < MJ_NBUCKETS - 1; i++) {
        lua_pushinteger(L, (lua_Integer)mj_latency_bound(i));
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "latency_bounds");
    push_codes(L);
    lua_setfield(L, -2, "codes");
    mjl_open_store(L);
    mjl_open_http(L);
    mjl_open_stream(L);
    mjl_open_fetch(L);
    mjl_open_auth(L);
    mjl_open_wire(L);
    mjl_open_sys(L);
    mjl_open_file(L);
    mjl_open_child(L);
    mjl_open_watch(L);
    mjl_open_inbox(L);
    mjl_open_claims(L);
    return 1;
}
