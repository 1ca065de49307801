/* CORE. The router's two ways: up, from publishers and gateways to the shard that owns the key's
 * slot (message_from_door), and down, from a shard to whoever asked (message_from_shard). Messages
 * pass undecoded: the prefix is read, cid, slot and ep are stamped into the copy.
 *
 * router_tell.c has what the router says by itself: NACK, ERR, RING, LOST and its status. */
#include "router/router.h"

#include "common/hash.h"
#include "common/mem.h"
#include "common/utf8.h"
#include "router/router_internal.h"

_Static_assert(PEERS_MAX <= 0xffff, "a peer's number fits its place in the cid");

/* ---- the cid on links to shards ---- */

static uint64_t cid_pack(uint16_t generation, uint32_t peer, uint64_t cid)
{
    return (uint64_t)generation << 48 | (uint64_t)peer << 32 | cid;
}

/* Whether who asked for an answer of this type is still there, in the incarnation that asked.
 * Shards ask CALLs only. */
static bool cid_unpack(const struct router *r, uint64_t type, uint64_t packed, uint32_t *peer,
                       uint64_t *cid)
{
    *peer = (uint32_t)(packed >> 32 & 0xffff);
    *cid = packed & CID_MAX;
    if (*peer <= r->n_shards && type != MSG_RESULT && type != MSG_NACK)
        return false;
    return *peer >= 1 && *peer <= PEERS_MAX && r->generation[*peer] == (uint16_t)(packed >> 48) &&
           hub_is_up(r->hub, *peer);
}

/* ---- up: publishers and gateways ---- */

static bool door_takes(unsigned door, uint64_t type)
{
    switch (type) {
    case MSG_PUB:
    case MSG_PURGE:
    case MSG_ASK:
        return true;
    case MSG_CALL: /* gateways ask the shard itself */
    case MSG_CLOSE:
        return door == ROUTER_DOOR_PUBLISH;
    default:
        return false;
    }
}

/* The asker gets an answer of the kind that it waits for. */
static void refuse(struct router *r, uint32_t peer, const struct message_prefix *p,
                   enum nack_code code, uint64_t ep)
{
    if (p->type == MSG_ASK)
        router_tell_refusal(r, peer, p, code);
    else
        router_tell_nack(r, peer, p, code, ep);
}

static void forward(struct router *r, uint32_t peer, const struct message_prefix *p,
                    struct slice head, struct slice body)
{
    uint16_t slot = slot_of(p->key, r->slot_seed);
    if (p->slot != SLOT_UNKNOWN && p->slot != slot) {
        /* Another slot seed: another configuration. Guessing would split a room in two. */
        metric_add(r->forwards[FORWARD_INVALID], 1);
        refuse(r, peer, p, NACK_INVALID, 0);
        return;
    }
    struct slot_owner owner = slots_owner(r->slots, slot);
    if (owner.peer == 0 || !hub_is_up(r->hub, owner.peer)) {
        metric_add(r->forwards[FORWARD_NOTOWNER], 1);
        refuse(r, peer, p, NACK_NOTOWNER, owner.epoch);
        return;
    }
    struct router_shard *shard = &r->shards[owner.peer];
    shard->outstanding++;
    shard->used = true;
    metric_add(r->forwards[FORWARD_OK], 1);
    hub_forward(r->hub, owner.peer, head, body, cid_pack(r->generation[peer], peer, p->cid), slot,
                owner.epoch);
}

static void message_from_door(struct router *r, uint32_t peer, const struct message_prefix *p,
                              struct slice head, struct slice body)
{
    if (!door_takes(hub_door(r->hub, peer), p->type)) {
        metric_add(r->forwards[FORWARD_INVALID], 1);
        router_tell_error(r, peer, p->cid, "this socket does not take this type of message");
    } else if (p->cid > CID_MAX) {
        metric_add(r->forwards[FORWARD_INVALID], 1);
        router_tell_error(r, peer, 0, "cid above 2^32-1");
    } else if (p->type == MSG_ASK && p->key.size == 0) {
        router_tell_own_answer(r, peer, p, head, body);
    } else if (!key_valid(p->key, hub_door(r->hub, peer) == ROUTER_DOOR_GATEWAY)) {
        /* Keys of our own ($stoa:revoked) are written by gateways, which ask for the right. */
        metric_add(r->forwards[FORWARD_INVALID], 1);
        refuse(r, peer, p, NACK_INVALID, 0);
    } else if (r->draining) {
        metric_add(r->forwards[FORWARD_DRAINING], 1);
        refuse(r, peer, p, NACK_BUSY, 0);
    } else {
        forward(r, peer, p, head, body);
    }
}

