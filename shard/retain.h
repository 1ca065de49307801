/* CORE. The index of one room's records that are on disk: where each seq lies, how large and how
 * old it is, and what it conflates with. 24 bytes a record in one ring; seqs are contiguous, so a
 * record's place follows from its seq.
 *
 *      first_seq ............ floor | floor+1 ............ head
 *      [ on disk for the window of  | [ retained: what readers get ]
 *        message ids              ]
 *
 * The ring knows no floor; its owner (room.h) counts what lies above it. Conflate values are
 * interned: each holds the newest seq that carries it, so that "superseded" is one comparison.
 *
 * A value is what the publisher called it together with whom the event is for: an event is
 * superseded only by one that goes to the same readers, so that nobody loses the last event that
 * he may see to one that he may not. Who may see both gets both, in order. (Of a filter, up to
 * 4 KiB, the SHA-256 is kept.) */
#ifndef STOA_SHARD_RETAIN_H
#define STOA_SHARD_RETAIN_H

#include "common/slice.h"

struct retain;

struct retained {
    uint64_t lsn;
    int64_t ts;
    uint32_t size;     /* payload bytes */
    uint32_t conflate; /* number of the interned value, 0: none; or RETAIN_TRANSIENT */
};

#define RETAIN_TRANSIENT UINT32_MAX

struct retain *retain_create(void);
void retain_destroy(struct retain **r);

/* Appends the record of `seq`: the next one, or any when the ring is empty. */
void retain_push(struct retain *r, uint64_t seq, uint64_t lsn, int64_t ts, uint32_t size,
                 struct slice conflate, struct slice filter);
/* The same for a record that joiners never get. */
void retain_push_transient(struct retain *r, uint64_t seq, uint64_t lsn, int64_t ts, uint32_t size);
bool retain_is_transient(const struct retain *r, uint64_t seq);
void retain_pop_newest(struct retain *r); /* takes back a push */
void retain_pop_oldest(struct retain *r);

size_t retain_count(const struct retain *r);
uint64_t retain_first(const struct retain *r); /* oldest seq; the ring must not be empty */
uint64_t retain_last(const struct retain *r);
const struct retained *retain_at(const struct retain *r, uint64_t seq); /* must be there */
/* Whether a newer record carries the same conflate value for the same readers, or joiners never get
 * this one. */
bool retain_superseded(const struct retain *r, uint64_t seq);
void retain_validate(const struct retain *r);

#endif
