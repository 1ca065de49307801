/* SHELL. What the parts of the checker share: entries and names (history.c), the facts gathered
 * from them (facts.c), the log that follows from the facts (places.c), readers (readers.c), rooms
 * with handlers (rooms.c, which needs none of the others' facts). */
#ifndef STOA_TESTS_CHECK_INTERNAL_H
#define STOA_TESTS_CHECK_INTERNAL_H

#include "common/err.h"
#include "common/mem.h"
#include "history.h"

#define NONE UINT32_MAX

/* (a, b) -> number, open addressing. Cleared by a new generation, not by writing. */
struct cell {
    uint64_t b;
    uint32_t a;
    uint32_t generation;
    uint32_t value;
};
struct table {
    struct cell *cells;
    size_t size; /* a power of two, or 0 */
    size_t used;
    uint32_t generation;
};
/* The value's place, and whether it is new (then NONE is in it). Valid until the next call. */
uint32_t *table_at(struct table *t, uint32_t a, uint64_t b);
uint32_t table_get(const struct table *t, uint32_t a, uint64_t b); /* NONE: absent */
void table_clear(struct table *t);

struct array {
    void *data;
    size_t count;
    size_t capacity;
};
void *array_add(struct array *a, size_t size); /* zeroed */

/* Ranks are indexes into the sorted entries; NONE: never. */
struct message {
    uint64_t msg;
    uint64_t pseq;
    uint64_t aim;
    uint64_t but;
    uint32_t key;
    uint32_t who;
    uint32_t conflate;
    uint32_t n;
    uint32_t submit; /* first */
    uint32_t again;  /* last */
    uint32_t ack;    /* first */
    uint32_t floor;  /* rank of the highest ack of the key before the first submit */
    uint32_t logged; /* records in the final log */
    bool ephemeral;
    bool told;
    bool bad;            /* already told of under another rule */
    struct position at;  /* of the last event: by ack, else by log */
    struct position log; /* the first record */
    uint64_t log_last;
    uint32_t log_rank;
};

struct epoch {
    uint32_t key;
    uint64_t epoch;
    uint64_t through; /* trimmed, in the end */
    uint64_t through_now;
    bool lost;
    bool lost_now;
    uint64_t highest;
};

struct key {
    uint32_t name;
    bool aimed;
    bool conflates;
    bool acked;
    bool dumped;
    uint32_t head; /* rank of H_HEAD */
    uint32_t top;  /* rank of the highest ack so far */
    uint32_t first_place;
    uint32_t n_places;
    struct position acked_now;
    struct position acked_calm;
};

enum source { FROM_LOG, FROM_ACK, FROM_DELIVERY };
struct claim {
    uint64_t epoch;
    uint64_t seq;
    uint32_t key; /* index */
    uint32_t message;
    uint32_t rank;
    uint8_t source;
};

/* One position of the one log that everybody must have seen. */
struct place {
    uint64_t epoch;
    uint64_t seq;
    uint32_t key;
    uint32_t message;    /* NONE: not known */
    uint32_t superseded; /* rank at which a later event of the same conflate was submitted */
    uint32_t submitted;  /* latest first submit of this and all before it, in rank + 1 */
    bool in_log;
    bool told;
};

struct history {
    struct array entries; /* struct history_entry */
    bool unsorted;
    struct array names; /* struct name */
    struct strbuf text;
    uint32_t *buckets;
    size_t n_buckets;
    struct history_report report;

    struct table message_index; /* (key name, msg) */
    struct table key_index;     /* (key name, 0) */
    struct table epoch_index;   /* (key name, epoch) */
    struct table scratch;
    struct table scratch2;
    struct array messages;
    struct array keys;
    struct array epochs;
    struct array claims;
    struct array places;
    struct array subs;
    struct array owners;
    struct array alarms;
    struct table room_index; /* (key name, 0) */
    struct table call_index; /* (key name, msg) */
    struct table seat_index; /* (key name, who) */
    struct table step_index; /* (key name, at) */
    struct array rooms;
    struct array calls;
    struct array seats;
    struct array steps;
};

static inline struct history_entry *entry_at(const struct history *h, uint32_t rank)
{
    return (struct history_entry *)h->entries.data + rank;
}
static inline struct message *message_at(const struct history *h, uint32_t i)
{
    return (struct message *)h->messages.data + i;
}
static inline struct place *place_at(const struct history *h, size_t i)
{
    return (struct place *)h->places.data + i;
}
struct key *key_of(struct history *h, uint32_t name); /* makes it */
struct epoch *epoch_of(struct history *h, uint32_t key, uint64_t epoch);
struct message *message_find(const struct history *h, uint32_t key, uint64_t msg);

/* Tells of a violation; a and b are ranks or NONE. */
void violated(struct history *h, int rule, uint32_t key, uint32_t a, uint32_t b, const char *format,
              ...) __attribute__((format(printf, 6, 7)));
void history_bad(struct history *h, uint32_t rank, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void gather_facts(struct history *h);
void build_places(struct history *h);
/* The first place of the key at or after p in p's epoch; index into places. */
size_t place_from(const struct history *h, const struct key *k, struct position p);
void check_readers(struct history *h);
void check_rooms(struct history *h);

struct id_text {
    char text[EVENT_ID_MAX_BYTES];
};
struct id_text id_text(struct position p);

#endif
