/* mj_fetch: downloads images from URLs that are not trusted into open files, several at once.
 *
 * mj_http talks to a provider that the configuration names; this one goes where a provider's answer points to.  So:
 * only https and port 443 (but see `loopback`), no user in the URL, no redirects, no proxies (nor the environment's),
 * no cookies, TLS always verified.  The address is judged when libcurl opens the socket, not when the name is looked
 * up, so a name that resolves differently the second time gains nothing (see base/address.h).
 *
 * Bytes go to the file at once; only some kilobytes are in memory.  A download is cut off when it is longer than
 * allowed, also if no length was announced, when its header or its first bytes are not an image's, or when its header
 * has no end.  A complete answer has a length, or chunks including the last one; an answer that ends with its
 * connection is refused.
 *
 * A file that has bytes already is resumed (Range and If-Range, by ETag).  If the server can't do that, or has another
 * entity now, the download starts over.
 *
 * One mj_fetch is a batch, used by one thread and freed after it.  In a forked process everything in it has ended. */
#ifndef MJ_FETCH_H
#define MJ_FETCH_H

#include "download/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mj_fetch mj_fetch;

typedef struct mj_fetch_options {
    int connections;        /* at once; 0: 4 */
    int connect_timeout_ms; /* 0: 10,000 */
    int64_t max_bytes;      /* of one file */
    const char *ca_file;    /* certificates to trust instead of the system's; NULL: the system's */
    const char *const
        *hosts;    /* the only allowed ones: "name", or ".name" for all below it; NULL: any; an empty list: none */
    bool loopback; /* also http and any port, but only of a loopback address: for mjhook dev and tests */
} mj_fetch_options;

typedef enum {
    MJ_FETCH_DONE,    /* complete */
    MJ_FETCH_URL,     /* not a URL that may be fetched */
    MJ_FETCH_ADDRESS, /* the host has only forbidden addresses */
    MJ_FETCH_STATUS,  /* answered with another status than 200 or a proper 206; see status, and retry_after */
    MJ_FETCH_TYPE,    /* not an image */
    MJ_FETCH_SIZE,    /* longer than max_bytes */
    MJ_FETCH_NET,     /* no connection, or it broke, or TLS failed */
    MJ_FETCH_TIME,    /* the deadline came first */
    MJ_FETCH_DISK,    /* the file could not be written */
} mj_fetch_outcome;

typedef struct mj_fetch_request {
    const char *url;
    int fd;           /* for writing; the caller closes it, after its result is there */
    int64_t have;     /* good bytes in it; 0: none */
    const char *etag; /* of the entity they belong to; NULL: none, so they are not resumed */
    /* Called when fd was emptied, before anything is written to it: with the ETag of the new entity, or NULL.  False:
     * as if fd could not be written (errno). */
    bool (*fresh)(void *arg, const char *etag);
    void *arg;
} mj_fetch_request;

typedef struct mj_fetch_result {
    mj_fetch_outcome outcome;
    mj_image kind;       /* when done */
    int64_t bytes;       /* in the file now */
    int64_t received;    /* in this batch, bodies only */
    int64_t retry_after; /* seconds, 0..86400; -1: none */
    int status;          /* 0: no answer */
    char error[200];     /* for people: the host and what happened, no more of the URL; "": done */
} mj_fetch_result;

/* NULL: no memory, or no libcurl.  Copies the options. */
mj_fetch *mj_fetch_new(const mj_fetch_options *o);
void mj_fetch_free(mj_fetch *f);
/* Adds a download; *index counts from 0.  A URL that may not be fetched is its result, not a failure here.  MJ_ENOMEM.
 */
int mj_fetch_add(mj_fetch *f, const mj_fetch_request *r, size_t *index);
/* Works until another download has its result, and gives that; each once.  At `deadline_ms` (mj_http_clock's) the rest
 * ends.  Nothing moves between calls.  MJ_ENOTFOUND: all were given. */
int mj_fetch_next(mj_fetch *f, int64_t deadline_ms, size_t *index, mj_fetch_result *out);

#endif
