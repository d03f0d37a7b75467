/* mj_json: the grammar, byte by byte, and walking through what was read. */
#include "json_help.h"
#include "rng.h"

TEST("each kind of value is told by its type and stands for its own bytes")
{
    static const struct {
        const char *text;
        mj_json_type type;
        const char *bytes;
    } kinds[] = {
        {"null", MJ_JSON_NULL, "null"},
        {"true", MJ_JSON_BOOL, "true"},
        {"false", MJ_JSON_BOOL, "false"},
        {"0", MJ_JSON_NUMBER, "0"},
        {"-0", MJ_JSON_NUMBER, "-0"},
        {"1776211200000", MJ_JSON_NUMBER, "1776211200000"},
        {"-1.5", MJ_JSON_NUMBER, "-1.5"},
        {"0.00", MJ_JSON_NUMBER, "0.00"},
        {"1e5", MJ_JSON_NUMBER, "1e5"},
        {"1E+05", MJ_JSON_NUMBER, "1E+05"},
        {"12.25e-3", MJ_JSON_NUMBER, "12.25e-3"},
        {"\"\"", MJ_JSON_STRING, ""},
        {"\"a fox\"", MJ_JSON_STRING, "a fox"},
        {"\"\\\"\"", MJ_JSON_STRING, "\\\""},
        {"\"\\\\\"", MJ_JSON_STRING, "\\\\"},
        {"\"[1]{}\"", MJ_JSON_STRING, "[1]{}"},
        {"[]", MJ_JSON_ARRAY, "[]"},
        {"[ \t\n\r]", MJ_JSON_ARRAY, "[ \t\n\r]"},
        {"[1, 2]", MJ_JSON_ARRAY, "[1, 2]"},
        {"{}", MJ_JSON_OBJECT, "{}"},
        {"{ }", MJ_JSON_OBJECT, "{ }"},
        {"{\"\":{}}", MJ_JSON_OBJECT, "{\"\":{}}"},
        {" \n\t\r[ 1 ,\r2 ] \n", MJ_JSON_ARRAY, "[ 1 ,\r2 ]"},
        {"\n\"x\"\n", MJ_JSON_STRING, "x"},
        {" 7 ", MJ_JSON_NUMBER, "7"},
        {"{ \"a\" : 1 , \"b\" : 2 }", MJ_JSON_OBJECT, "{ \"a\" : 1 , \"b\" : 2 }"},
    };

    for (size_t i = 0; i < N(kinds); i++) {
        mj_json root = document(exact(kinds[i].text));
        CHECK_INT(root.type, kinds[i].type);
        CHECK_TEXT(root.text, kinds[i].bytes);
    }
}

/* Says what is wrong and where; `text` may hold a NUL. */
static void refused(const char *text, size_t n, const char *why, size_t at)
{
    mj_json root = {MJ_JSON_BOOL, {"x", 1}};
    size_t where = 99;
    const char *said = mj_json_read(exactly(text, n), &root, &where);

    if (!said || strcmp(said, why) != 0 || where != at)
        MJ_TEST_FAIL("%s: \"%s\" at %zu, not \"%s\" at %zu", text, said ? said : "(fine)", where, why, at);
    CHECK_INT(root.type, MJ_JSON_NONE); /* nothing that could be walked through */
}

#define EARLY "it ends too early"
#define VALUE "no JSON value"
#define AFTER "something after the value"
#define NUMBER "a bad number"
#define ESCAPE "a bad escape"

