/* The engine on PostgreSQL behind PgBouncer in transaction mode: each transaction may have another connection. */
#include "pg_help.h"

#include <grp.h>
#include <pwd.h>

static char remove_dir[600];

static void clean_up(void)
{
    if (system(remove_dir) != 0)
        fprintf(stderr, "%s\n", remove_dir);
}

/* PgBouncer in a directory that its user can reach: the URL to reach the server through it.  It dies with the test. */
static const char *pooled_url(void)
{
    static char url[700];
    char dir[512], server[256];
    struct passwd *user = getpwnam("postgres");
    FILE *f;

    if (url[0])
        return url;
    if (access("/usr/sbin/pgbouncer", X_OK) != 0)
        SKIP("PgBouncer is not installed (apt-get install pgbouncer)");
    snprintf(server, sizeof server, "%s", pg_ask("SHOW unix_socket_directories"));
    snprintf(dir, sizeof dir, "/tmp/mjpool.XXXXXX");
    CHECK(mkdtemp(dir) != NULL && chmod(dir, 0777) == 0);
    snprintf(url, sizeof url, "%s/ini", dir);
    f = fopen(url, "w");
    CHECK(f != NULL);
    fprintf(f,
            "[databases]\n* = host=%s port=5432 user=mjhook\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = %s\n"
            "listen_port = 6543\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n",
            server, dir);
    fclose(f);
    if (fork() == 0) {
        if (getuid() == 0 &&
            (!user || setgroups(0, NULL) != 0 || setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0))
            _exit(1);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/usr/sbin/pgbouncer", "pgbouncer", "-q", url, (char *)NULL);
        _exit(1);
    }
    snprintf(url, sizeof url, "postgresql://mjhook@/postgres?host=%s&port=6543", dir);
    for (int i = 0; PQping(url) != PQPING_OK; i++) {
        CHECK(i < 5000);
        usleep(1000);
    }
    snprintf(remove_dir, sizeof remove_dir, "rm -rf %s", dir);
    atexit(clean_up);
    return url;
}

static int open_pooled(const char *where, const mj_store_options *o, void **db, char *why, size_t why_size)
{
    mj_store_options own = pg_options(where, o);

    return mj_backend_postgres.open(pooled_url(), &own, db, why, why_size);
}

static inline mj_backend pooled_backend(void)
{
    mj_backend b = pg_backend();

    b.open = open_pooled;
    return b;
}

#define BACKEND pooled_backend()
#define BACKEND_WITHOUT_BACKUP
#include "backend_flows.h"

TEST("settings of ours are not left behind in connections that other clients of the pooler get")
{
    mj_store_options o = {0};
    char why[400] = "";
    void *db = NULL;
    PGconn *c;
    PGresult *r;

    CHECK_INT(open_pooled("settings", &o, &db, why, sizeof why), MJ_OK);
    c = PQconnectdb(pooled_url());
    r = PQexec(c, "SELECT current_setting('enable_seqscan') || ' ' || current_setting('statement_timeout') || ' ' || "
                  "current_setting('search_path')");
    CHECK_STR(PQgetvalue(r, 0, 0), "on 0 \"$user\", public");
    PQclear(r);
    PQfinish(c);
    mj_backend_postgres.close(db);
}
