/* Shards that restart, lose deliveries, withdraw slots; credit; draining. */
#include "gateway_world.h"

START_TEST(test_lost_deliver)
{
    struct client *raw = open_raw(1, "/events?key=k");
    struct client *v1 = open_v1(2);
    say(2, "{\"sub\":\"k\"}");
    frame(v1);
    room_publish("k", "1");
    faults.lose_delivers = 2;
    room_publish("k", "2");
    room_publish("k", "3");
    ck_assert_str_eq(frame(raw), "1");
    ck_assert_str_eq(frame(raw), "");
    room_publish("k", "4"); /* its prev tells the gap */
    for (int n = 2; n <= 4; n++) {
        char text[16];
        snprintf(text, sizeof text, "%d", n);
        ck_assert_str_eq(frame(raw), text);
    }
    ck_assert_str_eq(frame(raw), "");
    ck_assert_uint_eq(n_replays, 1);
    for (int n = 1; n <= 4; n++)
        ck_assert_ptr_nonnull(strstr(frame(v1), "\"id\":\"100-"));
    ck_assert_str_eq(frame(v1), "");
}
END_TEST

/* The last message of a room that falls silent: the periodic check finds it. */
START_TEST(test_lost_last_deliver)
{
    struct client *raw = open_raw(1, "/events?key=k");
    room_publish("k", "1");
    faults.lose_delivers = 1;
    room_publish("k", "2");
    frame(raw);
    ck_assert_str_eq(frame(raw), "");
    pass_ms(5200);
    ck_assert_str_eq(frame(raw), "2");
    ck_assert_str_eq(frame(raw), "");
}
END_TEST

START_TEST(test_resync_pulls)
{
    struct client *raw = open_raw(1, "/events?key=k");
    room_append("k", "1");
    shard_resync("k");
    settle();
    ck_assert_str_eq(frame(raw), "1");
    shard_resync("k"); /* nothing new: nothing asked */
    settle();
    ck_assert_uint_eq(n_replays, 1);
}
END_TEST

START_TEST(test_shard_restart)
{
    struct client *raw = open_raw(1, "/events?key=k");
    struct client *quiet = open_raw(2, "/events?key=quiet");
    room_publish("k", "1");
    shard_down();
    struct client *meanwhile = upgrade(3, "/events?key=k", NULL);
    ck_assert(!meanwhile->upgraded);
    struct client *fresh = open_v1(4);
    say(4, "{\"sub\":\"new\"}");
    ck_assert_str_eq(frame(fresh), "");
    room_append("k", "2"); /* stored, its delivery died with the link */
    unsigned full = n_full_syncs;
    shard_up(true);
    ck_assert_uint_eq(n_full_syncs, full + 1);
    ck_assert_str_eq(frame(raw), "1");
    ck_assert_str_eq(frame(raw), "2");
    ck_assert_str_eq(frame(meanwhile), "");
    ck_assert_str_eq(frame(fresh), "{\"sub\":\"new\",\"status\":\"live\",\"head\":\"0\"}");
    room_publish("k", "3");
    room_publish("quiet", "4");
    ck_assert_str_eq(frame(raw), "3");
    ck_assert_str_eq(frame(meanwhile), "3");
    ck_assert_str_eq(frame(quiet), "4");
    ck_assert(!raw->closed && !quiet->closed);
}
END_TEST

START_TEST(test_restart_during_catchup)
{
    for (int n = 0; n < 50; n++)
        room_append("k", "7");
    faults.hold_pages = true;
    struct client *raw = open_raw(1, "/events?key=k&replay=all");
    shard_down();
    faults.hold_pages = false;
    shard_up(false);
    for (int n = 0; n < 50; n++)
        ck_assert_str_eq(frame(raw), "7");
    ck_assert_str_eq(frame(raw), "");
}
END_TEST

START_TEST(test_page_lost)
{
    room_append("k", "1");
    faults.hold_pages = true;
    struct client *raw = open_raw(1, "/events?key=k&replay=all");
    faults.hold_pages = false;
    pass_ms(5200); /* asked for again */
    ck_assert_str_eq(frame(raw), "1");
    release_pages(); /* the late answer is nobody's */
    ck_assert_str_eq(frame(raw), "");
}
END_TEST

