/* core.provider: the provider's profile (provider/profile.h) as a table that can't be written to. */
#include "lua/core.h"
#include "provider/profile.h"

static void set_str(lua_State *L, const char *name, mj_str s)
{
    lua_pushlstring(L, s.p, s.n);
    lua_setfield(L, -2, name);
}

static int refuse(lua_State *L)
{
    return luaL_error(L, "core.provider can't be changed");
}

/* Replaces the table on top of the stack by an empty one that reads from it, and stores that one as field `name` of
 * the table below. */
static void seal(lua_State *L, const char *name)
{
    lua_newtable(L);
    lua_createtable(L, 0, 3);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, refuse);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_remove(L, -2);
    lua_setfield(L, -2, name);
}

static void push_requests(lua_State *L, const mj_provider *p)
{
    lua_createtable(L, 0, 2);
    mjl_set_lit(L, "submit", p->path.submit);
    mjl_set_lit(L, "status", p->path.status);
    seal(L, "path");
    lua_createtable(L, 0, 5);
    mjl_set_lit(L, "prompt", p->request.prompt);
    mjl_set_lit(L, "mode", p->request.mode);
    mjl_set_lit(L, "timeout", p->request.timeout);
    mjl_set_lit(L, "hook_url", p->request.hook_url);
    mjl_set_lit(L, "task_ids", p->request.task_ids);
    seal(L, "request");
    lua_createtable(L, 0, MJ_NMODES);
    for (unsigned i = 0; i < MJ_NMODES; i++)
        mjl_set_lit(L, mj_mode_name((mj_mode)i), p->mode[i]);
    seal(L, "mode");
    lua_createtable(L, 0, 3);
    mjl_set_int(L, "least", p->timeout.least);
    mjl_set_int(L, "most", p->timeout.most);
    mjl_set_int(L, "usual", p->timeout.usual);
    seal(L, "timeout");
}

static void push_answers(lua_State *L, const mj_provider *p)
{
    lua_createtable(L, 0, MJ_F_COUNT + 2);
#define X(sym, name) set_str(L, name, p->field[sym]);
    MJ_FIELDS(X)
#undef X
    set_str(L, "url", p->url);
    set_str(L, "code", p->code);
    seal(L, "field");
    lua_createtable(L, 0, 3);
    mjl_set_int(L, "running", p->status.running);
    mjl_set_int(L, "succeeded", p->status.succeeded);
    mjl_set_int(L, "failed", p->status.failed);
    seal(L, "status");
    lua_createtable(L, 0, 3);
    mjl_set_int(L, "ok", p->envelope.ok);
    mjl_set_int(L, "quota", p->envelope.quota);
    mjl_set_int(L, "concurrency", p->envelope.concurrency);
    seal(L, "envelope");
}

void mjl_open_provider(lua_State *L)
{
    const mj_provider *p = &mj_midjourney;

    lua_createtable(L, 0, 12);
    mjl_set_lit(L, "name", p->name);
    mjl_set_lit(L, "base_url", p->base_url);
    mjl_set_lit(L, "key_header", p->key_header);
    mjl_set_int(L, "jobs", p->jobs);
    lua_createtable(L, 0, 3);
    mjl_set_lit(L, "api_key", p->environment.api_key);
    mjl_set_lit(L, "base_url", p->environment.base_url);
    mjl_set_lit(L, "hook_url", p->environment.hook_url);
    seal(L, "environment");
    push_requests(L, p);
    push_answers(L, p);
    seal(L, "provider");
}
