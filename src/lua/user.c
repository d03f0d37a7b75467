/* mjhook.core's users and what belongs to them, for setting an installation up. */
#include "lua/core.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROOM = 16384 }; /* of a line of the user database */

static int not_there(lua_State *L, const char *what)
{
    lua_pushfstring(L, "there is no %s", what);
    return mjl_fail(L, MJ_ENOTFOUND, lua_tostring(L, -1));
}

/* core.user(name or uid) -> {name=, uid=, gid=, home=} | nil, err.  The user of this process needs no entry: in a
 * container any number is one. */
static int core_user(lua_State *L)
{
    bool by_uid = lua_type(L, 1) == LUA_TNUMBER;
    char me[16], *buf = lua_newuserdata(L, ROOM);
    struct passwd pw, *found = NULL;

    snprintf(me, sizeof me, "%u", (unsigned)getuid());
    if (by_uid)
        getpwuid_r((uid_t)mjl_arg_int(L, 1, 0, UINT32_MAX), &pw, buf, ROOM, &found);
    else
        getpwnam_r(luaL_checkstring(L, 1), &pw, buf, ROOM, &found);
    if (!found && strcmp(lua_tostring(L, 1), me) == 0) {
        pw = (struct passwd){.pw_name = me, .pw_uid = getuid(), .pw_gid = getgid(), .pw_dir = "/"};
        found = &pw;
    }
    if (!found)
        return not_there(L, lua_pushfstring(L, by_uid ? "user with the uid %s" : "user %s", lua_tostring(L, 1)));
    lua_createtable(L, 0, 4);
    mjl_set_lit(L, "name", pw.pw_name);
    mjl_set_int(L, "uid", pw.pw_uid);
    mjl_set_int(L, "gid", pw.pw_gid);
    mjl_set_lit(L, "home", pw.pw_dir);
    return 1;
}

/* core.group(name) -> {name=, gid=} | nil, err */
static int core_group(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    struct group gr, *found = NULL;
    char *buf = lua_newuserdata(L, ROOM);

    getgrnam_r(name, &gr, buf, ROOM, &found);
    if (!found)
        return not_there(L, lua_pushfstring(L, "group %s", name));
    lua_createtable(L, 0, 2);
    mjl_set_lit(L, "name", gr.gr_name);
    mjl_set_int(L, "gid", gr.gr_gid);
    return 1;
}

static int outcome(lua_State *L, int rc, const char *path)
{
    int why = errno;

    if (rc == 0) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushfstring(L, "%s: %s", path, strerror(why));
    return mjl_fail(L, why == ENOENT ? MJ_ENOTFOUND : why == EEXIST ? MJ_EEXISTS : MJ_EREADONLY, lua_tostring(L, -1));
}

/* core.mkdir(path, mode) -> true | nil, err: with this mode, whatever the umask */
static int core_mkdir(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    mode_t mode = (mode_t)mjl_arg_int(L, 2, 0, 07777);
    int rc = mkdir(path, 0700);

    return outcome(L, rc == 0 ? chmod(path, mode) : rc, path);
}

/* core.own(path, uid, gid, mode) -> true | nil, err: gives a file or directory of ours away; no link is followed */
static int core_own(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    uid_t uid = (uid_t)mjl_arg_int(L, 2, 0, UINT32_MAX);
    gid_t gid = (gid_t)mjl_arg_int(L, 3, 0, UINT32_MAX);
    mode_t mode = (mode_t)mjl_arg_int(L, 4, 0, 07777);
    struct stat st;
    int rc = lstat(path, &st);

    if (rc == 0 && S_ISLNK(st.st_mode)) {
        errno = ELOOP;
        rc = -1;
    }
    if (rc == 0)
        rc = lchown(path, uid, gid);
    if (rc == 0)
        rc = chmod(path, mode); /* after it: a change of owner clears the set-group-ID bit */
    return outcome(L, rc, path);
}

void mjl_open_user(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"user", core_user}, {"group", core_group}, {"mkdir", core_mkdir}, {"own", core_own}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