START_TEST(test_shard_lost_its_disk)
{
    struct client *raw = open_raw(1, "/events?key=k");
    struct client *sse = open_sse(2, "/events?key=k", NULL);
    struct client *v1 = open_v1(3);
    say(3, "{\"sub\":\"k\"}");
    room_publish("k", "1");
    room_publish("k", "2");
    rest(raw);
    rest(sse);
    rest(v1);
    shard_down();
    room_reborn("k", 1297);
    room_append("k", "3");
    shard_up(true);
    ck_assert(raw->closed && raw->code == 4010);
    ck_assert_str_eq(raw->reason, "missed 100-2 101-0 epoch");
    const char *text = rest(sse);
    ck_assert_ptr_nonnull(strstr(text,
                                 "id: 101-0\nevent: missed\ndata: {\"from\":\"100-2\",\"to\":"
                                 "\"101-0\",\"reason\":\"epoch\"}\n\nid: 101-1\ndata: 3\n\n"));
    ck_assert_str_eq(frame(v1),
                     "{\"sub\":\"k\",\"status\":\"missed\",\"missed\":{\"from\":\"100-2\","
                     "\"to\":\"101-0\",\"reason\":\"epoch\"},\"head\":\"101-1\"}");
    ck_assert_ptr_nonnull(strstr(frame(v1), "\"id\":\"101-1\""));
}
END_TEST

/* A gap that the log cannot fill any more, while live. */
START_TEST(test_missed_in_midstream)
{
    struct client *v1 = open_v1(1);
    say(1, "{\"sub\":\"k\"}");
    room_publish("k", "1");
    rest(v1);
    for (int n = 0; n < 5; n++)
        room_append("k", "2");
    room_trim("k", 4, MISS_EXPIRED);
    room_publish("k", "3");
    ck_assert_str_eq(frame(v1),
                     "{\"sub\":\"k\",\"status\":\"missed\",\"missed\":{\"from\":\"100-1\","
                     "\"to\":\"100-4\",\"reason\":\"expired\"},\"head\":\"100-7\"}");
    for (int n = 5; n <= 7; n++) {
        char id[24];
        snprintf(id, sizeof id, "\"id\":\"100-%d\"", n);
        ck_assert_ptr_nonnull(strstr(frame(v1), id));
    }
    ck_assert_str_eq(frame(v1), "");
}
END_TEST

START_TEST(test_slots_withdrawn)
{
    struct client *raw = open_raw(1, "/events?key=k");
    shard_withdraw();
    struct client *waits = open_v1(2);
    say(2, "{\"sub\":\"k\"}");
    ck_assert_str_eq(frame(waits), "");
    ask(3, "GET /connections?key=k", NULL, NULL);
    ASSERT_ERROR(&clients[3], 503, "Moving");
    ask(4, "POST /close?key=k", NULL, NULL);
    ASSERT_ERROR(&clients[4], 503, "Moving");
    ask(5, "GET /log?key=k", NULL, NULL);
    ck_assert_uint_eq(clients[5].responses, 0);
    ask(6, "DELETE /log?key=k", NULL, NULL);
    room_append("k", "1");
    shard_claim();
    settle();
    pass_ms(200);
    ck_assert_uint_eq(clients[5].status, 200);
    ck_assert_uint_eq(clients[6].status, 200);
    ck_assert_str_eq(frame(waits), "{\"sub\":\"k\",\"status\":\"live\",\"head\":\"100-1\"}");
    ck_assert_str_eq(frame(raw), "1");
    shard_withdraw();
    ask(7, "GET /log?key=k", NULL, NULL);
    pass_ms(5100);
    ASSERT_ERROR(&clients[7], 503, "Moving");
}
END_TEST

START_TEST(test_credit)
{
    ck_assert_uint_eq(shard_granted(), CREDIT_WINDOW_BYTES);
    unsigned credits = n_credits;
    shard_send_bytes(3 * MIB);
    ck_assert_uint_eq(n_credits, credits);
    shard_send_bytes(2 * MIB);
    ck_assert_uint_eq(n_credits, credits + 1);
    ck_assert_uint_gt(shard_granted(), CREDIT_WINDOW_BYTES + 4 * MIB);
    shard_down();
    shard_up(false);
    ck_assert_uint_eq(shard_granted(), CREDIT_WINDOW_BYTES);
}
END_TEST

START_TEST(test_drain)
{
    for (unsigned i = 1; i <= 4; i++)
        open_raw(i, "/events?key=k");
    struct client *sse = open_sse(5, "/events?key=k", NULL);
    faults.hold_packs = true;
    ask(6, "POST /publish?key=k", NULL, "1");
    const char *why = "";
    gateway_drain(gateway, now, 1000);
    ck_assert(!gateway_ready(gateway, &why));
    ck_assert_str_eq(why, "draining");
    upgrade(7, "/events?key=k", NULL);
    ASSERT_ERROR(&clients[7], 503, "Draining");
    ck_assert_ptr_nonnull(strstr(clients[7].headers, "Retry-After: "));
    ask(8, "GET /events?key=k", NULL, NULL);
    ASSERT_ERROR(&clients[8], 503, "Draining");
    ck_assert(clients[8].close_answer);
    ck_assert(clients[1].closed && !clients[4].closed);
    pass_ms(1100);
    for (unsigned i = 1; i <= 5; i++) {
        ck_assert(clients[i].closed);
        ck_assert_uint_eq(clients[i].code, 1012);
    }
    ck_assert(sse->closed);
    for (unsigned i = 1; i <= 5; i++)
        hang_up(i, 1012);
    ck_assert(!gateway_drained_all(gateway)); /* a publish is in flight */
    faults.hold_packs = false;
    router_down(0);
    router_up(0);
    ck_assert_uint_eq(clients[6].status, 200);
    ck_assert(gateway_drained_all(gateway));
}
END_TEST

