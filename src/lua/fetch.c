/* mjhook.core's downloads: a batch of images into one directory. */
#include "auth/digest.h"
#include "download/files.h"
#include "download/transfer.h"
#include "lua/core.h"
#include "os/libc.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FETCH "mjhook.fetch"
enum { MAX_ITEMS = 64, MAX_LIST = 64 };

typedef enum { RUNS, ENDED, WHOLE } step; /* while it RUNS, the batch writes to its file */

typedef struct box {
    mj_download_dir dir;
    mj_fetch *fetch;
    size_t n;
    step steps[MAX_ITEMS];
    mj_part parts[MAX_ITEMS];
} box;

static box *check_box(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, FETCH);

    if (!b->fetch)
        luaL_error(L, "the downloads are closed");
    return b;
}

static int fetch_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, FETCH);

    mj_fetch_free(b->fetch);
    b->fetch = NULL;
    for (size_t i = 0; i < b->n; i++)
        mj_part_close(&b->parts[i]);
    b->n = 0;
    mj_download_dir_close(&b->dir);
    return 0;
}

/* nil and an error: what, and why by errno. */
static int failed(lua_State *L, int code, const char *what)
{
    char why[100];
    const char *text = mj_strerror(errno, why, sizeof why); /* not strerror: other threads */

    lua_pushfstring(L, "%s: %s", what, text);
    return mjl_fail(L, code, lua_tostring(L, -1));
}

/* A name that can only be of a file in the download directory. */
static const char *check_name(lua_State *L, int i)
{
    size_t n;
    const char *name = luaL_checklstring(L, i, &n);

    luaL_argcheck(L, n > 0 && n <= MJ_DOWNLOAD_NAME && strlen(name) == n && !strchr(name, '/') && name[0] != '.', i,
                  "not a file name");
    return name;
}

static size_t check_ended(lua_State *L, const box *b)
{
    int64_t i = mjl_arg_int(L, 2, 1, MAX_ITEMS);

    luaL_argcheck(L, (size_t)i <= b->n, 2, "no such download");
    luaL_argcheck(L, b->steps[i - 1] != RUNS, 2, "not ended yet");
    return (size_t)i - 1;
}

/* A list of strings in field `name`, which keeps them alive; NULL when absent.  Another value in it must not shorten
 * it: it may be the list of allowed hosts. */
static const char *const *read_list(lua_State *L, const char *name, const char *list[MAX_LIST + 1])
{
    mjl_field(L, 1, name);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return NULL;
    }
    for (int i = 0; lua_istable(L, -1); i++) {
        lua_rawgeti(L, -1, i + 1);
        list[i] = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
        if (lua_isnil(L, -1)) {
            lua_pop(L, 2);
            return list;
        }
        if (i == MAX_LIST)
            luaL_error(L, "field '%s' is too long", name);
        lua_pop(L, 1);
        if (!list[i])
            break;
    }
    luaL_error(L, "field '%s': a list of strings expected", name);
    return NULL;
}

/* core.fetch{dir=, sub=, mode=, max_bytes=, connections=, ca_file=, hosts=, loopback=}
 * -> downloads | nil, err.  They go to dir/sub. */
static int core_fetch(lua_State *L)
{
    const char *hosts[MAX_LIST + 1];
    mj_fetch_options o = {0};
    mj_str dir, sub;
    int64_t mode;
    box *b;
    int rc;

    luaL_checktype(L, 1, LUA_TTABLE);
    dir = mjl_str(L, 1, "dir");
    sub = mjl_str(L, 1, "sub");
    luaL_argcheck(L, dir.n > 0 && strlen(dir.p) == dir.n, 1, "dir: a path expected");
    luaL_argcheck(L, sub.n > 0 && strlen(sub.p) == sub.n && !strchr(sub.p, '/') && sub.p[0] != '.', 1,
                  "sub: a name expected");
    mode = mjl_int(L, 1, "mode", 0600, -MJ_MAX_TIME, MJ_MAX_TIME);
    /* Kept files are read again to recognize them. */
    luaL_argcheck(L, mode >= 0 && mode <= 0777 && (mode & 0400), 1,
                  "mode: 0400 to 0777 expected, with reading for the owner");
    o.max_bytes = mjl_int(L, 1, "max_bytes", 64 << 20, 0, MJ_MAX_TIME);
    o.connections = (int)mjl_int(L, 1, "connections", 0, 0, INT_MAX);
    o.ca_file = mjl_str(L, 1, "ca_file").p;
    o.hosts = read_list(L, "hosts", hosts);
    o.loopback = mjl_bool(L, 1, "loopback");
    if (!mjl_need_curl(L))
        return 2;
    b = lua_newuserdata(L, sizeof *b);
    memset(b, 0, sizeof *b);
    b->dir.fd = -1;
    luaL_getmetatable(L, FETCH);
    lua_setmetatable(L, -2);
    rc = mj_download_dir_open(&b->dir, dir.p, sub.p, (unsigned)mode);
    if (rc != MJ_OK) {
        lua_pushfstring(L, "%s/%s", dir.p, sub.p);
        return failed(L, rc, lua_tostring(L, -1));
    }
    b->fetch = mj_fetch_new(&o);
    return b->fetch ? 1 : mjl_fail(L, MJ_ENOMEM, NULL);
}

static bool begin_part(void *arg, const char *etag)
{
    return mj_part_fresh(arg, etag) == MJ_OK;
}

