/* mj_auth: ULIDs, hookUrl tokens, hashes.  The expected numbers come from elsewhere: RFC 4231, FIPS 180, the ULID
 * specification's example, and the token formula of PRODUCT.md computed by Python. */
#include "auth/digest.h"
#include "auth/token.h"
#include "base/error.h"
#include "mj_test.h"

#include <pthread.h>

static const char REF[] = "01ARZ3NDEKTSV4RRFFQ69G5FAV", SECRET[] = "0123456789abcdef0123456789abcdef";

static const char *hex(const uint8_t *p, size_t n)
{
    static char out[129];

    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", p[i]);
    return out;
}

static mj_keyring *ring_of(const char *a, const char *b)
{
    mj_keyring *k = mj_keyring_new();

    CHECK(k != NULL);
    CHECK_INT(mj_keyring_add(k, a, strlen(a)), MJ_OK);
    if (b)
        CHECK_INT(mj_keyring_add(k, b, strlen(b)), MJ_OK);
    return k;
}

static bool verify(const mj_keyring *k, const char *ref, uint32_t attempt, const char *kid, const char *sig)
{
    return mj_token_verify(k, ref, strlen(ref), attempt, kid, strlen(kid), sig, strlen(sig)) == MJ_OK;
}

/* ---- ULIDs ---- */

TEST("a ULID reads and writes as the specification's example does")
{
    uint8_t id[16];
    char text[MJ_ULID_TEXT + 1];

    CHECK_INT(mj_ulid_parse(REF, 26, id), MJ_OK);
    CHECK_STR(hex(id, 16), "01563e3ab5d3d6764c61efb99302bd5b");
    CHECK_INT(mj_ulid_time(id), 1469922850259);
    mj_ulid_text(id, text);
    CHECK_STR(text, REF);
}

TEST("a ULID survives being written and read, at its bounds and at random")
{
    uint8_t id[16], back[16];
    char text[MJ_ULID_TEXT + 1];
    uint32_t seed = 1;

    for (int i = 0; i < 20000; i++) {
        for (int j = 0; j < 16; j++) {
            seed = seed * 1664525 + 1013904223;
            id[j] = i == 0 ? 0 : i == 1 ? 0xff : (uint8_t)(seed >> 24);
        }
        mj_ulid_text(id, text);
        CHECK_INT(strlen(text), MJ_ULID_TEXT);
        CHECK_INT(mj_ulid_parse(text, 26, back), MJ_OK);
        CHECK_MEM(back, id, 16);
    }
}

TEST("texts of ULIDs sort as their bytes do")
{
    uint8_t a[16], b[16];
    char ta[MJ_ULID_TEXT + 1], tb[MJ_ULID_TEXT + 1];
    uint32_t seed = 7;

    for (int i = 0; i < 5000; i++) {
        for (int j = 0; j < 16; j++) {
            seed = seed * 1664525 + 1013904223;
            a[j] = (uint8_t)(seed >> 24);
            b[j] = j < i % 16 ? a[j] : (uint8_t)(seed >> 16);
        }
        mj_ulid_text(a, ta);
        mj_ulid_text(b, tb);
        CHECK((memcmp(a, b, 16) < 0) == (strcmp(ta, tb) < 0));
    }
}

