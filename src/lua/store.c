/* mjhook.core's store: one userdata, a handle of mj_store, and what it shares with other processes' handles.  Its other
 * methods are in store_write.c, store_read.c and store_stats.c. */
#include "lua/store.h"
#include "store/backend.h"

#include <string.h>
#include <time.h>

#define STORE "mjhook.store"

typedef struct box {
    mj_store *store;
    mj_lock *lock; /* the one that this handle holds; NULL: none */
} box;

mj_store *mjl_store_at(lua_State *L, int index)
{
    box *b = luaL_checkudata(L, index, STORE);

    if (!b->store)
        luaL_error(L, "the store is closed");
    return b->store;
}

mj_store *mjl_store(lua_State *L)
{
    return mjl_store_at(L, 1);
}

static void unlock(box *b)
{
    if (b->lock)
        mj_store_unlock(b->store, b->lock);
    b->lock = NULL;
}

static int store_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, STORE);

    unlock(b);
    mj_store_close(b->store);
    b->store = NULL;
    return 0;
}

/* store:lock(name) -> true | nil, err: "busy" while another process holds it.  A handle holds one at a time, until
 * store:unlock(), its close, or the end of the process. */
static int store_lock(lua_State *L)
{
    mj_store *s = mjl_store(L);
    box *b = lua_touserdata(L, 1);
    const char *name = luaL_checkstring(L, 2);
    int rc;

    if (b->lock)
        return luaL_error(L, "the store holds a lock already");
    rc = mj_store_lock(s, name, &b->lock);
    if (rc != MJ_OK)
        return mjl_store_fail(L, s, rc);
    lua_pushboolean(L, 1);
    return 1;
}

/* store:unlock(): idempotent.  In a child of core.fork() it lets go of the child's part; the parent goes on. */
static int store_unlock(lua_State *L)
{
    mjl_store(L);
    unlock(lua_touserdata(L, 1));
    return 0;
}

/* store:skew() -> milliseconds that the clock of the store is ahead of this machine's.  Never waits. */
static int store_skew(lua_State *L)
{
    mj_store *s = mjl_store(L);
    int64_t ms = 0;
    struct timespec t;

    if (mj_store_backend(s)->now) {
        clock_gettime(CLOCK_REALTIME, &t);
        ms = mj_store_now(s) - ((int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000);
    }
    mjl_push_int(L, ms);
    return 1;
}

/* store:last_ready() -> number of jobs: see mj_store_last_ready(). */
static int store_last_ready(lua_State *L)
{
    mjl_push_int(L, mj_store_last_ready(mjl_store(L)));
    return 1;
}

/* store:give_way() -> see mj_store_give_way(): us that the last batch held up others; nil: there are no others */
static int store_give_way(lua_State *L)
{
    int64_t us = mj_store_give_way(mjl_store(L));

    if (us == 0)
        return 0;
    mjl_push_int(L, us);
    return 1;
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

mj_reader mjl_strings(const mj_buf *b)
{
    return mj_reader_of(b->p ? b->p : (const uint8_t *)"", b->n);
}

void mjl_store_methods(lua_State *L, const luaL_Reg *methods)
{
    luaL_getmetatable(L, STORE);
    luaL_setfuncs(L, methods, 0);
    lua_pop(L, 1);
}

/* The accounts of a table of options, whose strings live in it; gives how many. */
static size_t read_accounts(lua_State *L, int t, mj_account a[MJ_MAX_ACCOUNTS])
{
    size_t n = 0;

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
    return n;
}

/* MJ_ENOMEM; raises when they are wrong. */
static int set_accounts(lua_State *L, int t, mj_store *s)
{
    mj_account a[MJ_MAX_ACCOUNTS];
    int rc = mj_store_accounts(s, a, read_accounts(L, t, a));

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
    o->rules.adapt = mjl_bool(L, t, "learn");
    o->rules.polled = mjl_bool(L, t, "polled");
    o->no_wait = mjl_bool(L, t, "no_wait");
    o->schema = mjl_str(L, t, "schema").p; /* lives in its table, and has a zero behind it */
    o->careful = mjl_bool(L, t, "careful");
}

/* The backend at index i, as its module gave it; NULL: LMDB's. */
static const mj_backend *backend_at(lua_State *L, int i)
{
    if (!lua_isnoneornil(L, i))
        luaL_checktype(L, i, LUA_TLIGHTUSERDATA);
    return lua_touserdata(L, i);
}

static const mj_backend *backend_of(lua_State *L, int t)
{
    const mj_backend *b;

    mjl_field(L, t, "backend");
    b = backend_at(L, lua_gettop(L));
    lua_pop(L, 1);
    return b;
}

/* core.restore(from, dir, options of core.open, anyway) -> {tasks=, events=, tombs=, queued=, found=, kept=} | nil,
 * err. See mj_store_restore(). */
static int core_restore(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1), *dir = luaL_checkstring(L, 2);
    mj_account accounts[MJ_MAX_ACCOUNTS];
    mj_store_options o;
    mj_restored done;
    char why[512] = "";
    int rc;

    luaL_checktype(L, 3, LUA_TTABLE);
    read_options(L, 3, &o);
    o.accounts = accounts;
    o.naccounts = read_accounts(L, 3, accounts);
    rc = mj_store_restore(from, dir, &o, lua_toboolean(L, 4), &done, why, sizeof why);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, why);
    lua_createtable(L, 0, 6);
    mjl_set_int(L, "tasks", (int64_t)done.checked.tasks);
    mjl_set_int(L, "queued", (int64_t)done.checked.queued);
    mjl_set_int(L, "events", (int64_t)done.checked.events);
    mjl_set_int(L, "tombs", (int64_t)done.checked.tombs);
    mjl_set_int(L, "found", (int64_t)done.checked.found);
    if (done.kept[0])
        mjl_set_lit(L, "kept", done.kept);
    return 1;
}

