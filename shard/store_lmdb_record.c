/* SHELL. Layout of records and rows; the picture stands in store_lmdb_record.h. */
#include <endian.h>

#include "common/hash.h"
#include "shard/store_lmdb_record.h"

#define LAYOUT 1

static void put16(uint8_t *at, uint16_t v)
{
    v = htole16(v);
    memcpy(at, &v, sizeof v);
}

static void put32(uint8_t *at, uint32_t v)
{
    v = htole32(v);
    memcpy(at, &v, sizeof v);
}

static void put64(uint8_t *at, uint64_t v)
{
    v = htole64(v);
    memcpy(at, &v, sizeof v);
}

static uint16_t get16(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return le16toh(v);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return le32toh(v);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return le64toh(v);
}

/* The key is part of the sum: a value under a foreign key is as damaged as a flipped bit. */
static uint32_t sum_of(uint64_t key, const uint8_t *bytes, size_t size)
{
    uint64_t le = htole64(key);
    return crc32c(crc32c(0, &le, sizeof le), bytes + 4, size - 4);
}

size_t record_size(const struct store_record *r)
{
    return RECORD_HEADER_BYTES + r->conflate.size + r->filter.size + r->payload.size;
}

static uint8_t *put_slice(uint8_t *at, struct slice s)
{
    if (s.size > 0)
        memcpy(at, s.data, s.size);
    return at + s.size;
}

void record_write(const struct store_record *r, uint8_t *out)
{
    STOA_ASSERT(r->conflate.size <= CONFLATE_MAX_BYTES && r->filter.size <= FILTER_MAX_BYTES &&
                r->payload.size <= BODY_MAX_BYTES);
    out[4] = LAYOUT;
    out[5] = (uint8_t)r->conflate.size;
    put16(out + 6, (uint16_t)r->filter.size);
    put32(out + 8, r->flags);
    put16(out + 12, r->slot);
    put16(out + 14, 0);
    put64(out + 16, r->room_id);
    put64(out + 24, r->seq);
    put64(out + 32, (uint64_t)r->ts);
    memcpy(out + 40, r->msg_id, 16);
    put64(out + 56, r->pid);
    put64(out + 64, r->pseq);
    put32(out + 72, r->batch_index);
    put32(out + 76, r->batch_count);
    uint8_t *at = put_slice(out + RECORD_HEADER_BYTES, r->conflate);
    at = put_slice(at, r->filter);
    at = put_slice(at, r->payload);
    put32(out, sum_of(r->lsn, out, (size_t)(at - out)));
}

int record_read(uint64_t lsn, struct slice bytes, struct store_record *out)
{
    const uint8_t *p = bytes.data;
    if (bytes.size < RECORD_HEADER_BYTES || bytes.size > RECORD_MAX_BYTES || p[4] != LAYOUT)
        return ERR_CORRUPT;
    size_t conflate = p[5], filter = get16(p + 6);
    if (conflate > CONFLATE_MAX_BYTES || filter > FILTER_MAX_BYTES || get16(p + 14) != 0 ||
        RECORD_HEADER_BYTES + conflate + filter > bytes.size ||
        bytes.size - RECORD_HEADER_BYTES - conflate - filter > BODY_MAX_BYTES ||
        get32(p) != sum_of(lsn, p, bytes.size))
        return ERR_CORRUPT;
    const uint8_t *rest = p + RECORD_HEADER_BYTES;
    *out = (struct store_record){
        .lsn = lsn,
        .flags = get32(p + 8),
        .slot = get16(p + 12),
        .room_id = get64(p + 16),
        .seq = get64(p + 24),
        .ts = (int64_t)get64(p + 32),
        .pid = get64(p + 56),
        .pseq = get64(p + 64),
        .batch_index = get32(p + 72),
        .batch_count = get32(p + 76),
        .conflate = slice_of(rest, conflate),
        .filter = slice_of(rest + conflate, filter),
        .payload = slice_of(rest + conflate + filter,
                            bytes.size - RECORD_HEADER_BYTES - conflate - filter),
    };
    memcpy(out->msg_id, p + 40, 16);
    return ERR_OK;
}

size_t room_row_size(const struct store_room *r)
{
    return ROOM_HEADER_BYTES + r->key.size;
}