/* ---- down: shards ---- */

/* A room asks a sibling that lies on another shard. */
static void call_from_shard(struct router *r, uint32_t peer, const struct message_prefix *p,
                            struct slice head, struct slice body)
{
    if (p->cid > CID_MAX || !key_valid(p->key, true)) {
        metric_add(r->forwards[FORWARD_INVALID], 1);
        router_tell_error(r, peer, p->cid & CID_MAX, "a call needs a key and a short cid");
    } else if (r->draining) {
        metric_add(r->forwards[FORWARD_DRAINING], 1);
        refuse(r, peer, p, NACK_BUSY, 0);
    } else {
        forward(r, peer, p, head, body);
    }
}

/* An item of a stream: the answer is still to come. */
static bool is_item(struct router *r, const struct message_prefix *p, struct slice head,
                    struct slice body)
{
    struct message m;
    return p->type == MSG_RESULT && message_decode(head, body, &r->arena, &m) == ERR_OK &&
           m.result.more != 0;
}

static void reply_from_shard(struct router *r, uint32_t shard, const struct message_prefix *p,
                             struct slice head, struct slice body)
{
    uint32_t peer;
    uint64_t cid;
    if (r->shards[shard].outstanding > 0 && !is_item(r, p, head, body))
        r->shards[shard].outstanding--;
    if (!cid_unpack(r, p->type, p->cid, &peer, &cid)) {
        metric_add(r->replies_stale, 1);
        return;
    }
    metric_add(r->replies, 1);
    hub_forward(r->hub, peer, head, body, cid, p->slot, p->ep);
}

static void claim_from_shard(struct router *r, uint32_t peer, struct slice head, struct slice body)
{
    struct message m;
    const struct peer_info *info = hub_info(r->hub, peer);
    if (message_decode(head, body, &r->arena, &m) != ERR_OK || m.claim.boot != info->boot) {
        router_tell_error(r, peer, 0, "malformed CLAIM");
        return;
    }
    /* A shard that is still rebuilding its index owns its slots but cannot serve them. */
    size_t count = m.claim.ready ? m.claim.slots.count : 0;
    slots_claim(r->slots, peer, info->node, info->boot, m.claim.slots.at, count, r->log);
    r->ring_changed = true;
    LOG(r->log, LOG_INFO, "router.claim", LOG_STR("shard", info->name),
        LOG_U64("slots", slots_owned(r->slots, peer)), LOG_U64("unowned", slots_unowned(r->slots)));
    if (m.claim.ready && r->shards[peer].lost) {
        r->shards[peer].lost = false;
        router_tell_lost(r, peer - 1);
    }
}

static void message_from_shard(struct router *r, uint32_t peer, const struct message_prefix *p,
                               struct slice head, struct slice body)
{
    switch (p->type) {
    case MSG_PACK:
    case MSG_NACK:
    case MSG_ANSWER:
    case MSG_RESULT:
        reply_from_shard(r, peer, p, head, body);
        break;
    case MSG_CALL:
        call_from_shard(r, peer, p, head, body);
        break;
    case MSG_CLAIM:
        claim_from_shard(r, peer, head, body);
        break;
    default:
        router_tell_error(r, peer, 0, "a router does not take this type of message from a shard");
    }
}

/* ---- the hub's events ---- */

static bool is_shard(const struct router *r, uint32_t peer)
{
    return peer <= r->n_shards;
}

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    struct router *r = ctx;
    r->generation[peer]++;
    if (!is_shard(r, peer)) {
        router_tell_ring(r, peer);
        return;
    }
    r->shards[peer].stranger = info->role != ROLE_SHARD;
    r->ring_changed = true;
    if (r->shards[peer].stranger)
        LOG(r->log, LOG_ERROR, "router.not_a_shard",
            LOG_STR("endpoint", r->shard_endpoints[peer - 1]),
            LOG_STR("role", role_name(info->role)));
}

static void on_down(void *ctx, uint32_t peer)
{
    struct router *r = ctx;
    if (!is_shard(r, peer))
        return;
    struct router_shard *shard = &r->shards[peer];
    shard->lost |= shard->used;
    shard->used = false;
    shard->outstanding = 0;
    r->ring_changed = true;
    slots_peer_down(r->slots, peer);
}

static void on_raw(void *ctx, uint32_t peer, const struct message_prefix *p, struct slice head,
                   struct slice body, struct buf *packet)
{
    (void)packet;
    struct router *r = ctx;
    if (!is_shard(r, peer))
        message_from_door(r, peer, p, head, body);
    else if (!r->shards[peer].stranger)
        message_from_shard(r, peer, p, head, body);
}

