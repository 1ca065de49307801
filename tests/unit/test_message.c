/* The codec: random structs of every message go out and come back, msgpack-c agrees with what is
 * written, and what is malformed is refused without reading beyond it or taking memory for it. */
#include <check.h>
#include <msgpack.h>
#include <stdlib.h>

#include "common/mem.h"
#include "common/rng.h"
#include "proto/message.h"
#include "proto/mp.h"
#include "proto/prefix.h"

#define SEEDS 60
#define ENTRIES_MAX 12

/* ---- random valid messages ---- */

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

static uint64_t random_u64(struct generator *g)
{
    return rng_u64(&g->rng) >> rng_below(&g->rng, 64); /* every width */
}

static int64_t random_i64(struct generator *g)
{
    int64_t value = (int64_t)(random_u64(g) >> 1);
    return rng_below(&g->rng, 2) ? value : -value - 1;
}

/* Mostly short, sometimes empty, sometimes the longest allowed. */
static size_t random_size(struct generator *g, size_t max)
{
    switch (rng_below(&g->rng, 8)) {
    case 0:
        return 0;
    case 1:
        return max;
    default:
        return rng_below(&g->rng, (max < 40 ? max : 40) + 1);
    }
}

static struct slice random_bin(struct generator *g, size_t max)
{
    size_t size = random_size(g, max);
    uint8_t *at = g->bytes + g->used;
    ck_assert_uint_le(g->used + size, sizeof g->bytes);
    rng_bytes(&g->rng, at, size);
    g->used += size;
    return slice_of(at, size);
}

