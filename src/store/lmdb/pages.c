/* The pages of LMDB's file, read without LMDB.
 *
 * LMDB trusts its file: a page number that points beyond the end, or a size that is too large, ends the process.
 * This file reads the same pages with pread() and compares all that LMDB follows with the bounds of page and file.
 *
 * A page belongs to a snapshot.  While a reader of LMDB holds that snapshot, no writer changes the page. */
#include "store/lmdb/pages.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct look {
    int fd;
    size_t page_size, last_page;
    size_t most, seen; /* pages of one tree: looked at at most (0: all), and so far */
    uint8_t *used;     /* a bit for each page, when all are looked at */
    size_t tail_from;  /* free pages from this one on are counted */
    size_t tail;
    char *why;
    size_t why_size;
    unsigned ntrees;
    struct {
        char name[16];
        tree t;
    } trees[MJ_NINDEXES + 8];
} look;

__attribute__((format(printf, 2, 3))) static int bad(look *l, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(l->why, l->why_size, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): clang-tidy 14 errs */
    va_end(args);
    return MJ_ECORRUPT;
}

static int mark(look *l, size_t page)
{
    if (page < 2 || page > l->last_page)
        return bad(l, "page %zu is named, the last one is %zu", page, l->last_page);
    if (!l->used)
        return 0;
    if (l->used[page / 8] & (1u << page % 8))
        return bad(l, "page %zu is used twice", page);
    l->used[page / 8] = (uint8_t)(l->used[page / 8] | 1u << page % 8);
    return 0;
}

static int read_page(look *l, size_t page, void *bytes, size_t n)
{
    ssize_t got = mj_pages_read(l->fd, bytes, n, page * l->page_size);
    size_t number;

    if (got < 0)
        return errno;
    if ((size_t)got < n)
        return bad(l, "page %zu is missing: the file is broken off", page);
    memcpy(&number, bytes, sizeof number);
    return number == page ? 0 : bad(l, "page %zu is another one", page);
}

/* A value on pages of its own: `n` bytes from page `first` on. */
static int look_at_big(look *l, size_t first, size_t n)
{
    size_t need = (sizeof(head) - 1 + n) / l->page_size + 1;
    head h;
    int rc = mark(l, first);

    if (rc == 0)
        rc = read_page(l, first, &h, sizeof h);
    if (rc != 0)
        return rc;
    if (h.flags != IS_OVERFLOW || h.as.pages < need || h.as.pages > l->last_page + 1 - first)
        return bad(l, "page %zu should begin a value of %zu bytes", first, n);
    for (size_t i = 1; i < h.as.pages && rc == 0; i++)
        rc = mark(l, first + i);
    return rc;
}

/* An entry of the tree of free pages: their number, and their numbers. */
static int look_at_free(look *l, const uint8_t *value, size_t n, size_t big)
{
    size_t *ids = calloc(1, n + sizeof *ids), count = n / sizeof *ids;
    int rc = 0;

    if (!ids)
        return ENOMEM;
    if (n % sizeof *ids != 0 || count == 0)
        rc = bad(l, "an entry of the free pages has %zu bytes", n);
    else if (!big)
        memcpy(ids, value, n);
    else if (mj_pages_read(l->fd, ids, n, big * l->page_size + sizeof(head)) != (ssize_t)n)
        rc = bad(l, "page %zu is missing: the file is broken off", big);
    if (rc == 0 && ids[0] > count - 1) /* fewer: room was reserved for more */
        rc = bad(l, "an entry of the free pages should name %zu, it names %zu", ids[0], count - 1);
    for (size_t i = 1; rc == 0 && i <= ids[0]; i++) {
        rc = mark(l, ids[i]);
        l->tail += ids[i] >= l->tail_from;
    }
    free(ids);
    return rc;
}

