/* Rates of rooms: what passes, what is refused and when it may come again, what costs nothing. */
#include "test_shard_actor_robot.h"

static struct rig_client *g;

static void limit(double events, double c)
{
    rig->types[0].rate = events;
    rig->types[1].rate = c;
    shard_retypes(rig->shard, rig->types, rig->n_types);
}

static void begin(double events, double c)
{
    g = robot_begin();
    limit(events, c);
    rig_sub(g, "c:1");
}

static const struct message *publish(const char *key, uint64_t id)
{
    return rig_ask(g, (struct rig_pub){.key = key, .text = "x", .id = id});
}

static const struct message *do_it(const char *key, const char *what, uint64_t id)
{
    char input[64];
    snprintf(input, sizeof input, "\"%s\"", what);
    return robot_call(g,
                      (struct robot_call){
                          .key = key, .verb = VERB_METHOD, .name = "do", .input = input, .id = id});
}

/* "ok5 rate6": the INPUT_ACKs, in order. */
static const char *acks(void)
{
    static char text[256];
    text[0] = '\0';
    for (size_t i = 0; i < rig_count(g, MSG_INPUT_ACK); i++) {
        const struct msg_input_ack *ack = &rig_nth(g, MSG_INPUT_ACK, i)->input_ack;
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%s%s%llu", i ? " " : "",
                 ack->code == NACK_NONE   ? "ok"
                 : ack->code == NACK_RATE ? "rate"
                                          : "other",
                 (unsigned long long)ack->counter);
    }
    return text;
}

START_TEST(publishes_of_a_second_pass)
{
    begin(2, 0);
    ck_pack(publish("k", 1), 1, 0);
    ck_pack(publish("k", 2), 2, 0);
    const struct message *nack = publish("k", 3);
    ck_nack(nack, NACK_RATE);
    ck_assert_uint_eq(nack->nack.retry_ms, 500);
    ck_pack(publish("other", 4), 1, 0);  /* a room of its own */
    ck_pack(publish("c:2", 5), 1, 0);    /* another type has no rate */
    ck_pack(publish("k", 1), 1, 1);      /* known: it costs nothing */
    ck_nack(publish("k", 3), NACK_RATE); /* and neither does what was refused */
    rig_wait(rig, 500);
    ck_pack(publish("k", 3), 3, 0);
    ck_nack(publish("k", 6), NACK_RATE);
    ck_assert(rig_metric(rig, "stoa_publish_total", "result=\"rate\"") == 3);
    robot_end();
}
END_TEST

START_TEST(numbers_and_stale_ids_are_judged_first)
{
    begin(1, 0);
    ck_pack(rig_ask(g, (struct rig_pub){.key = "k", .text = "a", .id = 1, .pid = 5, .pseq = 1}), 1,
            0);
    ck_nack(rig_ask(g, (struct rig_pub){.key = "k", .text = "b", .id = 2, .pid = 5, .pseq = 2}),
            NACK_RATE);
    const struct message *nack =
        rig_ask(g, (struct rig_pub){.key = "k", .text = "c", .id = 3, .pid = 5, .pseq = 3});
    ck_nack(nack, NACK_ORDER); /* the refused one is still the next */
    ck_assert_uint_eq(nack->nack.expected, 2);
    rig_wait(rig, 1000);
    ck_pack(rig_ask(g, (struct rig_pub){.key = "k", .text = "b", .id = 2, .pid = 5, .pseq = 2}), 2,
            0);
    robot_end();
}
END_TEST

START_TEST(a_batch_costs_its_events)
{
    struct slice parts[5];
    for (size_t i = 0; i < 5; i++)
        parts[i] = slice_text("x");
    begin(4, 0);
    const struct rig_pub batch = {.key = "k", .at = parts, .count = 5, .id = 1};
    ck_pack(rig_ask(g, batch), 5, 0); /* larger than the bucket: from a full one */
    ck_nack(publish("k", 2), NACK_RATE);
    rig_wait(rig, 400);
    ck_nack(publish("k", 2), NACK_RATE);
    rig_wait(rig, 100);
    ck_pack(publish("k", 2), 6, 0);
    robot_end();
}
END_TEST

