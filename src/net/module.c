/* mjhook.curl: libcurl for mjhook.core, as a light userdata that holds a table of its functions (net/library.h). */
#include "net/library.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>

__attribute__((visibility("default"))) int luaopen_mjhook_curl(lua_State *L);
int luaopen_mjhook_curl(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)&mj_curl_linked);
    return 1;
}
