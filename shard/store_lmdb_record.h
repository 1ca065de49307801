/* SHELL. The bytes of stored records, room rows, rows of rooms with handlers and small values: what
 * lies on disk, little-endian.
 *
 *   record: key = lsn (u64), value =
 *     0  u32 crc32c of everything behind it and of the lsn
 *     4  u8  layout = 1      5  u8  conflate bytes     6  u16 filter bytes
 *     8  u32 flags          12  u16 slot              14  u16 0
 *    16  u64 room_id        24  u64 seq               32  i64 ts
 *    40  msg_id, 16 bytes   56  u64 pid               64  u64 pseq
 *    72  u32 batch_index    76  u32 batch_count
 *    80  conflate, filter, payload (the rest)
 *
 *   room: key = room_id (u64), value =
 *     0  u32 crc32c of everything behind it and of the room_id
 *     4  u8  layout = 1      5  u8  class              6  u16 slot
 *     8  u8  purged          9  7 zero bytes
 *    16  u64 epoch          24  u64 head              32  u64 floor
 *    40  i64 floor_ts       48  i64 touched           56  key (the rest, 1 to 256 bytes)
 *
 *   row: key = u8 table | u64 room_id, big-endian | name (0 to 64 bytes), value =
 *     0  u32 crc32c of key and value      4  u32 crc32c of the key      8  the value (the rest)
 *     The key's own sum tells a damaged value, which is one row's misfortune, from a damaged key,
 *     under which a row would not be missed: that is damage of the tree (store_lmdb_check.c).
 *
 *   small value: key = a name or a slot's number (u64), value =
 *     0  u32 crc32c of key and value      4  the value; numbers as u64
 *
 * Reading checks lengths, layout and checksum before it believes a byte. */
#ifndef STOA_SHARD_STORE_LMDB_RECORD_H
#define STOA_SHARD_STORE_LMDB_RECORD_H

#include "common/limits.h"
#include "shard/store.h"

#define RECORD_HEADER_BYTES 80
#define ROOM_HEADER_BYTES 56

#define RECORD_MAX_BYTES \
    (RECORD_HEADER_BYTES + CONFLATE_MAX_BYTES + FILTER_MAX_BYTES + BODY_MAX_BYTES)
#define ROW_HEADER_BYTES 8
#define ROW_KEY_PREFIX_BYTES 9
#define ROW_KEY_MAX_BYTES (ROW_KEY_PREFIX_BYTES + STORE_ROW_NAME_MAX_BYTES)
#define VALUE_MAX_BYTES (ROW_HEADER_BYTES + STORE_ROW_VALUE_MAX_BYTES) /* of any table */
#define SMALL_HEADER_BYTES 4
#define SMALL_MAX_BYTES 512

_Static_assert(RECORD_MAX_BYTES <= VALUE_MAX_BYTES, "no value is longer than a row's");

size_t record_size(const struct store_record *r);
void record_write(const struct store_record *r, uint8_t *out); /* record_size bytes */
/* ERR_CORRUPT; the slices of `out` point into `bytes`. */
MUST_USE int record_read(uint64_t lsn, struct slice bytes, struct store_record *out);

size_t room_row_size(const struct store_room *r);
void room_row_write(const struct store_room *r, uint8_t *out);
MUST_USE int room_row_read(uint64_t room_id, struct slice bytes, struct store_room *out);

/* At most ROW_KEY_MAX_BYTES; gives their number. */
size_t row_key_write(enum store_table table, uint64_t room_id, struct slice name, uint8_t *out);
/* ERR_CORRUPT; the name points into `key`, the value is empty. */
MUST_USE int row_key_read(struct slice key, struct store_row *out);
/* Whether the key is the one under which these bytes were written, as far as they tell. */
bool row_key_is_sound(struct slice key, struct slice bytes);
/* Writes ROW_HEADER_BYTES + value.size bytes. */
void row_write(struct slice key, struct slice value, uint8_t *out);
MUST_USE int row_read(struct slice key, struct slice bytes, struct slice *value);

/* Writes SMALL_HEADER_BYTES + value.size bytes. */
void small_write(struct slice key, struct slice value, uint8_t *out);
MUST_USE int small_read(struct slice key, struct slice bytes, struct slice *value);

#endif
