/* The PostgreSQL backend: what its files share.
 *
 * Each index of MJ_INDEXES is a table; the fields of an entry are its columns and
 * its primary key (sql.c, schema.c).  A task's row lock protects all entries
 * that follow from the task: a writer locks rows of `task` (and of `account`,
 * `tomb`, `refused`) and nothing else.
 *
 * A batch takes two round trips: load() locks and reads, apply() and commit()
 * write.  In between runs the engine.  A statement that fails ends the
 * transaction; codes.c says which of our codes that is. */
#ifndef MJ_PG_DB_H
#define MJ_PG_DB_H

#include "base/error.h"
#include "os/owner.h"
#include "store/postgres/postgres.h"

#include <libpq-fe.h>
#include <sys/types.h>

enum {
    MJ_PG_SCHEMA = 2,              /* version of the tables; see schema.c */
    MJ_PG_OLDEST = 120000,         /* of the servers that have what is used here: joins by ctid */
    MJ_PG_OLDEST_CAREFUL = 110000, /* ... and what the careful paths use */
    MJ_PG_ANSWER_MS = 15000,       /* tcp_user_timeout, unless the URL has another: see mj_pg_url */
    MJ_PG_LEASE_S = 120,           /* of a named lock */
    MJ_PG_KEEP_MS = 20000,         /* between two renewals of it */
    MJ_PG_TOTALS_MS = 2000,        /* so old a writer's view of the other writers' sums may be */
    MJ_PG_BEAT_MS = 10000,         /* between two heartbeats of a host */
    MJ_PG_FREE_S = 3600,           /* after that long without a batch, a writer's row may be another connection's */
    MJ_PG_MOST_ARGS = 8,           /* of a statement */
    MJ_PG_MOST_SENT = 240          /* statements in a round trip, preparations included */
};

/* ---- url.c: which database, and how to speak of it without its password ---- */

typedef struct mj_pg_url {
    char *options[64], *values[64]; /* libpq's keywords; NULL ends them */
    char shown[256];                /* for messages: "mjhook on db1:5432" */
    char schema[64];
    /* How long the server may take for a statement (statement_timeout): the URL's tcp_user_timeout, which says how long
     * its kernel may be silent.  The other times follow from it: two thirds for a lock (lock_timeout), a third more for
     * a round trip, so that the server can say why, twice as much for a client that is silent in a transaction
     * (idle_in_transaction_session_timeout: a process that was stopped frees its locks), and once more to look up
     * whether a batch was committed. */
    int answer_ms;
    bool careful; /* nothing that only PostgreSQL itself has: serializable, no SKIP LOCKED, no ctid */
} mj_pg_url;

/* MJ_EINVAL, MJ_ENOMEM; why: a sentence. */
int mj_pg_url_parse(const char *where, const mj_store_options *o, mj_pg_url *u, char *why, size_t why_size);
void mj_pg_url_free(mj_pg_url *u);

/* The schema's name as statements write it, in quotes: it may be a word of SQL. */
void mj_pg_put_schema(mj_buf *out, const mj_pg_url *u);
/* Statements in which @ stands for that name. */
void mj_pg_put_sql(mj_buf *out, const mj_pg_url *u, const char *sql);

/* ---- sql.c, fixed.c: the text of each statement ---- */

/* Statements about one index ... */
typedef enum {
    MJ_PG_GET,         /* (key) one row or entry */
    MJ_PG_LOCK,        /* (key) ... FOR UPDATE */
    MJ_PG_PUT,         /* (columns as arrays) INSERT, or replace */
    MJ_PG_NEW,         /* (columns as arrays) INSERT of what has to be new */
    MJ_PG_DELETE,      /* (key columns as arrays) */
    MJ_PG_REPLACE,     /* (ctids, bytes) of rows that this transaction has locked */
    MJ_PG_REMOVE,      /* (ctids) */
    MJ_PG_MANY,        /* (key columns as arrays) what is there of them */
    MJ_PG_COUNT,       /* () */
    MJ_PG_SCAN,        /* (see mj_pg_where) entries in order */
    MJ_PG_SCAN_LOCK,   /* rows of the tasks (tombstones for GRAVE) of what SCAN gives: FOR UPDATE, those that are locked
                          are   left out */
    MJ_PG_SCAN_EVENTS, /* their events */
    MJ_PG_NKINDS
} mj_pg_kind;

