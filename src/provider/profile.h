/* mj_provider: what is one provider's and no other's: addresses, names, numbers and words (PROVIDER.md).
 *
 * Data alone.  The reader is given one, and Lua sees it as core.provider: so another provider is another table. */
#ifndef MJ_PROFILE_H
#define MJ_PROFILE_H

#include "base/names.h"
#include "domain/task.h"

/* The members that are read, of an envelope and of a task object alike.  The second name is Lua's. */
#define MJ_FIELDS(X)                                                                                                   \
    X(MJ_F_TASK_ID, "task_id")                                                                                         \
    X(MJ_F_JOB_ID, "job_id") /* in the place of a task_id */                                                           \
    X(MJ_F_STATUS, "status")                                                                                           \
    X(MJ_F_DATA, "data")                                                                                               \
    X(MJ_F_IMAGE, "image")                                                                                             \
    X(MJ_F_CDN_IMAGE, "cdn_image") /* in the place of an image */                                                      \
    X(MJ_F_IMAGES, "images")                                                                                           \
    X(MJ_F_MJ_PROMPT, "mj_prompt")                                                                                     \
    X(MJ_F_PROMPT, "prompt")                                                                                           \
    X(MJ_F_FAIL_REASON, "fail_reason")                                                                                 \
    X(MJ_F_MESSAGE, "message")                                                                                         \
    X(MJ_F_ERROR, "error")                                                                                             \
    X(MJ_F_META, "meta")

enum { MJ_FIELDS(MJ_SYMBOL) MJ_F_COUNT };

/* A status as a word, in lower case.  `envelope`: beside a task it is not the task's, but what JSend calls an
 * envelope's status. */
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
    } environment; /* variables that its users have set already */
    struct {
        const char *prompt, *mode, *timeout, *hook_url, *task_ids;
    } request; /* members of what is sent */
    const char *mode[MJ_NMODES];
    struct {
        int least, most, usual;
    } timeout;                /* seconds */
    int jobs;                 /* that an account may have unfinished at a time */
    mj_str field[MJ_F_COUNT]; /* members of what is read */
    mj_str url;               /* member of an image that is an object */
    mj_str code;              /* member of an error that is an object */
    struct {
        int64_t running, succeeded, failed;
    } status; /* of a task; another number, or a word that is not listed, means that it still runs */
    const mj_status_word *words;
    size_t nwords;
    struct {
        int64_t ok, quota, concurrency;
    } envelope; /* its status; another number is an error that the message explains */
} mj_provider;

/* https://api.midjourney-api.com */
extern const mj_provider mj_midjourney;

#endif
