/* CORE. Private to json.c and json_text.c: the two steps that reading and writing of JSON strings
 * share. */
#ifndef STOA_COMMON_JSON_SCAN_H
#define STOA_COMMON_JSON_SCAN_H

#include "common/slice.h"

/* 16 bytes at a time, as the compiler's own vectors: it knows the machine's. */
#define BLOCK 16
typedef int8_t block __attribute__((vector_size(BLOCK)));
_Static_assert(sizeof(block) == 2 * sizeof(uint64_t), "plain_skip looks at both halves");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte is the lowest");

/* Skips characters that mean themselves: ASCII from 0x20 without quote and backslash. As signed
 * bytes those from 0x80 are below 0x20, too. */
static inline const uint8_t *plain_skip(const uint8_t *at, const uint8_t *end)
{
    for (; end - at >= BLOCK; at += BLOCK) {
        block bytes;
        uint64_t half[2];
        memcpy(&bytes, at, sizeof bytes);
        block special = (bytes < 0x20) | (bytes == '"') | (bytes == '\\');
        memcpy(half, &special, sizeof half);
        if (half[0])
            return at + __builtin_ctzll(half[0]) / 8;
        if (half[1])
            return at + 8 + __builtin_ctzll(half[1]) / 8;
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
