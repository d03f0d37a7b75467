/* mj_framing: what an HTTP answer consists of besides its body, and how much of it there may be.
 *
 * Every byte that is no body is counted: header lines, also those of interim
 * answers, of proxies and of lines that are folded, the extensions of chunks and
 * the trailer.  libcurl counts none of them and keeps most.  It passes chunked
 * bodies on as they are (CURLOPT_HTTP_TRANSFER_DECODING is off), because of a
 * chunk's extension it tells nothing. */
#ifndef MJ_FRAMING_H
#define MJ_FRAMING_H

#include "base/buf.h"

enum { MJ_FRAMING_MAX = 128 * 1024 }; /* bytes an answer may have besides its body; servers usually allow 8 to 16 KiB */

typedef enum {
    MJ_CHUNK_SIZE,     /* hexadecimal digits */
    MJ_CHUNK_LINE,     /* the rest of their line: an extension */
    MJ_CHUNK_DATA,     /* `left` bytes of body */
    MJ_CHUNK_DATA_END, /* the line break behind them */
    MJ_CHUNK_TRAILER,  /* at the beginning of a line behind the last chunk */
    MJ_CHUNK_FIELD,    /* in the middle of such a line */
    MJ_CHUNK_DONE,     /* the empty line was there */
} mj_chunk_state;

typedef struct mj_framing { /* {0} before the first byte */
    const char *fault;      /* why the answer can't be used, for people; NULL */
    bool packed;            /* that is: in an encoding that was not asked for */
    size_t bytes;           /* that are no body */
    bool chunked;           /* the header says so */
    mj_chunk_state at;
    uint64_t left;
    unsigned digits;
    bool cr; /* one was there already */
} mj_framing;

/* A line of a header, as it came.  False: no more of this answer, see fault. */
bool mj_framing_line(mj_framing *f, const char *line, size_t n);
/* What came before was another answer's, an interim one or a proxy's: its bytes count all the same. */
void mj_framing_again(mj_framing *f);
/* Bytes behind the header: the next piece of body among them, *in becomes what is left.  False: there is no other one,
 * all of *in was read, or there is a fault. */
bool mj_framing_body(mj_framing *f, mj_str *in, mj_str *piece);
/* Whether a chunked body and its trailer are complete. */
bool mj_framing_done(const mj_framing *f);

#endif
