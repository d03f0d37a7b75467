/* Named locks, as rows with a time by the database's clock; and heartbeats of hosts.
 *
 * A holder that dies is found dead at once by processes of its own host and PID namespace, by its boot id, pid and
 * start time; by others when the row's time has passed. */
#include "store/postgres/db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

struct mj_lock {
    struct mj_lock *next; /* of its handle */
    mj_pg *db;
    pid_t pid;
    int64_t kept; /* when it was renewed */
    bool lost;    /* it is another process' */
    uint8_t holder[16];
    uint32_t n;
    char name[];
};

enum { OWNER = 16 + 3 * 8 };

static void put_owner(const mj_owner *o, uint8_t to[OWNER])
{
    memcpy(to, o->boot, 16);
    mj_be64(to + 16, o->pidns);
    mj_be64(to + 24, o->pid);
    mj_be64(to + 32, o->started);
}

static bool is_dead(mj_str bytes)
{
    const uint8_t *p = (const uint8_t *)bytes.p;
    mj_owner o, self;

    if (bytes.n != OWNER)
        return false;
    memcpy(o.boot, p, 16);
    o.pidns = mj_be64_get(p + 16);
    o.pid = (uint32_t)mj_be64_get(p + 24);
    o.started = mj_be64_get(p + 32);
    /* Another boot id may be another host's. */
    return mj_owner_self(&self) == 0 && memcmp(self.boot, o.boot, 16) == 0 && mj_owner_look(&o) == MJ_OWNER_DEAD;
}

static int take(mj_pg *db, const mj_lock *l, const uint8_t *former)
{
    mj_pg_conn *c = &db->conn;
    uint8_t owner[OWNER];
    mj_owner self = {0};
    int rc;

    (void)mj_owner_self(&self);
    put_owner(&self, owner);
    mj_pg_no_args(&c->args);
    mj_pg_arg_bytes(&c->args, (mj_str){l->name, l->n});
    mj_pg_arg_ref(&c->args, l->holder);
    mj_pg_arg_bytes(&c->args, (mj_str){(const char *)owner, sizeof owner});
    mj_pg_arg_int(&c->args, MJ_PG_LEASE_S);
    mj_pg_arg_ref(&c->args, former);
    rc = mj_pg_run(c, MJ_PG_LEASE_TAKE, mj_pg_deadline(c));
    if (rc == MJ_OK)
        rc = c->nresults == 1 && PQntuples(c->results[0]) == 1 ? MJ_OK : MJ_EBUSY;
    mj_pg_clear(c);
    return rc;
}

/* Of a holder that is provably dead: its name. */
static int look(mj_pg *db, const mj_lock *l, uint8_t *former)
{
    mj_pg_conn *c = &db->conn;
    int rc;

    mj_pg_no_args(&c->args);
    mj_pg_arg_bytes(&c->args, (mj_str){l->name, l->n});
    rc = mj_pg_run(c, MJ_PG_LEASE_LOOK, mj_pg_deadline(c));
    if (rc == MJ_OK && c->nresults == 1 && PQntuples(c->results[0]) == 1 && is_dead(mj_pg_bytes(c->results[0], 0, 1)))
        memcpy(former, mj_pg_bytes(c->results[0], 0, 0).p, 16);
    else if (rc == MJ_OK)
        rc = MJ_EBUSY;
    mj_pg_clear(c);
    return rc;
}

int mj_pg_lock(void *handle, const char *name, mj_lock **held)
{
    enum { TRIES = 10 };
    mj_pg *db = handle;
    size_t n = strlen(name);
    mj_lock *l = calloc(1, sizeof *l + n);
    uint8_t former[16];
    int rc, tries = 0;

    if (!l)
        return MJ_ENOMEM;
    l->db = db;
    l->pid = getpid();
    l->n = (uint32_t)n;
    memcpy(l->name, name, n);
    db->conn.why[0] = '\0';
    if (getrandom(l->holder, sizeof l->holder, 0) != (ssize_t)sizeof l->holder) {
        free(l);
        return MJ_EIO;
    }
    do {
        rc = mj_pg_connect(&db->conn);
        if (rc == MJ_OK)
            rc = take(db, l, l->holder);
        if (rc == MJ_EBUSY && look(db, l, former) == MJ_OK)
            rc = take(db, l, former);
    } while ((rc == MJ_EAGAIN || (rc == MJ_EIO && !db->conn.c)) && ++tries < TRIES);
    if (rc != MJ_OK) {
        free(l);
        return rc == MJ_EAGAIN ? MJ_EBUSY : rc;
    }
    l->kept = mj_pg_ms();
    l->next = db->locks;
    db->locks = l;
    *held = l;
    return MJ_OK;
}

