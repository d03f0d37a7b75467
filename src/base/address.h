/* mj_addr: IP addresses: read from text, compared with ranges, judged.  Pure.
 *
 * A public address is one on the internet.  Any other can be this machine, its network or a cloud's metadata service.
 * Not public is all of the IANA special-purpose registries, also their few entries that are globally reachable
 * (anycast relays, AS112: no server of images is there), and every IPv6 address that carries an IPv4 address.  Of
 * IPv6, only global unicast (2000::/3) can be public. */
#ifndef MJ_ADDR_H
#define MJ_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct mj_addr {
    unsigned n;        /* bytes: 4 or 16 */
    uint8_t bytes[16]; /* in network order */
} mj_addr;

/* Reads "192.0.2.1" or "2001:db8::1".  "::ffff:192.0.2.1" gives 192.0.2.1: a listener on both families sees IPv4
 * callers like that. */
bool mj_addr_parse(const char *text, mj_addr *out);
/* The address of a socket, unchanged.  False: another family, or n is too short for the family. */
bool mj_addr_of(const struct sockaddr *a, size_t n, mj_addr *out);

typedef struct mj_addr_range {
    mj_addr from;
    unsigned bits; /* of the prefix */
} mj_addr_range;

/* Reads "192.0.2.0/24", or an address alone. */
bool mj_addr_range_parse(const char *text, mj_addr_range *out);
bool mj_addr_within(const mj_addr *a, const mj_addr_range *range);

bool mj_addr_public(const mj_addr *a);
/* 127.0.0.0/8 and ::1. */
bool mj_addr_loopback(const mj_addr *a);

#endif
