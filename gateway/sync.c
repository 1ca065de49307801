/* CORE. The links to shards: who owns which slot, credit, and the lists of rooms by which both
 * sides find out that something was lost.
 *
 *   link up, then its first CLAIM: all known rooms of it, SUBSYNC full (1, 1, ... 2), then SUB for
 *     rooms that were never subscribed or that somebody waits to enter
 *   later CLAIMs: SUB at the new owner for rooms whose slot moved
 *   every SUBSYNC_INTERVAL_MS each room once, spread over steps of SYNC_TICK_MS */
#include "gateway/core.h"

#define MARK_BYTES 48 /* of one mark in a head, beside its key, at most */
#define MARKS_HEAD_BYTES (HEAD_MAX_BYTES - 1024)
#define SYNC_STEPS (SUBSYNC_INTERVAL_MS / SYNC_TICK_MS)

static void marks_send(struct gateway *g, struct shard_link *link, uint64_t full)
{
    struct message m = {.type = MSG_SUBSYNC, .slot = SLOT_UNKNOWN};
    m.subsync.full = full;
    m.subsync.rooms = (struct marks_list){link->marks, link->n_marks};
    hub_send(g->hub, link->peer, &m);
    link->n_marks = 0;
    link->marks_bytes = 0;
}

static void mark_add(struct gateway *g, struct shard_link *link, const struct room *room,
                     uint64_t full)
{
    size_t bytes = room->key_size + MARK_BYTES;
    if (link->n_marks == SUBSYNC_KEYS_PER_MESSAGE || link->marks_bytes + bytes > MARKS_HEAD_BYTES)
        marks_send(g, link, full);
    link->marks[link->n_marks++] = (struct mark){
        .key = room_key(room), .epoch = room->epoch, .seq = room->last, .count = room->n_subs};
    link->marks_bytes += bytes;
}

/* ---- links ---- */

void sync_shard_up(struct gateway *g, struct shard_link *link)
{
    link->up = true;
    link->claimed = false;
    link->granted = CREDIT_WINDOW_BYTES;
    struct message m = {.type = MSG_CREDIT, .slot = SLOT_UNKNOWN};
    m.credit.granted = link->granted;
    hub_send(g->hub, link->peer, &m);
}

void sync_shard_down(struct gateway *g, struct shard_link *link)
{
    link->up = link->claimed = false;
    slots_peer_down(g->slots, link->peer);
    LIST_EACH(cursor, after, &g->rooms_all)
    {
        struct room *room = LIST_ENTRY(cursor, struct room, all);
        if (room->owner == link->peer)
            room_unown(g, room);
    }
}

/* Gives rooms to the owners that the slot table names now. Those of `synced` that have a position
 * are put into its full list. */
static void rooms_reown(struct gateway *g, struct shard_link *synced)
{
    LIST_EACH(cursor, after, &g->rooms_all)
    {
        struct room *room = LIST_ENTRY(cursor, struct room, all);
        uint32_t owner = slots_owner(g->slots, room->slot).peer;
        if (owner == room->owner)
            continue;
        room_unown(g, room);
        room->owner = owner;
        if (synced && owner == synced->peer && room->known && room->n_subs > 0) {
            mark_add(g, synced, room, 1);
            room->subscribed = true;
        }
    }
    if (synced)
        marks_send(g, synced, 2);
}

static bool has_waiting(const struct room *room)
{
    LIST_EACH(cursor, after, &room->subs)
    if (LIST_ENTRY(cursor, struct subscription, in_room)->state == SUBS_WAITING)
        return true;
    return false;
}

void sync_on_claim(struct gateway *g, struct shard_link *link, const struct message *m)
{
    if (!m->claim.ready)
        return;
    const struct peer_info *info = hub_info(g->hub, link->peer);
    STOA_ASSERT(info);
    slots_claim(g->slots, link->peer, info->node, m->claim.boot, m->claim.slots.at,
                m->claim.slots.count, g->log);
    bool first = !link->claimed;
    link->claimed = true;
    rooms_reown(g, first ? link : NULL);
    LIST_EACH(cursor, after, &g->rooms_all)
    {
        struct room *room = LIST_ENTRY(cursor, struct room, all);
        if (room->owner == 0 || room->sub_cid || room->n_subs == 0)
            continue;
        if (!room->subscribed || (first && room->owner == link->peer && has_waiting(room)))
            room_sub_send(g, room);
        else if (first && room->owner == link->peer)
            room_kick(g, room);
    }
}

/* Consumed is what has been received: a turn hands everything on before it ends. */
void sync_credit(struct gateway *g)
{
    for (unsigned i = 0; i < g->options.n_shards; i++) {
        struct shard_link *link = &g->shards[i];
        uint64_t may = hub_received_bytes(g->hub, link->peer) + CREDIT_WINDOW_BYTES;
        if (!link->up || may - link->granted < CREDIT_WINDOW_BYTES / 4)
            continue;
        link->granted = may;
        struct message m = {.type = MSG_CREDIT, .slot = SLOT_UNKNOWN};
        m.credit.granted = may;
        hub_send(g->hub, link->peer, &m);
    }
}

/* ---- the periodic check ---- */

static void sync_fire(struct gateway *g, struct timer *t)
{
    size_t count = map_count(g->rooms);
    if (count == 0)
        return;
    g->sync_share += count;
    size_t share = g->sync_share / SYNC_STEPS;
    g->sync_share %= SYNC_STEPS;
    for (size_t i = 0; i < share; i++) {
        struct room *room = LIST_ENTRY(g->rooms_all.next, struct room, all);
        list_remove(&room->all);
        list_push_back(&g->rooms_all, &room->all);
        struct shard_link *link = shard_of_peer(g, room->owner);
        if (link && room->subscribed && room->known)
            mark_add(g, link, room, 0);
    }
    for (unsigned i = 0; i < g->options.n_shards; i++)
        if (g->shards[i].n_marks > 0)
            marks_send(g, &g->shards[i], 0);
    timer_set(g, t, g->now.mono_ns + SYNC_TICK_MS * NS_PER_MS);
}

void sync_rooms_begin(struct gateway *g)
{
    if (!heap_has(&g->sync_timer.node))
        timer_set(g, &g->sync_timer, g->now.mono_ns + SYNC_TICK_MS * NS_PER_MS);
}

void sync_init(struct gateway *g)
{
    g->sync_timer.fire = sync_fire;
    for (unsigned i = 0; i < g->options.n_shards; i++)
        g->shards[i].marks = mem_alloc(SUBSYNC_KEYS_PER_MESSAGE * sizeof *g->shards[i].marks);
}
