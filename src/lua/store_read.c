/* mjhook.core's store: reads. */
#include "lua/store.h"

#include <string.h>

static int give_task(lua_State *L, mj_store *s, mj_buf *b, int rc)
{
    if (rc == MJ_OK)
        rc = mjl_push_task(L, (mj_str){(const char *)b->p, (uint32_t)b->n});
    mj_buf_free(b);
    return rc == MJ_OK ? 1 : mjl_store_fail(L, s, rc);
}

/* store:get(ref) -> task | nil, err */
static int store_get(lua_State *L)
{
    mj_store *s = mjl_store(L);
    uint8_t ref[MJ_ULID_BYTES];
    mj_buf *b;

    if (!mjl_ref(L, 2, ref))
        return mjl_fail(L, MJ_ENOTFOUND, NULL);
    b = mjl_buf(L);
    return give_task(L, s, b, mj_store_get(s, ref, b));
}

/* store:find(task_id) -> task, attempt | nil, err */
static int store_find(lua_State *L)
{
    mj_store *s = mjl_store(L);
    size_t n;
    const char *id = luaL_checklstring(L, 2, &n);
    uint32_t attempt = 0;
    mj_buf *b = mjl_buf(L);
    int rc;

    rc = n > MJ_MAX_TASK_ID ? MJ_ENOTFOUND : mj_store_find(s, (mj_str){id, (uint32_t)n}, b, &attempt);
    if (give_task(L, s, b, rc) != 1)
        return 2;
    mjl_push_int(L, attempt);
    return 2;
}

/* store:by_key(key) -> task, or what is left of a pruned one | nil, err */
static int store_by_key(lua_State *L)
{
    mj_store *s = mjl_store(L);
    size_t n;
    const char *key = luaL_checklstring(L, 2, &n);
    mj_buf *b = mjl_buf(L);
    bool pruned = false;
    int rc = n > MJ_MAX_NAME ? MJ_ENOTFOUND : mj_store_key(s, (mj_str){key, (uint32_t)n}, b, &pruned);

    if (rc != MJ_OK || !pruned)
        return give_task(L, s, b, rc);
    rc = mjl_push_tomb(L, (mj_str){(const char *)b->p, (uint32_t)b->n});
    mj_buf_free(b);
    return rc == MJ_OK ? 1 : mjl_store_fail(L, s, rc);
}

/* store:intake(limit) -> {{name=, job= (text, a JSON object)}, ...} | nil, err.  See mj_store_intake(). */
static int store_intake(lua_State *L)
{
    mj_store *s = mjl_store(L);
    lua_Integer limit = luaL_checkinteger(L, 2);
    mj_buf *b = mjl_buf(L);
    mj_reader r;
    int rc, n = 0;

    luaL_argcheck(L, limit >= 0 && limit <= 65536, 2, "0 to 65536 expected");
    rc = mj_store_intake(s, (uint32_t)limit, b);
    if (rc != MJ_OK) {
        mj_buf_free(b);
        return mjl_store_fail(L, s, rc);
    }
    lua_newtable(L);
    r = mjl_strings(b);
    while (r.p < r.end) {
        mj_str name = mj_get_str(&r), job = mj_get_str(&r);
        if (r.bad)
            break;
        lua_createtable(L, 0, 2);
        lua_pushlstring(L, name.p, name.n);
        lua_setfield(L, -2, "name");
        lua_pushlstring(L, job.p, job.n);
        lua_setfield(L, -2, "job");
        lua_rawseti(L, -2, ++n);
    }
    mj_buf_free(b);
    return 1;
}

/* No Lua here: its errors must not unwind through the walk. */
static void add_finding(void *ctx, const char *text)
{
    mj_put_str(ctx, (mj_str){text, (uint32_t)strlen(text)});
}