static struct slice random_str(struct generator *g, size_t max)
{
    static const char *const pieces[] = {
        "a", "Z", "7", ":", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    size_t size = random_size(g, max);
    uint8_t *at = g->bytes + g->used;
    size_t put = 0;
    while (put < size) {
        const char *piece = pieces[rng_below(&g->rng, 7)];
        size_t n = strlen(piece);
        if (put + n > size)
            piece = "x", n = 1;
        memcpy(at + put, piece, n);
        put += n;
    }
    g->used += size;
    return slice_of(at, size);
}

static void random_events(struct generator *g, struct events_list *out)
{
    *out = (struct events_list){g->events, rng_below(&g->rng, ENTRIES_MAX + 1)};
    for (size_t i = 0; i < out->count; i++)
        g->events[i] = (struct event_item){
            .prev = random_u64(g),
            .seq = random_u64(g),
            .ts = random_i64(g),
            .flags = (uint32_t)random_u64(g),
            .conflate = random_str(g, CONFLATE_MAX_BYTES),
            .filter = random_bin(g, 300),
            .payload = random_bin(g, 5000),
        };
}

static void random_parts(struct generator *g, struct parts_list *out)
{
    *out = (struct parts_list){g->parts, rng_below(&g->rng, ENTRIES_MAX + 1)};
    for (size_t i = 0; i < out->count; i++)
        g->parts[i] = random_bin(g, 70000);
}

static void random_marks(struct generator *g, struct marks_list *out)
{
    *out = (struct marks_list){g->marks, rng_below(&g->rng, ENTRIES_MAX + 1)};
    for (size_t i = 0; i < out->count; i++)
        g->marks[i] = (struct mark){random_str(g, KEY_MAX_BYTES), random_u64(g), random_u64(g),
                                    random_u64(g)};
}

static void random_ranges(struct generator *g, struct ranges_list *out)
{
    *out = (struct ranges_list){g->ranges, rng_below(&g->rng, ENTRIES_MAX + 1)};
    for (size_t i = 0; i < out->count; i++) {
        uint64_t lo = rng_below(&g->rng, SLOT_COUNT);
        uint64_t hi = lo + rng_below(&g->rng, SLOT_COUNT - lo);
        g->ranges[i] = (struct slot_range){lo, hi, random_u64(g)};
    }
}

static void random_members(struct generator *g, struct members_list *out)
{
    *out = (struct members_list){g->members, rng_below(&g->rng, ENTRIES_MAX + 1)};
    for (size_t i = 0; i < out->count; i++)
        g->members[i] = (struct ring_member){random_str(g, MEMBER_NAME_MAX_BYTES),
                                             random_str(g, MEMBER_ENDPOINT_MAX_BYTES),
                                             random_u64(g), random_u64(g)};
}

#define MSG_BEGIN(lower, UPPER, code, way, doc)                            \
    static void random_##lower(struct generator *g, struct msg_##lower *m) \
    {                                                                      \
        (void)g;                                                           \
        (void)m;
#define F_U64(name, doc) m->name = random_u64(g);
#define F_I64(name, doc) m->name = random_i64(g);
#define F_STR(name, max, doc) m->name = random_str(g, max);
#define F_BIN(name, max, doc) m->name = random_bin(g, max);
#define F_ID16(name, doc) rng_bytes(&g->rng, m->name, 16);
#define F_LIST(kind, name, doc) random_##kind(g, &m->name);
#define F_BODY(name, doc) m->name = random_bin(g, 10000);
#define MSG_END }
#include "proto/messages.def"
#undef MSG_BEGIN
#undef F_U64
#undef F_I64
#undef F_STR
#undef F_BIN
#undef F_ID16
#undef F_LIST
#undef F_BODY

/* ---- equality ---- */

#define SAME(a, b) ck_assert_uint_eq((uint64_t)(a), (uint64_t)(b))
#define SAME_SLICE(a, b) ck_assert(slice_equal(a, b))

static void same_events(const struct events_list *a, const struct events_list *b)
{
    SAME(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        SAME(a->at[i].prev, b->at[i].prev);
        SAME(a->at[i].seq, b->at[i].seq);
        SAME(a->at[i].ts, b->at[i].ts);
        SAME(a->at[i].flags, b->at[i].flags);
        SAME_SLICE(a->at[i].conflate, b->at[i].conflate);
        SAME_SLICE(a->at[i].filter, b->at[i].filter);
        SAME_SLICE(a->at[i].payload, b->at[i].payload);
    }
}

static void same_parts(const struct parts_list *a, const struct parts_list *b)
{
    SAME(a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        SAME_SLICE(a->at[i], b->at[i]);
}

static void same_marks(const struct marks_list *a, const struct marks_list *b)
{
    SAME(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        SAME_SLICE(a->at[i].key, b->at[i].key);
        SAME(a->at[i].epoch, b->at[i].epoch);
        SAME(a->at[i].seq, b->at[i].seq);
        SAME(a->at[i].count, b->at[i].count);
    }
}

static void same_ranges(const struct ranges_list *a, const struct ranges_list *b)
{
    SAME(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        SAME(a->at[i].lo, b->at[i].lo);
        SAME(a->at[i].hi, b->at[i].hi);
        SAME(a->at[i].epoch, b->at[i].epoch);
    }
}

static void same_members(const struct members_list *a, const struct members_list *b)
{
    SAME(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        SAME_SLICE(a->at[i].name, b->at[i].name);
        SAME_SLICE(a->at[i].endpoint, b->at[i].endpoint);
        SAME(a->at[i].weight, b->at[i].weight);
        SAME(a->at[i].state, b->at[i].state);
    }
}

#define MSG_BEGIN(lower, UPPER, code, way, doc)                                        \
    static void same_##lower(const struct msg_##lower *a, const struct msg_##lower *b) \
    {                                                                                  \
        (void)a;                                                                       \
        (void)b;
#define F_U64(name, doc) SAME(a->name, b->name);
#define F_I64(name, doc) SAME(a->name, b->name);
#define F_STR(name, max, doc) SAME_SLICE(a->name, b->name);
#define F_BIN(name, max, doc) SAME_SLICE(a->name, b->name);
#define F_ID16(name, doc) ck_assert_mem_eq(a->name, b->name, 16);
#define F_LIST(kind, name, doc) same_##kind(&a->name, &b->name);
#define F_BODY(name, doc) SAME_SLICE(a->name, b->name);
#include "proto/messages.def"
#undef MSG_BEGIN
#undef F_U64
#undef F_I64
#undef F_STR
#undef F_BIN
#undef F_ID16
#undef F_LIST
#undef F_BODY

/* ---- what a sender of an older version leaves out: fields from `kept` on ---- */

#define MSG_BEGIN(lower, UPPER, code, way, doc)                    \
    static void forget_##lower(struct msg_##lower *m, size_t kept) \
    {                                                              \
        size_t index = 0;                                          \
        (void)m;                                                   \
        (void)kept;                                                \
        (void)index;
#define FORGET(name)     \
    if (index++ >= kept) \
        memset(&m->name, 0, sizeof m->name);
#define F_U64(name, doc) FORGET(name)
#define F_I64(name, doc) FORGET(name)
#define F_STR(name, max, doc) FORGET(name)
#define F_BIN(name, max, doc) FORGET(name)
#define F_ID16(name, doc) FORGET(name)
#define F_LIST(kind, name, doc) FORGET(name)
#define F_BODY(name, doc)
#include "proto/messages.def"
#undef MSG_BEGIN
#undef F_U64
#undef F_I64
#undef F_STR
#undef F_BIN
#undef F_ID16
#undef F_LIST
#undef F_BODY

/* ---- msgpack-c's opinion of a head ---- */

static void seen_u64(const msgpack_object *o, uint64_t value)
{
    ck_assert_int_eq(o->type, MSGPACK_OBJECT_POSITIVE_INTEGER);
    SAME(o->via.u64, value);
}

static void seen_i64(const msgpack_object *o, int64_t value)
{
    ck_assert_int_eq(o->type,
                     value < 0 ? MSGPACK_OBJECT_NEGATIVE_INTEGER : MSGPACK_OBJECT_POSITIVE_INTEGER);
    ck_assert_int_eq(o->via.i64, value);
}

static void seen_str(const msgpack_object *o, struct slice s)
{
    ck_assert_int_eq(o->type, MSGPACK_OBJECT_STR);
    SAME_SLICE(slice_of(o->via.str.ptr, o->via.str.size), s);
}

static void seen_bin(const msgpack_object *o, struct slice s)
{
    ck_assert_int_eq(o->type, MSGPACK_OBJECT_BIN);
    SAME_SLICE(slice_of(o->via.bin.ptr, o->via.bin.size), s);
}

static const msgpack_object *seen_entry(const msgpack_object *list, size_t index, size_t elements)
{
    const msgpack_object *entry = &list->via.array.ptr[index];
    ck_assert_int_eq(entry->type, MSGPACK_OBJECT_ARRAY);
    SAME(entry->via.array.size, elements);
    return entry->via.array.ptr;
}

static void seen_events(const msgpack_object *o, const struct events_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const msgpack_object *e = seen_entry(o, i, 7);
        seen_u64(&e[0], list->at[i].prev);
        seen_u64(&e[1], list->at[i].seq);
        seen_i64(&e[2], list->at[i].ts);
        seen_u64(&e[3], list->at[i].flags);
        seen_str(&e[4], list->at[i].conflate);
        seen_bin(&e[5], list->at[i].filter);
        seen_u64(&e[6], list->at[i].payload.size);
    }
}

static void seen_parts(const msgpack_object *o, const struct parts_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        seen_u64(&o->via.array.ptr[i], list->at[i].size);
}

static void seen_marks(const msgpack_object *o, const struct marks_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const msgpack_object *e = seen_entry(o, i, 4);
        seen_str(&e[0], list->at[i].key);
        seen_u64(&e[1], list->at[i].epoch);
        seen_u64(&e[2], list->at[i].seq);
        seen_u64(&e[3], list->at[i].count);
    }
}

static void seen_ranges(const msgpack_object *o, const struct ranges_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const msgpack_object *e = seen_entry(o, i, 3);
        seen_u64(&e[0], list->at[i].lo);
        seen_u64(&e[1], list->at[i].hi);
        seen_u64(&e[2], list->at[i].epoch);
    }
}

static void seen_members(const msgpack_object *o, const struct members_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const msgpack_object *e = seen_entry(o, i, 4);
        seen_str(&e[0], list->at[i].name);
        seen_str(&e[1], list->at[i].endpoint);
        seen_u64(&e[2], list->at[i].weight);
        seen_u64(&e[3], list->at[i].state);
    }
}

#define MSG_BEGIN(lower, UPPER, code, way, doc)                                          \
    static void seen_##lower(const msgpack_object_array *a, const struct msg_##lower *m) \
    {                                                                                    \
        const msgpack_object *o = a->ptr + PREFIX_ELEMENTS;                              \
        (void)m;
#define F_U64(name, doc) seen_u64(o++, m->name);
#define F_I64(name, doc) seen_i64(o++, m->name);
#define F_STR(name, max, doc) seen_str(o++, m->name);
#define F_BIN(name, max, doc) seen_bin(o++, m->name);
#define F_ID16(name, doc) seen_bin(o++, slice_of(m->name, 16));
#define F_LIST(kind, name, doc)                      \
    ck_assert_int_eq(o->type, MSGPACK_OBJECT_ARRAY); \
    SAME(o->via.array.size, m->name.count);          \
    seen_##kind(o++, &m->name);
#define F_BODY(name, doc)
#undef MSG_END
#define MSG_END                            \
    ck_assert_ptr_eq(o, a->ptr + a->size); \
    }
#include "proto/messages.def"
#undef MSG_BEGIN
#undef MSG_END
#undef F_U64
#undef F_I64
#undef F_STR
#undef F_BIN
#undef F_ID16
#undef F_LIST
#undef F_BODY

/* ---- the table of all messages ---- */

struct row {
    uint64_t type;
    const char *name;
    void (*random)(struct generator *g, struct message *m);
    void (*same)(const struct message *a, const struct message *b);
    void (*seen)(const msgpack_object_array *a, const struct message *m);
    void (*forget)(struct message *m, size_t kept);
};

#define F_U64(name, doc)
#define F_I64(name, doc)
#define F_STR(name, max, doc)
#define F_BIN(name, max, doc)
#define F_ID16(name, doc)
#define F_LIST(kind, name, doc)
#define F_BODY(name, doc)
#define MSG_END
#define MSG_BEGIN(lower, UPPER, code, way, doc)                                          \
    static void row_random_##lower(struct generator *g, struct message *m)               \
    {                                                                                    \
        random_##lower(g, &m->lower);                                                    \
    }                                                                                    \
    static void row_same_##lower(const struct message *a, const struct message *b)       \
    {                                                                                    \
        same_##lower(&a->lower, &b->lower);                                              \
    }                                                                                    \
    static void row_seen_##lower(const msgpack_object_array *a, const struct message *m) \
    {                                                                                    \
        seen_##lower(a, &m->lower);                                                      \
    }                                                                                    \
    static void row_forget_##lower(struct message *m, size_t kept)                       \
    {                                                                                    \
        forget_##lower(&m->lower, kept);                                                 \
    }
#include "proto/messages.def"
#undef MSG_BEGIN

static const struct row rows[] = {
#define MSG_BEGIN(lower, UPPER, code, way, doc) \
    {code, #UPPER, row_random_##lower, row_same_##lower, row_seen_##lower, row_forget_##lower},
#include "proto/messages.def"
#undef MSG_BEGIN
};
#define ROWS (int)(sizeof rows / sizeof *rows)

static void random_message(struct generator *g, const struct row *row, struct message *m)
{
    g->used = 0;
    *m = (struct message){
        .type = row->type, .cid = random_u64(g), .ep = random_u64(g), .slot = SLOT_UNKNOWN};
    if (rng_below(&g->rng, 2))
        m->slot = (uint16_t)rng_below(&g->rng, SLOT_COUNT);
    m->key = random_str(g, KEY_MAX_BYTES);
    row->random(g, m);
}

static void same_prefix(const struct message *a, const struct message *b)
{
    SAME(a->type, b->type);
    SAME(a->cid, b->cid);
    SAME(a->slot, b->slot);
    SAME(a->ep, b->ep);
    SAME_SLICE(a->key, b->key);
}

/* ---- one encoded message, each part in memory of its exact size ---- */

struct wire {
    uint8_t *head, *body;
    size_t head_size, body_size;
};

static uint8_t *exact_copy(const uint8_t *at, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (size)
        memcpy(copy, at, size);
    return copy;
}

static struct wire encode(const struct message *m)
{
    struct strbuf b = {0};
    message_encode(&b, m);
    ck_assert_uint_ge(message_size_bound(m), b.size);
    struct wire w = {.head_size = b.data[0] | b.data[1] << 8 | b.data[2] << 16,
                     .body_size = b.data[4] | b.data[5] << 8 | b.data[6] << 16};
    ck_assert_uint_eq(8 + w.head_size + w.body_size, b.size);
    ck_assert_uint_ge(message_head_bound(m), w.head_size);
    w.head = exact_copy(b.data + 8, w.head_size);
    w.body = exact_copy(b.data + 8 + w.head_size, w.body_size);
    strbuf_free(&b);
    return w;
}

static void wire_free(struct wire *w)
{
    free(w->head);
    free(w->body);
}

static int decode(const struct wire *w, struct message_arena *arena, struct message *out)
{
    return message_decode(slice_of(w->head, w->head_size), slice_of(w->body, w->body_size), arena,
                          out);
}

START_TEST(round_trip)
{
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    struct message_arena arena = {0};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct message m, out;
        rng_seed(&g->rng, seed);
        random_message(g, row, &m);
        struct wire w = encode(&m);
        ck_assert_int_eq(decode(&w, &arena, &out), ERR_OK);
        same_prefix(&m, &out);
        row->same(&m, &out);
        struct wire again = encode(&out);
        ck_assert_uint_eq(w.head_size, again.head_size);
        ck_assert_mem_eq(w.head, again.head, w.head_size);
        wire_free(&again);
        wire_free(&w);
    }
    message_arena_free(&arena);
    free(g);
}
END_TEST

START_TEST(msgpack_c_agrees)
{
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct message m;
        rng_seed(&g->rng, 1000 + seed);
        random_message(g, row, &m);
        struct wire w = encode(&m);
        msgpack_unpacked u;
        msgpack_unpacked_init(&u);
        size_t used = 0;
        ck_assert_int_eq(msgpack_unpack_next(&u, (const char *)w.head, w.head_size, &used),
                         MSGPACK_UNPACK_SUCCESS);
        ck_assert_uint_eq(used, w.head_size);
        ck_assert_int_eq(u.data.type, MSGPACK_OBJECT_ARRAY);
        const msgpack_object *o = u.data.via.array.ptr;
        seen_u64(&o[0], 1);
        seen_u64(&o[1], m.type);
        seen_u64(&o[2], m.cid);
        seen_u64(&o[3], m.slot);
        seen_u64(&o[4], m.ep);
        seen_str(&o[5], m.key);
        row->seen(&u.data.via.array, &m);
        msgpack_unpacked_destroy(&u);
        wire_free(&w);
    }
    free(g);
}
END_TEST

