/* A task as it was at each entry of its timeline. */
#include "lua/core.h"

/* A number of a record, which a file may hold. */
static int64_t number(lua_State *L, int t, const char *name, int64_t absent, int64_t most)
{
    int64_t v = mjl_int(L, t, name, absent, 0, MJ_MAX_TIME);

    return v < most ? v : most;
}

static mj_state read_state(lua_State *L, int t, const char *name)
{
    int state = mj_state_parse(mjl_str(L, t, name));

    if (state < 0)
        luaL_error(L, "bad field '%s'", name);
    return (mj_state)state;
}

/* Names that are unknown, perhaps those of a newer version, become numbers that mean nothing. */
static void read_entry(lua_State *L, int t, mj_timeline_entry *m, mj_signal *sig)
{
    mj_str note = mjl_str(L, t, "note");

    *m = (mj_timeline_entry){.at = mjl_ms(L, t, "at", 0), .from = read_state(L, t, "from")};
    m->until = mjl_ms(L, t, "until", m->at);
    m->to = read_state(L, t, "to");
    m->count = (uint32_t)number(L, t, "count", 1, UINT32_MAX);
    m->attempt = (uint32_t)number(L, t, "attempt", 1, UINT32_MAX);
    m->result = note.n ? (uint8_t)mjl_find(note, mj_result_name, MJ_NRESULTS) : MJ_RESULT_TAKEN;
    *sig = (mj_signal){.expect_state = -1, .task_id = mjl_str(L, t, "task_id"), .account = mjl_str(L, t, "account")};
    sig->kind = (mj_signal_kind)mjl_find(mjl_str(L, t, "signal"), mj_signal_name, SIG_COUNT);
    sig->source = (mj_source)mjl_find(mjl_str(L, t, "source"), mj_source_name, MJ_NSOURCES);
    sig->wait_ms = mjl_ms(L, t, "wait_ms", -1);
    sig->error_code = mjl_str(L, t, "error_code");
    sig->error = mjl_str(L, t, "reason");
}

/* core.replay(made, timeline, grace_ms) -> list of tasks: as it was before each entry, and after the last.
 * made: created_at, timeout and account of the task.  timeline: its entries, each with what more is known of its
 * signal (task_id, account, error_code, wait_ms).  Of the tasks due_at means nothing. */
static int core_replay(lua_State *L)
{
    mj_signal sig = {.kind = SIG_CREATE};
    mj_rules rules = mj_rules_default;
    mj_timeline_entry m = {0};
    mj_task t = {0};

    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    rules.grace_ms = mjl_arg_ms(L, 3);
    t.timeout = (uint32_t)number(L, 1, "timeout", 600, UINT32_MAX);
    t.account = mjl_str(L, 1, "account");
    m.at = mjl_ms(L, 1, "created_at", 0);
    mj_state_retrace(&t, &sig, &m, &rules);
    lua_newtable(L);
    for (int i = 1;; i++) {
        mjl_push_view(L, &t);
        lua_rawseti(L, 4, i);
        lua_rawgeti(L, 2, i);
        if (!lua_istable(L, 5))
            break;
        read_entry(L, 5, &m, &sig);
        mj_state_retrace(&t, &sig, &m, &rules);
        lua_settop(L, 4);
    }
    lua_settop(L, 4);
    return 1;
}

void mjl_open_replay(lua_State *L)
{
    lua_pushcfunction(L, core_replay);
    lua_setfield(L, -2, "replay");
}
