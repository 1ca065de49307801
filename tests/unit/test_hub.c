/* Hubs wired in memory: what a link promises (nothing lost or out of order between on_up and
 * on_down), and each way it can end. */
#include <check.h>
#include <stdlib.h>

#include "common/mem.h"
#include "proto/hub.h"
#include "proto/packet.h"

#define CLUSTER 77
#define NODES_MAX 3
#define WIRES_MAX 4
#define QUEUE_MAX 4096
#define EVENTS_MAX 8192

/* ---- the world ---- */

enum happening { UP, DOWN, MESSAGE };
struct happened {
    enum happening what;
    uint32_t peer;
    uint64_t type, value; /* of a MESSAGE: its cid */
};

struct node {
    struct hub *hub;
    struct metrics *metrics;
    struct hub_self self;
    struct happened log[EVENTS_MAX];
    size_t n_log;
    uint32_t forgotten; /* peers forgotten so far */
    enum role refuses;  /* admits(): this role is not taken */
    bool in_send;       /* a core is inside hub_send: no callback may come */
    void (*on_message)(struct node *n, uint32_t peer, const struct message *m);
    void (*on_up)(struct node *n, uint32_t peer);
};

/* A dialer's connection to a listener; each direction a queue of packets. */
struct wire {
    struct node *dialer, *listener;
    uint32_t dialed;                 /* the dialer's number */
    uint32_t accepted;               /* the listener's number, 0: not seen */
    struct buf *queue[2][QUEUE_MAX]; /* 0: to the listener, 1: to the dialer */
    size_t n_queue[2];
    bool cut;    /* packets vanish */
    int drop[2]; /* so many of the next packets vanish */
    int fail[2]; /* so many of the next sends fail */
};

static struct node nodes[NODES_MAX];
static struct wire wires[WIRES_MAX];
static size_t n_wires;
static struct tick now;

static void happen(struct node *n, enum happening what, uint32_t peer, uint64_t type,
                   uint64_t value)
{
    ck_assert(!n->in_send);
    ck_assert_uint_lt(n->n_log, EVENTS_MAX);
    n->log[n->n_log++] = (struct happened){what, peer, type, value};
}

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    struct node *n = ctx;
    ck_assert_ptr_eq(hub_info(n->hub, peer), info);
    ck_assert(hub_is_up(n->hub, peer));
    happen(n, UP, peer, 0, info->role);
    if (n->on_up)
        n->on_up(n, peer);
}

static void on_down(void *ctx, uint32_t peer)
{
    struct node *n = ctx;
    ck_assert(!hub_is_up(n->hub, peer));
    happen(n, DOWN, peer, 0, 0);
}

static void on_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct node *n = ctx;
    ck_assert_uint_gt(packet->size, 0);
    ck_assert(hub_is_up(n->hub, peer));
    happen(n, MESSAGE, peer, m->type, m->cid);
    if (n->on_message)
        n->on_message(n, peer, m);
}

static bool admits(void *ctx, unsigned door, enum role role)
{
    struct node *n = ctx;
    ck_assert_uint_eq(door, 3);
    return role != n->refuses;
}

static void push(struct wire *w, int direction, const void *packet, size_t size)
{
    if (w->cut || w->drop[direction] > 0) {
        w->drop[direction] -= !w->cut;
        return;
    }
    ck_assert_uint_lt(w->n_queue[direction], QUEUE_MAX);
    w->queue[direction][w->n_queue[direction]++] = buf_copy(packet, size);
}

static int port_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct node *n = ctx;
    for (size_t i = n_wires; i-- > 0;) { /* the newest connection of an address takes over */
        struct wire *w = &wires[i];
        int direction = w->dialer == n && w->dialed == peer       ? 0
                        : w->listener == n && w->accepted == peer ? 1
                                                                  : -1;
        if (direction < 0)
            continue;
        if (w->fail[direction] > 0) {
            w->fail[direction]--;
            return ERR_FULL;
        }
        push(w, direction, packet, size);
        return ERR_OK;
    }
    return ERR_GONE;
}

static void port_forget(void *ctx, uint32_t peer)
{
    struct node *n = ctx;
    n->forgotten++;
    for (size_t i = 0; i < n_wires; i++)
        if (wires[i].listener == n && wires[i].accepted == peer)
            wires[i].accepted = 0;
}

