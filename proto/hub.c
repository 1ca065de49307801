/* CORE. The hub's peers and their outgoing packets; hub_link.c has the life of a link,
 * hub_receive.c what arrives on it.
 *
 * A peer's packet buffer exists only while messages are queued: it comes from a small stock and
 * goes back when the packet has left, so that thousands of quiet publishers hold no memory. A
 * failed send is noted and told (on_down) at the next hub_flush or hub_tick, never from inside the
 * core's own hub_send. */
#include "proto/hub_internal.h"

#include "common/mem.h"

static void register_metrics(struct hub *hub, struct metrics *metrics)
{
    static const char *const labels[] = {
        [ROLE_PUBLISHER] = "peer=\"publisher\"", [ROLE_GATEWAY] = "peer=\"gateway\"",
        [ROLE_ROUTER] = "peer=\"router\"",       [ROLE_SHARD] = "peer=\"shard\"",
        [ROLE_ADMIN] = "peer=\"admin\"",
    };
    for (size_t role = ROLE_PUBLISHER; role <= ROLE_ADMIN; role++)
        hub->links[role] = metrics_gauge(metrics, "stoa_links", labels[role],
                                         "Links that are up, by the peer's role.");
    hub->resets = metrics_counter(metrics, "stoa_link_resets_total", "",
                                  "Links taken down because packets were lost or made no sense.");
    hub->dropped =
        metrics_counter(metrics, "stoa_link_dropped_packets_total", "",
                        "Packets dropped: stale, behind a gap, or refused by the socket.");
    hub->protocol_errors = metrics_counter(metrics, "stoa_link_protocol_errors_total", "",
                                           "Packets and messages that break the protocol.");
    hub->refused =
        metrics_counter(metrics, "stoa_link_refused_total", "",
                        "HELLOs of foreign clusters, or of roles that have no business here or "
                        "that their key does not allow.");
    hub->refused_handshakes =
        metrics_counter(metrics, "stoa_link_refused_handshakes_total", "",
                        "Connections that ended within the handshake: no CURVE key, a wrong one.");
}

struct hub *hub_create(const struct hub_self *self, const struct hub_handler *handler,
                       const struct hub_ports *ports, struct log *log, struct metrics *metrics,
                       uint64_t seed)
{
    struct hub *hub = mem_zalloc(sizeof *hub);
    hub->self = *self;
    hub->handler = *handler;
    hub->ports = *ports;
    hub->log = log;
    rng_seed(&hub->rng, seed);
    list_init(&hub->dirty);
    list_init(&hub->failing);
    register_metrics(hub, metrics);
    return hub;
}

static void peer_free(struct hub *hub, struct peer *p)
{
    peer_discard_queued(hub, p);
    list_remove(&p->failing);
    heap_remove(&hub->timers, &p->timer);
    hub->peers[p->number] = NULL;
    mem_free(p);
}

void hub_destroy(struct hub **hub_p)
{
    struct hub *hub = *hub_p;
    if (!hub)
        return;
    for (uint32_t n = 1; n <= hub->top_number; n++)
        if (hub->peers[n])
            peer_free(hub, hub->peers[n]);
    for (size_t i = 0; i < hub->n_spare; i++)
        strbuf_free(&hub->spare[i]);
    strbuf_free(&hub->control);
    message_arena_free(&hub->arena);
    heap_free(&hub->timers);
    mem_free(hub);
    *hub_p = NULL;
}

/* ---- peers ---- */

struct peer *hub_find(const struct hub *hub, uint32_t number)
{
    return number <= PEERS_MAX ? hub->peers[number] : NULL;
}

/* NULL: all numbers are taken. */
static struct peer *peer_create(struct hub *hub)
{
    uint32_t number = hub->last_number;
    for (uint32_t tried = 0; tried < PEERS_MAX; tried++) {
        number = number % PEERS_MAX + 1;
        if (hub->peers[number])
            continue;
        struct peer *p = mem_zalloc(sizeof *p);
        p->number = number;
        list_init(&p->dirty);
        list_init(&p->failing);
        hub->peers[number] = p;
        hub->last_number = number;
        if (number > hub->top_number)
            hub->top_number = number;
        return p;
    }
    return NULL;
}

