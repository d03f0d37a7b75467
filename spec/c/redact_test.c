/* mj_redact: what is found, how it is written, and what is left alone. */
#include "mj_test.h"

#include "base/error.h"
#include "base/redact.h"

#define KEY "sk-live-5f0c1e/ab+9\"Zq"
#define SIG "AbCdEfGhIjKlMnOpQr-_12"

static char shown[4096];

/* The text as it is kept. */
static const char *redacted(mj_redact_kind kind, const char *text)
{
    mj_buf out = {0};
    bool found;

    CHECK_INT(mj_redact_add(KEY, strlen(KEY)), MJ_OK);
    CHECK_INT(mj_redact_add("pass-7", 6), MJ_OK);
    CHECK_INT(mj_redact(kind, text, strlen(text), &out, &found), MJ_OK);
    snprintf(shown, sizeof shown, "%.*s", found ? (int)out.n : (int)strlen(text), found ? (char *)out.p : text);
    CHECK(!found || strstr(shown, MJ_REDACTED));
    if (found)
        CHECK(mj_redact_maybe(text, strlen(text)));
    mj_buf_free(&out);
    return shown;
}

#define CHECK_SHOWN(kind_, text_, wanted_)                                                                             \
    do {                                                                                                               \
        const char *got_ = redacted(kind_, text_);                                                                     \
        if (strcmp(got_, wanted_) != 0)                                                                                \
            MJ_TEST_FAIL("%s\nbecame %s\nnot    %s", text_, got_, wanted_);                                            \
    } while (0)

TEST("a key is hidden wherever it stands")
{
    CHECK_SHOWN(MJ_REDACT_TEXT, KEY, "[redacted]");
    CHECK_SHOWN(MJ_REDACT_TEXT, "key " KEY " is wrong", "key [redacted] is wrong");
    CHECK_SHOWN(MJ_REDACT_TEXT, "x" KEY KEY "y", "x[redacted]y");
    CHECK_SHOWN(MJ_REDACT_URL, "https://cdn.example/" KEY ".png", "https://cdn.example/[redacted].png");
    CHECK_SHOWN(MJ_REDACT_BODY, "{\"a\":[\"" KEY "\"]}", "{\"a\":[\"[redacted]\"]}");
}

TEST("a key is found behind every way of writing it, also several on top of each other")
{
    static const char *const ways[] = {
        "sk-live-5f0c1e\\/ab+9\\\"Zq",                    /* JSON */
        "\\u0073k-live-5f0c1e\\u002Fab\\u002b9\\u0022Zq", /* JSON */
        "sk-live-5f0c1e%2Fab%2B9%22Zq",                   /* URL */
        "%73%6b%2d%6C%69%76%65%2D5f0c1e%2fab%2b9%22Zq",   /* URL */
        "sk-live-5f0c1e%252Fab%252B9%2522Zq",             /* URL in a URL */
        "sk-live-5f0c1e&#47;ab&#x2B;9&quot;Zq",           /* HTML */
        "sk-live-5f0c1e&amp;#47;ab+9&amp;quot;Zq",        /* HTML, twice */
        "sk-live-5f0c1e\\\\/ab+9\\\\\\\"Zq",              /* JSON in JSON */
        "sk-live-5f0c1e\\u00252Fab+9\\u0026quot;Zq",      /* URL and HTML in JSON */
        "sk\\x2dlive-5f0c1e/ab+9\\x22Zq",                 /* C */
    };
    char text[200], wanted[200];

    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        snprintf(text, sizeof text, "bad \\n %s, & 100%% wrong", ways[i]);
        snprintf(wanted, sizeof wanted, "bad \\n [redacted], & 100%% wrong");
        CHECK_SHOWN(MJ_REDACT_TEXT, text, wanted);
        CHECK_SHOWN(MJ_REDACT_BODY, text, wanted);
    }
}

