/* make bench, section submit: libcurl alone, what submit.lua compares with.
 *
 *   submit_curl_bench URL KEY COUNT CONNECTIONS [LOG]
 *
 * Sends COUNT submissions over CONNECTIONS kept connections: with one by the easy interface, with more by a multi
 * loop.  Nothing is stored; with LOG, a line is appended there and synced to disk before each submission and after it,
 * the least that "intent first" and "answer kept" cost any program.  Prints submissions, microseconds of wall clock
 * and of processor. */
#include <curl/curl.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 256 };

#define MUST(ok)                                                                                                       \
    do {                                                                                                               \
        if (!(ok)) {                                                                                                   \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #ok);                                                   \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

typedef struct request {
    CURL *easy;
    size_t answer_n;
    char body[600], answer[512];
} request;

static const char *url, *origin;
static size_t origin_n;
static struct curl_slist *headers;
static int log_fd = -1;

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static size_t take(char *p, size_t size, size_t n, void *arg)
{
    request *r = arg;
    size_t bytes = size * n;

    MUST(bytes < sizeof r->answer - r->answer_n);
    memcpy(r->answer + r->answer_n, p, bytes);
    r->answer_n += bytes;
    r->answer[r->answer_n] = '\0';
    return bytes;
}

static void make(request *r)
{
    MUST(r->easy = curl_easy_init());
    curl_easy_setopt(r->easy, CURLOPT_URL, url);
    curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(r->easy, CURLOPT_POSTFIELDS, r->body);
    curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(r->easy, CURLOPT_PRIVATE, r);
}

static void keep(const char *line, size_t n)
{
    if (log_fd >= 0) {
        MUST(write(log_fd, line, n) == (ssize_t)n);
        MUST(fdatasync(log_fd) == 0);
    }
}

/* The same words, and as many bytes, as mjhook sends. */
static void prepare(request *r, long i)
{
    int n = snprintf(r->body, sizeof r->body,
                     "{\"prompt\":\"a red fox in the snow, golden hour, take %06ld --ar 4:5 --niji 7\","
                     "\"mode\":\"fast\",\"timeout\":600,\"hookUrl\":\"%.*s\\/_sim\\/sink?ref=01KAR3DVQ0ZXQK0000%08ld"
                     "&a=1&kid=abcdefgh&sig=abcdefghijklmnopqrstuv\"}",
                     i, (int)origin_n, origin, i);

    MUST(n > 0 && (size_t)n < sizeof r->body);
    curl_easy_setopt(r->easy, CURLOPT_POSTFIELDSIZE, (long)n);
    r->answer_n = 0;
    keep(r->body, (size_t)n);
}

static void accepted(request *r)
{
    MUST(r->answer_n && strstr(r->answer, "\"taskId\":\""));
    keep(r->answer, r->answer_n);
}

static void one_after_another(long count)
{
    request r;

    make(&r);
    for (long i = 0; i < count; i++) {
        prepare(&r, i);
        MUST(curl_easy_perform(r.easy) == CURLE_OK);
        accepted(&r);
    }
    curl_easy_cleanup(r.easy);
}

static void side_by_side(long count, int connections)
{
    CURLM *multi = curl_multi_init();
    request *requests = calloc((size_t)connections, sizeof *requests);
    long begun = 0, ended = 0;
    int running, left;
    CURLMsg *m;

    MUST(multi && requests);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)connections);
    for (int i = 0; i < connections && begun < count; i++) {
        make(&requests[i]);
        prepare(&requests[i], begun++);
        MUST(curl_multi_add_handle(multi, requests[i].easy) == CURLM_OK);
    }
    while (ended < count) {
        MUST(curl_multi_perform(multi, &running) == CURLM_OK);
        while ((m = curl_multi_info_read(multi, &left)) != NULL) {
            request *r;
            MUST(m->data.result == CURLE_OK);
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &r);
            curl_multi_remove_handle(multi, r->easy);
            accepted(r);
            ended++;
            if (begun < count) {
                prepare(r, begun++);
                MUST(curl_multi_add_handle(multi, r->easy) == CURLM_OK);
                running++;
            }
        }
        if (ended < count)
            MUST(curl_multi_poll(multi, NULL, 0, 1000, NULL) == CURLM_OK);
    }
    for (int i = 0; i < connections; i++)
        curl_easy_cleanup(requests[i].easy);
    curl_multi_cleanup(multi);
    free(requests);
}

int main(int argc, char **argv)
{
    char key[300];
    double wall, cpu;
    long count;
    int connections;

    MUST(argc == 5 || argc == 6);
    url = origin = argv[1];
    MUST(strncmp(url, "http://", 7) == 0);
    origin_n = 7 + strcspn(url + 7, "/");
    count = strtol(argv[3], NULL, 10);
    connections = (int)strtol(argv[4], NULL, 10);
    MUST(count > 0 && connections > 0 && connections <= MAX_CONNECTIONS);
    if (argc == 6)
        MUST((log_fd = open(argv[5], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)) >= 0);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    snprintf(key, sizeof key, "API-KEY: %s", argv[2]);
    headers = curl_slist_append(NULL, "Content-Type: application/json");
    headers = curl_slist_append(headers, key);
    MUST(headers);

    wall = now_us();
    cpu = cpu_us();
    if (connections == 1)
        one_after_another(count);
    else
        side_by_side(count, connections);
    printf("%ld %.0f %.0f\n", count, now_us() - wall, cpu_us() - cpu);
    curl_slist_free_all(headers);
    curl_global_cleanup();
    return 0;
}
