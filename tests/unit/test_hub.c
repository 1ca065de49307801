/* What a link promises (nothing lost or out of order between on_up and on_down), and each way it
 * can end. */
#include "common/rng.h"
#include "hub_world.h"
#include "proto/packet.h"

START_TEST(up)
{
    setup_pair();
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    expect_log(gateway, "U");
    expect_log(shard, "U");
    const struct peer_info *info = hub_info(gateway->hub, wire->dialed);
    ck_assert_int_eq(info->role, ROLE_SHARD);
    ck_assert_uint_eq(info->boot, 2);
    ck_assert_uint_eq(info->win_msgs, 11);
    ck_assert_uint_eq(info->win_bytes, 22);
    ck_assert_uint_eq(info->window_ms, 33);
    ck_assert_str_eq(info->name, "shard");
    ck_assert_str_eq(hub_info(shard->hub, wire->accepted)->name, "gateway");
    ck_assert_uint_eq(hub_door(shard->hub, wire->accepted), 3);
    ck_assert(links(gateway, "peer=\"shard\"") == 1);
    ck_assert(links(shard, "peer=\"gateway\"") == 1);
    ck_assert_uint_eq(hub_next_up(shard->hub, 0), wire->accepted);
    ck_assert_uint_eq(hub_next_up(shard->hub, wire->accepted), 0);
    teardown();
}
END_TEST

START_TEST(nothing_is_sent_before_up)
{
    setup_pair();
    send_number(gateway, wire->dialed, 1);
    settle();
    hub_connected(gateway->hub, wire->dialed, now);
    send_number(gateway, wire->dialed, 2);
    send_number(gateway, 99, 3); /* nobody */
    settle();
    expect_log(shard, "U");
    teardown();
}
END_TEST

START_TEST(pings_keep_it_up)
{
    setup_up();
    uint64_t before = hub_received_bytes(shard->hub, wire->accepted);
    pass_ms(60000);
    expect_log(gateway, "");
    expect_log(shard, "");
    ck_assert_uint_gt(hub_received_bytes(shard->hub, wire->accepted), before);
    teardown();
}
END_TEST

START_TEST(silence_is_death)
{
    setup_up();
    wire->cut = true;
    pass_ms(LINK_DEAD_MS - LINK_HEARTBEAT_MS - 100);
    expect_log(gateway, "");
    pass_ms(LINK_HEARTBEAT_MS + 200);
    expect_log(gateway, "D");
    expect_log(shard, "D");
    ck_assert_uint_eq(shard->forgotten, 1);
    ck_assert_uint_eq(wire->accepted, 0);
    wire->cut = false;
    pass_ms(LINK_HEARTBEAT_MS + 100);
    expect_log(gateway, "U");
    expect_log(shard, "U");
    ck_assert(links(shard, "peer=\"gateway\"") == 1);
    teardown();
}
END_TEST

START_TEST(a_gap_upwards_is_never_silent)
{
    setup_up();
    send_number(gateway, wire->dialed, 1);
    settle();
    wire->drop[0] = 1;
    send_number(gateway, wire->dialed, 2);
    settle();
    send_number(gateway, wire->dialed, 3);
    settle();
    pass_ms(200);
    expect_log(shard, "mDU");
    expect_log(gateway, "DU");
    send_number(gateway, wire->dialed, 4);
    settle();
    ck_assert_uint_eq(shard->log[0].value, 4);
    ck_assert(counter(shard, "stoa_link_resets_total") == 1);
    teardown();
}
END_TEST

START_TEST(a_gap_downwards_is_never_silent)
{
    setup_up();
    wire->drop[1] = 1;
    send_number(shard, wire->accepted, 1);
    settle();
    send_number(shard, wire->accepted, 2);
    settle();
    pass_ms(200);
    expect_log(gateway, "DU");
    expect_log(shard, "DU");
    teardown();
}
END_TEST

START_TEST(a_lost_last_packet_is_found_by_the_next_ping)
{
    setup_up();
    wire->drop[1] = 1;
    send_number(shard, wire->accepted, 1);
    settle();
    pass_ms(LINK_HEARTBEAT_MS + 300);
    expect_log(gateway, "DU");
    teardown();
}
END_TEST

START_TEST(a_lost_welcome_is_repeated)
{
    setup_pair();
    wire->drop[1] = 1;
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    expect_log(gateway, "");
    pass_ms(LINK_HEARTBEAT_MS + 300);
    expect_log(gateway, "U");
    expect_log(shard, "UDU");
    teardown();
}
END_TEST

