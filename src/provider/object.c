#include "provider/object.h"

#include "domain/url.h"

#include <stdio.h>
#include <string.h>

/* ---- text ---- */

/* The length of the character at s if it may be kept: well-formed, and of control characters only \n and \t; else 0. */
static size_t good_len(const char *s, size_t n)
{
    unsigned char c = (unsigned char)s[0];

    if (c >= 0x20 && c < 0x7f) /* nearly every character */
        return 1;
    if (c < 0x80)
        return c == '\n' || c == '\t';
    return mj_utf8_length(s, n);
}

/* The number of good bytes at the start of s, at most max; *next: the length of the character after them, as above. */
static size_t good_run(const char *s, size_t n, size_t max, size_t *next)
{
    size_t run = 0;

    *next = 0;
    while (run < n && (*next = good_len(s + run, n - run)) > 0 && run + *next <= max)
        run += *next;
    return run;
}

/* Cleans the text in place, at most max bytes: each byte that may not be kept becomes '?'. */
static size_t clean_in_place(char *text, size_t n, size_t max)
{
    size_t next, at = 0;

    while (at < n && at < max) {
        at += good_run(text + at, n - at, max - at, &next);
        if (at == n || at == max || next > 0) /* a good character without room */
            break;
        text[at++] = '?';
    }
    return at;
}

/* The free part of the reserved room.  Texts that were put there stay in place. */
static char *room(mj_buf *scratch)
{
    return (char *)scratch->p + scratch->n;
}

static bool is_text(const mj_json *v)
{
    return v->type == MJ_JSON_STRING && v->text.n > 0;
}

/* A string without its escapes; empty if it is no string. */
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

/* A string's text, cleaned. */
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

bool mj_object_missing(const mj_json *v)
{
    return v->type == MJ_JSON_NONE || v->type == MJ_JSON_NULL;
}

mj_json mj_object_member(mj_json object, mj_str name)
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

/* A task's id; empty: none can be used. */
static mj_str task_id(const mj_json *v, mj_buf *scratch)
{
    mj_str s = v->type == MJ_JSON_NUMBER ? whole_digits(v->text) : unescaped(v, scratch);

    return is_task_id(s) ? s : (mj_str){0};
}

/* The member that a key names; MJ_F_COUNT: none that is read. */
static size_t field(const mj_provider *p, const mj_json *key)
{
    size_t i = 0;

    if (memchr(key->text.p, '\\', key->text.n)) {
        while (i < MJ_F_COUNT && !mj_json_is(key, p->field[i]))
            i++;
        return i;
    }
    while (i < MJ_F_COUNT && (p->field[i].n != key->text.n || memcmp(p->field[i].p, key->text.p, key->text.n) != 0))
        i++;
    return i;
}

/* What decides about a task or an answer: see mj_object_read(). */
static bool decides(size_t field)
{
    return field == MJ_F_TASK_ID || field == MJ_F_JOB_ID || field == MJ_F_STATUS || field == MJ_F_DATA ||
           field == MJ_F_ERROR;
}

/* Takes a member's value; null says nothing.  A second value that is another text makes it torn, for good: a bool
 * without text, which nothing takes for an id, a number, a word or an object. */
static void agree(mj_json *have, mj_json value)
{
    if (mj_object_missing(have))
        *have = value;
    else if (value.type != MJ_JSON_NULL && (have->type != value.type || !mj_str_eq(have->text, value.text)))
        *have = (mj_json){.type = MJ_JSON_BOOL};
}

bool mj_object_torn(const mj_json *v)
{
    return v->type == MJ_JSON_BOOL && v->text.n == 0;
}

mj_json mj_object_only(mj_json object, mj_str name)
{
    mj_json key, value, found = {0};

    if (object.type == MJ_JSON_OBJECT)
        while (mj_json_next(&object, &key, &value))
            if (mj_json_is(&key, name))
                agree(&found, value);
    return found;
}

