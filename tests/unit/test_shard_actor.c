/* Connections of rooms with handlers: they join, say things, leave once, through restarts, lost
 * links and full disks. */
#include "test_shard_actor_robot.h"

static struct rig_client *g;

#define SAY(counter_, frame_)                              \
    do {                                                   \
        robot_input(g, "c:1", "s1", (counter_), (frame_)); \
        rig_pump(rig);                                     \
    } while (0)

static void begin(void)
{
    g = robot_begin();
    rig_sub(g, "c:1");
}

static uint64_t acked(void)
{
    size_t n = rig_count(g, MSG_INPUT_ACK);
    return n ? rig_nth(g, MSG_INPUT_ACK, n - 1)->input_ack.counter : 0;
}

START_TEST(a_connection_joins_speaks_and_leaves)
{
    begin();
    robot.on_connect = "set 5;say hello";
    const struct message *joined = robot_join(g, "c:1", "s1", "ann", false);
    ck_joined(joined, 0);
    ck_assert(slice_is(joined->joined.id, "ann") && slice_is(joined->joined.tags, "[\"t\"]"));
    ck_assert_uint_eq(joined->joined.head, 0); /* so that it hears on_connect's own */
    ck_assert_uint_ne(joined->joined.room_epoch, 0);
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:\"hello\"");
    SAY(1, "say one;eph two");
    SAY(2, "inc");
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:\"hello\" 2:\"one\" 2e:\"two\" 3:6");
    ck_assert_uint_eq(acked(), 2);
    ck_assert_str_eq(robot_connections(g, "c:1", ""),
                     "[{\"id\":\"ann\",\"tags\":[\"t\"],\"state\":{\"n\":1}}]");
    ck_assert_str_eq(robot_connections(g, "c:1", "u"), "[]");
    robot_leave(g, "c:1", "s1", 1000);
    robot_leave(g, "c:1", "s1", 1000);
    ck_assert_str_eq(robot_connections(g, "c:1", ""), "[]");
    ck_assert_str_eq(robot_diary(), "connect:s1 event:s1 event:s1 close:s1:1000:clean");
    robot_end();
}
END_TEST

START_TEST(who_joined_is_told_before_what_it_is_sent)
{
    begin();
    robot.on_connect = "say hello";
    (void)robot_join(g, "c:1", "s1", "ann", false);
    size_t at[2] = {0}; /* of JOINED and DELIVER */
    for (size_t i = 0; i < g->got.count; i++) {
        uint64_t type = VEC_AT(&g->got, struct got)[i].m.type;
        if (type == MSG_JOINED)
            at[0] = i;
        if (type == MSG_DELIVER)
            at[1] = i;
    }
    ck_assert_uint_lt(at[0], at[1]);
    SAY(1, "say bye;bye");
    const struct message *close = rig_nth(g, MSG_CLOSE, 0);
    ck_assert(close && slice_is(close->close.session, "s1") && close->close.code == 4001);
    ck_assert_int_eq((int)VEC_AT(&g->got, struct got)[g->got.count - 1].m.type, MSG_CLOSE);
    ck_assert_str_eq(robot_connections(g, "c:1", ""), "[]"); /* closing counts as gone */
    robot_leave(g, "c:1", "s1", 4001);
    ck_assert_str_eq(robot_diary(), "connect:s1 event:s1 close:s1:4001:clean");
    robot_end();
}
END_TEST

START_TEST(who_lost_the_answer_hears_what_on_connect_said)
{
    begin();
    robot.on_connect = "say hello";
    struct message m = {.type = MSG_JOIN, .slot = SLOT_UNKNOWN, .key = slice_text("c:1")};
    m.join.session = slice_text("s1");
    m.join.request = slice_text("ann");
    (void)rig_send(g, m);
    rig_feed(rig);
    (void)shard_turn(rig->shard, rig->now); /* dies with the answer on the way */
    rig_crash(rig);
    const struct message *joined = robot_join(g, "c:1", "s1", "ann", false);
    ck_joined(joined, 0);
    ck_assert_uint_eq(joined->joined.head, 0);
    ck_assert_str_eq(robot_diary(), "connect:s1");
    robot_end();
}
END_TEST

