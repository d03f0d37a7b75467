/* mjhook.core's claims: what a thread was given to do, and what is taken back from it. */
#include "lua/core.h"
#include "net/http.h"
#include "thread/workqueue.h"

#define CLAIMS "mjhook.claims"

typedef struct claims {
    mj_claims *shared;
    mj_buf buf; /* pieces on their way in or out */
} claims;

static claims *check(lua_State *L)
{
    claims *c = luaL_checkudata(L, 1, CLAIMS);

    if (!c->shared)
        luaL_error(L, "the claims are closed");
    return c;
}

static int claims_close(lua_State *L)
{
    claims *c = luaL_checkudata(L, 1, CLAIMS);

    mj_claims_close(c->shared);
    mj_buf_free(&c->buf);
    c->shared = NULL;
    return 0;
}

/* claims:lay{string, ...} -> true | nil, err.  What lay there before is forgotten. */
static int claims_lay(lua_State *L)
{
    claims *c = check(L);
    uint32_t count = 0;

    luaL_checktype(L, 2, LUA_TTABLE);
    c->buf.n = 0;
    c->buf.failed = false;
    for (;; count++) {
        size_t n;
        const char *p;
        lua_rawgeti(L, 2, (int)count + 1);
        if (lua_isnil(L, -1))
            break;
        p = luaL_checklstring(L, -1, &n);
        luaL_argcheck(L, n <= UINT32_MAX, 2, "too long");
        mj_put_str(&c->buf, (mj_str){p, (uint32_t)n});
        lua_pop(L, 1);
    }
    if (c->buf.failed)
        return mjl_fail(L, MJ_ENOMEM, NULL);
    mj_claims_lay(c->shared, &c->buf, count, mj_http_clock());
    lua_pushboolean(L, 1);
    return 1;
}

/* claims:begin() -> whether the next one is to be done, and nobody else will */
static int claims_begin(lua_State *L)
{
    claims *c = check(L);

    lua_pushboolean(L, mj_claims_begin(c->shared, mj_http_clock()));
    return 1;
}

/* claims:take_back(ms) -> those that were not begun, when the one before them was begun longer ago: a list */
static int claims_take_back(lua_State *L)
{
    claims *c = check(L);
    int64_t before = mj_http_clock() - mjl_arg_ms(L, 2);
    mj_reader r;
    uint32_t n;

    c->buf.n = 0;
    c->buf.failed = false;
    n = mj_claims_take_back(c->shared, before, &c->buf);
    r = mj_reader_of(c->buf.p, c->buf.n);
    lua_createtable(L, (int)n, 0);
    for (uint32_t i = 1; i <= n; i++) {
        mj_str piece = mj_get_str(&r);
        lua_pushlstring(L, piece.p, piece.n);
        lua_rawseti(L, -2, (int)i);
    }
    return 1;
}

/* core.claims(name) -> the claims of that name in this process.  Raises without memory. */
static int core_claims(lua_State *L)
{
    size_t n;
    const char *name = luaL_checklstring(L, 1, &n);
    claims *c = lua_newuserdata(L, sizeof *c);

    *c = (claims){0};
    luaL_getmetatable(L, CLAIMS);
    lua_setmetatable(L, -2);
    c->shared = mj_claims_open(name, n);
    return c->shared ? 1 : mjl_raise(L, MJ_ENOMEM, "claims");
}

void mjl_open_claims(lua_State *L)
{
    static const luaL_Reg methods[] = {{"lay", claims_lay},
                                       {"begin", claims_begin},
                                       {"take_back", claims_take_back},
                                       {"close", claims_close},
                                       {NULL, NULL}};

    mjl_class(L, CLAIMS, methods);
    lua_pushcfunction(L, core_claims);
    lua_setfield(L, -2, "claims");
}
