/* SHELL. One turn of the library's loop: wait, take what callers submitted, receive, let the
 * publisher act, hand outcomes on. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "client/stoa_internal.h"

struct tick tick_now(void)
{
    struct timespec mono, wall;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_REALTIME, &wall);
    return (struct tick){.mono_ns = mono.tv_sec * NS_PER_S + mono.tv_nsec,
                         .wall_ms = wall.tv_sec * INT64_C(1000) + wall.tv_nsec / NS_PER_MS};
}

/* ---- descriptors ---- */

static void fd_raise(int fd, bool *raised)
{
    if (*raised)
        return;
    uint64_t one = 1;
    STOA_ASSERT(write(fd, &one, sizeof one) == sizeof one);
    *raised = true;
}

static void fd_lower(int fd, bool *raised)
{
    if (!*raised)
        return;
    uint64_t count;
    STOA_ASSERT(read(fd, &count, sizeof count) == sizeof count);
    *raised = false;
}

void turn_wake(struct stoa *s)
{
    fd_raise(s->wake_fd, &s->woken);
}

static void timer_arm(struct stoa *s, int64_t due)
{
    int64_t redial = transport_deadline(s->transport);
    if (redial < due)
        due = redial;
    if (due == s->armed_ns)
        return;
    s->armed_ns = due;
    struct itimerspec at = {0};
    if (due != TICK_NEVER) {
        at.it_value.tv_sec = due / NS_PER_S;
        at.it_value.tv_nsec = due % NS_PER_S;
    }
    STOA_ASSERT(timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &at, NULL) == 0);
}

/* An expired timer stays readable until it is set anew. */
static void timer_expire(struct stoa *s, struct tick now)
{
    if (s->armed_ns <= now.mono_ns)
        s->armed_ns = INT64_MIN;
}

/* ---- waiters ---- */

void waiter_begin(struct stoa *s, struct waiter *w)
{
    pthread_condattr_t monotonic;
    (void)s;
    *w = (struct waiter){0};
    list_init(&w->node);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    STOA_ASSERT(pthread_cond_init(&w->cond, &monotonic) == 0);
    pthread_condattr_destroy(&monotonic);
}

void waiter_end(struct stoa *s, struct waiter *w)
{
    (void)s;
    list_remove(&w->node);
    pthread_cond_destroy(&w->cond);
}

void waiter_wait(struct stoa *s, struct waiter *w, int64_t until_ns)
{
    if (until_ns == TICK_NEVER) {
        pthread_cond_wait(&w->cond, &s->lock);
        return;
    }
    struct timespec until = {.tv_sec = until_ns / NS_PER_S, .tv_nsec = until_ns % NS_PER_S};
    (void)pthread_cond_timedwait(&w->cond, &s->lock, &until);
}

void turn_release(struct stoa *s)
{
    s->driven = false;
    if (s->poller)
        pthread_cond_signal(&s->poller->cond);
    else if (!list_empty(&s->waiters))
        pthread_cond_signal(&LIST_ENTRY(s->waiters.next, struct waiter, node)->cond);
}

/* ---- outcomes ---- */

static void release_queue(struct stoa *s, const struct publish *p)
{
    s->queued_events -= p->n_parts;
    s->queued_bytes -= p->bytes;
}

static void outcome(struct stoa *s, struct publish *p, struct list *garbage)
{
    struct waiter *w = p->waiter;
    if (p->fn) {
        list_push_back(&s->reported, &p->node);
        return;
    }
    if (w) {
        w->done = true;
        w->status = p->status;
        w->id = p->id;
        list_remove(&w->node);
        pthread_cond_signal(&w->cond);
    }
    release_queue(s, p);
    list_push_back(garbage, &p->node);
}

static void outcomes(struct stoa *s, bool pending)
{
    struct list *done = publisher_done(s->publisher), garbage;
    list_init(&garbage);
    pthread_mutex_lock(&s->lock);
    while (!list_empty(done)) {
        struct publish *p = LIST_ENTRY(done->next, struct publish, node);
        list_remove(&p->node);
        outcome(s, p, &garbage);
    }
    if (!list_empty(&s->reported)) {
        fd_raise(s->report_fd, &s->told);
        if (s->poller)
            pthread_cond_signal(&s->poller->cond);
    }
    if (pending)
        turn_wake(s);
    pthread_mutex_unlock(&s->lock);
    while (!list_empty(&garbage)) {
        struct publish *p = LIST_ENTRY(garbage.next, struct publish, node);
        list_remove(&p->node);
        publish_destroy(p);
    }
}

int turn_report(struct stoa *s)
{
    int count = 0;
    struct list taken;
    list_init(&taken);
    pthread_mutex_lock(&s->lock);
    fd_lower(s->report_fd, &s->told);
    while (!list_empty(&s->reported)) {
        struct publish *p = LIST_ENTRY(s->reported.next, struct publish, node);
        list_remove(&p->node);
        release_queue(s, p);
        list_push_back(&taken, &p->node);
    }
    pthread_mutex_unlock(&s->lock);
    s->calling = true;
    while (!list_empty(&taken)) {
        struct publish *p = LIST_ENTRY(taken.next, struct publish, node);
        list_remove(&p->node);
        p->fn(p->arg, p->status, p->status == STOA_OK ? &p->id : NULL);
        publish_destroy(p);
        count++;
    }
    s->calling = false;
    return count;
}

/* ---- the turn ---- */

static void wait_for_work(const struct stoa *s, int wait_ms)
{
    struct epoll_event events[8];
    if (wait_ms != 0)
        (void)epoll_wait(s->epoll, events, 8, wait_ms);
}

static void take_intake(struct stoa *s, struct tick now)
{
    struct list taken;
    list_init(&taken);
    pthread_mutex_lock(&s->lock);
    fd_lower(s->wake_fd, &s->woken);
    if (!list_empty(&s->intake)) { /* the whole chain at once */
        taken = s->intake;
        taken.next->prev = taken.prev->next = &taken;
        list_init(&s->intake);
    }
    pthread_mutex_unlock(&s->lock);
    while (!list_empty(&taken)) {
        struct publish *p = LIST_ENTRY(taken.next, struct publish, node);
        list_remove(&p->node);
        publisher_submit(s->publisher, p, now);
    }
}

void turn(struct stoa *s, int wait_ms)
{
    wait_for_work(s, wait_ms);
    struct tick now = tick_now();
    timer_expire(s, now);
    take_intake(s, now);
    transport_receive(s->transport, now);
    publisher_turn(s->publisher, now);
    timer_arm(s, publisher_deadline(s->publisher));
    outcomes(s, transport_pending(s->transport));
}
