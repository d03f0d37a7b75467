/* mjhook.core's whole files: os/file.h tells what is refused, and why. */
#include "os/file.h"
#include "lua/core.h"

enum { MOST = 16 * 1024 * 1024 }; /* bytes of a file, unless the caller names a bound */

static int outcome(lua_State *L, int rc, const char *why)
{
    if (rc != MJ_OK)
        return mjl_fail(L, rc, why);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.read_file(path, "code" or "secret", most = 16 MiB) -> text | nil, err.  For files that decide something. */
static int read_file(lua_State *L)
{
    static const char *const kinds[] = {"code", "secret", NULL};
    static const mj_file_kind as[] = {MJ_FILE_CODE, MJ_FILE_SECRET};
    const char *path = luaL_checkstring(L, 1);
    mj_file_kind kind = as[luaL_checkoption(L, 2, NULL, kinds)];
    lua_Integer most = luaL_optinteger(L, 3, MOST);
    char why[MJ_FILE_WHY];
    mj_buf *content;
    int rc;

    luaL_argcheck(L, most >= 0, 3, "out of range");
    content = mjl_buf(L);
    rc = mj_file_read(path, kind, (size_t)most, content, why);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, why);
    lua_pushlstring(L, content->n ? (const char *)content->p : "", content->n);
    mj_buf_free(content);
    return 1;
}

typedef int write_fn(const char *path, const void *p, size_t n, unsigned mode, char why[MJ_FILE_WHY]);

static int put_file(lua_State *L, write_fn *put)
{
    const char *path = luaL_checkstring(L, 1);
    size_t n;
    const char *text = luaL_checklstring(L, 2, &n);
    lua_Integer mode = luaL_checkinteger(L, 3);
    char why[MJ_FILE_WHY];

    luaL_argcheck(L, mode >= 0 && mode <= 0777, 3, "not a mode");
    return outcome(L, put(path, text, n, (unsigned)mode, why), why);
}

/* core.write_file(path, text, mode) -> true | nil, err: replaces the file as a whole, durably. */
static int write_file(lua_State *L)
{
    return put_file(L, mj_file_write);
}

/* core.append_file(path, text, mode of a new file) -> true | nil, err: in one write. */
static int append_file(lua_State *L)
{
    return put_file(L, mj_file_append);
}

void mjl_open_file(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"read_file", read_file}, {"write_file", write_file}, {"append_file", append_file}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
