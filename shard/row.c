/* CORE. What rows of rooms with handlers look like on disk; all numbers little-endian.
 *
 *   state       u32 version, JSON
 *   connection  u64 number, u64 counter, u64 head, u32 flags, u32 size of id, u32 size of tags, id,
 * tags, state; flags: bit 0 replaced, bit 1 closing, from bit 16 on the code it was told alarm u64
 * due, u32 failed attempts, u32 1: dead, text of the last failure
 *
 * A row is guarded by the store's checksum; what does not parse all the same is refused. */
#include "shard/actor.h"

#include "common/mutant.h"

#include "proto/wire.h"

#define REPLACED 1u
#define CLOSING 2u
#define CODE_SHIFT 16

static void put_u32(struct strbuf *out, uint32_t value)
{
    wire_put_le32(strbuf_reserve(out, 4), value);
    strbuf_commit(out, 4);
}

static void put_u64(struct strbuf *out, uint64_t value)
{
    wire_put_le64(strbuf_reserve(out, 8), value);
    strbuf_commit(out, 8);
}

void row_of_state(unsigned version, struct slice state, struct strbuf *out)
{
    put_u32(out, version);
    strbuf_put_slice(out, state);
}

bool row_state(struct slice value, unsigned *version, struct slice *state)
{
    if (value.size < 4)
        return false;
    *version = wire_get_le32(value.data);
    *state = slice_of(value.data + 4, value.size - 4);
    return true;
}

void row_of_connection(const struct connection *c, struct strbuf *out)
{
    uint32_t flags = (c->replaced ? REPLACED : 0) | (c->closing ? CLOSING : 0) |
                     (uint32_t)c->close_code << CODE_SHIFT;
    put_u64(out, c->number);
    put_u64(out, c->counter);
    put_u64(out, c->head);
    put_u32(out, flags);
    put_u32(out, (uint32_t)c->id.size);
    put_u32(out, (uint32_t)c->tags_json.size);
    strbuf_put_slice(out, strbuf_slice(&c->id));
    strbuf_put_slice(out, strbuf_slice(&c->tags_json));
    strbuf_put_slice(out, strbuf_slice(&c->state));
}

bool row_connection(struct slice value, struct connection *c)
{
    const size_t head = 36;
    if (value.size < head)
        return false;
    uint32_t flags = wire_get_le32(value.data + 24);
    size_t id = wire_get_le32(value.data + 28), tags = wire_get_le32(value.data + 32);
    if (value.size - head < id || value.size - head - id < tags)
        return false;
    c->number = wire_get_le64(value.data);
    c->counter = c->durable = STOA_MUTANT(RECOVER_NO_COUNTER) ? 0 : wire_get_le64(value.data + 8);
    c->head = wire_get_le64(value.data + 16);
    c->replaced = (flags & REPLACED) != 0;
    c->closing = (flags & CLOSING) != 0;
    c->close_code = (uint16_t)(flags >> CODE_SHIFT);
    const uint8_t *at = value.data + head;
    struct fault why = {0};
    bool sound =
        member_describe(c, slice_of(at, id), slice_of(at + id, tags),
                        slice_of(at + id + tags, value.size - head - id - tags), UINT32_MAX, &why);
    fault_free(&why);
    return sound;
}

void row_of_alarm(const struct alarm *alarm, struct strbuf *out)
{
    put_u64(out, (uint64_t)alarm->due_ms);
    put_u32(out, alarm->attempt);
    put_u32(out, alarm->dead);
    strbuf_put_slice(out, strbuf_slice(&alarm->why));
}

bool row_alarm(struct slice value, struct alarm *alarm)
{
    if (value.size < 16)
        return false;
    alarm->set = true;
    alarm->due_ms = (int64_t)wire_get_le64(value.data);
    alarm->attempt = wire_get_le32(value.data + 8);
    alarm->dead = wire_get_le32(value.data + 12) != 0;
    alarm->running = alarm->attempt > 0;
    strbuf_reset(&alarm->why);
    strbuf_put(&alarm->why, value.data + 16, value.size - 16);
    return true;
}
