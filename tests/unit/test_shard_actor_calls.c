/* What is asked of rooms with handlers, their alarms, and runs that wait. */
#include "test_shard_actor_robot.h"

static struct rig_client *g;

static void begin(void)
{
    g = robot_begin();
}

static const struct message *do_it(const char *key, const char *input)
{
    return robot_call(g, (struct robot_call){.key = key, .verb = VERB_METHOD, .input = input});
}

static const struct message *send_it(const char *key, const char *input, uint64_t id)
{
    return robot_call(g,
                      (struct robot_call){.key = key, .verb = VERB_SEND, .input = input, .id = id});
}

START_TEST(calls_are_answered_behind_their_commit)
{
    begin();
    rig_sub(g, "c:1");
    (void)robot_join(g, "c:1", "s1", "ann", false); /* to nobody nothing is broadcast */
    ck_assert_str_eq(robot_state(g, "c:1"), "null");
    ck_result(do_it("c:1", "inc"), 0, "1");
    ck_assert_int_eq((int)VEC_AT(&g->got, struct got)[g->got.count - 1].m.type, MSG_RESULT);
    ck_result(send_it("c:1", "inc", 0), 0, "2");
    ck_result(robot_call(
                  g, (struct robot_call){.key = "c:1", .verb = VERB_BROADCAST, .input = "\"all\""}),
              0, "");
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:1 2:2 3:\"all\"");
    ck_assert_str_eq(robot_state(g, "c:1"), "2");
    rig_crash(rig);
    ck_assert_str_eq(robot_state(g, "c:1"), "2");
    robot_end();
}
END_TEST

START_TEST(what_only_reads_leaves_nothing)
{
    begin();
    uint64_t commits = store_mem_commits(rig->store);
    (void)robot_state(g, "c:1");
    (void)robot_connections(g, "c:1", "");
    ck_assert_uint_eq(robot.loaded, 0);
    ck_assert_uint_eq(store_mem_commits(rig->store), commits);
    robot_end();
}
END_TEST

START_TEST(callers_see_tags_and_not_what_is_for_the_log)
{
    begin();
    const struct message *m = do_it("c:1", "fail");
    ck_result(m, 500, "");
    ck_assert(slice_is(m->result.tag, "RoomExecutionError"));
    ck_assert(slice_is(m->result.text, "the room's handler failed"));
    m = do_it("c:1", "fail MyOwn");
    ck_assert(slice_is(m->result.tag, "MyOwn") && slice_is(m->result.text, "secret"));
    m = send_it("c:1", "bad", 0);
    ck_result(m, 400, "");
    ck_assert(slice_is(m->result.tag, "RoomValidationError"));
    m = robot_call(g, (struct robot_call){.key = "c:1", .verb = VERB_METHOD, .name = "none"});
    ck_result(m, 404, "");
    ck_assert(slice_is(m->result.tag, "NoSuchMethod"));
    m = robot_call(g, (struct robot_call){.key = "plain", .verb = VERB_SEND, .input = "inc"});
    ck_result(m, 409, "");
    ck_assert(slice_is(m->result.tag, "NoHandler"));
    robot_end();
}
END_TEST

START_TEST(a_call_with_an_id_is_done_once)
{
    begin();
    ck_result(send_it("c:1", "inc", 7), 0, "1");
    const struct message *m = send_it("c:1", "inc", 7);
    ck_result(m, 0, "1");
    ck_assert_uint_eq(m->result.dup, 1);
    rig_crash(rig);
    ck_result(send_it("c:1", "inc", 7), 0, "1");
    ck_result(send_it("c:1", "fail", 8), 500, "");
    m = send_it("c:1", "inc", 8);
    ck_result(m, 500, "");
    ck_assert(slice_is(m->result.tag, "RoomExecutionError"));
    ck_assert_str_eq(robot_state(g, "c:1"), "1");
    rig_jump(rig, 6 * MINUTE_MS); /* longer than answers are kept */
    ck_result(send_it("c:1", "inc", 7), 0, "2");
    robot_end();
}
END_TEST

