/* CORE. UTF-8 validity (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF) and key
 * rules. */
#ifndef STOA_COMMON_UTF8_H
#define STOA_COMMON_UTF8_H

#include "common/slice.h"

/* Reads the first character: its length in bytes and its code point; 0 if it is not valid. */
size_t utf8_decode(struct slice text, uint32_t *code);
/* Writes a code point (at most U+10FFFF, no surrogate); returns its length. */
size_t utf8_encode(uint32_t code, uint8_t out[4]);
bool utf8_valid(struct slice text);
/* A key: 1 to KEY_MAX_BYTES bytes of UTF-8 without control characters (C0, DEL, C1). A leading '$'
 * is the system's own and is refused unless `system_too`. */
bool key_valid(struct slice key, bool system_too);

#endif
