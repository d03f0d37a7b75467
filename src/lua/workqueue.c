/* mjhook.core's work queues: what a thread was given to do, and what is taken back from it. */
#include "thread/workqueue.h"
#include "lua/core.h"
#include "net/http.h"

#define QUEUE "mjhook.workqueue"

typedef struct queue {
    mj_workqueue *shared;
    mj_buf buf; /* pieces on the way in or out */
} queue;

static queue *check(lua_State *L)
{
    queue *q = luaL_checkudata(L, 1, QUEUE);

    if (!q->shared)
        luaL_error(L, "the work queue is closed");
    return q;
}

static int queue_close(lua_State *L)
{
    queue *q = luaL_checkudata(L, 1, QUEUE);

    mj_workqueue_close(q->shared);
    mj_buf_free(&q->buf);
    q->shared = NULL;
    return 0;
}

/* queue:fill{string, ...} -> true | nil, err.  Replaces what was in it. */
static int queue_fill(lua_State *L)
{
    queue *q = check(L);
    uint32_t count = 0;

    luaL_checktype(L, 2, LUA_TTABLE);
    q->buf.n = 0;
    q->buf.failed = false;
    for (;; count++) {
        size_t n;
        const char *p;
        lua_rawgeti(L, 2, (int)count + 1);
        if (lua_isnil(L, -1))
            break;
        p = luaL_checklstring(L, -1, &n);
        luaL_argcheck(L, n <= UINT32_MAX, 2, "too long");
        mj_put_str(&q->buf, (mj_str){p, (uint32_t)n});
        lua_pop(L, 1);
    }
    if (q->buf.failed)
        return mjl_fail(L, MJ_ENOMEM, NULL);
    mj_workqueue_fill(q->shared, &q->buf, count, mj_http_clock());
    lua_pushboolean(L, 1);
    return 1;
}

/* queue:begin() -> boolean: the next piece is begun, and can't be taken back */
static int queue_begin(lua_State *L)
{
    queue *q = check(L);

    lua_pushboolean(L, mj_workqueue_begin(q->shared, mj_http_clock()));
    return 1;
}

/* queue:take_back(ms) -> a list of the pieces that were not begun, if the one before them was begun longer ago */
static int queue_take_back(lua_State *L)
{
    queue *q = check(L);
    int64_t before = mj_http_clock() - mjl_arg_ms(L, 2);
    mj_reader r;
    uint32_t n;

    q->buf.n = 0;
    q->buf.failed = false;
    n = mj_workqueue_take_back(q->shared, before, &q->buf);
    r = mj_reader_of(q->buf.p, q->buf.n);
    lua_createtable(L, (int)n, 0);
    for (uint32_t i = 1; i <= n; i++) {
        mj_str piece = mj_get_str(&r);
        lua_pushlstring(L, piece.p, piece.n);
        lua_rawseti(L, -2, (int)i);
    }
    return 1;
}

/* core.workqueue(name) -> the queue of that name in this process.  Raises without memory. */
static int core_workqueue(lua_State *L)
{
    size_t n;
    const char *name = luaL_checklstring(L, 1, &n);
    queue *q = lua_newuserdata(L, sizeof *q);

    *q = (queue){0};
    luaL_getmetatable(L, QUEUE);
    lua_setmetatable(L, -2);
    q->shared = mj_workqueue_open(name, n);
    return q->shared ? 1 : mjl_raise(L, MJ_ENOMEM, "workqueue");
}

void mjl_open_workqueue(lua_State *L)
{
    static const luaL_Reg methods[] = {{"fill", queue_fill},
                                       {"begin", queue_begin},
                                       {"take_back", queue_take_back},
                                       {"close", queue_close},
                                       {NULL, NULL}};

    mjl_class(L, QUEUE, methods);
    lua_pushcfunction(L, core_workqueue);
    lua_setfield(L, -2, "workqueue");
}
