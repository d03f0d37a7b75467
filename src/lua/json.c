/* mjhook.core's JSON: documents as Lua values, and parts that mjhook.json writes with. */
#include "provider/json.h"
#include "base/number.h"
#include "lua/core.h"

#include <math.h>
#include <string.h>

typedef struct decoder {
    char *scratch; /* room for any string of the document */
    int empty;     /* stack index of the metatable for empty arrays */
    bool bad;      /* there is a number that Lua can't hold */
} decoder;

static void push_value(lua_State *L, decoder *d, mj_json v);

static void push_string(lua_State *L, decoder *d, const mj_json *v)
{
    if (memchr(v->text.p, '\\', v->text.n))
        lua_pushlstring(L, d->scratch, mj_json_unescape(v, d->scratch));
    else
        lua_pushlstring(L, v->text.p, v->text.n);
}

/* A whole number of digits only that fits Lua's integer; LuaJIT makes it a double anyway. */
static bool small_whole(mj_str s, int64_t *out)
{
    uint32_t i = s.n > 0 && s.p[0] == '-', first = i;
    int64_t n = 0;

    for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++)
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, s.p[i] - '0', &n))
            return false;
    if (i < s.n || (first && n == 0)) /* -0 is no integer */
        return false;
    *out = first ? -n : n;
    return true;
}

static void push_number(lua_State *L, decoder *d, mj_str text)
{
    int64_t n;
    double v;

    if (small_whole(text, &n)) {
        lua_pushinteger(L, (lua_Integer)n);
        return;
    }
    v = mj_number_read(text.p); /* the document ends in a NUL */
    d->bad = d->bad || !isfinite(v);
    lua_pushnumber(L, v);
}

static void push_array(lua_State *L, decoder *d, mj_json v)
{
    mj_json item;
    int n = 0;

    lua_newtable(L);
    while (mj_json_next(&v, NULL, &item)) {
        push_value(L, d, item);
        lua_rawseti(L, -2, ++n);
    }
    if (n == 0) {
        lua_pushvalue(L, d->empty);
        lua_setmetatable(L, -2);
    }
}

static void push_object(lua_State *L, decoder *d, mj_json v)
{
    mj_json key, item;

    lua_newtable(L);
    while (mj_json_next(&v, &key, &item)) {
        push_string(L, d, &key);
        push_value(L, d, item);
        lua_rawset(L, -3);
    }
}

static void push_value(lua_State *L, decoder *d, mj_json v)
{
    luaL_checkstack(L, 4, "JSON"); /* at most MJ_JSON_DEPTH times */
    switch (v.type) {
    case MJ_JSON_STRING:
        push_string(L, d, &v);
        break;
    case MJ_JSON_NUMBER:
        push_number(L, d, v.text);
        break;
    case MJ_JSON_BOOL:
        lua_pushboolean(L, v.text.n == 4);
        break;
    case MJ_JSON_ARRAY:
        push_array(L, d, v);
        break;
    case MJ_JSON_OBJECT:
        push_object(L, d, v);
        break;
    default:
        lua_pushlightuserdata(L, NULL); /* as cjson.null */
        break;
    }
}

static mj_str document(lua_State *L, int i)
{
    size_t n;
    const char *p = luaL_checklstring(L, i, &n);

    luaL_argcheck(L, n <= UINT32_MAX, i, "too long");
    return (mj_str){p, (uint32_t)n};
}

static int not_json(lua_State *L, const char *fault, size_t at)
{
    lua_pushnil(L);
    lua_pushfstring(L, "%s (byte %d)", fault, (int)at + 1);
    return 2;
}

/* core.json_decode(text, metatable of empty arrays) -> value (null: a light userdata, NULL) | nil, why */
static int json_decode(lua_State *L)
{
    mj_str text = document(L, 1);
    decoder d = {.empty = 2};
    const char *fault;
    mj_json root;
    size_t at;

    luaL_checktype(L, 2, LUA_TTABLE);
    fault = mj_json_read(text, &root, &at);
    if (fault)
        return not_json(L, fault, at);
    d.scratch = lua_newuserdata(L, text.n + 1);
    push_value(L, &d, root);
    return d.bad ? not_json(L, "a number that is too large", 0) : 1;
}

