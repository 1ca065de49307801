/* CORE. Struct to bytes. The prefix is written by hand at fixed width (prefix.h), the fields behind
 * it with msgpack-c, each message by a function that messages.def spells out. Payloads are copied
 * once, from where they lie into the packet. Nothing is allocated but the growth of the packet. */
#include <msgpack.h>

#include "proto/message.h"
#include "proto/prefix.h"
#include "proto/wire.h"

/* Largest encodings of one value. */
#define INT_BOUND 9
#define BYTES_BOUND 5 /* the header of a str, bin or array */

/* ---- one field ---- */

static int write_to_strbuf(void *data, const char *bytes, size_t size)
{
    struct strbuf *out = data;
    strbuf_put(out, bytes, size);
    return 0;
}

static void put_str(msgpack_packer *pk, struct slice s, size_t max)
{
    STOA_ASSERT(s.size <= max);
    msgpack_pack_str(pk, s.size);
    if (s.size > 0)
        msgpack_pack_str_body(pk, s.data, s.size);
}

static void put_bin(msgpack_packer *pk, struct slice s, size_t max)
{
    STOA_ASSERT(s.size <= max);
    msgpack_pack_bin(pk, s.size);
    if (s.size > 0)
        msgpack_pack_bin_body(pk, s.data, s.size);
}

static void put_count(msgpack_packer *pk, size_t count)
{
    STOA_ASSERT(count <= HEAD_ARRAY_MAX);
    msgpack_pack_array(pk, count);
}

/* ---- lists: their entries in the head, their bytes in the body ---- */

static void put_events(msgpack_packer *pk, const struct events_list *list)
{
    put_count(pk, list->count);
    for (size_t i = 0; i < list->count; i++) {
        const struct event_item *item = &list->at[i];
        msgpack_pack_array(pk, 7);
        msgpack_pack_uint64(pk, item->prev);
        msgpack_pack_uint64(pk, item->seq);
        msgpack_pack_int64(pk, item->ts);
        msgpack_pack_uint32(pk, item->flags);
        put_str(pk, item->conflate, CONFLATE_MAX_BYTES);
        put_bin(pk, item->filter, FILTER_MAX_BYTES);
        msgpack_pack_uint64(pk, item->payload.size);
    }
}

static void put_parts(msgpack_packer *pk, const struct parts_list *list)
{
    put_count(pk, list->count);
    for (size_t i = 0; i < list->count; i++)
        msgpack_pack_uint64(pk, list->at[i].size);
}

static void put_marks(msgpack_packer *pk, const struct marks_list *list)
{
    put_count(pk, list->count);
    for (size_t i = 0; i < list->count; i++) {
        const struct mark *mark = &list->at[i];
        msgpack_pack_array(pk, 4);
        put_str(pk, mark->key, KEY_MAX_BYTES);
        msgpack_pack_uint64(pk, mark->epoch);
        msgpack_pack_uint64(pk, mark->seq);
        msgpack_pack_uint64(pk, mark->count);
    }
}

static void put_ranges(msgpack_packer *pk, const struct ranges_list *list)
{
    put_count(pk, list->count);
    for (size_t i = 0; i < list->count; i++) {
        const struct slot_range *range = &list->at[i];
        STOA_ASSERT(range->lo <= range->hi && range->hi < SLOT_COUNT);
        msgpack_pack_array(pk, 3);
        msgpack_pack_uint64(pk, range->lo);
        msgpack_pack_uint64(pk, range->hi);
        msgpack_pack_uint64(pk, range->epoch);
    }
}

static void put_members(msgpack_packer *pk, const struct members_list *list)
{
    put_count(pk, list->count);
    for (size_t i = 0; i < list->count; i++) {
        const struct ring_member *member = &list->at[i];
        msgpack_pack_array(pk, 4);
        put_str(pk, member->name, MEMBER_NAME_MAX_BYTES);
        put_str(pk, member->endpoint, MEMBER_ENDPOINT_MAX_BYTES);
        msgpack_pack_uint64(pk, member->weight);
        msgpack_pack_uint64(pk, member->state);
    }
}

static void body_put_events(struct strbuf *out, const struct events_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        strbuf_put_slice(out, list->at[i].payload);
}