TEST("lower case is read, and anything that is not 26 digits of Crockford's is refused")
{
    static const char *const bad[] = {
        "",
        "01ARZ3NDEKTSV4RRFFQ69G5FA",   /* one short */
        "01ARZ3NDEKTSV4RRFFQ69G5FAVV", /* one long */
        "81ARZ3NDEKTSV4RRFFQ69G5FAV",  /* more than 128 bits */
        "Z1ARZ3NDEKTSV4RRFFQ69G5FAV",
        "01ARZ3NDEKTSV4RRFFQ69G5FAI",
        "01ARZ3NDEKTSV4RRFFQ69G5FAL",
        "01ARZ3NDEKTSV4RRFFQ69G5FAO",
        "01ARZ3NDEKTSV4RRFFQ69G5FAU",
        "01ARZ3NDEKTSV4RRFFQ69G5FA ",
        " 1ARZ3NDEKTSV4RRFFQ69G5FAV",
        "01ARZ3NDEKTSV-RRFFQ69G5FAV",
        "01ARZ3NDEKTSV4RRFFQ69G5FA\xc3",
    };
    char nul[27];
    uint8_t want[16], id[16], untouched[16];

    CHECK_INT(mj_ulid_parse(REF, 26, want), MJ_OK);
    CHECK_INT(mj_ulid_parse("01arz3ndektsv4rrffq69g5fav", 26, id), MJ_OK);
    CHECK_MEM(id, want, 16);
    memset(id, 0x5a, 16);
    memcpy(untouched, id, 16);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_INT(mj_ulid_parse(bad[i], strlen(bad[i]), id), MJ_EINVAL);
    for (size_t i = 0; i < 26; i++) {
        memcpy(nul, REF, sizeof nul);
        nul[i] = '\0';
        CHECK_INT(mj_ulid_parse(nul, 26, id), MJ_EINVAL);
    }
    CHECK_MEM(id, untouched, 16);
}

TEST("ULIDs ascend when the clock stands still or steps back, and carry on with it")
{
    static const int64_t clock[] = {1000, 1000, 1000, 999, 1, 0, 1001, 1001, 500, 2000};
    uint8_t last[16] = {0}, before[16];

    for (size_t i = 0; i < sizeof clock / sizeof clock[0]; i++) {
        memcpy(before, last, 16);
        CHECK_INT(mj_ulid_next(last, clock[i]), MJ_OK);
        CHECK(memcmp(last, before, 16) > 0);
        CHECK(mj_ulid_time(last) >= clock[i]);
    }
    CHECK_INT(mj_ulid_time(last), 2000);
}

TEST("the number after all ones in the random part is in the next millisecond")
{
    uint8_t last[16];

    memset(last, 0xff, 16);
    memcpy(last, "\0\0\0\0\x01\xff", 6);
    CHECK_INT(mj_ulid_next(last, 1), MJ_OK);
    CHECK_STR(hex(last, 16), "00000000020000000000000000000000");
}

TEST("after the last ULID of all, and for a time that has no room, there is an error and no change")
{
    uint8_t last[16], full[16], zero[16] = {0};

    memset(full, 0xff, 16);
    memcpy(last, full, 16);
    CHECK_INT(mj_ulid_next(last, 1), MJ_ELIMIT);
    CHECK_MEM(last, full, 16);
    memset(last, 0, 16);
    CHECK_INT(mj_ulid_next(last, -1), MJ_EINVAL);
    CHECK_INT(mj_ulid_next(last, (int64_t)1 << 48), MJ_EINVAL);
    CHECK_MEM(last, zero, 16);
    CHECK_INT(mj_ulid_next(last, ((int64_t)1 << 48) - 1), MJ_OK);
    CHECK_INT(mj_ulid_time(last), ((int64_t)1 << 48) - 1);
}

TEST("ULIDs of two makers in the same millisecond differ")
{
    uint8_t a[16] = {0}, b[16] = {0};

    CHECK_INT(mj_ulid_next(a, 1700000000000), MJ_OK);
    CHECK_INT(mj_ulid_next(b, 1700000000000), MJ_OK);
    CHECK(memcmp(a, b, 6) == 0);
    CHECK(memcmp(a, b, 16) != 0);
}

/* ---- tokens ---- */

