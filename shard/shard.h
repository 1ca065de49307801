/* CORE. A shard: the rooms of the slots it owns. Packets and time in; commits, packets and replies
 * out.
 *
 *   shard_packet  -> messages go into per-room FIFOs (full: NACK BUSY at once), reads are answered
 *   shard_turn    -> deficit round robin over ready rooms fills one transaction; commit; only then
 * the PACKs, DELIVERs and answers of that transaction leave (output gate)
 *
 * No socket, clock, disk or randomness of its own: peers are numbers of its hub, the store is a
 * vtable, time is an argument, random numbers come from the seed. */
#ifndef STOA_SHARD_SHARD_H
#define STOA_SHARD_SHARD_H

#include "common/log.h"
#include "common/metrics.h"
#include "common/tick.h"
#include "proto/hub.h"
#include "shard/store.h"

struct handler; /* handler.h */
struct shard;

#define SHARD_TYPES_MAX 65 /* those of the configuration, and that of our own keys */

/* Retention of one room type. 0: unlimited. */
struct retention {
    int64_t age_ms;
    uint64_t count;
    uint64_t bytes;
};

struct shard_type {
    const char *name; /* "events", "chat": the text before the first ':' of a key */
    struct retention retention;
    double rate;             /* of all that comes to a room, a second; 0: no limit */
    struct handler *handler; /* borrowed until the next shard_retypes or the end; NULL: events */
    bool presence;           /* its rooms tell who comes and goes */
};

/* A room whose code ended the shard's last process: it begins in quarantine (quarantine.h). */
struct shard_suspect {
    struct slice key;
    bool whole_type; /* with all others of its type */
    struct slice why;
};

/* The program's eye on rooms' code, while it runs: told which one, it can end a process that does
 * not come back. `leave` says how many nanoseconds it took. */
struct shard_watch {
    void *ctx;
    void (*enter)(void *ctx, struct slice key, const char *phase); /* NULL: nobody watches */
    int64_t (*leave)(void *ctx);
};

struct shard_options {
    struct hub_self self;           /* role ROLE_SHARD, node and boot from the store */
    uint64_t slot_seed;             /* for slot_of */
    const struct shard_type *types; /* copied; types[0] is the default type `events` */
    size_t n_types;
    /* Slots granted (epoch 1) when the store is new; inclusive; ignored otherwise. */
    bool grant;
    uint16_t grant_lo, grant_hi;
    uint64_t seed;
    uint64_t payload_max_bytes;
    const struct shard_suspect *suspects;
    size_t n_suspects;
    struct shard_watch watch;
};

/* Opens the rooms by scanning the store. Borrows store, log, metrics until shard_destroy. */
struct shard *shard_create(const struct shard_options *options, struct store *store,
                           const struct hub_ports *ports, struct log *log, struct metrics *metrics,
                           struct tick now);
void shard_destroy(struct shard **s);

struct hub *
shard_hub(struct shard *s); /* the program feeds accepted peers, packets and ticks here */

/* What time it is; call once per loop turn before the packets are fed. Without it, reads judge ages
 * by the time of the last shard_turn. */
void shard_tick(struct shard *s, struct tick now);
/* Decides what is queued and commits it; true while more is ready (call again without sleeping).
 * Flushes the hub. Call once per loop turn after the packets. */
bool shard_turn(struct shard *s, struct tick now);
/* Latest time for the next shard_turn when nothing arrives (trims, retries, heartbeats). */
int64_t shard_deadline(const struct shard *s);

/* SIGTERM: refuses new publishes with BUSY, commits what is queued, says GOODBYE. */
void shard_drain(struct shard *s, struct tick now);
/* New retention and handlers after a reload; same rules as at creation. Rooms whose handler is
 * another one now leave memory, runs that wait in them end. */
void shard_retypes(struct shard *s, const struct shard_type *types, size_t n_types);
/* What a reload was refused for, to be seen by operators; empty: the last one was taken. */
void shard_refused(struct shard *s, struct slice why);
/* Checks every invariant it can (asserts); for tests and the simulator. */
void shard_validate(const struct shard *s);

#endif
