#include "net/curl.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { RETRY_AFTER_MAX = 86400 };

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

/* As libcurl's own, but not left open in the programs that this process starts. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    (void)arg, (void)purpose;
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

CURL *mj_curl_new(const char *ca_file, bool insecure)
{
    CURL *e = curl_easy_init();
    bool ok = e != NULL;

#define SET(option, value) ok = ok && curl_easy_setopt(e, CURLOPT_##option, value) == CURLE_OK
    SET(OPENSOCKETFUNCTION, open_socket);
    SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(HTTP09_ALLOWED, 0L);
    SET(HTTP_TRANSFER_DECODING, 0L); /* see net/framing.h */
    SET(FOLLOWLOCATION, 0L);
    SET(NETRC, (long)CURL_NETRC_IGNORED);
    SET(PROXY, "");   /* "": nor one of the environment */
    SET(NOPROXY, ""); /* nor the environment's exceptions, for clients that set a proxy */
    SET(NOSIGNAL, 1L);
    SET(QUICK_EXIT, 1L); /* a name server that hangs delays nothing beyond the timeout */
    SET(TCP_NODELAY, 1L);
    SET(SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(SSL_VERIFYPEER, insecure ? 0L : 1L);
    SET(SSL_VERIFYHOST, insecure ? 0L : 2L);
    if (ca_file) {
        SET(CAINFO, ca_file);
        SET(CAPATH, NULL); /* libcurl's default directory would be trusted beside it */
    }
#undef SET
    if (ok)
        return e;
    curl_easy_cleanup(e);
    return NULL;
}

static bool only_blanks(const char *p)
{
    return p[strspn(p, " \t\r\n")] == '\0';
}

/* By hand: strtod would go by the locale, and take more than a header may say. */
static bool read_seconds(const char *p, int64_t *seconds)
{
    size_t digits = strspn(p, "0123456789");
    bool more = false;

    if (digits == 0)
        return false;
    *seconds = strtoll(p, NULL, 10); /* too long a number is the largest one */
    p += digits;
    if (*p == '.') {
        size_t fraction = strspn(++p, "0123456789");
        more = strspn(p, "0") < fraction;
        p += fraction;
    }
    if (*seconds > RETRY_AFTER_MAX)
        *seconds = RETRY_AFTER_MAX;
    *seconds += more;
    return only_blanks(p);
}

int64_t mj_curl_retry_after(const char *value, size_t n)
{
    char text[64];
    const char *p = text;
    int64_t seconds;
    time_t date;

    if (n >= sizeof text)
        return -1;
    memcpy(text, value, n);
    text[n] = '\0';
    p += strspn(p, " \t");
    if (!read_seconds(p, &seconds)) {
        date = curl_getdate(p, NULL);
        if (date == -1)
            return -1;
        seconds = (int64_t)date - time(NULL);
    }
    return seconds < 0 ? 0 : seconds > RETRY_AFTER_MAX ? RETRY_AFTER_MAX : seconds;
}

void mj_curl_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = ' ';
}
