/* CORE. One call on its way: what is asked of a room, from the caller's thread to the report of its
 * outcome; a copy of everything it needs in one allocation. It is made by the caller's thread, then
 * belongs to the caller's core (caller.h), which gives it back when the outcome is known. */
#ifndef STOA_CLIENT_CALL_H
#define STOA_CLIENT_CALL_H

#include "client/stoa.h"
#include "common/heap.h"
#include "common/list.h"
#include "common/tick.h"
#include "proto/message.h"

struct call_order {         /* everything borrowed for the call */
    enum message_type type; /* MSG_CALL, MSG_CLOSE or MSG_PURGE */
    enum call_verb verb;    /* MSG_CALL */
    int close_code;         /* MSG_CLOSE */
    struct slice key;
    struct slice name;  /* VERB_METHOD: the method; VERB_CONNECTIONS: a tag, empty: all */
    struct slice input; /* JSON, empty: none */
    const stoa_call_options *options; /* NULL: defaults */
    int default_timeout_ms;
};

enum call_state { CALL_QUEUED, CALL_FLYING, CALL_PAUSED, CALL_DONE };

struct call {
    struct list node; /* intake, then one of the core's lists, then done */
    /* whose it is; not looked at by the core */
    stoa_result_fn *fn;
    stoa_item_fn *on_item;
    void *arg, *item_arg;
    struct waiter *waiter; /* a thread that waits for it; NULL: none */
    size_t held_bytes;     /* of items that have not been given out */
    bool dropped;          /* items that did not find room */
    /* what it is */
    enum message_type type;
    enum call_verb verb;
    uint16_t close_code;
    struct slice key, name, input;
    size_t bytes; /* this allocation: what it takes of the queue's bound */
    size_t wire_bytes;
    bool has_id; /* msg_id comes from an idempotency key */
    uint8_t msg_id[16];
    int64_t timeout_ns;
    /* where it stands; the core's */
    enum call_state state;
    struct heap_node deadline, timer; /* timer: the end of a pause, or of patience */
    uint64_t cid;                     /* of the transmission that is in flight; 0: none */
    uint32_t attempts, losses;
    uint8_t nack;   /* the last refusal, enum nack_code */
    bool uncertain; /* an earlier transmission's answer was lost: maybe done */
    /* the outcome */
    int status;
    stoa_result *result; /* NULL: taken away */
};

struct call_item { /* of a stream */
    struct list node;
    struct call *call;
    size_t size;
    char json[]; /* ends with a zero byte */
};

/* Whether it leaves the room as it was. */
static inline bool call_only_reads(const struct call *c)
{
    return c->type == MSG_CALL && (c->verb == VERB_STATE || c->verb == VERB_CONNECTIONS);
}

/* Whether the order keeps the rules: STOA_OK, STOA_INVALID or STOA_TOO_LARGE. */
int call_check(const struct call_order *order);
/* A copy of a checked order; NULL: out of memory. */
struct call *call_create(const struct call_order *order);
void call_destroy(struct call *c);
/* One allocation; texts are copied. */
stoa_result *call_result(unsigned status, bool duplicate, struct slice tag, struct slice message,
                         struct slice data);

#endif
