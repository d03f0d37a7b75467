/* mj_store: tasks, their indexes, the outbox of events and the slots, in a database (store/backend.h).
 *
 * This header speaks of tasks, signals, events and pages, not of keys and
 * cursors.  One primitive writes: mj_store_write() runs a batch of operations in
 * one durable transaction.  Reads copy out and hold nothing open afterwards.
 *
 * A handle is used by one thread at a time; different handles may be used by
 * different threads.  After fork() the child's first use of a handle opens the
 * database afresh. */
#ifndef MJ_STORE_H
#define MJ_STORE_H

#include "domain/account.h"
#include "domain/counters.h"
#include "domain/filter.h"

#include <sys/types.h>

#define MJ_VERSION "0.1.0"
/* 2: tombstones, task records of version 2; 3: refused callbacks; 4: task records of version 3, measures, rounds of
 * tries; 5: task records of version 4 */
#define MJ_STORE_SCHEMA 5
#define MJ_MAX_ACCOUNTS 64
#define MJ_MAX_EVENT_ERRORS 5     /* newest errors that an event keeps */
#define MJ_MAX_REFUSED 256        /* refused callbacks that are kept */
#define MJ_MAX_REFUSED_OF_ONE 16  /* ... of one task */
#define MJ_MAX_REFUSED_BODY 65536 /* bytes of each */
/* Of an account's rest that a person ends; mjhook/accounts.lua: its reason, and until when. */
#define MJ_BY_HAND "by_hand"
#define MJ_FOR_EVER ((int64_t)1 << 53)

typedef struct mj_store mj_store;

typedef struct mj_store_options {
    mode_t mode;      /* of the files: 0600, or 0660 in a setgid directory; 0: 0600 */
    uint64_t map_max; /* bytes the file may grow to; 0: 1 TiB (address space, not memory) */
    mj_rules rules;
    /* For a thread that must not wait, such as an event loop: what would have to wait for a running commit, or for
     * another thread that opens the store, fails with MJ_EBUSY.  Writing waits all the same. */
    bool no_wait;
    const char
        *schema;  /* name of the store in a database that holds several; NULL: the default.  Lasts until it is open */
    bool careful; /* only what every engine of a database's kind can do */
    const struct mj_account *accounts; /* for mj_store_restore() */
    size_t naccounts;
} mj_store_options;

typedef struct mj_backend mj_backend; /* store/backend.h */

/* Opens or creates the store in directory `dir` (its parent has to exist), which LMDB keeps.
 * On error *out is NULL and why holds a sentence for people.
 * MJ_EOWNER (before a file is touched), MJ_ESCHEMA, MJ_EFORMAT, MJ_EREADONLY, MJ_ENOSPC, MJ_EIO, MJ_ENOMEM. */
int mj_store_open(const char *dir, const mj_store_options *o, mj_store **out, char *why, size_t why_size);
/* The same on another database (store/backend.h).  MJ_ESCHEMA: its module belongs to another version. */
typedef struct mj_backend mj_backend;
int mj_store_open_on(const mj_backend *backend, const char *where, const mj_store_options *o, mj_store **out, char *why,
                     size_t why_size);
void mj_store_close(mj_store *s);
/* Whether there is a store: MJ_OK; MJ_ENOTFOUND: provably none; else why says why it can't be looked at.
 * backend NULL: LMDB. */
int mj_store_exists(const mj_backend *backend, const char *where, const mj_store_options *o, char *why,
                    size_t why_size);
/* The database of a handle. */
const mj_backend *mj_store_backend(const mj_store *s);
bool mj_store_waits(const mj_store *s); /* a call may wait for a network: not on an event loop */
/* Wall-clock milliseconds by the clock that all processes of the store go by.  Never waits. */
int64_t mj_store_now(mj_store *s);

/* How long ago, in ms, the host of that boot id was last seen by the store.  MJ_ENOTFOUND: never; also where all
 * processes run on one host. */
int mj_store_host(mj_store *s, const uint8_t boot[16], int64_t *ago);

/* A lock of the store's own: one holder of a name among all its processes, until it lets go or dies.  MJ_EBUSY.  After
 * a fork the child's unlock frees memory, and the parent goes on holding it. */
