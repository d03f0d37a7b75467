/* The text of the statements about one index.
 *
 * Batches are arrays: one statement writes any number of rows.  No statement
 * that writes joins: a join's plan can turn into one that walks the table.
 * Arrays are unnested, keys are found by = ANY(...) or by a subquery for each. */
#include "store/postgres/db.h"

#include <stdio.h>
#include <string.h>

const mj_pg_table mj_pg_tables[MJ_NINDEXES] = {
    [MJ_IX_META] = {"meta", 1, 2, {{'s', "name"}, {'b', "bytes"}}},
    [MJ_IX_TASK] = {"task", 1, 2, {{'r', "ref"}, {'b', "record"}}},
    [MJ_IX_TID] = {"task_id", 1, 3, {{'s', "task_id"}, {'r', "ref"}, {'n', "attempt"}}},
    [MJ_IX_KEY] = {"key", 1, 3, {{'s', "key"}, {'r', "ref"}, {'f', "fingerprint"}}},
    [MJ_IX_USER] = {"task_of_user", 2, 2, {{'s', "user_id"}, {'r', "ref"}}},
    [MJ_IX_STATE] = {"task_in_state", 2, 2, {{'n', "state"}, {'r', "ref"}}},
    [MJ_IX_DUE] = {"due", 3, 3, {{'n', "job"}, {'a', "at"}, {'r', "ref"}}},
    [MJ_IX_QUEUE] = {"queue", 3, 3, {{'s', "account"}, {'p', "place"}, {'r', "ref"}}},
    [MJ_IX_SLOT] = {"slot", 3, 4, {{'a', "until"}, {'r', "ref"}, {'n', "attempt"}, {'s', "account"}}},
    [MJ_IX_EVENT] = {"event", 2, 3, {{'r', "ref"}, {'n', "seq"}, {'b', "record"}}},
    [MJ_IX_OUTBOX] = {"outbox", 3, 3, {{'a', "at"}, {'r', "ref"}, {'n', "seq"}}},
    [MJ_IX_ACCOUNT] = {"account", 1, 2, {{'s', "name"}, {'b', "record"}}},
    [MJ_IX_TOMB] = {"tomb", 1, 2, {{'r', "ref"}, {'b', "record"}}},
    [MJ_IX_GRAVE] = {"grave", 2, 2, {{'a', "pruned_at"}, {'r', "ref"}}},
    [MJ_IX_REFUSED] = {"refused", 1, 2, {{'a', "number"}, {'b', "record"}}},
};

typedef struct text {
    mj_buf *out;
    const mj_pg_url *u;
} text;

static void add(const text *t, const char *s)
{
    mj_pg_put_sql(t->out, t->u, s);
}

static void add_n(const text *t, unsigned n)
{
    char s[16];

    snprintf(s, sizeof s, "%u", n);
    add(t, s);
}

static const char *type_of(char letter)
{
    return letter == 'r'                                     ? "uuid"
           : letter == 'c'                                   ? "tid"
           : letter == 's' || letter == 'f' || letter == 'b' ? "bytea"
                                                             : "int8";
}

/* "a, b", of columns from..to. */
static void add_columns(const text *t, const mj_pg_table *of, unsigned from, unsigned to, const char *prefix,
                        const char *suffix)
{
    for (unsigned i = from; i < to; i++) {
        add(t, i > from ? ", " : "");
        add(t, prefix);
        add(t, of->columns[i].name);
        add(t, suffix);
    }
}

static void add_param(const text *t, unsigned n, char letter, bool array)
{
    add(t, "$");
    add_n(t, n);
    add(t, "::");
    add(t, type_of(letter));
    add(t, array ? "[]" : "");
}

static void add_from(const text *t, const mj_pg_table *of)
{
    add(t, " FROM @.");
    add(t, of->name);
}

/* unnest($1::uuid[], $2::int8[]), of the first n columns. */
static void add_unnest(const text *t, const mj_pg_table *of, unsigned n)
{
    add(t, "unnest(");
    for (unsigned i = 0; i < n; i++) {
        add(t, i ? ", " : "");
        add_param(t, i + 1, of->columns[i].letter, true);
    }
    add(t, ")");
}

static void add_get(const text *t, const mj_pg_table *of, bool lock)
{
    add(t, "SELECT ");
    add_columns(t, of, 0, of->ncolumns, "", "");
    add_from(t, of);
    for (unsigned i = 0; i < of->nkey; i++) {
        add(t, i ? " AND " : " WHERE ");
        add(t, of->columns[i].name);
        add(t, " = ");
        add_param(t, i + 1, of->columns[i].letter, false);
    }
    add(t, lock ? " FOR UPDATE" : "");
}

/* Those of many keys that are there. */
static void add_many(const text *t, const mj_pg_table *of)
{
    add(t, "SELECT ");
    add_columns(t, of, 0, of->ncolumns, "", "");
    add_from(t, of);
    add(t, " WHERE (");
    add_columns(t, of, 0, of->nkey, "", "");
    add(t, ") IN (SELECT * FROM ");
    add_unnest(t, of, of->nkey);
    add(t, ")");
}

