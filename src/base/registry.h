/* mj_registered: things of a process that have a name, so that two of its threads find the same one. */
#ifndef MJ_REGISTRY_H
#define MJ_REGISTRY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* The first member of such a thing. */
typedef struct mj_registered {
    struct mj_registered *next; /* of its kind */
    size_t users;
    pthread_mutex_t lock; /* for whatever the thing is about */
    char *name;
    size_t nname;
} mj_registered;

/* The thing of that name among those of its kind, made of `size` zeroed bytes when it is new.  Without a name (NULL)
 * one that nobody else finds.  NULL: no memory. */
void *mj_registry_open(mj_registered **kind, const char *name, size_t n, size_t size);
/* True when nobody uses it any more: then it is found no longer, its owner gives back what it holds and calls
 * mj_registry_free(). */
bool mj_registry_leave(mj_registered **kind, mj_registered *t);
void mj_registry_free(mj_registered *t);

#endif
