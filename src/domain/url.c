#include "domain/url.h"

#include "base/utf8.h"

#include <string.h>
#include <strings.h>

static size_t scheme_of(const char *s, size_t n)
{
    return n > 8 && strncasecmp(s, "https://", 8) == 0 ? 8 : n > 7 && strncasecmp(s, "http://", 7) == 0 ? 7 : 0;
}

static bool is_bad(unsigned char c)
{
    return c < ' ' || c == 0x7f || c == '"' || c == '<' || c == '>' || c == '\\';
}

/* The host, perhaps with a port, at the start of a URL's rest. */
static size_t authority_of(const char *s, size_t n)
{
    size_t len = 0;

    while (len < n && s[len] != '/' && s[len] != '?' && s[len] != '#')
        len++;
    if (len == 0 || s[0] == ':' || memchr(s, '@', len) || memchr(s, ' ', len))
        return 0;
    return mj_utf8_valid(s, len) ? len : 0;
}

/* The ASCII characters that a plain URL does not have. */
/* clang-format off */
static const bool odd[128] = {
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    [' '] = 1, ['"'] = 1, ['%'] = 1, ['<'] = 1, ['>'] = 1, ['\\'] = 1, [0x7f] = 1,
};
/* clang-format on */

bool mj_url_plain(mj_str s)
{
    size_t head = s.n > 8 && memcmp(s.p, "https://", 8) == 0 ? 8 : s.n > 7 && memcmp(s.p, "http://", 7) == 0 ? 7 : 0;
    unsigned char high = 0;
    bool bad = false;

    if (head == 0)
        return false;
    for (uint32_t i = 0; i < s.n; i++) { /* no early end: nearly every URL is plain */
        unsigned char c = (unsigned char)s.p[i];
        high |= c;
        bad |= odd[c & 0x7f];
    }
    return !bad && high < 0x80 && authority_of(s.p + head, s.n - head) > 0;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

size_t mj_url_mend(const char *s, size_t n, char *out, size_t max)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t head = scheme_of(s, n), len = 0;

    if (head == 0 || authority_of(s + head, n - head) == 0)
        return 0;
    while (s[n - 1] == ' ') /* after the path: not part of a name */
        n--;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        bool keep = c > ' ' && c < 0x7f && (c != '%' || (n - i > 2 && is_hex(s[i + 1]) && is_hex(s[i + 2])));
        if (is_bad(c) || len + (keep ? 1 : 3) > max)
            return 0;
        if (keep) {
            out[len] = s[i];
            if (i < head && c >= 'A' && c <= 'Z')
                out[len] = (char)(c | 0x20);
            len++;
            continue;
        }
        out[len++] = '%';
        out[len++] = digits[c >> 4];
        out[len++] = digits[c & 15];
    }
    return len;
}
