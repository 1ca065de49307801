/* From a publish to every subscriber: one order over all dialects, one packed buffer for all
 * sockets, bytes exactly as each dialect frames them. */
#include "gateway_world.h"

#define ID(seq) "100-" #seq

START_TEST(test_all_dialects)
{
    struct client *raw = open_raw(1, "/events?key=k");
    struct client *path = open_raw(2, "/ws/upload/x%2Fy");
    struct client *sse = open_sse(3, "/events?jobId=k", NULL);
    struct client *v1 = open_v1(4);
    say(4, "{\"sub\":\"k\"}");
    ck_assert_str_eq(frame(v1), "{\"sub\":\"k\",\"status\":\"live\",\"head\":\"0\"}");
    ck_assert_str_eq(rest(sse), "retry: 1000\n\nid: 0\n\n");
    room_publish("k", "{\"n\":1}");
    room_publish("k", "two\nlines\r\nthree\rfour");
    room_publish_bytes("k", "\xff\x00\xfe", 3, 0);
    room_publish_bytes("k", "\"typing\"", 8, EVENT_EPHEMERAL);
    settle();
    ck_assert_str_eq(frame(raw), "{\"n\":1}");
    ck_assert(frame_was_text());
    ck_assert_str_eq(frame(raw), "two\nlines\r\nthree\rfour");
    ck_assert_mem_eq(frame(raw), "\xff\x00\xfe", 4);
    ck_assert(!frame_was_text());
    ck_assert_str_eq(frame(raw), "\"typing\"");
    ck_assert_str_eq(rest(raw), "");
    ck_assert_str_eq(rest(path), "");
    char wanted[256];
    snprintf(wanted, sizeof wanted,
             "{\"key\":\"k\",\"id\":\"" ID(1) "\",\"ts\":%lld,\"data\":{\"n\":1}}",
             (long long)now.wall_ms);
    ck_assert_str_eq(frame(v1), wanted);
    ck_assert_ptr_nonnull(strstr(frame(v1), "\"id\":\"" ID(2) "\""));
    ck_assert_ptr_nonnull(strstr(frame(v1), ",\"base64\":\"/wD+\"}"));
    snprintf(wanted, sizeof wanted, "{\"key\":\"k\",\"ts\":%lld,\"data\":\"typing\"}",
             (long long)now.wall_ms);
    ck_assert_str_eq(frame(v1), wanted);
    ck_assert_str_eq(
        rest(sse), "id: " ID(1) "\ndata: {\"n\":1}\n\n"
                                "id: " ID(2) "\ndata: two\ndata: lines\ndata: three\ndata: four\n\n"
                                             "id: " ID(3) "\nevent: base64\ndata: /wD+\n\n"
                                                          "data: \"typing\"\n\n");
    room_publish("upload:x/y", "5");
    ck_assert_str_eq(frame(path), "5");
}
END_TEST

START_TEST(test_payload_sizes)
{
    static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, PAYLOAD_MAX_BYTES};
    struct client *raw = open_raw(1, "/events?key=k");
    char *payload = mem_alloc(PAYLOAD_MAX_BYTES);
    memset(payload, 'x', PAYLOAD_MAX_BYTES);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ask_bytes(100, "POST /publish?key=k", NULL, slice_of(payload, sizes[i]));
        ck_assert_uint_eq(clients[100].status, 200);
        ck_assert_uint_eq(strlen(frame(raw)), sizes[i]);
    }
    mem_free(payload);
}
END_TEST

START_TEST(test_pack_is_shared)
{
    for (unsigned i = 1; i <= 50; i++)
        open_raw(i, "/events?key=k");
    ck_assert_uint_eq(n_subs, 1);
    for (unsigned i = 0; i < 10; i++)
        room_publish_bytes("k", "{\"n\":1}", 7, 0);
    settle();
    for (unsigned i = 1; i <= 50; i++) {
        ck_assert_uint_eq(clients[i].writes, 1);
        ck_assert_ptr_eq(clients[i].last_buf, clients[1].last_buf);
        ck_assert_uint_eq(clients[i].out.size, 10 * (2 + 7));
    }
    ck_assert_uint_eq((unsigned)metric("stoa_deliveries_total", ""), 500);
    ck_assert_uint_eq(
        (unsigned)metric_value(metrics_gauge(metrics, "stoa_sockets", "dialect=\"raw\"", "")), 50);
}
END_TEST

