/* SHELL. What a run does, one after the other: connect, hold, publish, drain; or publish first and
 * then time the replay. */
#include <stdio.h>
#include <sys/epoll.h>
#include <time.h>

#include "load.h"

#define TURN_NS 1000000            /* longest wait while something may have to leave */
#define STALL_NS 1000000000        /* a full window that does not move counts as new after it */
#define CLOSED_TURN_MAX 20000      /* publishes before input is looked at */
#define OUT_SMALL_BYTES (1u << 14) /* of one connection, not yet taken by the kernel */
#define OUT_LARGE_BYTES (1u << 16)
#define REPLAY_UNDER_WAY 65536
#define REPLAY_BATCH 4096
#define REPLAY_PUBLISH_S 60

static void turn(struct load *l, int64_t wait_ns)
{
    static struct epoll_event events[1024];
    wait_ns = wait_ns > 0 ? wait_ns : 0;
    const struct timespec wait = {.tv_sec = wait_ns / NS_PER_S, .tv_nsec = wait_ns % NS_PER_S};
    int n = epoll_pwait2(l->poll, events, 1024, &wait, NULL);
    for (int i = 0; i < n; i++) {
        struct link *k = (struct link *)events[i].data.ptr;
        if (k->kind == LINK_SUBSCRIBER)
            subscriber_event(l, (struct subscriber *)k, events[i].events);
        else
            publisher_event(l, (struct publisher *)k, events[i].events);
    }
}

