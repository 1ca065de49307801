/* CORE. Bytes of a disk that lies: records, rows and small values of arbitrary bytes, as they
 * are and with a checksum that fits, so that what lies behind the checksum is tried too. What is
 * accepted is written again to the same bytes. */
#include <endian.h>
#include <stdlib.h>

#include "common/hash.h"
#include "shard/store_lmdb_record.h"

#define KEY UINT64_C(0x0102030405060708)
#define MAX_BYTES 4096

static void try_record(struct slice bytes)
{
    struct store_record r;
    if (record_read(KEY, bytes, &r) != ERR_OK)
        return;
    STOA_ASSERT(record_size(&r) == bytes.size);
    static uint8_t again[MAX_BYTES];
    record_write(&r, again);
    STOA_ASSERT(memcmp(again, bytes.data, bytes.size) == 0);
}

static void try_room(struct slice bytes)
{
    struct store_room r;
    if (room_row_read(KEY, bytes, &r) != ERR_OK)
        return;
    STOA_ASSERT(room_row_size(&r) == bytes.size);
    STOA_ASSERT(r.key.size >= 1 && r.key.size <= KEY_MAX_BYTES);
}

static void try_small(struct slice bytes)
{
    struct slice value;
    if (small_read(slice_text("name"), bytes, &value) == ERR_OK)
        STOA_ASSERT(value.size + SMALL_HEADER_BYTES == bytes.size);
}

/* The key is the first half of the bytes. */
static void try_row(struct slice bytes)
{
    struct slice key = slice_of(bytes.data, bytes.size / 2), value;
    struct store_row row;
    uint8_t again[ROW_KEY_MAX_BYTES];
    if (row_key_read(key, &row) == ERR_OK && row.room_id != 0) {
        STOA_ASSERT(row_key_write(row.table, row.room_id, row.name, again) == key.size);
        STOA_ASSERT(memcmp(again, key.data, key.size) == 0);
    }
    bytes = slice_of(bytes.data + key.size, bytes.size - key.size);
    bool sound = row_key_is_sound(key, bytes);
    if (row_read(key, bytes, &value) == ERR_OK)
        STOA_ASSERT(sound && value.size + ROW_HEADER_BYTES == bytes.size);
}

static void try_all(struct slice bytes)
{
    try_record(bytes);
    try_room(bytes);
    try_small(bytes);
    try_row(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > MAX_BYTES)
        return 0;
    try_all(slice_of(data, size));
    if (size < SMALL_HEADER_BYTES)
        return 0;
    uint8_t *fitting = malloc(size); /* of exactly this size: a byte too far is seen */
    STOA_ASSERT(fitting);
    memcpy(fitting, data, size);
    uint64_t key = htole64(KEY);
    uint32_t sum = htole32(crc32c(crc32c(0, &key, sizeof key), data + 4, size - 4));
    memcpy(fitting, &sum, sizeof sum);
    try_record(slice_of(fitting, size));
    try_room(slice_of(fitting, size));
    free(fitting);
    return 0;
}
