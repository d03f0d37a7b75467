/* For what make fuzz runs: mutations of good inputs, in place, and a parent that tells which case a child died of. */
#ifndef FUZZ_H
#define FUZZ_H

#include "base/buf.h"
#include "rng.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FUZZ_BYTES = 1 << 18 };

#define N(array_) (sizeof(array_) / sizeof(array_)[0])

#define MUST(cond_)                                                                                                    \
    do {                                                                                                               \
        if (!(cond_)) {                                                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond_);                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The case at hand, in memory that outlives the child. */
static struct fuzz_shown {
    uint64_t number, kinds[16], accepted[16];
    size_t target, n;
    uint8_t bytes[FUZZ_BYTES];
} * now;

static inline double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void put_in(uint8_t *p, size_t *n, size_t max, size_t at, const void *what, size_t len)
{
    if (*n + len > max)
        return;
    memmove(p + at + len, p + at, *n - at);
    memcpy(p + at, what, len);
    *n += len;
}

/* A part of it over again, so often that it is long. */
static inline void grow(rng *r, uint8_t *p, size_t *n, size_t max, size_t at)
{
    uint8_t part[64];
    size_t len = 1 + below(r, sizeof part), times = 1 + below(r, chance(r, 5) ? 5000 : 40);

    len = len < *n - at ? len : *n - at;
    if (len == 0 || *n + len * times > max)
        return;
    memcpy(part, p + at, len);
    memmove(p + at + len * times, p + at, *n - at);
    for (size_t i = 0; i < times; i++)
        memcpy(p + at + i * len, part, len);
    *n += len * times;
}

/* Once, of *n bytes that may become max: a bit, a byte, a part less or more, a part of another input, or one of the
 * tokens, if there are any. */
static inline void mutate(rng *r, uint8_t *p, size_t *n, size_t max, const char *const *tokens, size_t ntokens,
                          const mj_buf *other)
{
    static const uint8_t bytes[] = {0,    1,    2,    3,    7,    8,    9,    0x1f, 0x20,
                                    0x22, 0x5c, 0x7f, 0x80, 0x81, 0xbf, 0xc0, 0xfe, 0xff};
    size_t at = *n ? below(r, (uint32_t)*n) : 0, len = 1 + below(r, 16), from;
    const char *token;

    len = len < *n - at ? len : *n - at;
    switch (below(r, ntokens ? 10 : 8)) {
    case 0:
        if (*n)
            p[at] = (uint8_t)(p[at] ^ 1u << below(r, 8));
        break;
    case 1:
        if (*n)
            p[at] = bytes[below(r, sizeof bytes)];
        break;
    case 2:
        put_in(p, n, max, at, &(uint8_t){(uint8_t)draw(r)}, 1);
        break;
    case 3:
        memmove(p + at, p + at + len, *n - at - len);
        *n -= len;
        break;
    case 4:
        *n = at;
        break;
    case 5:
        grow(r, p, n, max, at);
        break;
    case 6: /* a part of another one, put in or put over */
        from = below(r, (uint32_t)other->n);
        len = 1 + below(r, (uint32_t)(other->n - from));
        if (chance(r, 50))
            put_in(p, n, max, at, other->p + from, len);
        else
            memcpy(p + at, other->p + from, len < *n - at ? len : *n - at);
        break;
    case 7:
        if (*n)
            p[at] = (uint8_t)draw(r);
        break;
    default:
        token = tokens[below(r, (uint32_t)ntokens)];
        put_in(p, n, max, at, token, strlen(token));
    }
}

typedef struct fuzz_program {
    void (*prepare)(void);
    void (*run)(double limit, uint64_t seed, const char *only); /* only: the number of one case, or NULL */
    const char *(*name_of)(size_t target);
} fuzz_program;

static inline void fuzz_tell(const char *which, const fuzz_program *f, uint64_t seed)
{
    fprintf(stderr,
            "\ncase %" PRIu64 " of seed %" PRIu64 " (%s, %zu bytes); again: make fuzz ARGS='%s 0 %" PRIu64 " %" PRIu64
            "'\n",
            now->number, seed, f->name_of(now->target), now->n, which, seed, now->number);
    for (size_t i = 0; i < now->n && i < 4096; i++)
        fprintf(stderr, now->bytes[i] >= ' ' && now->bytes[i] < 0x7f && now->bytes[i] != '\\' ? "%c" : "\\x%02x",
                now->bytes[i]);
    fprintf(stderr, "\n");
}

/* Arguments: seconds, seed, one case of it alone. */
static inline int fuzz_main(int argc, char **argv, const char *which, const fuzz_program *f)
{
    double limit = argc > 1 ? strtod(argv[1], NULL) : 20;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL);
    int ended;
    pid_t pid;

    now = mmap(NULL, sizeof *now, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(now != MAP_FAILED);
    printf("%s, seed %" PRIu64 "\n", which, seed);
    fflush(stdout);
    pid = fork();
    MUST(pid >= 0);
    if (pid == 0) {
        f->prepare();
        f->run(limit, seed, argc > 3 ? argv[3] : NULL);
        exit(0);
    }
    MUST(waitpid(pid, &ended, 0) == pid);
    if (ended != 0)
        fuzz_tell(which, f, seed);
    return ended != 0;
}

#endif
