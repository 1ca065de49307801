/* Samples of every message, for tests: random valid ones by seed, their equality, what msgpack-c
 * makes of them, and what an older sender leaves out; one row per message of messages.def. */
#ifndef STOA_TESTS_MESSAGE_SAMPLES_H
#define STOA_TESTS_MESSAGE_SAMPLES_H

#include <check.h>
#include <msgpack.h>

#include "common/rng.h"
#include "proto/message.h"

#define ENTRIES_MAX 12
#define SAME(a, b) ck_assert_uint_eq((uint64_t)(a), (uint64_t)(b))
#define SAME_SLICE(a, b) ck_assert(slice_equal(a, b))

/* Owns what the slices and lists of one generated message point into. */
struct generator {
    struct rng rng;
    uint8_t bytes[1 << 20];
    size_t used;
    struct event_item events[ENTRIES_MAX];
    struct slice parts[ENTRIES_MAX];
    struct mark marks[ENTRIES_MAX];
    struct slot_range ranges[ENTRIES_MAX];
    struct ring_member members[ENTRIES_MAX];
};

struct row {
    uint64_t type;
    const char *name;
    void (*random)(struct generator *g, struct message *m);
    void (*same)(const struct message *a, const struct message *b);
    void (*seen)(const msgpack_object_array *a, const struct message *m);
    void (*forget)(struct message *m, size_t kept);
    bool loose_body; /* one field is the whole body, so no size in the head tells that it was cut */
};

extern const struct row rows[];
extern const int n_rows;

uint64_t random_u64(struct generator *g);
void random_message(struct generator *g, const struct row *row, struct message *m);
void seen_prefix(const msgpack_object *o, const struct message *m);
void same_prefix(const struct message *a, const struct message *b);

#endif
