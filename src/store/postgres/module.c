/* mjhook.store_postgres: what Lua gets of this backend.
 *
 *   .backend                  light userdata for core.open
 *   .migrate(url, options)    makes or upgrades the schema: {from =, to =}
 *   .migration(url, options)  what that would run: its text, the version it starts from
 *   .status(url, options)     {version =, needed =, server =, schema =, database =}; version 0: there is none
 *
 * options: {schema =, careful =}.  Outcomes: nil, code, message. */
#include "store/postgres/db.h"

#include <lauxlib.h>
#include <lua.h>

#include <string.h>

typedef struct request {
    mj_pg_url url;
    mj_pg_conn conn;
    char why[512];
} request;

static void end(request *r)
{
    if (!r->conn.url)
        return;
    mj_pg_disconnect(&r->conn);
    mj_pg_args_free(&r->conn.args);
    mj_pg_url_free(&r->url);
    r->conn.url = NULL;
}

static int collect(lua_State *L)
{
    end(lua_touserdata(L, 1));
    return 0;
}

static int fail(lua_State *L, int code, request *r)
{
    const char *why = r->why;

    end(r);
    lua_pushnil(L);
    lua_pushstring(L, mj_error_name(code));
    lua_pushstring(L, why[0] ? why : mj_error_text(code));
    return 3;
}

/* Pushes a request, which lets go of all it holds when it is collected. */
static request *begin(lua_State *L, int *code)
{
    const char *where = luaL_checkstring(L, 1);
    mj_store_options o = {0};
    request *r;

    if (lua_istable(L, 2)) {
        lua_getfield(L, 2, "schema");
        o.schema = luaL_optstring(L, -1, NULL);
        lua_getfield(L, 2, "careful");
        o.careful = lua_toboolean(L, -1);
    }
    r = lua_newuserdata(L, sizeof *r);
    memset(r, 0, sizeof *r);
    if (luaL_newmetatable(L, "mjhook.store_postgres")) {
        lua_pushcfunction(L, collect);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    *code = mj_pg_url_parse(where, &o, &r->url, r->why, sizeof r->why);
    r->conn.why = r->why;
    r->conn.why_size = sizeof r->why;
    r->conn.keep_schema = true;
    if (*code == MJ_OK)
        r->conn.url = &r->url;
    return r;
}

static void set_int(lua_State *L, const char *name, int v)
{
    lua_pushinteger(L, v);
    lua_setfield(L, -2, name);
}

static void set_text(lua_State *L, const char *name, const char *text)
{
    lua_pushstring(L, text);
    lua_setfield(L, -2, name);
}

static int migrate(lua_State *L)
{
    int code, from = 0;
    request *r = begin(L, &code);

    if (code == MJ_OK)
        code = mj_pg_migrate(&r->conn, &from);
    if (code != MJ_OK)
        return fail(L, code, r);
    end(r);
    lua_newtable(L);
    set_int(L, "from", from);
    set_int(L, "to", MJ_PG_SCHEMA);
    return 1;
}

static int look(request *r, int *version)
{
    int code = mj_pg_connect(&r->conn);

    return code == MJ_OK ? mj_pg_version(&r->conn, version) : code;
}

static int migration(lua_State *L)
{
    static const char hidden[] =
        "-- This user can't see whether the tables are there. If they are, run the GRANTs alone.\n";
    int code, version = 0;
    request *r = begin(L, &code);
    char *user = NULL;
    mj_buf sql = {0};
    bool has = false;

    if (code == MJ_OK)
        code = look(r, &version);
    if (code == MJ_EREADONLY && strcmp(r->conn.state, "42501") == 0) { /* that is what this user asks for */
        mj_put_raw(&sql, hidden, sizeof hidden - 1);
        r->why[0] = '\0';
        code = MJ_OK;
    }
    if (code == MJ_OK)
        code = mj_pg_has_schema(&r->conn, &has);
    if (code == MJ_OK && !(user = PQescapeIdentifier(r->conn.c, PQuser(r->conn.c), strlen(PQuser(r->conn.c)))))
        code = MJ_ENOMEM;
    if (code == MJ_OK)
        mj_pg_migration(&r->url, version, has, user, &sql);
    PQfreemem(user);
    if (code == MJ_OK && sql.failed)
        code = MJ_ENOMEM;
    if (code != MJ_OK) {
        mj_buf_free(&sql);
        return fail(L, code, r);
    }
    end(r);
    lua_pushlstring(L, (const char *)sql.p, sql.n - 1);
    mj_buf_free(&sql);
    lua_pushinteger(L, version);
    return 2;
}

static int status(lua_State *L)
{
    int code, version = 0;
    request *r = begin(L, &code);

    if (code == MJ_OK)
        code = look(r, &version);
    if (code != MJ_OK)
        return fail(L, code, r);
    lua_newtable(L);
    set_int(L, "version", version);
    set_int(L, "needed", MJ_PG_SCHEMA);
    set_int(L, "server", PQserverVersion(r->conn.c));
    set_text(L, "schema", r->url.schema);
    set_text(L, "database", r->url.shown);
    end(r);
    return 1;
}

__attribute__((visibility("default"))) int luaopen_mjhook_store_postgres(lua_State *L);
int luaopen_mjhook_store_postgres(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"migrate", migrate}, {"migration", migration}, {"status", status}, {NULL, NULL}};

    lua_newtable(L);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
    lua_pushlightuserdata(L, (void *)(uintptr_t)&mj_backend_postgres);
    lua_setfield(L, -2, "backend");
    return 1;
}
