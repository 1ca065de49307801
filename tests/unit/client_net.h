/* Test support: a publisher (the core of libstoa) and the hubs that it reaches, joined by wires in
 * memory. Packets of one wire keep their order; a wire that is cut loses what is on it. */
#ifndef STOA_TESTS_CLIENT_NET_H
#define STOA_TESTS_CLIENT_NET_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/publisher.h"
#include "common/hash.h"
#include "common/mem.h"

#define NET_CLUSTER 7
#define NODES_MAX 8
#define WIRES_MAX 16

struct parcel {
    struct list node;
    bool to_dialer;
    struct buf *bytes;
};

struct wire {
    unsigned dialer, listener; /* nodes */
    uint32_t dialed, accepted; /* what each calls the other; accepted 0: not heard of yet */
    bool connected;
    struct list parcels;
};

static struct hub *net_hubs[NODES_MAX]; /* NULL: the node is down */
static struct wire wires[WIRES_MAX];
static unsigned n_wires;
static struct tick now;

static int net_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    unsigned from = (unsigned)((struct hub **)ctx - net_hubs);
    for (struct wire *w = wires; w < wires + n_wires; w++) {
        bool from_dialer = w->dialer == from && w->dialed == peer;
        if (!from_dialer && (w->listener != from || w->accepted != peer))
            continue;
        if (!w->connected)
            return ERR_GONE;
        struct parcel *p = mem_alloc(sizeof *p);
        *p = (struct parcel){.to_dialer = !from_dialer, .bytes = buf_copy(packet, size)};
        list_push_back(&w->parcels, &p->node);
        return ERR_OK;
    }
    return ERR_GONE;
}

static void net_forget(void *ctx, uint32_t peer)
{
    unsigned at = (unsigned)((struct hub **)ctx - net_hubs);
    for (struct wire *w = wires; w < wires + n_wires; w++)
        if (w->listener == at && w->accepted == peer)
            w->accepted = 0;
}

static struct hub_ports net_ports(unsigned node)
{
    return (struct hub_ports){.ctx = &net_hubs[node], .send = net_send, .forget = net_forget};
}

static struct hub_self net_self(enum role role, unsigned node, uint64_t boot)
{
    static const char *const names[NODES_MAX] = {"n-0", "n-1", "n-2", "n-3",
                                                 "n-4", "n-5", "n-6", "n-7"};
    return (struct hub_self){.role = role,
                             .node = {(uint8_t)(node + 1)},
                             .boot = boot,
                             .cluster = NET_CLUSTER,
                             .name = names[node],
                             .version = "1"};
}

static void wire_drop(struct parcel *p)
{
    list_remove(&p->node);
    buf_unref(p->bytes);
    mem_free(p);
}

static struct parcel *wire_first(struct wire *w)
{
    return list_empty(&w->parcels) ? NULL : LIST_ENTRY(w->parcels.next, struct parcel, node);
}

/* Hands over the oldest packet; false: there is none. */
static bool wire_carry(struct wire *w)
{
    struct parcel *p = wire_first(w);
    if (!p)
        return false;
    struct buf *bytes = buf_ref(p->bytes);
    bool to_dialer = p->to_dialer;
    wire_drop(p);
    struct hub *hub = net_hubs[to_dialer ? w->dialer : w->listener];
    if (hub && !to_dialer && w->accepted == 0)
        w->accepted = hub_accept(hub, 0, now);
    if (hub)
        hub_packet(hub, to_dialer ? w->dialed : w->accepted, bytes, now);
    buf_unref(bytes);
    return true;
}

static void wire_connect(struct wire *w)
{
    if (w->connected || !net_hubs[w->dialer] || !net_hubs[w->listener])
        return;
    w->connected = true;
    hub_connected(net_hubs[w->dialer], w->dialed, now);
}

static void wire_cut(struct wire *w)
{
    while (wire_first(w))
        wire_drop(wire_first(w));
    if (w->connected && net_hubs[w->dialer])
        hub_disconnected(net_hubs[w->dialer], w->dialed, now);
    w->connected = false;
}

static struct wire *wire_add(unsigned dialer, uint32_t dialed, unsigned listener)
{
    ck_assert_uint_lt(n_wires, WIRES_MAX);
    struct wire *w = &wires[n_wires++];
    *w = (struct wire){.dialer = dialer, .dialed = dialed, .listener = listener};
    list_init(&w->parcels);
    return w;
}

/* The node's hub is about to be destroyed: nothing of it stays on the wires. */
static void net_down(unsigned node)
{
    net_hubs[node] = NULL;
    for (struct wire *w = wires; w < wires + n_wires; w++) {
        if (w->dialer != node && w->listener != node)
            continue;
        wire_cut(w);
        w->accepted = 0;
    }
}

static void net_begin(void)
{
    now = (struct tick){.mono_ns = 1000 * NS_PER_S, .wall_ms = INT64_C(1700000000000)};
    n_wires = 0;
}

static void net_pass_ms(int64_t ms)
{
    now.mono_ns += ms * NS_PER_MS;
    now.wall_ms += ms;
}

#endif
