/* CORE. A growing array with one owner, for the lists of one turn: emptied after the turn, the
 * memory stays. Pointers into it die with the next push. */
#ifndef STOA_SHARD_VEC_H
#define STOA_SHARD_VEC_H

#include "common/mem.h"

#include <stdint.h>

struct vec {
    void *at;
    size_t count;
    size_t capacity;
};

/* Room for one more item at the end, uninitialised. */
static inline void *vec_push(struct vec *v, size_t item_size)
{
    if (v->count == v->capacity) {
        v->capacity = v->capacity ? v->capacity * 2 : 8;
        v->at = mem_realloc(v->at, v->capacity * item_size);
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
