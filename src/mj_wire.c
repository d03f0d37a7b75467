#include "mj_wire.h"

#include "mj_url.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the provider's vocabulary (PROVIDER.md); another provider is another set of these tables ---- */

enum { STATUS_OK = 0 };                                         /* of the envelope; mj_answer.c knows the others */
enum { TASK_RUNNING = 0, TASK_SUCCEEDED = 1, TASK_FAILED = 2 }; /* of a task */

/* The members that are read, of an envelope and of a task object alike. */
enum {
    F_TASK_ID,
    F_JOB_ID,
    F_STATUS,
    F_DATA,
    F_IMAGE,
    F_CDN_IMAGE,
    F_IMAGES,
    F_MJ_PROMPT,
    F_PROMPT,
    F_FAIL_REASON,
    F_MESSAGE,
    F_ERROR,
    F_META,
    F_COUNT
};
static const mj_str names[F_COUNT] = {
    [F_TASK_ID] = MJ_LIT("taskId"),  [F_JOB_ID] = MJ_LIT("jobId"),
    [F_STATUS] = MJ_LIT("status"),   [F_DATA] = MJ_LIT("data"),
    [F_IMAGE] = MJ_LIT("image"),     [F_CDN_IMAGE] = MJ_LIT("cdnImage"),
    [F_IMAGES] = MJ_LIT("images"),   [F_MJ_PROMPT] = MJ_LIT("mjPrompt"),
    [F_PROMPT] = MJ_LIT("prompt"),   [F_FAIL_REASON] = MJ_LIT("failReason"),
    [F_MESSAGE] = MJ_LIT("message"), [F_ERROR] = MJ_LIT("error"),
    [F_META] = MJ_LIT("meta"),
};

/* Statuses as words, in any case.  A word that is not here means that the task still runs. */
static const struct {
    mj_str word;
    int64_t status;
} status_words[] = {
    {MJ_LIT("success"), TASK_SUCCEEDED},    {MJ_LIT("succeeded"), TASK_SUCCEEDED},
    {MJ_LIT("successful"), TASK_SUCCEEDED}, {MJ_LIT("completed"), TASK_SUCCEEDED},
    {MJ_LIT("complete"), TASK_SUCCEEDED},   {MJ_LIT("finished"), TASK_SUCCEEDED},
    {MJ_LIT("done"), TASK_SUCCEEDED},       {MJ_LIT("failure"), TASK_FAILED},
    {MJ_LIT("failed"), TASK_FAILED},        {MJ_LIT("fail"), TASK_FAILED},
    {MJ_LIT("error"), TASK_FAILED},         {MJ_LIT("cancelled"), TASK_FAILED},
    {MJ_LIT("canceled"), TASK_FAILED},
};

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

static bool is_missing(const mj_json *v)
{
    return v->type == MJ_JSON_NONE || v->type == MJ_JSON_NULL;
}

static mj_json member(mj_json object, mj_str name)
{
    mj_json key, value, found = {0};

    if (object.type == MJ_JSON_OBJECT)
        while (mj_json_next(&object, &key, &value))
            if (mj_json_is(&key, name))
                found = value;
    return found;
}

/* A whole number's digits: also of 7.0, as some languages write each number; not of 7e3. */
static mj_str whole_digits(mj_str number)
{
    uint32_t n = 0, end;

    while (n < number.n && number.p[n] >= '0' && number.p[n] <= '9')
        n++;
    end = n;
    if (n > 0 && end < number.n && number.p[end] == '.')
        for (end++; end < number.n && number.p[end] == '0'; end++)
            continue;
    return end == number.n ? (mj_str){number.p, n} : (mj_str){0};
}

/* A task's id; empty when there is none that can be used. */
static mj_str task_id(const mj_json *v, mj_buf *scratch)
{
    mj_str s = v->type == MJ_JSON_NUMBER ? whole_digits(v->text) : unescaped(v, scratch);

    return is_task_id(s) ? s : (mj_str){0};
}

