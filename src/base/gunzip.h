/* mj_gunzip: bodies that arrive compressed although nobody asked for it.
 *
 * Some frameworks and proxies compress every body.  The first bytes tell: no JSON
 * text begins like a gzip or zlib stream, so no header has to be trusted. */
#ifndef MJ_GUNZIP_H
#define MJ_GUNZIP_H

#include "base/buf.h"

/* *plain is the body itself when it is not compressed (then nothing is allocated and max does not count), otherwise
 * what it becomes, which lies in *out; begin with {0}, and mj_buf_free() it in any case.  Members that follow each
 * other are one text; other bytes behind the last member are ignored, as gzip(1) does.
 * MJ_EINVAL: damaged or cut short; MJ_ELIMIT: it becomes more than max bytes; MJ_ENOMEM. */
int mj_gunzip(mj_str body, uint32_t max, mj_buf *out, mj_str *plain);

#endif