/* ... and the others. */
typedef enum {
    MJ_PG_BEGIN_WRITE,
    MJ_PG_BEGIN_READ,
    MJ_PG_COMMIT,
    MJ_PG_ROLLBACK,
    MJ_PG_SETTINGS,   /* () of a transaction, behind a pooler */
    MJ_PG_LOAD_TASKS, /* (refs, task ids, keys) FOR UPDATE; the same without locks */
    MJ_PG_LOOK_TASKS,
    MJ_PG_LOAD_TOMBS, /* (refs) */
    MJ_PG_LOOK_TOMBS,
    MJ_PG_LOAD_EVENTS, /* (refs) */
    MJ_PG_LOAD_TIDS,   /* (task ids) */
    MJ_PG_LOAD_KEYS,   /* (keys) */
    MJ_PG_LOAD_META,   /* (names) */
    MJ_PG_LOOK_INTAKE,
    MJ_PG_LOAD_INTAKE,     /* (ids) FOR UPDATE */
    MJ_PG_INTAKE_GONE,     /* (ids) */
    MJ_PG_INTAKE_LIST,     /* (number) */
    MJ_PG_BARRIER_INTAKE,  /* () */
    MJ_PG_BARRIER_WRITERS, /* (id) all but that one */
    MJ_PG_INTAKE_REFUSE,   /* (ids, reasons) */
    MJ_PG_LOAD_ACCOUNTS,   /* (names) FOR UPDATE; the same without locks; of all */
    MJ_PG_LOOK_ACCOUNTS,
    MJ_PG_ALL_ACCOUNTS,
    MJ_PG_SLOTS, /* (names) how many each has; of all */
    MJ_PG_ALL_SLOTS,
    MJ_PG_HOLD_MAKE, /* (names) rows to be locked */
    MJ_PG_HOLD_FREE, /* (names) FOR UPDATE of those that are free; of all */
    MJ_PG_HOLD_ALL,
    MJ_PG_COUNT_ACCOUNTS,
    MJ_PG_TOTALS,       /* (id) of the other writers */
    MJ_PG_SET_BACK,     /* (time) no later one counts */
    MJ_PG_WRITER_TAKE,  /* (holder) a row that is free */
    MJ_PG_WRITER_MAKE,  /* (holder) */
    MJ_PG_WRITER_BATCH, /* (id, epoch, batch, tally, latest) fails when the row is another connection's */
    MJ_PG_WRITER_SEIZE, /* (id, holder) the former connection can commit nothing any more */
    MJ_PG_WRITER_FREE,  /* (id, epoch) */
    MJ_PG_WRITERS_FREE, /* (seconds) those that were silent so long */
    MJ_PG_END_BACKEND,  /* (pid, start) a former connection of ours */
    MJ_PG_LEASE_TAKE,   /* (name, holder, owner, seconds, another's holder that is dead) */
    MJ_PG_LEASE_LOOK,   /* (name) */
    MJ_PG_LEASE_KEEP,   /* (name, holder, seconds) */
    MJ_PG_LEASE_END,    /* (name, holder) */
    MJ_PG_BEAT,         /* (boot, name) */
    MJ_PG_HOST,         /* (boot) */
    MJ_PG_SIZE,         /* () */
    MJ_PG_CLOCK,        /* () */
    MJ_PG_FACTS,        /* () */
    MJ_PG_NOTHERS
} mj_pg_other;

enum {
    MJ_PG_FIXED = 1,
    MJ_PG_POSITIONED = 2,
    MJ_PG_AFTER = 4,
    MJ_PG_NEWEST = 8,
    MJ_PG_ROWS = 16,
    MJ_PG_BOUNDED = 32,
    MJ_PG_HEAD = 64,
    MJ_PG_PLACES = 128, /* and where each entry lies */
    MJ_PG_NVARIANTS = 256,
    MJ_PG_NSTATEMENTS = MJ_PG_NOTHERS + MJ_PG_NKINDS * MJ_NINDEXES * MJ_PG_NVARIANTS
};

/* A statement's number. */
static inline unsigned mj_pg_of(mj_pg_kind kind, mj_index index, unsigned variant)
{
    return MJ_PG_NOTHERS + ((unsigned)kind * MJ_NINDEXES + (unsigned)index) * MJ_PG_NVARIANTS + variant;
}

/* A table: its columns in the order of the index' fields, the key's first.  Letters say which field of an entry a
 * column is and so its type: r ref (uuid); n, a at, p priority (int8, negated so that high ones come first); s name, f
 * fingerprint, b the row's bytes (bytea).  In arrays also c: where a row lies (tid). */
