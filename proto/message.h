/* CORE. Every message between processes as a typed struct, with one encoder and one decoder.
 *
 * On the wire a message is a head and a body. The head is a msgpack array
 *     [v=1, t, cid, slot, ep, key, fields...]
 * the body is raw payload bytes, back to back, whose sizes stand in the head. The first six
 * elements are written at fixed width (array16, fixint, fixint, uint64, uint16, uint64, str8), so
 * that a router can read slot and key and stamp cid, slot and ep in place without decoding
 * (message_peek, message_stamp). messages.def lists the fields; docs/protocol.md is written from
 * it.
 *
 * Decoding copies nothing: slices point into the input, lists into the caller's arena. Everything
 * is bounded (limits.h) before it is allocated for. */
#ifndef STOA_PROTO_MESSAGE_H
#define STOA_PROTO_MESSAGE_H

#include "common/base36.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"
#include "common/strbuf.h"

enum role { ROLE_NONE, ROLE_PUBLISHER, ROLE_GATEWAY, ROLE_ROUTER, ROLE_SHARD, ROLE_ADMIN };
const char *role_name(enum role role); /* "gateway"; "unknown" */

enum nack_code {
    NACK_NONE,
    NACK_BUSY,     /* the room's queue is full, or the shard is going away: try later */
    NACK_RATE,     /* over the configured rate */
    NACK_MOVED,    /* the slot has moved */
    NACK_NOTOWNER, /* this shard does not own the slot, or nobody is known to */
    NACK_FROZEN,   /* the slot is being moved */
    NACK_ORDER,    /* pseq is not the next one; `expected` is */
    NACK_TOOBIG,
    NACK_DENIED,
    NACK_DISK,    /* no space; reads go on */
    NACK_STALE,   /* older than what dedupe remembers: the outcome is unknown */
    NACK_INVALID, /* breaks a rule (key, sizes, counts) */
};
const char *nack_name(uint64_t code); /* "BUSY"; "UNKNOWN" */

enum from_mode { FROM_HEAD, FROM_AFTER };
enum sub_status { SUB_LIVE, SUB_RESUMED, SUB_MISSED };
enum replay_mode { REPLAY_ALL, REPLAY_LATEST };
enum miss_reason { MISS_NONE, MISS_EXPIRED, MISS_EVICTED, MISS_SLOW, MISS_PURGED, MISS_EPOCH };
const char *miss_name(uint64_t reason); /* "expired" ... as clients see it */
enum call_verb {
    VERB_SEND,        /* on_event */
    VERB_BROADCAST,   /* to its connections, nothing runs */
    VERB_METHOD,      /* on_call */
    VERB_STATE,       /* JSON of its state, or null */
    VERB_CONNECTIONS, /* JSON array of {id, tags, state}, open ones */
    VERB_ALARM,       /* on_alarm now */
    VERB_PRESENCE,    /* JSON array of {id, state}, one a connection id */
    VERB_RELEASE,     /* ends its quarantine; true or false: there was one */
};
enum ask_what { ASK_STATUS, ASK_KEYS, ASK_TOP, ASK_CONNECTIONS, ASK_GATEWAYS, ASK_QUARANTINE };

#define PUB_EPHEMERAL 1u
#define PUB_TYPED 2u /* the payloads are typed ones (proto/typed.h) */

/* flags of a delivered event */
#define EVENT_JSON 1u      /* the payload is one JSON value: may be embedded verbatim */
#define EVENT_UTF8 2u      /* the payload is UTF-8: raw sends a text frame */
#define EVENT_TRANSIENT 4u /* broadcast of a room with a handler: never replayed to a joiner */
#define EVENT_EPHEMERAL 8u /* no seq of its own: prev == seq == the room's head */
#define EVENT_PRESENCE 16u /* transient: who came or went, for those who asked to be told */
#define EVENT_TYPED 32u    /* the payload is a typed one (proto/typed.h) */
/* Of CALL.streams. */
#define CALL_STREAMS 1u /* the caller takes items */
#define CALL_TYPED 2u   /* the input is a typed payload (proto/typed.h) */

/* ---- list entries ---- */
struct event_item { /* wire: [prev, seq, ts, flags, conflate, filter, size] */
    uint64_t prev;
    uint64_t seq;
    int64_t ts;     /* ms, hybrid: never runs backwards within a slot */
    uint32_t flags; /* EVENT_* */
    struct slice conflate;
    struct slice filter;
    struct slice payload;
};
struct mark { /* wire: [key, epoch, seq, count] */
    struct slice key;
    uint64_t epoch;
    uint64_t seq;
    uint64_t count;
};
struct slot_range { /* wire: [lo, hi, epoch]; inclusive */
    uint64_t lo;
    uint64_t hi;
    uint64_t epoch; /* RING: index of the member */
};
#define MEMBER_NAME_MAX_BYTES 64
#define MEMBER_ENDPOINT_MAX_BYTES 256
struct ring_member { /* wire: [name, endpoint, weight, state] */
    struct slice name;
    struct slice endpoint;
    uint64_t weight;
    uint64_t state;
};

