/* The cluster of gateway_world: routers and a shard made of hubs, with one log behind them. */
#include "gateway_far.h"

#include "common/hash.h"
#include "common/json.h"
#include "common/utf8.h"

#define EVENTS_MAX 20000
#define ROOMS_MAX 64
#define QUEUE_MAX 8192

struct faults faults;
unsigned n_pubs, n_subs, n_unsubs, n_replays, n_syncs, n_full_syncs, n_credits;
uint64_t last_msg_id[2];
bool (*shard_hears)(const struct message *m);

/* ---- the far side ---- */

struct stored {
    char *payload, *conflate, *filter;
    size_t size, filter_size;
    uint32_t flags;
    int64_t ts;
    uint64_t msg_id[2];
};
struct fake_room {
    char key[300];
    uint64_t epoch, head, floor;
    enum miss_reason reason;
    bool subscribed;
    struct stored *events; /* [seq - 1] */
};
static struct fake_room rooms[ROOMS_MAX];
static size_t n_rooms;

enum { ROUTER_A, ROUTER_B, SHARD, FAR_COUNT };
struct far {
    struct hub *hub;
    struct metrics *metrics;
    uint32_t dialed; /* the gateway's number for it, 0: not in use */
    uint32_t peer;   /* its number for the gateway, 0: not yet */
    uint64_t boot;
    bool up;
};
static struct far far[FAR_COUNT];

struct parcel {
    unsigned far;
    bool to_gateway;
    struct buf *bytes;
};
static struct parcel queue[QUEUE_MAX];
static size_t queue_first, queue_last;

struct held_page {
    uint64_t cid;
    struct msg_replay_req request;
    char key[300];
};
static struct held_page held[256];
static size_t n_held;
static uint64_t granted;
static bool claims;

static void post(unsigned which, bool to_gateway, const void *packet, size_t size)
{
    ck_assert_uint_lt(queue_last - queue_first, QUEUE_MAX);
    queue[queue_last++ % QUEUE_MAX] =
        (struct parcel){.far = which, .to_gateway = to_gateway, .bytes = buf_copy(packet, size)};
}

int far_gateway_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    (void)ctx;
    for (unsigned i = 0; i < FAR_COUNT; i++)
        if (far[i].dialed == peer && far[i].up)
            post(i, false, packet, size);
    return ERR_OK;
}

static int far_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct far *f = ctx;
    (void)peer;
    if (f->up)
        post((unsigned)(f - far), true, packet, size);
    return ERR_OK;
}

static void far_forget(void *ctx, uint32_t peer)
{
    struct far *f = ctx;
    if (f->peer == peer)
        f->peer = 0;
}

static struct fake_room *room_of(const char *key)
{
    for (size_t i = 0; i < n_rooms; i++)
        if (strcmp(rooms[i].key, key) == 0)
            return &rooms[i];
    ck_assert_uint_lt(n_rooms, ROOMS_MAX);
    struct fake_room *room = &rooms[n_rooms++];
    snprintf(room->key, sizeof room->key, "%s", key);
    room->events = mem_zalloc(EVENTS_MAX * sizeof *room->events);
    return room;
}

static void stored_free(struct stored *e)
{
    mem_free(e->payload);
    mem_free(e->conflate);
    mem_free(e->filter);
    *e = (struct stored){0};
}

static struct fake_room *room_of_slice(struct slice key)
{
    char text[300];
    snprintf(text, sizeof text, "%.*s", SLICE_FMT(key));
    return room_of(text);
}

static uint32_t flags_of(struct slice payload)
{
    return (json_valid(payload) ? EVENT_JSON : 0) | (utf8_valid(payload) ? EVENT_UTF8 : 0);
}

static struct stored *room_store(struct fake_room *room, struct slice payload)
{
    ck_assert_uint_lt(room->head, EVENTS_MAX);
    if (room->epoch == 0)
        room->epoch = HISTORY;
    struct stored *e = &room->events[room->head++];
    *e = (struct stored){.payload = mem_strndup((const char *)payload.data, payload.size),
                         .size = payload.size,
                         .flags = flags_of(payload),
                         .ts = now.wall_ms};
    return e;
}

