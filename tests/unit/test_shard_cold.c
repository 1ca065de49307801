/* Cold rooms: put away when nothing but their row matters, as they were when somebody asks. */
#include "test_shard_actor_robot.h"

static struct rig_client *g;

static void begin(void)
{
    g = robot_begin();
}

static const struct message *publish(const char *key, uint64_t id, int64_t ts)
{
    return rig_ask(g, (struct rig_pub){.key = key, .text = "x", .id = id, .ts = ts});
}

static double cold(void)
{
    return metric_value(metrics_gauge(rig->metrics, "stoa_rooms", "state=\"cold\"", ""));
}

static double stored(void)
{
    return metric_value(metrics_gauge(rig->metrics, "stoa_rooms", "state=\"stored\"", ""));
}

/* Everything retained and every id is past, and the walk has been everywhere. */
static void cool(void)
{
    rig_jump(rig, 2 * HOUR_MS);
    rig_wait(rig, MINUTE_MS);
}

static const char *keys(void)
{
    static char json[2000];
    struct message m = {.type = MSG_ASK, .slot = SLOT_UNKNOWN};
    m.ask.what = ASK_KEYS;
    uint64_t cid = rig_send(g, m);
    rig_pump(rig);
    snprintf(json, sizeof json, "%.*s", SLICE_FMT(rig_answer(g, cid)->m.answer.json));
    return json;
}

static void ck_goes_on(const char *key, uint64_t epoch, int64_t sent)
{
    const struct message *page = rig_replay(g, key, (struct msg_replay_req){.epoch = epoch});
    ck_assert_uint_eq(page->replay.room_epoch, epoch);
    ck_assert_uint_eq(page->replay.head, 2);
    ck_assert_uint_eq(page->replay.miss_to, 2);
    ck_assert_uint_eq(page->replay.miss_reason, MISS_EXPIRED);
    ck_nack(publish(key, 1, sent), NACK_STALE);
}

START_TEST(a_cold_room_goes_on_where_it_was)
{
    begin();
    int64_t sent = rig->now.wall_ms;
    (void)publish("a", 1, sent);
    uint64_t epoch = publish("a", 2, sent)->pack.room_epoch;
    (void)publish("b", 1, sent);
    ck_assert_double_eq(cold(), 0);
    cool();
    ck_assert_double_eq(cold(), 2);
    ck_assert_double_eq(stored(), 2);
    ck_assert_str_eq(keys(), "{\"keys\":[{\"key\":\"a\",\"head\":2,\"events\":0,\"bytes\":0},"
                             "{\"key\":\"b\",\"head\":1,\"events\":0,\"bytes\":0}],"
                             "\"more\":false}");
    ck_goes_on("a", epoch, sent);
    ck_assert_double_eq(cold(), 1);
    cool();
    ck_assert_double_eq(cold(), 2);
    rig_crash(rig); /* found on disk, put away before anybody asks */
    ck_assert_double_eq(cold(), 2);
    ck_goes_on("a", epoch, sent);
    ck_pack(publish("a", 3, 0), 3, 0);
    ck_assert_double_eq(cold(), 1);
    ck_assert_double_eq(stored(), 2);
    robot_end();
}
END_TEST

START_TEST(who_is_watched_is_not_put_away)
{
    begin();
    (void)publish("a", 1, 0);
    rig_sub(g, "a");
    cool();
    ck_assert_double_eq(cold(), 0);
    struct message m = {.type = MSG_UNSUB, .slot = SLOT_UNKNOWN, .key = slice_text("a")};
    (void)rig_send(g, m);
    rig_pump(rig);
    cool();
    ck_assert_double_eq(cold(), 1);
    rig_sub(g, "a");
    ck_assert_double_eq(cold(), 0);
    (void)publish("a", 2, 0);
    ck_assert_str_eq(rig_delivered(g, "a"), "2:x");
    robot_end();
}
END_TEST

static const struct message *do_it(const char *key, const char *input, uint64_t id)
{
    return robot_call(
        g, (struct robot_call){.key = key, .verb = VERB_METHOD, .input = input, .id = id});
}

START_TEST(a_room_with_state_is_put_away_with_it)
{
    begin();
    (void)do_it("c:1", "set 40", 0);
    ck_result(do_it("c:1", "inc", 7), 0, "41");
    rig_wait(rig, MINUTE_MS);
    ck_assert_double_eq(cold(), 0); /* its answer is remembered */
    ck_result(do_it("c:1", "inc", 7), 0, "41");
    cool();
    ck_assert_double_eq(cold(), 1);
    ck_assert_str_eq(robot_state(g, "c:1"), "41");
    cool();
    rig_jump(rig, 48 * HOUR_MS); /* its state keeps it */
    rig_wait(rig, 11 * MINUTE_MS);
    ck_assert_double_eq(cold(), 1);
    rig_crash(rig);
    ck_assert_double_eq(cold(), 1);
    ck_result(do_it("c:1", "inc", 8), 0, "42");
    robot_end();
}
END_TEST

START_TEST(alarms_and_sockets_keep_a_room)
{
    begin();
    robot.on_alarm = "inc";
    (void)do_it("c:1", "set 1;alarm 14400000", 0);
    (void)robot_join(g, "c:2", "s1", "ann", false);
    (void)do_it("c:2", "set 1", 0);
    cool();
    ck_assert_double_eq(cold(), 0);
    rig_jump(rig, 2 * HOUR_MS);
    ck_assert_str_eq(robot_state(g, "c:1"), "2");
    robot_leave(g, "c:2", "s1", 1000);
    cool();
    ck_assert_double_eq(cold(), 2);
    ck_assert_str_eq(robot_state(g, "c:1"), "2");
    robot_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_cold_room_goes_on_where_it_was,
        who_is_watched_is_not_put_away,
        a_room_with_state_is_put_away_with_it,
        alarms_and_sockets_keep_a_room,
    };
    return rig_run("shard_cold", tests, sizeof tests / sizeof *tests);
}
