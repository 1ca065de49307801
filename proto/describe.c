/* SHELL. Writes docs/protocol.md to standard output: the prose stands here, the numbers come from
 * limits.h, the tables from messages.def and the worked example from the codec itself, so that the
 * document cannot disagree with the code. A test compares it with the file. */
#include <stdio.h>

#include "proto/packet.h"
#include "proto/prefix.h"

static void print_introduction(void)
{
    printf(
        "# Protocol between the processes\n"
        "\n"
        "This file is written by `stoa-describe` (proto/describe.c) from proto/messages.def and\n"
        "common/limits.h; change those, then `stoa-describe > docs/protocol.md`.\n"
        "\n"
        "Publishers (`libstoa`), gateways, routers and shards speak one protocol over ZeroMQ. The\n"
        "connecting side is a DEALER to one endpoint, the binding side a ROUTER; ZeroMQ is used\n"
        "as a FIFO per connection and nothing more. A link carries *packets*, one ZeroMQ message\n"
        "part each; a packet carries *messages*; a message is a *head* (msgpack) and a *body*\n"
        "(raw payload bytes, never re-encoded).\n");
}

static void print_packet(void)
{
    printf("\n## Packet\n"
           "\n"
           "Numbers of the packet's frame are little-endian.\n"
           "\n"
           "| offset | type | meaning |\n"
           "|---|---|---|\n"
           "| 0 | u8 | `S` |\n"
           "| 1 | u8 | version of the frame, 1 |\n"
           "| 2 | u16 | flags, 0; others are refused |\n"
           "| 4 | u32 | count of messages |\n"
           "| 8 | u64 | incarnation of the link |\n"
           "| 16 | u64 | counter |\n"
           "| %d | | messages, each: u32 head size, u32 body size, head, body |\n"
           "\n"
           "Everything that one turn of a process's loop has for one peer leaves as one packet (a\n"
           "ZeroMQ part costs about a microsecond), or as several once a packet reaches %d KiB.\n",
           PACKET_HEADER_BYTES, PACKET_TARGET_BYTES / KIB);
}

static void print_head(void)
{
    printf(
        "\n## Head\n"
        "\n"
        "`[v, t, cid, slot, ep, key, fields...]`: a msgpack array. The first six elements are the\n"
        "*prefix*. It is written at fixed width, and refused in any other form, so that a router\n"
        "reads slot and key and rewrites cid, slot and ep in place without decoding the rest.\n"
        "\n"
        "| offset | bytes | element | form |\n"
        "|---|---|---|---|\n"
        "| 0 | 3 | | array16, count of elements |\n"
        "| %d | 1 | v | fixint, %d |\n"
        "| %d | 1 | t: type of the message | fixint, 1..%d |\n"
        "| %d | 9 | cid: correlates an answer with its question | uint64 |\n"
        "| %d | 3 | slot: 0..%d, or 0x%x: not worked out | uint16 |\n"
        "| %d | 9 | ep: the sender's belief of the slot's epoch, 0: unknown | uint64 |\n"
        "| %d | 2+n | key, empty in messages about the link | str8; str16 for 256 bytes |\n",
        PREFIX_VERSION, ENVELOPE_VERSION, PREFIX_TYPE, MP_FIXINT_MAX, PREFIX_CID, PREFIX_SLOT,
        SLOT_COUNT - 1, SLOT_UNKNOWN, PREFIX_EP, PREFIX_KEY);
    printf(
        "\n"
        "Inside msgpack numbers are big-endian. Fields are in the order of the tables below; an\n"
        "integer may have any width that holds it, a str must be UTF-8. A missing trailing field\n"
        "has its zero value (0, empty), an unknown trailing one is skipped; the same holds for\n"
        "the entries of lists. Fields are only ever appended.\n"
        "\n"
        "Sizes of payloads stand in the head (`parts`: an array of sizes; the last element of an\n"
        "`events` entry), the payloads lie in the body back to back. The sizes must add up to the\n"
        "body's size exactly; a message without payloads has an empty body.\n"
        "\n"
        "**cid.** Who asks chooses it, an answer repeats it. On the links of publishers and\n"
        "gateways to a router it is at most 2^32-1: the router puts its own number of the asking\n"
        "peer into the upper half on the way to the shard, and finds the way back by it.\n");
}

