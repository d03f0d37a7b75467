#include "thread/workqueue.h"

#include "base/registry.h"

struct mj_claims {
    mj_named named;
    mj_buf pieces;
    size_t at;     /* bytes of those that were begun */
    uint32_t left; /* that were not */
    int64_t since; /* when the last one was begun */
};

static mj_named *all;

mj_claims *mj_claims_open(const char *name, size_t n)
{
    return mj_named_open(&all, name, n, sizeof(mj_claims));
}

void mj_claims_close(mj_claims *c)
{
    if (!c || !mj_named_leave(&all, &c->named))
        return;
    mj_buf_free(&c->pieces);
    mj_named_free(&c->named);
}

void mj_claims_lay(mj_claims *c, mj_buf *pieces, uint32_t count, int64_t now)
{
    mj_buf before;

    pthread_mutex_lock(&c->named.lock);
    before = c->pieces;
    c->pieces = *pieces;
    c->at = 0;
    c->left = count;
    c->since = now;
    pthread_mutex_unlock(&c->named.lock);
    *pieces = before;
}

bool mj_claims_begin(mj_claims *c, int64_t now)
{
    bool any;

    pthread_mutex_lock(&c->named.lock);
    any = c->left > 0;
    if (any) {
        mj_reader r = mj_reader_of(c->pieces.p + c->at, c->pieces.n - c->at);
        mj_get_str(&r);
        c->at = (size_t)(r.p - c->pieces.p);
        c->left--;
        c->since = now;
    }
    pthread_mutex_unlock(&c->named.lock);
    return any;
}

uint32_t mj_claims_take_back(mj_claims *c, int64_t before, mj_buf *out)
{
    uint32_t taken = 0;
    size_t n = out->n;

    pthread_mutex_lock(&c->named.lock);
    if (c->left > 0 && c->since < before) {
        mj_put_raw(out, c->pieces.p + c->at, c->pieces.n - c->at);
        if (!out->failed) {
            taken = c->left;
            c->left = 0;
        }
    }
    pthread_mutex_unlock(&c->named.lock);
    if (taken == 0) {
        out->n = n;
        out->failed = false;
    }
    return taken;
}
