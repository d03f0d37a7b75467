/* The statements that fetch what a batch needs, in one round trip. */
#include "store/postgres/load.h"

static int send(mj_tx *tx, mj_pg_asked *a, unsigned statement, unsigned *which)
{
    int rc = mj_pg_send(&tx->db->conn, statement);

    if (which)
        *which = a->n;
    a->n++;
    return rc;
}

static size_t count_of(const mj_need *need, mj_index index)
{
    size_t n = 0;

    for (size_t i = 0; i < need->nkeys; i++)
        n += need->keys[i].index == index;
    return n;
}

static void add_keys(mj_tx *tx, const mj_need *need, mj_index index)
{
    mj_pg_args *args = &tx->db->conn.args;
    char letter = mj_pg_tables[index].columns[0].letter;

    mj_pg_arg_array(args, letter, count_of(need, index));
    for (size_t i = 0; i < need->nkeys; i++)
        if (need->keys[i].index == index)
            mj_pg_item_field(args, letter, &need->keys[i], (mj_str){0});
}

/* Tasks by ref, and with `named` by task id and by key: a search that most batches need not make, since their task ids
 * lead to tasks that they name by ref. */
static int send_tasks(mj_tx *tx, mj_pg_asked *a)
{
    static const mj_need none = {0};
    const mj_need *names = a->need->named ? a->need : &none;
    size_t refs = count_of(a->need, MJ_IX_TASK);
    int rc = MJ_OK;

    mj_pg_no_args(&tx->db->conn.args);
    add_keys(tx, a->need, MJ_IX_TASK);
    add_keys(tx, names, MJ_IX_TID);
    add_keys(tx, names, MJ_IX_KEY);
    if (refs + count_of(names, MJ_IX_TID) + count_of(names, MJ_IX_KEY) > 0)
        rc = send(tx, a, tx->write ? MJ_PG_LOAD_TASKS : MJ_PG_LOOK_TASKS, &a->tasks);
    if (refs == 0)
        return rc;
    mj_pg_no_args(&tx->db->conn.args);
    add_keys(tx, a->need, MJ_IX_TASK);
    if (rc == MJ_OK && a->with_tombs)
        rc = send(tx, a, tx->write ? MJ_PG_LOAD_TOMBS : MJ_PG_LOOK_TOMBS, &a->tombs);
    if (rc == MJ_OK && a->need->events)
        rc = send(tx, a, MJ_PG_LOAD_EVENTS, &a->events);
    return rc;
}

static int send_names(mj_tx *tx, mj_pg_asked *a, mj_index index, unsigned statement, unsigned *which)
{
    if (count_of(a->need, index) == 0)
        return MJ_OK;
    mj_pg_no_args(&tx->db->conn.args);
    add_keys(tx, a->need, index);
    return send(tx, a, statement, which);
}

/* Jobs that were enqueued in SQL: see mj_pg_is_intake(). */
static int send_intake(mj_tx *tx, mj_pg_asked *a)
{
    mj_pg_args *args = &tx->db->conn.args;
    size_t n = 0;
    int64_t id;

    for (size_t i = 0; i < a->need->nkeys; i++)
        n += mj_pg_is_intake(&a->need->keys[i], &id);
    if (n == 0)
        return MJ_OK;
    mj_pg_no_args(args);
    mj_pg_arg_array(args, 'n', n);
    for (size_t i = 0; i < a->need->nkeys; i++)
        if (mj_pg_is_intake(&a->need->keys[i], &id))
            mj_pg_item_int(args, id);
    return send(tx, a, tx->write ? MJ_PG_LOAD_INTAKE : MJ_PG_LOOK_INTAKE, &a->intake);
}

/* The accounts whose slots are given out: those that are free; or all; or one, each time another. */
static int send_holds(mj_tx *tx, mj_pg_asked *a)
{
    const mj_need *need = a->need;
    mj_pg_args *args = &tx->db->conn.args;
    size_t one = tx->db->spread++ % need->nholds;

    mj_pg_no_args(args);
    mj_pg_arg_array(args, 's', a->one_by_one ? 1 : need->nholds);
    for (size_t i = 0; i < need->nholds; i++)
        if (!a->one_by_one || i == one)
            mj_pg_item_bytes(args, need->holds[i].account.p, need->holds[i].account.n);
    return send(tx, a, need->wait || a->one_by_one || tx->db->url.careful ? MJ_PG_HOLD_ALL : MJ_PG_HOLD_FREE,
                &a->holds);
}

/* The other writers' sums and the clock, when what is known of them is old. */
static int send_totals(mj_tx *tx, mj_pg_asked *a)
{
    const mj_pg_writer *w = &tx->db->writer;
    int rc;

    if (!tx->write || (w->others_at && mj_pg_ms() - w->others_at < MJ_PG_TOTALS_MS))
        return MJ_OK;
    mj_pg_no_args(&tx->db->conn.args);
    rc = send(tx, a, MJ_PG_CLOCK, &a->clock);
    mj_pg_arg_int(&tx->db->conn.args, w->id);
    return rc == MJ_OK ? send(tx, a, MJ_PG_TOTALS, &a->totals) : rc;
}

