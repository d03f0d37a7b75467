#include "net/http_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *failure(CURLcode result, const char *cut)
{
    switch (cut ? CURLE_OPERATION_TIMEDOUT : result) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return "dns";
    case CURLE_COULDNT_CONNECT:
        return "connect";
    case CURLE_PEER_FAILED_VERIFICATION:
        return "certificate";
    case CURLE_SSL_CACERT_BADFILE:
        return "authorities";
    case CURLE_SSL_CONNECT_ERROR:
        return "tls";
    case CURLE_OPERATION_TIMEDOUT:
        return "timeout";
    default:
        return "other";
    }
}

/* libcurl's texts about a certificate are "Name:value". */
static void add_certificate(mj_http_details *d, CURL *e)
{
    struct curl_certinfo *chain = NULL;

    if (mj_curl->easy_getinfo(e, CURLINFO_CERTINFO, &chain) != CURLE_OK || !chain || chain->num_of_certs < 1)
        return;
    d->certs = chain->num_of_certs;
    for (const struct curl_slist *l = chain->certinfo[0]; l; l = l->next) {
        if (strncmp(l->data, "Issuer:", 7) == 0) {
            snprintf(d->issuer, sizeof d->issuer, "%s", l->data + 7);
        } else if (strncmp(l->data, "Expire date:", 12) == 0) {
            time_t at = mj_curl->getdate(l->data + 12, NULL);
            d->cert_expires = at > 0 ? (int64_t)at : 0;
        }
    }
}

void mj_http_add_details(const transfer *t, CURLcode result, const char *cut)
{
    mj_http_details *d = t->req->details ? calloc(1, sizeof *d) : NULL;
    struct curl_header *date;
    curl_off_t total = 0;
    char *text = NULL;

    t->answer->details = d;
    if (!d)
        return;
    if (t->answer->outcome != MJ_HTTP_ANSWERED)
        d->failure = failure(result, cut);
    if (mj_curl->easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &total) == CURLE_OK)
        d->total_us = total;
    if (mj_curl->easy_getinfo(t->easy, CURLINFO_PRIMARY_IP, &text) == CURLE_OK && text)
        snprintf(d->ip, sizeof d->ip, "%s", text);
    if (mj_curl->easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &text) == CURLE_OK && text)
        snprintf(d->location, sizeof d->location, "%.*s", (int)strcspn(text, "?#"), text);
    if (mj_curl->easy_header(t->easy, "Date", 0, CURLH_HEADER, -1, &date) == CURLHE_OK) {
        time_t at = mj_curl->getdate(date->value, NULL);
        d->date = at > 0 ? (int64_t)at : 0;
    }
    add_certificate(d, t->easy);
}
