/* Handles: what this process keeps beside an open backend. */
#include "store/rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int mj_store_ready(mj_store *s)
{
    bool forked = false;
    int rc = s->backend->ready ? s->backend->ready(s->db, &forked) : MJ_OK;

    if (forked) { /* the parent stores what is owed */
        s->owed = (mj_counters){0};
        s->owes = false;
    }
    return rc;
}

int mj_read_begin(mj_store *s, mj_tx **tx)
{
    int rc;

    s->detail[0] = '\0';
    rc = mj_store_ready(s);
    return rc != MJ_OK ? rc : s->backend->begin(s->db, false, tx);
}

int mj_read_judged(mj_store *s, mj_tx *tx, mj_judged *out)
{
    mj_entry key = {.index = MJ_IX_META, .name = MJ_LIT(MJ_JUDGED_KEY)};
    mj_entry old = {.index = MJ_IX_META, .name = MJ_LIT(MJ_MEASURES_KEY)};
    mj_counters unused;
    mj_str bytes;
    int rc = s->backend->get(tx, &key, &bytes);

    if (rc == MJ_OK) /* what can't be read begins anew: it is no task's fact */
        (void)mj_judged_decode(bytes, out);
    else if (rc == MJ_ENOTFOUND && (rc = s->backend->get(tx, &old, &bytes)) == MJ_OK)
        (void)mj_counters_decode_v1(bytes, &unused, out);
    return rc == MJ_ENOTFOUND ? MJ_OK : rc;
}

const char *mj_store_detail(const mj_store *s)
{
    return s->detail;
}

const mj_backend *mj_store_backend(const mj_store *s)
{
    return s->backend;
}

bool mj_store_waits(const mj_store *s)
{
    return s->backend->waits;
}

int64_t mj_store_give_way(mj_store *s)
{
    const mj_backend *b = s->backend;

    return b->give_way && !(b->foreign && b->foreign(s->db)) ? b->give_way(s->db) : 0;
}

const char *mj_store_library(mj_store *s)
{
    return s ? s->backend->library(s->db) : mj_backend_lmdb.library(NULL);
}

int64_t mj_store_now(mj_store *s)
{
    struct timespec t;

    if (s->backend->now)
        return s->backend->now(s->db);
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void one_job(void *ctx, mj_str name, mj_str job)
{
    mj_put_str(ctx, name);
    mj_put_str(ctx, job);
}

int mj_store_intake(mj_store *s, uint32_t limit, mj_buf *out)
{
    int rc = mj_store_ready(s);

    s->detail[0] = '\0';
    if (rc == MJ_OK && s->backend->intake && limit > 0)
        rc = s->backend->intake(s->db, limit, one_job, out);
    return rc == MJ_OK && out->failed ? MJ_ENOMEM : rc;
}

int mj_store_facts(mj_store *s, mj_fact_fn tell, void *ctx)
{
    int rc;

    s->detail[0] = '\0';
    rc = mj_store_ready(s);
    return rc == MJ_OK && s->backend->facts ? s->backend->facts(s->db, tell, ctx) : rc;
}

int mj_store_host(mj_store *s, const uint8_t boot[16], int64_t *ago)
{
    int rc;

    s->detail[0] = '\0';
    rc = mj_store_ready(s);
    return rc == MJ_OK ? s->backend->host ? s->backend->host(s->db, boot, ago) : MJ_ENOTFOUND : rc;
}

int mj_store_lock(mj_store *s, const char *name, mj_lock **held)
{
    int rc;

    *held = NULL;
    s->detail[0] = '\0';
    rc = mj_store_ready(s);
    return rc == MJ_OK ? s->backend->lock(s->db, name, held) : rc;
}

void mj_store_unlock(mj_store *s, mj_lock *held)
{
    if (held)
        s->backend->unlock(held);
}

int64_t mj_store_last_ready(const mj_store *s)
{
    return s->ready;
}

void mj_store_trim(mj_store *s)
{
    s->detail[0] = '\0';
    if (s->backend->trim && mj_store_ready(s) == MJ_OK)
        s->backend->trim(s->db);
}

int mj_store_backup(mj_store *s, const char *to)
{
    mj_tx *tx;
    int rc = mj_read_begin(s, &tx);

    if (rc != MJ_OK)
        return rc;
    rc = s->backend->backup(tx, to);
    s->backend->abort(tx);
    return rc;
}

int mj_store_accounts(mj_store *s, const mj_account *a, size_t n)
{
    mj_cap *caps;

    if (n > MJ_MAX_ACCOUNTS)
        return MJ_ELIMIT;
    caps = calloc(n ? n : 1, sizeof *caps);
    if (!caps)
        return MJ_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (a[i].name.n == 0 || a[i].name.n > MJ_MAX_NAME || memchr(a[i].name.p, 0, a[i].name.n)) {
            free(caps);
            return MJ_EINVAL;
        }
        memcpy(caps[i].name, a[i].name.p, a[i].name.n);
        caps[i].max_in_flight = a[i].max_in_flight;
    }
    free(s->caps);
    s->caps = caps;
    s->ncaps = n;
    return MJ_OK;
}