START_TEST(inputs_run_once_and_in_order)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    SAY(2, "say gap"); /* nothing: the first one is still to come */
    ck_assert_uint_eq(rig_count(g, MSG_INPUT_ACK), 0);
    SAY(1, "say a");
    SAY(1, "say a");
    SAY(2, "say b");
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:\"a\" 2:\"b\"");
    ck_assert_uint_eq(acked(), 2);
    robot_input(g, "c:1", "s1", 3, "say c");
    rig_feed(rig); /* dies with it in the FIFO */
    rig_crash(rig);
    const struct message *joined = robot_join(g, "c:1", "s1", "", true);
    ck_joined(joined, 0);
    ck_assert_uint_eq(joined->joined.counter, 2);
    rig_forget(g);
    rig_sub(g, "c:1");
    for (uint64_t i = 1; i <= 3; i++)
        SAY(i, "say again");
    ck_assert_str_eq(rig_delivered(g, "c:1"), "3:\"again\"");
    robot_input(g, "c:1", "nobody", 1, "say x");
    rig_pump(rig);
    const struct message *close = rig_nth(g, MSG_CLOSE, 0);
    ck_assert(close && slice_is(close->close.session, "nobody") && close->close.code == 1012);
    robot_end();
}
END_TEST

START_TEST(who_is_not_confirmed_after_a_restart_leaves_once)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    (void)robot_join(g, "c:1", "s2", "bob", false);
    ck_assert_str_eq(robot_diary(), "connect:s1 connect:s2");
    rig_crash(rig);
    ck_joined(robot_join(g, "c:1", "s2", "", true), 0);
    rig_wait(rig, 14000);
    ck_assert_str_eq(robot_diary(), "");
    rig_wait(rig, 2000);
    ck_assert_str_eq(robot_diary(), "close:s1:1006:recovered");
    rig_wait(rig, 60000);
    ck_assert_str_eq(robot_diary(), "");
    ck_joined(robot_join(g, "c:1", "s1", "", true), 410);
    rig_crash(rig);
    rig_wait(rig, 60000);
    ck_assert_str_eq(robot_diary(), "close:s2:1006:recovered");
    rig_crash(rig);
    rig_wait(rig, 60000);
    ck_assert_str_eq(robot_diary(), "");
    robot_end();
}
END_TEST

START_TEST(who_is_not_confirmed_after_a_lost_link_leaves_once)
{
    begin();
    struct rig_client *other = rig_connect(rig, ROLE_GATEWAY);
    (void)robot_join(g, "c:1", "s1", "ann", false);
    (void)robot_join(other, "c:1", "s2", "bob", false);
    (void)robot_join(other, "c:2", "s3", "eve", false);
    rig_wait(rig, 20000); /* the rooms are out of memory */
    (void)robot_diary();
    rig_disconnect(other);
    rig_wait(rig, 14000);
    ck_assert_str_eq(robot_diary(), "");
    rig_wait(rig, 30000);
    ck_assert_str_eq(robot_diary(), "close:s2:1006:recovered close:s3:1006:recovered");
    ck_assert_str_eq(robot_connections(g, "c:1", "t"),
                     "[{\"id\":\"ann\",\"tags\":[\"t\"],\"state\":{\"n\":1}}]");
    robot_end();
}
END_TEST

