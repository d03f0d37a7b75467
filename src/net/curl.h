/* mj_curl: what the clients of libcurl have in common.  For mj_http, mj_stream and mj_fetch only: the one set-up of a
 * transfer. */
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

/* What a transfer is, beside what holds for all of them.  Zero or NULL: libcurl's default. */
typedef struct mj_curl_setup {
    const char *url;
    CURLU *parsed;       /* instead of url; lives as long as the handle */
    const char *ca_file; /* certificates to trust instead of the system's */
    bool insecure;       /* TLS is not verified */
    const char *user_agent;
    struct curl_slist *headers;
    curl_write_callback header, body; /* are given what arrives, and arg */
    void *arg;                        /* also CURLINFO_PRIVATE */
    char *error;                      /* CURL_ERROR_SIZE bytes */
    long connect_ms, timeout_ms;
} mj_curl_setup;

/* A new handle, NULL: out of memory.  TLS 1.2 at least, whatever OpenSSL's own configuration allows, and verified
 * unless `insecure`; of HTTP, version 1.1, no redirects, and chunked bodies as they come; http and https alone; no
 * proxy, cookie or password of the environment's or the user's; no signals; sockets that programs this process starts
 * do not inherit.
 *
 * Each transfer takes a handle of its own: libcurl 7.88 keeps pointers to the header of a handle's last answer, and a
 * folded line at the beginning of the next one writes to what they point to.  Connections belong to the multi handle.
 */
CURL *mj_curl_new(const mj_curl_setup *s);

/* Sets an option of the handle `e`; `ok` becomes false when that fails.  Both are the caller's variables. */
#define MJ_CURL_SET(option, value) ok = curl_easy_setopt(e, CURLOPT_##option, value) == CURLE_OK && ok

/* Adds a header's line.  False: no memory, or it is two lines, and what follows the break would be a header that a
 * caller's data chose. */
bool mj_curl_header(struct curl_slist **headers, const char *line);

/* For transfers side by side, so many at most; NULL: out of memory. */
CURLM *mj_curl_multi(int connections);
/* The `arg` of the next transfer that has ended, and how; NULL: none has. */
void *mj_curl_ended(CURLM *multi, CURLcode *result);

/* The value of a Retry-After header: seconds, with a fraction (rounded up) or without, or a date; 0..86400.  -1: it is
 * neither. */
int64_t mj_curl_retry_after(const char *value, size_t n);

/* Makes a text printable on one line, in place. */
void mj_curl_printable(char *text);

#endif
