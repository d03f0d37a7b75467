#include "mj_wire.h"

#include "mj_url.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATUS_OK = 0, STATUS_QUOTA = 1001, STATUS_CONCURRENCY = 1002 }; /* PROVIDER.md: envelope */
enum { TASK_RUNNING = 0, TASK_SUCCEEDED = 1, TASK_FAILED = 2 };         /* PROVIDER.md: task status */

size_t mj_wire_room(size_t n)
{
    return MJ_URL_ROOM(n); /* no string but a URL becomes longer, and each is kept once */
}

/* ---- text ---- */

/* Length of the character at s if it may be kept as it is: well-formed, and of the controls only \n and \t; or 0. */
static size_t good_len(const char *s, size_t n)
{
    unsigned char c = (unsigned char)s[0];

    if (c >= 0x20 && c < 0x7f) /* nearly all there is */
        return 1;
    if (c < 0x80)
        return c == '\n' || c == '\t';
    return mj_utf8_length(s, n);
}

/* How many bytes of good characters s begins with, at most max; *next: the length of the one after them, as above. */
static size_t good_run(const char *s, size_t n, size_t max, size_t *next)
{
    size_t run = 0;

    *next = 0;
    while (run < n && (*next = good_len(s + run, n - run)) > 0 && run + *next <= max)
        run += *next;
    return run;
}

/* At most max bytes of text, in place, with '?' for every byte that may not be kept as it is. */
static size_t clean_in_place(char *text, size_t n, size_t max)
{
    size_t next, at = 0;

    while (at < n && at < max) {
        at += good_run(text + at, n - at, max - at, &next);
        if (at == n || at == max || next > 0) /* a good one that no room is left for */
            break;
        text[at++] = '?';
    }
    return at;
}

/* Room that was reserved.  What is taken stays where it is. */
static char *room(mj_buf *scratch)
{
    return (char *)scratch->p + scratch->n;
}

static bool is_text(const mj_json *v)
{
    return v->type == MJ_JSON_STRING && v->text.n > 0;
}

/* A string without its escapes; empty when it is anything else. */
static mj_str unescaped(const mj_json *v, mj_buf *scratch)
{
    mj_str s = {0};

    if (!is_text(v))
        return s;
    if (!memchr(v->text.p, '\\', v->text.n))
        return v->text;
    s.p = room(scratch);
    s.n = (uint32_t)mj_json_unescape(v, room(scratch));
    scratch->n += s.n;
    return s;
}

/* A string's text as it may be kept. */
static mj_str clean(const mj_json *v, uint32_t max, mj_buf *scratch)
{
    mj_str s = {0};
    size_t n, next;

    if (!is_text(v))
        return s;
    if (!memchr(v->text.p, '\\', v->text.n) && good_run(v->text.p, v->text.n, max, &next) == v->text.n)
        return v->text;
    n = mj_json_unescape(v, room(scratch));
    s.p = room(scratch);
    s.n = (uint32_t)clean_in_place(room(scratch), n, max);
    scratch->n += s.n;
    return s;
}

static bool is_task_id(mj_str s)
{
    if (s.n == 0 || s.n > MJ_MAX_TASK_ID)
        return false;
    for (uint32_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
            return false;
    }
    return true;
}

/* ---- members ---- */

/* Finds members of an object by name.  Of those that are there twice the last one counts, as for most readers. */
static void members(mj_json object, const mj_str *names, mj_json *const *out, size_t n)
{
    mj_json key, value;

    for (size_t i = 0; i < n; i++)
        *out[i] = (mj_json){0};
    if (object.type != MJ_JSON_OBJECT)
        return;
    while (mj_json_next(&object, &key, &value))
        for (size_t i = 0; i < n; i++)
            if (mj_json_is(&key, names[i])) {
                *out[i] = value;
                break;
            }
}

