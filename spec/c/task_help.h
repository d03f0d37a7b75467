/* Comparing task records. */
#ifndef TASK_HELP_H
#define TASK_HELP_H

#include "base/error.h"
#include "domain/state.h"
#include "domain/task.h"
#include "mj_test.h"

/* Equality of all that a record holds, written out: a field that a codec forgets must not be forgotten here. */
static inline void same(bool is, const char *field)
{
    if (!is)
        MJ_TEST_FAIL("%s differs", field);
}
#define SAME(field) same(a->field == b->field, #field)
#define SAME_STR(field) same(mj_str_eq(a->field, b->field), #field)

static inline void check_same_attempt(const mj_attempt *a, const mj_attempt *b)
{
    SAME(status), SAME(slot), SAME(submitted_at), SAME(slot_until), SAME_STR(account), SAME(nids);
    for (unsigned i = 0; i < a->nids; i++)
        SAME_STR(ids[i]);
}

static inline void check_same_moment(const mj_timeline_entry *a, const mj_timeline_entry *b)
{
    SAME(at), SAME(until), SAME(count), SAME(attempt), SAME(signal), SAME(result), SAME(source), SAME(from), SAME(to);
    SAME_STR(reason);
}

static inline void check_same(const mj_task *a, const mj_task *b)
{
    CHECK_MEM(a->ref, b->ref, sizeof a->ref);
    CHECK_MEM(a->fingerprint, b->fingerprint, sizeof a->fingerprint);
    SAME(state), SAME(mode), SAME(source), SAME(ready), SAME(late), SAME(decided), SAME(adopted), SAME(has_owner);
    SAME(timeout), SAME(priority), SAME(polls), SAME(absent), SAME(hints), SAME(tries), SAME(event_seq);
    SAME(created_at), SAME(updated_at), SAME(finished_at), SAME(due_at), SAME(expires_at), SAME(absent_since);
    SAME(asked_at), SAME(silent_ms);
    SAME_STR(account), SAME_STR(prompt), SAME_STR(mj_prompt), SAME_STR(user_id), SAME_STR(context), SAME_STR(key);
    SAME_STR(image), SAME_STR(meta), SAME_STR(error_code), SAME_STR(error);
    SAME(nimages), SAME(nattempts), SAME(forgotten), SAME(ntimeline);
    for (unsigned i = 0; i < a->nimages; i++)
        same(mj_image_url_eq(&a->images[i], &b->images[i]), "images");
    for (unsigned i = 0; i < a->nattempts; i++)
        check_same_attempt(&a->attempts[i], &b->attempts[i]);
    for (unsigned i = 0; i < a->ntimeline; i++)
        check_same_moment(&a->timeline[i], &b->timeline[i]);
    CHECK_MEM(a->owner.boot, b->owner.boot, sizeof a->owner.boot);
    SAME(owner.pidns), SAME(owner.pid), SAME(owner.started);
}

static inline mj_buf encoded(const mj_task *t)
{
    mj_buf b = {0};

    CHECK_INT(mj_task_encode(t, &b), MJ_OK);
    return b;
}

#endif