TEST("a token is what the documented formula gives")
{
    mj_keyring *k = ring_of(SECRET, NULL);
    char kid[MJ_KID_TEXT + 1], sig[MJ_SIG_TEXT + 1];

    CHECK_INT(mj_token_sign(k, REF, 1, kid, sig), MJ_OK);
    CHECK_STR(kid, "WnMqi32j");
    CHECK_STR(sig, "4pcccX_BpXv2YkZHO2CZbw");
    CHECK_INT(mj_token_sign(k, REF, UINT32_MAX, kid, sig), MJ_OK);
    CHECK_STR(sig, "gkG1jk0KB-SQlsDqsv-YMA");
    mj_keyring_free(k);
}

TEST("a token is good for its task and attempt and for no other")
{
    mj_keyring *k = ring_of(SECRET, NULL), *other = ring_of("another secret, also long", NULL);
    char kid[MJ_KID_TEXT + 1], sig[MJ_SIG_TEXT + 1];

    CHECK_INT(mj_token_sign(k, REF, 12, kid, sig), MJ_OK);
    CHECK(verify(k, REF, 12, kid, sig));
    CHECK(!verify(k, REF, 1, kid, sig));
    CHECK(!verify(k, REF, 2, kid, sig));
    CHECK(!verify(k, REF, 121, kid, sig));
    CHECK(!verify(k, "01ARZ3NDEKTSV4RRFFQ69G5FAW", 12, kid, sig));
    CHECK(!verify(k, "01arz3ndektsv4rrffq69g5fav", 12, kid, sig));
    CHECK(!verify(other, REF, 12, kid, sig));
    mj_keyring_free(k);
    mj_keyring_free(other);
}

TEST("any changed, missing or added character makes a token bad")
{
    mj_keyring *k = ring_of(SECRET, NULL);
    char kid[MJ_KID_TEXT + 1], sig[MJ_SIG_TEXT + 2], c;

    CHECK_INT(mj_token_sign(k, REF, 1, kid, sig), MJ_OK);
    for (int i = 0; i < MJ_SIG_TEXT; i++)
        for (int x = 0; x < 256; x++) {
            c = sig[i];
            sig[i] = (char)x;
            CHECK_INT(mj_token_verify(k, REF, 26, 1, kid, 8, sig, MJ_SIG_TEXT), sig[i] == c ? MJ_OK : MJ_EINVAL);
            sig[i] = c;
        }
    for (int i = 0; i < MJ_KID_TEXT; i++) {
        kid[i] ^= 1;
        CHECK(!verify(k, REF, 1, kid, sig));
        kid[i] ^= 1;
    }
    CHECK_INT(mj_token_verify(k, REF, 25, 1, kid, 8, sig, MJ_SIG_TEXT), MJ_EINVAL);
    CHECK_INT(mj_token_verify(k, REF, 27, 1, kid, 8, sig, MJ_SIG_TEXT), MJ_EINVAL);
    CHECK_INT(mj_token_verify(k, REF, 26, 1, kid, 7, sig, MJ_SIG_TEXT), MJ_EINVAL);
    CHECK_INT(mj_token_verify(k, REF, 26, 1, kid, 8, sig, MJ_SIG_TEXT - 1), MJ_EINVAL);
    CHECK_INT(mj_token_verify(k, REF, 26, 1, kid, 8, sig, MJ_SIG_TEXT + 1), MJ_EINVAL);
    CHECK_INT(mj_token_verify(k, "", 0, 1, "", 0, "", 0), MJ_EINVAL);
    CHECK(verify(k, REF, 1, kid, sig));
    mj_keyring_free(k);
}

TEST("after a rotation the new secret signs and tokens of the old one are still good")
{
    mj_keyring *old = ring_of(SECRET, NULL), *both = ring_of("the new secret of 2026", SECRET);
    char kid[MJ_KID_TEXT + 1], sig[MJ_SIG_TEXT + 1], kid2[MJ_KID_TEXT + 1], sig2[MJ_SIG_TEXT + 1];

    CHECK_INT(mj_token_sign(old, REF, 1, kid, sig), MJ_OK);
    CHECK_INT(mj_token_sign(both, REF, 1, kid2, sig2), MJ_OK);
    CHECK(strcmp(kid, kid2) != 0);
    CHECK(verify(both, REF, 1, kid, sig));
    CHECK(verify(both, REF, 1, kid2, sig2));
    CHECK(!verify(old, REF, 1, kid2, sig2));
    CHECK(!verify(both, REF, 1, kid2, sig)); /* each under its own name only */
    mj_keyring_free(old);
    mj_keyring_free(both);
}

