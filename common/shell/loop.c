/* SHELL. The loop on libev (epoll). Where the pieces of a turn hang:
 *
 *   ev_check, highest priority   right after the wake-up: both clocks are read, once
 *   ev_io, ev_timer, ev_signal   the batch of events
 *   ev_prepare                   right before the sleep: `turn`, then every source
 *   ev_idle                      running = the next poll does not block
 *
 * A source that did anything may have given the core something to do, so the loop comes round once
 * more without sleeping and the next `turn` sends it; only a turn without work sleeps. */
#include "common/shell/loop.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "common/mem.h"

struct loop_source {
    bool (*pending)(void *ctx);
    void *ctx;
    struct loop_source *next;
};

struct loop {
    struct ev_loop *ev;
    struct loop_handler handler;
    struct tick now;
    int64_t armed_ns; /* deadline that `timer` is set to; TICK_NEVER: stopped */
    bool terminating;
    ev_prepare prepare;
    ev_check check;
    ev_idle idle;
    ev_timer timer;
    ev_signal term, interrupt, hangup;
    struct loop_source *sources; /* owned, in order of registration */
};

static int64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    STOA_ASSERT(clock_gettime(id, &ts) == 0);
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

struct tick clock_now(void)
{
    return (struct tick){.mono_ns = clock_ns(CLOCK_MONOTONIC),
                         .wall_ms = clock_ns(CLOCK_REALTIME) / NS_PER_MS};
}

static void on_check(struct ev_loop *ev, ev_check *w, int events)
{
    (void)ev;
    (void)events;
    struct loop *l = w->data;
    l->now = clock_now();
}

static void deadline_arm(struct loop *l, int64_t deadline_ns)
{
    if (deadline_ns == l->armed_ns && (deadline_ns == TICK_NEVER || ev_is_active(&l->timer)))
        return;
    ev_timer_stop(l->ev, &l->timer);
    l->armed_ns = deadline_ns;
    if (deadline_ns == TICK_NEVER)
        return;
    double seconds = (double)(deadline_ns - l->now.mono_ns) / (double)NS_PER_S;
    ev_timer_set(&l->timer, seconds, 0.);
    ev_timer_start(l->ev, &l->timer);
}

static void on_prepare(struct ev_loop *ev, ev_prepare *w, int events)
{
    (void)events;
    struct loop *l = w->data;
    int64_t deadline = l->handler.turn(l->handler.ctx, l->now);
    bool more = deadline <= l->now.mono_ns;
    for (struct loop_source *s = l->sources, *next; s; s = next) {
        next = s->next;
        more |= s->pending(s->ctx);
    }
    if (more) {
        ev_idle_start(ev, &l->idle);
        return;
    }
    ev_idle_stop(ev, &l->idle);
    deadline_arm(l, deadline);
}

/* The timer and the idle watcher only end the sleep; the work is done in on_prepare. */
static void on_timer(struct ev_loop *ev, ev_timer *w, int events)
{
    (void)ev;
    (void)w;
    (void)events;
}

static void on_idle(struct ev_loop *ev, ev_idle *w, int events)
{
    (void)ev;
    (void)w;
    (void)events;
}

static void on_term(struct ev_loop *ev, ev_signal *w, int events)
{
    (void)ev;
    (void)events;
    struct loop *l = w->data;
    if (l->terminating)
        _exit(1);
    l->terminating = true;
    l->handler.on_term(l->handler.ctx, l->now);
}

static void on_hangup(struct ev_loop *ev, ev_signal *w, int events)
{
    (void)ev;
    (void)events;
    struct loop *l = w->data;
    if (l->handler.on_reload)
        l->handler.on_reload(l->handler.ctx, l->now);
}

static void signals_start(struct loop *l)
{
    /* A write to a peer that has closed is an error code, not the end of the process. */
    STOA_ASSERT(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    ev_signal_init(&l->term, on_term, SIGTERM);
    ev_signal_init(&l->interrupt, on_term, SIGINT);
    ev_signal_init(&l->hangup, on_hangup, SIGHUP);
    l->term.data = l->interrupt.data = l->hangup.data = l;
    ev_signal_start(l->ev, &l->term);
    ev_signal_start(l->ev, &l->interrupt);
    ev_signal_start(l->ev, &l->hangup);
}

struct loop *loop_create(const struct loop_handler *handler)
{
    STOA_ASSERT(handler->turn && handler->on_term);
    struct loop *l = mem_zalloc(sizeof *l);
    l->handler = *handler;
    l->ev = ev_loop_new(EVFLAG_NOENV | EVBACKEND_EPOLL);
    STOA_ASSERT(l->ev);
    l->now = clock_now();
    l->armed_ns = TICK_NEVER;
    ev_prepare_init(&l->prepare, on_prepare);
    ev_check_init(&l->check, on_check);
    ev_set_priority(&l->check, EV_MAXPRI);
    ev_idle_init(&l->idle, on_idle);
    ev_timer_init(&l->timer, on_timer, 0., 0.);
    l->prepare.data = l->check.data = l;
    ev_prepare_start(l->ev, &l->prepare);
    ev_check_start(l->ev, &l->check);
    signals_start(l);
    return l;
}

void loop_destroy(struct loop **loop)
{
    struct loop *l = *loop;
    if (!l)
        return;
    *loop = NULL;
    ev_signal_stop(l->ev, &l->term);
    ev_signal_stop(l->ev, &l->interrupt);
    ev_signal_stop(l->ev, &l->hangup);
    ev_prepare_stop(l->ev, &l->prepare);
    ev_check_stop(l->ev, &l->check);
    ev_idle_stop(l->ev, &l->idle);
    ev_timer_stop(l->ev, &l->timer);
    ev_loop_destroy(l->ev);
    for (struct loop_source *s = l->sources, *next; s; s = next) {
        next = s->next;
        mem_free(s);
    }
    mem_free(l);
}

struct ev_loop *loop_ev(struct loop *l)
{
    return l->ev;
}

struct tick loop_now(const struct loop *l)
{
    return l->now;
}

void loop_add_source(struct loop *l, bool (*pending)(void *ctx), void *ctx)
{
    struct loop_source *s = mem_zalloc(sizeof *s);
    *s = (struct loop_source){.pending = pending, .ctx = ctx};
    struct loop_source **end = &l->sources;
    while (*end)
        end = &(*end)->next;
    *end = s;
}

void loop_remove_source(struct loop *l, bool (*pending)(void *ctx), void *ctx)
{
    for (struct loop_source **at = &l->sources; *at; at = &(*at)->next) {
        struct loop_source *s = *at;
        if (s->pending == pending && s->ctx == ctx) {
            *at = s->next;
            mem_free(s);
            return;
        }
    }
}

void loop_run(struct loop *l)
{
    l->now = clock_now();
    ev_now_update(l->ev);
    ev_run(l->ev, 0);
}

void loop_stop(struct loop *l)
{
    ev_break(l->ev, EVBREAK_ALL);
}
