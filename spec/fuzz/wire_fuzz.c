/* Mutations of good inputs, for all that reads bytes of others: the provider's words, tokens in addresses, and records
 * as they lie on disk.  What holds whatever the bytes: nothing is read or written beyond its end (so run it with the
 * sanitizers), results lie inside of what was read or of the scratch, limits hold, text that is kept is UTF-8, and a
 * record that is let through can be computed with and written again.
 *
 *   wire_fuzz [SECONDS [SEED [CASE]]]      that one case alone, when it is named */
#include "auth/token.h"
#include "base/error.h"
#include "base/gunzip.h"
#include "fuzz.h"
#include "provider/reader.h"
#include "store/store.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#define ZLIB_CONST
#include <zlib.h>

enum { MAX_SEEDS = 64 };

/* ---- readers, and what holds for what they say: whether they took it ---- */

static mj_str input;
static mj_buf scratch;

static bool within(mj_str s, const void *from, size_t n)
{
    return s.n == 0 || (s.p >= (const char *)from && s.p + s.n <= (const char *)from + n);
}

/* Lies in what was read, or in scratch. */
static void must_lie(mj_str s)
{
    MUST(within(s, input.p, input.n) || within(s, scratch.p, scratch.n));
}

static void must_be_text(mj_str s, size_t max)
{
    must_lie(s);
    MUST(s.n <= max);
    MUST(mj_utf8_valid(s.p, s.n));
    for (uint32_t i = 0; i < s.n; i++)
        MUST(((unsigned char)s.p[i] >= 0x20 && s.p[i] != 0x7f) || s.p[i] == '\n' || s.p[i] == '\t');
}

static void must_be_url(mj_str s)
{
    must_be_text(s, MJ_MAX_URL);
    MUST(s.n == 0 || memcmp(s.p, "http", 4) == 0);
    for (uint32_t i = 0; i < s.n; i++)
        MUST(s.p[i] > ' ' && s.p[i] < 0x7f && !strchr("\"<>\\", s.p[i]));
}

static void must_be_id(mj_str s)
{
    must_lie(s);
    MUST(s.n > 0 && s.n <= MJ_MAX_TASK_ID);
    for (uint32_t i = 0; i < s.n; i++)
        MUST(strchr("-_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", s.p[i]) && s.p[i]);
}

static void must_be_why(const char *why)
{
    MUST(memchr(why, '\0', MJ_WIRE_WHY) != NULL);
    MUST(mj_utf8_valid(why, strlen(why)));
}

static void must_be_word(const mj_signal *w)
{
    mj_json meta;
    size_t at;

    must_be_id(w->task_id);
    must_be_url(w->image);
    must_be_text(w->remark, 100);
    must_be_text(w->mj_prompt, MJ_MAX_PROMPT);
    must_be_text(w->error, MJ_MAX_REASON);
    MUST(w->nimages <= MJ_MAX_IMAGES);
    for (unsigned i = 0; i < w->nimages; i++) {
        MUST(w->images[i].n > 0);
        must_be_url(w->images[i]);
    }
    MUST(within(w->meta, input.p, input.n) && w->meta.n <= MJ_MAX_JSON);
    MUST(w->meta.n == 0 || (!mj_json_read(w->meta, &meta, &at) && mj_json_plain(&meta)));
    MUST(w->kind == SIG_RUNNING || w->kind == SIG_SUCCEEDED || w->kind == SIG_HINT || w->kind == SIG_FAILED);
    MUST((w->kind == SIG_SUCCEEDED) <= (w->image.n || w->nimages));
    MUST(w->kind == SIG_FAILED || w->error.n == 0);
}

static void make_scratch(void)
{
    free(scratch.p);
    scratch = (mj_buf){.p = malloc(mj_wire_room(input.n)), .cap = mj_wire_room(input.n)};
    MUST(scratch.p != NULL);
}

static void must_have_room(const uint8_t *was)
{
    MUST(scratch.p == was && scratch.n <= scratch.cap && scratch.cap == mj_wire_room(input.n) && !scratch.failed);
}

