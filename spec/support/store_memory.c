/* mjhook.store_memory: the in-memory backend as a module for Lua, as a database's module is one.
 *
 *   .backend          for core.open: a store of the name in memory://NAME, which lasts as long as the process
 *   .delay(ms)        from now on each transaction begins so late, in all Lua states of the process, as if there were a
 *                     network; with .delay(ms, true) every other one does
 *   .skew(ms)         the store's clock is so much ahead of this machine's
 *   .unsure(n)        the next n commits give MJ_EUNSURE; with .unsure(n, true) they are stored nevertheless */
#include "memory_backend.h"

#include "base/error.h"

#include <lauxlib.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static atomic_int delay_ms, every_other, begun, unsure, stored, skew_ms;
static mj_backend backend;

static int slow_begin(void *db, bool write, mj_tx **tx)
{
    int ms = atomic_load(&delay_ms);

    if (ms > 0 && !(atomic_load(&every_other) && atomic_fetch_add(&begun, 1) % 2))
        nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
    return mj_backend_memory.begin(db, write, tx);
}

static int doubtful_commit(mj_tx *tx)
{
    int n = atomic_load(&unsure);

    while (n > 0 && !atomic_compare_exchange_weak(&unsure, &n, n - 1))
        ;
    if (n <= 0)
        return mj_backend_memory.commit(tx);
    if (atomic_load(&stored))
        mj_backend_memory.commit(tx);
    else
        mj_backend_memory.abort(tx);
    return MJ_EUNSURE;
}

static int64_t other_clock(void *db)
{
    struct timespec t;

    (void)db;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + atomic_load(&skew_ms);
}

static int l_skew(lua_State *L)
{
    atomic_store(&skew_ms, (int)luaL_checkinteger(L, 1));
    return 0;
}

static int l_delay(lua_State *L)
{
    atomic_store(&every_other, lua_toboolean(L, 2));
    atomic_store(&delay_ms, (int)luaL_checkinteger(L, 1));
    return 0;
}

static int l_unsure(lua_State *L)
{
    atomic_store(&stored, lua_toboolean(L, 2));
    atomic_store(&unsure, (int)luaL_checkinteger(L, 1));
    return 0;
}

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
int luaopen_mjhook_store_memory(lua_State *L);

int luaopen_mjhook_store_memory(lua_State *L)
{
    static const luaL_Reg functions[] = {{"delay", l_delay}, {"skew", l_skew}, {"unsure", l_unsure}, {NULL, NULL}};

    backend = mj_backend_memory;
    backend.begin = slow_begin;
    backend.commit = doubtful_commit;
    backend.now = other_clock;
    backend.waits = true;
    lua_newtable(L);
    luaL_setfuncs(L, functions, 0);
    lua_pushlightuserdata(L, &backend);
    lua_setfield(L, -2, "backend");
    return 1;
}
