/* CORE. A packet: what travels as one ZeroMQ message part on every link. It carries any number of
 * messages for one peer (each ZeroMQ part costs about 1 us, so everything of one loop turn for one
 * peer leaves as one part).
 *
 *   0   u8  'S'          1  u8 version = 1       2  u16 flags = 0
 *   4   u32 count of messages
 *   8   u64 incarnation of the link (chosen by the connecting side)
 *   16  u64 counter: 1, 2, 3 ... per link, direction and incarnation
 *   24  messages: u32 head size, u32 body size, head, body
 * all little-endian. */
#ifndef STOA_PROTO_PACKET_H
#define STOA_PROTO_PACKET_H

#include "proto/message.h"

#define PACKET_HEADER_BYTES 24

struct packet_header {
    uint32_t count;
    uint64_t incarnation;
    uint64_t counter;
};

/* Writing: packet_begin on an empty strbuf, any number of message_encode (or packet_put_raw), then
 * packet_end, which fills in the header. */
void packet_begin(struct strbuf *b);
void packet_end(struct strbuf *b, uint32_t count, uint64_t incarnation, uint64_t counter);
/* Appends a message whose head and body are already encoded (a router forwards so); returns where
 * the copied head begins in b->data, for message_stamp. */
size_t packet_put_raw(struct strbuf *b, struct slice head, struct slice body);

/* Reading: packet_open checks the header, packet_next gives the messages one by one.
 *   ERR_OK with *more = false at the end; ERR_INVALID / ERR_TOO_LARGE for a malformed rest. */
struct packet_reader {
    struct packet_header header;
    struct slice rest;
    uint32_t left;
};
MUST_USE int packet_open(struct slice packet, struct packet_reader *r);
MUST_USE int packet_next(struct packet_reader *r, bool *more, struct slice *head,
                         struct slice *body);

#endif
