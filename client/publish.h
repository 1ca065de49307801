/* CORE. One publish on its way, from the caller's thread to the report of its outcome: a copy of
 * everything it needs in one allocation. It is made by the caller's thread, then belongs to the
 * publisher (publisher.h), which gives it back when the outcome is known. */
#ifndef STOA_CLIENT_PUBLISH_H
#define STOA_CLIENT_PUBLISH_H

#include "client/stoa.h"
#include "common/heap.h"
#include "common/list.h"
#include "common/tick.h"
#include "proto/message.h"

struct lane;

struct publish_order { /* everything borrowed for the call */
    struct slice key;
    const stoa_slice *parts;
    size_t n_parts;
    const stoa_publish_options *options; /* NULL: defaults */
    int default_timeout_ms;
};

struct publish {
    struct list node; /* intake, then its lane's queue or the publisher's ephemerals, then done */
    /* whose it is; not looked at by the core */
    stoa_ack_fn *fn;
    void *arg;
    struct waiter *waiter; /* a thread that waits for it; NULL: none */
    /* what it is */
    struct slice key, conflate, filter;
    struct slice *parts;
    size_t n_parts;
    size_t bytes; /* this allocation: what it takes of the queue's bound */
    size_t wire_bytes;
    bool ephemeral;
    bool has_id; /* msg_id comes from an idempotency key */
    uint8_t msg_id[16];
    int64_t timeout_ns;
    /* where it stands; the publisher's */
    struct lane *lane;
    struct heap_node deadline;
    uint64_t cid;   /* of the transmission that is in flight; 0: none */
    uint64_t pseq;  /* under the lane's present pid; 0: not numbered */
    int64_t ts;     /* of the first transmission */
    bool uncertain; /* an earlier transmission's answer was lost: maybe stored */
    bool disk;      /* the last refusal was for want of space */
    /* the outcome */
    int status;
    stoa_id id;
};

/* Whether the options, which may be of a caller that was compiled against an older header, have the
 * field. */
#define PUBLISH_GIVEN(options, field) \
    ((options) != NULL &&             \
     (options)->size >= offsetof(stoa_publish_options, field) + sizeof((options)->field))

/* Appends the filter (proto/filter.h) that the options ask for; nothing: it is for everybody.
 * STOA_OK, STOA_INVALID or STOA_TOO_LARGE. */
int publish_filter(const stoa_publish_options *options, struct strbuf *out);
/* Whether the order keeps the rules: as publish_filter. */
int publish_check(const struct publish_order *order);
/* A copy of a checked order; NULL: out of memory. */
struct publish *publish_create(const struct publish_order *order);
void publish_destroy(struct publish *p);

#endif
