/* CORE. Event ids in text. Exactly one text per position: whatever parses prints the same again, so
 * ids may be compared as bytes. */
#include "common/base36.h"

#define BASE36_MAX_DIGITS 13
#define BASE10_MAX_DIGITS 20

_Static_assert(BASE36_MAX_DIGITS + 1 + BASE10_MAX_DIGITS + 1 <= EVENT_ID_MAX_BYTES,
               "the longest id and its NUL fit");

static const char DIGITS[] = "0123456789abcdefghijklmnopqrstuvwxyz";

static size_t digits_put(char *out, uint64_t value, unsigned base)
{
    char reversed[BASE10_MAX_DIGITS];
    size_t size = 0;
    do {
        reversed[size++] = DIGITS[value % base];
        value /= base;
    } while (value);
    for (size_t i = 0; i < size; i++)
        out[i] = reversed[size - 1 - i];
    return size;
}

size_t event_id_format(char out[EVENT_ID_MAX_BYTES], struct position p)
{
    STOA_ASSERT(p.epoch != 0 || p.seq == 0);
    size_t size = digits_put(out, p.epoch, 36);
    if (p.epoch != 0) {
        out[size++] = '-';
        size += digits_put(out + size, p.seq, 10);
    }
    out[size] = '\0';
    return size;
}

static unsigned digit_of(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'z')
        return (unsigned)(c - 'a') + 10;
    return 36;
}

static int digits_parse(struct slice text, unsigned base, uint64_t *out)
{
    if (text.size == 0 || (text.size > 1 && text.data[0] == '0'))
        return ERR_INVALID;
    uint64_t value = 0;
    for (size_t i = 0; i < text.size; i++) {
        unsigned digit = digit_of(text.data[i]);
        if (digit >= base || value > (UINT64_MAX - digit) / base)
            return ERR_INVALID;
        value = value * base + digit;
    }
    *out = value;
    return ERR_OK;
}

int event_id_parse(struct slice text, struct position *out)
{
    if (slice_is(text, "0")) {
        *out = (struct position){0};
        return ERR_OK;
    }
    const uint8_t *dash = text.size ? (const uint8_t *)memchr(text.data, '-', text.size) : NULL;
    if (!dash)
        return ERR_INVALID;
    size_t before = (size_t)(dash - text.data);
    struct position p;
    TRY(digits_parse(slice_of(text.data, before), 36, &p.epoch));
    TRY(digits_parse(slice_of(dash + 1, text.size - before - 1), 10, &p.seq));
    if (p.epoch == 0)
        return ERR_INVALID;
    *out = p;
    return ERR_OK;
}
