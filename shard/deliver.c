/* CORE. Subscribers of rooms: who they are, what they get, and what happens when they take no more.
 *
 * A gateway subscribes once per room. After each commit it gets the room's new events in one
 * DELIVER. Its credit counts packet bytes since HELLO; a DELIVER that does not fit is not sent and
 * not kept: the room is dirty for that gateway, later events of the room are not sent either, and
 * when credit comes a RESYNC names the room's head, so that the gateway pulls what it lacks. So a
 * stalled gateway costs 8 bytes a room and nobody else's time. */
#include "shard/state.h"

#include "common/mutant.h"

#include "proto/packet.h"
#include "proto/wire.h"

/* Of a head: what its list may fill; the rest is prefix and fields. */
#define LIST_HEAD_MAX_BYTES (HEAD_MAX_BYTES - 1024)
#define ENCODED_SIZES_BYTES 8 /* u32 head size, u32 body size */

/* ---- sizes ---- */

static size_t uint_bytes(uint64_t n)
{
    if (n < 0x80)
        return 1;
    if (n <= UINT8_MAX)
        return 2;
    if (n <= UINT16_MAX)
        return 3;
    return n <= UINT32_MAX ? 5 : 9;
}

size_t item_head_bytes(const struct event_item *item)
{
    return 1 + uint_bytes(item->prev) + uint_bytes(item->seq) + 9 + uint_bytes(item->flags) + 2 +
           item->conflate.size + 3 + item->filter.size + uint_bytes(item->payload.size);
}

static size_t mark_head_bytes(const struct mark *mark)
{
    return 1 + 3 + mark->key.size + uint_bytes(mark->epoch) + uint_bytes(mark->seq) +
           uint_bytes(mark->count);
}

bool deliver_has_credit(const struct shard *s, uint32_t peer, size_t bytes)
{
    return hub_sent_bytes(s->hub, peer) + PACKET_HEADER_BYTES + bytes <= s->clients[peer]->granted;
}

/* ---- RESYNC ---- */

static void send_marks(struct shard *s, uint32_t peer, const struct mark *marks, size_t count)
{
    while (count > 0) {
        size_t n = 0;
        for (size_t bytes = 0; n < count && n < SUBSYNC_KEYS_PER_MESSAGE; n++) {
            bytes += mark_head_bytes(&marks[n]);
            if (bytes > LIST_HEAD_MAX_BYTES)
                break;
        }
        struct message m = {.type = MSG_RESYNC, .slot = SLOT_UNKNOWN};
        m.resync.rooms.at = marks;
        m.resync.rooms.count = n;
        hub_send(s->hub, peer, &m);
        metric_add(s->metric.resyncs, n);
        marks += n;
        count -= n;
    }
}

static void scratch_mark(struct shard *s, const struct room *room)
{
    *VEC_PUSH(&s->scratch, struct mark) =
        (struct mark){.key = room_key(room), .epoch = room->epoch, .seq = room->head};
}

static void mark_dirty(struct client *client, struct room *room, struct subscriber *sub)
{
    sub->dirty = true;
    room->dirty_refs++;
    *VEC_PUSH(&client->dirty, struct room *) = room;
}

static void resync_dirty(struct shard *s, uint32_t peer)
{
    struct client *client = s->clients[peer];
    struct room **rooms = VEC_AT(&client->dirty, struct room *);
    s->scratch.count = 0;
    for (size_t i = 0; i < client->dirty.count; i++) {
        struct subscriber *sub = room_subscriber(rooms[i], peer);
        rooms[i]->dirty_refs--;
        if (sub && sub->dirty) {
            sub->dirty = false;
            scratch_mark(s, rooms[i]);
        } else {
            rooms_drop_if_blank(s, rooms[i]);
        }
    }
    client->dirty.count = 0;
    send_marks(s, peer, VEC_AT(&s->scratch, struct mark), s->scratch.count);
}

void deliver_credit(struct shard *s, uint32_t peer, const struct message *m)
{
    struct client *client = s->clients[peer];
    if (m->credit.granted > client->granted)
        client->granted = m->credit.granted;
    if (client->dirty.count > 0 && deliver_has_credit(s, peer, HEAD_MAX_BYTES))
        resync_dirty(s, peer);
    replay_unpark(s, peer);
}

