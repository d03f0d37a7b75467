#include "base/error.h"

#include <stddef.h>

static const struct {
    int code;
    const char *name;
    const char *text;
    bool retryable;
} errors[] = {
#define X(sym, val, name, retry, text) {sym, name, text, retry},
    MJ_ERRORS(X)
#undef X
};

static size_t find(int code)
{
    size_t i = 0;
    while (i < sizeof errors / sizeof errors[0] && errors[i].code != code)
        i++;
    return i;
}

const char *mj_error_name(int code)
{
    size_t i = find(code);
    if (code == MJ_OK)
        return "ok";
    return i < sizeof errors / sizeof errors[0] ? errors[i].name : "internal";
}

const char *mj_error_text(int code)
{
    size_t i = find(code);
    if (code == MJ_OK)
        return "done";
    return i < sizeof errors / sizeof errors[0] ? errors[i].text : "internal error";
}

bool mj_error_retryable(int code)
{
    size_t i = find(code);
    return i < sizeof errors / sizeof errors[0] && errors[i].retryable;
}
