#include "net/curl.h"

#include "net/http.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { RETRY_AFTER_MAX = 86400 };

const mj_curl_library *mj_curl = &mj_curl_linked;
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

static const char KEY_LOG[] = "SSLKEYLOGFILE";
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool ready;

static void init(void)
{
    const char *given = getenv(KEY_LOG);
    char *kept = given ? strdup(given) : NULL;

    if (given)
        unsetenv(KEY_LOG);
    ready = mj_curl->global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK; /* here libcurl looks at the variable */
    if (kept)
        setenv(KEY_LOG, kept, 0); /* restore it: other libraries of this process may want it */
    free(kept);
}

static bool loaded(void)
{
    return __atomic_load_n(&mj_curl, __ATOMIC_ACQUIRE) != NULL;
}

bool mj_http_load(const void *library)
{
    const mj_curl_library *l = library;

    if (!l || l->size != sizeof *l)
        return false;
    pthread_mutex_lock(&loading); /* other threads may use the table already: then it is not written again */
    if (!loaded())
        __atomic_store_n(&mj_curl, l, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&loading);
    return true;
}

const char *mj_http_library(void)
{
    return loaded() ? mj_curl->version() : NULL;
}

bool mj_curl_ready(void)
{
    if (!loaded())
        return false;
    pthread_once(&once, init);
    return ready;
}

/* Like libcurl's own, but programs that this process starts do not inherit the socket. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    (void)arg, (void)purpose;
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

CURL *mj_curl_new(const mj_curl_setup *s)
{
    CURL *e = mj_curl->easy_init();
    bool ok = true;

    if (!e)
        return NULL;
    MJ_CURL_SET(OPENSOCKETFUNCTION, open_socket);
    MJ_CURL_SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    MJ_CURL_SET(HTTP09_ALLOWED, 0L);
    MJ_CURL_SET(HTTP_TRANSFER_DECODING, 0L); /* see net/framing.h */
    MJ_CURL_SET(FOLLOWLOCATION, 0L);
    MJ_CURL_SET(PROTOCOLS_STR, "http,https");
    MJ_CURL_SET(NETRC, (long)CURL_NETRC_IGNORED);
    MJ_CURL_SET(PROXY, "");   /* "": no proxy, not even the environment's */
    MJ_CURL_SET(NOPROXY, ""); /* no exceptions of the environment, for clients that set a proxy */
    MJ_CURL_SET(NOSIGNAL, 1L);
    MJ_CURL_SET(QUICK_EXIT, 1L); /* a name server that hangs delays nothing beyond the timeout */
    MJ_CURL_SET(TCP_NODELAY, 1L);
    MJ_CURL_SET(TCP_KEEPALIVE, 1L);
    MJ_CURL_SET(SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    MJ_CURL_SET(SSL_VERIFYPEER, s->insecure ? 0L : 1L);
    MJ_CURL_SET(SSL_VERIFYHOST, s->insecure ? 0L : 2L);
    if (s->ca_file) {
        MJ_CURL_SET(CAINFO, s->ca_file);
        MJ_CURL_SET(CAPATH, NULL); /* libcurl's default directory would be trusted beside it */
    }
    if (s->parsed)
        MJ_CURL_SET(CURLU, s->parsed);
    else
        MJ_CURL_SET(URL, s->url);
    MJ_CURL_SET(USERAGENT, s->user_agent);
    MJ_CURL_SET(HTTPHEADER, s->headers);
    MJ_CURL_SET(HEADERFUNCTION, s->header);
    MJ_CURL_SET(WRITEFUNCTION, s->body);
    MJ_CURL_SET(HEADERDATA, s->arg);
    MJ_CURL_SET(WRITEDATA, s->arg);
    MJ_CURL_SET(PRIVATE, s->arg);
    MJ_CURL_SET(ERRORBUFFER, s->error);
    MJ_CURL_SET(CONNECTTIMEOUT_MS, s->connect_ms);
    MJ_CURL_SET(TIMEOUT_MS, s->timeout_ms);
    if (ok)
        return e;
    mj_curl->easy_cleanup(e);
    return NULL;
}

bool mj_curl_header(struct curl_slist **headers, const char *line)
{
    struct curl_slist *more = strpbrk(line, "\r\n") ? NULL : mj_curl->slist_append(*headers, line);

    if (more)
        *headers = more;
    return more != NULL;
}

CURLM *mj_curl_multi(int connections)
{
    CURLM *m = mj_curl->multi_init();

    if (m) {
        mj_curl->multi_setopt(m, CURLMOPT_MAXCONNECTS, (long)connections);
        mj_curl->multi_setopt(m, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)connections);
    }
    return m;
}

void *mj_curl_ended(CURLM *multi, CURLcode *result)
{
    CURLMsg *m;
    int left;

    while ((m = mj_curl->multi_info_read(multi, &left)) != NULL) {
        void *arg = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        *result = m->data.result;
        mj_curl->easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &arg);
        return arg;
    }
    return NULL;
}

static bool only_blanks(const char *p)
{
    return p[strspn(p, " \t\r\n")] == '\0';
}

/* By hand: strtod depends on the locale and accepts more than a header may contain. */
static bool read_seconds(const char *p, int64_t *seconds)
{
    size_t digits = strspn(p, "0123456789");
    bool more = false;

    if (digits == 0)
        return false;
    *seconds = strtoll(p, NULL, 10); /* a number that is too long becomes the largest one */
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
        date = mj_curl->getdate(p, NULL);
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
