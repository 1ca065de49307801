/* CORE. Which slots a shard is granted when its data directory is new. */
#ifndef STOA_SHARD_GRANT_H
#define STOA_SHARD_GRANT_H

#include "common/err.h"
#include "common/strbuf.h"

struct grant {
    uint16_t lo, hi; /* inclusive */
};

/* `slots` is "LO-HI", or NULL for the even share of place `index` among `shards` (0 counts as 1).
 * ERR_INVALID with the reason. */
MUST_USE int grant_slots_of(const char *slots, unsigned index, size_t shards, struct grant *out,
                            struct strbuf *why);

#endif
