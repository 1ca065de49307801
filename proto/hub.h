/* CORE. The links of one process to its peers: HELLO and WELCOME, incarnations, packet counters,
 * heartbeats, death, and the outgoing packet of each peer. Router, gateway, shard and libstoa all
 * speak through a hub; it knows no socket: packets come in as bytes and leave through a port.
 *
 *   dialed peer (we connect, DEALER):  DOWN --connected--> HELLO_SENT --WELCOME--> UP
 *        UP --silence > LINK_DEAD_MS, counter gap, RESET, GOODBYE, disconnected--> DOWN;
 *        while the socket is connected, HELLO with a new incarnation: at once (after GOODBYE:
 *        in LINK_HEARTBEAT_MS), then every LINK_HEARTBEAT_MS
 *   accepted peer (they connect, ROUTER): appears with its first packet; HELLO --> UP (WELCOME);
 *        a HELLO with another incarnation --> on_down, then UP anew;
 *        a packet with a wrong incarnation --> dropped and answered by RESET;
 *        a counter gap --> the same, and on_down;
 *        silence > LINK_DEAD_MS or GOODBYE --> on_down, and the peer number is forgotten.
 *
 * Only messages between on_up and on_down reach the handler, complete and in the order sent,
 * without gaps: a lost packet always shows as on_down followed by on_up with a new incarnation. A
 * peer of another cluster, or with a role that the hub's owner does not take or its key does not
 * allow, is refused (ERR sent, logged, counted). A message that is malformed or of an unknown type
 * is answered by ERR and goes no further.
 *
 * Each loop turn ends with hub_tick and hub_flush. on_down is called from hub_packet, hub_tick,
 * hub_flush, hub_connected, hub_disconnected and hub_goodbye, never from hub_send or hub_forward.
 *
 * Peers are numbered 1..PEERS_MAX; a number may be reused after ports.forget. */
#ifndef STOA_PROTO_HUB_H
#define STOA_PROTO_HUB_H

#include "common/buf.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/rng.h"
#include "common/tick.h"
#include "proto/message.h"

struct hub;

struct hub_self {
    enum role role;
    uint8_t node[16];
    uint64_t boot;
    uint64_t cluster; /* hash of the cluster name */
    const char *name; /* "shard-0"; kept by pointer, outlives the hub */
    const char *version;
    uint64_t win_msgs, win_bytes, window_ms; /* what WELCOME announces */
};

struct peer_info { /* what HELLO or WELCOME said; valid until the peer is forgotten */
    enum role role;
    uint8_t node[16];
    uint64_t boot;
    uint64_t win_msgs, win_bytes, window_ms;
    char name[65];
    char version[33];
};

/* What the key of an accepted peer lets it be: one of the rights must fit its HELLO. */
struct peer_right {
    enum role role;
    char name[65]; /* "": any name */
};
struct peer_key {
    char label[9];                   /* the beginning of the public key, for people */
    const struct peer_right *rights; /* NULL: every role */
    size_t n_rights;
};

struct hub_handler {
    void *ctx;
    /* The link is up with a new incarnation; both directions start empty. */
    void (*on_up)(void *ctx, uint32_t peer, const struct peer_info *info);
    /* The link is down: what was sent and not answered may be lost. Always paired with on_up. */
    void (*on_down)(void *ctx, uint32_t peer);
    /* One message. `packet` holds its bytes: keep a ref to keep slices of `m` beyond the call. The
     * hub has handled link messages (HELLO..GOODBYE) already; ERR is logged by the hub and not
     * passed on. */
    void (*on_message)(void *ctx, uint32_t peer, const struct message *m, struct buf *packet);
    /* Optional; when set it is called instead of decoding, with the raw message (a router
     * forwards). */
    void (*on_raw)(void *ctx, uint32_t peer, const struct message_prefix *p, struct slice head,
                   struct slice body, struct buf *packet);
    /* Whether a peer of this role may come in by this door (see hub_accept). NULL: every role. */
    bool (*admits)(void *ctx, unsigned door, enum role role);
};

struct hub_ports {
    void *ctx;
    /* Sends one packet. Borrows the bytes. ERR_FULL or ERR_GONE: it was dropped; the hub takes the
     * link down. Must not call back into the hub. */
    int (*send)(void *ctx, uint32_t peer, const void *packet, size_t size);
    /* An accepted peer is forgotten: drop its address. */
    void (*forget)(void *ctx, uint32_t peer);
};

struct hub *hub_create(const struct hub_self *self, const struct hub_handler *handler,
                       const struct hub_ports *ports, struct log *log, struct metrics *metrics,
                       uint64_t seed);
void hub_destroy(struct hub **hub);

/* Declares a peer that the program will connect to. */
uint32_t hub_dial(struct hub *hub);
/* A packet came from an address not seen before, through `door` (the program's number of the bound
 * socket: the router has one for publishers and one for gateways). 0: PEERS_MAX reached, drop it.
 */
uint32_t hub_accept(struct hub *hub, unsigned door, struct tick now);
unsigned hub_door(const struct hub *hub, uint32_t peer);
/* Which key the next packet of an accepted peer came with; kept by pointer, outlives the peer. None
 * told, ever: everything is allowed. Another key than before takes the link down: what was said
 * with the old one does not count for the new one. */
void hub_identify(struct hub *hub, uint32_t peer, const struct peer_key *key, struct tick now);

/* From the socket's monitor; dialed peers only. */
void hub_connected(struct hub *hub, uint32_t peer, struct tick now);
void hub_disconnected(struct hub *hub, uint32_t peer, struct tick now);

/* Counts a connection that the links refused before its first packet: no key, a wrong one, a probe.
 */
void hub_refused_handshake(struct hub *hub);

/* A packet from a peer. Borrows; handlers may keep refs. */
void hub_packet(struct hub *hub, uint32_t peer, struct buf *packet, struct tick now);
/* Heartbeats and deaths; call at hub_deadline at the latest. */
void hub_tick(struct hub *hub, struct tick now);
int64_t hub_deadline(const struct hub *hub);

/* Queues one message for a peer; it leaves with hub_flush, or at once when the packet reaches
 * PACKET_TARGET_BYTES. Dropped when the link is not up. */
void hub_send(struct hub *hub, uint32_t peer, const struct message *m);
/* The same for an already encoded message; cid, slot and ep are stamped into the copy. */
void hub_forward(struct hub *hub, uint32_t peer, struct slice head, struct slice body, uint64_t cid,
                 uint16_t slot, uint64_t ep);
/* Sends everything queued: once at the end of each loop turn. */
void hub_flush(struct hub *hub, struct tick now);

bool hub_is_up(const struct hub *hub, uint32_t peer);
const struct peer_info *hub_info(const struct hub *hub, uint32_t peer); /* NULL: never up */
/* When the last packet of it came that counted. */
int64_t hub_heard_ns(const struct hub *hub, uint32_t peer);
/* Packet bytes sent to / received from the peer since its HELLO (flow control counts these). */
uint64_t hub_sent_bytes(const struct hub *hub, uint32_t peer);
uint64_t hub_received_bytes(const struct hub *hub, uint32_t peer);
/* Iterates peers that are up: start with 0, ends with 0. */
uint32_t hub_next_up(const struct hub *hub, uint32_t after);
/* GOODBYE to everybody, flushed; then on_down for every link. The hub is silent from then on. */
void hub_goodbye(struct hub *hub, struct tick now);

#endif
