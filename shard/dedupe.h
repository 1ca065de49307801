/* CORE. What one room remembers to recognise a retry: the message ids of its records on disk, each
 * with the last seq and the number of events of its publish, and of every publisher (pid) the last
 * pseq. Both are rebuilt from the log by scan, so both forget with the log: what a record brought
 * goes when the record goes.
 *
 * Ids stand in a ring in the order of their seqs, 32 bytes each, with an open-addressed index of 4
 * bytes a place over it; publishers in a small open-addressed table. */
#ifndef STOA_SHARD_DEDUPE_H
#define STOA_SHARD_DEDUPE_H

#include "common/slice.h"

struct dedupe;

struct dedupe_hit {
    uint64_t last; /* seq of the publish's last event */
    uint32_t count;
};

struct dedupe_pid {
    uint64_t pid;  /* 0: no such publisher */
    uint64_t pseq; /* last one accepted */
    uint64_t seq;  /* of the record that keeps this alive */
};

struct dedupe *dedupe_create(uint64_t seed);
void dedupe_destroy(struct dedupe **d);

/* All zeros is no id: it is never recognised and never remembered. */
bool dedupe_is_id(const uint8_t id[16]);
bool dedupe_find(const struct dedupe *d, const uint8_t id[16], struct dedupe_hit *hit);
/* `last` ascends; the id must be unknown. */
void dedupe_add(struct dedupe *d, const uint8_t id[16], uint64_t last, uint32_t count);
void dedupe_pop_newest(struct dedupe *d); /* takes back an add */
/* Forgets the ids of publishes that end at or below `seq`, and publishers kept by such a record. */
void dedupe_forget(struct dedupe *d, uint64_t seq);
/* Forgets the oldest id alone; returns its last seq. */
uint64_t dedupe_forget_oldest(struct dedupe *d);
size_t dedupe_count(const struct dedupe *d);

struct dedupe_pid dedupe_pid(const struct dedupe *d, uint64_t pid);
void dedupe_pid_set(struct dedupe *d, struct dedupe_pid state); /* inserts or replaces */
void dedupe_pid_remove(struct dedupe *d, uint64_t pid);
size_t dedupe_pids(const struct dedupe *d);
void dedupe_validate(const struct dedupe *d);

#endif
