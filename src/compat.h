/* Lua 5.4 and LuaJIT 2.1 from the same sources: the little that differs. */
#ifndef MJ_COMPAT_H
#define MJ_COMPAT_H

#include <lauxlib.h>
#include <lua.h>

#if LUA_VERSION_NUM < 502
#define lua_rawlen(L, i) lua_objlen(L, i)
#endif

#endif