static void node_start(struct node *n, enum role role, uint64_t cluster, uint64_t seed)
{
    struct hub_handler handler = {
        .ctx = n, .on_up = on_up, .on_down = on_down, .on_message = on_message, .admits = admits};
    struct hub_ports ports = {.ctx = n, .send = port_send, .forget = port_forget};
    n->self = (struct hub_self){.role = role,
                                .node = {(uint8_t)seed},
                                .boot = seed,
                                .cluster = cluster,
                                .name = role_name(role),
                                .version = "1",
                                .win_msgs = 11,
                                .win_bytes = 22,
                                .window_ms = 33};
    n->metrics = metrics_create();
    n->hub = hub_create(&n->self, &handler, &ports, NULL, n->metrics, seed);
}

static void node_stop(struct node *n)
{
    hub_destroy(&n->hub);
    metrics_destroy(&n->metrics);
    for (size_t i = 0; i < n_wires; i++)
        if (wires[i].listener == n)
            wires[i].accepted = 0;
}

static struct wire *connect_nodes(struct node *dialer, uint32_t dialed, struct node *listener)
{
    struct wire *w = &wires[n_wires++];
    *w = (struct wire){.dialer = dialer, .listener = listener, .dialed = dialed};
    return w;
}

static void lose_queued(struct wire *w)
{
    for (int d = 0; d < 2; d++) {
        for (size_t i = 0; i < w->n_queue[d]; i++)
            buf_unref(w->queue[d][i]);
        w->n_queue[d] = 0;
    }
}

static void deliver_one(struct wire *w, int direction)
{
    struct buf *packet = w->queue[direction][0];
    memmove(w->queue[direction], w->queue[direction] + 1, --w->n_queue[direction] * sizeof packet);
    if (direction == 1) {
        hub_packet(w->dialer->hub, w->dialed, packet, now);
    } else {
        if (w->accepted == 0)
            w->accepted = hub_accept(w->listener->hub, 3, now);
        if (w->accepted != 0)
            hub_packet(w->listener->hub, w->accepted, packet, now);
    }
    buf_unref(packet);
}

/* Turns every node's loop until nothing is on its way. */
static void settle(void)
{
    bool busy = true;
    while (busy) {
        busy = false;
        for (size_t i = 0; i < NODES_MAX; i++)
            if (nodes[i].hub) {
                hub_tick(nodes[i].hub, now);
                hub_flush(nodes[i].hub, now);
                ck_assert_int_gt(hub_deadline(nodes[i].hub), now.mono_ns);
            }
        for (size_t i = 0; i < n_wires; i++)
            for (int d = 0; d < 2; d++)
                while (wires[i].n_queue[d] > 0) {
                    deliver_one(&wires[i], d);
                    busy = true;
                }
    }
}

static void pass_ms(int64_t ms)
{
    for (int64_t t = 0; t < ms; t += 50) {
        now.mono_ns += 50 * NS_PER_MS;
        settle();
    }
}

/* ---- a gateway (nodes[0]) that has dialed a shard (nodes[1]) ---- */

static struct node *const gateway = &nodes[0];
static struct node *const shard = &nodes[1];
static struct wire *wire;

static void setup_pair(void)
{
    memset(nodes, 0, sizeof nodes);
    n_wires = 0;
    now = (struct tick){.mono_ns = 5 * NS_PER_S, .wall_ms = 1};
    node_start(gateway, ROLE_GATEWAY, CLUSTER, 1);
    node_start(shard, ROLE_SHARD, CLUSTER, 2);
    wire = connect_nodes(gateway, hub_dial(gateway->hub), shard);
}

static void setup_up(void)
{
    setup_pair();
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    ck_assert(hub_is_up(gateway->hub, wire->dialed));
    ck_assert(hub_is_up(shard->hub, wire->accepted));
    gateway->n_log = shard->n_log = 0;
}

static void teardown(void)
{
    for (size_t i = 0; i < n_wires; i++)
        lose_queued(&wires[i]);
    for (size_t i = 0; i < NODES_MAX; i++)
        if (nodes[i].hub)
            node_stop(&nodes[i]);
    ck_assert_uint_eq(buf_alive(), 0);
}

static void send_number(struct node *n, uint32_t peer, uint64_t number)
{
    struct message m = {.type = MSG_CREDIT, .cid = number, .slot = SLOT_UNKNOWN};
    n->in_send = true;
    hub_send(n->hub, peer, &m);
    n->in_send = false;
}

