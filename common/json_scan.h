/* CORE. Private to json.c and json_text.c: the two steps that reading and writing of JSON strings
 * share. */
#ifndef STOA_COMMON_JSON_SCAN_H
#define STOA_COMMON_JSON_SCAN_H

#include "common/slice.h"

#define ONES UINT64_C(0x0101010101010101)
#define HIGH_BITS UINT64_C(0x8080808080808080)

/* The high bit of each byte that is zero. Bytes above the first hit may be marked falsely, which
 * does no harm: callers ask only whether there is one, or for the lowest. */
static inline uint64_t zero_bytes(uint64_t word)
{
    return (word - ONES) & ~word & HIGH_BITS;
}

/* Skips characters that mean themselves: ASCII from 0x20 without quote and backslash. */
static inline const uint8_t *plain_skip(const uint8_t *at, const uint8_t *end)
{
    while (end - at >= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        uint64_t special = (word & HIGH_BITS) | zero_bytes(word ^ ONES * '"') |
                           zero_bytes(word ^ ONES * '\\') | zero_bytes(word & (ONES * 0xe0));
        if (special)
            break;
        at += 8;
    }
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return at;
}

static inline int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The four digits of a \u escape, or -1. */
static inline int32_t hex4(const uint8_t *at, const uint8_t *end)
{
    if (end - at < 4)
        return -1;
    int32_t code = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(at[i]);
        if (digit < 0)
            return -1;
        code = code << 4 | digit;
    }
    return code;
}

#endif