START_TEST(every_truncation_is_an_error)
{
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    struct message_arena arena = {0};
    for (uint64_t seed = 0; seed < 4; seed++) {
        struct message m, out;
        rng_seed(&g->rng, 2000 + seed);
        random_message(g, row, &m);
        struct wire w = encode(&m);
        for (size_t size = 0; size < w.head_size; size++) {
            struct wire cut = {exact_copy(w.head, size), w.body, size, w.body_size};
            ck_assert_int_ne(decode(&cut, &arena, &out), ERR_OK);
            free(cut.head);
        }
        if (w.body_size > 0 && row->type != MSG_ANSWER) {
            struct wire cut = w;
            cut.body_size--;
            ck_assert_int_eq(decode(&cut, &arena, &out), ERR_INVALID);
            ck_assert_uint_eq(out.type, row->type); /* what an ERR needs */
            ck_assert_uint_eq(out.cid, m.cid);
        }
        wire_free(&w);
    }
    message_arena_free(&arena);
    free(g);
}
END_TEST

START_TEST(random_damage_never_crashes)
{
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    struct message_arena arena = {0};
    struct message m, out;
    rng_seed(&g->rng, 3000);
    random_message(g, row, &m);
    struct wire w = encode(&m);
    for (int i = 0; i < 3000; i++) {
        struct wire bad = {exact_copy(w.head, w.head_size), w.body, w.head_size, w.body_size};
        for (uint64_t k = 1 + rng_below(&g->rng, 3); k > 0; k--)
            bad.head[rng_below(&g->rng, bad.head_size)] = (uint8_t)rng_u64(&g->rng);
        if (decode(&bad, &arena, &out) == ERR_OK && out.type == row->type)
            row->same(&out, &out); /* reads every slice */
        free(bad.head);
    }
    ck_assert_uint_le(arena.capacity, 4 * HEAD_ARRAY_MAX * sizeof(struct event_item));
    wire_free(&w);
    message_arena_free(&arena);
    free(g);
}
END_TEST

