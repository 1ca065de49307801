/* The world of hub_world.h. */
#include "hub_world.h"

struct node nodes[NODES_MAX];
struct wire wires[WIRES_MAX];
size_t n_wires;
struct tick now;

void happen(struct node *n, enum happening what, uint32_t peer, uint64_t type, uint64_t value)
{
    ck_assert(!n->in_send);
    ck_assert_uint_lt(n->n_log, EVENTS_MAX);
    n->log[n->n_log++] = (struct happened){what, peer, type, value};
}

void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    struct node *n = ctx;
    ck_assert_ptr_eq(hub_info(n->hub, peer), info);
    ck_assert(hub_is_up(n->hub, peer));
    happen(n, UP, peer, 0, info->role);
    if (n->on_up)
        n->on_up(n, peer);
}

void on_down(void *ctx, uint32_t peer)
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

void push(struct wire *w, int direction, const void *packet, size_t size)
{
    if (w->cut || w->drop[direction] > 0) {
        w->drop[direction] -= !w->cut;
        return;
    }
    ck_assert_uint_lt(w->n_queue[direction], QUEUE_MAX);
    w->queue[direction][w->n_queue[direction]++] = buf_copy(packet, size);
}

int port_send(void *ctx, uint32_t peer, const void *packet, size_t size)
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

void port_forget(void *ctx, uint32_t peer)
{
    struct node *n = ctx;
    n->forgotten++;
    for (size_t i = 0; i < n_wires; i++)
        if (wires[i].listener == n && wires[i].accepted == peer)
            wires[i].accepted = 0;
}

void node_start(struct node *n, enum role role, uint64_t cluster, uint64_t seed)
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

void node_stop(struct node *n)
{
    hub_destroy(&n->hub);
    metrics_destroy(&n->metrics);
    for (size_t i = 0; i < n_wires; i++)
        if (wires[i].listener == n)
            wires[i].accepted = 0;
}

struct wire *connect_nodes(struct node *dialer, uint32_t dialed, struct node *listener)
{
    struct wire *w = &wires[n_wires++];
    *w = (struct wire){.dialer = dialer, .listener = listener, .dialed = dialed};
    return w;
}

void lose_queued(struct wire *w)
{
    for (int d = 0; d < 2; d++) {
        for (size_t i = 0; i < w->n_queue[d]; i++)
            buf_unref(w->queue[d][i]);
        w->n_queue[d] = 0;
    }
}

void deliver_one(struct wire *w, int direction)
{
    struct buf *packet = w->queue[direction][0];
    memmove(w->queue[direction], w->queue[direction] + 1, --w->n_queue[direction] * sizeof packet);
    if (direction == 1) {
        hub_packet(w->dialer->hub, w->dialed, packet, now);
    } else {
        if (w->accepted == 0)
            w->accepted = hub_accept(w->listener->hub, 3, now);
        if (w->accepted != 0 && w->key)
            hub_identify(w->listener->hub, w->accepted, w->key, now);
        if (w->accepted != 0)
            hub_packet(w->listener->hub, w->accepted, packet, now);
    }
    buf_unref(packet);
}

void settle(void)
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

void pass_ms(int64_t ms)
{
    for (int64_t t = 0; t < ms; t += 50) {
        now.mono_ns += 50 * NS_PER_MS;
        settle();
    }
}

/* ---- a gateway (nodes[0]) that has dialed a shard (nodes[1]) ---- */

struct node *const gateway = &nodes[0];
struct node *const shard = &nodes[1];
struct wire *wire;

void setup_pair(void)
{
    memset(nodes, 0, sizeof nodes);
    n_wires = 0;
    now = (struct tick){.mono_ns = 5 * NS_PER_S, .wall_ms = 1};
    node_start(gateway, ROLE_GATEWAY, CLUSTER, 1);
    node_start(shard, ROLE_SHARD, CLUSTER, 2);
    wire = connect_nodes(gateway, hub_dial(gateway->hub), shard);
}

void setup_up(void)
{
    setup_pair();
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    ck_assert(hub_is_up(gateway->hub, wire->dialed));
    ck_assert(hub_is_up(shard->hub, wire->accepted));
    gateway->n_log = shard->n_log = 0;
}

void teardown(void)
{
    for (size_t i = 0; i < n_wires; i++)
        lose_queued(&wires[i]);
    for (size_t i = 0; i < NODES_MAX; i++)
        if (nodes[i].hub)
            node_stop(&nodes[i]);
    ck_assert_uint_eq(buf_alive(), 0);
}

void send_number(struct node *n, uint32_t peer, uint64_t number)
{
    struct message m = {.type = MSG_CREDIT, .cid = number, .slot = SLOT_UNKNOWN};
    n->in_send = true;
    hub_send(n->hub, peer, &m);
    n->in_send = false;
}

void expect_log(struct node *n, const char *expected)
{
    char seen[EVENTS_MAX + 1];
    for (size_t i = 0; i < n->n_log; i++)
        seen[i] = "UDm"[n->log[i].what];
    seen[n->n_log] = 0;
    ck_assert_str_eq(seen, expected);
    n->n_log = 0;
}

double links(struct node *n, const char *label)
{
    return metric_value(metrics_gauge(n->metrics, "stoa_links", label, ""));
}

double counter(struct node *n, const char *name)
{
    return metric_value(metrics_counter(n->metrics, name, "", ""));
}
