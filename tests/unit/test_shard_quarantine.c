/* Rooms whose code is stopped again and again: they are not run any more, nothing else of them is
 * lost, and a release gives them back. */
#include "test_shard_actor_robot.h"

static struct rig_client *g;

static void begin(void)
{
    g = robot_begin();
    rig_sub(g, "c:1");
    rig_sub(g, "c:2");
}

static const struct message *do_it(const char *key, const char *input)
{
    return robot_call(g, (struct robot_call){.key = key, .verb = VERB_METHOD, .input = input});
}

static const struct message *release(const char *key)
{
    return robot_call(g, (struct robot_call){.key = key, .verb = VERB_RELEASE});
}

static void strike(const char *key, unsigned times)
{
    while (times-- > 0)
        ck_result(do_it(key, "set 9;endless"), 500, "");
}

static void ck_quarantined(const struct message *m)
{
    ck_result(m, 503, "");
    ck_assert(slice_is(m->result.tag, "RoomError"));
    ck_assert_ptr_nonnull(memmem(m->result.text.data, m->result.text.size, "quarantined", 11));
}

static double count(void)
{
    return metric_value(metrics_gauge(rig->metrics, "stoa_rooms_quarantined", "", ""));
}

START_TEST(three_stops_within_a_minute_end_a_rooms_code_and_no_other)
{
    begin();
    ck_result(do_it("c:1", "inc"), 0, "1");
    strike("c:1", 2);
    ck_result(do_it("c:1", "inc"), 0, "2"); /* what a stopped segment did is dropped */
    ck_assert_double_eq(count(), 0);
    strike("c:1", 1);
    ck_assert_double_eq(count(), 1);
    ck_assert_double_eq(rig_metric(rig, "stoa_handler_stops_total", ""), 3);
    (void)robot_diary();
    ck_quarantined(do_it("c:1", "inc"));
    ck_quarantined(robot_call(g, (struct robot_call){.key = "c:1", .verb = VERB_SEND}));
    ck_quarantined(robot_call(g, (struct robot_call){.key = "c:1", .verb = VERB_ALARM}));
    ck_joined(robot_join(g, "c:1", "s1", "ann", false), 503);
    ck_assert_str_eq(robot_diary(), "");
    ck_assert_str_eq(robot_state(g, "c:1"), "2");
    ck_result(do_it("c:2", "inc"), 0, "1");
    robot_end();
}
END_TEST

START_TEST(stops_further_apart_than_a_minute_do_not_count_together)
{
    begin();
    for (unsigned i = 0; i < 6; i++) {
        strike("c:1", 1);
        rig_wait(rig, 31 * 1000);
    }
    ck_assert_double_eq(count(), 0);
    strike("c:1", 2); /* with the one of 31 s ago */
    ck_assert_double_eq(count(), 1);
    robot_end();
}
END_TEST

START_TEST(a_quarantine_survives_a_restart_and_a_release_ends_it)
{
    begin();
    strike("c:1", 3);
    rig_crash(rig);
    ck_assert_double_eq(count(), 1);
    ck_quarantined(do_it("c:1", "inc"));
    ck_result(release("c:2"), 0, "false");
    ck_result(release("c:1"), 0, "true");
    ck_assert_double_eq(count(), 0);
    ck_result(do_it("c:1", "inc"), 0, "1");
    rig_crash(rig);
    ck_result(do_it("c:1", "inc"), 0, "2");
    strike("c:1", 2); /* it begins anew */
    ck_result(do_it("c:1", "inc"), 0, "3");
    robot_end();
}
END_TEST

START_TEST(identify_counts_as_well)
{
    begin();
    robot.hangs = true;
    ck_joined(robot_join(g, "c:1", "s1", "ann", false), 500);
    strike("c:1", 1);
    ck_joined(robot_join(g, "c:1", "s2", "ann", false), 500);
    ck_joined(robot_join(g, "c:1", "s3", "ann", false), 503);
    robot.hangs = false;
    ck_quarantined(do_it("c:1", "inc"));
    ck_result(release("c:1"), 0, "true");
    ck_joined(robot_join(g, "c:1", "s4", "ann", false), 0);
    robot_end();
}
END_TEST

