/* mjhook.core's HTTP client: batches of requests as tables. */
#include "net/http.h"
#include "lua/core.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define HTTP "mjhook.http"
#define CALL "mjhook.http.call"
enum { MAX_HEADERS = 16 };

typedef struct box {
    mj_http *http;
} box;

typedef struct call { /* one perform(), freed whatever raises */
    size_t n;
    mj_http_request *reqs;
    mj_http_answer *answers;
    const char *(*headers)[MAX_HEADERS + 1];
} call;

static void clear_call(call *c)
{
    if (c->answers)
        mj_http_answer_clear(c->answers, c->n);
    free(c->answers);
    free(c->reqs);
    free(c->headers);
    memset(c, 0, sizeof *c);
}

static int call_close(lua_State *L)
{
    clear_call(luaL_checkudata(L, 1, CALL));
    return 0;
}

static int http_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, HTTP);

    mj_http_free(b->http);
    b->http = NULL;
    return 0;
}

static int timeout(lua_State *L, int t, const char *name)
{
    int64_t ms = mjl_ms(L, t, name, 0);

    if (ms < 0 || ms > INT_MAX)
        luaL_error(L, "bad field '%s' (milliseconds from 0 to %d expected)", name, INT_MAX);
    return (int)ms;
}

static void read_request(lua_State *L, int t, mj_http_request *r, const char **headers)
{
    mj_str url = mjl_str(L, t, "url"), body = mjl_str(L, t, "body");

    if (url.n == 0)
        luaL_error(L, "bad field 'url'");
    r->url = url.p;
    r->body = body.p;
    r->body_len = body.n;
    r->once = mjl_bool(L, t, "once");
    r->timeout_ms = timeout(L, t, "timeout_ms");
    r->start_by_ms = mjl_ms(L, t, "start_by_ms", 0);
    r->details = mjl_bool(L, t, "details");
    mjl_field(L, t, "headers");
    if (lua_istable(L, -1)) {
        for (int i = 0; i < MAX_HEADERS; i++) {
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

static void push_answer(lua_State *L, const mj_http_answer *a)
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

/* The answers, as http:perform gives them. */
static int push_answers(lua_State *L)
{
    const call *c = lua_touserdata(L, 1);

    lua_createtable(L, (int)c->n, 0);
    for (size_t i = 0; i < c->n; i++) {
        push_answer(L, &c->answers[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

/* http:perform({requests}, deadline_ms) -> {answers} | nil, err | nil.  With an error, and when it raises, nothing was
 * sent.  A lone nil: requests were sent, and memory ran out for the answers.
 *
 * request: url, headers (list of "Name: value"), body, once, timeout_ms, start_by_ms, details;
 * answer: outcome ("answered", "not_sent", "maybe_sent"), blocked, unread ("too_long" or "cut"), status, retry_after,
 * body, error, elapsed_ms, and with details: failure, ip, date, location, total_us, certs, cert_expires, issuer (see
 * net/http.h). */
static int http_perform(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, HTTP);
    int64_t deadline = lua_isnoneornil(L, 3) ? 0 : mjl_arg_ms(L, 3);
    size_t n;
    call *c;
    int push, rc;

    if (!b->http)
        return luaL_error(L, "the HTTP client is closed");
    luaL_checktype(L, 2, LUA_TTABLE);
    n = lua_rawlen(L, 2);
    c = lua_newuserdata(L, sizeof *c);
    memset(c, 0, sizeof *c);
    luaL_getmetatable(L, CALL);
    lua_setmetatable(L, -2);
    lua_pushcfunction(L, push_answers);
    push = lua_gettop(L);
    c->reqs = calloc(n + 1, sizeof *c->reqs);
    c->answers = calloc(n + 1, sizeof *c->answers);
    c->headers = calloc(n + 1, sizeof *c->headers);
    if (!c->reqs || !c->answers || !c->headers)
        return mjl_fail(L, MJ_ENOMEM, NULL);
    c->n = n;
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        read_request(L, lua_gettop(L), &c->reqs[i], c->headers[i]);
        lua_pop(L, 1);
    }
    rc = mj_http_perform(b->http, c->reqs, n, deadline, c->answers);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, NULL);
    for (int tries = 0;; tries++) { /* answers must not be lost: a job is billed by now */
        lua_settop(L, push);
        lua_pushvalue(L, push);
        lua_pushlightuserdata(L, c);
        rc = lua_pcall(L, 1, 1, 0);
        if (rc == LUA_OK || tries == 1)
            break;
        lua_gc(L, LUA_GCCOLLECT, 0);
    }
    clear_call(c);
    if (rc != LUA_OK)
        lua_pushnil(L);
    return 1;
}

/* core.http{connections=, connect_timeout_ms=, timeout_ms=, max_answer=, ca_file=, proxy=, insecure=} */
static int core_http(lua_State *L)
{
    mj_http_options o = {0};
    box *b;

    luaL_checktype(L, 1, LUA_TTABLE);
    o.connections = (int)mjl_int(L, 1, "connections", 0, 0, INT_MAX);
    o.connect_timeout_ms = timeout(L, 1, "connect_timeout_ms");
    o.timeout_ms = timeout(L, 1, "timeout_ms");
    o.max_answer = (size_t)mjl_int(L, 1, "max_answer", 0, 0, UINT32_MAX);
    o.insecure = mjl_bool(L, 1, "insecure");
    o.ca_file = mjl_str(L, 1, "ca_file").p;
    o.proxy = mjl_str(L, 1, "proxy").p;
    o.user_agent = "mjhook/" MJ_VERSION;
    if (!mjl_need_curl(L))
        return 2;
    b = lua_newuserdata(L, sizeof *b);
    b->http = NULL;
    luaL_getmetatable(L, HTTP);
    lua_setmetatable(L, -2);
    b->http = mj_http_new(&o);
    return b->http ? 1 : mjl_fail(L, MJ_ENOMEM, NULL);
}

/* core.clock() -> milliseconds that only go forward (CLOCK_BOOTTIME) */
static int core_clock(lua_State *L)
{
    mjl_push_int(L, mj_http_clock());
    return 1;
}

void mjl_open_http(lua_State *L)
{
    static const luaL_Reg methods[] = {{"perform", http_perform}, {"close", http_close}, {NULL, NULL}};
    static const luaL_Reg call_methods[] = {{"close", call_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"http", core_http}, {"clock", core_clock}, {NULL, NULL}};

    mjl_class(L, HTTP, methods);
    mjl_class(L, CALL, call_methods);
    luaL_setfuncs(L, functions, 0);
}
