/* Which database: the URL, what libpq makes of it, and what we add. */
#include "store/postgres/db.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mj_pg_url_free(mj_pg_url *u)
{
    for (unsigned i = 0; u->options[i]; i++) {
        free(u->options[i]);
        if (u->values[i])
            explicit_bzero(u->values[i], strlen(u->values[i]));
        free(u->values[i]);
        u->options[i] = u->values[i] = NULL;
    }
}

void mj_pg_put_schema(mj_buf *out, const mj_pg_url *u)
{
    mj_put_u8(out, '"');
    mj_put_raw(out, u->schema, strlen(u->schema));
    mj_put_u8(out, '"');
}

void mj_pg_put_sql(mj_buf *out, const mj_pg_url *u, const char *sql)
{
    for (; *sql; sql++)
        if (*sql == '@')
            mj_pg_put_schema(out, u);
        else
            mj_put_u8(out, (uint8_t)*sql);
}

/* The schema's name needs no escaping within quotes. */
static bool set_schema(mj_pg_url *u, const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n >= sizeof u->schema || isdigit((unsigned char)*name) || strncmp(name, "pg_", 3) == 0 ||
        strcmp(name, "information_schema") == 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!islower((unsigned char)name[i]) && !isdigit((unsigned char)name[i]) && name[i] != '_')
            return false;
    memcpy(u->schema, name, n + 1);
    return true;
}

static const char *value_of(const mj_pg_url *u, const char *option)
{
    for (unsigned i = 0; u->options[i]; i++)
        if (strcmp(u->options[i], option) == 0)
            return u->values[i];
    return NULL;
}

/* Unless the URL has it, or the environment variable that libpq reads. */
static int set_default(mj_pg_url *u, const char *option, const char *value, const char *variable)
{
    unsigned n = 0;

    if (value_of(u, option) || (variable && getenv(variable)))
        return MJ_OK;
    while (u->options[n])
        n++;
    if (n + 1 >= sizeof u->options / sizeof u->options[0])
        return MJ_ELIMIT;
    u->options[n] = strdup(option);
    u->values[n] = strdup(value);
    return u->options[n] && u->values[n] ? MJ_OK : MJ_ENOMEM;
}

static int set_defaults(mj_pg_url *u)
{
    static const char *const defaults[][3] = {
        {"connect_timeout", "5", "PGCONNECT_TIMEOUT"},
        {"target_session_attrs", "read-write", "PGTARGETSESSIONATTRS"},
        {"keepalives_idle", "10", NULL},
        {"keepalives_interval", "5", NULL},
        {"keepalives_count", "3", NULL},
        {"tcp_user_timeout", "15000", NULL},
        {"fallback_application_name", "mjhook", NULL},
        {"client_encoding", "UTF8", NULL},
    };
    int rc = MJ_OK;

    for (unsigned i = 0; i < sizeof defaults / sizeof defaults[0] && rc == MJ_OK; i++)
        rc = set_default(u, defaults[i][0], defaults[i][1], defaults[i][2]);
    return rc;
}

/* libpq refuses what is no number; 0 is the system's own choice. */
static int answer_ms(const mj_pg_url *u)
{
    enum { LEAST = 100, MOST = 3600000 };
    const char *value = value_of(u, "tcp_user_timeout");
    long ms = value ? strtol(value, NULL, 10) : 0;

    return ms <= 0 || ms > MOST ? MJ_PG_ANSWER_MS : ms < LEAST ? LEAST : (int)ms;
}

static void show(mj_pg_url *u)
{
    const char *host = value_of(u, "host"), *port = value_of(u, "port"), *name = value_of(u, "dbname");
    const char *service = value_of(u, "service");

    host = host ? host : value_of(u, "hostaddr");
    host = host ? host : getenv("PGHOST");
    name = name ? name : getenv("PGDATABASE");
    if (service)
        snprintf(u->shown, sizeof u->shown, "the database of service %s", service);
    else
        snprintf(u->shown, sizeof u->shown, "the database %s%s%s%s%s", name ? name : "(named like the user)",
                 host ? " on " : "", host ? host : "", host && port ? ":" : "", host && port ? port : "");
}

static int keep(mj_pg_url *u, const PQconninfoOption *all)
{
    unsigned n = 0;

    for (const PQconninfoOption *o = all; o->keyword; o++)
        if (o->val && n + 1 < sizeof u->options / sizeof u->options[0]) {
            u->options[n] = strdup(o->keyword);
            u->values[n] = strdup(o->val);
            if (!u->options[n] || !u->values[n])
                return MJ_ENOMEM;
            n++;
        }
    return MJ_OK;
}

/* What libpq says of a URL quotes it, and so a password. */
static void explain(const char *said, char *why, size_t size)
{
    size_t n = said ? strcspn(said, ":\n") : 0;

    if (said && strncmp(said, "invalid URI query parameter", 27) == 0)
        n = strcspn(said, "\n");
    snprintf(why, size,
             "the store's URL can't be read: %.*s: it has to be like postgresql://user@host:5432/database, and special "
             "characters of a password are written as %%40 (@), %%2F (/), %%3A (:)",
             (int)n, said ? said : "");
}

/* An @ of a password that is not escaped makes the rest of it a host or a port. (@ in front: an abstract socket.) */
static bool has_at(const char *s)
{
    return s && *s && strchr(s + 1, '@');
}

/* Takes mjhook_careful=1 out of a URL: libpq knows no such word. */
static void take_careful(char *url, mj_pg_url *u)
{
    static const char word[] = "mjhook_careful=1";
    char *query = strchr(url, '?'), *at = query ? strstr(query + 1, word) : NULL, *end;

    if (!at || (at[-1] != '?' && at[-1] != '&'))
        return;
    end = at + sizeof word - 1;
    if (*end == '&')
        memmove(at, end + 1, strlen(end + 1) + 1);
    else if (*end == '\0')
        at[-1] = '\0';
    else
        return;
    u->careful = true;
}

int mj_pg_url_parse(const char *where, const mj_store_options *o, mj_pg_url *u, char *why, size_t why_size)
{
    PQconninfoOption *all;
    char *said = NULL, *url;
    int rc;

    memset(u, 0, sizeof *u);
    u->careful = o->careful;
    if (!set_schema(u, o->schema ? o->schema : "mjhook")) {
        snprintf(
            why, why_size,
            "store_schema has to be a name of up to 63 small letters, digits and _, which begins with a letter or _ "
            "and is not one of PostgreSQL's own (pg_..., information_schema): choose another, such as mjhook");
        return MJ_EINVAL;
    }
    url = strdup(where);
    if (!url)
        return MJ_ENOMEM;
    take_careful(url, u);
    all = PQconninfoParse(url, &said);
    explicit_bzero(url, strlen(url));
    free(url);
    if (!all) {
        explain(said, why, why_size);
        PQfreemem(said);
        return MJ_EINVAL;
    }
    rc = keep(u, all);
    PQconninfoFree(all);
    if (rc == MJ_OK && (has_at(value_of(u, "dbname")) || has_at(value_of(u, "host")) || has_at(value_of(u, "port")))) {
        explain("a part of the password was taken for the host", why, why_size);
        rc = MJ_EINVAL;
    }
    if (rc == MJ_OK)
        rc = set_defaults(u);
    u->answer_ms = answer_ms(u);
    show(u);
    if (rc != MJ_OK)
        mj_pg_url_free(u);
    return rc;
}
