/* mj_wire: what the provider's words are taken to mean. */
#include "json_help.h"
#include "provider/reader.h"
#include "rng.h"

/* ---- the reader, with scratch of exactly what it asks for ---- */

typedef struct heard {
    bool ok;
    mj_signal word;
    char why[MJ_WIRE_WHY];
} heard;

static mj_str body; /* what was read last */
static mj_buf scratch;

static void make_scratch(mj_str text)
{
    size_t n = mj_wire_room(text.n);

    free(scratch.p);
    scratch = (mj_buf){.p = malloc(n), .cap = n};
    CHECK(scratch.p != NULL);
}

/* It lies in the text or in scratch, and nowhere else. */
static void inside(mj_str s)
{
    const char *room = (const char *)scratch.p;

    CHECK(s.n == 0 || (s.p >= body.p && s.p + s.n <= body.p + body.n) ||
          (s.p >= room && s.p + s.n <= room + scratch.n));
}

static void check_word(const mj_signal *w)
{
    const mj_str all[] = {w->task_id, w->image, w->mj_prompt, w->meta, w->error};

    for (size_t i = 0; i < N(all); i++) {
        inside(all[i]);
        CHECK(mj_utf8_valid(all[i].p, all[i].n));
    }
    for (unsigned i = 0; i < w->nimages; i++)
        inside(w->images[i]);
    CHECK(w->task_id.n > 0 && w->task_id.n <= MJ_MAX_TASK_ID);
    CHECK(w->mj_prompt.n <= MJ_MAX_PROMPT && w->error.n <= MJ_MAX_REASON && w->meta.n <= MJ_MAX_JSON);
    CHECK(w->image.n <= MJ_MAX_URL && w->nimages <= MJ_MAX_IMAGES);
    CHECK_INT(w->expect_state, -1);
    CHECK_INT(w->wait_ms, -1);
}

static void check_scratch(const uint8_t *was)
{
    CHECK(scratch.p == was);
    CHECK(scratch.n <= scratch.cap);
    CHECK_INT(scratch.cap, mj_wire_room(body.n));
    CHECK(!scratch.failed);
}

static heard callback_of(const char *text, size_t n)
{
    heard h = {.why = "untouched"};
    const uint8_t *was;

    body = exactly(text, n);
    make_scratch(body);
    was = scratch.p;
    h.ok = mj_wire_callback(&mj_midjourney, body, &scratch, &h.word, h.why);
    check_scratch(was);
    CHECK(body.n == 0 || memcmp(body.p, text, n) == 0);
    if (h.ok) {
        check_word(&h.word);
        CHECK_STR(h.why, "untouched");
    } else {
        CHECK(h.why[0] != '\0' && strcmp(h.why, "untouched") != 0);
    }
    return h;
}

static heard callback(const char *text)
{
    return callback_of(text, strlen(text));
}

/* The word in it, which has to be there. */
static mj_signal word(const char *text)
{
    heard h = callback(text);

    if (!h.ok)
        MJ_TEST_FAIL("%s: %s", text, h.why);
    return h.word;
}

static void no_word(const char *text, const char *why)
{
    heard h = callback(text);

    if (h.ok || strcmp(h.why, why) != 0)
        MJ_TEST_FAIL("%s: \"%s\", not \"%s\"", text, h.ok ? "(a word)" : h.why, why);
}

/* ---- callbacks: where the task object is ---- */

#define FULL                                                                                                           \
    "{\"taskId\":\"MtAd7mCuc4YqK_a1iAQSW\",\"status\":1,\"jobId\":\"3dbbd469-36af-4a0f-8f02-df6c579e7011\","           \
    "\"image\":\"https://cdn.example/grid.png\",\"images\":[\"https://cdn.example/0.png\","                            \
    "\"https://cdn.example/1.png\"],\"prompt\":\"as sent\",\"mjPrompt\":\"as run\",\"failReason\":\"\","               \
    "\"createdAt\":1776211200000,\"meta\":{\"width\":1024, \"height\":1024}}"

static void check_full(const char *text)
{
    mj_signal w = word(text);

    CHECK_INT(w.kind, SIG_SUCCEEDED);
    CHECK_TEXT(w.task_id, "MtAd7mCuc4YqK_a1iAQSW");
    CHECK_TEXT(w.image, "https://cdn.example/grid.png");
    CHECK_INT(w.nimages, 2);
    CHECK_TEXT(w.images[0], "https://cdn.example/0.png");
    CHECK_TEXT(w.images[1], "https://cdn.example/1.png");
    CHECK_TEXT(w.mj_prompt, "as run");
    CHECK_TEXT(w.meta, "{\"width\":1024, \"height\":1024}");
    CHECK_INT(w.error.n, 0);
    CHECK_INT(w.error_code.n, 0);
    CHECK_INT(scratch.n, 0); /* nothing of it has to be changed */
}

TEST("a task is read bare, in the envelope, and in an array of one in the envelope")
{
    check_full(FULL);
    check_full(" \r\n" FULL "\n");
    check_full("{\"status\":0,\"message\":\"success\",\"data\":" FULL "}");
    check_full("{\"status\":0,\"message\":\"success\",\"data\":[" FULL "]}");
    check_full("{\"data\":[ " FULL " ]}");
    check_full("{\"data\":" FULL ",\"status\":0}");
    check_full("{\"status\":1001,\"data\":" FULL "}"); /* whatever the envelope says of itself */
    check_full("{\"taskId\":null,\"status\":0,\"data\":" FULL "}");
    check_full("{\"\\u0064ata\":" FULL "}");
    check_full("{\"data\":null,\"data\":" FULL "}");
}

TEST("a task id at the top makes it bare, whatever data says beside it")
{
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":0,\"data\":{\"taskId\":\"T2\",\"status\":1}}").task_id, "T1");
    CHECK_TEXT(word("{\"data\":[],\"taskId\":\"T1\",\"status\":0}").task_id, "T1");
    no_word("{\"taskId\":\"\",\"data\":{\"taskId\":\"T2\",\"status\":1}}", "no usable taskId");
    no_word("{\"taskId\":7.5,\"data\":{\"taskId\":\"T2\",\"status\":1}}", "no usable taskId");
    no_word("{\"taskId\":false,\"data\":{\"taskId\":\"T2\",\"status\":1}}", "no usable taskId");
    no_word("{\"taskId\":\"T1\",\"data\":{\"status\":1}}", "no usable status");
}

TEST("a callback without one task in it is told apart by why")
{
    static const struct {
        const char *text, *why;
    } none[] = {
        {"", "not JSON: it is empty (byte 1)"},
        {"a fox", "not JSON: no JSON value (byte 1)"},
        {"{\"taskId\":\"T1\"", "not JSON: it ends too early (byte 15)"},
        {"{\"taskId\":\"T1\",\"status\":0}x", "not JSON: something after the value (byte 27)"},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]]]]]]]]", "not JSON: nested too deep (byte 25)"},
        {"null", "not a JSON object"},
        {"7", "not a JSON object"},
        {"\"T1\"", "not a JSON object"},
        {"[]", "not a JSON object"},
        {"[{\"taskId\":\"T1\",\"status\":0}]", "not a JSON object"},
        {"{}", "no task in it"},
        {"{\"status\":0}", "no task in it"},
        {"{\"taskId\":null,\"status\":0}", "no task in it"},
        {"{\"status\":0,\"data\":null}", "no task in it"},
        {"{\"status\":0,\"data\":\"T1\"}", "no task in it"},
        {"{\"status\":0,\"data\":7}", "no task in it"},
        {"{\"status\":0,\"data\":true}", "no task in it"},
        {"{\"status\":0,\"data\":[]}", "no task in it"},
        {"{\"status\":0,\"data\":[ ]}", "no task in it"},
        {"{\"status\":0,\"data\":[null]}", "no task in it"},
        {"{\"status\":0,\"data\":[\"T1\"]}", "no task in it"},
        {"{\"status\":0,\"data\":[[{\"taskId\":\"T1\",\"status\":0}]]}", "no task in it"},
        {"{\"data\":{\"taskId\":\"T1\",\"status\":0},\"data\":[]}", "no task in it"},
        {"{\"data\":[{\"taskId\":\"T1\",\"status\":0},{\"taskId\":\"T2\",\"status\":0}]}", "more than one task in it"},
        {"{\"data\":[{\"taskId\":\"T1\",\"status\":0},null]}", "more than one task in it"},
        {"{\"data\":[null,{\"taskId\":\"T1\",\"status\":0}]}", "more than one task in it"},
        {"{\"data\":[[],[]]}", "more than one task in it"},
        {"{\"data\":{}}", "no usable taskId"},
        {"{\"data\":[{}]}", "no usable taskId"},
        {"{\"data\":{\"data\":{\"taskId\":\"T1\",\"status\":0}}}", "no usable taskId"},
        {"{\"data\":{\"task_id\":\"T1\",\"status\":0}}", "no usable taskId"},
        {"{\"data\":{\"taskid\":\"T1\",\"status\":0}}", "no usable taskId"},
        {"{\"taskId\":\"T1\"}", "no usable status"},
        {"{\"status\":0,\"data\":{\"taskId\":\"T1\"}}", "no usable status"}, /* not the envelope's */
    };

    for (size_t i = 0; i < N(none); i++)
        no_word(none[i].text, none[i].why);
}

