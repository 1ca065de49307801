/* CORE. Events on their way out (fanout.c): what is framed, for whom, and the packs that many
 * connections are given parts of. Only core.h includes it. */
#ifndef STOA_GATEWAY_FANOUT_H
#define STOA_GATEWAY_FANOUT_H

#include "gateway/gateway.h"

struct gateway;
struct room;
struct subscription;

struct event {
    uint64_t seq;
    int64_t ts;
    uint32_t flags;
    struct slice payload; /* what most dialects send; of a typed one its value */
    struct slice typed;   /* the whole typed payload (proto/typed.h); data NULL: it is plain */
    struct slice filter;  /* whom it is for (proto/filter.h); empty: everybody */
    struct buf *packet;   /* one reference, while in a room's queue; NULL in a page */
};

struct miss {
    struct position from, to;
    enum miss_reason reason;
};

/* How events are framed for a session, in a dialect whose frames are not the same for all. */
struct form {
    struct slice id; /* JSON: what the client called its stream */
    int64_t retry_ms;
    uint64_t hash;         /* of the above */
    struct strbuf comment; /* JSON string for the next event alone; empty: none */
};

struct pack_source {
    uint64_t epoch;
    struct slice quoted_key; /* JSON string */
    const struct form *form; /* NULL: all sessions of the dialect have the same frames */
};

struct pack {          /* events in their frames behind each other (fanout.c) */
    struct buf *bytes; /* NULL: not built */
    size_t *offsets;   /* of each event, and of the end; the memory stays */
    size_t capacity;
    const struct form *form;
};
#define FORMS_MAX 64 /* at once: more are built again and again */

struct packs {
    const struct event *events;
    size_t count;
    struct pack_source source;
    struct slice key;
    bool picky;  /* some are not for everybody */
    bool live;   /* as they happen, not from the log */
    bool formed; /* some were built for forms */
};
void packs_begin(struct packs *p, const struct room *room, uint64_t epoch,
                 const struct event *events, size_t count);
/* Writes the events [from, to) that are for the subscription to its session. */
void packs_write(struct gateway *g, struct packs *p, const struct subscription *sub, size_t from,
                 size_t to);
void packs_end(struct gateway *g, struct packs *p);
/* Where in [0, to) the newest `most` events begin that are for the subscription; *count: how many
 * there are. */
size_t packs_newest(const struct packs *p, const struct subscription *sub, size_t to, uint64_t most,
                    size_t *count);
/* Takes an event into the room's queue; keeps a ref to the packet. */
void fanout_push(struct gateway *g, struct room *room, const struct event_item *item,
                 struct buf *packet);
/* Writes the room's queue to its live subscribers. */
void fanout_flush(struct gateway *g, struct room *room);
void fanout_discard(struct gateway *g, struct room *room);

#endif
