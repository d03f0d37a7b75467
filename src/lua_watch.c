/* mjhook.core's watch over Lua code that may not come back by itself.
 *
 * A hook of C's, not of the debug library's: that one is found by the coroutine
 * that it was set in, so that a loop in another one would never be noticed.  In
 * Lua 5.4 a coroutine has the hook of the one that made it; LuaJIT has one for
 * all. */
#include "lua_core.h"
#include "mj_http.h"

#include <stdio.h>

enum { LOOK_EVERY = 10000, AGAIN = 1 }; /* instructions */

/* What is watched in this thread; a VM belongs to one thread at a time. */
static _Thread_local struct {
    int64_t stop_at;   /* 0: nothing */
    const void *owner; /* the function that set the watch: it is never interrupted itself */
    char why[80];
} watched;

static void watch(lua_State *L, lua_Debug *at)
{
    if (!watched.stop_at) { /* a coroutine that outlived it */
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    if (mj_http_clock() <= watched.stop_at)
        return;
    lua_sethook(L, watch, LUA_MASKCOUNT, AGAIN); /* code that catches the error gets it again, at once */
    lua_getinfo(L, "f", at);
    if (lua_topointer(L, -1) == watched.owner) {
        lua_pop(L, 1);
        return;
    }
    lua_pop(L, 1);
    lua_pushstring(L, watched.why);
    lua_error(L);
}

/* core.watch(seconds, why): from now on Lua code of this thread that runs for longer is interrupted by the error `why`,
 * again and again, but for the function that called this.  core.watch() ends it. */
static int core_watch(lua_State *L)
{
    lua_Debug caller;
    lua_Number seconds;

    if (lua_isnoneornil(L, 1)) {
        watched.stop_at = 0;
        lua_sethook(L, NULL, 0, 0);
        return 0;
    }
    seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= 0 && seconds <= 1e10, 1, "seconds expected, up to 1e10");
    snprintf(watched.why, sizeof watched.why, "%s", luaL_checkstring(L, 2));
    watched.stop_at = mj_http_clock() + (int64_t)(seconds * 1000);
    watched.owner = NULL;
    if (lua_getstack(L, 1, &caller) && lua_getinfo(L, "f", &caller)) {
        watched.owner = lua_topointer(L, -1);
        lua_pop(L, 1);
    }
    lua_sethook(L, watch, LUA_MASKCOUNT, LOOK_EVERY);
    return 0;
}

void mjl_open_watch(lua_State *L)
{
    static const luaL_Reg functions[] = {{"watch", core_watch}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
