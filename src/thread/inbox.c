#include "thread/inbox.h"

#include "base/registry.h"

/* A larger buffer, made in a rush, is not kept. */
enum { KEEP = 1 << 20 };

struct mj_inbox {
    mj_registered reg;
    uint64_t taken; /* batches so far */
    uint32_t count; /* of the batch that is being gathered ... */
    mj_buf items;   /* ... and its items */
    bool made;
    pthread_mutex_t work; /* held by the thread that works on what it took */
};

static mj_registered *all;

mj_inbox *mj_inbox_open(const char *name, size_t n)
{
    mj_inbox *b = mj_registry_open(&all, name, n, sizeof(mj_inbox));
    bool made = false;

    if (b) {
        pthread_mutex_lock(&b->reg.lock);
        made = b->made = b->made || pthread_mutex_init(&b->work, NULL) == 0;
        pthread_mutex_unlock(&b->reg.lock);
    }
    if (!made)
        mj_inbox_close(b);
    return made ? b : NULL;
}

void mj_inbox_close(mj_inbox *b)
{
    if (!b || !mj_registry_leave(&all, &b->reg))
        return;
    mj_buf_free(&b->items);
    if (b->made)
        pthread_mutex_destroy(&b->work);
    mj_registry_free(&b->reg);
}

uint64_t mj_inbox_put(mj_inbox *b, mj_str head, mj_str body, uint32_t *index)
{
    mj_buf *items = &b->items;
    uint64_t number = 0;
    size_t before;

    pthread_mutex_lock(&b->reg.lock);
    before = items->n;
    mj_put_uint(items, (uint64_t)head.n + body.n);
    mj_put_raw(items, head.p, head.n);
    mj_put_raw(items, body.p, body.n);
    if (items->failed) {
        items->n = before; /* this item does not fit; those before it are whole, and the next one may be smaller */
        items->failed = false;
    } else {
        number = b->taken + 1;
        *index = ++b->count;
    }
    pthread_mutex_unlock(&b->reg.lock);
    return number;
}

bool mj_inbox_take(mj_inbox *b, mj_inbox_batch *batch)
{
    mj_buf empty;
    bool any;

    batch->count = 0;
    batch->items.n = 0;
    if (batch->items.cap > KEEP)
        mj_buf_free(&batch->items);
    empty = batch->items;
    pthread_mutex_lock(&b->reg.lock);
    any = b->count > 0;
    if (any) {
        *batch = (mj_inbox_batch){.number = ++b->taken, .count = b->count, .items = b->items};
        b->items = empty;
        b->count = 0;
    }
    pthread_mutex_unlock(&b->reg.lock);
    return any;
}

void mj_inbox_enter(mj_inbox *b)
{
    pthread_mutex_lock(&b->work);
}

void mj_inbox_leave(mj_inbox *b)
{
    pthread_mutex_unlock(&b->work);
}
