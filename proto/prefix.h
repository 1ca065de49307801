/* CORE. Where the first six elements of a head lie. They are written at fixed width so that a
 * router stamps cid, slot and ep without decoding:
 *
 *   0  dc nn nn       array16, count of elements
 *   3  01             v
 *   4  tt             t, positive fixint
 *   5  cf 8 bytes     cid
 *  14  cd 2 bytes     slot
 *  17  cf 8 bytes     ep
 *  26  d9 nn bytes    key: str8; da nn nn bytes: str16, for a key of 256 bytes only
 * numbers big-endian, as msgpack has them. */
#ifndef STOA_PROTO_PREFIX_H
#define STOA_PROTO_PREFIX_H

#define ENVELOPE_VERSION 1

#define PREFIX_ELEMENTS 6
#define PREFIX_VERSION 3
#define PREFIX_TYPE 4
#define PREFIX_CID 5
#define PREFIX_SLOT 14
#define PREFIX_EP 17
#define PREFIX_KEY 26

#define MP_FIXINT_MAX 0x7f
#define MP_ARRAY16 0xdc
#define MP_U16 0xcd
#define MP_U64 0xcf
#define MP_STR8 0xd9
#define MP_STR16 0xda

#endif
