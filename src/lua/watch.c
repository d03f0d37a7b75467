/* mjhook.core's watch over Lua code that may never return.
 *
 * It uses C's hook, not the debug library's: Lua finds that one by the coroutine that set it, so a loop in another
 * coroutine would go unnoticed.  In Lua 5.4 a coroutine inherits the hook of its creator; LuaJIT has one hook for all.
 *
 * Code that sends or stores holds the watch off: an interruption between a claim and the answer would leave a task
 * that may or may not have been sent.  If the time is up by then, the interruption comes as soon as the hold ends. */
#include "lua/core.h"
#include "net/http.h"
#include "os/process.h"

#include <string.h>

enum { LOOK_EVERY = 10000, AGAIN = 1 }; /* instructions */
enum { MOMENT_MS = 100 };

/* What this thread watches; a VM belongs to one thread at a time. */
typedef struct watching {
    int64_t stop_at;   /* 0: no watch */
    const void *owner; /* the function that set the watch, which is never interrupted itself */
    bool held;
    char why[80];
} watching;

static _Thread_local watching current;
static _Thread_local unsigned holds; /* in this thread, under this watch and the outer ones */

static bool overdue(void)
{
    return current.stop_at && mj_http_clock() > current.stop_at;
}

static void watch(lua_State *L, lua_Debug *at)
{
    if (!current.stop_at) { /* a coroutine that outlived the watch */
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    if (current.held || !overdue())
        return;
    lua_sethook(L, watch, LUA_MASKCOUNT, AGAIN); /* code that catches the error gets it again at once */
    lua_getinfo(L, "f", at);
    if (lua_topointer(L, -1) == current.owner) {
        lua_pop(L, 1);
        return;
    }
    lua_pop(L, 1);
    lua_pushstring(L, current.why);
    lua_error(L);
}

static void set_hook(lua_State *L)
{
    if (current.stop_at)
        lua_sethook(L, watch, LUA_MASKCOUNT, overdue() ? AGAIN : LOOK_EVERY);
    else
        lua_sethook(L, NULL, 0, 0);
}

/* core.watch(seconds, why) -> before.  From now on the error `why` interrupts Lua code of this thread that runs
 * longer, again and again, except the calling function.  core.watch(before) ends it and restores the watch before it;
 * false: there was none. */
static int core_watch(lua_State *L)
{
    watching *before = lua_touserdata(L, 1);
    lua_Debug caller;
    lua_Number seconds;
    const char *why;
    size_t n;

    if (before || lua_isboolean(L, 1)) {
        current = before ? *before : (watching){0};
        set_hook(L);
        return 0;
    }
    seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= 0 && seconds <= 1e10, 1, "seconds expected, up to 1e10");
    why = luaL_checklstring(L, 2, &n);
    if (current.stop_at || current.held) {
        before = lua_newuserdata(L, sizeof *before);
        *before = current;
    } else {
        lua_pushboolean(L, 0);
    }
    current = (watching){.stop_at = mj_http_clock() + (int64_t)(seconds * 1000)};
    memcpy(current.why, why, n < sizeof current.why ? n : sizeof current.why - 1);
    if (lua_getstack(L, 1, &caller) && lua_getinfo(L, "f", &caller)) {
        current.owner = lua_topointer(L, -1);
        lua_pop(L, 1);
    }
    set_hook(L);
    return 1;
}

/* core.unwatch() -> watch.  The calling coroutine is about to wait while others of this thread run: its watch is off
 * until core.rewatch(watch), which it calls when it goes on.  If the time is up by then, it has a moment to take in
 * what it has waited for. */
static int core_unwatch(lua_State *L)
{
    watching *w = lua_newuserdata(L, sizeof *w);

    *w = current;
    current = (watching){0};
    set_hook(L);
    return 1;
}

static int core_rewatch(lua_State *L)
{
    const watching *w = lua_touserdata(L, 1);
    int64_t least = mj_http_clock() + MOMENT_MS;

    luaL_argcheck(L, w, 1, "a watch expected");
    current = *w;
    if (current.stop_at && current.stop_at < least)
        current.stop_at = least;
    set_hook(L);
    return 0;
}

/* core.overdue() -> boolean: the time of this thread's watch is up */
static int core_overdue(lua_State *L)
{
    lua_pushboolean(L, overdue());
    return 1;
}

/* core.hold() -> before.  Until core.release(before) no watch interrupts, and the parent does not end a process made
 * by core.fork.  Nests. */
static int core_hold(lua_State *L)
{
    if (holds++ == 0)
        mj_child_hold();
    lua_pushboolean(L, current.held);
    current.held = true;
    return 1;
}

static int core_release(lua_State *L)
{
    current.held = lua_toboolean(L, 1);
    if (--holds == 0)
        mj_child_release();
    if (!current.held && overdue())
        set_hook(L);
    return 0;
}

/* core.held() -> boolean: there is a watch, and it is held off */
static int core_held(lua_State *L)
{
    lua_pushboolean(L, current.stop_at && current.held);
    return 1;
}

void mjl_forget_watch(void)
{
    current = (watching){0};
    holds = 0;
}

void mjl_open_watch(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"watch", core_watch}, {"unwatch", core_unwatch}, {"rewatch", core_rewatch}, {"overdue", core_overdue},
        {"hold", core_hold},   {"release", core_release}, {"held", core_held},       {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
