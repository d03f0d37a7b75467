#include "base/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

/* https://www.iana.org/assignments/iana-ipv4-special-registry, and multicast. */
static const mj_addr_range special4[] = {
    {{4, {0}}, 8},             /* "this network" */
    {{4, {10}}, 8},            /* private */
    {{4, {100, 64}}, 10},      /* shared: carrier-grade NAT */
    {{4, {127}}, 8},           /* loopback */
    {{4, {169, 254}}, 16},     /* link-local, and clouds' metadata */
    {{4, {172, 16}}, 12},      /* private */
    {{4, {192, 0, 0}}, 24},    /* protocol assignments */
    {{4, {192, 0, 2}}, 24},    /* documentation */
    {{4, {192, 31, 196}}, 24}, /* AS112 */
    {{4, {192, 52, 193}}, 24}, /* AMT relays */
    {{4, {192, 88, 99}}, 24},  /* 6to4 relays */
    {{4, {192, 168}}, 16},     /* private */
    {{4, {192, 175, 48}}, 24}, /* AS112 */
    {{4, {198, 18}}, 15},      /* benchmarks */
    {{4, {198, 51, 100}}, 24}, /* documentation */
    {{4, {203, 0, 113}}, 24},  /* documentation */
    {{4, {224}}, 4},           /* multicast */
    {{4, {240}}, 4},           /* reserved, and the broadcast address */
};

/* https://www.iana.org/assignments/iana-ipv6-special-registry: what of it is in 2000::/3.  The rest of it, among that
 * loopback, v4-mapped, NAT64, unique-local, link-local and multicast, is outside. */
static const mj_addr_range special6[] = {
    {{16, {0x20, 0x01}}, 23},             /* protocol assignments: Teredo, benchmarks, ORCHID, AMT, AS112, drones */
    {{16, {0x20, 0x01, 0x0d, 0xb8}}, 32}, /* documentation */
    {{16, {0x20, 0x02}}, 16},             /* 6to4 */
    {{16, {0x26, 0x20, 0x00, 0x4f, 0x80, 0x00}}, 48}, /* AS112 */
    {{16, {0x3f, 0xfe}}, 16},                         /* 6bone, given back */
    {{16, {0x3f, 0xff}}, 20},                         /* documentation */
};

static const mj_addr_range global6 = {{16, {0x20}}, 3};

bool mj_addr_within(const mj_addr *a, const mj_addr_range *r)
{
    size_t whole = r->bits / 8, rest = r->bits % 8;
    uint8_t mask = (uint8_t)(0xff << (8 - rest));

    return a->n == r->from.n && memcmp(a->bytes, r->from.bytes, whole) == 0 &&
           (rest == 0 || ((a->bytes[whole] ^ r->from.bytes[whole]) & mask) == 0);
}

static bool within_any(const mj_addr *a, const mj_addr_range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (mj_addr_within(a, &ranges[i]))
            return true;
    return false;
}

bool mj_addr_public(const mj_addr *a)
{
    if (a->n == 4)
        return !within_any(a, special4, sizeof special4 / sizeof special4[0]);
    return mj_addr_within(a, &global6) && !within_any(a, special6, sizeof special6 / sizeof special6[0]);
}

bool mj_addr_loopback(const mj_addr *a)
{
    static const mj_addr_range ranges[] = {{{4, {127}}, 8}, {{16, {[15] = 1}}, 128}};

    return within_any(a, ranges, sizeof ranges / sizeof ranges[0]);
}

bool mj_addr_of(const struct sockaddr *a, size_t n, mj_addr *out)
{
    const uint8_t *p = (const uint8_t *)a;

    if (n >= sizeof(struct sockaddr_in) && a->sa_family == AF_INET) {
        out->n = 4;
        p += offsetof(struct sockaddr_in, sin_addr);
    } else if (n >= sizeof(struct sockaddr_in6) && a->sa_family == AF_INET6) {
        out->n = 16;
        p += offsetof(struct sockaddr_in6, sin6_addr);
    } else {
        return false;
    }
    memcpy(out->bytes, p, out->n);
    return true;
}

bool mj_addr_parse(const char *text, mj_addr *out)
{
    static const mj_addr_range mapped = {{16, {[10] = 0xff, [11] = 0xff}}, 96};

    *out = (mj_addr){4, {0}};
    if (inet_pton(AF_INET, text, out->bytes) == 1)
        return true;
    out->n = 16;
    if (inet_pton(AF_INET6, text, out->bytes) != 1)
        return false;
    if (mj_addr_within(out, &mapped)) {
        out->n = 4;
        memmove(out->bytes, out->bytes + 12, 4);
    }
    return true;
}

bool mj_addr_range_parse(const char *text, mj_addr_range *out)
{
    char address[64];
    size_t n = strcspn(text, "/");
    const char *p = text + n;

    if (n >= sizeof address)
        return false;
    memcpy(address, text, n);
    address[n] = '\0';
    if (!mj_addr_parse(address, &out->from))
        return false;
    out->bits = 8 * out->from.n;
    if (!*p)
        return true;
    out->bits = 0;
    while (*++p >= '0' && *p <= '9' && out->bits <= 128)
        out->bits = out->bits * 10 + (unsigned)(*p - '0');
    return p > text + n + 1 && !*p && out->bits <= 8 * out->from.n;
}