static void body_put_parts(struct strbuf *out, const struct parts_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        strbuf_put_slice(out, list->at[i]);
}

/* The other lists have nothing in the body. */
#define body_put_marks(out, list) (void)(list)
#define body_put_ranges(out, list) (void)(list)
#define body_put_members(out, list) (void)(list)

/* ---- sizes before encoding ---- */

struct bound {
    size_t head;
    size_t body;
};

static void bound_events(struct bound *b, const struct events_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct event_item *item = &list->at[i];
        b->head += 1 + 5 * INT_BOUND + 2 * BYTES_BOUND + item->conflate.size + item->filter.size;
        b->body += item->payload.size;
    }
}

static void bound_parts(struct bound *b, const struct parts_list *list)
{
    b->head += list->count * INT_BOUND;
    for (size_t i = 0; i < list->count; i++)
        b->body += list->at[i].size;
}

static void bound_marks(struct bound *b, const struct marks_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        b->head += 1 + BYTES_BOUND + list->at[i].key.size + 3 * INT_BOUND;
}

static void bound_ranges(struct bound *b, const struct ranges_list *list)
{
    b->head += list->count * (1 + 2 * 3 + INT_BOUND);
}

static void bound_members(struct bound *b, const struct members_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        b->head +=
            1 + 2 * (BYTES_BOUND + INT_BOUND) + list->at[i].name.size + list->at[i].endpoint.size;
}

/* ---- one message, from the table ---- */

