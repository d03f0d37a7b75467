/* mj_json: a reader of JSON (RFC 8259) that allocates nothing and copies nothing.
 *
 * mj_json_read() checks a whole document; walking through its parts afterwards can't fail.  Strict: the grammar, and
 * how deep a document may be nested.  Not strict: bytes in strings, which may be broken UTF-8 or control characters,
 * as sloppy writers send them, and half a surrogate pair.  Code that keeps the text deals with them; mj_json_plain()
 * detects them. */
#ifndef MJ_JSON_H
#define MJ_JSON_H

#include "base/buf.h"
#include "base/utf8.h"

enum {
    MJ_JSON_DEPTH = 24, /* the provider nests 4 deep; a deeper document is refused */
    MJ_JSON_KEY = 64    /* a longer key with escapes is not looked at; bytes */
};

typedef enum {
    MJ_JSON_NONE,
    MJ_JSON_NULL,
    MJ_JSON_BOOL,
    MJ_JSON_NUMBER,
    MJ_JSON_STRING,
    MJ_JSON_ARRAY,
    MJ_JSON_OBJECT,
} mj_json_type;

typedef struct mj_json {
    mj_json_type type;
    mj_str text; /* as in the document; a string is without its quotes and with its escapes */
} mj_json;

/* Reads a document.  NULL, or what is wrong at byte *at (from 0), and *root is none. */
const char *mj_json_read(mj_str text, mj_json *root, size_t *at);

/* Reads the next element of an array, or the next member of an object with its key (NULL: not wanted).  *rest begins
 * as the array or object and becomes the rest of it.  False: nothing is left, or it is another type. */
bool mj_json_next(mj_json *rest, mj_json *key, mj_json *value);
/* Whether a key (or any string) equals `name`, however it is escaped, unless that makes it longer than MJ_JSON_KEY. */
bool mj_json_is(const mj_json *key, mj_str name);

/* Writes the text of a string, without escapes, to `out`, which has room for string.text.n bytes.  Half a surrogate
 * pair becomes '?'.  Returns the number of bytes. */
size_t mj_json_unescape(const mj_json *string, char *out);

/* Reads a whole number of at most 2^53 in magnitude, given as a number without an exponent, or as a string of at most
 * 16 digits without escapes.  False: it is none, and *out is unchanged. */
bool mj_json_whole(const mj_json *value, int64_t *out);

/* Whether an ordinary reader takes the value: its text is UTF-8 without raw control characters and half pairs, and a
 * double holds its numbers. */
bool mj_json_plain(const mj_json *value);

#endif