/* Ends of the head's elements: ends[k] is where the k-th field behind the prefix begins. */
static size_t field_ends(const struct wire *w, size_t *ends, size_t max)
{
    struct mp r = {w->head, w->head + w->head_size};
    size_t elements = 0;
    ck_assert_int_eq(mp_array(&r, HEAD_ARRAY_MAX, &elements), ERR_OK);
    ck_assert_uint_le(elements - PREFIX_ELEMENTS + 1, max);
    for (size_t i = 0; i <= elements; i++) {
        if (i >= PREFIX_ELEMENTS)
            ends[i - PREFIX_ELEMENTS] = (size_t)(r.at - w->head);
        if (i < elements)
            ck_assert_int_eq(mp_skip(&r, HEAD_DEPTH_MAX), ERR_OK);
    }
    return elements - PREFIX_ELEMENTS;
}

START_TEST(short_heads_are_filled_with_zero)
{
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    struct message_arena arena = {0};
    size_t ends[32];
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct message m, out;
        rng_seed(&g->rng, 4000 + seed);
        random_message(g, row, &m);
        struct wire w = encode(&m);
        size_t fields = field_ends(&w, ends, 32);
        for (size_t kept = 0; kept <= fields; kept++) {
            struct message expected = m;
            row->forget(&expected, kept);
            struct wire body_of = encode(&expected); /* forgotten lists have no bytes */
            struct wire cut = {exact_copy(w.head, ends[kept]), body_of.body, ends[kept],
                               body_of.body_size};
            cut.head[2] = (uint8_t)(PREFIX_ELEMENTS + kept);
            ck_assert_int_eq(decode(&cut, &arena, &out), ERR_OK);
            row->same(&expected, &out);
            free(cut.head);
            wire_free(&body_of);
        }
        wire_free(&w);
    }
    message_arena_free(&arena);
    free(g);
}
END_TEST