static mj_json member(mj_json object, mj_str name)
{
    mj_json v, *out[] = {&v};

    members(object, &name, out, 1);
    return v;
}

static bool is_missing(const mj_json *v)
{
    return v->type == MJ_JSON_NONE || v->type == MJ_JSON_NULL;
}

/* How many URLs were given, and what became of them. */
typedef struct urls {
    unsigned given, unusable, surplus;
} urls;

/* A URL, given as a string or as an object with a url.  Empty: none is there, or none that can be used. */
static mj_str image_url(mj_json v, urls *count, mj_buf *scratch)
{
    mj_str s = {0};
    char *last;
    size_t n;

    if (v.type == MJ_JSON_OBJECT)
        v = member(v, MJ_LIT("url"));
    else if (is_missing(&v) || (v.type == MJ_JSON_STRING && v.text.n == 0))
        return s;
    count->given++;
    if (is_text(&v) && !memchr(v.text.p, '\\', v.text.n) && v.text.n <= MJ_MAX_URL && mj_url_plain(v.text))
        return v.text;
    if (is_text(&v)) {
        last = room(scratch) + MJ_URL_ROOM(v.text.n) - v.text.n;
        n = mj_json_unescape(&v, last);
        s.p = room(scratch);
        s.n = (uint32_t)mj_url_mend(last, n, room(scratch), MJ_MAX_URL);
        scratch->n += s.n;
    }
    count->unusable += s.n == 0;
    return s;
}

static unsigned read_images(mj_json list, mj_str *images, urls *count, mj_buf *scratch)
{
    unsigned n = 0;
    mj_json v;

    if (list.type != MJ_JSON_ARRAY)
        return 0;
    for (int i = 0; mj_json_next(&list, NULL, &v); i++) {
        if (n < MJ_MAX_IMAGES && i < 4 * MJ_MAX_IMAGES) {
            images[n] = image_url(v, count, scratch);
            n += images[n].n > 0;
        } else if (!is_missing(&v)) {
            count->given++;
            count->surplus++;
        }
    }
    return n;
}

enum { REMARK = 50 }; /* bytes of each of its halves; the names before a URL have left room for them */

/* What is told of URLs that were dropped. */
static mj_str dropped(const urls *count, mj_buf *scratch)
{
    char *text = room(scratch);
    int n = 0;

    if (count->unusable > 0)
        n = snprintf(text, REMARK, "%u of %u URLs unusable", count->unusable, count->given);
    if (count->surplus > 0)
        n += snprintf(text + n, REMARK, "%s%u of %u URLs more than are kept", n ? ", " : "", count->surplus,
                      count->given);
    scratch->n += (size_t)n;
    return (mj_str){text, (uint32_t)n};
}

/* ---- words ---- */

/* NULL, or why there is no word in the task object. */
static const char *read_word(mj_json object, mj_buf *scratch, mj_signal *w)
{
    static const mj_str names[] = {MJ_LIT("taskId"),   MJ_LIT("status"), MJ_LIT("image"),      MJ_LIT("images"),
                                   MJ_LIT("mjPrompt"), MJ_LIT("prompt"), MJ_LIT("failReason"), MJ_LIT("meta")};
    mj_json id, status, image, images, mj_prompt, prompt, reason, meta;
    mj_json *found[] = {&id, &status, &image, &images, &mj_prompt, &prompt, &reason, &meta};
    urls count = {0};
    int64_t number;

    members(object, names, found, sizeof names / sizeof names[0]);
    memset(w, 0, sizeof *w);
    w->expect_state = -1;
    w->wait_ms = -1;
    w->task_id = unescaped(&id, scratch);
    if (!is_task_id(w->task_id))
        return "no usable taskId";
    if (!mj_json_whole(&status, &number))
        return "no usable status";
    w->image = image_url(image, &count, scratch);
    w->nimages = read_images(images, w->images, &count, scratch);
    w->remark = dropped(&count, scratch);
    w->mj_prompt = clean(is_text(&mj_prompt) ? &mj_prompt : &prompt, MJ_MAX_PROMPT, scratch);
    if ((meta.type == MJ_JSON_OBJECT || meta.type == MJ_JSON_ARRAY) && meta.text.n <= MJ_MAX_JSON &&
        mj_json_plain(&meta))
        w->meta = meta.text;
    if (number == TASK_SUCCEEDED) {
        w->kind = w->image.n || w->nimages ? SIG_SUCCEEDED : SIG_HINT;
    } else if (number == TASK_FAILED) {
        w->kind = SIG_FAILED;
        w->error_code = MJ_LIT("provider");
        w->error = clean(&reason, MJ_MAX_REASON, scratch);
    } else {
        w->kind = SIG_RUNNING; /* TASK_RUNNING, or a number that nobody knows */
    }
    return NULL;
}