START_TEST(an_idle_room_leaves_memory_and_is_back_before_it_is_asked)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    SAY(1, "set 7;att [1,2]");
    ck_assert_uint_eq(robot.loaded, 1);
    rig_wait(rig, 12000);
    ck_assert_str_eq(robot_state(g, "c:1"), "7"); /* reading does not wake it */
    ck_assert_uint_eq(robot.loaded, 1);
    SAY(2, "inc");
    ck_assert_uint_eq(robot.loaded, 2);
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:8");
    ck_assert_str_eq(robot_connections(g, "c:1", "t"),
                     "[{\"id\":\"ann\",\"tags\":[\"t\"],\"state\":[1,2]}]");
    SAY(3, "bye"); /* its link was not forgotten */
    ck_assert_uint_eq(rig_count(g, MSG_CLOSE), 1);
    robot_end();
}
END_TEST

START_TEST(duplicates_are_allowed_replaced_or_rejected)
{
    begin();
    ck_joined(robot_join(g, "c:1", "s1", "ann", false), 0);
    ck_joined(robot_join(g, "c:1", "s2", "ann", false), 0);
    ck_assert_uint_eq(rig_count(g, MSG_CLOSE), 0);
    robot.handler.traits.on_duplicate = DUPLICATE_REJECT;
    const struct message *refused = robot_join(g, "c:1", "s3", "ann", false);
    ck_joined(refused, 409);
    ck_assert(slice_is(refused->joined.tag, "Duplicate"));
    robot.handler.traits.on_duplicate = DUPLICATE_REPLACE;
    robot.on_connect = "fail";
    ck_joined(robot_join(g, "c:1", "s4", "ann", false), 500);
    ck_assert_uint_eq(rig_count(g, MSG_CLOSE), 0); /* who does not get in replaces nobody */
    robot.on_connect = NULL;
    ck_joined(robot_join(g, "c:1", "s5", "ann", false), 0);
    ck_assert_uint_eq(rig_count(g, MSG_CLOSE), 2);
    ck_assert_uint_eq(rig_nth(g, MSG_CLOSE, 1)->close.code, 1012);
    (void)robot_diary();
    robot_leave(g, "c:1", "s1", 1012);
    rig_crash(rig); /* that s2 was replaced is on disk */
    ck_joined(robot_join(g, "c:1", "s2", "", true), 0);
    ck_joined(robot_join(g, "c:1", "s5", "", true), 0);
    robot_leave(g, "c:1", "s2", 1012);
    ck_assert_str_eq(robot_diary(), "close:s1:1012:clean:replaced close:s2:1012:clean:replaced");
    rig_crash(rig); /* nobody is confirmed: it makes way */
    robot.handler.traits.on_duplicate = DUPLICATE_REJECT;
    ck_joined(robot_join(g, "c:1", "s6", "ann", false), 0);
    ck_assert_str_eq(robot_diary(), "close:s5:1006:recovered connect:s6");
    robot_end();
}
END_TEST

START_TEST(who_takes_a_lost_place_hears_nothing_from_before_its_connect)
{
    begin();
    robot.handler.traits.on_duplicate = DUPLICATE_REPLACE;
    ck_joined(robot_join(g, "c:1", "s1", "ann", false), 0);
    rig_crash(rig);
    robot.on_close = "say left";
    robot.on_connect = "say here";
    const struct message *joined = robot_join(g, "c:1", "s2", "ann", false);
    ck_joined(joined, 0);
    ck_assert_str_eq(robot_diary(), "connect:s1 close:s1:1006:recovered connect:s2");
    ck_assert_uint_eq(joined->joined.head, 1);
    robot_end();
}
END_TEST

START_TEST(who_may_not_join_is_told_why)
{
    begin();
    robot.refuses = true;
    const struct message *m = robot_join(g, "c:1", "s1", "ann", false);
    ck_joined(m, 403);
    ck_assert(slice_is(m->joined.text, "not you"));
    robot.refuses = false;
    robot.handler.traits.max_connection_state = 6; /* {"n":1} has 7 */
    m = robot_join(g, "c:1", "s2", "ann", false);
    ck_joined(m, 413);
    ck_assert(slice_is(m->joined.tag, "AttachmentTooLargeError"));
    robot.handler.traits.max_connection_state = 2048;
    robot.handler.traits.max_connections = 1;
    ck_joined(robot_join(g, "c:1", "s3", "ann", false), 0);
    m = robot_join(g, "c:1", "s4", "bob", false);
    ck_joined(m, 409);
    ck_assert(slice_is(m->joined.tag, "RoomFull"));
    m = robot_join(g, "events-have-none", "s5", "ann", false);
    ck_joined(m, 409);
    ck_assert(slice_is(m->joined.tag, "NoHandler"));
    robot_end();
}
END_TEST

