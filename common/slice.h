/* CORE. A view of bytes that somebody else owns. Never NUL-terminated, never freed through. A
 * function that takes a slice borrows it for the call unless its comment says otherwise. */
#ifndef STOA_COMMON_SLICE_H
#define STOA_COMMON_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t size;
};

static inline struct slice slice_of(const void *data, size_t size)
{
    return (struct slice){(const uint8_t *)data, size};
}

static inline struct slice slice_text(const char *text)
{
    return (struct slice){(const uint8_t *)text, strlen(text)};
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size &&
           (a.size == 0 || (a.data && b.data && memcmp(a.data, b.data, a.size) == 0));
}

static inline bool slice_is(struct slice a, const char *text)
{
    return slice_equal(a, slice_text(text));
}

/* printf("%.*s", SLICE_FMT(s)) */
#define SLICE_FMT(s) (int)(s).size, (const char *)(s).data

#endif
