/* mjhook.core's store: copying it to another one. */
#include "lua/store.h"
#include "store/copy.h"

enum { STEP = 1000 }; /* records between two calls of `progress` */

static void push_copy(lua_State *L, const mj_copy *c)
{
    lua_createtable(L, 0, 5);
    mjl_set_int(L, "looked", (int64_t)c->looked);
    mjl_set_int(L, "written", (int64_t)c->written);
    mjl_set_int(L, "removed", (int64_t)c->removed);
    mjl_set_int(L, "damaged", (int64_t)c->damaged);
    lua_pushboolean(L, c->verifying);
    lua_setfield(L, -2, "verifying");
}

/* store:copy(to, {finish=, from=, to=}, progress) -> {looked=, written=, removed=, damaged=, verifying=} | nil, err.
 * from, to: names of the stores for people, without a password.  progress(so_far) is called between two transactions.
 * See mj_copy_step(). */
static int store_copy(lua_State *L)
{
    mj_copy c = {.from = mjl_store_at(L, 1), .to = mjl_store_at(L, 2)};
    int rc = MJ_OK;

    luaL_checktype(L, 3, LUA_TTABLE);
    luaL_argcheck(L, c.from != c.to, 2, "another store expected");
    c.finish = mjl_bool(L, 3, "finish");
    mjl_field(L, 3, "from");
    c.from_name = luaL_checkstring(L, -1); /* the table keeps both */
    mjl_field(L, 3, "to");
    c.to_name = luaL_checkstring(L, -1);
    while (rc == MJ_OK && !c.done) {
        rc = mj_copy_step(&c, STEP);
        if (rc == MJ_OK && lua_isfunction(L, 4)) {
            lua_pushvalue(L, 4);
            push_copy(L, &c);
            lua_call(L, 1, 0);
        }
    }
    if (rc != MJ_OK) {
        const char *detail = mj_copy_detail(&c);
        if (detail[0]) {
            lua_pushfstring(L, "%s: %s", mj_error_text(rc), detail);
            return mjl_fail(L, rc, lua_tostring(L, -1));
        }
        return mjl_fail(L, rc, NULL);
    }
    push_copy(L, &c);
    return 1;
}

/* store:cancel_copy() -> true | nil, err: see mj_copy_cancel(). */
static int store_cancel_copy(lua_State *L)
{
    mj_store *s = mjl_store(L);
    int rc = mj_copy_cancel(s);

    if (rc != MJ_OK)
        return mjl_store_fail(L, s, rc);
    lua_pushboolean(L, 1);
    return 1;
}

void mjl_open_store_copy(lua_State *L)
{
    static const luaL_Reg methods[] = {{"copy", store_copy}, {"cancel_copy", store_cancel_copy}, {NULL, NULL}};

    mjl_store_methods(L, methods);
}
