/* CORE. Growing byte buffer. Capacity doubles, so a put costs one copy of its bytes on average; the
 * memory is kept over strbuf_reset because encoders reuse one buffer for every frame. */
#include "common/strbuf.h"

#include "common/err.h"
#include "common/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define FIRST_CAPACITY 64

void strbuf_free(struct strbuf *b)
{
    mem_free(b->data);
    *b = (struct strbuf){0};
}

/* Apart, so that a put that fits is short. */
__attribute__((noinline)) static void strbuf_grow(struct strbuf *b, size_t extra)
{
    STOA_ASSERT(extra <= SIZE_MAX / 2 - b->size);
    size_t capacity = b->capacity ? b->capacity : FIRST_CAPACITY;
    while (capacity - b->size < extra)
        capacity *= 2;
    b->data = (uint8_t *)mem_realloc(b->data, capacity);
    b->capacity = capacity;
}

uint8_t *strbuf_reserve(struct strbuf *b, size_t extra)
{
    if (!b->data || b->capacity - b->size < extra)
        strbuf_grow(b, extra);
    return b->data + b->size;
}

void strbuf_put(struct strbuf *b, const void *bytes, size_t size)
{
    if (size == 0)
        return;
    memcpy(strbuf_reserve(b, size), bytes, size);
    b->size += size;
}

void strbuf_put_slice(struct strbuf *b, struct slice s)
{
    strbuf_put(b, s.data, s.size);
}

void strbuf_put_text(struct strbuf *b, const char *text)
{
    strbuf_put(b, text, strlen(text));
}

void strbuf_put_byte(struct strbuf *b, uint8_t byte)
{
    *strbuf_reserve(b, 1) = byte;
    b->size++;
}

void strbuf_put_u64(struct strbuf *b, uint64_t value)
{
    uint8_t digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value);
    strbuf_put(b, digits + at, sizeof digits - at);
}

void strbuf_printf(struct strbuf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    strbuf_reserve(b, 1);
    size_t room = b->capacity - b->size;
    int size = vsnprintf((char *)b->data + b->size, room, format, args);
    STOA_ASSERT(size >= 0);
    if ((size_t)size >= room) {
        size_t needed = (size_t)size + 1;
        vsnprintf((char *)strbuf_reserve(b, needed), needed, format, again);
    }
    b->size += (size_t)size;
    va_end(again);
    va_end(args);
}

const char *strbuf_cstr(struct strbuf *b)
{
    *strbuf_reserve(b, 1) = '\0';
    return (const char *)b->data;
}
