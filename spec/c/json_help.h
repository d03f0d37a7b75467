/* Text that ends where its memory does: a sanitizer sees what is read beyond it. */
#ifndef JSON_HELP_H
#define JSON_HELP_H

#include "mj_test.h"
#include "provider/json.h"

#define N(a) (sizeof(a) / sizeof(a)[0])

/* A copy of exactly n bytes, without a NUL; the one made before it is gone. */
static inline mj_str exactly(const char *text, size_t n)
{
    static char *last;

    free(last);
    last = malloc(n);
    CHECK(last != NULL);
    if (n)
        memcpy(last, text, n);
    return (mj_str){last, (uint32_t)n};
}

static inline mj_str exact(const char *text)
{
    return exactly(text, strlen(text));
}

#define CHECK_TEXT(got_, want_)                                                                                        \
    do {                                                                                                               \
        mj_str s_ = (got_);                                                                                            \
        const char *t_ = (want_);                                                                                      \
        if (s_.n != strlen(t_) || (s_.n && memcmp(s_.p, t_, s_.n) != 0))                                               \
            MJ_TEST_FAIL("%s is \"%.*s\", not \"%s\"", #got_, (int)s_.n, s_.n ? s_.p : "", t_);                        \
    } while (0)

/* A document that has to be good. */
static inline mj_json document(mj_str text)
{
    mj_json root;
    size_t at;
    const char *why = mj_json_read(text, &root, &at);

    if (why)
        MJ_TEST_FAIL("%.*s: %s at %zu", (int)text.n, text.p, why, at);
    return root;
}

#endif