/* An object's members that have a name here, and the id in it. */
typedef struct object {
    mj_json f[F_COUNT];
    mj_str id;
} object;

/* Of members that are there twice the last one counts, as for most readers. */
static void read_members(mj_json from, mj_buf *scratch, object *out)
{
    mj_json key, value;

    memset(out, 0, sizeof *out);
    if (from.type != MJ_JSON_OBJECT)
        return;
    while (mj_json_next(&from, &key, &value))
        for (size_t i = 0; i < F_COUNT; i++)
            if (mj_json_is(&key, names[i])) {
                out->f[i] = value;
                break;
            }
    out->id = task_id(&out->f[is_missing(&out->f[F_TASK_ID]) ? F_JOB_ID : F_TASK_ID], scratch);
}

static bool has(const object *o, int field)
{
    return !is_missing(&o->f[field]);
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

/* What the provider says went wrong: message, else error.message, else error as a text. */
static mj_str complaint(const object *o, mj_buf *scratch)
{
    mj_str said = clean(&o->f[F_MESSAGE], MJ_MAX_REASON, scratch);
    mj_json inner = member(o->f[F_ERROR], names[F_MESSAGE]);

    if (said.n == 0)
        said = clean(&inner, MJ_MAX_REASON, scratch);
    return said.n ? said : clean(&o->f[F_ERROR], MJ_MAX_REASON, scratch);
}

/* ---- statuses ---- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Whether s is `word`, which is in lower case, in any case. */
static bool is_word(mj_str s, mj_str word)
{
    if (s.n != word.n)
        return false;
    for (uint32_t i = 0; i < s.n; i++)
        if ((is_letter(s.p[i]) ? s.p[i] | 0x20 : s.p[i]) != word.p[i])
            return false;
    return true;
}

typedef enum { NO_STATUS, NUMBER, WORD } status_kind;

/* A status as a number, as a number in a string, or as a word, which begins with a letter.  A word that nobody knows
 * is `other`. */
static status_kind read_status(const mj_json *v, int64_t other, mj_buf *scratch, int64_t *out)
{
    mj_str s;

    if (mj_json_whole(v, out))
        return NUMBER;
    s = unescaped(v, scratch);
    if (s.n == 0 || !is_letter(s.p[0]))
        return NO_STATUS;
    *out = other;
    for (size_t i = 0; i < sizeof status_words / sizeof status_words[0]; i++)
        if (is_word(s, status_words[i].word))
            *out = status_words[i].status;
    return WORD;
}

/* ---- what is said of a task ---- */

static const object nothing;

/* NULL, or why nothing is said of a task in `o`.  `beside` is an object around it or in it, which has what it lacks:
 * but of the statuses there only words, since the number beside a task is the envelope's. */
static const char *read_task(const object *o, const object *beside, mj_buf *scratch, mj_signal *w)
{
    int64_t status, ignored;
    bool by_word = false;
    urls count = {0};

    if (o->id.n && beside->id.n && !mj_str_eq(o->id, beside->id))
        beside = &nothing; /* it is about something else */
    memset(w, 0, sizeof *w);
    w->expect_state = -1;
    w->wait_ms = -1;
    w->task_id = has(o, F_TASK_ID) || o->id.n ? o->id : beside->id;
    if (w->task_id.n == 0)
        return "no usable taskId";
    if (read_status(&o->f[F_STATUS], TASK_RUNNING, scratch, &status) == NO_STATUS) {
        by_word = !mj_json_whole(&beside->f[F_STATUS], &ignored) &&
                  read_status(&beside->f[F_STATUS], TASK_RUNNING, scratch, &status) == WORD;
        if (!by_word)
            return "no usable status";
    }
    for (const object *from = o; from; from = from == o ? beside : NULL) {
        if (!w->image.n)
            w->image = image_url(from->f[F_IMAGE], &count, scratch);
        if (!w->image.n)
            w->image = image_url(from->f[F_CDN_IMAGE], &count, scratch);
        if (!w->nimages)
            w->nimages = read_images(from->f[F_IMAGES], w->images, &count, scratch);
        if (!w->mj_prompt.n)
            w->mj_prompt = clean(is_text(&from->f[F_MJ_PROMPT]) ? &from->f[F_MJ_PROMPT] : &from->f[F_PROMPT],
                                 MJ_MAX_PROMPT, scratch);
        if (!w->meta.n && (from->f[F_META].type == MJ_JSON_OBJECT || from->f[F_META].type == MJ_JSON_ARRAY) &&
            from->f[F_META].text.n <= MJ_MAX_JSON && mj_json_plain(&from->f[F_META]))
            w->meta = from->f[F_META].text;
    }
    w->remark = dropped(&count, scratch);
    if (status == TASK_SUCCEEDED) {
        w->kind = w->image.n || w->nimages ? SIG_SUCCEEDED : SIG_HINT;
    } else if (status == TASK_FAILED) {
        w->kind = SIG_FAILED;
        w->error_code = MJ_LIT("provider");
        w->error = clean(&o->f[F_FAIL_REASON], MJ_MAX_REASON, scratch);
        if (!w->error.n)
            w->error = complaint(o, scratch);
        if (!w->error.n)
            w->error = clean(&beside->f[F_FAIL_REASON], MJ_MAX_REASON, scratch);
        if (!w->error.n && by_word) /* an envelope's message is "success" */
            w->error = complaint(beside, scratch);
    } else {
        w->kind = SIG_RUNNING; /* TASK_RUNNING, or a number that nobody knows */
    }
    return NULL;
}

static bool is_none(char why[MJ_WIRE_WHY], const char *text)
{
    snprintf(why, MJ_WIRE_WHY, "%s", text);
    return false;
}

/* A document, which has to be an object.  A byte order mark before it is no part of it. */
static bool read_object(mj_str text, mj_json *root, char why[MJ_WIRE_WHY])
{
    uint32_t mark = text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    size_t at;
    const char *fault = mj_json_read((mj_str){text.p + mark, text.n - mark}, root, &at);

    if (fault) {
        snprintf(why, MJ_WIRE_WHY, "not JSON: %s (byte %zu)", fault, mark + at + 1);
        return false;
    }
    return root->type == MJ_JSON_OBJECT || is_none(why, "not a JSON object");
}

/* ---- callbacks ---- */

/* The one task in a callback's `data`; NULL and it, or why there is none. */
static const char *data_object(mj_json data, mj_json *out)
{
    mj_json second;

    *out = data;
    if (data.type == MJ_JSON_ARRAY) {
        if (!mj_json_next(&data, NULL, out))
            return "no task in it";
        if (mj_json_next(&data, NULL, &second))
            return "more than one task in it";
    }
    return out->type == MJ_JSON_OBJECT ? NULL : "no task in it";
}

bool mj_wire_callback(mj_str body, mj_buf *scratch, mj_signal *out, char why[MJ_WIRE_WHY])
{
    mj_json root, inner;
    object top, data;
    const char *none;

    if (!read_object(body, &root, why))
        return false;
    read_members(root, scratch, &top);
    none = data_object(top.f[F_DATA], &inner);
    if (none)
        data = nothing;
    else
        read_members(inner, scratch, &data);
    /* Bare: with a taskId at the top, or with a jobId there when data does not speak for itself. */
    if (has(&top, F_TASK_ID) ||
        (has(&top, F_JOB_ID) && !has(&data, F_TASK_ID) && (none || !data.id.n || !has(&data, F_STATUS))))
        none = read_task(&top, &data, scratch, out);
    else if (!none)
        none = read_task(&data, &top, scratch, out);
    return none ? is_none(why, none) : true;
}

/* ---- answers ---- */

/* What an answer says as a whole. */
typedef struct envelope {
    object top;
    mj_answer answer;
    char why[MJ_WIRE_WHY]; /* it is no envelope */
} envelope;

static bool is_markup(mj_str body)
{
    static const mj_str starts[] = {MJ_LIT("<"), MJ_LIT("\xef\xbb\xbf<"), MJ_LIT("error code: ")};
    uint32_t from = 0;

    while (from < body.n && (body.p[from] == ' ' || (body.p[from] >= '\t' && body.p[from] <= '\r')))
        from++;
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++)
        if (body.n - from >= starts[i].n && memcmp(body.p + from, starts[i].p, starts[i].n) == 0)
            return true;
    return false;
}

