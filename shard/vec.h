/* CORE. A growing array with one owner, for the lists of one turn: emptied after the turn, the
 * memory stays. Pointers into it die with the next push. */
#ifndef STOA_SHARD_VEC_H
#define STOA_SHARD_VEC_H

#include "common/mem.h"

#include <stdint.h>

struct vec {
    void *at;
    size_t count;
    size_t capacity; /* bytes: one vec may hold items of another size in the next turn */
};

/* Room for one more item at the end, uninitialised. */
static inline void *vec_push(struct vec *v, size_t item_size)
{
    size_t needed = (v->count + 1) * item_size;
    if (needed > v->capacity) {
        v->capacity = 2 * needed + 4 * item_size;
        v->at = mem_realloc(v->at, v->capacity);
    }
    return (uint8_t *)v->at + v->count++ * item_size;
}

static inline void vec_free(struct vec *v)
{
    mem_free(v->at);
    *v = (struct vec){0};
}

#define VEC_PUSH(v, type) ((type *)vec_push((v), sizeof(type)))
#define VEC_AT(v, type) ((type *)(v)->at)

#endif
