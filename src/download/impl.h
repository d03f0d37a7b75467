/* The inside of mj_fetch, for download/target.c (its URL), download/transfer.c (one download) and download/batch.c (all
 * of them). */
#ifndef MJ_FETCH_IMPL_H
#define MJ_FETCH_IMPL_H

#include "download/transfer.h"
#include "net/curl.h"
#include "net/framing.h"

#include <sys/types.h>

typedef enum { WAITING, RUNNING, ENDED, GIVEN } step;

typedef struct item {
    step step;
    mj_fetch_request req; /* its url is ours */
    mj_fetch_result result;
    const mj_fetch *f;
    CURL *easy;
    CURLU *url;
    struct curl_slist *headers;
    char *etag; /* ours; NULL: starts from the first byte */
    char host[80];
    bool open;                   /* https on port 443: any public address is allowed */
    bool judged;                 /* the header was checked, and is good */
    bool over;                   /* the outcome is decided, whatever libcurl says */
    bool again;                  /* it can't be resumed: start over */
    unsigned forbidden, allowed; /* addresses, by what became of them */
    int64_t at;                  /* bytes in the file */
    int64_t total;               /* total size by a 206; 0: not known */
    mj_framing framing;
    unsigned char head[MJ_IMAGE_HEAD];
    size_t nhead;
    char error[CURL_ERROR_SIZE];
} item;

struct mj_fetch {
    CURLM *multi;
    mj_fetch_options o;
    char *ca_file;
    bool listed; /* only `hosts` are allowed, also when that list is empty */
    struct curl_slist *hosts;
    pid_t pid;    /* the process that owns the connections */
    item **items; /* libcurl keeps pointers to them */
    size_t n, running;
};

/* Decides the outcome, with a reason for people; "host: why" once the host is known. */
void mj_fetch_verdict(item *t, mj_fetch_outcome outcome, const char *why);
/* download/target.c: reads the URL.  False: it may not be fetched; its result says why. */
bool mj_fetch_url(item *t, const char *url);
/* Starts a transfer: RUNNING, or ENDED with a result. */
void mj_fetch_begin(mj_fetch *f, item *t);
/* libcurl is done with it: ENDED, or WAITING to start over. */
void mj_fetch_finish(mj_fetch *f, item *t, CURLcode rc);
/* Ends it from outside; a result that is there stays. */
void mj_fetch_end(mj_fetch *f, item *t, mj_fetch_outcome outcome, const char *why);
/* Frees what libcurl has of it. */
void mj_fetch_release(mj_fetch *f, item *t);

#endif
