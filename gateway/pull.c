/* CORE. Pages of a room's log. Subscriptions that want the same page share one request; a room's
 * repair has its own. A page that does not come within PULL_TIMEOUT_MS is asked for again under a
 * new cid, so that a late answer cannot be taken for the new one. */
#include "gateway/core.h"

bool replay_miss(const struct message *m, struct position from, struct miss *miss)
{
    const struct msg_replay *r = &m->replay;
    bool other_history = from.epoch != 0 && from.epoch != r->room_epoch;
    if (r->miss_reason == MISS_NONE && r->miss_from == r->miss_to && !other_history)
        return false;
    enum miss_reason reason =
        r->miss_reason > MISS_EPOCH ? MISS_EPOCH : (enum miss_reason)r->miss_reason;
    if (reason == MISS_NONE)
        reason = other_history ? MISS_EPOCH : MISS_EXPIRED;
    *miss = (struct miss){.from = from, .to = {r->room_epoch, r->miss_to}, .reason = reason};
    return true;
}

static void pull_send(struct gateway *g, struct pull *pull)
{
    struct room *room = pull->room;
    call_begin(g, &pull->call, CALL_PULL, room->owner);
    pull->due_ns = g->now.mono_ns + PULL_TIMEOUT_MS * NS_PER_MS;
    list_push_back(&g->pulls, &pull->in_flight);
    if (!heap_has(&g->pull_timer.node))
        timer_set(g, &g->pull_timer, pull->due_ns);
    struct message m = {
        .type = MSG_REPLAY_REQ, .cid = pull->call.cid, .slot = room->slot, .key = room_key(room)};
    m.replay_req.epoch = pull->after.epoch;
    m.replay_req.after = pull->after.seq;
    m.replay_req.max_bytes = REPLAY_PAGE_MAX_BYTES;
    m.replay_req.max_items = REPLAY_PAGE_MAX_ITEMS;
    m.replay_req.mode = pull->mode;
    m.replay_req.last = pull->last;
    hub_send(g->hub, room->owner, &m);
}

static struct pull *pull_create(struct room *room, struct position after, uint64_t last,
                                enum replay_mode mode)
{
    struct pull *pull = mem_zalloc(sizeof *pull);
    pull->room = room;
    pull->after = after;
    pull->last = last;
    pull->mode = mode;
    list_init(&pull->in_flight);
    list_init(&pull->subs);
    list_push_back(&room->pulls, &pull->in_room);
    return pull;
}

struct pull *pull_repair(struct gateway *g, struct room *room)
{
    struct pull *pull = pull_create(room, room_position(room), 0, REPLAY_ALL);
    pull->repair = true;
    pull_send(g, pull);
    return pull;
}

void pull_join(struct gateway *g, struct subscription *sub)
{
    struct pull *found = NULL;
    /* Only in the whole log are transient items, which a member is owed that was there. */
    bool all = sub->whole || member_owed(sub->member, sub->pos);
    enum replay_mode mode = all ? REPLAY_ALL : REPLAY_LATEST;
    LIST_EACH(cursor, after, &sub->room->pulls)
    {
        struct pull *pull = LIST_ENTRY(cursor, struct pull, in_room);
        if (!pull->repair && pull->mode == mode && pull->last == sub->last &&
            position_equal(pull->after, sub->pos))
            found = pull;
    }
    if (!found) {
        found = pull_create(sub->room, sub->pos, sub->last, mode);
        pull_send(g, found);
    }
    sub->pull = found;
    list_push_back(&found->subs, &sub->in_pull);
}

static void pull_free(struct gateway *g, struct pull *pull)
{
    call_end(g, &pull->call);
    list_remove(&pull->in_room);
    list_remove(&pull->in_flight);
    mem_free(pull);
}

void pull_cancel(struct gateway *g, struct pull *pull)
{
    while (!list_empty(&pull->subs)) {
        struct subscription *sub = LIST_ENTRY(pull->subs.next, struct subscription, in_pull);
        sub->pull = NULL;
        list_remove(&sub->in_pull);
    }
    if (pull->repair)
        pull->room->repair = NULL;
    pull_free(g, pull);
}

static size_t page_read(struct gateway *g, const struct message *m, bool *picky)
{
    size_t count = m->replay.items.count;
    if (g->page_capacity < count) {
        g->page_capacity = 2 * count;
        g->page = mem_realloc(g->page, g->page_capacity * sizeof *g->page);
    }
    for (size_t i = 0; i < count; i++) {
        const struct event_item *item = &m->replay.items.at[i];
        g->page[i] = event_of(item);
        *picky |= item->filter.size > 0 || (item->flags & EVENT_TRANSIENT);
    }
    return count;
}

void pull_on_replay(struct gateway *g, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct call *call = map_get(g->calls, map_id(&m->cid));
    STOA_ASSERT(call && call->kind == CALL_PULL);
    struct pull *pull = LIST_ENTRY(call, struct pull, call);
    struct room *room = pull->room;
    if (room->owner != peer || !slice_equal(m->key, room_key(room)))
        return;
    if (pull->repair) {
        pull_free(g, pull);
        room_on_page(g, room, m, packet);
        return;
    }
    struct packs packs;
    bool picky = false;
    size_t count = page_read(g, m, &picky);
    packs_begin(&packs, room, m->replay.room_epoch, g->page, count);
    packs.picky = picky;
    struct list subs;
    list_init(&subs);
    while (!list_empty(&pull->subs)) {
        struct list *node = pull->subs.next;
        list_remove(node);
        list_push_back(&subs, node);
    }
    pull_free(g, pull);
    while (!list_empty(&subs)) {
        struct subscription *sub = LIST_ENTRY(subs.next, struct subscription, in_pull);
        list_remove(&sub->in_pull);
        subscription_page(g, sub, m, &packs);
    }
    packs_end(g, &packs);
}

/* The shard does not serve the room just now. */
void pull_on_nack(struct gateway *g, struct pull *pull)
{
    struct room *room = pull->room;
    pull_cancel(g, pull);
    room_retry(g, room);
}

static void pull_fire(struct gateway *g, struct timer *t)
{
    while (!list_empty(&g->pulls)) {
        struct pull *pull = LIST_ENTRY(g->pulls.next, struct pull, in_flight);
        if (pull->due_ns > g->now.mono_ns) {
            timer_set(g, t, pull->due_ns);
            return;
        }
        call_end(g, &pull->call);
        list_remove(&pull->in_flight);
        pull_send(g, pull);
    }
}

void pull_init(struct gateway *g)
{
    list_init(&g->pulls);
    g->pull_timer.fire = pull_fire;
}
