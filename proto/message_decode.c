/* CORE. Bytes to struct, for bytes from anybody. Each message is read by a function that
 * messages.def spells out. Rules: a missing trailing field stays zero, an unknown trailing one is
 * skipped, at every level; a count is bounded before memory is taken for it; payload sizes must add
 * up to the body exactly.
 *
 * Lists lie in the arena. When it is too small for a message it grows and the message is read again
 * from its beginning, because growing may move lists already read; that happens a few times in a
 * link's life. */
#include "common/mem.h"
#include "common/utf8.h"
#include "proto/message.h"
#include "proto/mp.h"
#include "proto/prefix.h"

/* Containers inside the head's array: list, entry, and one more. */
#define FIELD_DEPTH (HEAD_DEPTH_MAX - 1)
#define ENTRY_FIELD_DEPTH (HEAD_DEPTH_MAX - 3)

struct decoder {
    struct mp r;
    size_t left;       /* elements of the current array that are not read yet */
    struct slice body; /* not yet given to a payload */
    struct message_arena *arena;
    size_t arena_used;
};

/* ---- one field ---- */

/* Whether the sender wrote this field at all. */
static bool field_present(struct decoder *d)
{
    if (d->left == 0)
        return false;
    d->left--;
    return true;
}

static int get_u64(struct decoder *d, uint64_t *out)
{
    return field_present(d) ? mp_u64(&d->r, out) : ERR_OK;
}

static int get_u32(struct decoder *d, uint32_t *out)
{
    uint64_t value = *out;
    TRY(get_u64(d, &value));
    if (value > UINT32_MAX)
        return ERR_INVALID;
    *out = (uint32_t)value;
    return ERR_OK;
}

static int get_i64(struct decoder *d, int64_t *out)
{
    return field_present(d) ? mp_i64(&d->r, out) : ERR_OK;
}

static int get_str(struct decoder *d, size_t max, struct slice *out)
{
    if (!field_present(d))
        return ERR_OK;
    TRY(mp_str(&d->r, max, out));
    return utf8_valid(*out) ? ERR_OK : ERR_INVALID;
}

static int get_bin(struct decoder *d, size_t max, struct slice *out)
{
    return field_present(d) ? mp_bin(&d->r, max, out) : ERR_OK;
}

static int get_id16(struct decoder *d, uint8_t out[16])
{
    struct slice id = {0};
    if (!field_present(d))
        return ERR_OK;
    TRY(mp_bin(&d->r, 16, &id));
    if (id.size != 16)
        return ERR_INVALID;
    memcpy(out, id.data, 16);
    return ERR_OK;
}

/* Cuts the next `size` bytes off the body. */
static int take_body(struct decoder *d, uint64_t size, struct slice *out)
{
    if (size > d->body.size)
        return ERR_INVALID;
    *out = slice_of(d->body.data, (size_t)size);
    if (size > 0)
        d->body = slice_of(d->body.data + size, d->body.size - (size_t)size);
    return ERR_OK;
}

static int get_body(struct decoder *d, struct slice *out)
{
    return take_body(d, d->body.size, out);
}

/* ---- lists ---- */

/* Reads the count and takes zeroed memory for so many entries. ERR_FULL: the arena must grow to
 * arena_used. */
static int list_begin(struct decoder *d, size_t entry_size, size_t *count, void **memory)
{
    *count = 0;
    if (!field_present(d))
        return ERR_OK;
    TRY(mp_array(&d->r, HEAD_ARRAY_MAX, count));
    size_t size = *count * entry_size;
    size_t at = d->arena_used;
    d->arena_used += (size + 15) & ~(size_t)15;
    if (d->arena_used > d->arena->capacity)
        return ERR_FULL;
    if (size > 0) {
        *memory = (uint8_t *)d->arena->memory + at;
        memset(*memory, 0, size);
    }
    return ERR_OK;
}

static int entry_begin(struct decoder *d, size_t *outer_left)
{
    *outer_left = d->left;
    return mp_array(&d->r, HEAD_ARRAY_MAX, &d->left);
}

static int skip_unknown(struct decoder *d, unsigned depth)
{
    for (; d->left > 0; d->left--)
        TRY(mp_skip(&d->r, depth));
    return ERR_OK;
}

static int entry_end(struct decoder *d, size_t outer_left)
{
    TRY(skip_unknown(d, ENTRY_FIELD_DEPTH));
    d->left = outer_left;
    return ERR_OK;
}

static int get_event(struct decoder *d, struct event_item *item)
{
    size_t outer = 0;
    uint64_t size = 0;
    TRY(entry_begin(d, &outer));
    TRY(get_u64(d, &item->prev));
    TRY(get_u64(d, &item->seq));
    TRY(get_i64(d, &item->ts));
    TRY(get_u32(d, &item->flags));
    TRY(get_str(d, CONFLATE_MAX_BYTES, &item->conflate));
    TRY(get_bin(d, FILTER_MAX_BYTES, &item->filter));
    TRY(get_u64(d, &size));
    TRY(take_body(d, size, &item->payload));
    return entry_end(d, outer);
}

/* A part's entry is its size alone. */
static int get_part(struct decoder *d, struct slice *part)
{
    uint64_t size = 0;
    TRY(mp_u64(&d->r, &size));
    return take_body(d, size, part);
}

static int get_mark(struct decoder *d, struct mark *mark)
{
    size_t outer = 0;
    TRY(entry_begin(d, &outer));
    TRY(get_str(d, KEY_MAX_BYTES, &mark->key));
    TRY(get_u64(d, &mark->epoch));
    TRY(get_u64(d, &mark->seq));
    TRY(get_u64(d, &mark->count));
    return entry_end(d, outer);
}

