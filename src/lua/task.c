/* Records, operations and their results as Lua tables. */
#include "lua/core.h"

#include <string.h>

static void push_attempts(lua_State *L, const mj_task *t)
{
    lua_createtable(L, (int)t->nattempts, 0);
    for (unsigned i = 0; i < t->nattempts; i++) {
        const mj_attempt *a = &t->attempts[i];
        lua_createtable(L, 0, 7);
        mjl_set_int(L, "attempt", i + 1);
        mjl_set_lit(L, "word", mj_attempt_status_name(a->status));
        mjl_set_str(L, "account", a->account);
        mjl_set_time(L, "submitted_at", a->submitted_at);
        if (a->slot)
            mjl_set_int(L, "slot_until", a->slot_until);
        if (a->nids > 0) {
            mjl_set_str(L, "task_id", a->ids[0]);
            lua_createtable(L, (int)a->nids, 0);
            for (unsigned k = 0; k < a->nids; k++) {
                lua_pushlstring(L, a->ids[k].p, a->ids[k].n);
                lua_rawseti(L, -2, (int)k + 1);
            }
            lua_setfield(L, -2, "task_ids");
        }
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "attempts");
}

static void push_timeline(lua_State *L, const mj_task *t)
{
    lua_createtable(L, (int)t->ntimeline, 0);
    for (unsigned i = 0; i < t->ntimeline; i++) {
        const mj_timeline_entry *m = &t->timeline[i];
        lua_createtable(L, 0, 9);
        mjl_set_int(L, "at", m->at);
        mjl_set_lit(L, "signal", mj_signal_name(m->signal));
        mjl_set_lit(L, "note", mj_result_name(m->result));
        mjl_set_lit(L, "source", mj_source_name(m->source));
        mjl_set_lit(L, "from", mj_state_name(m->from));
        mjl_set_lit(L, "to", mj_state_name(m->to));
        mjl_set_int(L, "attempt", m->attempt);
        mjl_set_str(L, "reason", m->reason);
        if (m->count > 1) {
            mjl_set_int(L, "count", m->count);
            mjl_set_int(L, "until", m->until);
        }
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "timeline");
    if (t->forgotten)
        mjl_set_int(L, "timeline_dropped", t->forgotten);
}

static void push_images(lua_State *L, const mj_task *t)
{
    lua_createtable(L, (int)t->nimages, 0);
    for (unsigned i = 0; i < t->nimages; i++) {
        lua_pushlstring(L, t->images[i].p, t->images[i].n);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "images");
}

/* Of a process of another boot: the boot's id, as hexadecimal digits.  It may run on another host of the store; only
 * the store's heartbeats tell (store:host()). */
static bool push_other_boot(lua_State *L, const mj_owner *o)
{
    static const char digits[] = "0123456789abcdef";
    char hex[2 * sizeof o->boot];
    mj_owner self;

    if (mj_owner_self(&self) != MJ_OK || memcmp(self.boot, o->boot, sizeof o->boot) == 0)
        return false;
    for (size_t i = 0; i < sizeof o->boot; i++) {
        hex[2 * i] = digits[o->boot[i] >> 4];
        hex[2 * i + 1] = digits[o->boot[i] & 15];
    }
    lua_pushlstring(L, hex, sizeof hex);
    return true;
}

static void set_owner(lua_State *L, const mj_owner *o)
{
    mj_owner_state state = mj_owner_look(o);

    if (state == MJ_OWNER_DEAD && push_other_boot(L, o)) {
        lua_setfield(L, -2, "owner_boot");
        state = MJ_OWNER_FOREIGN;
    }
    mjl_set_lit(L, "owner", state == MJ_OWNER_ALIVE ? "alive" : state == MJ_OWNER_DEAD ? "dead" : "foreign");
}

/* The timeline's last entry that a poll made; NULL: there is none. */
static const mj_timeline_entry *last_poll(const mj_task *t)
{
    unsigned n = t->ntimeline;

    while (n > 0 && t->timeline[n - 1].source != MJ_FROM_POLL)
        n--;
    return n > 0 ? &t->timeline[n - 1] : NULL;
}

int mjl_push_brief(lua_State *L, mj_str record)
{
    const mj_timeline_entry *last;
    mj_task t;
    int rc = mj_task_decode(record.p, record.n, &t);

    if (rc != MJ_OK)
        return rc;
    luaL_checkstack(L, 8, "task");
    lua_createtable(L, 0, 6);
    mjl_push_ref(L, t.ref);
    lua_setfield(L, -2, "ref");
    mjl_set_str(L, "account", t.account);
    mjl_set_time(L, "updated_at", t.updated_at);
    last = last_poll(&t);
    if (last && last->signal == SIG_UNANSWERED)
        mjl_set_str(L, "unanswered", last->reason);
    push_attempts(L, &t);
    return MJ_OK;
}

