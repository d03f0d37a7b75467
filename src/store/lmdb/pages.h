/* Layout of LMDB's file: version 0.9, data version 1 (MDB_meta, MDB_page, MDB_node, MDB_db in mdb.c), in the machine's
 * own order.  For store/lmdb/roots.c and store/lmdb/pages.c, which read it without LMDB. */
#ifndef MJ_ENV_PAGES_H
#define MJ_ENV_PAGES_H

#include "store/lmdb/env_impl.h"

enum {
    MAGIC = (int)0xBEEFC0DE,
    DATA_VERSION = 1,
    SMALLEST_PAGE = 512, /* LMDB's own bounds */
    LARGEST_PAGE = 65536,
    DEEPEST = 32,
    LONGEST_KEY = 511,
    IS_BRANCH = 1,
    IS_LEAF = 2,
    IS_OVERFLOW = 4,
    IS_META = 8,
    NODE_BIG = 1, /* the value lies on pages of its own */
    NODE_TREE = 2,
    FREE = 0, /* the two trees of a root: free pages by transaction, and names of the other trees */
    NAMES = 1,
    MOST_TAIL = 1 << 20, /* pages at the end of a file that were never written; 4 GiB */
};
static const size_t NO_PAGE = (size_t)-1;

typedef struct tree { /* MDB_db */
    uint32_t pad;     /* of the first tree: the size of a page */
    uint16_t flags, depth;
    size_t branches, leaves, overflows, entries, root;
} tree;

typedef struct root { /* MDB_meta */
    uint32_t magic, version;
    size_t address, map_size;
    tree trees[2];
    size_t last_page, txn;
} root;

typedef struct head { /* MDB_page */
    size_t number;
    uint16_t pad, flags;
    union {
        struct {
            uint16_t lower, upper;
        } room;
        uint32_t pages;
    } as;
} head;

typedef struct node { /* MDB_node */
    uint16_t low, high, flags, key;
} node;

/* pread() of n bytes, fewer at the file's end; -1: see errno. */
ssize_t mj_pages_read(int fd, void *to, size_t n, size_t at);
/* Both roots; false: one of them is damaged. */
bool mj_pages_read_roots(int fd, root r[2]);

#endif
