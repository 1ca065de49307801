/* CORE. What hub.c (peers, queues, the calls of hub.h), hub_link.c (one link's way up and down) and
 * hub_receive.c (what arrives) share. Nobody else includes it. */
#ifndef STOA_PROTO_HUB_INTERNAL_H
#define STOA_PROTO_HUB_INTERNAL_H

#include "common/heap.h"
#include "common/list.h"
#include "proto/hub.h"
#include "proto/packet.h"

/* Resets to one peer, and HELLOs after a broken link, are at least this far apart. */
#define LINK_RESET_INTERVAL_MS 100
#define HUB_SPARE_BUFFERS 16
/* A packet buffer that grew beyond this is not kept. */
#define HUB_SPARE_MAX_BYTES (2 * PACKET_TARGET_BYTES)

_Static_assert(
    PACKET_TARGET_BYTES + PACKET_HEADER_BYTES + 8 + HEAD_MAX_BYTES + BODY_MAX_BYTES <=
        PACKET_MAX_BYTES,
    "a packet below its target takes any message, so none ever grows beyond its maximum");

enum link_state { LINK_DOWN, LINK_HELLO_SENT, LINK_UP };

struct peer {
    struct heap_node timer;
    struct list dirty;   /* in hub->dirty: messages are queued */
    struct list failing; /* in hub->failing: a send failed, on_down is still to be told */
    uint32_t number;
    unsigned door;
    const struct peer_key *key; /* accepted: what it may be; NULL: anything */
    enum link_state state;
    bool dialed;
    bool connected; /* dialed: the socket is */
    bool known;     /* `info` was filled in once */
    uint64_t incarnation;
    uint64_t sent_counter, received_counter; /* of the last packet in this incarnation */
    uint64_t sent_bytes, received_bytes;
    int64_t heard_ns, sent_ns;
    int64_t hello_ns, hello_due_ns; /* dialed: the last HELLO, and when the next is due */
    int64_t reset_ns;               /* accepted: the last RESET */
    struct strbuf out; /* the packet being filled; owned, none while nothing is queued */
    uint32_t queued;   /* messages in `out` */
    struct peer_info info;
};

/* Lets one line a second through and counts the others. */
struct log_limit {
    int64_t open_ns;
    uint64_t suppressed;
};

struct hub {
    struct hub_self self;
    struct hub_handler handler;
    struct hub_ports ports;
    struct log *log;
    struct rng rng;
    struct tick now; /* of the latest call that brought one */
    bool closed;     /* after hub_goodbye */
    bool flushing;
    struct peer *peers[PEERS_MAX + 1]; /* by number; owned */
    uint32_t last_number;              /* given last: numbers are reused as late as possible */
    uint32_t top_number;               /* largest ever given */
    struct heap timers;
    struct list dirty;
    struct list failing;
    struct strbuf spare[HUB_SPARE_BUFFERS]; /* packet buffers of peers with nothing queued */
    size_t n_spare;
    struct strbuf control; /* for packets outside the chain */
    struct message_arena arena;
    struct log_limit errors, refusals;
    struct metric *links[ROLE_ADMIN + 1];
    struct metric *resets, *dropped, *protocol_errors, *refused, *refused_handshakes;
};

/* ---- hub.c ---- */
struct peer *hub_find(const struct hub *hub, uint32_t number); /* NULL: nobody */
void peer_queue(struct hub *hub, struct peer *p, const struct message *m);
/* Sends the queued packet. ERR_FULL, ERR_GONE: it was dropped. */
int peer_send_queued(struct hub *hub, struct peer *p);
void peer_discard_queued(struct hub *hub, struct peer *p);
/* The peer's number is free again; accepted peers only. Frees `p`. */
void peer_forget(struct hub *hub, struct peer *p);

/* Sends what is queued now; a failure takes the link down at the next hub_flush or hub_tick. */
void peer_flush(struct hub *hub, struct peer *p);

/* ---- hub_link.c ---- */
struct message link_message(enum message_type type);
void link_send_outside_chain(struct hub *hub, struct peer *p, uint64_t incarnation,
                             const struct message *m);
/* RESET, answering a packet of that incarnation; at most every LINK_RESET_INTERVAL_MS. */
void link_reset(struct hub *hub, struct peer *p, uint64_t incarnation);
void link_begin(struct hub *hub, struct peer *p, uint64_t incarnation);
void link_up(struct hub *hub, struct peer *p);
void link_break(struct hub *hub, struct peer *p, const char *why);
void link_hello(struct hub *hub, struct peer *p);
void link_down(struct hub *hub, struct peer *p, const char *why);
void link_tick(struct hub *hub, struct peer *p); /* may free `p` */
void link_schedule(struct hub *hub, struct peer *p);

#endif
