#include "store/lmdb/keys.h"

#include <string.h>

static uint8_t *number(uint8_t *k, uint64_t v, unsigned bytes)
{
    uint8_t be[8];

    mj_be64(be, v);
    memcpy(k, be + sizeof be - bytes, bytes);
    return k + bytes;
}

static uint8_t *raw(uint8_t *k, const void *p, size_t n)
{
    if (n)
        memcpy(k, p, n);
    return k + n;
}

static uint8_t *name(uint8_t *k, mj_str s)
{
    return raw(number(k, s.n, 2), s.p, s.n);
}

static uint8_t *ref(uint8_t *k, const mj_entry *e)
{
    return raw(k, e->ref, MJ_ULID_BYTES);
}

static uint64_t when(int64_t at)
{
    return (uint64_t)(at < 0 ? 0 : at);
}

/* The fields that a scan may fix; NULL: the index has none. */
static uint8_t *leading(uint8_t *k, const mj_entry *e)
{
    switch (e->index) {
    case MJ_IX_USER:
    case MJ_IX_QUEUE:
        return name(k, e->name);
    case MJ_IX_STATE:
    case MJ_IX_DUE:
        return number(k, e->n, 1);
    case MJ_IX_EVENT:
        return ref(k, e);
    default:
        return NULL;
    }
}

void mj_prefix_of(const mj_entry *e, unsigned fixed, mj_key *prefix)
{
    const uint8_t *end = fixed ? leading(prefix->bytes, e) : NULL;

    prefix->val = mj_val(prefix->bytes, end ? (size_t)(end - prefix->bytes) : 0);
}

void mj_key_of(const mj_entry *e, mj_key *key)
{
    /* cppcheck-suppress ctuuninitvar ; it is filled in here */
    uint8_t *k = key->bytes, *end = leading(k, e);

    switch (e->index) {
    case MJ_IX_META:
    case MJ_IX_TID:
    case MJ_IX_KEY:
    case MJ_IX_ACCOUNT:
        key->val = mj_val(e->name.p, e->name.n);
        return;
    case MJ_IX_TASK:
    case MJ_IX_TOMB:
        end = ref(k, e);
        break;
    case MJ_IX_USER:
    case MJ_IX_STATE:
        end = ref(end, e);
        break;
    case MJ_IX_DUE:
        end = ref(number(end, when(e->at), 8), e);
        break;
    case MJ_IX_QUEUE: /* high priority first, then the older ref */
        end = ref(number(end, ~((uint32_t)e->priority ^ 0x80000000u) & 0xffffffffu, 4), e);
        break;
    case MJ_IX_SLOT:
    case MJ_IX_OUTBOX:
        end = number(ref(number(k, when(e->at), 8), e), e->n, 4);
        break;
    case MJ_IX_EVENT:
        end = number(end, e->n, 4);
        break;
    case MJ_IX_GRAVE:
        end = ref(number(k, when(e->at), 8), e);
        break;
    case MJ_IX_REFUSED:
        end = number(k, (uint64_t)e->at, 8);
        break;
    case MJ_NINDEXES:
        break;
    }
    key->val = mj_val(k, (size_t)(end - k));
}

void mj_value_of(const mj_entry *e, mj_key *value)
{
    /* cppcheck-suppress ctuuninitvar ; as above */
    uint8_t *v = value->bytes, *end = v;

    if (e->index == MJ_IX_TID)
        end = number(ref(v, e), e->n, 4);
    else if (e->index == MJ_IX_KEY)
        end = raw(ref(v, e), e->fingerprint, sizeof e->fingerprint);
    value->val = e->index == MJ_IX_SLOT ? mj_val(e->name.p, e->name.n) : mj_val(v, (size_t)(end - v));
}

/* ---- and back ---- */

typedef struct reader {
    const uint8_t *p;
    size_t n;
    bool bad;
} reader;

static const uint8_t *take(reader *r, size_t n)
{
    static const uint8_t zero[MJ_KEY_MAX];
    const uint8_t *p = r->p;

    if (r->bad || r->n < n) {
        r->bad = true;
        return zero;
    }
    r->p += n;
    r->n -= n;
    return p;
}

static uint64_t take_number(reader *r, unsigned bytes)
{
    uint8_t be[8] = {0};

    memcpy(be + sizeof be - bytes, take(r, bytes), bytes);
    return mj_be64_get(be);
}

static void take_ref(reader *r, mj_entry *e)
{
    memcpy(e->ref, take(r, MJ_ULID_BYTES), MJ_ULID_BYTES);
}

static void take_name(reader *r, mj_entry *e)
{
    size_t n = take_number(r, 2);

    if (n > MJ_MAX_NAME)
        r->bad = true;
    e->name = (mj_str){(const char *)take(r, r->bad ? 0 : n), (uint32_t)n};
}

bool mj_account_of(MDB_val value, uint32_t *held, mj_str *row)
{
    mj_reader r = mj_reader_of(value.mv_data, value.mv_size);

    *held = mj_get_u32(&r);
    *row = (mj_str){(const char *)r.p, (uint32_t)(r.end - r.p)};
    return !r.bad;
}

bool mj_entry_of(mj_index index, MDB_val key, MDB_val value, mj_entry *e)
{
    reader k = {key.mv_data, key.mv_size, false}, v = {value.mv_data, value.mv_size, false};
    mj_str row;

    *e = (mj_entry){.index = index};
    switch (index) {
    case MJ_IX_META:
        e->name = (mj_str){key.mv_data, (uint32_t)key.mv_size};
        return true;
    case MJ_IX_ACCOUNT:
        e->name = (mj_str){key.mv_data, (uint32_t)key.mv_size};
        return mj_account_of(value, &e->n, &row);
    case MJ_IX_TID:
    case MJ_IX_KEY:
        e->name = (mj_str){key.mv_data, (uint32_t)key.mv_size};
        take_ref(&v, e);
        if (index == MJ_IX_TID)
            e->n = (uint32_t)take_number(&v, 4);
        else
            memcpy(e->fingerprint, take(&v, sizeof e->fingerprint), sizeof e->fingerprint);
        return !v.bad && v.n == 0;
    case MJ_IX_TASK:
    case MJ_IX_TOMB:
        break;
    case MJ_IX_USER:
        take_name(&k, e);
        break;
    case MJ_IX_QUEUE:
        take_name(&k, e);
        e->priority = (int32_t)(~(uint32_t)take_number(&k, 4) ^ 0x80000000u);
        break;
    case MJ_IX_STATE:
        e->n = (uint32_t)take_number(&k, 1);
        break;
    case MJ_IX_DUE:
        e->n = (uint32_t)take_number(&k, 1);
        e->at = (int64_t)take_number(&k, 8);
        break;
    case MJ_IX_SLOT:
        e->name = (mj_str){value.mv_data, (uint32_t)value.mv_size};
        e->at = (int64_t)take_number(&k, 8);
        break;
    case MJ_IX_OUTBOX:
    case MJ_IX_GRAVE:
        e->at = (int64_t)take_number(&k, 8);
        break;
    case MJ_IX_REFUSED:
        e->at = (int64_t)take_number(&k, 8);
        return !k.bad && k.n == 0;
    case MJ_IX_EVENT:
        break;
    case MJ_NINDEXES:
        return false;
    }
    take_ref(&k, e);
    if (index == MJ_IX_SLOT || index == MJ_IX_OUTBOX || index == MJ_IX_EVENT)
        e->n = (uint32_t)take_number(&k, 4);
    return !k.bad && k.n == 0;
}
