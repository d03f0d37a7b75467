#include "mj_fetch.h"

#include "mj_addr.h"
#include "mj_error.h"
#include "mj_fault.h"
#include "mj_http.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

_Static_assert(LIBCURL_VERSION_NUM >= 0x075700, "mjhook needs libcurl 7.87 or newer"); /* see mj_http.c */

enum {
    DEFAULT_CONNECTIONS = 4,
    MAX_CONNECTIONS = 64,
    DEFAULT_CONNECT_MS = 10000,
    MAX_URL = 8192,
    MAX_HEADER = 128 * 1024, /* and trailer, and what informs before: libcurl keeps all of it */
    RETRY_AFTER_MAX = 86400,
    POLL_MS = 1000 /* a bound only */
};

typedef enum { WAITING, RUNNING, ENDED, GIVEN } step;

typedef struct item {
    step step;
    mj_fetch_request req; /* its url is ours */
    mj_fetch_result result;
    const mj_fetch *f;
    CURL *easy;
    CURLU *url;
    struct curl_slist *headers;
    char *etag; /* ours; NULL: starts from the first byte */
    char host[80];
    bool judged;                 /* the header was looked at, and is good */
    bool over;                   /* the outcome is known, whatever libcurl says */
    bool again;                  /* it can't be gone on with: once more, from its start */
    unsigned forbidden, allowed; /* addresses that were tried */
    int64_t at;                  /* bytes in the file */
    int64_t total;               /* bytes that a 206 said there would be; 0: not known */
    size_t header;               /* bytes of it */
    unsigned char head[MJ_IMAGE_HEAD];
    size_t nhead;
    char error[CURL_ERROR_SIZE];
} item;

struct mj_fetch {
    CURLM *multi;
    mj_fetch_options o;
    char *ca_file;
    bool listed; /* hosts are the only ones, also when they are none */
    struct curl_slist *hosts, *connect_to;
    pid_t pid;    /* whose connections these are */
    item **items; /* libcurl keeps pointers to them */
    size_t n, running;
};

static pthread_once_t init_once = PTHREAD_ONCE_INIT;
static bool initialised;

/* libcurl counts these and guards them itself, so mj_http's own does no harm. */
static void init(void)
{
    initialised = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

static bool copy_list(struct curl_slist **to, const char *const *from)
{
    for (; from && *from; from++) {
        struct curl_slist *more = curl_slist_append(*to, *from);
        if (!more)
            return false;
        *to = more;
    }
    return true;
}

mj_fetch *mj_fetch_new(const mj_fetch_options *o)
{
    mj_fetch *f;

    pthread_once(&init_once, init);
    f = initialised ? calloc(1, sizeof *f) : NULL;
    if (!f)
        return NULL;
    f->o = *o;
    if (f->o.connections <= 0)
        f->o.connections = DEFAULT_CONNECTIONS;
    if (f->o.connections > MAX_CONNECTIONS)
        f->o.connections = MAX_CONNECTIONS;
    if (f->o.connect_timeout_ms <= 0)
        f->o.connect_timeout_ms = DEFAULT_CONNECT_MS;
    f->pid = getpid();
    f->listed = o->hosts != NULL;
    f->ca_file = o->ca_file ? strdup(o->ca_file) : NULL;
    f->multi = curl_multi_init();
    if (!f->multi || (o->ca_file && !f->ca_file) || !copy_list(&f->hosts, o->hosts) ||
        !copy_list(&f->connect_to, o->connect_to)) {
        mj_fetch_free(f);
        return NULL;
    }
    curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, (long)f->o.connections);
    curl_multi_setopt(f->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)f->o.connections);
    return f;
}

/* After a fork the sockets are the parent's, too: a TLS goodbye from here would harm it. */
static bool forked(const mj_fetch *f)
{
    return f->pid != getpid();
}

static void release(mj_fetch *f, item *t)
{
    if (t->easy && !forked(f)) {
        curl_multi_remove_handle(f->multi, t->easy);
        curl_easy_cleanup(t->easy);
    }
    curl_slist_free_all(t->headers);
    t->easy = NULL;
    t->headers = NULL;
}

void mj_fetch_free(mj_fetch *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n; i++) {
        release(f, f->items[i]);
        curl_url_cleanup(f->items[i]->url);
        free(f->items[i]->etag);
        free(f->items[i]);
    }
    free(f->items);
    if (f->multi && !forked(f))
        curl_multi_cleanup(f->multi);
    curl_slist_free_all(f->hosts);
    curl_slist_free_all(f->connect_to);
    free(f->ca_file);
    free(f);
}

