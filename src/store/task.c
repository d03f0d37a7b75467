/* New tasks, and signals about known ones. */
#include "store/rules.h"

#include <string.h>

void mj_op_reset(mj_op *op, int code)
{
    op->code = code;
    op->made = MJ_EVENT_NONE;
    op->verdict = MJ_VERDICT_SAME;
    op->done = op->seq = 0;
    op->more = op->pruned = false;
    op->record.n = op->event_bytes.n = op->tomb.n = 0;
    op->record.failed = op->event_bytes.failed = op->tomb.failed = false;
}

static void give(mj_unit *u, mj_buf *to, mj_str bytes)
{
    to->n = 0;
    mj_put_raw(to, bytes.p, bytes.n);
    if (to->failed)
        u->rc = MJ_ENOMEM;
}

/* The task's record, as the operations so far have left it. */
static void give_back(mj_unit *u, mj_op *op, const mj_unit_row *row)
{
    if (op->want && row->kind == MJ_ROW_TASK)
        give(u, &op->record, row->bytes);
}

/* ---- new tasks ---- */

/* What can't be stored fails its own operation, not the unit. */
static bool storable(const mj_task *t, const mj_signal *sig)
{
    return t->key.n <= MJ_MAX_NAME && t->user_id.n <= MJ_MAX_NAME && t->account.n <= MJ_MAX_NAME &&
           sig->account.n <= MJ_MAX_NAME && sig->task_id.n <= MJ_MAX_TASK_ID && t->prompt.n <= MJ_MAX_PROMPT &&
           t->context.n <= MJ_MAX_JSON && t->expires_at >= 0 && t->expires_at <= MJ_MAX_TIME &&
           (t->account.n == 0 || !memchr(t->account.p, 0, t->account.n));
}

/* What a user gives of a task; it has no image, attempt or history yet, for which a record has much room. */
static void users_fields(const mj_task *given, mj_task *t)
{
    memcpy(t, given, offsetof(mj_task, images));
    t->nimages = t->nattempts = t->ntimeline = 0;
    t->has_owner = false;
    t->forgotten = 0;
}

/* The task that has the key or the task id already, or what is left of it. */
static void give_back_known(mj_unit *u, mj_op *op, const uint8_t *ref)
{
    mj_unit_row *row = mj_unit_row_of(u, ref, true);

    memcpy(op->ref, ref, MJ_ULID_BYTES);
    if (!row)
        return;
    give_back(u, op, row);
    if (row->damaged)
        op->code = MJ_ECORRUPT;
    op->pruned = row->kind == MJ_ROW_TOMB;
    if (op->pruned)
        give(u, &op->tomb, row->bytes);
}

/* Whether this name is taken: then op says by which task. */
static bool taken(mj_unit *u, mj_op *op, mj_index index, mj_str name, const uint8_t *fingerprint)
{
    mj_entry e = {.index = index, .name = name};
    int rc;

    if (name.n == 0)
        return false;
    rc = mj_unit_find(u, &e);
    if (rc == MJ_OK) {
        op->code =
            !fingerprint || memcmp(e.fingerprint, fingerprint, sizeof e.fingerprint) == 0 ? MJ_EDUPLICATE : MJ_EKEY;
        give_back_known(u, op, e.ref);
    } else if (rc != MJ_ENOTFOUND) {
        op->code = rc; /* the entry can't be read */
    }
    return rc != MJ_ENOTFOUND;
}

/* The row of META that asks for a task; another process has taken it if it is not there. */
static bool is_asked_for(mj_unit *u, mj_op *op)
{
    mj_entry row = {.index = MJ_IX_META, .name = op->intake};
    mj_str bytes;

    op->code = mj_unit_meta(u, row, &bytes);
    return u->rc == MJ_OK && op->code == MJ_OK;
}

/* It goes with the task that it asked for. */
static void take_in(mj_unit *u, const mj_op *op)
{
    mj_unit_change_of(u, (mj_entry){.index = MJ_IX_META, .name = op->intake}, true, (mj_str){0});
}

void mj_op_refuse_intake(mj_unit *u, mj_op *op)
{
    mj_str why = op->sig.error.n ? op->sig.error : (mj_str)MJ_LIT("refused");

    if (is_asked_for(u, op))
        mj_unit_change_of(u, (mj_entry){.index = MJ_IX_META, .name = op->intake}, false, mj_unit_copy(u, why.p, why.n));
}

