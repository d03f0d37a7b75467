#include "base/registry.h"

#include <stdlib.h>
#include <string.h>

static pthread_mutex_t kinds = PTHREAD_MUTEX_INITIALIZER; /* guards the lists of all kinds */

static mj_registered *find(mj_registered *list, const char *name, size_t n)
{
    mj_registered *t = name ? list : NULL;

    while (t && (t->nname != n || memcmp(t->name, name, n) != 0))
        t = t->next;
    return t;
}

static mj_registered *make(const char *name, size_t n, size_t size)
{
    mj_registered *t = calloc(1, size + n);

    if (!t)
        return NULL;
    if (pthread_mutex_init(&t->lock, NULL) != 0) {
        free(t);
        return NULL;
    }
    if (name) {
        t->name = (char *)t + size;
        t->nname = n;
        memcpy(t->name, name, n);
    }
    return t;
}

void *mj_registry_open(mj_registered **kind, const char *name, size_t n, size_t size)
{
    mj_registered *t;

    pthread_mutex_lock(&kinds);
    t = find(*kind, name, n);
    if (!t && (t = make(name, name ? n : 0, size)) != NULL && name) {
        t->next = *kind;
        *kind = t;
    }
    if (t)
        t->users++;
    pthread_mutex_unlock(&kinds);
    return t;
}

bool mj_registry_leave(mj_registered **kind, mj_registered *t)
{
    bool last;

    pthread_mutex_lock(&kinds);
    last = --t->users == 0;
    for (mj_registered **at = kind; last && *at; at = &(*at)->next) {
        if (*at == t) {
            *at = t->next;
            break;
        }
    }
    pthread_mutex_unlock(&kinds);
    return last;
}

void mj_registry_free(mj_registered *t)
{
    pthread_mutex_destroy(&t->lock);
    free(t);
}
