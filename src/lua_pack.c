/* A signal as one string.
 *
 * A batch of callbacks crosses to the thread that commits it, and a table of ten
 * fields costs that way more than all the rest.  Both ends are this process, so
 * the layout has no version; it is checked all the same, since Lua can hand in
 * any string. */
#include "lua_core.h"

#include <string.h>

enum { NUMBERS = 4, TEXTS = 6 }; /* what every packed signal has, beside its images */

static uint8_t *put_u32(uint8_t *p, uint32_t v)
{
    mj_be32(p, v);
    return p + 4;
}

static uint8_t *put_text(uint8_t *p, mj_str s)
{
    p = put_u32(p, s.n);
    if (s.n)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

static void texts(const mj_signal *s, mj_str out[TEXTS])
{
    const mj_str all[TEXTS] = {s->task_id, s->image, s->mj_prompt, s->meta, s->error_code, s->error};

    memcpy(out, all, sizeof all);
}

void mjl_pack(lua_State *L, const mj_op *op)
{
    const mj_signal *s = &op->sig;
    mj_str text[TEXTS];
    uint8_t small[4096], *bytes = small, *p;
    size_t n = MJ_ULID_BYTES + 4 * (size_t)(NUMBERS + TEXTS + s->nimages);

    texts(s, text);
    for (unsigned i = 0; i < TEXTS; i++)
        n += text[i].n;
    for (unsigned i = 0; i < s->nimages; i++)
        n += s->images[i].n;
    if (n > sizeof small)
        bytes = lua_newuserdata(L, n); /* Lua frees it, whatever raises */
    memcpy(bytes, op->ref, MJ_ULID_BYTES);
    p = put_u32(bytes + MJ_ULID_BYTES, (uint32_t)s->kind);
    p = put_u32(p, (uint32_t)s->source);
    p = put_u32(p, s->attempt);
    p = put_u32(p, s->nimages);
    for (unsigned i = 0; i < TEXTS; i++)
        p = put_text(p, text[i]);
    for (unsigned i = 0; i < s->nimages; i++)
        p = put_text(p, s->images[i]);
    lua_pushlstring(L, (const char *)bytes, n);
}

static uint32_t get_u32(mj_reader *r)
{
    const uint8_t *p = mj_get_raw(r, 4);

    return p ? mj_be32_get(p) : 0;
}

static mj_str get_text(mj_reader *r, uint32_t max)
{
    uint32_t n = get_u32(r);
    const uint8_t *p = mj_get_raw(r, n);

    r->bad = r->bad || n > max;
    return p && n ? (mj_str){(const char *)p, n} : (mj_str){0};
}

void mjl_unpack(lua_State *L, mj_str bytes, mj_op *op)
{
    mj_reader r = mj_reader_of(bytes.p, bytes.n);
    const uint8_t *ref = mj_get_raw(&r, MJ_ULID_BYTES);
    uint32_t kind = get_u32(&r), source = get_u32(&r);
    mj_signal *s = &op->sig;

    op->kind = MJ_OP_SIGNAL;
    op->has_ref = true;
    if (ref)
        memcpy(op->ref, ref, MJ_ULID_BYTES);
    s->kind = (mj_signal_kind)kind;
    s->source = (mj_source)source;
    s->attempt = get_u32(&r);
    s->expect_state = -1;
    s->wait_ms = -1;
    s->nimages = get_u32(&r);
    s->task_id = get_text(&r, MJ_MAX_TASK_ID);
    s->image = get_text(&r, MJ_MAX_URL);
    s->mj_prompt = get_text(&r, MJ_MAX_PROMPT);
    s->meta = get_text(&r, MJ_MAX_JSON);
    s->error_code = get_text(&r, MJ_MAX_NAME);
    s->error = get_text(&r, MJ_MAX_REASON);
    for (unsigned i = 0; i < s->nimages && i < MJ_MAX_IMAGES && !r.bad; i++)
        s->images[i] = get_text(&r, MJ_MAX_URL);
    if (r.bad || r.p != r.end || s->nimages > MJ_MAX_IMAGES || kind >= SIG_COUNT || source >= MJ_NSOURCES)
        luaL_error(L, "bad packed operation");
}
