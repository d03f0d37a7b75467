/* New refs: ascending within this process and store, also when the clock steps back, whichever handle makes them. */
#ifndef MJ_REFS_H
#define MJ_REFS_H

#include "auth/ulid.h"

typedef struct mj_refs mj_refs;

/* All handles of the store at `where` (and of this schema, in a database that holds several) share one, however a
 * directory is named that is there.  A child of fork() begins anew.  It stays as long as the process, some 100 bytes a
 * store.  NULL: out of memory. */
mj_refs *mj_refs_of(const char *where, const char *schema);
/* MJ_EIO */
int mj_refs_next(mj_refs *r, int64_t now, uint8_t ref[MJ_ULID_BYTES]);

#endif
