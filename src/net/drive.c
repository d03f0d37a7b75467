/* What goes on: in the thread that waits, or between two waits in a thread of the client's own. */
#include "base/fault.h"
#include "net/http_impl.h"

#include <signal.h>
#include <time.h>

enum { POLL_MS = 1000 }; /* only a bound: curl_multi_poll also wakes for its own timers */

bool mj_http_make_locks(mj_http *h)
{
    pthread_condattr_t clock;
    bool ok;

    if (pthread_condattr_init(&clock) != 0)
        return false;
    ok = pthread_condattr_setclock(&clock, CLOCK_MONOTONIC) == 0 && pthread_cond_init(&h->news, &clock) == 0 &&
         pthread_mutex_init(&h->lock, NULL) == 0;
    pthread_condattr_destroy(&clock);
    return ok;
}

/* ---- what waits, and what has ended: with the lock ---- */

static bool is_enough(const mj_http *h, size_t low)
{
    return h->under_way == 0 || (h->ended > 0 && (h->urgent || h->waiting <= low));
}

/* Takes *at out of those that wait. */
static mj_http_call *take_out(mj_http *h, mj_http_call **at)
{
    mj_http_call *c = *at;

    *at = c->next;
    if (!*at)
        h->last = at;
    h->waiting--;
    return c;
}

static void note_ended(mj_http *h, mj_http_call *c)
{
    h->under_way--;
    if (h->ended++ == 0)
        h->ended_at = mj_http_clock();
    c->ended = true;
}

/* Those that ask whether an answer is fine heed the others' answers, too. */
static void withdraw(mj_http *h)
{
    h->urgent = true;
    for (mj_http_call **at = &h->first; *at;) {
        mj_http_call *c = *at;
        MJ_FAULT("http.withdraw");
        if (c->req.is_fine) {
            c->answer.withdrawn = true;
            note_ended(h, take_out(h, at));
        } else {
            at = &c->next;
        }
    }
}

/* ---- the same, from outside ---- */

static void wake(mj_http *h)
{
    if (h->driven && !h->woken) {
        h->woken = true;
        mj_curl->multi_wakeup(h->multi);
    }
}

void mj_http_append(mj_http *h, mj_http_call *c)
{
    pthread_mutex_lock(&h->lock);
    MJ_FAULT("http.start");
    *h->last = c;
    h->last = &c->next;
    h->waiting++;
    h->under_way++;
    if (h->urgent)
        withdraw(h);
    else if (h->flying < h->o.connections)
        wake(h);
    pthread_mutex_unlock(&h->lock);
}

bool mj_http_end_waiting(mj_http *h, mj_http_call *c, const char *why)
{
    mj_http_call **at = &h->first;
    bool found;

    pthread_mutex_lock(&h->lock);
    while (*at && *at != c)
        at = &(*at)->next;
    found = *at != NULL;
    if (found) {
        take_out(h, at);
        mj_http_failed(&c->answer, MJ_HTTP_NOT_SENT, c->req.url, why);
        note_ended(h, c);
    }
    pthread_mutex_unlock(&h->lock);
    return found;
}

void mj_http_withdraw_all(mj_http *h)
{
    pthread_mutex_lock(&h->lock);
    withdraw(h);
    pthread_mutex_unlock(&h->lock);
}

/* ---- for the thread that drives ---- */

/* A call that was begun has ended; its answer is complete, and its slot free. */
static void tell(mj_http *h, mj_http_call *c)
{
    bool fine = !c->req.is_fine || c->req.is_fine(&c->answer);

    pthread_mutex_lock(&h->lock);
    h->flying--;
    note_ended(h, c);
    if (!fine)
        withdraw(h);
    if (h->driven && (h->ended == 1 || is_enough(h, h->low))) /* the first one: from now on its rest counts */
        pthread_cond_signal(&h->news);
    pthread_mutex_unlock(&h->lock);
}

void mj_http_end(mj_http *h, transfer *t, CURLcode result, const char *cut)
{
    mj_http_call *c = t->call;

    mj_http_finish(h, t, result, cut);
    tell(h, c);
}

/* A slot with the next call that waits; NULL: none waits, or no slot is free. */
static transfer *next_call(mj_http *h)
{
    transfer *t = NULL;

    pthread_mutex_lock(&h->lock);
    h->woken = false;
    if (h->first && h->flying < h->o.connections) {
        for (t = h->slots; t->call; t++)
            continue;
        t->call = take_out(h, &h->first);
        h->flying++;
    }
    pthread_mutex_unlock(&h->lock);
    return t;
}

