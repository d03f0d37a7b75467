/* mj_stream: a connection to a server that speaks no HTTP, plain or TLS.
 *
 * libcurl's connections and nothing but; the header shows none of it.  One
 * mj_stream is used by one thread at a time.  No proxies, no signals, TLS
 * verified; not left open in the programs that this process starts.  Deadlines
 * are CLOCK_BOOTTIME milliseconds (mj_http_clock).
 *
 * It is for mjhook.handlers.redis.  hiredis is no replacement: the one of Debian 12 (0.14) knows no TLS, and a password
 * must not leave this machine without it.  libcurl is linked anyway.
 *
 * After a fork the child's copy is closed: what it would send belongs to the
 * parent's conversation. */
#ifndef MJ_STREAM_H
#define MJ_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MJ_STREAM_WHY 192 /* bytes of a text that says what failed */

typedef struct mj_stream mj_stream;

typedef struct mj_stream_target {
    const char *host; /* name or address, IPv6 without brackets */
    int port;
    bool tls;
    const char *ca_file;              /* certificates to trust instead of the system's; NULL: the system's */
    const char *cert_file, *key_file; /* PEM, for servers that ask who we are; NULL: none */
} mj_stream_target;

/* Connects, with the handshake of TLS; *out is NULL on failure and why[] says "host:port: what".
 * MJ_EINVAL: no host or port that could be; MJ_ENOMEM; MJ_EIO: not connected by then. */
int mj_stream_open(const mj_stream_target *t, int64_t deadline_ms, mj_stream **out, char why[MJ_STREAM_WHY]);
/* Sends all n bytes.  MJ_EIO: the connection broke or the time was up, and the other side may have a part or all of
 * them; it is good for nothing then but mj_stream_close.  MJ_ECLOSED: a fork's copy. */
int mj_stream_send(mj_stream *s, const void *data, size_t n, int64_t deadline_ms);
/* What has arrived, at most cap bytes; waits for the first.  *got is 0 when nothing came by then (what is there already
 * is given also when the time is up).  MJ_ECLOSED: the other side ended it, or a fork's copy; MJ_EIO: it broke. */
int mj_stream_recv(mj_stream *s, void *data, size_t cap, int64_t deadline_ms, size_t *got);
/* Why the last call failed, "host:port: what". */
const char *mj_stream_why(const mj_stream *s);
void mj_stream_close(mj_stream *s); /* NULL is fine */

#endif
