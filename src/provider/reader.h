/* mj_wire: strict reading of what the provider says (PROVIDER.md).
 *
 * Nothing is believed: types are checked, numbers may come as strings and statuses as
 * words, null and a wrong type count as missing, text is UTF-8 afterwards (broken bytes
 * and control characters become '?'), URLs are http(s) and percent-encoded, everything has a
 * limit.  What is called how is in the provider's profile.
 * What comes out is a signal for the state machine, SIG_RUNNING, SIG_SUCCEEDED,
 * SIG_HINT or SIG_FAILED.
 *
 * Its strings lie in the text that was read, or, where they had to be changed, in
 * `scratch`, in which the caller has reserved mj_wire_room() bytes: so nothing here
 * can fail for lack of memory, and what was read stays where it is. */
#ifndef MJ_WIRE_H
#define MJ_WIRE_H

#include "domain/state.h"
#include "provider/answer.h"
#include "provider/json.h"

enum { MJ_WIRE_WHY = MJ_MAX_REASON + 128 }; /* bytes of a reason: the provider's, ours before it, and an end */

/* For reading n bytes of text and the words in it; n bytes are enough for what is no word. */
size_t mj_wire_room(size_t n);

/* A callback's body: enveloped, bare, with data as an array of one, or as resellers send it, with a status word and a
 * jobId around data.  False: `why` tells why nothing is said of a task in it. */
bool mj_wire_callback(const mj_provider *p, mj_str body, mj_buf *scratch, mj_signal *out, char why[MJ_WIRE_WHY]);

/* The answer to a status request, of this HTTP status; `blocked`: it bears "cf-mitigated".  False: `meaning` says what
 * it means, and `why` in words, with what the provider says. */
typedef struct mj_wire_statuses {
    mj_meaning meaning;
    mj_json rest;
} mj_wire_statuses;
bool mj_wire_status(const mj_provider *p, int http, bool blocked, mj_str body, mj_buf *scratch, mj_wire_statuses *out,
                    char why[MJ_WIRE_WHY]);
/* The entries of an answer about the n ids that were asked for, which are sorted (mj_wire_sort): entries[i] becomes the
 * one about asked[i], or none.  Of several that agree it is one of them; that contradict each other, one that can't
 * be read.  All others are passed over: an answer costs no more than reading it once.
 * The number of entries that name no task and so may be about any: what has no entry is then not known to be absent.
 * A null is none of them, unless there is nothing else. */
size_t mj_wire_asked(const mj_provider *p, mj_wire_statuses words, const mj_str *asked, size_t n, mj_json *entries,
                     mj_buf *scratch);
void mj_wire_sort(mj_str *ids, size_t n);
/* What one entry says of its task; false: it can't be read. */
bool mj_wire_entry(const mj_provider *p, mj_json entry, mj_buf *scratch, mj_signal *out);

/* What an answer to a submission means (provider/answer.h): `kind` is "accepted" with a task_id, "refused" (for now),
 * "rejected" (for good) or "maybe_sent"; but for the first with a code, a text, and what the provider says. */
typedef struct mj_wire_verdict {
    mj_meaning meaning;
    const char *kind, *code;
    mj_str text, said, task_id;
} mj_wire_verdict;
void mj_wire_submit(const mj_provider *p, int http, bool blocked, mj_str body, mj_buf *scratch, mj_wire_verdict *out);

#endif