TEST("what is no JSON is told with its reason and the byte at which it is seen")
{
    static const struct {
        const char *text, *why;
        size_t at;
    } bad[] = {
        {"", "it is empty", 0},
        {" ", EARLY, 1},
        {"\n\t\r ", EARLY, 4},
        /* words */
        {"x", VALUE, 0},
        {"nul", VALUE, 0},
        {"nulx", VALUE, 0},
        {"nullx", AFTER, 4},
        {"tru", VALUE, 0},
        {"trues", AFTER, 4},
        {"True", VALUE, 0},
        {"fals ", VALUE, 0},
        {"FALSE", VALUE, 0},
        {"undefined", VALUE, 0},
        {"NaN", VALUE, 0},
        {"nan", VALUE, 0},
        {"Infinity", VALUE, 0},
        {"None", VALUE, 0},
        {"'a'", VALUE, 0},
        {"a fox", VALUE, 0},
        {"<html>", VALUE, 0},
        {"]", VALUE, 0},
        {"}", VALUE, 0},
        {",", VALUE, 0},
        {":", VALUE, 0},
        {"null null", AFTER, 5},
        {"{}{}", AFTER, 2},
        {"{} ,", AFTER, 3},
        {"[]]", AFTER, 2},
        {"\"a\"b", AFTER, 3},
        {"\xef\xbb\xbf{}", VALUE, 0}, /* a byte order mark */
        {"\f1", VALUE, 0},
        {"1\v", AFTER, 1},
        {"1\xc2\xa0", AFTER, 1},
        {"// no\n{}", VALUE, 0},
        {"{} // no", AFTER, 3},
        /* numbers */
        {"-", EARLY, 1},
        {"-x", NUMBER, 1},
        {"[-]", NUMBER, 2},
        {"--1", NUMBER, 1},
        {"-.5", NUMBER, 1},
        {"-Infinity", NUMBER, 1},
        {"+1", VALUE, 0},
        {".5", VALUE, 0},
        {"1.", EARLY, 2},
        {"[1.]", NUMBER, 3},
        {"1.x", NUMBER, 2},
        {"1.e5", NUMBER, 2},
        {"1..5", NUMBER, 2},
        {"1.5.5", AFTER, 3},
        {"01", AFTER, 1},
        {"-01", AFTER, 2},
        {"00", AFTER, 1},
        {"[01]", "an array that is not closed", 2},
        {"0x10", AFTER, 1},
        {"1e", EARLY, 2},
        {"[1e]", NUMBER, 3},
        {"[1E]", NUMBER, 3},
        {"1e+", EARLY, 3},
        {"[1e+]", NUMBER, 4},
        {"[1e-]", NUMBER, 4},
        {"1e-+5", NUMBER, 3},
        {"1e+-5", NUMBER, 3},
        {"1e5.5", AFTER, 3},
        {"1 e5", AFTER, 2},
        {"1_000", AFTER, 1},
        /* strings */
        {"\"", EARLY, 1},
        {"\"abc", EARLY, 4},
        {"\"a\\", EARLY, 3},
        {"\"a\\\"", EARLY, 4},
        {"\"\\x41\"", ESCAPE, 2},
        {"\"\\U0041\"", ESCAPE, 2},
        {"\"\\'\"", ESCAPE, 2},
        {"\"\\a\"", ESCAPE, 2},
        {"\"\\0\"", ESCAPE, 2},
        {"\"\\ \"", ESCAPE, 2},
        {"\"ab\\\n\"", ESCAPE, 4},
        {"\"\\u\"", ESCAPE, 3},
        {"\"\\u1\"", ESCAPE, 3},
        {"\"\\u12\"", ESCAPE, 3},
        {"\"\\u123\"", ESCAPE, 3},
        {"\"\\u12g4\"", ESCAPE, 3},
        {"\"\\ug123\"", ESCAPE, 3},
        {"\"\\u123g\"", ESCAPE, 3},
        {"\"\\u+123\"", ESCAPE, 3},
        {"\"\\u 123\"", ESCAPE, 3},
        {"\"\\u{1f98a}\"", ESCAPE, 3},
        {"\"\\u00:0\"", ESCAPE, 3}, /* the characters next to digits and letters */
        {"\"\\u00/0\"", ESCAPE, 3},
        {"\"\\u00@0\"", ESCAPE, 3},
        {"\"\\u00G0\"", ESCAPE, 3},
        {"\"\\u00`0\"", ESCAPE, 3},
        {"\"\\ud83d\\u\"", ESCAPE, 9}, /* behind half a pair, too */
        {"\"\\ud83d\\udd\"", ESCAPE, 9},
        {"\"\\ud83d\\x\"", ESCAPE, 8},
        {"\"\\ud83d", EARLY, 7},
        /* arrays */
        {"[", EARLY, 1},
        {"[ ", EARLY, 2},
        {"[1", EARLY, 2},
        {"[1,", EARLY, 3},
        {"[1,]", VALUE, 3},
        {"[,1]", VALUE, 1},
        {"[,]", VALUE, 1},
        {"[1,,2]", VALUE, 3},
        {"[1 2]", "an array that is not closed", 3},
        {"[1:2]", "an array that is not closed", 2},
        {"[1}", "an array that is not closed", 2},
        {"[}", VALUE, 1},
        {"[\"a\" \"b\"]", "an array that is not closed", 5},
        /* objects */
        {"{", EARLY, 1},
        {"{ \n", EARLY, 3},
        {"{]", "a member without a key", 1},
        {"{,}", "a member without a key", 1},
        {"{1:2}", "a member without a key", 1},
        {"{a:1}", "a member without a key", 1},
        {"{'a':1}", "a member without a key", 1},
        {"{null:1}", "a member without a key", 1},
        {"{\"a\"", EARLY, 4},
        {"{\"a", EARLY, 3},
        {"{\"a\\z\":1}", ESCAPE, 4},
        {"{\"a\" 1}", "a key without a colon", 5},
        {"{\"a\"}", "a key without a colon", 4},
        {"{\"a\",\"b\"}", "a key without a colon", 4},
        {"{\"a\"=1}", "a key without a colon", 4},
        {"{\"a\":", EARLY, 5},
        {"{\"a\":}", VALUE, 5},
        {"{\"a\"::1}", VALUE, 5},
        {"{\"a\":1", EARLY, 6},
        {"{\"a\":1,", EARLY, 7},
        {"{\"a\":1]", "an object that is not closed", 6},
        {"{\"a\":1,}", "a member without a key", 7},
        {"{\"a\":1 \"b\":2}", "an object that is not closed", 7},
        {"{\"a\":1;\"b\":2}", "an object that is not closed", 6},
        {"{\"a\":1,,\"b\":2}", "a member without a key", 7},
        {"{\"a\":[1,{\"b\":tru}]}", VALUE, 13},
    };

    for (size_t i = 0; i < N(bad); i++)
        refused(bad[i].text, strlen(bad[i].text), bad[i].why, bad[i].at);
}

