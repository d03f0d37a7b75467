#include "provider/profile.h"

enum { RUNNING = 0, SUCCEEDED = 1, FAILED = 2 };

static const mj_status_word words[] = {
    {MJ_LIT("success"), SUCCEEDED, false},    {MJ_LIT("succeeded"), SUCCEEDED, false},
    {MJ_LIT("successful"), SUCCEEDED, false}, {MJ_LIT("completed"), SUCCEEDED, false},
    {MJ_LIT("complete"), SUCCEEDED, false},   {MJ_LIT("finished"), SUCCEEDED, false},
    {MJ_LIT("done"), SUCCEEDED, false},       {MJ_LIT("failure"), FAILED, false},
    {MJ_LIT("failed"), FAILED, false},        {MJ_LIT("cancelled"), FAILED, false},
    {MJ_LIT("canceled"), FAILED, false},      {MJ_LIT("fail"), FAILED, true},
    {MJ_LIT("error"), FAILED, true},
};

const mj_provider mj_midjourney = {
    .name = "midjourney-api.com",
    .base_url = "https://api.midjourney-api.com",
    .path = {.submit = "/midjourney/v1/submit-jobs", .status = "/midjourney/v1/job-status"},
    .key_header = "API-KEY",
    .environment = {.api_key = "MIDJOURNEY_API_KEY",
                    .base_url = "MIDJOURNEY_API_BASE_URL",
                    .hook_url = "MIDJOURNEY_WEBHOOK_URL"},
    .request = {.prompt = "prompt", .mode = "mode", .timeout = "timeout", .hook_url = "hookUrl", .task_ids = "taskIds"},
    .mode = {[MJ_FAST] = "fast", [MJ_RELAXED] = "relaxed"},
    .timeout = {.least = 300, .most = 1200, .usual = 600},
    .jobs = 10,
    .field = {[MJ_F_TASK_ID] = MJ_LIT("taskId"),
              [MJ_F_JOB_ID] = MJ_LIT("jobId"),
              [MJ_F_STATUS] = MJ_LIT("status"),
              [MJ_F_DATA] = MJ_LIT("data"),
              [MJ_F_IMAGE] = MJ_LIT("image"),
              [MJ_F_CDN_IMAGE] = MJ_LIT("cdnImage"),
              [MJ_F_IMAGES] = MJ_LIT("images"),
              [MJ_F_MJ_PROMPT] = MJ_LIT("mjPrompt"),
              [MJ_F_PROMPT] = MJ_LIT("prompt"),
              [MJ_F_FAIL_REASON] = MJ_LIT("failReason"),
              [MJ_F_MESSAGE] = MJ_LIT("message"),
              [MJ_F_ERROR] = MJ_LIT("error"),
              [MJ_F_META] = MJ_LIT("meta")},
    .url = MJ_LIT("url"),
    .code = MJ_LIT("code"),
    .status = {.running = RUNNING, .succeeded = SUCCEEDED, .failed = FAILED},
    .words = words,
    .nwords = sizeof words / sizeof words[0],
    .envelope = {.ok = 0, .quota = 1001, .concurrency = 1002},
};
