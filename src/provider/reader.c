#include "provider/reader.h"

#include "domain/url.h"
#include "provider/object.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t mj_wire_room(size_t n)
{
    return MJ_URL_ROOM(n); /* only URLs become longer, and each string is kept once */
}

static bool is_none(char why[MJ_WIRE_WHY], const char *text)
{
    snprintf(why, MJ_WIRE_WHY, "%s", text);
    return false;
}

/* Reads a document, which must be an object.  A byte order mark before it is skipped. */
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

/* Finds the one task in a callback's `data`: NULL and the task, or why there is none. */
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

bool mj_wire_callback(const mj_provider *p, mj_str body, mj_buf *scratch, mj_signal *out, char why[MJ_WIRE_WHY])
{
    mj_json root, inner;
    mj_object top, data;
    const char *none;

    if (!read_object(body, &root, why))
        return false;
    mj_object_read(p, root, scratch, &top);
    none = data_object(top.f[MJ_F_DATA], &inner);
    if (none)
        data = mj_object_none;
    else
        mj_object_read(p, inner, scratch, &data);
    /* Bare: a taskId is at the top, or a jobId is there and data is no complete task. */
    if (mj_object_has(&top, MJ_F_TASK_ID) || (mj_object_has(&top, MJ_F_JOB_ID) && !mj_object_has(&data, MJ_F_TASK_ID) &&
                                              (none || !data.id.n || !mj_object_has(&data, MJ_F_STATUS))))
        none = mj_object_task(p, &top, &data, scratch, out);
    else if (!none)
        none = mj_object_task(p, &data, &top, scratch, out);
    return none ? is_none(why, none) : true;
}

/* ---- answers ---- */

