/* mj_fetch: images from strangers' URLs into open files, side by side.
 *
 * The second user of libcurl's multi interface, apart from mj_http:
 * that one talks to a provider whom the configuration names, this one goes where
 * a provider's answer points to.  So: https and port 443 only (but see `loopback`), no user in the
 * URL, no redirects, no proxies, also none of the environment, no cookies, TLS
 * always verified.  The address is judged when libcurl opens the socket to it,
 * not when the name is looked up, so a name that resolves otherwise the second
 * time gains nothing (see base/address.h).
 *
 * What arrives goes to the file at once, never more than some kilobytes are in
 * memory, and is cut off when it is longer than allowed, also when no length was
 * announced, or is no image by its header or by its first bytes, or when its
 * header has no end.  Whole is what has a length, or chunks of which the last
 * one came; an answer that ends with its connection is refused.
 *
 * A file that has bytes already is gone on with (Range and If-Range, by ETag).
 * If the server does not do that, or has another entity now, it starts over.
 *
 * One mj_fetch is a batch, used by one thread, gone with it.  In a process that
 * was forked from its owner everything in it has ended. */
#ifndef MJ_FETCH_H
#define MJ_FETCH_H

#include "download/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mj_fetch mj_fetch;

typedef struct mj_fetch_options {
    int connections;          /* at once; 0: 4 */
    int connect_timeout_ms;   /* 0: 10,000 */
    int64_t max_bytes;        /* of one file */
    const char *ca_file;      /* certificates to trust instead of the system's; NULL: the system's */
    const char *const *hosts; /* the only ones allowed: "name", or ".name" for all below it; NULL: any;
                               * of an empty list, none */
    bool loopback;            /* also http and any port, but of a loopback address: for mjhook dev and tests */
} mj_fetch_options;

typedef enum {
    MJ_FETCH_DONE,    /* all of it is in the file */
    MJ_FETCH_URL,     /* not a URL that may be fetched */
    MJ_FETCH_ADDRESS, /* the host has forbidden addresses only */
    MJ_FETCH_STATUS,  /* answered with another status than 200 or a proper 206; see status, and retry_after */
    MJ_FETCH_TYPE,    /* not an image */
    MJ_FETCH_SIZE,    /* longer than max_bytes */
    MJ_FETCH_NET,     /* no connection, or it broke, or TLS failed */
    MJ_FETCH_TIME,    /* the deadline came first */
    MJ_FETCH_DISK,    /* the file could not be written */
} mj_fetch_outcome;

typedef struct mj_fetch_request {
    const char *url;
    int fd;           /* to write to; the batch does not close it, and it must stay open until its result is there */
    int64_t have;     /* bytes in it that are right; 0: none */
    const char *etag; /* of the entity they are of; NULL: none, they are not gone on with */
    /* Called when fd has been emptied, before anything is written to it: with the ETag of what comes, or NULL.
     * False: as if fd could not be written (errno). */
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
    char error[200];     /* for people: host and what happened, nothing else of the URL; "" when done */
} mj_fetch_result;

/* NULL: out of memory, or no libcurl.  Copies what the options point to. */
mj_fetch *mj_fetch_new(const mj_fetch_options *o);
void mj_fetch_free(mj_fetch *f);
/* Adds one; *index counts from 0.  A URL that may not be fetched is no failure here, but its result.  MJ_ENOMEM. */
int mj_fetch_add(mj_fetch *f, const mj_fetch_request *r, size_t *index);
/* Works until another one has its result, and gives that, each once.  At `deadline_ms` (mj_http_clock's) all that is
 * left ends.  While nobody calls this, nothing moves.  MJ_ENOTFOUND: all were given. */
int mj_fetch_next(mj_fetch *f, int64_t deadline_ms, size_t *index, mj_fetch_result *out);

#endif
