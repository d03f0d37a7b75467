/* mjhook.core's connections to servers that speak no HTTP. */
#include "net/stream.h"
#include "lua/core.h"

#include <string.h>

#define STREAM "mjhook.stream"
enum { CHUNK = 16384 };

typedef struct box {
    mj_stream *stream;
} box;

static mj_stream *check(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, STREAM);

    if (!b->stream)
        luaL_error(L, "the stream is closed");
    return b->stream;
}

static int stream_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, STREAM);
    mj_stream *s = b->stream;

    b->stream = NULL;
    mj_stream_close(s);
    return 0;
}

/* stream:send(data, deadline_ms) -> true | nil, err */
static int stream_send(lua_State *L)
{
    mj_stream *s = check(L);
    size_t n;
    const char *data = luaL_checklstring(L, 2, &n);
    int rc = mj_stream_send(s, data, n, mjl_arg_ms(L, 3));

    if (rc != MJ_OK)
        return mjl_fail(L, rc, mj_stream_why(s));
    lua_pushboolean(L, 1);
    return 1;
}

/* stream:recv(deadline_ms) -> what has arrived, "" when nothing has by then | nil, err ("closed": by the other side) */
static int stream_recv(lua_State *L)
{
    mj_stream *s = check(L);
    char chunk[CHUNK];
    size_t got;
    int rc = mj_stream_recv(s, chunk, sizeof chunk, mjl_arg_ms(L, 2), &got);

    if (rc != MJ_OK)
        return mjl_fail(L, rc, mj_stream_why(s));
    lua_pushlstring(L, chunk, got);
    return 1;
}

/* core.stream{host=, port=, tls=, ca_file=, cert_file=, key_file=, deadline_ms=} -> stream | nil, err.  Deadlines are
 * times of core.clock(). */
static int core_stream(lua_State *L)
{
    char why[MJ_STREAM_WHY];
    mj_stream_target t = {0};
    int64_t deadline, port;
    box *b;
    int rc;

    luaL_checktype(L, 1, LUA_TTABLE);
    t.host = mjl_str(L, 1, "host").p;
    port = mjl_int(L, 1, "port", 0, -MJ_MAX_TIME, MJ_MAX_TIME);
    t.tls = mjl_bool(L, 1, "tls");
    t.ca_file = mjl_str(L, 1, "ca_file").p;
    t.cert_file = mjl_str(L, 1, "cert_file").p;
    t.key_file = mjl_str(L, 1, "key_file").p;
    deadline = mjl_ms(L, 1, "deadline_ms", 0);
    if (!t.host)
        return luaL_error(L, "bad field 'host'");
    t.port = port > 0 && port <= 65535 ? (int)port : 0;
    if (!mjl_need_curl(L))
        return 2;
    b = lua_newuserdata(L, sizeof *b);
    b->stream = NULL;
    luaL_getmetatable(L, STREAM);
    lua_setmetatable(L, -2);
    rc = mj_stream_open(&t, deadline, &b->stream, why);
    return rc == MJ_OK ? 1 : mjl_fail(L, rc, why);
}

void mjl_open_stream(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"send", stream_send}, {"recv", stream_recv}, {"close", stream_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"stream", core_stream}, {NULL, NULL}};

    mjl_class(L, STREAM, methods);
    luaL_setfuncs(L, functions, 0);
}
