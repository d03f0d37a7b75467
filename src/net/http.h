/* mj_http: a batch of HTTP requests in, a batch of bounded answers out.
 *
 * libcurl's multi interface and nothing but; the header shows none of it.  One
 * mj_http is used by one thread at a time and keeps its connections between
 * calls.  HTTP/1.1 only, no redirects, no proxies from the environment, no
 * cookies, no `Expect`, no signals, TLS verified by default.
 *
 * What matters here is not whether a request failed but whether the other side
 * can have it.  A request with `once` set is never given to libcurl in a form
 * that it could send twice by itself (body through a read callback that can't
 * rewind, and no second start once it was begun): as long as no byte of its body
 * was handed over it is "not sent"; from the first byte on, and without a
 * complete answer, it is "maybe sent".  A complete answer counts also when it
 * came before all of the body was sent.  Other requests may be sent again by
 * libcurl when a kept connection turns out to be dead.
 *
 * After a fork the child starts with connections of its own.  Unload libcurl
 * only when no name is being looked up: a hanging look-up is left behind. */
#ifndef MJ_HTTP_H
#define MJ_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mj_http mj_http;

typedef struct mj_http_options {
    int connections;        /* concurrent requests per call, 1 to 256; 0: 8 */
    int connect_timeout_ms; /* 0: 10,000 */
    int timeout_ms;         /* the whole exchange of a request; 0: 30,000 */
    size_t max_answer;      /* bytes of an answer's body, at most 2^30; 0: 4 MiB; longer is an error */
    bool insecure;          /* do not verify TLS: for tests, and to look at a certificate that is refused */
    const char *ca_file;    /* certificates to trust instead of the system's; NULL: the system's */
    const char *proxy;      /* URL of the proxy for all requests, with its password if it wants one; NULL: none */
    const char *user_agent; /* NULL: "mjhook" */
} mj_http_options;

typedef struct mj_http_request {
    const char *url;
    const char *const *headers; /* "Name: value" strings, NULL-terminated; may be NULL */
    const char *body;           /* POST when not NULL, GET otherwise */
    size_t body_len;
    bool once;           /* must not be sent twice (a submission) */
    int timeout_ms;      /* 0: the client's */
    int64_t start_by_ms; /* CLOCK_BOOTTIME milliseconds after which neither header nor body is begun
                            any more (a sender that stalled does not send); 0: none */
    bool details;        /* the answer tells more, for who looks for a fault */
} mj_http_request;

typedef enum {
    MJ_HTTP_ANSWERED,   /* a complete answer: see status and body */
    MJ_HTTP_NOT_SENT,   /* the other side can't have acted on it */
    MJ_HTTP_MAYBE_SENT, /* it may have */
} mj_http_outcome;

/* What only somebody asks for who looks for a fault.  Times are seconds since 1970, 0: not known. */
typedef struct mj_http_details {
    const char *failure;  /* "dns", "connect", "certificate", "authorities" (no file of them), "tls", "timeout" or
                             "other"; NULL: it was answered */
    int64_t date;         /* the answer's Date header */
    int64_t total_us;     /* from the look-up of the name to the last byte */
    int64_t cert_expires; /* of the server's own certificate; known for the request that made the connection */
    int certs;            /* how many certificates the server sent */
    char ip[48];
    char issuer[160];   /* of the server's own certificate */
    char location[256]; /* where a redirect points to, without query and fragment, which may be secret */
} mj_http_details;

typedef struct mj_http_answer {
    mj_http_outcome outcome;
    int status;          /* HTTP status when answered */
    bool blocked;        /* it bears "cf-mitigated": it comes from in front of the server */
    bool too_long, cut;  /* not answered: the answer began, and was longer than it may be, or broke off */
    int64_t retry_after; /* seconds from a Retry-After header (number or date), clamped to 0..86400; -1: none */
    char *body;          /* owned by the answer, NUL-terminated; NULL when there is none; a compression that nobody
                            asked for is taken off (base/gunzip.h), and max_answer counts before and after */
    size_t body_len;
    char error[160]; /* for people: host and what happened, never a header, a key or a query string */
    int64_t elapsed_ms;
    mj_http_details *details; /* owned by the answer; NULL: not asked for, or no memory for them */
} mj_http_answer;

/* NULL: out of memory or no libcurl.  Safe to call from several threads (global init is guarded). */
mj_http *mj_http_new(const mj_http_options *o);
void mj_http_free(mj_http *h);
/* Performs all n requests, at most `connections` at once, and returns when each has its answer.
 * `deadline_ms` (CLOCK_BOOTTIME milliseconds; 0: none): at that moment those not begun become NOT_SENT and those
 * under way are cut off with the outcome that is true for them.
 * answers[n] is filled in the order of reqs.  0, MJ_ENOMEM (then nothing was sent and answers are empty). */
int mj_http_perform(mj_http *h, const mj_http_request *reqs, size_t n, int64_t deadline_ms, mj_http_answer *answers);
void mj_http_answer_clear(mj_http_answer *a, size_t n);
/* CLOCK_BOOTTIME in milliseconds, the clock of start_by_ms and deadline_ms: it goes on while the machine sleeps. */
int64_t mj_http_clock(void);
/* libcurl as it runs here and the libraries below it: "libcurl/7.88.1 OpenSSL/3.0.11 ...". */
const char *mj_http_library(void);

#endif