/* Compares a node's log with a text: U up, D down, m message; then clears it. */
static void expect_log(struct node *n, const char *expected)
{
    char seen[EVENTS_MAX + 1];
    for (size_t i = 0; i < n->n_log; i++)
        seen[i] = "UDm"[n->log[i].what];
    seen[n->n_log] = 0;
    ck_assert_str_eq(seen, expected);
    n->n_log = 0;
}

static double links(struct node *n, const char *label)
{
    return metric_value(metrics_gauge(n->metrics, "stoa_links", label, ""));
}

static double counter(struct node *n, const char *name)
{
    return metric_value(metrics_counter(n->metrics, name, "", ""));
}

START_TEST(up)
{
    setup_pair();
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    expect_log(gateway, "U");
    expect_log(shard, "U");
    const struct peer_info *info = hub_info(gateway->hub, wire->dialed);
    ck_assert_int_eq(info->role, ROLE_SHARD);
    ck_assert_uint_eq(info->boot, 2);
    ck_assert_uint_eq(info->win_msgs, 11);
    ck_assert_uint_eq(info->win_bytes, 22);
    ck_assert_uint_eq(info->window_ms, 33);
    ck_assert_str_eq(info->name, "shard");
    ck_assert_str_eq(hub_info(shard->hub, wire->accepted)->name, "gateway");
    ck_assert_uint_eq(hub_door(shard->hub, wire->accepted), 3);
    ck_assert(links(gateway, "peer=\"shard\"") == 1);
    ck_assert(links(shard, "peer=\"gateway\"") == 1);
    ck_assert_uint_eq(hub_next_up(shard->hub, 0), wire->accepted);
    ck_assert_uint_eq(hub_next_up(shard->hub, wire->accepted), 0);
    teardown();
}
END_TEST

START_TEST(nothing_is_sent_before_up)
{
    setup_pair();
    send_number(gateway, wire->dialed, 1);
    settle();
    hub_connected(gateway->hub, wire->dialed, now);
    send_number(gateway, wire->dialed, 2);
    send_number(gateway, 99, 3); /* nobody */
    settle();
    expect_log(shard, "U");
    teardown();
}
END_TEST

START_TEST(pings_keep_it_up)
{
    setup_up();
    uint64_t before = hub_received_bytes(shard->hub, wire->accepted);
    pass_ms(60000);
    expect_log(gateway, "");
    expect_log(shard, "");
    ck_assert_uint_gt(hub_received_bytes(shard->hub, wire->accepted), before);
    teardown();
}
END_TEST

START_TEST(silence_is_death)
{
    setup_up();
    wire->cut = true;
    pass_ms(LINK_DEAD_MS - LINK_HEARTBEAT_MS - 100);
    expect_log(gateway, "");
    pass_ms(LINK_HEARTBEAT_MS + 200);
    expect_log(gateway, "D");
    expect_log(shard, "D");
    ck_assert_uint_eq(shard->forgotten, 1);
    ck_assert_uint_eq(wire->accepted, 0);
    wire->cut = false;
    pass_ms(LINK_HEARTBEAT_MS + 100);
    expect_log(gateway, "U");
    expect_log(shard, "U");
    ck_assert(links(shard, "peer=\"gateway\"") == 1);
    teardown();
}
END_TEST

START_TEST(a_gap_upwards_is_never_silent)
{
    setup_up();
    send_number(gateway, wire->dialed, 1);
    settle();
    wire->drop[0] = 1;
    send_number(gateway, wire->dialed, 2);
    settle();
    send_number(gateway, wire->dialed, 3);
    settle();
    pass_ms(200);
    expect_log(shard, "mDU");
    expect_log(gateway, "DU");
    send_number(gateway, wire->dialed, 4);
    settle();
    ck_assert_uint_eq(shard->log[0].value, 4);
    ck_assert(counter(shard, "stoa_link_resets_total") == 1);
    teardown();
}
END_TEST

START_TEST(a_gap_downwards_is_never_silent)
{
    setup_up();
    wire->drop[1] = 1;
    send_number(shard, wire->accepted, 1);
    settle();
    send_number(shard, wire->accepted, 2);
    settle();
    pass_ms(200);
    expect_log(gateway, "DU");
    expect_log(shard, "DU");
    teardown();
}
END_TEST

START_TEST(a_lost_last_packet_is_found_by_the_next_ping)
{
    setup_up();
    wire->drop[1] = 1;
    send_number(shard, wire->accepted, 1);
    settle();
    pass_ms(LINK_HEARTBEAT_MS + 300);
    expect_log(gateway, "DU");
    teardown();
}
END_TEST

