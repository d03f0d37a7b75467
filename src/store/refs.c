#include "store/refs.h"

#include "auth/digest.h"
#include "base/error.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mj_refs {
    mj_refs *next;
    uint8_t last[MJ_ULID_BYTES];
    size_t n;     /* bytes of where */
    char where[]; /* a directory's path; a URL as a hash, since it may hold a password */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* never held while anything is waited for */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static mj_refs *all;

static void hold(void)
{
    pthread_mutex_lock(&lock);
}

static void let_go(void)
{
    pthread_mutex_unlock(&lock);
}

/* A child must not go on where its parent does. */
static void after_fork_child(void)
{
    for (mj_refs *r = all; r; r = r->next)
        memset(r->last, 0, sizeof r->last);
    let_go();
}

static void watch_fork(void)
{
    pthread_atfork(hold, let_go, after_fork_child);
}

static mj_refs *find_or_make(const char *where, size_t n)
{
    mj_refs *r;

    pthread_once(&once, watch_fork);
    hold();
    for (r = all; r && (r->n != n || memcmp(r->where, where, n) != 0); r = r->next)
        ;
    if (!r && (r = calloc(1, sizeof *r + n)) != NULL) {
        memcpy(r->where, where, n);
        r->n = n;
        r->next = all;
        all = r;
    }
    let_go();
    return r;
}

mj_refs *mj_refs_of(const char *where, const char *schema)
{
    char *path = realpath(where, NULL), *url = NULL;
    uint8_t hash[32];
    mj_refs *r = NULL;
    int n;

    if (path) {
        r = find_or_make(path, strlen(path));
    } else if ((n = asprintf(&url, "%s\n%s", where, schema ? schema : "")) >= 0) {
        if (mj_sha256(url, (size_t)n, hash) == MJ_OK)
            r = find_or_make((const char *)hash, sizeof hash);
        free(url);
    }
    free(path);
    return r;
}

int mj_refs_next(mj_refs *r, int64_t now, uint8_t ref[MJ_ULID_BYTES])
{
    int rc;

    hold();
    rc = mj_ulid_next(r->last, now);
    memcpy(ref, r->last, MJ_ULID_BYTES);
    let_go();
    return rc == MJ_OK ? MJ_OK : MJ_EIO;
}