/* A document that was taken is none without its last byte. */
static void must_be_whole(void)
{
    mj_str cut = input;
    mj_json root;
    size_t at;

    while (strchr(" \t\r\n", cut.p[cut.n - 1]))
        cut.n--;
    cut.n--;
    MUST(mj_json_read(cut, &root, &at) != NULL);
    MUST(at <= cut.n);
}

static bool callback(void)
{
    char why[MJ_WIRE_WHY];
    const uint8_t *was;
    mj_signal w;

    make_scratch();
    was = scratch.p;
    if (!mj_wire_callback(&mj_midjourney, input, &scratch, &w, why)) {
        must_be_why(why);
        must_have_room(was);
        return false;
    }
    must_have_room(was);
    must_be_word(&w);
    must_be_whole();
    return true;
}

/* The next task in an answer that can be read. */
static bool next_status(mj_wire_statuses *in, mj_buf *room, mj_signal *out)
{
    mj_json entry = in->rest;

    if (entry.type == MJ_JSON_OBJECT) {
        in->rest = (mj_json){0};
        return mj_wire_entry(&mj_midjourney, entry, room, out);
    }
    while (mj_json_next(&in->rest, NULL, &entry))
        if (mj_wire_entry(&mj_midjourney, entry, room, out))
            return true;
    return false;
}

static bool status(void)
{
    char why[MJ_WIRE_WHY];
    const uint8_t *was;
    static const mj_str asked[] = {MJ_LIT("T1"), MJ_LIT("MtAd7mCuc4YqK_a1iAQSW")}; /* sorted */
    static const int https[] = {200, 200, 201, 200, 400, 404, 403, 429, 500, 0};
    mj_json entries[2];
    mj_wire_statuses words;
    mj_signal w;
    size_t n = 0, odd;

    make_scratch();
    was = scratch.p;
    if (!mj_wire_status(&mj_midjourney, https[now->number % (sizeof https / sizeof https[0])], now->number % 3 == 0,
                        input, &scratch, &words, why)) {
        MUST(words.meaning != MJ_FINE && mj_meaning_of(words.meaning)->code[0] != '\0');
        must_be_why(why);
        must_have_room(was);
        return false;
    }
    MUST(words.meaning == MJ_FINE);
    odd = mj_wire_asked(&mj_midjourney, words, asked, 2, entries, &scratch);
    MUST(odd <= input.n);
    for (size_t i = 0; i < 2; i++)
        if (mj_wire_entry(&mj_midjourney, entries[i], &scratch, &w)) {
            must_be_word(&w);
            MUST(mj_str_eq(w.task_id, asked[i]));
        }
    must_have_room(was);
    make_scratch(); /* once more, entry by entry */
    was = scratch.p;
    for (; next_status(&words, &scratch, &w); n++) {
        must_be_word(&w);
        must_have_room(was);
    }
    MUST(n <= input.n);
    must_have_room(was);
    return true;
}

static bool submit(void)
{
    static const int https[] = {200, 200, 200, 201, 400, 401, 404, 429, 302, 500, 0};
    const uint8_t *was;
    mj_wire_verdict v;

    make_scratch();
    was = scratch.p;
    mj_wire_submit(&mj_midjourney, https[now->number % (sizeof https / sizeof https[0])], now->number % 3 == 0, input,
                   &scratch, &v);
    must_have_room(was);
    MUST(strcmp(v.kind, "accepted") == 0 || strcmp(v.kind, "refused") == 0 || strcmp(v.kind, "rejected") == 0 ||
         strcmp(v.kind, "maybe_sent") == 0);
    if (v.code) {
        MUST(v.text.n > 0 && v.text.n <= MJ_MAX_REASON && mj_utf8_valid(v.text.p, v.text.n));
        MUST(v.task_id.n == 0);
        return false;
    }
    MUST(strcmp(v.kind, "accepted") == 0 && v.text.n == 0);
    must_be_id(v.task_id);
    return true;
}

