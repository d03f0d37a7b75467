#include "download/address.h"

#include <netinet/in.h>
#include <string.h>

typedef struct range {
    uint8_t bits; /* of the prefix */
    uint8_t prefix[16];
} range;

/* https://www.iana.org/assignments/iana-ipv4-special-registry, and multicast. */
static const range special4[] = {
    {8, {0}},             /* "this network" */
    {8, {10}},            /* private */
    {10, {100, 64}},      /* shared: carrier-grade NAT */
    {8, {127}},           /* loopback */
    {16, {169, 254}},     /* link-local, and clouds' metadata */
    {12, {172, 16}},      /* private */
    {24, {192, 0, 0}},    /* protocol assignments */
    {24, {192, 0, 2}},    /* documentation */
    {24, {192, 31, 196}}, /* AS112 */
    {24, {192, 52, 193}}, /* AMT relays */
    {24, {192, 88, 99}},  /* 6to4 relays */
    {16, {192, 168}},     /* private */
    {24, {192, 175, 48}}, /* AS112 */
    {15, {198, 18}},      /* benchmarks */
    {24, {198, 51, 100}}, /* documentation */
    {24, {203, 0, 113}},  /* documentation */
    {4, {224}},           /* multicast */
    {4, {240}},           /* reserved, and the broadcast address */
};

/* https://www.iana.org/assignments/iana-ipv6-special-registry: what of it is in 2000::/3.  The rest of it, among that
 * loopback, v4-mapped, NAT64, unique-local, link-local and multicast, is outside. */
static const range special6[] = {
    {23, {0x20, 0x01}},             /* protocol assignments: Teredo, benchmarks, ORCHID, AMT, AS112, drones */
    {32, {0x20, 0x01, 0x0d, 0xb8}}, /* documentation */
    {16, {0x20, 0x02}},             /* 6to4 */
    {48, {0x26, 0x20, 0x00, 0x4f, 0x80, 0x00}}, /* AS112 */
    {16, {0x3f, 0xfe}},                         /* 6bone, given back */
    {20, {0x3f, 0xff}},                         /* documentation */
};

static const range global6 = {3, {0x20}};

static bool within(const uint8_t *a, const range *r)
{
    size_t whole = r->bits / 8, rest = r->bits % 8;
    uint8_t mask = (uint8_t)(0xff << (8 - rest));

    return memcmp(a, r->prefix, whole) == 0 && (rest == 0 || ((a[whole] ^ r->prefix[whole]) & mask) == 0);
}

static bool special(const uint8_t *a, const range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (within(a, &ranges[i]))
            return true;
    return false;
}

bool mj_addr_public4(const uint8_t a[4])
{
    return !special(a, special4, sizeof special4 / sizeof special4[0]);
}

bool mj_addr_public6(const uint8_t a[16])
{
    return within(a, &global6) && !special(a, special6, sizeof special6 / sizeof special6[0]);
}

/* The address in network order, 4 or 16 bytes; NULL: it is none. */
static const uint8_t *bytes_of(const struct sockaddr *a, size_t n, size_t *len)
{
    if (n >= sizeof(struct sockaddr_in) && a->sa_family == AF_INET) {
        *len = 4;
        return (const uint8_t *)a + offsetof(struct sockaddr_in, sin_addr);
    }
    if (n >= sizeof(struct sockaddr_in6) && a->sa_family == AF_INET6) {
        *len = 16;
        return (const uint8_t *)a + offsetof(struct sockaddr_in6, sin6_addr);
    }
    return NULL;
}

bool mj_addr_public(const struct sockaddr *a, size_t n)
{
    size_t len;
    const uint8_t *p = bytes_of(a, n, &len);

    return p && (len == 4 ? mj_addr_public4(p) : mj_addr_public6(p));
}

bool mj_addr_loopback(const struct sockaddr *a, size_t n)
{
    static const uint8_t one[16] = {[15] = 1};
    size_t len;
    const uint8_t *p = bytes_of(a, n, &len);

    return p && (len == 4 ? p[0] == 127 : memcmp(p, one, sizeof one) == 0);
}
