/* mjhook-reconcile: one pass of the reconciler, for cron.
 *
 * Options, signals, exit codes and progress are here.  The pass itself is mj:reconcile() in Lua, which this program
 * embeds and which takes the single-run lock, so that a pass from Lua and one from cron exclude each other. */
#include "base/number.h"
#include "lua/compat.h"
#include "os/fd.h"
#include "store/store.h"

#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <lualib.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int luaopen_mjhook_core(lua_State *L);

/* sysexits.h, as PRODUCT.md promises them. */
enum { EXIT_DONE = 0, EXIT_SOME = 1, EXIT_USAGE = 64, EXIT_CANTWRITE = 73, EXIT_BUSY = 75, EXIT_CONFIG = 78 };

static const double LOOK_SECONDS = 0.1; /* with --interval: how soon a queued job is sent when a slot becomes free */

typedef struct options {
    const char *config, *store, *metrics;
    double budget, interval; /* seconds; budget < 0: default; interval 0: one pass */
    long limit;              /* 0: none */
    bool dry_run, json, quiet, verbose;
} options;

static volatile sig_atomic_t stopping;

static void on_signal(int sig)
{
    (void)sig;
    stopping = 1;
}

static void usage(FILE *to)
{
    fputs("usage: mjhook-reconcile [-c FILE] [--store DIR] [--budget SECONDS] [--limit N]\n"
          "                        [--interval SECONDS] [--dry-run] [--json] [--metrics FILE] [-q|-v] [--version]\n"
          "One pass over the unfinished tasks of an mjhook store: recover, poll, submit, deliver.\n"
          "  -c FILE             configuration (else $MJHOOK_CONFIG, else /etc/mjhook/config.lua)\n"
          "  --store DIR         the store, instead of the configuration's\n"
          "  --budget SECONDS    stop after so long (45); what is left is for the next pass\n"
          "  --limit N           poll and deliver at most N\n"
          "  --interval SECONDS  do not exit: a pass every so often\n"
          "  --dry-run           print what would be done; change nothing, ask nothing\n"
          "  --json              print the report as one JSON object\n"
          "  --metrics FILE      write the report for Prometheus' textfile collector\n"
          "  -q, -v              only errors; also what is normal\n"
          "exit: 0 done, 1 some tasks could not be reconciled, 64 usage, 73 cannot write, 75 busy, 78 configuration\n",
          to);
}

/* Prints a message that may quote anything: one line, printable. */
__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...)
{
    char text[4096];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): clang-tidy 14 errs */
    va_end(args);
    for (char *p = text; *p; p++)
        if (*p < ' ' || *p >= 0x7f)
            *p = *p == '\n' || *p == '\t' ? ' ' : '?';
    fprintf(stderr, "mjhook-reconcile: %s\n", text);
}

/* Reads decimal digits, with a fraction unless `whole`; nothing else that strtod() takes. */
static bool number(const char *name, const char *text, bool whole, double low, double high, double *v)
{
    const size_t n = strspn(text, "0123456789");
    const char *end = text + n;

    if (!whole && *end == '.')
        end += 1 + strspn(end + 1, "0123456789");
    *v = mj_number_read(text);
    if (n > 0 && *end == '\0' && *v >= low && *v <= high)
        return true;
    complain("--%s: a %snumber from %.10g to %.10g expected, got \"%s\"", name, whole ? "whole " : "", low, high, text);
    return false;
}

/* Whether an option was there before with another value: one of the two would not count. */
static bool differs(const char *name, const char *value, const char **before)
{
    if (*before && strcmp(*before, value) != 0) {
        complain("--%s was given twice, and takes one value", name);
        return true;
    }
    *before = value;
    return false;
}