static bool token(void)
{
    mj_token t, again;

    mj_token_read(input.p, input.n, &t);
    MUST(t.nrefs <= MJ_TOKEN_TRIES && t.nattempts <= MJ_TOKEN_TRIES);
    for (unsigned i = 0; i < t.nrefs; i++)
        MUST(strlen(t.refs[i]) == MJ_ULID_TEXT);
    for (unsigned i = 0; i < t.nattempts; i++)
        MUST(t.attempts[i] >= 1 && t.attempts[i] <= 999);
    MUST(t.kid[MJ_KID_TEXT] == '\0' && t.sig[MJ_SIG_TEXT] == '\0');
    MUST(t.present || (!t.kid[0] && !t.sig[0]));
    mj_token_read(input.p, input.n, &again);
    MUST(memcmp(&t, &again, sizeof t) == 0);
    return t.nrefs > 0 && t.kid[0] && t.sig[0];
}

static void must_be_in(mj_str s)
{
    MUST(within(s, input.p, input.n));
}

static void must_be_task(const mj_task *t)
{
    const mj_str all[] = {t->account, t->prompt, t->mj_prompt, t->user_id, t->context,   t->key,
                          t->image,   t->meta,   t->error,     t->files,   t->error_code};
    const int64_t times[] = {t->created_at, t->updated_at,   t->finished_at, t->due_at,   t->expires_at,
                             t->asked_at,   t->absent_since, t->silent_ms,   t->called_at};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        must_be_in(all[i]);
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        MUST(times[i] >= 0 && times[i] <= MJ_MAX_TIME);
    MUST(t->account.n <= MJ_MAX_NAME && t->user_id.n <= MJ_MAX_NAME && t->key.n <= MJ_MAX_NAME);
    MUST(t->state < MJ_NSTATES && t->source < MJ_NSOURCES && t->nimages <= MJ_MAX_IMAGES);
    MUST(t->nattempts >= 1 && t->nattempts <= MJ_MAX_ATTEMPTS && t->ntimeline <= MJ_MAX_TIMELINE);
    for (unsigned i = 0; i < t->nimages; i++)
        must_be_in(t->images[i].head), must_be_in(t->images[i].tail);
    for (unsigned i = 0; i < t->nattempts; i++) {
        MUST(t->attempts[i].status < MJ_NATTEMPT_STATUSES && t->attempts[i].nids <= MJ_MAX_IDS);
        for (unsigned k = 0; k < t->attempts[i].nids; k++)
            must_be_in(t->attempts[i].ids[k]);
    }
    for (unsigned i = 0; i < t->ntimeline; i++) {
        must_be_in(t->timeline[i].reason);
        MUST(t->timeline[i].from < MJ_NSTATES && t->timeline[i].to < MJ_NSTATES);
    }
}

static void must_be_written_again(const mj_task *t)
{
    static mj_task again;
    mj_buf one = {0}, two = {0};

    MUST(mj_task_encode(t, &one) == MJ_OK);
    MUST(mj_task_decode(one.p, one.n, &again) == MJ_OK);
    MUST(mj_task_encode(&again, &two) == MJ_OK);
    MUST(one.n == two.n && memcmp(one.p, two.p, one.n) == 0);
    mj_buf_free(&one);
    mj_buf_free(&two);
}

/* One after the other, whatever it makes of them. */
static void hear_signals(mj_task *t)
{
    uint64_t bits = now->number;

    for (int i = 0; i < 4; i++, bits /= SIG_COUNT) {
        mj_signal s = {.kind = (mj_signal_kind)(bits % SIG_COUNT), .expect_state = -1, .wait_ms = -1};
        mj_effect step;
        s.attempt = (uint32_t)(bits % 3);
        s.source = (mj_source)(bits % MJ_NSOURCES);
        s.task_id = bits % 5 ? MJ_LIT("T1") : MJ_LIT("T7");
        s.image = MJ_LIT("https://cdn.example/grid.png");
        s.error = MJ_LIT("because");
        s.account = MJ_LIT("main");
        if (s.kind == SIG_CREATE)
            continue;
        mj_state_apply(t, &s, &mj_rules_default, 1776211300000, &step);
        mj_state_due(t);
    }
}