/* A tree that is named in the tree of names.  Those that a newer mjhook may have made are not looked at. */
static int note_tree(look *l, const char *name, size_t length, const uint8_t *value, size_t n)
{
    tree t;

    if (n != sizeof t)
        return bad(l, "the record of a tree has %zu bytes", n);
    if (length >= sizeof l->trees[0].name || l->ntrees == sizeof l->trees / sizeof l->trees[0])
        return 0;
    memcpy(&t, value, sizeof t);
    for (int db = 0; db < MJ_NINDEXES; db++)
        if (strlen(mj_index_name((mj_index)db)) == length && memcmp(mj_index_name((mj_index)db), name, length) == 0) {
            memcpy(l->trees[l->ntrees].name, name, length);
            l->trees[l->ntrees++].t = t;
        }
    return 0;
}

typedef struct at { /* where in a tree */
    int kind;       /* FREE, NAMES, or another number: one of ours */
    unsigned level, depth;
    size_t entries;
} at;

static int look_at_page(look *l, at *a, size_t page);

static int look_at_value(look *l, at *a, const uint8_t *entry, node n, size_t room)
{
    size_t size = n.low | (size_t)n.high << 16, big = 0;
    const uint8_t *value = entry + sizeof n + n.key;
    unsigned known = a->kind == NAMES ? NODE_BIG | NODE_TREE : NODE_BIG;
    int rc = 0;

    a->entries++;
    if ((n.flags & ~known) || n.key == 0 || n.key > LONGEST_KEY || (a->kind == FREE && n.key != sizeof(size_t)))
        return bad(l, "an entry is of no known kind");
    if ((n.flags & NODE_BIG ? sizeof big : size) > room - n.key)
        return bad(l, "an entry is longer than its page");
    if (n.flags & NODE_BIG) {
        memcpy(&big, value, sizeof big);
        rc = look_at_big(l, big, size);
    }
    if (rc == 0 && a->kind == FREE)
        rc = look_at_free(l, value, size, big);
    else if (rc == 0 && (n.flags & NODE_TREE))
        rc = note_tree(l, (const char *)entry + sizeof n, n.key, value, size);
    return rc;
}

static int compare_keys(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
    int c = memcmp(a, b, an < bn ? an : bn);

    return c ? c : (an > bn) - (an < bn);
}

static int look_at_entries(look *l, at *a, size_t page, const uint8_t *bytes)
{
    bool leaf = a->level + 1 == a->depth;
    const uint8_t *last_key = NULL;
    size_t last_length = 0, count;
    head h;
    int rc = 0;

    memcpy(&h, bytes, sizeof h);
    if (h.flags != (leaf ? IS_LEAF : IS_BRANCH))
        return bad(l, "page %zu is of another kind than its place in the tree", page);
    count = (size_t)(h.as.room.lower - sizeof h) / 2;
    if (h.as.room.lower < sizeof h || h.as.room.lower % 2 || h.as.room.lower > h.as.room.upper ||
        h.as.room.upper > l->page_size || count < (leaf || a->kind == FREE ? 1 : 2))
        return bad(l, "page %zu has room for no entries", page);
    for (size_t i = 0; i < count && rc == 0; i++) {
        const uint8_t *entry;
        uint16_t offset;
        node n;
        memcpy(&offset, bytes + sizeof h + 2 * i, sizeof offset);
        if (offset < h.as.room.upper || offset + sizeof n > l->page_size)
            return bad(l, "entry %zu of page %zu lies outside of it", i, page);
        entry = bytes + offset;
        memcpy(&n, entry, sizeof n);
        if (n.key > l->page_size - offset - sizeof n)
            return bad(l, "the key of entry %zu of page %zu is longer than the page", i, page);
        if (a->kind != FREE && (leaf || i > 0)) {
            if (last_key && compare_keys(last_key, last_length, entry + sizeof n, n.key) >= 0)
                return bad(l, "the keys of page %zu are not in order", page);
            last_key = entry + sizeof n;
            last_length = n.key;
        }
        if (leaf) {
            rc = look_at_value(l, a, entry, n, l->page_size - offset - sizeof n);
        } else {
            size_t child = n.low | (size_t)n.high << 16 | (sizeof(size_t) == 8 ? (size_t)n.flags << 32 : 0);
            a->level++;
            rc = look_at_page(l, a, child);
            a->level--;
        }
    }
    return rc;
}