typedef struct mj_lock mj_lock;
int mj_store_lock(mj_store *s, const char *name, mj_lock **held);
void mj_store_unlock(mj_store *s, mj_lock *held);

/* For a caller that writes batch after batch, before each: where one writer runs at a time, and others have written
 * between the last two batches of this handle, it sleeps for twice as long as the last batch took, counted from the
 * batch's end.  So the others get two thirds of the time.  Gives how long, in us, the last batch held them up.  Without
 * others it gives 0 at once. */
int64_t mj_store_give_way(mj_store *s);

/* A note that outlives this process: text under a name of letters, digits, '-' and '.'.  text {0} removes it. */
int mj_store_mark(mj_store *s, const char *name, mj_str text);
int mj_store_marked(mj_store *s, const char *name, mj_buf *out); /* MJ_ENOTFOUND */

/* What doctor says of the database: level "ok", "warn" or "fail"; advice: what to do, or NULL.  Waits. */
typedef void (*mj_fact_fn)(void *ctx, const char *level, const char *name, const char *text, const char *advice);
int mj_store_facts(mj_store *s, mj_fact_fn tell, void *ctx);

/* Jobs that were put into the database by its own means, such as SQL, and wait to become tasks: the oldest ones, at
 * most `limit`.  Appends name (for mj_op.intake) and job (text, a JSON object; its context is a string that holds
 * JSON, so that no digit is lost) of each with mj_put_str(). */
int mj_store_intake(mj_store *s, uint32_t limit, mj_buf *out);

/* Opens a file of a store for writing, and makes it with this mode, whatever the umask, when it is not there.  `at`:
 * descriptor of its directory, or AT_FDCWD; `dir`: the directory's name, for messages, or "".  A link, a pipe, a
 * device, a file with a second name or of another user is refused.  MJ_EOWNER, MJ_EREADONLY, MJ_ENOSPC, MJ_ENOMEM. */
int mj_store_file(int at, const char *dir, const char *name, mode_t mode, int *fd, char *why, size_t why_size);
/* What exactly failed in the last call on this handle; empty when it was no system's fault. */
const char *mj_store_detail(const mj_store *s);

/* The accounts that claims may use, in the order of preference.  Copied.  MJ_ELIMIT, MJ_EINVAL. */
typedef struct mj_account {
    mj_str name;
    uint32_t max_in_flight; /* slots; 0: drained, nothing new is sent under it */
} mj_account;
int mj_store_accounts(mj_store *s, const mj_account *a, size_t n);