uint32_t hub_dial(struct hub *hub)
{
    struct peer *p = peer_create(hub);
    STOA_ASSERT(p);
    p->dialed = true;
    return p->number;
}

uint32_t hub_accept(struct hub *hub, unsigned door, struct tick now)
{
    hub->now = now;
    struct peer *p = hub->closed ? NULL : peer_create(hub);
    if (!p)
        return 0;
    p->door = door;
    p->heard_ns = now.mono_ns;
    p->reset_ns = now.mono_ns - LINK_RESET_INTERVAL_MS * NS_PER_MS;
    link_schedule(hub, p);
    return p->number;
}

void peer_forget(struct hub *hub, struct peer *p)
{
    STOA_ASSERT(!p->dialed && p->state != LINK_UP);
    uint32_t number = p->number;
    peer_free(hub, p);
    if (hub->ports.forget)
        hub->ports.forget(hub->ports.ctx, number);
}

unsigned hub_door(const struct hub *hub, uint32_t peer)
{
    const struct peer *p = hub_find(hub, peer);
    return p ? p->door : 0;
}

void hub_identify(struct hub *hub, uint32_t peer, const struct peer_key *key, struct tick now)
{
    hub->now = now;
    struct peer *p = hub_find(hub, peer);
    if (!p || p->key == key)
        return;
    STOA_ASSERT(!p->dialed);
    p->key = key;
    if (p->state == LINK_UP)
        link_down(hub, p, "another key");
}

bool hub_is_up(const struct hub *hub, uint32_t peer)
{
    const struct peer *p = hub_find(hub, peer);
    return p && p->state == LINK_UP;
}

const struct peer_info *hub_info(const struct hub *hub, uint32_t peer)
{
    const struct peer *p = hub_find(hub, peer);
    return p && p->known ? &p->info : NULL;
}

/* What is queued counts as sent: flow control must see it before the flush. */
uint64_t hub_sent_bytes(const struct hub *hub, uint32_t peer)
{
    const struct peer *p = hub_find(hub, peer);
    return p ? p->sent_bytes + (p->queued ? p->out.size : 0) : 0;
}

uint64_t hub_received_bytes(const struct hub *hub, uint32_t peer)
{
    const struct peer *p = hub_find(hub, peer);
    return p ? p->received_bytes : 0;
}

int64_t hub_heard_ns(const struct hub *hub, uint32_t peer)
{
    const struct peer *p = hub_find(hub, peer);
    return p ? p->heard_ns : 0;
}

uint32_t hub_next_up(const struct hub *hub, uint32_t after)
{
    for (uint32_t n = after + 1; n <= hub->top_number; n++)
        if (hub_is_up(hub, n))
            return n;
    return 0;
}

/* ---- outgoing packets ---- */

static void packet_open_for(struct hub *hub, struct peer *p)
{
    if (p->queued > 0)
        return;
    if (hub->n_spare > 0)
        p->out = hub->spare[--hub->n_spare];
    packet_begin(&p->out);
    list_push_back(&hub->dirty, &p->dirty);
}

void peer_discard_queued(struct hub *hub, struct peer *p)
{
    p->queued = 0;
    list_remove(&p->dirty);
    strbuf_reset(&p->out);
    if (p->out.data && p->out.capacity <= HUB_SPARE_MAX_BYTES && hub->n_spare < HUB_SPARE_BUFFERS)
        hub->spare[hub->n_spare++] = p->out;
    else
        strbuf_free(&p->out);
    p->out = (struct strbuf){0};
}

int peer_send_queued(struct hub *hub, struct peer *p)
{
    STOA_ASSERT(p->queued > 0);
    packet_end(&p->out, p->queued, p->incarnation, ++p->sent_counter);
    p->sent_bytes += p->out.size;
    p->sent_ns = hub->now.mono_ns;
    int code = hub->ports.send(hub->ports.ctx, p->number, p->out.data, p->out.size);
    peer_discard_queued(hub, p);
    if (code != ERR_OK)
        metric_add(hub->dropped, 1);
    return code;
}