typedef struct mj_pg_table {
    const char *name;
    unsigned nkey, ncolumns;
    struct {
        char letter;
        const char *name;
    } columns[5];
} mj_pg_table;

extern const mj_pg_table mj_pg_tables[MJ_NINDEXES];
static inline bool mj_pg_has_bytes(mj_index i)
{
    return mj_pg_tables[i].columns[mj_pg_tables[i].ncolumns - 1].letter == 'b';
}

void mj_pg_sql(const mj_pg_url *u, unsigned statement, mj_buf *out);
void mj_pg_fixed(mj_buf *out, const mj_pg_url *u, unsigned statement); /* an mj_pg_other */

/* ---- args.c: parameters in binary form ---- */

typedef struct mj_pg_args {
    unsigned n;
    const char *values[MJ_PG_MOST_ARGS];
    int lengths[MJ_PG_MOST_ARGS], formats[MJ_PG_MOST_ARGS];
    mj_buf bytes[MJ_PG_MOST_ARGS]; /* kept from one statement to the next */
    bool failed;
} mj_pg_args;

void mj_pg_args_free(mj_pg_args *a);
void mj_pg_no_args(mj_pg_args *a);
void mj_pg_arg_int(mj_pg_args *a, int64_t v);
void mj_pg_arg_bytes(mj_pg_args *a, mj_str s);
void mj_pg_arg_ref(mj_pg_args *a, const uint8_t *ref);
void mj_pg_arg_field(mj_pg_args *a, char letter, const mj_entry *e, mj_str bytes);
/* An array: begins it, adds its items. */
void mj_pg_arg_array(mj_pg_args *a, char letter, size_t n);
void mj_pg_item_int(mj_pg_args *a, int64_t v);
void mj_pg_item_bytes(mj_pg_args *a, const void *p, size_t n);
void mj_pg_item_field(mj_pg_args *a, char letter, const mj_entry *e, mj_str bytes);
/* Results, in binary form, too. */
int64_t mj_pg_int(const PGresult *r, int row, int column);
mj_str mj_pg_bytes(const PGresult *r, int row, int column);
/* Fills in e from the columns of a table; what follows them is the caller's. */
void mj_pg_entry(const PGresult *r, int row, mj_index index, mj_entry *e, mj_str *bytes);

/* ---- conn.c, trip.c: one connection, and round trips on it ---- */

typedef struct mj_pg_conn {
    const mj_pg_url *url;
    char *why; /* what failed, for people: the store's buffer */
    size_t why_size;
    PGconn *c;
    pid_t pid;        /* of the process that opened it */
    bool pooled;      /* a pooler is in between: no statement lasts longer than its transaction */
    bool warned;      /* the server said WARNING in this round trip */
    bool keep_schema; /* for mj_pg_text() alone: the schema is being made */
    int backend;      /* its process on the server, and when that began */
    int64_t backend_start;
    uint8_t prepared[(MJ_PG_NSTATEMENTS + 7) / 8];
    unsigned nsent, given_up; /* the first ones, whose results do not matter */
    unsigned syncs;           /* ends of groups whose answer was not yet read */
    struct {
        uint32_t statement;
        bool preparing;
    } sent[MJ_PG_MOST_SENT];
    PGresult *results[MJ_PG_MOST_SENT]; /* of the last round trip, without those of preparations */
    unsigned nresults;
    char state[6];        /* SQLSTATE of the first that failed ... */
    unsigned failed;      /* ... which statement it was */
    int64_t clock_offset; /* of the database's clock to mj_pg_ms() */
    int64_t clock_read;   /* when it was measured; 0: not yet */
    int64_t used;         /* mj_pg_ms() of the last round trip */
    int64_t retry_at;
    unsigned failures; /* to connect, in a row */
    mj_pg_args args;
    bool recording; /* what is sent is kept, to be sent again on another connection: a reader's first round trip */
    mj_buf recorded;
} mj_pg_conn;

int64_t mj_pg_ms(void); /* monotonic */
/* When a round trip that begins now is to be over: then the connection is given up. */
int64_t mj_pg_deadline(const mj_pg_conn *c);
void mj_pg_sleep(int64_t ms);

/* Connected, and the schema is the right one.  MJ_EIO, MJ_ESCHEMA, ... with a sentence. */
int mj_pg_connect(mj_pg_conn *c);
void mj_pg_disconnect(mj_pg_conn *c);
/* After a fork: the parent's connection is left alone. */
void mj_pg_forget(mj_pg_conn *c);
/* Adds a statement to the round trip, with c->args. */
int mj_pg_send(mj_pg_conn *c, unsigned statement);
/* Ends it and reads all its results; `until`: mj_pg_ms().  MJ_OK: none failed.  Else the code and a sentence; without a
 * connection afterwards (c->c is NULL) it is not known what the server did. */
