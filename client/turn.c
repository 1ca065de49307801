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

void fd_raise(int fd, bool *raised)
{
    if (*raised)
        return;
    uint64_t one = 1;
    STOA_ASSERT(write(fd, &one, sizeof one) == sizeof one);
    *raised = true;
}

void fd_lower(int fd, bool *raised)
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
    list_init(&w->items);
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

/* ---- the turn ---- */

static void wait_for_work(const struct stoa *s, int wait_ms)
{
    struct epoll_event events[8];
    if (wait_ms != 0)
        (void)epoll_wait(s->epoll, events, 8, wait_ms);
}

/* The whole chain at once. */
static void chain_take(struct list *from, struct list *to)
{
    list_init(to);
    if (list_empty(from))
        return;
    *to = *from;
    to->next->prev = to->prev->next = to;
    list_init(from);
}

static void take_intake(struct stoa *s, struct tick now)
{
    struct list publishes, calls;
    pthread_mutex_lock(&s->lock);
    fd_lower(s->wake_fd, &s->woken);
    chain_take(&s->intake, &publishes);
    chain_take(&s->call_intake, &calls);
    pthread_mutex_unlock(&s->lock);
    while (!list_empty(&publishes)) {
        struct publish *p = LIST_ENTRY(publishes.next, struct publish, node);
        list_remove(&p->node);
        publisher_submit(s->publisher, p, now);
    }
    while (!list_empty(&calls)) {
        struct call *c = LIST_ENTRY(calls.next, struct call, node);
        list_remove(&c->node);
        caller_submit(publisher_caller(s->publisher), c, now);
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
    report_outcomes(s, transport_pending(s->transport));
}