START_TEST(a_lost_welcome_is_repeated)
{
    setup_pair();
    wire->drop[1] = 1;
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    expect_log(gateway, "");
    pass_ms(LINK_HEARTBEAT_MS + 300);
    expect_log(gateway, "U");
    expect_log(shard, "UDU");
    teardown();
}
END_TEST

START_TEST(listener_restarts)
{
    setup_up();
    node_stop(shard);
    node_start(shard, ROLE_SHARD, CLUSTER, 9);
    shard->n_log = 0;
    pass_ms(LINK_HEARTBEAT_MS + 300);
    expect_log(gateway, "DU");
    expect_log(shard, "U");
    ck_assert_uint_eq(hub_info(gateway->hub, wire->dialed)->boot, 9);
    teardown();
}
END_TEST

START_TEST(reconnect_loses_what_was_under_way)
{
    setup_up();
    send_number(gateway, wire->dialed, 1);
    send_number(shard, wire->accepted, 2);
    hub_flush(gateway->hub, now);
    hub_flush(shard->hub, now);
    lose_queued(wire);
    hub_disconnected(gateway->hub, wire->dialed, now);
    send_number(gateway, wire->dialed, 3);
    settle();
    expect_log(gateway, "D");
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    send_number(gateway, wire->dialed, 4);
    settle();
    expect_log(gateway, "U");
    ck_assert_uint_eq(shard->log[shard->n_log - 1].value, 4);
    expect_log(shard, "DUm");
    teardown();
}
END_TEST

START_TEST(reconnect_without_a_disconnect)
{
    setup_up();
    send_number(gateway, wire->dialed, 1); /* queued for the old incarnation: gone with it */
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    expect_log(gateway, "DU");
    expect_log(shard, "DU");
    teardown();
}
END_TEST

/* A packet of the link's own making, for the side that `direction` leads to. */
static void inject(struct wire *w, int direction, uint64_t incarnation, uint64_t counter_value,
                   const struct message *m)
{
    struct strbuf b = {0};
    packet_begin(&b);
    message_encode(&b, m);
    packet_end(&b, 1, incarnation, counter_value);
    push(w, direction, b.data, b.size);
    strbuf_free(&b);
}

static const struct message reset = {.type = MSG_RESET, .slot = SLOT_UNKNOWN};
static const struct message ping = {.type = MSG_PING, .slot = SLOT_UNKNOWN};

START_TEST(reset_of_another_incarnation_is_ignored)
{
    setup_up();
    inject(wire, 1, 12345, 0, &reset);
    inject(wire, 1, 12345, 2, &ping);
    settle();
    expect_log(gateway, "");
    ck_assert(counter(gateway, "stoa_link_dropped_packets_total") == 2);
    teardown();
}
END_TEST

START_TEST(stale_packets_are_reset_but_not_too_often)
{
    setup_up();
    for (int i = 0; i < 50; i++)
        inject(wire, 0, 12345, 5, &ping);
    hub_flush(gateway->hub, now);
    while (wire->n_queue[0] > 0)
        deliver_one(wire, 0);
    hub_flush(shard->hub, now);
    ck_assert_uint_eq(wire->n_queue[1], 1);
    settle();
    expect_log(shard, ""); /* the link itself lives on */
    expect_log(gateway, "");
    teardown();
}
END_TEST

START_TEST(foreign_cluster_is_refused)
{
    setup_pair();
    node_stop(shard);
    node_start(shard, ROLE_SHARD, CLUSTER + 1, 2);
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    pass_ms(5000);
    expect_log(gateway, "");
    expect_log(shard, "");
    ck_assert(counter(shard, "stoa_link_refused_total") == 6);
    ck_assert_ptr_null(hub_info(shard->hub, wire->accepted));
    teardown();
}
END_TEST

START_TEST(role_without_business_is_refused)
{
    setup_pair();
    shard->refuses = ROLE_GATEWAY;
    hub_connected(gateway->hub, wire->dialed, now);
    pass_ms(2000);
    expect_log(shard, "");
    expect_log(gateway, "");
    shard->refuses = ROLE_NONE; /* reconfigured */
    pass_ms(1100);
    expect_log(gateway, "U");
    teardown();
}
END_TEST