int mj_pg_trip(mj_pg_conn *c, int64_t until);
/* Result i, which the caller has to clear. */
PGresult *mj_pg_take(mj_pg_conn *c, unsigned i);
void mj_pg_clear(mj_pg_conn *c);
/* Sends without waiting for the answer. */
void mj_pg_rollback(mj_pg_conn *c);
/* One statement outside of a transaction. */
int mj_pg_run(mj_pg_conn *c, unsigned statement, int64_t until);
/* Connects anew, and makes the round trip that was recorded. */
int mj_pg_replay(mj_pg_conn *c, int64_t until);
/* The clock, from a result of CLOCK and the round trip's begin. */
void mj_pg_clock(mj_pg_conn *c, const PGresult *r, int64_t began);
/* Text with any number of statements, outside of a pipeline. */
int mj_pg_text(mj_pg_conn *c, const char *sql, PGresult **out, int64_t until);

/* ---- codes.c: what PostgreSQL says, as our codes and for people ---- */

int mj_pg_code(const char *state);
/* Of a result: code, and its sentence in c->why. */
int mj_pg_fail(mj_pg_conn *c, const PGresult *r);
/* Of a connection that could not be made. */
int mj_pg_unreachable(mj_pg_conn *c, const char *message);
/* Of one that was lost. */
int mj_pg_lost(mj_pg_conn *c, const char *message);

/* ---- version.c, views.c, schema.c ---- */

extern const char *const mj_pg_views[]; /* ... of version 1; NULL ends them */
extern const char mj_pg_task_fields[];  /* the one of them that reads records, anew in version 2 */

/* The version of the schema: 0 when there is none. */
int mj_pg_version(mj_pg_conn *c, int *version);
/* MJ_OK when it is MJ_PG_SCHEMA; else MJ_ESCHEMA with a sentence. */
int mj_pg_judge(mj_pg_conn *c, int version);
/* Makes or upgrades it; *from: what it was.  Two processes that do it at once do it once. */
int mj_pg_migrate(mj_pg_conn *c, int *from);
/* What migrate would run, from version `from` on; and, as comments, the rights that `user` (as SQL writes it) needs if
 * that is run by another role. */
void mj_pg_migration(const mj_pg_url *u, int from, bool has_schema, const char *user, mj_buf *out);
int mj_pg_has_schema(mj_pg_conn *c, bool *has);

/* ---- handles and transactions: backend.c, rows.c, load.c, scan.c, apply.c ---- */

typedef struct mj_pg mj_pg;

/* What is known of a row or an entry, or (group) of the events of a ref. */
typedef struct mj_pg_item {
    struct mj_pg_item *chain;
    mj_entry key;
    bool there, group;
    mj_str bytes;
    const char *place;      /* where the row lies, while this transaction has it locked; NULL: not known */
    const PGresult *events; /* of a group: rows from..to */
    int from, to;
} mj_pg_item;

/* A scan whose first entries were fetched. */
typedef struct mj_pg_fetched {
    struct mj_pg_fetched *next;
    mj_scan scan;
    uint32_t asked; /* entries: as many came, if there are more */
    const PGresult *entries;
} mj_pg_fetched;

struct mj_tx {
    mj_pg *db;
    bool open, write, begun, applied;
    bool looked[MJ_NINDEXES]; /* a walk over this table was made: what it did not give is not there */
    PGresult **results;       /* strings that were given out lie in them */
    size_t nresults, room;
    mj_pg_item **buckets;
    size_t nbuckets, nitems;
    mj_pg_fetched *fetched;
    struct mj_pg_block *memory;
};

/* This connection's row of sums (writer.c). */
typedef struct mj_pg_writer {
    bool have;
    int64_t id, epoch, batch;
    uint8_t holder[16]; /* random: this handle */
    mj_tally own, next; /* as stored; as the batch in hand leaves it */
    mj_tally others;    /* of the other writers, as they were at others_at (mj_pg_ms(); 0: never read) */
    int64_t others_at;
} mj_pg_writer;