/* ---- verdicts ---- */

static void verdict(item *t, mj_fetch_outcome outcome, const char *why)
{
    mj_fetch_result *r = &t->result;

    t->over = true;
    r->outcome = outcome;
    if (t->host[0] && !strstr(why, t->host))
        snprintf(r->error, sizeof r->error, "%s: %.110s", t->host, why);
    else
        snprintf(r->error, sizeof r->error, "%.190s", why);
    for (char *p = r->error; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
}

static void disk_verdict(item *t)
{
    char why[100];

    verdict(t, MJ_FETCH_DISK, strerror_r(errno, why, sizeof why));
}

/* ---- the URL ---- */

/* A trailing dot is the same host. */
static bool host_is(const char *host, const char *allowed)
{
    size_t n = strlen(host), m = strlen(allowed);

    if (n > 0 && host[n - 1] == '.')
        n--;
    if (allowed[0] == '.')
        return n > m && strncasecmp(host + n - m, allowed, m) == 0;
    return n == m && strncasecmp(host, allowed, n) == 0;
}

static bool host_allowed(const mj_fetch *f, const char *host)
{
    if (!f->listed)
        return true;
    for (const struct curl_slist *h = f->hosts; h; h = h->next)
        if (host_is(host, h->data))
            return true;
    return false;
}

/* NULL: it may be fetched.  What is checked here is what libcurl goes by: it is given this very CURLU. */
static const char *read_url(item *t, const char *url)
{
    char *scheme = NULL, *host = NULL, *port = NULL;
    const char *why = NULL;
    CURLUcode rc =
        strlen(url) > MAX_URL ? CURLUE_MALFORMED_INPUT : curl_url_set(t->url, CURLUPART_URL, url, CURLU_DISALLOW_USER);

    if (rc == CURLUE_USER_NOT_ALLOWED)
        return "a URL with a user in it is not fetched";
    if (rc == CURLUE_OUT_OF_MEMORY)
        return "out of memory";
    if (rc != CURLUE_OK || curl_url_get(t->url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(t->url, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
        curl_url_get(t->url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK)
        why = "not a URL";
    else if (strcmp(scheme, "https") != 0)
        why = "not an https URL";
    if (!why)
        snprintf(t->host, sizeof t->host, "%s", host);
    if (!why && strcmp(port, "443") != 0)
        why = "a port other than 443 is not fetched from";
    else if (!why && !host_allowed(t->f, host))
        why = "not one of the hosts that are allowed";
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    return why;
}

int mj_fetch_add(mj_fetch *f, const mj_fetch_request *r, size_t *index)
{
    item **more = realloc(f->items, (f->n + 1) * sizeof *more), *t;
    const char *why;

    if (!more)
        return MJ_ENOMEM;
    f->items = more;
    t = calloc(1, sizeof *t);
    if (!t)
        return MJ_ENOMEM;
    t->f = f;
    t->req = *r;
    t->req.url = t->req.etag = NULL; /* the caller's: may be gone later */
    t->url = curl_url();
    t->result.retry_after = -1;
    t->at = r->have;
    /* One byte is asked for again: of a file that has them all there would be nothing to give, which is an error. */
    t->req.have = r->have - 1;
    if (t->req.have >= MJ_IMAGE_HEAD && t->req.have < f->o.max_bytes && r->etag)
        t->etag = strdup(r->etag);
    if (!t->url) {
        free(t->etag);
        free(t);
        return MJ_ENOMEM;
    }
    why = read_url(t, r->url);
    if (why) {
        verdict(t, MJ_FETCH_URL, why);
        t->step = ENDED;
    }
    *index = f->n;
    f->items[f->n++] = t;
    return MJ_OK;
}

/* ---- what libcurl calls ---- */

/* Each address, when it is about to be connected to.  libcurl goes on with the next one of the name. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    item *t = arg;

    (void)purpose;
    if (!t->f->o.allow_private &&
        (!mj_addr_public(&to->addr, to->addrlen) || mj_addr_port(&to->addr, to->addrlen) != 443)) {
        t->forbidden++;
        return CURL_SOCKET_BAD;
    }
    t->allowed++;
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* A header of the answer that is there once; NULL. */
static const char *header(const item *t, const char *name)
{
    struct curl_header *h;

    if (curl_easy_header(t->easy, name, 0, CURLH_HEADER, -1, &h) != CURLHE_OK || h->amount != 1)
        return NULL;
    return h->value;
}

static bool begin_fresh(item *t)
{
    t->at = t->total = 0;
    t->nhead = 0;
    if (ftruncate(t->req.fd, 0) != 0 || lseek(t->req.fd, 0, SEEK_SET) != 0 ||
        (t->req.fresh && !t->req.fresh(t->req.arg, header(t, "ETag")))) {
        disk_verdict(t);
        return false;
    }
    return true;
}

/* "bytes FROM-TO/TOTAL", all of the rest. */
static bool is_rest(const item *t, int64_t *total)
{
    const char *range = header(t, "Content-Range"), *etag = header(t, "ETag");
    long long from, to, all;
    int end = 0;

    if (!range || sscanf(range, "bytes %18lld-%18lld/%18lld%n", &from, &to, &all, &end) != 3 || range[end])
        return false;
    *total = all;
    return from == t->req.have && to == all - 1 && all > from && etag && strcmp(etag, t->etag) == 0;
}

static bool judge_rest(item *t)
{
    ssize_t n;

    /* Beside If-Range a 206 need not say the type again. */
    if (!is_rest(t, &t->total) || (header(t, "Content-Type") && !mj_image_named(header(t, "Content-Type")))) {
        t->again = true;
        return false;
    }
    if (t->total > t->f->o.max_bytes) {
        verdict(t, MJ_FETCH_SIZE, "larger than allowed");
        return false;
    }
    n = pread(t->req.fd, t->head, sizeof t->head, 0);
    if (n != (ssize_t)sizeof t->head || lseek(t->req.fd, t->req.have, SEEK_SET) != t->req.have) {
        disk_verdict(t);
        return false;
    }
    t->nhead = sizeof t->head;
    t->at = t->req.have;
    return true;
}

/* The header, when the body begins or there is none.  False: no more of it. */
static bool judge(item *t)
{
    long status = 0;
    curl_off_t length = -1;
    char why[60];

    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    t->result.status = (int)status;
    if (status == 206 && t->etag)
        return judge_rest(t);
    if (status == 416 && t->etag) {
        t->again = true;
        return false;
    }
    if (status != 200) {
        curl_off_t after = 0;
        curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &after);
        if (after > 0)
            t->result.retry_after = after > RETRY_AFTER_MAX ? RETRY_AFTER_MAX : after;
        snprintf(why, sizeof why,
                 status >= 300 && status <= 399 ? "answered %ld, and redirects are not followed" : "answered %ld",
                 status);
        verdict(t, MJ_FETCH_STATUS, why);
        return false;
    }
    if (!mj_image_named(header(t, "Content-Type"))) {
        snprintf(why, sizeof why, "not an image by its type, \"%.30s\"",
                 header(t, "Content-Type") ? header(t, "Content-Type") : "");
        verdict(t, MJ_FETCH_TYPE, why);
        return false;
    }
    if (length > t->f->o.max_bytes) {
        verdict(t, MJ_FETCH_SIZE, "larger than allowed");
        return false;
    }
    /* libcurl takes a connection that was torn off for the end of such a one, also within TLS. */
    if (length < 0 && !header(t, "Transfer-Encoding")) {
        verdict(t, MJ_FETCH_NET, "an answer without a length, of which nobody knows whether it is whole");
        return false;
    }
    return begin_fresh(t);
}

/* A line of the header, for libcurl unpacks what a server says it has packed, asked for or not: gigabytes that come
 * to nothing can be packed into little, and this would be busy with them beyond any deadline. */
static bool unpacked(const char *line, size_t n)
{
    static const char name[] = "Transfer-Encoding:", value[] = "chunked";
    size_t at = sizeof name - 1;

    if (n < at || strncasecmp(line, name, at) != 0)
        return true;
    while (at < n && (line[at] == ' ' || line[at] == '\t'))
        at++;
    while (n > at && strchr(" \t\r\n", line[n - 1]))
        n--;
    return n - at == sizeof value - 1 && strncasecmp(line + at, value, n - at) == 0;
}

static size_t take_header(char *line, size_t size, size_t n, void *arg)
{
    item *t = arg;
    size_t bytes = size * n;

    t->header += bytes;
    if (t->header > MAX_HEADER) {
        verdict(t, MJ_FETCH_NET, "the header has no end");
        return CURL_WRITEFUNC_ERROR;
    }
    if (!unpacked(line, bytes)) {
        verdict(t, MJ_FETCH_TYPE, "packed in a way that it was not asked for");
        return CURL_WRITEFUNC_ERROR;
    }
    return bytes;
}

static bool judge_once(item *t)
{
    if (t->over || t->again)
        return false;
    if (!t->judged)
        t->judged = judge(t);
    return t->judged;
}

/* True as long as it may still become an image. */
static bool sniff(item *t, const char *p, size_t n)
{
    if (t->nhead < sizeof t->head) {
        size_t room = sizeof t->head - t->nhead;
        memcpy(t->head + t->nhead, p, n < room ? n : room);
        t->nhead += n < room ? n : room;
    }
    if (t->nhead == sizeof t->head && mj_image_of(t->head, t->nhead) == MJ_IMAGE_NONE) {
        verdict(t, MJ_FETCH_TYPE, "not an image by its first bytes");
        return false;
    }
    return true;
}

static size_t take_body(char *from, size_t size, size_t n, void *arg)
{
    item *t = arg;
    size_t bytes = size * n, left = bytes;

    if (!judge_once(t))
        return CURL_WRITEFUNC_ERROR;
    if ((int64_t)bytes > t->f->o.max_bytes - t->at) {
        verdict(t, MJ_FETCH_SIZE, "larger than allowed");
        return CURL_WRITEFUNC_ERROR;
    }
    if (!sniff(t, from, bytes))
        return CURL_WRITEFUNC_ERROR;
    while (left > 0) {
        ssize_t w = write(t->req.fd, from + (bytes - left), left);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0) {
            disk_verdict(t);
            return CURL_WRITEFUNC_ERROR;
        }
        left -= (size_t)w;
        t->at += w;
        t->result.received += w;
    }
    MJ_FAULT("fetch.written");
    return bytes;
}

/* ---- one download ---- */

static bool add_header(item *t, const char *name, const char *value)
{
    char line[600];
    int n = snprintf(line, sizeof line, "%s: %s", name, value);
    struct curl_slist *more = n > 0 && (size_t)n < sizeof line ? curl_slist_append(t->headers, line) : NULL;

    if (more)
        t->headers = more;
    return more != NULL;
}

static bool set_range(item *t)
{
    char range[40];

    if (!t->etag)
        return true;
    snprintf(range, sizeof range, "bytes=%lld-", (long long)t->req.have);
    return add_header(t, "Range", range) && add_header(t, "If-Range", t->etag);
}

static bool set_up(mj_fetch *f, item *t)
{
    CURL *e = t->easy;
    bool ok = add_header(t, "Accept", "image/png, image/jpeg, image/webp, image/gif") &&
              add_header(t, "Accept-Encoding", "identity") && set_range(t);

#define SET(option, value) ok = curl_easy_setopt(e, CURLOPT_##option, value) == CURLE_OK && ok
    SET(CURLU, t->url);
    SET(HTTPHEADER, t->headers);
    SET(PRIVATE, t);
    SET(ERRORBUFFER, t->error);
    SET(HEADERFUNCTION, take_header);
    SET(HEADERDATA, t);
    SET(WRITEFUNCTION, take_body);
    SET(WRITEDATA, t);
    SET(OPENSOCKETFUNCTION, open_socket);
    SET(OPENSOCKETDATA, t);
    SET(USERAGENT, "mjhook");
    SET(PROTOCOLS_STR, "https");
    SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(HTTP09_ALLOWED, 0L);
    SET(FOLLOWLOCATION, 0L);
    SET(PROXY, ""); /* nor one from the environment */
    SET(NETRC, (long)CURL_NETRC_IGNORED);
    SET(NOSIGNAL, 1L);
    SET(QUICK_EXIT, 1L); /* a name server that hangs holds nobody up beyond the deadline */
    SET(TCP_NODELAY, 1L);
    SET(BUFFERSIZE, 65536L);
    SET(CONNECTTIMEOUT_MS, (long)f->o.connect_timeout_ms);
    SET(SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(SSL_VERIFYPEER, 1L);
    SET(SSL_VERIFYHOST, 2L);
    if (f->ca_file) {
        SET(CAINFO, f->ca_file);
        SET(CAPATH, NULL);
    }
    if (f->connect_to)
        SET(CONNECT_TO, f->connect_to);
#undef SET
    return ok;
}

static void begin(mj_fetch *f, item *t)
{
    t->judged = t->again = false;
    t->forbidden = t->allowed = 0;
    t->result.status = 0;
    t->header = 0;
    t->error[0] = '\0';
    t->easy = curl_easy_init();
    if (t->easy && set_up(f, t) && curl_multi_add_handle(f->multi, t->easy) == CURLM_OK) {
        t->step = RUNNING;
        f->running++;
        return;
    }
    verdict(t, MJ_FETCH_NET, "out of memory");
    release(f, t);
    t->step = ENDED;
}

static void net_verdict(item *t, CURLcode rc)
{
    if (t->forbidden && !t->allowed)
        verdict(t, MJ_FETCH_ADDRESS, "no public address: not connected to");
    else
        verdict(t, MJ_FETCH_NET, t->error[0] ? t->error : curl_easy_strerror(rc));
}

/* The body is complete, by what libcurl knows of its length. */
static void complete(item *t)
{
    mj_image kind = mj_image_of(t->head, t->nhead);

    if (t->total && t->at != t->total) {
        verdict(t, MJ_FETCH_NET, "the answer broke off");
    } else if (t->at == 0) {
        verdict(t, MJ_FETCH_NET, "an empty answer");
    } else if (kind == MJ_IMAGE_NONE) {
        verdict(t, MJ_FETCH_TYPE, "not an image by its first bytes");
    } else {
        t->over = true;
        t->result.outcome = MJ_FETCH_DONE;
        t->result.kind = kind;
    }
}

static void finish(mj_fetch *f, item *t, CURLcode rc)
{
    if (rc == CURLE_OK && judge_once(t))
        complete(t);
    else if (!t->over && !t->again)
        net_verdict(t, rc);
    release(f, t);
    f->running--;
    if (t->again) { /* once: then it has no ETag any more */
        free(t->etag);
        t->etag = NULL;
        t->step = WAITING;
        return;
    }
    t->step = ENDED;
}

/* ---- the batch ---- */

static void end_all(mj_fetch *f, mj_fetch_outcome outcome, const char *why)
{
    for (size_t i = 0; i < f->n; i++) {
        item *t = f->items[i];
        if (t->step == RUNNING)
            f->running--;
        if (t->step == RUNNING || t->step == WAITING) {
            if (!t->over)
                verdict(t, outcome, why);
            release(f, t);
            t->step = ENDED;
        }
    }
}

static bool give(mj_fetch *f, size_t *index, mj_fetch_result *out)
{
    for (size_t i = 0; i < f->n; i++) {
        item *t = f->items[i];
        if (t->step == ENDED) {
            t->step = GIVEN;
            t->result.bytes = t->at;
            *out = t->result;
            *index = i;
            return true;
        }
    }
    return false;
}

static void start_waiting(mj_fetch *f)
{
    for (size_t i = 0; i < f->n && f->running < (size_t)f->o.connections; i++)
        if (f->items[i]->step == WAITING)
            begin(f, f->items[i]);
}

/* True when something ended. */
static bool collect(mj_fetch *f)
{
    bool any = false;
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(f->multi, &left)) != NULL) {
        item *t = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t);
        finish(f, t, m->data.result);
        any = true;
    }
    return any;
}

int mj_fetch_next(mj_fetch *f, int64_t deadline_ms, size_t *index, mj_fetch_result *out)
{
    CURLMcode rc;
    int64_t now, left;
    int n;

    while (!give(f, index, out)) {
        if (forked(f))
            end_all(f, MJ_FETCH_NET, "the connection belongs to the process that this one was forked from");
        start_waiting(f);
        if (f->running == 0)
            return give(f, index, out) ? MJ_OK : MJ_ENOTFOUND;
        now = mj_http_clock();
        if (now >= deadline_ms) {
            end_all(f, MJ_FETCH_TIME, "not finished in time");
            continue;
        }
        left = deadline_ms - now;
        rc = curl_multi_perform(f->multi, &n);
        if (!collect(f) && rc == CURLM_OK)
            rc = curl_multi_poll(f->multi, NULL, 0, (int)(left < POLL_MS ? left : POLL_MS), NULL);
        if (rc != CURLM_OK)
            end_all(f, MJ_FETCH_NET, curl_multi_strerror(rc));
    }
    return MJ_OK;
}
