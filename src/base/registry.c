#include "base/registry.h"

#include <stdlib.h>
#include <string.h>

static pthread_mutex_t kinds = PTHREAD_MUTEX_INITIALIZER; /* the lists of all kinds */

static mj_named *find(mj_named *list, const char *name, size_t n)
{
    mj_named *t = name ? list : NULL;

    while (t && (t->nname != n || memcmp(t->name, name, n) != 0))
        t = t->next;
    return t;
}

static mj_named *make(const char *name, size_t n, size_t size)
{
    mj_named *t = calloc(1, size + n);

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

void *mj_named_open(mj_named **kind, const char *name, size_t n, size_t size)
{
    mj_named *t;

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

bool mj_named_leave(mj_named **kind, mj_named *t)
{
    bool last;

    pthread_mutex_lock(&kinds);
    last = --t->users == 0;
    for (mj_named **at = kind; last && *at; at = &(*at)->next) {
        if (*at == t) {
            *at = t->next;
            break;
        }
    }
    pthread_mutex_unlock(&kinds);
    return last;
}

void mj_named_free(mj_named *t)
{
    pthread_mutex_destroy(&t->lock);
    free(t);
}