static bool task(void)
{
    static mj_task t, blank;

    memset(&t, 0xa5, sizeof t);
    memset(&blank, 0xa5, sizeof blank);
    if (mj_task_decode(input.p, input.n, &t) != MJ_OK) {
        MUST(memcmp(&t, &blank, sizeof t) == 0);
        return false;
    }
    must_be_task(&t);
    must_be_written_again(&t);
    hear_signals(&t);
    must_be_written_again(&t);
    return true;
}

static bool tomb(void)
{
    mj_tomb t, blank;

    memset(&t, 0xa5, sizeof t);
    memset(&blank, 0xa5, sizeof blank);
    if (mj_tomb_decode(input, &t) != MJ_OK) {
        MUST(memcmp(&t, &blank, sizeof t) == 0);
        return false;
    }
    MUST(t.state < MJ_NSTATES && t.nids <= MJ_MAX_ATTEMPTS * MJ_MAX_IDS);
    must_be_in(t.key);
    for (unsigned i = 0; i < t.nids; i++)
        must_be_in(t.ids[i]);
    return true;
}

static bool event(void)
{
    mj_event_record e, blank;

    memset(&e, 0xa5, sizeof e);
    memset(&blank, 0xa5, sizeof blank);
    if (mj_event_decode(input, &e) != MJ_OK) {
        MUST(memcmp(&e, &blank, sizeof e) == 0);
        return false;
    }
    MUST(mj_event_name(e.type) && e.nerrors <= MJ_MAX_EVENT_ERRORS && e.before <= e.tries);
    for (unsigned i = 0; i < e.nerrors; i++)
        must_be_in(e.errors[i].text);
    return true;
}

static bool refused(void)
{
    mj_refused f, blank;

    memset(&f, 0xa5, sizeof f);
    memset(&blank, 0xa5, sizeof blank);
    if (mj_refused_decode(input, &f) != MJ_OK) {
        MUST(memcmp(&f, &blank, sizeof f) == 0);
        return false;
    }
    must_be_in(f.why);
    must_be_in(f.body);
    return true;
}

enum { UNPACKED = 100000 };

static bool packed(void)
{
    mj_buf out = {0};
    mj_str plain;
    int rc = mj_gunzip(input, UNPACKED, &out, &plain);

    MUST(rc == MJ_OK || rc == MJ_EINVAL || rc == MJ_ELIMIT);
    MUST(out.n <= UNPACKED + 1 && out.cap <= 4 * UNPACKED);
    if (rc == MJ_OK)
        MUST(out.p ? within(plain, out.p, out.n) && plain.n <= UNPACKED : plain.p == input.p && plain.n == input.n);
    rc = rc == MJ_OK && out.p ? MJ_OK : MJ_EINVAL;
    mj_buf_free(&out);
    return rc == MJ_OK;
}

static const struct target {
    const char *name;
    bool (*run)(void);
    bool words; /* pieces of JSON are worth putting in */
} targets[] = {
    {"callback", callback, true}, {"status", status, true},    {"submit", submit, true},
    {"token", token, true},       {"task", task, false},       {"tomb", tomb, false},
    {"event", event, false},      {"refused", refused, false}, {"packed", packed, false},
};
enum { TARGETS = sizeof targets / sizeof targets[0] };

/* ---- good inputs ---- */

static struct seed {
    size_t target;
    mj_buf bytes;
} seeds[MAX_SEEDS];
static size_t nseeds;

static mj_buf *add_seed(const char *target)
{
    struct seed *s = &seeds[nseeds++];

    MUST(nseeds <= MAX_SEEDS);
    while (strcmp(targets[s->target].name, target) != 0)
        s->target++;
    return &s->bytes;
}

#define TASK                                                                                                           \
    "{\"taskId\":\"MtAd7mCuc4YqK_a1iAQSW\",\"status\":1,\"jobId\":\"3dbb\",\"image\":\"https:\\/\\/cdn.example\\/"     \
    "g.png\","                                                                                                         \
    "\"images\":[\"HTTPS://cdn.example/0 "                                                                             \
    "\xc3\xa9.png\",{\"url\":\"https://cdn.example/1%.png\"},null],\"prompt\":\"as sent\","                            \
    "\"mjPrompt\":\"as \\u201crun\\u201d \\ud83e\\udd8a\",\"failReason\":\"\",\"createdAt\":1776211200000,"            \
    "\"meta\":{\"width\":1024,\"height\":1024.5e-1}}"
