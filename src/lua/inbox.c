/* mjhook.core's inbox: callbacks, from the event loop to the thread that commits them. */
#include "thread/inbox.h"
#include "lua/core.h"
#include "provider/reader.h"

#include <string.h>

#define INBOX "mjhook.inbox"
enum { HEAD = MJ_ULID_BYTES + 1 }; /* of an item: ref and attempt */

typedef struct box {
    mj_inbox *inbox;
    mj_inbox_batch batch; /* the batch that was taken last */
    mj_buf scratch;       /* for reading the batch */
} box;

static box *check(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, INBOX);

    if (!b->inbox)
        luaL_error(L, "the inbox is closed");
    return b;
}

static int inbox_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, INBOX);

    mj_inbox_close(b->inbox);
    mj_buf_free(&b->batch.items);
    mj_buf_free(&b->scratch);
    memset(b, 0, sizeof *b);
    return 0;
}

/* inbox:put(ref, attempt, body) -> number of its batch, its own number in the batch | nil, err */
static int inbox_put(lua_State *L)
{
    box *b = check(L);
    uint8_t head[HEAD];
    size_t n;
    const char *body = luaL_checklstring(L, 4, &n);
    uint8_t attempt = (uint8_t)mjl_arg_int(L, 3, 1, MJ_MAX_ATTEMPTS);
    uint32_t index = 0;
    uint64_t batch;

    luaL_argcheck(L, mjl_ref(L, 2, head), 2, "not a ref");
    luaL_argcheck(L, n <= UINT32_MAX - sizeof head, 4, "too long");
    head[MJ_ULID_BYTES] = attempt;
    batch = mj_inbox_put(b->inbox, (mj_str){(const char *)head, sizeof head}, (mj_str){body, (uint32_t)n}, &index);
    if (batch == 0)
        return mjl_fail(L, MJ_ENOMEM, NULL);
    mjl_push_int(L, (int64_t)batch);
    mjl_push_int(L, index);
    return 2;
}

/* inbox:take() -> number of the batch, which store:write() takes from here | nil: there is none */
static int inbox_take(lua_State *L)
{
    box *b = check(L);

    if (!mj_inbox_take(b->inbox, &b->batch))
        return 0;
    mjl_push_int(L, (int64_t)b->batch.number);
    return 1;
}

/* inbox:enter(): waits until no other thread is between enter() and leave() of the inbox.  Not on an event loop. */
static int inbox_enter(lua_State *L)
{
    mj_inbox_enter(check(L)->inbox);
    return 0;
}

/* inbox:leave(): once, by the thread that has entered */
static int inbox_leave(lua_State *L)
{
    mj_inbox_leave(check(L)->inbox);
    return 0;
}

size_t mjl_batch_size(lua_State *L, int i)
{
    box *b = luaL_checkudata(L, i, INBOX);

    return b->batch.count;
}

/* An item as inbox_put() made it: ref, attempt, body. */
static mj_str read_item(mj_str item, mj_op *op)
{
    memset(op, 0, sizeof *op);
    op->kind = MJ_OP_SIGNAL;
    op->has_ref = true;
    memcpy(op->ref, item.p, MJ_ULID_BYTES);
    return (mj_str){item.p + HEAD, item.n - HEAD};
}

int mjl_batch_read(lua_State *L, int i, mj_op *ops, bool *readable, size_t *n)
{
    box *b = luaL_checkudata(L, i, INBOX);
    mj_reader r = mj_reader_of(b->batch.items.p, b->batch.items.n);
    char why[MJ_WIRE_WHY];

    lua_pushnil(L); /* until an item can't be read */
    b->scratch.n = 0;
    b->scratch.failed = false;
    *n = 0;
    if (!mj_buf_reserve(&b->scratch, mj_wire_room(b->batch.items.n)))
        return MJ_ENOMEM;
    for (uint32_t k = 0; k < b->batch.count; k++) {
        mj_str item = mj_get_str(&r), body = read_item(item, &ops[*n]);
        readable[k] = mj_wire_callback(&mj_midjourney, body, &b->scratch, &ops[*n].sig, why);
        if (readable[k]) {
            ops[*n].sig.source = MJ_FROM_CALLBACK;
            ops[*n].sig.attempt = (uint8_t)item.p[MJ_ULID_BYTES];
            ++*n;
            continue;
        }
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            lua_newtable(L);
        }
        lua_pushstring(L, why);
        lua_rawseti(L, -2, (int)k + 1);
    }
    return MJ_OK;
}

/* core.inbox(name) -> the inbox of that name in this process; without a name a private one.  Raises without memory. */
static int core_inbox(lua_State *L)
{
    size_t n = 0;
    const char *name = luaL_optlstring(L, 1, NULL, &n);
    box *b = lua_newuserdata(L, sizeof *b);

    memset(b, 0, sizeof *b);
    luaL_getmetatable(L, INBOX);
    lua_setmetatable(L, -2);
    b->inbox = mj_inbox_open(name, n);
    return b->inbox ? 1 : mjl_raise(L, MJ_ENOMEM, "an inbox");
}

void mjl_open_inbox(lua_State *L)
{
    static const luaL_Reg methods[] = {{"put", inbox_put},     {"take", inbox_take},   {"enter", inbox_enter},
                                       {"leave", inbox_leave}, {"close", inbox_close}, {NULL, NULL}};

    mjl_class(L, INBOX, methods);
    lua_pushcfunction(L, core_inbox);
    lua_setfield(L, -2, "inbox");
}