START_TEST(connections_stay_and_on_close_comes_with_the_release)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    (void)robot_join(g, "c:1", "s2", "bob", false);
    strike("c:1", 3);
    (void)robot_diary();
    rig_forget(g);
    robot_input(g, "c:1", "s1", 1, "say hello");
    rig_pump(rig);
    ck_assert_uint_eq(rig_nth(g, MSG_INPUT_ACK, 0)->input_ack.counter, 1); /* taken, dropped */
    ck_assert_double_eq(rig_metric(rig, "stoa_quarantined_frames_total", ""), 1);
    ck_assert_uint_eq(rig_count(g, MSG_CLOSE), 0);
    ck_result(robot_call(
                  g, (struct robot_call){.key = "c:1", .verb = VERB_BROADCAST, .input = "\"off\""}),
              0, "");
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:\"off\"");
    robot_leave(g, "c:1", "s2", 1001);
    rig_crash(rig);
    ck_joined(robot_join(g, "c:1", "s1", "", true), 0);
    rig_wait(rig, 60000);
    ck_assert_str_eq(robot_diary(), "");
    ck_assert_str_eq(robot_connections(g, "c:1", ""),
                     "[{\"id\":\"ann\",\"tags\":[\"t\"],\"state\":{\"n\":1}}]");
    ck_result(release("c:1"), 0, "true");
    rig_wait(rig, 30000);
    ck_assert_str_eq(robot_diary(), "close:s2:1001:recovered");
    robot_input(g, "c:1", "s1", 2, "inc");
    rig_pump(rig);
    ck_assert_str_eq(robot_state(g, "c:1"), "1");
    robot_end();
}
END_TEST

START_TEST(alarms_wait_for_the_release)
{
    begin();
    robot.on_alarm = "inc";
    ck_result(do_it("c:1", "alarm 30000"), 0, "");
    strike("c:1", 3);
    rig_wait(rig, 45000);
    rig_crash(rig);
    rig_wait(rig, 45000);
    ck_assert_str_eq(robot_state(g, "c:1"), "null");
    ck_result(release("c:1"), 0, "true");
    rig_wait(rig, 15000);
    ck_assert_str_eq(robot_state(g, "c:1"), "1");
    robot_end();
}
END_TEST

START_TEST(runs_that_wait_end_with_it)
{
    begin();
    struct message m = {.type = MSG_CALL, .slot = SLOT_UNKNOWN, .key = slice_text("c:1")};
    m.call.verb = VERB_METHOD;
    m.call.name = slice_text("do");
    m.call.input = slice_text("sleep 20000;inc");
    uint64_t cid = rig_send(g, m);
    rig_pump(rig);
    strike("c:1", 3);
    ck_assert_ptr_nonnull(rig_answer(g, cid));
    ck_result(&rig_answer(g, cid)->m, 500, "");
    rig_wait(rig, 30000);
    ck_assert_str_eq(robot_state(g, "c:1"), "null");
    robot_end();
}
END_TEST

START_TEST(a_full_disk_leaves_it_as_it_was)
{
    begin();
    ck_result(do_it("c:1", "inc"), 0, "1");
    strike("c:1", 2);
    store_mem_fragment(rig->store, true);
    ck_nack(do_it("c:1", "endless"), NACK_DISK);
    ck_assert_double_eq(count(), 0);
    store_mem_fragment(rig->store, false);
    rig_wait(rig, 5000);
    ck_result(do_it("c:1", "inc"), 0, "2");
    strike("c:1", 3);
    ck_assert_double_eq(count(), 1);
    store_mem_fill(rig->store, 1);
    ck_nack(release("c:1"), NACK_DISK);
    store_mem_fill(rig->store, 0);
    rig_wait(rig, 5000);
    ck_quarantined(do_it("c:1", "inc"));
    ck_result(release("c:1"), 0, "true");
    ck_result(do_it("c:1", "inc"), 0, "3");
    robot_end();
}
END_TEST

