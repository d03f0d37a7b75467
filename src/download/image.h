/* mj_image: the kind of an image, by its first bytes and by a header.  Pure. */
#ifndef MJ_IMAGE_H
#define MJ_IMAGE_H

#include <stdbool.h>
#include <stddef.h>

enum { MJ_IMAGE_HEAD = 12 }; /* first bytes that are needed */

typedef enum { MJ_IMAGE_NONE, MJ_IMAGE_PNG, MJ_IMAGE_JPEG, MJ_IMAGE_WEBP, MJ_IMAGE_GIF } mj_image;

mj_image mj_image_of(const unsigned char *head, size_t n);
/* Whether a Content-Type (parameters and all; may be NULL) names one of these kinds. */
bool mj_image_named(const char *content_type);
/* "png", "jpg", "webp", "gif": the end of a file's name; "" for none. */
const char *mj_image_ext(mj_image kind);
/* "image/png" ...; "" for none. */
const char *mj_image_type(mj_image kind);

#endif