/* The operations.
 *
 * MJ_OP_CREATE
 *     A new task from `task` (ref is made here, ascending in this process) and `sig` (source; a task_id makes it
 *     an adopted one).  MJ_EDUPLICATE: key or task_id known, record is the first task's.  MJ_EKEY.  `intake`: the row
 *     that asks for it (mj_store_intake()), which goes with it, or when the task is known; MJ_ENOTFOUND: it is gone.
 * MJ_OP_REFUSE_INTAKE
 *     Row `intake` asks for what can't be a task: it stays with sig.error as the reason, and is not given out again.
 *     MJ_ENOTFOUND.
 * MJ_OP_SIGNAL
 *     Applies `sig` to the task `ref` (has_ref) or to the one that sig.task_id is bound to.
 *     Codes of mj_state_apply(); MJ_EUNKNOWN: no such task; MJ_ECORRUPT.
 * MJ_OP_CLAIM
 *     Claims the first task in the queue that a free slot can send: `sig` brings the owner.  `rested`: nothing has been
 *     sent under its account since the account's rest was over.
 *     MJ_ENOTFOUND: nothing is ready; MJ_ELIMIT: something is, but no slot or account.
 * MJ_OP_PAUSE
 *     Until `until` nothing is claimed for sig.account; sig.error_code and sig.error say why.  0 lifts it.
 *     A rest whose reason is MJ_BY_HAND outlasts what a refusal asks for.
 * MJ_OP_TICK
 *     Ends slots whose time is over and readies queued tasks whose wait is over, at most `limit` of each;
 *     `done` becomes their number.  After the clock was set back also goes over up to `limit` entries of what that put
 *     off; `more`: it has not come to all.
 * MJ_OP_EVENT_TAKE
 *     Leases the first event that is due until `until`: event and record are filled.  MJ_ENOTFOUND.
 * MJ_OP_EVENT_DONE
 *     The handler returned: event {ref, seq, tries} is done.  MJ_ECHANGED: the lease is another process'.  sig.files:
 *     what it stored, as JSON, for the task.
 * MJ_OP_EVENT_RETRY
 *     The handler failed with sig.error: to be tried again at `until`, or buried when that is 0.  Without an
 *     error it was not run at all, and the try does not count.
 * MJ_OP_EVENT_KICK
 *     Hands an event out again now, with all its tries ahead: {ref, seq}, or with seq 0 the task's last one, also
 *     when it was delivered.  MJ_ENOTFOUND; MJ_ESTATE: it, or another one of its task, is being handled at this
 *     moment, or the task has none.
 * MJ_OP_EVENT_BURY
 *     Gives event {ref, seq} up, with sig.error as the reason.  MJ_ENOTFOUND, MJ_ESTATE as above, MJ_EDUPLICATE.
 * MJ_OP_SWEPT
 *     A pass of reconcile has ended: it took elapsed_ms and made `requests` status requests.  `judge`: there is a
 *     webhook.  verdict (out): what the pass showed of it.
 * MJ_OP_REFUSE
 *     Keeps a callback that was refused although its token was good: ref, sig.attempt, sig.error (why) and `body`, of
 *     which at most MJ_MAX_REFUSED_BODY bytes are kept.  Only the newest MJ_MAX_REFUSED stay, of one task the newest
 *     MJ_MAX_REFUSED_OF_ONE.  MJ_ELIMIT: not kept, since the task has as many and one of them came within a second.
 * MJ_OP_PRUNE
 *     Turns up to `limit` tasks in state sig.expect_state that finished at or before `until` into tombstones,
 *     the oldest first, from `ref` (has_ref) on; passes over those with an event or a slot.  done: how many;
 *     more: there may be others, from `next` on.
 * MJ_OP_FORGET
 *     Drops up to `limit` tombstones made at or before `until`: their keys and ids may be used again.
 * MJ_OP_UPGRADE
 *     Rewrites up to `limit` records of older versions in the newest one.  done: how many; more: as it says.
 * MJ_OP_PRUNE_FROM
 *     Remembers that reconcile's walk over the tasks in state sig.expect_state goes on from `ref` (has_ref), or from
 *     the oldest one. */
/* What an operation does; its name is what store:write() calls it.  Their order is not stored anywhere. */
#define MJ_OPS(X)                                                                                                      \
    X(MJ_OP_CREATE, "create")                                                                                          \
    X(MJ_OP_REFUSE_INTAKE, "refuse_intake")                                                                            \
    X(MJ_OP_SIGNAL, "signal")                                                                                          \
    X(MJ_OP_CLAIM, "claim")                                                                                            \
    X(MJ_OP_PAUSE, "pause")                                                                                            \
    X(MJ_OP_TICK, "tick")                                                                                              \
    X(MJ_OP_EVENT_TAKE, "take")                                                                                        \
    X(MJ_OP_EVENT_DONE, "done")                                                                                        \
    X(MJ_OP_EVENT_RETRY, "retry")                                                                                      \
    X(MJ_OP_EVENT_KICK, "kick")                                                                                        \
    X(MJ_OP_EVENT_BURY, "bury")                                                                                        \
    X(MJ_OP_SWEPT, "swept")                                                                                            \
    X(MJ_OP_REFUSE, "refuse")                                                                                          \
    X(MJ_OP_PRUNE, "prune")                                                                                            \
    X(MJ_OP_FORGET, "forget")                                                                                          \
    X(MJ_OP_UPGRADE, "upgrade")                                                                                        \
    X(MJ_OP_PRUNE_FROM, "prune_from")

typedef enum {
#define X(sym, name) sym,
    MJ_OPS(X)
#undef X
        MJ_NOPS
} mj_op_kind;