START_TEST(a_second_process_takes_the_address_over)
{
    setup_up();
    struct node *twin = &nodes[2];
    node_start(twin, ROLE_GATEWAY, CLUSTER, 3);
    struct wire *other = connect_nodes(twin, hub_dial(twin->hub), shard);
    other->accepted = wire->accepted;
    hub_connected(twin->hub, other->dialed, now);
    settle();
    expect_log(shard, "DU");
    expect_log(twin, "U");
    ck_assert_uint_eq(hub_info(shard->hub, other->accepted)->boot, 3);
    /* What the first one still had under way is stale, and the RESET about it reaches the second
     * one, whose incarnation is another. */
    wire = &wires[0];
    send_number(gateway, wire->dialed, 1);
    pass_ms(500);
    expect_log(shard, "");
    expect_log(twin, "");
    teardown();
}
END_TEST

START_TEST(failed_send_takes_the_link_down_later)
{
    setup_up();
    wire->fail[0] = 1;
    uint8_t *large = calloc(1, PACKET_TARGET_BYTES);
    struct slice part = slice_of(large, PACKET_TARGET_BYTES);
    struct message m = {.type = MSG_PUB, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    m.pub.payloads = (struct parts_list){&part, 1};
    gateway->in_send = true; /* happen() asserts that nothing is called from in here */
    hub_send(gateway->hub, wire->dialed, &m);
    hub_send(gateway->hub, wire->dialed, &m);
    gateway->in_send = false;
    ck_assert_int_eq(wire->fail[0], 0);
    expect_log(gateway, "");
    hub_flush(gateway->hub, now);
    expect_log(gateway, "D");
    pass_ms(200);
    expect_log(gateway, "U");
    expect_log(shard, "DU");
    wire->fail[1] = 1;
    send_number(shard, wire->accepted, 1);
    hub_flush(shard->hub, now);
    expect_log(shard, "D");
    pass_ms(LINK_HEARTBEAT_MS + 300);
    expect_log(shard, "U");
    free(large);
    teardown();
}
END_TEST

START_TEST(large_packets_leave_at_once)
{
    setup_up();
    uint8_t *large = calloc(1, PAYLOAD_HARD_MAX_BYTES);
    struct slice part = slice_of(large, PAYLOAD_HARD_MAX_BYTES);
    struct message m = {.type = MSG_PUB, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    m.pub.payloads = (struct parts_list){&part, 1};
    for (int i = 0; i < 10; i++) {
        send_number(gateway, wire->dialed, 1);
        hub_send(gateway->hub, wire->dialed, &m);
    }
    ck_assert_uint_eq(wire->n_queue[0], 10);
    settle();
    expect_log(shard, "mmmmmmmmmmmmmmmmmmmm");
    free(large);
    teardown();
}
END_TEST

START_TEST(goodbye_of_the_listener)
{
    setup_up();
    send_number(shard, wire->accepted, 5); /* what was queued still leaves, ahead of it */
    hub_goodbye(shard->hub, now);
    expect_log(shard, "D");
    ck_assert(!hub_is_up(shard->hub, wire->accepted));
    while (wire->n_queue[1] > 0)
        deliver_one(wire, 1);
    expect_log(gateway, "mD");
    node_stop(shard); /* restarted within the second */
    node_start(shard, ROLE_SHARD, CLUSTER, 4);
    pass_ms(LINK_HEARTBEAT_MS - 200);
    expect_log(gateway, "");
    pass_ms(400);
    expect_log(gateway, "U");
    teardown();
}
END_TEST

START_TEST(goodbye_of_the_dialer)
{
    setup_up();
    hub_goodbye(gateway->hub, now);
    expect_log(gateway, "D");
    settle();
    expect_log(shard, "D");
    ck_assert_uint_eq(shard->forgotten, 1);
    send_number(gateway, wire->dialed, 1);
    pass_ms(5000);
    expect_log(shard, "");
    ck_assert_int_eq(hub_deadline(gateway->hub), TICK_NEVER);
    teardown();
}
END_TEST

static void echo(struct node *n, uint32_t peer, const struct message *m)
{
    send_number(n, peer, m->cid);
}

START_TEST(a_thousand_in_order_and_back)
{
    setup_up();
    shard->on_message = echo;
    for (uint64_t i = 0; i < 1000; i++) {
        send_number(gateway, wire->dialed, i);
        if (i % 7 == 0)
            hub_flush(gateway->hub, now);
    }
    settle();
    ck_assert_uint_eq(shard->n_log, 1000);
    ck_assert_uint_eq(gateway->n_log, 1000);
    for (uint64_t i = 0; i < 1000; i++) {
        ck_assert_uint_eq(shard->log[i].value, i);
        ck_assert_uint_eq(gateway->log[i].value, i);
    }
    teardown();
}
END_TEST

START_TEST(one_turn_is_one_packet)
{
    setup_up();
    for (uint64_t i = 0; i < 100; i++)
        send_number(gateway, wire->dialed, i);
    hub_flush(gateway->hub, now);
    ck_assert_uint_eq(wire->n_queue[0], 1);
    settle();
    ck_assert_uint_eq(shard->n_log, 100);
    teardown();
}
END_TEST

static void greet(struct node *n, uint32_t peer)
{
    send_number(n, peer, 1234);
}

START_TEST(greetings_travel_with_welcome)
{
    setup_pair();
    shard->on_up = gateway->on_up = greet;
    hub_connected(gateway->hub, wire->dialed, now);
    deliver_one(wire, 0);
    hub_flush(shard->hub, now);
    ck_assert_uint_eq(wire->n_queue[1], 1);
    settle();
    expect_log(gateway, "Um");
    expect_log(shard, "Um");
    teardown();
}
END_TEST

START_TEST(both_sides_count_the_same_bytes)
{
    setup_up();
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < 100; i++)
            send_number(shard, wire->accepted, i);
        uint64_t queued = hub_sent_bytes(shard->hub, wire->accepted);
        settle();
        ck_assert_uint_eq(hub_sent_bytes(shard->hub, wire->accepted), queued);
        ck_assert_uint_eq(hub_received_bytes(gateway->hub, wire->dialed), queued);
        ck_assert_uint_eq(hub_sent_bytes(gateway->hub, wire->dialed),
                          hub_received_bytes(shard->hub, wire->accepted));
        if (round == 1) {
            hub_connected(gateway->hub, wire->dialed, now);
            settle();
            ck_assert_uint_lt(hub_sent_bytes(shard->hub, wire->accepted), queued);
        }
    }
    teardown();
}
END_TEST

