/* The samples of message_samples.h, spelled out by messages.def. */
#include "message_samples.h"

#include "proto/prefix.h"

/* ---- random valid messages ---- */

uint64_t random_u64(struct generator *g)
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

void seen_prefix(const msgpack_object *o, const struct message *m)
{
    seen_u64(&o[0], 1);
    seen_u64(&o[1], m->type);
    seen_u64(&o[2], m->cid);
    seen_u64(&o[3], m->slot);
    seen_u64(&o[4], m->ep);
    seen_str(&o[5], m->key);
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

#define MSG_BEGIN(lower, UPPER, code, way, doc) enum { LOOSE_BODY_##UPPER = 0
#undef F_BODY
#undef MSG_END
#define F_BODY(name, doc) +1
#define MSG_END \
    }           \
    ;
#include "proto/messages.def"
#undef MSG_BEGIN

const struct row rows[] = {
#undef F_BODY
#undef MSG_END
#define F_BODY(name, doc)
#define MSG_END
#define MSG_BEGIN(lower, UPPER, code, way, doc) \
    {code,                                      \
     #UPPER,                                    \
     row_random_##lower,                        \
     row_same_##lower,                          \
     row_seen_##lower,                          \
     row_forget_##lower,                        \
     LOOSE_BODY_##UPPER},
#include "proto/messages.def"
#undef MSG_BEGIN
};
const int n_rows = (int)(sizeof rows / sizeof *rows);

void random_message(struct generator *g, const struct row *row, struct message *m)
{
    g->used = 0;
    *m = (struct message){
        .type = row->type, .cid = random_u64(g), .ep = random_u64(g), .slot = SLOT_UNKNOWN};
    if (rng_below(&g->rng, 2))
        m->slot = (uint16_t)rng_below(&g->rng, SLOT_COUNT);
    m->key = random_str(g, KEY_MAX_BYTES);
    row->random(g, m);
}

void same_prefix(const struct message *a, const struct message *b)
{
    SAME(a->type, b->type);
    SAME(a->cid, b->cid);
    SAME(a->slot, b->slot);
    SAME(a->ep, b->ep);
    SAME_SLICE(a->key, b->key);
}
