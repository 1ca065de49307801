/* CORE. Lanes: the queue of one key, its numbering, and the ways back in it. */
#include "client/publisher_internal.h"
#include "common/mem.h"
#include "common/mutant.h"

#define PAUSE_WISH_MAX_MS 60000
#define SHIFT_MAX 6

static uint64_t random_nonzero(struct publisher *p)
{
    uint64_t n;
    do
        n = rng_u64(&p->rng);
    while (n == 0);
    return n;
}

struct lane *lane_open(struct publisher *p, struct slice key)
{
    struct lane *l = map_get(p->lanes, key);
    if (l)
        return l;
    l = mem_alloc(sizeof *l + key.size);
    memset(l, 0, sizeof *l);
    memcpy(l + 1, key.data, key.size);
    l->key = slice_of(l + 1, key.size);
    list_init(&l->queue);
    list_init(&l->node);
    l->next = &l->queue;
    l->pid = random_nonzero(p);
    map_put(p->lanes, l->key, l);
    return l;
}

void lane_forget(struct publisher *p, struct lane *l)
{
    STOA_ASSERT(list_empty(&l->queue) && l->in_flight == 0);
    list_remove(&l->node);
    p->n_idle -= l->idle;
    heap_remove(&p->lane_timers, &l->timer);
    (void)map_remove(p->lanes, l->key);
    mem_free(l);
}

/* ---- where a lane stands ---- */

static void lane_set_idle(struct publisher *p, struct lane *l, bool idle)
{
    if (l->idle == idle)
        return;
    list_remove(&l->node);
    l->idle = idle;
    l->ready = false;
    if (!idle) {
        p->n_idle--;
        return;
    }
    l->idle_ns = p->now.mono_ns;
    p->n_idle++;
    list_push_back(&p->idle, &l->node);
}

static void lane_set_ready(struct publisher *p, struct lane *l, bool ready)
{
    if (l->ready == ready)
        return;
    l->ready = ready;
    list_remove(&l->node);
    if (ready)
        list_push_back(&p->ready, &l->node);
}

/* The timer may be early, never late: it looks again when it fires. */
static void lane_arm(struct publisher *p, struct lane *l)
{
    int64_t due = TICK_NEVER;
    if (l->resume_ns != 0)
        due = l->resume_ns;
    if (lane_first_flying(l)) {
        int64_t silent = l->progress_ns + PUBLISH_SILENCE_MS * NS_PER_MS;
        due = silent < due ? silent : due;
    }
    if (due == TICK_NEVER && l->idle)
        heap_remove(&p->lane_timers, &l->timer);
    else if (due != TICK_NEVER && (!heap_has(&l->timer) || l->timer.due > due))
        heap_set(&p->lane_timers, &l->timer, due);
}

void lane_settle(struct publisher *p, struct lane *l)
{
    bool unsent = l->next != &l->queue;
    lane_set_idle(p, l, list_empty(&l->queue) && l->in_flight == 0);
    if (!l->idle)
        lane_set_ready(p, l, unsent && l->resume_ns == 0 && lane_window_open(l));
    lane_arm(p, l);
}

bool lane_window_open(const struct lane *l)
{
    return l->in_flight < PUBLISH_WINDOW_PER_KEY &&
           (l->attempts <= 1 || l->in_flight == l->ephemerals);
}

struct publish *lane_first_flying(const struct lane *l)
{
    return l->queue.next != l->next ? publish_of(l->queue.next) : NULL;
}

/* ---- flights ---- */

void flight_begin(struct publisher *p, struct publish *publish)
{
    do
        p->last_cid = p->last_cid % CID_MAX + 1;
    while (map_get(p->flying, map_id(&p->last_cid)));
    publish->cid = p->last_cid;
    map_put(p->flying, map_id(&publish->cid), publish);
    p->in_flight++;
    p->in_flight_bytes += publish->wire_bytes;
    publish->lane->in_flight++;
}

void flight_end(struct publisher *p, struct publish *publish)
{
    if (publish->cid == 0)
        return;
    (void)map_remove(p->flying, map_id(&publish->cid));
    publish->cid = 0;
    p->in_flight--;
    p->in_flight_bytes -= publish->wire_bytes;
    publish->lane->in_flight--;
}

/* ---- ways back ---- */

void lane_go_back(struct publisher *p, struct lane *l, struct publish *from, bool lost)
{
    /* Those behind it will be refused too, but that is not waited for. */
    for (struct list *at = &from->node; at != l->next; at = at->next) {
        flight_end(p, publish_of(at));
        publish_of(at)->uncertain |= lost || at != &from->node;
        if (STOA_MUTANT(LIBRARY_NEW_ID))
            rng_bytes(&p->rng, publish_of(at)->msg_id, sizeof publish_of(at)->msg_id);
    }
    l->next = STOA_MUTANT(NO_GO_BACK) ? from->node.next : &from->node;
}

void lane_number_anew(struct publisher *p, struct lane *l)
{
    struct publish *first = lane_first_flying(l);
    if (first)
        lane_go_back(p, l, first, true);
    for (struct list *at = l->queue.next; at != &l->queue; at = at->next) {
        if (publish_of(at)->pseq == 0 && !publish_of(at)->ephemeral)
            break; /* nothing behind it has a number */
        publish_of(at)->pseq = 0;
    }
    l->pid = random_nonzero(p);
    l->last_pseq = 0;
}

void lane_pause(struct publisher *p, struct lane *l, uint64_t wished_ms)
{
    uint64_t most = (uint64_t)PUBLISH_RETRY_MIN_MS
                    << (l->attempts < SHIFT_MAX ? l->attempts : SHIFT_MAX);
    if (most > PUBLISH_RETRY_MAX_MS)
        most = PUBLISH_RETRY_MAX_MS;
    uint64_t delay = most / 2 + rng_below(&p->rng, most / 2 + 1);
    if (wished_ms > 0) {
        delay = wished_ms < PAUSE_WISH_MAX_MS ? wished_ms : PAUSE_WISH_MAX_MS;
        delay += rng_below(&p->rng, delay / 4 + 1);
    }
    l->attempts++;
    l->resume_ns = p->now.mono_ns + (int64_t)delay * NS_PER_MS;
}

/* ---- the end of a publish ---- */

void lane_end(struct publisher *p, struct publish *publish, int status)
{
    struct lane *l = publish->lane;
    bool numbered = publish->pseq != 0;
    if (publish->ephemeral && publish->cid != 0)
        l->ephemerals--;
    flight_end(p, publish);
    if (l->next == &publish->node)
        l->next = publish->node.next;
    list_remove(&publish->node);
    heap_remove(&p->deadlines, &publish->deadline);
    publish->status = status;
    publish->lane = NULL;
    p->pending--;
    list_push_back(&p->done, &publish->node);
    if (numbered && status != STOA_OK)
        lane_number_anew(p, l); /* the shard may wait for its number for ever */
    lane_settle(p, l);
}