static bool no_word(char why[MJ_WIRE_WHY], const char *text)
{
    snprintf(why, MJ_WIRE_WHY, "%s", text);
    return false;
}

/* A document, which has to be an object. */
static bool read_object(mj_str text, mj_json *root, char why[MJ_WIRE_WHY])
{
    size_t at;
    const char *fault = mj_json_read(text, root, &at);

    if (fault) {
        snprintf(why, MJ_WIRE_WHY, "not JSON: %s (byte %zu)", fault, at + 1);
        return false;
    }
    return root->type == MJ_JSON_OBJECT || no_word(why, "not a JSON object");
}

/* The task object in a callback; NULL and it, or why there is none. */
static const char *task_object(mj_json root, mj_json *out)
{
    static const mj_str names[] = {MJ_LIT("taskId"), MJ_LIT("data")};
    mj_json id, data, *found[] = {&id, &data}, second;

    members(root, names, found, 2);
    *out = data;
    if (!is_missing(&id)) {
        *out = root;
    } else if (data.type == MJ_JSON_ARRAY) {
        if (!mj_json_next(&data, NULL, out))
            return "no task in it";
        if (mj_json_next(&data, NULL, &second))
            return "more than one task in it";
    }
    return out->type == MJ_JSON_OBJECT ? NULL : "no task in it";
}

bool mj_wire_callback(mj_str body, mj_buf *scratch, mj_signal *out, char why[MJ_WIRE_WHY])
{
    mj_json root, object;
    const char *none;

    if (!read_object(body, &root, why))
        return false;
    none = task_object(root, &object);
    if (!none)
        none = read_word(object, scratch, out);
    return none ? no_word(why, none) : true;
}

static bool envelope(mj_json root, int64_t *status, mj_json *data, mj_json *message)
{
    static const mj_str names[] = {MJ_LIT("status"), MJ_LIT("data"), MJ_LIT("message")};
    mj_json number, *found[] = {&number, data, message};

    members(root, names, found, 3);
    return mj_json_whole(&number, status);
}

bool mj_wire_status(mj_str body, mj_buf *scratch, mj_wire_words *out, char why[MJ_WIRE_WHY])
{
    mj_json root, data = {0}, message = {0};
    int64_t status;

    *out = (mj_wire_words){0};
    if (!read_object(body, &root, why))
        return false;
    if (!envelope(root, &status, &data, &message))
        return no_word(why, "no envelope");
    if (status != STATUS_OK) {
        mj_str text = clean(&message, MJ_MAX_REASON, scratch);
        snprintf(why, MJ_WIRE_WHY, "status %" PRId64 "%s%.*s", status, text.n ? ": " : "", (int)text.n,
                 text.n ? text.p : "");
        return false;
    }
    if (data.type != MJ_JSON_ARRAY && data.type != MJ_JSON_OBJECT)
        return no_word(why, "no data in the answer");
    out->rest = data; /* one object instead of an array: a word, or nothing */
    return true;
}

