/* mj_wire: reads what the provider sends, and trusts nothing (PROVIDER.md).
 *
 * Types are checked; numbers may come as strings and statuses as words; null and a wrong type count as missing; text
 * is UTF-8 afterwards (broken bytes and control characters become '?'); URLs are http(s) and percent-encoded;
 * everything has a limit.  The provider's profile has the names.  The result is a signal for the state machine:
 * SIG_RUNNING, SIG_SUCCEEDED, SIG_HINT or SIG_FAILED.
 *
 * Its strings are in the text that was read, or, if they had to be changed, in `scratch`, where the caller has
 * reserved mj_wire_room() bytes.  So nothing here can run out of memory, and what was read stays in place. */
#ifndef MJ_WIRE_H
#define MJ_WIRE_H

#include "domain/state.h"
#include "provider/answer.h"
#include "provider/json.h"

enum { MJ_WIRE_WHY = MJ_MAX_REASON + 128 }; /* bytes of a reason: the provider's, our own before it, and a NUL */

/* Scratch for n bytes of text and the statuses in it; n bytes are enough when no status is read. */
size_t mj_wire_room(size_t n);

/* Reads a callback's body: enveloped, bare, with data as an array of one, or as resellers send it, with a status word
 * and a jobId around data.  False: it says nothing about a task, and `why` tells why. */
bool mj_wire_callback(const mj_provider *p, mj_str body, mj_buf *scratch, mj_signal *out, char why[MJ_WIRE_WHY]);

/* Reads the answer to a status request, which has this HTTP status; `blocked`: it has a "cf-mitigated" header.  False:
 * `meaning` says what it means, and `why` says it in words, with the provider's message. */
typedef struct mj_wire_statuses {
    mj_meaning meaning;
    mj_json rest;
} mj_wire_statuses;
bool mj_wire_status(const mj_provider *p, int http, bool blocked, mj_str body, mj_buf *scratch, mj_wire_statuses *out,
                    char why[MJ_WIRE_WHY]);
/* Finds the entries about the n ids that were asked for, which are sorted (mj_wire_sort): entries[i] becomes the entry
 * about asked[i], or none.  Of several entries that agree one is taken; of several that contradict each other, none
 * can be read.  All other entries are skipped: an answer costs no more than reading it once.  Returns the number of
 * entries that name no task and so may be about any: then an id without an entry is not known to be absent.  A null
 * does not count, unless all entries are null. */
size_t mj_wire_asked(const mj_provider *p, mj_wire_statuses statuses, const mj_str *asked, size_t n, mj_json *entries,
                     mj_buf *scratch);
void mj_wire_sort(mj_str *ids, size_t n);
/* Reads one entry; false: it can't be read. */
bool mj_wire_entry(const mj_provider *p, mj_json entry, mj_buf *scratch, mj_signal *out);

/* Reads the answer to a submission (provider/answer.h).  `kind` is "accepted" with a task_id, "refused" (for now),
 * "rejected" (for good) or "maybe_sent"; all but the first have a code, a text and the provider's message. */
typedef struct mj_wire_verdict {
    mj_meaning meaning;
    const char *kind, *code;
    mj_str text, said, task_id;
} mj_wire_verdict;
void mj_wire_submit(const mj_provider *p, int http, bool blocked, mj_str body, mj_buf *scratch, mj_wire_verdict *out);

#endif
