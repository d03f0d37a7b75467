/* mj_curl: what all transfers have in common.  For mj_http, mj_stream and mj_fetch only: the one set-up of a transfer.
 */
#ifndef MJ_CURL_H
#define MJ_CURL_H

#include "net/library.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* For CURLOPT_QUICK_EXIT; and older versions raise SIGPIPE when they write TLS. */
_Static_assert(LIBCURL_VERSION_NUM >= 0x075700, "mjhook needs libcurl 7.87 or newer");

/* Makes libcurl ready, once in a process, from any thread.  False: no memory, or libcurl is not loaded.  Ignores the
 * environment's SSLKEYLOGFILE: libcurl would write the keys of all connections to that file. */
bool mj_curl_ready(void);

/* What differs between transfers.  Zero or NULL: libcurl's default. */
typedef struct mj_curl_setup {
    const char *url;
    CURLU *parsed;       /* instead of url; lives as long as the handle */
    const char *ca_file; /* certificates to trust instead of the system's */
    bool insecure;       /* TLS is not verified */
    const char *user_agent;
    struct curl_slist *headers;
    curl_write_callback header, body; /* receive the answer, and arg */
    void *arg;                        /* also CURLINFO_PRIVATE */
    char *error;                      /* CURL_ERROR_SIZE bytes */
    long connect_ms, timeout_ms;
} mj_curl_setup;

/* A new handle; NULL: no memory.  TLS 1.2 at least, whatever OpenSSL's configuration allows, and verified unless
 * `insecure`.  HTTP/1.1, no redirects, chunked bodies as they come; http and https only; no proxy, cookie or password
 * from the environment or the user's files; no signals; programs that this process starts do not inherit its sockets.
 *
 * Each transfer takes a new handle: libcurl 7.88 keeps pointers to the header of a handle's last answer, and a folded
 * line at the start of the next answer writes to what they point to.  Connections belong to the multi handle. */
CURL *mj_curl_new(const mj_curl_setup *s);

/* Sets an option of the handle `e`; `ok` becomes false when that fails.  Both are the caller's variables. */
#define MJ_CURL_SET(option, value)                                                                                     \
    do {                                                                                                               \
        _Static_assert(_Generic((value), int : 0, unsigned : 0, bool : 0, default : 1), "libcurl takes no int");       \
        ok = mj_curl->easy_setopt(e, CURLOPT_##option, value) == CURLE_OK && ok;                                       \
    } while (0)

/* Adds a header line.  False: no memory, or the text has a line break: the rest would be a header that a caller's data
 * chose. */
bool mj_curl_header(struct curl_slist **headers, const char *line);

/* A handle for so many concurrent transfers; NULL: no memory. */
CURLM *mj_curl_multi(int connections);
/* The `arg` of the next transfer that has ended, and its result; NULL: none has. */
void *mj_curl_ended(CURLM *multi, CURLcode *result);

/* Reads a Retry-After header: seconds, with a fraction (rounded up) or without, or a date; 0..86400.  -1: neither. */
int64_t mj_curl_retry_after(const char *value, size_t n);

/* Makes a text printable on one line, in place. */
void mj_curl_printable(char *text);

#endif
