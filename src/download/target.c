/* Which URLs may be fetched. */
#include "download/checks.h"
#include "download/impl.h"

#include <stdio.h>
#include <string.h>

enum { MAX_URL = 8192 };

static bool host_allowed(const mj_fetch *f, const char *host)
{
    if (!f->listed)
        return true;
    for (const struct curl_slist *h = f->hosts; h; h = h->next)
        if (mj_fetch_host_is(host, h->data))
            return true;
    return false;
}

/* libcurl gets this very CURLU, so what is checked is what is used. */
bool mj_fetch_url(item *t, const char *url)
{
    char *scheme = NULL, *host = NULL, *port = NULL;
    const char *why = NULL;
    CURLUcode rc = strlen(url) > MAX_URL ? CURLUE_MALFORMED_INPUT
                                         : mj_curl->url_set(t->url, CURLUPART_URL, url, CURLU_DISALLOW_USER);

    if (rc == CURLUE_OK)
        rc = mj_curl->url_get(t->url, CURLUPART_SCHEME, &scheme, 0);
    if (rc == CURLUE_OK)
        rc = mj_curl->url_get(t->url, CURLUPART_HOST, &host, 0);
    if (rc == CURLUE_OK)
        rc = mj_curl->url_get(t->url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
    if (rc == CURLUE_USER_NOT_ALLOWED)
        why = "a URL with a user in it is not fetched";
    else if (rc != CURLUE_OK)
        why = "not a URL";
    else
        snprintf(t->host, sizeof t->host, "%s", host);
    if (!why) {
        bool secure = strcmp(scheme, "https") == 0;
        t->open = secure && strcmp(port, "443") == 0;
        if (!secure && !(t->f->o.loopback && strcmp(scheme, "http") == 0))
            why = "not an https URL";
        else if (!t->open && !t->f->o.loopback)
            why = "a port other than 443 is not fetched from";
        else if (!host_allowed(t->f, host))
            why = "not one of the hosts that are allowed";
    }
    if (rc == CURLUE_OUT_OF_MEMORY)
        mj_fetch_verdict(t, MJ_FETCH_NET, "out of memory");
    else if (why)
        mj_fetch_verdict(t, MJ_FETCH_URL, why);
    mj_curl->free(scheme);
    mj_curl->free(host);
    mj_curl->free(port);
    return why == NULL;
}