void mjl_push_view(lua_State *L, mj_task *t)
{
    const mj_attempt *a = mj_task_current(t);

    luaL_checkstack(L, 8, "task");
    lua_createtable(L, 0, 32);
    mjl_push_ref(L, t->ref);
    lua_setfield(L, -2, "ref");
    mjl_set_lit(L, "state", mj_state_name(t->state));
    mjl_set_int(L, "attempt", t->nattempts);
    if (a->nids > 0)
        mjl_set_str(L, "task_id", a->ids[0]);
    mjl_set_str(L, "account", a->account.n ? a->account : t->account);
    mjl_set_time(L, "submitted_at", a->submitted_at);
    mjl_set_lit(L, "mode", mj_mode_name(t->mode));
    mjl_set_int(L, "timeout", t->timeout);
    mjl_set_int(L, "priority", t->priority);
    mjl_set_int(L, "polls", t->polls);
    mjl_set_str(L, "prompt", t->prompt);
    mjl_set_str(L, "mj_prompt", t->mj_prompt);
    mjl_set_str(L, "user_id", t->user_id);
    mjl_set_str(L, "context", t->context);
    mjl_set_str(L, "key", t->key);
    mjl_set_str(L, "image", t->image);
    mjl_set_str(L, "meta", t->meta);
    mjl_set_str(L, "files", t->files);
    mjl_set_time(L, "created_at", t->created_at);
    mjl_set_time(L, "updated_at", t->updated_at);
    mjl_set_time(L, "finished_at", t->finished_at);
    mjl_set_time(L, "due_at", t->due_at);
    mjl_set_time(L, "called_at", t->called_at);
    mjl_set_time(L, "expires_at", t->expires_at);
    if (mj_state_final(t->state))
        mjl_set_lit(L, "source", mj_source_name(t->source));
    if (t->late) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, "late");
    }
    if (t->tries)
        mjl_set_int(L, "tries", t->tries);
    if (t->has_owner)
        set_owner(L, &t->owner);
    if (t->error.n || t->error_code.n) {
        mjl_fail(L, MJ_EIO, NULL); /* the shape of every error */
        lua_remove(L, -2);
        mjl_set_lit(L, "code", "provider");
        mjl_set_str(L, "code", t->error_code);
        mjl_set_lit(L, "message", "");
        mjl_set_str(L, "message", t->error);
        lua_pushboolean(L, t->state == MJ_QUEUED);
        lua_setfield(L, -2, "retryable");
        lua_setfield(L, -2, "error");
    }
    push_images(L, t);
    push_attempts(L, t);
    push_timeline(L, t);
}

int mjl_push_task(lua_State *L, mj_str record)
{
    mj_task t;
    int rc = mj_task_decode(record.p, record.n, &t);

    if (rc == MJ_OK)
        mjl_push_view(L, &t);
    return rc;
}

int mjl_push_event(lua_State *L, mj_str record)
{
    mj_event_record e;
    int rc = mj_event_decode(record, &e);

    if (rc != MJ_OK)
        return rc;
    lua_createtable(L, 0, 13);
    mjl_push_ref(L, e.ref);
    lua_pushfstring(L, "%s-%d", lua_tostring(L, -1), (int)e.seq);
    lua_setfield(L, -3, "event_id");
    lua_setfield(L, -2, "ref");
    mjl_set_int(L, "seq", e.seq);
    mjl_set_lit(L, "type", mj_event_name(e.type));
    mjl_set_int(L, "attempt", e.attempt);
    mjl_set_int(L, "tries", e.tries);
    mjl_set_int(L, "round", e.tries - e.before);
    mjl_set_int(L, "failed", e.failed);
    mjl_set_int(L, "created_at", e.created_at);
    mjl_set_int(L, "next_at", e.next_at);
    lua_pushboolean(L, e.late);
    lua_setfield(L, -2, "late");
    lua_pushboolean(L, e.buried);
    lua_setfield(L, -2, "buried");
    lua_pushboolean(L, e.leased);
    lua_setfield(L, -2, "leased");
    lua_createtable(L, (int)e.nerrors, 0);
    for (unsigned i = 0; i < e.nerrors; i++) {
        lua_createtable(L, 0, 2);
        mjl_set_int(L, "at", e.errors[i].at);
        mjl_set_str(L, "message", e.errors[i].text);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "errors");
    return MJ_OK;
}

/* ---- operations ---- */