#define MSG_BEGIN(lower, UPPER, code, way, doc)                             \
    static void bound_##lower(struct bound *b, const struct msg_##lower *m) \
    {                                                                       \
        (void)b;                                                            \
        (void)m;
#define F_U64(name, doc) b->head += INT_BOUND;
#define F_I64(name, doc) b->head += INT_BOUND;
#define F_STR(name, max, doc) b->head += BYTES_BOUND + m->name.size;
#define F_BIN(name, max, doc) b->head += BYTES_BOUND + m->name.size;
#define F_ID16(name, doc) b->head += BYTES_BOUND + 16;
#define F_LIST(kind, name, doc) \
    b->head += BYTES_BOUND;     \
    bound_##kind(b, &m->name);
#define F_BODY(name, doc) b->body += m->name.size;
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

#define MSG_BEGIN(lower, UPPER, code, way, doc)                              \
    static void put_##lower(msgpack_packer *pk, const struct msg_##lower *m) \
    {                                                                        \
        (void)pk;                                                            \
        (void)m;
#define F_U64(name, doc) msgpack_pack_uint64(pk, m->name);
#define F_I64(name, doc) msgpack_pack_int64(pk, m->name);
#define F_STR(name, max, doc) put_str(pk, m->name, max);
#define F_BIN(name, max, doc) put_bin(pk, m->name, max);
#define F_ID16(name, doc) put_bin(pk, slice_of(m->name, 16), 16);
#define F_LIST(kind, name, doc) put_##kind(pk, &m->name);
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

#define MSG_BEGIN(lower, UPPER, code, way, doc)                                   \
    static void body_put_##lower(struct strbuf *out, const struct msg_##lower *m) \
    {                                                                             \
        (void)out;                                                                \
        (void)m;
#define F_U64(name, doc)
#define F_I64(name, doc)
#define F_STR(name, max, doc)
#define F_BIN(name, max, doc)
#define F_ID16(name, doc)
#define F_LIST(kind, name, doc) body_put_##kind(out, &m->name);
#define F_BODY(name, doc) strbuf_put_slice(out, m->name);
#include "proto/messages.def"
#undef MSG_BEGIN
#undef F_U64
#undef F_I64
#undef F_STR
#undef F_BIN
#undef F_ID16
#undef F_LIST
#undef F_BODY
#undef MSG_END

/* Elements behind the prefix. */
static uint16_t field_count(uint64_t type)
{
    switch (type) {
#define MSG_BEGIN(lower, UPPER, code, way, doc) \
    case code:                                  \
        return 0
#define F_U64(name, doc) +1
#define F_I64(name, doc) +1
#define F_STR(name, max, doc) +1
#define F_BIN(name, max, doc) +1
#define F_ID16(name, doc) +1
#define F_LIST(kind, name, doc) +1
#define F_BODY(name, doc)
#define MSG_END ;
#include "proto/messages.def"
#undef MSG_BEGIN
#undef F_U64
#undef F_I64
#undef F_STR
#undef F_BIN
#undef F_ID16
#undef F_LIST
#undef F_BODY
#undef MSG_END
    default:
        return 0;
    }
}

/* The remaining switches need only the message's name. */
#define F_U64(name, doc)
#define F_I64(name, doc)
#define F_STR(name, max, doc)
#define F_BIN(name, max, doc)
#define F_ID16(name, doc)
#define F_LIST(kind, name, doc)
#define F_BODY(name, doc)
#define MSG_END

static struct bound message_bound(const struct message *m)
{
    struct bound b = {.head = PREFIX_KEY + 3 + m->key.size};
    switch (m->type) {
#define MSG_BEGIN(lower, UPPER, code, way, doc) \
    case code:                                  \
        bound_##lower(&b, &m->lower);           \
        break;
#include "proto/messages.def"
#undef MSG_BEGIN
    default:
        break;
    }
    return b;
}

static void put_fields(msgpack_packer *pk, const struct message *m)
{
    switch (m->type) {
#define MSG_BEGIN(lower, UPPER, code, way, doc) \
    case code:                                  \
        put_##lower(pk, &m->lower);             \
        break;
#include "proto/messages.def"
#undef MSG_BEGIN
    default:
        break;
    }
}

static void put_body(struct strbuf *out, const struct message *m)
{
    switch (m->type) {
#define MSG_BEGIN(lower, UPPER, code, way, doc) \
    case code:                                  \
        body_put_##lower(out, &m->lower);       \
        break;
#include "proto/messages.def"
#undef MSG_BEGIN
    default:
        break;
    }
}

size_t message_head_bound(const struct message *m)
{
    return message_bound(m).head;
}

size_t message_size_bound(const struct message *m)
{
    struct bound b = message_bound(m);
    return 8 + b.head + b.body;
}

static void put_prefix(struct strbuf *out, const struct message *m)
{
    STOA_ASSERT(m->type <= MP_FIXINT_MAX && message_known(m->type));
    STOA_ASSERT(m->slot < SLOT_COUNT || m->slot == SLOT_UNKNOWN);
    STOA_ASSERT(m->key.size <= KEY_MAX_BYTES);
    uint8_t *at = strbuf_reserve(out, PREFIX_KEY + 3);
    at[0] = MP_ARRAY16;
    wire_put_be16(at + 1, (uint16_t)(PREFIX_ELEMENTS + field_count(m->type)));
    at[PREFIX_VERSION] = ENVELOPE_VERSION;
    at[PREFIX_TYPE] = (uint8_t)m->type;
    at[PREFIX_CID] = MP_U64;
    at[PREFIX_SLOT] = MP_U16;
    at[PREFIX_EP] = MP_U64;
    message_stamp(at, m->cid, m->slot, m->ep);
    size_t size = PREFIX_KEY + 2;
    if (m->key.size <= UINT8_MAX) {
        at[PREFIX_KEY] = MP_STR8;
        at[PREFIX_KEY + 1] = (uint8_t)m->key.size;
    } else {
        at[PREFIX_KEY] = MP_STR16;
        wire_put_be16(at + PREFIX_KEY + 1, (uint16_t)m->key.size);
        size++;
    }
    strbuf_commit(out, size);
    strbuf_put_slice(out, m->key);
}

void message_encode(struct strbuf *out, const struct message *m)
{
    size_t start = out->size;
    strbuf_reserve(out, 8);
    strbuf_commit(out, 8);
    put_prefix(out, m);
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, write_to_strbuf);
    put_fields(&pk, m);
    size_t head_size = out->size - start - 8;
    put_body(out, m);
    size_t body_size = out->size - start - 8 - head_size;
    STOA_ASSERT(head_size <= HEAD_MAX_BYTES && body_size <= BODY_MAX_BYTES);
    wire_put_le32(out->data + start, (uint32_t)head_size);
    wire_put_le32(out->data + start + 4, (uint32_t)body_size);
}
