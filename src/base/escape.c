#include "base/escape.h"

#include <string.h>
#include <strings.h>

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The ASCII character that n hexadecimal digits name; -1: none. */
static int hex_ascii(const char *p, size_t n)
{
    int v = 0;

    for (size_t i = 0; i < n; i++) {
        int digit = hex(p[i]);
        if (digit < 0 || v > 0x7f)
            return -1;
        v = v * 16 + digit;
    }
    return v > 0 && v < 0x80 ? v : -1;
}

/* "&#61;", "&#x3d;", "&amp;". */
static size_t reference(const char *p, size_t n, char *c)
{
    static const struct {
        const char *name;
        char c;
    } names[] = {{"amp;", '&'},    {"quot;", '"'},  {"apos;", '\''},  {"lt;", '<'},  {"gt;", '>'},
                 {"equals;", '='}, {"colon;", ':'}, {"lowbar;", '_'}, {"sol;", '/'}, {"percnt;", '%'}};
    size_t i = 2;
    int v = 0;

    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        size_t len = strlen(names[k].name);
        if (n > len && strncasecmp(p + 1, names[k].name, len) == 0) {
            *c = names[k].c;
            return len + 1;
        }
    }
    if (n < 4 || p[1] != '#')
        return 0;
    if (p[2] == 'x' || p[2] == 'X')
        for (i = 3; i < n && i < 9 && hex(p[i]) >= 0; i++)
            v = v * 16 + hex(p[i]);
    else
        for (; i < n && i < 9 && p[i] >= '0' && p[i] <= '9'; i++)
            v = v * 10 + p[i] - '0';
    if (i >= n || p[i] != ';' || v <= 0 || v >= 0x80)
        return 0;
    *c = (char)v;
    return i + 1;
}

size_t mj_escape_at(const char *p, size_t n, char *c)
{
    static const char plain[] = "\"'\\/", letters[] = "nrt", meant[] = "\n\r\t";
    const char *at;
    int v = -1;
    size_t len = 0;

    if (p[0] == '&')
        return reference(p, n, c);
    if (p[0] == '%' && n >= 3) {
        v = hex_ascii(p + 1, 2);
        len = 3;
    } else if (p[0] == '\\' && n >= 2 && p[1] && strchr(plain, p[1])) {
        v = (unsigned char)p[1];
        len = 2;
    } else if (p[0] == '\\' && n >= 2 && p[1] && (at = strchr(letters, p[1]))) {
        v = (unsigned char)meant[at - letters];
        len = 2;
    } else if (p[0] == '\\' && n >= 6 && p[1] == 'u') {
        v = hex_ascii(p + 2, 4);
        len = 6;
    } else if (p[0] == '\\' && n >= 4 && p[1] == 'x') {
        v = hex_ascii(p + 2, 2);
        len = 4;
    }
    *c = (char)v;
    return v > 0 ? len : 0;
}