/* core.open(where, {backend=, schema=, mode=, map_max=, poll_first=, poll_max=, lost_after=, grace= (seconds), learn=,
 * polled=, no_wait=, careful=, accounts=}).  Without a backend `where` is a directory. */
static int core_open(lua_State *L)
{
    const char *where = luaL_checkstring(L, 1);
    const mj_backend *backend;
    mj_store_options o;
    char why[512] = "";
    box *b;
    int rc;

    luaL_checktype(L, 2, LUA_TTABLE);
    read_options(L, 2, &o);
    backend = backend_of(L, 2);
    b = lua_newuserdata(L, sizeof *b);
    *b = (box){0};
    luaL_getmetatable(L, STORE);
    lua_setmetatable(L, -2);
    rc = backend ? mj_store_open_on(backend, where, &o, &b->store, why, sizeof why)
                 : mj_store_open(where, &o, &b->store, why, sizeof why);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, why);
    rc = set_accounts(L, 2, b->store);
    return rc == MJ_OK ? 1 : mjl_fail(L, rc, NULL);
}

/* core.exists(where, options of core.open) -> true | nil, err: "not_found" when there is provably no store */
static int core_exists(lua_State *L)
{
    const char *where = luaL_checkstring(L, 1);
    mj_store_options o;
    char why[512] = "";
    int rc;

    luaL_checktype(L, 2, LUA_TTABLE);
    read_options(L, 2, &o);
    rc = mj_store_exists(backend_of(L, 2), where, &o, why, sizeof why);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, why);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.backend(backend) -> {name=, waits=}: what it is called, and whether a call may wait for a network.  nil: LMDB's.
 */
static int core_backend(lua_State *L)
{
    const mj_backend *b = backend_at(L, 1);

    if (!b)
        b = &mj_backend_lmdb;
    if (b->abi != MJ_BACKEND_ABI)
        return luaL_error(L, "the store module belongs to another mjhook: install both of one version");
    lua_createtable(L, 0, 2);
    mjl_set_lit(L, "name", b->name);
    lua_pushboolean(L, b->waits);
    lua_setfield(L, -2, "waits");
    return 1;
}

void mjl_open_store(lua_State *L)
{
    static const luaL_Reg methods[] = {{"close", store_close},
                                       {"lock", store_lock},
                                       {"unlock", store_unlock},
                                       {"skew", store_skew},
                                       {"last_ready", store_last_ready},
                                       {"give_way", store_give_way},
                                       {NULL, NULL}};
    static const luaL_Reg functions[] = {{"open", core_open},
                                         {"exists", core_exists},
                                         {"backend", core_backend},
                                         {"restore", core_restore},
                                         {NULL, NULL}};

    mjl_class(L, STORE, methods);
    luaL_setfuncs(L, functions, 0);
}
