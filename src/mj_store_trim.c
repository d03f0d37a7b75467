/* Letting go of memory that only looks like ours: pages of the mapped file that were read. */
#include "mj_store_impl.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Where the file is mapped.  LMDB does not tell, unless it is told to map at a fixed address. */
static bool mapping(const struct stat *file, void **from, size_t *bytes)
{
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    bool found = false;

    while (maps && !found && fgets(line, sizeof line, maps)) {
        unsigned long low, high, inode;
        unsigned dev_major, dev_minor;
        if (sscanf(line, "%lx-%lx %*s %*s %x:%x %lu", &low, &high, &dev_major, &dev_minor, &inode) == 5 &&
            inode == file->st_ino && makedev(dev_major, dev_minor) == file->st_dev) {
            *from = (void *)low; /* NOLINT(performance-no-int-to-ptr): an address, as the kernel writes it */
            *bytes = high - low;
            found = true;
        }
    }
    if (maps)
        fclose(maps);
    return found;
}

void mj_store_trim(mj_store *s)
{
    struct stat file;
    void *from;
    size_t bytes;
    int fd;

    /* Between begin and end the map is not moved.  The pages stay in the system's cache: who needs one again, another
     * thread at this moment for example, gets it from there. */
    if (mj_store_begin(s) != 0)
        return;
    if (mdb_env_get_fd(mj_env_lmdb(s->env), &fd) == 0 && fstat(fd, &file) == 0 && mapping(&file, &from, &bytes))
        madvise(from, bytes, MADV_DONTNEED);
    mj_store_end(s, 0);
}
