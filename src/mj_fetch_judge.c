#include "mj_fetch_judge.h"

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

bool mj_fetch_unpacked(const char *line, size_t n)
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
