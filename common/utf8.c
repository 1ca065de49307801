/* CORE. UTF-8 checks. Most text is ASCII, so both loops cross eight ASCII bytes at a time. */
#include "common/utf8.h"

#include "common/limits.h"

#define HIGH_BITS UINT64_C(0x8080808080808080)

static bool is_tail(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

size_t utf8_decode(struct slice text, uint32_t *code)
{
    if (text.size == 0)
        return 0;
    const uint8_t *p = text.data;
    if (p[0] < 0x80) {
        *code = p[0];
        return 1;
    }
    if (p[0] < 0xc2) /* a tail, or overlong */
        return 0;
    if (p[0] < 0xe0) {
        if (text.size < 2 || !is_tail(p[1]))
            return 0;
        *code = (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
        return 2;
    }
    if (p[0] < 0xf0) {
        if (text.size < 3 || !is_tail(p[1]) || !is_tail(p[2]))
            return 0;
        *code = (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
        return *code >= 0x800 && (*code < 0xd800 || *code > 0xdfff) ? 3 : 0;
    }
    if (p[0] > 0xf4 || text.size < 4 || !is_tail(p[1]) || !is_tail(p[2]) || !is_tail(p[3]))
        return 0;
    *code = (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 |
            (uint32_t)(p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    return *code >= 0x10000 && *code <= 0x10ffff ? 4 : 0;
}

size_t utf8_encode(uint32_t code, uint8_t out[4])
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (uint8_t)(0xc0 | code >> 6);
        out[1] = (uint8_t)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (uint8_t)(0xe0 | code >> 12);
        out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | code >> 18);
    out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (code & 0x3f));
    return 4;
}

bool utf8_valid(struct slice text)
{
    size_t at = 0;
    while (at < text.size) {
        uint64_t word;
        if (text.size - at >= sizeof word) {
            memcpy(&word, text.data + at, sizeof word);
            if ((word & HIGH_BITS) == 0) {
                at += sizeof word;
                continue;
            }
        }
        uint32_t code;
        size_t n = utf8_decode(slice_of(text.data + at, text.size - at), &code);
        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

bool key_valid(struct slice key, bool system_too)
{
    if (key.size == 0 || key.size > KEY_MAX_BYTES)
        return false;
    if (key.data[0] == '$' && !system_too)
        return false;
    for (size_t at = 0; at < key.size;) {
        uint32_t code;
        size_t n = utf8_decode(slice_of(key.data + at, key.size - at), &code);
        if (n == 0 || code < 0x20 || (code >= 0x7f && code <= 0x9f))
            return false;
        at += n;
    }
    return true;
}
