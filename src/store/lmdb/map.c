/* The map, and whether its file is still what LMDB takes it for. */
#include "store/lmdb/env_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const uint64_t MAP_STEP = 1u << 30; /* the map doubles up to this, then grows by it */

uint64_t mj_env_size(const mj_env *e)
{
    MDB_envinfo info;

    return mdb_env_info(e->lmdb, &info) == 0 ? info.me_mapsize : 0;
}

/* ---- the map, and whether the file is what LMDB takes it for ---- */

/* Finds where the file is mapped, by a pointer `inside` it.  LMDB does not tell, and /proc does.  Needed so that a
 * pointer from a damaged page is refused before it is followed (mj_env_inside); mj_store_trim uses the address, too.
 * Device and inode are not compared: those of a file on overlayfs are others here.  NULL: `inside` is in no file, but
 * in memory. */
static const uint8_t *find_map(const uint8_t *inside)
{
    uintptr_t address = (uintptr_t)inside;
    const uint8_t *found = NULL;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");

    while (maps && !found && fgets(line, sizeof line, maps)) {
        unsigned long low, high, offset, inode;
        if (sscanf(line, "%lx-%lx %*s %lx %*s %lu", &low, &high, &offset, &inode) == 4 && address >= low &&
            address < high && inode != 0)
            found = inside - (address - low) - offset;
    }
    if (maps)
        fclose(maps);
    return found;
}

void mj_env_note_map(mj_env *e)
{
    e->map_size = e->broken ? 0 : mj_env_size(e);
    atomic_store(&e->map, NULL);
    atomic_store(&e->map_tries, 0);
}

int mj_env_set_size(mj_env *e, uint64_t size)
{
    int rc = mdb_env_set_mapsize(e->lmdb, (size_t)size);

    e->broken = e->broken || rc != 0; /* LMDB unmaps first: when it can't map again, only opening it anew helps */
    mj_env_note_map(e);
    return rc;
}

int mj_env_grow_held(mj_env *e, uint64_t full)
{
    uint64_t size = mj_env_size(e), most = atomic_load(&e->map_max);

    if (size > full)
        return 0; /* another thread was faster */
    size += size < MAP_STEP ? size : MAP_STEP;
    if (size > most)
        size = most;
    return size <= full ? MDB_MAP_FULL : mj_env_set_size(e, size);
}

/* Before LMDB looks into the map: what it had of the file is there still. */
int mj_env_shrunk(const mj_env *e)
{
    uint64_t known = atomic_load(&e->known); /* first: the file grows meanwhile, and this with it */
    struct stat st;

    return fstat(e->fd, &st) == 0 && (uint64_t)st.st_size >= known ? 0 : MJ_TORN;
}

static void note_size(mj_env *e, uint64_t bytes)
{
    uint64_t known = atomic_load(&e->known);

    while (known < bytes && !atomic_compare_exchange_weak(&e->known, &known, bytes))
        ;
}

/* The file may end before pages that are free.  They are added then, so that this is found out once. */
static int short_file(mj_env *e, size_t txn, uint64_t bytes, uint64_t need)
{
    char why[128];
    int rc = mj_pages_tail(e->fd, txn, (size_t)(bytes / e->page_size), why, sizeof why);

    if (rc == MJ_ECHANGED)
        return 0; /* other processes commit at this moment: they look, too */
    if (rc != 0)
        return rc == MJ_ECORRUPT ? MJ_TORN : rc;
    if (fallocate(e->fd, 0, (off_t)bytes, (off_t)(need - bytes)) == 0) /* never makes a file shorter */
        note_size(e, need);
    return 0;
}

int mj_env_sound(mj_env *e, MDB_txn *t, bool writes)
{
    size_t newest = mdb_txn_id(t) - writes;
    MDB_envinfo info;
    struct stat st;
    uint64_t need;
    int rc = mdb_env_info(e->lmdb, &info);

    if (rc != 0)
        return rc;
    if (writes ? info.me_last_txnid != newest : info.me_last_txnid < newest) /* readers are overtaken */
        return MJ_MISFIT;
    need = ((uint64_t)info.me_last_pgno + 1) * e->page_size;
    if (need <= atomic_load(&e->known))
        return 0;
    if (fstat(e->fd, &st) != 0)
        return errno;
    if ((uint64_t)st.st_size < need)
        return short_file(e, newest, (uint64_t)st.st_size, need);
    note_size(e, (uint64_t)st.st_size);
    return 0;
}

/* What is not plainly inside. */
static int look_closer(mj_env *e, const MDB_val *v)
{
    enum { PAGE_HEAD = 16, FLAGS_AT = 10, PAGES_AT = 12, BIG = 4, MAP_TRIES = 100 };
    const uint8_t *p = v->mv_data, *map = atomic_load(&e->map);
    struct stat st;
    uint64_t end;
    uint32_t pages;

    if (v->mv_size == 0)
        return 0;
    if (!map) {
        if (atomic_fetch_add(&e->map_tries, 1) >= MAP_TRIES)
            return 0; /* there is no /proc here: LMDB is believed */
        map = find_map(p);
        atomic_store(&e->map, map);
        if (!map)
            return 0;
    }
    if (p >= map && p < map + e->map_size) {
        end = (uint64_t)(p - map) + v->mv_size;
        if (end <= atomic_load(&e->known) || (fstat(e->fd, &st) == 0 && end <= (uint64_t)st.st_size))
            return 0;
        return MJ_ECORRUPT;
    }
    if (v->mv_size <= e->page_size) /* on a page that this transaction changed */
        return 0;
    memcpy(&pages, p - PAGE_HEAD + PAGES_AT, sizeof pages);
    return (p[FLAGS_AT - PAGE_HEAD] & BIG) && v->mv_size + PAGE_HEAD <= (uint64_t)pages * e->page_size ? 0
                                                                                                       : MJ_ECORRUPT;
}

int mj_env_inside(mj_env *e, const MDB_val *v)
{
    const uint8_t *p = v->mv_data, *map = atomic_load(&e->map);

    if (map && p >= map && (uint64_t)(p - map) < e->map_size &&
        (uint64_t)(p - map) + v->mv_size <= atomic_load(&e->known))
        return 0;
    return look_closer(e, v);
}

int mj_env_get(mj_env *e, MDB_txn *t, int db, MDB_val key, MDB_val *v)
{
    int rc = mdb_get(t, e->dbi[db], &key, v);

    return rc != 0 ? rc : mj_env_inside(e, v);
}

int mj_env_next(mj_env *e, MDB_cursor *c, MDB_val *key, MDB_val *v, MDB_cursor_op op)
{
    int rc = mdb_cursor_get(c, key, v, op);

    if (rc == 0)
        rc = mj_env_inside(e, key);
    return rc != 0 ? rc : mj_env_inside(e, v);
}
