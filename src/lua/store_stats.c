/* mjhook.core's store: its counts. */
#include "lua/store.h"

#include <stdio.h>
#include <string.h>

static void push_accounts(lua_State *L, const mj_stats *st, int64_t now)
{
    lua_newtable(L);
    for (unsigned i = 0; i < st->naccounts; i++) {
        const mj_account_stats *a = &st->accounts[i];
        lua_createtable(L, 0, 5);
        mjl_set_lit(L, "name", a->name);
        mjl_set_int(L, "held", a->held);
        mjl_set_int(L, "max_in_flight", a->max_in_flight);
        /* One that does not rest any more may tell until when it would have. */
        mjl_set_time(L, "paused_until",
                     now == 0 || now >= a->paused_until || mj_account_rests(a->paused_until, a->paused_at, now)
                         ? a->paused_until
                         : now);
        if (mj_account_cap(a->observed, a->observed_at, a->max_in_flight, now) < a->max_in_flight)
            mjl_set_int(L, "learned", mj_account_cap(a->observed, a->observed_at, a->max_in_flight, now));
        if (a->reason[0])
            mjl_set_lit(L, "reason", a->reason);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "accounts");
}

static void push_histogram(lua_State *L, const mj_histogram *h)
{
    lua_createtable(L, MJ_NBUCKETS, 1);
    for (unsigned i = 0; i < MJ_NBUCKETS; i++) {
        mjl_push_int(L, (int64_t)h->bucket[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    mjl_set_int(L, "sum_ms", (int64_t)h->sum_ms);
}

/* What the store remembers of how things go. */
static void push_measures(lua_State *L, const mj_stats *st, int64_t now)
{
    const mj_counters *m = &st->counters;
    const mj_judged *j = &st->judged;
    mj_rules adapted = mj_counters_rules(m, j, &st->rules);
    uint32_t ended, called;

    lua_createtable(L, 0, MJ_NCOUNTS);
    for (unsigned i = 0; i < MJ_NCOUNTS; i++)
        mjl_set_int(L, mj_count_name(i), (int64_t)m->counts[i]);
    lua_setfield(L, -2, "counts");
    lua_createtable(L, 0, MJ_NMODES);
    for (unsigned i = 0; i < MJ_NMODES; i++) {
        push_histogram(L, &m->ends[i]);
        lua_setfield(L, -2, mj_mode_name((mj_mode)i));
    }
    lua_setfield(L, -2, "latency");
    lua_createtable(L, 0, MJ_NMODES);
    for (unsigned i = 0; i < MJ_NMODES; i++)
        mjl_set_int(L, mj_mode_name((mj_mode)i), adapted.first_ms[i] ? adapted.first_ms[i] : adapted.poll_first_ms);
    lua_setfield(L, -2, "first_poll_ms");
    mj_counters_recent(m, now, &ended, &called);
    lua_createtable(L, 0, 3);
    mjl_set_int(L, "ended", ended);
    mjl_set_int(L, "called", called);
    mjl_set_time(L, "broken_since", j->broken_since);
    lua_setfield(L, -2, "webhook");
    lua_createtable(L, 0, 3);
    mjl_set_time(L, "last_at", j->reconciled_at);
    mjl_set_int(L, "elapsed_ms", j->reconcile_ms);
    mjl_set_time(L, "answered_at", m->answered_at);
    lua_setfield(L, -2, "sweep");
}

/* store:stats(now) -> {...} | nil, err.  An account's `learned` is there when it may hold fewer slots than configured;
 * `latest` is the time of the newest commit, by its clock. */
static int store_stats(lua_State *L)
{
    mj_store *s = mjl_store(L);
    int64_t now = lua_isnoneornil(L, 2) ? 0 : mjl_arg_ms(L, 2);
    mj_stats st;
    int rc = mj_store_stats(s, &st);

    if (rc != MJ_OK)
        return mjl_store_fail(L, s, rc);
    lua_newtable(L);
    lua_newtable(L);
    for (int i = 0; i < MJ_NSTATES; i++)
        mjl_set_int(L, mj_state_name((mj_state)i), (int64_t)st.states[i]);
    lua_setfield(L, -2, "tasks");
    mjl_set_int(L, "events", (int64_t)st.events);
    mjl_set_int(L, "buried", (int64_t)st.buried);
    mjl_set_int(L, "ready", (int64_t)st.ready);
    mjl_set_int(L, "bytes_used", (int64_t)st.map_used);
    mjl_set_int(L, "bytes_mapped", (int64_t)st.map_size);
    mjl_set_time(L, "oldest_open", st.oldest_open);
    /* After the clock was set back the first event may be due, whatever its time: taking it shows. */
    mjl_set_time(L, "event_due",
                 now > 0 && st.event_due > now && st.latest - now > MJ_CLOCK_STEP_MS ? now : st.event_due);
    mjl_set_time(L, "latest", st.latest);
    push_accounts(L, &st, now);
    push_measures(L, &st, now);
    return 1;
}

/* store:host(boot) -> how long ago, in ms, that host was last seen | nil, err: "not_found" when it never was, and where
 * all processes run on one host.  boot: 32 hexadecimal digits. */
static int store_host(lua_State *L)
{
    mj_store *s = mjl_store(L);
    size_t n;
    const char *hex = luaL_checklstring(L, 2, &n);
    uint8_t boot[16];
    unsigned byte;
    int64_t ago = 0;
    int rc;

    luaL_argcheck(L, n == 2 * sizeof boot && strspn(hex, "0123456789abcdef") == n, 2, "32 hexadecimal digits expected");
    for (size_t i = 0; i < sizeof boot; i++) {
        (void)sscanf(hex + 2 * i, "%2x", &byte);
        boot[i] = (uint8_t)byte;
    }
    rc = mj_store_host(s, boot, &ago);
    if (rc != MJ_OK)
        return mjl_store_fail(L, s, rc);
    mjl_push_int(L, ago);
    return 1;
}

/* No Lua here: its errors must not unwind through the database's code. */
static void add_fact(void *ctx, const char *level, const char *name, const char *text, const char *advice)
{
    const char *words[] = {level, name, text, advice ? advice : ""};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        mj_put_str(ctx, (mj_str){words[i], (uint32_t)strlen(words[i])});
}

/* store:sums() -> number of queued jobs that may be sent, time of the newest commit (nil: none) | nil, err */
static int store_sums(lua_State *L)
{
    mj_store *s = mjl_store(L);
    int64_t ready, latest;
    int rc = mj_store_sums(s, &ready, &latest);

    if (rc != MJ_OK)
        return mjl_store_fail(L, s, rc);
    mjl_push_int(L, ready);
    if (latest <= 0)
        return 1;
    mjl_push_int(L, latest);
    return 2;
}

/* store:facts() -> {{status= "ok"|"warn"|"fail", check=, message=, advice=}, ...} | nil, err.  See mj_store_facts(). */
static int store_facts(lua_State *L)
{
    static const char *const names[] = {"status", "check", "message", "advice"};
    mj_store *s = mjl_store(L);
    mj_buf *b = mjl_buf(L);
    mj_reader r;
    int rc = mj_store_facts(s, add_fact, b), n = 0;

    if (rc == MJ_OK && b->failed)
        rc = MJ_ENOMEM;
    if (rc != MJ_OK) {
        mj_buf_free(b);
        return mjl_store_fail(L, s, rc);
    }
    lua_newtable(L);
    r = mj_reader_of(b->p ? b->p : (const uint8_t *)"", b->n);
    while (r.p < r.end) {
        lua_createtable(L, 0, 4);
        for (int i = 0; i < 4; i++) {
            mj_str word = mj_get_str(&r);
            if (word.n > 0) {
                lua_pushlstring(L, word.p, word.n);
                lua_setfield(L, -2, names[i]);
            }
        }
        lua_rawseti(L, -2, ++n);
    }
    mj_buf_free(b);
    return 1;
}

void mjl_open_store_stats(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"stats", store_stats}, {"sums", store_sums}, {"facts", store_facts}, {"host", store_host}, {NULL, NULL}};

    mjl_store_methods(L, methods);
}
