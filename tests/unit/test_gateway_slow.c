/* Readers that do not read: bounded memory, nobody else waits, and the truth when they come back.
 */
#include "gateway_world.h"

static char big[64 * KIB + 1];

static void publish_big(const char *key, unsigned count)
{
    memset(big, 'x', sizeof big - 1);
    big[0] = '"';
    big[sizeof big - 2] = '"';
    for (unsigned i = 0; i < count; i++)
        room_publish(key, big);
}

static double lagging(void)
{
    return metric_value(metrics_gauge(metrics, "stoa_lagging_sockets", "", ""));
}

START_TEST(test_lag_and_recovery)
{
    struct client *slow = open_raw(1, "/events?key=k");
    struct client *quick = open_raw(2, "/events?key=k");
    slow->stalled = true;
    publish_big("k", 50);
    for (int n = 0; n < 50; n++)
        ck_assert(strcmp(frame(quick), big) == 0);
    size_t queued = slow->queued;
    ck_assert_uint_gt(queued, CONN_QUEUE_MAX_BYTES);
    ck_assert_uint_lt(queued, CONN_QUEUE_MAX_BYTES + 2 * sizeof big);
    ck_assert_double_eq(lagging(), 1);
    unsigned replays = n_replays;
    drain_client(1);
    ck_assert_uint_gt(n_replays, replays);
    for (int n = 0; n < 50; n++)
        ck_assert(strcmp(frame(slow), big) == 0);
    ck_assert_str_eq(frame(slow), "");
    ck_assert_double_eq(lagging(), 0);
    room_publish("k", "1");
    ck_assert_str_eq(frame(slow), "1");
}
END_TEST

/* replay=3 of an empty room is no wish to see three events again after the first lag. */
START_TEST(test_lag_after_a_wish_for_the_last)
{
    struct client *slow = open_raw(1, "/events?key=k&replay=3");
    room_publish("k", "1");
    ck_assert_str_eq(frame(slow), "1");
    slow->stalled = true;
    publish_big("k", 10);
    drain_client(1);
    for (int n = 0; n < 10; n++)
        ck_assert(strcmp(frame(slow), big) == 0);
    ck_assert_str_eq(frame(slow), "");
}
END_TEST

/* Who catches up gets the next page only when the last one has nearly gone. */
START_TEST(test_pages_wait_for_the_reader)
{
    memset(big, '1', sizeof big - 1);
    for (int n = 0; n < 40; n++)
        room_append("k", big);
    clients[1].stalled = true;
    open_raw(1, "/events?key=k&replay=all");
    ck_assert_uint_eq(n_replays, 1);
    ck_assert_uint_lt(clients[1].queued, REPLAY_PAGE_MAX_BYTES + 1024);
    pass_ms(60000);
    ck_assert_uint_eq(n_replays, 1);
    ck_assert_double_eq(lagging(), 0);
    drain_client(1);
    for (int n = 0; n < 40; n++)
        ck_assert(strcmp(frame(&clients[1]), big) == 0);
    ck_assert_str_eq(frame(&clients[1]), "");
}
END_TEST

START_TEST(test_too_slow)
{
    struct client *raw = open_raw(1, "/events?key=k");
    struct client *sse = open_sse(2, "/events?key=k", NULL);
    struct client *v1 = open_v1(3);
    say(3, "{\"sub\":\"k\"}");
    say(3, "{\"sub\":\"other\"}");
    raw->stalled = sse->stalled = v1->stalled = true;
    publish_big("k", 10);
    ck_assert_double_eq(lagging(), 3);
    pass_ms(29000);
    ck_assert(!raw->closed);
    size_t written = v1->out.size;
    pass_ms(1100);
    ck_assert(raw->closed);
    ck_assert_uint_eq(raw->code, 4008);
    ck_assert_str_eq(raw->reason, "missed 100-4 100-10 slow");
    ck_assert_uint_eq(v1->out.size, written); /* told when it reads again, not into its queue */
    rest(sse);
    rest(v1);
    drain_client(2);
    drain_client(3);
    ck_assert_ptr_nonnull(strstr(rest(sse), "event: missed\ndata: {\"from\":\"100-4\",\"to\":"
                                            "\"100-10\",\"reason\":\"slow\"}\n\n"));
    ck_assert_str_eq(frame(v1),
                     "{\"sub\":\"k\",\"status\":\"missed\",\"missed\":{\"from\":\"100-4\","
                     "\"to\":\"100-10\",\"reason\":\"slow\"},\"head\":\"100-10\"}");
    ck_assert_double_eq(lagging(), 0);
    room_publish("k", "11");
    room_publish("other", "1");
    ck_assert_ptr_nonnull(strstr(frame(v1), "\"id\":\"100-11\""));
    ck_assert_ptr_nonnull(strstr(frame(v1), "\"key\":\"other\""));
    ck_assert_ptr_nonnull(strstr(rest(sse), "id: 100-11\n"));
    ck_assert_uint_eq((unsigned)metric("stoa_missed_total", "reason=\"slow\""), 3);
}
END_TEST