const char *mj_op_name(unsigned kind);

typedef struct mj_event_error {
    int64_t at;
    mj_str text;
} mj_event_error;

typedef struct mj_event_record {
    uint8_t ref[MJ_ULID_BYTES];
    uint32_t seq; /* from 1 within the task; with the ref it is the event's stable id */
    mj_event type;
    uint32_t attempt; /* of the task */
    bool late, buried;
    bool leased;     /* handed out until next_at */
    uint32_t tries;  /* deliveries begun; identifies the lease */
    uint32_t before; /* those of them that were begun before it was kicked */
    uint32_t failed; /* handlers that failed since it was kicked; the others' processes died, or handed it back */
    int64_t created_at, next_at;
    int64_t since; /* when next_at was set; 0: not known */
    unsigned nerrors;
    mj_event_error errors[MJ_MAX_EVENT_ERRORS];
} mj_event_record;

typedef struct mj_op {
    mj_op_kind kind;
    bool want;      /* give the record back */
    bool brief;     /* CREATE, CLAIM: its caller reads of the record only what is sent */
    bool raw;       /* EVENT_TAKE, of the binding: the caller decodes the records */
    bool judge;     /* SWEPT */
    bool no_policy; /* PRUNE: events that only wait for a handler hold no task back, and go with it */
    bool has_ref;
    uint8_t ref[MJ_ULID_BYTES]; /* in, or out of CREATE and CLAIM */
    mj_task *task;              /* CREATE: the user's fields; read only */
    mj_signal sig;
    mj_str body;           /* REFUSE */
    mj_str intake;         /* CREATE, REFUSE_INTAKE: a row's name */
    mj_event_record event; /* EVENT_*: ref, seq and tries in; all of it out (its strings in event_bytes) */
    int64_t until;
    uint32_t limit;
    uint32_t requests;  /* SWEPT */
    int64_t elapsed_ms; /* SWEPT */
    /* out */
    int code;
    mj_event made;      /* the event that this operation stored */
    mj_verdict verdict; /* SWEPT */
    uint32_t done;      /* TICK, PRUNE, FORGET, UPGRADE: how many */
    uint32_t seq;       /* KICK: the event's */
    bool rested;        /* CLAIM */
    bool more;          /* TICK, PRUNE, FORGET, UPGRADE: there is more to do */
    uint8_t next[MJ_ULID_BYTES];
    bool pruned; /* CREATE: the key is a pruned task's; tomb tells of it */
    mj_buf tomb;
    mj_buf record; /* the task's record afterwards, when wanted and known */
    mj_buf event_bytes;
} mj_op;

/* Runs n operations in one transaction that is on disk when this returns 0; each op's code says how it went,
 * and an op that fails changes nothing and fails no other.  Otherwise nothing is stored: MJ_ENOSPC, MJ_EREADONLY,
 * MJ_EIO, MJ_ENOMEM, MJ_ECLOSED, MJ_EBUSY (other writers were faster, again and again); every op's code is that, too.
 * MJ_EUNSURE: all of it is stored, or nothing; nothing shows which, until the store can be asked again.
 * `now`: wall-clock milliseconds. */
int mj_store_write(mj_store *s, mj_op *ops, size_t n, int64_t now);
/* The same with a last step before the commit: call(ctx) runs when all operations have run and what they give out is
 * complete, while other writers wait.  It makes what the caller needs to take the results over.  Anything but MJ_OK
 * aborts the transaction and is returned.  A batch that runs again calls it again. */
typedef struct mj_ready {
    int (*call)(void *ctx);
    void *ctx;
} mj_ready;
int mj_store_write_ready(mj_store *s, mj_op *ops, size_t n, int64_t now, const mj_ready *ready);
void mj_op_clear(mj_op *op); /* frees the outputs */

/* The record of a task, appended to *out.  MJ_ENOTFOUND. */
int mj_store_get(mj_store *s, const uint8_t ref[MJ_ULID_BYTES], mj_buf *out);
int mj_store_find(mj_store *s, mj_str task_id, mj_buf *out, uint32_t *attempt);