TEST("the same secret twice does no harm")
{
    mj_keyring *k = ring_of(SECRET, SECRET);
    char kid[MJ_KID_TEXT + 1], sig[MJ_SIG_TEXT + 1];

    CHECK_INT(mj_token_sign(k, REF, 1, kid, sig), MJ_OK);
    CHECK(verify(k, REF, 1, kid, sig));
    sig[0] ^= 1;
    CHECK(!verify(k, REF, 1, kid, sig));
    mj_keyring_free(k);
}

TEST("a ring takes 16 secrets of at least 16 bytes, copies them, and signs nothing when empty")
{
    mj_keyring *k = mj_keyring_new();
    char kid[MJ_KID_TEXT + 1], sig[MJ_SIG_TEXT + 1], secret[32];

    CHECK_INT(mj_token_sign(k, REF, 1, kid, sig), MJ_EINVAL);
    CHECK(!verify(k, REF, 1, "WnMqi32j", "4pcccX_BpXv2YkZHO2CZbw"));
    CHECK_INT(mj_keyring_add(k, SECRET, 15), MJ_EINVAL);
    CHECK_INT(mj_keyring_add(k, "", 0), MJ_EINVAL);
    for (int i = 0; i < 16; i++) {
        memset(secret, 'a' + i, sizeof secret);
        CHECK_INT(mj_keyring_add(k, secret, sizeof secret), MJ_OK);
    }
    CHECK_INT(mj_keyring_add(k, SECRET, 32), MJ_ELIMIT);
    memset(secret, 0, sizeof secret);
    CHECK_INT(mj_token_sign(k, REF, 1, kid, sig), MJ_OK);
    CHECK(verify(k, REF, 1, kid, sig));
    mj_keyring_free(k);
    mj_keyring_free(NULL);
}

typedef struct job {
    const mj_keyring *ring;
    int bad;
} job;

static void *sign_and_verify(void *arg)
{
    job *j = arg;
    char kid[MJ_KID_TEXT + 1], sig[MJ_SIG_TEXT + 1], want[MJ_SIG_TEXT + 1] = "4pcccX_BpXv2YkZHO2CZbw";

    for (uint32_t i = 1; i <= 2000; i++) {
        j->bad += mj_token_sign(j->ring, REF, i, kid, sig) != MJ_OK || !verify(j->ring, REF, i, kid, sig);
        j->bad += verify(j->ring, REF, i, kid, want) != (i == 1);
    }
    return NULL;
}

