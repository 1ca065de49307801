/* CORE. One key at this gateway: subscribed once at the shard that owns its slot, whatever the
 * number of sockets, and a chain of events in which each names its predecessor.
 *
 *   DELIVER  prev == last  taken      prev < last  known, dropped      prev > last  a gap: repair
 *   repair   REPLAY_REQ after `last`, mode ALL; the page goes through the same chain, its missed
 *            range first. Gaps are also suspected by RESYNC and SUBACK naming another head.
 *
 *   unsubscribed --SUB--> (SUBACK) --> subscribed --link down, slot moved--> unsubscribed
 *   settled = subscribed and no repair under way: subscriptions begin only then */
#include "gateway/core.h"

#include "common/mutant.h"

struct room *room_find(const struct gateway *g, struct slice key)
{
    return map_get(g->rooms, key);
}

static bool room_evict_idle(struct gateway *g)
{
    if (list_empty(&g->rooms_idle))
        return false;
    room_free(g, LIST_ENTRY(g->rooms_idle.next, struct room, idle));
    return true;
}

struct room *room_open(struct gateway *g, struct slice key)
{
    struct room *room = room_find(g, key);
    if (room)
        return room;
    if (map_count(g->rooms) >= KEYS_PER_GATEWAY_MAX && !room_evict_idle(g))
        return NULL;
    room = mem_zalloc(sizeof *room + key.size);
    memcpy(room->key, key.data, key.size);
    room->key_size = (uint16_t)key.size;
    room->slot = slot_of(key, g->options.slot_seed);
    room->owner = slots_owner(g->slots, room->slot).peer;
    list_init(&room->dirty);
    list_init(&room->idle);
    list_init(&room->retry);
    list_init(&room->subs);
    list_init(&room->pulls);
    list_push_back(&g->rooms_all, &room->all);
    map_put(g->rooms, room_key(room), room);
    metric_set(g->m.rooms, (double)map_count(g->rooms));
    sync_rooms_begin(g);
    return room;
}

static struct message room_message(const struct room *room, enum message_type type)
{
    return (struct message){.type = type, .slot = room->slot, .key = room_key(room)};
}

void room_free(struct gateway *g, struct room *room)
{
    STOA_ASSERT(list_empty(&room->subs));
    if (room->owner && (room->subscribed || room->sub_cid)) {
        struct message m = room_message(room, MSG_UNSUB);
        hub_send(g->hub, room->owner, &m);
    }
    while (!list_empty(&room->pulls))
        pull_cancel(g, LIST_ENTRY(room->pulls.next, struct pull, in_room));
    if (room->n_events > 0)
        fanout_discard(g, room);
    map_remove(g->rooms, room_key(room));
    metric_set(g->m.rooms, (double)map_count(g->rooms));
    list_remove(&room->all);
    list_remove(&room->idle);
    list_remove(&room->retry);
    mem_free(room);
}

void room_left(struct gateway *g, struct room *room)
{
    if (room->n_subs > 0)
        return;
    room->idle_due_ns = g->now.mono_ns + ROOM_IDLE_MS * NS_PER_MS;
    list_remove(&room->idle);
    list_push_back(&g->rooms_idle, &room->idle);
    if (!heap_has(&g->idle_timer.node))
        timer_set(g, &g->idle_timer, room->idle_due_ns);
}

static void idle_fire(struct gateway *g, struct timer *t)
{
    while (!list_empty(&g->rooms_idle)) {
        struct room *room = LIST_ENTRY(g->rooms_idle.next, struct room, idle);
        if (room->idle_due_ns > g->now.mono_ns) {
            timer_set(g, t, room->idle_due_ns);
            return;
        }
        room_free(g, room);
    }
}

/* ---- subscribed at the shard ---- */

bool room_settled(const struct room *room)
{
    return room->subscribed && room->known && !room->sub_cid && !room->repair;
}

void room_sub_send(struct gateway *g, struct room *room)
{
    STOA_ASSERT(room->owner);
    if (++g->last_cid == 0)
        g->last_cid = 1;
    room->sub_cid = g->last_cid;
    struct message m = room_message(room, MSG_SUB);
    m.cid = room->sub_cid;
    m.sub.from_mode = room->known ? FROM_AFTER : FROM_HEAD;
    m.sub.from_epoch = room->epoch;
    m.sub.from_seq = room->last;
    hub_send(g->hub, room->owner, &m);
}

