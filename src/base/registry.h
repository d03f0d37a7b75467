/* mj_registry: objects of this process that have a name, so that two threads find the same one. */
#ifndef MJ_REGISTRY_H
#define MJ_REGISTRY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* The first member of such an object. */
typedef struct mj_registered {
    struct mj_registered *next; /* the next object of its kind */
    size_t users;
    pthread_mutex_t lock; /* guards the object */
    char *name;
    size_t nname;
} mj_registered;

/* The object of this kind and name; a new one is `size` zeroed bytes.  Without a name (NULL), an object that no other
 * call finds.  NULL: no memory. */
void *mj_registry_open(mj_registered **kind, const char *name, size_t n, size_t size);
/* Drops one use.  True: it was the last one; the object is not found any more, and its owner frees what it holds and
 * calls mj_registry_free(). */
bool mj_registry_leave(mj_registered **kind, mj_registered *t);
void mj_registry_free(mj_registered *t);

#endif
