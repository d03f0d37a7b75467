#include "domain/schedule.h"

enum { RETRY_CAP_MS = 900000 }; /* n^4 seconds between submissions, at most 15 minutes */

/* `ms` plus or minus up to `percent`.  The number is drawn from the ref: the same input gives the same schedule, and a
 * thousand tasks are spread. */
static int64_t jitter(const mj_task *t, uint32_t salt, int64_t ms, int64_t percent)
{
    uint64_t h = 0xcbf29ce484222325u ^ salt; /* FNV-1a, 64 bit: offset basis and prime below */

    for (size_t i = 0; i < sizeof t->ref; i++)
        h = (h ^ t->ref[i]) * 0x100000001b3u;
    h ^= h >> 33;
    return ms + ms * percent / 100 * ((int64_t)(h % 2001) - 1000) / 1000;
}

int64_t mj_earlier(int64_t a, int64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* The whole second next to `at`, towards `middle` but not past it.  Tasks of one age are then neighbours in the due
 * index, and a batch of callbacks changes a few of its pages instead of one each. */
static int64_t whole_second(int64_t middle, int64_t at)
{
    int64_t down = at / 1000 * 1000, up = (at + 999) / 1000 * 1000;

    return at < middle ? (up < middle ? up : middle) : (down > middle ? down : middle);
}

/* When a callback last gave a reason to poll the current attempt: it told of an end that was not believed yet, or
 * could not be read.  0: never. */
static int64_t hinted_at(const mj_task *t)
{
    for (uint32_t i = t->ntimeline; i > 0; i--) {
        const mj_timeline_entry *m = &t->timeline[i - 1];
        if (m->source == MJ_FROM_CALLBACK && (m->signal == SIG_LOOK || m->signal == SIG_HINT) &&
            m->attempt == t->nattempts)
            return m->until;
    }
    return 0;
}

/* Whether there was such a reason since the last poll. */
bool mj_schedule_hinted(const mj_task *t)
{
    int64_t at = hinted_at(t);

    return at != 0 && at >= t->asked_at;
}

/* What a callback told is probably true, and the provider's status will soon say so: poll again after the time that
 * has passed since the callback, at least after ten seconds.  `ms` is the wait without such a callback. */
static int64_t soon_after_hint(const mj_task *t, int64_t ms, int64_t now)
{
    int64_t at = hinted_at(t), since = now - at;

    if (at == 0)
        return ms;
    since = since > MJ_LOOK_GAP_MS ? since : MJ_LOOK_GAP_MS;
    return since < ms ? since : ms;
}

/* Without callbacks a quarter of the time that the job has taken so far, so that its end is learned of at most so much
 * late, whether jobs take seconds or minutes. */
static int64_t quarter(const mj_task *t, int64_t now)
{
    enum { LEAST_MS = 5000 };
    int64_t begun = t->nattempts ? t->attempts[t->nattempts - 1].submitted_at : now;
    int64_t ms = (now - begun) / 4;

    return ms > LEAST_MS ? ms : LEAST_MS;
}

/* Doubling from when a callback is late, unless the policy named its own wait.  The first wait is exact: submissions
 * are spread by themselves, and callbacks then find their due entries side by side.  Later ones are give or take 20 %;
 * and give or take half without an answer, so that an outage does not leave a crowd behind. */
int64_t mj_schedule_poll(const mj_task *t, const mj_signal *sig, const mj_rules *rules, int64_t now)
{
    int64_t ms = rules->first_ms[t->mode] ? rules->first_ms[t->mode] : rules->poll_first_ms;
    bool outage = sig->kind == SIG_UNANSWERED;

    if (sig->wait_ms >= 0)
        return now + sig->wait_ms;
    if (t->polls == 0 && !outage)
        return now + soon_after_hint(t, ms, now);
    if (rules->polled)
        ms = quarter(t, now);
    for (uint32_t i = 0; !rules->polled && i < t->polls && ms < rules->poll_max_ms; i++)
        ms *= 2;
    ms = soon_after_hint(t, ms < rules->poll_max_ms ? ms : rules->poll_max_ms, now);
    return whole_second(now + ms, now + jitter(t, outage ? (uint32_t)now : t->polls, ms, outage ? 50 : 20));
}

int64_t mj_schedule_look(const mj_task *t, int64_t now)
{
    int64_t soonest = t->asked_at + MJ_LOOK_GAP_MS;
    int64_t at = soonest > now && soonest <= now + MJ_LOOK_GAP_MS ? soonest : now;
    return mj_earlier(t->due_at, at);
}

int64_t mj_schedule_retry(const mj_task *t)
{
    int64_t n = t->tries < 6 ? t->tries : 6; /* 6^4 s is beyond the cap */
    int64_t ms = n * n * n * n * 1000;

    return jitter(t, t->tries, ms < RETRY_CAP_MS ? ms : RETRY_CAP_MS, 10);
}

mj_due mj_state_due(const mj_task *t)
{
    if (t->due_at == 0)
        return MJ_DUE_NONE;
    switch (t->state) {
    case MJ_QUEUED:
        return MJ_DUE_QUEUE;
    case MJ_SUBMITTING:
        return MJ_DUE_OWNER;
    case MJ_AMBIGUOUS:
        return MJ_DUE_RESOLVE;
    default:
        return MJ_DUE_POLL;
    }
}
