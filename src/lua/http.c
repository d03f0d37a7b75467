/* mjhook.core's HTTP client: requests as tables, in batches, or one by one while others go on. */
#include "net/http.h"
#include "base/registry.h"
#include "lua/core.h"
#include "lua/http_table.h"
#include "provider/reader.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define HTTP "mjhook.http"
#define CALL "mjhook.http.call"
#define MAX_NUMBER ((int64_t)1 << 53)

typedef struct sent { /* a request that http:start() took */
    mj_http_call call;
    int64_t number;
    struct sent *next;
    const char *headers[MJL_MAX_HEADERS + 1];
    char text[]; /* its strings */
} sent;

typedef struct client { /* with a name, it is one for all threads of the process, which take turns */
    mj_registered reg;
    mj_http *http;
    sent *first, **last; /* requests that were started and whose answers were not taken */
} client;

typedef struct box {
    client *client;
} box;

static mj_registered *clients;

typedef struct call { /* a list of requests while they are read or performed, freed whatever raises */
    size_t n;
    mj_http_request *reqs;
    mj_http_answer *answers;
    const char *(*headers)[MJL_MAX_HEADERS + 1];
    int64_t *numbers;
} call;

static void clear_call(call *c)
{
    if (c->answers)
        mj_http_answer_clear(c->answers, c->n);
    free(c->answers);
    free(c->reqs);
    free(c->headers);
    free(c->numbers);
    memset(c, 0, sizeof *c);
}

static int call_close(lua_State *L)
{
    clear_call(luaL_checkudata(L, 1, CALL));
    return 0;
}

static client *check(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, HTTP);

    if (!b->client)
        luaL_error(L, "the HTTP client is closed");
    return b->client;
}

static void free_sent(sent *s)
{
    if (s)
        mj_http_answer_clear(&s->call.answer, 1);
    free(s);
}

static int http_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, HTTP);
    client *c = b->client;

    b->client = NULL;
    if (!c || !mj_registry_leave(&clients, &c->reg))
        return 0;
    mj_http_free(c->http);
    for (sent *s = c->first, *next; s; s = next) {
        next = s->next;
        free_sent(s);
    }
    mj_registry_free(&c->reg);
    return 0;
}