void room_unown(struct gateway *g, struct room *room)
{
    room->owner = 0;
    room->sub_cid = 0;
    room->subscribed = false;
    while (!list_empty(&room->pulls))
        pull_cancel(g, LIST_ENTRY(room->pulls.next, struct pull, in_room));
    STOA_ASSERT(!room->repair);
    if (room->n_members == 0)
        return;
    LIST_EACH(cursor, after, &room->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_room);
        if (sub->member)
            member_unown(g, sub->member);
    }
}

void room_kick(struct gateway *g, struct room *room)
{
    LIST_EACH(cursor, after, &room->subs)
    {
        subscription_kick(g, LIST_ENTRY(cursor, struct subscription, in_room));
    }
}

/* The shard's idea of the head, against ours. What the shard says follows what it has delivered, so
 * a head below ours means that its disk has gone back in time. */
static void room_compare(struct gateway *g, struct room *room, struct position head)
{
    if (STOA_MUTANT(BACKWARDS_UNSEEN) && head.epoch == room->epoch && head.seq < room->last)
        return;
    if (!position_equal(head, room_position(room)))
        room_repair(g, room);
}

void room_on_suback(struct gateway *g, uint32_t peer, const struct message *m)
{
    struct room *room = room_find(g, m->key);
    if (!room || room->owner != peer || room->sub_cid == 0 || room->sub_cid != m->cid)
        return;
    room->sub_cid = 0;
    room->subscribed = true;
    if (!room->known) {
        room->known = true;
        room->epoch = m->suback.room_epoch;
        room->last = room->flushed = m->suback.head;
    }
    room_compare(g, room, (struct position){m->suback.room_epoch, m->suback.head});
    room_kick(g, room);
}

void room_born(struct room *room, struct position at)
{
    if (room->known && room->epoch == 0 && room->last == 0 && at.seq == 0)
        room->epoch = at.epoch;
}

/* ---- later again ---- */

void room_retry(struct gateway *g, struct room *room)
{
    if (!list_empty(&room->retry))
        return;
    list_push_back(&g->rooms_retry, &room->retry);
    if (!heap_has(&g->retry_timer.node))
        timer_set(g, &g->retry_timer, g->now.mono_ns + ROOM_RETRY_MS * NS_PER_MS);
}

static void retry_fire(struct gateway *g, struct timer *t)
{
    (void)t;
    struct list due;
    list_init(&due);
    while (!list_empty(&g->rooms_retry)) {
        struct list *node = g->rooms_retry.next;
        list_remove(node);
        list_push_back(&due, node);
    }
    while (!list_empty(&due)) {
        struct room *room = LIST_ENTRY(due.next, struct room, retry);
        list_remove(&room->retry);
        if (!room->owner || room->sub_cid)
            continue;
        if (!room->subscribed)
            room_sub_send(g, room);
        else if (!room->repair)
            room_repair(g, room);
    }
}

bool room_on_nack(struct gateway *g, uint32_t peer, const struct message *m)
{
    struct room *room = room_find(g, m->key);
    if (!room || room->owner != peer || room->sub_cid == 0 || room->sub_cid != m->cid)
        return false;
    room->sub_cid = 0;
    room->subscribed = false;
    room_retry(g, room);
    return true;
}

/* ---- the chain ---- */

void room_repair(struct gateway *g, struct room *room)
{
    if (room->repair || !room->subscribed || !room->known)
        return;
    room->repair = pull_repair(g, room);
}

/* Takes one event into the chain; false: something is missing before it. */
static bool room_apply(struct gateway *g, struct room *room, uint64_t epoch,
                       const struct event_item *item, struct buf *packet)
{
    bool ephemeral = (item->flags & EVENT_EPHEMERAL) != 0;
    if (epoch != room->epoch) {
        if ((room->epoch != 0 || item->prev != 0) && !STOA_MUTANT(EPOCH_IGNORED))
            return ephemeral && epoch == 0;
        room->epoch = epoch; /* the room's first event: its history begins here */
    }
    if (ephemeral && item->seq < room->last)
        return true;
    if (!ephemeral && item->seq <= room->last)
        return true;
    if (!STOA_MUTANT(IGNORE_PREV) &&
        (ephemeral ? item->seq != room->last : item->prev != room->last))
        return false;
    room->last = item->seq;
    if (room->n_subs > 0)
        fanout_push(g, room, item, packet);
    else
        room->flushed = room->last;
    return true;
}

