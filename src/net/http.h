/* mj_http: takes a batch of HTTP requests, gives a batch of bounded answers.
 *
 * It uses libcurl's multi interface; the header shows none of it.  One thread at a time uses an mj_http, which keeps
 * its connections between calls.  mj_http_perform() takes a batch and returns when all of it is answered.
 * mj_http_start() and mj_http_wait() are the parts that it is made of: the caller learns of each answer when it is
 * there, while other requests go on.  HTTP/1.1 only, no redirects, no proxies from the environment, no cookies, no
 * `Expect`, no signals, TLS verified by default.
 *
 * Requests go on while their caller does something else, if it wants that: when mj_http_wait_for() returns and some are
 * under way, a thread of the client goes on with them, and ends when none is.  It blocks all signals.  Without a
 * thread, or where none can be made, requests go on only while their caller waits.
 *
 * The important question is not whether a request failed, but whether the server can have it.  libcurl never gets a
 * request with `once` in a form that it could send twice by itself: the body comes from a read callback that can't
 * rewind, and a request that was begun does not start again.  As long as no byte of its body was handed over, the
 * request is "not sent"; from the first byte on, and without a complete answer, it is "maybe sent".  A complete answer
 * counts even if it came before the whole body was sent.  libcurl may send other requests again when a kept connection
 * turns out to be dead.
 *
 * After a fork the child starts with connections of its own; there, what the parent has under way has ended.  Unload
 * libcurl only when no name is being looked up: a hanging look-up is left behind. */
#ifndef MJ_HTTP_H
#define MJ_HTTP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mj_http mj_http;

typedef struct mj_http_options {
    int connections;        /* concurrent requests, 1 to 256; 0: 8 */
    int connect_timeout_ms; /* 0: 10,000 */
    int timeout_ms;         /* for the whole exchange; 0: 30,000 */
    size_t max_answer;      /* bytes of an answer's body, at most 2^30; 0: 4 MiB; a longer body is an error */
    bool insecure;          /* do not verify TLS: for tests, and to show a certificate that is refused */
    const char *ca_file;    /* certificates to trust instead of the system's; NULL: the system's */
    const char *proxy;      /* URL of the proxy for all requests, with its password if needed; NULL: none */
    const char *user_agent; /* NULL: "mjhook" */
} mj_http_options;

typedef struct mj_http_answer mj_http_answer;

typedef struct mj_http_request {
    const char *url;
    const char *const *headers; /* "Name: value" strings, NULL-terminated; may be NULL */
    const char *body;           /* POST when not NULL, GET otherwise */
    size_t body_len;
    bool once;           /* must not be sent twice (a submission) */
    int timeout_ms;      /* 0: the client's */
    int64_t start_by_ms; /* CLOCK_BOOTTIME milliseconds: after this time neither header nor body is begun (a sender that
                          * stalled does not send); 0: none */
    bool details;        /* fill in the answer's diagnostics */
    const char *ca_file; /* certificates to trust; NULL: the client's */
    bool (*is_fine)(const mj_http_answer *); /* asked when it has ended, from any thread.  False: no other request that
                                              * asks so is begun before a wait has ended; those that wait for a
                                              * connection are withdrawn.  NULL: any answer is fine */
} mj_http_request;

typedef enum {
    MJ_HTTP_ANSWERED,   /* a complete answer: see status and body */
    MJ_HTTP_NOT_SENT,   /* the server can't have acted on it */
    MJ_HTTP_MAYBE_SENT, /* the server may have acted on it */
} mj_http_outcome;

/* Diagnostics, filled only when `details` is set.  Times are seconds since 1970, 0: not known. */
typedef struct mj_http_details {
    const char *failure;  /* "dns", "connect", "certificate", "authorities" (no file of them), "tls", "timeout" or
                             "other"; NULL: it was answered */
    int64_t date;         /* the answer's Date header */
    int64_t total_us;     /* from the name's look-up to the last byte */
    int64_t cert_expires; /* of the server's own certificate; known for the request that made the connection */
    int certs;            /* how many certificates the server sent */
    char ip[48];
    char issuer[160];   /* of the server's own certificate */
    char location[256]; /* the target of a redirect, without query and fragment, which may be secret */
} mj_http_details;

