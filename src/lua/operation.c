/* Operations from Lua tables, and their results as tables. */
#include "lua/core.h"

#include <string.h>

unsigned mjl_find(mj_str given, const char *(*name)(unsigned), unsigned count)
{
    unsigned i = 0;

    while (i < count && (given.n == 0 || strncmp(name(i), given.p, given.n) != 0 || name(i)[given.n] != '\0'))
        i++;
    return i;
}

static int named(lua_State *L, mj_str given, const char *field, const char *(*name)(unsigned), unsigned count)
{
    unsigned i = mjl_find(given, name, count);

    return i < count ? (int)i : luaL_error(L, "bad field '%s'", field);
}

static unsigned read_images(lua_State *L, int t, mj_str *images)
{
    unsigned n = 0;
    size_t len;

    mjl_field(L, t, "images");
    if (lua_istable(L, -1)) {
        for (int i = 1; n < MJ_MAX_IMAGES; i++) {
            lua_rawgeti(L, -1, i);
            if (lua_type(L, -1) != LUA_TSTRING) {
                lua_pop(L, 1);
                break;
            }
            images[n].p = lua_tolstring(L, -1, &len);
            if (len > UINT32_MAX)
                luaL_error(L, "field 'images' is too long");
            images[n++].n = (uint32_t)len;
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    return n;
}

/* What the provider says: from a table as core.status() gives it. */
static void read_status(lua_State *L, int t, mj_signal *sig)
{
    mj_str kind = mjl_str(L, t, "kind");

    if (kind.n)
        sig->kind = (mj_signal_kind)named(L, kind, "kind", mj_signal_name, SIG_COUNT);
    sig->task_id = mjl_str(L, t, "task_id");
    sig->error_code = mjl_str(L, t, "error_code");
#define X(name, kind, max) sig->name = mjl_str(L, t, #name);
    MJL_STATUS_TEXTS(X)
#undef X
    sig->nimages = read_images(L, t, sig->images);
}

/* Its `status`, a table or bytes, is what the provider says; without one the operation itself says it.  Whether it was
 * in bytes. */
static bool read_said(lua_State *L, int t, mj_signal *sig)
{
    bool bytes;

    sig->kind = SIG_CREATE;
    mjl_field(L, t, "status");
    bytes = lua_type(L, -1) == LUA_TSTRING;
    if (bytes && !mjl_get_status(mjl_arg_str(L, lua_gettop(L)), sig))
        luaL_error(L, "bad field 'status'");
    if (!bytes)
        read_status(L, lua_istable(L, -1) ? lua_gettop(L) : t, sig);
    lua_pop(L, 1);
    if (sig->task_id.n > MJ_MAX_TASK_ID)
        luaL_error(L, "field 'task_id' is too long");
    return bytes;
}

static void read_source(lua_State *L, int t, mj_signal *sig)
{
    mj_str source = mjl_str(L, t, "source");

    sig->source = source.n ? (mj_source)named(L, source, "source", mj_source_name, MJ_NSOURCES) : MJ_FROM_USER;
}

static void read_signal(lua_State *L, int t, mj_signal *sig)
{
    mj_str expect = mjl_str(L, t, "expect");

    read_source(L, t, sig);
    sig->expect_state = expect.n ? mj_state_parse(expect) : -1;
    if (expect.n && sig->expect_state < 0)
        luaL_error(L, "bad field 'expect'");
    sig->attempt = (uint32_t)mjl_int(L, t, "attempt", 0, 0, UINT32_MAX);
    sig->wait_ms = mjl_ms(L, t, "wait_ms", -1);
    sig->counts = mjl_bool(L, t, "counts");
    sig->account = mjl_str(L, t, "account");
}

static mj_str limited(lua_State *L, int t, const char *name, uint32_t max)
{
    mj_str s = mjl_str(L, t, name);

    if (s.n > max)
        luaL_error(L, "field '%s' is longer than %d bytes", name, (int)max);
    return s;
}

static void read_task(lua_State *L, int t, mj_task *task)
{
    mj_str mode = mjl_str(L, t, "mode"), print;

    memset(task, 0, sizeof *task);
    task->prompt = limited(L, t, "prompt", MJ_MAX_PROMPT);
    task->user_id = limited(L, t, "user_id", MJ_MAX_NAME);
    task->key = limited(L, t, "key", MJ_MAX_NAME);
    task->account = limited(L, t, "account", MJ_MAX_NAME);
    task->context = limited(L, t, "context", MJ_MAX_JSON);
    task->mode = mode.n ? (mj_mode)named(L, mode, "mode", mj_mode_name, MJ_NMODES) : MJ_FAST;
    task->timeout = (uint32_t)mjl_int(L, t, "timeout", 600, 0, UINT32_MAX);
    task->priority = (int32_t)mjl_int(L, t, "priority", 0, INT32_MIN, INT32_MAX);
    task->expires_at = mjl_ms(L, t, "expires_at", 0);
    print = mjl_str(L, t, "fingerprint");
    if (print.n >= sizeof task->fingerprint)
        memcpy(task->fingerprint, print.p, sizeof task->fingerprint);
    else if (task->key.n) /* without it, a repeated key would never match */
        luaL_error(L, "bad field 'fingerprint' (%d bytes expected)", (int)sizeof task->fingerprint);
}

/* What the operations on events use; see mj_op. */
static void read_event_op(lua_State *L, int t, mj_op *op)
{
    if (op->kind == MJ_OP_EVENT_TAKE) {
        op->raw = mjl_bool(L, t, "raw");
        return;
    }
    mjl_field(L, t, "ref");
    if (!mjl_ref(L, -1, op->ref))
        luaL_error(L, "bad field 'ref'");
    lua_pop(L, 1);
    op->has_ref = true;
    memcpy(op->event.ref, op->ref, sizeof op->ref);
    op->event.seq = (uint32_t)mjl_int(L, t, "seq", 0, 0, UINT32_MAX);
    op->event.tries = (uint32_t)mjl_int(L, t, "tries", 0, 0, UINT32_MAX);
    op->sig.error = mjl_str(L, t, "error");
    op->sig.files = limited(L, t, "files", MJ_MAX_JSON);
}

/* Names the process that claims: all that a claim brings. */
static void read_claim(lua_State *L, int t, mj_signal *sig)
{
    read_source(L, t, sig);
    sig->expect_state = -1;
    sig->wait_ms = -1;
    sig->has_owner = true;
    mj_owner_self(&sig->owner);
}

/* What no answer to a poll has, of which there are hundreds to a batch. */
static void read_rare(lua_State *L, int t, mj_op *op)
{
    op->until = mjl_ms(L, t, "until", 0);
    if (op->kind == MJ_OP_SIGNAL)
        return;
    op->intake = limited(L, t, "intake", MJ_MAX_NAME);
    if (op->kind == MJ_OP_CREATE)
        return;
    op->no_policy = mjl_bool(L, t, "no_policy");
    op->limit = (uint32_t)mjl_int(L, t, "limit", 100, 0, UINT32_MAX);
    op->judge = mjl_bool(L, t, "judge");
    op->requests = (uint32_t)mjl_int(L, t, "requests", 0, 0, UINT32_MAX);
    op->elapsed_ms = mjl_ms(L, t, "elapsed_ms", 0);
    op->body = mjl_str(L, t, "body");
}

void mjl_read_op(lua_State *L, int t, mj_op *op, mj_task *task)
{
    op->kind = (mj_op_kind)named(L, mjl_str(L, t, "op"), "op", mj_op_name, MJ_NOPS);
    if (op->kind >= MJ_OP_EVENT_TAKE && op->kind <= MJ_OP_EVENT_BURY) {
        op->until = mjl_ms(L, t, "until", 0);
        read_event_op(L, t, op);
        return;
    }
    op->want = mjl_bool(L, t, "want");
    op->brief = op->want && mjl_bool(L, t, "brief");
    if (op->kind == MJ_OP_CLAIM) {
        read_claim(L, t, &op->sig);
        return;
    }
    if (!read_said(L, t, &op->sig))
        read_rare(L, t, op);
    read_signal(L, t, &op->sig);
    mjl_field(L, t, "ref");
    op->has_ref = !lua_isnil(L, -1);
    if (op->has_ref && !mjl_ref(L, -1, op->ref))
        luaL_error(L, "bad field 'ref'");
    lua_pop(L, 1);
    if (op->kind == MJ_OP_CREATE) {
        mjl_field(L, t, "task");
        luaL_checktype(L, -1, LUA_TTABLE);
        read_task(L, lua_gettop(L), task);
        lua_pop(L, 1);
        op->task = task;
    }
}

/* ---- results ---- */

static mj_str bytes_of(const mj_buf *b)
{
    return (mj_str){(const char *)b->p, (uint32_t)b->n};
}

/* An event as it was leased: the record is older. */
static int push_leased_event(lua_State *L, mj_str record, uint32_t tries, int64_t next_at)
{
    mj_event_record e;
    int rc = mj_event_decode(record, &e);

    if (rc == MJ_OK)
        rc = mjl_push_event(L, record);
    if (rc != MJ_OK)
        return rc;
    mjl_set_int(L, "tries", tries);
    mjl_set_int(L, "round", tries - e.before);
    mjl_set_int(L, "next_at", next_at);
    return MJ_OK;
}

static void push_leased(lua_State *L, const mj_op *op)
{
    if (push_leased_event(L, bytes_of(&op->event_bytes), op->event.tries, op->event.next_at) == MJ_OK)
        lua_setfield(L, -2, "event");
    if (op->raw)
        mjl_set_str(L, "event_record", bytes_of(&op->event_bytes));
}

/* core.leased(event_record, record, tries, next_at) -> event, task: what a lease's records are; nil: what can't be
 * read, and a task that is gone. */
static int core_leased(lua_State *L)
{
    mj_str event = mjl_arg_str(L, 1), record = mjl_arg_str(L, 2);
    uint32_t tries = (uint32_t)mjl_arg_int(L, 3, 0, UINT32_MAX);

    if (push_leased_event(L, event, tries, mjl_arg_ms(L, 4)) != MJ_OK)
        return 0;
    if (record.n == 0 || mjl_push_task(L, record) != MJ_OK)
        lua_pushnil(L);
    return 2;
}

static void push_pruned(lua_State *L, mj_str record)
{
    if (mjl_push_tomb(L, record) == MJ_OK)
        lua_setfield(L, -2, "task");
}

const char *mjl_code(int code)
{
    return code == MJ_OK ? "ok" : mj_error_name(code);
}

void mjl_push_result(lua_State *L, const mj_op *op)
{
    int rc;

    lua_createtable(L, 0, op->kind == MJ_OP_SIGNAL ? 2 : 4);
    mjl_set_lit(L, "code", mjl_code(op->code));
    if (op->made != MJ_EVENT_NONE)
        mjl_set_lit(L, "made", mj_event_name(op->made));
    if (op->kind == MJ_OP_TICK || op->kind >= MJ_OP_PRUNE)
        mjl_set_int(L, "done", op->done);
    if (op->kind == MJ_OP_SWEPT && op->verdict != MJ_VERDICT_SAME)
        mjl_set_lit(L, "verdict", op->verdict == MJ_VERDICT_BROKEN ? "broken" : "mended");
    if (op->kind == MJ_OP_EVENT_KICK)
        mjl_set_int(L, "seq", op->seq);
    if (op->kind == MJ_OP_CLAIM && op->rested) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, "rested");
    }
    if (op->more) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, "more");
        if (op->kind != MJ_OP_TICK)
            mjl_push_ref(L, op->next);
        else
            lua_pushnil(L);
        lua_setfield(L, -2, "next");
    }
    if (op->pruned)
        push_pruned(L, (mj_str){(const char *)op->tomb.p, (uint32_t)op->tomb.n});
    if (op->kind == MJ_OP_EVENT_TAKE && op->code == MJ_OK)
        push_leased(L, op);
    if (op->raw && op->code == MJ_OK) {
        mj_task t;
        rc = op->record.n > 0 ? mj_task_decode(op->record.p, op->record.n, &t) : MJ_OK;
        lua_pushlstring(L, (const char *)op->record.p, op->record.n);
        lua_setfield(L, -2, "record");
        if (rc != MJ_OK)
            mjl_set_lit(L, "code", mj_error_name(rc));
    } else if (op->record.n > 0) {
        bool brief = op->brief && op->code == MJ_OK;
        rc = brief ? mjl_push_sendable(L, bytes_of(&op->record)) : mjl_push_task(L, bytes_of(&op->record));
        if (rc == MJ_OK)
            lua_setfield(L, -2, "task");
        else
            mjl_set_lit(L, "code", mj_error_name(rc));
    }
}

void mjl_open_operation(lua_State *L)
{
    static const luaL_Reg functions[] = {{"leased", core_leased}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