TEST("a NUL ends nothing: outside of a string it is no blank, behind a backslash no escape")
{
    refused("\0", 1, VALUE, 0);
    refused("{}\0", 3, AFTER, 2);
    refused("[1\0]", 4, "an array that is not closed", 2);
    refused("\"\\\0\"", 4, ESCAPE, 2);
    refused("tru\0", 4, VALUE, 0);
    refused("{\0}", 3, "a member without a key", 1);
}

TEST("of all single bytes only the ten digits are a document")
{
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        mj_json root;
        size_t at;
        const char *why = mj_json_read(exactly(&byte, 1), &root, &at);
        CHECK_INT(!why, c >= '0' && c <= '9');
    }
}

TEST("nothing at all is empty, wherever it lies")
{
    mj_json root;
    size_t at = 7;

    CHECK_STR(mj_json_read((mj_str){0}, &root, &at), "it is empty");
    CHECK_INT(at, 0);
}

/* Of all kinds, so that there is each place at which one can be cut. */
static const char whole_text[] =
    "{\"status\": 0, \"message\" : \"succ\\u00e9ss \\ud83e\\udd8a \\\"\\\\\\/\\n\", \"data\":[{\"taskId\":\"MtAd7m\","
    "\"status\":-1.50e+10,\"none\":null,\"yes\":true,\"no\":false,\"images\":[\"a\",{},[],[[1],{\"b\":0}]],\"\":\"\"}]"
    "\n"
    "\t}";

TEST("a document that was cut anywhere is refused, whatever lies behind the cut")
{
    size_t n = sizeof whole_text - 1, at;
    mj_json root;

    document(exactly(whole_text, n));
    for (size_t cut = 0; cut < n; cut++) {
        CHECK(mj_json_read(exactly(whole_text, cut), &root, &at) != NULL);
        CHECK(at <= cut);
        CHECK(mj_json_read((mj_str){whole_text, (uint32_t)cut}, &root, &at) != NULL);
    }
}

TEST("a document with one byte missing, doubled or replaced is never read beyond its end")
{
    size_t n = sizeof whole_text - 1, at;
    char copy[sizeof whole_text + 1];
    mj_json root;

    for (size_t i = 0; i < n; i++) {
        memcpy(copy, whole_text, i);
        memcpy(copy + i, whole_text + i + 1, n - i - 1);
        mj_json_read(exactly(copy, n - 1), &root, &at);
        CHECK(at <= n - 1);
        memcpy(copy, whole_text, i + 1);
        memcpy(copy + i + 1, whole_text + i, n - i);
        mj_json_read(exactly(copy, n + 1), &root, &at);
        CHECK(at <= n + 1);
        for (int c = 0; c < 256; c++) {
            memcpy(copy, whole_text, n);
            copy[i] = (char)c;
            mj_json_read(exactly(copy, n), &root, &at);
            CHECK(at <= n);
        }
    }
}

static mj_str nested(unsigned depth, char open, char close)
{
    static char text[8 * 64];
    size_t n = 0;

    for (unsigned i = 0; i < depth; i++)
        n += (size_t)sprintf(text + n, open == '{' ? "{\"a\":" : "[");
    text[n++] = '0';
    for (unsigned i = 0; i < depth; i++)
        text[n++] = close;
    return exactly(text, n);
}

TEST("twenty-four brackets deep is read, twenty-five are refused at the one too many")
{
    mj_json root, inner;
    unsigned depth = 0;
    size_t at;

    CHECK_INT(MJ_JSON_DEPTH, 24);
    for (root = document(nested(24, '[', ']')); mj_json_next(&root, NULL, &inner); root = inner)
        depth++;
    CHECK_INT(depth, 24);
    document(nested(24, '{', '}'));
    CHECK_STR(mj_json_read(nested(25, '[', ']'), &root, &at), "nested too deep");
    CHECK_INT(at, 24);
    CHECK_STR(mj_json_read(nested(25, '{', '}'), &root, &at), "nested too deep");
    CHECK_INT(at, 24 * 5);
}