START_TEST(an_on_connect_that_fails_leaves_nothing)
{
    begin();
    robot.on_connect = "set 1;say hello;fail";
    const struct message *m = robot_join(g, "c:1", "s1", "ann", false);
    ck_joined(m, 500);
    ck_assert(slice_is(m->joined.text, "the room's handler failed"));
    ck_assert_str_eq(rig_delivered(g, "c:1"), "");
    ck_assert_str_eq(robot_state(g, "c:1"), "null");
    ck_assert_str_eq(robot_connections(g, "c:1", ""), "[]");
    robot.handles_errors = true;
    ck_joined(robot_join(g, "c:1", "s2", "ann", false), 0);
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:\"hello\" 2:\"sorry\"");
    rig_crash(rig);
    rig_wait(rig, 30000);
    ck_assert_str_eq(robot_diary(), "connect:s1 connect:s2 error:connect close:s2:1006:recovered");
    robot_end();
}
END_TEST

START_TEST(a_frame_that_fails_costs_no_connection)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    SAY(1, "say kept;fail"); /* what it did before stays */
    SAY(2, "bad");
    robot.handler.traits.rollback = true;
    SAY(3, "say dropped;fail");
    robot.on_decode_error = "say what";
    SAY(4, "bad");
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:\"kept\" 2:\"what\"");
    ck_assert_uint_eq(acked(), 4);
    ck_assert_double_eq(rig_metric(rig, "stoa_handler_errors_total", "type=\"c\",phase=\"event\""),
                        2);
    ck_assert_double_eq(rig_metric(rig, "stoa_undecoded_frames_total", ""), 1);
    robot_end();
}
END_TEST

START_TEST(a_turn_without_space_leaves_nothing)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    SAY(1, "set 1");
    (void)robot_diary();
    store_mem_fill(rig->store, 2);
    (void)robot_call(g, (struct robot_call){.key = "c:9", .verb = VERB_SEND, .input = "set 3"});
    SAY(2, "inc;att 3");
    const struct message *ack = rig_nth(g, MSG_INPUT_ACK, rig_count(g, MSG_INPUT_ACK) - 1);
    ck_assert_uint_eq(ack->input_ack.code, NACK_DISK);
    ck_assert_uint_eq(ack->input_ack.counter, 1);
    ck_assert_int_eq((int)robot_join(g, "c:1", "s2", "bob", false)->type, MSG_NACK);
    robot_leave(g, "c:1", "s1", 1000); /* runs later */
    ck_assert_str_eq(rig_delivered(g, "c:1"), "");
    ck_assert_str_eq(robot_state(g, "c:1"), "1");
    store_mem_fill(rig->store, 0);
    rig_wait(rig, 1000);
    (void)robot_diary();
    rig_wait(rig, 20000);
    ck_assert_str_eq(robot_diary(), "close:s1:1006:recovered");
    rig_wait(rig, 60000);
    ck_assert_str_eq(robot_diary(), "");
    robot_end();
}
END_TEST