START_TEST(items_stream_or_come_as_one_list)
{
    begin();
    ck_result(do_it("c:1", "item a;item b;inc"), 0, "[\"a\",\"b\",1]");
    const struct message *m = robot_call(
        g, (struct robot_call){
               .key = "c:1", .verb = VERB_METHOD, .input = "item a;item b;inc", .streams = true});
    ck_result(m, 0, "2");
    size_t n = rig_count(g, MSG_RESULT);
    ck_assert(rig_nth(g, MSG_RESULT, n - 3)->result.more == 1);
    ck_assert(slice_is(rig_nth(g, MSG_RESULT, n - 2)->result.json, "\"b\""));
    ck_assert_uint_eq(m->result.more, 0);
    robot_end();
}
END_TEST

/* ---- alarms ---- */

START_TEST(an_alarm_runs_when_it_is_due)
{
    begin();
    robot.on_alarm = "inc";
    (void)do_it("c:1", "alarm 5000");
    (void)do_it("c:2", "alarm 60000");
    (void)robot_diary();
    rig_wait(rig, 4000);
    ck_assert_str_eq(robot_diary(), "");
    rig_wait(rig, 1500);
    ck_assert_str_eq(robot_diary(), "alarm:-");
    rig_wait(rig, 20000);
    ck_assert_str_eq(robot_diary(), "");
    ck_assert_str_eq(robot_state(g, "c:1"), "1");
    rig_stop(rig);
    rig->now.wall_ms += MINUTE_MS; /* it became due while nobody was there */
    rig_start(rig);
    rig_pump(rig);
    ck_assert_str_eq(robot_state(g, "c:2"), "1");
    rig_crash(rig);
    ck_assert_str_eq(robot_state(g, "c:2"), "1");
    robot_end();
}
END_TEST

static double dead(void)
{
    return metric_value(metrics_gauge(rig->metrics, "stoa_alarms_dead", "", ""));
}

START_TEST(an_alarm_that_fails_is_tried_again_and_kept_when_dead)
{
    begin();
    robot.handler.traits.alarm_retries = 2;
    robot.on_alarm = "inc;fail";
    (void)do_it("c:1", "alarm 1000");
    (void)robot_diary();
    rig_wait(rig, 1000);
    ck_assert_str_eq(robot_diary(), "alarm:-");
    ck_assert_str_eq(strbuf_cstr(&robot.system_failure), "none");
    rig_wait(rig, 1500);
    ck_assert_str_eq(robot_diary(), "");
    rig_wait(rig, 1500); /* 2 s and a quarter at most */
    ck_assert_str_eq(robot_diary(), "alarm:-");
    ck_assert_str_eq(strbuf_cstr(&robot.system_failure), "secret");
    rig_crash(rig);
    rig_wait(rig, 5500);
    ck_assert_str_eq(robot_diary(), "alarm:-");
    ck_assert_str_eq(robot_state(g, "c:1"), "3");
    ck_assert_double_eq(dead(), 1);
    rig_crash(rig);
    rig_wait(rig, 60000);
    ck_assert_str_eq(robot_diary(), "");
    ck_assert_double_eq(dead(), 1);
    robot.on_alarm = "inc";
    (void)do_it("c:1", "alarm 1000"); /* anew */
    rig_wait(rig, 2000);
    ck_assert_str_eq(robot_state(g, "c:1"), "4");
    ck_assert_double_eq(dead(), 0);
    robot_end();
}
END_TEST

START_TEST(scheduling_in_a_failing_alarm_replaces_the_retry)
{
    begin();
    robot.on_alarm = "alarm 30000;fail";
    (void)do_it("c:1", "alarm 1000");
    rig_wait(rig, 1000);
    (void)robot_diary();
    rig_wait(rig, 29000);
    ck_assert_str_eq(robot_diary(), "");
    rig_wait(rig, 1500);
    ck_assert_str_eq(robot_diary(), "alarm:-");
    robot_end();
}
END_TEST

