/* CORE. The only source of randomness in a core: a seeded generator (splitmix64 feeding
 * xoshiro256**, the public-domain constructions of Blackman and Vigna). Programs seed it from
 * getrandom. */
#ifndef STOA_COMMON_RNG_H
#define STOA_COMMON_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t state[4];
};

void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t bound); /* 0..bound-1, bound > 0, unbiased */
void rng_bytes(struct rng *r, void *out, size_t size);

#endif
