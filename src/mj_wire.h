/* mj_wire: strict reading of what the provider says.
 *
 * The bytes were decoded as JSON by lua-cjson; from there on nothing is
 * believed.  Types are checked, numbers may come as strings, null and a wrong
 * type count as missing, text has to be UTF-8 (broken bytes become '?'), URLs
 * have to be http(s) and printable, everything has a limit.  What comes out is
 * a `word` for the state machine:
 *   {kind = "running"|"succeeded"|"hint"|"failed", task_id=, image=, images={},
 *    mj_prompt=, meta= (a table still), error=, error_code=} */
#ifndef MJ_WIRE_H
#define MJ_WIRE_H

#include "compat.h"

#include <stdbool.h>
#include <stddef.h>

/* wire_callback(doc) -> task object | nil, reason.  Enveloped, bare, or data as a one-element array. */
int mj_wire_callback(lua_State *L);
/* wire_word(task object) -> word | nil, reason. */
int mj_wire_word(lua_State *L);
/* wire_signal(task object, meta (JSON text) or nil, ref, attempt) -> packed operation | nil, reason.
 * What wire_word says, as one string: that is all that has to cross to another thread. */
int mj_wire_signal(lua_State *L);
/* wire_status(doc) -> {words} | nil, reason, envelope status.  Entries that can't be read are left out. */
int mj_wire_status(lua_State *L);
/* wire_submit(http status, doc or nil) -> {kind = "accepted"|"refused"|"rejected"|"maybe_sent", task_id=,
 * error_code=, error=}: what the answer to a submission means. */
int mj_wire_submit(lua_State *L);
/* True when s is well-formed UTF-8 (no overlong forms, no surrogates, at most U+10FFFF). */
bool mj_utf8_valid(const char *s, size_t n);

#endif