START_TEST(test_listings)
{
    struct client *c = ask(1, "GET /keys?prefix=x&limit=2", NULL, NULL);
    ck_assert_str_eq(c->body,
                     "{\"keys\":[{\"key\":\"a\"},{\"key\":\"b\",\"events\":2,\"bytes\":7}],"
                     "\"more\":true,\"complete\":true}");
    c = ask(2, "GET /keys", NULL, NULL);
    ck_assert_str_eq(c->body, "{\"keys\":[{\"key\":\"a\"},{\"key\":\"b\",\"events\":2,\"bytes\":7},"
                              "{\"key\":\"cé\"}],\"more\":false,\"complete\":true}");
    c = ask(3, "GET /top?limit=1", NULL, NULL);
    ck_assert_str_eq(c->body, "{\"rooms\":[{\"key\":\"b\",\"per_second\":20}],\"complete\":true}");
    c = ask(4, "GET /status", NULL, NULL);
    ck_assert_str_eq(
        c->body,
        "{\"processes\":[{\"role\":\"gateway\",\"name\":\"gateway-0\",\"version\":\"0.1\","
        "\"address\":\"\",\"up\":true,\"boot\":\"0000000000000005\",\"draining\":false,\"rooms\":0,"
        "\"sockets\":0,\"lagging\":0,\"deliveries\":0,"
        "\"publishes_in_flight\":0},{\"role\":\"router\",\"name\":\"router-0\",\"version\":\"0.1\","
        "\"up\":true},{\"role\":\"shard\",\"name\":\"shard-0\",\"version\":\"0.1\",\"up\":true,"
        "\"slots\":16384}]}");
    shard_down();
    c = ask(5, "GET /status", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(
        c->body, "{\"role\":\"shard\",\"name\":\"shard-0\",\"version\":\"0.1\",\"up\":false}"));
    c = ask(6, "GET /keys", NULL, NULL);
    ck_assert_str_eq(c->body, "{\"keys\":[],\"more\":false,\"complete\":false}");
    shard_up(false);
    faults.mute_asks = true;
    ask(7, "GET /keys", NULL, NULL);
    ck_assert_uint_eq(clients[7].responses, 0);
    pass_ms(1100);
    ck_assert_str_eq(clients[7].body, "{\"keys\":[],\"more\":false,\"complete\":false}");
    ask(8, "GET /status", NULL, NULL);
    hang_up(8, 1006); /* and nobody is left to answer */
    pass_ms(1100);
    ck_assert_uint_eq(clients[8].responses, 0);
}
END_TEST

/* An old copy of the disk: what was given out since is no longer there, and its ids will be given
 * out again. Who is at the room's end must not wait for them in silence. */
START_TEST(test_disk_put_back)
{
    struct client *v1 = open_v1(1);
    say(1, "{\"sub\":\"k\"}");
    struct client *raw = open_raw(2, "/events?key=k");
    room_publish("k", "1");
    room_publish("k", "2");
    room_publish("k", "3");
    shard_down();
    room_roll_back("k", 1);
    shard_up(true);
    pass_ms(1000);
    room_publish("k", "4");
    bool missed = false, fresh = false;
    for (const char *text; *(text = frame(v1)) != '\0';) {
        missed |=
            strstr(text, "{\"from\":\"100-3\",\"to\":\"100-0\",\"reason\":\"epoch\"}") != NULL;
        fresh |= strstr(text, "\"id\":\"100-2\"") && strstr(text, "\"data\":4");
    }
    ck_assert(missed);
    ck_assert(fresh);
    ck_assert_uint_eq(raw->code, 4010);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("links");
    tcase_add_checked_fixture(tc, world_setup, world_teardown);
    tcase_add_test(tc, test_lost_deliver);
    tcase_add_test(tc, test_lost_last_deliver);
    tcase_add_test(tc, test_resync_pulls);
    tcase_add_test(tc, test_shard_restart);
    tcase_add_test(tc, test_restart_during_catchup);
    tcase_add_test(tc, test_page_lost);
    tcase_add_test(tc, test_shard_lost_its_disk);
    tcase_add_test(tc, test_missed_in_midstream);
    tcase_add_test(tc, test_slots_withdrawn);
    tcase_add_test(tc, test_credit);
    tcase_add_test(tc, test_drain);
    tcase_add_test(tc, test_listings);
    tcase_add_test(tc, test_disk_put_back);
    Suite *suite = suite_create("gateway links");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