START_TEST(unknown_trailing_fields_are_skipped)
{
    static const uint8_t more[] = {
        0x92, 0x91, 0x81, 0x01, 0x02, 0xc0,          /* [[{1: 2}], nil]: as deep as is allowed */
        0xa3, 'n',  'e',  'w',                       /* "new" */
        0xcb, 1,    2,    3,    4,    5,    6, 7, 8, /* a float */
    };
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    struct message_arena arena = {0};
    struct message m, out;
    rng_seed(&g->rng, 5000);
    random_message(g, row, &m);
    struct wire w = encode(&m);
    struct wire longer = {malloc(w.head_size + sizeof more), w.body, w.head_size + sizeof more,
                          w.body_size};
    memcpy(longer.head, w.head, w.head_size);
    memcpy(longer.head + w.head_size, more, sizeof more);
    longer.head[2] = (uint8_t)(w.head[2] + 3);
    ck_assert_int_eq(decode(&longer, &arena, &out), ERR_OK);
    row->same(&m, &out);
    longer.head[2]--; /* bytes behind the array */
    ck_assert_int_eq(decode(&longer, &arena, &out), ERR_INVALID);
    free(longer.head);
    wire_free(&w);
    message_arena_free(&arena);
    free(g);
}
END_TEST

/* ---- heads written by hand ---- */

