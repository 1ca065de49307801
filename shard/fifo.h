/* CORE. What waits for a turn: publishes, purges, and all that rooms with handlers have to do, in
 * the order of arrival per room, rooms taken
 * in turn by deficit round robin. A room's queue is bounded in messages and bytes; a quiet room
 * never waits behind a noisy one for longer than one quantum of each ready room. */
#ifndef STOA_SHARD_FIFO_H
#define STOA_SHARD_FIFO_H

#include "common/buf.h"
#include "shard/room.h"

struct op_part {
    const uint8_t *data; /* in the packet */
    uint32_t size;
    uint32_t flags; /* EVENT_JSON, EVENT_UTF8, once decided */
};

/* Whom to answer. A link that went down and came up again is somebody else. */
struct asker {
    uint32_t peer;
    uint32_t life; /* of the peer's link */
    uint64_t cid;
};

enum op_kind {
    OP_PUBLISH,
    OP_PURGE,
    OP_JOIN,
    OP_LEAVE,
    OP_INPUT,
    OP_CALL,
    OP_ALARM,   /* on_alarm is due */
    OP_CONFIRM, /* connections that nobody confirmed end */
    OP_RESUME,  /* a run that waited goes on */
};

struct op {
    enum op_kind kind;
    struct op *next;
    struct buf *packet; /* holds a ref; NULL: it says nothing */
    struct room *room;
    struct asker asker;
    bool ephemeral, typed;
    uint8_t msg_id[16];
    uint64_t pid, pseq;
    int64_t ts;
    struct slice conflate, filter; /* in the packet */
    uint32_t bytes;                /* of all payloads */
    uint32_t n_parts;
    union { /* slices in the packet */
        struct msg_join join;
        struct msg_leave leave;
        struct msg_input input;
        struct msg_call call;
    };
    uint64_t waiter; /* CALL: the run of this shard that wants the answer; RESUME: which one */
    struct op_part parts[];
};

struct op *op_create(uint32_t n_parts); /* zeroed */
void op_destroy(struct op *op);

struct list; /* of rooms that are ready */
/* Whether the room takes one more of this size. */
bool fifo_has_room(const struct room *room, uint32_t bytes);
/* Takes `op`. */
void fifo_push(struct list *ready, struct room *room, struct op *op);
/* The same at the front, past everything that waits. */
void fifo_push_front(struct list *ready, struct room *room, struct op *op);
/* After a turn or a hold: the room stands in the ring while it has something to do. */
void fifo_settle(struct list *ready, struct room *room);
/* The next op that fits into what is left of the turn, or NULL. The caller owns it. */
struct op *fifo_pop(struct list *ready, size_t events_left, size_t bytes_left);
/* Everything queued in the room, in order, linked by `next`; for refusing it. */
struct op *fifo_take_all(struct room *room);

#endif