/* A room that nobody knew is kept while its rate has something to count. */
START_TEST(ephemeral_events_cost_as_well)
{
    begin(1, 0);
    const struct rig_pub pub = {.key = "new", .text = "x", .ephemeral = true};
    ck_pack(rig_ask(g, pub), 0, 0);
    ck_nack(rig_ask(g, pub), NACK_RATE);
    rig_wait(rig, 999);
    (void)shard_turn(rig->shard, rig->now);
    shard_validate(rig->shard);
    ck_nack(rig_ask(g, pub), NACK_RATE);
    rig_wait(rig, 1);
    ck_pack(rig_ask(g, pub), 0, 0);
    for (int i = 0; i < 3; i++) {
        rig_wait(rig, 1500);
        (void)shard_turn(rig->shard, rig->now);
        shard_validate(rig->shard);
    }
    robot_end();
}
END_TEST

START_TEST(inputs_beyond_it_are_refused_for_good)
{
    begin(0, 2);
    ck_joined(robot_join(g, "c:1", "s1", "ann", false), 0);
    ck_joined(robot_join(g, "c:1", "s2", "bob", false), 0); /* joining costs nothing */
    for (uint64_t i = 1; i <= 4; i++)
        robot_input(g, "c:1", "s1", i, "say x");
    rig_pump(rig); /* one turn */
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:\"x\" 2:\"x\"");
    ck_assert_str_eq(acks(), "ok2 rate3 rate4");
    rig_forget(g);
    robot_input(g, "c:1", "s1", 3, "say x"); /* said again: passed over, as it was */
    robot_input(g, "c:1", "s2", 1, "say y"); /* all of the room's rate is gone, for everybody */
    rig_pump(rig);
    ck_assert_str_eq(acks(), "ok4 rate1");
    rig_wait(rig, 500);
    rig_forget(g);
    robot_input(g, "c:1", "s1", 5, "say z");
    robot_input(g, "c:1", "s1", 6, "say z");
    rig_pump(rig);
    ck_assert_str_eq(rig_delivered(g, "c:1"), "3:\"z\"");
    ck_assert_str_eq(acks(), "ok5 rate6");
    robot_leave(g, "c:1", "s1", 1000); /* on_close runs, whatever the rate */
    ck_assert(strstr(robot_diary(), "close:s1:1000:clean") != NULL);
    robot_end();
}
END_TEST

/* The counter is on disk with the refusal: what comes next is not taken for a gap. */
START_TEST(a_refusal_survives_the_shard)
{
    begin(0, 1);
    (void)robot_join(g, "c:1", "s1", "ann", false);
    robot_input(g, "c:1", "s1", 1, "say x");
    robot_input(g, "c:1", "s1", 2, "say y");
    rig_pump(rig);
    rig_crash(rig);
    const struct message *joined = robot_join(g, "c:1", "s1", "", true);
    ck_joined(joined, 0);
    ck_assert_uint_eq(joined->joined.counter, 2);
    rig_forget(g);
    rig_sub(g, "c:1");
    robot_input(g, "c:1", "s1", 3, "say z"); /* a new process counts anew */
    rig_pump(rig);
    ck_assert_str_eq(rig_delivered(g, "c:1"), "2:\"z\"");
    robot_end();
}
END_TEST

START_TEST(a_full_disk_gives_back_what_was_taken)
{
    begin(0, 2);
    (void)robot_join(g, "c:1", "s1", "ann", false);
    store_mem_fill(rig->store, 2); /* the next commit succeeds, then one is found out */
    ck_pack(publish("k", 1), 1, 0);
    for (uint64_t i = 1; i <= 3; i++)
        robot_input(g, "c:1", "s1", i, "say x");
    rig_pump(rig);
    ck_assert_str_eq(acks(), "other0 other0");
    store_mem_fill(rig->store, 0);
    rig_wait(rig, 500);
    rig_forget(g);
    for (uint64_t i = 1; i <= 3; i++)
        robot_input(g, "c:1", "s1", i, "say x");
    rig_pump(rig);
    ck_assert_str_eq(acks(), "ok2 rate3");
    robot_end();
}
END_TEST