TEST("a key that was cut is hidden from its first half on, and at the end of a text sooner")
{
    CHECK_SHOWN(MJ_REDACT_TEXT, "key sk-live-5f0c1e... is wrong", "key [redacted]... is wrong");
    CHECK_SHOWN(MJ_REDACT_TEXT, "key sk-live", "key [redacted]");
    CHECK_SHOWN(MJ_REDACT_TEXT, "key sk-l... is wrong", "key sk-l... is wrong");
}

TEST("a short secret is hidden as a word, and one that is too short not at all")
{
    CHECK_SHOWN(MJ_REDACT_TEXT, "(pass-7)", "([redacted])");
    CHECK_SHOWN(MJ_REDACT_TEXT, "pass-77 xpass-7 pass-7_", "pass-77 xpass-7 pass-7_");
    CHECK_INT(mj_redact_add("fox", 3), MJ_OK);
    CHECK_SHOWN(MJ_REDACT_TEXT, "a fox runs", "a fox runs");
}

TEST("a callback's token is hidden in a URL, a dump, a form, and in JSON")
{
    static const char *const around[][2] = {
        {"https://app.example/hook?ref=01H&a=1&kid=abc&sig=", ""},
        {"https://app.example/hook?sig=", "&ref=01H"},
        {"hookUrl=https%3A%2F%2Fapp.example%2Fhook%3Fa%3D1%26sig%3D", "%26x%3D1"},
        {"https%253A%252F%252Fapp.example%252Fhook%253Fsig%253D", ""},
        {"https://app.example/hook?a=1\\u0026sig\\u003d", "\\\" }"},
        {"href=\"/hook?a=1&amp;sig&#61;", "\">"},
        {"{\"query\":{\"sig\":\"", "\"}}"},
        {"{\\\"sig\\\": \\\"", "\\\"}"},
        {"SIG=", " "},
        {"sig => ", ""},
        {"{\"sig\":[\"", "\"]}"},
        {"sig: ", "\nref: 01H"},
        {"sig=\n", "\nref: 01H"},
        {"query[sig]=", "&query[ref]=01H"},
        {"[[\"ref\",\"01H\"],[\"sig\", \"", "\"]]"},
        {"[('ref', '01H'), ('sig', '", "')]"},
        {"<ref>01H</ref><sig>", "</sig>"},
        {"<input name=\"sig\" value=\"", "\">"},
        {"{\"name\": \"sig\", \"value\": \"", "\"}"},
        {"{\\\"name\\\":\\\"sig\\\",\\\"value\\\":\\\"", "\\\"}"},
    };
    char text[300], wanted[300];

    for (size_t i = 0; i < sizeof around / sizeof around[0]; i++) {
        snprintf(text, sizeof text, "%s%s%s", around[i][0], SIG, around[i][1]);
        snprintf(wanted, sizeof wanted, "%s[redacted]%s", around[i][0], around[i][1]);
        if (strstr(text, "=>"))
            continue;
        CHECK_SHOWN(MJ_REDACT_TEXT, text, wanted);
        CHECK_SHOWN(MJ_REDACT_BODY, text, wanted);
    }
}

TEST("another service's signature stays in an image's address, and a longer one in a document")
{
    static const char azure[] =
        "https://cdn.example/x.png?sv=2024&sig=u3fVzDyHf1Gm2n0ktd8Qe5cR6bWz%2BJ7aXyL0pQ9sTkE%3D";

    CHECK_SHOWN(MJ_REDACT_URL, azure, azure);
    CHECK_SHOWN(MJ_REDACT_BODY, azure, azure);
    CHECK_SHOWN(MJ_REDACT_URL, "https://cdn.example/x.png?sig=0123456789abcdef",
                "https://cdn.example/x.png?sig=0123456789abcdef");
    CHECK_SHOWN(MJ_REDACT_URL, "https://app.example/?kid=abc&sig=" SIG, "https://app.example/?kid=abc&sig=[redacted]");
}