START_TEST(firing_an_alarm_takes_the_pending_one)
{
    begin();
    robot.on_alarm = "inc";
    (void)do_it("c:1", "alarm 5000");
    ck_result(robot_call(g, (struct robot_call){.key = "c:1", .verb = VERB_ALARM}), 0, "1");
    rig_wait(rig, 20000);
    ck_assert_str_eq(robot_state(g, "c:1"), "1");
    robot.on_alarm = "fail";
    ck_result(robot_call(g, (struct robot_call){.key = "c:1", .verb = VERB_ALARM}), 500, "");
    (void)robot_diary();
    rig_wait(rig, 20000);
    ck_assert_str_eq(robot_diary(), "");
    robot_end();
}
END_TEST

START_TEST(an_alarm_survives_a_full_disk)
{
    begin();
    robot.on_alarm = "inc";
    (void)do_it("c:1", "alarm 1000");
    store_mem_fill(rig->store, 1);
    rig_wait(rig, 5000);
    ck_assert_str_eq(robot_state(g, "c:1"), "null");
    store_mem_fill(rig->store, 0);
    rig_wait(rig, 3000);
    ck_assert_str_eq(robot_state(g, "c:1"), "1");
    robot_end();
}
END_TEST

START_TEST(purge_leaves_neither_state_nor_alarm_nor_log)
{
    begin();
    (void)do_it("c:1", "set 4;pub a;alarm 5000");
    (void)do_it("c:1", "purge");
    ck_assert_str_eq(robot_state(g, "c:1"), "null");
    const struct message *page = rig_replay(g, "c:1", (struct msg_replay_req){0});
    ck_assert_uint_eq(page->replay.miss_reason, MISS_PURGED);
    ck_assert_uint_eq(page->replay.items.count, 0);
    (void)robot_diary();
    rig_crash(rig);
    rig_wait(rig, 20000);
    ck_assert_str_eq(robot_diary(), "");
    ck_assert_str_eq(robot_state(g, "c:1"), "null");
    robot_end();
}
END_TEST

/* ---- waiting ---- */

START_TEST(a_run_that_sleeps_lets_others_pass)
{
    begin();
    rig_sub(g, "c:1");
    (void)robot_join(g, "c:1", "s1", "ann", false);
    ck_assert_ptr_null(do_it("c:1", "inc;sleep 2000;inc"));
    ck_result(do_it("c:1", "inc"), 0, "2");
    rig_wait(rig, 2500);
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:1 2:2 3:\"woke\" 4:3");
    ck_result(rig_nth(g, MSG_RESULT, 1), 0, "3");
    robot_end();
}
END_TEST

START_TEST(an_exclusive_room_does_nothing_else_meanwhile)
{
    begin();
    robot.handler.traits.exclusive = true;
    ck_assert_ptr_null(do_it("c:1", "inc;sleep 2000;inc"));
    ck_assert_ptr_null(do_it("c:1", "inc"));
    rig_wait(rig, 2500);
    ck_result(rig_nth(g, MSG_RESULT, 0), 0, "2");
    ck_result(rig_nth(g, MSG_RESULT, 1), 0, "3");
    robot_end();
}
END_TEST

START_TEST(siblings_are_asked_and_answer)
{
    begin();
    ck_result(do_it("c:1", "sib call 2 inc"), 0, "1");
    ck_result(do_it("c:1", "sib send 2 inc"), 0, "2");
    ck_result(do_it("c:1", "sib state 2"), 0, "2");
    ck_assert_str_eq(robot_state(g, "c:1"), "null");
    (void)robot_diary();
    ck_result(do_it("c:1", "sib call 2 fail Own"), 0, "");
    ck_assert_str_eq(robot_diary(), "call:- call:- wake:Own:secret");
    (void)do_it("c:1", "sib call 2 sleep 20000");
    (void)robot_diary();
    rig_wait(rig, 6000);
    ck_assert_str_eq(robot_diary(), "wake:RoomError:the room did not answer in time");
    robot_end();
}
END_TEST

