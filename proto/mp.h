/* CORE. Bounded msgpack reading over a slice: known types only, counts checked against the bytes
 * left, depth <= HEAD_DEPTH_MAX, nothing allocated. Own code because the library's unpacker
 * reserves memory on the word of a 5-byte header; msgpack-c writes, and is the oracle in the tests.
 */
#ifndef STOA_PROTO_MP_H
#define STOA_PROTO_MP_H

#include "common/err.h"
#include "common/slice.h"

struct mp {
    const uint8_t *at;
    const uint8_t *end;
};

static inline struct mp mp_of(struct slice s)
{
    return (struct mp){s.data, s.data + s.size};
}
MUST_USE int mp_u64(struct mp *r, uint64_t *out); /* any non-negative integer form */
MUST_USE int mp_i64(struct mp *r, int64_t *out);
MUST_USE int mp_str(struct mp *r, size_t max, struct slice *out);
MUST_USE int mp_bin(struct mp *r, size_t max, struct slice *out);
MUST_USE int mp_array(struct mp *r, size_t max, size_t *count); /* count <= max and <= bytes left */
MUST_USE int mp_map(struct mp *r, size_t max, size_t *count);
MUST_USE int mp_skip(struct mp *r, unsigned depth); /* one value of any type */
static inline bool mp_end(const struct mp *r)
{
    return r->at == r->end;
}

#endif
