/* CORE. What a router says by itself, beside forwarding: refusals, LOST, the RING hint and its own
 * status. */
#include "common/json.h"
#include "common/mem.h"
#include "router/router_internal.h"

#define RETRY_MIN_MS 100
#define RETRY_SPREAD_MS 100
#define RING_RANGES_MAX 2048

static struct message message_to(uint64_t type, uint64_t cid)
{
    return (struct message){.type = type, .cid = cid, .slot = SLOT_UNKNOWN};
}

void router_tell_error(struct router *r, uint32_t peer, uint64_t cid, const char *text)
{
    struct message m = message_to(MSG_ERR, cid);
    m.err.code = NACK_INVALID;
    m.err.text = slice_text(text);
    hub_send(r->hub, peer, &m);
}

/* Whether trying again later can help. */
static bool code_passes(enum nack_code code)
{
    return code == NACK_NOTOWNER || code == NACK_BUSY;
}

void router_tell_nack(struct router *r, uint32_t peer, const struct message_prefix *p,
                      enum nack_code code, uint64_t ep)
{
    struct message m = message_to(MSG_NACK, p->cid);
    if (code != NACK_INVALID) /* which may be the key's fault; the cid says enough */
        m.key = p->key;
    m.nack.code = code;
    m.nack.hint_ep = ep;
    /* Spread, so that all publishers of a lost shard do not come back in one instant. */
    if (code_passes(code))
        m.nack.retry_ms = RETRY_MIN_MS + rng_below(&r->rng, RETRY_SPREAD_MS);
    hub_send(r->hub, peer, &m);
}

static void answer(struct router *r, uint32_t peer, const struct message_prefix *p, unsigned status,
                   struct slice json)
{
    struct message m = message_to(MSG_ANSWER, p->cid);
    m.answer.status = status;
    m.answer.json = json;
    hub_send(r->hub, peer, &m);
}

void router_tell_refusal(struct router *r, uint32_t peer, const struct message_prefix *p,
                         enum nack_code code)
{
    if (code_passes(code))
        answer(r, peer, p, 503,
               slice_text("{\"error\":{\"tag\":\"Busy\",\"message\":\"no shard serves this key at "
                          "the moment; try again\"}}"));
    else
        answer(r, peer, p, 400,
               slice_text("{\"error\":{\"tag\":\"BadRequest\",\"message\":\"not a key, or not of "
                          "this cluster\"}}"));
}

/* ---- status ---- */

static unsigned links_up(const struct router *r, unsigned door)
{
    unsigned count = 0;
    for (uint32_t n = hub_next_up(r->hub, r->n_shards); n != 0; n = hub_next_up(r->hub, n))
        count += hub_door(r->hub, n) == door;
    return count;
}

static void put_shard(struct router *r, uint32_t peer, struct strbuf *out)
{
    const struct peer_info *info = hub_info(r->hub, peer);
    strbuf_put_text(out, "{\"name\":");
    json_quote(out, slice_text(info ? info->name : ""));
    strbuf_put_text(out, ",\"endpoint\":");
    json_quote(out, slice_text(r->shard_endpoints[peer - 1]));
    strbuf_printf(out, ",\"up\":%s,\"slots\":%u,\"outstanding\":%llu}",
                  hub_is_up(r->hub, peer) ? "true" : "false", slots_owned(r->slots, peer),
                  (unsigned long long)r->shards[peer].outstanding);
}

static void put_status(struct router *r, struct strbuf *out)
{
    strbuf_put_text(out, "{\"role\":\"router\",\"name\":");
    json_quote(out, slice_text(r->name));
    strbuf_put_text(out, ",\"version\":");
    json_quote(out, slice_text(r->version));
    strbuf_printf(out, ",\"boot\":\"%016llx\",\"ready\":%s,\"slots_unowned\":%u",
                  (unsigned long long)r->boot, router_ready(r) ? "true" : "false",
                  slots_unowned(r->slots));
    strbuf_printf(out, ",\"publishers\":%u,\"gateways\":%u,\"forwarded\":%.0f,\"shards\":[",
                  links_up(r, ROUTER_DOOR_PUBLISH), links_up(r, ROUTER_DOOR_GATEWAY),
                  metric_value(r->forwards[FORWARD_OK]));
    for (uint32_t n = 1; n <= r->n_shards; n++) {
        if (n > 1)
            strbuf_put_byte(out, ',');
        put_shard(r, n, out);
    }
    strbuf_put_text(out, "]}");
}

