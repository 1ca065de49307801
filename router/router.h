/* CORE. A router: forwards publishes to the shard that owns the slot, and answers back. It holds
 * nothing that matters: the slot table is rebuilt from CLAIMs, the way back is in the message's cid
 * (upper half: the asking peer's number here, lower half: the asker's own cid). No parking, no
 * retry: what cannot be forwarded is NACKed with a hint. When a shard's link was lost, everybody is
 * told LOST and resends. */
#ifndef STOA_ROUTER_ROUTER_H
#define STOA_ROUTER_ROUTER_H

#include "common/log.h"
#include "common/metrics.h"
#include "proto/hub.h"

struct router;

/* Doors of the program's bound sockets, for hub_accept. */
enum router_door { ROUTER_DOOR_PUBLISH, ROUTER_DOOR_GATEWAY };

struct router_options {
    struct hub_self self;
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
void router_drain(struct router *r, struct tick now);

#endif
