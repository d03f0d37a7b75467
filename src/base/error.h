/* mj_error: the one list of error codes.
 *
 * Every function of the core that can fail returns an int: 0 (MJ_OK) or one of the negative codes below.  Lua sees the
 * name as `err.code`; the text is the start of `err.message`; `retryable` says whether the same call may succeed
 * later, although no person changes anything. */
#ifndef MJ_ERROR_H
#define MJ_ERROR_H

#include <stdbool.h>

/* clang-format off */
/*      symbol        value  name             retryable  text */
#define MJ_ERRORS(X)                                                                             \
    X(MJ_EINVAL,       -1, "invalid",       false, "bad argument")                               \
    X(MJ_ENOMEM,       -2, "no_memory",     true,  "out of memory")                              \
    X(MJ_EIO,          -3, "io",            true,  "input/output error")                         \
    X(MJ_ENOSPC,       -4, "no_space",      true,  "no space left for the store")                \
    X(MJ_ECORRUPT,     -5, "corrupt",       false, "the store holds a record that can't be read") \
    X(MJ_ESCHEMA,      -6, "schema",        false, "the store was written by a newer mjhook")    \
    X(MJ_EOWNER,       -7, "owner",         false, "the store belongs to another user")          \
    X(MJ_ENOTFOUND,    -8, "not_found",     false, "no such task")                               \
    X(MJ_EEXISTS,      -9, "exists",        false, "already there")                              \
    X(MJ_EKEY,        -10, "key_conflict",  false, "this key was used with other arguments")     \
    X(MJ_ESTATE,      -11, "state",         false, "the task's state does not allow this")       \
    X(MJ_ESTALE,      -12, "stale",         false, "late: only the timeline changed")            \
    X(MJ_EDUPLICATE,  -13, "duplicate",     false, "already known")                              \
    X(MJ_EUNKNOWN,    -14, "unknown",       false, "the provider's status is about no task here")  \
    X(MJ_ECLOSED,     -15, "closed",        false, "already closed")                             \
    X(MJ_ECHANGED,    -16, "changed",       true,  "the task changed in between")                \
    X(MJ_ELIMIT,      -17, "limit",         false, "a limit was reached")                        \
    X(MJ_EBUSY,       -18, "busy",          true,  "another process has it")                      \
    X(MJ_EFORMAT,     -19, "format",        false, "not an mjhook store")                        \
    X(MJ_EREADONLY,   -20, "read_only",     true,  "the store can't be written")            \
    X(MJ_EAGAIN,      -21, "again",         true,  "nothing was stored: the same call may be made again") \
    X(MJ_EUNSURE,     -22, "unsure",        true,  "the database does not say whether this was stored: look again later") \
    X(MJ_EMOVED,      -23, "moved",         false, "the store is being moved to another database, or was")
/* clang-format on */

#define MJ_OK 0
enum {
#define X(sym, val, name, retry, text) sym = val,
    MJ_ERRORS(X)
#undef X
};
#define X(sym, val, name, retry, text) +1
enum { MJ_NERRORS = MJ_ERRORS(X) }; /* numbered without gaps, from -1 on */
#undef X

/* Name ("not_found"), text and retryability of a code.  Never NULL. */
const char *mj_error_name(int code);
const char *mj_error_text(int code);
bool mj_error_retryable(int code);

#endif
