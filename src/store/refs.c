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
    uint8_t where[32]; /* as a hash: a URL may hold a password */
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

mj_refs *mj_refs_of(const char *where, const char *schema)
{
    char *full = realpath(where, NULL), *name = NULL;
    int n = asprintf(&name, "%s\n%s", full ? full : where, schema ? schema : "");
    uint8_t hash[32];
    mj_refs *r = NULL;
    bool hashed = n >= 0 && mj_sha256(name, (size_t)n, hash) == MJ_OK;

    pthread_once(&once, watch_fork);
    hold();
    for (r = all; hashed && r && memcmp(r->where, hash, sizeof hash) != 0; r = r->next)
        ;
    if (hashed && !r && (r = calloc(1, sizeof *r)) != NULL) {
        memcpy(r->where, hash, sizeof hash);
        r->next = all;
        all = r;
    }
    let_go();
    if (n >= 0)
        free(name);
    free(full);
    return hashed ? r : NULL;
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
