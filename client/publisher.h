/* CORE. The publisher: keeps every publish until its outcome is known, sends it through a router,
 * and again when the answer was lost or a refusal was not final. Keys are independent; the events
 * of one key are stored in the order in which they were submitted.
 *
 *   queued --sent--> in flight --PACK--------------------------------------> STOA_OK
 *                    in flight --NACK TOOBIG INVALID DENIED----------------> refused for good
 *                    in flight --NACK STALE--------------------------------> STOA_UNKNOWN
 *                    in flight --NACK BUSY RATE MOVED NOTOWNER FROZEN DISK-> queued, after a while
 *                    in flight --NACK ORDER, LOST, link down, silence------> queued
 *   any --its time is over--> STOA_UNKNOWN if it may have been stored, else STOA_TIMEOUT or
 *                             STOA_DISK
 *
 * A key has a lane: a random pid, under which its publishes are numbered (pseq) as they are first
 * sent. A lane's queue is in order of submission; what is in flight is a prefix of it, and whenever
 * a publish goes back to queued, all behind it in its lane do too (go-back-N). The shard takes a
 * pseq only after the one before, so that nothing overtakes. When a numbered publish leaves
 * without having been stored, or the shard expects a number that is not in the queue, the lane
 * takes a new pid and numbers anew from 1; message ids stay, so that the shard recognises what it
 * has already.
 *
 * An ephemeral publish has no number, is sent once, in its place in the lane, and waits for its
 * answer outside of it.
 *
 * In flight are at most PUBLISH_WINDOW_PER_KEY a lane and what the router's WELCOME allows in all.
 *
 * Outcomes are collected in a list (publisher_done), never told by a callback. */
#ifndef STOA_CLIENT_PUBLISHER_H
#define STOA_CLIENT_PUBLISHER_H

#include "client/publish.h"
#include "proto/hub.h"

struct publisher;

struct publisher_options {
    struct hub_self self; /* role ROLE_PUBLISHER */
    uint32_t n_routers;   /* peers 1..n_routers are dialed; the order is the order of preference */
    uint64_t seed;
};

/* An answer that does not come for this long over a link that is up is taken as lost. */
#define PUBLISH_SILENCE_MS 5000
/* A lane without publishes is kept so long, for its numbering; and so many of them. */
#define LANE_IDLE_MS 60000
#define LANES_IDLE_MAX 16384

struct publisher *publisher_create(const struct publisher_options *options,
                                   const struct hub_ports *ports, struct log *log,
                                   struct metrics *metrics);
/* Everything must have been taken back (publisher_abandon). */
void publisher_destroy(struct publisher **p);
struct hub *publisher_hub(struct publisher *p);
/* Calls go through the same router (caller.h). The publisher turns it with itself; submitting,
 * taking what is done and abandoning are the owner's. */
struct caller *publisher_caller(struct publisher *p);

/* Takes the publish. */
void publisher_submit(struct publisher *p, struct publish *publish, struct tick now);
/* Sends what may be sent, times out, keeps links alive; the end of every loop turn. */
void publisher_turn(struct publisher *p, struct tick now);
int64_t publisher_deadline(const struct publisher *p);
/* Publishes taken and without outcome. */
size_t publisher_pending(const struct publisher *p);
/* Those whose outcome is known; whoever takes one off the list owns it. */
struct list *publisher_done(struct publisher *p);
/* Everything pending becomes STOA_UNKNOWN; the publishes of a key in order of submission. */
void publisher_abandon(struct publisher *p);
/* For tests: the parts fit together (asserted). */
void publisher_validate(const struct publisher *p);
size_t publisher_lanes(const struct publisher *p);
size_t publisher_in_flight(const struct publisher *p);

#endif
