/* mjhook.core's store: one userdata, a handle of mj_store.  Its methods are in store_write.c, store_read.c and
 * store_stats.c. */
#include "lua/store.h"

#define STORE "mjhook.store"

typedef struct box {
    mj_store *store;
} box;

mj_store *mjl_store(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, STORE);

    if (!b->store)
        luaL_error(L, "the store is closed");
    return b->store;
}

static int store_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, STORE);

    mj_store_close(b->store);
    b->store = NULL;
    return 0;
}

int mjl_store_fail(lua_State *L, mj_store *s, int rc)
{
    const char *detail = mj_store_detail(s);

    if (detail[0] && rc != MJ_ENOTFOUND) {
        lua_pushfstring(L, "%s: %s", mj_error_text(rc), detail);
        return mjl_fail(L, rc, lua_tostring(L, -1));
    }
    return mjl_fail(L, rc, NULL);
}

void mjl_store_methods(lua_State *L, const luaL_Reg *methods)
{
    luaL_getmetatable(L, STORE);
    luaL_setfuncs(L, methods, 0);
    lua_pop(L, 1);
}

/* MJ_ENOMEM; raises when they are wrong. */
static int set_accounts(lua_State *L, int t, mj_store *s)
{
    mj_account a[MJ_MAX_ACCOUNTS];
    size_t n = 0;
    int rc;

    mjl_field(L, t, "accounts");
    if (lua_istable(L, -1)) {
        for (n = 0; n < MJ_MAX_ACCOUNTS; n++) {
            lua_rawgeti(L, -1, (int)n + 1);
            if (!lua_istable(L, -1)) {
                lua_pop(L, 1);
                break;
            }
            a[n].name = mjl_str(L, lua_gettop(L), "name");
            a[n].max_in_flight = (uint32_t)mjl_int(L, lua_gettop(L), "max_in_flight", 10, 0, UINT32_MAX);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    rc = mj_store_accounts(s, a, n);
    if (rc != MJ_OK && rc != MJ_ENOMEM)
        luaL_error(L, "bad field 'accounts'");
    return rc;
}

/* A field in seconds, as milliseconds. */
static int64_t seconds(lua_State *L, int t, const char *name, int64_t absent_ms)
{
    static const double MOST = 1e10; /* three centuries */
    int64_t ms = absent_ms;

    mjl_field(L, t, name);
    if (!lua_isnil(L, -1)) {
        lua_Number n = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
        if (!(n >= 0 && n <= MOST))
            luaL_error(L, "bad field '%s' (seconds expected, up to 1e10)", name);
        ms = (int64_t)(n * 1000);
    }
    lua_pop(L, 1);
    return ms;
}

static void read_options(lua_State *L, int t, mj_store_options *o)
{
    *o = (mj_store_options){.rules = mj_rules_default};
    o->mode = (mode_t)mjl_int(L, t, "mode", 0600, 0, 0777);
    o->map_max = (uint64_t)mjl_int(L, t, "map_max", 0, 0, MJ_MAX_TIME);
    o->rules.poll_first_ms = seconds(L, t, "poll_first", o->rules.poll_first_ms);
    o->rules.poll_max_ms = seconds(L, t, "poll_max", o->rules.poll_max_ms);
    o->rules.lost_after_ms = seconds(L, t, "lost_after", o->rules.lost_after_ms);
    o->rules.grace_ms = seconds(L, t, "grace", o->rules.grace_ms);
    o->rules.learn = mjl_bool(L, t, "learn");
    o->rules.polled = mjl_bool(L, t, "polled");
    o->no_wait = mjl_bool(L, t, "no_wait");
}

/* core.restore(from, dir, options of core.open, anyway) -> {tasks=, events=, tombs=, found=, kept=} | nil, err.
 * See mj_store_restore(). */
static int core_restore(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1), *dir = luaL_checkstring(L, 2);
    mj_store_options o;
    mj_restored done;
    char why[512] = "";
    int rc;

    luaL_checktype(L, 3, LUA_TTABLE);
    read_options(L, 3, &o);
    rc = mj_store_restore(from, dir, &o, lua_toboolean(L, 4), &done, why, sizeof why);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, why);
    lua_createtable(L, 0, 5);
    mjl_set_int(L, "tasks", (int64_t)done.checked.tasks);
    mjl_set_int(L, "events", (int64_t)done.checked.events);
    mjl_set_int(L, "tombs", (int64_t)done.checked.tombs);
    mjl_set_int(L, "found", (int64_t)done.checked.found);
    if (done.kept[0])
        mjl_set_lit(L, "kept", done.kept);
    return 1;
}

/* core.open(dir, {mode=, map_max=, poll_first=, poll_max=, lost_after=, grace= (seconds), learn=, polled=,
 * no_wait=, accounts=}) */
static int core_open(lua_State *L)
{
    const char *dir = luaL_checkstring(L, 1);
    mj_store_options o;
    char why[512] = "";
    box *b;
    int rc;

    luaL_checktype(L, 2, LUA_TTABLE);
    read_options(L, 2, &o);
    b = lua_newuserdata(L, sizeof *b);
    b->store = NULL;
    luaL_getmetatable(L, STORE);
    lua_setmetatable(L, -2);
    rc = mj_store_open(dir, &o, &b->store, why, sizeof why);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, why);
    rc = set_accounts(L, 2, b->store);
    return rc == MJ_OK ? 1 : mjl_fail(L, rc, NULL);
}

/* core.waits(backend) -> boolean: a call of this backend, by default LMDB's, may wait for a network */
static int core_waits(lua_State *L)
{
    luaL_argcheck(L, lua_isnoneornil(L, 1), 1, "no backend but LMDB's is known");
    lua_pushboolean(L, 0);
    return 1;
}

void mjl_open_store(lua_State *L)
{
    static const luaL_Reg methods[] = {{"close", store_close}, {NULL, NULL}};

    mjl_class(L, STORE, methods);
    lua_pushcfunction(L, core_open);
    lua_setfield(L, -2, "open");
    lua_pushcfunction(L, core_waits);
    lua_setfield(L, -2, "waits");
    lua_pushcfunction(L, core_restore);
    lua_setfield(L, -2, "restore");
}