void mj_object_read(const mj_provider *p, mj_json from, mj_buf *scratch, mj_object *out)
{
    mj_json key, value;

    memset(out, 0, sizeof *out);
    if (from.type != MJ_JSON_OBJECT)
        return;
    while (mj_json_next(&from, &key, &value)) {
        size_t i = field(p, &key);
        if (i == MJ_F_COUNT)
            continue;
        if (decides(i))
            agree(&out->f[i], value);
        else
            out->f[i] = value;
    }
    out->id = task_id(&out->f[mj_object_missing(&out->f[MJ_F_TASK_ID]) ? MJ_F_JOB_ID : MJ_F_TASK_ID], scratch);
}

bool mj_object_has(const mj_object *o, int field)
{
    return !mj_object_missing(&o->f[field]);
}

/* How many URLs were given, and how many of them were dropped. */
typedef struct urls {
    unsigned given, unusable, surplus;
} urls;

/* A URL, given as a string or as an object that has one.  Empty: there is none, or it can't be used. */
static mj_str image_url(const mj_provider *p, mj_json v, urls *count, mj_buf *scratch)
{
    mj_str s = {0};
    char *last;
    size_t n;

    if (v.type == MJ_JSON_OBJECT)
        v = mj_object_member(v, p->url);
    else if (mj_object_missing(&v) || (v.type == MJ_JSON_STRING && v.text.n == 0))
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

/* A list of URLs, an object with URLs as members, or a single URL. */
static unsigned read_images(const mj_provider *p, mj_json list, mj_str *images, urls *count, mj_buf *scratch)
{
    unsigned n = 0;
    mj_json key, v, url = mj_object_member(list, p->url);

    if (list.type == MJ_JSON_STRING || !mj_object_missing(&url))
        return (images[0] = image_url(p, list, count, scratch)).n > 0;
    if (list.type != MJ_JSON_ARRAY && list.type != MJ_JSON_OBJECT)
        return 0;
    for (int i = 0; mj_json_next(&list, &key, &v); i++) {
        if (n < MJ_MAX_IMAGES && i < 4 * MJ_MAX_IMAGES) {
            images[n] = image_url(p, v, count, scratch);
            n += images[n].n > 0;
        } else if (!mj_object_missing(&v)) {
            count->given++;
            count->surplus++;
        }
    }
    return n;
}

enum { REMARK = 50 }; /* bytes of each half; the member names before a URL have left enough room */

/* A remark about dropped URLs. */
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

/* The provider's message about an error: message, else error.message, else error as a text. */
mj_str mj_object_complaint(const mj_provider *p, const mj_object *o, mj_buf *scratch)
{
    mj_str said = clean(&o->f[MJ_F_MESSAGE], MJ_MAX_REASON, scratch);
    mj_json inner = mj_object_member(o->f[MJ_F_ERROR], p->field[MJ_F_MESSAGE]);

    if (said.n == 0)
        said = clean(&inner, MJ_MAX_REASON, scratch);
    return said.n ? said : clean(&o->f[MJ_F_ERROR], MJ_MAX_REASON, scratch);
}

/* ---- statuses ---- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Whether s equals `word`, which is in lower case, in any case. */
static bool is_word(mj_str s, mj_str word)
{
    if (s.n != word.n)
        return false;
    for (uint32_t i = 0; i < s.n; i++)
        if ((is_letter(s.p[i]) ? s.p[i] | 0x20 : s.p[i]) != word.p[i])
            return false;
    return true;
}

/* Reads a status: a number, a number in a string, or a word, which begins with a letter.  An unknown word gives
 * `other`. */
mj_status_kind mj_object_status(const mj_provider *p, const mj_json *v, int64_t other, mj_buf *scratch, int64_t *out)
{
    mj_str s;

    if (mj_json_whole(v, out))
        return MJ_STATUS_NUMBER;
    s = unescaped(v, scratch);
    if (s.n == 0 || !is_letter(s.p[0]))
        return MJ_STATUS_NONE;
    for (size_t i = 0; i < p->nwords; i++)
        if (is_word(s, p->words[i].word)) {
            *out = p->words[i].status;
            return p->words[i].envelope ? MJ_STATUS_ENVELOPE : MJ_STATUS_WORD;
        }
    *out = other;
    return MJ_STATUS_WORD;
}

/* ---- what is said of a task ---- */

const mj_object mj_object_none;

/* Reads what `o` says about a task: NULL, or why it says nothing.  `beside` is an object around it or in it, which
 * fills its gaps.  Of the statuses there only words count, since the number beside a task is the envelope's. */
const char *mj_object_task(const mj_provider *p, const mj_object *o, const mj_object *beside, mj_buf *scratch,
                           mj_signal *w)
{
    int64_t status;
    bool by_word = false;
    urls count = {0};

    if (o->id.n && beside->id.n && !mj_str_eq(o->id, beside->id))
        beside = &mj_object_none; /* it is about another task */
    memset(w, 0, sizeof *w);
    w->expect_state = -1;
    w->wait_ms = -1;
    w->task_id = mj_object_has(o, MJ_F_TASK_ID) || o->id.n ? o->id : beside->id;
    if (w->task_id.n == 0)
        return "no usable taskId";
    if (mj_object_status(p, &o->f[MJ_F_STATUS], p->status.running, scratch, &status) == MJ_STATUS_NONE) {
        by_word = mj_object_status(p, &beside->f[MJ_F_STATUS], p->status.running, scratch, &status) == MJ_STATUS_WORD;
        if (!by_word)
            return "no usable status";
    }
    for (const mj_object *from = o; from; from = from == o ? beside : NULL) {
        if (!w->image.n)
            w->image = image_url(p, from->f[MJ_F_IMAGE], &count, scratch);
        if (!w->image.n)
            w->image = image_url(p, from->f[MJ_F_CDN_IMAGE], &count, scratch);
        if (!w->nimages)
            w->nimages = read_images(p, from->f[MJ_F_IMAGES], w->images, &count, scratch);
        if (!w->mj_prompt.n)
            w->mj_prompt = clean(is_text(&from->f[MJ_F_MJ_PROMPT]) ? &from->f[MJ_F_MJ_PROMPT] : &from->f[MJ_F_PROMPT],
                                 MJ_MAX_PROMPT, scratch);
        if (!w->meta.n && (from->f[MJ_F_META].type == MJ_JSON_OBJECT || from->f[MJ_F_META].type == MJ_JSON_ARRAY) &&
            from->f[MJ_F_META].text.n <= MJ_MAX_JSON && mj_json_plain(&from->f[MJ_F_META]))
            w->meta = from->f[MJ_F_META].text;
    }
    w->remark = dropped(&count, scratch);
    if (status == p->status.succeeded) {
        w->kind = w->image.n || w->nimages ? SIG_SUCCEEDED : SIG_HINT;
    } else if (status == p->status.failed) {
        w->kind = SIG_FAILED;
        w->error_code = MJ_LIT("provider");
        w->error = clean(&o->f[MJ_F_FAIL_REASON], MJ_MAX_REASON, scratch);
        if (!w->error.n)
            w->error = mj_object_complaint(p, o, scratch);
        if (!w->error.n)
            w->error = clean(&beside->f[MJ_F_FAIL_REASON], MJ_MAX_REASON, scratch);
        if (!w->error.n && by_word) /* an envelope's message is "success" */
            w->error = mj_object_complaint(p, beside, scratch);
    } else {
        w->kind = SIG_RUNNING; /* running, or an unknown number */
    }
    return NULL;
}

mj_str mj_object_id(const mj_provider *p, mj_json entry, mj_buf *scratch, bool *by_job)
{
    mj_json key, value, id = {0}, job = {0};

    while (mj_json_next(&entry, &key, &value)) {
        if (entry.type != MJ_JSON_OBJECT)
            break;
        if (mj_json_is(&key, p->field[MJ_F_TASK_ID]))
            agree(&id, value);
        else if (mj_json_is(&key, p->field[MJ_F_JOB_ID]))
            agree(&job, value);
    }
    *by_job = mj_object_missing(&id);
    return task_id(*by_job ? &job : &id, scratch);
}
