/* What is on disk already: records of every version, and the meaning of their numbers. */
#include "task_help.h"

/* Written by the first 0.1.0.  Every later version has to read it like this: never change it. */
static const char golden_v1[] =
    "01303132333435363738396162636465660601030ad80409ac020301020480a080e7b16782a080e7b16784a080e7b167"
    "86a080e7b16788a080e7b1678aa080e7b1678ca080e7b16780f0b252046d61696e056120666f780661732d72756e0275"
    "310b7b226f72646572223a377d056b65792d3704677269640a7b2277223a313032347d0870726f76696465720c62616e"
    "6e656420776f72647366696e6765727072696e742d31362d62020130013102048ea080e7b16700056f74686572008390"
    "a080e7b167d08eeee7b167046d61696e02025431025432626f6f742d69642d31362d6279746573fcffffff0ee724959a"
    "ef3a0902000001010000000000cf0fa09c0107020d0202660c62616e6e656420776f726473";

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t n = 0;
    unsigned v;

    for (; *hex; hex += 2) {
        CHECK_INT(sscanf(hex, "%2x", &v), 1);
        out[n++] = (uint8_t)v;
    }
    return n;
}

static void golden_task(mj_task *t)
{
    mj_str text = {"grid 0 1 as-run {\"order\":7} {\"w\":1024} key-7 u1 main other T1 T2 banned words provider a fox",
                   92};
#define PART(from, n) ((mj_str){text.p + (from), (n)})
    *t = (mj_task){.state = MJ_LOST,
                   .mode = MJ_RELAXED,
                   .source = MJ_FROM_POLL,
                   .late = true,
                   .has_owner = true,
                   .timeout = 600,
                   .priority = -5,
                   .polls = 300,
                   .absent = 3,
                   .hints = 1,
                   .tries = 2,
                   .event_seq = 4,
                   .created_at = 1776211200000,
                   .updated_at = 1776211200001,
                   .finished_at = 1776211200002,
                   .due_at = 1776211200003,
                   .expires_at = 1776211200004,
                   .absent_since = 1776211200005,
                   .asked_at = 1776211200006,
                   .silent_ms = 86400000,
                   .account = PART(48, 4),
                   .prompt = PART(87, 5),
                   .mj_prompt = PART(9, 6),
                   .user_id = PART(45, 2),
                   .context = PART(16, 11),
                   .key = PART(39, 5),
                   .image = PART(0, 4),
                   .meta = PART(28, 10),
                   .error_code = PART(78, 8),
                   .error = PART(65, 12),
                   .nimages = 2,
                   .images = {{.tail = PART(5, 1)}, {.tail = PART(7, 1)}},
                   .nattempts = 2,
                   .forgotten = 9,
                   .ntimeline = 2};
    memcpy(t->ref, "0123456789abcdef", 16);
    memcpy(t->fingerprint, "fingerprint-16-b", 16);
    memcpy(t->owner.boot, "boot-id-16-bytes", 16);
    t->owner.pidns = 4026531836;
    t->owner.pid = 4711;
    t->owner.started = 123456789;
    t->attempts[0] = (mj_attempt){.status = MJ_ATTEMPT_REFUSED, .submitted_at = 1776211200007, .account = PART(53, 5)};
    t->attempts[1] = (mj_attempt){.status = MJ_ATTEMPT_ACCEPTED,
                                  .slot = true,
                                  .submitted_at = 1776211200008,
                                  .slot_until = 1776212100008,
                                  .account = PART(48, 4),
                                  .nids = 2,
                                  .ids = {PART(59, 2), PART(62, 2)}};
    t->timeline[0] = (mj_timeline_entry){.at = 1776211200000,
                                         .until = 1776211200000,
                                         .count = 1,
                                         .attempt = 1,
                                         .signal = 0,
                                         .result = MJ_RESULT_TAKEN,
                                         .source = MJ_FROM_USER,
                                         .from = MJ_QUEUED,
                                         .to = MJ_QUEUED};
    t->timeline[1] = (mj_timeline_entry){.at = 1776211199000,
                                         .until = 1776211209000,
                                         .count = 7,
                                         .attempt = 2,
                                         .signal = 13,
                                         .result = MJ_RESULT_CONTRADICTION,
                                         .source = MJ_FROM_CALLBACK,
                                         .from = MJ_LOST,
                                         .to = MJ_LOST,
                                         .reason = PART(65, 12)};
}

TEST("a record of version 1 is read as it was meant")
{
    static mj_task want, got;
    uint8_t bytes[1024];
    size_t n = from_hex(golden_v1, bytes);

    golden_task(&want);
    CHECK_INT(mj_task_decode(bytes, n, &got), MJ_OK);
    check_same(&want, &got);
}

/* Version 2: version 1, and called_at (here 1776211200003) at the end. */
static size_t golden_v2(uint8_t *out)
{
    size_t n = from_hex(golden_v1, out);

    out[0] = 2;
    return n + from_hex("86a080e7b167", out + n);
}

