/* Handles: a backend, opened, and what this process keeps beside it. */
#include "store/rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int mj_store_open(const char *where, const mj_store_options *o, mj_store **out, char *why, size_t why_size)
{
    return mj_store_open_on(&mj_backend_lmdb, where, o, out, why, why_size);
}

int mj_store_open_on(const mj_backend *b, const char *where, const mj_store_options *o, mj_store **out, char *why,
                     size_t why_size)
{
    mj_store *s = b->abi == MJ_BACKEND_ABI ? calloc(1, sizeof *s) : NULL;
    int rc = b->abi == MJ_BACKEND_ABI ? MJ_ENOMEM : MJ_ESCHEMA;

    *out = NULL;
    if (why_size > 0)
        why[0] = '\0';
    if (b->abi != MJ_BACKEND_ABI)
        snprintf(why, why_size, "the store module %s belongs to another mjhook: install both of one version", b->name);
    if (s) {
        s->backend = b;
        s->options = *o;
        rc = b->open(where, &s->options, &s->db, s->detail, sizeof s->detail);
        if (rc == MJ_OK && !(s->refs = mj_refs_of(where))) {
            b->close(s->db);
            rc = MJ_ENOMEM;
        }
        if (rc != MJ_OK)
            snprintf(why, why_size, "%s", s->detail);
    }
    if (rc != MJ_OK) {
        free(s);
        return rc;
    }
    *out = s;
    return MJ_OK;
}

void mj_store_close(mj_store *s)
{
    if (!s)
        return;
    if (!s->backend->foreign(s->db))
        mj_store_settle(s);
    s->backend->close(s->db);
    mj_unit_free(s);
    mj_buf_free(&s->scratch);
    free(s->caps);
    free(s);
}

int mj_store_ready(mj_store *s)
{
    bool forked = false;
    int rc = s->backend->ready(s->db, &forked);

    if (forked) { /* the parent stores what is owed */
        memset(s->owed, 0, sizeof s->owed);
        s->owes = false;
    }
    return rc;
}

const char *mj_store_detail(const mj_store *s)
{
    return s->detail;
}

const char *mj_store_library(void)
{
    return mj_backend_lmdb.library();
}

void mj_store_trim(mj_store *s)
{
    s->detail[0] = '\0';
    if (mj_store_ready(s) == MJ_OK)
        s->backend->trim(s->db);
}

int mj_store_backup(mj_store *s, const char *to)
{
    mj_tx *tx;
    int rc = mj_read_begin(s, &tx);

    if (rc != MJ_OK)
        return rc;
    rc = s->backend->sound(tx);
    if (rc == MJ_OK)
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