START_TEST(listener_restarts)
{
    setup_up();
    node_stop(shard);
    node_start(shard, ROLE_SHARD, CLUSTER, 9);
    shard->n_log = 0;
    pass_ms(LINK_HEARTBEAT_MS + 300);
    expect_log(gateway, "DU");
    expect_log(shard, "U");
    ck_assert_uint_eq(hub_info(gateway->hub, wire->dialed)->boot, 9);
    teardown();
}
END_TEST

START_TEST(reconnect_loses_what_was_under_way)
{
    setup_up();
    send_number(gateway, wire->dialed, 1);
    send_number(shard, wire->accepted, 2);
    hub_flush(gateway->hub, now);
    hub_flush(shard->hub, now);
    lose_queued(wire);
    hub_disconnected(gateway->hub, wire->dialed, now);
    send_number(gateway, wire->dialed, 3);
    settle();
    expect_log(gateway, "D");
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    send_number(gateway, wire->dialed, 4);
    settle();
    expect_log(gateway, "U");
    ck_assert_uint_eq(shard->log[shard->n_log - 1].value, 4);
    expect_log(shard, "DUm");
    teardown();
}
END_TEST

START_TEST(reconnect_without_a_disconnect)
{
    setup_up();
    send_number(gateway, wire->dialed, 1); /* queued for the old incarnation: gone with it */
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    expect_log(gateway, "DU");
    expect_log(shard, "DU");
    teardown();
}
END_TEST

/* A packet of the link's own making, for the side that `direction` leads to. */
static void inject(struct wire *w, int direction, uint64_t incarnation, uint64_t counter_value,
                   const struct message *m)
{
    struct strbuf b = {0};
    packet_begin(&b);
    message_encode(&b, m);
    packet_end(&b, 1, incarnation, counter_value);
    push(w, direction, b.data, b.size);
    strbuf_free(&b);
}

static const struct message reset = {.type = MSG_RESET, .slot = SLOT_UNKNOWN};
static const struct message ping = {.type = MSG_PING, .slot = SLOT_UNKNOWN};

START_TEST(reset_of_another_incarnation_is_ignored)
{
    setup_up();
    inject(wire, 1, 12345, 0, &reset);
    inject(wire, 1, 12345, 2, &ping);
    settle();
    expect_log(gateway, "");
    ck_assert(counter(gateway, "stoa_link_dropped_packets_total") == 2);
    teardown();
}
END_TEST

START_TEST(stale_packets_are_reset_but_not_too_often)
{
    setup_up();
    for (int i = 0; i < 50; i++)
        inject(wire, 0, 12345, 5, &ping);
    hub_flush(gateway->hub, now);
    while (wire->n_queue[0] > 0)
        deliver_one(wire, 0);
    hub_flush(shard->hub, now);
    ck_assert_uint_eq(wire->n_queue[1], 1);
    settle();
    expect_log(shard, ""); /* the link itself lives on */
    expect_log(gateway, "");
    teardown();
}
END_TEST

START_TEST(foreign_cluster_is_refused)
{
    setup_pair();
    node_stop(shard);
    node_start(shard, ROLE_SHARD, CLUSTER + 1, 2);
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    pass_ms(5000);
    expect_log(gateway, "");
    expect_log(shard, "");
    ck_assert(counter(shard, "stoa_link_refused_total") == 6);
    ck_assert_ptr_null(hub_info(shard->hub, wire->accepted));
    teardown();
}
END_TEST

START_TEST(role_without_business_is_refused)
{
    setup_pair();
    shard->refuses = ROLE_GATEWAY;
    hub_connected(gateway->hub, wire->dialed, now);
    pass_ms(2000);
    expect_log(shard, "");
    expect_log(gateway, "");
    shard->refuses = ROLE_NONE; /* reconfigured */
    pass_ms(1100);
    expect_log(gateway, "U");
    teardown();
}
END_TEST

/* ---- keys; the dialer is a gateway that calls itself "gateway" ---- */

static const struct peer_right as_publisher[] = {{.role = ROLE_PUBLISHER}};
static const struct peer_right as_both[] = {{.role = ROLE_PUBLISHER}, {.role = ROLE_GATEWAY}};
static const struct peer_right as_other[] = {{.role = ROLE_GATEWAY, .name = "gateway-2"},
                                             {.role = ROLE_GATEWAY, .name = "gatewa"},
                                             {.role = ROLE_PUBLISHER, .name = "gateway"}};
static const struct peer_right as_named[] = {{.role = ROLE_GATEWAY, .name = "gateway-2"},
                                             {.role = ROLE_GATEWAY, .name = "gateway"}};
static const struct peer_key publisher_key = {"PUBLISH1", as_publisher, 1};
static const struct peer_key gateway_key = {"GATEWAY1", as_both, 2};
static const struct peer_key free_key = {"ALLOWED1", NULL, 0};
static const struct peer_key nothing_key = {"NOTHING1", as_publisher, 0};