/* ---- DELIVER ---- */

/* One message to every subscriber that is not behind; encoded once. */
static void send_to_subscribers(struct shard *s, struct room *room, const struct message *m)
{
    size_t bound = message_size_bound(m);
    struct slice head = {0}, body = {0};
    if (room->n_subs > 1) {
        strbuf_reset(&s->encoded);
        message_encode(&s->encoded, m);
        head = slice_of(s->encoded.data + ENCODED_SIZES_BYTES, wire_get_le32(s->encoded.data));
        body = slice_of(head.data + head.size, wire_get_le32(s->encoded.data + 4));
    }
    for (uint16_t i = 0; i < room->n_subs; i++) {
        struct subscriber *sub = &room->subs[i];
        if (sub->dirty)
            continue;
        if (!deliver_has_credit(s, sub->peer, bound)) {
            mark_dirty(s->clients[sub->peer], room, sub);
            continue;
        }
        if (head.data)
            hub_forward(s->hub, sub->peer, head, body, 0, m->slot, m->ep);
        else
            hub_send(s->hub, sub->peer, m);
        metric_add(s->metric.deliveries, 1);
    }
}

void deliver_stage(struct shard *s, const struct stage *stage)
{
    struct room *room = stage->room;
    if (room->n_subs == 0 || stage->first == 0)
        return;
    const struct staged *staged = VEC_AT(&s->turn.staged, struct staged);
    uint32_t at = stage->first;
    while (at != 0) {
        size_t head = 0, body = 0;
        s->scratch.count = 0;
        for (; at != 0; at = staged[at - 1].next) {
            const struct event_item *item = &staged[at - 1].item;
            head += item_head_bytes(item);
            body += item->payload.size;
            if (s->scratch.count > 0 && (head > LIST_HEAD_MAX_BYTES || body > BODY_MAX_BYTES))
                break;
            *VEC_PUSH(&s->scratch, struct event_item) = *item;
        }
        struct message m = {.type = MSG_DELIVER, .slot = room->slot, .key = room_key(room)};
        m.ep = s->slot_epoch[room->slot];
        m.deliver.room_epoch = room->epoch;
        m.deliver.items.at = VEC_AT(&s->scratch, struct event_item);
        m.deliver.items.count = s->scratch.count;
        send_to_subscribers(s, room, &m);
    }
}

/* ---- subscribing ---- */

static void subscribe(struct shard *s, uint32_t peer, struct room *room)
{
    s->rooms_subscribed += room->n_subs == 0;
    room_subscribe(room, peer)->round = s->clients[peer]->round;
    room->touched = s->clock_ms;
}

static void unsubscribe(struct shard *s, uint32_t peer, struct room *room)
{
    if (!room_unsubscribe(room, peer))
        return;
    s->rooms_subscribed -= room->n_subs == 0;
    room->touched = s->clock_ms;
    rooms_drop_if_blank(s, room);
}

void deliver_sub(struct shard *s, uint32_t peer, const struct message *m)
{
    uint16_t slot;
    enum nack_code code = slot_check(s, m, &slot);
    if (code == NACK_NONE && (m->sub.session.size > 0 || m->sub.from_mode > FROM_AFTER))
        code = NACK_INVALID; /* sessions come with rooms that have handlers */
    if (code != NACK_NONE) {
        struct asker asker = {.peer = peer, .life = s->clients[peer]->life, .cid = m->cid};
        send_nack(s, asker, m->key, slot, code, 0);
        return;
    }
    struct room *room = rooms_open(s, m->key, slot);
    subscribe(s, peer, room);
    room_retain_exactly(s, room);
    struct message reply = {
        .type = MSG_SUBACK, .cid = m->cid, .slot = slot, .ep = s->slot_epoch[slot], .key = m->key};
    reply.suback.room_epoch = room->epoch;
    reply.suback.head = room->head;
    reply.suback.floor = room->floor;
    reply.suback.status = SUB_LIVE;
    if (m->sub.from_mode == FROM_AFTER) {
        struct resume p = replay_position(room, REPLAY_ALL, m->sub.from_epoch, m->sub.from_seq);
        reply.suback.status = p.missed ? SUB_MISSED : SUB_RESUMED;
        reply.suback.miss_from = p.miss_from;
        reply.suback.miss_to = p.miss_to;
    }
    hub_send(s->hub, peer, &reply);
}