TEST("a million brackets are refused at once, without a stack for them")
{
    size_t n = 1000000, at;
    char *text = malloc(n);
    mj_json root;

    CHECK(text != NULL);
    memset(text, '[', n);
    CHECK_STR(mj_json_read((mj_str){text, (uint32_t)n}, &root, &at), "nested too deep");
    CHECK_INT(at, 24);
    for (size_t i = 0; i + 5 <= n; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    CHECK_STR(mj_json_read((mj_str){text, (uint32_t)n}, &root, &at), "nested too deep");
    free(text);
}

TEST("what is closed again does not count for how deep the next is")
{
    char text[1000] = "[";
    mj_json root, v;
    size_t n = 1, count = 0;

    for (int i = 0; i < 100; i++)
        n += (size_t)sprintf(text + n, "%s", i % 2 ? "[]," : "{\"a\":[0]},");
    n += (size_t)sprintf(text + n, "0]");
    for (root = document(exactly(text, n)); mj_json_next(&root, NULL, &v);)
        count++;
    CHECK_INT(count, 101);
}

/* ---- walking ---- */

TEST("an array is walked through element by element, whatever these are")
{
    static const struct {
        mj_json_type type;
        const char *text;
    } want[] = {
        {MJ_JSON_NUMBER, "1"},         {MJ_JSON_STRING, "a,]"},  {MJ_JSON_ARRAY, "[ 2 , [3]]"}, {MJ_JSON_NULL, "null"},
        {MJ_JSON_OBJECT, "{\"b\":4}"}, {MJ_JSON_ARRAY, "[]"},    {MJ_JSON_OBJECT, "{}"},        {MJ_JSON_BOOL, "true"},
        {MJ_JSON_STRING, ""},          {MJ_JSON_NUMBER, "-5e1"},
    };
    mj_json root = document(exact(" [1 ,\"a,]\", [ 2 , [3]],null , {\"b\":4},[],{}\n,true,\"\", -5e1 ] ")), v,
            key = {MJ_JSON_BOOL, {"untouched", 9}};

    for (size_t i = 0; i < N(want); i++) {
        CHECK(mj_json_next(&root, &key, &v));
        CHECK_INT(v.type, want[i].type);
        CHECK_TEXT(v.text, want[i].text);
    }
    CHECK(!mj_json_next(&root, &key, &v));
    CHECK(!mj_json_next(&root, &key, &v)); /* and stays at its end */
    CHECK_TEXT(key.text, "untouched");
}

TEST("an object is walked through with its keys, also those that are there twice")
{
    static const char *const want[][2] = {{"a", "1"}, {"", "x"}, {"a", "{\"a\":[2]}"}, {"\\u0061", "[]"}, {"b}", "{}"}};
    mj_json root = document(exact("{\"a\":1,\"\" : \"x\" ,\"a\": {\"a\":[2]}, \"\\u0061\":[],\n\"b}\":{}}")), key, v;

    for (size_t i = 0; i < N(want); i++) {
        CHECK(mj_json_next(&root, &key, &v));
        CHECK_INT(key.type, MJ_JSON_STRING);
        CHECK_TEXT(key.text, want[i][0]);
        CHECK_TEXT(v.text, want[i][1]);
    }
    CHECK(!mj_json_next(&root, &key, &v));
    CHECK(!mj_json_next(&root, &key, &v));
}

TEST("keys and values that the caller does not want are skipped")
{
    mj_json root = document(exact("{\"a\":[1,{}],\"b\":2}")), key, v;

    CHECK(mj_json_next(&root, NULL, NULL));
    CHECK(mj_json_next(&root, &key, NULL));
    CHECK_TEXT(key.text, "b");
    CHECK(!mj_json_next(&root, NULL, NULL));
    root = document(exact("[1,2]"));
    CHECK(mj_json_next(&root, NULL, NULL));
    CHECK(mj_json_next(&root, NULL, &v));
    CHECK_TEXT(v.text, "2");
}

TEST("there is nothing to walk through in what is empty, and in what is no array or object")
{
    static const char *const none[] = {"[]", "{}", "[ ]", "{\n}", "1", "-0.5", "\"[1]\"", "\"\"", "true", "null"};
    mj_json nothing = {0}, v;

    for (size_t i = 0; i < N(none); i++) {
        mj_json root = document(exact(none[i]));
        CHECK(!mj_json_next(&root, NULL, &v));
        CHECK(!mj_json_next(&root, NULL, &v));
    }
    CHECK(!mj_json_next(&nothing, NULL, &v));
}

/* ---- random trees, written twice: as one writer would, and as any other might ---- */

typedef struct sheet {
    char p[1 << 16];
    size_t n;
} sheet;

static void add(sheet *t, const char *s)
{
    size_t n = strlen(s);

    CHECK(t->n + n < sizeof t->p);
    memcpy(t->p + t->n, s, n + 1);
    t->n += n;
}

static void add_blanks(rng *r, sheet *t)
{
    static const char *const blanks[] = {"", "", "", " ", "\n", "\t", "\r\n", "  \t"};
    add(t, blanks[below(r, N(blanks))]);
}

static void random_string(rng *r, sheet *plain, sheet *odd)
{
    static const struct {
        const char *plain, *ways[4];
    } chars[] = {
        {"a", {"a", "\\u0061", "a", "a"}},
        {"/", {"/", "\\/", "\\u002f", "\\u002F"}},
        {"\\", {"\\\\", "\\u005c", "\\\\", "\\u005C"}},
        {"\"", {"\\\"", "\\u0022", "\\\"", "\\\""}},
        {"\n", {"\\n", "\\u000a", "\\n", "\\u000A"}},
        {"\t", {"\\t", "\\u0009", "\\t", "\\t"}},
        {"\b\f\r", {"\\b\\f\\r", "\\u0008\\u000c\\u000d", "\\b\\u000C\\r", "\\b\\f\\r"}},
        {"\xc3\xa9", {"\xc3\xa9", "\\u00e9", "\\u00E9", "\xc3\xa9"}},
        {"\xe2\x82\xac", {"\xe2\x82\xac", "\\u20ac", "\\u20AC", "\\u20aC"}},
        {"\xf0\x9f\xa6\x8a", {"\xf0\x9f\xa6\x8a", "\\ud83e\\udd8a", "\\uD83E\\uDD8A", "\\uD83e\\udd8A"}},
        {"]},:{[ ", {"]},:{[ ", "]},:{[ ", "]},:{[ ", "]},:{[ "}},
    };

    add(plain, "<");
    add(odd, "\"");
    for (uint32_t n = below(r, 6); n > 0; n--) {
        uint32_t c = below(r, N(chars));
        add(plain, chars[c].plain);
        add(odd, chars[c].ways[below(r, 4)]);
    }
    add(plain, ">");
    add(odd, "\"");
}

static void random_value(rng *r, sheet *plain, sheet *odd, unsigned depth)
{
    static const char *const scalars[] = {"null", "true", "false", "0", "-1", "12.50", "1e9", "-0.0E-07"};
    uint32_t kind = below(r, depth < 6 ? 4 : 2);
    bool object = kind == 3;

    add_blanks(r, odd);
    if (kind == 0) {
        const char *s = scalars[below(r, N(scalars))];
        add(plain, s), add(odd, s);
    } else if (kind == 1) {
        random_string(r, plain, odd);
    } else {
        add(plain, object ? "{" : "["), add(odd, object ? "{" : "[");
        add_blanks(r, odd);
        for (uint32_t i = 0, n = below(r, 4); i < n; i++) {
            if (i > 0)
                add(odd, ",");
            add_blanks(r, odd);
            if (object) {
                random_string(r, plain, odd);
                add_blanks(r, odd);
                add(odd, ":");
            }
            random_value(r, plain, odd, depth + 1);
            add(plain, ";");
        }
        add(plain, object ? "}" : "]"), add(odd, object ? "}" : "]");
    }
    add_blanks(r, odd);
}

static void add_unescaped(sheet *out, const mj_json *v)
{
    add(out, "<");
    CHECK(out->n + v->text.n < sizeof out->p);
    out->n += mj_json_unescape(v, out->p + out->n);
    out->p[out->n] = '\0';
    add(out, ">");
}

static void rewrite(mj_json v, sheet *out)
{
    mj_json key, one;
    char scalar[32];

    if (v.type == MJ_JSON_STRING) {
        add_unescaped(out, &v);
    } else if (v.type == MJ_JSON_ARRAY || v.type == MJ_JSON_OBJECT) {
        add(out, v.type == MJ_JSON_OBJECT ? "{" : "[");
        while (mj_json_next(&v, &key, &one)) {
            if (v.type == MJ_JSON_OBJECT)
                add_unescaped(out, &key);
            rewrite(one, out);
            add(out, ";");
        }
        add(out, v.type == MJ_JSON_OBJECT ? "}" : "]");
    } else {
        snprintf(scalar, sizeof scalar, "%.*s", (int)v.text.n, v.text.p);
        add(out, scalar);
    }
}

TEST("random documents are read as what was written, whatever their blanks and escapes")
{
    static sheet plain, odd, again;
    rng r = rng_of(11);
    mj_json root;

    for (int i = 0; i < 3000; i++) {
        plain.n = odd.n = again.n = 0;
        random_value(&r, &plain, &odd, 0);
        root = document(exactly(odd.p, odd.n));
        CHECK(mj_json_plain(&root));
        rewrite(root, &again);
        CHECK_STR(again.p, plain.p);
    }
}

/* ---- strings ---- */

TEST("escapes are undone, pairs joined, and half pairs become question marks")
{
    static const struct {
        const char *text, *want;
        size_t n;
    } escapes[] = {
        {"", "", 0},
        {"a fox", "a fox", 5},
        {"\\\"\\\\\\/", "\"\\/", 3},
        {"\\b\\f\\n\\r\\t", "\b\f\n\r\t", 5},
        {"bfnrt\\\\bfnrt", "bfnrt\\bfnrt", 11},
        {"\\\\u0041", "\\u0041", 6},
        {"\\u0041\\u0061", "Aa", 2},
        {"https:\\/\\/a.example\\/", "https://a.example/", 18},
        {"\\u0000", "\0", 1},
        {"a\\u0000b", "a\0b", 3},
        {"\\u001f\\u007f", "\x1f\x7f", 2},
        {"\\u0080", "\xc2\x80", 2},
        {"\\u07ff\\u07FF", "\xdf\xbf\xdf\xbf", 4},
        {"\\u0800", "\xe0\xa0\x80", 3},
        {"\\ud7ff", "\xed\x9f\xbf", 3},
        {"\\ue000", "\xee\x80\x80", 3},
        {"\\uffff", "\xef\xbf\xbf", 3},
        {"\\uabcd\\uABCD\\u9876", "\xea\xaf\x8d\xea\xaf\x8d\xe9\xa1\xb6", 9},
        {"\\ud800\\udc00", "\xf0\x90\x80\x80", 4},
        {"\\ud800\\udfff", "\xf0\x90\x8f\xbf", 4},
        {"\\udbff\\udc00", "\xf4\x8f\xb0\x80", 4},
        {"\\udbff\\udfff", "\xf4\x8f\xbf\xbf", 4},
        {"\\uD83E\\uDD8a", "\xf0\x9f\xa6\x8a", 4},
        {"x\\ud83e\\udd8ay", "x\xf0\x9f\xa6\x8ay", 6},
        /* half pairs */
        {"\\ud800", "?", 1},
        {"\\udbff", "?", 1},
        {"\\udc00", "?", 1},
        {"\\udfff", "?", 1},
        {"\\ud800x", "?x", 2},
        {"\\ud800\\n", "?\n", 2},
        {"\\ud800\\\\udc00", "?\\udc00", 7},
        {"\\ud800udc00", "?udc00", 6},
        {"\\ud800\\u0041", "?A", 2},
        {"\\ud800\\ud7ff", "?\xed\x9f\xbf", 4},
        {"\\ud800\\ue000", "?\xee\x80\x80", 4},
        {"\\ud800\\ud800", "??", 2},
        {"\\udc00\\ud800", "??", 2},
        {"\\udc00\\udc00", "??", 2},
        {"\\ud800\\ud83e\\udd8a", "?\xf0\x9f\xa6\x8a", 5},
        {"\\ud83e\\udd8a\\udd8a", "\xf0\x9f\xa6\x8a?", 5},
        /* as they came */
        {"\x01\x7f\xff\xc3", "\x01\x7f\xff\xc3", 4},
        {"\xed\xa0\x80", "\xed\xa0\x80", 3},
    };
    char quoted[64];

    for (size_t i = 0; i < N(escapes); i++) {
        int n = snprintf(quoted, sizeof quoted, "\"%s\"", escapes[i].text);
        mj_json v = document(exactly(quoted, (size_t)n));
        char *out = malloc(v.text.n); /* so much is enough */
        CHECK(out != NULL);
        CHECK_INT(mj_json_unescape(&v, out), escapes[i].n);
        CHECK_MEM(out, escapes[i].want, escapes[i].n);
        free(out);
    }
}

TEST("a string may hold every byte but a quote, a backslash and nothing at all")
{
    for (int c = 0; c < 256; c++) {
        char quoted[] = {'"', 'a', (char)c, 'b', '"'}, out[3];
        mj_json root;
        size_t at;

        if (c == '"' || c == '\\')
            continue;
        CHECK(!mj_json_read(exactly(quoted, 5), &root, &at));
        CHECK_INT(mj_json_unescape(&root, out), 3);
        CHECK_MEM(out, quoted + 1, 3);
    }
}

TEST("every character of Unicode comes out of its escapes as UTF-8")
{
    char quoted[16], out[12];

    for (uint32_t c = 0; c<0x110000; c += c> 0xffff ? 251 : 1) {
        int n = c < 0x10000 ? snprintf(quoted, sizeof quoted, "\"\\u%04x\"", c)
                            : snprintf(quoted, sizeof quoted, "\"\\u%04x\\u%04X\"", 0xd800 + ((c - 0x10000) >> 10),
                                       0xdc00 + ((c - 0x10000) & 0x3ff));
        mj_json v = document((mj_str){quoted, (uint32_t)n});
        size_t len = mj_json_unescape(&v, out);
        bool half = c >= 0xd800 && c <= 0xdfff;
        CHECK_INT(len, half || c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4);
        CHECK(half ? out[0] == '?' : mj_utf8_valid(out, len));
        CHECK_INT(mj_json_plain(&v), !half);
    }
}

TEST("a key is known however it is escaped, and never taken for another")
{
    static const struct {
        const char *key, *name;
        bool is;
    } keys[] = {
        {"taskId", "taskId", true},
        {"\\u0074askId", "taskId", true},
        {"task\\u0049d", "taskId", true},
        {"\\u0074\\u0061\\u0073\\u006b\\u0049\\u0064", "taskId", true},
        {"\\u0066\\u0061\\u0069\\u006c\\u0052\\u0065\\u0061\\u0073\\u006f\\u006e", "failReason", true},
        {"a\\/b", "a/b", true},
        {"", "", true},
        {"taskid", "taskId", false},
        {"taskI", "taskId", false},
        {"taskIdx", "taskId", false},
        {"task\\u0049", "taskId", false},
        {"task\\u0049dx", "taskId", false},
        {"task\\u0069d", "taskId", false},
        {"\\\\u0074askId", "taskId", false},
        {"", "taskId", false},
        {"\\u0074", "", false},
        {"taskId\\u0000", "taskId", false},
        {"\\ud800", "?", true},
    };
    char quoted[128];

    for (size_t i = 0; i < N(keys); i++) {
        int n = snprintf(quoted, sizeof quoted, "\"%s\"", keys[i].key);
        mj_json v = document(exactly(quoted, (size_t)n));
        if (mj_json_is(&v, (mj_str){keys[i].name, (uint32_t)strlen(keys[i].name)}) != keys[i].is)
            MJ_TEST_FAIL("%s, %s", keys[i].key, keys[i].name);
    }
}

TEST("a key of any length with escapes is only compared, and nothing but a string is one")
{
    static const char *const others[] = {"true", "null", "12", "[]", "{}"};
    char quoted[1000] = "\"", name[200] = "";
    mj_json v;

    for (size_t chars = 1; chars <= 160; chars++) {
        size_t n = 1;
        for (size_t i = 0; i < chars; i++) {
            n += (size_t)sprintf(quoted + n, i % 3 ? "a" : "\\u0061");
            name[i] = 'a';
        }
        quoted[n++] = '"';
        v = document(exactly(quoted, n));
        CHECK(v.text.n > MJ_JSON_KEY || mj_json_is(&v, (mj_str){name, (uint32_t)chars}));
        CHECK(!mj_json_is(&v, (mj_str){name, (uint32_t)chars - 1}));
    }
    for (size_t i = 0; i < N(others); i++) {
        v = document(exact(others[i]));
        CHECK(!mj_json_is(&v, v.text));
    }
    CHECK(!mj_json_is(&(mj_json){0}, MJ_LIT("")));
}

/* ---- numbers ---- */

TEST("whole numbers are whole, as numbers and as strings of digits")
{
    static const struct {
        const char *text;
        int64_t value;
    } whole[] = {
        {"0", 0},
        {"-0", 0},
        {"1", 1},
        {"-1", -1},
        {"1001", 1001},
        {"1.0", 1},
        {"1.000000000000000000000000000000", 1},
        {"-2.00", -2},
        {"0.0", 0},
        {"9007199254740991", INT64_C(9007199254740991)},
        {"9007199254740992", INT64_C(9007199254740992)},
        {"-9007199254740992", -INT64_C(9007199254740992)},
        {"9007199254740992.0", INT64_C(9007199254740992)},
        {"\"0\"", 0},
        {"\"1\"", 1},
        {"\"-1\"", -1},
        {"\"-0\"", 0},
        {"\"007\"", 7},
        {"\"0000000000000001\"", 1},
        {"\"9007199254740992\"", INT64_C(9007199254740992)},
        {"\"-9007199254740992\"", -INT64_C(9007199254740992)},
    };

    for (size_t i = 0; i < N(whole); i++) {
        mj_json v = document(exact(whole[i].text));
        int64_t n = 77;
        if (!mj_json_whole(&v, &n) || n != whole[i].value)
            MJ_TEST_FAIL("%s is %lld", whole[i].text, (long long)n);
    }
}

TEST("what is not whole, too large or no number is none, and leaves what was there")
{
    static const char *const none[] = {
        "0.5",
        "1.5",
        "1.01",
        "-1.0000001",
        "1e0",
        "1E2",
        "1.0e0",
        "10e-1",
        "9007199254740993",
        "-9007199254740993",
        "9999999999999999",
        "10000000000000000",
        "10000000000000000.0",
        "18446744073709551616",
        "18446744073709551617",
        "100000000000000000000000000000000000001",
        "\"9007199254740993\"",
        "\"00000000000000001\"",
        "\"18446744073709551617\"",
        "\"\"",
        "\"-\"",
        "\"--1\"",
        "\"+1\"",
        "\" 1\"",
        "\"1 \"",
        "\"1.0\"",
        "\"1e0\"",
        "\"1x\"",
        "\"x1\"",
        "\"1-\"",
        "\"0x1\"",
        "\"one\"",
        "\"\\u0031\"",
        "\"1\\n\"",
        "\"\xd9\xa1\"",
        "true",
        "false",
        "null",
        "[1]",
        "[]",
        "{}",
        "{\"a\":1}",
    };
    mj_json nothing = {0};
    int64_t n = 77;

    for (size_t i = 0; i < N(none); i++) {
        mj_json v = document(exact(none[i]));
        if (mj_json_whole(&v, &n))
            MJ_TEST_FAIL("%s is %lld", none[i], (long long)n);
        if (n != 77)
            MJ_TEST_FAIL("%s left %lld", none[i], (long long)n);
    }
    CHECK(!mj_json_whole(&nothing, &n));
}

TEST("a number is not read beyond its own bytes, when digits follow in the document")
{
    mj_json root = document(exact("[\"1\"]")), v;
    int64_t n;

    CHECK(mj_json_next(&root, NULL, &v));
    CHECK(mj_json_whole(&v, &n));
    CHECK_INT(n, 1);
    v = (mj_json){MJ_JSON_NUMBER, {"1234", 2}};
    CHECK(mj_json_whole(&v, &n));
    CHECK_INT(n, 12);
    v = (mj_json){MJ_JSON_NUMBER, {"1.05", 3}};
    CHECK(mj_json_whole(&v, &n));
    CHECK_INT(n, 1);
}

/* ---- plain ---- */

TEST("plain is what every other reader takes for the same")
{
    static const char *const plain[] = {
        "null",
        "true",
        "0",
        "-1.5e-10",
        "1e99",
        "1e-99",
        "1E+99",
        "1234567890123456789012345678901234567890", /* forty */
        "\"\"",
        "\"a fox\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\u0000\\u001f\\u007f\\uffff\"",
        "\"\\ud83e\\udd8a\"",
        ("\"f\xc3\xbc"
         "chse \xf0\x9f\xa6\x8a\""),
        "[]",
        "{}",
        "{\"width\":1024,\n\t\"height\" : 1024}",
        "[{\"a\":[null,\"b\",{}]}]",
        "{\"\\u00e9\":\"\xc3\xa9\"}",
    };

    for (size_t i = 0; i < N(plain); i++) {
        mj_json v = document(exact(plain[i]));
        if (!mj_json_plain(&v))
            MJ_TEST_FAIL("%s is not plain", plain[i]);
    }
}

/* Each also deep inside of others, and as a key. */
static void not_plain(const char *text, size_t n)
{
    char around[300];
    mj_json root, key, v;
    int len;

    root = document(exactly(text, n));
    CHECK(!mj_json_plain(&root));
    len = snprintf(around, sizeof around, "{\"a\":[1,[%.*s],2]}", (int)n, text);
    memcpy(around + 9, text, n); /* it may hold a NUL */
    memcpy(around + 9 + n, "],2]}", 5);
    len = (int)(9 + n + 5);
    root = document(exactly(around, (size_t)len));
    CHECK(!mj_json_plain(&root));
    CHECK(mj_json_next(&root, &key, &v));
    CHECK(mj_json_plain(&key));
    CHECK(!mj_json_plain(&v));
    if (text[0] != '"')
        return;
    memcpy(around, "[{", 2);
    memcpy(around + 2, text, n);
    memcpy(around + 2 + n, ":0}]", 4);
    root = document(exactly(around, n + 6));
    CHECK(!mj_json_plain(&root));
    CHECK(mj_json_next(&root, NULL, &v));
    CHECK(mj_json_next(&v, &key, NULL));
    CHECK(!mj_json_plain(&key));
}

TEST("what another reader may refuse or change is not plain, wherever it stands")
{
    static const char *const odd[] = {
        /* numbers */
        "12345678901234567890123456789012345678901",
        "-1234567890123456789012345678901234567890",
        "0.123456789012345678901234567890123456789",
        "1e100",
        "1e-100",
        "1E+100",
        "1e000",
        "1e999999999",
        /* half pairs */
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\udd8a\\ud83e\"",
        /* broken UTF-8 */
        "\"\xff\"",
        "\"\x80\"",
        "\"\xc3\"",
        "\"\xc0\xaf\"",
        "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "\"a\xe2\x82\"",
    };

    for (size_t i = 0; i < N(odd); i++)
        not_plain(odd[i], strlen(odd[i]));
    for (int c = 0; c < 256; c++) {
        char quoted[] = {'"', 'a', (char)c, '"'};
        if (c < 0x20 || c >= 0x7f)
            not_plain(quoted, 4);
    }
    CHECK(!mj_json_plain(&(mj_json){0}));
}

TEST("what is odd stays odd, whatever plain ones follow")
{
    static const char *const odd[] = {"\"\\ud800\"", "\"\x01\"", "1e999", "12345678901234567890123456789012345678901"};
    char around[200];

    for (size_t i = 0; i < N(odd); i++) {
        mj_json root;
        snprintf(around, sizeof around, "[%s,1,1.5e7,\"a\\n\\ud83e\\udd8a\",{\"b\":[]},true,null]", odd[i]);
        root = document(exact(around));
        CHECK(!mj_json_plain(&root));
    }
}

TEST("a part is plain or not for itself, not for what stands beside it")
{
    mj_json root = document(exact("[{\"a\":\"\x01\"},{\"b\":[1]},\"\\ud800\",\"c\",1e500,7]")), v;
    static const bool plain[] = {false, true, false, true, false, true};

    CHECK(!mj_json_plain(&root));
    for (size_t i = 0; i < N(plain); i++) {
        CHECK(mj_json_next(&root, NULL, &v));
        CHECK_INT(mj_json_plain(&v), plain[i]);
    }
}

/* ---- UTF-8 ---- */

/* By the definition: decoded, and compared with the shortest form of what it stands for. */
static size_t slow_length(const unsigned char *s, size_t n)
{
    size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xf8 ? 0 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t c = len == 1 ? s[0] : len ? s[0] & (0x7fu >> len) : 0;

    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : len;
}

TEST("UTF-8 is well-formed or not as its definition says, of any first and second byte")
{
    static const unsigned char thirds[] = {0x00, 0x41, 0x7f, 0x80, 0xbf, 0xc0, 0xff};

    for (unsigned i = 0; i < 0x10000; i++)
        for (size_t k = 0; k < N(thirds) * N(thirds); k++) {
            unsigned char s[4] = {(unsigned char)(i >> 8), (unsigned char)i, thirds[k / N(thirds)],
                                  thirds[k % N(thirds)]};
            for (size_t n = 1; n <= 4; n++)
                CHECK_INT(mj_utf8_length((const char *)s, n), slow_length(s, n));
        }
}

TEST("text is UTF-8 when all of it is, and nothing is")
{
    static const char good[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\xa6\x8az";
    mj_str s;

    CHECK(mj_utf8_valid(NULL, 0));
    for (size_t n = 0; n < sizeof good; n++) {
        s = exactly(good, n);
        CHECK_INT(mj_utf8_valid(s.p, s.n), n == 0 || n == 1 || n == 3 || n == 6 || n >= 10);
    }
    CHECK(!mj_utf8_valid("a\x80z", 3));
    CHECK(mj_utf8_valid("a\0z", 3));
}