/* What is left of a pruned task. */
typedef struct mj_tomb {
    uint8_t ref[MJ_ULID_BYTES];
    mj_state state;
    int64_t created_at, finished_at, pruned_at;
    mj_str key;
    unsigned nids;
    mj_str ids[MJ_MAX_ATTEMPTS * MJ_MAX_IDS];
} mj_tomb;
int mj_tomb_decode(mj_str bytes, mj_tomb *out);

/* Looks, in one snapshot and without the writer's lock, at up to `limit` tasks in state p->state that finished at or
 * before p->until, the oldest first, from p->from on: appends the refs of those that MJ_OP_PRUNE would take to *out.
 * p->more: there may be others, from p->from on.  `resume`: begins where MJ_OP_PRUNE_FROM said. */
typedef struct mj_prunable {
    mj_state state;
    int64_t until; /* ms */
    uint32_t limit;
    bool resume;    /* out: whether there was such a place */
    bool no_policy; /* see mj_op; `now` is for telling which events are at work */
    int64_t now;
    bool has_from, more;
    uint8_t from[MJ_ULID_BYTES];
} mj_prunable;
int mj_store_prunable(mj_store *s, mj_prunable *p, mj_buf *out);

/* The tombstone of a pruned task.  MJ_ENOTFOUND.  Its callers are tests, which see by it what a prune left. */
int mj_store_tomb(mj_store *s, const uint8_t ref[MJ_ULID_BYTES], mj_buf *out);
/* By the user's key: the task's record (*pruned false) or its tombstone.  MJ_ENOTFOUND. */
int mj_store_key(mj_store *s, mj_str key, mj_buf *out, bool *pruned);

/* A callback that was refused after its token had been found good. */
typedef struct mj_refused {
    uint64_t number; /* ascending; its name for people */
    int64_t at;
    uint8_t ref[MJ_ULID_BYTES];
    uint32_t attempt;
    uint64_t size; /* of the whole body, which may be more than what was kept */
    mj_str why, body;
} mj_refused;
int mj_refused_decode(mj_str bytes, mj_refused *out);
/* Those below number `below` (0: all), newest first, at most `limit`, each appended with mj_put_str(). */
int mj_store_refused(mj_store *s, uint64_t below, uint32_t limit, mj_buf *out);

typedef enum { MJ_BY_AGE, MJ_BY_STATE, MJ_BY_USER, MJ_BY_KEY, MJ_BY_DUE, MJ_BY_EVENT } mj_order;

/* A page of a listing.  AGE, STATE, USER and KEY run from the newest task to the oldest; DUE from the longest due;
 * EVENT from the oldest task's.  A page looks at a bounded number of records: it may be short, or empty, while there
 * are more. */
typedef struct mj_query {
    mj_order order;
    mj_state state;    /* STATE */
    mj_str user_id;    /* USER */
    mj_str key;        /* KEY: the user's key, which at most one task has */
    mj_filter only;    /* not DUE: what the task must be; EVENT: the event's task */
    mj_due due;        /* DUE: which job */
    int64_t until;     /* DUE: due at or before, ms.  The others: the task was created at or before, ms; 0: any time */
    int64_t since;     /* not DUE: the task was created at or after, ms; 0: all */
    bool oldest_first; /* AGE, STATE, USER: the other way round */
    bool refs;         /* not EVENT: give the 16 bytes of the ref instead of the record */
    bool buried;       /* EVENT: only those */
    bool waiting;      /* EVENT: only those that are not buried */
    bool failed;       /* EVENT: only those whose handler has failed */
    bool has_ref;      /* EVENT: only those of task `ref` */
    uint8_t ref[MJ_ULID_BYTES];
    uint32_t limit;
    uint8_t cursor[8 + MJ_ULID_BYTES]; /* where the last page ended; in and out.  Of tasks: a ref and 8 zeros will do */
    bool more;                         /* in: go on at the cursor; out: there may be a next page */
    uint32_t looked;                   /* out: how many entries this page has looked at */
} mj_query;

/* Appends up to q->limit records to *out, each with mj_put_str(). */
int mj_store_page(mj_store *s, mj_query *q, mj_buf *out);
/* Reads one event record as MJ_BY_EVENT pages and mj_op hold them. */
int mj_event_decode(mj_str bytes, mj_event_record *e);

