/* CORE. The hashes that are part of a format or guard against flooding. Golden vectors stand in
 * tests/unit: slot_of and crc32c must never change by accident.
 *
 *   slot_of     XXH3 64-bit (libxxhash) seeded per cluster, lowest 14 bits: key -> slot
 *   crc32c      Castagnoli CRC of stored records (SSE4.2 instruction where there is one)
 *   sha256      idempotency keys -> message ids (libsodium)
 *   cluster_id  the name of a cluster as HELLO carries it: strangers are told apart, not kept out
 *   hash_bytes  XXH3 64-bit, seeded: the general hash of maps
 */
#ifndef STOA_COMMON_HASH_H
#define STOA_COMMON_HASH_H

#include "common/slice.h"

uint16_t slot_of(struct slice key, uint64_t seed);            /* 0..SLOT_COUNT-1 */
uint32_t crc32c(uint32_t crc, const void *data, size_t size); /* start with crc 0 */
/* The same by table: for processors without the instruction, and its check. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);
uint64_t hash_bytes(const void *data, size_t size, uint64_t seed);
uint64_t cluster_id(struct slice name);
void sha256(uint8_t out[32], const void *data, size_t size);

#endif