static void add_put(const text *t, const mj_pg_table *of, bool must_be_new)
{
    add(t, "INSERT INTO @.");
    add(t, of->name);
    add(t, " (");
    add_columns(t, of, 0, of->ncolumns, "", "");
    add(t, ") SELECT * FROM ");
    add_unnest(t, of, of->ncolumns);
    if (must_be_new)
        return;
    add(t, " ON CONFLICT (");
    add_columns(t, of, 0, of->nkey, "", "");
    add(t, of->nkey == of->ncolumns ? ") DO NOTHING" : ") DO UPDATE SET ");
    for (unsigned i = of->nkey; i < of->ncolumns; i++) {
        add(t, i > of->nkey ? ", " : "");
        add(t, of->columns[i].name);
        add(t, " = excluded.");
        add(t, of->columns[i].name);
    }
}

/* A name (task id, key) goes only if it is still this ref's: its ref counts as a part of the key. */
static void add_delete(const text *t, const mj_pg_table *of)
{
    unsigned n = of == &mj_pg_tables[MJ_IX_TID] || of == &mj_pg_tables[MJ_IX_KEY] ? 2 : of->nkey;

    add(t, "DELETE");
    add_from(t, of);
    add(t, " WHERE ");
    if (n == 1) {
        add(t, of->columns[0].name);
        add(t, " = ANY(");
        add_param(t, 1, of->columns[0].letter, true);
        add(t, ")");
    } else if (t->u->careful) {
        add(t, "(");
        add_columns(t, of, 0, n, "", "");
        add(t, ") IN (SELECT * FROM ");
        add_unnest(t, of, n);
        add(t, ")");
    } else {
        add(t, "ctid = ANY(ARRAY(SELECT (SELECT e.ctid");
        add_from(t, of);
        add(t, " AS e");
        for (unsigned i = 0; i < n; i++) {
            add(t, i ? " AND e." : " WHERE e.");
            add(t, of->columns[i].name);
            add(t, " = g.");
            add(t, of->columns[i].name);
        }
        add(t, ") FROM ");
        add_unnest(t, of, n);
        add(t, " AS g(");
        add_columns(t, of, 0, n, "", "");
        add(t, ")))");
    }
}

/* Rows that this transaction has locked: where they lie needs no search.  Fails unless all of them were there. */
static void add_replace(const text *t, const mj_pg_table *of)
{
    const char *bytes = of->columns[of->ncolumns - 1].name;

    add(t, "WITH m AS (UPDATE @.");
    add(t, of->name);
    add(t, " AS t SET ");
    add(t, bytes);
    add(t, " = g.bytes FROM unnest($1::tid[], $2::bytea[]) AS g(lies, bytes) WHERE t.ctid = g.lies RETURNING 1) "
           "SELECT 1 / (count(*) = cardinality($1))::int4 FROM m");
}

static void add_remove(const text *t, const mj_pg_table *of)
{
    add(t, "DELETE");
    add_from(t, of);
    add(t, " WHERE ctid = ANY($1::tid[])");
}

/* Which entries, in which order, how many at most.  Parameters: all fields of the place (POSITIONED), or the first
 * field (FIXED); the time (BOUNDED); the number.  A comparison of rows tells an index where to begin only if no
 * equality names its first column: otherwise the scan would pass all entries before the place, each time. */
static void add_range(const text *t, const mj_pg_table *of, unsigned variant)
{
    unsigned n = 0, first = variant & MJ_PG_FIXED ? 1 : 0;
    const char *word = " WHERE ";

    if (variant & MJ_PG_FIXED) {
        add(t, word);
        add(t, of->columns[0].name);
        add(t, " = ");
        add_param(t, 1, of->columns[0].letter, false);
        word = " AND ";
        n = 1;
    }
    if (variant & MJ_PG_POSITIONED) {
        add(t, word);
        add(t, "(");
        add_columns(t, of, first, of->nkey, "", "");
        add(t, variant & MJ_PG_NEWEST ? ") <" : ") >");
        add(t, variant & MJ_PG_AFTER ? " (" : "= (");
        for (unsigned i = first; i < of->nkey; i++) {
            add(t, i > first ? ", " : "");
            add_param(t, i + 1, of->columns[i].letter, false);
        }
        add(t, ")");
        word = " AND ";
        n = of->nkey;
    }
    if (variant & MJ_PG_BOUNDED)
        for (unsigned i = 0; i < of->nkey; i++)
            if (of->columns[i].letter == 'a') {
                add(t, word);
                add(t, of->columns[i].name);
                add(t, " <= ");
                add_param(t, ++n, 'a', false);
            }
    add(t, " ORDER BY ");
    add_columns(t, of, 0, of->nkey, "", variant & MJ_PG_NEWEST ? " DESC" : "");
    add(t, " LIMIT ");
    add_param(t, n + 1, 'n', false);
}

/* The number of parameters before the last one, which the range does not have. */
static unsigned nparams(const mj_pg_table *of, unsigned variant)
{
    return (variant & MJ_PG_POSITIONED ? of->nkey
            : variant & MJ_PG_FIXED    ? 1
                                       : 0) +
           (variant & MJ_PG_BOUNDED ? 1 : 0) + 1;
}

