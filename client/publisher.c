/* CORE. Submitting, sending within the windows, and time. publisher_internal.h has the parts. */
#include "client/publisher_internal.h"
#include "common/mem.h"
#include "common/mutant.h"

/* So many of a lane are sent before the next lane has its turn. */
#define LANE_QUANTUM 16

struct publisher *publisher_create(const struct publisher_options *options,
                                   const struct hub_ports *ports, struct log *log,
                                   struct metrics *metrics)
{
    struct publisher *p = mem_zalloc(sizeof *p);
    rng_seed(&p->rng, options->seed);
    p->log = log;
    p->n_routers = options->n_routers;
    p->lanes = map_create(rng_u64(&p->rng));
    p->flying = map_create(rng_u64(&p->rng));
    list_init(&p->ready);
    list_init(&p->idle);
    list_init(&p->flights);
    list_init(&p->done);
    const struct hub_handler handler = publisher_handler(p);
    p->hub = hub_create(&options->self, &handler, ports, log, metrics, rng_u64(&p->rng));
    for (uint32_t n = 1; n <= p->n_routers; n++)
        STOA_ASSERT(hub_dial(p->hub) == n);
    p->caller = caller_create(p->hub, ~options->seed);
    return p;
}

void publisher_destroy(struct publisher **publisher)
{
    struct publisher *p = *publisher;
    if (!p)
        return;
    *publisher = NULL;
    STOA_ASSERT(p->pending == 0 && list_empty(&p->done));
    caller_destroy(&p->caller);
    hub_destroy(&p->hub);
    while (!list_empty(&p->idle))
        lane_forget(p, LIST_ENTRY(p->idle.next, struct lane, node));
    map_destroy(&p->lanes);
    map_destroy(&p->flying);
    heap_free(&p->lane_timers);
    heap_free(&p->deadlines);
    mem_free(p);
}

struct hub *publisher_hub(struct publisher *p)
{
    return p->hub;
}

struct caller *publisher_caller(struct publisher *p)
{
    return p->caller;
}

size_t publisher_pending(const struct publisher *p)
{
    return p->pending;
}

struct list *publisher_done(struct publisher *p)
{
    return &p->done;
}

size_t publisher_lanes(const struct publisher *p)
{
    return map_count(p->lanes);
}

size_t publisher_in_flight(const struct publisher *p)
{
    return p->in_flight;
}

void publisher_submit(struct publisher *p, struct publish *publish, struct tick now)
{
    p->now = now;
    struct lane *l = lane_open(p, publish->key);
    publish->lane = l;
    if (!publish->has_id)
        rng_bytes(&p->rng, publish->msg_id, sizeof publish->msg_id);
    list_push_back(&l->queue, &publish->node);
    if (l->next == &l->queue)
        l->next = &publish->node;
    heap_set(&p->deadlines, &publish->deadline, now.mono_ns + publish->timeout_ns);
    p->pending++;
    lane_settle(p, l);
}

/* ---- sending ---- */

/* The window lets one through when nothing is in flight, however large. */
static bool window_open(const struct publisher *p, const struct publish *publish)
{
    return p->in_flight < p->win_messages &&
           (p->in_flight == 0 || p->in_flight_bytes + publish->wire_bytes <= p->win_bytes);
}

static void transmit(struct publisher *p, struct publish *publish)
{
    struct lane *l = publish->lane;
    struct message m = {
        .type = MSG_PUB, .cid = publish->cid, .slot = SLOT_UNKNOWN, .key = publish->key};
    memcpy(m.pub.msg_id, publish->msg_id, sizeof m.pub.msg_id);
    m.pub.pid = publish->ephemeral ? 0 : l->pid;
    m.pub.pseq = publish->pseq;
    m.pub.flags = publish->ephemeral ? PUB_EPHEMERAL : 0;
    m.pub.conflate = publish->conflate;
    m.pub.filter = publish->filter;
    m.pub.ts = publish->ts;
    m.pub.payloads.at = publish->parts;
    m.pub.payloads.count = publish->n_parts;
    hub_send(p->hub, p->router, &m);
}

static void lane_send_one(struct publisher *p, struct lane *l)
{
    struct publish *publish = publish_of(l->next);
    if (!lane_first_flying(l))
        l->progress_ns = p->now.mono_ns;
    l->next = l->next->next;
    if (publish->ts == 0 || STOA_MUTANT(LIBRARY_NEW_TS))
        publish->ts = p->now.wall_ms;
    if (publish->ephemeral) {
        list_remove(&publish->node);
        list_push_back(&p->flights, &publish->node);
        l->ephemerals++;
    } else if (publish->pseq == 0) {
        publish->pseq = ++l->last_pseq;
    }
    flight_begin(p, publish);
    transmit(p, publish);
}

/* Whether the publisher's window stopped it. */
static bool lane_send(struct publisher *p, struct lane *l)
{
    bool stopped = false;
    for (int i = 0; i < LANE_QUANTUM && l->next != &l->queue && !stopped; i++) {
        if (!lane_window_open(l))
            break;
        if (window_open(p, publish_of(l->next)))
            lane_send_one(p, l);
        else
            stopped = true;
    }
    return stopped;
}