static const struct {
    struct peer_key key;
    bool welcome;
} key_cases[] = {
    {{"PUBLISH1", as_publisher, 1}, false}, {{"GATEWAY1", as_both, 2}, true},
    {{"OTHER111", as_other, 3}, false},     {{"NAMED111", as_named, 2}, true},
    {{"ALLOWED1", NULL, 0}, true},
};

START_TEST(a_key_allows_its_roles)
{
    setup_pair();
    wire->key = &key_cases[_i].key;
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    expect_log(shard, key_cases[_i].welcome ? "U" : "");
    expect_log(gateway, key_cases[_i].welcome ? "U" : "");
    ck_assert(counter(shard, "stoa_link_refused_total") == !key_cases[_i].welcome);
    ck_assert_int_eq(hub_info(shard->hub, wire->accepted) != NULL, key_cases[_i].welcome);
    teardown();
}
END_TEST

/* Another connection has taken the address over: what its predecessor said does not count. */
START_TEST(another_key_inherits_nothing)
{
    setup_pair();
    wire->key = &gateway_key;
    hub_connected(gateway->hub, wire->dialed, now);
    settle();
    send_number(gateway, wire->dialed, 1);
    settle();
    expect_log(shard, "Um");
    expect_log(gateway, "U");
    wire->key = &publisher_key;
    send_number(gateway, wire->dialed, 2);
    settle();
    expect_log(shard, "D");
    ck_assert(links(shard, "peer=\"gateway\"") == 0);
    expect_log(gateway, "D"); /* RESET; its new HELLO is refused, again and again */
    pass_ms(5000);
    expect_log(shard, "");
    expect_log(gateway, "");
    ck_assert(counter(shard, "stoa_link_refused_total") > 1);
    wire->key = &free_key;
    pass_ms(1100);
    expect_log(shard, "U");
    wire->key = &nothing_key; /* told between packets: before anything is said */
    hub_identify(shard->hub, wire->accepted, wire->key, now);
    ck_assert(!hub_is_up(shard->hub, wire->accepted));
    expect_log(shard, "D");
    hub_identify(shard->hub, wire->accepted, wire->key, now);
    hub_identify(shard->hub, 99, wire->key, now); /* nobody */
    expect_log(shard, "");
    teardown();
}
END_TEST

START_TEST(a_second_process_takes_the_address_over)
{
    setup_up();
    struct node *twin = &nodes[2];
    node_start(twin, ROLE_GATEWAY, CLUSTER, 3);
    struct wire *other = connect_nodes(twin, hub_dial(twin->hub), shard);
    other->accepted = wire->accepted;
    hub_connected(twin->hub, other->dialed, now);
    settle();
    expect_log(shard, "DU");
    expect_log(twin, "U");
    ck_assert_uint_eq(hub_info(shard->hub, other->accepted)->boot, 3);
    /* What the first one still had under way is stale, and the RESET about it reaches the second
     * one, whose incarnation is another. */
    wire = &wires[0];
    send_number(gateway, wire->dialed, 1);
    pass_ms(500);
    expect_log(shard, "");
    expect_log(twin, "");
    teardown();
}
END_TEST

START_TEST(goodbye_of_the_listener)
{
    setup_up();
    send_number(shard, wire->accepted, 5); /* what was queued still leaves, ahead of it */
    hub_goodbye(shard->hub, now);
    expect_log(shard, "D");
    ck_assert(!hub_is_up(shard->hub, wire->accepted));
    while (wire->n_queue[1] > 0)
        deliver_one(wire, 1);
    expect_log(gateway, "mD");
    node_stop(shard); /* restarted within the second */
    node_start(shard, ROLE_SHARD, CLUSTER, 4);
    pass_ms(LINK_HEARTBEAT_MS - 200);
    expect_log(gateway, "");
    pass_ms(400);
    expect_log(gateway, "U");
    teardown();
}
END_TEST

START_TEST(goodbye_of_the_dialer)
{
    setup_up();
    hub_goodbye(gateway->hub, now);
    expect_log(gateway, "D");
    settle();
    expect_log(shard, "D");
    ck_assert_uint_eq(shard->forgotten, 1);
    send_number(gateway, wire->dialed, 1);
    pass_ms(5000);
    expect_log(shard, "");
    ck_assert_int_eq(hub_deadline(gateway->hub), TICK_NEVER);
    teardown();
}
END_TEST

/* ---- chaos: any faults, and the promise holds ---- */

/* Between on_up and on_down the numbers are 1, 2, 3 ... without a gap, and ups and downs alternate.
 */