static void forget(mj_lock *l)
{
    mj_lock **at = &l->db->locks;

    while (*at && *at != l)
        at = &(*at)->next;
    if (*at)
        *at = l->next;
}

static void args_of(mj_pg_conn *c, const mj_lock *l)
{
    mj_pg_no_args(&c->args);
    mj_pg_arg_bytes(&c->args, (mj_str){l->name, l->n});
    mj_pg_arg_ref(&c->args, l->holder);
}

void mj_pg_unlock(mj_lock *l)
{
    mj_pg_conn *c;
    int rc = MJ_EIO;

    if (l->db && l->pid == getpid()) { /* otherwise the handle was closed before, or this is a child */
        c = &l->db->conn;
        forget(l);
        for (int i = 0; i < 2 && rc != MJ_OK; i++) {
            args_of(c, l);
            rc = mj_pg_connect(c);
            if (rc == MJ_OK)
                rc = mj_pg_run(c, MJ_PG_LEASE_END, mj_pg_deadline(c));
            mj_pg_clear(c);
        }
    }
    free(l);
}

void mj_pg_leave_locks(mj_pg *db)
{
    for (mj_lock *l = db->locks; l; l = l->next)
        l->db = NULL;
    db->locks = NULL;
}

int mj_pg_keep_locks(mj_pg *db)
{
    mj_pg_conn *c = &db->conn;
    int64_t now = mj_pg_ms();
    int rc = MJ_OK;

    for (mj_lock *l = db->locks; l && rc == MJ_OK; l = l->next) {
        if (!l->lost && now - l->kept < MJ_PG_KEEP_MS)
            continue;
        args_of(c, l);
        mj_pg_arg_int(&c->args, MJ_PG_LEASE_S);
        rc = c->c ? mj_pg_run(c, MJ_PG_LEASE_KEEP, mj_pg_deadline(c)) : MJ_EIO;
        if (rc == MJ_OK) {
            l->kept = now;
            l->lost = PQntuples(c->results[0]) == 0;
        }
        if (l->lost) {
            snprintf(
                c->why, c->why_size,
                "this process did not use the store for %d s while it held the lock \"%s\", and another one has it "
                "by now: stop, and begin again",
                MJ_PG_LEASE_S, l->name);
            rc = MJ_EBUSY;
        }
        mj_pg_clear(c);
    }
    return rc;
}

void mj_pg_beat(mj_pg *db)
{
    mj_pg_conn *c = &db->conn;
    char name[256] = "";
    mj_owner self;

    if ((db->beaten && mj_pg_ms() - db->beaten < MJ_PG_BEAT_MS) || mj_owner_self(&self) != 0)
        return;
    (void)gethostname(name, sizeof name - 1);
    mj_pg_no_args(&c->args);
    mj_pg_arg_ref(&c->args, self.boot);
    mj_pg_arg_bytes(&c->args, (mj_str){name, (uint32_t)strlen(name)});
    if (mj_pg_run(c, MJ_PG_BEAT, mj_pg_deadline(c)) == MJ_OK)
        db->beaten = mj_pg_ms();
    mj_pg_clear(c);
}

int mj_pg_host(void *handle, const uint8_t boot[16], int64_t *ago)
{
    mj_pg *db = handle;
    mj_pg_conn *c = &db->conn;
    int rc;

    c->why[0] = '\0';
    rc = db->no_wait ? MJ_EBUSY : mj_pg_connect(c);
    if (rc != MJ_OK)
        return rc;
    mj_pg_no_args(&c->args);
    mj_pg_arg_ref(&c->args, boot);
    rc = mj_pg_run(c, MJ_PG_HOST, mj_pg_deadline(c));
    if (rc == MJ_OK && (c->nresults != 1 || PQntuples(c->results[0]) != 1))
        rc = MJ_ENOTFOUND;
    if (rc == MJ_OK)
        *ago = mj_pg_int(c->results[0], 0, 0);
    mj_pg_clear(c);
    return rc;
}