/* An answer as a whole. */
typedef struct envelope {
    mj_object top;
    mj_answer answer;
    char why[MJ_WIRE_WHY]; /* why it is no envelope */
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
static void read_envelope(const mj_provider *p, const mj_object *top, mj_buf *scratch, mj_answer *out)
{
    mj_json code = top->f[MJ_F_ERROR];
    mj_status_kind kind = mj_object_status(p, &top->f[MJ_F_STATUS], -2, scratch, &out->number);

    if (kind == MJ_STATUS_WORD || kind == MJ_STATUS_ENVELOPE) {
        out->envelope = out->number != -2; /* an unknown word tells nothing */
        out->number = out->number == p->status.succeeded ? p->envelope.ok : -1;
    } else if (kind == MJ_STATUS_NUMBER) {
        out->envelope = true;
    } else if (mj_object_missing(&top->f[MJ_F_STATUS])) {
        if (code.type == MJ_JSON_OBJECT)
            code = mj_object_only(code, p->code);
        out->envelope = mj_json_whole(&code, &out->number);
    }
    out->error = out->envelope && out->number != p->envelope.ok;
}

static mj_meaning read_answer(const mj_provider *p, int http, bool blocked, mj_str body, mj_buf *scratch, envelope *out)
{
    mj_json root;

    out->answer = (mj_answer){.http = http, .blocked = blocked, .markup = is_markup(body)};
    out->why[0] = '\0';
    out->top = mj_object_none;
    if (read_object(body, &root, out->why)) {
        mj_object_read(p, root, scratch, &out->top);
        read_envelope(p, &out->top, scratch, &out->answer);
        if (!out->answer.envelope)
            is_none(out->why, "no envelope");
    }
    return mj_answer_means(p, &out->answer);
}

static bool unread(mj_wire_statuses *out, char why[MJ_WIRE_WHY], const char *text)
{
    out->meaning = MJ_UNREADABLE;
    return is_none(why, text);
}

bool mj_wire_status(const mj_provider *p, int http, bool blocked, mj_str body, mj_buf *scratch, mj_wire_statuses *out,
                    char why[MJ_WIRE_WHY])
{
    const mj_meaning_info *info;
    envelope e;
    mj_json data;
    mj_str said;

    *out = (mj_wire_statuses){.meaning = read_answer(p, http, blocked, body, scratch, &e)};
    data = e.top.f[MJ_F_DATA];
    if (out->meaning == MJ_UNREADABLE)
        return is_none(why, e.why);
    if (out->meaning == MJ_FINE) {
        if (data.type != MJ_JSON_ARRAY && data.type != MJ_JSON_OBJECT && data.type != MJ_JSON_NULL)
            return unread(out, why, "no data in the answer");
        out->rest = data; /* null is an empty list; a single object is a task, or nothing */
        return true;
    }
    info = mj_meaning_of(out->meaning);
    said = mj_object_complaint(p, &e.top, scratch);
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

bool mj_wire_entry(const mj_provider *p, mj_json entry, mj_buf *scratch, mj_signal *out)
{
    mj_object o;

    mj_object_read(p, entry, scratch, &o);
    return !mj_object_task(p, &o, &mj_object_none, scratch, out);
}

/* A single object is the only entry; {} is an empty list, as some languages write it. */
static bool next_entry(mj_wire_statuses *statuses, mj_json *entry)
{
    mj_json one = statuses->rest;

    if (one.type != MJ_JSON_OBJECT)
        return mj_json_next(&statuses->rest, NULL, entry);
    statuses->rest = (mj_json){0};
    *entry = one;
    return mj_json_next(&one, NULL, &(mj_json){0});
}

/* Any total order does: shorter first, which rarely looks at bytes. */
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

/* Two entries about one task.  If they agree, the longer or the last one counts; if they contradict each other, none
 * does, for good.  Only statuses are compared: other members may need more scratch. */
static mj_json weigh(const mj_provider *p, mj_json one, mj_json other, mj_buf *scratch)
{
    int64_t x = -1, y = -1;
    mj_object a, b;

    mj_object_read(p, one, scratch, &a);
    mj_object_read(p, other, scratch, &b);
    mj_object_status(p, &a.f[MJ_F_STATUS], p->status.running, scratch, &x);
    mj_object_status(p, &b.f[MJ_F_STATUS], p->status.running, scratch, &y);
    if (one.type != MJ_JSON_OBJECT || x != y)
        return (mj_json){.type = MJ_JSON_BOOL};
    return one.text.n > other.text.n ? one : other;
}

size_t mj_wire_asked(const mj_provider *p, mj_wire_statuses statuses, const mj_str *asked, size_t n, mj_json *entries,
                     mj_buf *scratch)
{
    size_t kept = scratch->n, all = 0, odd = 0, nulls = 0;
    mj_json entry;

    for (size_t i = 0; i < n; i++)
        entries[i] = (mj_json){0};
    for (; n > 0 && next_entry(&statuses, &entry); all++) {
        bool by_job;
        mj_str id = mj_object_id(p, entry, scratch, &by_job);
        const mj_str *at = id.n ? bsearch(&id, asked, n, sizeof id, by_bytes) : NULL;
        mj_json *seen = at ? &entries[at - asked] : NULL;
        if (seen)
            *seen = seen->type == MJ_JSON_NONE ? entry : weigh(p, *seen, entry, scratch);
        nulls += entry.type == MJ_JSON_NULL;
        odd += (id.n == 0 && entry.type != MJ_JSON_NULL) ||
               (by_job && id.n && !at); /* a jobId may be another name of a task */
        scratch->n = kept;
    }
    return nulls == all ? all : odd;
}

static bool may_accept(const envelope *e)
{
    return (e->answer.envelope && !e->answer.error) || mj_object_torn(&e->top.f[MJ_F_STATUS]);
}

static bool names_task(const mj_object *top, const mj_object *data)
{
    return data->id.n > 0 || mj_object_torn(&top->f[MJ_F_DATA]) || mj_object_torn(&data->f[MJ_F_TASK_ID]) ||
           mj_object_torn(&data->f[MJ_F_JOB_ID]);
}

void mj_wire_submit(const mj_provider *p, int http, bool blocked, mj_str body, mj_buf *scratch, mj_wire_verdict *out)
{
    envelope e;
    mj_meaning meaning = read_answer(p, http, blocked, body, scratch, &e);
    const mj_meaning_info *info;
    mj_object data;

    *out = (mj_wire_verdict){0};
    mj_object_read(p, e.top.f[MJ_F_DATA], scratch, &data);
    if (meaning == MJ_FINE && data.id.n == 0)
        meaning = MJ_UNREADABLE;
    else if (meaning == MJ_FINE)
        out->task_id = data.id;
    else if (http >= 300 && http < 500 && may_accept(&e) && names_task(&e.top, &data))
        meaning = MJ_CONTRADICTION; /* no definite refusal: to send it again might bill twice */
    info = mj_meaning_of(meaning);
    out->meaning = meaning;
    out->kind = info->kind;
    if (meaning == MJ_FINE)
        return;
    out->code = info->code;
    out->said = mj_object_complaint(p, &e.top, scratch);
    out->text = info->replace && e.answer.envelope && out->said.n ? out->said : info->text;
}
