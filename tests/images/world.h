/* SHELL. A shard on the store under test, and one gateway that publishes to it: the real core and
 * the real store, a made-up clock, queues in place of sockets. What was asked and what was answered
 * is kept in a history, which lies in memory that child processes share, so that it outlives them.
 *
 * The workload follows from a seed: publishes (single and batches) of every size that lies in a
 * page or in pages of its own, to rooms that forget by age, by count or never, with and without
 * publisher order; retries of what was answered; purges; tokens of slots. Every payload follows
 * from its number, so a reader can check each byte. */
#ifndef STOA_TESTS_IMAGES_WORLD_H
#define STOA_TESTS_IMAGES_WORLD_H

#include "common/rng.h"
#include "common/strbuf.h"
#include "shard/shard.h"
#include "shard/vec.h"

#define WORLD_ROOMS 14
#define WORLD_OPS_MAX 60000
#define WORLD_GRANTED 256     /* slots 0..255 belong to this shard */
#define WORLD_TOKENS_FROM 200 /* no key lies there: their epochs move */
#define PAYLOAD_MAX 65536

enum op_state { OP_SENT, OP_ACKED, OP_REFUSED };
enum op_kind { OP_PUBLISH, OP_PURGE };

struct op_note {
    uint8_t kind, state, room, parts;
    bool ordered;
    uint64_t seq, epoch;        /* of the answer: last seq */
    int64_t ts;                 /* when it was decided, and sent first */
    uint32_t sent_at, acked_at; /* recorded events by then */
};

struct token_note { /* of slots WORLD_TOKENS_FROM.. */
    uint64_t epoch;
    uint32_t sent_at, acked_at; /* UINT32_MAX: not yet */
};
#define WORLD_TOKENS_MAX 4096

struct history {
    uint64_t seed;
    bool big; /* payloads of many pages: the file grows */
    struct tick now;
    uint64_t turns;
    uint32_t lives; /* of writers */
    size_t n_ops, n_tokens;
    struct op_note ops[WORLD_OPS_MAX];
    struct token_note tokens[WORLD_TOKENS_MAX];
};

/* In memory shared with children; freed by the end of the process or history_free. */
struct history *history_create(uint64_t seed, bool big);
void history_free(struct history *h);

const char *world_key(unsigned room);
const struct retention *world_retention(unsigned room);
/* The bytes of an event, in a buffer that the next call overwrites. */
struct slice world_payload(const struct history *h, size_t op, unsigned part);

struct world {
    struct history *history;
    struct store *file;  /* the one under test, */
    struct store *store; /* and with rows around it: what the shard has */
    struct shard *shard;
    struct hub *hub; /* the gateway's */
    struct metrics *metrics;
    struct log log;
    struct strbuf problem; /* not empty: something was answered that must not be */
    bool lenient;          /* the file was damaged: publishes may be refused for any reason */
    uint32_t life;
    struct rng rng;
    struct tick now;
    struct vec to_shard, to_gateway; /* struct buf * */
    uint32_t peer;
    uint64_t last_cid, first_cid; /* first_cid: of the running turn */
    struct vec asked;             /* struct asked, by cid - first_cid */
    uint64_t pid;
    uint64_t next_pseq[WORLD_ROOMS];
    uint64_t token; /* epoch that the shard claims for the slots of tokens, by WELCOME */
    /* What follows an answer that the workload does not know; set by who asks. */
    void (*on_answer)(void *ctx, const struct message *m);
    void *ctx;
};

/* Opens the store and starts the shard. On failure NULL, with the reason in `why`. */
struct world_start {
    uint32_t life; /* seeds what differs from one start to the next */
    struct tick now;
    bool after_eio;
};
struct world *world_open(const char *dir, struct history *h, const struct world_start *start,
                         struct strbuf *why);
/* The last line that was logged goes there too, when set: what a process that ended said. */
#define WORLD_LAST_WORDS 512
extern char *world_last_words;
void world_close(struct world **w);
/* One turn of the workload, until everything is answered. */
void world_turn(struct world *w);
/* Lets time pass (the trims' too) and moves packets until nothing moves. */
void world_pump(struct world *w);
/* Sends a message under a cid of its own, which it returns; world_pump brings the answer. */
uint64_t world_send(struct world *w, struct message m);
/* The publish of an op as it was first sent, without its publisher's order. */
struct message world_publish(const struct world *w, size_t number, struct slice parts[]);

#endif