static struct event_item item_of(const struct fake_room *room, uint64_t seq)
{
    const struct stored *e = &room->events[seq - 1];
    return (struct event_item){.prev = seq - 1,
                               .seq = seq,
                               .ts = e->ts,
                               .flags = e->flags,
                               .conflate = slice_text(e->conflate ? e->conflate : ""),
                               .filter = slice_of(e->filter, e->filter_size),
                               .payload = slice_of(e->payload, e->size)};
}

static void shard_send(const struct message *m)
{
    if (far[SHARD].peer)
        hub_send(far[SHARD].hub, far[SHARD].peer, m);
}

static void deliver(const struct fake_room *room, const struct event_item *items, size_t count)
{
    if (!room->subscribed)
        return;
    if (faults.lose_delivers > 0) {
        faults.lose_delivers--;
        return;
    }
    struct message m = {.type = MSG_DELIVER,
                        .slot = slot_of(slice_text(room->key), SEED),
                        .ep = 1,
                        .key = slice_text(room->key)};
    m.deliver.room_epoch = room->epoch;
    m.deliver.items = (struct events_list){items, count};
    shard_send(&m);
}

static bool superseded(const struct fake_room *room, uint64_t seq)
{
    const char *value = room->events[seq - 1].conflate;
    for (uint64_t later = seq + 1; value && later <= room->head; later++)
        if (room->events[later - 1].conflate &&
            strcmp(room->events[later - 1].conflate, value) == 0)
            return true;
    return false;
}

/* Joiners are not given what was said to those who were there. */
static bool passed_over(const struct fake_room *room, const struct msg_replay_req *r, uint64_t seq)
{
    bool joiner = r->mode == REPLAY_LATEST || r->last > 0;
    return (joiner && (room->events[seq - 1].flags & EVENT_TRANSIENT)) ||
           (r->mode == REPLAY_LATEST && superseded(room, seq));
}

static void send_page(uint64_t cid, const struct msg_replay_req *r, const char *key)
{
    static struct event_item items[REPLAY_PAGE_MAX_ITEMS];
    struct fake_room *room = room_of(key);
    struct message m = {.type = MSG_REPLAY, .cid = cid, .ep = 1, .key = slice_text(key)};
    uint64_t base = r->after;
    size_t count = 0, bytes = 0;
    m.slot = slot_of(m.key, SEED);
    m.replay.room_epoch = room->epoch;
    m.replay.head = room->head;
    bool other = (r->epoch != 0 && r->epoch != room->epoch) || r->after > room->head;
    if (r->last > 0) {
        base = room->head;
        for (uint64_t found = 0; base > room->floor; base--)
            if (!passed_over(room, r, base) && found++ == r->last)
                break;
    } else if (other || r->after < room->floor) {
        m.replay.miss_from = r->after;
        m.replay.miss_to = base = room->floor;
        m.replay.miss_reason = other ? MISS_EPOCH : room->reason;
    }
    uint64_t most = faults.page_items ? faults.page_items : REPLAY_PAGE_MAX_ITEMS;
    if (r->max_items && r->max_items < most)
        most = r->max_items;
    m.replay.after = base;
    uint64_t prev = base;
    for (uint64_t seq = base + 1; seq <= room->head && count < most; seq++) {
        if (count > 0 && bytes + room->events[seq - 1].size > r->max_bytes)
            break;
        m.replay.after = seq;
        if (passed_over(room, r, seq))
            continue;
        items[count] = item_of(room, seq);
        items[count].prev = prev;
        prev = seq;
        bytes += items[count++].payload.size;
    }
    m.replay.eof = m.replay.after == room->head;
    m.replay.items = (struct events_list){items, count};
    shard_send(&m);
}

void release_pages(void)
{
    for (size_t i = 0; i < n_held; i++)
        send_page(held[i].cid, &held[i].request, held[i].key);
    n_held = 0;
    settle();
}

static void on_replay_req(const struct message *m)
{
    char key[300];
    n_replays++;
    snprintf(key, sizeof key, "%.*s", SLICE_FMT(m->key));
    if (!faults.hold_pages) {
        send_page(m->cid, &m->replay_req, key);
        return;
    }
    ck_assert_uint_lt(n_held, 256);
    held[n_held] = (struct held_page){.cid = m->cid, .request = m->replay_req};
    memcpy(held[n_held++].key, key, sizeof key);
}

