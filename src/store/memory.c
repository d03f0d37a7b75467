/* Memory of a unit: it is given back as a whole. */
#include "store/unit.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 65536 };

struct mj_block {
    struct mj_block *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

/* What is larger than a block gets one of its own, behind the one in use. */
static mj_block *new_block(mj_unit *u, size_t n)
{
    size_t size = n > BLOCK ? n : BLOCK;
    mj_block *b = malloc(sizeof *b + size), **at = &u->s->memory;

    if (!b) {
        u->rc = MJ_ENOMEM;
        return NULL;
    }
    if (*at && n > BLOCK)
        at = &(*at)->next;
    *b = (mj_block){.next = *at, .size = size};
    *at = b;
    return b;
}

void *mj_unit_alloc(mj_unit *u, size_t n)
{
    mj_block *b = u->s->memory;
    void *p;

    n = (n + 15) & ~(size_t)15;
    if (!b || b->size - b->used < n) {
        b = new_block(u, n);
        if (!b)
            return NULL;
    }
    p = b->bytes + b->used;
    b->used += n;
    return p;
}

void *mj_unit_zero(mj_unit *u, size_t n)
{
    void *p = mj_unit_alloc(u, n);

    return p ? memset(p, 0, n) : NULL;
}

mj_str mj_unit_copy(mj_unit *u, const void *p, size_t n)
{
    char *to = mj_unit_alloc(u, n ? n : 1);

    if (!to)
        return (mj_str){0};
    if (n)
        memcpy(to, p, n);
    return (mj_str){to, (uint32_t)n};
}

void mj_unit_reset(mj_store *s)
{
    mj_block *keep = NULL, *next;

    for (mj_block *b = s->memory; b; b = next) {
        next = b->next;
        if (!keep && b->size == BLOCK)
            keep = b;
        else
            free(b);
    }
    s->memory = keep;
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
}

void mj_unit_free(mj_store *s)
{
    mj_block *next;

    for (mj_block *b = s->memory; b; b = next) {
        next = b->next;
        free(b);
    }
    s->memory = NULL;
}
