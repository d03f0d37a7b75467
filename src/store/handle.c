/* Handles: what this process keeps beside an open backend. */
#include "store/rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int mj_read_begin(mj_store *s, mj_tx **tx)
{
    int rc;

    s->detail[0] = '\0';
    rc = mj_store_ready(s);
    return rc != MJ_OK ? rc : s->backend->begin(s->db, false, tx);
}

const char *mj_store_detail(const mj_store *s)
{
    return s->detail;
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
