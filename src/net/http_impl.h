/* The inside of mj_http, for net/http.c (clients and batches), net/drive.c (what goes on), net/transfer.c (one request)
 * and net/details.c. */
#ifndef MJ_HTTP_IMPL_H
#define MJ_HTTP_IMPL_H

#include "net/curl.h"
#include "net/framing.h"
#include "net/http.h"

#include <pthread.h>
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
    mj_http_options o;
    char *user_agent, *ca_file, *proxy;
    pid_t pid;

    /* Of the thread that drives: the client's own while it runs, else the caller's. */
    CURLM *multi;           /* owns the connections */
    CURLSH *session;        /* TLS sessions, so that the next connection to a server needs no full handshake */
    int64_t distrust_until; /* until then no submission uses a kept connection: the server closes them */
    transfer *slots;        /* o.connections of them */

    pthread_mutex_t lock;        /* for all below */
    int flying;                  /* slots in use */
    pthread_cond_t news;         /* what a wait waits for may be there */
    mj_http_call *first, **last; /* calls that wait for a connection */
    size_t waiting, under_way;   /* how many; how many have not ended */
    size_t ended;                /* since the last wait */
    int64_t ended_at;            /* when the first of them did */
    bool urgent;                 /* one of them is not fine */
    size_t low;                  /* mj_http_pause.low of the last wait */
    bool has_thread, driven;     /* `thread` is to be joined; it drives */
    bool quit, woken;            /* it is to end; it is awake, or has been woken */
    pthread_t thread;
};

/* False: no memory. */
bool mj_http_make_locks(mj_http *h);
/* Appends a call to those that wait, and tells the thread. */
void mj_http_append(mj_http *h, mj_http_call *c);
/* Takes a call out of those that wait, and ends it.  False: it does not wait. */
bool mj_http_end_waiting(mj_http *h, mj_http_call *c, const char *why);
/* Withdraws all that wait. */
void mj_http_withdraw_all(mj_http *h);
/* Drives in the caller's thread, or waits for the client's own. */
void mj_http_go_on(mj_http *h, const mj_http_pause *p);
/* Makes the client's thread, if calls are under way and there is none. */
void mj_http_drive(mj_http *h);
/* Ends the client's thread: now the caller drives. */
void mj_http_come_home(mj_http *h);
/* Ends all calls.  For the thread that drives. */
void mj_http_cut_all(mj_http *h, const char *why);
/* Ends a transfer, as mj_http_finish() does, and tells what waits.  For the thread that drives. */
void mj_http_end(mj_http *h, transfer *t, CURLcode result, const char *cut);

/* Starts a call's transfer.  False: it could not be started; see its answer. */
bool mj_http_begin(mj_http *h, transfer *t, mj_http_call *c);
/* Completes the answer of a transfer: libcurl is done with it, or it is cut off for the reason `cut` (else NULL).  Its
 * slot is free. */
void mj_http_finish(mj_http *h, transfer *t, CURLcode result, const char *cut);
/* Fills in an answer that failed: "host:port: why". */
void mj_http_failed(mj_http_answer *a, mj_http_outcome outcome, const char *url, const char *why);
/* Fills in the diagnostics that the request asked for. */
void mj_http_add_details(const transfer *t, CURLcode result, const char *cut);

#endif
