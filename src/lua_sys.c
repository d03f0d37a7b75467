/* mjhook.core's few system calls that Lua has no door to. */
#include "lua_core.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK "mjhook.lock"

/* core.now() -> wall-clock milliseconds */
static int core_now(lua_State *L)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    lua_pushinteger(L, (lua_Integer)t.tv_sec * 1000 + (lua_Integer)(t.tv_nsec / 1000000));
    return 1;
}

typedef struct box {
    int fd;
} box;

static int lock_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, LOCK);

    if (b->fd >= 0)
        close(b->fd);
    b->fd = -1;
    return 0;
}

/* core.lock(path, mode) -> lock | nil, err ("busy" when somebody holds it).  flock: it dies with its owner. */
static int core_lock(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    mode_t mode = (mode_t)luaL_optinteger(L, 2, 0600);
    box *b = lua_newuserdata(L, sizeof *b);

    b->fd = -1;
    luaL_getmetatable(L, LOCK);
    lua_setmetatable(L, -2);
    b->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode);
    if (b->fd < 0) {
        lua_pushfstring(L, "%s: %s", path, strerror(errno));
        return mjl_fail(L, errno == ENOSPC ? MJ_ENOSPC : MJ_EREADONLY, lua_tostring(L, -1));
    }
    if (flock(b->fd, LOCK_EX | LOCK_NB) != 0)
        return mjl_fail(L, errno == EWOULDBLOCK ? MJ_EBUSY : MJ_EIO, NULL);
    return 1;
}

/* core.stat(path) -> {uid=, mode=, size=, type=} | nil, err; core.uid() -> effective user id */
static int core_stat(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct stat st;

    if (stat(path, &st) != 0) {
        lua_pushfstring(L, "%s: %s", path, strerror(errno));
        return mjl_fail(L, errno == ENOENT ? MJ_ENOTFOUND : MJ_EIO, lua_tostring(L, -1));
    }
    lua_createtable(L, 0, 4);
    mjl_set_int(L, "uid", st.st_uid);
    mjl_set_int(L, "mode", st.st_mode & 07777);
    mjl_set_int(L, "size", st.st_size);
    mjl_set_lit(L, "type", S_ISDIR(st.st_mode) ? "directory" : S_ISREG(st.st_mode) ? "file" : "other");
    return 1;
}

static int core_uid(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)geteuid());
    return 1;
}

static int core_isatty(lua_State *L)
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

/* core.sleep(seconds) */
static int core_sleep(lua_State *L)
{
    double s = luaL_checknumber(L, 1);
    struct timespec t;

    luaL_argcheck(L, s >= 0 && s < 1e9, 1, "out of range");
    t = (struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL); /* a signal cuts it short */
    return 0;
}

void mjl_open_sys(lua_State *L)
{
    static const luaL_Reg methods[] = {{"close", lock_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"now", core_now}, {"lock", core_lock},   {"stat", core_stat},
                                         {"uid", core_uid}, {"sleep", core_sleep}, {"isatty", core_isatty},
                                         {NULL, NULL}};

    mjl_class(L, LOCK, methods);
    luaL_setfuncs(L, functions, 0);
}
