/* Test support: a router, shards and clients as hubs joined by wires in memory. A wire has a
 * generation; parcels of an older one are lost, as with a broken connection. */
#ifndef STOA_TESTS_ROUTER_NET_H
#define STOA_TESTS_ROUTER_NET_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"
#include "common/json.h"
#include "common/mem.h"
#include "proto/packet.h"
#include "router/router.h"

#define NODES_MAX 16
#define N_SHARDS 3
#define SEED 42
#define ROUTER 0
#define SHARD(i) (1 + (i))
#define CLIENT(i) (1 + N_SHARDS + (i))
#define ANSWERS_MAX 16384

/* ---- a network in memory: one wire between every node and the router ---- */

struct node {
    struct hub *hub;
    uint32_t peer; /* the router's number here; on a shard 0 until its first packet */
    uint64_t boot;
    char name[16];
    struct hub_self self;
    /* shard */
    struct slot_range ranges[4];
    size_t n_ranges;
    bool not_ready, mute;
    uint64_t held_cid, last_ep, publishes;
    uint16_t last_slot;
    /* client */
    unsigned door;
    enum role role;
    unsigned packs, nacks, losts, rings, answers, results;
    uint64_t last_cid, last_nack, last_retry, last_seq, last_hint_ep;
    uint64_t answer_status, ring_members, ring_ranges, ring_up;
    struct strbuf answer;
    uint64_t seq_of_cid[ANSWERS_MAX];
};

struct parcel {
    struct parcel *next;
    unsigned from, to, wire; /* wire: generation of the wire when it was sent */
    struct buf *bytes;
};

static struct node nodes[NODES_MAX];
static uint32_t router_peer[NODES_MAX]; /* the node's number at the router */
static unsigned wire[NODES_MAX];
static struct parcel *first_parcel, **last_parcel;
static struct router *router;
static struct metrics *router_metrics, *node_metrics;
static struct tick now;
static struct strbuf log_text;

static void log_write(void *ctx, const char *line, size_t size)
{
    (void)ctx;
    strbuf_put(&log_text, line, size);
}

static struct log test_log = {.level = LOG_WARN, .write = log_write};

static bool logged(const char *text)
{
    return log_text.size > 0 && strstr(strbuf_cstr(&log_text), text) != NULL;
}

static unsigned wire_of(unsigned from, unsigned to)
{
    return from == ROUTER ? to : from;
}

static int send_parcel(unsigned from, unsigned to, const void *packet, size_t size)
{
    struct parcel *p = mem_zalloc(sizeof *p);
    *p = (struct parcel){.from = from, .to = to, .wire = wire[wire_of(from, to)]};
    p->bytes = buf_copy(packet, size);
    *last_parcel = p;
    last_parcel = &p->next;
    return ERR_OK;
}

static int router_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    (void)ctx;
    for (unsigned i = 1; i < NODES_MAX; i++)
        if (router_peer[i] == peer)
            return send_parcel(ROUTER, i, packet, size);
    return ERR_GONE;
}

static void router_forget(void *ctx, uint32_t peer)
{
    (void)ctx;
    for (unsigned i = 1; i < NODES_MAX; i++)
        if (router_peer[i] == peer)
            router_peer[i] = 0;
}

static int node_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct node *n = ctx;
    ck_assert_uint_eq(peer, n->peer);
    return send_parcel((unsigned)(n - nodes), ROUTER, packet, size);
}

static void node_forget(void *ctx, uint32_t peer)
{
    (void)peer;
    ((struct node *)ctx)->peer = 0;
}

static void parcel_deliver(struct parcel *p)
{
    if (p->wire == wire[wire_of(p->from, p->to)] && p->to == ROUTER) {
        if (router_peer[p->from] == 0)
            router_peer[p->from] = hub_accept(router_hub(router), nodes[p->from].door, now);
        hub_packet(router_hub(router), router_peer[p->from], p->bytes, now);
    } else if (p->wire == wire[wire_of(p->from, p->to)] && nodes[p->to].hub) {
        struct node *n = &nodes[p->to];
        if (n->peer == 0)
            n->peer = hub_accept(n->hub, 0, now);
        hub_packet(n->hub, n->peer, p->bytes, now);
    }
    buf_unref(p->bytes);
    mem_free(p);
}

/* Lets everything that is under way arrive. */
static void settle(void)
{
    do {
        while (first_parcel) {
            struct parcel *p = first_parcel;
            first_parcel = p->next;
            if (!first_parcel)
                last_parcel = &first_parcel;
            parcel_deliver(p);
        }
        router_turn(router, now);
        for (unsigned i = 1; i < NODES_MAX; i++)
            if (nodes[i].hub)
                hub_flush(nodes[i].hub, now);
    } while (first_parcel);
}

