#include "mj_wire.h"

#include "lua_core.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STATUS_OK = 0, STATUS_QUOTA = 1001, STATUS_CONCURRENCY = 1002 }; /* PROVIDER.md: envelope */
enum { TASK_RUNNING = 0, TASK_SUCCEEDED = 1, TASK_FAILED = 2 };         /* PROVIDER.md: task status */

/* ---- text ---- */

/* Length of the well-formed UTF-8 sequence at s, 0 when there is none. */
static size_t utf8_len(const unsigned char *s, size_t n)
{
    static const struct {
        unsigned char lo, hi, len, lo2, hi2; /* first byte, length, second byte (Unicode, table 3-7) */
    } forms[] = {{0x00, 0x7f, 1, 0, 0},       {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf},
                 {0xe1, 0xec, 3, 0x80, 0xbf}, {0xed, 0xed, 3, 0x80, 0x9f}, {0xee, 0xef, 3, 0x80, 0xbf},
                 {0xf0, 0xf0, 4, 0x90, 0xbf}, {0xf1, 0xf3, 4, 0x80, 0xbf}, {0xf4, 0xf4, 4, 0x80, 0x8f}};

    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (s[0] < forms[i].lo || s[0] > forms[i].hi)
            continue;
        if (forms[i].len > n || (forms[i].len > 1 && (s[1] < forms[i].lo2 || s[1] > forms[i].hi2)))
            return 0;
        for (size_t k = 2; k < forms[i].len; k++)
            if ((s[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].len;
    }
    return 0;
}

bool mj_utf8_valid(const char *s, size_t n)
{
    while (n > 0) {
        size_t len = utf8_len((const unsigned char *)s, n);
        if (len == 0)
            return false;
        s += len;
        n -= len;
    }
    return true;
}

/* Length of the character at s if it may be kept as it is: well-formed, and of the controls only \n and \t; or 0. */
static size_t good_len(const char *s, size_t n)
{
    unsigned char c = (unsigned char)s[0];

    if (c >= 0x20 && c < 0x7f) /* nearly all there is */
        return 1;
    if (c < 0x80)
        return c == '\n' || c == '\t';
    return utf8_len((const unsigned char *)s, n);
}

/* How many bytes of good characters s begins with, at most max; *next: the length of the one after them, as above. */
static size_t good_run(const char *s, size_t n, size_t max, size_t *next)
{
    size_t run = 0;

    *next = 0;
    while (run < n && (*next = good_len(s + run, n - run)) > 0 && run + *next <= max)
        run += *next;
    return run;
}

/* Pushes text of at most max bytes with '?' for every byte that may not be kept as it is. */
static void push_clean(lua_State *L, const char *s, size_t n, size_t max)
{
    luaL_Buffer b;

    luaL_buffinit(L, &b);
    while (n > 0) {
        size_t next, run = good_run(s, n, max, &next);
        luaL_addlstring(&b, s, run);
        s += run;
        n -= run;
        max -= run;
        if (n == 0 || max == 0 || next > 0) /* a good one that no room is left for */
            break;
        luaL_addchar(&b, '?');
        s++;
        n--;
        max--;
    }
    luaL_pushresult(&b);
}

/* ---- values of a decoded document; t is an absolute index ---- */

/* A whole number at the top of the stack, also as a string; false when there is none. */
static bool whole(lua_State *L, int64_t *v)
{
    lua_Number n;

    if (lua_type(L, -1) == LUA_TNUMBER) {
        n = lua_tonumber(L, -1);
    } else if (lua_type(L, -1) == LUA_TSTRING) {
        size_t len;
        const char *s = lua_tolstring(L, -1, &len);
        char *end;
        if (len == 0 || len > 20 || strspn(s, "-0123456789") != len)
            return false;
        n = (lua_Number)strtod(s, &end);
        if (*end != '\0')
            return false;
    } else {
        return false;
    }
    if (!(n >= -9007199254740992.0 && n <= 9007199254740992.0) || floor((double)n) != (double)n)
        return false;
    *v = (int64_t)n;
    return true;
}

static bool get_whole(lua_State *L, int t, const char *name, int64_t *v)
{
    bool ok;

    lua_getfield(L, t, name);
    ok = whole(L, v);
    lua_pop(L, 1);
    return ok;
}

/* The field as a string of its own, {NULL, 0} when it is anything else; it stays alive in its table. */
static mj_str get_text(lua_State *L, int t, const char *name)
{
    mj_str s = {0};
    size_t n;

    lua_getfield(L, t, name);
    if (lua_type(L, -1) == LUA_TSTRING) {
        s.p = lua_tolstring(L, -1, &n);
        s.n = n > UINT32_MAX ? 0 : (uint32_t)n;
    }
    lua_pop(L, 1);
    return s;
}

static bool is_task_id(mj_str s)
{
    if (s.n == 0 || s.n > MJ_MAX_TASK_ID)
        return false;
    for (uint32_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
            return false;
    }
    return true;
}

static bool is_url(mj_str s)
{
    int bad = 0;

    if (s.n > MJ_MAX_URL ||
        !((s.n > 8 && memcmp(s.p, "https://", 8) == 0) || (s.n > 7 && memcmp(s.p, "http://", 7) == 0)))
        return false;
    for (uint32_t i = 0; i < s.n; i++) { /* no early end: so it takes a fraction of the time */
        unsigned char c = (unsigned char)s.p[i];
        bad |= (c <= ' ') | (c >= 0x7f) | (c == '"') | (c == '<') | (c == '>') | (c == '\\');
    }
    return !bad;
}

/* The URL at the top of the stack, given as a string or as an object with a url. */
static mj_str image_url(lua_State *L)
{
    mj_str s = {0};
    size_t n;

    if (lua_type(L, -1) == LUA_TSTRING) {
        s.p = lua_tolstring(L, -1, &n);
        s.n = n > MJ_MAX_URL ? 0 : (uint32_t)n;
    } else if (lua_istable(L, -1)) {
        s = get_text(L, lua_gettop(L), "url");
    }
    return s.n && is_url(s) ? s : (mj_str){0};
}

/* ---- words ---- */

static unsigned read_images(lua_State *L, int t, mj_str *images)
{
    unsigned n = 0;

    lua_getfield(L, t, "images");
    if (lua_istable(L, -1)) {
        int count = (int)lua_rawlen(L, -1);
        for (int i = 1; n < MJ_MAX_IMAGES && i <= count && i <= 4 * MJ_MAX_IMAGES; i++) {
            lua_rawgeti(L, -1, i);
            images[n] = image_url(L);
            n += images[n].n > 0;
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    return n;
}

/* Cleans the text.  Leaves a value on the stack that keeps it alive, if its table does not. */
static mj_str clean(lua_State *L, mj_str text, size_t max)
{
    mj_str s = MJ_LIT("");
    size_t next, n;

    if (good_run(text.p, text.n, max, &next) == text.n) {
        lua_pushnil(L);
        return text.n ? text : s;
    }
    push_clean(L, text.p, text.n, max);
    s.p = lua_tolstring(L, -1, &n);
    s.n = (uint32_t)n;
    return s;
}

/* Reads the word in the task object at absolute index t: NULL, or why there is none.  Its strings live in the object,
 * and in two values that are left on the stack. */
static const char *read_word(lua_State *L, int t, mj_signal *w)
{
    mj_str text;
    int64_t status;

    memset(w, 0, sizeof *w);
    w->expect_state = -1;
    w->wait_ms = -1;
    w->task_id = get_text(L, t, "taskId");
    if (!is_task_id(w->task_id))
        return "no usable taskId";
    if (!get_whole(L, t, "status", &status))
        return "no usable status";
    lua_getfield(L, t, "image");
    w->image = image_url(L);
    lua_pop(L, 1);
    w->nimages = read_images(L, t, w->images);
    text = get_text(L, t, "mjPrompt");
    w->mj_prompt = clean(L, text.n ? text : get_text(L, t, "prompt"), MJ_MAX_PROMPT);
    if (status == TASK_SUCCEEDED) {
        w->kind = w->image.n || w->nimages ? SIG_SUCCEEDED : SIG_HINT;
    } else if (status == TASK_FAILED) {
        w->kind = SIG_FAILED;
        w->error_code = MJ_LIT("provider");
        w->error = clean(L, get_text(L, t, "failReason"), MJ_MAX_REASON);
        return NULL;
    } else {
        w->kind = SIG_RUNNING; /* 0, or a number that nobody knows */
    }
    lua_pushnil(L);
    return NULL;
}

/* Pushes the word of the task object at absolute index t, or nothing and why. */
static const char *push_word(lua_State *L, int t)
{
    mj_signal w;
    int at = lua_gettop(L);
    const char *why = read_word(L, t, &w);

    if (why)
        return why;
    lua_createtable(L, 0, 8);
    mjl_set_lit(L, "kind", mj_signal_name(w.kind));
    mjl_set_str(L, "task_id", w.task_id);
    mjl_set_str(L, "image", w.image);
    mjl_set_str(L, "mj_prompt", w.mj_prompt);
    lua_createtable(L, (int)w.nimages, 0);
    for (unsigned i = 0; i < w.nimages; i++) {
        lua_pushlstring(L, w.images[i].p, w.images[i].n);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "images");
    lua_getfield(L, t, "meta");
    if (lua_istable(L, -1))
        lua_setfield(L, -2, "meta");
    else
        lua_pop(L, 1);
    if (w.kind == SIG_FAILED) {
        mjl_set_str(L, "error_code", w.error_code);
        lua_pushlstring(L, w.error.p, w.error.n);
        lua_setfield(L, -2, "error");
    }
    lua_replace(L, at + 1);
    lua_settop(L, at + 1);
    return NULL;
}

static int no_word(lua_State *L, const char *why)
{
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

int mj_wire_callback(lua_State *L)
{
    bool bare;

    lua_settop(L, 1);
    if (!lua_istable(L, 1))
        return no_word(L, "not a JSON object");
    lua_getfield(L, 1, "taskId");
    bare = !lua_isnil(L, -1);
    lua_settop(L, 1);
    if (bare)
        return 1;
    lua_getfield(L, 1, "data");
    if (!lua_istable(L, 2))
        return no_word(L, "no task in it");
    if (lua_rawlen(L, 2) > 1)
        return no_word(L, "more than one task in it");
    lua_rawgeti(L, 2, 1);
    if (!lua_istable(L, 3)) /* otherwise data was an array of one */
        lua_settop(L, 2);
    return 1;
}

int mj_wire_word(lua_State *L)
{
    const char *why;

    lua_settop(L, 1);
    if (!lua_istable(L, 1))
        return no_word(L, "not a JSON object");
    why = push_word(L, 1);
    return why ? no_word(L, why) : 1;
}

int mj_wire_signal(lua_State *L)
{
    mj_op op = {.kind = MJ_OP_SIGNAL, .has_ref = true};
    const char *why;
    size_t n = 0;

    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argcheck(L, mjl_ref(L, 3, op.ref), 3, "not a ref");
    lua_settop(L, 4);
    why = read_word(L, 1, &op.sig);
    if (why)
        return no_word(L, why);
    op.sig.source = MJ_FROM_CALLBACK;
    op.sig.attempt = (uint32_t)luaL_checkinteger(L, 4);
    op.sig.meta.p = luaL_optlstring(L, 2, NULL, &n);
    op.sig.meta.n = n > MJ_MAX_JSON ? 0 : (uint32_t)n;
    mjl_pack(L, &op);
    return 1;
}

int mj_wire_status(lua_State *L)
{
    int64_t status = -1;
    int n = 0, count;

    lua_settop(L, 1);
    if (!lua_istable(L, 1))
        return no_word(L, "not a JSON object");
    if (!get_whole(L, 1, "status", &status))
        return no_word(L, "no envelope");
    lua_getfield(L, 1, "data");
    if (status != STATUS_OK) {
        mj_str text = get_text(L, 1, "message");
        lua_pushnil(L);
        push_clean(L, text.n ? text.p : "", text.n, MJ_MAX_REASON);
        lua_pushinteger(L, (lua_Integer)status);
        return 3;
    }
    if (!lua_istable(L, 2))
        return no_word(L, "no data in the answer");
    count = (int)lua_rawlen(L, 2);
    lua_createtable(L, count, 0);
    if (count == 0) { /* one object instead of an array */
        lua_getfield(L, 2, "taskId");
        if (!lua_isnil(L, -1)) {
            lua_pop(L, 1);
            if (!push_word(L, 2))
                lua_rawseti(L, 3, ++n);
            return 1;
        }
        lua_pop(L, 1);
    }
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, 2, i);
        if (lua_istable(L, -1) && !push_word(L, lua_gettop(L)))
            lua_rawseti(L, 3, ++n);
        lua_settop(L, 3);
    }
    return 1;
}

/* ---- submit answers ---- */

static int verdict(lua_State *L, const char *kind, const char *code, mj_str text)
{
    lua_createtable(L, 0, 4);
    mjl_set_lit(L, "kind", kind);
    if (code) {
        mjl_set_lit(L, "error_code", code);
        push_clean(L, text.p, text.n, MJ_MAX_REASON);
        lua_setfield(L, -2, "error");
    }
    return 1;
}

int mj_wire_submit(lua_State *L)
{
    int http = (int)luaL_checkinteger(L, 1);
    int64_t status = -1;
    bool envelope;
    mj_str text, id = {0};

    lua_settop(L, 2);
    envelope = lua_istable(L, 2) && get_whole(L, 2, "status", &status);
    text = envelope ? get_text(L, 2, "message") : (mj_str){0};

    /* A definite refusal is definite under whatever HTTP status it comes. */
    if (envelope && status == STATUS_QUOTA)
        return verdict(L, "refused", "quota", text.n ? text : MJ_LIT("quota not enough"));
    if (envelope && status == STATUS_CONCURRENCY)
        return verdict(L, "refused", "concurrency", text.n ? text : MJ_LIT("concurrency limit reached"));
    if (http == 401 || http == 403)
        return verdict(L, "refused", "auth", text.n ? text : MJ_LIT("the provider refuses the API key"));
    if (http == 429)
        return verdict(L, "refused", "rate_limit", text.n ? text : MJ_LIT("rate limit"));
    if (http >= 300 && http < 400)
        return verdict(L, "refused", "redirect",
                       MJ_LIT("base_url answers with a redirect, which is not followed: correct base_url"));
    if (http == 408 || http >= 500 || http < 200)
        return verdict(L, "maybe_sent", "server_error", text.n ? text : MJ_LIT("trouble on the provider's side"));
    if (http >= 400)
        return verdict(L, "rejected", "rejected", text.n ? text : MJ_LIT("the provider rejects the request"));
    if (envelope && status != STATUS_OK)
        return verdict(L, "rejected", "rejected", text.n ? text : MJ_LIT("the provider rejects the request"));
    if (envelope) {
        lua_getfield(L, 2, "data");
        if (lua_istable(L, -1))
            id = get_text(L, lua_gettop(L), "taskId");
    }
    if (!is_task_id(id))
        return verdict(L, "maybe_sent", "unreadable", MJ_LIT("the answer has no usable taskId"));
    verdict(L, "accepted", NULL, (mj_str){0});
    mjl_set_str(L, "task_id", id);
    return 1;
}

static int utf8(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);

    lua_pushboolean(L, mj_utf8_valid(s, n));
    return 1;
}

void mjl_open_wire(lua_State *L)
{
    static const luaL_Reg functions[] = {{"wire_callback", mj_wire_callback},
                                         {"wire_word", mj_wire_word},
                                         {"wire_signal", mj_wire_signal},
                                         {"wire_status", mj_wire_status},
                                         {"wire_submit", mj_wire_submit},
                                         {"utf8", utf8},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