static void check_promise(const struct node *n)
{
    bool is_up = false;
    uint64_t expected = 1;
    for (size_t i = 0; i < n->n_log; i++) {
        switch (n->log[i].what) {
        case UP:
            ck_assert(!is_up);
            is_up = true;
            expected = 1;
            break;
        case DOWN:
            ck_assert(is_up);
            is_up = false;
            break;
        case MESSAGE:
            ck_assert(is_up);
            ck_assert_uint_eq(n->log[i].value, expected);
            expected++;
            break;
        }
    }
}

static uint64_t chaos_next[NODES_MAX];

static void chaos_restart(struct node *n, uint32_t peer)
{
    (void)peer;
    chaos_next[n - nodes] = 1;
}

static void chaos_send(struct node *n, uint32_t peer)
{
    if (hub_is_up(n->hub, peer))
        send_number(n, peer, chaos_next[n - nodes]++);
}

static void chaos_fault(struct rng *rng)
{
    switch (rng_below(rng, 12)) {
    case 0:
        wire->drop[rng_below(rng, 2)] = (int)rng_below(rng, 3);
        break;
    case 1:
        wire->fail[rng_below(rng, 2)] = 1;
        break;
    case 2:
        lose_queued(wire);
        hub_disconnected(gateway->hub, wire->dialed, now);
        break;
    case 3:
        hub_connected(gateway->hub, wire->dialed, now);
        break;
    case 4:
        wire->cut = rng_below(rng, 2);
        break;
    case 5:
        lose_queued(wire);
        break;
    default:
        break;
    }
}

START_TEST(chaos)
{
    struct rng rng;
    rng_seed(&rng, (uint64_t)_i);
    setup_pair();
    gateway->on_up = shard->on_up = chaos_restart;
    for (int step = 0; step < 1500; step++) {
        chaos_fault(&rng);
        now.mono_ns += (int64_t)rng_below(&rng, 200) * NS_PER_MS;
        for (uint64_t k = rng_below(&rng, 4); k > 0; k--) {
            chaos_send(gateway, wire->dialed);
            if (wire->accepted)
                chaos_send(shard, wire->accepted);
        }
        for (size_t i = 0; i < 2; i++) {
            hub_tick(nodes[i].hub, now);
            hub_flush(nodes[i].hub, now);
        }
        for (uint64_t k = rng_below(&rng, 6); k > 0; k--) {
            int d = (int)rng_below(&rng, 2);
            if (wire->n_queue[d] > 0)
                deliver_one(wire, d);
        }
    }
    check_promise(gateway);
    check_promise(shard);
    /* the faults end: both are up within a few seconds, and stay so */
    wire->cut = false;
    memset(wire->drop, 0, sizeof wire->drop);
    memset(wire->fail, 0, sizeof wire->fail);
    hub_connected(gateway->hub, wire->dialed, now);
    pass_ms(LINK_DEAD_MS + 2 * LINK_HEARTBEAT_MS);
    ck_assert(hub_is_up(gateway->hub, wire->dialed));
    ck_assert(hub_is_up(shard->hub, wire->accepted));
    gateway->n_log = shard->n_log = 0;
    pass_ms(10000);
    expect_log(gateway, "");
    expect_log(shard, "");
    teardown();
}
END_TEST

static TCase *link_cases(void)
{
    TCase *tc = tcase_create("link");
    tcase_add_test(tc, up);
    tcase_add_test(tc, nothing_is_sent_before_up);
    tcase_add_test(tc, pings_keep_it_up);
    tcase_add_test(tc, silence_is_death);
    tcase_add_test(tc, a_gap_upwards_is_never_silent);
    tcase_add_test(tc, a_gap_downwards_is_never_silent);
    tcase_add_test(tc, a_lost_last_packet_is_found_by_the_next_ping);
    tcase_add_test(tc, a_lost_welcome_is_repeated);
    tcase_add_test(tc, listener_restarts);
    tcase_add_test(tc, reconnect_loses_what_was_under_way);
    tcase_add_test(tc, reconnect_without_a_disconnect);
    tcase_add_test(tc, reset_of_another_incarnation_is_ignored);
    tcase_add_test(tc, stale_packets_are_reset_but_not_too_often);
    tcase_add_test(tc, foreign_cluster_is_refused);
    tcase_add_test(tc, role_without_business_is_refused);
    tcase_add_loop_test(tc, a_key_allows_its_roles, 0, sizeof key_cases / sizeof *key_cases);
    tcase_add_test(tc, another_key_inherits_nothing);
    tcase_add_test(tc, a_second_process_takes_the_address_over);
    tcase_add_test(tc, goodbye_of_the_listener);
    tcase_add_test(tc, goodbye_of_the_dialer);
    tcase_add_loop_test(tc, chaos, 0, 100);
    return tc;
}

int main(void)
{
    Suite *suite = suite_create("hub");
    suite_add_tcase(suite, link_cases());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