/* The log has lost what lies between: that is the reader's own fault. */
START_TEST(test_lag_beyond_retention)
{
    struct client *raw = open_raw(1, "/events?key=k");
    struct client *v1 = open_v1(2);
    say(2, "{\"sub\":\"k\"}");
    raw->stalled = v1->stalled = true;
    publish_big("k", 20);
    room_trim("k", 18, MISS_EVICTED);
    rest(v1);
    drain_client(1);
    drain_client(2);
    ck_assert_uint_eq(raw->code, 4008);
    ck_assert_ptr_nonnull(strstr(raw->reason, " 100-18 slow"));
    ck_assert_ptr_nonnull(strstr(frame(v1), "\"to\":\"100-18\",\"reason\":\"slow\"}"));
    ck_assert_ptr_nonnull(strstr(frame(v1), "\"id\":\"100-19\""));
    ck_assert_ptr_nonnull(strstr(frame(v1), "\"id\":\"100-20\""));
    ck_assert_str_eq(frame(v1), "");
}
END_TEST

/* While it read nothing, the room's history was lost, and another has not begun. */
START_TEST(test_lag_beyond_history)
{
    struct client *v1 = open_v1(1);
    say(1, "{\"sub\":\"k\"}");
    v1->stalled = true;
    publish_big("k", 10);
    shard_down();
    room_reborn("k", 0);
    shard_up(true);
    pass_ms(1000);
    drain_client(1);
    pass_ms(1000);
    room_reborn("k", 2ul * HISTORY);
    room_publish("k", "1");
    room_publish("k", "2");
    pass_ms(1000);
    const char *text;
    unsigned missed = 0, events = 0;
    while (*(text = frame(v1)) != '\0') {
        missed += strstr(text, "\"reason\":\"epoch\"") != NULL;
        events += strstr(text, "\"id\":\"200-1\"") || strstr(text, "\"id\":\"200-2\"");
    }
    ck_assert_uint_eq(missed, 1);
    ck_assert_uint_eq(events, 2);
}
END_TEST

START_TEST(test_conflation_for_the_slow)
{
    struct client *slow = open_raw(1, "/events?key=k");
    slow->stalled = true;
    publish_big("k", 6);
    rest(slow);
    for (int n = 0; n < 100; n++)
        ask(100, "POST /publish?key=k", "Stoa-Conflate: progress", "50");
    ask(101, "POST /publish?key=k", "Stoa-Conflate: progress", "100");
    drain_client(1);
    ck_assert(strcmp(frame(slow), big) == 0); /* 5 and 6; four had been written */
    ck_assert(strcmp(frame(slow), big) == 0);
    ck_assert_str_eq(frame(slow), "100");
    ck_assert_str_eq(frame(slow), "");
}
END_TEST

START_TEST(test_slow_reader_leaves)
{
    struct client *slow = open_raw(1, "/events?key=k");
    slow->stalled = true;
    publish_big("k", 10);
    ck_assert_double_eq(lagging(), 1);
    hang_up(1, 1006);
    ck_assert_double_eq(lagging(), 0);
    pass_ms(31000);
}
END_TEST

/* Asking without reading the answers does not fill the memory either. */
START_TEST(test_answers_unread)
{
    struct client *v1 = open_v1(1);
    char ping[3000];
    memset(ping, 'x', sizeof ping);
    memcpy(ping, "{\"ping\":\"", 9);
    memcpy(ping + sizeof ping - 3, "\"}", 3);
    v1->stalled = true;
    for (int n = 0; n < 1000 && !v1->closed; n++)
        say(1, ping);
    ck_assert(v1->closed);
    ck_assert_uint_eq(v1->code, 4008);
    ck_assert_uint_lt(v1->out.size, 5 * CONN_QUEUE_MAX_BYTES);
}
END_TEST

START_TEST(test_stream_comment_waits)
{
    struct client *sse = open_sse(1, "/events?key=k", NULL);
    rest(sse);
    sse->stalled = true;
    room_publish("k", "1");
    rest(sse);
    pass_ms(40000);
    ck_assert_str_eq(rest(sse), "");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("slow");
    tcase_add_checked_fixture(tc, world_setup, world_teardown);
    tcase_add_test(tc, test_lag_and_recovery);
    tcase_add_test(tc, test_lag_after_a_wish_for_the_last);
    tcase_add_test(tc, test_pages_wait_for_the_reader);
    tcase_add_test(tc, test_too_slow);
    tcase_add_test(tc, test_lag_beyond_retention);
    tcase_add_test(tc, test_lag_beyond_history);
    tcase_add_test(tc, test_conflation_for_the_slow);
    tcase_add_test(tc, test_slow_reader_leaves);
    tcase_add_test(tc, test_answers_unread);
    tcase_add_test(tc, test_stream_comment_waits);
    Suite *suite = suite_create("gateway slow");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
