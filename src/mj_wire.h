/* mj_wire: strict reading of what the provider says (PROVIDER.md).
 *
 * Nothing is believed: types are checked, numbers may come as strings, null and a
 * wrong type count as missing, text is UTF-8 afterwards (broken bytes and control
 * characters become '?'), URLs are http(s) and percent-encoded, everything has a limit.
 * What comes out is a signal for the state machine, SIG_RUNNING, SIG_SUCCEEDED,
 * SIG_HINT or SIG_FAILED.
 *
 * Its strings lie in the text that was read, or, where they had to be changed, in
 * `scratch`, in which the caller has reserved mj_wire_room() bytes: so nothing here
 * can fail for lack of memory, and what was read stays where it is. */
#ifndef MJ_WIRE_H
#define MJ_WIRE_H

#include "mj_json.h"
#include "mj_state.h"

enum { MJ_WIRE_WHY = MJ_MAX_REASON + 32 }; /* bytes of a reason: the provider's, its status before it, and an end */

/* For reading n bytes of text and the words in it; n bytes are enough for what is no word. */
size_t mj_wire_room(size_t n);

/* A callback's body: enveloped, bare, or with data as an array of one.  False: `why` tells why there is no word in it.
 */
bool mj_wire_callback(mj_str body, mj_buf *scratch, mj_signal *out, char why[MJ_WIRE_WHY]);

/* The answer to a status request.  False: `why` tells what is wrong with it, or what the provider says is wrong. */
typedef struct mj_wire_words {
    mj_json rest;
} mj_wire_words;
bool mj_wire_status(mj_str body, mj_buf *scratch, mj_wire_words *out, char why[MJ_WIRE_WHY]);
/* The next word in it; entries that can't be read are passed over. */
bool mj_wire_next(mj_wire_words *words, mj_buf *scratch, mj_signal *out);
/* The entries of an answer about the n ids that were asked for, which are sorted (mj_wire_sort): entries[i] becomes the
 * last one about asked[i], or none.  All others are passed over: an answer costs no more than reading it once. */
void mj_wire_asked(mj_wire_words words, const mj_str *asked, size_t n, mj_json *entries, mj_buf *scratch);
void mj_wire_sort(mj_str *ids, size_t n);
/* The word in one entry; false: it can't be read. */
bool mj_wire_word(mj_json entry, mj_buf *scratch, mj_signal *out);

/* What an answer to a submission means: "accepted" with a task_id, "refused" (for now), "rejected" (for good), or
 * "maybe_sent"; but for the first with a code and a text.  `http`: its status; `body` may be none. */
typedef struct mj_wire_verdict {
    const char *kind, *code;
    mj_str text, task_id;
} mj_wire_verdict;
void mj_wire_submit(int http, mj_str body, mj_buf *scratch, mj_wire_verdict *out);

#endif