/* store:check() -> {ok=, tasks=, events=, tombs=, found=, upgrading=, problems={sentences}} | nil, err */
static int store_check(lua_State *L)
{
    mj_store *s = mjl_store(L);
    mj_buf *b = mjl_buf(L);
    int n = 0;
    mj_check_report r;
    mj_reader reader;
    int rc = mj_store_check(s, add_finding, b, &r);

    if (rc != MJ_OK) {
        mj_buf_free(b);
        return mjl_store_fail(L, s, rc);
    }
    lua_createtable(L, 0, 7);
    lua_pushboolean(L, r.found == 0);
    lua_setfield(L, -2, "ok");
    mjl_set_int(L, "tasks", (int64_t)r.tasks);
    mjl_set_int(L, "events", (int64_t)r.events);
    mjl_set_int(L, "tombs", (int64_t)r.tombs);
    mjl_set_int(L, "found", (int64_t)r.found);
    lua_pushboolean(L, r.upgrading);
    lua_setfield(L, -2, "upgrading");
    lua_newtable(L);
    for (reader = mjl_strings(b); reader.p < reader.end && !reader.bad;) {
        mj_str text = mj_get_str(&reader);
        lua_pushlstring(L, text.p ? text.p : "", text.n);
        lua_rawseti(L, -2, ++n);
    }
    lua_setfield(L, -2, "problems");
    mj_buf_free(b);
    return 1;
}

static int push_refused(lua_State *L, mj_str bytes)
{
    mj_refused f;
    int rc = mj_refused_decode(bytes, &f);

    if (rc != MJ_OK)
        return rc;
    lua_createtable(L, 0, 7);
    mjl_set_int(L, "id", (int64_t)f.number);
    mjl_set_time(L, "at", f.at);
    mjl_push_ref(L, f.ref);
    lua_setfield(L, -2, "ref");
    mjl_set_int(L, "attempt", f.attempt);
    mjl_set_str(L, "reason", f.why);
    mjl_set_int(L, "size", (int64_t)f.size);
    lua_pushlstring(L, f.body.p ? f.body.p : "", f.body.n);
    lua_setfield(L, -2, "body");
    return MJ_OK;
}

/* store:refused(below, limit) -> {refused callbacks} | nil, err.  Newest first, those with an id less than `below`
 * (0: all). */
static int store_refused(lua_State *L)
{
    mj_store *s = mjl_store(L);
    uint64_t below = (uint64_t)mjl_arg_int(L, 2, 0, MJ_MAX_TIME);
    uint32_t limit = (uint32_t)mjl_arg_int(L, 3, 0, UINT32_MAX);
    mj_buf *b = mjl_buf(L);
    int n = 0, rc;
    mj_reader r;

    rc = mj_store_refused(s, below, limit, b);
    if (rc != MJ_OK) {
        mj_buf_free(b);
        return mjl_store_fail(L, s, rc);
    }
    lua_newtable(L);
    for (r = mjl_strings(b); r.p < r.end && !r.bad;)
        if (push_refused(L, mj_get_str(&r)) == MJ_OK)
            lua_rawseti(L, -2, ++n);
    mj_buf_free(b);
    return 1;
}

/* store:trim(): see mj_store_trim() */
static int store_trim(lua_State *L)
{
    mj_store_trim(mjl_store(L));
    return 0;
}

/* store:backup(directory) -> true | nil, err */
static int store_backup(lua_State *L)
{
    mj_store *s = mjl_store(L);
    int rc = mj_store_backup(s, luaL_checkstring(L, 2));

    if (rc != MJ_OK)
        return mjl_store_fail(L, s, rc);
    lua_pushboolean(L, 1);
    return 1;
}

void mjl_open_store_read(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"get", store_get},       {"find", store_find},       {"by_key", store_by_key},
        {"intake", store_intake}, {"refused", store_refused}, {"check", store_check},
        {"backup", store_backup}, {"trim", store_trim},       {NULL, NULL},
    };

    mjl_store_methods(L, methods);
}
