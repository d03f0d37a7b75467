/* mj_object: an object that the provider sent, an envelope or a task, read without trust.
 *
 * The provider's profile has the names.  provider/reader.h, of which this is the lower half, explains scratch and what
 * is kept of texts and URLs. */
#ifndef MJ_OBJECT_H
#define MJ_OBJECT_H

#include "domain/state.h"
#include "provider/json.h"
#include "provider/profile.h"

/* The members of an object that the profile names, and its id; empty: none can be used. */
typedef struct mj_object {
    mj_json f[MJ_F_COUNT];
    mj_str id;
} mj_object;
extern const mj_object mj_object_none;

/* Reads an object; what is no object has no members.
 *
 * A member may be there twice.  If that is taskId, jobId, status, data or error and the values are not the same text,
 * it is torn: it counts as a value of a wrong type.  Null says nothing.  Two ids or two statuses are no answer, since a
 * wrong choice may send a job again, or give an image to the wrong task.  Of any other member the last value counts, as
 * for most readers. */
void mj_object_read(const mj_provider *p, mj_json from, mj_buf *scratch, mj_object *out);
/* Reads only the id of an object; *by_job: it is the jobId, since there is no taskId. */
mj_str mj_object_id(const mj_provider *p, mj_json entry, mj_buf *scratch, bool *by_job);
bool mj_object_torn(const mj_json *v);
/* The last member of that name; and the only one, which is torn if there are two that differ. */
mj_json mj_object_member(mj_json object, mj_str name);
mj_json mj_object_only(mj_json object, mj_str name);
/* Whether it is missing or null. */
bool mj_object_missing(const mj_json *v);
bool mj_object_has(const mj_object *o, int field);

/* Reads a status: a number, also in a string, or a word, which begins with a letter; an unknown word gives `other`.
 * MJ_STATUS_ENVELOPE: beside a task this word is the envelope's. */
typedef enum { MJ_STATUS_NONE, MJ_STATUS_NUMBER, MJ_STATUS_WORD, MJ_STATUS_ENVELOPE } mj_status_kind;
mj_status_kind mj_object_status(const mj_provider *p, const mj_json *v, int64_t other, mj_buf *scratch, int64_t *out);

/* The provider's message about an error: message, else error.message, else error as a text. */
mj_str mj_object_complaint(const mj_provider *p, const mj_object *o, mj_buf *scratch);

/* Reads what `o` says about a task: NULL, or why it says nothing.  `beside` is an object around it or in it, which
 * fills its gaps.  Of the statuses there only words count, since the number beside a task is the envelope's. */
const char *mj_object_task(const mj_provider *p, const mj_object *o, const mj_object *beside, mj_buf *scratch,
                           mj_signal *w);

#endif
