/* A shard in memory with gateways and publishers around it, for tests: real hubs, queues in place
 * of sockets, the store in memory, a clock that stands until it is moved. */
#ifndef STOA_TESTS_SHARD_RIG_H
#define STOA_TESTS_SHARD_RIG_H

#include "common/mem.h"
#include "common/rng.h"
#include "shard/shard.h"
#include "shard/store_mem.h"
#include "shard/vec.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define RIG_CLIENTS 8
#define RIG_SEED 7
#define MINUTE_MS INT64_C(60000)
#define HOUR_MS (60 * MINUTE_MS)

struct got { /* a message that a client received; owns its bytes and lists */
    struct message m;
    struct buf *packet;
    void *list;
};

struct rig;
struct rig_client {
    struct rig *rig;
    enum role role;
    struct hub *hub;
    uint32_t peer;    /* its number at the shard; 0: none yet */
    struct vec inbox; /* struct buf *: packets on the way to it */
    struct vec got;   /* struct got */
    uint64_t last_cid;
    const char *name;
    bool deaf; /* what the shard sends stays in the inbox */
    bool dead; /* and it says nothing, not even goodbye */
    bool connected;
};

struct rig {
    struct tick now;
    struct store *store;
    struct shard *shard;
    struct log log;
    struct metrics *metrics;
    struct metrics *client_metrics;
    struct shard_type types[4];
    size_t n_types;
    uint64_t boots;
    const struct shard_suspect *suspects; /* of the next start */
    size_t n_suspects;
    struct shard_watch watch; /* as above */
    struct rig_client clients[RIG_CLIENTS];
    struct vec to_shard; /* struct rig_packet */
};

struct rig_packet {
    struct rig_client *from;
    struct buf *bytes;
};

struct rig_pub {
    const char *key;
    const char *text;       /* one payload; or */
    const struct slice *at; /* several */
    size_t count;
    uint64_t id; /* 0: no message id */
    uint64_t pid, pseq;
    const char *conflate;
    struct slice filter; /* encoded */
    bool typed;
    bool ephemeral;
    int64_t ts; /* 0: now */
    uint64_t ep;
    uint16_t slot; /* 0: unknown */
};

/* types[0] = events with the default retention unless given. */
struct rig *rig_create(const struct shard_type *types, size_t n_types);
void rig_destroy(struct rig *rig);
/* Kills the shard in whatever state and starts another on the same store; links come up anew. */
void rig_crash(struct rig *rig);
void rig_stop(struct rig *rig);  /* kills it */
void rig_start(struct rig *rig); /* starts one; connects the clients that were */

struct rig_client *rig_dial(struct rig *rig, enum role role); /* up or refused */
struct rig_client *rig_connect(struct rig *rig, enum role role);
void rig_disconnect(struct rig_client *c);
void rig_kill(struct rig_client *c);
/* Another process of its name. */
struct rig_client *rig_namesake(const struct rig_client *c);
/* Moves packets and runs turns until nothing moves. */
void rig_pump(struct rig *rig);
/* Only the way to the shard: nothing is decided yet. */
void rig_feed(struct rig *rig);
/* Lets time pass in steps small enough for heartbeats, running turns. */
void rig_wait(struct rig *rig, int64_t ms);
/* The wall and the monotonic clock jump; the links' heartbeats are not asked (all stay up). */
void rig_jump(struct rig *rig, int64_t ms);

uint64_t rig_send(struct rig_client *c, struct message m); /* its cid */
uint64_t rig_publish(struct rig_client *c, struct rig_pub p);
void rig_sub(struct rig_client *c, const char *key);
void rig_id(uint8_t out[16], uint64_t id);

/* The answer to a cid (the newest), NULL: none. */
const struct got *rig_answer(const struct rig_client *c, uint64_t cid);
/* Publishes, pumps and returns the answer. */
const struct message *rig_ask(struct rig_client *c, struct rig_pub p);
const struct message *rig_replay(struct rig_client *c, const char *key, struct msg_replay_req req);
void rig_forget(struct rig_client *c); /* what was received so far */
size_t rig_count(const struct rig_client *c, uint64_t type);
const struct message *rig_nth(const struct rig_client *c, uint64_t type, size_t nth);
/* "1:a 2:b" of all events delivered for a key. */
const char *rig_delivered(const struct rig_client *c, const char *key);
const char *rig_items(const struct events_list *items);
double rig_metric(struct rig *rig, const char *name, const char *labels);

#define ck_pack(m_, seq_, dup_)                       \
    do {                                              \
        const struct message *pack_ = (m_);           \
        ck_assert_ptr_nonnull(pack_);                 \
        ck_assert_int_eq((int)pack_->type, MSG_PACK); \
        ck_assert_int_eq((int)pack_->pack.seq, seq_); \
        ck_assert_int_eq((int)pack_->pack.dup, dup_); \
    } while (0)
#define ck_nack(m_, code_)                              \
    do {                                                \
        const struct message *nack_ = (m_);             \
        ck_assert_ptr_nonnull(nack_);                   \
        ck_assert_int_eq((int)nack_->type, MSG_NACK);   \
        ck_assert_int_eq((int)nack_->nack.code, code_); \
    } while (0)

int rig_run(const char *name, const TTest *const *tests, size_t count);

#endif