static int look_at_page(look *l, at *a, size_t page) /* NOLINT(misc-no-recursion): as deep as the tree, DEEPEST */
{
    uint8_t *bytes;
    int rc;

    if (l->most && l->seen >= l->most)
        return 0;
    l->seen++;
    rc = mark(l, page);
    if (rc != 0)
        return rc;
    bytes = malloc(l->page_size);
    if (!bytes)
        return ENOMEM;
    rc = read_page(l, page, bytes, l->page_size);
    if (rc == 0)
        rc = look_at_entries(l, a, page, bytes);
    free(bytes);
    return rc;
}

static int look_at_tree(look *l, int kind, const tree *t, const char *name)
{
    at a = {.kind = kind, .depth = t->depth};
    int rc = 0;

    l->seen = 0;
    if (t->depth > DEEPEST || (t->root == NO_PAGE) != (t->depth == 0))
        return bad(l, "the tree %s is %u levels deep", name, t->depth);
    if (t->root == NO_PAGE)
        return t->entries == 0 ? 0 : bad(l, "the tree %s should have %zu entries", name, t->entries);
    rc = look_at_page(l, &a, t->root);
    if (rc == 0 && (!l->most || l->seen < l->most) && a.entries != t->entries)
        rc = bad(l, "the tree %s should have %zu entries, it has %zu", name, t->entries, a.entries);
    return rc;
}

/* The root of transaction `txn` in r[0]; MJ_ECHANGED when it was overwritten. */
static int begin(look *l, int fd, size_t txn, root *r, char *why, size_t size)
{
    root both[2] = {{0}};

    *l = (look){.fd = fd, .tail_from = NO_PAGE, .why = why, .why_size = size};
    if (!mj_pages_read_roots(fd, both))
        return bad(l, "its first pages are damaged");
    *r = both[txn & 1];
    if (r->txn != txn)
        return MJ_ECHANGED;
    l->page_size = r->trees[FREE].pad;
    l->last_page = r->last_page;
    return 0;
}

int mj_pages_check(int fd, size_t txn, size_t most, char *why, size_t size)
{
    look l;
    root r = {0};
    int rc = begin(&l, fd, txn, &r, why, size);

    if (rc != 0)
        return rc;
    l.most = most;
    if (!most) {
        l.used = calloc(1, r.last_page / 8 + 1);
        if (!l.used)
            return ENOMEM;
    }
    rc = look_at_tree(&l, NAMES, &r.trees[NAMES], "of names");
    if (rc == 0)
        rc = look_at_tree(&l, FREE, &r.trees[FREE], "of free pages");
    for (unsigned i = 0; i < l.ntrees && rc == 0; i++)
        if ((l.trees[i].t.flags & 0x7f) == 0) /* else it is no tree of ours, which LMDB says when it is opened */
            rc = look_at_tree(&l, NAMES + 1, &l.trees[i].t, l.trees[i].name);
    free(l.used);
    return rc;
}

int mj_pages_tail(int fd, size_t txn, size_t from, char *why, size_t size)
{
    look l;
    root r = {0};
    int rc = begin(&l, fd, txn, &r, why, size);

    if (rc != 0)
        return rc;
    if (r.last_page < from)
        return 0;
    if (r.last_page - from >= MOST_TAIL)
        return MJ_ECORRUPT;
    l.used = calloc(1, r.last_page / 8 + 1); /* so that none counts twice */
    if (!l.used)
        return ENOMEM;
    l.tail_from = from;
    rc = look_at_tree(&l, FREE, &r.trees[FREE], "of free pages");
    free(l.used);
    return rc != 0 ? rc : l.tail == r.last_page + 1 - from ? 0 : MJ_ECORRUPT;
}
