/* mj_addr: is an address on the public internet?
 *
 * For connections to where a URL from outside points: anything else could be
 * this machine, its network or a cloud's metadata service.  Everything in the
 * IANA special-purpose registries is refused, also the few entries that are
 * globally reachable (anycast relays, AS112: no server of images is there), and
 * so is every IPv6 address that carries an IPv4 address in it, whatever that
 * is.  Of IPv6, what is not global unicast (2000::/3) is refused as a whole.
 *
 * Pure. */
#ifndef MJ_ADDR_H
#define MJ_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* Bytes in network order. */
bool mj_addr_public4(const uint8_t a[4]);
bool mj_addr_public6(const uint8_t a[16]);
/* False also for other families, and when n is too short for the family. */
bool mj_addr_public(const struct sockaddr *a, size_t n);
/* 127.0.0.0/8 and ::1. */
bool mj_addr_loopback(const struct sockaddr *a, size_t n);

#endif
