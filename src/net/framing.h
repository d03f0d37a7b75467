/* mj_framing: what an HTTP answer contains besides its body, and a bound on it.
 *
 * It counts every byte outside the body: header lines, also those of interim answers, of proxies and folded ones, the
 * extensions of chunks and the trailer.  libcurl counts none of them and keeps most.  It passes chunked bodies on as
 * they are (CURLOPT_HTTP_TRANSFER_DECODING is off), because libcurl does not report a chunk's extension. */
#ifndef MJ_FRAMING_H
#define MJ_FRAMING_H

#include "base/buf.h"

enum { MJ_FRAMING_MAX = 128 * 1024 }; /* bytes outside the body, at most; servers usually allow 8 to 16 KiB */

typedef enum {
    MJ_CHUNK_SIZE,     /* hexadecimal digits */
    MJ_CHUNK_LINE,     /* the rest of the line: an extension */
    MJ_CHUNK_DATA,     /* `left` bytes of body */
    MJ_CHUNK_DATA_END, /* the line break after them */
    MJ_CHUNK_TRAILER,  /* at the start of a line after the last chunk */
    MJ_CHUNK_FIELD,    /* within such a line */
    MJ_CHUNK_DONE,     /* after the empty line */
} mj_chunk_state;

typedef struct mj_framing { /* {0} before the first byte */
    const char *fault;      /* why the answer can't be used, for people; NULL */
    bool packed;            /* its cause: an encoding that was not asked for */
    size_t bytes;           /* outside the body */
    bool chunked;           /* the header says so */
    mj_chunk_state at;
    uint64_t left;
    unsigned digits;
    bool cr; /* a CR was there */
} mj_framing;

/* Takes a header line, as it came.  False: stop, see fault. */
bool mj_framing_line(mj_framing *f, const char *line, size_t n);
/* The header so far was another answer's, an interim one or a proxy's; its bytes still count. */
void mj_framing_again(mj_framing *f);
/* Takes bytes after the header: *piece becomes the next piece of body, *in becomes the rest.  False: there is no other
 * piece and all of *in was read, or there is a fault. */
bool mj_framing_body(mj_framing *f, mj_str *in, mj_str *piece);
/* Whether a chunked body and its trailer are complete. */
bool mj_framing_done(const mj_framing *f);

#endif