static int get_range(struct decoder *d, struct slot_range *range)
{
    size_t outer = 0;
    TRY(entry_begin(d, &outer));
    TRY(get_u64(d, &range->lo));
    TRY(get_u64(d, &range->hi));
    TRY(get_u64(d, &range->epoch));
    if (range->lo > range->hi || range->hi >= SLOT_COUNT)
        return ERR_INVALID;
    return entry_end(d, outer);
}

static int get_member(struct decoder *d, struct ring_member *member)
{
    size_t outer = 0;
    TRY(entry_begin(d, &outer));
    TRY(get_str(d, MEMBER_NAME_MAX_BYTES, &member->name));
    TRY(get_str(d, MEMBER_ENDPOINT_MAX_BYTES, &member->endpoint));
    TRY(get_u64(d, &member->weight));
    TRY(get_u64(d, &member->state));
    return entry_end(d, outer);
}

#define LIST_READER(kind, entry_type, get_entry)                      \
    static int get_##kind(struct decoder *d, struct kind##_list *out) \
    {                                                                 \
        size_t count = 0;                                             \
        void *memory = NULL;                                          \
        TRY(list_begin(d, sizeof(entry_type), &count, &memory));      \
        entry_type *at = memory;                                      \
        for (size_t i = 0; i < count; i++)                            \
            TRY(get_entry(d, &at[i]));                                \
        out->at = at;                                                 \
        out->count = count;                                           \
        return ERR_OK;                                                \
    }
LIST_READER(events, struct event_item, get_event)
LIST_READER(parts, struct slice, get_part)
LIST_READER(marks, struct mark, get_mark)
LIST_READER(ranges, struct slot_range, get_range)
LIST_READER(members, struct ring_member, get_member)

/* ---- one message, from the table ---- */

#define MSG_BEGIN(lower, UPPER, code, way, doc)                      \
    static int get_##lower(struct decoder *d, struct msg_##lower *m) \
    {                                                                \
        (void)d;                                                     \
        (void)m;
#define F_U64(name, doc) TRY(get_u64(d, &m->name));
#define F_I64(name, doc) TRY(get_i64(d, &m->name));
#define F_STR(name, max, doc) TRY(get_str(d, max, &m->name));
#define F_BIN(name, max, doc) TRY(get_bin(d, max, &m->name));
#define F_ID16(name, doc) TRY(get_id16(d, m->name));
#define F_LIST(kind, name, doc) TRY(get_##kind(d, &m->name));
#define F_BODY(name, doc) TRY(get_body(d, &m->name));
#define MSG_END    \
    return ERR_OK; \
    }
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

static int get_fields(struct decoder *d, struct message *out)
{
    switch (out->type) {
#define MSG_BEGIN(lower, UPPER, code, way, doc) \
    case code:                                  \
        TRY(get_##lower(d, &out->lower));       \
        break;
#define F_U64(name, doc)
#define F_I64(name, doc)
#define F_STR(name, max, doc)
#define F_BIN(name, max, doc)
#define F_ID16(name, doc)
#define F_LIST(kind, name, doc)
#define F_BODY(name, doc)
#define MSG_END
#include "proto/messages.def"
    default:
        return ERR_INVALID;
    }
    TRY(skip_unknown(d, FIELD_DEPTH));
    return mp_end(&d->r) && d->body.size == 0 ? ERR_OK : ERR_INVALID;
}

/* Positions a decoder behind the prefix. */
static int decoder_begin(struct decoder *d, struct slice head, struct slice body)
{
    size_t elements = 0;
    struct slice key;
    struct mp r = mp_of(head);
    TRY(mp_array(&r, HEAD_ARRAY_MAX, &elements));
    r.at = head.data + PREFIX_KEY;
    TRY(mp_str(&r, KEY_MAX_BYTES, &key));
    d->r = r;
    d->left = elements - PREFIX_ELEMENTS;
    d->body = body;
    d->arena_used = 0;
    return ERR_OK;
}

static void arena_grow(struct message_arena *arena, size_t size)
{
    size_t capacity = arena->capacity ? arena->capacity : 1024;
    while (capacity < size)
        capacity *= 2;
    mem_free(arena->memory); /* what it held is read anew */
    arena->memory = mem_alloc(capacity);
    arena->capacity = capacity;
}

static void set_prefix(struct message *out, const struct message_prefix *p)
{
    memset(out, 0, sizeof *out);
    out->type = p->type;
    out->cid = p->cid;
    out->slot = p->slot;
    out->ep = p->ep;
    out->key = p->key;
}

int message_decode(struct slice head, struct slice body, struct message_arena *arena,
                   struct message *out)
{
    struct message_prefix prefix;
    struct decoder d = {.arena = arena};
    int code = message_peek(head, &prefix);
    set_prefix(out, &prefix);
    TRY(code);
    if (body.size > BODY_MAX_BYTES)
        return ERR_TOO_LARGE;
    if (!utf8_valid(prefix.key))
        return ERR_INVALID;
    if (!message_known(prefix.type))
        return ERR_OK;
    TRY(decoder_begin(&d, head, body));
    while ((code = get_fields(&d, out)) == ERR_FULL) {
        arena_grow(arena, d.arena_used);
        TRY(decoder_begin(&d, head, body));
        set_prefix(out, &prefix);
    }
    if (code != ERR_OK)
        set_prefix(out, &prefix);
    return code;
}
