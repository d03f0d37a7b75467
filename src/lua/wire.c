/* mjhook.core's reading of what the provider sends: statuses as tables. */
#include "base/gunzip.h"
#include "lua/core.h"
#include "provider/reader.h"

#include <limits.h>
#include <string.h>

/* Scratch of n bytes, which Lua frees whatever raises. */
static mj_buf new_scratch(lua_State *L, size_t n)
{
    return (mj_buf){.p = lua_newuserdata(L, n ? n : 1), .cap = n};
}

static mj_buf scratch_for(lua_State *L, mj_str text)
{
    return new_scratch(L, mj_wire_room(text.n));
}

static void set_redacted(lua_State *L, const char *name, mj_redact_kind kind, mj_str s)
{
    if (s.n == 0)
        return;
    mjl_push_redacted(L, kind, s.p, s.n);
    lua_setfield(L, -2, name);
}

/* core.wire_callback(body) -> status, a table as core.status() gives it | nil, why. */
static int wire_callback(lua_State *L)
{
    mj_str body = mjl_arg_str(L, 1);
    mj_buf scratch = scratch_for(L, body);
    char why[MJ_WIRE_WHY];
    mj_signal w;

    if (!mj_wire_callback(&mj_midjourney, body, &scratch, &w, why)) {
        lua_pushnil(L);
        mjl_push_redacted(L, MJ_REDACT_TEXT, why, strlen(why));
        return 2;
    }
    mjl_push_status(L, &w);
    return 1;
}

/* Copies the list of strings at index i, which keeps them alive, into a userdata that is pushed. */
static mj_str *read_ids(lua_State *L, int i, size_t *n)
{
    mj_str *ids;

    luaL_checktype(L, i, LUA_TTABLE);
    *n = lua_rawlen(L, i);
    ids = lua_newuserdata(L, (*n + 1) * sizeof *ids);
    for (size_t k = 0; k < *n; k++) {
        lua_rawgeti(L, i, (int)k + 1);
        luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, i, "a list of task ids expected");
        ids[k] = mjl_arg_str(L, lua_gettop(L));
        lua_pop(L, 1);
    }
    mj_wire_sort(ids, *n);
    return ids;
}

static void push_bytes(lua_State *L, mj_buf *b, const mj_signal *w)
{
    b->n = 0;
    mjl_put_status(b, w);
    if (b->failed)
        luaL_error(L, "not enough memory");
    lua_pushlstring(L, (const char *)b->p, b->n);
}

/* core.wire_status(body, ids[, HTTP status = 200[, blocked]]) -> the statuses of the ids that were asked for, by id, as
 * bytes (see core.status); a set of the ids whose entry can't be read; how many entries name no task | nil, why, code,
 * whether to ask again in halves.  `blocked`: the answer has a "cf-mitigated" header.  Entries that were not asked for
 * are only skipped. */
static int wire_status(lua_State *L)
{
    mj_str body = mjl_arg_str(L, 1);
    int http = lua_isnoneornil(L, 3) ? 200 : (int)mjl_arg_int(L, 3, 0, INT_MAX);
    bool blocked = lua_toboolean(L, 4);
    size_t n, odd;
    mj_str *ids = read_ids(L, 2, &n);
    mj_json *entries = lua_newuserdata(L, (n + 1) * sizeof *entries);
    mj_buf scratch = new_scratch(L, body.n); /* each status gets its own scratch later, which may be larger */
    uint32_t largest = 0;
    char why[MJ_WIRE_WHY];
    mj_wire_statuses statuses;
    mj_buf *bytes;
    mj_signal w;

    if (!mj_wire_status(&mj_midjourney, http, blocked, body, &scratch, &statuses, why)) {
        const mj_meaning_info *info = mj_meaning_of(statuses.meaning);
        lua_pushnil(L);
        mjl_push_redacted(L, MJ_REDACT_TEXT, why, strlen(why));
        lua_pushstring(L, info->code);
        lua_pushboolean(L, info->halves);
        return 4;
    }
    odd = mj_wire_asked(&mj_midjourney, statuses, ids, n, entries, &scratch);
    for (size_t i = 0; i < n; i++)
        largest = entries[i].text.n > largest ? entries[i].text.n : largest;
    scratch = new_scratch(L, mj_wire_room(largest));
    bytes = mjl_buf(L);
    lua_createtable(L, 0, (int)n);
    lua_newtable(L);
    for (size_t i = 0; i < n; i++, scratch.n = 0) {
        bool read = mj_wire_entry(&mj_midjourney, entries[i], &scratch, &w);
        if (entries[i].type == MJ_JSON_NONE)
            continue;
        lua_pushlstring(L, ids[i].p, ids[i].n);
        if (read)
            push_bytes(L, bytes, &w);
        else
            lua_pushboolean(L, true);
        lua_rawset(L, read ? -4 : -3);
    }
    mj_buf_free(bytes);
    lua_pushinteger(L, (lua_Integer)odd);
    return 3;
}

