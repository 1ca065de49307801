/* CORE. The store in memory, for tests, the in-memory runtime and the simulator: the same contract
 * as store_lmdb, with the faults that a disk can have as switches. */
#ifndef STOA_SHARD_STORE_MEM_H
#define STOA_SHARD_STORE_MEM_H

#include "shard/store.h"

struct store *store_mem_create(void);
void store_mem_destroy(struct store **s);
/* As after a crash: the open transaction is lost, everything committed stays. */
void store_mem_crash(struct store *s);
/* From the n-th commit on (1: at once, so appends are refused before it) commits with appends or
 * rows and these themselves answer ERR_NO_SPACE, has_space is false; deletions go on. 0: heal. */
void store_mem_fill(struct store *s, unsigned nth);
/* Free space lies in pieces: has_space is true, and appends and rows answer ERR_NO_SPACE all the
 * same. */
void store_mem_fragment(struct store *s, bool pieces);
/* Flips a bit in the record, so that reads and scans find it damaged. */
void store_mem_damage(struct store *s, unsigned class_no, uint64_t lsn);
void store_mem_damage_row(struct store *s, enum store_table table, uint64_t room_id,
                          struct slice name);
uint64_t store_mem_commits(const struct store *s);

#endif