/* The answers, as http:perform gives them. */
static int push_answers(lua_State *L)
{
    const call *c = lua_touserdata(L, 1);

    lua_createtable(L, (int)c->n, 0);
    for (size_t i = 0; i < c->n; i++) {
        mjl_push_answer(L, &c->answers[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

/* Reads the list of requests at index 2 into a call, which is pushed. */
static call *read_call(lua_State *L)
{
    size_t n;
    call *c;

    luaL_checktype(L, 2, LUA_TTABLE);
    n = lua_rawlen(L, 2);
    c = lua_newuserdata(L, sizeof *c);
    memset(c, 0, sizeof *c);
    luaL_getmetatable(L, CALL);
    lua_setmetatable(L, -2);
    c->reqs = calloc(n + 1, sizeof *c->reqs);
    c->answers = calloc(n + 1, sizeof *c->answers);
    c->headers = calloc(n + 1, sizeof *c->headers);
    c->numbers = calloc(n + 1, sizeof *c->numbers);
    if (!c->reqs || !c->answers || !c->headers || !c->numbers)
        return NULL;
    c->n = n;
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        mjl_read_request(L, lua_gettop(L), &c->reqs[i], c->headers[i]);
        c->numbers[i] = mjl_int(L, lua_gettop(L), "number", 0, 0, MAX_NUMBER);
        lua_pop(L, 1);
    }
    return c;
}

/* Calls the function at that index with `arg`, twice if need be: answers must not be lost, since a job is billed by
 * now.  False: there is no memory for what it pushes, and nothing is pushed. */
static bool push_safely(lua_State *L, int function, void *arg)
{
    for (int tries = 0;; tries++) {
        lua_pushvalue(L, function);
        lua_pushlightuserdata(L, arg);
        if (lua_pcall(L, 1, 1, 0) == LUA_OK)
            return true;
        lua_pop(L, 1);
        if (tries == 1)
            return false;
        lua_gc(L, LUA_GCCOLLECT, 0);
    }
}

/* http:perform({requests}, deadline_ms) -> {answers} | nil, err | nil.  With an error, and when it raises, nothing was
 * sent.  A lone nil: requests were sent, and memory ran out for the answers.
 *
 * request: url, headers (list of "Name: value"), body, once, timeout_ms, start_by_ms, details, ca_file;
 * answer: outcome ("answered", "not_sent", "maybe_sent"), blocked, unread ("too_long" or "cut"), status, retry_after,
 * body, error, elapsed_ms, and with details: failure, ip, date, location, total_us, certs, cert_expires, issuer (see
 * net/http.h). */
static int http_perform(lua_State *L)
{
    client *h = check(L);
    int64_t deadline = lua_isnoneornil(L, 3) ? 0 : mjl_arg_ms(L, 3);
    int push, rc;
    call *c;

    lua_pushcfunction(L, push_answers);
    push = lua_gettop(L);
    c = read_call(L);
    if (!c)
        return mjl_fail(L, MJ_ENOMEM, NULL);
    pthread_mutex_lock(&h->reg.lock);
    rc = mj_http_perform(h->http, c->reqs, c->n, deadline, c->answers);
    pthread_mutex_unlock(&h->reg.lock);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, NULL);
    if (!push_safely(L, push, c))
        lua_pushnil(L);
    clear_call(c);
    return 1;
}

static const char *copied(char **to, const char *p, size_t n)
{
    char *copy = p ? memcpy(*to, p, n) : NULL;

    *to += p ? n : 0;
    return copy;
}

/* Whether other submissions may follow one with this answer, before anything has looked at it closely: it says nothing
 * about the account. */
static bool may_follow(const mj_http_answer *a)
{
    uint8_t room[2048]; /* an answer to a submission is short */
    mj_buf scratch = {.p = room, .cap = sizeof room};
    mj_wire_verdict v;

    if (a->outcome != MJ_HTTP_ANSWERED || a->body_len > sizeof room)
        return a->outcome == MJ_HTTP_MAYBE_SENT;
    mj_wire_submit(&mj_midjourney, a->status, a->blocked, (mj_str){a->body, (uint32_t)a->body_len}, &scratch, &v);
    return strcmp(v.kind, "refused") != 0;
}

/* A copy of a request with all its strings; NULL: no memory. */
static sent *copy_request(const mj_http_request *r)
{
    size_t bytes = strlen(r->url) + 1 + r->body_len + (r->ca_file ? strlen(r->ca_file) + 1 : 0), n = 0;
    sent *s;
    char *to;

    for (; r->headers && r->headers[n]; n++)
        bytes += strlen(r->headers[n]) + 1;
    s = calloc(1, sizeof *s + bytes);
    if (!s)
        return NULL;
    to = s->text;
    s->call.req = *r;
    s->call.req.url = copied(&to, r->url, strlen(r->url) + 1);
    s->call.req.body = copied(&to, r->body, r->body_len);
    s->call.req.ca_file = copied(&to, r->ca_file, r->ca_file ? strlen(r->ca_file) + 1 : 0);
    for (size_t i = 0; i < n; i++)
        s->headers[i] = copied(&to, r->headers[i], strlen(r->headers[i]) + 1);
    s->call.req.headers = s->headers;
    s->call.req.is_fine = r->once ? may_follow : NULL;
    return s;
}

/* Copies all requests, and starts them under their numbers.  MJ_ENOMEM: none of them. */
static int start_all(client *h, const call *c)
{
    sent *made = NULL, **end = &made;
    int rc = MJ_OK;

    for (size_t i = 0; rc == MJ_OK && i < c->n; i++) {
        *end = copy_request(&c->reqs[i]);
        rc = *end ? MJ_OK : MJ_ENOMEM;
        if (*end) {
            (*end)->number = c->numbers[i];
            end = &(*end)->next;
        }
    }
    while (made) {
        sent *s = made;
        made = s->next;
        s->next = NULL;
        if (rc == MJ_OK)
            rc = mj_http_start(h->http, &s->call); /* if it fails, it does so for the first one */
        if (rc != MJ_OK) {
            free_sent(s);
            continue;
        }
        *h->last = s;
        h->last = &s->next;
    }
    return rc;
}

/* http:start({requests}) -> true | nil, err.  Each request has a `number`, which no other of this client has: its
 * answer is taken by it.  With an error, and when it raises, none is started. */
static int http_start(lua_State *L)
{
    client *h = check(L);
    call *c = read_call(L);
    int rc;

    if (!c)
        return mjl_fail(L, MJ_ENOMEM, NULL);
    pthread_mutex_lock(&h->reg.lock);
    rc = start_all(h, c);
    pthread_mutex_unlock(&h->reg.lock);
    clear_call(c);
    if (rc != MJ_OK)
        return mjl_fail(L, rc, NULL);
    lua_pushboolean(L, true);
    return 1;
}

/* http:wait(until_ms[, rest_ms, low]): goes on with what was started until some of it has ended, or core.clock() is
 * until_ms.  With rest_ms, until that long after the first of it, or until at most `low` requests wait for a
 * connection; an answer that refuses a submission ends it, too.  Then what is under way goes on afterwards. */
static int http_wait(lua_State *L)
{
    client *h = check(L);
    mj_http_pause p = {.until_ms = mjl_arg_ms(L, 2)};
    bool goes_on = !lua_isnoneornil(L, 3);

    if (goes_on) {
        p.rest_ms = mjl_arg_int(L, 3, 0, MAX_NUMBER);
        p.low = (size_t)mjl_arg_int(L, 4, 0, MAX_NUMBER);
    }
    pthread_mutex_lock(&h->reg.lock);
    for (const sent *s = h->first; s; s = s->next)
        if (s->call.ended) /* while another caller waited for its own */
            p.until_ms = 0;
    if (goes_on)
        mj_http_wait_for(h->http, &p);
    else
        mj_http_wait(h->http, p.until_ms);
    pthread_mutex_unlock(&h->reg.lock);
    return 0;
}

/* http:withdraw(): requests that wait for a connection end; their answers are `true`. */
static int http_withdraw(lua_State *L)
{
    client *h = check(L);

    pthread_mutex_lock(&h->reg.lock);
    mj_http_withdraw(h->http);
    pthread_mutex_unlock(&h->reg.lock);
    return 0;
}

/* Takes the request at *at out of the client's list, if it has ended; with `why` it ends now.  NULL: it goes on. */
static sent *take(client *h, sent **at, const char *why)
{
    sent *s = *at;

    if (why)
        mj_http_cut(h->http, &s->call, why);
    if (!s->call.ended)
        return NULL;
    *at = s->next;
    if (!*at)
        h->last = at;
    return s;
}

static int push_sent(lua_State *L)
{
    const sent *s = lua_touserdata(L, 1);

    if (s->call.answer.withdrawn)
        lua_pushboolean(L, true);
    else
        mjl_push_answer(L, &s->call.answer);
    return 1;
}

/* http:take(number[, why]) -> answer | false | nil.  The answer of a request that was started, once.  false: it goes
 * on; with `why` it is cut off instead.  nil: it has ended, and there is no memory for its answer. */
static int http_take(lua_State *L)
{
    client *h = check(L);
    int64_t number = mjl_arg_int(L, 2, 0, MAX_NUMBER);
    const char *why = luaL_optstring(L, 3, NULL);
    sent **at = &h->first, *s;

    lua_settop(L, 3);
    lua_pushcfunction(L, push_sent);
    pthread_mutex_lock(&h->reg.lock);
    while (*at && (*at)->number != number)
        at = &(*at)->next;
    s = *at ? take(h, at, why) : NULL;
    pthread_mutex_unlock(&h->reg.lock);
    if (!s)
        lua_pushboolean(L, false);
    else if (!push_safely(L, 4, s))
        lua_pushnil(L);
    free_sent(s);
    return 1;
}

/* Takes those requests out of the client's list that have ended and whose number is false in the table at index 2. */
static sent *take_those(lua_State *L, client *h, const char *why)
{
    sent *taken = NULL, **end = &taken, **at = &h->first;

    while (*at) {
        sent *s = NULL;
        lua_rawgeti(L, 2, (int)(*at)->number);
        if (lua_isboolean(L, -1) && !lua_toboolean(L, -1))
            s = take(h, at, why);
        lua_pop(L, 1);
        if (!s) {
            at = &(*at)->next;
            continue;
        }
        s->next = NULL;
        *end = s;
        end = &s->next;
    }
    return taken;
}

/* http:collect(answers, lost[, why]): the same for many.  `answers`: a table in which the numbers of requests that were
 * started are false.  Of those that have ended it gets the answer; `true`: it was withdrawn before it was begun, and
 * may be started again; `lost`: there is no memory for the answer. */
static int http_collect(lua_State *L)
{
    client *h = check(L);
    const char *why = luaL_optstring(L, 4, NULL);
    sent *taken;

    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 4);
    lua_pushcfunction(L, push_sent);
    pthread_mutex_lock(&h->reg.lock);
    taken = take_those(L, h, why);
    pthread_mutex_unlock(&h->reg.lock);
    while (taken) {
        sent *s = taken;
        taken = s->next;
        if (!push_safely(L, 5, s))
            lua_pushvalue(L, 3);
        lua_rawseti(L, 2, (int)s->number); /* which is there: this takes no memory */
        free_sent(s);
    }
    return 0;
}

/* core.http({connections=, connect_timeout_ms=, timeout_ms=, max_answer=, ca_file=, proxy=, insecure=}[, name]).  With
 * a name, the same client for all that ask for that name, as its first opener made it. */
static int core_http(lua_State *L)
{
    mj_str name = lua_isnoneornil(L, 2) ? (mj_str){NULL, 0} : mjl_arg_str(L, 2);
    mj_http_options o = {0};
    client *c;
    bool made;
    box *b;

    luaL_checktype(L, 1, LUA_TTABLE);
    o.connections = (int)mjl_int(L, 1, "connections", 0, 0, INT_MAX);
    o.connect_timeout_ms = mjl_http_timeout(L, 1, "connect_timeout_ms");
    o.timeout_ms = mjl_http_timeout(L, 1, "timeout_ms");
    o.max_answer = (size_t)mjl_int(L, 1, "max_answer", 0, 0, UINT32_MAX);
    o.insecure = mjl_bool(L, 1, "insecure");
    o.ca_file = mjl_str(L, 1, "ca_file").p;
    o.proxy = mjl_str(L, 1, "proxy").p;
    o.user_agent = "mjhook/" MJ_VERSION;
    if (!mjl_need_curl(L))
        return 2;
    b = lua_newuserdata(L, sizeof *b);
    b->client = NULL;
    luaL_getmetatable(L, HTTP);
    lua_setmetatable(L, -2);
    b->client = c = mj_registry_open(&clients, name.p, name.n, sizeof *c);
    if (!c)
        return mjl_fail(L, MJ_ENOMEM, NULL);
    pthread_mutex_lock(&c->reg.lock);
    if (!c->http) {
        c->last = &c->first;
        c->http = mj_http_new(&o);
    }
    made = c->http != NULL;
    pthread_mutex_unlock(&c->reg.lock);
    return made ? 1 : mjl_fail(L, MJ_ENOMEM, NULL);
}

/* core.clock() -> milliseconds that only go forward (CLOCK_BOOTTIME) */
static int core_clock(lua_State *L)
{
    mjl_push_int(L, mj_http_clock());
    return 1;
}

void mjl_open_http(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"perform", http_perform}, {"start", http_start},       {"wait", http_wait},   {"take", http_take},
        {"collect", http_collect}, {"withdraw", http_withdraw}, {"close", http_close}, {NULL, NULL}};
    static const luaL_Reg call_methods[] = {{"close", call_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"http", core_http}, {"clock", core_clock}, {NULL, NULL}};

    mjl_class(L, HTTP, methods);
    mjl_class(L, CALL, call_methods);
    luaL_setfuncs(L, functions, 0);
}