/* Gives how many have begun, and adds to *ended how many of them have ended, since they can't be made. */
static size_t begin(mj_http *h, size_t *ended)
{
    size_t begun = 0;
    transfer *t;

    for (; (t = next_call(h)) != NULL; begun++) {
        mj_http_call *c = t->call;
        if (!mj_http_begin(h, t, c)) {
            tell(h, c);
            ++*ended;
        }
    }
    return begun;
}

static size_t collect(mj_http *h)
{
    size_t ended = 0;
    CURLcode result;
    transfer *t;

    for (; (t = mj_curl_ended(h->multi, &result)) != NULL; ended++)
        mj_http_end(h, t, result, NULL);
    return ended;
}

/* A request that may not be begun any more does not wait for its connection. */
static size_t cut_late(mj_http *h)
{
    int64_t now = mj_http_clock();
    size_t ended = 0;

    for (int i = 0; i < h->o.connections; i++) {
        transfer *t = &h->slots[i];
        if (t->call && !t->begun && t->req->start_by_ms && now > t->req->start_by_ms) {
            mj_http_end(h, t, CURLE_OK, "no connection in time");
            ended++;
        }
    }
    return ended;
}

void mj_http_cut_all(mj_http *h, const char *why)
{
    mj_http_call *c;

    for (int i = 0; i < h->o.connections; i++)
        if (h->slots[i].call)
            mj_http_end(h, &h->slots[i], CURLE_OK, why);
    do {
        pthread_mutex_lock(&h->lock);
        c = h->first;
        pthread_mutex_unlock(&h->lock);
    } while (c && mj_http_end_waiting(h, c, why));
}

/* Begins what can begin and goes on with all; then sleeps, at most until `until_ms`, if nothing has ended. */
static void turn(mj_http *h, int64_t until_ms)
{
    size_t ended = 0;
    CURLMcode rc;
    int active;

    begin(h, &ended);
    do {
        rc = mj_curl->multi_perform(h->multi, &active);
        ended += collect(h) + cut_late(h);
    } while (ended > 0 && begin(h, &ended) > 0 && rc == CURLM_OK);
    if (rc == CURLM_OK && ended == 0) {
        int64_t left = until_ms - mj_http_clock();
        MJ_FAULT("http.wait"); /* first the connection is made, later the answer is awaited */
        if (left > 0)
            rc = mj_curl->multi_poll(h->multi, NULL, 0, (int)(left < POLL_MS ? left : POLL_MS), NULL);
    }
    if (rc != CURLM_OK)
        mj_http_cut_all(h, mj_curl->multi_strerror(rc));
}

static void *drive(void *arg)
{
    mj_http *h = arg;

    MJ_FAULT("http.drive");
    pthread_mutex_lock(&h->lock);
    while (h->under_way > 0 && !h->quit) {
        pthread_mutex_unlock(&h->lock);
        turn(h, INT64_MAX);
        pthread_mutex_lock(&h->lock);
    }
    h->driven = false;
    pthread_cond_signal(&h->news);
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* ---- for the caller's thread ---- */

/* Waits for the client's thread. */
static void wait_ms(mj_http *h, int64_t ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    ms = ms < POLL_MS ? ms : POLL_MS;
    t.tv_sec += (time_t)(ms / 1000);
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&h->news, &h->lock, &t);
}

void mj_http_go_on(mj_http *h, const mj_http_pause *p)
{
    bool went = false; /* what can begin has begun */

    pthread_mutex_lock(&h->lock);
    h->low = p->low;
    while (!is_enough(h, p->low)) {
        int64_t now = mj_http_clock(), until = p->until_ms;
        if (h->ended > 0 && h->ended_at + p->rest_ms < until)
            until = h->ended_at + p->rest_ms;
        if (now >= until && (went || h->driven))
            break;
        if (h->driven) {
            wait_ms(h, until - now);
        } else {
            pthread_mutex_unlock(&h->lock);
            turn(h, until);
            pthread_mutex_lock(&h->lock);
        }
        went = true;
    }
    h->ended = 0;
    h->urgent = false;
    pthread_mutex_unlock(&h->lock);
}

void mj_http_drive(mj_http *h)
{
    sigset_t all, before;

    pthread_mutex_lock(&h->lock);
    if (h->under_way > 0 && !h->driven) {
        if (h->has_thread)
            pthread_join(h->thread, NULL);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        h->driven = h->has_thread = pthread_create(&h->thread, NULL, drive, h) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_mutex_unlock(&h->lock);
}

void mj_http_come_home(mj_http *h)
{
    pthread_mutex_lock(&h->lock);
    h->quit = true;
    h->woken = false; /* woken before, it may have looked at `quit` already, and is about to sleep */
    wake(h);
    pthread_mutex_unlock(&h->lock);
    if (h->has_thread)
        pthread_join(h->thread, NULL);
    h->has_thread = h->quit = false;
}