static void on_sub(const struct message *m)
{
    struct fake_room *room = room_of_slice(m->key);
    n_subs++;
    if (!claims) {
        struct message nack = {.type = MSG_NACK, .cid = m->cid, .slot = m->slot, .key = m->key};
        nack.nack.code = NACK_NOTOWNER;
        shard_send(&nack);
        return;
    }
    room->subscribed = true;
    struct message ack = {.type = MSG_SUBACK, .cid = m->cid, .slot = m->slot, .key = m->key};
    ack.suback.room_epoch = room->epoch;
    ack.suback.head = room->head;
    shard_send(&ack);
}

static void on_subsync(const struct message *m)
{
    n_syncs++;
    n_full_syncs += m->subsync.full == 2;
    for (size_t i = 0; i < m->subsync.rooms.count; i++) {
        const struct mark *mark = &m->subsync.rooms.at[i];
        struct fake_room *room = room_of_slice(mark->key);
        room->subscribed = true;
        if (mark->epoch != room->epoch || mark->seq != room->head)
            shard_resync(room->key);
    }
}

static void on_shard_ask(const struct message *m)
{
    static const char *const texts[] = {
        [ASK_STATUS] = "{\"role\":\"shard\",\"name\":\"shard-0\",\"slots\":16384}",
        [ASK_KEYS] = "{\"keys\":[{\"key\":\"b\",\"head\":9,\"events\":2,\"bytes\":7},"
                     "{\"key\":\"a\"},{\"key\":\"c\\u00e9\"}],\"more\":false}",
        [ASK_TOP] = "{\"rooms\":[{\"key\":\"a\",\"per_second\":1.5},{\"key\":\"b\","
                    "\"per_second\":20}]}",
        [ASK_GATEWAYS] = "[]",
    };
    if (faults.mute_asks)
        return;
    struct message answer = {.type = MSG_ANSWER, .cid = m->cid, .slot = m->slot, .key = m->key};
    if (m->ask.what != ASK_CONNECTIONS) {
        answer.answer.json = slice_text(texts[m->ask.what]);
        shard_send(&answer);
        return;
    }
    /* As a shard does: ask the gateway under a number of our own, pass its answer on. */
    struct message question = *m;
    question.cid = m->cid | 1u << 31;
    shard_send(&question);
}

void shard_says(const struct message *m)
{
    shard_send(m);
}

static void on_shard_message(const struct message *m)
{
    struct message reply = {.cid = m->cid, .slot = m->slot, .key = m->key};
    if (shard_hears && shard_hears(m))
        return;
    switch (m->type) {
    case MSG_SUB:
        on_sub(m);
        break;
    case MSG_UNSUB:
        n_unsubs++;
        room_of_slice(m->key)->subscribed = false;
        break;
    case MSG_SUBSYNC:
        on_subsync(m);
        break;
    case MSG_REPLAY_REQ:
        on_replay_req(m);
        break;
    case MSG_CREDIT:
        n_credits++;
        granted = m->credit.granted;
        break;
    case MSG_CLOSE: {
        char key[300];
        char reason[128];
        snprintf(key, sizeof key, "%.*s", SLICE_FMT(m->key));
        snprintf(reason, sizeof reason, "%.*s", SLICE_FMT(m->close.reason));
        shard_close(key, (unsigned)m->close.code, reason);
        break;
    }
    case MSG_PURGE: {
        struct fake_room *room = room_of_slice(m->key);
        room->floor = room->head;
        room->reason = MISS_PURGED;
        reply.type = MSG_PACK;
        reply.pack.room_epoch = room->epoch;
        reply.pack.seq = room->head;
        shard_send(&reply);
        break;
    }
    case MSG_ASK:
        on_shard_ask(m);
        break;
    case MSG_ANSWER:
        reply.type = MSG_ANSWER;
        reply.cid = m->cid & ~(1u << 31);
        reply.answer.json = m->answer.json;
        shard_send(&reply);
        break;
    default:
        ck_abort_msg("unexpected message %s", message_name(m->type));
    }
}