static void pass_ms(int64_t ms)
{
    now.mono_ns += ms * NS_PER_MS;
    now.wall_ms += ms;
}

/* ---- shards and clients ---- */

static struct message message_of(uint64_t type, uint64_t cid, const char *key)
{
    return (struct message){.type = type, .cid = cid, .slot = SLOT_UNKNOWN, .key = slice_text(key)};
}

static void shard_claim(unsigned shard)
{
    struct node *n = &nodes[SHARD(shard)];
    struct message m = message_of(MSG_CLAIM, 0, "");
    m.claim.boot = n->boot;
    m.claim.ready = !n->not_ready;
    m.claim.slots.at = n->ranges;
    m.claim.slots.count = n->n_ranges;
    hub_send(n->hub, n->peer, &m);
}

static void shard_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    (void)peer;
    ck_assert_int_eq(info->role, ROLE_ROUTER);
    shard_claim((unsigned)((struct node *)ctx - nodes) - SHARD(0));
}

static void node_down(void *ctx, uint32_t peer)
{
    (void)ctx;
    (void)peer;
}

static void shard_answer(struct node *n, uint64_t cid, uint64_t seq)
{
    struct message m = message_of(MSG_PACK, cid, "");
    m.pack.seq = seq;
    m.pack.count = 1;
    hub_send(n->hub, n->peer, &m);
}

static void shard_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    (void)packet;
    struct node *n = ctx;
    n->last_slot = m->slot;
    n->last_ep = m->ep;
    if (m->type == MSG_ASK) {
        struct message answer = message_of(MSG_ANSWER, m->cid, "");
        answer.answer.json = slice_text("{\"from\":\"shard\"}");
        hub_send(n->hub, peer, &answer);
        return;
    }
    if (m->type == MSG_CALL && n->mute) {
        n->held_cid = m->cid;
        return;
    }
    if (m->type == MSG_CALL) {
        struct message result = message_of(MSG_RESULT, m->cid, "");
        result.result.json = slice_text("7");
        hub_send(n->hub, peer, &result);
        return;
    }
    if (m->type == MSG_RESULT || m->type == MSG_NACK) { /* to a call of its own */
        n->last_cid = m->cid;
        n->answers += m->type == MSG_RESULT;
        n->nacks += m->type == MSG_NACK;
        return;
    }
    ck_assert(m->type == MSG_PUB || m->type == MSG_CLOSE || m->type == MSG_PURGE);
    n->publishes++;
    n->held_cid = m->cid;
    if (!n->mute)
        shard_answer(n, m->cid, m->type == MSG_PUB ? m->pub.pid * 1000000 + m->pub.pseq : 1);
}

static void client_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    (void)ctx;
    (void)peer;
    ck_assert_uint_eq(info->win_msgs, ROUTER_WINDOW_MESSAGES);
    ck_assert_uint_eq(info->win_bytes, ROUTER_WINDOW_BYTES);
}

static void ring_arrived(struct node *n, const struct msg_ring *ring)
{
    n->rings++;
    n->ring_members = ring->members.count;
    n->ring_ranges = ring->slots.count;
    n->ring_up = 0;
    for (size_t i = 0; i < ring->members.count; i++)
        n->ring_up += ring->members.at[i].state;
}

static void client_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    (void)peer;
    (void)packet;
    struct node *n = ctx;
    n->last_cid = m->cid;
    if (m->type == MSG_PACK) {
        n->packs++;
        n->last_seq = m->pack.seq;
        if (m->cid < ANSWERS_MAX)
            n->seq_of_cid[m->cid] = m->pack.seq;
    } else if (m->type == MSG_NACK) {
        n->nacks++;
        n->last_nack = m->nack.code;
        n->last_retry = m->nack.retry_ms;
        n->last_hint_ep = m->nack.hint_ep;
    } else if (m->type == MSG_RESULT) {
        n->results++;
    } else if (m->type == MSG_ANSWER) {
        n->answers++;
        n->answer_status = m->answer.status;
        strbuf_reset(&n->answer);
        strbuf_put_slice(&n->answer, m->answer.json);
    } else if (m->type == MSG_RING) {
        ring_arrived(n, &m->ring);
    } else {
        ck_assert_int_eq(m->type, MSG_LOST);
        n->losts++;
    }
}

