/* mjhook.core's store: a batch of operations, in and out. */
#include "lua/store.h"

#include <stdlib.h>
#include <string.h>

#define BATCH "mjhook.batch"

/* A batch in a userdata: its buffers are freed, whatever raises. */
typedef struct batch {
    size_t n;
    mj_op *ops;
    mj_task *tasks;
    bool *readable;    /* which callbacks of the inbox's batch are in ops */
    mjl_hidden hidden; /* texts of ops without secrets */
} batch;

static void clear_batch(batch *b)
{
    for (size_t i = 0; b->ops && i < b->n; i++)
        mj_op_clear(&b->ops[i]);
    free(b->ops);
    free(b->tasks);
    free(b->readable);
    mjl_hidden_free(&b->hidden);
    memset(b, 0, sizeof *b);
}

static int batch_close(lua_State *L)
{
    clear_batch(luaL_checkudata(L, 1, BATCH));
    return 0;
}

static batch *new_batch(lua_State *L)
{
    batch *b = lua_newuserdata(L, sizeof *b);

    memset(b, 0, sizeof *b);
    luaL_getmetatable(L, BATCH);
    lua_setmetatable(L, -2);
    return b;
}

static size_t count_creates(lua_State *L, size_t n)
{
    size_t creates = 0;

    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        mjl_field(L, lua_gettop(L), "task");
        creates += lua_istable(L, -1);
        lua_pop(L, 2);
    }
    return creates;
}

/* The batch for n operations, which were read, and ncalls callbacks; MJ_ENOMEM. */
static int fill_batch(lua_State *L, batch *b, size_t n, size_t ncalls)
{
    size_t creates = count_creates(L, n);

    b->ops = calloc(n + ncalls + 1, sizeof *b->ops); /* one more: calloc(0) may give NULL */
    b->tasks = calloc(creates + 1, sizeof *b->tasks);
    b->readable = calloc(ncalls + 1, sizeof *b->readable);
    if (!b->ops || !b->tasks || !b->readable)
        return MJ_ENOMEM;
    creates = 0;
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        mjl_read_op(L, lua_gettop(L), &b->ops[i], &b->tasks[creates]);
        creates += b->ops[i].kind == MJ_OP_CREATE;
        lua_pop(L, 1);
    }
    b->n = n;
    return MJ_OK;
}

/* How each callback of the inbox's batch went: a byte, which is an index into core.codes. */
static void push_outcomes(lua_State *L, const batch *b, const mj_op *op, size_t ncalls)
{
    luaL_Buffer bytes;

    luaL_buffinit(L, &bytes);
    for (size_t i = 0; i < ncalls; i++) {
        int code = b->readable[i] ? (op++)->code : MJ_EINVAL;
        luaL_addchar(&bytes, (char)(1 - code));
    }
    luaL_pushresult(&bytes);
}

/* A write that is running: what push_results() needs. */
typedef struct writing {
    lua_State *L;
    const batch *b;
    size_t n, ncalls; /* operations; callbacks */
    int at;           /* results go above this index, where push_results() is */
} writing;

/* The results, as store:write gives them. */
static int push_results(lua_State *L)
{
    const writing *w = lua_touserdata(L, 1);

    lua_createtable(L, (int)w->n, 0);
    for (size_t i = 0; i < w->n; i++) {
        mjl_push_result(L, &w->b->ops[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    push_outcomes(L, w->b, w->b->ops + w->n, w->ncalls);
    return 2;
}

/* Before the commit: the results become Lua values, or nothing is stored; after it, memory that runs out would lose
 * them. Values are made, and no Lua code runs inside the transaction: the collector is stopped, since it could call a
 * finalizer that writes, too. */
static int take_over(void *ctx)
{
    writing *w = ctx;
    lua_State *L = w->L;
    bool collects = lua_gc(L, LUA_GCISRUNNING, 0);
    int rc;

    lua_settop(L, w->at); /* the batch may run again */
    lua_pushvalue(L, w->at);
    lua_pushlightuserdata(L, w);
    if (collects)
        lua_gc(L, LUA_GCSTOP, 0);
    rc = lua_pcall(L, 1, 2, 0);
    if (collects)
        lua_gc(L, LUA_GCRESTART, 0);
    return rc == LUA_OK ? MJ_OK : MJ_ENOMEM; /* nothing else fails there */
}

/* Reads what store:write was given and stores it; leaves `unreadable`, push_results and the results on the stack. */
static int try_write(lua_State *L, mj_store *s, batch *b, writing *w, int64_t now)
{
    const mj_ready ready = {take_over, w};
    size_t read = 0;
    int rc = fill_batch(L, b, w->n, w->ncalls);

    if (rc == MJ_OK && w->ncalls > 0)
        rc = mjl_batch_read(L, 4, b->ops + w->n, b->readable, &read);
    else
        lua_pushnil(L);
    b->n += read;
    for (size_t i = 0; rc == MJ_OK && i < b->n; i++)
        rc = mjl_redact_op(&b->ops[i], &b->hidden);
    lua_pushcfunction(L, push_results); /* here, since LuaJIT takes memory for it */
    w->at = lua_gettop(L);
    return rc == MJ_OK ? mj_store_write_ready(s, b->ops, b->n, now, &ready) : rc;
}

/* store:write(ops, now, inbox) -> {results}, outcomes, unreadable | nil, err.  With an inbox (optional), the callbacks
 * of its batch, the one that was taken last, are in the same transaction: `outcomes` has a byte for each, an index
 * into core.codes; `unreadable` is nil, or tells by their numbers why some could not be read, whatever their byte
 * says. When it raises or gives an error, nothing was stored. */
static int store_write(lua_State *L)
{
    mj_store *s = mjl_store(L);
    int64_t now = mjl_arg_ms(L, 3);
    writing w = {.L = L};
    batch *b;
    int top, rc;

    lua_settop(L, 4);
    luaL_checktype(L, 2, LUA_TTABLE);
    w.n = lua_rawlen(L, 2);
    w.ncalls = lua_isnil(L, 4) ? 0 : mjl_batch_size(L, 4);
    w.b = b = new_batch(L);
    top = lua_gettop(L);
    rc = try_write(L, s, b, &w, now);
    if (rc == MJ_ENOMEM) { /* LuaJIT collects nothing before it gives up, and C may have memory again by now */
        clear_batch(b);
        lua_settop(L, top);
        lua_gc(L, LUA_GCCOLLECT, 0);
        rc = try_write(L, s, b, &w, now);
    }
    clear_batch(b);
    if (rc != MJ_OK)
        return mjl_store_fail(L, s, rc);
    lua_pushvalue(L, w.at - 1);
    return 3;
}

void mjl_open_store_write(lua_State *L)
{
    static const luaL_Reg methods[] = {{"write", store_write}, {NULL, NULL}};
    static const luaL_Reg batch_methods[] = {{"close", batch_close}, {NULL, NULL}};

    mjl_class(L, BATCH, batch_methods);
    mjl_store_methods(L, methods);
}