TEST("a record of version 2 is read as it was meant")
{
    static mj_task want, got;
    uint8_t bytes[1024];
    size_t n = golden_v2(bytes);

    golden_task(&want);
    want.called_at = 1776211200003;
    CHECK_INT(mj_task_decode(bytes, n, &got), MJ_OK);
    check_same(&want, &got);
    CHECK_INT(got.called_at, want.called_at);
}

/* Version 3: version 2, and files (here [1]) at the end. */
static size_t golden_v3(uint8_t *out)
{
    size_t n = golden_v2(out);

    out[0] = 3;
    return n + from_hex("035b315d", out + n);
}

TEST("a record of version 3 is read as it was meant")
{
    static mj_task want, got;
    uint8_t bytes[1024];
    size_t n = golden_v3(bytes);

    golden_task(&want);
    want.called_at = 1776211200003;
    CHECK_INT(mj_task_decode(bytes, n, &got), MJ_OK);
    check_same(&want, &got);
    CHECK_INT(got.called_at, want.called_at);
    CHECK_INT(got.files.n, 3);
    CHECK_MEM(got.files.p, "[1]", 3);
}

/* Version 4: version 3, with a number before each image: how many bytes its URL shares with the one of the grid, or
 * without a grid with the first image's.  And a flag (32) for an mj_prompt that is the prompt, and is stored as empty.
 */
static const char golden_v4[] =
    "04303132333435363738396162636465660601032ad80409ac020301020480a080e7b16782a080e7b16784a080e7b167"
    "86a080e7b16788a080e7b1678aa080e7b1678ca080e7b16780f0b252046d61696e056120666f7800027531"
    "0b7b226f72646572223a377d056b65792d3704677269640a7b2277223a313032347d0870726f76696465720c62616e"
    "6e656420776f72647366696e6765727072696e742d31362d62020301300001310"
    "2048ea080e7b16700056f74686572008390"
    "a080e7b167d08eeee7b167046d61696e02025431025432626f6f742d69642d31362d6279746573fcffffff0ee724959a"
    "ef3a0902000001010000000000cf0fa09c0107020d0202660c62616e6e656420776f726473"
    "86a080e7b167035b315d";

static void golden_task_v4(mj_task *t)
{
    golden_task(t);
    t->mj_prompt = t->prompt;
    t->images[0].tail = MJ_LIT("gri0");
    t->called_at = 1776211200003;
    t->files = MJ_LIT("[1]");
}

TEST("a record of version 4 is read as it was meant")
{
    static mj_task want, got;
    uint8_t bytes[1024];
    size_t n = from_hex(golden_v4, bytes);

    golden_task_v4(&want);
    CHECK_INT(mj_task_decode(bytes, n, &got), MJ_OK);
    check_same(&want, &got);
    CHECK_INT(got.called_at, want.called_at);
    CHECK(mj_str_eq(got.files, want.files));
}

TEST("what version 4 adds means nothing in a record of version 3")
{
    static mj_task want, got;
    uint8_t bytes[1024];
    size_t n = golden_v3(bytes);

    golden_task(&want);
    bytes[20] |= 32;
    CHECK_INT(mj_task_decode(bytes, n, &got), MJ_OK);
    CHECK(mj_str_eq(want.mj_prompt, got.mj_prompt));
}

TEST("the newest version is what is written; while that is 4, byte for byte")
{
    static mj_task t;
    uint8_t bytes[1024];
    size_t n = from_hex(golden_v4, bytes);
    mj_buf b;

    golden_task_v4(&t);
    b = encoded(&t);
    CHECK_INT(b.n, n);
    CHECK_MEM(b.p, bytes, n);
    mj_buf_free(&b);
}

TEST("numbers on disk keep their meaning: states, attempt statuses, sources, signals, results")
{
    /* By position: a name that moves would change what every stored record says. */
    const char *const states[] = {"queued",    "submitting", "ambiguous", "pending",
                                  "succeeded", "failed",     "lost",      "cancelled"};
    const char *const words[] = {"unsent", "submitting", "ambiguous", "accepted", "refused", "succeeded", "failed"};
    const char *const sources[] = {"user", "submit", "callback", "poll", "sweep", "policy"};
    const char *const signals[] = {"create",   "ready",      "claim",      "accepted", "not_sent",  "refused",
                                   "rejected", "maybe_sent", "owner_dead", "running",  "succeeded", "hint",
                                   "failed",   "absent",     "unanswered", "look",     "give_up",   "resubmit",
                                   "wait",     "cancel",     "slot_end",   "kept"};
    const char *const notes[] = {"taken", "duplicate", "contradiction", "conflict", "stale", "old_attempt"};

    for (unsigned i = 0; i < 8; i++)
        CHECK_STR(mj_state_name((mj_state)i), states[i]);
    for (unsigned i = 0; i < 7; i++)
        CHECK_STR(mj_attempt_status_name((mj_attempt_status)i), words[i]);
    for (unsigned i = 0; i < 6; i++)
        CHECK_STR(mj_source_name((mj_source)i), sources[i]);
    for (unsigned i = 0; i < 22; i++)
        CHECK_STR(mj_signal_name(i), signals[i]);
    for (unsigned i = 0; i < 6; i++)
        CHECK_STR(mj_result_name(i), notes[i]);
}
