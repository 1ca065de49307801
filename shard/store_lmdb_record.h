/* SHELL. The bytes of one stored record and of one room row: what lies on disk, little-endian.
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
 * Reading checks lengths, layout and checksum before it believes a byte. */
#ifndef STOA_SHARD_STORE_LMDB_RECORD_H
#define STOA_SHARD_STORE_LMDB_RECORD_H

#include "shard/store.h"

#define RECORD_HEADER_BYTES 80
#define ROOM_HEADER_BYTES 56

size_t record_size(const struct store_record *r);
void record_write(const struct store_record *r, uint8_t *out); /* record_size bytes */
/* ERR_CORRUPT; the slices of `out` point into `bytes`. */
MUST_USE int record_read(uint64_t lsn, struct slice bytes, struct store_record *out);

size_t room_row_size(const struct store_room *r);
void room_row_write(const struct store_room *r, uint8_t *out);
MUST_USE int room_row_read(uint64_t room_id, struct slice bytes, struct store_room *out);

#endif
