/* CORE. A growing byte buffer with one owner: what every encoder writes into. Zero-initialise it
 * (`struct strbuf b = {0}`), free it with strbuf_free; strbuf_reset keeps the memory for reuse. */
#ifndef STOA_COMMON_STRBUF_H
#define STOA_COMMON_STRBUF_H

#include "common/slice.h"

struct strbuf {
    uint8_t *data; /* NULL until the first byte */
    size_t size;
    size_t capacity;
};

void strbuf_free(struct strbuf *b);
static inline void strbuf_reset(struct strbuf *b)
{
    b->size = 0;
}
/* Makes room for `extra` more bytes and returns where they go; strbuf_commit says how many came. */
uint8_t *strbuf_reserve(struct strbuf *b, size_t extra);
static inline void strbuf_commit(struct strbuf *b, size_t size)
{
    b->size += size;
}
void strbuf_put(struct strbuf *b, const void *bytes, size_t size);
void strbuf_put_slice(struct strbuf *b, struct slice s);
void strbuf_put_text(struct strbuf *b, const char *text);
void strbuf_put_byte(struct strbuf *b, uint8_t byte);
void strbuf_put_u64(struct strbuf *b, uint64_t value); /* decimal digits */
void strbuf_printf(struct strbuf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline struct slice strbuf_slice(const struct strbuf *b)
{
    return slice_of(b->data, b->size);
}
/* NUL-terminates (the NUL is not counted in size) and returns the text; valid until the next put.
 */
const char *strbuf_cstr(struct strbuf *b);

#endif