/* ---- publishing ---- */

static void pub_answer(struct far *f, const struct message *m, struct fake_room *room, bool dup,
                       uint64_t seq)
{
    struct message pack = {.type = MSG_PACK, .cid = m->cid, .slot = m->slot, .key = m->key};
    if (faults.hold_packs)
        return;
    bool ephemeral = (m->pub.flags & PUB_EPHEMERAL) != 0;
    pack.pack.room_epoch = ephemeral ? 0 : room->epoch;
    pack.pack.seq = ephemeral ? 0 : seq;
    pack.pack.count = m->pub.payloads.count;
    pack.pack.dup = dup;
    hub_send(f->hub, f->peer, &pack);
}

static void pub_store(const struct message *m, struct fake_room *room)
{
    static struct event_item items[BATCH_MAX_EVENTS];
    bool ephemeral = (m->pub.flags & PUB_EPHEMERAL) != 0;
    uint32_t typed = m->pub.flags & PUB_TYPED ? EVENT_TYPED : 0;
    for (size_t i = 0; i < m->pub.payloads.count; i++) {
        struct slice payload = m->pub.payloads.at[i];
        if (ephemeral) {
            items[i] = (struct event_item){.prev = room->head,
                                           .seq = room->head,
                                           .ts = now.wall_ms,
                                           .flags = flags_of(payload) | EVENT_EPHEMERAL | typed,
                                           .filter = m->pub.filter,
                                           .payload = payload};
            continue;
        }
        struct stored *e = room_store(room, payload);
        e->flags |= typed;
        e->filter = mem_strndup((const char *)m->pub.filter.data, m->pub.filter.size);
        e->filter_size = m->pub.filter.size;
        memcpy(e->msg_id, m->pub.msg_id, 16);
        if (m->pub.conflate.size > 0)
            e->conflate = mem_strndup((const char *)m->pub.conflate.data, m->pub.conflate.size);
        items[i] = item_of(room, room->head);
    }
    deliver(room, items, m->pub.payloads.count);
}

static void on_pub(struct far *f, const struct message *m)
{
    struct fake_room *room = room_of_slice(m->key);
    n_pubs++;
    memcpy(last_msg_id, m->pub.msg_id, 16);
    if (faults.nacks > 0) {
        faults.nacks--;
        struct message nack = {.type = MSG_NACK, .cid = m->cid, .slot = m->slot, .key = m->key};
        nack.nack.code = faults.nack;
        nack.nack.retry_ms = faults.retry_ms;
        hub_send(f->hub, f->peer, &nack);
        return;
    }
    if (faults.lose_publishes)
        return;
    for (uint64_t seq = room->head; seq > 0; seq--)
        if (memcmp(room->events[seq - 1].msg_id, m->pub.msg_id, 16) == 0) {
            pub_answer(f, m, room, true, seq);
            return;
        }
    pub_store(m, room);
    pub_answer(f, m, room, false, room->head);
}

static void far_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct far *f = ctx;
    (void)packet;
    f->peer = peer;
    if (f == &far[SHARD]) {
        on_shard_message(m);
    } else if (m->type == MSG_PUB) {
        on_pub(f, m);
    } else {
        ck_assert_uint_eq(m->type, MSG_ASK);
        struct message answer = {.type = MSG_ANSWER, .cid = m->cid, .slot = m->slot};
        answer.answer.json = slice_text("{\"role\":\"router\",\"name\":\"router-0\",\"up\":7}");
        if (!faults.mute_asks)
            hub_send(f->hub, f->peer, &answer);
    }
}

void shard_claim(void)
{
    struct slot_range all = {.lo = 0, .hi = SLOT_COUNT - 1, .epoch = 1};
    struct message m = {.type = MSG_CLAIM, .slot = SLOT_UNKNOWN};
    claims = true;
    m.claim.boot = far[SHARD].boot;
    m.claim.ready = 1;
    m.claim.slots = (struct ranges_list){&all, 1};
    shard_send(&m);
}

void shard_withdraw(void)
{
    struct message m = {.type = MSG_CLAIM, .slot = SLOT_UNKNOWN};
    m.claim.boot = far[SHARD].boot;
    m.claim.ready = 1;
    claims = false;
    shard_send(&m);
    settle();
}

