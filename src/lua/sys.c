/* mjhook.core's system calls that Lua does not have. */
#include "lua/core.h"
#include "net/http.h"
#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* core.now() -> wall-clock milliseconds */
static int core_now(lua_State *L)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    mjl_push_int(L, (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000);
    return 1;
}

/* core.cwd() -> the working directory's absolute name; nil, err when it is gone */
static int core_cwd(lua_State *L)
{
    char path[PATH_MAX];

    if (!getcwd(path, sizeof path) || path[0] != '/')
        return mjl_fail(L, MJ_ENOTFOUND, "the working directory");
    lua_pushstring(L, path);
    return 1;
}

/* core.realpath(path) -> its absolute name without links | nil, err */
static int core_realpath(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    char *real = realpath(path, NULL);

    if (!real) {
        lua_pushfstring(L, "%s: %s", path, strerror(errno));
        return mjl_fail(L, errno == ENOENT ? MJ_ENOTFOUND : MJ_EIO, lua_tostring(L, -1));
    }
    lua_pushstring(L, real);
    free(real);
    return 1;
}

/* core.environment() -> {NAME = value} of this process */
static int core_environment(lua_State *L)
{
    lua_newtable(L);
    for (char **at = environ; at && *at; at++) {
        const char *equals = strchr(*at, '=');
        if (!equals)
            continue;
        lua_pushlstring(L, *at, (size_t)(equals - *at));
        lua_pushstring(L, equals + 1);
        lua_rawset(L, -3);
    }
    return 1;
}

/* core.stat(path) -> {uid=, inode=, mode=, size=, mtime= (ms, with a fraction), type=} | nil, err;
 * core.uid() -> effective user id */
static int core_stat(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct stat st;

    if (stat(path, &st) != 0) {
        lua_pushfstring(L, "%s: %s", path, strerror(errno));
        return mjl_fail(L, errno == ENOENT ? MJ_ENOTFOUND : MJ_EIO, lua_tostring(L, -1));
    }
    lua_createtable(L, 0, 6);
    mjl_set_int(L, "uid", st.st_uid);
    mjl_set_int(L, "inode", (int64_t)st.st_ino);
    lua_pushnumber(L, (lua_Number)st.st_mtim.tv_sec * 1000 + (lua_Number)st.st_mtim.tv_nsec / 1000000);
    lua_setfield(L, -2, "mtime");
    mjl_set_int(L, "mode", st.st_mode & 07777);
    mjl_set_int(L, "size", st.st_size);
    mjl_set_lit(L, "type", S_ISDIR(st.st_mode) ? "directory" : S_ISREG(st.st_mode) ? "file" : "other");
    return 1;
}

/* core.begin_program(): programs call it first; see os/fd.h */
static int core_begin_program(lua_State *L)
{
    (void)L;
    mj_fd_fill_standard();
    mj_fd_outlive_limit();
    return 0;
}

/* core.columns() -> the width of this process' terminal; nil: there is none */
static int core_columns(lua_State *L)
{
    struct winsize size = {0};
    int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);

    if (fd >= 0) {
        (void)!ioctl(fd, TIOCGWINSZ, &size);
        close(fd);
    }
    if (size.ws_col == 0)
        return 0;
    lua_pushinteger(L, size.ws_col);
    return 1;
}

static int core_uid(lua_State *L)
{
    mjl_push_int(L, geteuid());
    return 1;
}

static int core_isatty(lua_State *L)
{
    lua_pushboolean(L, isatty((int)mjl_arg_int(L, 1, 0, INT_MAX)));
    return 1;
}

/* core.sleep(seconds) */
static int core_sleep(lua_State *L)
{
    double s = luaL_checknumber(L, 1);
    struct timespec t;

    luaL_argcheck(L, s >= 0 && s < 1e9, 1, "out of range");
    t = (struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL); /* a signal ends it early */
    return 0;
}

/* core.disk(path) -> {free=, total=} (bytes; free: for us, not for root) | nil, err */
static int core_disk(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct statvfs st;

    if (statvfs(path, &st) != 0) {
        lua_pushfstring(L, "%s: %s", path, strerror(errno));
        return mjl_fail(L, errno == ENOENT ? MJ_ENOTFOUND : MJ_EIO, lua_tostring(L, -1));
    }
    lua_createtable(L, 0, 2);
    mjl_set_int(L, "free", (int64_t)((uint64_t)st.f_bavail * st.f_frsize));
    mjl_set_int(L, "total", (int64_t)((uint64_t)st.f_blocks * st.f_frsize));
    return 1;
}

/* core.resolve(host) -> {addresses} | nil, err.  Waits for name servers: not for an event loop. */
static int core_resolve(lua_State *L)
{
    enum { MOST = 32 };
    const char *host = luaL_checkstring(L, 1);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char text[MOST][NI_MAXHOST];
    int n = 0, rc = getaddrinfo(host, NULL, &hints, &found);

    for (const struct addrinfo *a = found; a && n < MOST; a = a->ai_next)
        n += getnameinfo(a->ai_addr, a->ai_addrlen, text[n], NI_MAXHOST, NULL, 0, NI_NUMERICHOST) == 0;
    if (found)
        freeaddrinfo(found); /* before Lua may raise */
    if (rc != 0) {
        lua_pushfstring(L, "%s: %s", host, gai_strerror(rc));
        return mjl_fail(L, rc == EAI_NONAME ? MJ_ENOTFOUND : MJ_EIO, lua_tostring(L, -1));
    }
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_pushstring(L, text[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* core.libraries() -> {curl=, lmdb=}: their versions; no curl: it is not loaded */
static int core_libraries(lua_State *L)
{
    lua_createtable(L, 0, 2);
    if (mj_http_library())
        mjl_set_lit(L, "curl", mj_http_library());
    mjl_set_lit(L, "lmdb", mj_store_library(NULL));
    return 1;
}

void mjl_open_sys(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"now", core_now},
        {"cwd", core_cwd},
        {"realpath", core_realpath},
        {"environment", core_environment},
        {"begin_program", core_begin_program},
        {"columns", core_columns},
        {"stat", core_stat},
        {"uid", core_uid},
        {"sleep", core_sleep},
        {"isatty", core_isatty},
        {"disk", core_disk},
        {"resolve", core_resolve},
        {"libraries", core_libraries},
        {NULL, NULL},
    };

    luaL_setfuncs(L, functions, 0);
}