START_TEST(broadcasts_are_for_those_who_were_there)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    SAY(1, "pub a;say b;pub c;say d");
    const struct message *page = rig_replay(g, "c:1", (struct msg_replay_req){.mode = REPLAY_ALL});
    ck_assert_str_eq(rig_items(&page->replay.items), "1:\"a\" 2:\"b\" 3:\"c\" 4:\"d\"");
    ck_assert_uint_ne(page->replay.items.at[1].flags & EVENT_TRANSIENT, 0);
    page = rig_replay(g, "c:1", (struct msg_replay_req){.mode = REPLAY_LATEST});
    ck_assert_str_eq(rig_items(&page->replay.items), "1:\"a\" 3:\"c\"");
    ck_assert_uint_eq(page->replay.items.at[1].prev, 1);
    ck_assert_uint_eq(page->replay.after, 4);
    page = rig_replay(g, "c:1", (struct msg_replay_req){.mode = REPLAY_ALL, .last = 2});
    ck_assert_str_eq(rig_items(&page->replay.items), "1:\"a\" 3:\"c\"");
    rig_crash(rig);
    page = rig_replay(g, "c:1", (struct msg_replay_req){.mode = REPLAY_LATEST, .last = 1});
    ck_assert_str_eq(rig_items(&page->replay.items), "3:\"c\"");
    robot_end();
}
END_TEST

START_TEST(broadcasts_crowd_out_nothing_that_is_retained)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    for (uint64_t i = 1; i <= 3; i++)
        SAY(i, "say x");
    SAY(4, "pub a");
    uint64_t epoch = rig_nth(g, MSG_JOINED, 0)->joined.room_epoch;
    ck_assert_double_eq(metric_value(metrics_gauge(rig->metrics, "stoa_retained_bytes", "", "")),
                        3);
    rig_jump(rig, 6 * MINUTE_MS); /* more than a broadcast is kept for */
    const struct message *page = rig_replay(
        g, "c:1", (struct msg_replay_req){.mode = REPLAY_LATEST, .epoch = epoch, .after = 1});
    ck_assert_uint_eq(page->replay.miss_reason, MISS_NONE);
    ck_assert_str_eq(rig_items(&page->replay.items), "4:\"a\"");
    ck_assert_uint_eq(page->replay.items.at[0].prev, 1);
    ck_assert_double_eq(metric_value(metrics_gauge(rig->metrics, "stoa_retained_events", "", "")),
                        1);
    robot_end();
}
END_TEST

START_TEST(another_handler_begins_anew_and_keeps_the_connections)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    SAY(1, "set 4");
    ck_assert_ptr_null(robot_call(
        g, (struct robot_call){.key = "c:2", .verb = VERB_METHOD, .input = "sleep 1000"}));
    struct handler other = robot.handler;
    rig->types[1].handler = &other;
    (void)robot_diary();
    shard_retypes(rig->shard, rig->types, rig->n_types);
    ck_assert_str_eq(robot_diary(), "abandon");
    rig_pump(rig);
    ck_assert_uint_eq(rig_nth(g, MSG_NACK, 0)->nack.code, NACK_BUSY);
    SAY(2, "inc");
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:5");
    ck_assert_uint_eq(robot.loaded, 3);
    robot_end();
}
END_TEST

#define DEAD_MS 3500 /* a link that is silent for so long is down; far less than a confirmation */

/* Killed, and there again later: nobody waits for what it had, and what the new one has stays. */
START_TEST(a_gateway_that_starts_anew_ends_its_connections)
{
    begin();
    struct rig_client *other = rig_connect(rig, ROLE_GATEWAY);
    (void)robot_join(g, "c:1", "s1", "ann", false);
    (void)robot_join(g, "c:2", "s2", "ann", false);
    (void)robot_join(other, "c:1", "o1", "bob", false);
    (void)robot_diary();
    rig_kill(g);
    rig_wait(rig, 11000); /* c:2 leaves memory, its connection unconfirmed */
    ck_assert_str_eq(robot_diary(), "");
    struct rig_client *anew = rig_namesake(g);
    rig_pump(rig);
    ck_assert_str_eq(robot_diary(), "close:s1:1006:recovered close:s2:1006:recovered");
    (void)robot_join(anew, "c:1", "n1", "ann", false);
    rig_wait(rig, 60000);
    ck_assert_str_eq(robot_connections(anew, "c:1", ""),
                     "[{\"id\":\"bob\",\"tags\":[\"t\"],\"state\":{\"n\":1}},"
                     "{\"id\":\"ann\",\"tags\":[\"t\"],\"state\":{\"n\":1}}]");
    robot_end();
}
END_TEST