/* Returns -1: go on; otherwise the exit code. */
static int parse(int argc, char **argv, options *o)
{
    enum { STORE = 256, BUDGET, LIMIT, INTERVAL, DRY, JSON, METRICS, VERSION };
    static const struct option longs[] = {
        {"config", 1, NULL, 'c'},  {"store", 1, NULL, STORE},       {"budget", 1, NULL, BUDGET},
        {"limit", 1, NULL, LIMIT}, {"interval", 1, NULL, INTERVAL}, {"dry-run", 0, NULL, DRY},
        {"json", 0, NULL, JSON},   {"metrics", 1, NULL, METRICS},   {"quiet", 0, NULL, 'q'},
        {"verbose", 0, NULL, 'v'}, {"version", 0, NULL, VERSION},   {"help", 0, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *values[sizeof longs / sizeof *longs] = {NULL};
    double n;
    int c;

    opterr = 0; /* getopt's messages quote the option as it is */
    while ((c = getopt_long(argc, argv, "c:qvh", longs, NULL)) != -1) {
        for (unsigned i = 0; longs[i].name; i++)
            if (longs[i].has_arg && longs[i].val == c && differs(longs[i].name, optarg, &values[i]))
                return EXIT_USAGE;
        switch (c) {
        case 'c':
            o->config = optarg;
            break;
        case STORE:
            o->store = optarg;
            break;
        case BUDGET:
            if (!number("budget", optarg, false, 0.1, 86400, &o->budget))
                return EXIT_USAGE;
            break;
        case LIMIT:
            if (!number("limit", optarg, true, 1, 1e9, &n))
                return EXIT_USAGE;
            o->limit = (long)n;
            break;
        case INTERVAL:
            if (!number("interval", optarg, false, 0.1, 86400, &o->interval))
                return EXIT_USAGE;
            break;
        case DRY:
            o->dry_run = true;
            break;
        case JSON:
            o->json = true;
            break;
        case METRICS:
            o->metrics = optarg;
            break;
        case 'q':
            o->quiet = true;
            break;
        case 'v':
            o->verbose = true;
            break;
        case VERSION:
            printf("mjhook-reconcile %s (store schema %d, %s)\n", MJ_VERSION, MJ_STORE_SCHEMA, MJL_LUA_RELEASE);
            return EXIT_DONE;
        case 'h':
            usage(stdout);
            return EXIT_DONE;
        default:
            complain("unknown option or missing value: \"%s\"", argv[optind - 1]);
            usage(stderr);
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        complain("unexpected argument \"%s\"", argv[optind]);
        usage(stderr);
        return EXIT_USAGE;
    }
    return -1;
}

/* Adds the templates with absolute names.  A relative one would load code from the working directory. */
static void add_absolute(luaL_Buffer *b, const char *templates)
{
    const char *end;

    for (; templates && *templates; templates = *end ? end + 1 : end) {
        end = strchrnul(templates, ';');
        if (*templates == '/') {
            luaL_addlstring(b, templates, (size_t)(end - templates));
            luaL_addchar(b, ';');
        }
    }
}

/* Sets package[field]: our own place, then the environment's templates, then Lua's. */
static void set_templates(lua_State *L, const char *field, const char *own, const char *variable)
{
    char versioned[32];
    const char *given, *standard;
    luaL_Buffer b;

    snprintf(versioned, sizeof versioned, "%s" MJL_LUA_SUFFIX, variable);
    given = getenv(versioned);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, field);
    standard = lua_tostring(L, -1);
    luaL_buffinit(L, &b);
    add_absolute(&b, own);
    add_absolute(&b, given ? given : getenv(variable));
    add_absolute(&b, standard);
    luaL_pushresult(&b);
    lua_setfield(L, -3, field);
    lua_pop(L, 2);
}

/* cron sets no LUA_PATH.  So modules are found from where the program is: PREFIX/bin is beside PREFIX/share/lua, or, in
 * OpenResty's own tree, beside PREFIX/site/lualib; and build/bin is in a source tree, which a file that the Makefile
 * leaves in build shows. */
static void set_path(lua_State *L)
{
    char exe[PATH_MAX], path[2 * PATH_MAX + 64] = "", cpath[2 * PATH_MAX + 64] = "", stamp[PATH_MAX + 32];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);

    if (n > 0) {
        const char *dir;
        exe[n] = '\0';
        dir = dirname(dirname(exe));
        snprintf(stamp, sizeof stamp, "%s/linked", dir);
        if (access(stamp, F_OK) == 0) {
            snprintf(path, sizeof path, "%s/../lua/?.lua", dir);
            snprintf(cpath, sizeof cpath, "%s/" MJL_LUA_ABI "/?.so", dir);
        } else {
            snprintf(path, sizeof path, "%s/share/lua/" MJL_LUA_ABI "/?.lua;%s/site/lualib/?.lua", dir, dir);
            snprintf(cpath, sizeof cpath, "%s/lib/lua/" MJL_LUA_ABI "/?.so;%s/site/lualib/?.so", dir, dir);
        }
    }
    set_templates(L, "path", path, "LUA_PATH");
    set_templates(L, "cpath", cpath, "LUA_CPATH");
}

static int l_stopping(lua_State *L)
{
    lua_pushboolean(L, stopping);
    return 1;
}

static int add_traceback(lua_State *L)
{
    luaL_traceback(L, L, lua_tostring(L, 1), 2);
    return 1;
}

/* An error's message with a traceback; without memory for it, the message alone.  An error of mjhook.core is its
 * message. */
static int traceback(lua_State *L)
{
    if (lua_type(L, 1) == LUA_TSTRING) {
        lua_pushcfunction(L, add_traceback);
        lua_pushvalue(L, 1);
        if (lua_pcall(L, 1, 1, 0) != LUA_OK)
            lua_settop(L, 1);
    } else {
        luaL_callmeta(L, 1, "__tostring");
    }
    return 1;
}

static void set_options(lua_State *L, const options *o)
{
    lua_newtable(L);
    if (o->config)
        lua_pushstring(L, o->config), lua_setfield(L, -2, "config");
    if (o->store)
        lua_pushstring(L, o->store), lua_setfield(L, -2, "store");
    if (o->metrics)
        lua_pushstring(L, o->metrics), lua_setfield(L, -2, "metrics");
    if (o->budget > 0)
        lua_pushnumber(L, o->budget), lua_setfield(L, -2, "budget");
    if (o->limit > 0)
        lua_pushinteger(L, o->limit), lua_setfield(L, -2, "limit");
    lua_pushboolean(L, o->dry_run), lua_setfield(L, -2, "dry_run");
    lua_pushboolean(L, o->json), lua_setfield(L, -2, "json");
    lua_pushboolean(L, o->quiet), lua_setfield(L, -2, "quiet");
    lua_pushboolean(L, o->verbose), lua_setfield(L, -2, "verbose");
    lua_pushboolean(L, isatty(STDERR_FILENO)), lua_setfield(L, -2, "terminal");
    lua_pushcfunction(L, l_stopping), lua_setfield(L, -2, "stopping");
}

/* Waits; a signal ends it early. */
static void nap(double seconds)
{
    struct timespec t = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    sigset_t ours, before;

    /* Signals are blocked until ppoll() lets them in, so none can come between the check and the wait. */
    sigemptyset(&ours);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    sigprocmask(SIG_BLOCK, &ours, &before);
    if (!stopping)
        ppoll(NULL, 0, &t, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* As the first process of a container this one inherits the children that handlers leave behind, and must wait for
 * them.  Between passes it has no children of its own. */
static void reap_orphans(void)
{
    if (getpid() == 1)
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
}

/* Waits until the next pass, or until the function on top of the stack wants it sooner.  Asking it costs microseconds.
 */
static void rest(lua_State *L, double seconds)
{
    bool wanted = false;

    for (; seconds > 0 && !wanted && !stopping; seconds -= LOOK_SECONDS) {
        nap(seconds < LOOK_SECONDS ? seconds : LOOK_SECONDS);
        reap_orphans();
        lua_pushvalue(L, -1);
        wanted = lua_pcall(L, 0, 1, 0) == LUA_OK && lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
}

static int run(lua_State *L, const options *o)
{
    int rc, handler;

    lua_pushcfunction(L, traceback);
    handler = lua_gettop(L);
    lua_getglobal(L, "require");
    lua_pushstring(L, "mjhook.reconcile.report");
    if (lua_pcall(L, 1, 1, handler) != LUA_OK) {
        const char *why = lua_tostring(L, -1);
        complain("%s", why ? why : "an error without a message");
        return why && strstr(why, "not enough memory")
                   ? EXIT_SOME
                   : EXIT_CONFIG; /* systemd starts the service again after EXIT_SOME */
    }
    set_options(L, o); /* it keeps what it opened between passes */
    lua_call(L, 1, 2); /* sweeper(options) -> pass() -> exit code, wanted() -> boolean; raises nothing */
    do {
        lua_pushvalue(L, -2);
        if (lua_pcall(L, 0, 1, handler) != LUA_OK) {
            complain("%s", lua_tostring(L, -1) ? lua_tostring(L, -1) : "an error without a message");
            rc = EXIT_SOME;
        } else {
            rc = (int)lua_tointeger(L, -1);
        }
        lua_pop(L, 1);
        if (o->interval <= 0 || rc == EXIT_CONFIG || rc == EXIT_CANTWRITE)
            return rc;
        rest(L, o->interval);
    } while (!stopping);
    return EXIT_DONE;
}

/* Everything that may raise: outside a protected call Lua ends the process with SIGABRT. */
static int start(lua_State *L)
{
    const options *o = lua_touserdata(L, 1);

    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV"); /* set_path() reads the variables that count */
    luaL_openlibs(L);
    set_path(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_mjhook_core);
    lua_setfield(L, -2, "mjhook.core");
    lua_pop(L, 2);
    lua_pushinteger(L, run(L, o));
    return 1;
}

/* Batch work on the processors, too: when this process wakes up, the kernel does not stop a receiver of callbacks for
 * it. It gets its share afterwards.  A lower priority (nice) would be worse for the receiver: this process was stopped
 * in every second transaction, for milliseconds, and held the store's lock meanwhile.  What the caller has set stays.
 * (The functions of musl that are called like these system calls do nothing.) */
static void be_batch(void)
{
    const struct sched_param none = {0};

    if (syscall(SYS_sched_getscheduler, 0) == SCHED_OTHER)
        syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &none);
}

int main(int argc, char **argv)
{
    struct sigaction sa = {.sa_handler = on_signal}; /* no SA_RESTART: a signal ends a wait */
    options o = {.budget = -1};
    lua_State *L;
    int rc;

    mj_fd_fill_standard(); /* before anything else is opened */
    mj_fd_outlive_limit();
    rc = parse(argc, argv, &o);
    if (rc == EXIT_DONE && fflush(stdout) != 0) { /* version or help was printed */
        perror("mjhook-reconcile: standard output can't be written");
        return EXIT_CANTWRITE;
    }
    if (rc >= 0)
        return rc;
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    be_batch();
    L = luaL_newstate();
    if (!L) {
        fputs("mjhook-reconcile: out of memory\n", stderr);
        return EXIT_SOME;
    }
    lua_pushcfunction(L, start);
    lua_pushlightuserdata(L, &o);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
        rc = (int)lua_tointeger(L, -1);
    } else {
        complain("%s", lua_tostring(L, -1) ? lua_tostring(L, -1) : "an error without a message");
        rc = EXIT_SOME;
    }
    lua_close(L);
    return rc;
}