/* {"status": N} or {"error": N}, where N may be a word, or {"error": {"code": N}}. */
static void read_envelope(const object *top, mj_buf *scratch, mj_answer *out)
{
    mj_json code = top->f[F_ERROR];
    status_kind kind = read_status(&top->f[F_STATUS], -2, scratch, &out->number);

    if (kind == WORD) {
        out->envelope = out->number != -2; /* a word that nobody knows says nothing */
        out->number = out->number == TASK_SUCCEEDED ? STATUS_OK : -1;
    } else if (kind == NUMBER) {
        out->envelope = true;
    } else if (is_missing(&top->f[F_STATUS])) {
        if (code.type == MJ_JSON_OBJECT)
            code = member(code, MJ_LIT("code"));
        out->envelope = mj_json_whole(&code, &out->number);
    }
    out->error = out->envelope && out->number != STATUS_OK;
}

static mj_meaning read_answer(int http, bool blocked, mj_str body, mj_buf *scratch, envelope *out)
{
    mj_json root;

    out->answer = (mj_answer){.http = http, .blocked = blocked, .markup = is_markup(body)};
    out->why[0] = '\0';
    out->top = nothing;
    if (read_object(body, &root, out->why)) {
        read_members(root, scratch, &out->top);
        read_envelope(&out->top, scratch, &out->answer);
        if (!out->answer.envelope)
            is_none(out->why, "no envelope");
    }
    return mj_answer_means(&out->answer);
}