static void print_links(void)
{
    printf(
        "\n## Links\n"
        "\n"
        "A lost packet is never silent: it always shows as the link going down and coming up\n"
        "again with a new incarnation.\n"
        "\n"
        "```\n"
        "connecting side                                            binding side\n"
        "DOWN                                                       (unknown)\n"
        "  | socket connected: HELLO, a new random incarnation, counter 1\n"
        "HELLO_SENT ----------------------------------------------> HELLO understood: UP\n"
        "  ^  | <--------------------------------- WELCOME, counter 1 |\n"
        "  |  UP <=== packets: same incarnation, counters 2, 3 ... ===> UP\n"
        "  |  |                                                       |\n"
        "  +--+ silence, a gap, RESET, GOODBYE, disconnected           + silence, a gap, GOODBYE,\n"
        "                                                               or a new HELLO: down\n"
        "```\n"
        "\n"
        "- The incarnation is chosen by the connecting side; each direction counts its packets\n"
        "  from 1. Nothing else may be in a HELLO's packet; WELCOME is the first message of the\n"
        "  binding side's first packet.\n"
        "- While connected and not up, the connecting side repeats HELLO every %d ms, each time\n"
        "  with a new incarnation. After a broken link it says HELLO at once, after GOODBYE in\n"
        "  %d ms.\n"
        "- A packet of another incarnation is dropped. So is one behind a gap, and the link goes\n"
        "  down. The binding side answers both by RESET, at most every 100 ms per peer.\n"
        "- RESET, and the ERR that refuses a HELLO, are outside the count: alone in their packet,\n"
        "  counter 0, the incarnation of the packet that they answer. For another incarnation\n"
        "  than its current one the connecting side ignores them.\n"
        "- Every packet shows that the peer lives. Who has sent nothing for %d ms sends PING; who\n"
        "  has heard nothing for %d ms takes the link down.\n"
        "- GOODBYE takes the link down at once; nothing follows it.\n"
        "- A HELLO of another cluster, of a role that has no business at this socket, or of a "
        "role\n"
        "  that `cluster.peers` does not give to the connection's CURVE key, is answered by ERR "
        "and\n"
        "  the link stays down. A packet that comes with another key than the last one of its "
        "routing\n"
        "  id takes the link down before it is read.\n"
        "- Flow control counts the bytes of all packets since HELLO, both included; packets\n"
        "  outside the count are not.\n",
        LINK_HEARTBEAT_MS, LINK_HEARTBEAT_MS, LINK_HEARTBEAT_MS, LINK_DEAD_MS);
}

static void print_errors(void)
{
    printf(
        "\n## What is wrong, and what follows\n"
        "\n"
        "| what | answer | effect |\n"
        "|---|---|---|\n"
        "| frame of the packet: size, first bytes, count, sizes of messages | RESET (binding side) "
        "| link down |\n"
        "| prefix not as above | none: there is no cid | the message is dropped |\n"
        "| field of a wrong type or beyond its bound, sizes not those of the body, bytes behind "
        "the array | ERR, same cid | the message is dropped |\n"
        "| unknown type | ERR, same cid | the message is dropped |\n"
        "| ERR not understood | none | the message is dropped |\n"
        "\n"
        "Each is counted (`stoa_link_protocol_errors_total`) and logged, at most one line a "
        "second.\n");
}

static void print_limits(void)
{
    printf("\n## Limits\n"
           "\n"
           "All are checked before memory is taken.\n"
           "\n"
           "| what | at most |\n"
           "|---|---|\n");
    printf("| packet | %d MiB |\n", PACKET_MAX_BYTES / MIB);
    printf("| head | %d KiB, nested %d deep, %d elements an array |\n", HEAD_MAX_BYTES / KIB,
           HEAD_DEPTH_MAX, HEAD_ARRAY_MAX);
    printf("| body | %d MiB |\n", BODY_MAX_BYTES / MIB);
    printf("| key | %d bytes |\n", KEY_MAX_BYTES);
    printf("| payload | %d KiB by default, never more than %d KiB |\n", PAYLOAD_MAX_BYTES / KIB,
           PAYLOAD_HARD_MAX_BYTES / KIB);
    printf("| batch | %d events, %d KiB |\n", BATCH_MAX_EVENTS, BATCH_MAX_BYTES / KIB);
    printf("| conflate value | %d bytes |\n", CONFLATE_MAX_BYTES);
    printf("| filter | %d KiB |\n", FILTER_MAX_BYTES / KIB);
    printf("| replay page | %d KiB of payloads or one event, %d events |\n",
           REPLAY_PAGE_MAX_BYTES / KIB, REPLAY_PAGE_MAX_ITEMS);
    printf("| keys of a SUBSYNC | %d |\n", SUBSYNC_KEYS_PER_MESSAGE);
    printf("| member name, endpoint | %d, %d bytes |\n", MEMBER_NAME_MAX_BYTES,
           MEMBER_ENDPOINT_MAX_BYTES);
    printf("| peers of a process | %d |\n", PEERS_MAX);
}