static void add_scan(const text *t, mj_index index, unsigned variant)
{
    const mj_pg_table *of = &mj_pg_tables[index];
    bool rows = (variant & MJ_PG_ROWS) && !mj_pg_has_bytes(index);
    bool has_ref = false;

    for (unsigned i = 0; i < of->nkey; i++)
        has_ref = has_ref || of->columns[i].letter == 'r';
    add(t, "SELECT ");
    add_columns(t, of, 0, variant & MJ_PG_HEAD ? of->nkey : of->ncolumns, "e.", "");
    if (variant & MJ_PG_HEAD) {
        add(t, ", substr(e.");
        add(t, of->columns[of->nkey].name);
        add(t, ", 1, ");
        add_param(t, nparams(of, variant) + 1, 'n', false);
        add(t, "::int4)");
    }
    if (rows)
        add(t, ", (SELECT record FROM @.task WHERE ref = e.ref)");
    else if (has_ref && !mj_pg_has_bytes(index)) { /* for entries whose row is not there: nothing can lock them */
        add(t, ", (SELECT 1::int8 FROM @.");
        add(t, index == MJ_IX_GRAVE ? "tomb" : "task");
        add(t, " WHERE ref = e.ref)");
    }
    add(t, variant & MJ_PG_PLACES ? ", e.ctid FROM (SELECT ctid, " : " FROM (SELECT ");
    add_columns(t, of, 0, of->ncolumns, "", "");
    add_from(t, of);
    add_range(t, of, variant);
    add(t, ") AS e ORDER BY ");
    add_columns(t, of, 0, of->nkey, "e.", variant & MJ_PG_NEWEST ? " DESC" : "");
}

/* The rows from which the entries of a range follow. */
static void add_scan_rows(const text *t, mj_index index, unsigned variant, mj_pg_kind kind)
{
    const mj_pg_table *of = &mj_pg_tables[index];

    if (mj_pg_has_bytes(index)) { /* rows themselves */
        add(t, "SELECT ");
        add_columns(t, of, 0, of->ncolumns, "", "");
        add(t, index == MJ_IX_TASK && !t->u->careful ? ", ctid" : "");
        add_from(t, of);
        add_range(t, of, variant);
        add(t, " FOR UPDATE");
        add(t, t->u->careful ? "" : " SKIP LOCKED");
        return;
    }
    add(t, kind == MJ_PG_SCAN_EVENTS ? "SELECT ref, seq, record" : "SELECT ref, record");
    add(t, index == MJ_IX_GRAVE || t->u->careful ? "" : ", ctid");
    add(t, kind == MJ_PG_SCAN_EVENTS ? " FROM @.event" : index == MJ_IX_GRAVE ? " FROM @.tomb" : " FROM @.task");
    add(t, " WHERE ref = ANY(ARRAY(SELECT ref");
    add_from(t, of);
    add_range(t, of, variant);
    add(t, kind == MJ_PG_SCAN_EVENTS ? ")) ORDER BY ref, seq" : ")) ORDER BY ref FOR UPDATE");
    add(t, kind == MJ_PG_SCAN_LOCK && !t->u->careful ? " SKIP LOCKED" : "");
}

void mj_pg_sql(const mj_pg_url *u, unsigned statement, mj_buf *out)
{
    text t = {out, u};
    unsigned variant, at;
    mj_index index;
    mj_pg_kind kind;

    out->n = 0;
    if (statement < MJ_PG_NOTHERS) {
        mj_pg_fixed(out, u, statement);
    } else {
        at = statement - MJ_PG_NOTHERS;
        variant = at % MJ_PG_NVARIANTS;
        index = (mj_index)(at / MJ_PG_NVARIANTS % MJ_NINDEXES);
        kind = (mj_pg_kind)(at / MJ_PG_NVARIANTS / MJ_NINDEXES);
        switch (kind) {
        case MJ_PG_GET:
        case MJ_PG_LOCK:
            add_get(&t, &mj_pg_tables[index], kind == MJ_PG_LOCK);
            break;
        case MJ_PG_PUT:
        case MJ_PG_NEW:
            add_put(&t, &mj_pg_tables[index], kind == MJ_PG_NEW);
            break;
        case MJ_PG_DELETE:
            add_delete(&t, &mj_pg_tables[index]);
            break;
        case MJ_PG_REPLACE:
            add_replace(&t, &mj_pg_tables[index]);
            break;
        case MJ_PG_REMOVE:
            add_remove(&t, &mj_pg_tables[index]);
            break;
        case MJ_PG_MANY:
            add_many(&t, &mj_pg_tables[index]);
            break;
        case MJ_PG_COUNT:
            add(&t, "SELECT count(*)");
            add_from(&t, &mj_pg_tables[index]);
            break;
        case MJ_PG_SCAN:
            add_scan(&t, index, variant);
            break;
        default:
            add_scan_rows(&t, index, variant, kind);
        }
    }
    mj_put_u8(out, 0);
}
