/* The store's userdata, as the files share it that give it methods. */
#ifndef MJ_LUA_STORE_H
#define MJ_LUA_STORE_H

#include "lua/core.h"

/* The open store at index 1; anything else raises. */
mj_store *mjl_store(lua_State *L);
mj_store *mjl_store_at(lua_State *L, int index);
/* Pushes nil and the error, with what exactly failed. */
int mjl_store_fail(lua_State *L, mj_store *s, int rc);
/* What was appended to b with mj_put_str(). */
mj_reader mjl_strings(const mj_buf *b);
void mjl_store_methods(lua_State *L, const luaL_Reg *methods);

#endif
