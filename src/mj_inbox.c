#include "mj_inbox.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A buffer that a rush made larger is not kept for the quiet afterwards. */
enum { KEEP = 1 << 20 };

struct mj_inbox {
    mj_inbox *next; /* of all in this process */
    size_t users;
    pthread_mutex_t lock;
    mj_lot open; /* the one that is being gathered */
    size_t nname;
    char name[];
};

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static mj_inbox *all;

static mj_inbox *find(const char *name, size_t n)
{
    mj_inbox *b = name ? all : NULL;

    while (b && (b->nname != n || memcmp(b->name, name, n) != 0))
        b = b->next;
    return b;
}

static mj_inbox *make(const char *name, size_t n)
{
    mj_inbox *b = calloc(1, sizeof *b + n);

    if (!b)
        return NULL;
    if (pthread_mutex_init(&b->lock, NULL) != 0) {
        free(b);
        return NULL;
    }
    b->open.number = 1;
    if (name) {
        memcpy(b->name, name, n);
        b->nname = n;
        b->next = all;
        all = b;
    }
    return b;
}

mj_inbox *mj_inbox_open(const char *name, size_t n)
{
    mj_inbox *b;

    pthread_mutex_lock(&all_lock);
    b = find(name, n);
    if (!b)
        b = make(name, n);
    if (b)
        b->users++;
    pthread_mutex_unlock(&all_lock);
    return b;
}

void mj_inbox_close(mj_inbox *b)
{
    mj_inbox **at = &all;

    if (!b)
        return;
    pthread_mutex_lock(&all_lock);
    if (--b->users > 0) {
        pthread_mutex_unlock(&all_lock);
        return;
    }
    while (*at && *at != b)
        at = &(*at)->next;
    if (*at)
        *at = b->next;
    pthread_mutex_unlock(&all_lock);
    pthread_mutex_destroy(&b->lock);
    mj_buf_free(&b->open.items);
    free(b);
}

uint64_t mj_inbox_put(mj_inbox *b, mj_str head, mj_str body, uint32_t *index)
{
    mj_buf *items = &b->open.items;
    uint64_t number = 0;
    size_t before;

    pthread_mutex_lock(&b->lock);
    before = items->n;
    mj_put_uint(items, (uint64_t)head.n + body.n);
    mj_put_raw(items, head.p, head.n);
    mj_put_raw(items, body.p, body.n);
    if (items->failed) {
        items->n = before; /* this one does not fit; those before it are whole, and the next one may be smaller */
        items->failed = false;
    } else {
        number = b->open.number;
        *index = ++b->open.count;
    }
    pthread_mutex_unlock(&b->lock);
    return number;
}

bool mj_inbox_take(mj_inbox *b, mj_lot *lot)
{
    mj_lot full;

    lot->count = 0;
    lot->items.n = 0;
    if (lot->items.cap > KEEP)
        mj_buf_free(&lot->items);
    pthread_mutex_lock(&b->lock);
    full = b->open;
    if (full.count > 0)
        b->open = (mj_lot){.number = full.number + 1, .items = lot->items};
    pthread_mutex_unlock(&b->lock);
    if (full.count == 0)
        return false;
    *lot = full;
    return true;
}
