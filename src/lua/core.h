/* What the files of the binding share.
 *
 * Conventions: wrong arguments raise at the caller's line; outcomes are values, `nil, err` with err = {code=,
 * message=, retryable=}, which prints as its message.  A function that fails only when memory runs out (a hash, a
 * token, an inbox) raises such an error instead: its result is used at once, and nil would be taken for a result.  A
 * userdata gets its metatable while it is empty and before it acquires anything, so an error in between leaks nothing;
 * close is idempotent and is also __gc and __close. */
#ifndef MJ_LUA_CORE_H
#define MJ_LUA_CORE_H

#include "base/error.h"
#include "base/redact.h"
#include "lua/compat.h"
#include "store/store.h"

#include <stdbool.h>

/* Pushes nil and an error table; `why` (may be NULL) replaces the code's own text. */
int mjl_fail(lua_State *L, int code, const char *why);

/* Raises the same error table, with the message "what: text of the code". */
int mjl_raise(lua_State *L, int code, const char *what);

/* Reads fields of the table at absolute index t; a wrong value raises "bad field 'name' (...)".  Without metamethods:
 * no table keeps alive what __index makes, and its bytes are in use. */
void mjl_field(lua_State *L, int t, const char *name); /* pushes it */
mj_str mjl_str(lua_State *L, int t, const char *name); /* {NULL, 0} if absent; lives as long as its table holds it */
bool mjl_bool(lua_State *L, int t, const char *name);
/* Reads a number, not a string that looks like one; `absent` is not checked.  low and high are within 2^53. */
int64_t mjl_int(lua_State *L, int t, const char *name, int64_t absent, int64_t low, int64_t high); /* whole */
int64_t mjl_ms(lua_State *L, int t, const char *name, int64_t absent); /* within 2^53; a fraction is dropped */
/* The same for argument i.  Milliseconds beyond 2^53, also infinite ones, become 2^53: for ever. */
int64_t mjl_arg_int(lua_State *L, int i, int64_t low, int64_t high);
int64_t mjl_arg_ms(lua_State *L, int i);
mj_str mjl_arg_str(lua_State *L, int i);
/* 26 characters of a ref at index i into 16 bytes; false when it is none. */
bool mjl_ref(lua_State *L, int i, uint8_t ref[MJ_ULID_BYTES]);

/* Fields of the table on top of the stack. */
void mjl_set_str(lua_State *L, const char *name, mj_str s); /* sets nothing when empty */
void mjl_set_int(lua_State *L, const char *name, int64_t v);
void mjl_set_time(lua_State *L, const char *name, int64_t ms); /* sets nothing when 0 */
void mjl_set_lit(lua_State *L, const char *name, const char *s);
void mjl_push_ref(lua_State *L, const uint8_t ref[MJ_ULID_BYTES]);
/* Pushes an empty buffer, which Lua frees whatever raises.  A caller frees its content as soon as possible. */
mj_buf *mjl_buf(lua_State *L);
/* Makes a metatable with these methods, __index to itself, and `close` as __gc and __close. */
void mjl_class(lua_State *L, const char *name, const luaL_Reg *methods);

/* lua/curl.c: loads libcurl, if it is not loaded yet.  False: pushes nil and an error table. */
bool mjl_need_curl(lua_State *L);
/* lua/redact.c: pushes a text without secrets. */
/* What the provider says of a job in words: fields of a signal, and of a status as Lua sees it, by the same names; how
 * a secret in them is hidden, and how long they may be afterwards. */
#define MJL_STATUS_TEXTS(X)                                                                                            \
    X(image, URL, MJ_MAX_URL)                                                                                          \
    X(mj_prompt, TEXT, MJ_MAX_PROMPT)                                                                                  \
    X(meta, BODY, MJ_MAX_JSON)                                                                                         \
    X(remark, TEXT, MJ_MAX_REASON)                                                                                     \
    X(error, TEXT, MJ_MAX_REASON)
void mjl_push_redacted(lua_State *L, mj_redact_kind kind, const char *p, size_t n);
/* Replaces secrets in an operation's texts.  New texts are in memory that `h` owns.  MJ_ENOMEM. */
typedef struct mjl_hidden {
    char **texts;
    size_t n, cap;
} mjl_hidden;
int mjl_redact_op(mj_op *op, mjl_hidden *h);
void mjl_hidden_free(mjl_hidden *h);

/* lua/status.c: what the provider says of a job, as a table without secrets, and as bytes with all that was said.  The
 * strings of a status that was got are in the bytes.  False: they are no status. */
void mjl_push_status(lua_State *L, const mj_signal *w);
void mjl_put_status(mj_buf *b, const mj_signal *w);
bool mjl_get_status(mj_str bytes, mj_signal *w);

/* lua/task.c: records as tables. */
int mjl_push_task(lua_State *L, mj_str record);
void mjl_push_view(lua_State *L, mj_task *t); /* one that is decoded */
/* Only what a status request needs; see store:page. */
int mjl_push_brief(lua_State *L, mj_str record); /* MJ_OK and a table pushed, or a code and nothing */
/* Only what a submission needs: ref, attempt, account, prompt, mode, timeout. */
int mjl_push_sendable(lua_State *L, mj_str record);
int mjl_push_event(lua_State *L, mj_str record);
int mjl_push_tomb(lua_State *L, mj_str record);

/* lua/operation.c: operations from tables, results as tables. */
void mjl_read_op(lua_State *L, int t, mj_op *op, mj_task *task);
void mjl_push_result(lua_State *L, const mj_op *op);
unsigned mjl_find(mj_str given, const char *(*name)(unsigned), unsigned count); /* a name's number; count: it is none */
const char *mjl_code(int code);                                                 /* an operation's outcome, by name */

/* lua/inbox.c: the callbacks of the batch that was taken last from the inbox at index i. */
size_t mjl_batch_size(lua_State *L, int i);
/* Reads them into ops, those that can be read (*n), and pushes why the others can't: a table by number in the batch,
 * or nil.  The strings of ops stay in the inbox until the next batch is taken.  MJ_ENOMEM. */
int mjl_batch_read(lua_State *L, int i, mj_op *ops, bool *readable, size_t *n);

/* lua/watch.c: for a forked process, where the watches and holds are the parent's. */
void mjl_forget_watch(void);

/* One registration function for each part; the library's table is on top of the stack. */
void mjl_open_core(lua_State *L);
void mjl_open_curl(lua_State *L);
void mjl_open_store(lua_State *L);
void mjl_open_store_write(lua_State *L);
void mjl_open_store_read(lua_State *L);
void mjl_open_store_page(lua_State *L);
void mjl_open_store_stats(lua_State *L);
void mjl_open_store_copy(lua_State *L);
void mjl_open_operation(lua_State *L);
void mjl_open_http(lua_State *L);
void mjl_open_stream(lua_State *L);
void mjl_open_fetch(lua_State *L);
void mjl_open_auth(lua_State *L);
void mjl_open_wire(lua_State *L);
void mjl_open_status(lua_State *L);
void mjl_open_provider(lua_State *L);
void mjl_open_address(lua_State *L);
void mjl_open_sys(lua_State *L);
void mjl_open_signal(lua_State *L);
void mjl_open_user(lua_State *L);
void mjl_open_file(lua_State *L);
void mjl_open_redact(lua_State *L);
void mjl_open_json(lua_State *L);
void mjl_open_child(lua_State *L);
void mjl_open_watch(lua_State *L);
void mjl_open_inbox(lua_State *L);
void mjl_open_workqueue(lua_State *L);
void mjl_open_replay(lua_State *L);

#endif
