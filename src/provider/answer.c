#include "provider/answer.h"

/* The first row that matches counts. */
static const struct {
    int from, to;
    mj_meaning bare, enveloped;
} statuses[] = {
    {200, 299, MJ_UNREADABLE, MJ_FINE},
    /* "See other" is the answer to a request that was carried out, and "not modified" one of a cache that asked the
     * server: neither says that there is no job. */
    {303, 304, MJ_SERVER_ERROR, MJ_SERVER_ERROR},
    {300, 399, MJ_REDIRECT, MJ_REDIRECT},
    {401, 401, MJ_AUTH, MJ_AUTH},
    {402, 402, MJ_QUOTA, MJ_QUOTA},
    {403, 403, MJ_FORBIDDEN, MJ_FORBIDDEN},
    {404, 406, MJ_ENDPOINT, MJ_ENDPOINT}, /* address, method, what we accept */
    {407, 407, MJ_BLOCKED, MJ_BLOCKED},   /* a proxy's key */
    {408, 408, MJ_SERVER_ERROR, MJ_SERVER_ERROR},
    {410, 411, MJ_ENDPOINT, MJ_ENDPOINT}, /* gone, length required */
    {415, 415, MJ_ENDPOINT, MJ_ENDPOINT}, /* the request's type */
    {421, 421, MJ_ENDPOINT, MJ_ENDPOINT}, /* another host's server */
    {426, 426, MJ_ENDPOINT, MJ_ENDPOINT}, /* another protocol */
    {429, 429, MJ_RATE_LIMIT, MJ_RATE_LIMIT},
    {400, 499, MJ_STRANGE, MJ_REJECTED},
    {500, 500, MJ_CRASH, MJ_CRASH},
    {511, 511, MJ_BLOCKED, MJ_BLOCKED}, /* a network that wants a log-in first */
};

static mj_meaning status_means(int64_t http, bool enveloped)
{
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        if (http >= statuses[i].from && http <= statuses[i].to)
            return enveloped ? statuses[i].enveloped : statuses[i].bare;
    return MJ_SERVER_ERROR;
}

mj_meaning mj_answer_means(const mj_provider *p, const mj_answer *r)
{
    bool success = r->http >= 200 && r->http < 300;
    mj_meaning m;

    /* A definite refusal is definite under any HTTP status. */
    if (r->envelope && r->error && r->number == p->envelope.quota)
        return MJ_QUOTA;
    if (r->envelope && r->error && r->number == p->envelope.concurrency)
        return MJ_CONCURRENCY;
    m = status_means(r->http, r->envelope);
    if (m == MJ_FINE && r->error)
        return r->number >= 400 && r->number < 600 ? status_means(r->number, true) : MJ_REJECTED;
    if (m != MJ_RATE_LIMIT && !success && r->blocked)
        return MJ_BLOCKED;
    return (m == MJ_AUTH || m == MJ_FORBIDDEN) && r->markup ? MJ_BLOCKED : m;
}

const mj_meaning_info *mj_meaning_of(mj_meaning m)
{
    static const mj_meaning_info all[] = {
#define X(sym, code, kind, halves, replace, job_waits, text) {code, kind, halves, replace, job_waits, MJ_LIT(text)},
        MJ_MEANINGS(X)
#undef X
    };
    return &all[m < MJ_NMEANINGS ? m : MJ_SERVER_ERROR];
}
