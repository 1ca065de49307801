/* What travels on a link: order, packets, failures of sending, bytes counted, what is malformed,
 * and messages that a router forwards unread. */
#include <stdlib.h>

#include "common/mem.h"
#include "hub_world.h"
#include "proto/packet.h"

START_TEST(failed_send_takes_the_link_down_later)
{
    setup_up();
    wire->fail[0] = 1;
    uint8_t *large = calloc(1, PACKET_TARGET_BYTES);
    struct slice part = slice_of(large, PACKET_TARGET_BYTES);
    struct message m = {.type = MSG_PUB, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    m.pub.payloads = (struct parts_list){&part, 1};
    gateway->in_send = true; /* happen() asserts that nothing is called from in here */
    hub_send(gateway->hub, wire->dialed, &m);
    hub_send(gateway->hub, wire->dialed, &m);
    gateway->in_send = false;
    ck_assert_int_eq(wire->fail[0], 0);
    expect_log(gateway, "");
    hub_flush(gateway->hub, now);
    expect_log(gateway, "D");
    pass_ms(200);
    expect_log(gateway, "U");
    expect_log(shard, "DU");
    wire->fail[1] = 1;
    send_number(shard, wire->accepted, 1);
    hub_flush(shard->hub, now);
    expect_log(shard, "D");
    pass_ms(LINK_HEARTBEAT_MS + 300);
    expect_log(shard, "U");
    free(large);
    teardown();
}
END_TEST

START_TEST(large_packets_leave_at_once)
{
    setup_up();
    uint8_t *large = calloc(1, PAYLOAD_HARD_MAX_BYTES);
    struct slice part = slice_of(large, PAYLOAD_HARD_MAX_BYTES);
    struct message m = {.type = MSG_PUB, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    m.pub.payloads = (struct parts_list){&part, 1};
    for (int i = 0; i < 10; i++) {
        send_number(gateway, wire->dialed, 1);
        hub_send(gateway->hub, wire->dialed, &m);
    }
    ck_assert_uint_eq(wire->n_queue[0], 10);
    settle();
    expect_log(shard, "mmmmmmmmmmmmmmmmmmmm");
    free(large);
    teardown();
}
END_TEST

static void echo(struct node *n, uint32_t peer, const struct message *m)
{
    send_number(n, peer, m->cid);
}

START_TEST(a_thousand_in_order_and_back)
{
    setup_up();
    shard->on_message = echo;
    for (uint64_t i = 0; i < 1000; i++) {
        send_number(gateway, wire->dialed, i);
        if (i % 7 == 0)
            hub_flush(gateway->hub, now);
    }
    settle();
    ck_assert_uint_eq(shard->n_log, 1000);
    ck_assert_uint_eq(gateway->n_log, 1000);
    for (uint64_t i = 0; i < 1000; i++) {
        ck_assert_uint_eq(shard->log[i].value, i);
        ck_assert_uint_eq(gateway->log[i].value, i);
    }
    teardown();
}
END_TEST

START_TEST(one_turn_is_one_packet)
{
    setup_up();
    for (uint64_t i = 0; i < 100; i++)
        send_number(gateway, wire->dialed, i);
    hub_flush(gateway->hub, now);
    ck_assert_uint_eq(wire->n_queue[0], 1);
    settle();
    ck_assert_uint_eq(shard->n_log, 100);
    teardown();
}
END_TEST

static void greet(struct node *n, uint32_t peer)
{
    send_number(n, peer, 1234);
}

START_TEST(greetings_travel_with_welcome)
{
    setup_pair();
    shard->on_up = gateway->on_up = greet;
    hub_connected(gateway->hub, wire->dialed, now);
    deliver_one(wire, 0);
    hub_flush(shard->hub, now);
    ck_assert_uint_eq(wire->n_queue[1], 1);
    settle();
    expect_log(gateway, "Um");
    expect_log(shard, "Um");
    teardown();
}
END_TEST

START_TEST(both_sides_count_the_same_bytes)
{
    setup_up();
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < 100; i++)
            send_number(shard, wire->accepted, i);
        uint64_t queued = hub_sent_bytes(shard->hub, wire->accepted);
        settle();
        ck_assert_uint_eq(hub_sent_bytes(shard->hub, wire->accepted), queued);
        ck_assert_uint_eq(hub_received_bytes(gateway->hub, wire->dialed), queued);
        ck_assert_uint_eq(hub_sent_bytes(gateway->hub, wire->dialed),
                          hub_received_bytes(shard->hub, wire->accepted));
        if (round == 1) {
            hub_connected(gateway->hub, wire->dialed, now);
            settle();
            ck_assert_uint_lt(hub_sent_bytes(shard->hub, wire->accepted), queued);
        }
    }
    teardown();
}
END_TEST

START_TEST(malformed_packets)
{
    static const char *const garbage[] = {"", "S", "hello, this is not a packet of ours",
                                          "S\1\0\0\xff\xff\xff\xff................"};
    setup_up();
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        push(wire, 0, garbage[i], i == 3 ? 24 : strlen(garbage[i]));
        settle();
        pass_ms(200);
        expect_log(shard, "DU");
        expect_log(gateway, "DU");
        push(wire, 1, garbage[i], i == 3 ? 24 : strlen(garbage[i]));
        settle();
        pass_ms(200);
        expect_log(shard, "DU");
        expect_log(gateway, "DU");
    }
    ck_assert(counter(shard, "stoa_link_protocol_errors_total") == 4);
    teardown();
}
END_TEST