bool mj_wire_word(mj_json entry, mj_buf *scratch, mj_signal *out)
{
    return !read_word(entry, scratch, out);
}

/* One object instead of an array is its only entry. */
static bool next_entry(mj_wire_words *words, mj_json *entry)
{
    *entry = words->rest;
    if (entry->type != MJ_JSON_OBJECT)
        return mj_json_next(&words->rest, NULL, entry);
    words->rest = (mj_json){0};
    return true;
}

bool mj_wire_next(mj_wire_words *words, mj_buf *scratch, mj_signal *out)
{
    mj_json entry;

    while (next_entry(words, &entry))
        if (mj_wire_word(entry, scratch, out))
            return true;
    return false;
}

/* Any order will do, as long as it is one: shorter first, which needs no look at most of the bytes. */
static int by_bytes(const void *a, const void *b)
{
    const mj_str *x = a, *y = b;

    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return x->n ? memcmp(x->p, y->p, x->n) : 0;
}

void mj_wire_sort(mj_str *ids, size_t n)
{
    qsort(ids, n, sizeof *ids, by_bytes);
}

void mj_wire_asked(mj_wire_words words, const mj_str *asked, size_t n, mj_json *entries, mj_buf *scratch)
{
    size_t kept = scratch->n;
    mj_json entry;

    for (size_t i = 0; i < n; i++)
        entries[i] = (mj_json){0};
    while (n > 0 && next_entry(&words, &entry)) {
        mj_json v = member(entry, MJ_LIT("taskId"));
        mj_str id = unescaped(&v, scratch);
        const mj_str *at = bsearch(&id, asked, n, sizeof id, by_bytes);
        if (at)
            entries[at - asked] = entry;
        scratch->n = kept;
    }
}

/* ---- submit answers ---- */

static void verdict(mj_wire_verdict *out, const char *kind, const char *code, mj_str said, mj_str otherwise)
{
    *out = (mj_wire_verdict){.kind = kind, .code = code, .text = said.n ? said : otherwise};
}

void mj_wire_submit(int http, mj_str body, mj_buf *scratch, mj_wire_verdict *out)
{
    char why[MJ_WIRE_WHY];
    mj_json root, data = {0}, message = {0}, id;
    int64_t status = -1;
    bool enveloped = read_object(body, &root, why) && envelope(root, &status, &data, &message);
    mj_str text = enveloped ? clean(&message, MJ_MAX_REASON, scratch) : (mj_str){0}, none = {0};

    /* A definite refusal is definite under whatever HTTP status it comes. */
    if (enveloped && status == STATUS_QUOTA)
        verdict(out, "refused", "quota", text, MJ_LIT("quota not enough"));
    else if (enveloped && status == STATUS_CONCURRENCY)
        verdict(out, "refused", "concurrency", text, MJ_LIT("concurrency limit reached"));
    else if (http == 401 || http == 403)
        verdict(out, "refused", "auth", text, MJ_LIT("the provider refuses the API key"));
    else if (http == 429)
        verdict(out, "refused", "rate_limit", text, MJ_LIT("rate limit"));
    else if (http >= 300 && http < 400)
        verdict(out, "refused", "redirect", none,
                MJ_LIT("base_url answers with a redirect, which is not followed: correct base_url"));
    else if (http == 408 || http >= 500 || http < 200)
        verdict(out, "maybe_sent", "server_error", text, MJ_LIT("trouble on the provider's side"));
    else if (http >= 400 || (enveloped && status != STATUS_OK))
        verdict(out, "rejected", "rejected", text, MJ_LIT("the provider rejects the request"));
    else {
        id = member(data, MJ_LIT("taskId"));
        *out = (mj_wire_verdict){.kind = "accepted", .task_id = unescaped(&id, scratch)};
        if (!enveloped || !is_task_id(out->task_id))
            verdict(out, "maybe_sent", "unreadable", none, MJ_LIT("the answer has no usable taskId"));
    }
}
