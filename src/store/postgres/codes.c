/* What PostgreSQL says, as our codes and for people. */
#include "store/postgres/db.h"

#include <stdio.h>
#include <string.h>

static bool begins(const char *state, const char *with)
{
    return strncmp(state, with, strlen(with)) == 0;
}

int mj_pg_code(const char *state)
{
    static const struct {
        const char *state; /* or the beginning of it */
        int code;
    } codes[] = {
        {"40", MJ_EAGAIN},    /* serialization_failure, deadlock_detected, outcome of a statement unknown */
        {"23505", MJ_EAGAIN}, /* unique_violation: a row that was absent is another batch's now */
        {"22012", MJ_EAGAIN}, /* a row that was read has changed (see sql.c) */
        {"55P03", MJ_EBUSY},  /* lock_not_available: lock_timeout was long enough */
        {"26000", MJ_EAGAIN}, /* a prepared statement is gone */
        {"42P05", MJ_EAGAIN}, /* ... or another client's */
        {"0A000", MJ_EAGAIN}, /* ... or has another result since a migration */
        {"53100", MJ_ENOSPC}, /* disk_full */
        {"53200", MJ_ENOMEM}, /* out_of_memory */
        {"53300", MJ_EBUSY},  /* too_many_connections */
        {"57014", MJ_EBUSY},  /* query_canceled: statement_timeout, or a person */
        {"57P", MJ_EIO},      /* shutting down, starting up */
        {"25006", MJ_EREADONLY}, {"42501", MJ_EREADONLY}, /* insufficient_privilege */
        {"42P01", MJ_ESCHEMA}, /* undefined_table, undefined_column, invalid_schema_name, undefined_function */
        {"42703", MJ_ESCHEMA},   {"3F000", MJ_ESCHEMA},
        {"42883", MJ_ESCHEMA},   {"XX001", MJ_ECORRUPT}, /* data_corrupted, index_corrupted */
        {"XX002", MJ_ECORRUPT},  {"58030", MJ_EIO},
    };

    for (unsigned i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (begins(state, codes[i].state))
            return codes[i].code;
    return MJ_EIO;
}

static const char *advice(int code, const char *state)
{
    switch (code) {
    case MJ_ENOSPC:
        return ": its disk is full: make room";
    case MJ_EBUSY:
        return begins(state, "53300") ? ": raise max_connections, use fewer processes and threads, or put PgBouncer in "
                                        "between"
                                      : ": another transaction holds what this one needs, or the server is overloaded: "
                                        "try again";
    case MJ_EREADONLY:
        return begins(state, "42501") ? ": GRANT the user what mjhook migrate --print says, or connect as the owner"
                                      : ": it is a replica, or default_transaction_read_only is on: connect to the "
                                        "primary";
    case MJ_ESCHEMA:
        return ": the tables are not those of this version: run mjhook migrate";
    default:
        return "";
    }
}

int mj_pg_fail(mj_pg_conn *c, const PGresult *r)
{
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *said = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    int code;

    if (!state) /* libpq's own: the connection */
        return mj_pg_lost(c, PQresultErrorMessage(r));
    snprintf(c->state, sizeof c->state, "%s", state);
    code = mj_pg_code(state);
    if (!c->why[0])
        snprintf(c->why, c->why_size, "%s: %s (%s)%s", c->url->shown, said ? said : "failed", state,
                 advice(code, state));
    return code;
}

/* The first line of what libpq says, without the lines on other hosts that it tried. */
static int line(const char *s)
{
    return (int)strcspn(s, "\n");
}

int mj_pg_lost(mj_pg_conn *c, const char *message)
{
    if (!c->why[0] && message)
        snprintf(c->why, c->why_size, "the connection to %s was lost: %.*s", c->url->shown, line(message), message);
    return MJ_EIO;
}

int mj_pg_unreachable(mj_pg_conn *c, const char *message)
{
    static const struct {
        const char *said;
        int code;
        const char *advice;
    } known[] = {
        {"password authentication failed", MJ_EREADONLY,
         "give the right password, in the URL, in ~/.pgpass or PGPASSWORD"},
        {"no password supplied", MJ_EREADONLY, "give a password, in the URL, in ~/.pgpass or PGPASSWORD"},
        {"authentication failed", MJ_EREADONLY, "see the server's pg_hba.conf, and give a user whom it lets in"},
        {"no pg_hba.conf entry", MJ_EREADONLY, "the server's pg_hba.conf has to let this user and host in"},
        {"too many connections for", MJ_EBUSY,
         "raise the CONNECTION LIMIT of that role or database, or use fewer processes and threads"},
        {"not currently accepting connections", MJ_EIO, "ALTER DATABASE NAME ALLOW_CONNECTIONS true, or name another"},
        {"role \"", MJ_EREADONLY, "create that user, or give another one in the URL"},
        {"permission denied for database", MJ_EREADONLY, "GRANT CONNECT ON DATABASE to this user"},
        {"database \"", MJ_ENOTFOUND, "create it: createdb NAME, with encoding UTF8"},
        {"session is read-only", MJ_EREADONLY,
         "it is a replica, or read-only: name the primary, or all hosts of the "
         "cluster (host1,host2)"},
        {"session is not read-only", MJ_EREADONLY, "leave target_session_attrs out of the URL"},
        {"server is in hot standby", MJ_EREADONLY,
         "it is a replica: name the primary, or all hosts of the cluster "
         "(host1,host2)"},
        {"too many clients", MJ_EBUSY,
         "raise max_connections, use fewer processes and threads, or put PgBouncer in "
         "between"},
        {"remaining connection slots", MJ_EBUSY,
         "raise max_connections, use fewer processes and threads, or put "
         "PgBouncer in between"},
        {"no more connections allowed", MJ_EBUSY, "raise PgBouncer's max_client_conn, or use fewer processes"},
        {"starting up", MJ_EIO, "try again when it has started"},
        {"shutting down", MJ_EIO, "try again when it has started"},
        {"could not translate host name", MJ_EIO, "write the host's name as DNS knows it"},
        {"Connection refused", MJ_EIO, "start the server, or mend host and port in the URL"},
        {"No such file or directory", MJ_EIO, "start the server, or mend the directory of its socket in the URL"},
        {"timeout expired", MJ_EIO, "the host does not answer: mend host and port in the URL, or the network"},
        {"invalid port number", MJ_EINVAL,
         "mend the port in the URL; special characters of a password are written as "
         "%2F"},
        {"definition of service", MJ_EINVAL, "write it into pg_service.conf"},
    };
    bool secret = strstr(message, "invalid port number") != NULL; /* it may be a part of a password */

    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strstr(message, known[i].said)) {
            snprintf(c->why, c->why_size, "can't use %s: %.*s: %s", secret ? "the store's URL" : c->url->shown,
                     secret ? (int)strlen("invalid port number") : line(message),
                     secret ? "invalid port number" : message, known[i].advice);
            return known[i].code;
        }
    snprintf(c->why, c->why_size, "can't reach %s: %.*s", c->url->shown, line(message), message);
    return MJ_EIO;
}