/* downloads:add(name, url) -> index | nil, err ("busy": another process has it).  name is the part's. */
static int fetch_add(lua_State *L)
{
    box *b = check_box(L);
    const char *name = check_name(L, 2), *url = luaL_checkstring(L, 3);
    mj_part *p = &b->parts[b->n];
    mj_fetch_request r = {.url = url, .fresh = begin_part, .arg = p};
    uint8_t source[32];
    size_t index;
    int rc;

    if (b->n == MAX_ITEMS)
        return mjl_fail(L, MJ_ELIMIT, "too many downloads at once");
    rc = mj_sha256(url, strlen(url), source);
    if (rc == MJ_OK)
        rc = mj_part_open(&b->dir, name, source, p);
    if (rc != MJ_OK)
        return failed(L, rc, name);
    r.fd = p->fd;
    r.have = p->have;
    r.etag = p->etag[0] ? p->etag : NULL;
    rc = mj_fetch_add(b->fetch, &r, &index);
    if (rc != MJ_OK) {
        mj_part_close(p);
        return mjl_fail(L, rc, NULL);
    }
    b->steps[b->n++] = RUNS; /* the same number as in the batch */
    mjl_push_int(L, (int64_t)index + 1);
    return 1;
}

/* downloads:next(deadline_ms) -> index, {outcome=, ext=, type=, status=, retry_after=, bytes=, received=, error=};
 * nothing: all were given */
static int fetch_next(lua_State *L)
{
    static const char *const outcomes[] = {"done", "url", "address", "status", "type", "size", "net", "time", "disk"};
    box *b = check_box(L);
    lua_Number given = luaL_checknumber(L, 2);
    int64_t deadline = given != given ? 0 : mjl_arg_ms(L, 2);
    mj_fetch_result r;
    size_t index;

    if (mj_fetch_next(b->fetch, deadline, &index, &r) != MJ_OK)
        return 0;
    b->steps[index] = r.outcome == MJ_FETCH_DONE ? WHOLE : ENDED;
    mjl_push_int(L, (int64_t)index + 1);
    lua_createtable(L, 0, 8);
    mjl_set_lit(L, "outcome", outcomes[r.outcome]);
    if (r.kind) {
        mjl_set_lit(L, "ext", mj_image_ext(r.kind));
        mjl_set_lit(L, "type", mj_image_type(r.kind));
    }
    if (r.status)
        mjl_set_int(L, "status", r.status);
    if (r.retry_after >= 0)
        mjl_set_int(L, "retry_after", r.retry_after);
    mjl_set_int(L, "bytes", r.bytes);
    mjl_set_int(L, "received", r.received);
    if (r.error[0])
        mjl_set_lit(L, "error", r.error);
    return 2;
}

static int push_hash(lua_State *L, const uint8_t sha[32], int64_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    char hex[64];

    for (size_t i = 0; i < 32; i++) {
        hex[2 * i] = digits[sha[i] >> 4];
        hex[2 * i + 1] = digits[sha[i] & 15];
    }
    lua_pushlstring(L, hex, sizeof hex);
    mjl_push_int(L, bytes);
    return 2;
}

/* downloads:keep(index, name) -> SHA-256 in hex, bytes | nil, err.  For a complete one; replaces the file of that
 * name. */
static int fetch_keep(lua_State *L)
{
    box *b = check_box(L);
    size_t i = check_ended(L, b);
    mj_part *p = &b->parts[i];
    const char *name = check_name(L, 3);
    uint8_t sha[32];
    int64_t bytes;
    int rc;

    luaL_argcheck(L, b->steps[i] == WHOLE && p->fd >= 0, 2, "not complete, or kept or dropped already");
    rc = mj_part_keep(&b->dir, p, name, sha, &bytes);
    return rc == MJ_OK ? push_hash(L, sha, bytes) : failed(L, rc, name);
}

/* downloads:drop(index): removes what came so far.  Only after its result. */
static int fetch_drop(lua_State *L)
{
    box *b = check_box(L);

    mj_part_drop(&b->dir, &b->parts[check_ended(L, b)]);
    return 0;
}

/* downloads:hash(name) -> SHA-256 in hex, bytes | nil, err: of a complete file */
static int fetch_hash(lua_State *L)
{
    box *b = check_box(L);
    const char *name = check_name(L, 2);
    uint8_t sha[32];
    int64_t bytes;
    int rc = mj_download_dir_hash(&b->dir, name, sha, &bytes);

    return rc == MJ_OK ? push_hash(L, sha, bytes) : failed(L, rc, name);
}

/* downloads:sync() -> true | nil, err: what was kept so far survives a power cut */
static int fetch_sync(lua_State *L)
{
    box *b = check_box(L);
    int rc = mj_download_dir_sync(&b->dir);

    if (rc != MJ_OK)
        return failed(L, rc, "the directory");
    lua_pushboolean(L, 1);
    return 1;
}

void mjl_open_fetch(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"add", fetch_add},   {"next", fetch_next}, {"keep", fetch_keep},   {"drop", fetch_drop},
        {"hash", fetch_hash}, {"sync", fetch_sync}, {"close", fetch_close}, {NULL, NULL},
    };
    static const luaL_Reg functions[] = {{"fetch", core_fetch}, {NULL, NULL}};

    mjl_class(L, FETCH, methods);
    luaL_setfuncs(L, functions, 0);
}
