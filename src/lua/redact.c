/* mjhook.core's hiding of secrets in text from outside, on its way into the store and into Lua. */
#include "lua/core.h"
#include "provider/json.h"

#include <stdlib.h>
#include <string.h>

/* ---- operations ---- */

void mjl_hidden_free(mjl_hidden *h)
{
    for (size_t i = 0; i < h->n; i++)
        free(h->texts[i]);
    free(h->texts);
    *h = (mjl_hidden){0};
}

static bool room(mjl_hidden *h)
{
    size_t cap = h->cap ? 2 * h->cap : 16;
    char **texts;

    if (h->n < h->cap)
        return true;
    texts = realloc(h->texts, cap * sizeof *texts);
    if (!texts)
        return false;
    h->texts = texts;
    h->cap = cap;
    return true;
}

static int redact(mj_str *s, mj_redact_kind kind, uint32_t max, mjl_hidden *h)
{
    mj_buf out = {0};
    bool found;
    int rc;

    if (s->n == 0 || !mj_redact_maybe(s->p, s->n))
        return MJ_OK;
    if (!room(h))
        return MJ_ENOMEM;
    rc = mj_redact(kind, s->p, s->n, &out, &found);
    if (rc != MJ_OK || !found) {
        mj_buf_free(&out);
        return rc;
    }
    h->texts[h->n++] = (char *)out.p;
    *s = mj_str_head((mj_str){(const char *)out.p, (uint32_t)out.n}, max);
    return MJ_OK;
}

/* Text that is no JSON any more, or grew too long, is left out: a secret may contain a quote. */
static int redact_json(mj_str *s, mjl_hidden *h)
{
    const char *before = s->p;
    int rc = redact(s, MJ_REDACT_BODY, UINT32_MAX, h);
    mj_json root;
    size_t at;

    if (rc == MJ_OK && s->p != before && (s->n > MJ_MAX_JSON || mj_json_read(*s, &root, &at)))
        *s = (mj_str){0};
    return rc;
}

/* A refused body, of which the store keeps the start.  Of a long one only the start is searched, since other commits
 * wait meanwhile.  Its length is kept, and what is kept of it is never complete. */
static int redact_body(mj_str *s, mjl_hidden *h)
{
    enum { BEYOND = 1024 }; /* bytes after the kept part: they show a secret that its end cuts */
    mj_str head = {s->p, MJ_MAX_REFUSED_BODY + BEYOND};
    int rc;

    if (s->n <= head.n)
        return redact(s, MJ_REDACT_BODY, UINT32_MAX, h);
    rc = redact(&head, MJ_REDACT_BODY, UINT32_MAX, h);
    if (rc == MJ_OK && head.p != s->p && head.n < MJ_MAX_REFUSED_BODY) {
        char *padded = realloc(h->texts[h->n - 1], MJ_MAX_REFUSED_BODY);
        if (!padded)
            return MJ_ENOMEM;
        memset(padded + head.n, ' ', MJ_MAX_REFUSED_BODY - head.n);
        h->texts[h->n - 1] = padded;
        head.p = padded;
    }
    s->p = head.p;
    return rc;
}

int mjl_redact_op(mj_op *op, mjl_hidden *h)
{
    mj_signal *sig = &op->sig;
    int rc = MJ_OK;

#define X(name, kind, max)                                                                                             \
    if (rc == MJ_OK)                                                                                                   \
        rc = MJ_REDACT_##kind == MJ_REDACT_BODY ? redact_json(&sig->name, h)                                           \
                                                : redact(&sig->name, MJ_REDACT_##kind, max, h);
    MJL_STATUS_TEXTS(X)
#undef X
    for (unsigned i = 0; rc == MJ_OK && i < sig->nimages; i++)
        rc = redact(&sig->images[i], MJ_REDACT_URL, MJ_MAX_URL, h);
    if (rc == MJ_OK)
        rc = redact_json(&sig->files, h);
    if (rc == MJ_OK)
        rc = redact_body(&op->body, h);
    return rc;
}

/* ---- Lua ---- */

/* core.hide(text) -> whether there is room.  From now on this process hides the text wherever it reads, keeps or
 * prints it.  Raises without memory. */
static int core_hide(lua_State *L)
{
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n);
    int rc;

    rc = mj_redact_add(p, n);
    if (rc == MJ_ENOMEM)
        return mjl_raise(L, rc, "a secret can't be hidden");
    lua_pushboolean(L, rc == MJ_OK);
    return 1;
}

/* core.redact(text) -> the text without secrets */
static int core_redact(lua_State *L)
{
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n);

    mjl_push_redacted(L, MJ_REDACT_TEXT, p, n);
    return 1;
}

void mjl_open_redact(lua_State *L)
{
    static const luaL_Reg functions[] = {{"hide", core_hide}, {"redact", core_redact}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