START_TEST(a_circle_of_exclusive_rooms_is_told_at_once)
{
    begin();
    robot.handler.traits.exclusive = true;
    (void)do_it("c:1", "sib call 2 sib call 1 inc");
    ck_assert_str_eq(robot_diary(),
                     "call:- call:- wake:RoomError:reentrant: the room waits for this very call "
                     "wake:");
    robot_end();
}
END_TEST

START_TEST(a_chain_of_siblings_has_an_end)
{
    begin();
    (void)do_it("c:1", "sib call 2 sib call 3 sib call 2 sib call 3 sib call 2 sib call 3 "
                       "sib call 2 sib call 3 sib call 2 inc");
    const char *said = robot_diary();
    ck_assert(strstr(said, "wake:RoomError:the call came through 8 rooms already"));
    ck_assert_str_eq(robot_state(g, "c:2"), "null");
    (void)do_it("c:1", "sib call 2 sib call 3 sib call 2 sib call 3 sib call 2 sib call 3 "
                       "sib call 2 sib call 3 inc");
    ck_assert_str_eq(robot_state(g, "c:3"), "1");
    robot_end();
}
END_TEST

static void answer_from_afar(struct rig_client *router, uint64_t cid, const char *json)
{
    struct message m = {.type = json ? MSG_RESULT : MSG_NACK, .cid = cid, .slot = SLOT_UNKNOWN};
    if (json)
        m.result.json = slice_text(json);
    else
        m.nack.code = NACK_NOTOWNER;
    hub_send(router->hub, 1, &m);
    rig_pump(rig);
}

START_TEST(siblings_of_other_shards_are_asked_through_a_router)
{
    begin();
    ck_nack(rig_ask(g, (struct rig_pub){.key = "c:far", .text = "x", .ep = 9}), NACK_NOTOWNER);
    ck_assert_ptr_null(do_it("c:1", "sib call far inc")); /* its slot is another shard's now */
    rig_wait(rig, 4800);
    ck_assert_str_eq(robot_diary(), "call:-");
    rig_wait(rig, 300);
    ck_assert_str_eq(robot_diary(), "wake:RoomError:not on this shard, and no router is connected");
    ck_assert_ptr_null(do_it("c:1", "sib call far inc"));
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER); /* in time */
    rig_wait(rig, 150);
    const struct message *call = rig_nth(router, MSG_CALL, 0);
    ck_assert(call && slice_is(call->key, "c:far") && call->call.verb == VERB_METHOD);
    ck_assert(slice_is(call->call.name, "do") && slice_is(call->call.input, "\"inc\""));
    ck_assert(slice_is(call->call.chain, "c:1"));
    (void)robot_diary();
    answer_from_afar(router, call->cid, "7");
    ck_result(rig_nth(g, MSG_RESULT, 1), 0, "7");
    answer_from_afar(router, call->cid, "8"); /* to nobody */
    (void)do_it("c:1", "sib call far inc");
    (void)robot_diary();
    answer_from_afar(router, rig_nth(router, MSG_CALL, 1)->cid, NULL);
    ck_assert_ptr_null(rig_nth(router, MSG_CALL, 2));
    rig_wait(rig, 150); /* it has not run, so it may go again */
    ck_assert_uint_eq(rig_nth(router, MSG_CALL, 2)->cid, rig_nth(router, MSG_CALL, 1)->cid);
    rig_wait(rig, 1000); /* on its way: once is enough */
    ck_assert_ptr_null(rig_nth(router, MSG_CALL, 3));
    answer_from_afar(router, rig_nth(router, MSG_CALL, 2)->cid, "9");
    ck_result(rig_nth(g, MSG_RESULT, 2), 0, "9");
    (void)robot_diary();
    (void)do_it("c:1", "sib call far inc");
    for (size_t i = 3; rig_nth(router, MSG_CALL, i); i++) {
        answer_from_afar(router, rig_nth(router, MSG_CALL, i)->cid, NULL);
        rig_wait(rig, 150);
    }
    rig_wait(rig, 200);
    ck_assert_str_eq(robot_diary(),
                     "call:- wake:RoomError:the room's shard refused the call: NOTOWNER");
    robot_end();
}
END_TEST

