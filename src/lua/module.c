/* The module: its constants and its parts. */
#include "lua/core.h"

/* Each adds its functions to the table on top of the stack. */
static void (*const PARTS[])(lua_State *L) = {
    mjl_open_core,        mjl_open_curl,       mjl_open_store, /* first: other parts add methods */
    mjl_open_store_write, mjl_open_store_read, mjl_open_store_page, mjl_open_store_stats, mjl_open_store_copy,
    mjl_open_operation,   mjl_open_http,       mjl_open_stream,     mjl_open_fetch,       mjl_open_auth,
    mjl_open_wire,        mjl_open_provider,   mjl_open_address,    mjl_open_sys,         mjl_open_signal,
    mjl_open_user,        mjl_open_file,       mjl_open_redact,     mjl_open_json,        mjl_open_child,
    mjl_open_watch,       mjl_open_inbox,      mjl_open_workqueue,  mjl_open_replay,      mjl_open_status,
};

/* core.error(code, message, retryable): an error table made by Lua code, in the same shape. */
static int core_error(lua_State *L)
{
    luaL_checkstring(L, 1);
    luaL_checkstring(L, 2);
    mjl_fail(L, MJ_EINVAL, lua_tostring(L, 2));
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "code");
    lua_pushboolean(L, lua_toboolean(L, 3));
    lua_setfield(L, -2, "retryable");
    return 1;
}

/* core.is_ref(value) -> boolean: whether it could be a task's ref. */
static int core_is_ref(lua_State *L)
{
    uint8_t ref[MJ_ULID_BYTES];

    lua_pushboolean(L, mjl_ref(L, 1, ref));
    return 1;
}

/* The codes of outcomes as a list: an outcome is then a number. */
static void push_codes(lua_State *L)
{
    lua_newtable(L);
    for (int i = 0; i <= MJ_NERRORS; i++) {
        lua_pushstring(L, mj_error_name(-i));
        lua_rawseti(L, -2, i + 1);
    }
}

/* Pushes the names of the states, in order, as a list; with `final` only of those that a task does not leave by itself.
 */
static void push_states(lua_State *L, bool final)
{
    int n = 0;

    lua_newtable(L);
    for (int i = 0; i < MJ_NSTATES; i++) {
        if (final && !mj_state_final((mj_state)i))
            continue;
        lua_pushstring(L, mj_state_name((mj_state)i));
        lua_rawseti(L, -2, ++n);
    }
}

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
int luaopen_mjhook_core(lua_State *L);

int luaopen_mjhook_core(lua_State *L)
{
    lua_createtable(L, 0, 32);
    lua_pushcfunction(L, core_error);
    lua_setfield(L, -2, "error");
    lua_pushcfunction(L, core_is_ref);
    lua_setfield(L, -2, "is_ref");
    mjl_set_lit(L, "version", MJ_VERSION);
    mjl_set_int(L, "schema", MJ_STORE_SCHEMA);
    mjl_set_int(L, "max_prompt", MJ_MAX_PROMPT);
    mjl_set_int(L, "max_name", MJ_MAX_NAME);
    mjl_set_int(L, "max_json", MJ_MAX_JSON);
    mjl_set_int(L, "clock_step", MJ_CLOCK_STEP_MS);
    mjl_set_int(L, "max_refused", MJ_MAX_REFUSED);
    lua_createtable(L, MJ_NBUCKETS - 1, 0);
    for (unsigned i = 0; i < MJ_NBUCKETS - 1; i++) {
        mjl_push_int(L, mj_latency_bound(i));
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "latency_bounds");
    push_states(L, false);
    lua_setfield(L, -2, "states");
    push_states(L, true);
    lua_setfield(L, -2, "final_states");
    push_codes(L);
    lua_setfield(L, -2, "codes");
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++)
        PARTS[i](L);
    return 1;
}