unsigned mjl_find(mj_str given, const char *(*name)(unsigned), unsigned count)
{
    unsigned i = 0;

    while (i < count && (strncmp(name(i), given.p, given.n) != 0 || name(i)[given.n] != '\0'))
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

static void read_signal(lua_State *L, int t, mj_signal *sig)
{
    mj_str kind = mjl_str(L, t, "kind"), source = mjl_str(L, t, "source"), expect = mjl_str(L, t, "expect");

    sig->kind = kind.n ? (mj_signal_kind)named(L, kind, "kind", mj_signal_name, SIG_COUNT) : SIG_CREATE;
    sig->source = source.n ? (mj_source)named(L, source, "source", mj_source_name, MJ_NSOURCES) : MJ_FROM_USER;
    sig->expect_state = expect.n ? mj_state_parse(expect) : -1;
    if (expect.n && sig->expect_state < 0)
        luaL_error(L, "bad field 'expect'");
    sig->attempt = (uint32_t)mjl_int(L, t, "attempt", 0, 0, UINT32_MAX);
    sig->wait_ms = mjl_ms(L, t, "wait_ms", -1);
    sig->counts = mjl_bool(L, t, "counts");
    sig->task_id = mjl_str(L, t, "task_id");
    if (sig->task_id.n > MJ_MAX_TASK_ID)
        luaL_error(L, "field 'task_id' is too long");
    sig->account = mjl_str(L, t, "account");
    sig->error_code = mjl_str(L, t, "error_code");
    sig->error = mjl_str(L, t, "error");
    sig->remark = mjl_str(L, t, "remark");
    sig->image = mjl_str(L, t, "image");
    sig->mj_prompt = mjl_str(L, t, "mj_prompt");
    sig->meta = mjl_str(L, t, "meta");
    sig->nimages = read_images(L, t, sig->images);
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
    if (op->kind == MJ_OP_EVENT_TAKE)
        return;
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

void mjl_read_op(lua_State *L, int t, mj_op *op, mj_task *task)
{
    op->kind = (mj_op_kind)named(L, mjl_str(L, t, "op"), "op", mj_op_name, MJ_NOPS);
    if (op->kind >= MJ_OP_EVENT_TAKE && op->kind <= MJ_OP_EVENT_BURY) {
        op->until = mjl_ms(L, t, "until", 0);
        read_event_op(L, t, op);
        return;
    }
    op->want = mjl_bool(L, t, "want");
    op->no_policy = mjl_bool(L, t, "no_policy");
    op->limit = (uint32_t)mjl_int(L, t, "limit", 100, 0, UINT32_MAX);
    op->until = mjl_ms(L, t, "until", 0);
    op->judge = mjl_bool(L, t, "judge");
    op->requests = (uint32_t)mjl_int(L, t, "requests", 0, 0, UINT32_MAX);
    op->elapsed_ms = mjl_ms(L, t, "elapsed_ms", 0);
    op->body = mjl_str(L, t, "body");
    op->intake = limited(L, t, "intake", MJ_MAX_NAME);
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
    } else if (op->kind == MJ_OP_CLAIM) {
        op->sig.has_owner = true;
        mj_owner_self(&op->sig.owner);
    }
}

/* Inverse of mj_event_decode's input for a leased event: its fields are in op->event. */
static void push_leased(lua_State *L, const mj_op *op)
{
    const mj_event_record *e = &op->event;

    if (mjl_push_event(L, (mj_str){(const char *)op->event_bytes.p, (uint32_t)op->event_bytes.n}) != MJ_OK)
        return;
    mjl_set_int(L, "tries", e->tries); /* as leased; the bytes are older */
    mjl_set_int(L, "round", e->tries - e->before);
    mjl_set_int(L, "next_at", e->next_at);
    lua_setfield(L, -2, "event");
}

int mjl_push_tomb(lua_State *L, mj_str record)
{
    mj_tomb t;
    int rc = mj_tomb_decode(record, &t);

    if (rc != MJ_OK)
        return rc;
    lua_createtable(L, 0, 9);
    mjl_push_ref(L, t.ref);
    lua_setfield(L, -2, "ref");
    mjl_set_lit(L, "state", mj_state_name(t.state));
    mjl_set_str(L, "key", t.key);
    mjl_set_time(L, "created_at", t.created_at);
    mjl_set_time(L, "finished_at", t.finished_at);
    mjl_set_time(L, "pruned_at", t.pruned_at);
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "pruned");
    if (t.nids > 0)
        mjl_set_str(L, "task_id", t.ids[0]);
    lua_createtable(L, (int)t.nids, 0);
    for (unsigned i = 0; i < t.nids; i++) {
        lua_pushlstring(L, t.ids[i].p, t.ids[i].n);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "task_ids");
    return MJ_OK;
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

    lua_createtable(L, 0, 4);
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
    if (op->record.n > 0) {
        rc = mjl_push_task(L, (mj_str){(const char *)op->record.p, (uint32_t)op->record.n});
        if (rc == MJ_OK)
            lua_setfield(L, -2, "task");
        else
            mjl_set_lit(L, "code", mj_error_name(rc));
    }
}
