/* CORE. xoshiro256** with its state filled by splitmix64, so that close seeds (0, 1, 2...) start
 * far apart and the all-zero state, from which the generator never leaves, cannot occur. */
#include "common/rng.h"

#include "common/err.h"

#include <string.h>

static uint64_t splitmix64(uint64_t *x)
{
    uint64_t z = (*x += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, unsigned by)
{
    return (x << by) | (x >> (64 - by));
}

void rng_seed(struct rng *r, uint64_t seed)
{
    for (size_t i = 0; i < 4; i++)
        r->state[i] = splitmix64(&seed);
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t *s = r->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *r, uint64_t bound)
{
    STOA_ASSERT(bound > 0);
    /* 2^64 mod bound: refusing that many values leaves a multiple of bound, so no remainder is
     * likelier than another. */
    uint64_t refuse = (0 - bound) % bound;
    uint64_t value;
    do {
        value = rng_u64(r);
    } while (value < refuse);
    return value % bound;
}

void rng_bytes(struct rng *r, void *out, size_t size)
{
    uint8_t *at = (uint8_t *)out;
    while (size > 0) {
        uint64_t value = rng_u64(r);
        size_t n = size < sizeof value ? size : sizeof value;
        memcpy(at, &value, n);
        at += n;
        size -= n;
    }
}
