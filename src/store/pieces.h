/* A walk over all rows of an index that reads other rows and entries for each: where a read is a trip over a network,
 * those of some hundred rows are loaded at once. */
#ifndef MJ_PIECES_H
#define MJ_PIECES_H

#include "store/unit.h"

typedef struct mj_wanted mj_wanted;

/* Says what `visit` is about to read for a row: calls mj_want() for each key, whose name is a part of the row. */
typedef void (*mj_want_fn)(const mj_entry *e, mj_str bytes, mj_wanted *w);
void mj_want(mj_wanted *w, mj_entry key);

/* As the backend's scan() of a whole index. */
int mj_scan_pieces(mj_store *s, mj_tx *tx, mj_index index, mj_want_fn wanted, mj_scan_fn visit, void *ctx);

/* The entries that a row asks for, and the rows that it is about. */
void mj_wants_of_task(const mj_entry *e, mj_str bytes, mj_wanted *w);
void mj_wants_of_tomb(const mj_entry *e, mj_str bytes, mj_wanted *w);
void mj_wants_of_event(const mj_entry *e, mj_str bytes, mj_wanted *w);

#endif
