/* CORE. Base64 by the table of the standard. */
#include "common/base64.h"

size_t base64_size(size_t bytes)
{
    return (bytes + 2) / 3 * 4;
}

void base64_put(struct strbuf *out, struct slice bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t *to = strbuf_reserve(out, base64_size(bytes.size));
    size_t i = 0;
    for (; i + 3 <= bytes.size; i += 3) {
        uint32_t word =
            (uint32_t)bytes.data[i] << 16 | (uint32_t)bytes.data[i + 1] << 8 | bytes.data[i + 2];
        *to++ = (uint8_t)digits[word >> 18];
        *to++ = (uint8_t)digits[word >> 12 & 63];
        *to++ = (uint8_t)digits[word >> 6 & 63];
        *to++ = (uint8_t)digits[word & 63];
    }
    size_t left = bytes.size - i;
    if (left > 0) {
        uint32_t word =
            (uint32_t)bytes.data[i] << 16 | (left == 2 ? (uint32_t)bytes.data[i + 1] << 8 : 0);
        *to++ = (uint8_t)digits[word >> 18];
        *to++ = (uint8_t)digits[word >> 12 & 63];
        *to++ = left == 2 ? (uint8_t)digits[word >> 6 & 63] : (uint8_t)'=';
        *to++ = (uint8_t)'=';
    }
    strbuf_commit(out, base64_size(bytes.size));
}
