/* CORE. One room as the shard's memory holds it. An idle room that somebody watches is this struct
 * with its key, its places in the maps and 8 bytes a subscribed gateway: under 0.5 KiB. The index
 * of records and the memory of ids exist only while there are records. With none of these it is
 * put away: a cold room. */
#ifndef STOA_SHARD_ROOM_H
#define STOA_SHARD_ROOM_H

#include "common/bucket.h"
#include "common/heap.h"
#include "common/list.h"
#include "proto/message.h"
#include "shard/dedupe.h"
#include "shard/retain.h"

struct op;    /* fifo.h */
struct actor; /* actor.h */
struct link;

struct subscriber {
    uint32_t peer;
    uint16_t round; /* of the gateway's complete list that last named it */
    bool dirty;     /* deliveries were skipped; RESYNC is due */
};

/* Publishes counted in steps of RATE_STEP_MS, for ASK_TOP. */
#define RATE_STEP_MS 10000
struct room_rate {
    uint32_t step; /* number of the step that `now` counts */
    uint32_t now;
    uint32_t before; /* the step before it */
};

struct room {
    struct list ready;        /* in shard->ready while ops are queued */
    struct heap_node removal; /* in shard->removals: when its oldest record may go; ms */
    uint64_t room_id;         /* with epoch: 0 until the first durable event */
    uint64_t epoch;
    uint64_t head;
    uint64_t floor;
    int64_t floor_ts; /* of the newest message id forgotten; 0: none */
    int64_t touched;
    uint64_t retained_bytes;  /* payloads above the floor, but for transient ones */
    uint64_t transient_bytes; /* those */
    uint64_t ids_floor;       /* ids at or below it were forgotten although on disk */
    struct retain *retain;    /* owned; NULL: no records on disk */
    struct dedupe *dedupe;    /* owned; NULL: nothing remembered */
    struct op *first_op, *last_op;
    uint32_t queued_ops;
    uint32_t queued_bytes;
    int32_t deficit;
    uint32_t stage; /* place + 1 among the rooms of the running turn */
    struct room_rate rate;
    struct bucket allowance;  /* of its type's rate */
    struct actor *actor;      /* its handler's memory; NULL: asleep, or it has no handler */
    struct link *links;       /* owned; asleep: whose its connections are; NULL: nobody's */
    struct heap_node alarm;   /* in shard->alarms: when on_alarm is due, ms */
    struct heap_node confirm; /* in shard->confirms: when unconfirmed connections end, ns */
    uint32_t n_links;
    uint32_t rows;           /* on disk, beside its own */
    uint32_t dones;          /* remembered answers: struct done that point here */
    uint32_t transients;     /* records above the floor that no joiner gets */
    uint64_t gone;           /* highest seq below the floor that joiners could have got */
    bool held;               /* nothing but the run that waits may go on */
    bool alarm_dead;         /* it failed for good; counted in stoa_alarms_dead */
    uint32_t dirty_refs;     /* entries in gateways' lists of dirty rooms */
    struct subscriber *subs; /* owned */
    uint16_t n_subs, capacity_subs;
    uint16_t slot;
    uint16_t key_size;
    uint8_t type;
    uint8_t class_no;
    uint8_t floor_reason; /* enum miss_reason: what raised the floor last */
    uint8_t key[];
};

/* A room with nothing in memory but what its row says (cold.c). */
struct cold_room {
    uint64_t room_id;
    uint64_t epoch;
    uint64_t head; /* the floor, too: no records */
    uint64_t gone;
    int64_t floor_ts;
    int64_t touched;
    uint32_t rows;
    uint16_t slot;
    uint16_t key_size;
    uint8_t class_no;
    uint8_t floor_reason;
    bool alarm_dead;
    uint8_t key[];
};

static inline struct slice cold_key(const struct cold_room *cold)
{
    return slice_of(cold->key, cold->key_size);
}

static inline struct slice room_key(const struct room *room)
{
    return slice_of(room->key, room->key_size);
}

struct room *room_create(struct slice key, uint16_t slot);
void room_destroy(struct room **room);

struct subscriber *room_subscriber(const struct room *room, uint32_t peer); /* NULL: none */
/* The subscriber, new or old. Pointers to the others die. */
struct subscriber *room_subscribe(struct room *room, uint32_t peer);
bool room_unsubscribe(struct room *room, uint32_t peer);

void room_count_publish(struct room *room, int64_t now_ms, uint32_t events);
/* Publishes of the last 10 to 20 s, scaled to 10 s. */
uint32_t room_busy(const struct room *room, int64_t now_ms);

void room_validate(const struct room *room);

#endif