TEST("a reseller's callback is read: a status word and a jobId around data")
{
    mj_signal w = word("{\"status\":\"SUCCESS\",\"jobId\":\"J1\",\"message\":\"done\",\"data\":{\"jobId\":\"J1\","
                       "\"progress\":\"100\",\"cdnImage\":\"https://a\",\"images\":[\"https://b\",\"https://c\"]}}");

    CHECK_INT(w.kind, SIG_SUCCEEDED);
    CHECK_TEXT(w.task_id, "J1");
    CHECK_TEXT(w.image, "https://a");
    CHECK_INT(w.nimages, 2);
    w = word("{\"status\":\"FAILED\",\"jobId\":\"J1\",\"message\":\"banned\",\"data\":null}");
    CHECK_INT(w.kind, SIG_FAILED);
    CHECK_TEXT(w.error, "banned");
    w = word("{\"status\":\"ON_QUEUE\",\"jobId\":\"J1\",\"data\":{\"jobId\":\"J1\",\"progress\":\"40\"}}");
    CHECK_INT(w.kind, SIG_RUNNING);
    w = word("{\"status\":\"SUCCESS\",\"data\":{\"taskId\":\"T1\",\"jobId\":\"J1\"}}");
    CHECK_INT(w.kind, SIG_HINT); /* and polling will tell */
    CHECK_TEXT(w.task_id, "T1");
    w = word("{\"status\":\"FAILED\",\"message\":\"banned\",\"data\":{\"taskId\":\"T1\"}}");
    CHECK_TEXT(w.error, "banned");
    /* the number beside a task is the envelope's, and so is the message */
    w = word("{\"status\":0,\"message\":\"success\",\"jobId\":\"J1\",\"data\":{\"taskId\":\"T1\",\"status\":2}}");
    CHECK_INT(w.kind, SIG_FAILED);
    CHECK_TEXT(w.task_id, "T1");
    CHECK_TEXT(w.error, "");
    w = word("{\"status\":\"success\",\"message\":\"ok\",\"data\":{\"taskId\":\"T1\",\"status\":0}}");
    CHECK_INT(w.kind, SIG_RUNNING);
    no_word("{\"status\":1,\"data\":{\"jobId\":\"J1\"}}", "no usable status");
    no_word("{\"status\":\"error\",\"message\":\"later\",\"data\":{\"taskId\":\"T1\"}}", "no usable status");
    CHECK_INT(word("{\"taskId\":\"T1\",\"status\":\"error\"}").kind, SIG_FAILED);
    /* what is beside it is not used when it is about another task */
    w = word("{\"taskId\":\"T1\",\"status\":1,\"data\":{\"taskId\":\"T2\",\"image\":\"https://a\"}}");
    CHECK_INT(w.kind, SIG_HINT);
}

TEST("a byte order mark before a callback is no part of it")
{
    check_full("\xef\xbb\xbf" FULL);
    no_word("\xef\xbb\xbf", "not JSON: it is empty (byte 4)");
    no_word("\xef\xbb\xbf{]", "not JSON: a member without a key (byte 5)");
    no_word("\xef\xbb" FULL, "not JSON: no JSON value (byte 1)");
}

/* ---- task ids and statuses ---- */

TEST("a task id is what a URL may hold, as a string of one to 256 of it")
{
    static const char *const bad[] = {"\"\"",         "\"a b\"",     "\"a/b\"",   "\"a.b\"",      "\"a+b\"", "\"a=\"",
                                      "\"a\\u0000\"", "\"\\ud800\"", "\"a\\n\"",  "\"\xc3\xa9\"", "\"a@\"",  "\"a[\"",
                                      "\"a`\"",       "\"a{\"",      "\"a:\"",    "7.5",          "true",    "[\"T1\"]",
                                      "{}",           "{\"a\":1}",   "\"a\x01\"", "\"\xff\""};
    static const char *const good[] = {"a", "Z", "0", "-", "_", "azAZ09-_", "MtAd7mCuc4YqK_a1iAQSW"};
    char text[700], id[300];

    for (size_t i = 0; i < N(bad); i++) {
        snprintf(text, sizeof text, "{\"taskId\":%s,\"status\":0}", bad[i]);
        no_word(text, "no usable taskId");
    }
    for (size_t i = 0; i < N(good); i++) {
        snprintf(text, sizeof text, "{\"taskId\":\"%s\",\"status\":0}", good[i]);
        CHECK_TEXT(word(text).task_id, good[i]);
    }
    memset(id, 'x', sizeof id);
    snprintf(text, sizeof text, "{\"taskId\":\"%.256s\",\"status\":0}", id);
    CHECK_INT(word(text).task_id.n, 256);
    snprintf(text, sizeof text, "{\"taskId\":\"%.257s\",\"status\":0}", id);
    no_word(text, "no usable taskId");
    CHECK_TEXT(word("{\"taskId\":\"\\u0054\\u0031\",\"status\":0}").task_id, "T1");
}

TEST("a status is a whole number, also as a string, or a word, and an unknown one means running")
{
    static const struct {
        const char *status;
        int kind; /* -1: none */
    } statuses[] = {
        {"0", SIG_RUNNING},
        {"\"0\"", SIG_RUNNING},
        {"1", SIG_SUCCEEDED},
        {"\"1\"", SIG_SUCCEEDED},
        {"1.0", SIG_SUCCEEDED},
        {"2", SIG_FAILED},
        {"\"2\"", SIG_FAILED},
        {"2.00", SIG_FAILED},
        {"3", SIG_RUNNING},
        {"-1", SIG_RUNNING},
        {"\"-2\"", SIG_RUNNING},
        {"9007199254740992", SIG_RUNNING},
        {"\"01\"", SIG_SUCCEEDED},
        {"null", -1},
        {"true", -1},
        {"\"\"", -1},
        {"\"done\"", SIG_SUCCEEDED},
        {"\"SUCCESS\"", SIG_SUCCEEDED},
        {"\"Succeeded\"", SIG_SUCCEEDED},
        {"\"completed\"", SIG_SUCCEEDED},
        {"\"FINISHED\"", SIG_SUCCEEDED},
        {"\"\\u0053uccess\"", SIG_SUCCEEDED},
        {"\"FAILURE\"", SIG_FAILED},
        {"\"failed\"", SIG_FAILED},
        {"\"Fail\"", SIG_FAILED},
        {"\"IN_PROGRESS\"", SIG_RUNNING},
        {"\"PENDING_QUEUE\"", SIG_RUNNING},
        {"\"ON_QUEUE\"", SIG_RUNNING},
        {"\"a word of tomorrow\"", SIG_RUNNING},
        {"\"successful?\"", SIG_RUNNING},
        {"\"success \"", SIG_RUNNING},
        {"\"_\"", -1},
        {"\"\xc3\xa9\"", -1},
        {"1.5", -1},
        {"[1]", -1},
        {"{}", -1},
        {"\"1x\"", -1},
        {"\" 1\"", -1},
        {"9007199254740993", -1},
        {"1e0", -1},
    };
    char text[200];

    for (size_t i = 0; i < N(statuses); i++) {
        snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"status\":%s,\"image\":\"https://a.example\"}",
                 statuses[i].status);
        if (statuses[i].kind < 0)
            no_word(text, "no usable status");
        else
            CHECK_INT(word(text).kind, statuses[i].kind);
    }
}

TEST("of members that are there twice the last counts, also when it is null")
{
    mj_signal w = word("{\"taskId\":\"T1\",\"status\":1,\"mjPrompt\":\"x\",\"image\":\"https://a.example\","
                       "\"mjPrompt\":\"y\",\"image\":null,\"failReason\":\"z\"}");

    CHECK_INT(w.kind, SIG_HINT);
    CHECK_TEXT(w.mj_prompt, "y");
    CHECK_INT(w.image.n, 0);
    CHECK_TEXT(
        word("{\"taskId\":\"T1\",\"status\":1,\"image\":{\"url\":\"https://a.example\",\"url\":\"https://b\"}}").image,
        "https://b");
}

TEST("an id or a status that is there twice counts if it is the same, and otherwise is none")
{
    mj_signal w = word("{\"taskId\":\"T1\",\"status\":2,\"\\u0074askId\":\"T1\",\"status\":2,\"status\":2}");

    CHECK_TEXT(w.task_id, "T1");
    CHECK_INT(w.kind, SIG_FAILED);
    no_word("{\"taskId\":\"T1\",\"status\":1,\"taskId\":\"T2\"}", "no usable taskId");
    no_word("{\"taskId\":\"T1\",\"status\":1,\"taskId\":7.5}", "no usable taskId");
    no_word("{\"taskId\":\"T1\",\"status\":1,\"taskId\":\"T2\",\"taskId\":\"T1\"}", "no usable taskId");
    no_word("{\"jobId\":\"T1\",\"status\":1,\"jobId\":\"T2\"}", "no usable taskId");
    no_word("{\"taskId\":\"T1\",\"status\":2,\"\\u0073tatus\":1}", "no usable status");
    CHECK_INT(word("{\"taskId\":\"T1\",\"status\":2,\"status\":null,\"taskId\":null}").kind, SIG_FAILED);
    no_word("{\"taskId\":\"T1\",\"status\":true,\"status\":false}", "no usable status");
    no_word("{\"status\":0,\"data\":{\"taskId\":\"T1\",\"status\":1},\"data\":{\"taskId\":\"T2\",\"status\":2}}",
            "no task in it");
}

