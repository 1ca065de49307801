/* CORE. The msgpack reader of mp.h. Every function either moves the cursor behind the value or
 * leaves it where it was and returns an error; a length is compared with the bytes left before it
 * is believed. */
#include "proto/mp.h"

static size_t bytes_left(const struct mp *r)
{
    return (size_t)(r->end - r->at);
}

/* Reads a big-endian number of `width` bytes behind the tag byte; the caller has checked the bytes.
 */
static uint64_t number_behind_tag(const struct mp *r, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 1; i <= width; i++)
        value = value << 8 | r->at[i];
    return value;
}

/* An integer of any form: its 64 bits, and whether these are to be read as a negative number. */
static int mp_integer(struct mp *r, uint64_t *bits, bool *negative)
{
    if (mp_end(r))
        return ERR_INVALID;
    uint8_t tag = *r->at;
    size_t width = 0;
    *negative = false;
    if (tag <= 0x7f) {
        *bits = tag;
    } else if (tag >= 0xe0) {
        *bits = (uint64_t)(int64_t)(int8_t)tag;
        *negative = true;
    } else if (tag >= 0xcc && tag <= 0xd3) {
        width = (size_t)1 << (tag & 3);
        if (bytes_left(r) <= width)
            return ERR_INVALID;
        uint64_t value = number_behind_tag(r, width);
        if (tag >= 0xd0) {
            *negative = r->at[1] >= 0x80;
            if (*negative && width < 8)
                value |= UINT64_MAX << (8 * width); /* the sign spread over the upper bits */
        }
        *bits = value;
    } else {
        return ERR_INVALID;
    }
    r->at += 1 + width;
    return ERR_OK;
}

int mp_u64(struct mp *r, uint64_t *out)
{
    struct mp before = *r;
    uint64_t bits = 0;
    bool negative = false;
    TRY(mp_integer(r, &bits, &negative));
    if (negative) {
        *r = before;
        return ERR_INVALID;
    }
    *out = bits;
    return ERR_OK;
}

int mp_i64(struct mp *r, int64_t *out)
{
    struct mp before = *r;
    uint64_t bits = 0;
    bool negative = false;
    TRY(mp_integer(r, &bits, &negative));
    if (!negative && bits > INT64_MAX) {
        *r = before;
        return ERR_INVALID;
    }
    *out = (int64_t)bits;
    return ERR_OK;
}

/* The length of a str, bin, array or map: `fixed` is the first tag with the length in its low bits
 * (`mask`; mask 0: there is no such form), `wide` the tag of the narrowest explicit length, whose
 * bytes are `width`; the following tags double it up to 4. Gives the bytes of the header. */
struct mp_form {
    uint8_t fixed, mask;
    uint8_t wide;
    uint8_t width;
};
static const struct mp_form str_form = {0xa0, 0x1f, 0xd9, 1};
static const struct mp_form bin_form = {0, 0, 0xc4, 1};
static const struct mp_form array_form = {0x90, 0x0f, 0xdc, 2};
static const struct mp_form map_form = {0x80, 0x0f, 0xde, 2};

static int mp_length(const struct mp *r, const struct mp_form *form, size_t *header, size_t *length)
{
    if (mp_end(r))
        return ERR_INVALID;
    uint8_t tag = *r->at;
    if (form->mask && (tag & ~form->mask) == form->fixed) {
        *header = 1;
        *length = tag & form->mask;
        return ERR_OK;
    }
    size_t width = form->width;
    for (uint8_t wide = form->wide; width <= 4; wide++, width *= 2) {
        if (tag != wide)
            continue;
        if (bytes_left(r) <= width)
            return ERR_INVALID;
        *header = 1 + width;
        *length = (size_t)number_behind_tag(r, width);
        return ERR_OK;
    }
    return ERR_INVALID;
}

