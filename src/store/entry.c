#include "store/backend.h"

#include <string.h>

static int compare(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

static int compare_names(mj_str a, mj_str b)
{
    uint32_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.p, b.p, n) : 0;

    return order ? order : compare(a.n, b.n);
}

int mj_entry_order(const mj_entry *a, const mj_entry *b)
{
    int order = compare(a->index, b->index);

    switch (order == 0 ? a->index : MJ_NINDEXES) {
    case MJ_IX_TASK:
    case MJ_IX_TOMB:
        return memcmp(a->ref, b->ref, sizeof a->ref);
    case MJ_IX_META:
    case MJ_IX_TID:
    case MJ_IX_KEY:
    case MJ_IX_ACCOUNT:
        return compare_names(a->name, b->name);
    case MJ_NINDEXES:
        return order;
    default: /* the indexes that have several fields: any order that is always the same */
        order = compare_names(a->name, b->name);
        order = order ? order : memcmp(a->ref, b->ref, sizeof a->ref);
        order = order ? order : compare(a->at, b->at);
        order = order ? order : compare(a->n, b->n);
        return order ? order : compare(a->priority, b->priority);
    }
}

bool mj_scan_same(const mj_scan *a, const mj_scan *b)
{
    return a->index == b->index && a->fixed == b->fixed && a->positioned == b->positioned && a->after == b->after &&
           a->newest_first == b->newest_first && a->rows == b->rows && a->bounded == b->bounded &&
           a->claim == b->claim && a->limit == b->limit && a->head == b->head && a->until == b->until &&
           mj_entry_order(&a->from, &b->from) == 0;
}
