/* mj_addr: what of the address space is the public internet.  The ranges are written down here once more, as text with
 * their first and last address, from the IANA special-purpose registries; the neighbours are inet_pton's business. */
#include "base/address.h"
#include "mj_test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

static bool is_public(const uint8_t *bytes, unsigned n)
{
    mj_addr a = {.n = n};

    memcpy(a.bytes, bytes, n);
    return mj_addr_public(&a);
}

static bool public4(const char *text)
{
    struct in_addr a;

    CHECK_INT(inet_pton(AF_INET, text, &a), 1);
    return is_public((const uint8_t *)&a, 4);
}

static bool public6(const char *text)
{
    struct in6_addr a;

    CHECK_INT(inet_pton(AF_INET6, text, &a), 1);
    return is_public(a.s6_addr, 16);
}

/* The address one after or before; false at the ends of the space. */
static bool step(uint8_t *a, size_t n, int by)
{
    for (size_t i = n; i-- > 0;) {
        a[i] = (uint8_t)(a[i] + by);
        if (a[i] != (by > 0 ? 0x00 : 0xff))
            return true;
    }
    return false;
}

static void want(bool got, bool wanted, const char *what, const char *range)
{
    if (got != wanted)
        MJ_TEST_FAIL("%s of %s is %s", what, range, got ? "public" : "refused");
}

typedef struct range {
    const char *first, *last;
    bool below, above; /* whether the neighbours are public */
} range;

static void check_range(int family, const range *r)
{
    unsigned n = family == AF_INET ? 4 : 16;
    uint8_t first[16], last[16], middle[16];
    char name[120];

    snprintf(name, sizeof name, "%s-%s", r->first, r->last);
    CHECK_INT(inet_pton(family, r->first, first), 1);
    CHECK_INT(inet_pton(family, r->last, last), 1);
    want(is_public(first, n), false, "the first", name);
    want(is_public(last, n), false, "the last", name);
    memcpy(middle, first, n);
    step(middle, n, 1);
    want(is_public(middle, n), false, "the second", name);
    for (size_t i = 0; i < n; i++) /* one that has a bit of both */
        middle[i] = i < n / 2 ? last[i] : first[i];
    want(is_public(middle, n), false, "one in the middle", name);
    if (step(first, n, -1))
        want(is_public(first, n), r->below, "the one before the first", name);
    if (step(last, n, 1))
        want(is_public(last, n), r->above, "the one after the last", name);
}

TEST("every special range of IPv4 is refused from its first to its last address, and its neighbours are not")
{
    static const range ranges[] = {
        {"0.0.0.0", "0.255.255.255", false, true},      {"10.0.0.0", "10.255.255.255", true, true},
        {"100.64.0.0", "100.127.255.255", true, true},  {"127.0.0.0", "127.255.255.255", true, true},
        {"169.254.0.0", "169.254.255.255", true, true}, {"172.16.0.0", "172.31.255.255", true, true},
        {"192.0.0.0", "192.0.0.255", true, true},       {"192.0.2.0", "192.0.2.255", true, true},
        {"192.31.196.0", "192.31.196.255", true, true}, {"192.52.193.0", "192.52.193.255", true, true},
        {"192.88.99.0", "192.88.99.255", true, true},   {"192.168.0.0", "192.168.255.255", true, true},
        {"192.175.48.0", "192.175.48.255", true, true}, {"198.18.0.0", "198.19.255.255", true, true},
        {"198.51.100.0", "198.51.100.255", true, true}, {"203.0.113.0", "203.0.113.255", true, true},
        {"224.0.0.0", "239.255.255.255", true, false},  {"240.0.0.0", "255.255.255.255", false, false},
    };

    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        check_range(AF_INET, &ranges[i]);
}

