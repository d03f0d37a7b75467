/* What a task must be to be listed. */
#include "domain/filter.h"
#include "mj_test.h"
#include "task_help.h"

#include <string.h>

static mj_str str(const char *s)
{
    return (mj_str){s, (uint32_t)strlen(s)};
}

static bool matches(mj_filter f)
{
    mj_task t = {.prompt = str("A Fox, in the SNOW --ar 4:5"),
                 .state = MJ_FAILED,
                 .mode = MJ_RELAXED,
                 .timeout = 600,
                 .user_id = str("u1"),
                 .key = str("k1"),
                 .account = str("asked"),
                 .created_at = 1,
                 .nattempts = 1};
    mj_buf b = {0};
    bool is;

    CHECK_INT(mj_task_encode(&t, &b), 0);
    is = mj_filter_matches(&f, (mj_str){(const char *)b.p, (uint32_t)b.n});
    mj_buf_free(&b);
    return is;
}

TEST("an empty filter takes every record, also one that can't be read")
{
    CHECK(matches((mj_filter){0}));
    CHECK(!mj_filter_is_set(&(mj_filter){0}));
    CHECK(mj_filter_matches(&(mj_filter){0}, str("no record")));
    CHECK(!mj_filter_matches(&(mj_filter){.user_id = str("u1")}, str("no record")));
}

TEST("each field has to hold")
{
    mj_filter all = {.states = 1u << MJ_FAILED | 1u << MJ_LOST,
                     .has_mode = true,
                     .mode = MJ_RELAXED,
                     .account = str("asked"),
                     .user_id = str("u1"),
                     .key = str("k1"),
                     .text = str("fox")};

    CHECK(matches(all));
    for (int i = 0; i < 6; i++) {
        mj_filter f = all;
        switch (i) {
        case 0:
            f.states = 1u << MJ_LOST;
            break;
        case 1:
            f.mode = MJ_FAST;
            break;
        case 2:
            f.account = str("other");
            break;
        case 3:
            f.user_id = str("u");
            break;
        case 4:
            f.key = str("k11");
            break;
        default:
            f.text = str("wolf");
            break;
        }
        CHECK(!matches(f));
    }
}

TEST("a text matches anywhere in the prompt, ASCII letters in either case")
{
    CHECK(matches((mj_filter){.text = str("A FOX,")}));
    CHECK(matches((mj_filter){.text = str("--ar 4:5")}));
    CHECK(matches((mj_filter){.text = str("a fox, in the snow --AR 4:5")}));
    CHECK(!matches((mj_filter){.text = str("a fox, in the snow --ar 4:5.")}));
    CHECK(!matches((mj_filter){.text = str("snow-")}));
    CHECK(!matches((mj_filter){.text = {"fox\0", 4}}));
}