#define FAILED                                                                                                         \
    "{\"taskId\":\"T1\",\"status\":\"2\",\"failReason\":\"Banned\\n\\u0000 \xc3\xa9 word\",\"meta\":[null,true]}"

static void text_seeds(void)
{
    static const char *const all[][2] = {
        {"callback", TASK},
        {"callback", FAILED},
        {"callback", "{\"status\":0,\"message\":\"success\",\"data\":" TASK "}"},
        {"callback", "{\"status\":0,\"data\":[" FAILED "]}"},
        {"callback", "{\"taskId\":\"T\\u0031\",\"status\":0,\"image\":null,\"images\":[],\"prompt\":\"a\\/b\"}"},
        {"status", "{\"status\":0,\"message\":\"success\",\"data\":[" TASK "," FAILED ",null,{}]}"},
        {"status", "{\"status\":\"0\",\"data\":" FAILED "}"},
        {"status", "{\"status\":1002,\"message\":\"too \\u00e9 many\",\"data\":null}"},
        {"submit", "{\"status\":0,\"message\":\"success\",\"data\":{\"taskId\":\"MtAd7mCuc4YqK_a1iAQSW\"}}"},
        {"submit", "{\"status\":1001,\"message\":\"quota\\tnot enough\",\"data\":null}"},
        {"callback", "{\"status\":\"SUCCESS\",\"jobId\":\"J\\u0031\",\"message\":\"a\\tb\",\"data\":{\"jobId\":\"J1\","
                     "\"progress\":\"100\",\"cdnImage\":\"https:\\/\\/a\",\"images\":[\"https://b\"]}}"},
        {"callback", "\xef\xbb\xbf{\"taskId\":17.0,\"status\":\"Failed\",\"error\":{\"message\":\"a\\nb\"}}"},
        {"status",
         "{\"status\":\"success\",\"data\":[{\"taskId\":\"T1\",\"status\":1},{\"taskId\":\"T1\",\"status\":2},"
         "null,{\"jobId\":\"T\\u0031\",\"status\":\"x\"}]}"},
        {"submit", "{\"error\":{\"code\":422,\"message\":\"a\\u0000\"}}"},
        {"submit", "{\"status\":0,\"data\":{\"taskId\":123456789012345678901234567890}}"},
        {"submit", "{\"status\":1003,\"message\":\"\xff banned\"}"},
        {"token", "/hook?ref=01ARZ3NDEKTSV4RRFFQ69G5FAV&a=1&kid=abcdefgh&sig=abcdefghijklmnopqrstuv"},
        {"token", "https://u:p@a.example:8443/h?x=1&ref=%30%31ARZ3NDEKTSV4RRFFQ69G5FAV&a=12&kid=ab%2ddefgh&sig="
                  "abcdefghijklmnopqrstuv&ref=01ARZ3NDEKTSV4RRFFQ69G5FAW#ref=1"},
    };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mj_put_raw(add_seed(all[i][0]), all[i][1], strlen(all[i][1]));
}

static void packed_seeds(void)
{
    static const char text[] = "{\"status\":0,\"data\":[" TASK "," TASK "]}";

    for (int format = MAX_WBITS; format <= MAX_WBITS + 16; format += 16) { /* zlib, gzip */
        mj_buf *b = add_seed("packed");
        z_stream z = {.next_in = (const Bytef *)text, .avail_in = sizeof text - 1};
        MUST(deflateInit2(&z, 9, Z_DEFLATED, format, 8, Z_DEFAULT_STRATEGY) == Z_OK);
        MUST(mj_buf_reserve(b, 1000));
        z.next_out = b->p;
        z.avail_out = 1000;
        MUST(deflate(&z, Z_FINISH) == Z_STREAM_END);
        b->n = z.total_out;
        deflateEnd(&z);
    }
}