void router_tell_own_answer(struct router *r, uint32_t peer, const struct message_prefix *p,
                            struct slice head, struct slice body)
{
    struct message m;
    if (message_decode(head, body, &r->arena, &m) != ERR_OK) {
        router_tell_error(r, peer, p->cid, "malformed ASK");
    } else if (m.ask.what != ASK_STATUS) {
        answer(r, peer, p, 400,
               slice_text("{\"error\":{\"tag\":\"BadRequest\",\"message\":\"a router holds no "
                          "rooms: ask the shards\"}}"));
    } else {
        strbuf_reset(&r->scratch);
        put_status(r, &r->scratch);
        answer(r, peer, p, 0, strbuf_slice(&r->scratch));
    }
}

/* ---- LOST and RING ---- */

void router_tell_lost(struct router *r, unsigned shard)
{
    struct message m = message_to(MSG_LOST, 0);
    m.lost.shard = shard;
    for (uint32_t n = hub_next_up(r->hub, r->n_shards); n != 0; n = hub_next_up(r->hub, n))
        hub_send(r->hub, n, &m);
}

static size_t ring_members(const struct router *r, struct ring_member *members)
{
    size_t count = 0;
    for (; count < r->n_shards && count < HEAD_ARRAY_MAX; count++) {
        const struct peer_info *info = hub_info(r->hub, (uint32_t)count + 1);
        struct slice endpoint = slice_text(r->shard_endpoints[count]);
        if (endpoint.size > MEMBER_ENDPOINT_MAX_BYTES)
            endpoint.size = 0;
        members[count] = (struct ring_member){.name = slice_text(info ? info->name : ""),
                                              .endpoint = endpoint,
                                              .weight = 1,
                                              .state = hub_is_up(r->hub, (uint32_t)count + 1)};
    }
    return count;
}

/* Runs of slots with one owner. */
static size_t ring_ranges(const struct router *r, struct slot_range *ranges)
{
    size_t count = 0;
    uint32_t previous = 0;
    for (uint16_t slot = 0; slot < SLOT_COUNT; slot++) {
        uint32_t peer = slots_owner(r->slots, slot).peer;
        if (peer != 0 && peer == previous) {
            ranges[count - 1].hi = slot;
        } else if (peer != 0) {
            if (count == RING_RANGES_MAX)
                break; /* a hint may be short */
            ranges[count++] = (struct slot_range){.lo = slot, .hi = slot, .epoch = peer - 1};
        }
        previous = peer;
    }
    return count;
}

/* A hint that does not fit a head goes out without its tail. */
static void ring_fit(struct message *m)
{
    while (message_head_bound(m) > HEAD_MAX_BYTES && m->ring.slots.count > 0)
        m->ring.slots.count /= 2;
    while (message_head_bound(m) > HEAD_MAX_BYTES)
        m->ring.members.count /= 2;
}

static void ring_tell(struct router *r, uint32_t first, uint32_t last)
{
    struct ring_member *members = mem_alloc((r->n_shards + 1) * sizeof *members);
    struct slot_range *ranges = mem_alloc(RING_RANGES_MAX * sizeof *ranges);
    struct message m = message_to(MSG_RING, 0);
    m.ring.ring_ver = r->ring_version;
    m.ring.members.at = members;
    m.ring.members.count = ring_members(r, members);
    m.ring.slots.at = ranges;
    m.ring.slots.count = ring_ranges(r, ranges);
    ring_fit(&m);
    for (uint32_t n = hub_next_up(r->hub, first - 1); n != 0 && n <= last;
         n = hub_next_up(r->hub, n))
        hub_send(r->hub, n, &m);
    mem_free(ranges);
    mem_free(members);
}

void router_tell_ring(struct router *r, uint32_t peer)
{
    ring_tell(r, peer, peer);
}

void router_tell_ring_all(struct router *r)
{
    r->ring_version++;
    ring_tell(r, r->n_shards + 1, PEERS_MAX);
}
