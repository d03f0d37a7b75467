#include "thread/workqueue.h"

#include "base/registry.h"

struct mj_workqueue {
    mj_registered reg;
    mj_buf pieces;
    size_t at;     /* bytes of the pieces that were begun */
    uint32_t left; /* pieces that were not begun */
    int64_t since; /* when the last piece was begun */
};

static mj_registered *all;

mj_workqueue *mj_workqueue_open(const char *name, size_t n)
{
    return mj_registry_open(&all, name, n, sizeof(mj_workqueue));
}

void mj_workqueue_close(mj_workqueue *c)
{
    if (!c || !mj_registry_leave(&all, &c->reg))
        return;
    mj_buf_free(&c->pieces);
    mj_registry_free(&c->reg);
}

void mj_workqueue_fill(mj_workqueue *c, mj_buf *pieces, uint32_t count, int64_t now)
{
    mj_buf before;

    pthread_mutex_lock(&c->reg.lock);
    before = c->pieces;
    c->pieces = *pieces;
    c->at = 0;
    c->left = count;
    c->since = now;
    pthread_mutex_unlock(&c->reg.lock);
    *pieces = before;
}

bool mj_workqueue_begin(mj_workqueue *c, int64_t now)
{
    bool any;

    pthread_mutex_lock(&c->reg.lock);
    any = c->left > 0;
    if (any) {
        mj_reader r = mj_reader_of(c->pieces.p + c->at, c->pieces.n - c->at);
        mj_get_str(&r);
        c->at = (size_t)(r.p - c->pieces.p);
        c->left--;
        c->since = now;
    }
    pthread_mutex_unlock(&c->reg.lock);
    return any;
}

uint32_t mj_workqueue_take_back(mj_workqueue *c, int64_t before, mj_buf *out)
{
    uint32_t taken = 0;
    size_t n = out->n;

    pthread_mutex_lock(&c->reg.lock);
    if (c->left > 0 && c->since < before) {
        mj_put_raw(out, c->pieces.p + c->at, c->pieces.n - c->at);
        if (!out->failed) {
            taken = c->left;
            c->left = 0;
        }
    }
    pthread_mutex_unlock(&c->reg.lock);
    if (taken == 0) {
        out->n = n;
        out->failed = false;
    }
    return taken;
}