/* The link's own next packet, its only message changed at `at` in the head. */
static void send_damaged(size_t at, uint8_t value)
{
    send_number(gateway, wire->dialed, 7);
    hub_flush(gateway->hub, now);
    struct buf *packet = wire->queue[0][0];
    uint8_t *bytes = mem_dup(packet->data, packet->size);
    bytes[PACKET_HEADER_BYTES + 8 + at] = value;
    wire->n_queue[0] = 0;
    push(wire, 0, bytes, packet->size);
    buf_unref(packet);
    mem_free(bytes);
}

START_TEST(malformed_messages_are_answered_and_the_link_stays)
{
    setup_up();
    send_damaged(28, 0xc1); /* the field `granted` */
    settle();
    ck_assert(counter(shard, "stoa_link_protocol_errors_total") == 1);
    send_damaged(4, 99); /* an unknown type */
    settle();
    ck_assert(counter(shard, "stoa_link_protocol_errors_total") == 2);
    send_damaged(3, 2); /* another version of the envelope: no cid to answer */
    settle();
    ck_assert(counter(shard, "stoa_link_protocol_errors_total") == 3);
    send_damaged(4, MSG_HELLO);
    settle();
    expect_log(shard, "");
    expect_log(gateway, ""); /* ERR is the hub's own business */
    send_number(gateway, wire->dialed, 8);
    settle();
    expect_log(shard, "m");
    teardown();
}
END_TEST

START_TEST(an_error_is_answered_with_the_cid)
{
    setup_up();
    send_damaged(4, 99);
    hub_tick(shard->hub, now);
    deliver_one(wire, 0);
    hub_flush(shard->hub, now);
    ck_assert_uint_eq(wire->n_queue[1], 1);
    struct packet_reader r;
    struct slice head, body;
    struct message m;
    struct message_arena arena = {0};
    bool more;
    ck_assert_int_eq(packet_open(buf_slice(wire->queue[1][0]), &r), ERR_OK);
    ck_assert_int_eq(packet_next(&r, &more, &head, &body), ERR_OK);
    ck_assert_int_eq(message_decode(head, body, &arena, &m), ERR_OK);
    ck_assert_uint_eq(m.type, MSG_ERR);
    ck_assert_uint_eq(m.cid, 7);
    message_arena_free(&arena);
    teardown();
}
END_TEST

/* ---- a router between: raw messages, forwarded and stamped ---- */

static uint32_t forward_to;

static void on_raw(void *ctx, uint32_t peer, const struct message_prefix *p, struct slice head,
                   struct slice body, struct buf *packet)
{
    struct node *n = ctx;
    (void)packet;
    happen(n, MESSAGE, peer, p->type, p->cid);
    hub_forward(n->hub, forward_to, head, body, p->cid + ((uint64_t)peer << 32), 55, 66);
}

START_TEST(raw_messages_are_forwarded)
{
    setup_pair();
    struct node *router = &nodes[2];
    struct hub_handler handler = {
        .ctx = router, .on_up = on_up, .on_down = on_down, .on_raw = on_raw};
    struct hub_ports ports = {.ctx = router, .send = port_send, .forget = port_forget};
    router->metrics = metrics_create();
    router->self = (struct hub_self){
        .role = ROLE_ROUTER, .cluster = CLUSTER, .name = "router", .version = "1"};
    router->hub = hub_create(&router->self, &handler, &ports, NULL, router->metrics, 7);
    n_wires = 0;
    wire = connect_nodes(gateway, wire->dialed, router);
    forward_to = hub_dial(router->hub);
    connect_nodes(router, forward_to, shard);
    hub_connected(router->hub, forward_to, now);
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    router->n_log = shard->n_log = 0;
    send_number(gateway, wire->dialed, 9);
    settle();
    expect_log(router, "m");
    ck_assert_uint_eq(shard->n_log, 1);
    ck_assert_uint_eq(shard->log[0].value, 9 + ((uint64_t)wire->accepted << 32));
    teardown();
}
END_TEST

START_TEST(peers_are_bounded)
{
    setup_pair();
    uint32_t last = 0;
    for (int i = 0; i < PEERS_MAX; i++) {
        last = hub_accept(shard->hub, 3, now);
        ck_assert_uint_ne(last, 0);
    }
    ck_assert_uint_eq(hub_accept(shard->hub, 3, now), 0);
    now.mono_ns += (LINK_DEAD_MS + 1) * NS_PER_MS; /* none of them ever spoke */
    hub_tick(shard->hub, now);
    ck_assert_uint_eq(shard->forgotten, PEERS_MAX);
    ck_assert_uint_ne(hub_accept(shard->hub, 3, now), 0);
    teardown();
}
END_TEST

static TCase *message_cases(void)
{
    TCase *tc = tcase_create("messages");
    tcase_add_test(tc, failed_send_takes_the_link_down_later);
    tcase_add_test(tc, large_packets_leave_at_once);
    tcase_add_test(tc, a_thousand_in_order_and_back);
    tcase_add_test(tc, one_turn_is_one_packet);
    tcase_add_test(tc, greetings_travel_with_welcome);
    tcase_add_test(tc, both_sides_count_the_same_bytes);
    tcase_add_test(tc, malformed_packets);
    tcase_add_test(tc, malformed_messages_are_answered_and_the_link_stays);
    tcase_add_test(tc, an_error_is_answered_with_the_cid);
    tcase_add_test(tc, raw_messages_are_forwarded);
    tcase_add_test(tc, peers_are_bounded);
    return tc;
}

int main(void)
{
    Suite *suite = suite_create("hub_messages");
    suite_add_tcase(suite, message_cases());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