void room_row_write(const struct store_room *r, uint8_t *out)
{
    STOA_ASSERT(r->key.size > 0 && r->key.size <= KEY_MAX_BYTES);
    memset(out, 0, ROOM_HEADER_BYTES);
    out[4] = LAYOUT;
    out[5] = r->class_no;
    put16(out + 6, r->slot);
    out[8] = r->purged;
    put64(out + 16, r->epoch);
    put64(out + 24, r->head);
    put64(out + 32, r->floor);
    put64(out + 40, (uint64_t)r->floor_ts);
    put64(out + 48, (uint64_t)r->touched);
    put_slice(out + ROOM_HEADER_BYTES, r->key);
    put32(out, sum_of(r->room_id, out, room_row_size(r)));
}

int room_row_read(uint64_t room_id, struct slice bytes, struct store_room *out)
{
    const uint8_t *p = bytes.data;
    if (bytes.size <= ROOM_HEADER_BYTES || bytes.size > ROOM_HEADER_BYTES + KEY_MAX_BYTES ||
        p[4] != LAYOUT || p[5] >= STORE_CLASSES || get32(p) != sum_of(room_id, p, bytes.size))
        return ERR_CORRUPT;
    *out = (struct store_room){
        .room_id = room_id,
        .class_no = p[5],
        .slot = get16(p + 6),
        .purged = p[8],
        .epoch = get64(p + 16),
        .head = get64(p + 24),
        .floor = get64(p + 32),
        .floor_ts = (int64_t)get64(p + 40),
        .touched = (int64_t)get64(p + 48),
        .key = slice_of(p + ROOM_HEADER_BYTES, bytes.size - ROOM_HEADER_BYTES),
    };
    return ERR_OK;
}

static uint32_t small_sum(struct slice key, struct slice value)
{
    return crc32c(crc32c(0, key.data, key.size), value.data, value.size);
}

void small_write(struct slice key, struct slice value, uint8_t *out)
{
    put32(out, small_sum(key, value));
    put_slice(out + SMALL_HEADER_BYTES, value);
}

int small_read(struct slice key, struct slice bytes, struct slice *value)
{
    if (bytes.size < SMALL_HEADER_BYTES)
        return ERR_CORRUPT;
    *value = slice_of(bytes.data + SMALL_HEADER_BYTES, bytes.size - SMALL_HEADER_BYTES);
    return get32(bytes.data) == small_sum(key, *value) ? ERR_OK : ERR_CORRUPT;
}

size_t row_key_write(enum store_table table, uint64_t room_id, struct slice name, uint8_t *out)
{
    STOA_ASSERT(table < STORE_TABLES && room_id != 0 && name.size <= STORE_ROW_NAME_MAX_BYTES);
    uint64_t big = htobe64(room_id); /* so that keys sort by room */
    out[0] = (uint8_t)table;
    memcpy(out + 1, &big, sizeof big);
    put_slice(out + ROW_KEY_PREFIX_BYTES, name);
    return ROW_KEY_PREFIX_BYTES + name.size;
}

int row_key_read(struct slice key, struct store_row *out)
{
    uint64_t big;
    if (key.size < ROW_KEY_PREFIX_BYTES || key.size > ROW_KEY_MAX_BYTES ||
        key.data[0] >= STORE_TABLES)
        return ERR_CORRUPT;
    memcpy(&big, key.data + 1, sizeof big);
    *out = (struct store_row){
        .table = (enum store_table)key.data[0],
        .room_id = be64toh(big),
        .name = slice_of(key.data + ROW_KEY_PREFIX_BYTES, key.size - ROW_KEY_PREFIX_BYTES)};
    return ERR_OK;
}

bool row_key_is_sound(struct slice key, struct slice bytes)
{
    struct slice value;
    return bytes.size >= ROW_HEADER_BYTES &&
           (get32(bytes.data + 4) == crc32c(0, key.data, key.size) ||
            row_read(key, bytes, &value) == ERR_OK);
}

void row_write(struct slice key, struct slice value, uint8_t *out)
{
    STOA_ASSERT(value.size <= STORE_ROW_VALUE_MAX_BYTES);
    put32(out, small_sum(key, value));
    put32(out + 4, crc32c(0, key.data, key.size));
    put_slice(out + ROW_HEADER_BYTES, value);
}

int row_read(struct slice key, struct slice bytes, struct slice *value)
{
    if (bytes.size < ROW_HEADER_BYTES || bytes.size > VALUE_MAX_BYTES)
        return ERR_CORRUPT;
    *value = slice_of(bytes.data + ROW_HEADER_BYTES, bytes.size - ROW_HEADER_BYTES);
    return get32(bytes.data) == small_sum(key, *value) ? ERR_OK : ERR_CORRUPT;
}
