/* SHELL. The bytes of stored records, room rows and small values: what lies on disk, little-endian.
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
#define SMALL_HEADER_BYTES 4
#define SMALL_MAX_BYTES 512

size_t record_size(const struct store_record *r);
void record_write(const struct store_record *r, uint8_t *out); /* record_size bytes */
/* ERR_CORRUPT; the slices of `out` point into `bytes`. */
MUST_USE int record_read(uint64_t lsn, struct slice bytes, struct store_record *out);

size_t room_row_size(const struct store_room *r);
void room_row_write(const struct store_room *r, uint8_t *out);
MUST_USE int room_row_read(uint64_t room_id, struct slice bytes, struct store_room *out);

/* Writes SMALL_HEADER_BYTES + value.size bytes. */
void small_write(struct slice key, struct slice value, uint8_t *out);
MUST_USE int small_read(struct slice key, struct slice bytes, struct slice *value);

#endif