static void send_ready(struct publisher *p)
{
    while (p->router != 0 && !list_empty(&p->ready)) {
        struct lane *l = LIST_ENTRY(p->ready.next, struct lane, node);
        bool stopped = lane_send(p, l);
        if (stopped) {
            lane_settle(p, l);
            return;
        }
        list_remove(&l->node); /* to the end of the line */
        l->ready = false;
        lane_settle(p, l);
    }
}

/* ---- time ---- */

static int overdue_status(const struct publish *publish)
{
    if (publish->cid != 0 || (publish->uncertain && !STOA_MUTANT(LIBRARY_FORGETS)))
        return STOA_UNKNOWN;
    return publish->disk ? STOA_DISK : STOA_TIMEOUT;
}

static void lane_due(struct publisher *p, struct lane *l)
{
    int64_t now = p->now.mono_ns;
    struct publish *first = lane_first_flying(l);
    if (l->resume_ns != 0 && l->resume_ns <= now)
        l->resume_ns = 0;
    if (first && now - l->progress_ns >= PUBLISH_SILENCE_MS * NS_PER_MS) {
        lane_go_back(p, l, first, true);
        l->progress_ns = now;
    }
    lane_settle(p, l);
}

static void expire(struct publisher *p)
{
    int64_t now = p->now.mono_ns;
    struct heap_node *due;
    while ((due = heap_pop_due(&p->deadlines, now)) != NULL) {
        struct publish *publish = LIST_ENTRY(due, struct publish, deadline);
        lane_end(p, publish, overdue_status(publish));
    }
    while ((due = heap_pop_due(&p->lane_timers, now)) != NULL)
        lane_due(p, LIST_ENTRY(due, struct lane, timer));
    while (!list_empty(&p->idle)) {
        struct lane *oldest = LIST_ENTRY(p->idle.next, struct lane, node);
        if (p->n_idle <= LANES_IDLE_MAX && now - oldest->idle_ns < LANE_IDLE_MS * NS_PER_MS)
            break;
        lane_forget(p, oldest);
    }
}

void publisher_turn(struct publisher *p, struct tick now)
{
    p->now = now;
    hub_tick(p->hub, now);
    expire(p);
    send_ready(p);
    caller_turn(p->caller, now);
    hub_flush(p->hub, now); /* a send that failed takes the link down and frees the window */
    if (p->router != 0 && !list_empty(&p->ready)) {
        send_ready(p);
        hub_flush(p->hub, now);
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t publisher_deadline(const struct publisher *p)
{
    int64_t due = earlier(hub_deadline(p->hub),
                          earlier(heap_next(&p->deadlines), heap_next(&p->lane_timers)));
    due = earlier(due, caller_deadline(p->caller));
    if (!list_empty(&p->idle)) {
        const struct lane *oldest = LIST_ENTRY(p->idle.next, struct lane, node);
        due = earlier(due, oldest->idle_ns + LANE_IDLE_MS * NS_PER_MS);
    }
    return due;
}

void publisher_abandon(struct publisher *p)
{
    p->router = 0;
    while (!list_empty(&p->flights))
        lane_end(p, publish_of(p->flights.next), STOA_UNKNOWN);
    size_t cursor = 0;
    for (struct lane *l; (l = map_next(p->lanes, &cursor)) != NULL;)
        while (!list_empty(&l->queue))
            lane_end(p, publish_of(l->queue.next), STOA_UNKNOWN);
}

/* ---- for tests ---- */

static void lane_validate(const struct lane *l)
{
    uint32_t flying = 0;
    bool sent = true;
    uint64_t last = 0;
    for (struct list *at = l->queue.next; at != &l->queue; at = at->next) {
        const struct publish *publish = publish_of(at);
        sent = sent && at != l->next;
        STOA_ASSERT((publish->cid != 0) == sent);
        STOA_ASSERT(publish->lane == l && heap_has(&publish->deadline));
        STOA_ASSERT(!sent || publish->pseq != 0);
        if (publish->pseq != 0) {
            STOA_ASSERT(publish->pseq > last && publish->pseq <= l->last_pseq);
            last = publish->pseq;
        }
        flying += sent;
    }
    STOA_ASSERT(l->in_flight == flying + l->ephemerals);
    STOA_ASSERT(l->in_flight <= PUBLISH_WINDOW_PER_KEY);
    STOA_ASSERT(l->idle == (list_empty(&l->queue) && l->in_flight == 0));
    STOA_ASSERT(flying == 0 || heap_has(&l->timer));
    STOA_ASSERT(l->resume_ns == 0 || heap_has(&l->timer));
}

void publisher_validate(const struct publisher *p)
{
    size_t cursor = 0, idle = 0;
    for (const struct lane *l; (l = map_next(p->lanes, &cursor)) != NULL;) {
        lane_validate(l);
        idle += l->idle;
    }
    STOA_ASSERT(idle == p->n_idle && p->in_flight == map_count(p->flying));
    STOA_ASSERT(p->in_flight <= p->pending && (p->in_flight == 0 || p->router != 0));
}
