/* Test support: a gateway core with clients in memory on one side, and on the other a router and
 * one or two shards made of hubs with a small log of their own, whose answers the tests bend. No
 * socket, no disk; time passes when a test says so. */
#ifndef STOA_TESTS_GATEWAY_WORLD_H
#define STOA_TESTS_GATEWAY_WORLD_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "gateway/gateway.h"

#define CLIENTS_MAX 256
#define SEED 42
#define HISTORY 1296 /* base36 "100": the epoch of rooms unless a test changes it */

struct client {
    unsigned responses, status;
    char *body, *headers, *content_type;
    bool streaming, upgraded, established, closed, close_answer;
    char subprotocol[16];
    unsigned code;
    char reason[128];
    struct strbuf out; /* bytes written so far */
    size_t read;       /* of out, by the test */
    unsigned writes;
    const struct buf *last_buf;
    size_t last_offset;
    bool stalled; /* writes pile up: nothing goes to the kernel */
    bool late;    /* its 101 does not go out */
    bool paused;  /* the gateway does not read it */
    size_t queued;
};

/* What the shard's side does next; zero is a well-behaved cluster. */
struct faults {
    unsigned nack; /* code for the next `nacks` publishes */
    unsigned nacks;
    unsigned retry_ms;
    bool hold_packs;     /* publishes are stored, but nobody answers */
    bool lose_publishes; /* and these are not even stored */
    unsigned lose_delivers;
    bool hold_pages; /* REPLAY_REQs are kept until release_pages */
    bool mute_asks;
    uint64_t page_items; /* events of a page at most; 0: no bound */
};

extern struct gateway *gateway;
extern struct metrics *metrics;
extern struct tick now;
extern struct client clients[CLIENTS_MAX];
extern struct faults faults;
extern struct gateway_options options; /* changed before world_start */
extern unsigned n_pubs, n_subs, n_unsubs, n_replays, n_syncs, n_full_syncs, n_credits;
extern uint64_t last_msg_id[2];

void world_options(void); /* the defaults: one router, one shard, loopback */
void world_start(void);   /* all links up */
void world_setup(void);   /* both */
void world_teardown(void);
/* Runs everybody until nothing is on its way. */
void settle(void);
/* Lets time go by in steps, running everybody. */
void pass_ms(int64_t ms);

/* ---- the cluster ---- */
void router_down(unsigned router);
void router_up(unsigned router);
void shard_down(void);
void shard_up(bool new_boot);
void shard_withdraw(void); /* claims no slot any more, still up */
void shard_claim(void);
void release_pages(void);
/* A test's own part of the shard: true when it has dealt with the message. NULL after each test. */
extern bool (*shard_hears)(const struct message *m);
void shard_says(const struct message *m);
/* Appends without telling anybody, trims, begins another history, closes. */
void room_append(const char *key, const char *payload);
void room_append_bytes(const char *key, const void *payload, size_t size);
void room_trim(const char *key, uint64_t floor, enum miss_reason reason);
void room_reborn(const char *key, uint64_t epoch);
void room_roll_back(const char *key, uint64_t head); /* as if its disk had been put back in time */
void room_conflate(const char *key, const char *value, const char *payload);
/* Publishes through the cluster: stored and delivered. */
void room_publish(const char *key, const char *payload);
void room_publish_bytes(const char *key, const void *payload, size_t size, uint32_t flags);
/* The same of a room with a handler: with flags of its own, for whom the filter says. Does not
 * settle. */
void room_say(const char *key, const char *payload, uint32_t flags, struct slice filter);
void shard_resync(const char *key);
void shard_close(const char *key, unsigned code, const char *reason);
size_t room_count(const char *key); /* events stored */
uint64_t shard_granted(void);
void shard_send_bytes(size_t bytes); /* junk that only counts for credit */

/* ---- requests ---- */
/* "GET /path?query"; headers as "Name: value\n..." or NULL. Settles. */
struct client *ask(unsigned client, const char *line, const char *headers, const char *body);
struct client *ask_bytes(unsigned client, const char *line, const char *headers, struct slice body);
struct client *upgrade(unsigned client, const char *target, const char *headers);
struct client *open_v1(unsigned client);
struct client *open_raw(unsigned client, const char *target);
struct client *open_sse(unsigned client, const char *target, const char *headers);
void say(unsigned client, const char *text); /* a text frame; settles */
void hang_up(unsigned client, unsigned code);
void drain_client(unsigned client); /* its queue goes out */
/* The next frame as text ("" when there is none); valid until the next call. */
const char *frame(struct client *c);
bool frame_was_text(void);
/* All that was written and not read, as text. */
const char *rest(struct client *c);

double metric(const char *name, const char *labels);

#define ASSERT_ERROR(c, wanted_status, wanted_tag)                              \
    do {                                                                        \
        ck_assert_uint_eq((c)->status, (wanted_status));                        \
        ck_assert_ptr_nonnull(strstr((c)->body, "\"tag\":\"" wanted_tag "\"")); \
    } while (0)

#endif
