#include "store/refs.h"

#include "base/error.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct mj_refs {
    mj_refs *next;
    uint8_t last[MJ_ULID_BYTES];
    char where[];
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

mj_refs *mj_refs_of(const char *where)
{
    char *full = realpath(where, NULL);
    size_t n;
    mj_refs *r;

    where = full ? full : where;
    n = strlen(where) + 1;
    pthread_once(&once, watch_fork);
    hold();
    for (r = all; r && strcmp(r->where, where) != 0; r = r->next)
        ;
    if (!r && (r = calloc(1, sizeof *r + n)) != NULL) {
        memcpy(r->where, where, n);
        r->next = all;
        all = r;
    }
    let_go();
    free(full);
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
