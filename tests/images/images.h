/* SHELL. The parts of stoa-crash-images: each runs, prints its line, and says whether it held. */
#ifndef STOA_TESTS_IMAGES_IMAGES_H
#define STOA_TESTS_IMAGES_IMAGES_H

#include <stdbool.h>
#include <stdint.h>

struct run_options {
    uint64_t seed;
    unsigned workers;
    uint64_t images; /* of cut power */
    uint64_t rot;    /* spoiled files */
    uint64_t faults; /* k-th call that fails, k up to this, of every kind */
    uint64_t kills;
    uint64_t rounds;   /* of real power cuts */
    bool ignore_syncs; /* the check of the check: images as if nothing had been synced */
};

bool run_images(const struct run_options *o);
bool run_rot(const struct run_options *o);
bool run_faults(const struct run_options *o);
bool run_kills(const struct run_options *o);
bool run_power_cuts(const struct run_options *o);
double now_seconds(void);

#endif
