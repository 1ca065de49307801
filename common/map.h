/* CORE. Hash map from bytes to a pointer. The key bytes are borrowed: they normally live inside the
 * value and must stay as long as the entry. Iteration follows insertion order, so that a run with
 * the same inputs is the same run (simulation). Seeded, so that strangers' keys cannot flood a
 * bucket. */
#ifndef STOA_COMMON_MAP_H
#define STOA_COMMON_MAP_H

#include "common/slice.h"

struct map;

struct map *map_create(uint64_t seed);
void map_destroy(struct map **m);                     /* the values stay the caller's */
void *map_get(const struct map *m, struct slice key); /* NULL: absent */
void map_put(struct map *m, struct slice key,
             void *value);                         /* the key must be absent; value not NULL */
void *map_remove(struct map *m, struct slice key); /* the value, or NULL */
size_t map_count(const struct map *m);
/* Start with *cursor = 0; returns the next value or NULL at the end. Removing the value just
 * returned is allowed while iterating; putting is not. */
void *map_next(const struct map *m, size_t *cursor);
/* Gives back what a larger count needed, if it is most of the memory. Not while iterating: cursors
 * do not hold. */
void map_shrink(struct map *m);
/* Memory the map itself holds, in bytes: about 32 an entry. */
size_t map_bytes(const struct map *m);

/* The same with a 64-bit id as key; `id` points into the value. */
static inline struct slice map_id(const uint64_t *id)
{
    return slice_of(id, sizeof *id);
}

#endif
