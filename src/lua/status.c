/* What the provider says of a job, in Lua: as a table for those that look at it, and as bytes for those that only pass
 * it on to the store.  Of a hundred thousand polled jobs the bytes are one string each; the tables would be two, with
 * ten strings in them. */
#include "lua/core.h"

#include <string.h>

static void set_redacted(lua_State *L, const char *name, mj_redact_kind kind, mj_str s)
{
    if (s.n == 0)
        return;
    mjl_push_redacted(L, kind, s.p, s.n);
    lua_setfield(L, -2, name);
}

void mjl_push_status(lua_State *L, const mj_signal *w)
{
    lua_createtable(L, 0, 8);
    mjl_set_lit(L, "kind", mj_signal_name(w->kind));
    mjl_set_str(L, "task_id", w->task_id);
    mjl_set_str(L, "error_code", w->error_code);
#define X(name, kind, max) set_redacted(L, #name, MJ_REDACT_##kind, w->name);
    MJL_STATUS_TEXTS(X)
#undef X
    if (w->kind == SIG_FAILED && w->error.n == 0)
        mjl_set_lit(L, "error", "");
    lua_createtable(L, (int)w->nimages, 0);
    for (unsigned i = 0; i < w->nimages; i++) {
        mjl_push_redacted(L, MJ_REDACT_URL, w->images[i].p, w->images[i].n);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "images");
}

void mjl_put_status(mj_buf *b, const mj_signal *w)
{
    mj_put_u8(b, (uint8_t)w->kind);
    mj_put_str(b, w->task_id);
    mj_put_str(b, w->error_code);
#define X(name, kind, max) mj_put_str(b, w->name);
    MJL_STATUS_TEXTS(X)
#undef X
    mj_put_u8(b, (uint8_t)w->nimages);
    for (unsigned i = 0; i < w->nimages; i++)
        mj_put_str(b, w->images[i]);
}

bool mjl_get_status(mj_str bytes, mj_signal *w)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    uint8_t kind = mj_get_u8(&r);

    w->kind = (mj_signal_kind)kind;
    w->task_id = mj_get_str(&r);
    w->error_code = mj_get_str(&r);
#define X(name, kind, max) w->name = mj_get_str(&r);
    MJL_STATUS_TEXTS(X)
#undef X
    w->nimages = mj_get_u8(&r);
    if (w->nimages > MJ_MAX_IMAGES)
        return false;
    for (unsigned i = 0; i < w->nimages; i++)
        w->images[i] = mj_get_str(&r);
    return !r.bad && r.p == r.end && kind < SIG_COUNT && mj_signal_is_status(w->kind);
}

/* core.status(bytes) -> {kind = "running"|"succeeded"|"hint"|"failed", task_id=, image=, images={}, mj_prompt=, meta=
 * (JSON), remark= (for the timeline), error=, error_code=}: what bytes of core.wire_status() say. */
static int core_status(lua_State *L)
{
    mj_signal w = {0};

    luaL_argcheck(L, mjl_get_status(mjl_arg_str(L, 1), &w), 1, "no status");
    mjl_push_status(L, &w);
    return 1;
}

void mjl_open_status(lua_State *L)
{
    lua_pushcfunction(L, core_status);
    lua_setfield(L, -2, "status");
}