static void task_seeds(void)
{
    static mj_task t;
    mj_buf *b;

    t = (mj_task){.state = MJ_PENDING,
                  .timeout = 600,
                  .priority = -5,
                  .created_at = 1776211200000,
                  .updated_at = 1776211200001,
                  .due_at = 1776211290000,
                  .account = MJ_LIT("main"),
                  .prompt = MJ_LIT("a fox --ar 4:5"),
                  .user_id = MJ_LIT("u1"),
                  .context = MJ_LIT("{\"order\":7}"),
                  .key = MJ_LIT("key-7"),
                  .nattempts = 1};
    t.attempts[0] = (mj_attempt){.status = MJ_ATTEMPT_ACCEPTED,
                                 .slot = true,
                                 .submitted_at = 1776211200000,
                                 .slot_until = 1776211900000,
                                 .account = MJ_LIT("main"),
                                 .nids = 1,
                                 .ids = {MJ_LIT("T1")}};
    mj_task_encode(&t, add_seed("task"));

    t.state = MJ_SUBMITTING;
    t.has_owner = true;
    t.owner.pid = 4242;
    t.attempts[1] = t.attempts[0];
    t.attempts[1].status = MJ_ATTEMPT_INTENT;
    t.attempts[1].nids = 0;
    t.nattempts = 2;
    t.ntimeline = 3;
    for (unsigned i = 0; i < t.ntimeline; i++)
        t.timeline[i] = (mj_timeline_entry){.at = 1776211200000 + i,
                                            .until = 1776211200500 + i,
                                            .count = 1 + i,
                                            .attempt = 1,
                                            .signal = SIG_CLAIM,
                                            .to = MJ_SUBMITTING,
                                            .reason = MJ_LIT("network")};
    mj_task_encode(&t, add_seed("task"));

    t.state = MJ_SUCCEEDED;
    t.has_owner = false;
    t.image = MJ_LIT("https://cdn.example/grid.png");
    t.nimages = 2;
    t.images[0].tail = t.images[1].tail = t.image;
    t.meta = MJ_LIT("{\"width\":1024}");
    t.mj_prompt = MJ_LIT("as run");
    t.files = MJ_LIT("[\"/srv/a.png\"]");
    t.called_at = t.finished_at = 1776211300000;
    mj_task_encode(&t, add_seed("task"));

    t.state = MJ_AMBIGUOUS; /* as the first version wrote it: without what came since, of one byte each */
    t.files = (mj_str){0};
    t.called_at = 0;
    t.nimages = 0; /* which version 4 writes in another way */
    b = add_seed("task");
    mj_task_encode(&t, b);
    b->p[0] = 1;
    b->n -= 2;
}

static void put_ref(mj_buf *b)
{
    mj_put_raw(b, "0123456789abcdef", MJ_ULID_BYTES);
}

/* As their writers in the store do it; those are nobody else's. */
static void record_seeds(void)
{
    mj_buf *b = add_seed("tomb");

    mj_put_u8(b, 1);
    put_ref(b);
    mj_put_u8(b, MJ_SUCCEEDED);
    for (int i = 0; i < 3; i++)
        mj_put_int(b, 1776211200000 + i);
    mj_put_str(b, MJ_LIT("key-7"));
    mj_put_uint(b, 2);
    mj_put_str(b, MJ_LIT("T1"));
    mj_put_str(b, MJ_LIT("T2"));

    for (unsigned older = 0; older < 2; older++) {
        b = add_seed("event");
        mj_put_u8(b, 1);
        put_ref(b);
        mj_put_uint(b, 3);
        mj_put_u8(b, MJ_EVENT_FAILED);
        mj_put_u8(b, 1);
        mj_put_uint(b, 1);
        mj_put_uint(b, 4);
        mj_put_int(b, 1776211200000);
        mj_put_int(b, 1776211200500);
        mj_put_u8(b, 2);
        for (int i = 0; i < 2; i++) {
            mj_put_int(b, 1776211200000);
            mj_put_str(b, MJ_LIT("no route"));
        }
        if (older)
            continue;
        mj_put_uint(b, 2);
        mj_put_uint(b, 1);
    }

    b = add_seed("refused");
    mj_put_uint(b, 7);
    mj_put_int(b, 1776211200000);
    put_ref(b);
    mj_put_uint(b, 1);
    mj_put_uint(b, 70000);
    mj_put_str(b, MJ_LIT("not JSON"));
    mj_put_str(b, MJ_LIT("{\"taskId\":"));
}