START_TEST(malformed_packets)
{
    static const char *const garbage[] = {"", "S", "hello, this is not a packet of ours",
                                          "S\1\0\0\xff\xff\xff\xff................"};
    setup_up();
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        push(wire, 0, garbage[i], i == 3 ? 24 : strlen(garbage[i]));
        settle();
        pass_ms(200);
        expect_log(shard, "DU");
        expect_log(gateway, "DU");
        push(wire, 1, garbage[i], i == 3 ? 24 : strlen(garbage[i]));
        settle();
        pass_ms(200);
        expect_log(shard, "DU");
        expect_log(gateway, "DU");
    }
    ck_assert(counter(shard, "stoa_link_protocol_errors_total") == 4);
    teardown();
}
END_TEST

/* The link's own next packet, its only message changed at `at` in the head. */
static void send_damaged(size_t at, uint8_t value)
{
    send_number(gateway, wire->dialed, 7);
    hub_flush(gateway->hub, now);
    struct buf *packet = wire->queue[0][0];
    uint8_t *bytes = mem_dup(packet->data, packet->size);
    bytes[PACKET_HEADER_BYTES + 8 + at] = value;
    wire->n_queue[0] = 0;
    push(wire, 0, bytes, packet->size);
    buf_unref(packet);
    mem_free(bytes);
}

START_TEST(malformed_messages_are_answered_and_the_link_stays)
{
    setup_up();
    send_damaged(28, 0xc1); /* the field `granted` */
    settle();
    ck_assert(counter(shard, "stoa_link_protocol_errors_total") == 1);
    send_damaged(4, 99); /* an unknown type */
    settle();
    ck_assert(counter(shard, "stoa_link_protocol_errors_total") == 2);
    send_damaged(3, 2); /* another version of the envelope: no cid to answer */
    settle();
    ck_assert(counter(shard, "stoa_link_protocol_errors_total") == 3);
    send_damaged(4, MSG_HELLO);
    settle();
    expect_log(shard, "");
    expect_log(gateway, ""); /* ERR is the hub's own business */
    send_number(gateway, wire->dialed, 8);
    settle();
    expect_log(shard, "m");
    teardown();
}
END_TEST