START_TEST(calls_beyond_it_are_refused_but_not_twice)
{
    begin(0, 2);
    ck_result(do_it("c:1", "inc", 1), 0, "1");
    ck_result(do_it("c:1", "inc", 1), 0, "1"); /* done: it costs nothing */
    ck_result(do_it("c:1", "inc", 2), 0, "2");
    const struct message *nack = do_it("c:1", "inc", 3);
    ck_nack(nack, NACK_RATE);
    ck_assert_uint_eq(nack->nack.retry_ms, 500);
    struct robot_call send = {.key = "c:1", .verb = VERB_SEND, .input = "\"inc\""};
    ck_nack(robot_call(g, send), NACK_RATE);
    send.verb = VERB_BROADCAST;
    ck_nack(robot_call(g, send), NACK_RATE);
    ck_nack(publish("c:1", 9), NACK_RATE);        /* one bucket for all */
    ck_assert_str_eq(robot_state(g, "c:1"), "2"); /* reading is free */
    send.verb = VERB_ALARM;
    ck_result(robot_call(g, send), 0, "");
    ck_result(do_it("c:1", "inc", 1), 0, "1");
    rig_wait(rig, 500);
    ck_result(do_it("c:1", "inc", 3), 0, "3");
    robot_end();
}
END_TEST

START_TEST(siblings_are_not_counted)
{
    begin(0, 0.01);
    ck_result(do_it("c:1", "sib call 2 inc;sib call 2 inc;sib call 2 inc", 1), 0, "3");
    ck_nack(do_it("c:1", "inc", 2), NACK_RATE);
    ck_result(do_it("c:2", "inc", 3), 0, "4");
    ck_nack(do_it("c:2", "inc", 4), NACK_RATE);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    struct message m = {.type = MSG_CALL, .slot = SLOT_UNKNOWN, .key = slice_text("c:2")};
    m.call.verb = VERB_METHOD;
    m.call.name = slice_text("do");
    m.call.input = slice_text("\"inc\"");
    m.call.chain = slice_text("c:far");
    uint64_t cid = rig_send(router, m);
    rig_pump(rig);
    ck_assert_ptr_nonnull(rig_answer(router, cid));
    ck_result(&rig_answer(router, cid)->m, 0, "5");
    robot_end();
}
END_TEST

START_TEST(a_retry_of_a_call_that_waits_is_not_refused)
{
    begin(0, 1);
    ck_assert_ptr_null(do_it("c:1", "sleep 100;inc", 1));
    ck_assert_ptr_null(do_it("c:1", "sleep 100;inc", 1));
    rig_wait(rig, 200);
    size_t results = rig_count(g, MSG_RESULT);
    ck_assert_uint_eq(results, 1);
    ck_assert_str_eq(robot_state(g, "c:1"), "1");
    robot_end();
}
END_TEST

START_TEST(a_reload_changes_it)
{
    begin(1, 0);
    ck_pack(publish("k", 1), 1, 0);
    ck_nack(publish("k", 2), NACK_RATE);
    limit(0, 0);
    ck_pack(publish("k", 2), 2, 0);
    ck_pack(publish("k", 3), 3, 0);
    limit(1, 0);
    ck_nack(publish("k", 4), NACK_RATE); /* what it owed is still there */
    robot_end();
}
END_TEST

/* A room that is put away would forget what it owes. */
START_TEST(a_room_that_owes_stays_in_memory)
{
    begin(1.0 / 3600, 0);
    ck_pack(publish("k", 1), 1, 0);
    struct message m = {.type = MSG_PURGE, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    (void)rig_send(g, m);
    rig_pump(rig);
    rig_wait(rig, 3 * MINUTE_MS);
    ck_nack(publish("k", 2), NACK_RATE);
    robot_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {publishes_of_a_second_pass,
                                  numbers_and_stale_ids_are_judged_first,
                                  a_batch_costs_its_events,
                                  ephemeral_events_cost_as_well,
                                  inputs_beyond_it_are_refused_for_good,
                                  a_refusal_survives_the_shard,
                                  a_full_disk_gives_back_what_was_taken,
                                  calls_beyond_it_are_refused_but_not_twice,
                                  siblings_are_not_counted,
                                  a_retry_of_a_call_that_waits_is_not_refused,
                                  a_reload_changes_it,
                                  a_room_that_owes_stays_in_memory};
    return rig_run("shard_rate", tests, sizeof tests / sizeof *tests);
}