/* ---- mutations ---- */

static const struct seed *any_seed(rng *r, size_t target)
{
    for (;;) {
        const struct seed *s = &seeds[below(r, (uint32_t)nseeds)];
        if (s->target == target)
            return s;
    }
}

static const char *const tokens[] = {
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "\\ud83e",
    "\\udd8a",
    "\\u0000",
    "null",
    "true",
    "-",
    "1",
    "1001",
    "1002",
    "1.0",
    "1e5",
    "0",
    "\"2\"",
    "\"taskId\":",
    "\"status\":",
    "\"data\":",
    "\"image\":",
    "{}",
    "\"images\":",
    "\"url\":",
    "\"mjPrompt\":",
    "\"prompt\":",
    "\"meta\":",
    "\"failReason\":",
    "\"jobId\":",
    "\"cdnImage\":",
    "\"error\":",
    "\"code\":",
    "\"SUCCESS\"",
    "\"failed\"",
    "\xef\xbb\xbf",
    "[]",
    "\"message\":",
    "\"T1\"",
    "\"http://a\"",
    "\xff",
    "\xc3",
    "\xf0\x9f",
    "\x7f",
    "\t",
    "&ref=",
    "&sig=",
    "&kid=",
    "%41",
    "?",
    "#",
    "&a=999",
    "9007199254740993",
    "\"\"",
    "[[[[[[[[",
};

/* ---- cases ---- */

static void run_case(uint64_t seed, uint64_t number)
{
    static uint8_t *exact;
    rng r = {seed * 0x100000001b3u + number};
    const struct seed *s = &seeds[below(&r, (uint32_t)nseeds)];

    now->number = number;
    now->target = s->target;
    now->n = s->bytes.n;
    memcpy(now->bytes, s->bytes.p, s->bytes.n);
    for (uint32_t times = number < nseeds ? 0 : 1 + below(&r, 1 + below(&r, 6)); times > 0; times--)
        mutate(&r, now->bytes, &now->n, FUZZ_BYTES, tokens, targets[now->target].words ? N(tokens) : 0,
               &any_seed(&r, now->target)->bytes);
    free(exact);
    exact = malloc(now->n); /* which ends where it ends */
    MUST(exact != NULL);
    memcpy(exact, now->bytes, now->n);
    input = (mj_str){(const char *)exact, (uint32_t)now->n};
    now->kinds[now->target]++;
    now->accepted[now->target] += targets[now->target].run();
    MUST(memcmp(exact, now->bytes, now->n) == 0); /* it is only read */
}

static void must_take_seeds(void)
{
    for (size_t i = 0; i < nseeds; i++) {
        input = (mj_str){(const char *)seeds[i].bytes.p, (uint32_t)seeds[i].bytes.n};
        if (targets[seeds[i].target].words)
            targets[seeds[i].target].run(); /* some of them are refusals */
        else
            MUST(targets[seeds[i].target].run());
    }
}

static void run(double limit, uint64_t seed, const char *only)
{
    double from = seconds(), took;
    uint64_t n = 0;

    must_take_seeds();
    if (only) {
        run_case(seed, strtoull(only, NULL, 0));
        return;
    }
    do
        for (int i = 0; i < 256; i++)
            run_case(seed, n++);
    while ((took = seconds() - from) < limit);
    printf("%" PRIu64 " cases in %.1f s, %.0f/s; taken:", n, took, (double)n / took);
    for (size_t i = 0; i < TARGETS; i++)
        printf(" %s %" PRIu64 " of %" PRIu64 "%s", targets[i].name, now->accepted[i], now->kinds[i],
               i + 1 < TARGETS ? "," : "\n");
}

static const char *name_of(size_t target)
{
    return targets[target].name;
}

static void prepare(void)
{
    text_seeds();
    packed_seeds();
    task_seeds();
    record_seeds();
}

int main(int argc, char **argv)
{
    return fuzz_main(argc, argv, "wire", &(fuzz_program){prepare, run, name_of});
}
