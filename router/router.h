/* CORE. A router: forwards publishes to the shard that owns the slot, and answers back. It holds
 * nothing that matters: the slot table is rebuilt from CLAIMs, the way back is in the message's
 * cid. No parking, no retry: what cannot be forwarded is NACKed with a hint. When a shard's link
 * was lost, everybody is told LOST as soon as that shard serves again, and resends.
 *
 * The cid of a message between router and shard:
 *     63..48  generation of the asking peer's link: its incarnations here are counted, so that a
 *             reused number or a reconnected peer never receives an answer to somebody else
 *     47..32  the asking peer's number here
 *     31..0   the asker's own cid */
#ifndef STOA_ROUTER_ROUTER_H
#define STOA_ROUTER_ROUTER_H

#include "common/log.h"
#include "common/metrics.h"
#include "proto/hub.h"

struct router;

/* Doors of the program's bound sockets, for hub_accept. */
enum router_door { ROUTER_DOOR_PUBLISH, ROUTER_DOOR_GATEWAY };

/* The publish window that WELCOME announces to publishers and gateways. */
#define ROUTER_WINDOW_MESSAGES 1024
#define ROUTER_WINDOW_BYTES (8 * MIB)
/* How long a draining router waits for answers to what it has forwarded. */
#define ROUTER_DRAIN_MS 500

struct router_options {
    struct hub_self self; /* its publish windows are filled in */
    uint64_t slot_seed;
    unsigned n_shards;                  /* peers 1..n_shards are dialed, in configuration order */
    const char *const *shard_endpoints; /* for RING hints; borrowed until router_destroy */
    uint64_t seed;
};

struct router *router_create(const struct router_options *options, const struct hub_ports *ports,
                             struct log *log, struct metrics *metrics);
void router_destroy(struct router **r);
struct hub *router_hub(struct router *r);
void router_turn(struct router *r, struct tick now); /* heartbeats, flush; once per loop turn */
int64_t router_deadline(const struct router *r);
bool router_ready(const struct router *r); /* some slot has an owner that is up */
/* No more forwarding; GOODBYE to everybody once the outstanding answers have come, or after
 * ROUTER_DRAIN_MS. Then router_drained is true and the program may end. */
void router_drain(struct router *r, struct tick now);
bool router_drained(const struct router *r);

#endif
