/* mj_gunzip: bodies that arrive compressed although the request did not ask for compression.
 *
 * Some frameworks and proxies compress every body.  The first bytes tell: no JSON text begins like a gzip or zlib
 * stream, so no header has to be trusted. */
#ifndef MJ_GUNZIP_H
#define MJ_GUNZIP_H

#include "base/buf.h"

/* Whether it begins like a compressed body. */
bool mj_is_compressed(mj_str body);

/* *plain becomes the body itself if that is not compressed (then nothing is allocated, and max does not count),
 * otherwise the unpacked text, which lies in *out.  Begin with {0} and call mj_buf_free() in any case.  Several
 * members in a row are one text; other bytes after the last member are ignored, as gzip(1) does.  MJ_EINVAL: damaged
 * or cut short; MJ_ELIMIT: the text is longer than max; MJ_ENOMEM. */
int mj_gunzip(mj_str body, uint32_t max, mj_buf *out, mj_str *plain);

#endif
