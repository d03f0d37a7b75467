/* mj_claims: work that one thread does piece by piece, and whose rest another one may take back.
 *
 * For handlers that run in threads: who lies behind a slow one is handed to somebody
 * else.  A piece is bytes; each is either begun or taken back, never both. */
#ifndef MJ_CLAIMS_H
#define MJ_CLAIMS_H

#include "base/buf.h"

#include <stdbool.h>

typedef struct mj_claims mj_claims;

/* As mj_inbox_open() and mj_inbox_close(): of that name in this process. */
mj_claims *mj_claims_open(const char *name, size_t n);
void mj_claims_close(mj_claims *c);

/* Lays out `count` pieces, in *pieces as mj_put_str() writes them; what lay there is forgotten.  The buffer is swapped
 * for the one before.  `now`: monotonic, in milliseconds. */
void mj_claims_lay(mj_claims *c, mj_buf *pieces, uint32_t count, int64_t now);
/* The next piece is begun.  False: there is none, or no more. */
bool mj_claims_begin(mj_claims *c, int64_t now);
/* Appends the pieces that were not begun to *out, if the one at hand was begun before `before`, and gives their number:
 * nobody will begin them.  0: there are none, or it is too early, or there is no memory (they stay where they are). */
uint32_t mj_claims_take_back(mj_claims *c, int64_t before, mj_buf *out);

#endif