TEST("members that are not read may be anything")
{
    CHECK_TEXT(word("{\"x\":[[{\"taskId\":\"no\",\"status\":2}],\"\xff\x01\\ud800\"],\"taskId\":\"T1\",\"jobId\":{},"
                    "\"status\":0,\"\":null,\"createdAt\":1e999,\"taskIds\":\"no\",\"TASKID\":\"no\"}")
                   .task_id,
               "T1");
}

/* ---- images ---- */

TEST("success without a usable image is a hint")
{
    static const char *const without[] = {
        "",
        ",\"image\":null,\"images\":null",
        ",\"image\":\"\",\"images\":[]",
        ",\"image\":\"grid.png\",\"images\":[\"\",7,null]",
        ",\"image\":[\"https://a.example\"],\"images\":{\"0\":7}",
        ",\"images\":[[\"https://a.example\"]]",
        ",\"image\":{\"URL\":\"https://a.example\"},\"images\":[{}]",
        ",\"images\":[{\"url\":{\"url\":\"https://a.example\"}}]",
        ",\"Image\":\"https://a.example\"",
    };
    char text[300];

    for (size_t i = 0; i < N(without); i++) {
        snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"status\":1%s}", without[i]);
        CHECK_INT(word(text).kind, SIG_HINT);
    }
    CHECK_INT(word("{\"taskId\":\"T1\",\"status\":1,\"image\":\"https://a.example\"}").kind, SIG_SUCCEEDED);
    CHECK_INT(word("{\"taskId\":\"T1\",\"status\":1,\"images\":[\"https://a.example\"]}").kind, SIG_SUCCEEDED);
}

TEST("an address is http or https, printable, and at most 4096 bytes long")
{
    static const struct {
        const char *raw, *url; /* NULL: none */
    } urls[] = {
        {"https://a", "https://a"},
        {"http://a", "http://a"},
        {"https:\\/\\/cdn.example\\/x.png?a=1&b=2#c", "https://cdn.example/x.png?a=1&b=2#c"}, /* as PHP does it */
        {"https://a/\\u0041", "https://a/A"},
        {"\\u0068ttps://a", "https://a"},
        {"https://a/~!$'()*,;=:@[]^`{|}", "https://a/~!$'()*,;=:@[]^`{|}"},
        {"https://", NULL},
        {"http://", NULL},
        {"HTTPS://a", "https://a"},
        {"hTTp://A.example/B", "http://A.example/B"},
        {"ftp://aaaaaaa", NULL},
        {"//a.example/x", NULL},
        {" https://a", NULL},
        {"https://a ", NULL},
        {"https:/a.example", NULL},
        {"https://a\\n", NULL},
        {"https://a\\u0000", NULL},
        {"https://a\\u007f", NULL},
        {"https://a/\\\"", NULL},
        {"https://a/\\\\", NULL},
        {"https://a/<", NULL},
        {"https://a/>", NULL},
        {"https://a/a red fox.png", "https://a/a%20red%20fox.png"},
        {"https://a/x.png  ", "https://a/x.png"},
        {"https://a/a b?q=c d#e f", "https://a/a%20b?q=c%20d#e%20f"},
        {"https://a/\xc3\xa9", "https://a/%C3%A9"},
        {"https://a/\\u00e9", "https://a/%C3%A9"},
        {"https://a/\\ud83e\\udd8a.png", "https://a/%F0%9F%A6%8A.png"},
        {"https://a/\xe2\x80\xae"
         "fox",
         "https://a/%E2%80%AEfox"},                                             /* turns the text around: harmless so */
        {"https://m\xc3\xbcnchen.example/x", "https://m%C3%BCnchen.example/x"}, /* RFC 3986, 3.2.2 */
        {"https://a/%C3%A9%20x", "https://a/%C3%A9%20x"},                       /* as it is, not twice */
        {"https://a/100% fox%2", "https://a/100%25%20fox%252"},
        {"https://a/#part", "https://a/#part"},
        {"https://a:8443/x", "https://a:8443/x"},
        {"https://[2001:db8::1]/x", "https://[2001:db8::1]/x"},
        {"https://user:secret@a/x", NULL},
        {"https://good.example@evil.example/x", NULL},
        {"https://a/@b", "https://a/@b"},
        {"https:///x", NULL},
        {"https://?x", NULL},
        {"https://:443/x", NULL},
        {"https://a b/x", NULL},
        {"https://\xff/x", NULL},
        {"https://a/a\\tb", NULL},
        {"https://a/\\ud800", "https://a/?"}, /* what half a pair is taken for */
        {"https://a/\xff", "https://a/%FF"},
        {"https://a/\x01", NULL},
        {"javascript:alert(1)", NULL},
        {"data:image/png;base64,AAAA", NULL},
    };
    char text[9000];

    for (size_t i = 0; i < N(urls); i++) {
        mj_signal w;
        snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"status\":1,\"image\":\"%s\",\"images\":[{\"url\":\"%s\"}]}",
                 urls[i].raw, urls[i].raw);
        w = word(text);
        CHECK_TEXT(w.image, urls[i].url ? urls[i].url : "");
        CHECK_INT(w.nimages, urls[i].url != NULL);
        if (urls[i].url)
            CHECK_TEXT(w.images[0], urls[i].url);
    }
    for (int n = 4096; n <= 4097; n++) {
        mj_signal w;
        snprintf(text, sizeof text,
                 "{\"taskId\":\"T1\",\"status\":1,\"image\":\"https://%0*d\",\"images\":[\"http://%0*d\"]}", n - 8, 0,
                 n - 7, 0);
        w = word(text);
        CHECK_INT(w.image.n, n == 4096 ? 4096 : 0);
        CHECK_INT(w.nimages, n == 4096);
    }
}

TEST("images may also be one URL, or an object whose members are URLs")
{
    static const char *const given[] = {"\"https://a/0\"", "{\"url\":\"https://a/0\"}", "{\"0\":\"https://a/0\"}"};

    for (size_t i = 0; i < N(given); i++) {
        char text[200];
        mj_signal w;

        snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"status\":1,\"images\":%s}", given[i]);
        w = word(text);
        CHECK_INT(w.kind, SIG_SUCCEEDED);
        CHECK_INT(w.nimages, 1);
        CHECK_TEXT(w.images[0], "https://a/0");
        CHECK_INT(w.remark.n, 0);
    }
    CHECK_INT(word("{\"taskId\":\"T1\",\"status\":1,\"images\":{\"a\":\"https://a/0\",\"b\":\"https://a/1\"}}").nimages,
              2);
}

TEST("images are strings or objects with a url, in their order, without what is none")
{
    mj_signal w =
        word("{\"taskId\":\"T1\",\"status\":1,\"images\":[null,\"https://a/0\",{\"url\":\"https:\\/\\/a\\/1\",\"w\":"
             "1},7,\"\",\"no\",{},{\"url\":null},[\"https://a/x\"],true,\"https://a/\\u0032\"]}");

    CHECK_INT(w.nimages, 3);
    CHECK_TEXT(w.images[0], "https://a/0");
    CHECK_TEXT(w.images[1], "https://a/1");
    CHECK_TEXT(w.images[2], "https://a/2");
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":1,\"image\":{\"w\":1,\"url\":\"https://a\"}}").image, "https://a");
}

static char *list_of(unsigned none, unsigned good)
{
    static char text[20000];
    size_t n = (size_t)sprintf(text, "{\"taskId\":\"T1\",\"status\":1,\"images\":[");

    for (unsigned i = 0; i < none + good; i++)
        n += (size_t)(i < none ? sprintf(text + n, "null,") : sprintf(text + n, "\"https://a/%u\",", i));
    sprintf(text + n - 1, "]}");
    return text;
}

TEST("what is dropped of the URLs is told by number, and nothing when all are good")
{
    const struct {
        const char *fields, *remark;
    } cases[] = {
        {"\"image\":\"https://a/0\",\"images\":[\"https://a/1\",\"https://a/2\"]", ""},
        {"\"image\":\"https://a/0\",\"images\":[\"https://a/1\",\"ftp://a/2\",\"https://a/3\",\"https://a/4\"]",
         "1 of 5 URLs unusable"},
        {"\"image\":\"grid.png\"", "1 of 1 URLs unusable"},
        {"\"image\":\"\",\"images\":[]", ""},
        {"\"image\":null,\"images\":[null,\"\"]", ""},
        {"\"images\":[7,{},{\"url\":\"//a/x\"},{\"url\":\"https://a/x\"}]", "3 of 4 URLs unusable"},
        {"\"images\":[\"https://a/x\",\"https://a/x\"]", ""}, /* the same twice is the provider's choice */
    };
    char text[500];

    for (size_t i = 0; i < N(cases); i++)
        for (int status = 0; status <= 2; status++) {
            snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"status\":%d,%s}", status, cases[i].fields);
            CHECK_TEXT(word(text).remark, cases[i].remark);
        }
    CHECK_TEXT(word(list_of(0, 16)).remark, "");
    CHECK_TEXT(word(list_of(0, 20)).remark, "4 of 20 URLs more than are kept");
}

TEST("percent-encoding makes no URL longer than is kept, and every byte of it finds room")
{
    static char text[40000];
    mj_signal w;

    for (int n = 1360; n <= 1370; n++) { /* times three, and the beginning */
        int len = sprintf(text, "{\"taskId\":\"T1\",\"status\":1,\"images\":[");
        for (int k = 0; k < 3; k++) {
            len += sprintf(text + len, "%s\"https://a/", k ? "," : "");
            for (int i = 0; i < n; i++)
                len += sprintf(text + len, "\xff");
            len += sprintf(text + len, "\"");
        }
        sprintf(text + len, "]}");
        w = word(text);
        CHECK_INT(w.nimages, 10 + 3 * n <= MJ_MAX_URL ? 3 : 0);
        if (w.nimages == 3)
            CHECK_INT(w.images[2].n, 10 + 3 * n);
    }
}