/* ---- the worked example ---- */

static void print_hex(const uint8_t *at, size_t size, const char *meaning)
{
    enum { PER_LINE = 16 };
    for (size_t i = 0; i < size; i += PER_LINE) {
        size_t n = size - i < PER_LINE ? size - i : PER_LINE;
        for (size_t k = 0; k < n; k++)
            printf("%s%02x", k ? " " : "", at[i + k]);
        if (i == 0)
            printf("%*s  %s", (int)(3 * (PER_LINE - n)), "", meaning);
        printf("\n");
    }
}

/* Prints the next `size` bytes and moves on. */
static void print_next(const uint8_t **at, size_t size, const char *meaning)
{
    print_hex(*at, size, meaning);
    *at += size;
}

static void encode_example(struct strbuf *packet)
{
    static const char payload[] = "{\"percent\":42}";
    struct slice parts[] = {slice_of(payload, sizeof payload - 1)};
    struct message m = {
        .type = MSG_PUB, .cid = 7, .slot = SLOT_UNKNOWN, .key = slice_text("upload:abc123")};
    for (uint8_t i = 0; i < 16; i++)
        m.pub.msg_id[i] = i;
    m.pub.pid = 0x1122334455;
    m.pub.pseq = 1;
    m.pub.conflate = slice_text("percent");
    m.pub.ts = 1700000000000;
    m.pub.payloads = (struct parts_list){parts, 1};
    packet_begin(packet);
    message_encode(packet, &m);
    packet_end(packet, 1, 0x0123456789abcdef, 2);
}

static void print_example(void)
{
    struct strbuf packet = {0};
    encode_example(&packet);
    const uint8_t *at = packet.data;
    printf(
        "\n## Example\n"
        "\n"
        "A packet with one PUB of `{\"percent\":42}` to `upload:abc123`, as a publisher sends it.\n"
        "\n"
        "```\n");
    print_next(&at, 4, "'S', version 1, flags 0");
    print_next(&at, 4, "1 message");
    print_next(&at, 8, "incarnation 0x0123456789abcdef");
    print_next(&at, 8, "counter 2: the first packet after HELLO");
    print_next(&at, 4, "head size");
    print_next(&at, 4, "body size");
    print_next(&at, 3, "array of 14");
    print_next(&at, 1, "v 1");
    print_next(&at, 1, "t 10: PUB");
    print_next(&at, 9, "cid 7");
    print_next(&at, 3, "slot: not worked out");
    print_next(&at, 9, "ep: unknown");
    print_next(&at, 2 + 13, "key \"upload:abc123\"");
    print_next(&at, 2 + 16, "msg_id");
    print_next(&at, 9, "pid 0x1122334455");
    print_next(&at, 1, "pseq 1");
    print_next(&at, 1, "flags 0");
    print_next(&at, 1 + 7, "conflate \"percent\"");
    print_next(&at, 2, "filter: none");
    print_next(&at, 9, "ts 1700000000000");
    print_next(&at, 2, "payloads: 1, of 14 bytes");
    print_next(&at, 14, "body: {\"percent\":42}");
    STOA_ASSERT(at == packet.data + packet.size);
    printf("```\n");
    strbuf_free(&packet);
}

/* ---- the table ---- */

static void print_field(const char *name, const char *type, const char *doc)
{
    printf("| %s | %s | %s |\n", name, type, doc);
}