TEST("threads share a ring")
{
    mj_keyring *k = ring_of(SECRET, "the new secret of 2026");
    job jobs[8];
    pthread_t threads[8];

    for (int i = 0; i < 8; i++) {
        jobs[i] = (job){.ring = k};
        CHECK_INT(pthread_create(&threads[i], NULL, sign_and_verify, &jobs[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(jobs[i].bad, 0);
    }
    mj_keyring_free(k);
}

/* ---- hashes ---- */

TEST("SHA-256 and HMAC-SHA256 agree with the published examples")
{
    uint8_t key[131], out[32];

    CHECK_INT(mj_sha256("abc", 3, out), MJ_OK);
    CHECK_STR(hex(out, 32), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK_INT(mj_sha256("", 0, out), MJ_OK);
    CHECK_STR(hex(out, 32), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK_INT(mj_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, out), MJ_OK);
    CHECK_STR(hex(out, 32), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key); /* longer than a block */
    CHECK_INT(mj_hmac_sha256(key, sizeof key, "Test Using Larger Than Block-Size Key - Hash Key First", 54, out),
              MJ_OK);
    CHECK_STR(hex(out, 32), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    CHECK_INT(mj_hmac_sha256(NULL, 0, "", 0, out), MJ_OK);
    CHECK_STR(hex(out, 32), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

/* In pieces of so many bytes. */
static const char *hash_in(const uint8_t *p, size_t n, size_t piece)
{
    mj_hash *h = mj_hash_new();
    uint8_t out[32];

    CHECK(h != NULL);
    for (size_t at = 0; at < n; at += piece)
        CHECK_INT(mj_hash_add(h, p + at, n - at < piece ? n - at : piece), MJ_OK);
    CHECK_INT(mj_hash_end(h, out), MJ_OK);
    return hex(out, 32);
}

TEST("SHA-256 in pieces agrees with the published examples, and with that of the whole, however it is cut")
{
    static uint8_t data[1000000];
    uint8_t out[32];
    char whole[129];

    CHECK_STR(hash_in((const uint8_t *)"", 0, 1), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK_STR(hash_in((const uint8_t *)"abc", 3, 1),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK_STR(hash_in((const uint8_t *)"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, 9),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    memset(data, 'a', sizeof data);
    CHECK_STR(hash_in(data, sizeof data, 777), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    for (size_t i = 0; i < 1000; i++)
        data[i] = (uint8_t)(i * 7);
    for (size_t n = 0; n < 200; n++) { /* around one, two and three blocks of 64 */
        CHECK_INT(mj_sha256(data, n, out), MJ_OK);
        snprintf(whole, sizeof whole, "%s", hex(out, 32));
        for (size_t piece = 1; piece <= 130; piece += piece < 4 || piece > 60 ? 1 : 7)
            CHECK_STR(hash_in(data, n, piece), whole);
    }
}

TEST("two hashes at once do not mix")
{
    mj_hash *a = mj_hash_new(), *b = mj_hash_new();
    uint8_t out[32];

    CHECK(a != NULL && b != NULL);
    CHECK_INT(mj_hash_add(a, "a", 1), MJ_OK);
    CHECK_INT(mj_hash_add(b, "x", 1), MJ_OK);
    CHECK_INT(mj_hash_add(a, "bc", 2), MJ_OK);
    CHECK_INT(mj_hash_add(b, NULL, 0), MJ_OK);
    CHECK_INT(mj_hash_end(a, out), MJ_OK);
    CHECK_STR(hex(out, 32), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK_INT(mj_hash_end(b, out), MJ_OK);
    CHECK_STR(hex(out, 32), "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
}

TEST("base64url has no padding and its own two last digits")
{
    static const struct {
        const char *in, *out;
        size_t n;
    } cases[] = {{"", "", 0},
                 {"f", "Zg", 1},
                 {"fo", "Zm8", 2},
                 {"foo", "Zm9v", 3},
                 {"foobar", "Zm9vYmFy", 6},
                 {"\xfb\xff\xfe", "-__-", 3}};
    char out[16];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_INT(mj_base64url(cases[i].in, cases[i].n, out), strlen(cases[i].out));
        CHECK_STR(out, cases[i].out);
    }
}

TEST("base64 has padding, and comes back from nothing but that")
{
    static const struct {
        const char *in, *out;
        size_t n;
    } cases[] = {{"", "", 0},        {"f", "Zg==", 1},          {"fo", "Zm8=", 2},
                 {"foo", "Zm9v", 3}, {"foobar", "Zm9vYmFy", 6}, {"\xfb\xff\xfe", "+//+", 3}};
    static const char *const bad[] = {"Zg",   "Zg=",  "Z===",  "====", "=",    "Zh==", "Zm9=", "Zm8=Zm8=",
                                      "-__-", "Zm 9", "Zm9\n", "Zg=a", "=m9v", "Z=9v", "Zm9vY"};
    char out[16];
    uint8_t back[16];
    size_t n;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_INT(mj_base64(cases[i].in, cases[i].n, out), strlen(cases[i].out));
        CHECK_STR(out, cases[i].out);
        CHECK_INT(mj_base64_decode(out, strlen(out), back, &n), MJ_OK);
        CHECK_INT(n, cases[i].n);
        CHECK_MEM(back, cases[i].in, n);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_INT(mj_base64_decode(bad[i], strlen(bad[i]), back, &n), MJ_EINVAL);
}

TEST("bytes are equal when all are")
{
    CHECK(mj_equal("abc", "abc", 3));
    CHECK(!mj_equal("abc", "abd", 3));
    CHECK(mj_equal("abc", "abd", 2));
    CHECK(mj_equal("a", "b", 0));
}

static mj_token token_in(const char *uri)
{
    mj_token t;

    mj_token_read(uri, strlen(uri), &t);
    return t;
}

#define REF "01ARZ3NDEKTSV4RRFFQ69G5FAV"
#define KID "abcdefgh"
#define SIG "ABCDEFGHIJKLMNOPQRSTUV"

TEST("a token is found behind whatever query the URL had, and the last kid and sig count")
{
    static const char *const uris[] = {
        "/hook?ref=" REF "&a=2&kid=" KID "&sig=" SIG,
        "/hook?x=1&&y&=&ref=" REF "&a=2&kid=" KID "&sig=" SIG "#fragment&sig=z",
        "/hook?ref=other&a=x&kid=x&sig=y&sig=" SIG "&ref=" REF "&kid=" KID "&a=2",
        "https://app.example/hook?sig=" SIG "&kid=%61bcdefg%68&a=2&ref=%30%31ARZ3NDEKTSV4RRFFQ69G5FAV",
    };

    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        mj_token t = token_in(uris[i]);
        CHECK(t.present);
        CHECK_INT(t.nattempts, 1);
        CHECK_INT(t.attempts[0], 2);
        CHECK_INT(t.nrefs, 1);
        CHECK_STR(t.refs[0], REF);
        CHECK_STR(t.kid, KID);
        CHECK_STR(t.sig, SIG);
    }
}

TEST("parts of a token that can't be right are empty or missing")
{
    static const char *const attempts[] = {"", "x", "1x", "-1", "1000", "+1"};
    char uri[9000];
    mj_token t = token_in("/hook?ref=" REF "x&kid=" KID "%00&sig=" SIG "%4&a=1");

    CHECK(t.present);
    CHECK_INT(t.nrefs, 0);
    CHECK_STR(t.kid, "");
    CHECK_STR(t.sig, "");
    for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
        snprintf(uri, sizeof uri, "/hook?a=%s", attempts[i]);
        t = token_in(uri);
        CHECK_INT(t.nattempts, 0);
        CHECK(!t.present);
    }
    CHECK_STR(token_in("/hook?sig=" SIG "%").sig, "");
    CHECK_STR(token_in("/hook?kid=abcdefg%").kid, "abcdefg%"); /* no escape: eight characters as they are */
    CHECK(!token_in("").present);
    CHECK(!token_in("?").present);
    CHECK(!token_in("/hook&kid=" KID "&sig=" SIG).present); /* no query */
    memset(uri, 'x', sizeof uri);
    memcpy(uri, "/hook?", 6);
    memcpy(uri + sizeof uri - 14, "&kid=" KID, 14); /* with its NUL */
    CHECK(!token_in(uri).present);                  /* longer than any URL of ours */
}

#undef SIG
#define SIG "4pcccX_BpXv2YkZHO2CZbw"
#undef KID
#define KID "WnMqi32j"

TEST("a token verifies however software on the way has dressed the URL")
{
    static const char *const uris[] = {
        "/hook?ref=" REF "&amp;a=1&amp;kid=" KID "&amp;sig=" SIG,
        "/hook?ref=" REF "&amp;amp;a=1&AMP;kid=" KID "&#38;sig=" SIG,
        "/hook?ref=" REF "&#x26;a=1&#X26;kid=" KID "\\u0026sig=" SIG,
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG "?taskId=x&status=1",
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG "?ref=" REF "&a=1&kid=" KID "&sig=" SIG,
        "/hook?ref%3D" REF "%26a%3d1%26kid%3D" KID "%26sig%3D" SIG,
        "/hook%3Fref=" REF "&a=1&kid=" KID "&sig=" SIG,
        "/hook?ref%253D" REF "%2526a%253D1%2526kid=" KID "&sig=" SIG,
        "/hook?ref=" REF "%26amp%3Ba=%31&kid=" KID "&sig=%34pcccX%5FBpXv2YkZHO2CZbw",
        "/hook?ref=" REF ";a=1;kid=" KID ";sig=" SIG,
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG "%20",
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG "+%0D%0A",
        "\"/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG "\"",
        "/hook?%22ref=" REF "&a=1&kid=" KID "&sig=" SIG "%22",
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG "&ref=theirs&a=7",
        "/hook?ref=01BX5ZZKBKACTAV9WEVGEMMVRZ&a=3&ref=" REF "&a=1&kid=" KID "&sig=" SIG "&ref=&a=99",
        "/hook?sig=" SIG "&kid=" KID "&a=1&ref=" REF,
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG "#top",
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG "%23top",
        "/hook?ref=" REF "&ref=" REF "&a=1&a=1&kid=" KID "&kid=" KID "&sig=" SIG "&sig=" SIG,
    };
    mj_keyring *k = ring_of("a second secret, as after a rotation", SECRET);
    const char *ref = NULL;
    uint32_t attempt = 0;

    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        mj_token t = token_in(uris[i]);
        CHECK_INT(mj_token_check(k, &t, &ref, &attempt), MJ_OK);
        CHECK_STR(ref, REF);
        CHECK_INT(attempt, 1);
    }
    mj_keyring_free(k);
}

TEST("a token that was made for something else does not verify, whatever stands beside it")
{
    static const char *const uris[] = {
        "/hook?ref=" REF "&a=2&kid=" KID "&sig=" SIG,
        "/hook?ref=01BX5ZZKBKACTAV9WEVGEMMVRZ&a=1&kid=" KID "&sig=" SIG,
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG "x",
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG "&sig=x",
        "/hook?ref=" REF "&a=1&kid=" KID "x&sig=" SIG,
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=",
        "/hook?ref=" REF "&a=1&kid=" KID,
        "/hook?ref=" REF "&a=1&sig=" SIG,
        "/hook?ref=" REF "&a=1&kid=" KID "&sig=4PCCCX_BPXV2YKZHO2CZBW",
        "/hook?ref=01arz3ndektsv4rrffq69g5fav&a=1&kid=" KID "&sig=" SIG,
        "/hook#ref=" REF "&a=1&kid=" KID "&sig=" SIG,
        "/hook?ref=" REF "%00&a=1&kid=" KID "&sig=" SIG,
        /* More of a name than anybody tries: the first that fit, and the last. */
        "/hook?a=1&a=2&a=3&a=4&a=5&ref=" REF "&kid=" KID "&sig=" SIG,
    };
    mj_keyring *k = ring_of(SECRET, NULL), *none = mj_keyring_new();
    const char *ref = NULL;
    uint32_t attempt = 0;
    mj_token t;

    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        t = token_in(uris[i]);
        CHECK_INT(mj_token_check(k, &t, &ref, &attempt), MJ_EINVAL);
    }
    t = token_in("/hook?ref=" REF "&a=1&kid=" KID "&sig=" SIG);
    CHECK_INT(mj_token_check(none, &t, &ref, &attempt), MJ_EINVAL);
    mj_keyring_free(k);
    mj_keyring_free(none);
}
