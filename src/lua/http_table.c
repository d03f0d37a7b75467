#include "lua/http_table.h"

#include <limits.h>
#include <string.h>

int mjl_http_timeout(lua_State *L, int t, const char *name)
{
    int64_t ms = mjl_ms(L, t, name, 0);

    if (ms < 0 || ms > INT_MAX)
        luaL_error(L, "bad field '%s' (milliseconds from 0 to %d expected)", name, INT_MAX);
    return (int)ms;
}

void mjl_read_request(lua_State *L, int t, mj_http_request *r, const char **headers)
{
    mj_str url = mjl_str(L, t, "url"), body = mjl_str(L, t, "body");

    if (url.n == 0)
        luaL_error(L, "bad field 'url'");
    r->url = url.p;
    r->body = body.p;
    r->body_len = body.n;
    r->once = mjl_bool(L, t, "once");
    r->timeout_ms = mjl_http_timeout(L, t, "timeout_ms");
    r->start_by_ms = mjl_ms(L, t, "start_by_ms", 0);
    r->details = mjl_bool(L, t, "details");
    r->ca_file = mjl_str(L, t, "ca_file").p;
    mjl_field(L, t, "headers");
    if (lua_istable(L, -1)) {
        for (int i = 0; i < MJL_MAX_HEADERS; i++) {
            lua_rawgeti(L, -1, i + 1);
            headers[i] = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
            lua_pop(L, 1);
            if (!headers[i])
                break;
        }
        r->headers = headers;
    }
    lua_pop(L, 1);
}

static void set_text(lua_State *L, const char *name, const char *s)
{
    if (s && s[0])
        mjl_set_lit(L, name, s);
}

static void push_details(lua_State *L, const mj_http_details *d)
{
    lua_createtable(L, 0, 8);
    set_text(L, "failure", d->failure);
    set_text(L, "ip", d->ip);
    set_text(L, "issuer", d->issuer);
    set_text(L, "location", d->location);
    mjl_set_time(L, "date", d->date);
    mjl_set_time(L, "cert_expires", d->cert_expires);
    mjl_set_int(L, "certs", d->certs);
    mjl_set_int(L, "total_us", d->total_us);
}

void mjl_push_answer(lua_State *L, const mj_http_answer *a)
{
    static const char *const outcomes[] = {"answered", "not_sent", "maybe_sent"};

    lua_createtable(L, 0, 6);
    mjl_set_lit(L, "outcome", outcomes[a->outcome]);
    if (a->status)
        mjl_set_int(L, "status", a->status);
    if (a->blocked) {
        lua_pushboolean(L, true);
        lua_setfield(L, -2, "blocked");
    }
    if (a->too_long || a->cut)
        mjl_set_lit(L, "unread", a->too_long ? "too_long" : "cut");
    if (a->retry_after >= 0)
        mjl_set_int(L, "retry_after", a->retry_after);
    if (a->body) {
        lua_pushlstring(L, a->body, a->body_len);
        lua_setfield(L, -2, "body");
    }
    if (a->error[0]) {
        mjl_push_redacted(L, MJ_REDACT_TEXT, a->error, strlen(a->error));
        lua_setfield(L, -2, "error");
    }
    mjl_set_int(L, "elapsed_ms", a->elapsed_ms);
    if (a->details) {
        push_details(L, a->details);
        lua_setfield(L, -2, "details");
    }
}
