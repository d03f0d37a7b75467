#include "download/checks.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

bool mj_fetch_host_is(const char *host, const char *allowed)
{
    size_t n = strlen(host), m = strlen(allowed);

    if (n > 0 && host[n - 1] == '.')
        n--;
    if (allowed[0] == '.')
        return n > m && strncasecmp(host + n - m, allowed, m) == 0;
    return n == m && strncasecmp(host, allowed, n) == 0;
}

bool mj_fetch_is_rest(const char *range, int64_t from, int64_t *total)
{
    long long first, last, all;
    int end = 0;

    /* sscanf itself would also take blanks and signs. */
    if (!range || strncmp(range, "bytes ", 6) != 0 || range[6 + strspn(range + 6, "0123456789-/")] != '\0' ||
        sscanf(range, "bytes %18lld-%18lld/%18lld%n", &first, &last, &all, &end) != 3 || range[end])
        return false;
    *total = all;
    return first == from && last == all - 1 && all > first;
}
