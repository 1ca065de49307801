/* The real cores of gateways, routers and shards in one thread: queues instead of sockets, a store
 * in memory instead of a disk, a clock that stands until it is moved, randomness from a seed. Every
 * process can be killed at any point and started again; shards keep their store.
 *
 *     gateway 0..G --dials--> router 0..R --dials--> shard 0..S
 *            \________________dials________________/
 *
 * Packets of one connection keep their order; which connection's packet is handed over next is
 * drawn from the seed, so that a seed is an interleaving. */
#ifndef STOA_TESTS_MEM_RUNTIME_H
#define STOA_TESTS_MEM_RUNTIME_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"
#include "common/list.h"
#include "common/mem.h"
#include "common/rng.h"
#include "gateway/gateway.h"
#include "router/router.h"
#include "shard/shard.h"
#include "shard/store_mem.h"

#define GATEWAYS_MAX 3
#define ROUTERS_MAX 2
#define SHARDS_MAX 3

enum process_kind { GATEWAY, ROUTER, SHARD };

struct runtime_options {
    unsigned gateways, routers, shards;
    uint64_t seed;
    uint64_t retain_count; /* events a key, 0: no bound */
};

/* What a client hears. All slices live for the call. */
struct client_handler {
    void *ctx;
    void (*answered)(void *ctx, unsigned status, struct slice body);
    void (*frame)(void *ctx, struct slice payload, bool text); /* of a WebSocket */
    void (*closed)(void *ctx, unsigned code); /* by the gateway, or because it died: 1006 */
};

struct runtime;

struct runtime *runtime_create(const struct runtime_options *options);
void runtime_destroy(struct runtime **rt);
struct tick runtime_now(const struct runtime *rt);
struct rng *runtime_rng(struct runtime *rt);
/* Runs until nothing is on its way and nobody has anything to do now. */
void runtime_settle(struct runtime *rt);
/* Hands over one packet, or lets one process turn; false: nothing was to do. */
bool runtime_step(struct runtime *rt);
void runtime_pass_ms(struct runtime *rt, int64_t ms);
void runtime_kill(struct runtime *rt, enum process_kind kind, unsigned index);
void runtime_start(struct runtime *rt, enum process_kind kind, unsigned index);
bool runtime_is_up(const struct runtime *rt, enum process_kind kind, unsigned index);
void runtime_fill_disk(struct runtime *rt, unsigned shard, unsigned nth); /* 0: heal */
/* Hash of all packets and client bytes so far: two runs of a seed must agree. */
uint64_t runtime_transcript(const struct runtime *rt);

/* A request of a client at a gateway; answers and frames go to its handler. 0: the gateway is down.
 * `line` is "GET /path?query". */
uint64_t runtime_request(struct runtime *rt, unsigned gateway, const char *line,
                         const char *idempotency_key, struct slice body,
                         const struct client_handler *handler);
uint64_t runtime_upgrade(struct runtime *rt, unsigned gateway, const char *target,
                         const char *subprotocol, const struct client_handler *handler);
/* A text frame; nothing happens before the 101. */
void runtime_say(struct runtime *rt, uint64_t client, const char *text);
bool runtime_established(const struct runtime *rt, uint64_t client);
void runtime_hang_up(struct runtime *rt, uint64_t client); /* the handler hears nothing more */
void runtime_stall(struct runtime *rt, uint64_t client, bool stalled);

#endif
