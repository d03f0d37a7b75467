/* mj_provider: what belongs to one provider alone: addresses, names, numbers and status words (PROVIDER.md).
 *
 * Data only.  The reader takes a profile, and Lua sees it as core.provider: another provider is another table. */
#ifndef MJ_PROFILE_H
#define MJ_PROFILE_H

#include "base/names.h"
#include "domain/task.h"

/* The members that are read, of envelopes and of task objects.  The second name is Lua's. */
#define MJ_FIELDS(X)                                                                                                   \
    X(MJ_F_TASK_ID, "task_id")                                                                                         \
    X(MJ_F_JOB_ID, "job_id") /* if there is no task_id */                                                              \
    X(MJ_F_STATUS, "status")                                                                                           \
    X(MJ_F_DATA, "data")                                                                                               \
    X(MJ_F_IMAGE, "image")                                                                                             \
    X(MJ_F_CDN_IMAGE, "cdn_image") /* if there is no image */                                                          \
    X(MJ_F_IMAGES, "images")                                                                                           \
    X(MJ_F_MJ_PROMPT, "mj_prompt")                                                                                     \
    X(MJ_F_PROMPT, "prompt")                                                                                           \
    X(MJ_F_FAIL_REASON, "fail_reason")                                                                                 \
    X(MJ_F_MESSAGE, "message")                                                                                         \
    X(MJ_F_ERROR, "error")                                                                                             \
    X(MJ_F_META, "meta")

enum { MJ_FIELDS(MJ_SYMBOL) MJ_F_COUNT };

/* A status word, in lower case.  `envelope`: beside a task it is not the task's status, but the envelope's, as in
 * JSend. */
typedef struct mj_status_word {
    mj_str word;
    int64_t status;
    bool envelope;
} mj_status_word;

typedef struct mj_provider {
    const char *name, *base_url;
    struct {
        const char *submit, *status;
    } path;
    const char *key_header;
    struct {
        const char *api_key, *base_url, *hook_url;
    } environment; /* variables that its users may have set already */
    struct {
        const char *prompt, *mode, *timeout, *hook_url, *task_ids;
    } request; /* members of requests */
    const char *mode[MJ_NMODES];
    struct {
        int least, most, usual;
    } timeout;                /* seconds */
    int jobs;                 /* unfinished jobs that an account may have */
    mj_str field[MJ_F_COUNT]; /* members of answers */
    mj_str url;               /* member of an image that is an object */
    mj_str code;              /* member of an error that is an object */
    struct {
        int64_t running, succeeded, failed;
    } status; /* of a task; an unknown number or word means that the task still runs */
    const mj_status_word *words;
    size_t nwords;
    struct {
        int64_t ok, quota, concurrency;
    } envelope; /* status of the envelope; another number is an error, which the message explains */
} mj_provider;

/* https://api.midjourney-api.com */
extern const mj_provider mj_midjourney;

#endif