TEST("sixteen images are taken, out of the first sixty-four there are")
{
    mj_signal w;

    CHECK_INT(word(list_of(0, 15)).nimages, 15);
    CHECK_INT(word(list_of(0, 16)).nimages, 16);
    w = word(list_of(0, 17));
    CHECK_INT(w.nimages, 16);
    CHECK_TEXT(w.images[15], "https://a/15");
    CHECK_INT(word(list_of(0, 1000)).nimages, 16);
    CHECK_INT(word(list_of(48, 100)).nimages, 16);
    CHECK_INT(word(list_of(49, 100)).nimages, 15);
    CHECK_INT(word(list_of(63, 100)).nimages, 1);
    CHECK_INT(word(list_of(64, 100)).nimages, 0);
}

/* ---- texts ---- */

TEST("the prompt is as run, or as sent where that is missing, empty or no text")
{
    static const struct {
        const char *members, *want;
    } prompts[] = {
        {"", ""},
        {",\"mjPrompt\":\"run\"", "run"},
        {",\"prompt\":\"sent\"", "sent"},
        {",\"mjPrompt\":\"run\",\"prompt\":\"sent\"", "run"},
        {",\"prompt\":\"sent\",\"mjPrompt\":\"run\"", "run"},
        {",\"mjPrompt\":\"\",\"prompt\":\"sent\"", "sent"},
        {",\"mjPrompt\":null,\"prompt\":\"sent\"", "sent"},
        {",\"mjPrompt\":7,\"prompt\":\"sent\"", "sent"},
        {",\"mjPrompt\":{},\"prompt\":[]", ""},
        {",\"mjPrompt\":\" \",\"prompt\":\"sent\"", " "},
        {",\"mjPrompt\":\"a \\u201cfox\\u201d\\n\\ud83e\\udd8a\\t\\/\"", "a \xe2\x80\x9c"
                                                                         "fox\xe2\x80\x9d\n\xf0\x9f\xa6\x8a\t/"},
        {",\"mjPrompt\":\"a\\r\\b\\u0000\\u007f\\ud800b\"", "a?????b"},
        {",\"mjPrompt\":\"a\x01\x7f\xff\xc3\x28\xed\xa0\x80z\"", "a???"
                                                                 "?(???z"},
        {",\"mjPrompt\":\"\xc3\\u00e9\"", "?\xc3\xa9"},
    };
    char text[300];

    for (size_t i = 0; i < N(prompts); i++) {
        snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"status\":0%s}", prompts[i].members);
        CHECK_TEXT(word(text).mj_prompt, prompts[i].want);
    }
}

/* A reason of `pad` x's and then `end`. */
static mj_signal failed_with(int pad, const char *end)
{
    char text[1200], xs[1000];

    memset(xs, 'x', sizeof xs);
    snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"status\":2,\"failReason\":\"%.*s%s\"}", pad, xs, end);
    return word(text);
}

TEST("a failure has the provider's reason, of at most 500 bytes of whole characters")
{
    CHECK_INT(failed_with(500, "").error.n, 500);
    CHECK_INT(failed_with(501, "").error.n, 500);
    CHECK_INT(failed_with(900, "").error.n, 500);
    CHECK_INT(failed_with(498, "\xc3\xa9").error.n, 500);
    CHECK_INT(failed_with(499, "\xc3\xa9").error.n, 499);
    CHECK_INT(failed_with(499, "\\u00e9").error.n, 499);
    CHECK_INT(failed_with(496, "\\ud83e\\udd8a").error.n, 500);
    CHECK_INT(failed_with(497, "\xf0\x9f\xa6\x8a").error.n, 497);
    CHECK_INT(failed_with(499, "\xff").error.n, 500);
    CHECK_INT(failed_with(499, "\xff\xff").error.n, 500);
    CHECK_INT(failed_with(500, "\xff").error.n, 500);
    CHECK_INT(failed_with(494, "\\n").error.n, 495);
    CHECK_TEXT(failed_with(0, "Banned \\\"word\\\"").error, "Banned \"word\"");
    CHECK_TEXT(failed_with(0, "").error, "");
    CHECK_TEXT(failed_with(0, "x").error_code, "provider");
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":2,\"failReason\":null}").error, "");
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":2,\"failReason\":{\"a\":1}}").error, "");
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":2}").error, "");
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":2,\"image\":\"https://a\"}").image, "https://a");
}

TEST("a failure without a failReason has the message, or the error's")
{
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":2,\"failReason\":\"\",\"message\":\"a\",\"error\":\"b\"}").error,
               "a");
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":2,\"failReason\":\"a\",\"message\":\"b\"}").error, "a");
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":2,\"message\":null,\"error\":{\"message\":\"a\"}}").error, "a");
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":2,\"error\":\"a\"}").error, "a");
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":2,\"error\":{\"message\":7}}").error, "");
}

TEST("only a failure has a reason")
{
    mj_signal w = word("{\"taskId\":\"T1\",\"status\":1,\"image\":\"https://a\",\"failReason\":\"odd\"}");

    CHECK_INT(w.error.n, 0);
    CHECK_INT(w.error_code.n, 0);
    CHECK_INT(word("{\"taskId\":\"T1\",\"status\":0,\"failReason\":\"odd\"}").error.n, 0);
}

TEST("a prompt is cut at 10,000 bytes")
{
    static char text[40000];
    int n;

    for (n = 9999; n <= 10001; n++) {
        snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"status\":0,\"mjPrompt\":\"%0*d\"}", n, 0);
        CHECK_INT(word(text).mj_prompt.n, n < 10000 ? n : 10000);
        snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"status\":0,\"prompt\":\"%0*d\\n\"}", n - 1, 0);
        CHECK_INT(word(text).mj_prompt.n, n < 10000 ? n : 10000);
    }
}

/* ---- meta ---- */

TEST("meta is kept byte for byte, when it is an object or an array that is plain")
{
    static const char *const kept[] = {
        "{}",
        "[]",
        "{ \"width\" : 1024,\n\"height\":1024.0 }",
        "[1,\"\\u00e9\xc3\xa9\\/\",{\"a\":[null]}]",
        "{\"a\":1,\"a\":2}",
    };
    static const char *const dropped[] = {
        "null",
        "7",
        "\"{}\"",
        "true",
        "{\"a\":\"\x01\"}",
        "{\"a\":\"\xff\"}",
        "{\"\x7f\":1}",
        "[\"\\ud800\"]",
        "{\"a\":1e999}",
        "[[[\"\xc3\"]]]",
        "\"\"",
    };
    char text[300];

    for (size_t i = 0; i < N(kept); i++) {
        snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"meta\": %s ,\"status\":0}", kept[i]);
        CHECK_TEXT(word(text).meta, kept[i]);
    }
    for (size_t i = 0; i < N(dropped); i++) {
        snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"meta\": %s ,\"status\":0}", dropped[i]);
        CHECK_TEXT(word(text).meta, "");
    }
    /* what is odd elsewhere does not matter */
    CHECK_TEXT(word("{\"taskId\":\"T1\",\"status\":0,\"mjPrompt\":\"\xff\",\"meta\":{\"a\":1}}").meta, "{\"a\":1}");
}

TEST("meta of more than 65,536 bytes is dropped, not cut")
{
    static char text[70000];

    for (int n = 65535; n <= 65537; n++) {
        snprintf(text, sizeof text, "{\"taskId\":\"T1\",\"status\":0,\"meta\":[\"%0*d\"]}", n - 4, 0);
        CHECK_INT(word(text).meta.n, n > 65536 ? 0 : n);
    }
}

/* ---- room ---- */

/* Documents whose texts all have to be changed. */
TEST("scratch of mj_wire_room() is enough for the nastiest of documents")
{
    static const char *const filler[] = {"\\u0041",        "\\n",   "\\/",  "\xff",    "\\ud800",
                                         "\\ud83e\\udd8a", "a\\\\", "\x01", "\\u20ac", "\xc3\xa9\\t"};
    static char text[1 << 20];

    for (size_t f = 0; f < N(filler); f++)
        for (int long_ones = 0; long_ones < 2; long_ones++) {
            size_t n = (size_t)sprintf(text, "{\"taskId\":\"\\u0054\\u0031\",\"status\":2");
            static const char *const names[] = {"image", "mjPrompt", "prompt", "failReason", "mjPrompt", "failReason"};
            for (size_t i = 0; i < N(names); i++) {
                n += (size_t)sprintf(text + n, ",\"%s\":\"https:\\/\\/", names[i]);
                for (int k = long_ones ? 5000 : 3; k > 0; k--)
                    n += (size_t)sprintf(text + n, "%s", filler[f]);
                n += (size_t)sprintf(text + n, "\"");
            }
            n += (size_t)sprintf(text + n, ",\"images\":[");
            for (int i = 0; i < 70; i++) {
                n += (size_t)sprintf(text + n, i % 2 ? "%s{\"url\":\"https:\\/\\/" : "%s\"https:\\/\\/", i ? "," : "");
                for (int k = long_ones ? 300 : 1; k > 0; k--)
                    n += (size_t)sprintf(text + n, "%s", filler[f]);
                n += (size_t)sprintf(text + n, i % 2 ? "\"}" : "\"");
            }
            n += (size_t)sprintf(text + n, "]}");
            CHECK(n < sizeof text);
            callback_of(text, n); /* checks it */
        }
}