static void far_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    struct far *f = ctx;
    (void)info;
    f->peer = peer;
    if (f == &far[SHARD]) {
        for (size_t i = 0; i < n_rooms; i++)
            rooms[i].subscribed = false;
        shard_claim();
    }
}

static void far_down(void *ctx, uint32_t peer)
{
    (void)ctx;
    (void)peer;
}

/* ---- links ---- */

static void far_start(unsigned which)
{
    static const char *const names[] = {"router-0", "router-1", "shard-0"};
    struct far *f = &far[which];
    struct hub_self self = {.role = which == SHARD ? ROLE_SHARD : ROLE_ROUTER,
                            .boot = ++f->boot,
                            .cluster = CLUSTER,
                            .name = names[which],
                            .version = "0.1"};
    struct hub_handler handler = {
        .ctx = f, .on_up = far_up, .on_down = far_down, .on_message = far_message};
    struct hub_ports ports = {.ctx = f, .send = far_send, .forget = far_forget};
    self.node[0] = (uint8_t)(which + 1);
    f->metrics = metrics_create();
    f->hub = hub_create(&self, &handler, &ports, NULL, f->metrics, which + 1);
    f->peer = 0;
}

static void far_stop(unsigned which)
{
    hub_destroy(&far[which].hub);
    metrics_destroy(&far[which].metrics);
}

static void far_connect(unsigned which)
{
    far[which].up = true;
    hub_connected(gateway_hub(gateway), far[which].dialed, now);
}

static void far_disconnect(unsigned which)
{
    far[which].up = false;
    for (size_t i = queue_first; i < queue_last; i++)
        if (queue[i % QUEUE_MAX].far == which) {
            buf_unref(queue[i % QUEUE_MAX].bytes);
            queue[i % QUEUE_MAX].bytes = NULL;
        }
    hub_disconnected(gateway_hub(gateway), far[which].dialed, now);
}

static bool carry(void)
{
    if (queue_first == queue_last)
        return false;
    struct parcel p = queue[queue_first++ % QUEUE_MAX];
    struct far *f = &far[p.far];
    if (!p.bytes)
        return true;
    if (p.to_gateway) {
        hub_packet(gateway_hub(gateway), f->dialed, p.bytes, now);
    } else {
        if (!f->peer)
            f->peer = hub_accept(f->hub, 0, now);
        hub_packet(f->hub, f->peer, p.bytes, now);
    }
    buf_unref(p.bytes);
    return true;
}

void far_carry(void)
{
    for (size_t n = queue_last - queue_first; n > 0 && carry(); n--)
        ;
}

bool far_idle(void)
{
    return queue_first == queue_last;
}

void far_turn(void)
{
    for (unsigned i = 0; i < FAR_COUNT; i++)
        if (far[i].hub && far[i].up) {
            hub_tick(far[i].hub, now);
            hub_flush(far[i].hub, now);
        }
}

void far_begin(unsigned n_routers)
{
    for (unsigned i = 0; i < n_routers; i++)
        far[i].dialed = i + 1;
    far[SHARD].dialed = n_routers + 1;
    for (unsigned i = 0; i < FAR_COUNT; i++)
        if (far[i].dialed) {
            far_start(i);
            far_connect(i);
        }
}

void far_end(void)
{
    for (unsigned i = 0; i < FAR_COUNT; i++)
        if (far[i].hub)
            far_stop(i);
    for (size_t i = queue_first; i < queue_last; i++)
        buf_unref(queue[i % QUEUE_MAX].bytes);
    for (size_t i = 0; i < n_rooms; i++) {
        for (size_t n = 0; n < rooms[i].head; n++)
            stored_free(&rooms[i].events[n]);
        mem_free(rooms[i].events);
    }
    memset(rooms, 0, sizeof rooms); /* as before the first begin */
    memset(far, 0, sizeof far);
    memset(&faults, 0, sizeof faults);
    n_rooms = queue_first = queue_last = n_held = 0;
    n_pubs = n_subs = n_unsubs = n_replays = n_syncs = n_full_syncs = n_credits = 0;
    granted = 0;
    claims = false;
}