void peer_flush(struct hub *hub, struct peer *p)
{
    if (peer_send_queued(hub, p) != ERR_OK && list_empty(&p->failing))
        list_push_back(&hub->failing, &p->failing);
}

static void message_queued(struct hub *hub, struct peer *p)
{
    p->queued++;
    if (p->out.size >= PACKET_TARGET_BYTES)
        peer_flush(hub, p);
}

void peer_queue(struct hub *hub, struct peer *p, const struct message *m)
{
    packet_open_for(hub, p);
    message_encode(&p->out, m);
    message_queued(hub, p);
}

/* The peer, if messages to it have a chance. */
static struct peer *peer_to_send(struct hub *hub, uint32_t number)
{
    struct peer *p = hub_find(hub, number);
    return p && p->state == LINK_UP && list_empty(&p->failing) && !hub->closed ? p : NULL;
}

void hub_send(struct hub *hub, uint32_t peer, const struct message *m)
{
    struct peer *p = peer_to_send(hub, peer);
    if (p)
        peer_queue(hub, p, m);
}

void hub_forward(struct hub *hub, uint32_t peer, struct slice head, struct slice body, uint64_t cid,
                 uint16_t slot, uint64_t ep)
{
    struct peer *p = peer_to_send(hub, peer);
    if (!p)
        return;
    packet_open_for(hub, p);
    size_t head_at = packet_put_raw(&p->out, head, body);
    message_stamp(p->out.data + head_at, cid, slot, ep);
    message_queued(hub, p);
}

static void send_all_queued(struct hub *hub)
{
    while (!list_empty(&hub->dirty))
        peer_flush(hub, LIST_ENTRY(hub->dirty.next, struct peer, dirty));
}

/* Links whose sends failed go down here, where no core is in the middle of a send. */
static void settle_failures(struct hub *hub)
{
    while (!list_empty(&hub->failing))
        link_down(hub, LIST_ENTRY(hub->failing.next, struct peer, failing), "send failed");
}

void hub_flush(struct hub *hub, struct tick now)
{
    hub->now = now;
    if (hub->flushing)
        return;
    hub->flushing = true;
    do { /* on_down may queue for others; each further round has taken a link down, so it ends */
        send_all_queued(hub);
        settle_failures(hub);
    } while (!list_empty(&hub->dirty));
    hub->flushing = false;
}

/* ---- time and the socket's monitor ---- */

void hub_tick(struct hub *hub, struct tick now)
{
    hub->now = now;
    settle_failures(hub);
    struct heap_node *due;
    while ((due = heap_pop_due(&hub->timers, now.mono_ns)) != NULL)
        link_tick(hub, LIST_ENTRY(due, struct peer, timer));
    settle_failures(hub);
}

int64_t hub_deadline(const struct hub *hub)
{
    return heap_next(&hub->timers);
}

void hub_refused_handshake(struct hub *hub)
{
    metric_add(hub->refused_handshakes, 1);
}

void hub_connected(struct hub *hub, uint32_t peer, struct tick now)
{
    hub->now = now;
    struct peer *p = hub_find(hub, peer);
    STOA_ASSERT(p && p->dialed);
    p->connected = true;
    if (hub->closed)
        return;
    if (p->state == LINK_UP)
        link_down(hub, p, "reconnected");
    link_hello(hub, p);
}

void hub_disconnected(struct hub *hub, uint32_t peer, struct tick now)
{
    hub->now = now;
    struct peer *p = hub_find(hub, peer);
    STOA_ASSERT(p && p->dialed);
    p->connected = false;
    link_down(hub, p, "disconnected");
}

void hub_goodbye(struct hub *hub, struct tick now)
{
    if (hub->closed)
        return;
    for (uint32_t n = hub_next_up(hub, 0); n != 0; n = hub_next_up(hub, n))
        hub_send(hub, n, &(struct message){.type = MSG_GOODBYE, .slot = SLOT_UNKNOWN});
    hub_flush(hub, now);
    hub->closed = true;
    for (uint32_t n = 1; n <= hub->top_number; n++) {
        struct peer *p = hub->peers[n];
        if (!p)
            continue;
        link_down(hub, p, "leaving");
        heap_remove(&hub->timers, &p->timer);
    }
}
