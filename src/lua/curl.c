/* Loads libcurl for the core, when something first needs it: the module mjhook.curl has it (net/library.h). */
#include "lua/core.h"
#include "net/http.h"

#include <string.h>

/* Keeps the first line of the text on top of the stack: the others list the places where require() looked. */
static const char *first_line(lua_State *L)
{
    const char *text = lua_tostring(L, -1);

    if (!text)
        return "an error without a message";
    lua_pushlstring(L, text, strcspn(text, "\n"));
    return lua_tostring(L, -1);
}

bool mjl_need_curl(lua_State *L)
{
    const char *why = "it belongs to another version of mjhook";
    bool ok;

    if (mj_http_library())
        return true;
    lua_getglobal(L, "require");
    lua_pushliteral(L, "mjhook.curl");
    ok = lua_pcall(L, 1, 1, 0) == LUA_OK;
    if (ok && mj_http_load(lua_touserdata(L, -1))) {
        lua_pop(L, 1);
        return true;
    }
    if (!ok)
        why = first_line(L);
    if (strstr(why, "not enough memory"))
        mjl_fail(L, MJ_ENOMEM, NULL);
    else
        mjl_fail(L, MJ_EIO, lua_pushfstring(L, "the module mjhook.curl can't be loaded: %s", why));
    return false;
}

/* core.need_curl() -> true | nil, err: for a process that forks others which will need it. */
static int core_need_curl(lua_State *L)
{
    if (!mjl_need_curl(L))
        return 2;
    lua_pushboolean(L, 1);
    return 1;
}

void mjl_open_curl(lua_State *L)
{
    static const luaL_Reg functions[] = {{"need_curl", core_need_curl}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