START_TEST(what_ended_the_last_process_begins_in_quarantine)
{
    const struct shard_suspect suspects[] = {
        {.key = slice_text("c:1"), .why = slice_text("it came back no more")},
        {.key = slice_text("c:2"), .whole_type = true, .why = slice_text("three crashes")}};
    begin();
    rig_stop(rig);
    rig->suspects = suspects;
    rig->n_suspects = 1;
    rig_start(rig);
    rig_pump(rig);
    rig->n_suspects = 0;
    ck_quarantined(do_it("c:1", "inc"));
    ck_result(do_it("c:3", "inc"), 0, "1");
    rig_stop(rig);
    rig->suspects = suspects + 1;
    rig->n_suspects = 1;
    rig_start(rig);
    rig_pump(rig);
    rig->n_suspects = 0;
    ck_quarantined(do_it("c:1", "inc"));
    ck_quarantined(do_it("c:3", "inc"));
    rig_crash(rig);
    ck_quarantined(do_it("c:3", "inc"));
    ck_assert_double_eq(count(), 2);
    ck_result(release("c:3"), 0, "false"); /* it began with another room */
    ck_result(release("c:2"), 0, "true");
    ck_result(do_it("c:3", "inc"), 0, "2");
    ck_quarantined(do_it("c:1", "inc"));
    robot_end();
}
END_TEST

static void on_enter(void *ctx, struct slice key, const char *phase)
{
    (void)ctx;
    (void)key;
    (void)phase;
}

static int64_t on_leave(void *ctx)
{
    (void)ctx;
    return NS_PER_S;
}

START_TEST(a_turn_whose_code_takes_long_ends_early)
{
    static const char *const keys[] = {"c:1", "c:2", "c:3"};
    begin();
    rig_stop(rig);
    rig->watch = (struct shard_watch){.enter = on_enter, .leave = on_leave};
    rig_start(rig);
    rig_pump(rig);
    rig_forget(g);
    for (size_t i = 0; i < 3; i++) {
        struct message m = {.type = MSG_CALL, .slot = SLOT_UNKNOWN, .key = slice_text(keys[i])};
        m.call.verb = VERB_METHOD;
        m.call.name = slice_text("do");
        m.call.input = slice_text("inc");
        (void)rig_send(g, m);
    }
    rig_feed(rig);
    uint64_t commits = store_mem_commits(rig->store);
    for (unsigned i = 1; i <= 3; i++) {
        ck_assert_int_eq(shard_turn(rig->shard, rig->now), i < 3);
        ck_assert_uint_eq(store_mem_commits(rig->store), commits + i);
    }
    rig_pump(rig);
    ck_assert_uint_eq(rig_count(g, MSG_RESULT), 3);
    ck_assert_double_eq(metric_value(metrics_seconds(rig->metrics, "stoa_handler_seconds",
                                                     "type=\"c\",phase=\"call\"", "")),
                        3);
    robot_end();
}
END_TEST

START_TEST(operators_see_it_listed)
{
    begin();
    strike("c:1", 3);
    struct message m = {.type = MSG_ASK, .slot = SLOT_UNKNOWN};
    m.ask.what = ASK_QUARANTINE;
    uint64_t cid = rig_send(g, m);
    rig_pump(rig);
    struct slice json = rig_answer(g, cid)->m.answer.json;
    static const char expected[] =
        "\"why\":\"stopped 3 times within 60 s, last in on_call: too long\"}],\"refused\":\"\"}";
    ck_assert(json.size > sizeof expected);
    ck_assert_int_eq(memcmp(json.data, "{\"rooms\":[{\"key\":\"c:1\",\"type\":\"c\",", 33), 0);
    ck_assert(slice_is(slice_of(json.data + json.size - (sizeof expected - 1), sizeof expected - 1),
                       expected));
    robot_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        three_stops_within_a_minute_end_a_rooms_code_and_no_other,
        stops_further_apart_than_a_minute_do_not_count_together,
        a_quarantine_survives_a_restart_and_a_release_ends_it,
        identify_counts_as_well,
        connections_stay_and_on_close_comes_with_the_release,
        alarms_wait_for_the_release,
        runs_that_wait_end_with_it,
        a_full_disk_leaves_it_as_it_was,
        what_ended_the_last_process_begins_in_quarantine,
        a_turn_whose_code_takes_long_ends_early,
        operators_see_it_listed,
    };
    return rig_run("shard_quarantine", tests, sizeof tests / sizeof *tests);
}