void mj_op_create(mj_unit *u, mj_op *op)
{
    mj_unit_row *row;
    mj_task t;

    users_fields(op->task, &t);
    if (!storable(&t, &op->sig)) {
        op->code = MJ_EINVAL;
        return;
    }
    if (op->sig.task_id.n && op->sig.account.n && mj_unit_account(u, op->sig.account) < 0) {
        op->code = MJ_ELIMIT; /* unless u->rc says otherwise */
        return;
    }
    if (op->intake.n > 0 && !is_asked_for(u, op))
        return;
    if (taken(u, op, MJ_IX_KEY, t.key, t.fingerprint) || taken(u, op, MJ_IX_TID, op->sig.task_id, NULL)) {
        if (op->intake.n > 0 && op->code == MJ_EDUPLICATE)
            take_in(u, op);
        return;
    }
    u->rc = mj_refs_next(u->s->refs, u->now, t.ref);
    row = u->rc == MJ_OK ? mj_unit_row_of(u, t.ref, false) : NULL;
    if (!row || !mj_unit_before(u, row, NULL))
        return;
    memcpy(op->ref, t.ref, MJ_ULID_BYTES);
    mj_state_create(&t, &op->sig, &u->rules, u->now);
    op->code = mj_unit_put(u, row, &t);
    if (u->rc != MJ_OK || op->code != MJ_OK)
        return;
    if (op->intake.n > 0)
        take_in(u, op);
    give_back(u, op, row);
}

/* ---- signals ---- */

/* Applies a signal to the task t of a row, which was decoded from it. */
static void apply(mj_unit *u, mj_op *op, const mj_signal *sig, mj_unit_row *row, mj_task *t)
{
    mj_before before = {t->state, t->called_at}; /* layer: copy */
    mj_effect effect;
    int code;

    if (sig->kind == SIG_CLAIM && mj_unit_account(u, sig->account) < 0) {
        op->code = MJ_ELIMIT;
        return;
    }
    if (!mj_unit_before(u, row, t))
        return;
    op->code = mj_state_apply(t, sig, &u->rules, u->now, &effect);
    mj_counters_signal(&u->tally.counters, before, t, sig, op->code, &effect, u->now);
    u->owes = u->owes || effect.withheld;
    if (effect.changed) {
        t->event_seq += effect.event != MJ_EVENT_NONE;
        code = mj_unit_put(u, row, t);
        if (code != MJ_OK) { /* nothing was changed */
            op->code = code;
            return;
        }
        op->made = effect.event;
    }
    give_back(u, op, row);
    if (effect.event != MJ_EVENT_NONE)
        mj_event_add(u, row, t, effect.event);
}

/* Of a task that could not be read. */
static void unread(mj_unit *u, mj_op *op, int rc)
{
    if (u->rc == MJ_OK)
        op->code = rc == MJ_ENOTFOUND ? MJ_EUNKNOWN : rc; /* one unreadable record fails one operation */
}

void mj_apply(mj_unit *u, mj_op *op, const mj_signal *sig)
{
    mj_unit_row *row;
    mj_task t;
    int rc = mj_unit_task(u, op->ref, &row, &t);

    if (rc == MJ_OK)
        apply(u, op, sig, row, &t);
    else
        unread(u, op, rc);
}

void mj_rewind(mj_unit *u, const uint8_t *ref)
{
    mj_unit_row *row;
    mj_task t;

    if (mj_unit_task(u, ref, &row, &t) == MJ_OK && mj_unit_before(u, row, &t) && mj_state_rewind(&t, &u->rules, u->now))
        mj_unit_put(u, row, &t);
}

/* Finds the task that a signal is about: by ref, or by the task id it carries.  Which attempt is the reducer's to
 * tell. */
static int address(mj_unit *u, mj_op *op)
{
    mj_entry e = {.index = MJ_IX_TID, .name = op->sig.task_id};
    int rc;

    if (e.name.n == 0 || e.name.n > MJ_MAX_TASK_ID)
        return op->has_ref && e.name.n == 0 ? MJ_OK : MJ_ENOTFOUND;
    if (op->has_ref)
        mj_unit_expect_ids(u);
    rc = mj_unit_find(u, &e);
    if (rc == MJ_ENOTFOUND)
        return op->has_ref ? MJ_OK : rc;
    if (rc == MJ_OK && op->has_ref && memcmp(e.ref, op->ref, MJ_ULID_BYTES) != 0)
        op->sig.foreign_id = true;
    else if (rc == MJ_OK)
        memcpy(op->ref, e.ref, MJ_ULID_BYTES);
    return rc;
}

void mj_op_signal(mj_unit *u, mj_op *op)
{
    bool foreign = op->sig.foreign_id; /* a batch may be run again */
    mj_unit_row *row;
    mj_task t;
    int rc;

    /* Most signals name a task and an id that is its own: then the index of ids need not be asked, which in a store
     * that is larger than the memory is a page from the disk. */
    if (op->has_ref && op->sig.task_id.n > 0 && mj_unit_task(u, op->ref, &row, &t) == MJ_OK &&
        mj_task_attempt_of(&t, op->sig.task_id) > 0) {
        apply(u, op, &op->sig, row, &t);
    } else if (u->rc == MJ_OK) {
        rc = address(u, op);
        if (rc == MJ_OK)
            mj_apply(u, op, &op->sig);
        else
            unread(u, op, rc);
    }
    if (op->code == MJ_EUNKNOWN && op->sig.source == MJ_FROM_CALLBACK)
        mj_counters_count(&u->tally.counters, MJ_CALLBACK_UNKNOWN, 1);
    op->sig.foreign_id = foreign;
}
