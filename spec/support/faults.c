/* faults: allocations, writes and descriptors that fail, by number.
 *
 * Loaded twice: by LD_PRELOAD, so that its functions are found before libc's, and as the Lua module "faults" of the
 * same program, which arms them.  An allocation counts by the library that asks for it: "core" is ours, "lmdb",
 * "crypto", "curl", "cjson"; "lua" is the interpreter, whose own allocator calls realloc().
 *
 * - faults.alloc(library, n, times): the n-th allocation from now on fails, and those after it, `times` in all.
 * - faults.disk(what, n, times): the n-th write or sync of a file *.mdb fails: "EIO", "ENOSPC", "EDQUOT", or "short",
 *   when only half of it is written.
 * - faults.descriptors(n): the process can have n more descriptors.
 * - faults.off(): ends it; gives how many there were of what was counted.
 *
 * A program without the module is armed by $FAULTS, "library n times", from its start on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <link.h>
#include <lua.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

typedef enum { NOTHING, ALLOC, DISK } target;

static atomic_int aimed;
static atomic_long passed;
static long first, last;
static uintptr_t low, high; /* the library's code */
static int error;
static bool half;

/* Whether this passage fails. */
static bool struck(void)
{
    long at = atomic_fetch_add(&passed, 1) + 1;

    return at >= first && at <= last;
}

static bool fails(const void *caller)
{
    return atomic_load(&aimed) == ALLOC && (uintptr_t)caller >= low && (uintptr_t)caller < high && struck();
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t n)
{
    return fails(CALLER) ? errno = ENOMEM, NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return fails(CALLER) ? errno = ENOMEM, NULL : __libc_calloc(n, size);
}

/* To make something smaller does not fail, which Lua relies on; nor does it count. */
void *realloc(void *p, size_t n)
{
    size_t has = 0;

    if (atomic_load(&aimed) == ALLOC && p)
        has = malloc_usable_size(p);
    if (n > 0 && (!p || n > has) && fails(CALLER))
        return errno = ENOMEM, NULL;
    return __libc_realloc(p, n);
}

char *strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = fails(CALLER) ? errno = ENOMEM, NULL : __libc_malloc(n);

    return p ? memcpy(p, s, n) : NULL;
}

/* ---- the disk ---- */

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static bool is_ours(int fd)
{
    char link[64], path[4096];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path);
    return n > 4 && memcmp(path + n - 4, ".mdb", 4) == 0;
}

static bool sick(int fd)
{
    return atomic_load(&aimed) == DISK && is_ours(fd) && struck();
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (sick(fd))
        return half && n > 1 ? REAL(pwrite)(fd, p, n / 2, at) : (errno = error, -1);
    return REAL(pwrite)(fd, p, n, at);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    if (sick(fd))
        return half && n > 1 ? REAL(pwritev)(fd, v, n / 2, at) : (errno = error, -1);
    return REAL(pwritev)(fd, v, n, at);
}

ssize_t write(int fd, const void *p, size_t n)
{
    if (sick(fd))
        return half && n > 1 ? REAL(write)(fd, p, n / 2) : (errno = error, -1);
    return REAL(write)(fd, p, n);
}

int fdatasync(int fd)
{
    return sick(fd) ? errno = error, -1 : REAL(fdatasync)(fd);
}

int fsync(int fd)
{
    return sick(fd) ? errno = error, -1 : REAL(fsync)(fd);
}

/* ---- the Lua module ---- */

static struct rlimit limit;

typedef struct search {
    const char *name;
    const char *prefix;
    bool found;
} search;

static int look(struct dl_phdr_info *info, size_t size, void *arg)
{
    search *s = arg;
    const char *base = strrchr(info->dlpi_name, '/');
    bool wanted;

    (void)size;
    base = base ? base + 1 : info->dlpi_name;
    if (strcmp(s->name, "lua") == 0)
        wanted = *base == '\0' || strstr(base, "luajit");
    else
        wanted = strncmp(base, s->prefix, strlen(s->prefix)) == 0 &&
                 strncmp(base + strlen(s->prefix), s->name, strlen(s->name)) == 0;
    if (!wanted || s->found)
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type == PT_LOAD && (h->p_flags & PF_X)) {
            low = info->dlpi_addr + h->p_vaddr;
            high = low + h->p_memsz;
            s->found = true;
        }
    }
    return 0;
}

/* libcurl is meant by "curl", not the module curl.so, which is linked to it. */
static bool find(const char *name)
{
    search s = {name, "lib", false};

    dl_iterate_phdr(look, &s);
    if (!s.found) {
        s.prefix = "";
        dl_iterate_phdr(look, &s);
    }
    return s.found;
}

/* Before main(): what runs earlier is the loader's. */
__attribute__((constructor)) static void arm(void)
{
    const char *spec = getenv("FAULTS");
    char name[16];
    long n, times;

    if (!spec)
        return;
    if (sscanf(spec, "%15s %ld %ld", name, &n, &times) != 3)
        _exit(64);
    unsetenv("FAULTS"); /* not for what it starts */
    if (!find(name))
        _exit(64);
    first = n;
    last = n + times - 1;
    atomic_store(&aimed, ALLOC);
}

static void aim(lua_State *L, target at)
{
    first = (long)luaL_checkinteger(L, 2);
    last = first > 0 ? first + (long)luaL_optinteger(L, 3, 1) - 1 : 0;
    atomic_store(&passed, 0);
    atomic_store(&aimed, at);
}

static int l_alloc(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);

    if (!find(name))
        return luaL_error(L, "no library %s is loaded", name);
    aim(L, ALLOC);
    return 0;
}

static int l_disk(lua_State *L)
{
    static const char *const names[] = {"EIO", "ENOSPC", "EDQUOT", "short", NULL};
    static const int errors[] = {EIO, ENOSPC, EDQUOT, ENOSPC};
    int what = luaL_checkoption(L, 1, NULL, names);

    error = errors[what];
    half = what == 3;
    aim(L, DISK);
    return 0;
}

static int l_descriptors(lua_State *L)
{
    long left = (long)luaL_checkinteger(L, 1);
    struct rlimit low_one;
    rlim_t fd = 0;

    getrlimit(RLIMIT_NOFILE, &limit);
    for (; left > 0 || fcntl((int)fd, F_GETFD) != -1; fd++)
        left -= fcntl((int)fd, F_GETFD) == -1;
    low_one = (struct rlimit){fd, limit.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low_one);
    return 0;
}

static int l_off(lua_State *L)
{
    atomic_store(&aimed, NOTHING);
    if (limit.rlim_cur) {
        setrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = 0;
    }
    lua_pushinteger(L, (lua_Integer)atomic_load(&passed));
    return 1;
}

int luaopen_faults(lua_State *L);

int luaopen_faults(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"alloc", l_alloc}, {"disk", l_disk}, {"descriptors", l_descriptors}, {"off", l_off}, {NULL, NULL}};

    lua_newtable(L);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
    return 1;
}
