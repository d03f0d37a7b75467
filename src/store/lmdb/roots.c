/* The two roots of LMDB's file, read without LMDB: what they say, and whether a file has none yet. */
#include "store/lmdb/pages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t LARGEST_MAP = (size_t)1 << (sizeof(size_t) == 8 ? 47 : 31);

ssize_t mj_pages_read(int fd, void *to, size_t n, size_t at)
{
    size_t done = 0;

    while (done < n) {
        ssize_t got = pread(fd, (char *)to + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static bool is_page_size(size_t n)
{
    return n >= SMALLEST_PAGE && n <= LARGEST_PAGE && (n & (n - 1)) == 0;
}

/* Reads root `which` of a file with pages of this size. */
static bool read_root(int fd, size_t page_size, unsigned which, root *r)
{
    uint8_t bytes[sizeof(head) + sizeof *r];
    head h;

    if (mj_pages_read(fd, bytes, sizeof bytes, which * page_size) != (ssize_t)sizeof bytes)
        return false;
    memcpy(&h, bytes, sizeof h);
    memcpy(r, bytes + sizeof h, sizeof *r);
    return h.number == which && h.flags == IS_META && r->magic == (uint32_t)MAGIC && r->version == DATA_VERSION &&
           is_page_size(r->trees[FREE].pad);
}

/* Root `which` holds the transactions with its parity; a new file has two of transaction 0. */
static bool plausible(const root *r, unsigned which)
{
    return (r->txn & 1) == (r->txn ? which : 0) && r->last_page >= 1 && r->last_page < NO_PAGE / LARGEST_PAGE &&
           r->map_size <= LARGEST_MAP && r->trees[FREE].depth <= DEEPEST && r->trees[NAMES].depth <= DEEPEST;
}

/* Both roots; a writer may be at one of them, so what looks wrong is read again. */
bool mj_pages_read_roots(int fd, root r[2])
{
    enum { TRIES = 4 };

    for (int i = 0; i < TRIES; i++) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        bool first = read_root(fd, page, 0, &r[0]);
        if (first)
            page = r[0].trees[FREE].pad;
        if (first && read_root(fd, page, 1, &r[1]) && r[1].trees[FREE].pad == page && plausible(&r[0], 0) &&
            plausible(&r[1], 1))
            return true;
    }
    return false;
}

/* Whether a file without two good roots is LMDB's all the same: it begins with the number of page 0, has one good root,
 * or pages that know their numbers. */
static bool was_lmdb(int fd)
{
    enum { LOOKED_AT = 16, ENOUGH = 2 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE), known = 0;
    uint64_t number = 0; /* of which a file that was cut off may have a part */
    uint32_t magic;
    root r;
    head h;

    if (mj_pages_read(fd, &number, sizeof number, 0) > 0 && number == 0)
        return true;
    if (read_root(fd, page, 0, &r) || read_root(fd, page, 1, &r))
        return true;
    if (mj_pages_read(fd, &magic, sizeof magic, sizeof h) == (ssize_t)sizeof magic && magic == (uint32_t)MAGIC)
        return true;
    for (size_t i = 2; i < LOOKED_AT && mj_pages_read(fd, &h, sizeof h, i * page) == (ssize_t)sizeof h; i++)
        known += h.number == i && (h.flags == IS_LEAF || h.flags == IS_BRANCH || h.flags == IS_OVERFLOW);
    return known >= ENOUGH;
}

/* Empty, or the root of a store into which nothing was ever committed.  A file of zeros is something else: LMDB's first
 * bytes are zeros, so it may be what is left of a store that was cut off. */
static bool holds_nothing(int fd, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    root r;

    return size == 0 || (size <= page && read_root(fd, page, 0, &r) && r.txn == 0 && r.trees[NAMES].root == NO_PAGE &&
                         r.last_page == 1);
}

int mj_pages_roots(int fd, mj_roots *out, char *why, size_t size)
{
    struct stat st;
    root r[2];

    memset(out, 0, sizeof *out);
    if (fstat(fd, &st) != 0)
        return errno;
    out->file = (size_t)st.st_size;
    if (holds_nothing(fd, out->file)) {
        out->nothing = true;
        return 0;
    }
    if (!mj_pages_read_roots(fd, r)) {
        if (!was_lmdb(fd)) {
            snprintf(why, size, "it is no LMDB file");
            return MJ_EFORMAT;
        }
        snprintf(why, size, "its first pages are damaged");
        return MJ_ECORRUPT;
    }
    for (int i = 0; i < 2; i++)
        out->txn[i] = r[i].txn;
    out->page_size = r[0].trees[FREE].pad;
    out->last_page = r[r[1].txn > r[0].txn].last_page;
    return 0;
}

bool mj_pages_agree(const mj_roots *r, size_t txn)
{
    size_t here = r->txn[txn & 1], other = r->txn[!(txn & 1)];

    return here == txn && (other < txn || other == txn + 1 || txn == 0);
}