void deliver_unsub(struct shard *s, uint32_t peer, const struct message *m)
{
    struct room *room = rooms_find(s, m->key);
    if (room && m->unsub.session.size == 0)
        unsubscribe(s, peer, room);
}

/* A complete list has ended: what it did not name is no longer wanted. */
static void drop_unlisted(struct shard *s, uint32_t peer)
{
    size_t cursor = 0;
    struct room *room;
    while ((room = (struct room *)map_next(s->rooms, &cursor)) != NULL) {
        const struct subscriber *sub = room_subscriber(room, peer);
        if (sub && sub->round != s->clients[peer]->round)
            unsubscribe(s, peer, room);
    }
}

static void sync_mark(struct shard *s, uint32_t peer, const struct mark *mark)
{
    struct message asked = {.slot = SLOT_UNKNOWN, .key = mark->key};
    uint16_t slot;
    if (slot_check(s, &asked, &slot) != NACK_NONE)
        return; /* the gateway learns the owner from CLAIMs */
    struct room *room = rooms_open(s, mark->key, slot);
    subscribe(s, peer, room);
    bool same = mark->epoch == room->epoch && mark->seq == room->head;
    if (!same && !room_subscriber(room, peer)->dirty && !STOA_MUTANT(SUBSYNC_IGNORED))
        scratch_mark(s, room);
}

void deliver_subsync(struct shard *s, uint32_t peer, const struct message *m)
{
    struct client *client = s->clients[peer];
    if (m->subsync.full != 0 && !client->listing) {
        client->listing = true;
        client->round++;
    }
    s->scratch.count = 0;
    for (size_t i = 0; i < m->subsync.rooms.count; i++)
        sync_mark(s, peer, &m->subsync.rooms.at[i]);
    send_marks(s, peer, VEC_AT(&s->scratch, struct mark), s->scratch.count);
    if (m->subsync.full == 2) {
        client->listing = false;
        drop_unlisted(s, peer);
    }
}

void deliver_close(struct shard *s, uint32_t peer, const struct message *m)
{
    uint16_t slot = SLOT_UNKNOWN;
    enum nack_code code = m->cid != 0 ? slot_check(s, m, &slot) : NACK_NONE;
    if (code != NACK_NONE) {
        send_nack(s, asker_of(s, peer, m), m->key, slot, code, 0);
        return;
    }
    const struct room *room = rooms_find(s, m->key);
    struct message relay = *m;
    relay.cid = 0;
    for (uint16_t i = 0; room && i < room->n_subs; i++)
        hub_send(s->hub, room->subs[i].peer, &relay);
    if (m->cid == 0)
        return;
    struct message done = {.type = MSG_PACK, .cid = m->cid, .slot = slot, .key = m->key};
    done.ep = s->slot_epoch[slot];
    hub_send(s->hub, peer, &done);
}

/* ---- a client's end ---- */

void deliver_client_free(struct shard *s, struct client *client)
{
    for (size_t i = 0; i < client->dirty.count; i++) {
        struct room *room = VEC_AT(&client->dirty, struct room *)[i];
        room->dirty_refs--;
        rooms_drop_if_blank(s, room);
    }
    for (size_t i = 0; i < client->parked.count; i++)
        buf_unref(VEC_AT(&client->parked, struct parked)[i].key);
    vec_free(&client->dirty);
    vec_free(&client->parked);
    mem_free(client);
}

void deliver_client_gone(struct shard *s, uint32_t peer)
{
    size_t cursor = 0;
    struct room *room;
    while ((room = (struct room *)map_next(s->rooms, &cursor)) != NULL) {
        actors_client_gone(s, peer, room);
        unsubscribe(s, peer, room);
    }
}
