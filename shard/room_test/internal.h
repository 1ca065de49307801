/* CORE. What the files of the world share: world.c (shard, store, clock), gateway.c (the peer). */
#ifndef STOA_SHARD_ROOM_TEST_INTERNAL_H
#define STOA_SHARD_ROOM_TEST_INTERNAL_H

#include "common/rng.h"
#include "proto/hub.h"
#include "shard/room_test/world.h"
#include "shard/vec.h"

#define WORLD_TYPES_MAX 16
#define PEER_SHARD 1 /* the shard's number at the gateway: the only one that it dials */

struct world_connection {
    char *key;
    char session[24];
    struct strbuf id, tags, names; /* names: the tags' texts, behind each other */
    struct strbuf auto_request, auto_response;
    struct slice tag[16];
    size_t n_tags;
    uint64_t head; /* items behind it are for it */
    uint64_t said;
    struct vec inputs;   /* struct world_input: not yet on disk */
    struct vec received; /* struct strbuf */
    size_t given;        /* of `received`, taken by the test */
    bool joined, open;
    bool stalled; /* the disk was full: its inputs are to be sent again */
    int64_t again_ms;
    unsigned close_code;
    struct strbuf close_reason;
};

struct world_input {
    uint64_t counter;
    uint64_t flags;
    struct strbuf frame;
};

struct world {
    struct tick now;
    struct rng rng;
    struct log *log;
    struct store *store;
    struct shard *shard; /* NULL: stopped */
    uint64_t boots;
    struct metrics *shard_metrics, *gateway_metrics;
    struct shard_type types[WORLD_TYPES_MAX];
    size_t n_types;
    /* the gateway */
    struct hub *hub;
    uint32_t peer;                   /* its number at the shard; 0: none yet */
    struct vec to_shard, to_gateway; /* struct buf * */
    struct vec keys;                 /* char *: subscribed */
    struct vec connections;          /* struct world_connection * */
    uint64_t last_cid, last_session, last_msg_id;
    /* what the test waits for */
    uint64_t awaited; /* cid; 0: nothing */
    struct world_answer *answer;
    uint64_t log_after, log_epoch; /* where the next page of a log begins */
    bool log_more;
};

/* ---- world.c ---- */
/* Moves packets and runs turns until nothing moves. */
void world_pump(struct world *w);
/* Sends a question and waits for its answer. */
void world_ask(struct world *w, struct message *m, struct world_answer *out);

/* ---- gateway.c ---- */
void gateway_create(struct world *w);
void gateway_destroy(struct world *w);
/* Its link to a shard that has just started. */
void gateway_connect(struct world *w);
/* Takes what the shard has sent. True: there was something. */
bool gateway_turn(struct world *w);
void gateway_send(struct world *w, struct message *m);
/* So that what the room sends comes here. */
void gateway_subscribe(struct world *w, struct slice key);
void gateway_inputs_send(struct world *w, struct world_connection *c);

#endif