void room_on_deliver(struct gateway *g, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct room *room = room_find(g, m->key);
    if (!room || room->owner != peer || !room->known)
        return;
    if (m->ep != 0 && m->ep < slots_owner(g->slots, room->slot).epoch)
        return; /* from before the slot moved */
    for (size_t i = 0; i < m->deliver.items.count; i++)
        if (!room_apply(g, room, m->deliver.room_epoch, &m->deliver.items.at[i], packet)) {
            room_repair(g, room);
            return;
        }
}

/* The room jumps over a gap: everybody live is told, in order behind what was delivered. Within one
 * epoch MISS_EPOCH says that events were lost that had been given out: who holds them is astray. */
static void room_jump(struct gateway *g, struct room *room, const struct miss *miss,
                      struct position head)
{
    if (room->n_events > 0)
        fanout_flush(g, room);
    room->epoch = miss->to.epoch;
    room->last = room->flushed = miss->to.seq;
    LIST_EACH(cursor, after, &room->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_room);
        bool same = sub->pos.epoch == miss->to.epoch;
        if (sub->member && sub->member->joined && sub->member->head.epoch != miss->to.epoch)
            sub->member->head = miss->to; /* it was here before what comes now */
        sub->astray = same && miss->reason == MISS_EPOCH && sub->pos.seq > head.seq;
        bool ahead = same && sub->pos.seq >= miss->to.seq && !sub->astray;
        if (sub->state != SUBS_LIVE || ahead)
            continue;
        struct miss own = {.from = sub->pos, .to = miss->to, .reason = miss->reason};
        if (sub->session->queued > CONN_QUEUE_MAX_BYTES)
            subscription_lag(g, sub);
        else if (!STOA_MUTANT(JUMP_UNTOLD))
            subscription_miss(g, sub, own, head);
    }
}

void room_on_page(struct gateway *g, struct room *room, const struct message *m, struct buf *packet)
{
    struct miss miss;
    struct position before = room_position(room);
    struct position head = {m->replay.room_epoch, m->replay.head};
    bool whole = true;
    room->repair = NULL;
    room_born(room, head);
    if (replay_miss(m, before, &miss))
        room_jump(g, room, &miss, head);
    for (size_t i = 0; i < m->replay.items.count && whole; i++)
        whole = room_apply(g, room, m->replay.room_epoch, &m->replay.items.at[i], packet);
    bool moved = !position_equal(before, room_position(room));
    if (whole && m->replay.eof)
        room_kick(g, room);
    else if (moved)
        room_repair(g, room);
    else
        room_retry(g, room);
}

void room_on_resync(struct gateway *g, uint32_t peer, const struct message *m)
{
    for (size_t i = 0; i < m->resync.rooms.count; i++) {
        const struct mark *mark = &m->resync.rooms.at[i];
        struct room *room = room_find(g, mark->key);
        if (room && room->owner == peer && room->known)
            room_compare(g, room, (struct position){mark->epoch, mark->seq});
    }
}

void room_end(struct gateway *g, struct room *room, unsigned code, struct slice reason)
{
    if (room->n_events > 0)
        fanout_flush(g, room);
    LIST_EACH(cursor, after, &room->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_room);
        sub->session->dialect->end(g, sub, code, reason);
    }
}

void room_on_close(struct gateway *g, uint32_t peer, const struct message *m)
{
    struct room *room = room_find(g, m->key);
    if (m->close.session.size > 0) {
        member_on_close(g, peer, m);
        return;
    }
    if (!room || room->owner != peer)
        return;
    room_end(g, room,
             m->close.code >= 1000 && m->close.code <= 4999 ? (unsigned)m->close.code : 1000,
             m->close.reason);
}

void room_init_timers(struct gateway *g)
{
    list_init(&g->rooms_all);
    list_init(&g->rooms_dirty);
    list_init(&g->rooms_idle);
    list_init(&g->rooms_retry);
    g->idle_timer.fire = idle_fire;
    g->retry_timer.fire = retry_fire;
}