/* core.wire_submit(HTTP status, body or nil[, blocked]) -> {kind = "accepted"|"refused"|"rejected"|"maybe_sent",
 * task_id=, error_code=, error=, said=, job_waits=}: what the answer to a submission means, and the provider's
 * message. job_waits: the job may be the cause, so another one should be tried first. */
static int wire_submit(lua_State *L)
{
    int http = (int)mjl_arg_int(L, 1, 0, INT_MAX);
    mj_str body = lua_isnoneornil(L, 2) ? MJ_LIT("") : mjl_arg_str(L, 2);
    mj_buf scratch = scratch_for(L, body);
    mj_wire_verdict v;

    mj_wire_submit(&mj_midjourney, http, lua_toboolean(L, 3), body, &scratch, &v);
    lua_createtable(L, 0, 5);
    mjl_set_lit(L, "kind", v.kind);
    mjl_set_str(L, "task_id", v.task_id);
    if (v.code)
        mjl_set_lit(L, "error_code", v.code);
    set_redacted(L, "error", MJ_REDACT_TEXT, v.text);
    set_redacted(L, "said", MJ_REDACT_TEXT, v.said);
    if (mj_meaning_of(v.meaning)->job_waits) {
        lua_pushboolean(L, true);
        lua_setfield(L, -2, "job_waits");
    }
    return 1;
}

/* core.gunzip(body, max) -> the body without unrequested compression; the same string if there is none | nil, err:
 * "invalid": damaged; "limit": it becomes more than max bytes; "no_memory" */
static int gunzip(lua_State *L)
{
    mj_str body = mjl_arg_str(L, 1), plain;
    uint32_t max = (uint32_t)mjl_arg_int(L, 2, 0, INT32_MAX);
    mj_buf *out;
    int rc;

    if (!mj_is_compressed(body)) {
        lua_pushvalue(L, 1);
        return 1;
    }
    out = mjl_buf(L);
    rc = mj_gunzip(body, max, out, &plain);
    if (rc != MJ_OK)
        return mjl_fail(L, rc,
                        rc == MJ_EINVAL   ? "a compressed body that is damaged or cut short"
                        : rc == MJ_ELIMIT ? "a compressed body that becomes longer than allowed"
                                          : NULL);
    lua_pushlstring(L, plain.p, plain.n);
    mj_buf_free(out); /* now, not at some collection */
    return 1;
}

/* core.utf8(text) -> whether it is well-formed UTF-8 */
static int utf8(lua_State *L)
{
    mj_str s = mjl_arg_str(L, 1);

    lua_pushboolean(L, mj_utf8_valid(s.p, s.n));
    return 1;
}

/* core.character(text, i) -> how many bytes the character at byte i has, and its code point | 1: it is no UTF-8 */
static int character(lua_State *L)
{
    mj_str s = mjl_arg_str(L, 1);
    uint32_t at = (uint32_t)mjl_arg_int(L, 2, 1, s.n) - 1;
    size_t n = mj_utf8_length(s.p + at, s.n - at);

    lua_pushinteger(L, n ? (lua_Integer)n : 1);
    if (n == 0)
        return 1;
    lua_pushinteger(L, mj_utf8_read(s.p + at, n));
    return 2;
}

void mjl_open_wire(lua_State *L)
{
    static const luaL_Reg functions[] = {{"wire_callback", wire_callback},
                                         {"wire_status", wire_status},
                                         {"wire_submit", wire_submit},
                                         {"gunzip", gunzip},
                                         {"utf8", utf8},
                                         {"character", character},
                                         {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
