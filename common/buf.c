/* CORE. Reference-counted bytes. A copied buf is one allocation: the struct with its bytes behind
 * it. A wrapped buf keeps the owner's memory and calls it back once, when the last reference goes.
 */
#include "common/buf.h"

#include "common/err.h"
#include "common/mem.h"

/* A program may turn library clients in several threads, and a client may go from one to another: a
 * buf is one thread's at a time, this count is everybody's. */
static _Atomic size_t alive;

struct buf *buf_copy(const void *data, size_t size)
{
    STOA_ASSERT(size <= SIZE_MAX - sizeof(struct buf));
    struct buf *b = (struct buf *)mem_alloc(sizeof *b + size);
    uint8_t *bytes = (uint8_t *)(b + 1);
    if (size)
        memcpy(bytes, data, size);
    *b = (struct buf){.refs = 1, .size = size, .data = bytes};
    alive++;
    return b;
}

struct buf *buf_copy_slice(struct slice s)
{
    return buf_copy(s.data, s.size);
}

struct buf *buf_wrap(const void *data, size_t size, void (*release)(void *owner), void *owner)
{
    STOA_ASSERT(release);
    struct buf *b = (struct buf *)mem_alloc(sizeof *b);
    *b = (struct buf){
        .refs = 1, .size = size, .data = (const uint8_t *)data, .release = release, .owner = owner};
    alive++;
    return b;
}

void buf_unref(struct buf *b)
{
    if (!b)
        return;
    STOA_ASSERT(b->refs > 0);
    if (--b->refs > 0)
        return;
    alive--;
    if (b->release)
        b->release(b->owner);
    mem_free(b);
}

size_t buf_alive(void)
{
    return alive;
}