struct events_list {
    const struct event_item *at;
    size_t count;
};
struct parts_list {
    const struct slice *at;
    size_t count;
}; /* wire: array of sizes */
struct marks_list {
    const struct mark *at;
    size_t count;
};
struct ranges_list {
    const struct slot_range *at;
    size_t count;
};
struct members_list {
    const struct ring_member *at;
    size_t count;
};

/* ---- one struct per message, from the table ---- */
#define MSG_BEGIN(lower, UPPER, code, way, doc) \
    struct msg_##lower {                        \
        uint8_t empty_;
#define F_U64(name, doc) uint64_t name;
#define F_I64(name, doc) int64_t name;
#define F_STR(name, max, doc) struct slice name;
#define F_BIN(name, max, doc) struct slice name;
#define F_ID16(name, doc) uint8_t name[16];
#define F_LIST(kind, name, doc) struct kind##_list name;
#define F_BODY(name, doc) struct slice name;
#define MSG_END \
    }           \
    ;
#include "proto/messages.def"
#undef MSG_BEGIN
#undef MSG_END

enum message_type {
#define MSG_BEGIN(lower, UPPER, code, way, doc) MSG_##UPPER = code,
#undef F_U64
#undef F_I64
#undef F_STR
#undef F_BIN
#undef F_ID16
#undef F_LIST
#undef F_BODY
#define F_U64(name, doc)
#define F_I64(name, doc)
#define F_STR(name, max, doc)
#define F_BIN(name, max, doc)
#define F_ID16(name, doc)
#define F_LIST(kind, name, doc)
#define F_BODY(name, doc)
#define MSG_END
#include "proto/messages.def"
#undef MSG_BEGIN
};

struct message {
    uint64_t type; /* enum message_type, or a number that this version does not know */
    uint64_t cid; /* per-link correlation, chosen by who asks; at most 2^32-1 on L1 and L2 (a router
                     puts its peer's number into the upper half on L3) */
    uint16_t slot;    /* SLOT_UNKNOWN: not worked out */
    uint64_t ep;      /* sender's belief of the slot's epoch, 0: unknown */
    struct slice key; /* may be empty in link messages */
    union {
#define MSG_BEGIN(lower, UPPER, code, way, doc) struct msg_##lower lower;
#include "proto/messages.def"
#undef MSG_BEGIN
    };
};
#undef F_U64
#undef F_I64
#undef F_STR
#undef F_BIN
#undef F_ID16
#undef F_LIST
#undef F_BODY
#undef MSG_END

const char *message_name(uint64_t type); /* "PUB"; "?" */
bool message_known(uint64_t type);       /* whether messages.def has it */

/* Scratch of one decode: lists of the last decoded message live here until the next message_decode.
 */
struct message_arena {
    void *memory;
    size_t capacity;
};
void message_arena_free(struct message_arena *arena);

/* Appends u32 head size, u32 body size (little-endian), head, body: a message as it stands in a
 * packet. The struct must be valid (asserted): lists within bounds, head within HEAD_MAX_BYTES. */
void message_encode(struct strbuf *out, const struct message *m);
/* Bytes that message_encode would append, at most; to decide when a packet is full. */
size_t message_size_bound(const struct message *m);
/* Bytes of the head alone, at most: who fills a list from data of unknown size (filters, keys)
 * keeps this within HEAD_MAX_BYTES. */
size_t message_head_bound(const struct message *m);
/* Decodes one head and body. Every slice of `out` points into them. ERR_INVALID / ERR_TOO_LARGE:
 * `out` holds type, cid and key if these could be read (else type 0). An unknown type is ERR_OK
 * with only the prefix filled in: whoever handles it answers ERR. */
MUST_USE int message_decode(struct slice head, struct slice body, struct message_arena *arena,
                            struct message *out);

/* The prefix alone, without decoding the fields. */
struct message_prefix {
    uint64_t type;
    uint64_t cid;
    uint16_t slot;
    uint64_t ep;
    struct slice key;
};
MUST_USE int message_peek(struct slice head, struct message_prefix *out);
/* Rewrites cid, slot and ep in place; `head` must have passed message_peek. */
void message_stamp(uint8_t *head, uint64_t cid, uint16_t slot, uint64_t ep);

#endif
