/* Entries in front of some trees, which are none of a task's: from schema 5 on.
 *
 * Jobs end in about the order in which they began: so entries go from the front of these trees.  LMDB keeps each page a
 * quarter full: it moves an entry from the next page for each one that goes, three quarters of all.  This entry is a
 * quarter of a page, and stays for ever.  With it the page at the front is never too empty, and the next page is merged
 * with it when that one is.  Measured: an eighth of the instructions of a batch of callbacks. */
#include "store/lmdb/env_impl.h"

#include <errno.h>
#include <stdlib.h>

int mj_env_put_weights(mj_env *e, MDB_txn *t)
{
    unsigned size = 0;
    MDB_stat st;
    int rc = mdb_env_stat(e->lmdb, &st);
    MDB_val key = mj_weight_key(), v;
    void *zero = rc == 0 ? calloc(1, size = st.ms_psize / 4 + 64) : NULL;

    if (rc == 0 && !zero)
        rc = ENOMEM;
    for (int i = 0; i < MJ_NINDEXES && rc == 0; i++)
        if (mj_has_weight((mj_index)i)) {
            v = mj_val(zero, size);
            rc = mdb_put(t, e->dbi[i], &key, &v, 0);
        }
    free(zero);
    return rc;
}

int mj_env_has_weight(mj_env *e, MDB_txn *t, mj_index index, bool *has)
{
    MDB_val key = mj_weight_key(), v;
    int rc = mj_has_weight(index) ? mdb_get(t, e->dbi[index], &key, &v) : MDB_NOTFOUND;

    *has = rc == 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}