static uint64_t ns_of(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

static double seconds_since(uint64_t ns)
{
    return (double)(now_ns() - ns) / 1e9;
}

void phase_rest(struct load *l, double seconds)
{
    const uint64_t end = now_ns() + ns_of(seconds);
    for (uint64_t now; (now = now_ns()) < end;)
        turn(l, (int64_t)(end - now));
}

void phase_connect(struct load *l)
{
    const struct options *o = &l->options;
    const uint64_t begun = now_ns();
    while (l->next_connect < o->conns || l->connecting > 0) {
        while (l->next_connect < o->conns && l->connecting < o->connecting)
            subscriber_start(l, l->next_connect++);
        turn(l, 5 * TURN_NS);
        if (seconds_since(begun) > o->connect_timeout) {
            fprintf(stderr, "wsload: connecting took too long: %lu open, %lu failed\n",
                    (unsigned long)l->figures.opened, (unsigned long)l->figures.failed);
            break;
        }
    }
    l->figures.connect_s = seconds_since(begun);
    for (uint32_t i = 0; i < o->conns; i++) {
        if (l->subscribers[i].link.state == STATE_OPEN)
            l->rooms[l->subscribers[i].link.room].listeners++;
    }
}

/* ---- publishing ---- */

static void pump_all(struct load *l)
{
    for (uint32_t i = 0; i < l->options.pub_conns; i++)
        publisher_pump(l, &l->publishers[i]);
}

/* The next publish of `room`, accounted. */
static struct message message_next(struct load *l, uint32_t room, uint64_t ns)
{
    publisher_account(l, room, ns);
    return (struct message){.room = room, .seq = ++l->rooms[room].published, .ns = ns};
}

static bool all_published(const struct load *l)
{
    return l->options.count >= 0 && (int64_t)l->figures.published_all >= l->options.count;
}

/* Open loop: what is due by now. When the next one is. */
static uint64_t publish_due(struct load *l, uint64_t begun, uint64_t now, uint64_t *number)
{
    const struct options *o = &l->options;
    const double each = 1e9 / o->rate;
    uint64_t due;
    while ((due = begun + (uint64_t)((double)*number * each)) <= now && due < l->measured_to &&
           !all_published(l)) {
        uint32_t room = (uint32_t)(*number % o->rooms);
        struct publisher *p = &l->publishers[(o->spread ? *number : room) % o->pub_conns];
        queue_push(&p->waiting, message_next(l, room, due));
        ++*number;
        publisher_pump(l, p);
    }
    for (uint32_t i = 0; i < o->pub_conns; i++) {
        const struct queue *q = &l->publishers[i].waiting;
        if (q->tail - q->head > l->figures.backlog_max)
            l->figures.backlog_max = q->tail - q->head;
    }
    return due;
}

static bool window_is_open(const struct load *l)
{
    const struct options *o = &l->options;
    uint64_t missing = l->figures.expected_all - l->figures.delivered_all - l->window_base;
    return o->window == 0 ||
           (int64_t)missing < o->window * (o->conns > o->rooms ? o->conns / o->rooms : 1);
}

/* A room of its own for each connection keeps the order within rooms. */
static uint32_t room_next(struct load *l, struct publisher *p)
{
    const struct options *o = &l->options;
    if (o->spread || o->pub_conns == 1)
        return l->next_room++ % o->rooms;
    uint32_t room = p->link.id + p->next_room++ * o->pub_conns;
    if (room >= o->rooms) {
        p->next_room = 1;
        room = p->link.id % o->rooms;
    }
    return room;
}

static bool takes_more(const struct load *l, const struct publisher *p)
{
    size_t most =
        l->options.window || p->link.kind == LINK_HTTP ? OUT_LARGE_BYTES : OUT_SMALL_BYTES;
    return p->link.state == STATE_OPEN && p->out.size - p->sent < most &&
           (!publisher_is_counted(p) ||
            p->under_way.tail - p->under_way.head < l->options.pipeline);
}

/* Closed loop: one message a connection in turn, so that a window is spread over all of them. */
static void publish_more(struct load *l)
{
    const uint32_t n = l->options.pub_conns;
    uint32_t refused = 0;
    for (int i = 0; i < CLOSED_TURN_MAX && refused < n; i++) {
        struct publisher *p = &l->publishers[l->next_publisher];
        l->next_publisher = (l->next_publisher + 1) % n;
        if (!window_is_open(l) || all_published(l))
            break;
        if (!takes_more(l, p)) {
            refused++;
            continue;
        }
        refused = 0;
        publisher_emit(l, p, message_next(l, room_next(l, p), now_ns()));
    }
    for (uint32_t i = 0; i < n; i++) {
        struct publisher *p = &l->publishers[i];
        if (p->link.state == STATE_OPEN && p->sent < p->out.size)
            publisher_flush(l, p);
    }
}

/* What never came must not keep the window shut. */
static void stall_check(struct load *l, uint64_t now, uint64_t *seen, uint64_t *seen_ns)
{
    struct figures *f = &l->figures;
    if (f->delivered_all != *seen) {
        *seen = f->delivered_all;
        *seen_ns = now;
    } else if (!window_is_open(l) && now > *seen_ns + STALL_NS) {
        l->window_base = f->expected_all - f->delivered_all;
        *seen_ns = now;
        f->stalls++;
    }
}

static void publish_loop(struct load *l, uint64_t begun)
{
    uint64_t number = 0, seen = 0, seen_ns = begun;
    bool measuring = false;
    double cpu_s = 0;
    for (uint64_t now; (now = now_ns()) < l->measured_to && !all_published(l);) {
        int64_t wait = TURN_NS / 2;
        if (!measuring && now >= l->measured_from) {
            measuring = true;
            cpu_s = self_cpu_s();
            l->figures.begun = server_use(l, false);
        }
        if (l->options.rate > 0) {
            wait = (int64_t)(publish_due(l, begun, now, &number) - now_ns());
            wait = wait < TURN_NS ? wait : TURN_NS;
        } else {
            publish_more(l);
            stall_check(l, now, &seen, &seen_ns);
        }
        turn(l, wait);
    }
    if (l->options.count >= 0)
        l->measured_to = now_ns();
    l->figures.self_cpu_s = self_cpu_s() - cpu_s;
}

/* Until all is delivered and answered, or nothing has moved for a while. */
static void drain(struct load *l)
{
    const struct figures *f = &l->figures;
    uint64_t moved = f->delivered_all + f->acked_all, since = now_ns();
    bool counted = l->publishers[0].link.kind == LINK_HTTP;
    while (f->delivered < f->expected || (counted && f->acked_all < f->published_all)) {
        pump_all(l);
        turn(l, 2 * TURN_NS);
        if (f->delivered_all + f->acked_all != moved) {
            moved = f->delivered_all + f->acked_all;
            since = now_ns();
        }
        if (seconds_since(since) > l->options.drain)
            break;
    }
    phase_rest(l, 0.05); /* duplicates come late */
}

void phase_publish(struct load *l)
{
    const uint64_t begun = now_ns() + TURN_NS;
    l->measured_from = begun + ns_of(l->options.warmup);
    l->measured_to =
        l->options.count >= 0 ? UINT64_MAX / 2 : l->measured_from + ns_of(l->options.duration);
    publish_loop(l, begun);
    struct server_use cpu = server_use(l, false);
    l->figures.wall_s = seconds_since(l->measured_from);
    drain(l);
    l->figures.ended = server_use(l, true);
    l->figures.ended.cpu_s = cpu.cpu_s;
}

/* ---- replay ---- */

static void replay_batch(struct load *l, uint64_t total)
{
    const struct figures *f = &l->figures;
    bool http = l->publishers[0].link.kind == LINK_HTTP;
    for (int i = 0; i < REPLAY_BATCH && f->published_all < total; i++) {
        uint32_t room = (uint32_t)(f->published_all % l->options.rooms);
        if (http && f->published_all - f->acked_all >= REPLAY_UNDER_WAY)
            break;
        queue_push(&l->publishers[room % l->options.pub_conns].waiting,
                   message_next(l, room, now_ns()));
    }
}

static bool out_is_empty(const struct load *l)
{
    for (uint32_t i = 0; i < l->options.pub_conns; i++) {
        const struct publisher *p = &l->publishers[i];
        if (p->waiting.head != p->waiting.tail || p->sent < p->out.size)
            return false;
    }
    return true;
}

/* So many in each room, while nobody listens. */
void phase_replay_publish(struct load *l)
{
    const struct figures *f = &l->figures;
    const uint64_t total = (uint64_t)l->options.replay * l->options.rooms, begun = now_ns();
    const bool counted = publisher_is_counted(&l->publishers[0]);
    while (f->published_all < total || !out_is_empty(l) || (counted && f->acked_all < total)) {
        replay_batch(l, total);
        pump_all(l);
        turn(l, TURN_NS);
        if (seconds_since(begun) > REPLAY_PUBLISH_S)
            fail("publishing what is to be replayed stalls: %lu of %lu are acknowledged",
                 (unsigned long)f->acked_all, (unsigned long)total);
    }
    if (!counted)
        phase_rest(l, 0.5);
    l->figures.publish_s = seconds_since(begun);
}

/* From the first connect to the last delivery. */
void phase_replay(struct load *l)
{
    struct figures *f = &l->figures;
    const uint64_t begun = now_ns();
    phase_connect(l);
    f->expected = f->opened * l->options.replay;
    uint64_t seen = 0, since = now_ns();
    while (f->delivered_all < f->expected && seconds_since(since) < l->options.drain) {
        turn(l, TURN_NS);
        if (f->delivered_all != seen) {
            seen = f->delivered_all;
            since = now_ns();
        }
    }
    f->delivered = f->delivered_all;
    f->replay_s = (double)((f->last_ns > begun ? f->last_ns : now_ns()) - begun) / 1e9;
}
