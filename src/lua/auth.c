/* mjhook.core's keyrings and hashes. */
#include "auth/digest.h"
#include "auth/token.h"
#include "lua/core.h"

#include <string.h>

#define KEYRING "mjhook.keyring"
#define MAC "mjhook.mac"

typedef struct box {
    mj_keyring *ring;
} box;

typedef struct mac_box {
    mj_mac *mac;
} mac_box;

static mj_keyring *check(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, KEYRING);

    if (!b->ring)
        luaL_error(L, "the keyring is closed");
    return b->ring;
}

static int keyring_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, KEYRING);

    mj_keyring_free(b->ring);
    b->ring = NULL;
    return 0;
}

/* keyring:sign(ref, attempt) -> kid, sig.  Raises when it can't be computed, or the ring is empty. */
static int keyring_sign(lua_State *L)
{
    char kid[MJ_KID_TEXT + 1], sig[MJ_SIG_TEXT + 1];
    const mj_keyring *ring = check(L);
    size_t n;
    const char *ref = luaL_checklstring(L, 2, &n);
    uint32_t attempt = (uint32_t)mjl_arg_int(L, 3, 0, UINT32_MAX);
    int rc;

    luaL_argcheck(L, n == MJ_ULID_TEXT, 2, "not a ref");
    rc = mj_token_sign(ring, ref, attempt, kid, sig);
    if (rc != MJ_OK)
        return mjl_raise(L, rc, "the token of a callback URL");
    lua_pushstring(L, kid);
    lua_pushstring(L, sig);
    return 2;
}

/* Whether a token is good.  Raises when that can't be computed: the token may be good. */
static bool is_good(lua_State *L, const mj_keyring *ring, mj_str ref, uint32_t attempt, mj_str kid, mj_str sig)
{
    int rc = mj_token_verify(ring, ref.p, ref.n, attempt, kid.p, kid.n, sig.p, sig.n);

    if (rc != MJ_OK && rc != MJ_EINVAL)
        mjl_raise(L, rc, "the token of a callback");
    return rc == MJ_OK;
}

/* keyring:verify(ref, attempt, kid, sig) -> boolean; strings of wrong lengths are simply wrong */
static int keyring_verify(lua_State *L)
{
    const mj_keyring *ring = check(L);
    mj_str ref = mjl_arg_str(L, 2), kid = mjl_arg_str(L, 4), sig = mjl_arg_str(L, 5);
    lua_Number attempt = luaL_checknumber(L, 3);

    lua_pushboolean(L,
                    attempt >= 1 && attempt <= MJ_MAX_ATTEMPTS && is_good(L, ring, ref, (uint32_t)attempt, kid, sig));
    return 1;
}

/* keyring:authorize(uri) -> ref, attempt | nil, whether there is a token at all | nil, true, err: the token could not
 * be checked */
static int keyring_authorize(lua_State *L)
{
    const mj_keyring *ring = check(L);
    mj_str uri = mjl_arg_str(L, 2);
    const char *ref;
    uint32_t attempt = 0;
    mj_token t;
    int rc;

    mj_token_read(uri.p, uri.n, &t);
    rc = mj_token_check(ring, &t, &ref, &attempt);
    if (rc == MJ_OK && attempt <= MJ_MAX_ATTEMPTS) {
        lua_pushlstring(L, ref, MJ_ULID_TEXT);
        mjl_push_int(L, attempt);
        return 2;
    }
    lua_pushnil(L);
    lua_pushboolean(L, t.present);
    if (rc == MJ_OK || rc == MJ_EINVAL)
        return 2;
    mjl_fail(L, rc, "the token of a callback could not be checked");
    lua_remove(L, -2);
    return 3;
}

