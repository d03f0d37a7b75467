/* The inside of mj_http, for net/http.c (clients and batches), net/transfer.c (one request) and net/details.c. */
#ifndef MJ_HTTP_IMPL_H
#define MJ_HTTP_IMPL_H

#include "net/curl.h"
#include "net/framing.h"
#include "net/http.h"

#include <sys/types.h>

typedef struct transfer { /* a running request */
    CURL *easy;
    mj_http_call *call; /* NULL: a free slot */
    const mj_http_request *req;
    mj_http_answer *answer;
    struct curl_slist *headers;
    bool counts;    /* it must not be sent twice, and its body tells what was sent */
    size_t handed;  /* bytes of the body that libcurl has taken: from the first on it may have been sent */
    bool again;     /* libcurl wanted to send it a second time */
    bool begun;     /* the connection is made, including a tunnel through a proxy */
    size_t steps;   /* so far, towards that */
    bool head_done; /* the header of the final answer, not of a "100 Continue", is complete */
    mj_framing framing;
    bool stalled, too_long, no_memory;
    size_t cap, max;
    int64_t started;
    char error[CURL_ERROR_SIZE];
} transfer;

struct mj_http {
    CURLM *multi;    /* owns the connections */
    CURLSH *session; /* TLS sessions, so that the next connection to a server needs no full handshake */
    mj_http_options o;
    char *user_agent, *ca_file, *proxy;
    int64_t distrust_until; /* until then no submission uses a kept connection: the server closes them */
    pid_t pid;
    transfer *slots;             /* o.connections of them */
    mj_http_call *first, **last; /* calls that wait for a connection */
};

/* Starts a call's transfer.  False: it could not be started, and has ended; see its answer. */
bool mj_http_begin(mj_http *h, transfer *t, mj_http_call *c);
/* Ends a transfer: libcurl is done with it, or it is cut off for the reason `cut` (else NULL).  Its call has ended and
 * its slot is free. */
void mj_http_finish(mj_http *h, transfer *t, CURLcode result, const char *cut);
/* Fills in an answer that failed: "host:port: why". */
void mj_http_failed(mj_http_answer *a, mj_http_outcome outcome, const char *url, const char *why);
/* Fills in the diagnostics that the request asked for. */
void mj_http_add_details(const transfer *t, CURLcode result, const char *cut);

#endif