/* A reader that is ahead of the room's queue gets a later part of the same buffer. */
START_TEST(test_pack_offset)
{
    struct client *live = open_raw(1, "/events?key=k");
    room_publish("k", "0");
    ck_assert_str_eq(frame(live), "0");
    room_append("k", "1");
    room_append("k", "2");
    struct client *ahead = open_raw(2, "/events?key=k&replay=all");
    ck_assert_str_eq(frame(ahead), "0");
    ck_assert_str_eq(frame(ahead), "1");
    ck_assert_str_eq(frame(ahead), "2");
    room_publish("k", "3"); /* the room finds that it lacks 1 and 2, and pulls */
    ck_assert_str_eq(frame(live), "1");
    ck_assert_str_eq(frame(live), "2");
    ck_assert_str_eq(frame(live), "3");
    ck_assert_str_eq(frame(ahead), "3");
    ck_assert_str_eq(rest(ahead), "");
    ck_assert_ptr_eq(live->last_buf, ahead->last_buf);
    ck_assert_uint_eq(live->last_offset, 0);
    ck_assert_uint_gt(ahead->last_offset, 0);
}
END_TEST

/* A timestamp is a shard's word, and may be anything: it must not overflow what measures ages. */
START_TEST(test_any_timestamp)
{
    static const int64_t stamps[] = {INT64_MIN, -1, 0, INT64_MAX};
    struct client *raw = open_raw(1, "/events?key=k");
    int64_t wall_ms = now.wall_ms;
    for (size_t i = 0; i < sizeof stamps / sizeof *stamps; i++) {
        now.wall_ms = stamps[i];
        room_say("k", "\"any\"", EVENT_JSON | EVENT_UTF8, (struct slice){0});
        now.wall_ms = wall_ms;
        settle();
        ck_assert_str_eq(frame(raw), "\"any\"");
    }
}
END_TEST

START_TEST(test_order_of_many)
{
    struct client *raw = open_raw(1, "/events?key=k");
    struct client *late;
    char text[32];
    for (int n = 0; n < 3000; n++) {
        snprintf(text, sizeof text, "%d", n);
        room_publish_bytes("k", text, strlen(text), 0);
        if (n % 100 == 0)
            settle();
        if (n == 1500)
            open_raw(2, "/events?key=k&replay=all");
    }
    settle();
    late = &clients[2];
    for (int n = 0; n < 3000; n++) {
        snprintf(text, sizeof text, "%d", n);
        ck_assert_str_eq(frame(raw), text);
        ck_assert_str_eq(frame(late), text);
    }
    ck_assert_str_eq(rest(raw), "");
    ck_assert_str_eq(rest(late), "");
}
END_TEST

START_TEST(test_rooms_come_and_go)
{
    open_raw(1, "/events?key=a");
    open_raw(2, "/events?key=a");
    hang_up(1, 1000);
    hang_up(2, 1006);
    pass_ms(4000);
    ck_assert_uint_eq(n_unsubs, 0); /* somebody may come back */
    open_raw(3, "/events?key=a");
    pass_ms(10000);
    ck_assert_uint_eq(n_subs, 1);
    ck_assert_uint_eq(n_unsubs, 0);
    hang_up(3, 1001);
    pass_ms(6000);
    ck_assert_uint_eq(n_unsubs, 1);
    ck_assert_uint_eq((unsigned)metric("stoa_closes_total", "code=\"1000\""), 1);
    ck_assert_uint_eq((unsigned)metric("stoa_closes_total", "code=\"1006\""), 1);
}
END_TEST

START_TEST(test_comments_on_streams)
{
    struct client *sse = open_sse(1, "/events?key=k", NULL);
    rest(sse);
    pass_ms(14900);
    ck_assert_str_eq(rest(sse), "");
    pass_ms(200);
    ck_assert_str_eq(rest(sse), ":\n\n");
    pass_ms(15000);
    ck_assert_str_eq(rest(sse), ":\n\n");
}
END_TEST

