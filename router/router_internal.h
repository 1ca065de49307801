/* CORE. What router.c (forwarding) and router_tell.c (what the router says itself) share. Nobody
 * else includes it. */
#ifndef STOA_ROUTER_ROUTER_INTERNAL_H
#define STOA_ROUTER_ROUTER_INTERNAL_H

#include "proto/slots.h"
#include "router/router.h"

#define CID_MAX 0xffffffffu

enum forward_result {
    FORWARD_OK,
    FORWARD_NOTOWNER,
    FORWARD_INVALID,
    FORWARD_DRAINING,
    FORWARD_RESULTS
};

struct router_shard {
    bool stranger;        /* what answers at its endpoint is no shard */
    bool used;            /* something was forwarded in this incarnation */
    bool lost;            /* LOST is owed once it serves again */
    uint64_t outstanding; /* forwarded and not answered, in this incarnation */
};

struct router {
    const char *name, *version;
    uint64_t boot;
    uint64_t slot_seed;
    unsigned n_shards;
    const char *const *shard_endpoints; /* borrowed */
    struct log *log;
    struct rng rng;
    struct hub *hub;
    struct slots *slots;
    struct router_shard *shards;        /* by peer number, from 1 */
    uint16_t generation[PEERS_MAX + 1]; /* of all links, by peer number */
    struct message_arena arena;
    struct strbuf scratch; /* JSON of a status */
    bool ring_changed;
    uint64_t ring_version;
    bool draining, drained;
    int64_t drain_ns;
    struct metric *forwards[FORWARD_RESULTS];
    struct metric *replies, *replies_stale, *unowned;
};

uint64_t router_outstanding(const struct router *r);

/* ---- router_tell.c ---- */
void router_tell_error(struct router *r, uint32_t peer, uint64_t cid, const char *text);
void router_tell_nack(struct router *r, uint32_t peer, const struct message_prefix *p,
                      enum nack_code code, uint64_t ep);
/* The ANSWER to an ASK that cannot be passed on. */
void router_tell_refusal(struct router *r, uint32_t peer, const struct message_prefix *p,
                         enum nack_code code);
/* The ANSWER to an ASK about the router itself. */
void router_tell_own_answer(struct router *r, uint32_t peer, const struct message_prefix *p,
                            struct slice head, struct slice body);
void router_tell_lost(struct router *r, unsigned shard);
void router_tell_ring(struct router *r, uint32_t peer);
void router_tell_ring_all(struct router *r);

#endif
