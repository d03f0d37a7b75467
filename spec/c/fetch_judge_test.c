/* mj_fetch_judge: hosts and headers from outside. */
#include "download/checks.h"
#include "mj_test.h"

TEST("a host is meant by its name in any case, with a dot at its end or without")
{
    static const struct {
        const char *host, *allowed;
        bool want;
    } cases[] = {
        {"img.example", "img.example", true},
        {"IMG.example", "img.EXAMPLE", true},
        {"img.example.", "img.example", true},
        {"img.example..", "img.example", false},
        {"img.example", "img.example.", false}, /* not a usual spelling; no host matches it */
        {"a.img.example", "img.example", false},
        {"aimg.example", "img.example", false},
        {"mg.example", "img.example", false},
        {"img.exampl", "img.example", false},
        {"img.examplee", "img.example", false},
        {"", "img.example", false},
        {".", "img.example", false},
        {"a.img.example", ".img.example", true},
        {"a.b.IMG.example.", ".img.example", true},
        {"img.example", ".img.example", false},
        {".img.example", ".img.example", false},
        {"aimg.example", ".img.example", false},
        {"a.img.example.evil", ".img.example", false},
        {"a", ".", false},
        {"a.", ".", false},
        {"a", "", false},
        {"[2606:4700::1]", "[2606:4700::1]", true},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (mj_fetch_host_is(cases[i].host, cases[i].allowed) != cases[i].want)
            MJ_TEST_FAIL("\"%s\" by \"%s\"", cases[i].host, cases[i].allowed);
}

TEST("a range is the rest if it begins where asked, ends at the end, and says nothing else")
{
    static const struct {
        const char *text;
        int64_t from, total; /* 0: it is none */
    } cases[] = {
        {"bytes 10-99/100", 10, 100},
        {"bytes 0-0/1", 0, 1},
        {"bytes 99-99/100", 99, 100},
        {"bytes 0-999999999999999997/999999999999999998", 0, 999999999999999998},
        {"bytes 9-99/100", 10, 0},
        {"bytes 11-99/100", 10, 0},
        {"bytes 10-98/100", 10, 0},
        {"bytes 10-100/100", 10, 0},
        {"bytes 10-99/101", 10, 0},
        {"bytes 10-9/10", 10, 0},
        {"bytes 10-5/6", 10, 0},
        {"bytes 10--1/0", 10, 0},
        {"bytes -10-99/100", 10, 0},
        {"bytes +10-99/100", 10, 0},
        {"bytes  10-99/100", 10, 0},
        {"bytes 10 - 99/100", 10, 0},
        {"bytes 10-99/ 100", 10, 0},
        {"bytes 10-99/100-", 10, 0},
        {"bytes ", 10, 0},
        {"bytes", 10, 0},
        {"bytes 10-99/*", 10, 0},
        {"bytes */100", 10, 0},
        {"bytes 10-99/100 ", 10, 0},
        {"bytes 10-99/100, 0-1/2", 10, 0},
        {"bytes 10-99/100x", 10, 0},
        {"bytes 10-99", 10, 0},
        {"bytes=10-99/100", 10, 0},
        {"BYTES 10-99/100", 10, 0},
        {"bits 10-99/100", 10, 0},
        {"bytes 0xa-99/100", 10, 0},
        {"bytes 10-99999999999999999999/100000000000000000000", 10, 0},
        {"bytes 18446744073709551626-99/100", 10, 0}, /* 2^64 + 10 */
        {"", 10, 0},
    };
    int64_t total;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        total = 0;
        if (mj_fetch_is_rest(cases[i].text, cases[i].from, &total) != (cases[i].total != 0))
            MJ_TEST_FAIL("\"%s\"", cases[i].text);
        if (cases[i].total)
            CHECK_INT(total, cases[i].total);
    }
    CHECK(!mj_fetch_is_rest(NULL, 10, &total));
}
