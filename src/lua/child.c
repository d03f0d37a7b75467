/* mjhook.core's children: functions run in a process of their own, and programs. */
#include "net/http.h"
#include "os/command.h"
#include "os/libc.h"
#include "os/process.h"
#include "provider/profile.h"

#include "lua/core.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD "mjhook.child"
#define MJ_MAX_CHILDREN 64
#define MJ_MAX_WORDS 256 /* of a program's arguments or environment */

static int child_close(lua_State *L)
{
    mj_child *c = luaL_checkudata(L, 1, CHILD);
    int status;

    mj_child_end(c, &status);
    return 0;
}

static mj_child *own_child(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* tell(piece, message): the child's function has done this piece of its work, and may have something to say of it. */
static int tell(lua_State *L)
{
    unsigned piece = (unsigned)mjl_arg_int(L, 1, 0, MJ_CHILD_PIECES - 1);
    size_t n = 0;
    const char *p = luaL_optlstring(L, 2, NULL, &n);

    if (n > MJ_MAX_FRAME)
        return luaL_error(L, "message too long");
    if (!mj_child_tell(own_child(L), piece, (mj_str){p, (uint32_t)n}))
        _exit(1); /* the parent is gone */
    return 0;
}

/* claim() -> the number of the piece that the child's function begins, from 0, in order; nil: it begins no more. */
static int claim(lua_State *L)
{
    int piece = mj_child_begin(own_child(L), mj_http_clock());

    if (piece < 0)
        return 0;
    lua_pushinteger(L, piece);
    return 1;
}

/* at_hand(piece[, rested]): the child's function works on this piece; nil: on none, it waits for what is under way.
 * `rested`: the milliseconds that it has waited. */
static int at_hand(lua_State *L)
{
    int piece = lua_isnoneornil(L, 1) ? -1 : (int)mjl_arg_int(L, 1, 0, MJ_CHILD_PIECES - 1);

    mj_child_at_hand(own_child(L), piece, lua_isnoneornil(L, 2) ? 0 : mjl_arg_ms(L, 2));
    return 0;
}

/* more(known[, wait]) -> text: more work; the child's function knows of so many pieces so far.  false: not yet; with
 * `wait` it waits.  nil: there is none. */
static int more(lua_State *L)
{
    unsigned known = (unsigned)mjl_arg_int(L, 1, 0, INT32_MAX);
    bool wait = lua_toboolean(L, 2);
    mj_buf *b = mjl_buf(L);
    int rc = mj_child_more(own_child(L), known, wait, b);

    if (rc == 0)
        return 0;
    if (rc == 1)
        lua_pushlstring(L, (const char *)b->p, b->n);
    else
        lua_pushboolean(L, 0);
    mj_buf_free(b);
    return 1;
}

static void push_ending(lua_State *L, int status)
{
    lua_createtable(L, 0, 2);
    if (WIFSIGNALED(status)) {
        mjl_set_int(L, "signal", WTERMSIG(status));
        mjl_set_lit(L, "name", mj_unix_signal(WTERMSIG(status)));
    } else {
        mjl_set_int(L, "exit", WEXITSTATUS(status));
    }
}

/* core.fork(function(tell, claim, more, at_hand)) -> child | nil, err.  The function runs in a process of its own,
 * which ends with it; what it raises is lost.  Its work is begun piece by piece, each with claim().  Not from a process
 * whose threads hold locks that the function needs. */
static int core_fork(lua_State *L)
{
    mj_child *c;
    int rc;

    luaL_checktype(L, 1, LUA_TFUNCTION);
    c = lua_newuserdata(L, sizeof *c);
    *c = (mj_child){.fd = -1, .guard = {.fd = -1, .pidfd = -1}};
    luaL_getmetatable(L, CHILD);
    lua_setmetatable(L, -2);
    /* Everything that the call needs is made before the fork: code of the parent's would catch an error between fork
     * and call, and run in the child. */
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, tell, 1);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, claim, 1);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, more, 1);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, at_hand, 1);
    rc = mj_child_fork(c);
    if (rc == 0) {
        /* Submissions of a handler use the keys that were read from these variables; the programs that it starts do
         * not need them. */
        unsetenv(mj_midjourney.environment.api_key);
        unsetenv("MJHOOK_SECRET");
        mjl_forget_watch();
        rc = lua_pcall(L, 4, 0, 0);
        _exit(rc == LUA_OK ? 0 : 1); /* skips exit handlers: they belong to the parent */
    }
    if (rc < 0) {
        lua_pushfstring(L, "no process can be started: %s", strerror(errno));
        return mjl_fail(L, MJ_EBUSY, lua_tostring(L, -1));
    }
    lua_settop(L, 2);
    return 1;
}