/* A walk without a bound may end soon. */
uint32_t mj_pg_first_entries(const mj_scan *scan)
{
    enum { UNBOUNDED = 128, MOST = 1024 };

    return scan->limit == 0 ? UNBOUNDED : scan->limit < MOST ? scan->limit : MOST;
}

static int send_scans(mj_tx *tx, mj_pg_asked *a)
{
    int rc = MJ_OK;

    for (size_t i = 0; i < a->need->nscans && i < MJ_PG_MOST_SCANS && rc == MJ_OK; i++) {
        const mj_scan *scan = &a->need->scans[i];
        a->scans[i] = a->n;
        a->scans_sent[i] = 0;
        if (scan->index != MJ_IX_ACCOUNT)
            rc = mj_pg_scan_send(tx, scan, mj_pg_first_entries(scan), &a->scans_sent[i]);
        a->n += a->scans_sent[i];
    }
    return rc;
}

bool mj_pg_wants_all_accounts(const mj_need *need)
{
    for (size_t i = 0; i < need->nscans; i++)
        if (need->scans[i].index == MJ_IX_ACCOUNT)
            return true;
    return false;
}

static int send_accounts(mj_tx *tx, mj_pg_asked *a)
{
    bool all = mj_pg_wants_all_accounts(a->need);
    int rc;

    if (!all && count_of(a->need, MJ_IX_ACCOUNT) == 0)
        return MJ_OK;
    mj_pg_no_args(&tx->db->conn.args);
    if (!all)
        add_keys(tx, a->need, MJ_IX_ACCOUNT);
    rc = send(tx, a, all ? MJ_PG_ALL_ACCOUNTS : tx->write ? MJ_PG_LOAD_ACCOUNTS : MJ_PG_LOOK_ACCOUNTS, &a->accounts);
    return rc == MJ_OK ? send(tx, a, all ? MJ_PG_ALL_SLOTS : MJ_PG_SLOTS, &a->slots) : rc;
}

/* Keys of the other indexes. */
static int send_many(mj_tx *tx, mj_pg_asked *a)
{
    mj_pg_args *args = &tx->db->conn.args;
    int rc = MJ_OK;

    for (mj_index index = 0; index < MJ_NINDEXES && rc == MJ_OK; index++) {
        const mj_pg_table *t = &mj_pg_tables[index];
        size_t n = mj_pg_is_loaded(index) ? 0 : count_of(a->need, index);
        a->many[index] = MJ_PG_NONE;
        if (n == 0)
            continue;
        mj_pg_no_args(args);
        for (unsigned k = 0; k < t->nkey; k++) {
            mj_pg_arg_array(args, t->columns[k].letter, n);
            for (size_t i = 0; i < a->need->nkeys; i++)
                if (a->need->keys[i].index == index)
                    mj_pg_item_field(args, t->columns[k].letter, &a->need->keys[i], (mj_str){0});
        }
        rc = send(tx, a, mj_pg_of(MJ_PG_MANY, index, 0), &a->many[index]);
    }
    return rc;
}

int mj_pg_ask(mj_tx *tx, mj_pg_asked *a, const mj_need *need, unsigned how)
{
    int rc = mj_pg_begun(tx);

    *a = (mj_pg_asked){.need = need,
                       .holds = MJ_PG_NONE,
                       .meta = MJ_PG_NONE,
                       .intake = MJ_PG_NONE,
                       .accounts = MJ_PG_NONE,
                       .slots = MJ_PG_NONE,
                       .tasks = MJ_PG_NONE,
                       .tombs = MJ_PG_NONE,
                       .events = MJ_PG_NONE,
                       .tids = MJ_PG_NONE,
                       .keys = MJ_PG_NONE,
                       .totals = MJ_PG_NONE,
                       .clock = MJ_PG_NONE,
                       .one_by_one = how & MJ_PG_ONE_BY_ONE,
                       .with_tombs = how & MJ_PG_WITH_TOMBS};

    if (rc == MJ_OK)
        rc = send_totals(tx, a);
    if (rc == MJ_OK && a->need->nholds > 0)
        rc = send_holds(tx, a);
    if (rc == MJ_OK)
        rc = send_accounts(tx, a);
    if (rc == MJ_OK)
        rc = send_names(tx, a, MJ_IX_META, MJ_PG_LOAD_META, &a->meta);
    if (rc == MJ_OK)
        rc = send_intake(tx, a);
    if (rc == MJ_OK)
        rc = send_tasks(tx, a);
    if (rc == MJ_OK)
        rc = send_names(tx, a, MJ_IX_TID, MJ_PG_LOAD_TIDS, &a->tids);
    if (rc == MJ_OK)
        rc = send_names(tx, a, MJ_IX_KEY, MJ_PG_LOAD_KEYS, &a->keys);
    if (rc == MJ_OK)
        rc = send_many(tx, a);
    return rc == MJ_OK ? send_scans(tx, a) : rc;
}
