/* CORE. Bodies in chunks (RFC 9112 7.1), strictly: http-parser as distributions build it takes any
 * two bytes for the line ends between chunks, which is how requests get smuggled past one of two
 * servers. */
#ifndef STOA_GATEWAY_HTTP_CHUNKED_H
#define STOA_GATEWAY_HTTP_CHUNKED_H

#include "common/err.h"
#include "common/slice.h"

enum chunk_state {
    CHUNK_SIZE_FIRST, /* at least one digit */
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER_START,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LF,
    CHUNK_END_LF,
    CHUNK_DONE,
};

struct chunked { /* zero-initialise */
    enum chunk_state state;
    size_t left;    /* of the current chunk */
    size_t framing; /* bytes of extensions and trailers so far */
};

/* Takes bytes from `in` and writes the body's bytes to `out`, which may be the same memory or in
 * front of it. Returns ERR_OK when `in` is used up or the body is complete; *taken and *made say
 * how much of each. ERR_TOO_LARGE: the body would exceed `room`; ERR_INVALID: malformed. */
MUST_USE int chunked_decode(struct chunked *c, struct slice in, uint8_t *out, size_t room,
                            size_t *taken, size_t *made);

#endif