typedef struct mj_account_stats {
    char name[MJ_MAX_NAME + 1];
    uint32_t held, max_in_flight;
    int64_t paused_until, paused_at;
    uint32_t observed;   /* slots that were held when the provider last said 1002 */
    int64_t observed_at; /* when that was; 0: never */
    char reason[64];
} mj_account_stats;
typedef struct mj_stats {
    uint64_t states[MJ_NSTATES];
    uint64_t events, buried; /* waiting to be delivered; given up */
    uint64_t ready;          /* queued tasks that may be sent as soon as there is a slot */
    int64_t oldest_open;     /* when the oldest task without an end was created, ms; 0: there is none */
    int64_t event_due;       /* when the event that waits longest should have been handed out, ms; 0: there is none */
    int64_t latest;          /* the time of the newest commit, by its clock; 0: not known */
    uint64_t map_used, map_size;
    mj_counters counters;
    mj_judged judged;
    mj_rules rules; /* those of the handle, before they are adapted */
    unsigned naccounts;
    mj_account_stats accounts[MJ_MAX_ACCOUNTS];
} mj_stats;

/* Compares every record with every index, both ways, the counters, the slots and the outbox, in one snapshot.
 * `problem` is called with a sentence for each thing that is wrong (at most 1,000 of them); *found counts them all.
 * Takes time in proportion to the store and holds one reader that long. */
typedef struct mj_check_report {
    uint64_t tasks, events, tombs, found;
    uint64_t queued; /* of the tasks */
    bool upgrading;  /* records of an older version are still being rewritten */
} mj_check_report;
int mj_store_check(mj_store *s, void (*problem)(void *ctx, const char *text), void *ctx, mj_check_report *out);

/* A consistent, compacted copy, to/data.mdb, while others write.  The directory `to` is made, or holds no store.  The
 * copy has the mode of the store's files, and is there as a whole or not at all.  MJ_EEXISTS, MJ_ENOSPC, MJ_ECORRUPT
 * (the store is damaged), ... */
int mj_store_backup(mj_store *s, const char *to);

/* What was restored. */
typedef struct mj_restored {
    mj_check_report checked; /* if tasks are queued, o->accounts rest */
    char kept[64];           /* name of the former data file, in the store's directory; empty: there was none */
} mj_restored;
/* Puts a copy of `from`, a data file or a directory that holds one, in the place of the store in `dir`, which is made
 * when it is not there.  The copy is checked first: each page, each record, each index; with `anyway` records and
 * indexes may disagree.  It gets owner and mode of the file that it replaces, which is kept under another name.  A
 * death at any moment leaves the former store or the new one.
 * A task that is queued in it may have been sent since it was copied.  So if there is one, all accounts in o->accounts
 * rest as if by a person's order: nothing is sent until a person has looked.
 * MJ_EBUSY: a process has the store open, or what is to be restored; MJ_ENOTFOUND, MJ_EFORMAT, MJ_ESCHEMA,
 * MJ_ECORRUPT, MJ_EOWNER, MJ_ENOSPC, ...: nothing was changed, and why says what is wrong. */
int mj_store_restore(const char *from, const char *dir, const mj_store_options *o, bool anyway, mj_restored *out,
                     char *why, size_t why_size);

/* Lets go of what was read of the file, which counts as this process' memory until then.  Call it periodically during
 * long scans. */
void mj_store_trim(mj_store *s);

/* From counters: the size of the store does not matter. */
int mj_store_stats(mj_store *s, mj_stats *out);
/* By the sums alone: how many queued jobs may be sent, and the time of the newest commit. */
int mj_store_sums(mj_store *s, int64_t *ready, int64_t *latest);
/* How many queued jobs may be sent, as this handle's last write left them.  Asks nothing: what others queued may be
 * missing for some seconds. */
int64_t mj_store_last_ready(const mj_store *s);

/* The software below, as it runs here: "LMDB 0.9.24: (July 24, 2019)".  NULL: LMDB. */
const char *mj_store_library(mj_store *s);

#endif