/* child:hear() -> piece, message: one that is done, by its number, and what the child says of it, if anything; nil:
 * none is done yet; nil, known: the child wants more work, and had got so many pieces by then; false: it has ended */
static int child_hear(lua_State *L)
{
    mj_child *c = luaL_checkudata(L, 1, CHILD);
    unsigned piece;
    mj_str message;
    int rc = mj_child_hear(c, &piece, &message);

    if (rc < 0) {
        lua_pushboolean(L, 0);
        return 1;
    }
    if (rc == 1)
        lua_pushinteger(L, (lua_Integer)piece);
    else
        lua_pushnil(L);
    if (rc == 2)
        lua_pushinteger(L, (lua_Integer)piece);
    else if (rc == 1 && message.p)
        lua_pushlstring(L, message.p, message.n);
    else
        lua_pushnil(L);
    return 2;
}

/* child:give(work) -> boolean: hands a text to a child that wants more work; false: it does not take it */
static int child_give(lua_State *L)
{
    mj_child *c = luaL_checkudata(L, 1, CHILD);

    lua_pushboolean(L, mj_child_give(c, mjl_arg_str(L, 2)));
    return 1;
}

/* child:look() -> how many pieces the child has begun; the one that it works on, or nil; the time of core.clock() at
 * which it began the newest, 0: none; the milliseconds that it has waited for what is under way */
static int child_look(lua_State *L)
{
    mj_child_view v = mj_child_look(luaL_checkudata(L, 1, CHILD));

    lua_pushinteger(L, (lua_Integer)v.begun);
    if (v.at_hand >= 0)
        lua_pushinteger(L, v.at_hand);
    else
        lua_pushnil(L);
    mjl_push_int(L, v.at);
    mjl_push_int(L, v.rested);
    return 4;
}

/* child:since(piece) -> the time of core.clock() at which it was begun */
static int child_since(lua_State *L)
{
    const mj_child *c = luaL_checkudata(L, 1, CHILD);

    mjl_push_int(L, mj_child_since(c, (unsigned)mjl_arg_int(L, 2, 0, MJ_CHILD_PIECES - 1)));
    return 1;
}

/* child:take_back() -> how many pieces of its work the child has begun; it begins no more */
static int child_take_back(lua_State *L)
{
    mj_child *c = luaL_checkudata(L, 1, CHILD);

    mjl_push_int(L, (int64_t)mj_child_take_back(c));
    return 1;
}

/* child:forbid() -> boolean: false while the child sends or stores; true: it can't begin that any more, and may be
 * stopped */
static int child_forbid(lua_State *L)
{
    lua_pushboolean(L, mj_child_forbid(luaL_checkudata(L, 1, CHILD)));
    return 1;
}

/* child:stop() -> {exit=} or {signal=, name=}: kills the child and its descendants if they still run */
static int child_stop(lua_State *L)
{
    mj_child *c = luaL_checkudata(L, 1, CHILD);
    int status;

    mj_child_end(c, &status);
    push_ending(L, status);
    return 1;
}