TEST("scratch is used one after the other for many words, and what was read stays")
{
    mj_signal first, second;
    mj_str a = MJ_LIT("{\"taskId\":\"T\\u0031\",\"status\":0,\"mjPrompt\":\"a\\nb\"}");
    mj_str b = MJ_LIT("{\"taskId\":\"T\\u0032\",\"status\":0,\"mjPrompt\":\"c\\nd\"}");
    mj_buf both = {0};
    char why[MJ_WIRE_WHY];

    CHECK(mj_buf_reserve(&both, mj_wire_room(a.n + b.n)));
    CHECK(mj_wire_callback(&mj_midjourney, a, &both, &first, why));
    CHECK(mj_wire_callback(&mj_midjourney, b, &both, &second, why));
    CHECK_TEXT(first.task_id, "T1");
    CHECK_TEXT(first.mj_prompt, "a\nb");
    CHECK_TEXT(second.task_id, "T2");
    CHECK_TEXT(second.mj_prompt, "c\nd");
    mj_buf_free(&both);
}

TEST("any text of the provider's pieces in any order is read within its room")
{
    static const char *const pieces[] = {"{",
                                         "}",
                                         "[",
                                         "]",
                                         ",",
                                         ":",
                                         "\"taskId\":",
                                         "\"status\":",
                                         "\"data\":",
                                         "\"T1\"",
                                         "1",
                                         "2",
                                         "\"image\":",
                                         "\"https:\\/\\/a\"",
                                         "\"images\":",
                                         "\"meta\":",
                                         "\"\\ud800\"",
                                         "null",
                                         "\"failReason\":",
                                         "\"\xff\\n\"",
                                         " ",
                                         "\"url\":",
                                         "{}"};
    rng r = rng_of(5);
    char text[1000];

    for (int i = 0; i < 30000; i++) {
        size_t n = (size_t)sprintf(text, "{");
        for (uint32_t k = below(&r, 40); k > 0; k--)
            n += (size_t)sprintf(text + n, "%s", pieces[below(&r, N(pieces))]);
        callback_of(text, n);
    }
}

/* ---- answers to status requests ---- */

typedef struct answer {
    bool ok;
    mj_wire_statuses words;
    char why[MJ_WIRE_WHY];
} answer;

static answer status_under(int http, const char *text)
{
    answer a = {.why = "untouched"};
    const uint8_t *was;

    body = exact(text);
    make_scratch(body);
    was = scratch.p;
    a.ok = mj_wire_status(&mj_midjourney, http, false, body, &scratch, &a.words, a.why);
    check_scratch(was);
    return a;
}

