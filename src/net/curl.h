/* mj_curl: what the clients of libcurl have in common.  For mj_http, mj_stream and mj_fetch only. */
#ifndef MJ_CURL_H
#define MJ_CURL_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CURLOPT_QUICK_EXIT; and its TLS writes raise SIGPIPE before that. */
_Static_assert(LIBCURL_VERSION_NUM >= 0x075700, "mjhook needs libcurl 7.87 or newer");

/* Makes libcurl ready, once in a process, from any thread.  False: there is no memory for it.  Takes no SSLKEYLOGFILE
 * from the environment: libcurl would write the keys of all connections to that file. */
bool mj_curl_ready(void);

/* A new handle with the options that hold for every transfer, NULL: out of memory.  TLS 1.2 at least, whatever
 * OpenSSL's own configuration allows, and verified unless `insecure`; of HTTP, version 1.1, no redirects, and chunked
 * bodies as they come; no proxy, cookie or password of the environment's or the user's; no signals; sockets that
 * programs this process starts do not inherit.  `ca_file`: certificates to trust instead of the system's; NULL: the
 * system's.
 *
 * Each transfer takes a handle of its own: libcurl 7.88 keeps pointers to the header of a handle's last answer, and a
 * folded line at the beginning of the next one writes to what they point to.  Connections belong to the multi handle.
 */
CURL *mj_curl_new(const char *ca_file, bool insecure);

/* The value of a Retry-After header: seconds, with a fraction (rounded up) or without, or a date; 0..86400.  -1: it is
 * neither. */
int64_t mj_curl_retry_after(const char *value, size_t n);

/* Makes a text printable on one line, in place. */
void mj_curl_printable(char *text);

#endif
