/* mjhook.core's addresses: what an IP address is, and whether a range holds it. */
#include "base/address.h"
#include "lua/core.h"

#include <string.h>

/* A string at index i that C sees whole; "" when it does not. */
static const char *text(lua_State *L, int i)
{
    size_t n;
    const char *p = luaL_checklstring(L, i, &n);

    return strlen(p) == n ? p : "";
}

/* core.address(text) -> "loopback", "private" or "public"; nil: it is no address */
static int address(lua_State *L)
{
    mj_addr a;

    if (!mj_addr_parse(text(L, 1), &a))
        return 0;
    lua_pushstring(L, mj_addr_loopback(&a) ? "loopback" : mj_addr_public(&a) ? "public" : "private");
    return 1;
}

/* core.address_range(text) -> boolean: it is a range, such as "192.0.2.0/24", or an address */
static int address_range(lua_State *L)
{
    mj_addr_range r;

    lua_pushboolean(L, mj_addr_range_parse(text(L, 1), &r));
    return 1;
}

/* core.address_within(text, range) -> boolean; false also when one of them is none */
static int address_within(lua_State *L)
{
    mj_addr_range r;
    mj_addr a;

    lua_pushboolean(L, mj_addr_parse(text(L, 1), &a) && mj_addr_range_parse(text(L, 2), &r) && mj_addr_within(&a, &r));
    return 1;
}

void mjl_open_address(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"address", address}, {"address_range", address_range}, {"address_within", address_within}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
