/* Bytes from anybody as a packet: the framing, the prefix, every message's decoder. What is
 * accepted must encode again, and decode to the same bytes: a decoder that lets through what the
 * encoder would refuse is a finding (its asserts fire). The same bytes then go to a hub as its
 * peer's packet. */
#include <stdlib.h>

#include "proto/hub.h"
#include "proto/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct message_arena arena, arena_again;
static struct strbuf first, second;

/* Heads may grow when encoded anew only if their fields were missing; both encodings must agree. */
static void encode_again(struct slice head, struct slice body)
{
    struct message m, again;
    if (message_decode(head, body, &arena, &m) != ERR_OK || !message_known(m.type))
        return;
    if (message_head_bound(&m) > HEAD_MAX_BYTES)
        return; /* a short head of very many entries without fields */
    strbuf_reset(&first);
    message_encode(&first, &m);
    STOA_ASSERT(first.size <= message_size_bound(&m));
    size_t head_size = (size_t)(first.data[0] | first.data[1] << 8 | first.data[2] << 16);
    struct slice head_again = slice_of(first.data + 8, head_size);
    struct slice body_again = slice_of(first.data + 8 + head_size, first.size - 8 - head_size);
    int code = message_decode(head_again, body_again, &arena_again, &again);
    STOA_ASSERT(code == ERR_OK);
    strbuf_reset(&second);
    message_encode(&second, &again);
    STOA_ASSERT(slice_equal(strbuf_slice(&first), strbuf_slice(&second)));
}

static void nothing_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    (void)ctx, (void)peer, (void)info;
}
static void nothing_down(void *ctx, uint32_t peer)
{
    (void)ctx, (void)peer;
}
static void echo(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    (void)packet;
    if (message_head_bound(m) <= HEAD_MAX_BYTES)
        hub_send(*(struct hub **)ctx, peer, m);
}
static int send_nowhere(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    (void)ctx, (void)peer, (void)packet, (void)size;
    return ERR_OK;
}

static void hub_survives(struct slice packet)
{
    static const struct hub_self self = {.role = ROLE_SHARD, .name = "s", .version = "1"};
    struct hub *hub = NULL;
    struct hub_handler handler = {&hub, nothing_up, nothing_down, echo, NULL, NULL};
    struct hub_ports ports = {NULL, send_nowhere, NULL};
    struct metrics *metrics = metrics_create();
    struct tick now = {0};
    hub = hub_create(&self, &handler, &ports, NULL, metrics, 1);
    uint32_t peer = hub_accept(hub, 0, now);
    struct strbuf hello = {0};
    struct message m = {.type = MSG_HELLO, .slot = SLOT_UNKNOWN};
    m.hello.role = ROLE_GATEWAY;
    m.hello.proto_max = 1;
    packet_begin(&hello);
    message_encode(&hello, &m);
    packet_end(&hello, 1, 1, 1);
    struct buf *b = buf_copy_slice(strbuf_slice(&hello));
    hub_packet(hub, peer, b, now);
    buf_unref(b);
    STOA_ASSERT(hub_is_up(hub, peer));
    b = buf_copy_slice(packet);
    hub_packet(hub, peer, b, now);
    buf_unref(b);
    hub_flush(hub, now);
    strbuf_free(&hello);
    hub_destroy(&hub);
    metrics_destroy(&metrics);
    STOA_ASSERT(buf_alive() == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct packet_reader r;
    struct slice head, body;
    bool more = true;
    encode_again(slice_of(data, size), slice_of(NULL, 0));
    if (packet_open(slice_of(data, size), &r) == ERR_OK)
        while (packet_next(&r, &more, &head, &body) == ERR_OK && more)
            encode_again(head, body);
    if (size >= PACKET_HEADER_BYTES)
        hub_survives(slice_of(data, size));
    return 0;
}
