#include "lua/core.h"

#include <stdio.h>
#include <string.h>

#define BUF "mjhook.buf"

static int buf_close(lua_State *L)
{
    mj_buf_free(luaL_checkudata(L, 1, BUF));
    return 0;
}

mj_buf *mjl_buf(lua_State *L)
{
    mj_buf *b = lua_newuserdata(L, sizeof *b);

    *b = (mj_buf){0};
    luaL_getmetatable(L, BUF);
    lua_setmetatable(L, -2);
    return b;
}

void mjl_push_redacted(lua_State *L, mj_redact_kind kind, const char *p, size_t n)
{
    bool found;
    mj_buf *out;

    if (!mj_redact_maybe(p, n)) {
        lua_pushlstring(L, p, n);
        return;
    }
    out = mjl_buf(L);
    if (mj_redact(kind, p, n, out, &found) != MJ_OK)
        lua_pushliteral(L, "not enough memory"), lua_error(L); /* Lua's own text, rather than a secret */
    if (found)
        lua_pushlstring(L, (const char *)out->p, out->n);
    else
        lua_pushlstring(L, p, n);
    mj_buf_free(out);
    lua_remove(L, -2);
}

static int error_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    mjl_field(L, 1, "message");
    return 1;
}

int mjl_fail(lua_State *L, int code, const char *why)
{
    lua_pushnil(L);
    lua_createtable(L, 0, 3);
    mjl_set_lit(L, "code", mj_error_name(code));
    if (!why || !why[0])
        why = mj_error_text(code);
    mjl_push_redacted(L, MJ_REDACT_TEXT, why, strlen(why)); /* it may quote text from outside */
    lua_setfield(L, -2, "message");
    lua_pushboolean(L, mj_error_retryable(code));
    lua_setfield(L, -2, "retryable");
    if (luaL_newmetatable(L, "mjhook.error")) {
        lua_pushcfunction(L, error_tostring);
        lua_setfield(L, -2, "__tostring");
    }
    lua_setmetatable(L, -2);
    return 2;
}

int mjl_raise(lua_State *L, int code, const char *what)
{
    lua_pushfstring(L, "%s: %s", what, mj_error_text(code));
    mjl_fail(L, code, lua_tostring(L, -1));
    return lua_error(L);
}

/* ---- reading values ---- */

/* Both Luas hold every whole number up to 2^53 exactly. */
#define EXACT 9007199254740992

void mjl_field(lua_State *L, int t, const char *name)
{
    luaL_checktype(L, t, LUA_TTABLE); /* a raw read of anything else is undefined */
    lua_pushstring(L, name);
    lua_rawget(L, t);
}

static void bad_field(lua_State *L, const char *name, const char *wanted)
{
    luaL_error(L, "bad field '%s' (%s expected, got %s)", name, wanted, luaL_typename(L, -1));
}

mj_str mjl_str(lua_State *L, int t, const char *name)
{
    mj_str s = {0};
    size_t n;

    mjl_field(L, t, name);
    if (lua_type(L, -1) == LUA_TSTRING) {
        s.p = lua_tolstring(L, -1, &n); /* the table keeps it alive */
        if (n > UINT32_MAX)
            luaL_error(L, "field '%s' is too long", name);
        s.n = (uint32_t)n;
    } else if (!lua_isnil(L, -1)) {
        bad_field(L, name, "string");
    }
    lua_pop(L, 1);
    return s;
}

/* Reads a number as an int64_t.  `whole` refuses fractions, which are dropped otherwise.  False: NaN, or out of range.
 * The comparison comes first: to convert a number that does not fit is undefined. */
static bool in_range(lua_Number n, bool whole, int64_t low, int64_t high, int64_t *v)
{
    if (!(n >= (lua_Number)low && n <= (lua_Number)high))
        return false;
    *v = (int64_t)n;
    return !whole || (lua_Number)*v == n;
}

/* Pushes "a whole number from 0 to 9 expected, got 10".  Not by %f of lua_pushfstring, which makes 9 "9.0" in 5.4. */
static const char *out_of_range(lua_State *L, int i, bool whole, int64_t low, int64_t high)
{
    char text[128];

    if (lua_type(L, i) != LUA_TNUMBER)
        return lua_pushfstring(L, "number expected, got %s", luaL_typename(L, i));
    snprintf(text, sizeof text, "a %snumber from %.16g to %.16g expected, got %.16g", whole ? "whole " : "",
             (double)low, (double)high, lua_tonumber(L, i));
    lua_pushstring(L, text);
    return lua_tostring(L, -1);
}

static int64_t number_field(lua_State *L, int t, const char *name, int64_t absent, bool whole, int64_t low,
                            int64_t high)
{
    int64_t v = absent;

    mjl_field(L, t, name);
    if (!lua_isnil(L, -1) && (lua_type(L, -1) != LUA_TNUMBER || !in_range(lua_tonumber(L, -1), whole, low, high, &v)))
        luaL_error(L, "bad field '%s' (%s)", name, out_of_range(L, lua_gettop(L), whole, low, high));
    lua_pop(L, 1);
    return v;
}

int64_t mjl_int(lua_State *L, int t, const char *name, int64_t absent, int64_t low, int64_t high)
{
    return number_field(L, t, name, absent, true, low, high);
}

int64_t mjl_ms(lua_State *L, int t, const char *name, int64_t absent)
{
    return number_field(L, t, name, absent, false, -EXACT, EXACT);
}

int64_t mjl_arg_int(lua_State *L, int i, int64_t low, int64_t high)
{
    int64_t v = 0;

    if (lua_type(L, i) != LUA_TNUMBER || !in_range(lua_tonumber(L, i), true, low, high, &v))
        luaL_argerror(L, i, out_of_range(L, i, true, low, high));
    return v;
}

int64_t mjl_arg_ms(lua_State *L, int i)
{
    lua_Number n = lua_tonumber(L, i);

    if (lua_type(L, i) != LUA_TNUMBER || n != n)
        luaL_argerror(L, i, out_of_range(L, i, false, -EXACT, EXACT));
    return n >= EXACT ? EXACT : n <= -EXACT ? -EXACT : (int64_t)n;
}

mj_str mjl_arg_str(lua_State *L, int i)
{
    size_t n;
    const char *p = luaL_checklstring(L, i, &n);

    luaL_argcheck(L, n <= UINT32_MAX, i, "too long");
    return (mj_str){p, (uint32_t)n};
}

bool mjl_bool(lua_State *L, int t, const char *name)
{
    bool v;

    mjl_field(L, t, name);
    v = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return v;
}

bool mjl_ref(lua_State *L, int i, uint8_t ref[MJ_ULID_BYTES])
{
    size_t n;
    const char *p = lua_type(L, i) == LUA_TSTRING ? lua_tolstring(L, i, &n) : NULL;
    return p && mj_ulid_parse(p, n, ref) == MJ_OK;
}

/* ---- setting values ---- */

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
    mjl_push_int(L, v);
    lua_setfield(L, -2, name);
}

void mjl_set_time(lua_State *L, const char *name, int64_t ms)
{
    if (ms != 0)
        mjl_set_int(L, name, ms);
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

void mjl_open_core(lua_State *L)
{
    static const luaL_Reg methods[] = {{"close", buf_close}, {NULL, NULL}};

    mjl_class(L, BUF, methods);
}
