/* Letting go of memory that only looks like ours: pages of the mapped file that were read. */
#include "store/lmdb/env_impl.h"

#include <sys/mman.h>

void mj_store_trim(mj_store *s)
{
    const uint8_t *map;

    /* Between begin and end the map is not moved.  The pages stay in the system's cache: a thread that needs one again
     * gets it from there. */
    if (mj_store_begin(s) != 0)
        return;
    map = atomic_load(&s->env->map);
    if (map)
        madvise((void *)(uintptr_t)map, s->env->map_size, MADV_DONTNEED);
    mj_store_end(s, 0);
}
