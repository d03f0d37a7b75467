/* Opening a store on a backend, and closing it. */
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
    bool ours = b->abi == MJ_BACKEND_ABI && b->bytes == sizeof *b;
    mj_store *s = ours ? calloc(1, sizeof *s) : NULL;
    int rc = ours ? MJ_ENOMEM : MJ_ESCHEMA;

    *out = NULL;
    if (why_size > 0)
        why[0] = '\0';
    if (!ours)
        snprintf(why, why_size,
                 "the store module for this database belongs to another mjhook: install both of one "
                 "version");
    if (s) {
        s->backend = b;
        s->options = *o;
        rc = b->open(where, &s->options, &s->db, s->detail, sizeof s->detail);
        if (rc == MJ_OK && !(s->refs = mj_refs_of(where, o->schema))) {
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
    if (!s->backend->foreign || !s->backend->foreign(s->db))
        mj_store_settle(s);
    s->backend->close(s->db);
    mj_unit_free(s);
    mj_buf_free(&s->scratch);
    free(s->caps);
    free(s);
}

int mj_store_exists(const mj_backend *b, const char *where, const mj_store_options *o, char *why, size_t why_size)
{
    if (why_size > 0)
        why[0] = '\0';
    return (b ? b : &mj_backend_lmdb)->exists(where, o, why, why_size);
}
