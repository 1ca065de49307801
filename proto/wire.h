/* CORE. Fixed-width numbers at given bytes: little-endian in packets, big-endian inside msgpack. */
#ifndef STOA_PROTO_WIRE_H
#define STOA_PROTO_WIRE_H

#include <stdint.h>

static inline void wire_put_le32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}
static inline void wire_put_le64(uint8_t *at, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}
static inline uint32_t wire_get_le32(const uint8_t *at)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < 4; i++)
        value |= (uint32_t)at[i] << (8 * i);
    return value;
}
static inline uint64_t wire_get_le64(const uint8_t *at)
{
    return wire_get_le32(at) | (uint64_t)wire_get_le32(at + 4) << 32;
}
static inline void wire_put_be16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}
static inline void wire_put_be64(uint8_t *at, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (56 - 8 * i));
}
static inline uint16_t wire_get_be16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}
static inline uint64_t wire_get_be64(const uint8_t *at)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value = value << 8 | at[i];
    return value;
}

#endif
