/* What a load asks for (ask.c), and what becomes of the answers (answer.c). */
#ifndef MJ_PG_LOAD_H
#define MJ_PG_LOAD_H

#include "store/postgres/db.h"

enum { MJ_PG_NONE = 9999, MJ_PG_MOST_SCANS = 32 };
enum { MJ_PG_ONE_BY_ONE = 1, MJ_PG_WITH_TOMBS = 2 }; /* how to ask */

/* Numbers of the statements in the trip; MJ_PG_NONE: it was not sent. */
typedef struct mj_pg_asked {
    const mj_need *need;
    unsigned n; /* statements sent so far */
    unsigned holds, meta, intake, accounts, slots, tasks, tombs, events, tids, keys, totals, clock;
    unsigned scans[MJ_PG_MOST_SCANS], scans_sent[MJ_PG_MOST_SCANS], many[MJ_NINDEXES];
    bool one_by_one; /* wait for one account, instead of passing over those that are held */
    bool with_tombs; /* of refs that are no tasks: asked for in a second trip */
} mj_pg_asked;

/* Kinds of keys that have statements of their own. */
static inline bool mj_pg_is_loaded(mj_index i)
{
    return i == MJ_IX_TASK || i == MJ_IX_TID || i == MJ_IX_KEY || i == MJ_IX_ACCOUNT || i == MJ_IX_META;
}

bool mj_pg_wants_all_accounts(const mj_need *need);
uint32_t mj_pg_first_entries(const mj_scan *scan); /* how many a scan's first trip asks for */

/* Sends the statements; *a is filled in. */
int mj_pg_ask(mj_tx *tx, mj_pg_asked *a, const mj_need *need, unsigned how);
/* Notes what the trip, which began at that mj_pg_ms(), has given.  false: not one account of those to hold was free,
 * and nothing was noted. */
bool mj_pg_answer(mj_tx *tx, const mj_pg_asked *a, int64_t began);
/* Refs that were asked for, or that names lead to, and of which it is not known yet what they are: as keys of TASK,
 * sorted; *n: how many.  NULL: none, or no memory. */
mj_entry *mj_pg_strays(mj_tx *tx, const mj_pg_asked *a, size_t *n);
/* Keys of `index` that were asked for are known now as keys of `as`, also those that are not there. */
void mj_pg_note_asked(mj_tx *tx, const mj_need *need, mj_index index, mj_index as, bool group);

#endif