struct mj_pg {
    mj_pg_url url;
    mj_pg_conn conn;
    bool no_wait;
    struct mj_tx tx;
    mj_pg_writer writer;
    mj_lock *locks;  /* that this handle holds */
    int64_t beaten;  /* when this host's heartbeat was written */
    unsigned again;  /* how often in a row a batch had to run again */
    bool collided;   /* ... since something that it made was there already */
    bool doubtful;   /* the writer's row is another's: perhaps the schema has changed */
    unsigned spread; /* which account is waited for next */
    mj_buf held;     /* names whose rows to lock are there, as mj_put_str() writes them */
};

/* rows.c: what a transaction knows */
void *mj_pg_alloc(mj_tx *tx, size_t n);
mj_pg_item *mj_pg_known(const mj_tx *tx, const mj_entry *key, bool group);
mj_pg_item *mj_pg_note(mj_tx *tx, const mj_entry *key, bool group); /* NULL: no memory */
bool mj_pg_same(const mj_entry *a, const mj_entry *b);
uint64_t mj_pg_hash(const mj_entry *e);
const PGresult *mj_pg_keep(mj_tx *tx, PGresult *r); /* until the transaction ends; NULL: no memory */
void mj_pg_drop(mj_tx *tx);
void mj_pg_forget_rows(mj_tx *tx); /* what it knows; the transaction goes on */
void mj_pg_note_rows(mj_tx *tx, const PGresult *r, mj_index index);
void mj_pg_note_events(mj_tx *tx, const PGresult *r);
const char *mj_pg_place(const PGresult *r, int row, int column); /* see mj_pg_item */
/* tx.c */
int mj_pg_begun(mj_tx *tx); /* its BEGIN is sent, or on its way */
/* A round trip in a transaction.  MJ_EAGAIN: the batch has to run again. */
int mj_pg_go(mj_tx *tx);
int mj_pg_again(mj_pg *db, int rc);
/* A row of META that is one of the table `intake`: "intake/ID". */
bool mj_pg_is_intake(const mj_entry *key, int64_t *id);
enum { MJ_PG_PLACE = 6 }; /* bytes of a tid */
/* load.c */
int mj_pg_load(mj_tx *tx, const mj_need *need);
int mj_pg_load_events(mj_tx *tx); /* of all tasks that are known, as far as they are not */
int mj_pg_get(mj_tx *tx, mj_entry *key, mj_str *bytes);
/* scan.c */
int mj_pg_scan(mj_tx *tx, const mj_scan *scan, mj_scan_fn each, void *ctx);
/* range.c */
bool mj_pg_is_of_rows(mj_index i); /* the rows that a walk locks are the walk's own */
bool mj_pg_claims(const mj_tx *tx, const mj_scan *scan);
/* The statements of a scan's next entries; how many there are. */
int mj_pg_scan_send(mj_tx *tx, const mj_scan *scan, uint32_t limit, unsigned *sent);
/* Their results, `sent` from `first` on. */
const PGresult *mj_pg_scan_take(mj_tx *tx, const mj_scan *scan, unsigned first, unsigned sent);
/* apply.c */
int mj_pg_apply(mj_tx *tx, const mj_change *changes, size_t n, const mj_tally *add);

/* ---- writer.c: by which the outcome of a commit is found ---- */

int mj_pg_writer_have(mj_pg *db);
int mj_pg_writer_send(mj_pg *db, const mj_tally *add);
void mj_pg_writer_done(mj_pg *db);
void mj_pg_writer_free(mj_pg *db);
/* Adds up what TOTALS gave. */
int mj_pg_add_up(const PGresult *r, mj_tally *out);
/* The connection was lost after COMMIT was sent: MJ_OK: it is stored; MJ_EAGAIN: it is not, and can't be any more;
 * MJ_EUNSURE. */
int mj_pg_settle(mj_pg *db);

/* ---- intake.c: jobs that SQL has enqueued ---- */

int mj_pg_intake(void *db, uint32_t limit, mj_intake_fn each, void *ctx);
int mj_pg_barrier(void *db);

/* ---- lease.c: named locks, heartbeats ---- */

int mj_pg_lock(void *db, const char *name, mj_lock **held);
void mj_pg_unlock(mj_lock *held);
/* Renews them.  MJ_EBUSY: one was lost while this handle was silent, and is another process'. */
int mj_pg_keep_locks(mj_pg *db); /* renews them, now and again */
void mj_pg_leave_locks(mj_pg *db);
void mj_pg_beat(mj_pg *db);
int mj_pg_host(void *db, const uint8_t boot[16], int64_t *ago);

/* facts.c: for doctor */
int mj_pg_facts(void *db, mj_fact_fn tell, void *ctx);

#endif