/* A head with prefix t, cid 9, empty key, and these bytes as its fields. */
static struct wire head_with(uint8_t type, uint8_t fields, const uint8_t *bytes, size_t size)
{
    uint8_t prefix[] = {0xdc, 0,    0,    1,    0, 0xcf, 0, 0, 0, 0, 0, 0, 0,    9,
                        0xcd, 0xff, 0xff, 0xcf, 0, 0,    0, 0, 0, 0, 0, 0, 0xd9, 0};
    prefix[2] = PREFIX_ELEMENTS + fields;
    prefix[PREFIX_TYPE] = type;
    struct wire w = {malloc(sizeof prefix + size), NULL, sizeof prefix + size, 0};
    memcpy(w.head, prefix, sizeof prefix);
    if (size)
        memcpy(w.head + sizeof prefix, bytes, size);
    return w;
}

static int decode_fields(uint8_t type, uint8_t fields, const uint8_t *bytes, size_t size,
                         const char *body, struct message_arena *arena, struct message *out)
{
    static struct wire w; /* stays until the next call, as `out` points into it */
    wire_free(&w);
    w = head_with(type, fields, bytes, size);
    return message_decode(slice_of(w.head, w.head_size), slice_text(body), arena, out);
}
#define DECODE(type, fields, body, ...)                         \
    decode_fields(type, fields, (const uint8_t[]){__VA_ARGS__}, \
                  sizeof((const uint8_t[]){__VA_ARGS__}), body, &arena, &out)

START_TEST(entries_follow_the_same_rules)
{
    struct message_arena arena = {0};
    struct message out;
    /* DELIVER [epoch 5, [[1, 2], [2, 3, -1, 1, "c", bin, 3, new [nil], new]]] */
    ck_assert_int_eq(DECODE(MSG_DELIVER, 2, "abc", 0x05, 0x92, 0x92, 0x01, 0x02, 0x99, 0x02, 0x03,
                            0xff, 0x01, 0xa1, 'c', 0xc4, 0x00, 0x03, 0x91, 0xc0, 0xc3),
                     ERR_OK);
    const struct events_list *items = &out.deliver.items;
    SAME(items->count, 2);
    SAME(items->at[0].seq, 2);
    SAME(items->at[0].ts, 0);
    SAME(items->at[0].payload.size, 0);
    ck_assert_int_eq(items->at[1].ts, -1);
    ck_assert(slice_is(items->at[1].conflate, "c"));
    message_arena_free(&arena);
}
END_TEST

