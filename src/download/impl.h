/* The inside of mj_fetch, for download/transfer.c (one download) and download/batch.c (all of them). */
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
    bool open;                   /* the URL is https on port 443, so any public address will do */
    bool judged;                 /* the header was looked at, and is good */
    bool over;                   /* the outcome is known, whatever libcurl says */
    bool again;                  /* it can't be gone on with: once more, from its start */
    unsigned forbidden, allowed; /* addresses that were tried */
    int64_t at;                  /* bytes in the file */
    int64_t total;               /* bytes that a 206 said there would be; 0: not known */
    mj_framing framing;
    unsigned char head[MJ_IMAGE_HEAD];
    size_t nhead;
    char error[CURL_ERROR_SIZE];
} item;

struct mj_fetch {
    CURLM *multi;
    mj_fetch_options o;
    char *ca_file;
    bool listed; /* hosts are the only ones, also when they are none */
    struct curl_slist *hosts;
    pid_t pid;    /* whose connections these are */
    item **items; /* libcurl keeps pointers to them */
    size_t n, running;
};

/* Reads the URL.  False: it may not be fetched, and has its verdict. */
bool mj_fetch_url(item *t, const char *url);
/* Starts a transfer: RUNNING, or ENDED with its verdict. */
void mj_fetch_begin(mj_fetch *f, item *t);
/* libcurl is done with it: ENDED, or WAITING for another time. */
void mj_fetch_finish(mj_fetch *f, item *t, CURLcode rc);
/* ENDED from outside; a verdict that it has already stays. */
void mj_fetch_end(mj_fetch *f, item *t, mj_fetch_outcome outcome, const char *why);
/* What libcurl has of it. */
void mj_fetch_release(mj_fetch *f, item *t);

#endif
