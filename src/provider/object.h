/* mj_object: an object in what the provider says, an envelope or a task, read without believing it.
 *
 * What is called how is in the provider's profile.  As for scratch, and for what is kept of texts and URLs, see
 * provider/reader.h: this is its lower half. */
#ifndef MJ_OBJECT_H
#define MJ_OBJECT_H

#include "domain/state.h"
#include "provider/json.h"
#include "provider/profile.h"

/* An object's members that have a name here, and the id in it: empty when none can be used. */
typedef struct mj_object {
    mj_json f[MJ_F_COUNT];
    mj_str id;
} mj_object;
extern const mj_object mj_object_none;

/* Of members that are there twice the last one counts, as for most readers.  What is no object has none. */
void mj_object_read(const mj_provider *p, mj_json from, mj_buf *scratch, mj_object *out);
/* Only the id of an object; *by_job: it is its jobId, since there is no taskId. */
mj_str mj_object_id(const mj_provider *p, mj_json entry, mj_buf *scratch, bool *by_job);
mj_json mj_object_member(mj_json object, mj_str name);
/* It is not there, or null. */
bool mj_object_missing(const mj_json *v);
bool mj_object_has(const mj_object *o, int field);

/* A status: a number, also in a string, or a word, which begins with a letter; of an unknown word *out is
 * `other`.  MJ_STATUS_ENVELOPE: a word that beside a task is the envelope's. */
typedef enum { MJ_STATUS_NONE, MJ_STATUS_NUMBER, MJ_STATUS_WORD, MJ_STATUS_ENVELOPE } mj_status_kind;
mj_status_kind mj_object_status(const mj_provider *p, const mj_json *v, int64_t other, mj_buf *scratch, int64_t *out);

/* What the provider says went wrong: message, else error.message, else error as a text. */
mj_str mj_object_complaint(const mj_provider *p, const mj_object *o, mj_buf *scratch);

/* What `o` says of a task: NULL, or why nothing.  `beside` is an object around it or in it, which has what it lacks:
 * but of the statuses there only words, since the number beside a task is the envelope's. */
const char *mj_object_task(const mj_provider *p, const mj_object *o, const mj_object *beside, mj_buf *scratch,
                           mj_signal *w);

#endif