START_TEST(an_error_is_answered_with_the_cid)
{
    setup_up();
    send_damaged(4, 99);
    hub_tick(shard->hub, now);
    deliver_one(wire, 0);
    hub_flush(shard->hub, now);
    ck_assert_uint_eq(wire->n_queue[1], 1);
    struct packet_reader r;
    struct slice head, body;
    struct message m;
    struct message_arena arena = {0};
    bool more;
    ck_assert_int_eq(packet_open(buf_slice(wire->queue[1][0]), &r), ERR_OK);
    ck_assert_int_eq(packet_next(&r, &more, &head, &body), ERR_OK);
    ck_assert_int_eq(message_decode(head, body, &arena, &m), ERR_OK);
    ck_assert_uint_eq(m.type, MSG_ERR);
    ck_assert_uint_eq(m.cid, 7);
    message_arena_free(&arena);
    teardown();
}
END_TEST

/* ---- a router between: raw messages, forwarded and stamped ---- */

static uint32_t forward_to;

static void on_raw(void *ctx, uint32_t peer, const struct message_prefix *p, struct slice head,
                   struct slice body, struct buf *packet)
{
    struct node *n = ctx;
    (void)packet;
    happen(n, MESSAGE, peer, p->type, p->cid);
    hub_forward(n->hub, forward_to, head, body, p->cid + ((uint64_t)peer << 32), 55, 66);
}

START_TEST(raw_messages_are_forwarded)
{
    setup_pair();
    struct node *router = &nodes[2];
    struct hub_handler handler = {
        .ctx = router, .on_up = on_up, .on_down = on_down, .on_raw = on_raw};
    struct hub_ports ports = {.ctx = router, .send = port_send, .forget = port_forget};
    router->metrics = metrics_create();
    router->self = (struct hub_self){
        .role = ROLE_ROUTER, .cluster = CLUSTER, .name = "router", .version = "1"};
    router->hub = hub_create(&router->self, &handler, &ports, NULL, router->metrics, 7);
    n_wires = 0;
    wire = connect_nodes(gateway, wire->dialed, router);
    forward_to = hub_dial(router->hub);
    connect_nodes(router, forward_to, shard);
    hub_connected(router->hub, forward_to, now);
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    router->n_log = shard->n_log = 0;
    send_number(gateway, wire->dialed, 9);
    settle();
    expect_log(router, "m");
    ck_assert_uint_eq(shard->n_log, 1);
    ck_assert_uint_eq(shard->log[0].value, 9 + ((uint64_t)wire->accepted << 32));
    teardown();
}
END_TEST

START_TEST(peers_are_bounded)
{
    setup_pair();
    uint32_t last = 0;
    for (int i = 0; i < PEERS_MAX; i++) {
        last = hub_accept(shard->hub, 3, now);
        ck_assert_uint_ne(last, 0);
    }
    ck_assert_uint_eq(hub_accept(shard->hub, 3, now), 0);
    now.mono_ns += (LINK_DEAD_MS + 1) * NS_PER_MS; /* none of them ever spoke */
    hub_tick(shard->hub, now);
    ck_assert_uint_eq(shard->forgotten, PEERS_MAX);
    ck_assert_uint_ne(hub_accept(shard->hub, 3, now), 0);
    teardown();
}
END_TEST

/* ---- chaos: any faults, and the promise holds ---- */

/* Between on_up and on_down the numbers are 1, 2, 3 ... without a gap, and ups and downs alternate.
 */
static void check_promise(const struct node *n)
{
    bool is_up = false;
    uint64_t expected = 1;
    for (size_t i = 0; i < n->n_log; i++) {
        switch (n->log[i].what) {
        case UP:
            ck_assert(!is_up);
            is_up = true;
            expected = 1;
            break;
        case DOWN:
            ck_assert(is_up);
            is_up = false;
            break;
        case MESSAGE:
            ck_assert(is_up);
            ck_assert_uint_eq(n->log[i].value, expected);
            expected++;
            break;
        }
    }
}

static uint64_t chaos_next[NODES_MAX];

static void chaos_restart(struct node *n, uint32_t peer)
{
    (void)peer;
    chaos_next[n - nodes] = 1;
}

static void chaos_send(struct node *n, uint32_t peer)
{
    if (hub_is_up(n->hub, peer))
        send_number(n, peer, chaos_next[n - nodes]++);
}