TEST("every special range within global unicast is refused from its first to its last address, its neighbours are not")
{
    static const range ranges[] = {
        {"2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", true, true},
        {"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true, true},
        {"2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true, true},
        {"2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", true, true},
        {"3ffe::", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true, false},
        {"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", false, true},
    };

    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        check_range(AF_INET6, &ranges[i]);
}

TEST("all that is no global unicast of IPv6 is refused")
{
    static const range below = {"::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, true};
    static const range above = {"4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true, false};

    check_range(AF_INET6, &below);
    check_range(AF_INET6, &above);
    for (int first = 0; first < 256; first++) {
        uint8_t a[16] = {(uint8_t)first, 0x99, 0x99};
        CHECK(is_public(a, 16) == (first >= 0x20 && first <= 0x3f));
    }
}

TEST("addresses of IPv6 that carry one of IPv4 are refused, whichever that is")
{
    static const char *const refused[] = {
        "::8.8.8.8",      /* v4-compatible */
        "::ffff:8.8.8.8", /* v4-mapped */
        "::ffff:127.0.0.1",
        "::ffff:0:8.8.8.8", /* v4-translated */
        "64:ff9b::8.8.8.8", /* NAT64 */
        "64:ff9b::169.254.169.254",
        "64:ff9b::ffff:ffff:ffff:ffff",
        "64:ff9b:1::", /* NAT64 of a network's own */
        "64:ff9b:1:ffff:ffff:ffff:a00:1",
        "2002:7f00:1::",                       /* 6to4 of 127.0.0.1 */
        "2002:808:808::1",                     /* 6to4 of 8.8.8.8 */
        "2001:0:4136:e378:8000:63bf:f5ff:fffe" /* Teredo */
    };

    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        want(public6(refused[i]), false, "one", refused[i]);
}

TEST("well-known addresses that belong to no server of images are refused")
{
    static const char *const v4[] = {"0.0.0.0",         "127.0.0.1",   "127.0.0.53",  "169.254.169.254",
                                     "100.100.100.200", "192.168.1.1", "172.17.0.1",  "192.0.0.192",
                                     "255.255.255.255", "224.0.0.251", "192.0.0.170", "198.18.0.1"};
    static const char *const v6[] = {
        "::",          "::1",           "fe80::1",   "febf::1",    "fec0::1",      "fc00::1",
        "fd00::1",     "fd00:ec2::254", "ff02::1",   "ff0e::1",    "100::1",       "5f00::1",
        "2001:db8::1", "2001:2::1",     "2001:10::", "2001:20::1", "2001:4:112::1"};

    for (size_t i = 0; i < sizeof v4 / sizeof v4[0]; i++)
        want(public4(v4[i]), false, "one", v4[i]);
    for (size_t i = 0; i < sizeof v6 / sizeof v6[0]; i++)
        want(public6(v6[i]), false, "one", v6[i]);
}

TEST("servers of the public internet are not refused")
{
    static const char *const v4[] = {"1.0.0.0",    "1.1.1.1",    "8.8.8.8",    "93.184.216.34", "100.63.255.255",
                                     "104.16.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1",     "223.255.255.255"};
    static const char *const v6[] = {"2606:4700::6810:1",
                                     "2a00:1450:4001:80b::200e",
                                     "2001:4860:4860::8888",
                                     "2001:200::1",
                                     "2400:cb00::1",
                                     "2620:4f:7fff::1",
                                     "2003::1",
                                     "3fff:1000::1"};

    for (size_t i = 0; i < sizeof v4 / sizeof v4[0]; i++)
        want(public4(v4[i]), true, "one", v4[i]);
    for (size_t i = 0; i < sizeof v6 / sizeof v6[0]; i++)
        want(public6(v6[i]), true, "one", v6[i]);
}

/* ---- socket addresses ---- */

static struct sockaddr_storage addr4(const char *text, uint16_t port)
{
    struct sockaddr_storage s = {0};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

    CHECK_INT(inet_pton(AF_INET, text, &a.sin_addr), 1);
    memcpy(&s, &a, sizeof a);
    return s;
}

static struct sockaddr_storage addr6(const char *text, uint16_t port, uint32_t scope)
{
    struct sockaddr_storage s = {0};
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_scope_id = scope};

    CHECK_INT(inet_pton(AF_INET6, text, &a.sin6_addr), 1);
    memcpy(&s, &a, sizeof a);
    return s;
}

static bool socket_public(const void *s, size_t n)
{
    mj_addr a;

    return mj_addr_of(s, n, &a) && mj_addr_public(&a);
}

static bool is_loopback(const void *s, size_t n)
{
    mj_addr a;

    return mj_addr_of(s, n, &a) && mj_addr_loopback(&a);
}

TEST("a socket address is judged by its own family's bytes")
{
    struct sockaddr_storage s = addr4("8.8.8.8", 443);

    CHECK(socket_public(&s, sizeof(struct sockaddr_in)));
    CHECK(socket_public(&s, sizeof s));
    s = addr4("127.0.0.1", 65535);
    CHECK(!socket_public(&s, sizeof(struct sockaddr_in)));
    s = addr6("2606:4700::1", 8443, 0);
    CHECK(socket_public(&s, sizeof(struct sockaddr_in6)));
    s = addr6("::1", 0, 0);
    CHECK(!socket_public(&s, sizeof(struct sockaddr_in6)));
    s = addr6("fe80::1", 443, 2);
    CHECK(!socket_public(&s, sizeof(struct sockaddr_in6)));
    s = addr6("::ffff:8.8.8.8", 443, 0);
    CHECK(!socket_public(&s, sizeof(struct sockaddr_in6)));
}

TEST("loopback is 127.0.0.0/8 and ::1, and nothing else")
{
    static const struct {
        const char *text;
        bool want;
    } cases[] = {{"127.0.0.1", true},
                 {"127.255.255.255", true},
                 {"126.255.255.255", false},
                 {"128.0.0.0", false},
                 {"0.0.0.0", false},
                 {"10.0.0.1", false},
                 {"8.8.8.8", false},
                 {"::1", true},
                 {"::", false},
                 {"::2", false},
                 {"1::1", false},
                 {"::1:0:0:1", false},
                 {"::ffff:127.0.0.1", false},
                 {"fe80::1", false},
                 {"2606:4700::1", false}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *text = cases[i].text;
        struct sockaddr_storage s = strchr(text, ':') ? addr6(text, 80, 0) : addr4(text, 80);
        if (is_loopback(&s, sizeof s) != cases[i].want)
            MJ_TEST_FAIL("%s", text);
    }
}

TEST("a socket address that is too short for its family is refused")
{
    struct sockaddr_storage s4 = addr4("8.8.8.8", 443), s6 = addr6("2606:4700::1", 443, 0);

    for (size_t n = 0; n < sizeof(struct sockaddr_in); n++) {
        struct sockaddr *cut = malloc(n ? n : 1); /* where a sanitizer sees what is read beyond it */
        CHECK(cut != NULL);
        memcpy(cut, &s4, n);
        CHECK(!socket_public(cut, n));
        CHECK(!is_loopback(cut, n));
        free(cut);
    }
    for (size_t n = 0; n < sizeof(struct sockaddr_in6); n++) {
        struct sockaddr *cut = malloc(n ? n : 1);
        CHECK(cut != NULL);
        memcpy(cut, &s6, n);
        CHECK(!socket_public(cut, n));
        CHECK(!is_loopback(cut, n));
        free(cut);
    }
}

TEST("socket addresses of other families are refused")
{
    static const int families[] = {AF_UNSPEC, AF_UNIX, AF_PACKET, AF_NETLINK, AF_VSOCK, 255};
    struct sockaddr_storage s = addr4("8.8.8.8", 443);

    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        s.ss_family = (sa_family_t)families[i];
        CHECK(!socket_public(&s, sizeof s));
        CHECK(!is_loopback(&s, sizeof s));
    }
}

TEST("an address that lies at an odd place is read as well")
{
    struct sockaddr_storage s = addr6("2606:4700::1", 443, 0);
    char bytes[sizeof s + 2]; /* sa_family_t wants two */

    memcpy(bytes + 2, &s, sizeof s);
    CHECK(socket_public(bytes + 2, sizeof s));
}

TEST("addresses and ranges are read strictly, and a mapped one is the one that it carries")
{
    static const char *const none[] = {"",           "1.2.3",      "01.2.3.4", "1.2.3.4 ", " 1.2.3.4", "1.2.3.256",
                                       "0x7f.0.0.1", "fe80::1%lo", "[::1]",    "1::2::3",  "12345::",  "::1.2.3.4:1"};
    static const char *const no_range[] = {
        "/8",         "1.2.3.4/",    "1.2.3.4/33", "1.2.3.4/8x",     "1.2.3.4/-1",
        "1.2.3.4/+1", "1.2.3.4/8/8", "::1/129",    "::1/4294967297", "::ffff:1.2.3.4/33"};
    mj_addr a;
    mj_addr_range r;

    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        if (mj_addr_parse(none[i], &a))
            MJ_TEST_FAIL("\"%s\"", none[i]);
    for (size_t i = 0; i < sizeof no_range / sizeof no_range[0]; i++)
        if (mj_addr_range_parse(no_range[i], &r))
            MJ_TEST_FAIL("\"%s\"", no_range[i]);
    CHECK(mj_addr_parse("::ffff:192.0.2.7", &a));
    CHECK_INT(a.n, 4);
    CHECK(mj_addr_range_parse("192.0.2.0/29", &r) && mj_addr_within(&a, &r));
    CHECK(mj_addr_range_parse("192.0.2.0/30", &r) && !mj_addr_within(&a, &r));
    CHECK(mj_addr_range_parse("0.0.0.0/0", &r) && mj_addr_within(&a, &r));
    CHECK(mj_addr_range_parse("::/0", &r) && !mj_addr_within(&a, &r));
}