START_TEST(test_closed_by_request)
{
    struct client *raw = open_raw(1, "/events?key=k");
    struct client *sse = open_sse(2, "/events?key=k", NULL);
    struct client *v1 = open_v1(3);
    struct client *other = open_raw(4, "/events?key=other");
    say(3, "{\"sub\":\"k\"}");
    frame(v1);
    struct client *list = ask(100, "GET /connections?key=k", NULL, NULL);
    ck_assert_uint_eq(list->status, 200);
    ck_assert_str_eq(list->body, "[{\"id\":\"abcdef01-1\",\"tags\":[],\"state\":null},"
                                 "{\"id\":\"abcdef01-2\",\"tags\":[],\"state\":null},"
                                 "{\"id\":\"abcdef01-3\",\"tags\":[],\"state\":null}]");
    struct client *close = ask(101, "POST /close?key=k&code=4321", NULL, NULL);
    ck_assert_uint_eq(close->status, 200);
    ck_assert(raw->closed && raw->code == 4321);
    ck_assert(sse->closed && !v1->closed && !other->closed);
    ck_assert_str_eq(frame(v1), "{\"unsub\":\"k\",\"code\":4321,\"reason\":\"closed by request\"}");
    room_publish("k", "1");
    ck_assert_str_eq(rest(v1), "");
    ck_assert_str_eq(ask(102, "GET /connections?key=k", NULL, NULL)->body, "[]");
    ask(103, "POST /close?key=k&code=999", NULL, NULL);
    ASSERT_ERROR(&clients[103], 400, "BadRequest");
    ask(104, "POST /close?key=k&code=1005", NULL, NULL);
    ASSERT_ERROR(&clients[104], 400, "BadRequest");
}
END_TEST

/* A reader of what comes from now on is answered when now has begun. */
START_TEST(test_answered_when_subscribed)
{
    shard_down();
    struct client *raw = upgrade(1, "/events?key=k", NULL);
    struct client *sse = ask(2, "GET /events?key=k", "Origin: http://localhost:1", NULL);
    struct client *leaves = upgrade(3, "/events?key=k", NULL);
    struct client *resumes = upgrade(4, "/events?key=k&after=0", NULL);
    ck_assert(!raw->upgraded && !sse->streaming && !leaves->upgraded);
    ck_assert(resumes->upgraded); /* it names its place, so nothing can pass it by */
    hang_up(3, 1006);
    shard_up(false);
    ck_assert(raw->upgraded && sse->streaming && !leaves->upgraded);
    ck_assert_ptr_nonnull(strstr(sse->headers, "Access-Control-Allow-Origin: http://localhost:1"));
    room_publish("k", "1");
    ck_assert_str_eq(frame(raw), "1");
    ck_assert_str_eq(frame(resumes), "1");
    ck_assert_str_eq(rest(sse), "retry: 1000\n\nid: 0\n\nid: 100-1\ndata: 1\n\n");
    shard_down();
    upgrade(5, "/events?key=other", NULL);
    pass_ms(9900);
    ck_assert_uint_eq(clients[5].responses, 0);
    pass_ms(200);
    ASSERT_ERROR(&clients[5], 503, "Moving");
    upgrade(6, "/events?key=other", NULL);
    gateway_drain(gateway, now, 100);
    pass_ms(200);
    ASSERT_ERROR(&clients[6], 503, "Draining");
}
END_TEST

/* Every event, or the newest of each conflate value. */
START_TEST(test_conflate_none)
{
    for (int n = 0; n < 3; n++)
        room_conflate("k", "p", "1");
    struct client *all = open_raw(1, "/events?key=k&replay=all&conflate=none");
    for (int n = 0; n < 3; n++)
        ck_assert_str_eq(frame(all), "1");
    struct client *newest = open_raw(2, "/events?key=k&replay=all");
    ck_assert_str_eq(frame(newest), "1");
    ck_assert_str_eq(frame(newest), "");
    upgrade(3, "/events?key=k&conflate=some", NULL);
    ASSERT_ERROR(&clients[3], 400, "BadRequest");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("deliver");
    tcase_add_checked_fixture(tc, world_setup, world_teardown);
    tcase_add_test(tc, test_all_dialects);
    tcase_add_test(tc, test_payload_sizes);
    tcase_add_test(tc, test_pack_is_shared);
    tcase_add_test(tc, test_pack_offset);
    tcase_add_test(tc, test_any_timestamp);
    tcase_add_test(tc, test_order_of_many);
    tcase_add_test(tc, test_rooms_come_and_go);
    tcase_add_test(tc, test_comments_on_streams);
    tcase_add_test(tc, test_closed_by_request);
    tcase_add_test(tc, test_answered_when_subscribed);
    tcase_add_test(tc, test_conflate_none);
    Suite *suite = suite_create("gateway deliver");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