static void chaos_fault(struct rng *rng)
{
    switch (rng_below(rng, 12)) {
    case 0:
        wire->drop[rng_below(rng, 2)] = (int)rng_below(rng, 3);
        break;
    case 1:
        wire->fail[rng_below(rng, 2)] = 1;
        break;
    case 2:
        lose_queued(wire);
        hub_disconnected(gateway->hub, wire->dialed, now);
        break;
    case 3:
        hub_connected(gateway->hub, wire->dialed, now);
        break;
    case 4:
        wire->cut = rng_below(rng, 2);
        break;
    case 5:
        lose_queued(wire);
        break;
    default:
        break;
    }
}

START_TEST(chaos)
{
    struct rng rng;
    rng_seed(&rng, (uint64_t)_i);
    setup_pair();
    gateway->on_up = shard->on_up = chaos_restart;
    for (int step = 0; step < 1500; step++) {
        chaos_fault(&rng);
        now.mono_ns += (int64_t)rng_below(&rng, 200) * NS_PER_MS;
        for (uint64_t k = rng_below(&rng, 4); k > 0; k--) {
            chaos_send(gateway, wire->dialed);
            if (wire->accepted)
                chaos_send(shard, wire->accepted);
        }
        for (size_t i = 0; i < 2; i++) {
            hub_tick(nodes[i].hub, now);
            hub_flush(nodes[i].hub, now);
        }
        for (uint64_t k = rng_below(&rng, 6); k > 0; k--) {
            int d = (int)rng_below(&rng, 2);
            if (wire->n_queue[d] > 0)
                deliver_one(wire, d);
        }
    }
    check_promise(gateway);
    check_promise(shard);
    /* the faults end: both are up within a few seconds, and stay so */
    wire->cut = false;
    memset(wire->drop, 0, sizeof wire->drop);
    memset(wire->fail, 0, sizeof wire->fail);
    hub_connected(gateway->hub, wire->dialed, now);
    pass_ms(LINK_DEAD_MS + 2 * LINK_HEARTBEAT_MS);
    ck_assert(hub_is_up(gateway->hub, wire->dialed));
    ck_assert(hub_is_up(shard->hub, wire->accepted));
    gateway->n_log = shard->n_log = 0;
    pass_ms(10000);
    expect_log(gateway, "");
    expect_log(shard, "");
    teardown();
}
END_TEST

static TCase *link_cases(void)
{
    TCase *tc = tcase_create("link");
    tcase_add_test(tc, up);
    tcase_add_test(tc, nothing_is_sent_before_up);
    tcase_add_test(tc, pings_keep_it_up);
    tcase_add_test(tc, silence_is_death);
    tcase_add_test(tc, a_gap_upwards_is_never_silent);
    tcase_add_test(tc, a_gap_downwards_is_never_silent);
    tcase_add_test(tc, a_lost_last_packet_is_found_by_the_next_ping);
    tcase_add_test(tc, a_lost_welcome_is_repeated);
    tcase_add_test(tc, listener_restarts);
    tcase_add_test(tc, reconnect_loses_what_was_under_way);
    tcase_add_test(tc, reconnect_without_a_disconnect);
    tcase_add_test(tc, reset_of_another_incarnation_is_ignored);
    tcase_add_test(tc, stale_packets_are_reset_but_not_too_often);
    tcase_add_test(tc, foreign_cluster_is_refused);
    tcase_add_test(tc, role_without_business_is_refused);
    tcase_add_test(tc, a_second_process_takes_the_address_over);
    tcase_add_test(tc, goodbye_of_the_listener);
    tcase_add_test(tc, goodbye_of_the_dialer);
    tcase_add_loop_test(tc, chaos, 0, 100);
    return tc;
}

static TCase *message_cases(void)
{
    TCase *tc = tcase_create("messages");
    tcase_add_test(tc, failed_send_takes_the_link_down_later);
    tcase_add_test(tc, large_packets_leave_at_once);
    tcase_add_test(tc, a_thousand_in_order_and_back);
    tcase_add_test(tc, one_turn_is_one_packet);
    tcase_add_test(tc, greetings_travel_with_welcome);
    tcase_add_test(tc, both_sides_count_the_same_bytes);
    tcase_add_test(tc, malformed_packets);
    tcase_add_test(tc, malformed_messages_are_answered_and_the_link_stays);
    tcase_add_test(tc, an_error_is_answered_with_the_cid);
    tcase_add_test(tc, raw_messages_are_forwarded);
    tcase_add_test(tc, peers_are_bounded);
    return tc;
}

int main(void)
{
    Suite *suite = suite_create("hub");
    suite_add_tcase(suite, link_cases());
    suite_add_tcase(suite, message_cases());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