START_TEST(bombs_take_no_memory)
{
    struct message_arena arena = {0};
    struct message out;
    /* lists that claim 2^32-1, 65535 and 4096 entries */
    ck_assert_int_eq(DECODE(MSG_SUBSYNC, 2, "", 0, 0xdd, 0xff, 0xff, 0xff, 0xff), ERR_TOO_LARGE);
    ck_assert_int_eq(DECODE(MSG_SUBSYNC, 2, "", 0, 0xdc, 0xff, 0xff, 0), ERR_TOO_LARGE);
    ck_assert_int_eq(DECODE(MSG_SUBSYNC, 2, "", 0, 0xdc, 0x10, 0x00, 0), ERR_INVALID);
    /* a str of 4 GiB, as a field and skipped */
    ck_assert_int_eq(DECODE(MSG_UNSUB, 1, "", 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'), ERR_TOO_LARGE);
    ck_assert_int_eq(DECODE(MSG_PING, 1, "", 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'), ERR_INVALID);
    /* too deep, and a million nested arrays' beginning */
    ck_assert_int_eq(DECODE(MSG_PING, 1, "", 0x91, 0x91, 0x91, 0x91, 0x00), ERR_TOO_LARGE);
    ck_assert_int_eq(
        DECODE(MSG_DELIVER, 2, "", 0, 0x91, 0x98, 0, 0, 0, 0, 0xa0, 0xc4, 0, 0, 0x91, 0x91, 0x00),
        ERR_TOO_LARGE);
    ck_assert_uint_le(arena.capacity, 1024); /* the last one had an honest list of one entry */
    ck_assert_uint_eq(out.cid, 9);
    message_arena_free(&arena);
}
END_TEST

START_TEST(wrong_values)
{
    struct message_arena arena = {0};
    struct message out;
    /* a str that is not UTF-8; a bin where a str is due; an id of 15 bytes; a negative u64 */
    ck_assert_int_eq(DECODE(MSG_UNSUB, 1, "", 0xa2, 0xc3, 0x28), ERR_INVALID);
    ck_assert_int_eq(DECODE(MSG_UNSUB, 1, "", 0xc4, 1, 'x'), ERR_INVALID);
    ck_assert_int_eq(
        DECODE(MSG_PUB, 1, "", 0xc4, 15, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        ERR_INVALID);
    ck_assert_int_eq(DECODE(MSG_CREDIT, 1, "", 0xff), ERR_INVALID);
    /* slots: lo > hi, beyond the last */
    ck_assert_int_eq(DECODE(MSG_CLAIM, 3, "", 0, 0, 0x91, 0x93, 2, 1, 1), ERR_INVALID);
    ck_assert_int_eq(DECODE(MSG_CLAIM, 3, "", 0, 0, 0x91, 0x93, 2, 0xcd, 0x40, 0x00, 1),
                     ERR_INVALID);
    /* sizes that are more, less, and overflow */
    ck_assert_int_eq(DECODE(MSG_CEVT, 5, "abc", 0xa0, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0x92, 2, 1),
                     ERR_OK);
    ck_assert_int_eq(DECODE(MSG_CEVT, 5, "abc", 0xa0, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0x92, 2, 2),
                     ERR_INVALID);
    ck_assert_int_eq(DECODE(MSG_CEVT, 5, "abc", 0xa0, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0x91, 2),
                     ERR_INVALID);
    ck_assert_int_eq(DECODE(MSG_CEVT, 5, "abc", 0xa0, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0x92, 4, 0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                            0xff, 0xff),
                     ERR_INVALID);
    /* a body where none belongs */
    ck_assert_int_eq(DECODE(MSG_CREDIT, 1, "x", 0x01), ERR_INVALID);
    message_arena_free(&arena);
}
END_TEST

START_TEST(unknown_type_gives_the_prefix)
{
    struct message_arena arena = {0};
    struct message out;
    ck_assert_int_eq(DECODE(99, 1, "whatever", 0xc1), ERR_OK);
    ck_assert_uint_eq(out.type, 99);
    ck_assert_uint_eq(out.cid, 9);
    ck_assert(!message_known(99));
    ck_assert_str_eq(message_name(99), "?");
    message_arena_free(&arena);
}
END_TEST

START_TEST(prefix_has_one_form_only)
{
    static const struct {
        size_t at;
        uint8_t value;
    } cases[] = {{0, 0xdd},  {2, 5},     {3, 2},     {4, 0},     {4, 0xcc}, {5, 0xce},
                 {14, 0xce}, {15, 0x40}, {17, 0xd3}, {26, 0xc4}, {27, 1}};
    struct message_prefix p;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wire w = head_with(MSG_PING, 0, NULL, 0);
        ck_assert_int_eq(message_peek(slice_of(w.head, w.head_size), &p), ERR_OK);
        w.head[cases[i].at] = cases[i].value;
        ck_assert_msg(message_peek(slice_of(w.head, w.head_size), &p) != ERR_OK, "case %zu", i);
        ck_assert_uint_eq(p.type, 0);
        wire_free(&w);
    }
    struct wire w = head_with(MSG_PING, 0, NULL, 0);
    w.head[15] = 0x3f; /* slot 0x3fff, the last one */
    ck_assert_int_eq(message_peek(slice_of(w.head, w.head_size), &p), ERR_OK);
    ck_assert_uint_eq(p.slot, SLOT_COUNT - 1);
    message_stamp(w.head, UINT64_MAX, 5, 6);
    ck_assert_int_eq(message_peek(slice_of(w.head, w.head_size), &p), ERR_OK);
    ck_assert(p.cid == UINT64_MAX && p.slot == 5 && p.ep == 6 && p.type == MSG_PING);
    wire_free(&w);
}
END_TEST

START_TEST(longest_key)
{
    char key[KEY_MAX_BYTES + 1];
    memset(key, 'k', sizeof key);
    struct message_arena arena = {0};
    for (size_t size = 254; size <= KEY_MAX_BYTES; size++) {
        struct message out, m = {.type = MSG_PURGE, .key = slice_of(key, size)};
        struct wire w = encode(&m);
        ck_assert_int_eq(decode(&w, &arena, &out), ERR_OK);
        SAME_SLICE(out.key, m.key);
        if (size == KEY_MAX_BYTES) { /* one more is refused */
            uint8_t *longer = malloc(w.head_size + 1);
            memcpy(longer, w.head, w.head_size);
            longer[w.head_size] = 'k';
            longer[PREFIX_KEY + 2]++;
            ck_assert_int_eq(
                message_decode(slice_of(longer, w.head_size + 1), slice_text(""), &arena, &out),
                ERR_TOO_LARGE);
            free(longer);
        }
        wire_free(&w);
    }
    message_arena_free(&arena);
}
END_TEST

/* ---- golden bytes ---- */

static void expect_hex(const struct message *m, const char *hex)
{
    struct strbuf b = {0}, text = {0};
    message_encode(&b, m);
    for (size_t i = 0; i < b.size; i++)
        strbuf_printf(&text, "%02x", b.data[i]);
    ck_assert_str_eq(strbuf_cstr(&text), hex);
    strbuf_free(&b);
    strbuf_free(&text);
}

START_TEST(golden)
{
    expect_hex(&(struct message){.type = MSG_PING, .slot = SLOT_UNKNOWN},
               "1c00000000000000"
               "dc00060103cf0000000000000000cdffffcf0000000000000000d900");
    struct message pack = {
        .type = MSG_PACK, .cid = 0x500000007, .slot = 77, .ep = 3, .key = slice_text("a:b")};
    pack.pack = (struct msg_pack){.room_epoch = 0x1234, .seq = 42, .count = 1, .window_ms = 300000};
    expect_hex(&pack, "2a00000000000000"
                      "dc000b010bcf0000000500000007cd004dcf0000000000000003d903613a62"
                      "cd12342a0100ce000493e0");
    struct event_item item = {.prev = 41,
                              .seq = 42,
                              .ts = 1000,
                              .flags = EVENT_JSON | EVENT_UTF8,
                              .conflate = slice_text("p"),
                              .payload = slice_text("{}")};
    struct message deliver = {.type = MSG_DELIVER, .slot = 1, .ep = 1, .key = slice_text("k")};
    deliver.deliver.room_epoch = 5;
    deliver.deliver.items = (struct events_list){&item, 1};
    expect_hex(&deliver, "2b00000002000000"
                         "dc0008011ecf0000000000000000cd0001cf0000000000000001d9016b"
                         "059197292acd03e803a170c40002"
                         "7b7d");
}
END_TEST

START_TEST(names)
{
    ck_assert_str_eq(message_name(MSG_REPLAY_REQ), "REPLAY_REQ");
    ck_assert_str_eq(role_name(ROLE_SHARD), "shard");
    ck_assert_str_eq(role_name(ROLE_NONE), "unknown");
    ck_assert_str_eq(nack_name(NACK_STALE), "STALE");
    ck_assert_str_eq(nack_name(NACK_INVALID), "INVALID");
    ck_assert_str_eq(nack_name(1000), "UNKNOWN");
    ck_assert_str_eq(miss_name(MISS_EPOCH), "epoch");
    ck_assert_str_eq(miss_name(1000), "unknown");
    for (int i = 0; i < ROWS; i++)
        ck_assert_str_eq(message_name(rows[i].type), rows[i].name);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("message");
    TCase *all = tcase_create("every message");
    tcase_add_loop_test(all, round_trip, 0, ROWS);
    tcase_add_loop_test(all, msgpack_c_agrees, 0, ROWS);
    tcase_add_loop_test(all, every_truncation_is_an_error, 0, ROWS);
    tcase_add_loop_test(all, random_damage_never_crashes, 0, ROWS);
    tcase_add_loop_test(all, short_heads_are_filled_with_zero, 0, ROWS);
    tcase_add_loop_test(all, unknown_trailing_fields_are_skipped, 0, ROWS);
    suite_add_tcase(suite, all);
    TCase *tc = tcase_create("by hand");
    tcase_add_test(tc, entries_follow_the_same_rules);
    tcase_add_test(tc, bombs_take_no_memory);
    tcase_add_test(tc, wrong_values);
    tcase_add_test(tc, unknown_type_gives_the_prefix);
    tcase_add_test(tc, prefix_has_one_form_only);
    tcase_add_test(tc, longest_key);
    tcase_add_test(tc, golden);
    tcase_add_test(tc, names);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
