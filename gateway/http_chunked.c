/* CORE. Bodies in chunks, one byte at a time except for the data itself. */
#include "gateway/http_chunked.h"

#include "common/limits.h"

#define FRAMING_MAX_BYTES (8 * KIB) /* extensions and trailers of one body */

static int digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int take_size(struct chunked *c, uint8_t byte, size_t room)
{
    int value = digit(byte);
    if (value >= 0) {
        c->state = CHUNK_SIZE;
        c->left = c->left * 16 + (size_t)value;
        return c->left > room ? ERR_TOO_LARGE : ERR_OK;
    }
    if (c->state == CHUNK_SIZE_FIRST)
        return ERR_INVALID;
    if (byte == ';')
        c->state = CHUNK_EXTENSION;
    else if (byte == '\r')
        c->state = CHUNK_SIZE_LF;
    else
        return ERR_INVALID;
    return ERR_OK;
}

/* A byte of an extension or a trailer: anything but control characters, up to the line's end. */
static int take_text(struct chunked *c, uint8_t byte, enum chunk_state at_cr)
{
    if (++c->framing > FRAMING_MAX_BYTES)
        return ERR_INVALID;
    if (byte == '\r')
        c->state = at_cr;
    else if ((byte < ' ' && byte != '\t') || byte == 0x7f)
        return ERR_INVALID;
    return ERR_OK;
}

static int take_exactly(struct chunked *c, uint8_t byte, uint8_t expected, enum chunk_state next)
{
    c->state = next;
    return byte == expected ? ERR_OK : ERR_INVALID;
}

static int take_trailer_start(struct chunked *c, uint8_t byte)
{
    if (byte == '\r') {
        c->state = CHUNK_END_LF;
        return ERR_OK;
    }
    if (byte == ' ' || byte == '\t')
        return ERR_INVALID; /* a continued line */
    c->state = CHUNK_TRAILER;
    return take_text(c, byte, CHUNK_TRAILER_LF);
}

static int take_byte(struct chunked *c, uint8_t byte, size_t room)
{
    switch (c->state) {
    case CHUNK_SIZE_FIRST:
    case CHUNK_SIZE:
        return take_size(c, byte, room);
    case CHUNK_EXTENSION:
        return take_text(c, byte, CHUNK_SIZE_LF);
    case CHUNK_SIZE_LF:
        return take_exactly(c, byte, '\n', c->left ? CHUNK_DATA : CHUNK_TRAILER_START);
    case CHUNK_DATA_CR:
        return take_exactly(c, byte, '\r', CHUNK_DATA_LF);
    case CHUNK_DATA_LF:
        return take_exactly(c, byte, '\n', CHUNK_SIZE_FIRST);
    case CHUNK_TRAILER_START:
        return take_trailer_start(c, byte);
    case CHUNK_TRAILER:
        return take_text(c, byte, CHUNK_TRAILER_LF);
    case CHUNK_TRAILER_LF:
        return take_exactly(c, byte, '\n', CHUNK_TRAILER_START);
    case CHUNK_END_LF:
        return take_exactly(c, byte, '\n', CHUNK_DONE);
    case CHUNK_DATA:
    case CHUNK_DONE:
        break;
    }
    STOA_ASSERT(false);
    return ERR_INVALID;
}

int chunked_decode(struct chunked *c, struct slice in, uint8_t *out, size_t room, size_t *taken,
                   size_t *made)
{
    *taken = *made = 0;
    while (*taken < in.size && c->state != CHUNK_DONE) {
        if (c->state != CHUNK_DATA) {
            TRY(take_byte(c, in.data[(*taken)++], room - *made));
            continue;
        }
        size_t size = c->left < in.size - *taken ? c->left : in.size - *taken;
        if (size > room - *made)
            return ERR_TOO_LARGE;
        memmove(out + *made, in.data + *taken, size);
        *taken += size;
        *made += size;
        c->left -= size;
        if (c->left == 0)
            c->state = CHUNK_DATA_CR;
    }
    return ERR_OK;
}
