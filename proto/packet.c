/* CORE. Packet framing (packet.h has the layout). The reader looks at one length at a time and
 * believes none before it is compared with the bytes left. */
#include "proto/packet.h"

#include "proto/wire.h"

#define PACKET_MAGIC 'S'
#define PACKET_VERSION 1
#define MESSAGE_HEADER_BYTES 8

void packet_begin(struct strbuf *b)
{
    STOA_ASSERT(b->size == 0);
    uint8_t header[PACKET_HEADER_BYTES] = {PACKET_MAGIC, PACKET_VERSION};
    strbuf_put(b, header, sizeof header);
}

void packet_end(struct strbuf *b, uint32_t count, uint64_t incarnation, uint64_t counter)
{
    STOA_ASSERT(b->size >= PACKET_HEADER_BYTES && b->size <= PACKET_MAX_BYTES);
    wire_put_le32(b->data + 4, count);
    wire_put_le64(b->data + 8, incarnation);
    wire_put_le64(b->data + 16, counter);
}

size_t packet_put_raw(struct strbuf *b, struct slice head, struct slice body)
{
    STOA_ASSERT(head.size <= HEAD_MAX_BYTES && body.size <= BODY_MAX_BYTES);
    uint8_t *at = strbuf_reserve(b, MESSAGE_HEADER_BYTES + head.size + body.size);
    wire_put_le32(at, (uint32_t)head.size);
    wire_put_le32(at + 4, (uint32_t)body.size);
    strbuf_commit(b, MESSAGE_HEADER_BYTES);
    size_t head_at = b->size;
    strbuf_put_slice(b, head);
    strbuf_put_slice(b, body);
    return head_at;
}

int packet_open(struct slice packet, struct packet_reader *r)
{
    if (packet.size > PACKET_MAX_BYTES)
        return ERR_TOO_LARGE;
    if (packet.size < PACKET_HEADER_BYTES)
        return ERR_INVALID;
    const uint8_t *at = packet.data;
    if (at[0] != PACKET_MAGIC || at[1] != PACKET_VERSION || at[2] != 0 || at[3] != 0)
        return ERR_INVALID;
    r->header.count = wire_get_le32(at + 4);
    r->header.incarnation = wire_get_le64(at + 8);
    r->header.counter = wire_get_le64(at + 16);
    r->rest = slice_of(at + PACKET_HEADER_BYTES, packet.size - PACKET_HEADER_BYTES);
    r->left = r->header.count;
    return r->left <= r->rest.size / MESSAGE_HEADER_BYTES ? ERR_OK : ERR_INVALID;
}

int packet_next(struct packet_reader *r, bool *more, struct slice *head, struct slice *body)
{
    *more = false;
    if (r->left == 0)
        return r->rest.size == 0 ? ERR_OK : ERR_INVALID;
    if (r->rest.size < MESSAGE_HEADER_BYTES)
        return ERR_INVALID;
    size_t head_size = wire_get_le32(r->rest.data);
    size_t body_size = wire_get_le32(r->rest.data + 4);
    if (head_size > HEAD_MAX_BYTES || body_size > BODY_MAX_BYTES)
        return ERR_TOO_LARGE;
    size_t size = MESSAGE_HEADER_BYTES + head_size + body_size;
    if (size > r->rest.size)
        return ERR_INVALID;
    *head = slice_of(r->rest.data + MESSAGE_HEADER_BYTES, head_size);
    *body = slice_of(head->data + head_size, body_size);
    r->rest = slice_of(r->rest.data + size, r->rest.size - size);
    r->left--;
    *more = true;
    return ERR_OK;
}