/* core.await({children}, ms): waits until one of them has a message, at most that long. */
static int core_await(lua_State *L)
{
    struct pollfd p[MJ_MAX_CHILDREN];
    int64_t ms = mjl_arg_ms(L, 2);
    nfds_t n = 0;

    luaL_checktype(L, 1, LUA_TTABLE);
    for (int i = 1; n < MJ_MAX_CHILDREN; i++) {
        mj_child *c;
        lua_rawgeti(L, 1, i);
        if (lua_isnil(L, -1))
            break;
        c = luaL_checkudata(L, -1, CHILD);
        p[n++] = (struct pollfd){.fd = c->fd, .events = POLLIN};
        lua_pop(L, 1);
    }
    poll(p, n, ms < 0 ? 0 : ms > 60000 ? 60000 : (int)ms + 1); /* a signal ends it early, which does no harm */
    return 0;
}

/* The strings of list `name` of the table at 1, as an array on top of the stack.  They stay alive in their table. */
static char **words(lua_State *L, const char *name)
{
    char **out = lua_newuserdata(L, (MJ_MAX_WORDS + 1) * sizeof *out);
    int n = 0;

    mjl_field(L, 1, name);
    for (; lua_istable(L, -1) && n < MJ_MAX_WORDS; n++) {
        lua_rawgeti(L, -1, n + 1);
        if (lua_type(L, -1) != LUA_TSTRING) {
            lua_pop(L, 1);
            break;
        }
        out[n] = (char *)(uintptr_t)lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    out[n] = NULL;
    lua_pop(L, 1);
    return out;
}

/* core.run{argv={path, ...}, env={"NAME=value", ...}, input=, timeout_ms=, background=}
 * -> {exit=} or {signal=, name=}, with timed_out= and said= (the end of its standard error) | nil, err */
static int core_run(lua_State *L)
{
    mj_command c = {0};
    mj_ended ended;
    int rc;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    c.input = mjl_str(L, 1, "input");
    c.timeout_ms = mjl_ms(L, 1, "timeout_ms", 60000);
    c.background = mjl_bool(L, 1, "background");
    c.argv = words(L, "argv");
    c.envp = words(L, "env");
    rc = c.argv[0] ? mj_command_run(&c, &ended) : EINVAL;
    if (rc != 0) {
        lua_pushfstring(L, "%s: %s", c.argv[0] ? c.argv[0] : "?", strerror(rc));
        return mjl_fail(L, rc == ENOENT ? MJ_ENOTFOUND : rc == ENOMEM ? MJ_ENOMEM : MJ_EIO, lua_tostring(L, -1));
    }
    push_ending(L, ended.status);
    lua_pushboolean(L, ended.timed_out);
    lua_setfield(L, -2, "timed_out");
    mjl_set_lit(L, "said", ended.said);
    return 1;
}

/* core.exec{path, ...} -> nil, err: otherwise this process is another program from now on. */
static int core_exec(lua_State *L)
{
    const char **argv;
    int n, rc;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    n = (int)lua_rawlen(L, 1);
    argv = lua_newuserdata(L, (size_t)(n + 1) * sizeof *argv);
    for (int i = 0; i < n; i++) {
        lua_rawgeti(L, 1, i + 1);
        argv[i] = lua_tostring(L, -1);
        luaL_argcheck(L, argv[i], 1, "a list of words expected");
        lua_pop(L, 1); /* the table keeps it */
    }
    argv[n] = NULL;
    if (!argv[0])
        return luaL_argerror(L, 1, "a program expected");
    fflush(NULL);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    rc = errno;
    lua_pushfstring(L, "%s: %s", argv[0], strerror(rc));
    return mjl_fail(L, rc == ENOENT ? MJ_ENOTFOUND : MJ_EIO, lua_tostring(L, -1));
}

void mjl_open_child(lua_State *L)
{
    static const luaL_Reg methods[] = {{"hear", child_hear}, {"look", child_look},           {"since", child_since},
                                       {"give", child_give}, {"take_back", child_take_back}, {"forbid", child_forbid},
                                       {"stop", child_stop}, {"close", child_close},         {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"fork", core_fork}, {"await", core_await}, {"run", core_run}, {"exec", core_exec}, {NULL, NULL}};

    mjl_class(L, CHILD, methods);
    luaL_setfuncs(L, functions, 0);
}
