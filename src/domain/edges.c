#include "domain/edges.h"

enum { late = MJ_EDGE_LATE, dup = MJ_EDGE_DUP, stay = MJ_EDGE_STAY, deny = MJ_EDGE_DENY };

/* A state's name: the task enters it. */
enum {
    QUEUED = MJ_EDGE_TO(MJ_QUEUED),
    SUBMITTING = MJ_EDGE_TO(MJ_SUBMITTING),
    AMBIGUOUS = MJ_EDGE_TO(MJ_AMBIGUOUS),
    PENDING = MJ_EDGE_TO(MJ_PENDING),
    SUCCEEDED = MJ_EDGE_TO(MJ_SUCCEEDED),
    FAILED = MJ_EDGE_TO(MJ_FAILED),
    LOST = MJ_EDGE_TO(MJ_LOST),
    CANCELLED = MJ_EDGE_TO(MJ_CANCELLED)
};

/* Out of `failed`, the provider's status counts only over a failure that we decided (domain/state.c). */
/* clang-format off */
static const uint8_t edges[SIG_COUNT][MJ_NSTATES] = {
    /*                  queued      submitting  ambiguous  pending    succeeded  failed     lost       cancelled */
    [SIG_READY]      = {stay,       late,       late,      late,      late,      late,      late,      late},
    [SIG_CLAIM]      = {SUBMITTING, deny,       deny,      deny,      deny,      deny,      deny,      deny},
    [SIG_ACCEPTED]   = {PENDING,    PENDING,    PENDING,   dup,       dup,       dup,       PENDING,   stay},
    [SIG_NOT_SENT]   = {late,       QUEUED,     QUEUED,    late,      late,      late,      late,      stay},
    [SIG_REFUSED]    = {late,       QUEUED,     QUEUED,    late,      late,      late,      late,      stay},
    [SIG_REJECTED]   = {late,       FAILED,     FAILED,    late,      late,      late,      late,      stay},
    [SIG_MAYBE_SENT] = {late,       AMBIGUOUS,  dup,       late,      late,      late,      late,      stay},
    [SIG_OWNER_DEAD] = {late,       AMBIGUOUS,  dup,       late,      late,      late,      late,      stay},
    [SIG_RUNNING]    = {PENDING,    PENDING,    PENDING,   stay,      late,      late,      PENDING,   stay},
    [SIG_SUCCEEDED]  = {SUCCEEDED,  SUCCEEDED,  SUCCEEDED, SUCCEEDED, dup,       SUCCEEDED, SUCCEEDED, stay},
    [SIG_HINT]       = {PENDING,    PENDING,    PENDING,   stay,      dup,       stay,      PENDING,   stay},
    [SIG_FAILED]     = {FAILED,     FAILED,     FAILED,    FAILED,    late,      stay,      FAILED,    stay},
    [SIG_ABSENT]     = {late,       late,       late,      stay,      late,      stay,      stay,      stay},
    [SIG_UNANSWERED] = {late,       late,       late,      stay,      late,      stay,      stay,      stay},
    [SIG_LOOK]       = {PENDING,    PENDING,    PENDING,   stay,      late,      stay,      stay,      stay},
    [SIG_GIVE_UP]    = {deny,       deny,       LOST,      deny,      deny,      deny,      deny,      deny},
    [SIG_RESUBMIT]   = {deny,       deny,       QUEUED,    deny,      deny,      QUEUED,    QUEUED,    deny},
    [SIG_WAIT]       = {deny,       deny,       stay,      deny,      deny,      deny,      deny,      deny},
    [SIG_CANCEL]     = {CANCELLED,  CANCELLED,  CANCELLED, CANCELLED, deny,      deny,      deny,      deny},
    [SIG_SLOT_END]   = {late,       late,       late,      late,      late,      late,      late,      late},
    [SIG_KEPT]       = {stay,       stay,       stay,      stay,      stay,      stay,      stay,      stay},
};
/* clang-format on */

_Static_assert(MJ_QUEUED == 0 && MJ_NSTATES == 8, "the columns are the states, in their order");

unsigned mj_edge_of(mj_state state, mj_signal_kind kind)
{
    return edges[kind][state];
}