/* core.json_member(text, name) -> the text of that member of an object, unchanged; nil: there is none.  Of members
 * that appear twice the last one. */
static int json_member(lua_State *L)
{
    mj_str text = document(L, 1), name = document(L, 2), found = {0};
    mj_json root, key, value;
    size_t at;

    if (mj_json_read(text, &root, &at) || root.type != MJ_JSON_OBJECT)
        return 0;
    while (mj_json_next(&root, &key, &value))
        if (mj_json_is(&key, name)) {
            found = value.text;
            if (value.type == MJ_JSON_STRING) /* its quotes are in the document */
                found = (mj_str){found.p - 1, found.n + 2};
        }
    if (!found.p)
        return 0;
    lua_pushlstring(L, found.p, found.n);
    return 1;
}

/* Whether a double holds every whole number in the document. */
static bool exact(mj_json v)
{
    mj_json item;
    int64_t n;

    if (v.type == MJ_JSON_NUMBER)
        return memchr(v.text.p, '.', v.text.n) || memchr(v.text.p, 'e', v.text.n) || memchr(v.text.p, 'E', v.text.n) ||
               mj_json_whole(&v, &n);
    while (mj_json_next(&v, NULL, &item))
        if (!exact(item))
            return false;
    return true;
}

/* core.json_check(text) -> true, whether a double holds each of its whole numbers | nil, why an ordinary reader may
 * refuse it */
static int json_check(lua_State *L)
{
    mj_str text = document(L, 1);
    mj_json root;
    size_t at;
    const char *fault = mj_json_read(text, &root, &at);

    if (fault)
        return not_json(L, fault, at);
    if (!mj_json_plain(&root)) {
        lua_pushnil(L);
        lua_pushliteral(L, "not valid UTF-8 text, or a number that is too large");
        return 2;
    }
    lua_pushboolean(L, 1);
    lua_pushboolean(L, exact(root));
    return 2;
}

/* core.json_string(text) -> the text as a JSON string; bytes beyond ASCII stay */
static int json_string(lua_State *L)
{
    static const char hex[] = "0123456789abcdef", special[] = "\"\\\b\f\n\r\t", as[] = "\"\\bfnrt";
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n), *run = s;
    luaL_Buffer b;

    luaL_buffinit(L, &b);
    luaL_addchar(&b, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        const char *at = c ? strchr(special, c) : NULL;
        if (c >= 0x20 && c != 0x7f && !at)
            continue;
        luaL_addlstring(&b, run, (size_t)(s + i - run));
        run = s + i + 1;
        luaL_addchar(&b, '\\');
        if (at) {
            luaL_addchar(&b, as[at - special]);
        } else {
            luaL_addlstring(&b, "u00", 3);
            luaL_addchar(&b, hex[c >> 4]);
            luaL_addchar(&b, hex[c & 15]);
        }
    }
    luaL_addlstring(&b, run, (size_t)(s + n - run));
    luaL_addchar(&b, '"');
    luaL_pushresult(&b);
    return 1;
}

/* core.number(value, digits = the fewest that read back as the same) -> text with a decimal point, in any locale */
static int number(lua_State *L)
{
    char text[MJ_NUMBER_TEXT];
    double v = luaL_checknumber(L, 1);
    lua_Integer digits = luaL_optinteger(L, 2, 0);

    luaL_argcheck(L, isfinite(v), 1, "finite number expected");
    luaL_argcheck(L, digits >= 0 && digits <= 17, 2, "0 to 17 expected");
    lua_pushlstring(L, text, mj_number_write(v, (int)digits, text));
    return 1;
}

void mjl_open_json(lua_State *L)
{
    static const luaL_Reg functions[] = {{"json_decode", json_decode}, {"json_member", json_member},
                                         {"json_check", json_check},   {"json_string", json_string},
                                         {"number", number},           {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
