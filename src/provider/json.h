/* mj_json: a reader of JSON (RFC 8259) that allocates nothing and copies nothing.
 *
 * mj_json_read() checks a whole document; after that its parts are walked through,
 * which can't fail.  What is strict here: the grammar, and how deep a document may
 * be nested.  What is not: bytes in strings, which may be broken UTF-8 or control
 * characters, as sloppy writers send them, and half a surrogate pair.  They are
 * for whoever keeps the text to deal with; mj_json_plain() tells of them. */
#ifndef MJ_JSON_H
#define MJ_JSON_H

#include "base/buf.h"
#include "base/utf8.h"

enum {
    MJ_JSON_DEPTH = 24, /* the provider nests 4 deep; a well is refused, not climbed into */
    MJ_JSON_KEY = 64    /* bytes of a key with escapes that is still looked at */
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
    mj_str text; /* as it stands in the document; of a string without its quotes, and with its escapes */
} mj_json;

/* Reads a document: NULL, or what is wrong with it at byte *at (from 0), and *root is none. */
const char *mj_json_read(mj_str text, mj_json *root, size_t *at);

/* The next element of an array, or member of an object with its key (NULL: not wanted).  *rest begins as the array or
 * object and becomes what is left of it; false when that is nothing, and for a value of another type. */
bool mj_json_next(mj_json *rest, mj_json *key, mj_json *value);
/* Whether a key (or any string) is this one, however it is escaped, unless that makes it longer than MJ_JSON_KEY. */
bool mj_json_is(const mj_json *key, mj_str name);

/* The text of a string, its escapes undone, into `out`, which has room for string.text.n bytes.  Half a surrogate pair
 * becomes '?'.  The number of bytes. */
size_t mj_json_unescape(const mj_json *string, char *out);

/* A whole number of at most 2^53 in magnitude, given as a number without an exponent or as a string of at most 16
 * digits, none of them escaped.  False: it is none, and *out is as it was. */
bool mj_json_whole(const mj_json *value, int64_t *out);

/* Whether a value that was read is nothing that an ordinary reader might refuse: all text is UTF-8 without raw control
 * characters and half pairs, numbers are within what a double holds. */
bool mj_json_plain(const mj_json *value);

#endif
