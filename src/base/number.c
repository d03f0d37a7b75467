#include "base/number.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static locale_t c_locale;

static void make_locale(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* needs no memory in glibc and musl */
}

/* Makes it this thread's locale; returns the one before. */
static locale_t enter(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_locale);
    return uselocale(c_locale);
}

double mj_number_read(const char *p)
{
    locale_t before = enter();
    double v = strtod(p, NULL);

    uselocale(before);
    return v;
}

size_t mj_number_write(double v, int digits, char out[MJ_NUMBER_TEXT])
{
    locale_t before = enter();
    int n = 0;

    if (digits == 0 && v == floor(v) && v > -9007199254740992.0 && v < 9007199254740992.0)
        n = snprintf(out, MJ_NUMBER_TEXT, "%.0f", v);
    else if (digits != 0)
        n = snprintf(out, MJ_NUMBER_TEXT, "%.*g", digits, v);
    else
        for (digits = 14; digits <= 17; digits++) {
            n = snprintf(out, MJ_NUMBER_TEXT, "%.*g", digits, v);
            if (strtod(out, NULL) == v)
                break;
        }
    uselocale(before);
    return (size_t)n;
}
