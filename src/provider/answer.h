/* mj_answer: what an answer of the provider as a whole means, before its data is looked at.
 *
 * Pure, and the one place of these rules: submissions, status requests and doctor go by it.
 *
 *   what came                                         meaning        a submission is  tasks are asked about again
 *   envelope "quota" under any HTTP status, HTTP 402  quota          refused          later
 *   envelope "concurrency" under any HTTP status      concurrency    refused          later
 *   HTTP 429                                          rate_limit     refused          later
 *   401 or 403 with markup instead of JSON, 407, 511,
 *     any error that bears "cf-mitigated"             blocked        refused          later
 *   401, 403 otherwise                                auth           refused          later
 *   3xx                                               redirect       refused          later
 *   404 405 406 410 411 415 421 426,
 *     any other 4xx without an envelope               endpoint       refused          in halves
 *   408, 5xx, no HTTP status at all                   server_error   perhaps taken    later; of 500 in halves
 *   4xx with an envelope                              rejected       refused for good in halves
 *   2xx, an envelope with an error of 400 to 599      as that HTTP status
 *   2xx, an envelope with any other error             rejected       refused for good in halves
 *   2xx, no envelope or no usable data                unreadable     perhaps taken    in halves
 *   3xx or 4xx to a submission, and its body is an
 *     envelope without an error that names a task     contradiction  perhaps taken    (never)
 *   2xx with data                                     fine           accepted         (each is read)
 *
 * "refused": it is about the account.  The job stays queued and the account rests.  After 403, what comes from in front
 * and "any other 4xx" the job waits on its own, too: it may be the cause (a filter dislikes its words), and another job
 * finds out.  "Rejected" is about the one job.  An error about the request's form or its address is the same for every
 * job, so it is never charged to one.  "In halves": one of the tasks that were asked about may be the cause. */
#ifndef MJ_ANSWER_H
#define MJ_ANSWER_H

#include "provider/profile.h"

#include <stdint.h>

/* Columns: symbol; code; what a submission is; whether tasks are asked about again in halves; whether the provider's
 * message replaces ours; whether the job waits on its own, too; our message. */
#define MJ_MEANINGS(X)                                                                                                 \
    X(MJ_FINE, "", "accepted", false, true, false, "")                                                                 \
    X(MJ_QUOTA, "quota", "refused", false, true, false, "quota not enough")                                            \
    X(MJ_CONCURRENCY, "concurrency", "refused", false, true, false, "concurrency limit reached")                       \
    X(MJ_RATE_LIMIT, "rate_limit", "refused", false, true, false, "rate limit")                                        \
    X(MJ_BLOCKED, "blocked", "refused", false, false, true, "something in front of the provider refuses us")           \
    X(MJ_AUTH, "auth", "refused", false, true, false, "the provider refuses the API key")                              \
    X(MJ_FORBIDDEN, "auth", "refused", false, true, true, "the provider refuses the API key")                          \
    X(MJ_REDIRECT, "redirect", "refused", false, false, false,                                                         \
      "base_url answers with a redirect, which is not followed: correct base_url")                                     \
    X(MJ_ENDPOINT, "endpoint", "refused", true, false, false, "is base_url right?")                                    \
    X(MJ_STRANGE, "endpoint", "refused", true, false, true, "is base_url right?") /* any other 4xx */                  \
    X(MJ_SERVER_ERROR, "server_error", "maybe_sent", false, true, false, "trouble on the provider's side")             \
    X(MJ_CRASH, "server_error", "maybe_sent", true, true, false, "trouble on the provider's side") /* HTTP 500 */      \
    X(MJ_REJECTED, "rejected", "rejected", true, true, false, "the provider rejects the request")                      \
    X(MJ_UNREADABLE, "unreadable", "maybe_sent", true, false, false, "the answer has no usable taskId")                \
    X(MJ_CONTRADICTION, "unreadable", "maybe_sent", false, false, false,                                               \
      "the HTTP status refuses the job, and the body names a task for it")

typedef enum {
#define X(sym, code, kind, halves, replace, job_waits, text) sym,
    MJ_MEANINGS(X)
#undef X
        MJ_NMEANINGS
} mj_meaning;

typedef struct mj_meaning_info {
    const char *code, *kind;
    bool halves, replace, job_waits;
    mj_str text;
} mj_meaning_info;

/* What is known of an answer. */
typedef struct mj_answer {
    int http;       /* HTTP status */
    bool blocked;   /* it has a "cf-mitigated" header, so it comes from in front of the provider */
    bool markup;    /* its body is HTML or the like */
    bool envelope;  /* its body is the provider's envelope ... */
    bool error;     /* ... which holds an error ... */
    int64_t number; /* ... with this number; -1: a word */
} mj_answer;

mj_meaning mj_answer_means(const mj_provider *p, const mj_answer *r);
const mj_meaning_info *mj_meaning_of(mj_meaning m);

#endif