/* The new one is there before the silence of the old one is noticed. */
START_TEST(a_gateway_that_starts_anew_at_once)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    (void)robot_diary();
    rig_kill(g);
    rig_wait(rig, 500);
    struct rig_client *anew = rig_namesake(g);
    (void)robot_join(anew, "c:1", "n1", "ann", false);
    ck_assert_str_eq(robot_diary(), "connect:n1");
    rig_wait(rig, DEAD_MS);
    ck_assert_str_eq(robot_diary(), "close:s1:1006:recovered");
    rig_wait(rig, 60000);
    ck_assert_str_eq(robot_diary(), "");
    robot_input(anew, "c:1", "n1", 1, "say x");
    rig_pump(rig);
    ck_assert_str_eq(robot_diary(), "event:n1");
    robot_end();
}
END_TEST

/* Two that live under one name: when one is cut off, it is waited for. */
START_TEST(namesakes_that_live_are_two)
{
    begin();
    struct rig_client *other = rig_namesake(g);
    rig_wait(rig, 2000); /* both are heard */
    (void)robot_join(g, "c:1", "s1", "ann", false);
    (void)robot_diary();
    rig_kill(g);
    rig_wait(rig, DEAD_MS);
    rig_disconnect(other);
    other = rig_namesake(other); /* a third, begun after the last word of both */
    rig_pump(rig);
    ck_assert_str_eq(robot_diary(), "close:s1:1006:recovered");
    robot_end();
    begin();
    other = rig_namesake(g);
    rig_wait(rig, 2000);
    (void)robot_join(g, "c:1", "s1", "ann", false);
    (void)robot_diary();
    rig_kill(g);
    rig_wait(rig, DEAD_MS + 8000);
    ck_assert_str_eq(robot_diary(), "");
    rig_wait(rig, 10000);
    ck_assert_str_eq(robot_diary(), "close:s1:1006:recovered");
    robot_end();
}
END_TEST

/* More connections than one op ends. */
START_TEST(many_connections_end_at_once)
{
    char name[16];
    begin();
    for (int i = 0; i < 600; i++) {
        snprintf(name, sizeof name, "s%d", i);
        (void)robot_join(g, "c:1", name, name, false);
    }
    rig_kill(g);
    rig_wait(rig, DEAD_MS);
    struct rig_client *anew = rig_namesake(g);
    rig_pump(rig);
    ck_assert_str_eq(robot_connections(anew, "c:1", ""), "[]");
    robot_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {a_connection_joins_speaks_and_leaves,
                                  who_joined_is_told_before_what_it_is_sent,
                                  who_lost_the_answer_hears_what_on_connect_said,
                                  inputs_run_once_and_in_order,
                                  who_is_not_confirmed_after_a_restart_leaves_once,
                                  who_is_not_confirmed_after_a_lost_link_leaves_once,
                                  an_idle_room_leaves_memory_and_is_back_before_it_is_asked,
                                  duplicates_are_allowed_replaced_or_rejected,
                                  who_takes_a_lost_place_hears_nothing_from_before_its_connect,
                                  who_may_not_join_is_told_why,
                                  an_on_connect_that_fails_leaves_nothing,
                                  a_frame_that_fails_costs_no_connection,
                                  a_turn_without_space_leaves_nothing,
                                  broadcasts_are_for_those_who_were_there,
                                  broadcasts_crowd_out_nothing_that_is_retained,
                                  another_handler_begins_anew_and_keeps_the_connections,
                                  a_gateway_that_starts_anew_ends_its_connections,
                                  a_gateway_that_starts_anew_at_once,
                                  namesakes_that_live_are_two,
                                  many_connections_end_at_once};
    return rig_run("shard_actor", tests, sizeof tests / sizeof *tests);
}
