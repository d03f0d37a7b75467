#include "download/image.h"

#include <string.h>
#include <strings.h>

static bool at(const unsigned char *head, size_t n, size_t from, const char *bytes, size_t len)
{
    return n >= from + len && memcmp(head + from, bytes, len) == 0;
}

mj_image mj_image_of(const unsigned char *h, size_t n)
{
    if (at(h, n, 0, "\x89PNG\r\n\x1a\n", 8))
        return MJ_IMAGE_PNG;
    if (at(h, n, 0, "\xff\xd8\xff", 3))
        return MJ_IMAGE_JPEG;
    if (at(h, n, 0, "RIFF", 4) && at(h, n, 8, "WEBP", 4))
        return MJ_IMAGE_WEBP;
    if (at(h, n, 0, "GIF87a", 6) || at(h, n, 0, "GIF89a", 6))
        return MJ_IMAGE_GIF;
    return MJ_IMAGE_NONE;
}

bool mj_image_named(const char *type)
{
    static const char *const names[] = {"image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"};
    size_t n = type ? strcspn(type, "; \t") : 0;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (n == strlen(names[i]) && strncasecmp(type, names[i], n) == 0)
            return true;
    return false;
}

const char *mj_image_ext(mj_image kind)
{
    static const char *const ends[] = {"", "png", "jpg", "webp", "gif"};
    return ends[kind];
}

const char *mj_image_type(mj_image kind)
{
    static const char *const types[] = {"", "image/png", "image/jpeg", "image/webp", "image/gif"};
    return types[kind];
}
