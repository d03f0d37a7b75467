/* What differs between Lua 5.4 and LuaJIT 2.1. */
#ifndef MJ_COMPAT_H
#define MJ_COMPAT_H

#include <lauxlib.h>
#include <lua.h>

#include <stdint.h>

#if LUA_VERSION_NUM < 502
#include <luajit.h>
#define lua_rawlen(L, i) lua_objlen(L, i)
/* For mjhook-reconcile: the version in directory names, the suffix of its environment variables, and its name. */
#define MJL_LUA_ABI "5.1"
#define MJL_LUA_SUFFIX ""
#define MJL_LUA_RELEASE LUAJIT_VERSION
#else
#define MJL_LUA_ABI LUA_VERSION_MAJOR "." LUA_VERSION_MINOR
#define MJL_LUA_SUFFIX LUA_VERSUFFIX
#define MJL_LUA_RELEASE LUA_RELEASE
#endif

/* A lua_Integer of LuaJIT is a ptrdiff_t, which may have 32 bits; its numbers hold 53. */
static inline void mjl_push_int(lua_State *L, int64_t v)
{
#if LUA_VERSION_NUM < 503
    lua_pushnumber(L, (lua_Number)v);
#else
    lua_pushinteger(L, v);
#endif
}

#endif