/* core.keyring{secret, ...} -> keyring | nil, err.  A secret has at least 16 bytes. */
static int core_keyring(lua_State *L)
{
    box *b;
    int rc;

    luaL_checktype(L, 1, LUA_TTABLE);
    b = lua_newuserdata(L, sizeof *b);
    b->ring = NULL;
    luaL_getmetatable(L, KEYRING);
    lua_setmetatable(L, -2);
    b->ring = mj_keyring_new();
    if (!b->ring)
        return mjl_fail(L, MJ_ENOMEM, NULL);
    for (int i = 1;; i++) {
        size_t n;
        const char *p;
        lua_rawgeti(L, 1, i);
        if (lua_type(L, -1) != LUA_TSTRING)
            break;
        p = lua_tolstring(L, -1, &n);
        rc = mj_keyring_add(b->ring, p, n);
        if (rc != MJ_OK)
            return mjl_fail(L, rc, rc == MJ_EINVAL ? "a secret needs at least 16 bytes" : NULL);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return 1;
}

/* core.sha256(data) -> 32 bytes.  Raises when it can't be computed: nil would be taken for a hash. */
static int core_sha256(lua_State *L)
{
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n);
    uint8_t out[32];
    int rc = mj_sha256(p, n, out);

    if (rc != MJ_OK)
        return mjl_raise(L, rc, "SHA-256");
    lua_pushlstring(L, (char *)out, sizeof out);
    return 1;
}

/* core.hmac_sha256(key, data) -> 32 bytes.  Raises as core.sha256(). */
static int core_hmac(lua_State *L)
{
    size_t nkey, n;
    const char *key = luaL_checklstring(L, 1, &nkey), *p = luaL_checklstring(L, 2, &n);
    uint8_t out[32];
    int rc = mj_hmac_sha256(key, nkey, p, n, out);

    if (rc != MJ_OK)
        return mjl_raise(L, rc, "HMAC-SHA-256");
    lua_pushlstring(L, (char *)out, sizeof out);
    return 1;
}

static int mac_close(lua_State *L)
{
    mac_box *b = luaL_checkudata(L, 1, MAC);

    mj_mac_free(b->mac);
    b->mac = NULL;
    return 0;
}

/* core.mac(key) -> mac: HMAC-SHA-256 with a key that is set up once.  Raises as core.sha256(). */
static int core_mac(lua_State *L)
{
    size_t n;
    const char *key = luaL_checklstring(L, 1, &n);
    mac_box *b = lua_newuserdata(L, sizeof *b);

    b->mac = NULL;
    luaL_getmetatable(L, MAC);
    lua_setmetatable(L, -2);
    b->mac = mj_mac_new(key, n);
    return b->mac ? 1 : mjl_raise(L, MJ_ENOMEM, "HMAC-SHA-256");
}

/* mac:base64(data) -> text, with padding.  Raises as core.sha256(). */
static int mac_base64(lua_State *L)
{
    mac_box *b = luaL_checkudata(L, 1, MAC);
    uint8_t sum[32];
    char out[sizeof sum / 3 * 4 + 5];
    size_t n;
    const char *p = luaL_checklstring(L, 2, &n);
    int rc;

    if (!b->mac)
        return luaL_error(L, "the mac is closed");
    rc = mj_mac_of(b->mac, p, n, sum);
    if (rc != MJ_OK)
        return mjl_raise(L, rc, "HMAC-SHA-256");
    lua_pushlstring(L, out, mj_base64(sum, sizeof sum, out));
    return 1;
}

/* core.base64(data) -> text, with padding */
static int core_base64(lua_State *L)
{
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n);
    char *out = lua_newuserdata(L, (n + 2) / 3 * 4 + 1);

    lua_pushlstring(L, out, mj_base64(p, n, out));
    return 1;
}

/* core.unbase64(text) -> data; nil: it is not padded base64 */
static int core_unbase64(lua_State *L)
{
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n);
    uint8_t *out = lua_newuserdata(L, n / 4 * 3 + 1);

    if (mj_base64_decode(p, n, out, &n) == MJ_OK)
        lua_pushlstring(L, (char *)out, n);
    else
        lua_pushnil(L);
    return 1;
}

void mjl_open_auth(lua_State *L)
{
    static const luaL_Reg methods[] = {{"sign", keyring_sign},
                                       {"verify", keyring_verify},
                                       {"authorize", keyring_authorize},
                                       {"close", keyring_close},
                                       {NULL, NULL}};
    static const luaL_Reg mac_methods[] = {{"base64", mac_base64}, {"close", mac_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"keyring", core_keyring},
                                         {"sha256", core_sha256},
                                         {"hmac_sha256", core_hmac},
                                         {"mac", core_mac},
                                         {"base64", core_base64},
                                         {"unbase64", core_unbase64},
                                         {NULL, NULL}};

    mjl_class(L, KEYRING, methods);
    mjl_class(L, MAC, mac_methods);
    luaL_setfuncs(L, functions, 0);
}