static void print_sized_field(const char *name, const char *type, size_t max, const char *doc)
{
    printf("| %s | %s, at most %zu bytes | %s |\n", name, type, max, doc);
}

static void print_list_types(void)
{
    printf(
        "\n## Entries of lists\n"
        "\n"
        "| list | entry |\n"
        "|---|---|\n"
        "| events | `[prev, seq, ts, flags, conflate, filter, size]` |\n"
        "| parts | `size` |\n"
        "| marks | `[key, epoch, seq, count]` |\n"
        "| ranges | `[lo, hi, epoch]`, slots, both included |\n"
        "| members | `[name, endpoint, weight, state]` |\n"
        "\n"
        "Flags of an event: %u the payload is one JSON value, %u it is UTF-8, %u never replayed to "
        "a joiner,\n%u ephemeral: no seq of its own, prev = seq = the room's head, %u presence: "
        "transient, who came or\nwent, %u typed: the payload is an object of which readers get the "
        "member `json`, those of the orpc\ndialect all. Flags of a PUB: %u ephemeral, %u typed.\n",
        EVENT_JSON, EVENT_UTF8, EVENT_TRANSIENT, EVENT_EPHEMERAL, EVENT_PRESENCE, EVENT_TYPED,
        PUB_EPHEMERAL, PUB_TYPED);
    printf("\nCodes of NACK:");
    for (uint64_t code = NACK_BUSY; code <= NACK_INVALID; code++)
        printf(" %d %s%s", (int)code, nack_name(code), code == NACK_INVALID ? ".\n" : ",");
    printf("Reasons of a miss:");
    for (uint64_t reason = MISS_EXPIRED; reason <= MISS_EPOCH; reason++)
        printf(" %d %s%s", (int)reason, miss_name(reason), reason == MISS_EPOCH ? ".\n" : ",");
    printf("Roles:");
    for (int role = ROLE_PUBLISHER; role <= ROLE_ADMIN; role++)
        printf(" %d %s%s", role, role_name((enum role)role), role == ROLE_ADMIN ? ".\n" : ",");
    printf("`from_mode`: %d from the head, %d after a position. `status` of SUBACK: %d live, %d "
           "resumed,\n%d missed. `mode` of REPLAY_REQ: %d all, %d latest of each conflate value.\n",
           FROM_HEAD, FROM_AFTER, SUB_LIVE, SUB_RESUMED, SUB_MISSED, REPLAY_ALL, REPLAY_LATEST);
    printf(
        "`what` of ASK: %d status, %d keys, %d top, %d connections, %d gateways (of a shard: what "
        "each one\nsays of itself).\n",
        ASK_STATUS, ASK_KEYS, ASK_TOP, ASK_CONNECTIONS, ASK_GATEWAYS);
}

static void print_message_heading(const char *name, int code, const char *way, const char *doc)
{
    printf("\n### %d %s\n\n%s: %s.\n", code, name, way, doc);
}

static void print_messages(void)
{
    bool first_field;
    printf("\n## Messages\n");
#define FIELD_BEGIN                                              \
    if (first_field)                                             \
        printf("\n| field | type | meaning |\n|---|---|---|\n"); \
    first_field = false;
#define MSG_BEGIN(lower, UPPER, code, way, doc)    \
    print_message_heading(#UPPER, code, way, doc); \
    first_field = true;
#define F_U64(name, doc) FIELD_BEGIN print_field(#name, "u64", doc);
#define F_I64(name, doc) FIELD_BEGIN print_field(#name, "i64", doc);
#define F_STR(name, max, doc) FIELD_BEGIN print_sized_field(#name, "str", max, doc);
#define F_BIN(name, max, doc) FIELD_BEGIN print_sized_field(#name, "bin", max, doc);
#define F_ID16(name, doc) FIELD_BEGIN print_field(#name, "bin of 16 bytes", doc);
#define F_LIST(kind, name, doc) FIELD_BEGIN print_field(#name, "list of " #kind, doc);
#define F_BODY(name, doc) FIELD_BEGIN print_field(#name, "the body", doc);
#define MSG_END
#include "proto/messages.def"
}

int main(void)
{
    print_introduction();
    print_packet();
    print_head();
    print_links();
    print_errors();
    print_limits();
    print_example();
    print_list_types();
    print_messages();
    return 0;
}
