#include "mj_curl.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const char KEY_LOG[] = "SSLKEYLOGFILE";
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool ready;

static void init(void)
{
    const char *given = getenv(KEY_LOG);
    char *kept = given ? strdup(given) : NULL;

    if (given)
        unsetenv(KEY_LOG);
    ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK; /* this is where libcurl looks */
    if (kept)
        setenv(KEY_LOG, kept, 0); /* other libraries of this process are not ours to decide about */
    free(kept);
}

bool mj_curl_ready(void)
{
    pthread_once(&once, init);
    return ready;
}
