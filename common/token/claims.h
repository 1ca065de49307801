/* CORE. The claims of a token whose signature is good: JSON in, identity out. */
#ifndef STOA_COMMON_TOKEN_CLAIMS_H
#define STOA_COMMON_TOKEN_CLAIMS_H

#include "common/token/identity.h"

struct claims_rules {
    const char *issuer, *audience; /* NULL: any, or none */
    int64_t max_ttl_ms;
};

/* NULL and *out, a reference of the caller's. Else what is wrong, a constant. */
const char *claims_read(struct slice claims, struct slice key_id, const struct claims_rules *rules,
                        int64_t wall_ms, struct identity **out);

#endif
