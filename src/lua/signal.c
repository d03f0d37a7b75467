/* mjhook.core's care for Ctrl-C: a program that sends lets the answers come in before it ends. */
#include "lua/core.h"

#include <signal.h>

static volatile sig_atomic_t caught;
static struct sigaction before_int, before_term;

/* The second one ends the process at once. */
static void on_signal(int sig)
{
    if (caught) {
        signal(sig, SIG_DFL);
        raise(sig); /* it comes when this function returns */
    }
    caught = sig;
}

/* core.catch_signals(true): from now on SIGINT and SIGTERM do nothing but to be told of by core.signalled(), until
 * core.catch_signals(false) makes them what they were.  It is for a program, since it concerns the whole process. */
static int core_catch_signals(lua_State *L)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART}; /* sleep and poll end all the same */

    if (lua_toboolean(L, 1)) {
        caught = 0;
        sigaction(SIGINT, &sa, &before_int);
        sigaction(SIGTERM, &sa, &before_term);
    } else {
        sigaction(SIGINT, &before_int, NULL);
        sigaction(SIGTERM, &before_term, NULL);
    }
    return 0;
}

/* core.signalled() -> the number of the signal that was caught | nil */
static int core_signalled(lua_State *L)
{
    if (!caught)
        return 0;
    lua_pushinteger(L, caught);
    return 1;
}

void mjl_open_signal(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"catch_signals", core_catch_signals}, {"signalled", core_signalled}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