START_TEST(a_room_of_another_shard_may_call)
{
    begin();
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    ck_result(
        robot_call(router,
                   (struct robot_call){.key = "c:1", .verb = VERB_METHOD, .input = "\"inc\""}),
        0, "1");
    robot.handler.traits.exclusive = true;
    ck_assert_ptr_null(do_it("c:1", "sleep 1000"));
    struct message m = {.type = MSG_CALL, .slot = SLOT_UNKNOWN, .key = slice_text("c:1")};
    m.call.verb = VERB_METHOD;
    m.call.chain = slice_text("c:1\nc:far");
    uint64_t cid = rig_send(router, m);
    rig_pump(rig);
    ck_result(&rig_answer(router, cid)->m, 500, "");
    robot_end();
}
END_TEST

START_TEST(a_run_that_waits_ends_with_the_shard)
{
    begin();
    (void)robot_join(g, "c:1", "s1", "ann", false);
    robot_input(g, "c:1", "s1", 1, "inc;sleep 5000;inc");
    rig_pump(rig);
    robot_leave(g, "c:1", "s1", 1000); /* its connection goes first */
    ck_assert_str_eq(robot_connections(g, "c:1", ""), "[]");
    rig_wait(rig, 1000);
    (void)robot_diary();
    rig_crash(rig);
    ck_assert_str_eq(robot_diary(), "abandon");
    ck_assert_str_eq(robot_state(g, "c:1"), "1");
    ck_assert_ptr_null(do_it("c:1", "sleep 3000;inc"));
    robot_input(g, "c:1", "s1", 1, "inc");
    rig_wait(rig, 4000);
    ck_assert_str_eq(robot_state(g, "c:1"), "2");
    robot_end();
}
END_TEST

START_TEST(a_retry_of_a_call_that_waits_gets_its_answer)
{
    begin();
    ck_assert_ptr_null(send_it("c:1", "inc;sleep 2000;inc", 5));
    ck_assert_ptr_null(send_it("c:1", "inc;sleep 2000;inc", 5));
    rig_wait(rig, 2500);
    ck_assert_uint_eq(rig_count(g, MSG_RESULT), 1);
    ck_assert_uint_eq(rig_nth(g, MSG_RESULT, 0)->cid, g->last_cid);
    ck_assert_str_eq(robot_state(g, "c:1"), "2");
    robot_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {calls_are_answered_behind_their_commit,
                                  what_only_reads_leaves_nothing,
                                  callers_see_tags_and_not_what_is_for_the_log,
                                  a_call_with_an_id_is_done_once,
                                  items_stream_or_come_as_one_list,
                                  an_alarm_runs_when_it_is_due,
                                  an_alarm_that_fails_is_tried_again_and_kept_when_dead,
                                  scheduling_in_a_failing_alarm_replaces_the_retry,
                                  firing_an_alarm_takes_the_pending_one,
                                  an_alarm_survives_a_full_disk,
                                  purge_leaves_neither_state_nor_alarm_nor_log,
                                  a_run_that_sleeps_lets_others_pass,
                                  an_exclusive_room_does_nothing_else_meanwhile,
                                  siblings_are_asked_and_answer,
                                  a_circle_of_exclusive_rooms_is_told_at_once,
                                  a_chain_of_siblings_has_an_end,
                                  siblings_of_other_shards_are_asked_through_a_router,
                                  a_room_of_another_shard_may_call,
                                  a_run_that_waits_ends_with_the_shard,
                                  a_retry_of_a_call_that_waits_gets_its_answer};
    return rig_run("shard_actor_calls", tests, sizeof tests / sizeof *tests);
}
