/* Hubs wired in memory, for tests: up to NODES_MAX of them, each with a log of what its handler was
 * told, and wires whose faults the tests choose. Time passes when a test says so. */
#ifndef STOA_TESTS_HUB_WORLD_H
#define STOA_TESTS_HUB_WORLD_H

#include <check.h>

#include "proto/hub.h"

#define CLUSTER 77
#define NODES_MAX 3
#define WIRES_MAX 4
#define QUEUE_MAX 4096
#define EVENTS_MAX 8192

enum happening { UP, DOWN, MESSAGE };
struct happened {
    enum happening what;
    uint32_t peer;
    uint64_t type, value; /* of a MESSAGE: its cid */
};

struct node {
    struct hub *hub;
    struct metrics *metrics;
    struct hub_self self;
    struct happened log[EVENTS_MAX];
    size_t n_log;
    uint32_t forgotten; /* peers forgotten so far */
    enum role refuses;  /* admits(): this role is not taken */
    bool in_send;       /* a core is inside hub_send: no callback may come */
    void (*on_message)(struct node *n, uint32_t peer, const struct message *m);
    void (*on_up)(struct node *n, uint32_t peer);
};

/* A dialer's connection to a listener; each direction a queue of packets. */
struct wire {
    struct node *dialer, *listener;
    uint32_t dialed;                 /* the dialer's number */
    uint32_t accepted;               /* the listener's number, 0: not seen */
    struct buf *queue[2][QUEUE_MAX]; /* 0: to the listener, 1: to the dialer */
    size_t n_queue[2];
    const struct peer_key *key; /* what the listener is told of it; NULL: nothing */
    bool cut;                   /* packets vanish */
    int drop[2];                /* so many of the next packets vanish */
    int fail[2];                /* so many of the next sends fail */
};

extern struct node nodes[NODES_MAX];
extern struct wire wires[WIRES_MAX];
extern size_t n_wires;
extern struct tick now;
/* What setup_pair makes: nodes[0] has dialed nodes[1] over the wire. */
extern struct node *const gateway;
extern struct node *const shard;
extern struct wire *wire;

/* A packet onto a wire, unless its faults take it. */
void push(struct wire *w, int direction, const void *packet, size_t size);
void node_start(struct node *n, enum role role, uint64_t cluster, uint64_t seed);
void node_stop(struct node *n);
struct wire *connect_nodes(struct node *dialer, uint32_t dialed, struct node *listener);
void lose_queued(struct wire *w);
/* Hands the oldest packet of one direction over. */
void deliver_one(struct wire *w, int direction);
/* Turns every node's loop until nothing is on its way. */
void settle(void);
void pass_ms(int64_t ms);
/* A gateway that has dialed a shard, not connected yet; and one that is up. */
void setup_pair(void);
void setup_up(void);
void teardown(void);
void send_number(struct node *n, uint32_t peer, uint64_t number);
/* Compares a node's log with a text: U up, D down, m message; then clears it. */
void expect_log(struct node *n, const char *expected);
/* Values of metrics. */
double links(struct node *n, const char *label);
double counter(struct node *n, const char *name);
/* Notes in the node's log; fails inside the core's own hub_send. */
void happen(struct node *n, enum happening what, uint32_t peer, uint64_t type, uint64_t value);
/* Handlers and ports that log and push; their ctx is the node. */
void on_up(void *ctx, uint32_t peer, const struct peer_info *info);
void on_down(void *ctx, uint32_t peer);
int port_send(void *ctx, uint32_t peer, const void *packet, size_t size);
void port_forget(void *ctx, uint32_t peer);

#endif