struct mj_http_answer {
    mj_http_outcome outcome;
    int status;          /* HTTP status when answered */
    bool blocked;        /* it has a "cf-mitigated" header: it comes from in front of the server */
    bool too_long, cut;  /* not answered: the answer was longer than allowed, or it broke off */
    bool withdrawn;      /* not sent: it was withdrawn before it was begun, and may be started again */
    int64_t retry_after; /* seconds of a Retry-After header (number or date), 0..86400; -1: none */
    char *body; /* owned by the answer, NUL-terminated; NULL: none.  Unrequested compression is removed (base/gunzip.h);
                 * max_answer bounds the body before and after */
    size_t body_len;
    char error[160]; /* for people: the host and what happened, never a header, a key or a query */
    int64_t elapsed_ms;
    mj_http_details *details; /* owned by the answer; NULL: not wanted, or no memory */
};

/* A request that is under way.  The caller owns it, and the strings of `req`, and moves none of it until it has ended.
 */
typedef struct mj_http_call {
    mj_http_request req;
    mj_http_answer answer; /* complete once it has ended */
    atomic_bool ended;
    struct mj_http_call *next; /* of those that wait for a connection */
} mj_http_call;

/* NULL: no memory, or libcurl is not loaded.  From any thread (global initialization is guarded). */
mj_http *mj_http_new(const mj_http_options *o);
/* Ends what is under way. */
void mj_http_free(mj_http *h);

/* Adds a call, of which only `req` is set.  It begins as soon as one of the connections is free and calls go on.  0, or
 * MJ_ENOMEM: it was not added. */
int mj_http_start(mj_http *h, mj_http_call *c);

/* Goes on with all calls under way until one more has ended; at `until_ms` (CLOCK_BOOTTIME milliseconds) it returns in
 * any case, having begun what could begin. */
void mj_http_wait(mj_http *h, int64_t until_ms);

/* What a longer wait ends by, beside that nothing is under way, or an answer is not fine. */
typedef struct mj_http_pause {
    int64_t until_ms; /* then in any case */
    int64_t rest_ms;  /* so long after the first call that has ended since the last wait */
    size_t low;       /* a call has ended, and at most so many wait for a connection */
} mj_http_pause;

/* The same until more than one call has ended.  What is under way then goes on when this has returned. */
void mj_http_wait_for(mj_http *h, const mj_http_pause *p);
/* Withdraws the calls that wait for a connection and have `is_fine`: they end, and their answers say so. */
void mj_http_withdraw(mj_http *h);
/* Ends a call now, if it has not ended, with the outcome that is true for it: NOT_SENT while it was not begun. */
void mj_http_cut(mj_http *h, mj_http_call *c, const char *why);
/* Performs all n requests, at most `connections` at once, and returns when each has its answer.  At `deadline_ms`
 * (CLOCK_BOOTTIME milliseconds; 0: none) requests that were not begun become NOT_SENT, and the others are cut off with
 * the outcome that is true for them.  answers[n] is in the order of reqs.  0, or MJ_ENOMEM (then nothing was sent, and
 * the answers are empty). */
int mj_http_perform(mj_http *h, const mj_http_request *reqs, size_t n, int64_t deadline_ms, mj_http_answer *answers);
void mj_http_answer_clear(mj_http_answer *a, size_t n);
/* CLOCK_BOOTTIME in milliseconds, the clock of start_by_ms and deadline_ms: it goes on while the machine sleeps. */
int64_t mj_http_clock(void);
/* libcurl and the libraries below it, as they run here: "libcurl/7.88.1 OpenSSL/3.0.11 ..."; NULL: not loaded yet. */
const char *mj_http_library(void);
/* Loads libcurl: `library` is the table of the module mjhook.curl (net/library.h).  From any thread; if it is loaded
 * already, this changes nothing.  False: the table is not of this version. */
bool mj_http_load(const void *library);

#endif
