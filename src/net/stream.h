/* mj_stream: a connection, plain or TLS, to a server that does not speak HTTP.
 *
 * It uses libcurl's connections; the header shows none of it.  One thread at a time uses an mj_stream.  No proxies, no
 * signals, TLS verified; programs that this process starts do not inherit it.  Deadlines are CLOCK_BOOTTIME
 * milliseconds (mj_http_clock).
 *
 * It is for mjhook.handlers.redis.  hiredis is no replacement: Debian 12 has 0.14, which knows no TLS, and a password
 * must not leave this machine without it.  libcurl is linked anyway.
 *
 * After a fork the child's copy is closed: its bytes would disturb the parent's conversation. */
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
    const char *cert_file, *key_file; /* PEM, for servers that want a client certificate; NULL: none */
} mj_stream_target;

/* Connects, including the TLS handshake.  On failure *out is NULL and why[] says "host:port: what".  MJ_EINVAL: no
 * possible host or port; MJ_ENOMEM; MJ_EIO: not connected in time. */
int mj_stream_open(const mj_stream_target *t, int64_t deadline_ms, mj_stream **out, char why[MJ_STREAM_WHY]);
/* Sends all n bytes.  MJ_EIO: the connection broke or the time was up; the server may have some or all of them, and
 * only mj_stream_close is of use then.  MJ_ECLOSED: a fork's copy. */
int mj_stream_send(mj_stream *s, const void *data, size_t n, int64_t deadline_ms);
/* Receives at most cap bytes; waits for the first.  *got is 0 when nothing came in time (bytes that are there already
 * are given even then).  MJ_ECLOSED: the server closed it, or a fork's copy; MJ_EIO: it broke. */
int mj_stream_recv(mj_stream *s, void *data, size_t cap, int64_t deadline_ms, size_t *got);
/* Why the last call failed, "host:port: what". */
const char *mj_stream_why(const mj_stream *s);
void mj_stream_close(mj_stream *s); /* NULL is fine */

#endif
