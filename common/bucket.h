/* CORE. A token bucket in eight bytes: how much may come in a second, in bursts of one second's
 * worth (of one, when less than one a second may come). All zeros is a full bucket.
 *
 * It keeps the time at which it will be full again; a token costs the time that it takes to come
 * back. What costs more than the bucket holds passes when it is full, and empties it for longer:
 * a batch is never refused for ever. */
#ifndef STOA_COMMON_BUCKET_H
#define STOA_COMMON_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct bucket {
    int64_t full_ns; /* when it is full again; what is past: it is */
};

/* Takes `n` tokens at `per_second` (0: no limit). Returns 0, or else how long it is until they
 * could be taken, ns, and nothing is taken. */
int64_t bucket_take(struct bucket *b, double per_second, uint32_t n, int64_t now_ns);
/* Whether nothing would be lost if it were forgotten. */
bool bucket_is_full(const struct bucket *b, int64_t now_ns);

#endif
