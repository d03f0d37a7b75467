/* mj_named: things of a process that have a name, so that two of its threads find the same one. */
#ifndef MJ_NAMED_H
#define MJ_NAMED_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* The first member of such a thing. */
typedef struct mj_named {
    struct mj_named *next; /* of its kind */
    size_t users;
    pthread_mutex_t lock; /* for whatever the thing is about */
    char *name;
    size_t nname;
} mj_named;

/* The thing of that name among those of its kind, made of `size` zeroed bytes when it is new.  Without a name (NULL)
 * one that nobody else finds.  NULL: no memory. */
void *mj_named_open(mj_named **kind, const char *name, size_t n, size_t size);
/* True when nobody uses it any more: then it is found no longer, its owner gives back what it holds and calls
 * mj_named_free(). */
bool mj_named_leave(mj_named **kind, mj_named *t);
void mj_named_free(mj_named *t);

#endif
