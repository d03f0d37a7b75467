/* What a ref has in a store, as a copy reads it, compares it and writes it. */
#ifndef MJ_COPIED_H
#define MJ_COPIED_H

#include "store/copy.h"
#include "store/unit.h"

typedef struct mj_copied_event {
    uint32_t seq;
    mj_str bytes;
} mj_copied_event;

typedef struct mj_copied {
    uint8_t ref[MJ_ULID_BYTES];
    mj_row_kind kind;
    mj_str bytes;
    unsigned nevents;
    mj_copied_event *events;
    mj_facets facets;
    mj_out out;
    int64_t open, buried; /* events */
    bool damaged;         /* its bytes can't be read */
} mj_copied;

/* A store in a transaction.  `u` is no unit of work: its memory lasts until the next transaction of the store. */
typedef struct mj_side {
    mj_unit u;
    const mj_backend *b;
} mj_side;

typedef struct mj_changes {
    size_t n;
    mj_change *all;
    mj_tally tally;
} mj_changes;

int mj_side_begin(mj_side *x, mj_store *s, bool write);
/* Ends a write transaction: with what is to be written, or without. */
int mj_side_end(mj_side *x, int rc, const mj_changes *w);

mj_entry mj_copied_key(mj_index index, const uint8_t *ref);
/* What a store has under refs, which ascend; strings live as long as the side's memory, also without the transaction.
 */
int mj_copied_read(mj_side *x, uint8_t (*all)[MJ_ULID_BYTES], uint32_t n, mj_copied **out);
bool mj_copied_same_bytes(mj_str a, mj_str b);
bool mj_copied_same(const mj_copied *a, const mj_copied *b);

void mj_changes_add(mj_changes *w, mj_entry key, bool gone, mj_str bytes);
/* What makes `was` into `is`: 4 changes at most, and one for each event of both. */
void mj_changes_of(mj_changes *w, const mj_copied *was, const mj_copied *is);

/* copy_rows.c: the next rows of an index that the destination has and the source has not; ... or has otherwise. */
int mj_copy_remove(mj_copy *c, mj_index index, uint32_t limit);
int mj_copy_put(mj_copy *c, mj_index index, uint32_t limit);
void mj_copy_next(mj_copy *c); /* the next phase */
/* Whether a write that gave rc is to run again. */
int mj_copy_again(int rc, int *tries);

#endif
