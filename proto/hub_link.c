/* CORE. One link's way up and down, its heartbeats and its death: the state machine drawn in hub.h.
 * hub_receive.c has what arrives.
 *
 * Every packet of an incarnation has the next counter; that is the chain. RESET and the ERR that
 * refuses a HELLO are outside it: they travel alone, with counter 0 and the incarnation of the
 * packet that they answer, because there is no chain to be in. */
#include "proto/hub_internal.h"

struct message link_message(enum message_type type)
{
    return (struct message){.type = type, .slot = SLOT_UNKNOWN};
}

/* A packet outside the chain. If it is lost, the peer's next packet or HELLO brings another. */
void link_send_outside_chain(struct hub *hub, struct peer *p, uint64_t incarnation,
                             const struct message *m)
{
    strbuf_reset(&hub->control);
    packet_begin(&hub->control);
    message_encode(&hub->control, m);
    packet_end(&hub->control, 1, incarnation, 0);
    if (hub->ports.send(hub->ports.ctx, p->number, hub->control.data, hub->control.size) != ERR_OK)
        metric_add(hub->dropped, 1);
}

void link_reset(struct hub *hub, struct peer *p, uint64_t incarnation)
{
    if (hub->now.mono_ns - p->reset_ns < LINK_RESET_INTERVAL_MS * NS_PER_MS)
        return;
    p->reset_ns = hub->now.mono_ns;
    struct message m = link_message(MSG_RESET);
    link_send_outside_chain(hub, p, incarnation, &m);
}

/* ---- up, down, time ---- */

void link_schedule(struct hub *hub, struct peer *p)
{
    int64_t dead_ns = p->heard_ns + LINK_DEAD_MS * NS_PER_MS;
    int64_t ping_ns = p->sent_ns + LINK_HEARTBEAT_MS * NS_PER_MS;
    int64_t due_ns = dead_ns;
    if (p->state == LINK_UP && ping_ns < dead_ns)
        due_ns = ping_ns;
    else if (p->state != LINK_UP && p->dialed)
        due_ns = p->connected ? p->hello_due_ns : TICK_NEVER;
    if (hub->closed || due_ns == TICK_NEVER)
        heap_remove(&hub->timers, &p->timer);
    else
        heap_set(&hub->timers, &p->timer, due_ns);
}

/* Both directions of a new incarnation start empty. */
void link_begin(struct hub *hub, struct peer *p, uint64_t incarnation)
{
    peer_discard_queued(hub, p);
    p->incarnation = incarnation;
    p->sent_counter = p->received_counter = 0;
    p->sent_bytes = p->received_bytes = 0;
    p->heard_ns = hub->now.mono_ns;
}

void link_up(struct hub *hub, struct peer *p)
{
    p->state = LINK_UP;
    p->known = true;
    metric_move(hub->links[p->info.role], 1);
    LOG(hub->log, LOG_INFO, "link.up", LOG_U64("peer", p->number),
        LOG_STR("with", role_name(p->info.role)), LOG_STR("name", p->info.name),
        LOG_STR("version", p->info.version));
    link_schedule(hub, p);
    hub->handler.on_up(hub->handler.ctx, p->number, &p->info);
}

void link_down(struct hub *hub, struct peer *p, const char *why)
{
    bool was_up = p->state == LINK_UP;
    p->state = LINK_DOWN;
    peer_discard_queued(hub, p);
    list_remove(&p->failing);
    if (p->dialed) {
        int64_t earliest = p->hello_ns + LINK_RESET_INTERVAL_MS * NS_PER_MS;
        p->hello_due_ns = hub->now.mono_ns > earliest ? hub->now.mono_ns : earliest;
    }
    link_schedule(hub, p);
    if (!was_up)
        return;
    metric_move(hub->links[p->info.role], -1);
    LOG(hub->log, LOG_INFO, "link.down", LOG_U64("peer", p->number),
        LOG_STR("with", role_name(p->info.role)), LOG_STR("name", p->info.name),
        LOG_STR("why", why));
    hub->handler.on_down(hub->handler.ctx, p->number);
}

/* The chain is broken: nothing more of this incarnation can be believed complete. */
void link_break(struct hub *hub, struct peer *p, const char *why)
{
    uint64_t incarnation = p->incarnation;
    bool had_chain = p->state != LINK_DOWN;
    metric_add(hub->resets, 1);
    link_down(hub, p, why);
    if (!p->dialed && had_chain)
        link_reset(hub, p, incarnation);
}

void link_hello(struct hub *hub, struct peer *p)
{
    uint64_t incarnation = rng_u64(&hub->rng);
    link_begin(hub, p, incarnation ? incarnation : 1);
    p->hello_ns = hub->now.mono_ns;
    p->hello_due_ns = p->hello_ns + LINK_HEARTBEAT_MS * NS_PER_MS;
    struct message m = link_message(MSG_HELLO);
    m.hello.role = hub->self.role;
    memcpy(m.hello.node, hub->self.node, sizeof m.hello.node);
    m.hello.boot = hub->self.boot;
    m.hello.cluster = hub->self.cluster;
    m.hello.proto_max = 1;
    m.hello.name = slice_text(hub->self.name);
    m.hello.version = slice_text(hub->self.version);
    peer_queue(hub, p, &m);
    p->state = peer_send_queued(hub, p) == ERR_OK ? LINK_HELLO_SENT : LINK_DOWN;
    link_schedule(hub, p);
}

void link_tick(struct hub *hub, struct peer *p)
{
    int64_t now = hub->now.mono_ns;
    bool silent = now - p->heard_ns >= LINK_DEAD_MS * NS_PER_MS;
    if (p->state == LINK_UP && silent)
        link_down(hub, p, "silent");
    if (!p->dialed && p->state != LINK_UP && silent) {
        peer_forget(hub, p);
        return;
    }
    if (p->state == LINK_UP && now - p->sent_ns >= LINK_HEARTBEAT_MS * NS_PER_MS) {
        struct message m = link_message(MSG_PING);
        peer_queue(hub, p, &m);
        peer_flush(hub, p);
    }
    if (p->dialed && p->connected && p->state != LINK_UP && now >= p->hello_due_ns)
        link_hello(hub, p);
    link_schedule(hub, p);
}