static bool unread(mj_wire_words *out, char why[MJ_WIRE_WHY], const char *text)
{
    out->meaning = MJ_UNREADABLE;
    return is_none(why, text);
}

bool mj_wire_status(int http, bool blocked, mj_str body, mj_buf *scratch, mj_wire_words *out, char why[MJ_WIRE_WHY])
{
    const mj_meaning_info *info;
    envelope e;
    mj_json data;
    mj_str said;

    *out = (mj_wire_words){.meaning = read_answer(http, blocked, body, scratch, &e)};
    data = e.top.f[F_DATA];
    if (out->meaning == MJ_UNREADABLE)
        return is_none(why, e.why);
    if (out->meaning == MJ_FINE) {
        if (data.type != MJ_JSON_ARRAY && data.type != MJ_JSON_OBJECT && data.type != MJ_JSON_NULL)
            return unread(out, why, "no data in the answer");
        out->rest = data; /* null is an empty list; one object instead of an array is a task, or nothing */
        return true;
    }
    info = mj_meaning_of(out->meaning);
    said = complaint(&e.top, scratch);
    if (http >= 200 && http < 300 && e.answer.error && e.answer.number != -1)
        snprintf(why, MJ_WIRE_WHY, "status %" PRId64 "%s%.*s", e.answer.number, said.n ? ": " : "", (int)said.n,
                 said.n ? said.p : "");
    else if (info->replace && said.n)
        snprintf(why, MJ_WIRE_WHY, "%.*s", (int)said.n, said.p);
    else
        snprintf(why, MJ_WIRE_WHY, "%.*s%s%.*s%s", (int)info->text.n, info->text.p, said.n ? " (" : "", (int)said.n,
                 said.n ? said.p : "", said.n ? ")" : "");
    return false;
}

bool mj_wire_word(mj_json entry, mj_buf *scratch, mj_signal *out)
{
    object o;

    read_members(entry, scratch, &o);
    return !read_task(&o, &nothing, scratch, out);
}