static int mp_bytes(struct mp *r, const struct mp_form *form, size_t max, struct slice *out)
{
    size_t header = 0, length = 0;
    TRY(mp_length(r, form, &header, &length));
    if (length > max)
        return ERR_TOO_LARGE;
    if (length > bytes_left(r) - header)
        return ERR_INVALID;
    *out = slice_of(r->at + header, length);
    r->at += header + length;
    return ERR_OK;
}

int mp_str(struct mp *r, size_t max, struct slice *out)
{
    return mp_bytes(r, &str_form, max, out);
}

int mp_bin(struct mp *r, size_t max, struct slice *out)
{
    return mp_bytes(r, &bin_form, max, out);
}

/* `per_entry`: fewest bytes that one counted entry takes. */
static int mp_count(struct mp *r, const struct mp_form *form, size_t max, size_t per_entry,
                    size_t *count)
{
    size_t header = 0, length = 0;
    TRY(mp_length(r, form, &header, &length));
    if (length > max)
        return ERR_TOO_LARGE;
    if (length > (bytes_left(r) - header) / per_entry)
        return ERR_INVALID;
    *count = length;
    r->at += header;
    return ERR_OK;
}

int mp_array(struct mp *r, size_t max, size_t *count)
{
    return mp_count(r, &array_form, max, 1, count);
}

int mp_map(struct mp *r, size_t max, size_t *count)
{
    return mp_count(r, &map_form, max, 2, count);
}

/* Bytes of a value that holds no others, tag included. ERR_INVALID: a container, or no valid tag.
 */
static int mp_scalar_size(const struct mp *r, size_t *size)
{
    uint8_t tag = *r->at;
    size_t header = 0, length = 0;
    if (mp_length(r, &str_form, &header, &length) == ERR_OK ||
        mp_length(r, &bin_form, &header, &length) == ERR_OK) {
        *size = header + length;
        return ERR_OK;
    }
    switch (tag) {
    case 0xc0: /* nil */
    case 0xc2: /* false */
    case 0xc3: /* true */
        *size = 1;
        return ERR_OK;
    case 0xca: /* float 32 */
        *size = 5;
        return ERR_OK;
    case 0xcb: /* float 64 */
        *size = 9;
        return ERR_OK;
    case 0xc7: /* ext with an explicit length: tag, length, type, bytes */
    case 0xc8:
    case 0xc9:
        header = (size_t)1 << (tag - 0xc7);
        if (bytes_left(r) <= header)
            return ERR_INVALID;
        *size = 2 + header + (size_t)number_behind_tag(r, header);
        return ERR_OK;
    case 0xd4: /* ext of 1, 2, 4, 8, 16 bytes: tag, type, bytes */
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        *size = 2 + ((size_t)1 << (tag - 0xd4));
        return ERR_OK;
    default:
        return ERR_INVALID;
    }
}

/* Recursion is bounded by `depth`, which every caller takes from limits.h; time by the bytes, as
 * each entry takes at least one. */
static int mp_skip_entries(struct mp *r, size_t count, unsigned depth)
{
    if (depth == 0)
        return ERR_TOO_LARGE;
    for (size_t i = 0; i < count; i++)
        TRY(mp_skip(r, depth - 1));
    return ERR_OK;
}

int mp_skip(struct mp *r, unsigned depth)
{
    if (mp_end(r))
        return ERR_INVALID;
    struct mp work = *r;
    uint64_t bits = 0;
    bool negative = false;
    size_t count = 0, size = 0;
    if (mp_integer(&work, &bits, &negative) == ERR_OK) {
        *r = work;
        return ERR_OK;
    }
    if (mp_array(&work, SIZE_MAX, &count) == ERR_OK) {
        TRY(mp_skip_entries(&work, count, depth));
    } else if (mp_map(&work, SIZE_MAX, &count) == ERR_OK) {
        TRY(mp_skip_entries(&work, 2 * count, depth));
    } else {
        TRY(mp_scalar_size(&work, &size));
        if (size > bytes_left(&work))
            return ERR_INVALID;
        work.at += size;
    }
    *r = work;
    return ERR_OK;
}
