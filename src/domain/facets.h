/* Facets: what the indexes hold of a task, as a pure function of its record.
 *
 * An index entry is never set by hand: it follows from the facets of the record
 * that is stored, so that a backend writes exactly the entries in which two
 * sets of facets differ, and check() can ask for each of them. */
#ifndef MJ_FACETS_H
#define MJ_FACETS_H

#include "base/names.h"
#include "domain/state.h"

#include <stddef.h>

/*    symbol         name        an entry's fields, in the order in which a scan gives them */
#define MJ_INDEXES(X)                                                                                                  \
    X(MJ_IX_META, "meta")       /* name: what the store keeps of itself */                                             \
    X(MJ_IX_TASK, "task")       /* ref */                                                                              \
    X(MJ_IX_TID, "tid")         /* name (task id); ref and n (attempt) follow from it */                               \
    X(MJ_IX_KEY, "key")         /* name (the user's key); ref and fingerprint follow from it */                        \
    X(MJ_IX_USER, "user")       /* name (user id), ref */                                                              \
    X(MJ_IX_STATE, "state")     /* n (state), ref */                                                                   \
    X(MJ_IX_DUE, "due")         /* n (mj_due), at, ref */                                                              \
    X(MJ_IX_QUEUE, "queue")     /* name (account), priority from high to low, ref */                                   \
    X(MJ_IX_SLOT, "slot")       /* at (held until), ref, n (attempt); name (account) follows from it */                \
    X(MJ_IX_EVENT, "event")     /* ref, n (sequence number) */                                                         \
    X(MJ_IX_OUTBOX, "outbox")   /* at (next delivery), ref, n: the first open event of each task */                    \
    X(MJ_IX_ACCOUNT, "account") /* name; n (slots that are held under it) follows from it */                           \
    X(MJ_IX_TOMB, "tomb")       /* ref */                                                                              \
    X(MJ_IX_GRAVE, "grave")     /* at (pruned), ref */                                                                 \
    X(MJ_IX_REFUSED, "refused") /* at (number) */

typedef enum { MJ_INDEXES(MJ_SYMBOL) MJ_NINDEXES } mj_index;

const char *mj_index_name(mj_index index);

enum { MJ_FINGERPRINT = 16 };

/* One entry of an index, or the key of a row. */
typedef struct mj_entry {
    mj_index index;
    uint32_t n;
    int32_t priority;
    int64_t at;
    mj_str name;
    uint8_t ref[MJ_ULID_BYTES];
    uint8_t fingerprint[MJ_FINGERPRINT];
} mj_entry;

typedef struct mj_facets {
    bool exists; /* as a task; without it, key and ids may be kept by a tombstone */
    bool grave;  /* there is a tombstone, made at pruned_at */
    bool queued; /* may be claimed */
    mj_state state;
    mj_due due;
    int32_t priority;
    int64_t due_at, pruned_at;
    mj_str account, user_id, key; /* strings are the record's, and live as long */
    uint8_t fingerprint[MJ_FINGERPRINT];
    unsigned nattempts;
    struct mj_attempt_facets {
        bool slot;
        int64_t slot_until;
        mj_str account;
        unsigned nids;
        mj_str ids[MJ_MAX_IDS];
    } attempts[MJ_MAX_ATTEMPTS]; /* the first nattempts are filled in */
} mj_facets;

/* Bytes of facets with so many attempts: no more of them need to be there. */
static inline size_t mj_facets_size(unsigned nattempts)
{
    return offsetof(mj_facets, attempts) + nattempts * sizeof(struct mj_attempt_facets);
}

/* Fills in *f from a task; only what nattempts says is written. */
void mj_facets_of(const mj_task *t, mj_facets *f);

/* Calls `visit` for each entry in which two sets of facets of one ref differ: put, or not any more.  Ends with the
 * first result of visit that is not 0.  Either set may be empty ({0}). */
typedef int (*mj_facets_fn)(void *ctx, const mj_entry *e, bool put);
int mj_facets_diff(const uint8_t *ref, const mj_facets *was, const mj_facets *is, mj_facets_fn visit, void *ctx);

#endif