/* One object instead of an array is its only entry; {} is an empty list, as some languages write it. */
static bool next_entry(mj_wire_words *words, mj_json *entry)
{
    mj_json one = words->rest;

    if (one.type != MJ_JSON_OBJECT)
        return mj_json_next(&words->rest, NULL, entry);
    words->rest = (mj_json){0};
    *entry = one;
    return mj_json_next(&one, NULL, &(mj_json){0});
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

static mj_str entry_id(mj_json entry, mj_buf *scratch)
{
    mj_json key, value, id = {0}, job = {0};

    while (mj_json_next(&entry, &key, &value)) {
        if (entry.type != MJ_JSON_OBJECT)
            break;
        if (mj_json_is(&key, names[F_TASK_ID]))
            id = value;
        else if (mj_json_is(&key, names[F_JOB_ID]))
            job = value;
    }
    return task_id(is_missing(&id) ? &job : &id, scratch);
}

/* Two entries about one task.  One that says how it ended counts more than one that says that it runs, and of two that
 * say the same it is the longer or the last one; but where one says that the task has succeeded and the other that it
 * has failed, neither is believed: then and for good it can't be read.  Only statuses are looked at: what else there is
 * in them may need more scratch. */
static mj_json weigh(mj_json one, mj_json other, mj_buf *scratch)
{
    int64_t x = -1, y = -1;
    object a, b;

    read_members(one, scratch, &a);
    read_members(other, scratch, &b);
    read_status(&a.f[F_STATUS], TASK_RUNNING, scratch, &x);
    read_status(&b.f[F_STATUS], TASK_RUNNING, scratch, &y);
    if (one.type != MJ_JSON_OBJECT || (x == TASK_SUCCEEDED && y == TASK_FAILED) ||
        (x == TASK_FAILED && y == TASK_SUCCEEDED))
        return (mj_json){.type = MJ_JSON_BOOL};
    x = x == TASK_SUCCEEDED || x == TASK_FAILED;
    y = y == TASK_SUCCEEDED || y == TASK_FAILED;
    return x > y || (x == y && one.text.n > other.text.n) ? one : other;
}

size_t mj_wire_asked(mj_wire_words words, const mj_str *asked, size_t n, mj_json *entries, mj_buf *scratch)
{
    size_t kept = scratch->n, all = 0, odd = 0, nulls = 0;
    mj_json entry;

    for (size_t i = 0; i < n; i++)
        entries[i] = (mj_json){0};
    for (; n > 0 && next_entry(&words, &entry); all++) {
        mj_str id = entry_id(entry, scratch);
        const mj_str *at = id.n ? bsearch(&id, asked, n, sizeof id, by_bytes) : NULL;
        mj_json *seen = at ? &entries[at - asked] : NULL;
        if (seen)
            *seen = seen->type == MJ_JSON_NONE ? entry : weigh(*seen, entry, scratch);
        nulls += entry.type == MJ_JSON_NULL;
        odd += id.n == 0 && entry.type != MJ_JSON_NULL;
        scratch->n = kept;
    }
    return nulls == all ? all : odd;
}

void mj_wire_submit(int http, bool blocked, mj_str body, mj_buf *scratch, mj_wire_verdict *out)
{
    envelope e;
    mj_meaning meaning = read_answer(http, blocked, body, scratch, &e);
    const mj_meaning_info *info;
    object data;

    *out = (mj_wire_verdict){0};
    if (meaning == MJ_FINE) {
        read_members(e.top.f[F_DATA], scratch, &data);
        out->task_id = data.id;
        if (data.id.n == 0)
            meaning = MJ_UNREADABLE;
    }
    info = mj_meaning_of(meaning);
    out->meaning = meaning;
    out->kind = info->kind;
    if (meaning == MJ_FINE)
        return;
    out->code = info->code;
    out->said = complaint(&e.top, scratch);
    out->text = info->replace && e.answer.envelope && out->said.n ? out->said : info->text;
}
