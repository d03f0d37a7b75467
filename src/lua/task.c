/* Records as Lua tables. */
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
        lua_pushlstring(L, t->images[i].head.p, t->images[i].head.n);
        lua_pushlstring(L, t->images[i].tail.p, t->images[i].tail.n);
        lua_concat(L, 2);
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

/* {ref=, attempt=, account=, task ids...}: what a status request asks about attempt i, counted from 0.  There is room
 * for another field. */
static void push_asked(lua_State *L, const mj_task *t, unsigned i)
{
    const mj_attempt *a = &t->attempts[i];

    lua_createtable(L, (int)a->nids, 4);
    mjl_push_ref(L, t->ref);
    lua_setfield(L, -2, "ref");
    mjl_set_int(L, "attempt", i + 1);
    mjl_set_str(L, "account", a->account.n ? a->account : t->account);
    for (unsigned k = 0; k < a->nids; k++) {
        lua_pushlstring(L, a->ids[k].p, a->ids[k].n);
        lua_rawseti(L, -2, (int)k + 1);
    }
}

int mjl_push_brief(lua_State *L, mj_str record)
{
    const mj_timeline_entry *last;
    mj_task t;
    int rc = mj_task_decode(record.p, record.n, &t);

    if (rc != MJ_OK)
        return rc;
    luaL_checkstack(L, 8, "task");
    push_asked(L, &t, t.nattempts - 1);
    mjl_set_time(L, "updated_at", t.updated_at);
    last = last_poll(&t);
    if (last && last->signal == SIG_UNANSWERED)
        mjl_set_str(L, "unanswered", last->reason);
    lua_pushvalue(L, -1);
    for (unsigned i = t.nattempts - 1; i-- > 0;) /* each below the one before */
        if (t.attempts[i].slot && t.attempts[i].nids > 0) {
            push_asked(L, &t, i);
            lua_pushvalue(L, -1);
            lua_setfield(L, -3, "older");
            lua_replace(L, -2);
        }
    lua_pop(L, 1);
    return MJ_OK;
}

int mjl_push_sendable(lua_State *L, mj_str record)
{
    const mj_attempt *a;
    mj_task t;
    int rc = mj_task_decode(record.p, record.n, &t);

    if (rc != MJ_OK)
        return rc;
    a = mj_task_current(&t);
    luaL_checkstack(L, 4, "task");
    lua_createtable(L, 0, 8);
    mjl_push_ref(L, t.ref);
    lua_setfield(L, -2, "ref");
    mjl_set_lit(L, "state", mj_state_name(t.state));
    mjl_set_int(L, "attempt", t.nattempts);
    mjl_set_str(L, "account", a && a->account.n ? a->account : t.account);
    mjl_set_str(L, "prompt", t.prompt);
    mjl_set_lit(L, "mode", mj_mode_name(t.mode));
    mjl_set_int(L, "timeout", t.timeout);
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
