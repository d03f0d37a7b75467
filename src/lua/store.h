/* The store's userdata, as the files share it that give it methods. */
#ifndef MJ_LUA_STORE_H
#define MJ_LUA_STORE_H

#include "lua/core.h"

/* The open store at index 1; anything else raises. */
mj_store *mjl_store(lua_State *L);
mj_store *mjl_store_at(lua_State *L, int index);
/* Pushes nil and the error, with what exactly failed. */
int mjl_store_fail(lua_State *L, mj_store *s, int rc);
void mjl_store_methods(lua_State *L, const luaL_Reg *methods);

#endif