TEST("headers that were dumped lose their values, whichever program's they are")
{
    CHECK_SHOWN(MJ_REDACT_TEXT, "POST /x\r\nAPI-KEY: other-key-1234\r\nHost: x",
                "POST /x\r\nAPI-KEY: [redacted]\r\nHost: x");
    CHECK_SHOWN(MJ_REDACT_TEXT, "{\"api-key\":\"other-key-1234\",\"a\":1}", "{\"api-key\":\"[redacted]\",\"a\":1}");
    CHECK_SHOWN(MJ_REDACT_TEXT, "{\\\"Api-Key\\\": \\\"other-key-1234\\\"}", "{\\\"Api-Key\\\": \\\"[redacted]\\\"}");
    CHECK_SHOWN(MJ_REDACT_TEXT, "x-api-key=other_key_1234&b=2", "x-api-key=[redacted]");
    CHECK_SHOWN(MJ_REDACT_TEXT, "Authorization: Bearer abc.def.1234\nX: y", "Authorization: [redacted]\nX: y");
    CHECK_SHOWN(MJ_REDACT_TEXT, "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n", "Proxy-Authorization: [redacted]\r\n");
    CHECK_SHOWN(MJ_REDACT_TEXT, "Cookie: a=1; session=2\nX: y", "Cookie: [redacted]\nX: y");
}

TEST("user and password of a URL are hidden")
{
    CHECK_SHOWN(MJ_REDACT_TEXT, "proxy http://me:pw@proxy.example:3128 failed",
                "proxy http://[redacted]@proxy.example:3128 failed");
    CHECK_SHOWN(MJ_REDACT_TEXT, "http%3A%2F%2Fme%3Apw%40proxy.example", "http%3A%2F%2F[redacted]%40proxy.example");
}

TEST("a text takes no more time for its length, whatever is written in it again and again")
{
    static const char *const units[] = {"cookie=a ",     "api-key:", "authorization: ", "sig=",  "sig\"\"\"\"",
                                        "sig\",\"value", "://",      "://a:b@://",      "%2525", "&amp;",
                                        "\\\\",          "sk-"};
    enum { LENGTH = 262144, MOST_S = 1 };
    char *text = malloc(LENGTH);
    mj_buf out = {0};
    bool found;

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        clock_t begun = clock();
        for (size_t k = 0; k < LENGTH; k++)
            text[k] = units[i][k % strlen(units[i])];
        out.n = 0;
        CHECK_INT(mj_redact(MJ_REDACT_TEXT, text, LENGTH, &out, &found), MJ_OK);
        CHECK((clock() - begun) / CLOCKS_PER_SEC < MOST_S);
    }
    mj_buf_free(&out);
    free(text);
}

TEST("ordinary words are left alone")
{
    static const char *const texts[] = {
        "",
        "a fox --ar 4:5",
        "design: a fox, signature: none",
        "sig: unreadable",
        "sig, internationalization: a long word",
        "\"sig\", it says, is no value",
        "the API key is wrong: ask for another",
        "api_key: not set (argument, config file or MIDJOURNEY_API_KEY)",
        "API-KEY: missing",
        "time: 10:30, 50% off & more",
        "https://cdn.example:8443/a?b=c&d=%41",
        "who@example.com: hello",
        "a\\",
        "100%",
        "&#",
        "&",
        "%4",
        "\\u00",
        "cookie: yes",
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        CHECK_SHOWN(MJ_REDACT_TEXT, texts[i], texts[i]);
}

TEST("what was redacted is redacted no further, and any bytes may be in a text")
{
    char text[600];
    uint64_t x = 88172645463325252u;

    CHECK_SHOWN(MJ_REDACT_TEXT, "https://x/?sig=[redacted]&API-KEY: [redacted]",
                "https://x/?sig=[redacted]&API-KEY: [redacted]");
    for (int round = 0; round < 20000; round++) {
        static const char bits[] = "\\%&#;xu0042sig=:\"/@kK-AP\0";
        mj_buf out = {0};
        bool found;
        size_t n = 0;
        for (; n < sizeof text; n++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            text[n] = round % 2 ? (char)x : bits[x % (sizeof bits - 1)];
            if (x % 97 == 0)
                break;
        }
        CHECK_INT(mj_redact((mj_redact_kind)(round % 3), text, n, &out, &found), MJ_OK);
        CHECK(found || out.n == 0);
        mj_buf_free(&out);
    }
}
