/* CORE. Immutable, reference-counted bytes: the only form in which payloads and packed frames are
 * shared. One received packet or one packed frame is one buf, however many queues refer to it.
 *
 * A buf is one thread's at a time: the count of its references is a plain integer. Words used in
 * prototypes: a function *borrows* a buf (valid for the call), *keeps a ref* (calls buf_ref), or
 * *takes* it (the caller's reference moves in). */
#ifndef STOA_COMMON_BUF_H
#define STOA_COMMON_BUF_H

#include "common/slice.h"

struct buf {
    uint32_t refs;
    uint32_t reserved;
    size_t size;
    const uint8_t *data;
    void (*release)(void *owner); /* NULL: the bytes follow the struct in the same allocation */
    void *owner;
};

/* All three return a buf with one reference. */
struct buf *buf_copy(const void *data, size_t size);
struct buf *buf_copy_slice(struct slice s);
/* Wraps foreign memory; `release(owner)` runs when the last reference goes. */
struct buf *buf_wrap(const void *data, size_t size, void (*release)(void *owner), void *owner);

static inline struct buf *buf_ref(struct buf *b)
{
    b->refs++;
    return b;
}
void buf_unref(struct buf *b); /* NULL is fine */
static inline struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->data, b->size);
}
/* Number of bufs alive in this process; tests and the simulator check that it returns to 0. */
size_t buf_alive(void);

#endif
