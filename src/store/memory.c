/* Memory of a unit: it is given back as a whole. */
#include "store/unit.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 65536,
    KEPT = 8, /* blocks between two units: what a batch of some hundred operations needs */
};

struct mj_block {
    struct mj_block *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

/* What is larger than a block gets one of its own, behind the one in use. */
static mj_block *new_block(mj_unit *u, size_t n)
{
    size_t size = n > BLOCK ? n : BLOCK;
    mj_block **at = &u->s->memory, *b = n > BLOCK ? NULL : u->s->spare;

    if (b)
        u->s->spare = b->next;
    else if (!(b = malloc(sizeof *b + size))) {
        u->rc = MJ_ENOMEM;
        return NULL;
    }
    if (*at && n > BLOCK)
        at = &(*at)->next;
    b->used = 0;
    b->size = size;
    b->next = *at;
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
    mj_block *next;
    unsigned n = 0;

    for (mj_block *b = s->spare; b; b = b->next)
        n++;
    for (mj_block *b = s->memory; b; b = next) { /* the first that was used comes last, and is used first again */
        next = b->next;
        if (b->size == BLOCK && n++ < KEPT) {
            b->next = s->spare;
            s->spare = b;
        } else {
            free(b);
        }
    }
    s->memory = NULL;
}

static void free_all(mj_block **list)
{
    mj_block *next;

    for (mj_block *b = *list; b; b = next) {
        next = b->next;
        free(b);
    }
    *list = NULL;
}

void mj_unit_free(mj_store *s)
{
    free_all(&s->memory);
    free_all(&s->spare);
}