/* ---- the cluster, from tests ---- */

void router_down(unsigned router)
{
    far_disconnect(router);
    settle();
}

void router_up(unsigned router)
{
    far_stop(router);
    far_start(router);
    far_connect(router);
    settle();
}

void shard_down(void)
{
    far_disconnect(SHARD);
    settle();
}

void shard_up(bool new_boot)
{
    if (!new_boot)
        far[SHARD].boot--;
    far_stop(SHARD);
    far_start(SHARD);
    far_connect(SHARD);
    settle();
}

void room_append_bytes(const char *key, const void *payload, size_t size)
{
    room_store(room_of(key), slice_of(payload, size));
}

void room_append(const char *key, const char *payload)
{
    room_append_bytes(key, payload, strlen(payload));
}

void room_conflate(const char *key, const char *value, const char *payload)
{
    room_store(room_of(key), slice_text(payload))->conflate = mem_strdup(value);
}

void room_trim(const char *key, uint64_t floor, enum miss_reason reason)
{
    room_of(key)->floor = floor;
    room_of(key)->reason = reason;
}

void room_reborn(const char *key, uint64_t epoch)
{
    struct fake_room *room = room_of(key);
    for (uint64_t i = 0; i < room->head; i++)
        stored_free(&room->events[i]);
    room->epoch = epoch;
    room->head = room->floor = 0;
}

void room_roll_back(const char *key, uint64_t head)
{
    struct fake_room *room = room_of(key);
    for (; room->head > head; room->head--) {
        stored_free(&room->events[room->head - 1]);
    }
}

void room_publish_bytes(const char *key, const void *payload, size_t size, uint32_t flags)
{
    struct fake_room *room = room_of(key);
    struct event_item item;
    if (flags & EVENT_EPHEMERAL) {
        struct slice bytes = slice_of(payload, size);
        item = (struct event_item){.prev = room->head,
                                   .seq = room->head,
                                   .ts = now.wall_ms,
                                   .flags = flags_of(bytes) | flags,
                                   .payload = bytes};
    } else {
        room_append_bytes(key, payload, size);
        item = item_of(room, room->head);
    }
    deliver(room, &item, 1);
}

void room_say(const char *key, const char *payload, uint32_t flags, struct slice filter)
{
    struct fake_room *room = room_of(key);
    room_append(key, payload);
    struct stored *e = &room->events[room->head - 1];
    e->flags |= flags;
    e->filter = mem_strndup(filter.size ? (const char *)filter.data : "", filter.size);
    e->filter_size = filter.size;
    struct event_item item = item_of(room, room->head);
    deliver(room, &item, 1);
}

void room_publish(const char *key, const char *payload)
{
    room_publish_bytes(key, payload, strlen(payload), 0);
    settle();
}

void shard_resync(const char *key)
{
    struct fake_room *room = room_of(key);
    struct mark mark = {
        .key = slice_text(room->key), .epoch = room->epoch, .seq = room->head, .count = 0};
    struct message m = {.type = MSG_RESYNC, .slot = SLOT_UNKNOWN};
    m.resync.rooms = (struct marks_list){&mark, 1};
    shard_send(&m);
}

void shard_close(const char *key, unsigned code, const char *reason)
{
    struct message m = {.type = MSG_CLOSE, .key = slice_text(key)};
    m.slot = slot_of(m.key, SEED);
    m.close.code = code;
    m.close.reason = slice_text(reason);
    shard_send(&m);
}

size_t room_count(const char *key)
{
    return room_of(key)->head;
}

uint64_t shard_granted(void)
{
    return granted;
}

void shard_send_bytes(size_t bytes)
{
    while (bytes > 0) {
        size_t part = bytes < MIB ? bytes : MIB;
        char *payload = mem_zalloc(part);
        struct event_item item = {.prev = 5, .seq = 6, .payload = slice_of(payload, part)};
        struct message m = {.type = MSG_DELIVER, .key = slice_text("nobody")};
        m.deliver.items = (struct events_list){&item, 1};
        m.slot = slot_of(m.key, SEED);
        shard_send(&m);
        mem_free(payload);
        bytes -= part;
    }
    settle();
}