static answer status_of(const char *text)
{
    return status_under(200, text);
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

/* The task ids in it, joined by spaces. */
static const char *ids_in(const char *text)
{
    static char ids[1000];
    answer a = status_of(text);
    mj_signal w;
    size_t n = 0;

    if (!a.ok)
        MJ_TEST_FAIL("%s: %s", text, a.why);
    ids[0] = '\0';
    while (next_status(&a.words, &scratch, &w)) {
        check_word(&w);
        check_scratch(scratch.p);
        n += (size_t)sprintf(ids + n, "%s%.*s", n ? " " : "", (int)w.task_id.n, w.task_id.p);
    }
    CHECK(!next_status(&a.words, &scratch, &w)); /* and stays at its end */
    return ids;
}

TEST("an answer has the words of its array, or of the one object instead")
{
    CHECK_STR(ids_in("{\"status\":0,\"message\":\"success\",\"data\":[]}"), "");
    CHECK_STR(ids_in("{\"status\":0,\"data\":[{\"taskId\":\"T1\",\"status\":0}]}"), "T1");
    CHECK_STR(
        ids_in("{\"status\":\"0\",\"data\":[{\"taskId\":\"T2\",\"status\":0},{\"taskId\":\"T1\",\"status\":\"2\"}]}"),
        "T2 T1");
    CHECK_STR(ids_in("{\"data\":{\"taskId\":\"T1\",\"status\":0},\"status\":0.0}"), "T1");
    CHECK_STR(
        ids_in("{\"status\":0,\"data\":[{\"taskId\":\"\\u0054\",\"status\":0},{\"taskId\":\"\\u0055\",\"status\":0}]}"),
        "T U");
    CHECK_STR(ids_in("{\"status\":0,\"data\":{}}"), "");
    CHECK_STR(ids_in("{\"status\":0,\"data\":null}"), "");
    CHECK_STR(ids_in("\xef\xbb\xbf{\"status\":0,\"data\":[{\"taskId\":\"T1\",\"status\":0}]}"), "T1");
    CHECK_STR(ids_in("{\"status\":\"SUCCESS\",\"data\":[{\"taskId\":\"T1\",\"status\":0}]}"), "T1");
    CHECK_STR(ids_in("{\"error\":0,\"data\":[{\"jobId\":17,\"status\":0}]}"), "17");
    CHECK_STR(ids_in("{\"status\":0,\"data\":{\"taskId\":null}}"), "");
    CHECK_STR(ids_in("{\"status\":0,\"data\":{\"taskId\":\"T1\"}}"), "");
    CHECK_STR(ids_in("{\"status\":0,\"data\":{\"0\":{\"taskId\":\"T1\",\"status\":0}}}"), "");
    CHECK_STR(ids_in("{\"status\":0,\"taskId\":\"T0\",\"data\":[{\"taskId\":\"T1\",\"status\":0}]}"), "T1");
}

TEST("entries that can't be read are passed over, and no other is lost for them")
{
    CHECK_STR(ids_in("{\"status\":0,\"data\":[null,7,\"T0\",true,[],{},[{\"taskId\":\"T0\",\"status\":0}],"
                     "{\"taskId\":\"T1\",\"status\":0},{\"taskId\":\"T0\"},{\"taskId\":\"\",\"status\":0},"
                     "{\"taskId\":\"T2\",\"status\":1},{\"data\":{\"taskId\":\"T0\",\"status\":0}},{\"status\":0}]}"),
              "T1 T2");
}

TEST("each status is what a callback would say, one after the other")
{
    answer a = status_of("{\"status\":0,\"data\":[{\"taskId\":\"T1\",\"status\":2,\"failReason\":\"no\\ttext\"},"
                         "{\"taskId\":\"T2\",\"status\":1,\"image\":\"https:\\/\\/a\"}," FULL "]}");
    mj_signal one, two, three;

    CHECK(a.ok);
    CHECK(next_status(&a.words, &scratch, &one));
    CHECK(next_status(&a.words, &scratch, &two));
    CHECK(next_status(&a.words, &scratch, &three));
    CHECK_INT(one.kind, SIG_FAILED);
    CHECK_TEXT(one.error, "no\ttext");
    CHECK_INT(one.image.n, 0);
    CHECK_INT(two.kind, SIG_SUCCEEDED);
    CHECK_TEXT(two.image, "https://a");
    CHECK_INT(two.error.n, 0); /* nothing of the one before */
    CHECK_INT(two.meta.n, 0);
    CHECK_TEXT(three.meta, "{\"width\":1024, \"height\":1024}");
}

static void no_answer(const char *text, const char *why)
{
    answer a = status_of(text);
    mj_signal w;

    if (a.ok || strcmp(a.why, why) != 0)
        MJ_TEST_FAIL("%s: %s", text, a.ok ? "(words)" : a.why);
    CHECK(!next_status(&a.words, &scratch, &w));
}

TEST("an answer that is none says why")
{
    no_answer("", "not JSON: it is empty (byte 1)");
    no_answer("<html>", "not JSON: no JSON value (byte 1)");
    no_answer("[]", "not a JSON object");
    no_answer("null", "not a JSON object");
    no_answer("{}", "no envelope");
    no_answer("{\"data\":[]}", "no envelope");
    no_answer("{\"status\":null,\"data\":[]}", "no envelope");
    no_answer("{\"status\":\"ok\",\"data\":[]}", "no envelope");
    no_answer("{\"status\":\"1001x\",\"data\":[]}", "no envelope"); /* which is not 1001 */
    no_answer("{\"status\":1001.5,\"data\":[]}", "no envelope");
    no_answer("{\"status\":0}", "no data in the answer");
    no_answer("{\"status\":0,\"data\":\"x\"}", "no data in the answer");
    no_answer("{\"status\":0,\"data\":[],\"data\":[{}]}", "no data in the answer"); /* it says two things */
    no_answer("{\"status\":0,\"data\":[],\"status\":1001}", "no envelope");
}

TEST("an envelope that is an error says its status and what the provider says, cleaned and cut")
{
    char text[800], xs[700];
    answer a;

    no_answer("{\"status\":1001,\"message\":\"quota not enough\",\"data\":null}", "status 1001: quota not enough");
    no_answer("{\"status\":\"1002\",\"message\":\"too many\\u0000\",\"data\":[{\"taskId\":\"T1\",\"status\":0}]}",
              "status 1002: too many?");
    no_answer("{\"status\":-500,\"message\":\"\xff%s%n\"}", "status -500: ?%s%n");
    no_answer("{\"status\":7}", "status 7");
    no_answer("{\"status\":7,\"message\":null}", "status 7");
    no_answer("{\"status\":7,\"message\":{\"a\":1}}", "status 7");
    memset(xs, 'x', sizeof xs);
    snprintf(text, sizeof text, "{\"status\":1,\"message\":\"%.499s\\u00e9x\"}", xs);
    a = status_of(text);
    CHECK(!a.ok);
    CHECK_INT(strlen(a.why), strlen("status 1: ") + 499);
    snprintf(text, sizeof text, "{\"status\":1,\"message\":\"%.600s\"}", xs);
    a = status_of(text);
    CHECK_INT(strlen(a.why), strlen("status 1: ") + 500);
    snprintf(text, sizeof text, "{\"status\":%lld,\"message\":\"%.600s\"}", -9007199254740991LL, xs);
    a = status_of(text);
    CHECK_INT(strlen(a.why), strlen("status -9007199254740991: ") + 500);
}

TEST("an answer to a status request means what its HTTP status and its envelope say")
{
    static const struct {
        int http;
        const char *text;
        mj_meaning meaning;
        const char *why;
    } answers[] = {
        {201, "{\"status\":0,\"data\":[]}", MJ_FINE, NULL},
        {299, "{\"status\":0,\"data\":null}", MJ_FINE, NULL},
        {200, "{\"status\":1001,\"message\":\"pay\"}", MJ_QUOTA, "status 1001: pay"},
        {402, "", MJ_QUOTA, "quota not enough"},
        {401, "{\"status\":401,\"message\":\"bad key\"}", MJ_AUTH, "bad key"},
        {403, "<html>", MJ_BLOCKED, "something in front of the provider refuses us"},
        {429, "", MJ_RATE_LIMIT, "rate limit"},
        {429, "{\"status\":7,\"message\":\"slower\"}", MJ_RATE_LIMIT, "slower"},
        {302, "", MJ_REDIRECT, "base_url answers with a redirect, which is not followed: correct base_url"},
        {404, "<html>", MJ_ENDPOINT, "is base_url right?"},
        {404, "{\"status\":404,\"message\":\"nothing here\"}", MJ_ENDPOINT, "is base_url right? (nothing here)"},
        {400, "{\"status\":7,\"message\":\"bad id\"}", MJ_REJECTED, "bad id"},
        {200, "{\"status\":7,\"message\":\"bad id\"}", MJ_REJECTED, "status 7: bad id"},
        {200, "{\"error\":7,\"message\":\"bad id\"}", MJ_REJECTED, "status 7: bad id"},
        {200, "{\"status\":\"failed\",\"error\":{\"message\":\"bad id\"}}", MJ_REJECTED, "bad id"},
        {200, "{\"status\":503}", MJ_SERVER_ERROR, "status 503"},
        {500, "", MJ_CRASH, "trouble on the provider's side"},
        {503, "<html>", MJ_SERVER_ERROR, "trouble on the provider's side"},
        {200, "<html>", MJ_UNREADABLE, "not JSON: no JSON value (byte 1)"},
        {200, "", MJ_UNREADABLE, "not JSON: it is empty (byte 1)"},
        {200, "{\"status\":0}", MJ_UNREADABLE, "no data in the answer"},
    };

    for (size_t i = 0; i < N(answers); i++) {
        answer a = status_under(answers[i].http, answers[i].text);
        if (a.words.meaning != answers[i].meaning)
            MJ_TEST_FAIL("%d %s: %d", answers[i].http, answers[i].text, (int)a.words.meaning);
        CHECK_INT(a.ok, answers[i].meaning == MJ_FINE);
        if (answers[i].why)
            CHECK_STR(a.why, answers[i].why);
    }
}

/* What is said of T1 and T2, which were asked about: the signals' names, "unread" or "absent"; and the odd entries. */
static const char *asked_in(const char *text)
{
    static char said[200];
    mj_str asked[] = {MJ_LIT("T1"), MJ_LIT("T2")};
    mj_json entries[2];
    answer a = status_of(text);
    mj_signal w;
    size_t odd, n = 0;

    CHECK(a.ok);
    odd = mj_wire_asked(&mj_midjourney, a.words, asked, 2, entries, &scratch);
    check_scratch(scratch.p);
    for (size_t i = 0; i < 2; i++) {
        bool read = mj_wire_entry(&mj_midjourney, entries[i], &scratch, &w);
        n += (size_t)sprintf(said + n, "%s ",
                             read                              ? mj_signal_name(w.kind)
                             : entries[i].type == MJ_JSON_NONE ? "absent"
                                                               : "unread");
    }
    sprintf(said + n, "%zu", odd);
    return said;
}

#define ANSWER(entries) "{\"status\":0,\"data\":" entries "}"
#define SAYS(id, status) "{\"taskId\":\"" id "\",\"status\":" status ",\"image\":\"https://a\"}"

TEST("of what was asked about an answer says something, or it is absent, or there is an entry that can't be read")
{
    CHECK_STR(asked_in(ANSWER("[" SAYS("T2", "1") "," SAYS("T1", "0") "]")), "running succeeded 0");
    CHECK_STR(asked_in(ANSWER("[" SAYS("T2", "1") "," SAYS("T3", "0") "]")), "absent succeeded 0");
    CHECK_STR(asked_in(ANSWER("null")), "absent absent 0");
    CHECK_STR(asked_in(ANSWER("{}")), "absent absent 0");
    CHECK_STR(asked_in(ANSWER("[]")), "absent absent 0");
    CHECK_STR(asked_in(ANSWER("[null," SAYS("T2", "1") "]")), "absent succeeded 0");
    CHECK_STR(asked_in(ANSWER("[null,null]")), "absent absent 2");
    CHECK_STR(asked_in(ANSWER("[7,{}," SAYS("T2", "1") "]")), "absent succeeded 2");
    CHECK_STR(asked_in(ANSWER("[{\"taskId\":\"T1\"}," SAYS("T2", "true") "]")), "unread unread 0");
    CHECK_STR(asked_in(ANSWER("{\"list\":[" SAYS("T1", "1") "]}")), "absent absent 1");
    CHECK_STR(asked_in(ANSWER("{\"T1\":" SAYS("T1", "1") "}")), "absent absent 1");
    CHECK_STR(asked_in(ANSWER("[{\"jobId\":\"T1\",\"status\":1}]")), "hint absent 0");
    CHECK_STR(asked_in(ANSWER("[{\"taskId\":\"T1\",\"jobId\":\"T2\",\"status\":0}]")), "running absent 0");
    /* another name of a task that was asked about, perhaps */
    CHECK_STR(asked_in(ANSWER("[{\"taskId\":null,\"jobId\":\"J1\",\"status\":0}," SAYS("T2", "0") "]")),
              "absent running 1");
}

TEST("of several entries about one task the longest or last is read, and none when they contradict each other")
{
    CHECK_STR(asked_in(ANSWER("[" SAYS("T1", "1") "," SAYS("T1", "1") "]")), "succeeded absent 0");
    CHECK_STR(asked_in(ANSWER("[" SAYS("T1", "1") "," SAYS("T1", "\"SUCCESS\"") "]")), "succeeded absent 0");
    CHECK_STR(asked_in(ANSWER("[" SAYS("T1", "1") ",{\"taskId\":\"T1\",\"status\":1}]")), "succeeded absent 0");
    CHECK_STR(asked_in(ANSWER("[{\"taskId\":\"T1\",\"status\":1}," SAYS("T1", "1") "]")), "succeeded absent 0");
    CHECK_STR(asked_in(ANSWER("[" SAYS("T1", "1") "," SAYS("T1", "0") "]")), "unread absent 0");
    CHECK_STR(asked_in(ANSWER("[" SAYS("T1", "0") "," SAYS("T1", "2") "]")), "unread absent 0");
    CHECK_STR(asked_in(ANSWER("[" SAYS("T1", "null") "," SAYS("T1", "2") "]")), "unread absent 0");
    CHECK_STR(asked_in(ANSWER("[" SAYS("T1", "1") "," SAYS("T1", "2") "]")), "unread absent 0");
    CHECK_STR(asked_in(ANSWER("[" SAYS("T1", "2") "," SAYS("T1", "1") "," SAYS("T1", "2") "]")), "unread absent 0");
    CHECK_STR(asked_in(ANSWER("[{\"taskId\":\"T1\",\"status\":1}," SAYS("T1", "2") "," SAYS("T2", "0") "]")),
              "unread running 0");
    /* an entry that contradicts itself: it may be about any task, or its status can't be read */
    CHECK_STR(asked_in(ANSWER("[{\"taskId\":\"T1\",\"status\":0,\"taskId\":\"T2\"}]")), "absent absent 1");
    CHECK_STR(asked_in(ANSWER("[{\"taskId\":\"T1\",\"status\":0,\"status\":2}," SAYS("T2", "0") "]")),
              "unread running 0");
    CHECK_STR(asked_in(ANSWER("[{\"taskId\":\"T1\",\"status\":0,\"taskId\":\"T1\",\"status\":0}]")),
              "running absent 0");
}

/* ---- answers to submissions ---- */

static mj_wire_verdict submit_from(int http, bool blocked, const char *text)
{
    mj_wire_verdict v;
    const uint8_t *was;

    body = exact(text);
    make_scratch(body);
    was = scratch.p;
    mj_wire_submit(&mj_midjourney, http, blocked, body, &scratch, &v);
    check_scratch(was);
    inside(v.task_id);
    CHECK(mj_utf8_valid(v.text.p, v.text.n));
    CHECK(v.text.n <= MJ_MAX_REASON);
    return v;
}

static mj_wire_verdict submit_of(int http, const char *text)
{
    return submit_from(http, false, text);
}

#define ACCEPTED "{\"status\":0,\"message\":\"success\",\"data\":{\"taskId\":\"T1\"}}"

TEST("what an answer to a submission means: by its status and by its envelope")
{
#define QUOTA "quota not enough"
#define FULL_UP "concurrency limit reached"
#define BLOCKED "something in front of the provider refuses us"
#define WRONG_URL "is base_url right?"
#define BAD_KEY "the provider refuses the API key"
#define MOVED "base_url answers with a redirect, which is not followed: correct base_url"
#define TROUBLE "trouble on the provider's side"
#define NO "the provider rejects the request"
#define BOTH "the HTTP status refuses the job, and the body names a task for it"
#define NO_ID "the answer has no usable taskId"
    static const struct {
        int http;
        const char *text, *kind, *code, *said; /* of what is accepted: the id */
    } answers[] = {
        {200, ACCEPTED, "accepted", NULL, "T1"},
        {201, ACCEPTED, "accepted", NULL, "T1"},
        {299, ACCEPTED, "accepted", NULL, "T1"},
        {200, "\xef\xbb\xbf" ACCEPTED, "accepted", NULL, "T1"},
        {200, "{\"status\":\"SUCCESS\",\"data\":{\"taskId\":\"T1\"}}", "accepted", NULL, "T1"},
        {200, "{\"status\":0,\"data\":{\"jobId\":\"T1\"}}", "accepted", NULL, "T1"},
        {200, "{\"status\":0,\"data\":{\"taskId\":7}}", "accepted", NULL, "7"},
        {200, "{\"status\":0,\"data\":{\"taskId\":7.0}}", "accepted", NULL, "7"},
        {200, "{\"status\":0,\"data\":{\"taskId\":123456789012345678901234567890}}", "accepted", NULL,
         "123456789012345678901234567890"},
        {200, "{\"status\":\"0\",\"data\":{\"taskId\":\"\\u0054\\u0031\"}}", "accepted", NULL, "T1"},
        {200, "{\"data\":{\"x\":[],\"taskId\":\"T1\",\"taskId\":\"T1\"},\"status\":0.0}", "accepted", NULL, "T1"},
        /* the envelope refuses, under whatever status */
        {200, "{\"status\":1001,\"message\":\"no money\"}", "refused", "quota", "no money"},
        {200, "{\"status\":1001}", "refused", "quota", QUOTA},
        {200, "{\"status\":\"1001\",\"message\":\"\"}", "refused", "quota", QUOTA},
        {402, "{\"status\":1001,\"message\":7}", "refused", "quota", QUOTA},
        {500, "{\"status\":1001}", "refused", "quota", QUOTA},
        {429, "{\"status\":1001}", "refused", "quota", QUOTA},
        {301, "{\"status\":1001}", "refused", "quota", QUOTA},
        {0, "{\"status\":1001}", "refused", "quota", QUOTA},
        {200, "{\"status\":1001,\"data\":{\"taskId\":\"T1\"}}", "refused", "quota", QUOTA},
        {200, "{\"status\":1002,\"message\":\"ten\\nrun\"}", "refused", "concurrency", "ten\nrun"},
        {401, "{\"status\":1002}", "refused", "concurrency", FULL_UP},
        {503, "{\"status\":1002.0}", "refused", "concurrency", FULL_UP},
        /* the status refuses */
        {401, "", "refused", "auth", BAD_KEY},
        {403, "<html>", "refused", "blocked", BLOCKED},
        {401, " \r\n<!DOCTYPE html>", "refused", "blocked", BLOCKED},
        {403, "\xef\xbb\xbf<html>", "refused", "blocked", BLOCKED},
        {403, "error code: 1020", "refused", "blocked", BLOCKED},
        {403, "Forbidden", "refused", "auth", BAD_KEY},
        {401, "{\"status\":401,\"message\":\"bad\\u0000key\"}", "refused", "auth", "bad?key"},
        {401, "{\"message\":\"no envelope\"}", "refused", "auth", BAD_KEY},
        {429, "", "refused", "rate_limit", "rate limit"},
        {429, "<html>", "refused", "rate_limit", "rate limit"},
        {402, "", "refused", "quota", QUOTA},
        {402, "<html>", "refused", "quota", QUOTA},
        {200, "{\"error\":1001}", "refused", "quota", QUOTA},
        {200, "{\"error\":\"1002\",\"message\":\"ten run\"}", "refused", "concurrency", "ten run"},
        {200, "{\"error\":{\"code\":1001,\"message\":\"pay\"}}", "refused", "quota", "pay"},
        {200, "{\"status\":402}", "refused", "quota", QUOTA},
        {200, "{\"status\":401,\"message\":\"bad key\"}", "refused", "auth", "bad key"},
        {200, "{\"error\":429}", "refused", "rate_limit", "rate limit"},
        {200, "{\"status\":404,\"message\":\"nothing here\"}", "refused", "endpoint", WRONG_URL},
        /* an address or a form that is wrong for every job */
        {400, "", "refused", "endpoint", WRONG_URL},
        {400, "<html>", "refused", "endpoint", WRONG_URL},
        {400, "{\"message\":\"no envelope\"}", "refused", "endpoint", WRONG_URL},
        {404, "", "refused", "endpoint", WRONG_URL},
        {404, "<html>", "refused", "endpoint", WRONG_URL},
        {404, "{\"status\":404,\"message\":\"nothing here\"}", "refused", "endpoint", WRONG_URL},
        {405, "{\"status\":405}", "refused", "endpoint", WRONG_URL},
        {406, "{\"status\":406}", "refused", "endpoint", WRONG_URL},
        {407, "", "refused", "blocked", BLOCKED},
        {511, "<html>", "refused", "blocked", BLOCKED},
        {409, "", "refused", "endpoint", WRONG_URL},
        {413, "<html>", "refused", "endpoint", WRONG_URL},
        {415, "{\"status\":415}", "refused", "endpoint", WRONG_URL},
        {422, "{\"detail\":[]}", "refused", "endpoint", WRONG_URL},
        {428, "", "refused", "endpoint", WRONG_URL},
        {499, "", "refused", "endpoint", WRONG_URL},
        {429, "{\"status\":7,\"message\":\"slower\"}", "refused", "rate_limit", "slower"},
        {300, "", "refused", "redirect", MOVED},
        {302, "{\"status\":0,\"message\":\"go there\"}", "refused", "redirect", MOVED},
        /* nobody knows */
        {303, "", "maybe_sent", "server_error", TROUBLE},
        {303, "{\"status\":0,\"message\":\"look there\"}", "maybe_sent", "server_error", "look there"},
        {304, "", "maybe_sent", "server_error", TROUBLE},
        {408, "", "maybe_sent", "server_error", TROUBLE},
        {500, "", "maybe_sent", "server_error", TROUBLE},
        {502, "<html>", "maybe_sent", "server_error", TROUBLE},
        {504, "{\"status\":9,\"message\":\"later\"}", "maybe_sent", "server_error", "later"},
        {599, ACCEPTED, "maybe_sent", "server_error", "success"},
        {600, "", "maybe_sent", "server_error", TROUBLE},
        {199, ACCEPTED, "maybe_sent", "server_error", "success"},
        {101, "", "maybe_sent", "server_error", TROUBLE},
        {0, "", "maybe_sent", "server_error", TROUBLE},
        {-1, "", "maybe_sent", "server_error", TROUBLE},
        {503, "<html>", "maybe_sent", "server_error", TROUBLE},
        {200, "{\"status\":500,\"message\":\"later\"}", "maybe_sent", "server_error", "later"},
        /* no, for good */
        {400, "{\"status\":400}", "rejected", "rejected", NO},
        {400, "{\"status\":\"error\",\"message\":\"no prompt\"}", "rejected", "rejected", "no prompt"},
        {413, "{\"status\":7,\"message\":\"too long\"}", "rejected", "rejected", "too long"},
        {422, "{\"error\":422,\"message\":\"banned\"}", "rejected", "rejected", "banned"},
        {422, "{\"error\":{\"code\":9,\"message\":\"banned\"}}", "rejected", "rejected", "banned"},
        {200, "{\"status\":\"FAILED\",\"message\":\"banned\"}", "rejected", "rejected", "banned"},
        {200, "{\"error\":7}", "rejected", "rejected", NO},
        {200, "{\"status\":1003,\"message\":\"banned\"}", "rejected", "rejected", "banned"},
        {200, "{\"status\":1000,\"data\":{\"taskId\":\"T1\"}}", "rejected", "rejected", NO},
        {200, "{\"status\":1}", "rejected", "rejected", NO},
        {200, "{\"status\":-1,\"message\":null}", "rejected", "rejected", NO},
        /* perhaps it was taken */
        {400, ACCEPTED, "maybe_sent", "unreadable", BOTH},
        {402, ACCEPTED, "maybe_sent", "unreadable", BOTH},
        {403, ACCEPTED, "maybe_sent", "unreadable", BOTH},
        {404, ACCEPTED, "maybe_sent", "unreadable", BOTH},
        {429, ACCEPTED, "maybe_sent", "unreadable", BOTH},
        {399, ACCEPTED, "maybe_sent", "unreadable", BOTH},
        {200, "", "maybe_sent", "unreadable", NO_ID},
        {204, "", "maybe_sent", "unreadable", NO_ID},
        {200, "<html>", "maybe_sent", "unreadable", NO_ID},
        {200, "null", "maybe_sent", "unreadable", NO_ID},
        {200, "[" ACCEPTED "]", "maybe_sent", "unreadable", NO_ID},
        {200, "{}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"taskId\":\"T1\"}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"data\":{\"taskId\":\"T1\"}}", "maybe_sent", "unreadable", NO_ID}, /* no envelope */
        {200, "{\"status\":null,\"data\":{\"taskId\":\"T1\"}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":\"1001x\",\"data\":{\"taskId\":\"T1\"}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0.5,\"data\":{\"taskId\":\"T1\"}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"message\":\"success\"}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":null}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":\"T1\"}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":[{\"taskId\":\"T1\"}]}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":{\"taskId\":\"\"}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":{\"taskId\":7.5}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":{\"taskId\":7e3}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":{\"taskId\":-7}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"error\":\"a text\"}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":\"odd\",\"data\":{\"taskId\":\"T1\"}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":{\"taskId\":\"a b\"}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":{\"taskId\":\"T1\"}", "maybe_sent", "unreadable", NO_ID}, /* cut */
        /* it says two things: sent again, the job might be billed twice */
        {200, "{\"status\":0,\"data\":{\"taskId\":\"T0\",\"taskId\":\"T1\"}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":{\"taskId\":\"T1\"},\"status\":1001}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":1001,\"data\":{\"taskId\":\"T1\"},\"status\":0}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"status\":0,\"data\":{\"taskId\":\"T1\"},\"data\":{}}", "maybe_sent", "unreadable", NO_ID},
        {200, "{\"error\":{\"code\":0,\"code\":1002},\"data\":{\"taskId\":\"T1\"}}", "maybe_sent", "unreadable", NO_ID},
        {404, "{\"status\":0,\"data\":{\"taskId\":\"T1\"},\"status\":404}", "maybe_sent", "unreadable", BOTH},
        {400, "{\"status\":0,\"data\":{\"taskId\":\"T0\",\"taskId\":\"T1\"}}", "maybe_sent", "unreadable", BOTH},
        {400, "{\"status\":0,\"data\":{},\"data\":{\"jobId\":\"T1\"}}", "maybe_sent", "unreadable", BOTH},
        {404, "{\"status\":0,\"status\":404}", "refused", "endpoint", WRONG_URL}, /* it names no task */
    };

    for (size_t i = 0; i < N(answers); i++) {
        mj_wire_verdict v = submit_of(answers[i].http, answers[i].text);
        bool accepted = !answers[i].code;
        mj_str said = accepted ? v.task_id : v.text, none = accepted ? v.text : v.task_id;

        if (strcmp(v.kind, answers[i].kind) != 0)
            MJ_TEST_FAIL("%d %s: %s", answers[i].http, answers[i].text, v.kind);
        CHECK_STR(v.code, answers[i].code);
        CHECK_TEXT(said, answers[i].said);
        CHECK_INT(none.n, 0);
    }
}

TEST("an error that bears cf-mitigated comes from in front of the provider; a success does not")
{
    CHECK_STR(submit_from(403, true, "{\"status\":7}").code, "blocked");
    CHECK_STR(submit_from(401, true, "").code, "blocked");
    CHECK_STR(submit_from(503, true, "<html>").code, "blocked");
    CHECK_STR(submit_from(503, true, "<html>").kind, "refused"); /* it went no further */
    CHECK_STR(submit_from(429, true, "<html>").code, "rate_limit");
    CHECK_STR(submit_from(200, true, ACCEPTED).kind, "accepted");
}

TEST("without an envelope no answer rejects a job, and only a 2xx accepts one")
{
    static const char *const bodies[] = {"", "<html>", "{}", "{\"message\":\"no\"}", "[]", "null", "{\"status\":null}"};

    for (int http = -1; http < 700; http++)
        for (size_t i = 0; i < N(bodies); i++)
            for (int blocked = 0; blocked < 2; blocked++) {
                mj_wire_verdict v = submit_from(http, blocked, bodies[i]);
                bool maybe = strcmp(v.kind, "maybe_sent") == 0, refused = strcmp(v.kind, "refused") == 0;
                CHECK(maybe || refused);
                CHECK(!refused || (http >= 300 && http < 500) || http == 511 ||
                      (blocked && (http < 200 || http > 299)));
                v = submit_from(http, blocked, ACCEPTED);
                CHECK((strcmp(v.kind, "accepted") == 0) == (http >= 200 && http < 300));
            }
}

TEST("an address or a form that is wrong for every job is charged to none, whatever the envelope says")
{
    static const int https[] = {401, 402, 403, 404, 405, 406, 407, 410, 411, 415, 421, 426, 429};

    for (size_t i = 0; i < N(https); i++) {
        CHECK_STR(submit_of(https[i], "{\"status\":7,\"message\":\"bad prompt\"}").kind, "refused");
        CHECK_STR(submit_of(https[i], "{\"error\":7}").kind, "refused");
    }
}

TEST("what the provider says is kept beside our own words")
{
    CHECK_TEXT(submit_of(404, "{\"status\":404,\"message\":\"nothing here\"}").said, "nothing here");
    CHECK_TEXT(submit_of(404, "{\"error\":\"no such page\"}").said, "no such page");
    CHECK_TEXT(submit_of(404, "<html>").said, "");
}

TEST("what the provider says to a submission is cut at 500 bytes")
{
    char text[800], xs[700];

    memset(xs, 'x', sizeof xs);
    snprintf(text, sizeof text, "{\"status\":1003,\"message\":\"%.700s\"}", xs);
    CHECK_INT(submit_of(200, text).text.n, 500);
}

TEST("an answer without a body is none")
{
    mj_wire_verdict v;
    mj_buf none = {0};

    mj_wire_submit(&mj_midjourney, 200, false, (mj_str){0}, &none, &v);
    CHECK_STR(v.code, "unreadable");
    mj_wire_submit(&mj_midjourney, 500, false, (mj_str){0}, &none, &v);
    CHECK_STR(v.code, "server_error");
    CHECK(none.p == NULL);
}

/* ---- another provider ---- */

static const mj_status_word other_words[] = {{MJ_LIT("ready"), 7, false}, {MJ_LIT("broken"), 8, false}};
static const mj_provider other = {
    .field = {[MJ_F_TASK_ID] = MJ_LIT("id"),
              [MJ_F_JOB_ID] = MJ_LIT("task"),
              [MJ_F_STATUS] = MJ_LIT("state"),
              [MJ_F_DATA] = MJ_LIT("result"),
              [MJ_F_IMAGE] = MJ_LIT("grid"),
              [MJ_F_CDN_IMAGE] = MJ_LIT("cdn"),
              [MJ_F_IMAGES] = MJ_LIT("tiles"),
              [MJ_F_MJ_PROMPT] = MJ_LIT("text"),
              [MJ_F_PROMPT] = MJ_LIT("asked"),
              [MJ_F_FAIL_REASON] = MJ_LIT("reason"),
              [MJ_F_MESSAGE] = MJ_LIT("note"),
              [MJ_F_ERROR] = MJ_LIT("fault"),
              [MJ_F_META] = MJ_LIT("about")},
    .url = MJ_LIT("href"),
    .code = MJ_LIT("number"),
    .status = {.running = 6, .succeeded = 7, .failed = 8},
    .words = other_words,
    .nwords = N(other_words),
    .envelope = {.ok = 1, .quota = 40, .concurrency = 41},
};

static bool other_says(const char *text, mj_signal *w)
{
    char why[MJ_WIRE_WHY];

    body = exactly(text, strlen(text));
    make_scratch(body);
    return mj_wire_callback(&other, body, &scratch, w, why);
}

static const char *other_answers(const char *text)
{
    mj_wire_verdict v;

    body = exactly(text, strlen(text));
    make_scratch(body);
    mj_wire_submit(&other, 200, false, body, &scratch, &v);
    return v.code ? v.code : v.kind;
}

TEST("another provider is another table: names, numbers and words are its own")
{
    mj_signal w;

    CHECK(other_says("{\"id\":\"A\",\"state\":7,\"grid\":{\"href\":\"https://a\"},\"tiles\":[\"https://b\"],"
                     "\"text\":\"as run\",\"about\":{}}",
                     &w));
    CHECK_INT(w.kind, SIG_SUCCEEDED);
    CHECK_TEXT(w.task_id, "A");
    CHECK_TEXT(w.image, "https://a");
    CHECK_TEXT(w.images[0], "https://b");
    CHECK_TEXT(w.mj_prompt, "as run");
    CHECK_TEXT(w.meta, "{}");
    CHECK(other_says("{\"state\":1,\"result\":{\"task\":\"B\",\"state\":\"Broken\",\"reason\":\"no\"}}", &w));
    CHECK_INT(w.kind, SIG_FAILED);
    CHECK_TEXT(w.task_id, "B");
    CHECK_TEXT(w.error, "no");
    CHECK(other_says("{\"id\":\"C\",\"state\":1}", &w)); /* a number that it does not list */
    CHECK_INT(w.kind, SIG_RUNNING);
    CHECK(!other_says(FULL, &w));
    CHECK_STR(other_answers("{\"state\":1,\"result\":{\"id\":\"A\"}}"), "accepted");
    CHECK_STR(other_answers("{\"state\":0,\"result\":{\"id\":\"A\"}}"), "rejected");
    CHECK_STR(other_answers("{\"state\":40}"), "quota");
    CHECK_STR(other_answers("{\"fault\":{\"number\":41}}"), "concurrency");
    CHECK_STR(other_answers("{\"status\":1001}"), "unreadable");
}