static void node_start(unsigned index, enum role role, const char *name)
{
    struct node *n = &nodes[index];
    static uint64_t boots = 100;
    n->boot = ++boots;
    n->role = role;
    snprintf(n->name, sizeof n->name, "%s-%u", name, index);
    n->self = (struct hub_self){.role = role,
                                .node = {(uint8_t)index},
                                .boot = n->boot,
                                .cluster = 7,
                                .name = n->name,
                                .version = "1"};
    struct hub_handler handler = {.ctx = n, .on_down = node_down};
    handler.on_up = role == ROLE_SHARD ? shard_up : client_up;
    handler.on_message = role == ROLE_SHARD ? shard_message : client_message;
    const struct hub_ports ports = {.ctx = n, .send = node_send, .forget = node_forget};
    n->hub = hub_create(&n->self, &handler, &ports, &test_log, node_metrics, boots);
    n->peer = role == ROLE_SHARD ? 0 : hub_dial(n->hub);
}

static void shard_start(unsigned shard)
{
    node_start(SHARD(shard), ROLE_SHARD, "shard");
    router_peer[SHARD(shard)] = shard + 1;
    hub_connected(router_hub(router), shard + 1, now);
    settle();
}

static void shard_kill(unsigned shard)
{
    wire[SHARD(shard)]++;
    hub_destroy(&nodes[SHARD(shard)].hub);
    hub_disconnected(router_hub(router), shard + 1, now);
    settle();
}

static struct node *client_start(unsigned client, unsigned door, enum role role)
{
    node_start(CLIENT(client), role, "client");
    nodes[CLIENT(client)].door = door;
    hub_connected(nodes[CLIENT(client)].hub, nodes[CLIENT(client)].peer, now);
    settle();
    return &nodes[CLIENT(client)];
}

/* Its connection breaks and comes back: a new incarnation under the same number. */
static void client_reconnect(struct node *n)
{
    wire[n - nodes]++;
    hub_disconnected(n->hub, n->peer, now);
    hub_connected(n->hub, n->peer, now);
    settle();
}

static void publish_as(struct node *n, uint64_t cid, const char *key, uint64_t pid, uint64_t pseq)
{
    struct message m = message_of(MSG_PUB, cid, key);
    struct slice payload = slice_text("{}");
    m.pub.pid = pid;
    m.pub.pseq = pseq;
    m.pub.payloads.at = &payload;
    m.pub.payloads.count = 1;
    hub_send(n->hub, n->peer, &m);
}

static void publish(struct node *n, uint64_t cid, const char *key)
{
    publish_as(n, cid, key, 1, cid);
}

static void set_up(void)
{
    static const char *const endpoints[] = {"ipc:///s0", "ipc:///s1", "ipc:///s2"};
    now = (struct tick){.mono_ns = 1000 * NS_PER_S, .wall_ms = 1700000000000};
    last_parcel = &first_parcel;
    router_metrics = metrics_create();
    node_metrics = metrics_create();
    const struct router_options options = {
        .self = {.role = ROLE_ROUTER, .boot = 1, .cluster = 7, .name = "router-0", .version = "1"},
        .slot_seed = SEED,
        .n_shards = N_SHARDS,
        .shard_endpoints = endpoints,
        .seed = 5};
    const struct hub_ports ports = {.send = router_send, .forget = router_forget};
    router = router_create(&options, &ports, &test_log, router_metrics);
    /* thirds of the slots, at epochs 5, 6, 7 */
    for (unsigned i = 0; i < N_SHARDS; i++) {
        unsigned third = SLOT_COUNT / N_SHARDS;
        nodes[SHARD(i)].ranges[0] = (struct slot_range){
            .lo = i * third, .hi = i == 2 ? SLOT_COUNT - 1 : (i + 1) * third - 1, .epoch = 5 + i};
        nodes[SHARD(i)].n_ranges = 1;
    }
}

static void tear_down(void)
{
    for (unsigned i = 1; i < NODES_MAX; i++) {
        hub_destroy(&nodes[i].hub);
        strbuf_free(&nodes[i].answer);
    }
    router_destroy(&router);
    while (first_parcel) {
        struct parcel *p = first_parcel;
        first_parcel = p->next;
        buf_unref(p->bytes);
        mem_free(p);
    }
    metrics_destroy(&router_metrics);
    metrics_destroy(&node_metrics);
    strbuf_free(&log_text);
    ck_assert_uint_eq(buf_alive(), 0);
}

static double forwards(const char *result)
{
    char label[40];
    snprintf(label, sizeof label, "result=\"%s\"", result);
    return metric_value(metrics_counter(router_metrics, "stoa_router_forwards_total", label, ""));
}

static double replies_stale(void)
{
    return metric_value(
        metrics_counter(router_metrics, "stoa_router_replies_total", "result=\"stale\"", ""));
}

#endif