static bool admits(void *ctx, unsigned door, enum role role)
{
    (void)ctx;
    if (door == ROUTER_DOOR_GATEWAY)
        return role == ROLE_GATEWAY;
    return role == ROLE_PUBLISHER || role == ROLE_ADMIN;
}

/* ---- the program's calls ---- */

static void register_metrics(struct router *r, struct metrics *metrics)
{
    static const char *const labels[FORWARD_RESULTS] = {
        [FORWARD_OK] = "result=\"ok\"",
        [FORWARD_NOTOWNER] = "result=\"notowner\"",
        [FORWARD_INVALID] = "result=\"invalid\"",
        [FORWARD_DRAINING] = "result=\"draining\"",
    };
    for (size_t i = 0; i < FORWARD_RESULTS; i++)
        r->forwards[i] = metrics_counter(metrics, "stoa_router_forwards_total", labels[i],
                                         "Messages of publishers and gateways, by outcome.");
    r->replies = metrics_counter(metrics, "stoa_router_replies_total", "result=\"ok\"",
                                 "Answers of shards, by outcome.");
    r->replies_stale = metrics_counter(metrics, "stoa_router_replies_total", "result=\"stale\"",
                                       "Answers of shards, by outcome.");
    r->unowned = metrics_gauge(metrics, "stoa_slots_unowned", "",
                               "Slots that no shard serves at the moment.");
    metric_set(r->unowned, slots_unowned(r->slots));
}

struct router *router_create(const struct router_options *options, const struct hub_ports *ports,
                             struct log *log, struct metrics *metrics)
{
    STOA_ASSERT(options->n_shards < PEERS_MAX);
    struct router *r = mem_zalloc(sizeof *r);
    r->name = options->self.name;
    r->version = options->self.version;
    r->boot = options->self.boot;
    r->slot_seed = options->slot_seed;
    r->n_shards = options->n_shards;
    r->shard_endpoints = options->shard_endpoints;
    r->log = log;
    r->slots = slots_create();
    r->shards = mem_zalloc((options->n_shards + 1) * sizeof *r->shards);
    r->drain_ns = TICK_NEVER;
    rng_seed(&r->rng, options->seed);
    struct hub_self self = options->self;
    self.win_msgs = ROUTER_WINDOW_MESSAGES;
    self.win_bytes = ROUTER_WINDOW_BYTES;
    const struct hub_handler handler = {
        .ctx = r, .on_up = on_up, .on_down = on_down, .on_raw = on_raw, .admits = admits};
    r->hub = hub_create(&self, &handler, ports, log, metrics, rng_u64(&r->rng));
    for (uint32_t n = 1; n <= r->n_shards; n++)
        STOA_ASSERT(hub_dial(r->hub) == n);
    register_metrics(r, metrics);
    return r;
}

void router_destroy(struct router **router)
{
    struct router *r = *router;
    if (!r)
        return;
    *router = NULL;
    hub_destroy(&r->hub);
    slots_destroy(&r->slots);
    message_arena_free(&r->arena);
    strbuf_free(&r->scratch);
    mem_free(r->shards);
    mem_free(r);
}

struct hub *router_hub(struct router *r)
{
    return r->hub;
}

uint64_t router_outstanding(const struct router *r)
{
    uint64_t sum = 0;
    for (uint32_t n = 1; n <= r->n_shards; n++)
        sum += r->shards[n].outstanding;
    return sum;
}

static void drain_step(struct router *r, struct tick now)
{
    if (!r->draining || r->drained)
        return;
    if (router_outstanding(r) > 0 && now.mono_ns < r->drain_ns)
        return;
    hub_goodbye(r->hub, now);
    r->drained = true;
}

void router_turn(struct router *r, struct tick now)
{
    hub_tick(r->hub, now);
    if (r->ring_changed) {
        r->ring_changed = false;
        metric_set(r->unowned, slots_unowned(r->slots));
        router_tell_ring_all(r);
    }
    hub_flush(r->hub, now);
    drain_step(r, now);
}

int64_t router_deadline(const struct router *r)
{
    int64_t hub = hub_deadline(r->hub);
    return !r->drained && r->drain_ns < hub ? r->drain_ns : hub;
}

bool router_ready(const struct router *r)
{
    return !r->draining && slots_unowned(r->slots) < SLOT_COUNT;
}

void router_drain(struct router *r, struct tick now)
{
    if (r->draining)
        return;
    r->draining = true;
    r->drain_ns = now.mono_ns + ROUTER_DRAIN_MS * NS_PER_MS;
    LOG(r->log, LOG_INFO, "router.drain", LOG_U64("outstanding", router_outstanding(r)));
}

bool router_drained(const struct router *r)
{
    return r->drained;
}
